"""Many at once: of equal wishes one is granted, and events never come out of order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from coldfusion_server.events import outbox
from coldfusion_server.services import contributions
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.tokens import create_first_token
from tests.server.backends import both_databases
from tests.server.repository import Repository, body_file
from tests.server.test_round_way import run

pytestmark = both_databases


def test_two_schedulers_close_a_round_once(repo: Repository) -> None:
    for seed in (1, 2):
        repo.contributor().contribute(body_file(seed))
    repo.work()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: close_due(repo.ctx), range(4))) == 1


def test_the_same_file_sent_by_ten_at_once_is_taken_from_one(repo: Repository) -> None:
    people = [repo.contributor(f"c{n}") for n in range(10)]
    with ThreadPoolExecutor(10) as pool:
        sent = list(pool.map(lambda person: person.sent(body_file()), people))
        done = pool.map(lambda pair: pair[0].complete(pair[1]), zip(people, sent, strict=True))
        assert {answer.status_code for answer in done} == {200}
    repo.work()
    states = [people[0].receipt(contribution)["state"] for contribution in sent]
    assert sorted(states) == ["accepted"] + ["rejected"] * 9


def test_what_one_declares_ten_times_at_once_is_one_upload(repo: Repository) -> None:
    ann = repo.contributor()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ann.declare(body_file()), range(10)))
    assert len({answer.json()["contribution"]["id"] for answer in answers}) == 1
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]


def test_many_tokens_for_one_new_name_at_once_are_one_contributor(repo: Repository) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: repo.token("new"), range(8)))
    assert {repo.get("/v1/whoami", token)["name"] for token in tokens} == {"new"}


def test_uploads_that_expire_while_they_complete_end_in_one_state(repo: Repository) -> None:
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


def test_of_many_that_would_make_the_first_token_one_does(empty: Repository) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_first_token(empty.ctx, "admin"), range(8)))
    (token,) = [token for token in made if token is not None]
    assert empty.get("/v1/whoami", token)["role"] == "admin"


def test_an_event_never_appears_behind_one_that_was_read(empty: Repository) -> None:
    first_has_written, second_has_written = threading.Event(), threading.Event()

    def slow() -> None:
        with empty.ctx.database.write() as session:
            outbox.append(session, empty.clock(), "slow", None, {})
            session.flush()
            first_has_written.set()
            second_has_written.wait(1)

    thread = threading.Thread(target=slow)
    thread.start()
    assert first_has_written.wait(300)

    def quick() -> None:
        with empty.ctx.database.write() as session:
            outbox.append(session, empty.clock(), "quick", None, {})
        second_has_written.set()

    other = threading.Thread(target=quick)
    other.start()
    seen: list[str] = []
    last = 0
    until = time.monotonic() + 300
    while len(seen) < 2 and time.monotonic() < until:
        with empty.ctx.database.read() as session:
            for event in outbox.after(session, last, 10):
                seen.append(event.type)
                last = event.id
        second_has_written.wait(0.01)
    thread.join()
    other.join()
    assert seen == ["slow", "quick"]
