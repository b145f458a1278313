"""The reference's examples of events are real: each type happens here, and has what they have."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coldfusion_server.api.events import _reset
from coldfusion_server.evaluator import evaluate_once, prepare
from coldfusion_server.events.webhooks import messages
from coldfusion_server.services import deliveries
from coldfusion_server.services.base_distances import measure_next
from coldfusion_shared.event_types import EVENT_TYPES, PING, RESET
from coldfusion_shared.schemas.webhooks import WebhookFormat
from coldfusion_shared.webhooks import PAUSES
from tests.server.backends import only_sqlite
from tests.server.hooks import delivering, make, settled
from tests.server.lines import replay
from tests.server.measured import report, suite
from tests.server.receiver import receiver, status
from tests.server.repository import MODEL, Repository, repository
from tests.server.test_events import of_a_replay

pytestmark = only_sqlite

DOC = Path(__file__).parents[2] / "docs" / "reference" / "events.md"
# One function of ours tells of all of these, whatever it is called.
ALIKE = {
    "round.closed": ("fusing", "evaluating", "published", "rejected", "failed", "cancelled"),
    "contribution.declared": (
        "completed", "accepted", "rejected", "quarantined", "set_aside", "fused", "withdrawn",
        "expired", "kept", "carried", "measured", "rebased", "erased",
    ),
    "replay.queued": ("running", "ready", "failed", "published", "discarded"),
}  # fmt: skip


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Let everything happen; return what was told, by type."""
    folder = tmp_path_factory.mktemp("examples")
    with repository(folder, webhook_private="true") as repo:
        repo.model()
        found = list(_live(repo))
    by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in found:
        by_type[event["type"]].append(event)
    for of, states in ALIKE.items():
        for state in states:
            by_type[f"{of.partition('.')[0]}.{state}"] += by_type[of]
    return by_type


def _live(repo: Repository) -> Iterator[dict[str, Any]]:
    identity, _ = of_a_replay(repo)
    replay(repo, f"/{identity}/publish")
    while measure_next(repo.ctx, "worker"):
        pass
    client = repo.client(repo.token("max", "maintainer"))

    def do(method: str, path: str, body: Any) -> None:
        answer = client.request(method, f"/v1/models/{MODEL}{path}", json=body)
        assert answer.status_code < 300, answer.text

    policy = repo.get(f"/v1/models/{MODEL}")["policy"]
    do("PUT", "/policy", {**policy, "min_contributions": 7})
    later = (repo.clock() + timedelta(hours=1)).isoformat()
    do("POST", "/rounds/open/close", {"at": later})
    task = prepare(repo.ctx, suite(), "frozen", 3, lambda kept: lambda *_, **__: report(suite()))
    while evaluate_once(repo.ctx, task, "a"):
        pass
    do("POST", "/bases/v0/evaluate", {"reason": "the data were mended"})
    do("POST", "/rollback", {"version": "v0", "reason": "v1 is worse"})
    with receiver(behave=status(410)) as ci:
        hook = make(repo, ci.url)
        do("PUT", "/policy", {**policy, "min_contributions": 8})
        with delivering(repo):
            settled(repo, hook["id"], 1, "given_up")
    admin = repo.token("ada", "admin")
    yield from repo.get("/v1/events?limit=500", admin)
    reset = _reset(repo.ctx, 10**6)
    assert reset is not None
    yield reset.model_dump(mode="json")
    who = repo.principal("max", "maintainer")
    sent = deliveries.ping(repo.ctx, hook["id"], who)
    body = deliveries.get_delivery(repo.ctx, hook["id"], sent.id, who).body
    assert body is not None
    yield body


def examples() -> dict[str, dict[str, Any]]:
    """Return the examples of the reference, by type."""
    lines = re.findall(r'^\{"id":.*\}$', DOC.read_text(), re.MULTILINE)
    found = [json.loads(line) for line in lines]
    return {event["type"]: event for event in found}


def test_every_type_has_a_row_and_an_example() -> None:
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z]+\.[a-z_]+)`", row.split("|")[1])}
    assert set(EVENT_TYPES) <= named
    assert set(examples()) == {*EVENT_TYPES, PING, RESET}


@pytest.mark.parametrize("kind", [*EVENT_TYPES, PING, RESET])
def test_an_example_has_what_the_real_one_has(
    kind: str, happened: dict[str, list[dict[str, Any]]]
) -> None:
    assert happened[kind], f"{kind} has not happened"
    example = examples()[kind]
    real = happened[kind]
    assert set(example) == set(real[0])
    assert set(example["data"]) in [set(one["data"]) for one in real]
    kinds = [{name: type(value) for name, value in one["data"].items()} for one in real]
    for name, value in example["data"].items():
        assert type(value) in {one.get(name) for one in kinds} | {str, type(None)}, name
    datetime.fromisoformat(example["at"])


def block(language: str, part: str) -> str:
    """Return the reference's code in that language with `part` in it."""
    found = re.findall(rf"^```{language}\n(.*?)^```", DOC.read_text(), re.MULTILINE | re.DOTALL)
    (one,) = [text for text in found if part in text]
    return str(one)


BODY = '{"text":"ä „quoted“"}'.encode()


def signed(seconds: int = 0, body: bytes = BODY, *more: str) -> tuple[str, dict[str, str]]:
    secret, now = messages.new_secret(), datetime.now(UTC) - timedelta(seconds=seconds)
    secret_texts = [*more, secret]
    form = WebhookFormat.COLDFUSION
    return secret, messages.headers_of("msg_1", now, body, secret_texts, form, None)


def test_the_check_in_python_is_right() -> None:
    names: dict[str, Any] = {}
    exec(block("python", "def is_genuine"), names)
    check = names["is_genuine"]
    secret, headers = signed(0, BODY, messages.new_secret())
    assert check(secret, headers, BODY)
    assert not check(secret, headers, BODY + b" ")
    assert not check(messages.new_secret(), headers, BODY)
    assert not check(secret, {**headers, "webhook-id": "msg_2"}, BODY)
    for seconds in (600, -600):
        secret, headers = signed(seconds)
        assert not check(secret, headers, BODY)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no program called openssl")
def test_the_check_in_a_shell_is_right(tmp_path: Path) -> None:
    script = block("sh", "openssl")
    (tmp_path / "body.json").write_bytes(BODY)

    def check(secret: str, headers: dict[str, str]) -> bool:
        given = {
            "WEBHOOK_SECRET": secret,
            "WEBHOOK_ID": headers["webhook-id"],
            "WEBHOOK_TIMESTAMP": headers["webhook-timestamp"],
            "WEBHOOK_SIGNATURE": headers["webhook-signature"],
        }
        ran = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env={**os.environ, **given},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.stderr == ""
        return ran.stdout == "genuine\n"

    secret, headers = signed(0, BODY, messages.new_secret())
    assert check(secret, headers)
    assert not check(messages.new_secret(), headers)
    assert not check(*signed(600))
    assert not check(*signed(0, BODY + b" "))


def test_the_table_of_retries_is_the_one_in_force() -> None:
    rows = re.findall(r"^\| [0-9]+ \| ([0-9]+) (s|min|h) \|", DOC.read_text(), re.MULTILINE)
    seconds = {"s": 1, "min": 60, "h": 3600}
    assert [int(number) * seconds[unit] for number, unit in rows] == list(PAUSES)
