"""A model's figures in real Chromium: alive, by keyboard, without JavaScript, alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from coldfusion_shared.rounds import RoundState
from tests.dashboard.browser import (
    PHONE,
    Community,
    at_rest,
    is_the_same_document,
    live,
    needs_chromium,
    running,
)
from tests.dashboard.courses import live_on, rejected, verdict
from tests.dashboard.history import HOSTILE
from tests.dashboard.measured import measure
from tests.e2e.programs import wait_until
from tests.server.repository import MODEL, repository

pytestmark = needs_chromium

PAGE, FIGURES = f"/models/{MODEL}", f"/v1/models/{MODEL}/figures"


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("course") / "data"
    with repository(folder) as made:
        made.model()
        live_on(made, [RoundState.PUBLISHED, RoundState.PUBLISHED, rejected(verdict(2.0))] * 15)
        for version, score in (("v0", 60.0), ("v30", 66.0)):
            measure(made, version, {"poems": score, HOSTILE: score + 1}, errors=0.2)
        tokens = {"mia": made.token("mia", "maintainer")}
    with running(folder, tokens) as community:
        yield community


def marks(page: Page) -> Any:
    return page.locator("#part-course svg.course a")


def test_distances_appear_as_the_worker_measures_them(page: Page) -> None:
    live(page, PAGE)
    # It does so where it has nothing else to do, one after the other.
    expect(page.locator("#part-course")).not_to_contain_text("Not measured yet")
    expect(page.locator("#part-course")).to_contain_text("v30 is 0 % of v0's norm away from v0.")
    expect(page.locator("#part-course .chart .point")).to_have_count(31)
    assert is_the_same_document(page)


def test_a_rollback_is_drawn_at_once_and_its_reason_stays_words(
    page: Page, community: Community
) -> None:
    live(page, PAGE)
    before = marks(page).count()
    try:
        community.go_to("v28", HOSTILE)
        expect(marks(page)).to_have_count(before + 1)
        first = page.locator(".turned li").first
        expect(first).to_contain_text("Rollback from v30 to v28")
        expect(first).to_contain_text(HOSTILE)
        expect(page.locator(".lead")).to_contain_text("v28 is the current base")
        assert is_the_same_document(page)
    finally:
        community.go_to("v30", HOSTILE)


def test_the_keyboard_follows_or_skips_the_time_line(page: Page) -> None:
    page.goto(PAGE)
    # From then on nothing happens any more that the page would show.
    expect(page.locator("#part-course .chart .point")).to_have_count(31)
    at_rest(page)
    skip = page.get_by_role("link", name=re.compile("Skip the time line"))
    # But what has happened just before may come a moment later.
    wait_until(lambda: _is_wide(skip), "the link to be shown")
    page.keyboard.press("Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert str(page.evaluate(focused)).startswith("Round 1 published")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/rounds/2$"))
    page.go_back()
    at_rest(page)
    skip.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert str(page.evaluate("document.activeElement.textContent")).startswith("JSON")


def _is_wide(link: Locator) -> bool:
    """Give the link the focus, and return whether that shows it."""
    link.focus()
    box = link.bounding_box()
    return box is not None and box["width"] > 100


def test_nothing_serious_is_found_by_axe(page: Page) -> None:
    page.goto(f"{PAGE}?dataset=poems")
    expect(marks(page).first).to_be_visible()
    at_rest(page)
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["nodes"][0]["target"]) for one in serious]


def test_without_javascript_figures_and_data_sets_are_there(
    chromium: Browser, community: Community
) -> None:
    context = chromium.new_context(
        base_url=community.url, java_script_enabled=False, viewport=PHONE
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
