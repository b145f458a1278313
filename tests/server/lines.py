"""Lines of bases for tests: rounds with late contributions, and what is stored of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coldfusion_server.services.closing import close_by_hand
from coldfusion_shared.schemas.bases import Manifest
from coldfusion_shared.schemas.files import FileEntry
from tests.server.repository import MODEL, Json, Repository, tiny_tensors
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes, read_file


def coarse_tensors() -> dict[str, Array]:
    """Return the tiny model in bfloat16."""
    return {
        name: array.astype(BFLOAT16) if array.dtype == np.float32 else array
        for name, array in tiny_tensors().items()
    }


def manifest_of(repo: Repository, version: str) -> Manifest:
    """Return a base's manifest."""
    shown = repo.get(f"/v1/models/{MODEL}/bases/{version}")
    return Manifest.model_validate(shown["manifest"])


def stored(repo: Repository, file: FileEntry) -> bytes:
    """Return a stored file."""
    path = repo.ctx.store.local_path(file.sha256)
    assert path is not None
    return path.read_bytes()


def weights_of(repo: Repository, manifest: Manifest) -> bytes:
    """Return the weights of a base, or of a candidate."""
    (file,) = [file for file in manifest.files if file.path == "model.safetensors"]
    return stored(repo, file)


def finetuned(base: bytes, seed: int) -> bytes:
    """Return what a contributor makes of the weights `base`, in float32."""
    rng = np.random.default_rng([seed, 23])
    return file_bytes(
        {
            name: (array.astype(np.float32) + 2e-2 * rng.standard_normal(array.shape)).astype(
                np.float32
            )
            for name, array in read_file(base).items()
            if array.dtype in (np.float32, BFLOAT16) and not name.startswith("classifier")
        }
    )


@dataclass
class Line:
    """
    A Repository whose rounds take what they are given.

    Attributes:
        raws: files of contributions by id.
        owns: what each was made from: the number of its base.
    """

    repo: Repository
    raws: dict[str, bytes] = field(default_factory=dict)
    owns: dict[str, int] = field(default_factory=dict)

    def base(self, number: int) -> bytes:
        """Return the weights of a base."""
        return weights_of(self.repo, manifest_of(self.repo, f"v{number}"))

    def accepted(self, seeds: dict[int, int]) -> list[str]:
        """Have contributions accepted, by their seeds and base numbers; return their ids."""
        ids = []
        for seed, number in seeds.items():
            raw = finetuned(self.base(number), seed)
            who = self.repo.contributor(f"c{seed}")
            identity = who.contribute(raw, base=f"v{number}")
            self.repo.work()
            assert who.receipt(identity)["state"] == "accepted", who.receipt(identity)
            self.raws[identity], self.owns[identity] = raw, number
            ids.append(identity)
        return ids

    def round(self, seeds: dict[int, int]) -> list[str]:
        """Fuse contributions by their seeds and base numbers; return their ids, in order."""
        ids = self.accepted(seeds)
        close_by_hand(self.repo.ctx, MODEL, "open", self.repo.principal("max", "maintainer"))
        self.repo.work()
        return ids


def three_rounds(repo: Repository) -> tuple[Line, list[list[str]]]:
    """Make v1, v2 and v3, the last two with late contributions; return the ids by round."""
    line = Line(repo)
    ids = [
        line.round({1: 0, 2: 0, 3: 0}),
        line.round({4: 1, 5: 1, 6: 0}),
        line.round({7: 2, 8: 1, 9: 2}),
    ]
    return line, ids


def replay(repo: Repository, action: str = "", *, status: int = 200, **body: Any) -> Json:
    """Ask for a replay, or do something with one, as a maintainer."""
    client = repo.client(repo.token("max", "maintainer"))
    path = f"/v1/models/{MODEL}/replays{action}"
    answer = client.post(path, json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


def shown(repo: Repository, identity: str) -> Json:
    """Return a replay as the API shows it."""
    return repo.get(f"/v1/models/{MODEL}/replays/{identity}", repo.token("max", "maintainer"))
