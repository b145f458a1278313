"""A scheduler that dies anywhere on the way from an event to a webhook's receiver loses none."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from coldfusion_server.db.tables import DeliveryRow
from coldfusion_server.services.context import utc_now
from tests.faults.fleet import Fleet, fleet
from tests.faults.stage import wait_for
from tests.server.receiver import receiver
from tests.server.repository import MODEL

POINTS = ["webhook.fanning", "webhook.fanned", "webhook.sent", "webhook.recording"]


def happen(made: Fleet, number: int) -> None:
    """Change the policy, which is an event."""
    policy = {**made.get(made.model())["policy"], "min_contributions": number}
    made.ask("PUT", made.model("/policy"), json=policy).raise_for_status()


def let_go(made: Fleet) -> None:
    """Let the time pass for which the dead hold what they were at."""
    with made.database.write() as session:
        for row in session.scalars(select(DeliveryRow).where(DeliveryRow.held_by.is_not(None))):
            row.held_until = utc_now() - timedelta(seconds=1)


def test_every_event_arrives_whoever_dies(tmp_path: Path) -> None:
    settings = {"webhook_private": "true"}
    with receiver() as ci, fleet(tmp_path, settings=settings, min_contributions=2) as made:
        made.api.start()
        made.await_api()
        body = {"model": MODEL, "url": ci.url, "events": ["model.*"]}
        hook = made.ask("POST", "/webhooks", json=body).raise_for_status().json()["webhook"]["id"]
        for number, point in enumerate(POINTS, start=3):
            happen(made, number)
            made.die_at(made.scheduler, point)
            let_go(made)
        made.scheduler.start()

        def delivered() -> bool:
            found = made.listed(f"/webhooks/{hook}/deliveries")
            return Counter(one["state"] for one in found) == {"delivered": len(POINTS)}

        wait_for(delivered, "the deliveries")
        events = made.get("/events", model=MODEL, limit=500)
        told = [event["id"] for event in events if event["type"] == "model.policy"]
        arrived = Counter(json.loads(posted.body)["id"] for posted in ci.posted)
        assert sorted(arrived) == told
        # What was sent and not written down was sent once more, under the same id.
        assert sum(arrived.values()) > len(told)
        assert len({posted.id for posted in ci.posted}) == len(told)
