"""A Repository for tests: a fake clock, a tiny model made of numpy, contributors who behave."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient
from pydantic import SecretStr

from coldfusion_server.app import create_app
from coldfusion_server.db.database import Database
from coldfusion_server.db.migrate import migrate
from coldfusion_server.db.tables import RepositoryRow
from coldfusion_server.services import models
from coldfusion_server.services.context import Context, open_provider
from coldfusion_server.services.identity import repository_name
from coldfusion_server.services.tokens import Principal, authenticate, create_token
from coldfusion_server.settings import Settings
from coldfusion_server.storage import ObjectStore
from coldfusion_server.storage.local import LocalStore
from coldfusion_server.worker import work_once
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.tokens import Role
from coldfusion_shared.screening.sketch import KEY_BYTES
from coldfusion_shared.signing.keys import SigningKey
from tests.shared.checkpoints import Array, file_bytes, write_file

MODEL = "demo/tiny"
# Always the same one: data folders are copied, and what is signed in them stays good.
SIGNING_KEY = SigningKey.from_secret(b"a signing secret of the tests' own")
Json = Any
# Updates of random numbers are of any length, and in so small a model some of them happen to lie
# against the others; what screening makes of that is for tests of its own.
ANY_UPDATE = {
    name: {"enabled": False}
    for name in ("direction", "magnitude", "norm", "tensor_outliers", "unrelated")
}


class Clock:
    """A time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **length: float) -> None:
        self.now += timedelta(**length)


def tiny_tensors(seed: int = 0) -> dict[str, Array]:
    """Return a model of six tensors, an integer one and a head among them."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "embeddings.word_embeddings.weight": floats(12, 8),
        "embeddings.position_ids": np.arange(16).reshape(1, 16),
        "encoder.layer.0.dense.weight": floats(8, 8),
        "encoder.layer.0.dense.bias": floats(8),
        "pooler.dense.weight": floats(8, 8),
        "classifier.weight": floats(2, 8),
    }


def tiny_folder(folder: Path, tensors: dict[str, Array] | None = None) -> Path:
    """Write the tiny model as a transformers folder."""
    write_file(folder / "model.safetensors", tensors or tiny_tensors())
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def body_of(tensors: dict[str, Array], seed: int, scale: float = 1e-3) -> dict[str, Array]:
    """Return the body of `tensors` after a finetuning that `seed` decides."""
    rng = np.random.default_rng([seed, 17])
    return {
        name: (array + scale * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in tensors.items()
        if array.dtype == np.float32 and not name.startswith("classifier")
    }


def body_file(seed: int = 1, base: dict[str, Array] | None = None) -> bytes:
    """Return a contribution's file, made from the tiny model."""
    return file_bytes(body_of(base or tiny_tensors(), seed))


def declaration(raw: bytes, base: str = "v0", **changes: Any) -> dict[str, Any]:
    """Return the JSON that announces `raw`."""
    file = {
        "path": "model.safetensors",
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    return {"base": base, "files": [{**file, **changes}]}


@cache
def empty_database() -> bytes:
    """Return the file of a migrated database; to migrate one takes longer than most tests."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        database = Database(f"sqlite:///{file}")
        migrate(database)
        database.close()
        return file.read_bytes()


class Repository:
    """A server without sockets, its clock, and clients to it."""

    def __init__(
        self,
        folder: Path,
        database_url: str | None = None,
        *,
        copied: bool = False,
        store: ObjectStore | None = None,
        seconds: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        values = {"part_bytes": 64 * 1024, "min_free_bytes": 0, **settings}
        self.settings = Settings(
            data_dir=folder,
            database_url=None if database_url is None else SecretStr(database_url),
            **values,
        )
        self.clock = Clock()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # For real programs on this folder: a key that is lost is not made anew.
        (folder / "signing-key.pem").write_bytes(SIGNING_KEY.pem)
        self.ctx = Context(
            settings=self.settings,
            database=Database(self.settings.database),
            store=store or LocalStore(folder),
            secret=b"a secret of the tests' own",
            signing_key=SIGNING_KEY,
            provider=open_provider(self.settings),
            now=self.clock,
            seconds=seconds,
        )
        file = folder / "coldfusion.db"
        if not copied and database_url is not None:
            migrate(self.ctx.database)
        elif not copied and not file.exists():
            file.write_bytes(empty_database())
        self.app = create_app(self.ctx)

    def model(
        self,
        name: str = MODEL,
        tensors: dict[str, Array] | None = None,
        *,
        public: bool = True,
        **policy: Any,
    ) -> str:
        """Make a model and return its name."""
        source = tiny_folder(self.folder / f"source-{secrets.token_hex(4)}", tensors)
        rules = Policy(**{"screening": ANY_UPDATE, **policy})
        models.create_model(self.ctx, name, source, "tests", rules, public=public)
        return name

    def token(
        self,
        name: str = "ann",
        role: str = "contributor",
        models: list[str] | None = None,
        **lifetime: float,
    ) -> str:
        """Return a new token, for all models or some."""
        life = timedelta(**lifetime) if lifetime else None
        return create_token(self.ctx, name, Role(role), life, models)[0]

    def principal(self, name: str = "ann", role: str = "contributor") -> Principal:
        """Return somebody of that role."""
        return authenticate(self.ctx, self.token(name, role))

    def client(self, token: str | None = None) -> TestClient:
        """Return a client; a failure inside is seen as status 500, as in life."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return TestClient(self.app, headers=headers, raise_server_exceptions=False)

    def contributor(self, name: str = "ann") -> Contributor:
        """Return a contributor with a token."""
        return Contributor(self, name, self.client(self.token(name)))

    def work(self, limit: int = 100) -> int:
        """Let a worker do all that there is; return how many pieces of work it did."""
        for done in range(limit):
            if not work_once(self.ctx, "worker"):
                return done
        raise AssertionError("the worker never ends")

    def get(self, path: str, token: str | None = None) -> Json:
        """Return the JSON at `path`, which has to be there."""
        answer = self.client(token).get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


class Contributor:
    """Declares, uploads and completes."""

    def __init__(self, repository: Repository, name: str, client: TestClient) -> None:
        self.repository = repository
        self.name = name
        self.client = client

    def declare(
        self, raw: bytes, *, model: str = MODEL, base: str = "v0", key: str | None = None, **c: Any
    ) -> Any:
        """Post a declaration and return the response."""
        return self.client.post(
            f"/v1/models/{model}/contributions",
            json=declaration(raw, base, **c),
            headers={"Idempotency-Key": key or secrets.token_hex(16)},
        )

    def upload(self, plan: Json, raw: bytes) -> None:
        """Put what the plan says is missing, without a token, as the protocol has it."""
        (file,) = plan["files"]
        anonymous = self.repository.client()
        for part in file["parts"]:
            if part["url"] is not None:
                start = (part["number"] - 1) * file["part_size"]
                ours = part["url"].startswith(str(anonymous.base_url))
                put = anonymous.put if ours else httpx.put
                answer = put(part["url"], content=raw[start : start + part["size"]])
                assert answer.status_code == 200, answer.text

    def sent(self, raw: bytes, **where: Any) -> str:
        """Declare and upload; return the contribution's id."""
        answer = self.declare(raw, **where)
        assert answer.status_code == 201, answer.text
        self.upload(answer.json()["upload"], raw)
        return str(answer.json()["contribution"]["id"])

    def complete(self, contribution: str) -> Any:
        """Say that all was sent and return the response."""
        return self.client.post(f"/v1/contributions/{contribution}/complete")

    def contribute(self, raw: bytes, **where: Any) -> str:
        """Go the whole way up to screening; return the contribution's id."""
        contribution = self.sent(raw, **where)
        answer = self.complete(contribution)
        assert answer.status_code == 200, answer.text
        return contribution

    def receipt(self, contribution: str) -> Json:
        """Return the contribution as the API shows it."""
        return self.repository.get(f"/v1/contributions/{contribution}", None)


def fix_sketches(repo: Repository) -> None:
    """
    Let the sketches of a Repository be those of always the same key.

    How far a sketch is off depends on its key, and for some keys, of so small a model, by much.
    """
    repository_name(repo.ctx)
    with repo.ctx.database.write() as session:
        session.query(RepositoryRow).one().screening_key = "5e" * KEY_BYTES


def memory() -> str | None:
    """Return a folder in memory, for what does many rounds: syncs of a disk take longest of all."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def repository(
    folder: Path,
    database_url: str | None = None,
    *,
    copied: bool = False,
    store: ObjectStore | None = None,
    **settings: Any,
) -> Iterator[Repository]:
    """Open a Repository in `folder` and close it afterwards."""
    opened = Repository(folder, database_url, copied=copied, store=store, **settings)
    try:
        yield opened
    finally:
        opened.ctx.close()
