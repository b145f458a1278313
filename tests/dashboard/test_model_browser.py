"""A model's figures in real Chromium: alive, by keyboard, without JavaScript, alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from coldfusion_shared.rounds import RoundState
from tests.dashboard.courses import live_on, rejected, verdict
from tests.dashboard.history import HOSTILE
from tests.dashboard.measured import measure
from tests.dashboard.test_browser import (
    CHROMIUM,
    PHONE,
    Watch,
    chromium,
    is_the_same_document,
    live,
)
from tests.e2e.programs import Server
from tests.server.repository import MODEL, repository

__all__ = ["chromium"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no program called chromium")

PAGE, FIGURES = f"/models/{MODEL}", f"/v1/models/{MODEL}/figures"


class Past:
    """A running server with a model of many rounds, and its maintainer."""

    def __init__(self, server: Server, token: str) -> None:
        self.server = server
        self.token = token

    def go_to(self, version: str) -> None:
        """Roll back to a base, or forward again."""
        answer = httpx.post(
            f"{self.server.url}/v1/models/{MODEL}/rollback",
            json={"version": version, "reason": HOSTILE},
            headers={"Authorization": f"Bearer {self.token}"},
            trust_env=False,
            timeout=120,
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("course") / "data"
    with repository(folder) as made:
        made.model()
        live_on(made, [RoundState.PUBLISHED, RoundState.PUBLISHED, rejected(verdict(2.0))] * 15)
        for version, score in (("v0", 60.0), ("v30", 66.0)):
            measure(made, version, {"poems": score, HOSTILE: score + 1}, errors=0.2)
        token = made.token("mia", "maintainer")
    server = Server(folder)
    server.start()
    try:
        yield Past(server, token)
    finally:
        server.end()


@pytest.fixture
def page(chromium: Browser, past: Past) -> Iterator[Page]:
    """A page that must stay without faults for the whole test."""
    context = chromium.new_context(base_url=past.server.url)
    opened = context.new_page()
    watch = Watch(opened, past.server.url)
    yield opened
    context.close()
    assert not watch.faults


def marks(page: Page) -> Any:
    return page.locator("#part-course svg.course a")


def test_distances_appear_as_the_worker_measures_them(page: Page) -> None:
    live(page, PAGE)
    # It does so where it has nothing else to do, one after the other.
    expect(page.locator("#part-course")).not_to_contain_text("Not measured yet")
    expect(page.locator("#part-course")).to_contain_text("v30 is 0 % of v0's norm away from v0.")
    expect(page.locator("#part-course .chart .point")).to_have_count(31)
    assert is_the_same_document(page)


def test_a_rollback_is_drawn_at_once_and_its_reason_stays_words(page: Page, past: Past) -> None:
    live(page, PAGE)
    before = marks(page).count()
    try:
        past.go_to("v28")
        expect(marks(page)).to_have_count(before + 1)
        first = page.locator(".turned li").first
        expect(first).to_contain_text("Rollback from v30 to v28")
        expect(first).to_contain_text(HOSTILE)
        expect(page.locator(".lead")).to_contain_text("v28 is the current base")
        assert is_the_same_document(page)
    finally:
        past.go_to("v30")


def test_the_keyboard_follows_or_skips_the_time_line(page: Page) -> None:
    page.goto(PAGE)
    skip = page.get_by_role("link", name=re.compile("Skip the time line"))
    skip.focus()
    box = skip.bounding_box()
    assert box is not None and box["width"] > 100
    page.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert str(page.evaluate(focused)).startswith("Round 1 published")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/rounds/2$"))
    page.go_back()
    skip.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert str(page.evaluate("document.activeElement.textContent")).startswith("JSON")


def test_nothing_serious_is_found_by_axe(page: Page) -> None:
    page.goto(f"{PAGE}?dataset=poems")
    expect(marks(page).first).to_be_visible()
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["target"]) for one in serious]


def test_without_javascript_figures_and_data_sets_are_there(chromium: Browser, past: Past) -> None:
    context = chromium.new_context(
        base_url=past.server.url, java_script_enabled=False, viewport=PHONE
    )
    page = context.new_page()
    page.goto(PAGE)
    expect(marks(page).first).to_be_visible()
    page.locator("summary", has_text="2 data sets").click()
    page.get_by_role("link", name="poems").click()
    expect(page.locator("figure", has_text="poems, base by base").locator("svg")).to_be_visible()
    expect(page.get_by_role("img", name="poems: accuracy over the bases")).to_be_visible()
    context.close()


@pytest.mark.parametrize("name", ["scores", "gains", "course", "distances"])
def test_a_picture_opens_alone(page: Page, name: str) -> None:
    page.goto(f"{FIGURES}/{name}.svg")
    shapes = page.locator("svg rect, svg circle, svg path")
    expect(shapes.first).to_be_visible()
    expect(page.locator("svg > text").first).to_contain_text(MODEL)
    # All that is drawn has a colour of its own, also where no style sheet is.
    colours = page.evaluate(
        """() => [...document.querySelectorAll("text, circle, path, line")].map(
            (one) => { const seen = getComputedStyle(one); return [seen.fill, seen.stroke]; })"""
    )
    assert colours and ["rgb(0, 0, 0)", "none"] not in colours
    with page.expect_download() as download, pytest.raises(Exception, match="Download"):
        page.goto(f"{FIGURES}/{name}.csv")
    assert download.value.suggested_filename == f"demo-tiny-{name}.csv"
