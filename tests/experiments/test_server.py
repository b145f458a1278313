"""A run whose rounds a real server fuses makes the same bases as one without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coldfusion_shared.errors import Conflict, InvalidRequest, ModelNotFound
from experiments.records import Record, read
from experiments.repository import CONTRIBUTORS, MAINTAINER
from experiments.runs import CACHE, RECORDS, begin, perform
from tests.e2e.programs import Server
from tests.experiments.conftest import Inputs
from tests.experiments.small import tiny_base
from tests.server.repository import ANY_UPDATE

pytestmark = pytest.mark.usefixtures("one_thread")
PREFIX, PROTOCOL = "lab/run", "federated"
LINE = f"{PREFIX}-cold-0"
SIZES = {"seeds": 1, "rounds": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("repository") / "data")
    server.start()
    try:
        server.command("model", "create", LINE, "--from", str(inputs.base), "--public")
        # Bases of so few weights have updates that screening finds odd.
        change(server, screening=ANY_UPDATE)
        yield server
    finally:
        server.end()


def change(server: Server, **fields: Any) -> None:
    """Give the line's model another policy."""
    headers = {"Authorization": f"Bearer {server.admin}"}
    policy = {**server.get(f"/models/{LINE}")["policy"], **fields}
    url = f"{server.url}/v1/models/{LINE}/policy"
    answer = httpx.put(url, json=policy, headers=headers, trust_env=False, timeout=120)
    answer.raise_for_status()


@pytest.fixture
def tokens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    people = [
        server.command("token", "create", name, "--role", "contributor") for name in ("ann", "bob")
    ]
    monkeypatch.setenv(CONTRIBUTORS, ",".join(one.split()[-1] for one in people))
    monkeypatch.setenv(MAINTAINER, server.admin)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def scores(out: Path) -> list[Record]:
    """Return a run's scores, with the digests of what was scored."""
    found = (one for one in read(out / RECORDS) if one.kind in ("score", "mean", "difference"))
    return [one.model_copy(update={"seconds": None}) for one in found]


@pytest.mark.usefixtures("tokens")
def test_the_same_seeds_make_the_same_bases(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    here, there, other, recipe = (tmp_path / name for name in ("here", "there", "other", "recipe"))
    # Something that a run without a server does not have.
    change(server, contributor_weights={"ann": 3.0}, max_share_per_contributor=0.5)
    begin(here, PROTOCOL, "tiny", inputs.base, inputs.data, SIZES, "cpu")
    begin(there, PROTOCOL, "tiny", inputs.base, inputs.data, SIZES, "cpu", server.url, PREFIX)
    perform(here, quiet=True)
    perform(there, quiet=True)
    bases = [one.base for one in scores(here) if one.kind == "score"]
    assert len(set(bases)) == 3
    assert scores(there) == scores(here)
    current = server.get(f"/models/{LINE}")["current"]
    assert current == "v2"
    # Once more: what the server has made is there.
    perform(there, quiet=True)
    assert scores(there) == scores(here)
    assert server.get(f"/models/{LINE}")["current"] == current
    policy = server.get(f"/models/{LINE}")["policy"]
    assert policy["contributor_weights"] == {} and policy["screening"] == ANY_UPDATE
    # What another run has made there is not taken for this one's.
    given = {**SIZES, "examples": 8}
    begin(other, PROTOCOL, "tiny", inputs.base, inputs.data, given, "cpu", server.url, PREFIX)
    with pytest.raises(Conflict, match="v1 of lab/run-cold-0 is there, and is not what this run"):
        perform(other, quiet=True)
    # Nor what another recipe has made of the same contributions.
    pulled: dict[str, Any] = {**SIZES, "recipe": {"pull": 0.5}}
    begin(recipe, PROTOCOL, "tiny", inputs.base, inputs.data, pulled, "cpu", server.url, PREFIX)
    with pytest.raises(Conflict, match="another recipe"):
        perform(recipe, tmp_path / "there" / CACHE, quiet=True)


@pytest.mark.usefixtures("tokens")
def test_another_first_base_is_refused(server: Server, inputs: Inputs, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    begin(tmp_path / "run", PROTOCOL, "tiny", other, inputs.data, SIZES, "cpu", server.url, PREFIX)
    with pytest.raises(Conflict, match="is not the base of this run"):
        perform(tmp_path / "run", quiet=True)


@pytest.mark.usefixtures("tokens")
def test_a_model_that_is_not_there_has_to_be_created(
    server: Server, inputs: Inputs, tmp_path: Path
) -> None:
    begin(
        tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, SIZES, "cpu", server.url, "lab/other"
    )
    with pytest.raises(ModelNotFound) as error:
        perform(tmp_path, quiet=True)
    assert "model create lab/other-cold-0" in (error.value.hint or "")


def test_without_tokens_it_is_said_which(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONTRIBUTORS, raising=False)
    begin(
        tmp_path, PROTOCOL, "tiny", inputs.base, inputs.data, SIZES, "cpu",
        "http://127.0.0.1:9", PREFIX,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="needs tokens"):
        perform(tmp_path, quiet=True)
