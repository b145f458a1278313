"""What waits, the lineage and the health in real Chromium: without a reload, by hand and by key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.dashboard.browser import (
    PHONE,
    Community,
    at_rest,
    is_the_same_document,
    live,
    log_in,
    needs_chromium,
    running,
)
from tests.dashboard.history import HOSTILE
from tests.dashboard.trees import tree
from tests.server.repository import ANY_UPDATE, MODEL, body_file, repository

pytestmark = needs_chromium

STRICT = "demo/strict"
LINEAGE = f"/models/{MODEL}/lineage"


def send_odd(community: Community, who: str, seed: int) -> str:
    """Send what goes into quarantine; return the contribution's id."""
    raw = body_file(seed)
    declared = community.declare(who, raw, "v0", model=STRICT, dataset=HOSTILE)
    community.send(declared, raw)
    community.complete(who, declared)
    return str(declared["contribution"]["id"])


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("overview") / "data"
    with repository(folder) as made:
        made.model(min_contributions=1, by_hand=True, max_staleness=10)
        tree(made)
        hold = {"relative_norm": 1e-9, "action": "quarantine"}
        made.model(STRICT, screening={**ANY_UPDATE, "magnitude": hold})
        tokens = {name: made.token(name) for name in ("fay", "gus")}
        tokens["mia"] = made.token("mia", "maintainer")
    with running(folder, tokens) as community:
        yield community


def test_what_goes_into_quarantine_appears_on_the_overview_without_a_reload(
    chromium: Browser, page: Page, community: Community
) -> None:
    log_in(page, community.tokens["mia"])
    live(page, "/")
    stranger = chromium.new_context(base_url=community.url)
    other = stranger.new_page()
    live(other, "/")
    expect(page.locator("#part-waiting")).to_be_hidden()

    odd = send_odd(community, "fay", 1)
    item = page.locator(".waiting-list li", has_text="The contribution of fay to round 1")
    expect(item).to_contain_text("in quarantine")
    expect(item).to_contain_text("just now")
    card = page.locator(".card.model", has_text="strict")
    expect(card).to_contain_text("1 contribution waits for a maintainer")
    # A visitor sees how much, and not what.
    theirs = other.locator(".card.model", has_text="strict")
    expect(theirs).to_contain_text("1 contribution waits for a maintainer")
    expect(other.locator("#part-waiting")).to_be_hidden()
    assert is_the_same_document(page) and is_the_same_document(other)

    # It is decided on: it goes from both.
    community.post("mia", f"/contributions/{odd}/reject", {"reason": "a test"})
    expect(page.locator("#part-waiting")).to_be_hidden()
    expect(theirs).not_to_contain_text("waits")
    assert is_the_same_document(page) and is_the_same_document(other)
    stranger.close()


def test_an_item_leads_to_what_is_to_be_decided_on(page: Page, community: Community) -> None:
    odd = send_odd(community, "gus", 2)
    log_in(page, community.tokens["mia"])
    live(page, f"/models/{STRICT}")
    expect(page.locator("#part-waiting")).to_contain_text("The contribution of gus to round 1")
    at_rest(page)
    page.locator(".waiting-list a", has_text=odd).click()
    expect(page).to_have_url(f"{community.url}/contributions/{odd}")
    community.post("mia", f"/contributions/{odd}/reject", {"reason": "a test"})


def width_of(page: Page) -> float:
    return float(page.locator("svg.lineage").get_attribute("width") or 0)


def test_the_lineage_is_zoomed_by_buttons_and_by_keys(page: Page) -> None:
    live(page, LINEAGE)
    at_rest(page)
    before = width_of(page)
    page.get_by_role("button", name="Larger").click()
    assert width_of(page) == pytest.approx(before * 1.25)
    page.get_by_role("button", name="Smaller").click()
    page.get_by_role("button", name="Smaller").click()
    assert width_of(page) == pytest.approx(before / 1.25)
    drawing = page.get_by_role("region", name="The lineage of")
    drawing.focus()
    page.keyboard.press("+")
    assert width_of(page) == pytest.approx(before)
    page.keyboard.press("-")
    assert width_of(page) == pytest.approx(before / 1.25)
    page.set_viewport_size(PHONE)
    page.keyboard.press("0")
    assert width_of(page) <= PHONE["width"]
    # With the focus elsewhere they are ordinary keys.
    page.get_by_role("button", name="Whole").focus()
    page.keyboard.press("+")
    assert width_of(page) <= PHONE["width"]


def base(page: Page, version: str) -> Locator:
    return page.locator(f'a.node.base[href$="/bases/{version}"]')


def test_the_lineage_stays_as_it_is_looked_at_when_the_head_moves(
    page: Page, community: Community
) -> None:
    live(page, LINEAGE)
    at_rest(page)
    page.get_by_role("button", name="Larger").click()
    wanted = width_of(page)
    # Found and scrolled at once: a refresh in between would bring another element.
    page.evaluate("document.querySelector('[data-lineage]').scrollLeft = 70")
    community.go_to("v7")
    expect(base(page, "v8")).to_have_class("node base abandoned")
    assert width_of(page) == wanted
    assert page.evaluate("document.querySelector('[data-lineage]').scrollLeft") == 70
    expect(page.get_by_role("button", name="Larger")).to_be_visible()
    community.go_to("v8")
    expect(base(page, "v8")).to_have_class("node base current")
    assert is_the_same_document(page)


def test_the_lineage_is_followed_by_keyboard(page: Page, community: Community) -> None:
    live(page, LINEAGE)
    at_rest(page)
    base(page, "v2").focus()
    # What it was fused onto and what onto it, what went into it and what was made from it.
    assert page.locator(".edge.lit").count() > 5
    page.keyboard.press("Tab")
    expect(base(page, "v3")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{community.url}/models/{MODEL}/bases/v3")
    page.go_back()
    at_rest(page)
    page.locator("a.node.contributor", has_text="ann").click()
    expect(page).to_have_url(f"{community.url}/contributors/ann")


def test_the_lineage_reads_without_javascript(chromium: Browser, community: Community) -> None:
    context = chromium.new_context(base_url=community.url, java_script_enabled=False)
    plain = context.new_page()
    plain.goto(LINEAGE)
    expect(plain.get_by_role("button", name="Larger")).to_be_hidden()
    box = plain.locator("svg.lineage").bounding_box()
    assert box is not None and box["width"] > 1000
    base(plain, "v8").click()
    expect(plain).to_have_url(f"{community.url}/models/{MODEL}/bases/v8")
    context.close()


def test_the_health_page_refreshes_itself(page: Page, community: Community) -> None:
    log_in(page, community.tokens["mia"])
    page.get_by_role("link", name="Health").click()
    expect(page.locator("#pulse")).to_have_text("Live")
    page.evaluate("window.stillTheSame = true")
    uploads = page.get_by_role("row", name="Uploads on their way")
    expect(uploads).to_contain_text("0")
    raw = body_file(3)
    declared = community.declare("fay", raw, "v0", model=STRICT)
    expect(uploads).to_contain_text("1")
    expect(page.locator("#part-work")).to_contain_text("Watchers")
    community.post("fay", f"/contributions/{declared['contribution']['id']}/withdraw", {})
    expect(uploads).to_contain_text("0")
    assert is_the_same_document(page)


@pytest.mark.parametrize("path", ["/", LINEAGE, "/health", f"/models/{STRICT}"])
def test_a_phone_scrolls_no_page_sideways(page: Page, community: Community, path: str) -> None:
    log_in(page, community.tokens["mia"])
    page.set_viewport_size(PHONE)
    live(page, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
