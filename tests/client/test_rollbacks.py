"""The newest base is an older one again, or a contribution is taken back: what a client says."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from coldfusion_client import trust
from coldfusion_client.api import Api
from coldfusion_client.newer import NewerBase
from coldfusion_client.pull import pull
from coldfusion_client.rollbacks import find_rollback
from coldfusion_client.source import Source
from coldfusion_shared.errors import HistoryChanged
from coldfusion_shared.schemas.contributions import Declaration
from coldfusion_shared.schemas.files import FileEntry
from tests.client.helpers import SERVER, Notes, model_files
from tests.client.repository import MODEL, Repository
from tests.client.test_cli import Run, logged_in, run  # noqa: F401
from tests.client.test_newer import until

REASON = "it forgot the second task"


@pytest.fixture
def back(repository: Repository) -> Callable[[], None]:
    return lambda: repository.roll_back(REASON)


def test_a_folder_with_what_was_taken_back_has_its_own_exit_code(
    run: Run,  # noqa: F811
    logged_in: str,  # noqa: F811
    repository: Repository,
    back: Callable[[], None],
) -> None:
    folder = str(Path("base").absolute())
    order = ("pull", MODEL, "--out", "base", "--if-newer")
    repository.publish(model_files(1))
    assert run(*order).code == 0
    back()
    told = run(*order)
    assert (told.code, told.out) == (13, folder + "\n")
    assert REASON in told.err and "from v1 to v0" in told.err
    assert f"coldfusion-client pull {MODEL} --out {folder}" in told.err
    assert told.err.count(REASON) == 1
    document = run(*order, "--json")
    assert document.code == 13
    assert (document.json["version"], document.json["updated"]) == ("v1", False)
    assert document.json["rolled_back"]["reason"] == REASON
    # The command that it names gets it.
    assert run("pull", MODEL, "--out", folder).code == 0
    record = json.loads(Path("base/coldfusion.json").read_text())
    assert record["manifest"]["version"] == "v0"
    assert run(*order).code == 3


def test_a_signed_head_tells_by_itself_that_it_was_taken_back_and_once(
    source: Source, repository: Repository, notes: Notes, tmp_path: Path
) -> None:
    repository.publish(model_files(1))
    folder = tmp_path / "model"
    pull(source, MODEL, "latest", folder)
    repository.roll_back("the first time")
    repository.publish(model_files(1))
    repository.roll_back(REASON)
    gone = httpx.Response(404, json={"code": "not_found", "detail": "There is no such thing."})
    repository.faults.append(lambda r: gone if r.url.path.endswith("/heads") else None)
    again = pull(source, MODEL, "latest", folder, only_newer=True)
    assert again.rolled_back is not None and again.rolled_back.reason == REASON
    assert notes.warned == []  # Who has asked tells it.
    assert pull(source, MODEL, "latest", folder).version == "v0"


def test_a_signed_head_below_the_folder_without_a_word_is_refused(
    source: Source, repository: Repository, tmp_path: Path
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", tmp_path / "model")
    assert trust.forget(SERVER)  # As where the folder was copied to another machine.
    repository.bases.pop()
    with pytest.raises(HistoryChanged, match="v1 and is v0 now"):
        pull(source, MODEL, "latest", tmp_path / "model", only_newer=True)


def test_of_two_rollbacks_the_newest_is_told(
    source: Source, repository: Repository, notes: Notes, tmp_path: Path
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", tmp_path / "model")
    repository.roll_back("the first time")
    repository.publish(model_files(1))
    repository.roll_back(REASON)
    assert pull(source, MODEL, "latest", tmp_path / "model").version == "v0"
    assert len(notes.warned) == 1 and REASON in notes.warned[0]


def test_who_never_had_what_was_taken_back_hears_nothing(
    source: Source, repository: Repository, back: Callable[[], None], tmp_path: Path
) -> None:
    pull(source, MODEL, "latest", tmp_path / "model")
    repository.publish(model_files(1))
    back()
    again = pull(source, MODEL, "latest", tmp_path / "model", only_newer=True)
    assert (again.version, again.updated, again.rolled_back) == ("v0", False, None)


def test_an_older_base_by_name_is_no_rollback(
    source: Source, repository: Repository, back: Callable[[], None], tmp_path: Path
) -> None:
    repository.publish(model_files(1))
    pull(source, MODEL, "latest", tmp_path / "model")
    back()
    again = pull(source, MODEL, "v0", tmp_path / "model", only_newer=True)
    assert (again.version, again.rolled_back) == ("v1", None)


def move(before: int, after: int, kind: str = "rollback") -> dict[str, Any]:
    at = "2026-11-21T00:00:00Z"
    return {"kind": kind, "before": f"v{before}", "after": f"v{after}", "at": at, "reason": None}


@pytest.mark.parametrize(
    ("moves", "held", "found"),
    [
        ([], 3, None),
        ([(5, 3)], 5, (5, 3)),
        ([(5, 3)], 4, (5, 3)),
        ([(5, 3)], 3, None),
        ([(5, 3)], 6, None),
        # Newest first: what was left last counts, and what was passed before is found.
        ([(3, 2), (5, 3)], 5, (5, 3)),
        ([(6, 1), (5, 3)], 5, (6, 1)),
        ([(2, 5), (5, 2)], 5, (5, 2)),
    ],
)
def test_the_move_that_left_a_base_is_found(
    connect: Callable[..., Api], repository: Repository, moves: Any, held: int, found: Any
) -> None:
    repository.went_back = [move(*pair) for pair in moves]
    left = find_rollback(connect(), MODEL, f"v{held}")
    assert (None if left is None else (left.before, left.after)) == (
        None if found is None else (f"v{found[0]}", f"v{found[1]}")
    )


def test_who_finetunes_what_is_taken_back_is_told(
    connect: Callable[..., Api],
    repository: Repository,
    notes: Notes,
    back: Callable[[], None],
) -> None:
    repository.publish(model_files(1))
    with NewerBase(connect(), MODEL, "v1", notes, every=0.005):
        until(lambda: len(repository.requests) > 2)
        assert notes.warned == []
        back()
        until(lambda: notes.warned)
    assert REASON in notes.warned[0] and "You finetune v1" in notes.warned[0]


# Withdrawing.


@pytest.fixture
def contributed(repository: Repository) -> str:
    content = model_files()["model.safetensors"]
    digest = hashlib.sha256(content).hexdigest()
    entry = FileEntry(path="model.safetensors", size=len(content), sha256=digest)
    return repository._add(Declaration(base="v0", files=[entry]))


class Answers(io.StringIO):
    """A terminal at which somebody answers."""

    def isatty(self) -> bool:
        return True


def test_a_withdrawal_is_asked_for_once(
    run: Run,  # noqa: F811
    logged_in: str,  # noqa: F811
    repository: Repository,
    contributed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    nobody = run("withdraw", contributed)
    assert nobody.code == 2 and "--yes" in nobody.err
    monkeypatch.setattr(sys, "stdin", Answers("n\n"))
    refused = run("withdraw", contributed)
    assert (refused.code, refused.out) == (130, "") and "Nothing was changed" in refused.err
    assert repository.contributions[contributed]["state"] == "declared"
    monkeypatch.setattr(sys, "stdin", Answers("y\n"))
    done = run("withdraw", contributed, "--erase")
    assert (done.code, done.out) == (0, f"{contributed} is withdrawn.\n")
    assert "delete its stored files" in done.err
    sent = json.loads(repository.seen("POST", "/withdraw")[-1].content)
    assert sent == {"reason": None, "erase": True}
    again = run("withdraw", contributed, "--yes", "--json")
    assert (again.code, again.json["changed"]) == (0, False)
    assert run("withdraw", "c404", "--yes").code == 5
