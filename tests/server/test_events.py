"""Events: as a list and as a stream, without loss, without duplicates, without secrets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coldfusion_server import process
from coldfusion_server.api import events as events_api
from coldfusion_server.api.events import Sights, _lines, stream_events
from coldfusion_server.cli.operator import OPERATOR
from coldfusion_server.events import broker as broker_module
from coldfusion_server.events import outbox
from coldfusion_server.events.broker import Broker
from coldfusion_server.services import evaluation_tries, evaluations, forgetting, leases
from coldfusion_server.services.base_distances import measure_next
from coldfusion_server.services.blocking import block
from coldfusion_server.services.closing import close_due
from coldfusion_server.services.evaluation_tries import Measurement, Subject
from coldfusion_server.services.fan_out import fan_out
from coldfusion_server.services.garbage import collect
from coldfusion_server.services.tokens import authenticate, revoke_token
from coldfusion_shared.schemas.contributors import Block
from coldfusion_shared.schemas.evaluations import EvaluationReport
from tests.server.asgi import request
from tests.server.backends import both_databases, only_sqlite
from tests.server.hooks import deliveries, make
from tests.server.lines import Line, replay
from tests.server.lines import shown as shown_replay
from tests.server.repository import MODEL, Repository, body_file
from tests.server.test_metrics import counted

pytestmark = both_databases

PRIVATE = "demo/private"
# Of a busy machine; nothing here takes a second.
PATIENCE_SECONDS = 120


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "POLL_SECONDS", 0.01)


def add(repo: Repository, count: int, model: str | None = MODEL, kind: str = "test.event") -> None:
    with repo.ctx.database.write() as session:
        for n in range(count):
            outbox.append(session, repo.clock(), kind, model, {"n": n})


def listed(repo: Repository, query: str = "", token: str | None = None) -> list[Any]:
    found: list[Any] = repo.get(f"/v1/events?{query}", token)
    return found


def test_a_round_leaves_its_story(repo: Repository) -> None:
    for seed in (1, 2):
        repo.contributor(f"c{seed}").contribute(body_file(seed))
    repo.work()
    close_due(repo.ctx)
    repo.work()
    told = [event["type"] for event in listed(repo)]
    assert told == [
        "model.created", "base.published", "round.opened",
        "contribution.declared", "contribution.completed",
        "contribution.declared", "contribution.completed",
        "contribution.accepted", "contribution.accepted",
        "round.closed", "round.fusing", "round.evaluating", "base.published",
        "contribution.fused", "contribution.fused", "round.published", "round.opened",
    ]  # fmt: skip
    ids = [event["id"] for event in listed(repo)]
    assert ids == sorted(set(ids))
    assert {event["model"] for event in listed(repo)} == {MODEL}


def test_the_list_goes_on_behind_the_last_one_seen(repo: Repository) -> None:
    add(repo, 7)
    seen: list[int] = []
    while more := listed(repo, f"after={seen[-1] if seen else 0}&limit=3"):
        assert len(more) <= 3
        seen += [event["id"] for event in more]
    assert seen == [event["id"] for event in listed(repo)]


@pytest.mark.parametrize("query", ["after=-1", "after=x", f"after={2**63}", "limit=0", "limit=501",
                                   "after=" + "9" * 5000, "model=" + "x" * 97])  # fmt: skip
def test_a_list_that_makes_no_sense_is_422(query: str, repo: Repository) -> None:
    assert repo.client().get(f"/v1/events?{query}").status_code == 422


def test_visitors_see_nothing_of_private_models_and_are_not_stopped_by_them(
    repo: Repository,
) -> None:
    repo.model(PRIVATE, public=False)
    after = listed(repo, token=repo.token())[-1]["id"]
    add(repo, 50, PRIVATE)
    add(repo, 3, MODEL, "seen.event")
    seen = listed(repo, f"after={after}&limit=10")
    assert [event["type"] for event in seen] == ["seen.event"] * 3
    assert listed(repo, f"model={PRIVATE}") == []
    reader = repo.token("r", "reader")
    assert len(listed(repo, f"after={after}&limit=10", reader)) == 10
    assert len(listed(repo, f"model={PRIVATE}", reader)) > 50


# What the API itself shows to evaluators and maintainers alone, until it is published.


def of_a_replay(repo: Repository) -> tuple[str, int]:
    """Have a replay's candidate measured and left; return its id, and the event before it."""
    ids = Line(repo).round({1: 0, 2: 0, 3: 0})
    # What a worker does in between would be told of in between.
    assert measure_next(repo.ctx, "worker")
    last = listed(repo)[-1]["id"]
    asked = replay(repo, status=201, without=ids[:1])
    repo.work()
    (step,) = shown_replay(repo, asked["id"])["steps"]
    candidate = step["candidate"]["id"]
    judge = repo.principal("eve", "evaluator")
    report = EvaluationReport(suite="s", protocol="frozen", scores={"a": 50.0})
    evaluations.post_of_candidate(repo.ctx, MODEL, candidate, report, judge)
    what = Measurement("s", "0" * 64, "frozen", 1, judge.contributor_id)
    subject = Subject(candidate=candidate)
    with leases.held(repo.ctx, what.key(subject), "worker") as lease:
        assert lease is not None
        evaluation_tries.leave(repo.ctx, what, subject, lease, "it is too large")
    return asked["id"], last


def test_a_replay_is_shown_to_those_who_decide_on_it_until_it_is_published(
    repo: Repository,
) -> None:
    identity, last = of_a_replay(repo)
    add(repo, 1, MODEL, "last.event")
    private = [
        "replay.queued", "replay.running", "replay.ready", "evaluation.posted", "evaluation.failed",
    ]  # fmt: skip
    tokens = {role: repo.token(role, role) for role in ("contributor", "evaluator", "maintainer")}
    for token in (None, tokens["contributor"]):
        for limit in (1, 100):
            seen = listed(repo, f"after={last}&limit={limit}", token)
            assert [event["type"] for event in seen] == ["last.event"]
    for role in ("evaluator", "maintainer"):
        seen = listed(repo, f"after={last}", tokens[role])
        assert [event["type"] for event in seen] == [*private, "last.event"]

    async def watch(principal: Any, count: int, after: int) -> list[str]:
        async with running(repo) as broker:
            found = await gather(repo, broker, count, after, principal=principal)
            return [event["event"] for event in found]

    # A watcher comes back with the id of the last one that it was shown.
    assert asyncio.run(watch(None, 1, last)) == ["last.event"]
    judge = repo.principal("eve", "evaluator")
    assert asyncio.run(watch(judge, 6, last)) == [*private, "last.event"]
    before = listed(repo)[-1]["id"]
    replay(repo, f"/{identity}/publish")
    told = asyncio.run(watch(None, 3, before))
    assert sorted(told) == ["base.published", "model.replayed", "replay.published"]


# The stream.


@asynccontextmanager
async def running(repo: Repository) -> AsyncIterator[Broker]:
    broker = Broker(repo.ctx.database)
    task = asyncio.create_task(broker.run())
    # What happens from now on is new to it.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not broker.last:
            await asyncio.sleep(0.005)
    yield broker
    broker.stop()
    # It may be reading: its connection has to be back before the repository closes.
    async with asyncio.timeout(PATIENCE_SECONDS):
        await task


async def all_waiting(broker: Broker, count: int) -> None:
    """Wait until so many watchers have read what was before and wait for what comes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(bool(queue._getters) for queue in broker.queues) < count:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


async def gather(
    repo: Repository,
    broker: Broker,
    count: int,
    after: int | None = None,
    model: str | None = None,
    principal: Any = None,
    then: Callable[[], None] = lambda: None,
    sights: Sights | None = None,
) -> list[dict[str, str]]:
    """Read `count` events of the stream, as a browser splits it; call `then` once connected."""
    found: list[dict[str, str]] = []
    lines = _lines(repo.ctx, broker, sights or Sights(), principal, model, after)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for text in lines:
            if text.startswith(":"):
                await asyncio.to_thread(then)
                then = lambda: None  # noqa: E731
                continue
            assert text.endswith("\n\n")
            found.append(dict(line.split(": ", 1) for line in text.strip().split("\n")))
            if len(found) == count:
                await lines.aclose()  # type: ignore[attr-defined]
                break
    return found


def test_what_happens_between_a_watchers_look_and_the_readers_first_is_seen(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch() -> int:
        broker = Broker(repo.ctx.database)
        before = await broker.newest()
        look = broker._newest

        def late_look() -> int:
            add(repo, 1)
            return look()

        monkeypatch.setattr(broker, "_newest", late_look)
        watching = broker.watch(lambda event: True, before)
        first = asyncio.ensure_future(anext(watching))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (broker.begun._waiters or any(queue._getters for queue in broker.queues)):  # type: ignore[attr-defined]
                await asyncio.sleep(0.005)
            reader = asyncio.create_task(broker.run())
            event = await first
            await watching.aclose()  # type: ignore[attr-defined]
            broker.stop()
            await reader
        assert event is not None
        return int(event.id) - before

    assert asyncio.run(watch()) == 1


def test_an_answer_does_not_wait_for_its_first_half_to_be_acknowledged() -> None:
    listener = process._listen("127.0.0.1", 0)

    async def sends_at_once() -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        async with await asyncio.start_server(meet, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            told = await found
            writer.close()
            return told

    assert asyncio.run(sends_at_once())


def test_of_many_watchers_one_looks_up_what_all_may_see(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = events_api._Sight._look

    def counted(sight: Any, event: Any) -> None:
        looked.append(1)
        look(sight, event)

    monkeypatch.setattr(events_api._Sight, "_look", counted)
    monkeypatch.setattr(events_api, "SIGHT_SECONDS", 10_000.0)

    async def watch() -> list[list[dict[str, str]]]:
        sights = Sights()
        async with running(repo) as broker:
            after = await broker.newest()
            watchers = [
                asyncio.create_task(gather(repo, broker, 5, after, sights=sights)) for _ in range(9)
            ]
            await asyncio.to_thread(add, repo, 5)
            return await asyncio.gather(*watchers)

    assert [len(found) for found in asyncio.run(watch())] == [5] * 9
    assert len(looked) == 1


def test_events_arrive_as_they_happen_with_their_ids(repo: Repository) -> None:
    async def watch() -> list[dict[str, str]]:
        async with running(repo) as broker:
            return await gather(repo, broker, 3, then=lambda: add(repo, 3))

    newest = listed(repo)[-1]["id"]
    found = asyncio.run(watch())
    assert [int(event["id"]) for event in found] == [newest + 1, newest + 2, newest + 3]
    assert [event["event"] for event in found] == ["test.event"] * 3
    assert [json.loads(event["data"])["data"] for event in found] == [{"n": n} for n in range(3)]


def test_a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "BATCH", 4)
    stop = threading.Event()

    def busy() -> None:
        while not stop.wait(0.002):
            add(repo, 2)

    async def watch() -> list[int]:
        seen: list[int] = [newest]
        async with running(repo) as broker:
            for _ in range(8):
                found = await gather(repo, broker, 9, after=seen[-1])
                seen += [int(event["id"]) for event in found]
                await asyncio.sleep(0.02)
        return seen

    add(repo, 20)
    newest = listed(repo)[0]["id"]
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        seen = asyncio.run(watch())
    finally:
        stop.set()
        thread.join()
    assert seen == list(range(newest, newest + 8 * 9 + 1))


def test_a_watcher_sees_what_it_asked_for_and_may_see(repo: Repository) -> None:
    repo.model(PRIVATE, public=False)
    repo.model("demo/other")

    def happen() -> None:
        add(repo, 2, PRIVATE)
        add(repo, 2, "demo/other")
        add(repo, 1, MODEL, "last.event")

    async def watch(model: str | None, principal: Any, count: int) -> list[Any]:
        async with running(repo) as broker:
            found = await gather(repo, broker, count, None, model, principal, happen)
            return [json.loads(event["data"])["model"] for event in found]

    visitor = asyncio.run(watch(None, None, 3))
    assert visitor == ["demo/other", "demo/other", MODEL]
    assert asyncio.run(watch(MODEL, None, 1)) == [MODEL]
    reader = asyncio.run(watch(None, repo.principal("r", "reader"), 5))
    assert reader == [PRIVATE] * 2 + ["demo/other"] * 2 + [MODEL]


@pytest.mark.parametrize("how", ["revoked", "expired", "blocked"])
def test_a_stream_ends_with_its_token(
    how: str, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coldfusion_server.api.events.SIGHT_SECONDS", 0.0)
    repo.model(PRIVATE, public=False)
    principal = authenticate(repo.ctx, repo.token("r", "reader", hours=1))

    def end() -> None:
        if how == "revoked":
            revoke_token(repo.ctx, "r")
        elif how == "blocked":
            block(repo.ctx, "r", Block(reason="a test"), OPERATOR)
        else:
            repo.clock.advance(hours=2)
        add(repo, 2, PRIVATE)

    async def watch() -> list[Any]:
        async with running(repo) as broker:
            # More than there will be: the stream ends by itself, and nothing is seen any more.
            return await gather(repo, broker, 9, None, None, principal, end)

    assert asyncio.run(watch()) == []


def test_a_list_reads_no_event_by_itself(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.model(PRIVATE, public=False)
    seen = listed(repo)[-1]["id"]
    add(repo, 30, PRIVATE)
    asked: list[int] = []
    real = outbox.after

    def after(session: Any, last: int, *rest: Any) -> Any:
        asked.append(last)
        return real(session, last, *rest)

    monkeypatch.setattr(outbox, "after", after)
    assert listed(repo, f"after={seen}&limit=1") == []
    assert len(asked) == 1


def test_a_list_costs_no_more_for_all_that_happens_to_private_models(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the server up; and how long it takes would tell what there is."""
    monkeypatch.setattr(events_api, "BATCH", 5)
    repo.model(PRIVATE, public=False)
    limited = repo.token("l", "reader", [MODEL])
    cost: dict[str, list[int]] = {}
    for count in (0, 100):
        add(repo, count, PRIVATE)
        for query in ("limit=500", f"model={PRIVATE}", "model=demo/nowhere"):
            for token in (None, limited):
                with counted(repo) as statements:
                    assert all(one["model"] != PRIVATE for one in listed(repo, query, token))
                cost.setdefault(f"{query} {token is None}", []).append(len(statements))
    assert all(before == after for before, after in cost.values()), cost
    for visitor in (True, False):
        assert cost[f"model={PRIVATE} {visitor}"] == cost[f"model=demo/nowhere {visitor}"]


def test_a_watcher_that_falls_far_behind_is_cut_off_and_no_other(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "QUEUE_LENGTH", 10)

    async def watch() -> tuple[int, int]:
        async with running(repo) as broker:
            slow = broker.watch(lambda _: True, None)
            quick = broker.watch(lambda _: True, None)
            firsts = [asyncio.ensure_future(anext(w)) for w in (slow, quick)]
            await all_waiting(broker, 2)
            await asyncio.to_thread(add, repo, 1)
            for first in firsts:
                await first
            count = 0
            for _ in range(6):
                await asyncio.to_thread(add, repo, 4)
                for _ in range(4):
                    await asyncio.wait_for(anext(quick), PATIENCE_SECONDS)
                    count += 1
            left = [event async for event in slow]
            return count, len(left)

    count, left = asyncio.run(watch())
    assert count == 24
    assert left < 24


def test_the_stream_ends_when_the_server_stops(repo: Repository) -> None:
    async def watch() -> list[Any]:
        async with running(repo) as broker:
            lines = broker.watch(lambda _: True, None)
            task = asyncio.ensure_future(anext(lines, "ended"))
            await asyncio.sleep(0.05)
            broker.stop()
            return [await asyncio.wait_for(task, PATIENCE_SECONDS)]

    assert asyncio.run(watch()) == ["ended"]


def test_silence_is_broken(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "QUIET_SECONDS", 0.05)

    async def watch() -> list[str]:
        async with running(repo) as broker:
            lines = _lines(repo.ctx, broker, Sights(), None, None, None)
            first, second = await anext(lines), await anext(lines)
            await lines.aclose()  # type: ignore[attr-defined]
            return [first, second]

    newest = repo.get("/v1/events")[-1]["id"]
    assert asyncio.run(watch()) == [f": connected\nid: {newest}\n\n", ": still here\n\n"]


@pytest.mark.parametrize(
    "given", ["²", "-1", "x", "", "9" * 30, "9" * 5000, "1.5", "0x1", "9223372036854775808"]
)
def test_a_last_event_id_that_is_none_of_ours_begins_with_what_happens_now(
    given: str, repo: Repository
) -> None:
    async def watch() -> list[dict[str, str]]:
        async with running(repo) as broker:
            response = await stream_events(repo.ctx, None, broker, Sights(), None, given)
            body = response.body_iterator
            found: list[dict[str, str]] = []
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for text in body:
                    if str(text).startswith(":"):
                        await asyncio.to_thread(add, repo, 1, MODEL, "new.event")
                        continue
                    found.append({"text": str(text)})
                    break
            return found

    (event,) = asyncio.run(watch())
    assert "event: new.event" in event["text"]


def test_a_bad_token_gets_no_stream(repo: Repository) -> None:
    headers = [(b"authorization", b"Bearer nonsense")]
    assert request(repo.app, "GET", "/v1/events/stream", headers).status == 401


# What is not there any more.


def old(repo: Repository, days: float, count: int = 5) -> list[int]:
    """Let things happen, and then so much time pass; return the ids."""
    add(repo, count)
    ids = [event["id"] for event in listed(repo, "limit=500")][-count:]
    repo.clock.advance(days=days)
    return ids


def forget(repo: Repository) -> int:
    return forgetting.remove_events(repo.ctx)


def test_events_are_kept_for_their_time_and_the_newest_for_ever(repo: Repository) -> None:
    first = old(repo, days=300)
    second = old(repo, days=101)
    before = [event["id"] for event in listed(repo, "limit=500")]
    assert forgetting.count_events(repo.ctx) == len(before) - 5
    assert forget(repo) == len(before) - 5
    assert [event["id"] for event in listed(repo)] == second
    assert first[0] not in second
    repo.clock.advance(days=1000)
    assert forget(repo) == 4
    assert [event["id"] for event in listed(repo)] == second[-1:]
    assert forget(repo) == 0
    # No id is given out twice.
    add(repo, 1)
    assert [event["id"] for event in listed(repo)] == [second[-1], second[-1] + 1]


def test_what_an_active_webhook_has_not_taken_up_is_kept(repo: Repository) -> None:
    hooks = [make(repo, "https://ci.example.org/") for _ in range(2)]
    ids = old(repo, days=1000)
    forget(repo)
    assert [event["id"] for event in listed(repo)] == ids
    assert fan_out(repo.ctx)
    forget(repo)
    assert [event["id"] for event in listed(repo)] == ids[-1:]
    for hook in hooks:
        assert len(deliveries(repo, hook["id"])) == 5
    more = old(repo, days=1000)
    client = repo.client(repo.token("mia", "maintainer"))
    for hook in hooks:
        client.patch(f"/v1/webhooks/{hook['id']}", json={"active": False})
    forget(repo)
    assert [event["id"] for event in listed(repo)] == more[-1:]


def test_old_deliveries_go(repo: Repository) -> None:
    hook = make(repo, "https://ci.example.org/")
    add(repo, 3)
    fan_out(repo.ctx)
    repo.clock.advance(days=29)
    add(repo, 1)
    fan_out(repo.ctx)
    repo.clock.advance(days=2)
    assert forgetting.count_deliveries(repo.ctx) == 3
    assert forgetting.remove_deliveries(repo.ctx) == 3
    assert len(deliveries(repo, hook["id"])) == 1


def test_a_collection_forgets_too_and_says_so(repo: Repository) -> None:
    ids = old(repo, days=1000)
    seen = collect(repo.ctx, "test", dry_run=True)
    assert (seen.events, len(listed(repo, "limit=500"))) == (len(ids) + 2, len(ids) + 3)
    assert collect(repo.ctx, "test").events == len(ids) + 2
    assert [event["id"] for event in listed(repo)] == ids[-1:]


@only_sqlite
def test_a_list_from_what_is_gone_or_has_never_been_is_refused(repo: Repository) -> None:
    ids = old(repo, days=401)
    last = old(repo, days=0)
    forget(repo)
    for after in (1, ids[0], ids[-2], last[-1] + 1, 2**62):
        answer = repo.client().get(f"/v1/events?after={after}")
        assert (answer.status_code, answer.json()["code"]) == (410, "events_gone")
        assert str(last[-1]) in answer.json()["hint"]
    # Behind the last one that is gone, nothing is missing.
    assert [event["id"] for event in listed(repo, f"after={ids[-1]}")] == last
    assert [event["id"] for event in listed(repo, "after=0")] == last
    assert listed(repo, f"after={last[-1]}") == []


@only_sqlite
@pytest.mark.parametrize("why", ["gone", "ahead", "far"])
def test_a_stream_from_what_is_gone_says_so_and_goes_on(
    why: str, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = old(repo, days=401)
    last = old(repo, days=0)
    after = {"gone": ids[0], "ahead": last[-1] + 1000, "far": ids[-1]}[why]
    if why == "far":
        monkeypatch.setattr(events_api, "MOST_MISSED", 4)
    else:
        forget(repo)
    oldest = listed(repo)[0]["id"]

    async def watch() -> list[dict[str, str]]:
        async with running(repo) as broker:
            found: list[dict[str, str]] = []
            lines = _lines(repo.ctx, broker, Sights(), None, None, after)
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for text in lines:
                    if text.startswith(":"):
                        continue
                    found.append(dict(line.split(": ", 1) for line in text.strip().split("\n")))
                    if len(found) == 1:
                        await asyncio.to_thread(add, repo, 1, MODEL, "new.event")
                    else:
                        break
            await lines.aclose()  # type: ignore[attr-defined]
            return found

    reset, new = asyncio.run(watch())
    assert (reset["event"], int(reset["id"])) == ("events.reset", last[-1])
    assert json.loads(reset["data"])["data"] == {
        "after": after, "why": why, "oldest": oldest, "newest": last[-1],
    }  # fmt: skip
    assert (new["event"], int(new["id"])) == ("new.event", last[-1] + 1)


@only_sqlite
def test_a_stream_that_is_not_far_behind_is_sent_all_that_it_missed(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "MOST_MISSED", 5)
    ids = old(repo, days=0, count=6)

    async def watch() -> list[dict[str, str]]:
        async with running(repo) as broker:
            return await gather(repo, broker, 5, after=ids[0])

    assert [int(event["id"]) for event in asyncio.run(watch())] == ids[1:]
