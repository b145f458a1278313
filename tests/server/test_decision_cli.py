"""The commands by which a maintainer decides: what they print, and that they can be repeated."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from coldfusion_server.services.closing import close_due
from tests.server.repository import MODEL, Repository
from tests.server.test_cli import Run, failed, run  # noqa: F401
from tests.server.test_quarantine import STRICT, held
from tests.server.test_round_decisions import GATE, receipt, rejected, sent
from tests.server.test_round_way import accepted, shown


@pytest.fixture
def gated(empty: Repository) -> Iterator[Repository]:
    """A Repository whose model takes no long step."""
    empty.model(min_contributions=2, gate=GATE)
    yield empty


def test_a_rollback_says_what_it_did(run: Run, repo: Repository) -> None:  # noqa: F811
    assert "never moved" in run("model", "heads", MODEL).out
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    repo.work()
    order = ("model", "rollback", MODEL, "v0", "--reason", "a mistake")
    done = run(*order)
    assert (done.code, done.out) == (0, f"The head of {MODEL} went from v1 to v0.\n")
    assert run(*order, "--json").json()["moved"] is False
    heads = run("model", "heads", MODEL)
    assert [line.split()[2] for line in heads.out.splitlines()[1:]] == ["rollback", "published"]
    missing = run("model", "rollback", MODEL, "v9", "--reason", "x")
    failed(missing, "v9", "such as v0")
    for word in ("first", "latest", "v01", "v1234567890"):
        failed(run("model", "rollback", MODEL, word, "--reason", "x"), word, "Write it like v4.")
    failed(run("verify", MODEL, "v01"), "no base 'v01'")
    failed(run("model", "rollback", MODEL, "v1", "--reason", ""), "reason")
    assert run("model", "rollback", MODEL, "v1").code == 2


def test_what_bisect_prints_can_be_typed(run: Run, gated: Repository) -> None:  # noqa: F811
    ids = rejected(gated, [1e-3, 1.0, 1e-3])
    found = run("round", "bisect", MODEL, "1")
    assert found.code == 0, found.err
    rows = {line.split()[0]: line for line in found.out.splitlines()[1:4]}
    assert "did harm" in rows[ids[1]] and "c2" in rows[ids[1]]
    assert "did harm" not in rows[ids[0]] + rows[ids[2]]
    assert f"Without {ids[1]}" in found.err
    data = run("round", "bisect", MODEL, "1", "--method", "leave-one-out", "--json").json()
    assert (data["named"], data["complete"]) == ([ids[1]], True)
    command = shlex.split(found.out.splitlines()[-1])
    assert command[0] == "coldfusion-server" and command[-1] == "--close"
    done = run(*command[1:], "--reason", "far too long")
    assert done.code == 0, done.err
    assert done.out == "2 of round 1 are in round 2 now; left out: 1. Round 2 is closed.\n"
    assert "far too long" in receipt(gated, ids[1])["reason"]
    failed(run(*command[1:]), "decided on already")
    failed(run("round", "bisect", MODEL, "1"), "decided on already")
    gated.work()
    assert shown(gated, 2)["state"] == "published"


def test_bisect_says_that_it_names_nobody(run: Run, gated: Repository) -> None:  # noqa: F811
    ids = rejected(gated, [1e-3, 1e-3, 1.0])
    client = gated.client(gated.token("c3"))
    assert client.post(f"/v1/contributions/{ids[2]}/withdraw").status_code == 200
    found = run("round", "bisect", MODEL, "1")
    assert found.code == 0, found.err
    assert "All together: does none." in found.err
    assert "nobody is named.\nFuse them all again with:" in found.out
    assert "--without" not in found.out and "did harm" not in found.out
    data = run("round", "bisect", MODEL, "1", "--json").json()
    assert (data["named"], data["suspected"]) == ([], [])
    assert "these do no harm here" in data["note"]


def test_again_says_so_where_it_cannot_close(run: Run, gated: Repository) -> None:  # noqa: F811
    ids = rejected(gated, [1e-3, 1.0])
    left = [word for one in ids for word in ("--without", one)]
    ended = run("round", "again", MODEL, "1", *left, "--close")
    failed(ended, "left out: 2", "It was not closed")
    failed(run("round", "again", MODEL, "2", "--without", "0" * 16), "open")


def test_a_round_is_cancelled_by_its_number_once(run: Run, repo: Repository) -> None:  # noqa: F811
    accepted(repo, [1, 2])
    close_due(repo.ctx)
    # Given twice without a number, it would cancel the next one, too.
    failed(run("round", "cancel", MODEL, "--reason", "x"), f"round cancel {MODEL} 1 --reason")
    first = run("round", "cancel", MODEL, "1", "--reason", "the data were wrong")
    assert (first.code, first.out.split(";")[0]) == (0, f"Round 1 of {MODEL} is cancelled")
    assert run("round", "cancel", MODEL, "1", "--reason", "x").code == 0
    assert shown(repo, "open")["accepted"] == 2
    failed(run("round", "cancel", MODEL, "7", "--reason", "x"), "no round")


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (("--from", "v01"), "'v01' is no base's version"),
        (("--from", "v1234567890"), "'v1234567890' is no base's version"),
        (("--reason", "x" * 501), "reason"),
    ],
)
def test_a_replay_is_asked_for_in_words_that_it_knows(
    run: Run,  # noqa: F811
    repo: Repository,
    wrong: tuple[str, str],
    word: str,
) -> None:
    ended = run("model", "replay", MODEL, "--without", "0" * 16, *wrong)
    failed(ended, word)
    assert "ValidationError" not in ended.err


def test_a_contribution_is_removed_with_a_reason(run: Run, repo: Repository) -> None:  # noqa: F811
    ids = [sent(repo, 1, 1e-3), sent(repo, 2, 1e-3)]
    repo.work()
    close_due(repo.ctx)
    repo.work()
    assert run("contribution", "remove", ids[0]).code == 2
    order = ("contribution", "remove", ids[0], "--reason", "its data are not free", "--erase")
    done = run(*order)
    assert f"{ids[0]} is withdrawn. v1 contains it" in done.out
    assert "Its stored files are given up." in done.out
    assert receipt(repo, ids[0])["reason"] == "Removed by operator: its data are not free"
    again = run(*order, "--json").json()
    assert (again["changed"], again["contained_in"]) == (False, ["v1"])
    failed(run("contribution", "remove", "0" * 16, "--reason", "x"), "no contribution")


def test_what_is_in_quarantine_is_listed_and_decided_on(
    run: Run,  # noqa: F811
    empty: Repository,
) -> None:
    empty.model(min_contributions=2, screening=STRICT)
    empty.model("demo/other", screening=STRICT)
    assert "No contribution is quarantined." in run("contribution", "list").out
    first, second = held(empty, 1), held(empty, 2, model="demo/other")
    listed = run("contribution", "list")
    assert first in listed.out and second in listed.out and "as long as the base" in listed.out
    (one,) = run("contribution", "list", "demo/other", "--json").json()
    assert (one["id"], one["state"]) == (second, "quarantined")
    assert run("contribution", "release", first).code == 2
    done = run("contribution", "release", first, "--reason", "a new language")
    assert (done.code, done.out) == (0, f"{first} is released. It goes into round 1.\n")
    assert (
        "was released before and is accepted"
        in run("contribution", "release", first, "--reason", "x").out
    )
    gone = run("contribution", "reject", second, "--reason", "a copy", "--json").json()
    assert gone["contribution"]["reason"] == "Rejected by operator: a copy"
    failed(run("contribution", "release", second, "--reason", "x"), "rejected, not in quarantine")
    failed(run("contribution", "reject", first, "--reason", " "), "reason")
    assert second in run("contribution", "list", "--state", "rejected").out
