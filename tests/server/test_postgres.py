"""What another database could do differently: locks, races, order of events, texts it refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from coldfusion_server.db.tables import ContributionRow
from coldfusion_server.events import outbox
from coldfusion_server.services import contributions, leases
from coldfusion_server.services.health import examine
from coldfusion_server.services.rounds import close_due
from coldfusion_server.worker import work_once
from coldfusion_shared.schemas.bases import Manifest
from tests.server.postgres import new_database
from tests.server.repository import MODEL, Repository, body_file, body_of, tiny_tensors
from tests.server.test_round_way import events, race, run, weights_of
from tests.shared.checkpoints import file_bytes, read_file


@pytest.fixture
def repo(tmp_path: Path, postgres: str) -> Iterator[Repository]:
    opened = Repository(tmp_path / "data", new_database(postgres))
    yield opened
    opened.ctx.close()


def test_two_rounds_go_their_way(repo: Repository) -> None:
    repo.model()
    tensors, base = tiny_tensors(), "v0"
    for number in (1, 2):
        for name in ("ann", "bob"):
            raw = file_bytes(body_of(tensors, 10 * number + len(events(repo, "base.published"))
                                     + (name == "bob")))  # fmt: skip
            repo.contributor(name).contribute(raw, base=base)
        repo.work()
        assert close_due(repo.ctx) == 1
        repo.work()
        base = f"v{number}"
        tensors = read_file(weights_of(repo, base))
    shown = repo.get(f"/v1/models/{MODEL}/bases/v2")
    assert Manifest.model_validate(shown["manifest"]).digest() == shown["digest"]
    assert repo.get("/readyz") == {"status": "ok"}
    wrong = {finding.subject for finding in examine(repo.ctx) if not finding.ok}
    assert wrong <= {"clock"}


def test_completions_racing_a_close_are_in_or_told_that_they_are_late(repo: Repository) -> None:
    for attempt in range(4):
        name = f"demo/race{attempt}"
        repo.model(name, tiny_tensors(attempt), min_contributions=100)
        race(repo, 5, name)


def test_three_workers_publish_each_round_exactly_once(repo: Repository) -> None:
    repo.model(min_contributions=1)
    tensors, base = tiny_tensors(), "v0"
    for attempt in range(4):
        repo.contributor().contribute(file_bytes(body_of(tensors, attempt)), base=base)
        repo.work()
        assert close_due(repo.ctx) == 1
        barrier = threading.Barrier(3)

        def work(name: str, barrier: threading.Barrier) -> None:
            barrier.wait()
            while work_once(repo.ctx, name):
                pass

        run([(work, (f"w{n}", barrier)) for n in range(3)])
        repo.work()
        base = f"v{attempt + 1}"
        tensors = read_file(weights_of(repo, base))
    assert len(events(repo, "base.published")) == 5


def test_two_schedulers_close_a_round_once(repo: Repository) -> None:
    repo.model(min_contributions=1)
    repo.contributor().contribute(body_file())
    repo.work()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: close_due(repo.ctx), range(4))) == 1


def test_twenty_equal_declarations_at_once_are_one_row(repo: Repository) -> None:
    repo.model()
    ann, raw = repo.contributor(), body_file()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ann.declare(raw, key="12345678"), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    with repo.ctx.database.read() as session:
        assert session.scalar(select(func.count()).select_from(ContributionRow)) == 1


def test_the_same_file_declared_by_ten_at_once_is_taken_from_one(repo: Repository) -> None:
    repo.model()
    people = [repo.contributor(f"c{n}") for n in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda person: person.declare(body_file()), people))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


def test_the_same_tensors_screened_at_once_are_accepted_once(repo: Repository) -> None:
    repo.model()
    tensors = body_of(tiny_tensors(), 1)
    names = list(tensors)
    for n in range(4):
        order = names[n:] + names[:n]
        repo.contributor(f"c{n}").contribute(file_bytes({name: tensors[name] for name in order}))

    def work(name: str) -> None:
        while work_once(repo.ctx, name):
            pass

    run([(work, (f"w{n}",)) for n in range(3)])
    repo.work()
    with repo.ctx.database.read() as session:
        states = sorted(session.scalars(select(ContributionRow.state)))
    assert states == ["accepted", "rejected", "rejected", "rejected"]


def test_of_many_that_ask_at_once_one_gets_the_lease(repo: Repository) -> None:
    for attempt in range(5):
        with ThreadPoolExecutor(8) as pool:
            got = pool.map(
                lambda n, key: leases.acquire(repo.ctx, key, f"w{n}"),
                range(8),
                [f"key{attempt}"] * 8,
            )
        assert sum(lease is not None for lease in got) == 1


def test_many_tokens_for_one_new_name_at_once_are_one_contributor(repo: Repository) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: repo.token("new"), range(8)))
    assert {repo.get("/v1/whoami", token)["name"] for token in tokens} == {"new"}


def test_uploads_that_expire_while_they_complete_end_in_one_state(repo: Repository) -> None:
    repo.model()
    ann = repo.contributor()
    ids = [ann.sent(body_file(n)) for n in range(6)]
    repo.clock.advance(hours=25)

    def complete(contribution: str) -> None:
        assert ann.complete(contribution).status_code in (200, 409)

    run([(complete, (i,)) for i in ids] + [(contributions.expire_uploads, (repo.ctx,))])
    repo.work()
    contributions.expire_uploads(repo.ctx)
    states = {ann.receipt(i)["state"] for i in ids}
    assert states <= {"accepted", "expired"}


def test_a_text_that_the_database_cannot_keep_is_the_senders_fault(repo: Repository) -> None:
    repo.model()
    eva = repo.client(repo.token("eva", "evaluator"))
    report = {"suite": "a\x00b", "protocol": "frozen", "scores": {"a": 1.0}}
    path = f"/v1/models/{MODEL}/bases/v0/evaluations"
    assert eva.post(path, json=report).status_code == 422
    for path in ("/v1/models/a/%00", "/v1/contributions/%00", "/v1/events?model=%00",
                 f"/v1/models/{MODEL}/contributions?contributor=%00"):  # fmt: skip
        assert repo.client().get(path).status_code in (200, 404, 422), path


def test_what_is_said_of_the_work_may_hold_any_character(repo: Repository) -> None:
    repo.model()
    ann = repo.contributor()
    from tests.server.repository import declaration

    body = {**declaration(body_file()), "work": {"dataset": "a\x00b", "task": "💩"}}
    headers = {"Idempotency-Key": "12345678"}
    answer = ann.client.post(f"/v1/models/{MODEL}/contributions", json=body, headers=headers)
    assert answer.status_code in (201, 422)


def test_an_event_never_appears_behind_one_that_was_read(repo: Repository) -> None:
    first_has_written, second_has_written = threading.Event(), threading.Event()

    def slow() -> None:
        with repo.ctx.database.write() as session:
            outbox.append(session, repo.clock(), "slow", None, {})
            session.flush()
            first_has_written.set()
            second_has_written.wait(1)

    thread = threading.Thread(target=slow)
    thread.start()
    first_has_written.wait(5)

    def quick() -> None:
        with repo.ctx.database.write() as session:
            outbox.append(session, repo.clock(), "quick", None, {})
        second_has_written.set()

    other = threading.Thread(target=quick)
    other.start()
    seen: list[str] = []
    last = 0
    for _ in range(400):
        with repo.ctx.database.read() as session:
            for event in outbox.after(session, last, 10):
                seen.append(event.type)
                last = event.id
        if len(seen) == 2:
            break
        second_has_written.wait(0.01)
    thread.join()
    other.join()
    assert seen == ["slow", "quick"]
