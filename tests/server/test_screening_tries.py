"""Screening that does not end: it holds up nobody else, and not its own round for ever."""

from __future__ import annotations

from typing import Any

import pytest

from coldfusion_server.services import screening
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.heartbeat import WorkStopped
from coldfusion_server.worker import work_once
from coldfusion_shared.errors import StorageUnavailable
from tests.server.backends import both_databases
from tests.server.repository import Repository, body_file

MINUTES = 10


class Died(BaseException):
    """What stands for the death of a worker's process."""


def ending(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let screening end with `error`; return a list that grows with each try."""
    tries: list[int] = []

    def broken(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise error

    monkeypatch.setattr(screening, "screen", broken)
    return tries


def turn(repo: Repository, error: type[BaseException] | None = None) -> None:
    """Let a worker have one look, and time pass."""
    if error is None:
        work_once(repo.ctx, "worker")
    else:
        with pytest.raises(error):
            work_once(repo.ctx, "worker")
    repo.clock.advance(minutes=MINUTES)


def state(repo: Repository, contribution: str) -> str:
    return str(repo.contributor().receipt(contribution)["state"])


def test_one_that_breaks_screening_is_rejected_after_some_tries(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, raw = repo.contributor(), body_file(1)
    with monkeypatch.context() as patch:
        tries = ending(RuntimeError("a fault of ours"), patch)
        poison = ann.contribute(raw)
        for _ in range(screening.MAX_TRIES):
            assert state(repo, poison) == "completed"
            turn(repo)
        turn(repo)
    assert len(tries) == screening.MAX_TRIES
    receipt = ann.receipt(poison)
    assert receipt["state"] == "rejected"
    assert "failed 5 times to screen this" in receipt["reason"]
    assert "maintainers" in receipt["hint"]
    assert repo.ctx.store.pending_uploads() == []

    # Mended, the very same command has it accepted, and the round closes.
    again, other = ann.contribute(raw), repo.contributor("bob").contribute(body_file(2))
    repo.work()
    assert [state(repo, one) for one in (again, other)] == ["accepted", "accepted"]
    assert close_due(repo.ctx) == 1


def test_a_try_that_broke_is_made_again_later_and_later(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = ending(RuntimeError("a fault of ours"), monkeypatch)
    repo.contributor().contribute(body_file(1))
    begun: list[int] = []
    for second in range(100):
        work_once(repo.ctx, "worker")
        if len(tries) > len(begun):
            begun.append(second)
        repo.clock.advance(seconds=1)
    assert begun == [0, 10, 30, 70]


def test_others_are_screened_meanwhile(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        ending(RuntimeError("a fault of ours"), patch)
        poison = repo.contributor().contribute(body_file(1))
        work_once(repo.ctx, "worker")
    other = repo.contributor("bob").contribute(body_file(2))
    repo.work()
    assert [state(repo, one) for one in (poison, other)] == ["completed", "accepted"]


@both_databases
def test_one_that_kills_its_worker_is_rejected_too(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = ending(Died(), monkeypatch)
    poison = repo.contributor().contribute(body_file(1))
    for _ in range(screening.MAX_TRIES):
        turn(repo, Died)
    turn(repo)
    assert len(tries) == screening.MAX_TRIES
    assert state(repo, poison) == "rejected"


@pytest.mark.parametrize("error", [StorageUnavailable("The store is away."), WorkStopped()])
def test_what_is_no_fault_of_it_does_not_count(
    repo: Repository, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        tries = ending(error, patch)
        waiting = repo.contributor().contribute(body_file(1))
        for _ in range(2 * screening.MAX_TRIES):
            turn(repo, WorkStopped if isinstance(error, WorkStopped) else None)
        reason = repo.contributor().receipt(waiting)["reason"]
        assert (reason is None) == isinstance(error, WorkStopped)
        assert reason is None or "The store is away." in reason
    assert len(tries) == 2 * screening.MAX_TRIES
    repo.work()
    assert state(repo, waiting) == "accepted"
    assert repo.contributor().receipt(waiting)["reason"] is None
