"""/metrics: what it says, for whom, by how many statements, and that nothing private leaks."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from sqlalchemy import event, select

from coldfusion_server.api import metrics as route
from coldfusion_server.api.http_metrics import METHODS, OTHER, REFUSED, UNKNOWN
from coldfusion_server.db.tables import ModelRow, RoundRow, Table, WorkTimeRow
from coldfusion_server.services import leases, work_times
from coldfusion_server.services.closing import close_by_hand
from coldfusion_server.services.metrics.snapshot import take
from coldfusion_server.services.work_times import WorkTimed
from coldfusion_shared.errors import DatabaseUnavailable, StorageUnavailable
from coldfusion_shared.schemas.tokens import Role
from tests.dashboard import many
from tests.server.backends import both_databases, only_sqlite
from tests.server.measured import report, suite
from tests.server.repository import MODEL, Repository, body_file, repository

PRIVATE = "acme/secret"
SECONDS = 1000.0


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the database at every look; a test of its own says how long an answer is kept."""
    monkeypatch.setattr(route, "KEPT_SECONDS", 0.0)


def text(repo: Repository, token: str | None = None, **headers: str) -> str:
    answer = repo.client(token).get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def values(shown: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples by name and labels; raises where the text is none of Prometheus'."""
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in plain(shown)
        for one in family.samples
    }


def all_seen(repo: Repository) -> str:
    return text(repo, repo.token("max", "maintainer"))


def value(repo: Repository, name: str, **labels: str) -> float | None:
    return values(all_seen(repo)).get((f"coldfusion_{name}", frozenset(labels.items())))


def names(shown: str) -> set[str]:
    return {line.split(" ")[2] for line in shown.splitlines() if line.startswith("# TYPE ")}


@only_sqlite
@pytest.mark.parametrize("role", [None, *Role])
def test_by_default_they_are_for_those_who_look_after_all(
    repo: Repository, role: Role | None
) -> None:
    token = None if role is None else repo.token("who", role)
    status = repo.client(token).get("/metrics").status_code
    wanted = 401 if role is None else 200 if role in (Role.MAINTAINER, Role.ADMIN) else 403
    assert status == wanted


@only_sqlite
def test_a_maintainer_of_one_model_does_not_see_the_others(repo: Repository) -> None:
    token = repo.token("who", "maintainer", [MODEL])
    assert repo.client(token).get("/metrics").status_code == 403


@only_sqlite
def test_shown_to_all_they_tell_of_public_models_alone(tmp_path: Path) -> None:
    with repository(tmp_path, metrics_public=True) as repo:
        repo.model()
        repo.model(PRIVATE, public=False)
        repo.client(repo.token("max", "maintainer")).get(f"/v1/models/{PRIVATE}")
        one = repo.token("one", "maintainer", [MODEL])
        for token in (None, one, repo.token("ann", "reader")):
            shown = text(repo, token)
            assert PRIVATE not in shown and MODEL in shown
            # How much is waiting would tell of private models' work.
            assert "coldfusion_queue" not in shown and "coldfusion_lease" not in shown
            assert (
                "coldfusion_storage" not in shown and "coldfusion_event_stream_behind" not in shown
            )
            assert "coldfusion_http_requests_total" in shown and "process_cpu" in shown
        assert PRIVATE in all_seen(repo) and "coldfusion_queue_length" in all_seen(repo)


@only_sqlite
def test_both_formats_are_what_their_readers_read(repo: Repository) -> None:
    token = repo.token("max", "maintainer")
    assert len(values(text(repo, token))) > 50
    answer = repo.client(token).get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=no\tsuch;q=1"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {family.name: family for family in openmetrics(answer.text)}  # type: ignore[no-untyped-call]
    assert found["coldfusion_contributions_declared"].type == "counter"
    assert all(family.documentation for family in found.values())
    # A type for each, and names as they should be.
    for name in names(text(repo, token)):
        assert name.startswith(("coldfusion_", "process_")), name


@both_databases
def test_contributions_and_rounds_are_counted(repo: Repository) -> None:
    for seed, who in enumerate(("ann", "bob")):
        repo.contributor(who).contribute(body_file(seed))
    repo.contributor("cyd").declare(body_file(7))
    assert value(repo, "contributions", model=MODEL, state="declared") == 1
    assert value(repo, "queue_length", queue="uploading") == 1
    sent = value(repo, "contributed_bytes_total", model=MODEL)
    assert sent == len(body_file(0)) + len(body_file(1))
    repo.work()
    close_by_hand(repo.ctx, MODEL, "open", repo.principal("mia", "maintainer"))
    repo.work()
    shown = values(all_seen(repo))

    def of(name: str, **labels: str) -> float | None:
        return shown.get((f"coldfusion_{name}", frozenset({"model": MODEL, **labels}.items())))

    assert of("head_version") == 1 and of("bases_published_total") == 2
    assert of("contributions", state="fused") == 2 and of("contributions", state="rejected") == 0
    assert of("contributions_declared_total") == 3
    assert of("rounds", state="published") == 1 and of("rounds", state="open") == 1
    assert of("screening_seconds_count", verdict="accepted") == 2
    assert of("fuse_seconds_count") == 1 and of("fuse_seconds_bucket", le="+Inf") == 1
    assert of("newest_base_timestamp_seconds") == repo.clock.now.timestamp()
    assert of("stored_bytes", kind="uploads") == len(body_file(7))
    assert of("stored_bytes", kind="contributions") == sent
    assert (of("stored_bytes", kind="bases") or 0) > 0


@both_databases
def test_the_times_of_work_are_a_histogram_that_adds_up(repo: Repository) -> None:
    with repo.ctx.database.write() as session:
        model = session.scalars(select(ModelRow.id)).one()
        for seconds in (0.1, 0.2, 3600.0, 99_999.0):
            work_times.keep(session, WorkTimed.FUSING, model, "fused", seconds)
        work_times.keep(session, WorkTimed.EVALUATION, model, "measured", 70.0)
    shown = values(all_seen(repo))
    bounds = {
        dict(labels)["le"]: found
        for (name, labels), found in shown.items()
        if name == "coldfusion_fuse_seconds_bucket"
    }
    assert [bounds[one] for one in ("0.1", "0.5", "900.0", "3600.0", "14400.0", "+Inf")] == [
        1, 2, 2, 3, 3, 4,
    ]  # fmt: skip
    assert value(repo, "fuse_seconds_sum", model=MODEL) == pytest.approx(103_599.3)
    assert value(repo, "evaluation_seconds_sum", model=MODEL) == 70.0


def test_what_screening_rejects_is_counted_by_its_verdict(repo: Repository) -> None:
    repo.contributor("ann").contribute(body_file(1)[:-4] + b"\x00\x00\xc0\x7f")
    repo.work()
    with repo.ctx.database.read() as session:
        row = session.scalars(select(WorkTimeRow)).one()
    assert (row.kind, row.outcome) == ("screening", "rejected") and row.seconds >= 0
    assert value(repo, "screening_seconds_count", model=MODEL, verdict="rejected") == 1


def test_the_head_has_the_newest_score_of_each_evaluator(repo: Repository) -> None:
    made = suite()
    eve, max_ = (repo.client(repo.token(name, "maintainer")) for name in ("eve", "max"))
    eve.put(f"/v1/suites/{made.name}", json=made.model_dump(mode="json"))
    address = f"/v1/models/{MODEL}/bases/v0/evaluations"
    for client, level in ((eve, 10.0), (eve, 80.0), (max_, 90.0)):
        body = report(made, level).model_dump(mode="json")
        assert client.post(address, json=body).status_code == 201
    # Its suite is registered nowhere: its name may be anything.
    free = report(None, 5.0).model_dump(mode="json")
    assert eve.post(address, json=free).status_code == 201
    shown = all_seen(repo)
    key = frozenset({"model": MODEL, "suite": made.name, "protocol": "frozen"}.items())
    assert values(shown)["coldfusion_head_score", key] == 85.0
    assert "hand-made" not in shown


@both_databases
def test_queues_leases_and_workers_are_seen(repo: Repository) -> None:
    repo.contributor("ann").contribute(body_file(1))
    repo.clock.advance(minutes=5)
    assert leases.acquire(repo.ctx, "contribution:a", "host:1:ab") is not None
    assert leases.acquire(repo.ctx, "round:1", "host:1:ab") is not None
    assert leases.acquire(repo.ctx, "evaluation:1:frozen:0", "host:2:cd") is not None
    assert value(repo, "queue_oldest_seconds", queue="screening") == 300
    assert value(repo, "queue_oldest_seconds", queue="fusing") == 0
    assert value(repo, "leases", kind="screening") == value(repo, "leases", kind="fusing") == 1
    # One process holds both.
    assert value(repo, "workers", part="worker") == value(repo, "workers", part="evaluator") == 1
    assert value(repo, "workers", part="scheduler") == 0
    now = repo.clock.now.timestamp()
    assert value(repo, "part_worked_timestamp_seconds", part="worker") == now
    repo.clock.advance(hours=1)
    assert value(repo, "workers", part="worker") == 0
    # It ended when the leases ran out, and is not newer for being looked at later.
    last = value(repo, "part_worked_timestamp_seconds", part="worker")
    assert last == now + repo.settings.lease_seconds


def test_signs_of_life_are_those_of_this_process(repo: Repository) -> None:
    assert value(repo, "part_silent_seconds", part="worker") is None
    repo.ctx.beats["worker"] = 0.0
    assert (value(repo, "part_silent_seconds", part="worker") or 0) > 0


@only_sqlite
def test_requests_are_counted_by_template_whatever_is_asked_for(repo: Repository) -> None:
    client = repo.client(repo.token("max", "maintainer"))
    for number in range(50):
        client.get(f"/v1/models/who/name{number}")
        client.get(f"/no/such/{number}/thing")
        client.get(f"/static/{number}.css")
        repo.client(f"cf_wrong{number}").get("/v1/models")
        client.request(f"BREW{number}", "/v1")
    client.post("/v1/models/a/b/rollback", content=b"x" * 100)
    client.get("/v1/openapi.json")
    shown = values(all_seen(repo))
    counted = {
        tuple(dict(labels)[key] for key in ("route", "method", "status")): found
        for (name, labels), found in shown.items()
        if name == "coldfusion_http_requests_total"
    }
    assert counted["/v1/models/{owner}/{name}", "GET", "4xx"] == 50
    assert counted["/static/{path:path}", "GET", "4xx"] == 50
    assert counted[UNKNOWN, "GET", "4xx"] == 50
    assert sum(found for key, found in counted.items() if key[0] == REFUSED) >= 50
    assert counted["/v1", "OTHER", "4xx"] == 50
    assert counted[OTHER, "GET", "2xx"] == 1
    assert {key[1] for key in counted} <= {*METHODS, "OTHER"}
    assert len(counted) < 15
    assert (
        value(repo, "http_received_bytes_total", route="/v1/models/{owner}/{name}/rollback") == 100
    )
    assert (value(repo, "http_sent_bytes_total", route="/v1/openapi.json") or 0) == 0
    assert (value(repo, "http_sent_bytes_total", route=OTHER) or 0) > 10_000
    # The one that asks.
    assert value(repo, "http_requests_in_flight") == 1


def test_where_the_database_is_away_the_process_still_tells_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise DatabaseUnavailable("The database is away.")

    with repository(tmp_path, metrics_public=True) as repo:
        monkeypatch.setattr("coldfusion_server.services.metrics.snapshot._taken", away)
        shown = values(text(repo))
        assert shown["coldfusion_database_up", frozenset()] == 0
        assert ("process_cpu_seconds_total", frozenset()) in shown


def test_where_the_store_is_away_the_rest_is_told(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StorageUnavailable("The disk is away.")

    monkeypatch.setattr(type(repo.ctx.store), "free_bytes", away)
    assert value(repo, "storage_free_bytes") is None
    assert value(repo, "database_bytes")


@only_sqlite
def test_one_look_of_the_database_serves_all_who_ask_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "KEPT_SECONDS", 5.0)
    seconds = [SECONDS]
    with repository(tmp_path, seconds=lambda: seconds[0]) as repo:
        repo.model()
        kept = route.Snapshots()
        with counted(repo) as statements:
            threads = [
                threading.Thread(target=kept.get, args=(repo.ctx,), kwargs={"everything": True})
                for _ in range(10)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            once = len(statements)
            seconds[0] += 4.9
            kept.get(repo.ctx, everything=True)
            assert len(statements) == once > 0
            seconds[0] += 0.2
            kept.get(repo.ctx, everything=True)
            assert len(statements) == 2 * once
            # While somebody asks the database, which may take long, others do not wait for him.
            seconds[0] += 30
            with kept._locks[True]:
                kept.get(repo.ctx, everything=True)
            assert len(statements) == 2 * once
            # What others may see is not taken from it.
            assert kept.get(repo.ctx, everything=False).newest is None


@contextmanager
def counted(repo: Repository) -> Iterator[list[str]]:
    """Collect the statements of the block."""
    said: list[str] = []

    def heard(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement)

    event.listen(repo.ctx.database.engine, "before_cursor_execute", heard)
    yield said
    event.remove(repo.ctx.database.engine, "before_cursor_execute", heard)


@both_databases
def test_a_look_takes_as_many_statements_for_fifty_models_as_for_one(repo: Repository) -> None:
    with counted(repo) as for_one:
        take(repo.ctx, everything=True)
    with repo.ctx.database.write() as session:
        first = session.scalars(select(ModelRow)).one()
        for number in range(49):
            row = ModelRow(
                name=f"demo/m{number}", public=True, policy=first.policy,
                created_at=repo.clock.now, current=0,
            )  # fmt: skip
            session.add(row)
            session.flush()
            session.add(
                RoundRow(
                    model_id=row.id,
                    number=1,
                    state="open",
                    base_number=0,
                    opened_at=repo.clock.now,
                )  # fmt: skip
            )
    (first_one,) = many.write(repo, ["ann"], sketches=False, state="fused")
    with repo.ctx.database.write() as session:
        table = Table.metadata.tables["contributions"]
        found_one = session.execute(select(table).where(table.c.id == first_one))
        written = found_one.mappings().one()
        copies = [
            {**written, "number": 100 + one, "id": f"c{one}", "idempotency_key": f"k{one}"}
            for one in range(999)
        ]
        session.execute(table.insert(), copies)
    with repo.ctx.database.write() as session:
        model = session.scalars(select(ModelRow.id).limit(1)).one()
        for number in range(1000):
            work_times.keep(session, WorkTimed.SCREENING, model, "accepted", float(number))
    with counted(repo) as for_many:
        found = take(repo.ctx, everything=True)
    assert len(for_many) == len(for_one) < 40
    contributions = next(one for one in found.families if one.name == "coldfusion_contributions")
    assert sum(one.value for one in contributions.samples) == 1000
    samples = sum(len(one.samples) for one in found.families)
    # 8 states of rounds, 9 of contributions, and 5 histograms of 13, for each model.
    assert samples < 50 * 100 + 200


@only_sqlite
def test_counters_do_not_go_back_when_something_is_taken_back(repo: Repository) -> None:
    ann = repo.contributor("ann")
    contribution = ann.contribute(body_file(1))
    repo.work()
    before = (
        value(repo, "contributed_bytes_total", model=MODEL),
        value(repo, "contributions_declared_total", model=MODEL),
        value(repo, "screening_seconds_count", model=MODEL, verdict="accepted"),
    )
    taken = ann.client.post(f"/v1/contributions/{contribution}/withdraw", json={"reason": "why"})
    assert taken.status_code == 200, taken.text
    assert value(repo, "contributions", model=MODEL, state="withdrawn") == 1
    assert value(repo, "stored_bytes", model=MODEL, kind="contributions") == 0
    assert before == (
        value(repo, "contributed_bytes_total", model=MODEL),
        value(repo, "contributions_declared_total", model=MODEL),
        value(repo, "screening_seconds_count", model=MODEL, verdict="accepted"),
    )


@only_sqlite
def test_webhooks_and_deliveries_are_counted(repo: Repository) -> None:
    from coldfusion_server.db.tables import DeliveryRow, WebhookRow

    now = repo.clock.now
    with repo.ctx.database.write() as session:
        for number, (active, paused) in enumerate([(True, None), (False, now), (False, None)]):
            session.add(
                WebhookRow(
                    id=f"w{number}",
                    origin="https://ci.example",
                    sealed="",
                    events=["*"],
                    format="json",
                    active=active,
                    cursor=0,
                    failures=0,
                    paused_at=paused,
                    created_at=now,
                )  # fmt: skip
            )
        session.flush()
        for number, state in enumerate(("failed", "delivered", "delivered", "given_up")):
            session.add(
                DeliveryRow(
                    id=f"d{number}",
                    webhook_id="w0",
                    event_id=number,
                    event={},
                    state=state,
                    created_at=now - timedelta(minutes=number + 1),
                )  # fmt: skip
            )
    assert [value(repo, "webhooks", state=one) for one in ("active", "paused", "off")] == [1, 1, 1]
    assert value(repo, "webhook_deliveries", state="delivered") == 2
    assert value(repo, "webhook_deliveries", state="waiting") == 0
    # What is delivered or given up waits no more, nor does what somebody has switched off.
    assert value(repo, "webhook_oldest_pending_seconds") == 60
    with repo.ctx.database.write() as session:
        session.add(
            DeliveryRow(
                id="d9",
                webhook_id="w2",
                event_id=9,
                event={},
                state="waiting",
                created_at=now - timedelta(days=9),
            )  # fmt: skip
        )
    repo.clock.advance(seconds=60)
    assert value(repo, "webhook_deliveries", state="waiting") == 1
    assert value(repo, "webhook_oldest_pending_seconds") == 120


@only_sqlite
def test_every_metric_is_in_the_reference_and_every_one_there_is_real(repo: Repository) -> None:
    reference = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([a-z, ]*) ?\| ([a-z, *]+) \|",
        reference.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {name: kind for name, kind, _, _ in rows}
    repo.contributor("ann").contribute(body_file(1))
    repo.work()
    repo.ctx.beats["worker"] = 0.0
    shown = all_seen(repo)
    told = dict(line.split(" ")[2:] for line in shown.splitlines() if line.startswith("# TYPE "))
    assert told == documented
    labels: dict[str, set[str]] = {}
    for (name, found), _ in values(shown).items():
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        labels.setdefault(family, set()).update(key for key, _ in found if key != "le")
    for name, _, given, _ in rows:
        # Nobody has measured anything, and there is no score.
        if name in labels:
            assert labels[name] == {one.strip() for one in given.split(",") if one.strip()}, name
    everybody = {name for name, _, _, source in rows if "all" not in source}
    with repository(repo.folder, metrics_public=True, copied=True) as opened:
        assert names(text(opened)) == everybody


@only_sqlite
def test_no_number_of_models_or_requests_makes_new_names(repo: Repository) -> None:
    before = names(all_seen(repo))
    repo.model(PRIVATE, public=False)
    repo.client().get("/x")
    assert names(all_seen(repo)) == before
