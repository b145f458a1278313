"""Lines whose rounds a running server fuses, through the client that contributors use."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from coldfusion_client import Client
from coldfusion_client.api import Api
from coldfusion_client.opening import open_api
from coldfusion_shared.errors import (
    AlreadyContributed,
    Conflict,
    ContributionRejected,
    InvalidRequest,
    ModelNotFound,
    StateConflict,
)
from coldfusion_shared.evaluate.base_digest import base_digest
from coldfusion_shared.rounds.states import ENDS, RoundState
from coldfusion_shared.schemas.bases import WEIGHTS_FILE, Manifest
from coldfusion_shared.schemas.models import Policy
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.digests import file_sha256
from coldfusion_shared.weights.write import write_body
from experiments.cache import MODEL
from experiments.lab import Lab, Model
from experiments.steps.fusing import Update

# Tokens of contributors, separated by commas; each contribution of a round is the next one's.
CONTRIBUTORS, MAINTAINER = "COLDFUSION_TOKENS", "COLDFUSION_MAINTAINER_TOKEN"
POLL_SECONDS = 0.2
# What a model's policy keeps of its own: what is fused, and how, does not depend on it, but for
# what screening rejects, which is noted.
KEPT = ("screening", "keep_contributions")


@dataclass
class Repository:
    """
    A server, and who we are there.

    Attributes:
        url: of the server.
        prefix: owner/name that the models of its lines begin with: each arm and seed has a model.
        cache: folder for what is downloaded.
        tokens: of contributors.
        maintainer: token that sets policies and closes rounds.
        api: as the maintainer.
    """

    url: str
    prefix: str
    cache: Path
    tokens: Sequence[str] = field(repr=False)
    maintainer: str = field(repr=False)
    api: Api = field(repr=False)

    @classmethod
    def of(cls, url: str, prefix: str, cache: Path) -> Repository:
        """
        Return the server at `url`, with the tokens of the environment.

        Raises:
            InvalidRequest: a token is missing.
        """
        tokens = [one.strip() for one in os.environ.get(CONTRIBUTORS, "").split(",") if one.strip()]
        maintainer = os.environ.get(MAINTAINER, "").strip()
        if not tokens or not maintainer:
            raise InvalidRequest(
                "A run by a server needs tokens.",
                hint=f"Set {CONTRIBUTORS} to those of contributors, separated by commas, and "
                f"{MAINTAINER} to one of a maintainer of the models.",
            )
        api = open_api(url, maintainer, lambda _: None)
        return cls(url, prefix, cache, tokens, maintainer, api)

    def close(self) -> None:
        """Close the connections."""
        self.api.connection.close()

    def client(self, token: str) -> Client:
        """Return the client of one of us."""
        return Client(self.url, token, cache=self.cache)

    def model_of(self, arm: str, seed: int) -> str:
        """Return the name of a line's model."""
        return f"{self.prefix}-{re.sub(r'[^a-z0-9]+', '-', arm.lower()).strip('-')}-{seed}"

    def begin(self, lab: Lab, arm: str, seed: int, recipe: Recipe) -> Served | None:
        """
        Return a line's model, whose policy is nothing but `recipe` now; null while planning.

        Raises:
            ModelNotFound: there is no such model; an operator has to create it.
            Conflict: its first base is not the run's.
        """
        if lab.planning:
            return None
        name = self.model_of(arm, seed)
        try:
            found = self.api.model(name)
        except ModelNotFound as error:
            raise ModelNotFound(error.message, hint=_creating(lab, name)) from None
        # No gate, no line search, no weights: none of them would be there without a server.
        own = {field: getattr(found.policy, field) for field in KEPT}
        policy = Policy(**recipe.model_dump(), **own, by_hand=True)
        if policy != found.policy:
            path = f"/v1/models/{name}/policy"
            self.api.connection.call("PUT", path, json=policy.model_dump(mode="json"))
        served = Served(self, name, arm, seed, recipe)
        if base_digest(served.pulled("v0")) != lab.pretrained.digest:
            raise Conflict(
                f"The first base of {name} is not the base of this run.", hint=_creating(lab, name)
            )
        return served


def _creating(lab: Lab, name: str) -> str:
    command = f"coldfusion-server model create {name} --from {lab.pretrained.folder()}"
    return f"Whoever runs the server creates it: {command}"


@dataclass
class Served:
    """One line's model on the server."""

    repository: Repository
    name: str
    arm: str
    seed: int
    recipe: Recipe
    version: int = 0

    def fused(self, lab: Lab, base: Model, updates: Sequence[Update]) -> Model:
        """
        Return the base that the server makes of `updates`, which are contributed in their order.

        What screening rejects is noted and left out.

        Raises:
            Conflict: somebody else contributes, too, or has before; or it did not publish what it
                made.
        """
        inputs = {
            "server": [self.repository.url, self.name, self.version],
            "base": base.digest,
            "updates": [[update.name, update.model.digest] for update in updates],
            "recipe": self.recipe.model_dump(mode="json"),
        }
        before = f"v{self.version}"
        self.version += 1
        after = f"v{self.version}"

        def build(folder: Path) -> dict[str, Any]:
            rejected = {}
            if self._newest() < self.version:
                rejected = self._contribute(updates, before)
                self._close(len(updates) - len(rejected))
            manifest = self.repository.api.base(self.name, after).manifest
            left_out = self._left_out(manifest, base, updates)
            with self.repository.client(self.repository.maintainer) as client:
                client.pull(self.name, after, folder / MODEL)
            told = [f"{name}: {rejected.get(name, 'it was rejected')}" for name in left_out]
            return {"server_lr": manifest.server_lr, "rejected": told}

        found = lab.make_model("serve", f"{self.name} {after}", inputs, len(updates), build)
        for sentence in found.facts["rejected"]:
            lab.note("failure", self.arm, iteration=self.version, seed=self.seed, note=sentence)
        return found

    def pulled(self, version: str) -> Path:
        """Return the folder of one of its bases."""
        out = self.repository.cache / "bases" / self.name.replace("/", "-") / version
        with self.repository.client(self.repository.maintainer) as client:
            return client.pull(self.name, version, out)

    def _newest(self) -> int:
        return int(self.repository.api.model(self.name).current.removeprefix("v"))

    def _left_out(self, manifest: Manifest, base: Model, updates: Sequence[Update]) -> list[str]:
        """Return the names of the updates that a base is not made of; raises `Conflict`."""
        sent = {digest: name for name, digest in _sent(base, updates).items()}
        fused = [
            file.sha256 for one in manifest.contributions
            for file in one.files if file.path == WEIGHTS_FILE
        ]  # fmt: skip
        ours = [digest for digest in sent if digest in fused]
        if manifest.recipe != self.recipe or fused != ours:
            raise Conflict(
                f"{manifest.version} of {self.name} is there, and is not what this run makes: it "
                "was fused by another recipe, or from other contributions.",
                hint="Begin with models that nobody has contributed to, with another --model.",
            )
        return [name for digest, name in sent.items() if digest not in fused]

    def _contribute(self, updates: Sequence[Update], version: str) -> dict[str, str]:
        """Send all, and return why some were rejected, by their names."""
        tokens, rejected = self.repository.tokens, dict[str, str]()
        for place, update in enumerate(updates):
            with self.repository.client(tokens[place % len(tokens)]) as client:
                try:
                    client.contribute(self.name, update.model.folder(), version)
                except AlreadyContributed:
                    # By this run, before it was interrupted.
                    continue
                except ContributionRejected as error:
                    rejected[update.name] = error.message
        return rejected

    def _close(self, count: int) -> None:
        api = self.repository.api
        found = api.round(self.name, api.model(self.name).open_round or "current")
        if found.accepted != count:
            raise Conflict(
                f"The round of {self.name} has {found.accepted} accepted contributions, and not "
                f"the run's {count}: {found.needs or 'see its page'}",
                hint="Begin with models that nobody else contributes to.",
            )
        # Its policy may be quicker.
        with suppress(StateConflict):
            path = f"/v1/models/{self.name}/rounds/{found.number}/close"
            api.connection.call("POST", path, json={})
        while (state := api.round(self.name, found.number)).state != RoundState.PUBLISHED:
            if state.state in ENDS:
                raise Conflict(f"The round of {self.name} was not published: {state.reason}")
            time.sleep(POLL_SECONDS)


def _sent(base: Model, updates: Sequence[Update]) -> dict[str, str]:
    """Return the SHA-256 of each update as it is sent: the body, under the base's names."""
    digests = {}
    with TemporaryDirectory() as folder, Checkpoint.from_folder(base.folder()) as ours:
        file = Path(folder) / WEIGHTS_FILE
        for update in updates:
            with Checkpoint.from_folder(update.model.folder()) as theirs:
                write_body(theirs, ours, file)
            digests[update.name] = file_sha256(file)
    return digests
