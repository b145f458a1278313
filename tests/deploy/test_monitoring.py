"""deploy/prometheus and deploy/grafana: a real Prometheus reads them, and a real server."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from sqlalchemy import select

from coldfusion_server.db.tables import ModelRow
from coldfusion_server.services import work_times
from coldfusion_server.services.work_times import WorkTimed
from tests.deploy.compose import ROOT
from tests.e2e.programs import Server, wait_until
from tests.ports import free_ports
from tests.server.backends import only_sqlite
from tests.server.measured import report, suite
from tests.server.repository import MODEL, Repository, body_file, declaration, repository

pytestmark = only_sqlite

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "coldfusion.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((PROMETHEUS / "coldfusion.rules.yml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
# What Grafana puts in place of its variables.
VARIABLES = {"$model": ".*", "$job": "coldfusion", "$__rate_interval": "1m"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed: apt-get install prometheus",
)


def panels() -> list[dict[str, Any]]:
    return [one for one in DASHBOARD["panels"] if one["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return every query of the dashboard as Prometheus gets it, beside its panel's title."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, given in VARIABLES.items():
                expression = expression.replace(name, given)
            found.append((panel["title"], expression))
    return found


def lost(given: Any, kept: Any, place: str = "") -> Iterator[str]:
    """Yield the places of what is in `given` and not the same in `kept`."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key in kept:
                yield from lost(value, kept[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{place}[{number}]")
    elif given != kept:
        yield place


def through_grafanas_own_types(dashboard: Any) -> Any:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafanas_own_types_know_every_word_of_the_dashboard() -> None:
    assert [*lost(DASHBOARD, through_grafanas_own_types(DASHBOARD))] == []


def test_a_word_that_grafana_does_not_know_would_be_found() -> None:
    changed = json.loads(json.dumps(DASHBOARD))
    changed["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    changed["templating"]["list"][0]["lable"] = "x"
    assert len([*lost(changed, through_grafanas_own_types(changed))]) == 2


def test_the_dashboard_is_whole() -> None:
    ids = [one["id"] for one in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for panel in panels():
        # No data source is named by what somebody else's Grafana calls it.
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_is_told_where_the_dashboard_and_prometheus_are() -> None:
    folder = GRAFANA / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "coldfusion.yml").read_text())
    providers = yaml.safe_load((folder / "dashboards" / "coldfusion.yml").read_text())
    assert sources["apiVersion"] == providers["apiVersion"] == 1
    assert sources["datasources"][0]["type"] == "prometheus"
    assert providers["providers"][0]["options"]["path"].startswith("/")


@needs_prometheus
def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    for command in (
        ["check", "rules", str(PROMETHEUS / "coldfusion.rules.yml")],
        ["check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml")],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# By alert: what is seen for hours, and the labels of who is told of; and what is just as well.
FIRING: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ColdfusionDown": ({'up{job="coldfusion",instance="a"}': "0x200"}, {"up": "1x200"}),
    "ColdfusionDatabaseAway": (
        {'coldfusion_database_up{instance="a"}': "0x200"},
        {'coldfusion_database_up{instance="a"}': "1x200"},
    ),
    "ColdfusionNothingPublished": (
        {
            'coldfusion_newest_base_timestamp_seconds{model="m",instance="a"}': "-1000000x200",
            'coldfusion_newest_base_timestamp_seconds{model="m",instance="b"}': "-1000000x200",
            'coldfusion_contributions{model="m",state="accepted",instance="a"}': "2x200",
        },
        {
            'coldfusion_newest_base_timestamp_seconds{model="m"}': "-1000000x200",
            'coldfusion_contributions{model="m",state="accepted"}': "0x200",
        },
    ),
    "ColdfusionRoundFailed": (
        {'coldfusion_rounds{model="m",state="failed",instance="a"}': "1x200"},
        {'coldfusion_rounds{model="m",state="rejected",instance="a"}': "1x200"},
    ),
    "ColdfusionQueueGrows": (
        {'coldfusion_queue_length{queue="screening",instance="a"}': "0+1x200"},
        {'coldfusion_queue_length{queue="screening",instance="a"}': "50x200"},
    ),
    "ColdfusionWaitsForEvaluations": (
        {'coldfusion_queue_oldest_seconds{queue="gates"}': "21601+60x200"},
        {'coldfusion_queue_oldest_seconds{queue="uploading"}': "21601+60x200"},
    ),
    "ColdfusionWorkerSilent": (
        {
            'coldfusion_queue_length{queue="screening",instance="a"}': "1x200",
            'coldfusion_queue_length{queue="screening",instance="b"}': "1x200",
            'coldfusion_queue_later{queue="screening",instance="a"}': "0x200",
            'coldfusion_workers{part="worker",instance="a"}': "0x200",
        },
        {
            'coldfusion_queue_length{queue="screening",instance="a"}': "1x200",
            'coldfusion_queue_later{queue="screening",instance="a"}': "1x200",
            'coldfusion_workers{part="worker",instance="a"}': "0x200",
        },
    ),
    "ColdfusionPartSilent": (
        {'coldfusion_part_silent_seconds{part="worker",instance="a"}': "0+60x200"},
        {'coldfusion_part_silent_seconds{part="worker",instance="a"}': "1x200"},
    ),
    "ColdfusionDeliveriesFail": (
        {"coldfusion_webhook_oldest_pending_seconds": "0+60x200"},
        {
            "coldfusion_webhook_oldest_pending_seconds": "60x200",
            'coldfusion_webhooks{state="off"}': "1x200",
        },
    ),
    "ColdfusionDiskLow": (
        {
            'coldfusion_storage_free_bytes{instance="a"}': "9000000000x200",
            'coldfusion_storage_reserve_bytes{instance="a"}': "6000000000x200",
        },
        {
            'coldfusion_storage_free_bytes{instance="a"}': "9000000000x200",
            'coldfusion_storage_reserve_bytes{instance="a"}': "300000000x200",
        },
    ),
    "ColdfusionAnswersFail": (
        {
            'coldfusion_http_requests_total{instance="a",status="5xx"}': "0+1x200",
            'coldfusion_http_requests_total{instance="a",status="2xx"}': "0+9x200",
        },
        {
            'coldfusion_http_requests_total{instance="a",status="4xx"}': "0+1x200",
            'coldfusion_http_requests_total{instance="a",status="2xx"}': "0+9x200",
        },
    ),
}


@needs_prometheus
def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    assert [one["alert"] for one in ALERTS] == [*FIRING]
    wanted: list[Any] = []
    for number, (alert, series) in enumerate(FIRING.items()):
        for fires, seen in zip((True, False), series, strict=True):
            wanted.append(
                {
                    "name": f"{number} {alert} {fires}",
                    "interval": "1m",
                    "input_series": [{"series": k, "values": v} for k, v in seen.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) '
                            "or vector(0)",
                            "eval_time": "3h",
                            "exp_samples": [{"labels": "{}", "value": int(fires)}],
                        }
                    ],
                }
            )
    file = tmp_path / "tests.yml"
    document = {"rule_files": [str(PROMETHEUS / "coldfusion.rules.yml")], "tests": wanted}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Prometheus:
    """A real one that scrapes one server all the time."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, trust_env=False, timeout=60)
        body = answer.json()
        assert body["status"] == "success", (query, body)
        return body["data"]

    def has(self, expression: str) -> bool:
        """Return whether a query has a number to show; raises where it is none."""
        found = self.ask("query", query=expression)["result"]
        return any(not math.isnan(float(one["value"][1])) for one in found)

    def is_up(self) -> bool:
        """Return whether it has begun, which it answers with 503 until then, and has scraped."""
        try:
            begun = httpx.get(f"{self.url}/-/ready", trust_env=False, timeout=60).status_code == 200
            return begun and self.has("coldfusion_database_up")
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(folder: Path, port: int, token: str) -> Iterator[Prometheus]:
    """Start Prometheus as deploy/prometheus has it, for the server at `port`."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    # A scrape that takes longer than the interval has failed.
    config["global"] = {"scrape_interval": "3s", "evaluation_interval": "1s"}
    (scraped,) = config["scrape_configs"]
    (folder / "token").write_text(token)
    scraped["authorization"]["credentials_file"] = "token"
    scraped["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    shutil.copy(PROMETHEUS / "coldfusion.rules.yml", folder)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (own,) = free_ports(1)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stderr=log,
        )
    try:
        yield Prometheus(f"http://127.0.0.1:{own}")
    finally:
        process.terminate()
        process.wait(300)


def contribute(url: str, token: str, seed: int) -> None:
    """Send a contribution, as a client does."""
    raw = body_file(seed)
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        http.headers["Authorization"] = f"Bearer {token}"
        address = f"/v1/models/{MODEL}/contributions"
        key = {"Idempotency-Key": f"{seed}" * 16}
        declared = http.post(address, json=declaration(raw), headers=key).json()
        (file,) = declared["upload"]["files"]
        (part,) = file["parts"]
        put = httpx.put(part["url"], content=raw, trust_env=False, timeout=60)
        assert put.status_code == 200
        identity = declared["contribution"]["id"]
        assert http.post(f"/v1/contributions/{identity}/complete").status_code == 200


def measure(repo: Repository) -> None:
    """Let somebody report scores of the head by a registered suite."""
    made = suite()
    eve = repo.client(repo.token("eve", "evaluator"))
    eve.put(f"/v1/suites/{made.name}", json=made.model_dump(mode="json"))
    body = report(made).model_dump(mode="json")
    answer = eve.post(f"/v1/models/{MODEL}/bases/v0/evaluations", json=body)
    assert answer.status_code == 201, answer.text


def complaints(scraped: Prometheus) -> set[str]:
    """Return which alerts are not at rest; raises where one fires, or makes no sense."""
    rules = scraped.ask("rules")["groups"][0]["rules"]
    assert {one["name"] for one in rules} == {one["alert"] for one in ALERTS}
    # Those that were not looked at yet are unknown.
    assert {one["health"] for one in rules} <= {"ok", "unknown"}, rules
    states = {one["name"]: one["state"] for one in rules if one["health"] == "ok"}
    assert "firing" not in states.values(), states
    # How much room there is is not the server's doing.
    rest = {one for one, state in states.items() if state == "inactive"} | {"ColdfusionDiskLow"}
    return {one["name"] for one in rules} - rest


@needs_prometheus
def test_every_panel_shows_something_of_a_server_that_works(tmp_path: Path) -> None:
    with repository(tmp_path / "data") as repo:
        repo.model()
        measure(repo)
        token = repo.token("max", "maintainer")
        people = [repo.token(name, "contributor") for name in ("ann", "bob")]
        server = Server(tmp_path / "data")
        server.start()
        try:
            with prometheus(tmp_path, server.port, token) as scraped:
                wait_until(scraped.is_up, "a scrape")
                for seed, person in enumerate(people):
                    contribute(server.url, person, seed + 1)
                with repo.ctx.database.write() as session:
                    model = session.scalars(select(ModelRow.id)).one()
                    work_times.keep(session, WorkTimed.EVALUATION, model, "measured", 70.0)
                waiting = dict.fromkeys(queries())

                def all_have() -> bool:
                    for one in [*waiting]:
                        if scraped.has(one[1]):
                            del waiting[one]
                    return not waiting

                wait_until(all_have, f"data of {waiting}")
                # A server that works has nothing to complain of: no more than for a moment, in
                # which a busy machine has let a scrape, or a worker, wait.
                wait_until(lambda: not complaints(scraped), "all alerts to be at rest")
        finally:
            server.end()
