"""The pages in real Chromium, over a really running server: alive, quiet, usable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import (
    PHONE,
    Community,
    Watch,
    at_rest,
    is_the_same_document,
    live,
    needs_chromium,
    running,
    tensors,
)
from tests.dashboard.history import HOSTILE
from tests.faults.stage import wait_for
from tests.server.repository import MODEL, body_of, repository
from tests.shared.checkpoints import file_bytes

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("browser") / "data"
    with repository(folder) as made:
        made.model(tensors=tensors(), min_contributions=2)
        tokens = {name: made.token(name) for name in ("ann", "bob", "cyd", "dan", "eli")}
        tokens["eve"] = made.token("eve", "evaluator")
        tokens["mia"] = made.token("mia", "maintainer")
    with running(folder, tokens) as community:
        yield community


def click_until(page: Page, name: str, becomes: str) -> None:
    """Click a button until it has another name; a refresh in between shows it as it was."""
    for _ in range(100):
        page.get_by_role("button", name=name).first.click()
        with suppress(AssertionError):
            expect(page.get_by_role("button", name=becomes)).to_be_visible(timeout=1500)
            return
    raise AssertionError(f"{name} never became {becomes}")


def test_a_round_is_watched_from_declaration_to_the_new_base(
    page: Page, community: Community
) -> None:
    before = community.version
    raws = [file_bytes(body_of(tensors(), seed)) for seed in (1, 2)]
    live(page, f"/models/{MODEL}")
    expect(page.locator("#part-round")).to_contain_text("None yet")

    declared = community.declare("ann", raws[0], before, dataset=HOSTILE)
    row = page.locator(".contribution", has_text="ann")
    expect(row).to_contain_text("declared")
    expect(row).to_contain_text(HOSTILE)

    # No event tells of single parts: they are seen by polling.
    community.send(declared, raws[0], slice(1))
    expect(row).to_contain_text("65.5 kB of 241 kB (27 %)")

    community.send(declared, raws[0], slice(1, None))
    community.complete("ann", declared)
    expect(row).to_contain_text("accepted")
    expect(page.locator("#part-round")).to_contain_text("1 of 2 accepted")

    community.contribute("bob", raws[1], before)
    expect(page.locator(".version.big")).to_have_text("v1")
    expect(page.locator("#part-history")).to_contain_text("ann 0.5, bob 0.5")
    expect(page.locator("#round-title")).to_contain_text("Round 2")

    sure = {"standard_errors": {"reviews": 0.5}, "seeds": [0, 1, 2]}
    community.evaluate("v0", 60.0, **sure)
    community.evaluate("v1", 66.5, **sure)
    expect(page.locator("#part-current")).to_contain_text("Yes, +6.50 points")
    expect(page.locator("#part-scores")).to_contain_text("66.50")
    assert is_the_same_document(page)


def test_the_overview_is_alive(page: Page, community: Community) -> None:
    live(page, "/")
    version = community.version
    community.declare("ann", file_bytes(body_of(tensors(), 31)), version)
    expect(page.locator(".model")).to_contain_text("1 on the way")
    assert is_the_same_document(page)


def test_a_storm_of_events_costs_few_fetches(page: Page, community: Community) -> None:
    live(page, f"/models/{MODEL}?bases=999")
    at_rest(page)
    fetched = page.watch.fetched  # type: ignore[attr-defined]
    page.wait_for_timeout(1500)
    fetched.clear()
    with page.expect_request(re.compile("part=history")):
        page.evaluate(
            """() => { for (let i = 0; i < 100; i++) {
                htmx.trigger("#wire", "htmx:sseMessage", {type: "base.published"}); } }"""
        )
    page.wait_for_timeout(1500)
    histories = [url for url in fetched if "part=history" in url]
    assert 1 <= len(histories) <= 2
    assert "bases=999" in histories[0]


def test_a_hidden_tab_lets_go_of_the_stream_and_catches_up(
    page: Page, community: Community
) -> None:
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
        document.dispatchEvent(new Event("visibilitychange")); }"""
    live(page, f"/models/{MODEL}")
    page.evaluate(hide, True)
    page.watch.fetched.clear()  # type: ignore[attr-defined]
    community.evaluate("v0", 41.25)
    page.wait_for_timeout(1200)
    assert not page.watch.fetched  # type: ignore[attr-defined]
    page.evaluate(hide, False)
    expect(page.locator("#part-scores")).to_contain_text("41.25")
    assert is_the_same_document(page)


def test_what_a_reader_has_opened_stays_open_and_focused(page: Page, community: Community) -> None:
    version = community.version
    community.contribute("bob", file_bytes(body_of(tensors(), 41)), version)
    live(page, f"/models/{MODEL}")
    row = page.locator(".contribution", has_text="bob")
    # What screening changes of it is swapped in before anything is clicked.
    expect(row).to_contain_text("accepted")
    at_rest(page)
    summary = row.locator("summary")
    summary.click()
    summary.focus()
    community.declare("cyd", file_bytes(body_of(tensors(), 42)), version)
    expect(page.locator(".contribution", has_text="cyd")).to_be_visible()
    expect(page.locator(".contribution details[open]")).to_have_count(1)
    expect(summary).to_be_focused()
    assert is_the_same_document(page)


def test_errors_are_drawn_and_data_sets_that_were_opened_stay_open(
    page: Page, community: Community
) -> None:
    community.past_v0()
    # The first series has its chart at the head of the page.
    for version in ("v0", "v1"):
        community.evaluate(version, 60.0)
    names = ["reviews", "x" * 100, "評判" * 50]
    more = {"protocol": "finetuned", "standard_errors": dict.fromkeys(names, 0.5)}
    for version, level in (("v0", 60.0), ("v1", 64.0)):
        community.evaluate(version, level, scores=dict.fromkeys(names, level), **more)
    live(page, f"/models/{MODEL}")
    series = page.locator(".series", has_text="finetuned")
    expect(series.locator(".chart .band")).to_be_visible()
    expect(series.locator(".gain .whisker")).to_have_count(1 + 3)
    expect(series.get_by_role("img", name="is better than v0 on 3 of 3")).to_be_visible()
    table = series.locator(".scores")
    expect(table).to_be_hidden()
    at_rest(page)
    series.locator("summary").click()
    expect(table).to_be_visible()
    community.evaluate("v1", 65.0, scores=dict.fromkeys(names, 65.0), **more)
    expect(table).to_contain_text("65.00 ± 0.50")
    expect(table).to_be_visible()
    assert is_the_same_document(page)


def test_a_rollback_is_seen_at_once(page: Page, community: Community) -> None:
    community.past_v0()
    head = community.version
    try:
        live(page, f"/models/{MODEL}")
        community.go_to("v0")
        expect(page.locator(".version.big")).to_have_text("v0")
        expect(page.locator("#part-current")).to_contain_text(
            f"from {head} to v0 by mia’s rollback"
        )
        expect(page.locator("#part-history th", has_text="current")).to_contain_text("v0")
        assert is_the_same_document(page)
        live(page, f"/models/{MODEL}/bases/{head}")
        expect(page.locator("h1 .badge")).to_have_text("abandoned")
    finally:
        community.go_to(head)
    expect(page.locator("h1 .badge")).to_have_text("current")
    assert is_the_same_document(page)


def test_the_gain_chart_is_a_picture_of_its_own(page: Page, community: Community) -> None:
    community.past_v0()
    community.evaluate("v0", 60.0)
    community.evaluate("v1", 66.0)
    page.goto(f"/models/{MODEL}/bases/v1")
    at_rest(page)
    page.get_by_role("link", name="As SVG").first.click()
    expect(page.locator("svg rect.bar").first).to_be_visible()
    expect(page.locator("svg > text").first).to_contain_text("v1 against v0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_a_phone(
    chromium: Browser, community: Community, scheme: Any, tmp_path: Path
) -> None:
    context = chromium.new_context(
        base_url=community.url, viewport=PHONE, color_scheme=scheme, is_mobile=True
    )
    page = context.new_page()
    watch = Watch(page, community.url)
    page.goto(f"/models/{MODEL}/rounds/1")
    if not page.locator("a.by").count():
        community.declare("cyd", file_bytes(body_of(tensors(), 7)), community.version)
        page.reload()
    receipt = page.locator("a.by").first.get_attribute("href")
    model = f"/models/{MODEL}"
    newest = f"{model}/bases/{community.version}"
    for path in ("/", model, newest, f"{model}/rounds/1", receipt, "/login"):
        page.goto(str(path))
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], path
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(value) for value in re.findall(r"\d+", colour)) / 3
    context.close()
    assert (brightness > 200) == (scheme == "light") and not watch.faults


def test_the_keyboard_reaches_everything(page: Page) -> None:
    live(page, "/")
    at_rest(page)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert page.evaluate(
            """() => { const seen = (e) => getComputedStyle(e).outlineStyle !== "none";
                const focused = document.activeElement;
                return seen(focused) || seen(focused.closest(".model") || focused); }"""
        )
    assert reached == ["coldfusion", "Log in", "demo/tiny", "API"]


def test_a_refresh_never_takes_the_focus_away(page: Page, community: Community) -> None:
    live(page, "/")
    at_rest(page)
    page.evaluate(
        """() => {
            document.querySelector("main a").focus();
            window.swaps = [];
            document.addEventListener("htmx:afterSwap", () => setTimeout(
                () => window.swaps.push(document.activeElement.textContent.trim())));
        }"""
    )
    community.declare("ann", file_bytes(body_of(tensors(), 32)), community.version)
    wait_for(lambda: page.evaluate("window.swaps.length"), "a part that was swapped")
    assert set(page.evaluate("window.swaps")) == {"demo/tiny"}


@pytest.mark.parametrize("path", ["/", f"/models/{MODEL}", f"/models/{MODEL}/bases/v0"])
def test_what_has_not_changed_is_not_swapped(page: Page, path: str) -> None:
    page.goto(path)
    page.evaluate("for (const e of document.querySelectorAll('[data-live]')) e.theFirst = true")
    parts = page.locator("[data-live]").count()
    at_rest(page)
    page.wait_for_timeout(500)
    still = "[...document.querySelectorAll('[data-live]')].filter((e) => e.theFirst).length"
    assert page.evaluate(still) == parts > 0


def test_times_are_local_and_commands_can_be_copied(
    chromium: Browser, community: Community
) -> None:
    context = chromium.new_context(
        base_url=community.url,
        timezone_id="Asia/Tokyo",
        permissions=["clipboard-read", "clipboard-write"],
    )
    page = context.new_page()
    page.goto(f"/models/{MODEL}/bases/v0")
    # Made by the tests' clock, at 12:00 UTC.
    expect(page.locator("dd time").first).to_have_text(
        re.compile(r"1 Jun 2026, 21:00 \(.+ (ago|month)\)")
    )
    click_until(page, "Copy", "Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    context.close()
    assert copied == f"coldfusion-client pull {MODEL} --version v0"


def test_a_reader_logs_in_and_out(page: Page, community: Community) -> None:
    page.goto(f"/models/{MODEL}")
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("Token").fill(community.tokens["ann"])
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{community.url}/models/{MODEL}")
    expect(page.locator(".who")).to_contain_text("ann contributor")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


def test_without_javascript_the_page_reads_fine(chromium: Browser, community: Community) -> None:
    context = chromium.new_context(base_url=community.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/models/{MODEL}")
    expect(page.locator("h1")).to_have_text(re.compile(r"demo/\s*tiny"))
    expect(page.locator("time").first).to_contain_text("UTC")
    expect(page.locator("button:visible")).to_have_count(0)
    context.close()
