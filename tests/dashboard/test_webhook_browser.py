"""Webhooks in real Chromium, and the event stream that pages live by, resumed from what is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.dashboard.browser import (
    PATIENCE_MS,
    PHONE,
    Community,
    at_rest,
    is_the_same_document,
    live,
    log_in,
    needs_chromium,
    running,
    tensors,
)
from tests.server.receiver import PATIENCE_SECONDS, Receiver, receiver, status
from tests.server.repository import MODEL, repository

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("webhooks") / "data"
    with repository(folder) as made:
        made.model(tensors=tensors(), min_contributions=5)
        tokens = {"mia": made.token("mia", "maintainer")}
    (folder / "settings.toml").write_text('webhook_private = "true"\n')
    with running(folder, tokens) as community:
        yield community


@pytest.fixture
def ci() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def happen(community: Community, number: int) -> None:
    """Change the policy, which is an event."""
    headers = {"Authorization": f"Bearer {community.tokens['mia']}"}
    policy = community.http.get(f"/v1/models/{MODEL}", headers=headers).json()["policy"]
    changed = {**policy, "min_contributions": number}
    answer = community.http.put(f"/v1/models/{MODEL}/policy", json=changed, headers=headers)
    assert answer.status_code == 200, answer.text


def posts(ci: Receiver, identity: str) -> int:
    """Return how often a delivery has come in."""
    return sum(posted.id == identity for posted in ci.posted)


def test_a_maintainer_watches_deliveries_and_has_one_sent_again(
    page: Page, community: Community, ci: Receiver
) -> None:
    ci.behave = status(500)
    body = {"model": MODEL, "url": ci.url, "events": ["model.*"]}
    hook = community.post("mia", "/webhooks", body)["webhook"]["id"]
    log_in(page, community.tokens["mia"])
    live(page, f"/webhooks/{hook}")
    expect(page.get_by_text("Nothing was sent yet")).to_be_visible()
    happen(community, 6)
    # Nobody reloads: the page comes to know by itself.
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("It answered with status 500.")
    expect(row.locator(".badge")).to_have_text("failed")
    ci.behave = status(204)
    happen(community, 9)
    # The other one may be tried again, and delivered, before this one is there.
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(row.locator(".badge")).to_have_text("delivered")
    assert is_the_same_document(page)
    identity = row.locator("code").inner_text()
    before = posts(ci, identity)
    # By key, from which a refresh in between takes nothing.
    row.get_by_role("link", name="Send again").press("Enter")
    expect(page.get_by_role("heading", name="What will happen")).to_be_visible()
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".outcome")).to_contain_text("is being sent once more")
    with ci.arrived:
        again = ci.arrived.wait_for(lambda: posts(ci, identity) > before, PATIENCE_SECONDS)
    assert again
    page.set_viewport_size(PHONE)
    for path in (f"/webhooks/{hook}", "/webhooks", f"/webhooks?model={MODEL}"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        at_rest(page)
        assert Axe().run(page).response["violations"] == []


def heard(community: Community, last: str, count: int, number: int) -> list[dict[str, Any]]:
    """Watch behind an event, let something happen once connected, and return what is sent."""
    found: list[dict[str, Any]] = []
    url, headers = f"{community.url}/v1/events/stream", {"Last-Event-ID": last}
    with httpx.stream("GET", url, headers=headers, timeout=120, trust_env=False) as response:
        for line in response.iter_lines():
            if line == ": connected":
                happen(community, number)
            elif line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


def test_a_stream_resumed_from_the_future_is_told_and_goes_on(community: Community) -> None:
    reset, event = heard(community, "999999999", 2, 7)
    assert (reset["type"], reset["data"]["why"]) == ("events.reset", "ahead")
    assert event["type"] == "model.policy"
    assert event["id"] > reset["id"] == reset["data"]["newest"]
    # From there nothing is told twice, and nothing is left out.
    (again,) = heard(community, str(event["id"]), 1, 8)
    assert (again["type"], again["id"]) == ("model.policy", event["id"] + 1)


def test_an_open_page_fetches_all_of_itself_anew_where_events_are_gone(
    page: Page, community: Community
) -> None:
    live(page, f"/models/{MODEL}")
    at_rest(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    data = {"id": 1, "type": "events.reset", "model": None, "at": "", "data": {}}
    page.evaluate(
        """(text) => {
          const detail = new MessageEvent("events.reset", {data: text});
          document.dispatchEvent(new CustomEvent("htmx:sseMessage", {detail}));
        }""",
        json.dumps(data),
    )
    expect(page.locator("#pulse")).to_have_text("Live")
    parts = page.locator("[data-live]").count()
    for _ in range(PATIENCE_MS // 50):
        if len({url for url in asked if "part=" in url}) >= parts:
            break
        page.wait_for_timeout(50)
    assert len({url for url in asked if "part=" in url}) >= parts
    assert is_the_same_document(page)
