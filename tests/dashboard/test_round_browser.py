"""A round and its contributors in real Chromium: what arrives is seen without a reload."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard import many
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
from tests.server.repository import MODEL, body_of, repository
from tests.shared.checkpoints import file_bytes

pytestmark = needs_chromium

ROUND = f"/models/{MODEL}/rounds/1"


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("round") / "data"
    with repository(folder) as made:
        made.model(tensors=tensors(), min_contributions=99)
        many.write(made, [HOSTILE])
        tokens = {name: made.token(name) for name in ("ann", "bob", "cyd")}
        tokens["mia"] = made.token("mia", "maintainer")
    with running(folder, tokens) as community:
        yield community


def test_two_contributions_arrive_in_parts_and_are_set_beside_each_other(
    page: Page, community: Community
) -> None:
    raws = {who: file_bytes(body_of(tensors(), seed)) for seed, who in enumerate(("ann", "bob"))}
    live(page, ROUND)
    summary, figures = page.locator("#part-round"), page.locator("#part-figures")
    rows = page.locator("#part-contributions .contribution")
    expect(rows).to_have_count(1)
    expect(rows.first.locator(".by")).to_have_text(HOSTILE)
    expect(figures).not_to_contain_text("Do they pull the same way?")

    declared = {who: community.declare(who, raw, "v0") for who, raw in raws.items()}
    expect(summary.locator(".tally")).to_contain_text("2 uploading")
    # No event tells of single parts: they are seen by polling.
    for who, raw in raws.items():
        community.send(declared[who], raw, slice(1))
        row = rows.filter(has_text=who)
        expect(row).to_contain_text("65.5 kB of 241 kB (27 %)")
    for who, raw in raws.items():
        community.send(declared[who], raw, slice(1, 3))
        expect(rows.filter(has_text=who)).to_contain_text("197 kB of 241 kB (81 %)")
    for who, raw in raws.items():
        community.send(declared[who], raw, slice(3, None))
        community.complete(who, declared[who])
        expect(rows.filter(has_text=who)).to_contain_text("accepted")

    expect(summary).to_contain_text("3 accepted")
    expect(summary).to_contain_text("3 of 99 accepted")
    checks = rows.filter(has_text="ann").locator("details")
    checks.locator("summary").click()
    expect(checks.locator(".checks")).to_contain_text("finite")
    for title in ("Do they pull the same way?", "How long are they?"):
        drawn = figures.locator("figure", has_text=title)
        expect(drawn.get_by_role("img")).to_be_visible()
    expect(figures.locator(".verdicts")).to_contain_text("ann")
    pointed = figures.locator("svg title", has_text=f"{HOSTILE} and ann")
    expect(pointed).to_have_count(1)
    assert is_the_same_document(page)


def test_a_contributors_page_is_alive_and_a_hostile_name_only_a_name(
    page: Page, community: Community
) -> None:
    live(page, ROUND)
    at_rest(page)
    page.locator("#part-contributions .by", has_text=HOSTILE).click()
    expect(page.locator("h1")).to_have_text(HOSTILE)
    expect(page.locator("#part-contributor")).to_contain_text("1 contribution to 1 model")

    raw = file_bytes(body_of(tensors(), 7))
    declared = community.declare("cyd", raw, "v0")
    live(page, "/contributors/cyd")
    expect(page.locator(".tally")).to_have_text("1 uploading")
    community.send(declared, raw, slice(2))
    expect(page.locator(".contribution")).to_contain_text("(54 %) arrived")
    community.send(declared, raw, slice(2, None))
    community.complete("cyd", declared)
    expect(page.locator(".tally")).to_have_text("1 accepted")
    assert is_the_same_document(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone(chromium: Browser, community: Community, scheme: str) -> None:
    context = chromium.new_context(
        base_url=community.url,
        viewport=PHONE,
        color_scheme=scheme,  # type: ignore[arg-type]
        is_mobile=True,
    )
    page = context.new_page()
    watch = Watch(page, community.url)
    page.goto(ROUND)
    receipt = page.locator("a.receipt").first.get_attribute("href")
    who = page.locator("a.by").first.get_attribute("href")
    for path in (ROUND, receipt, who):
        page.goto(str(path))
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], path
    context.close()
    assert not watch.faults


def test_without_javascript_all_is_there(chromium: Browser, community: Community) -> None:
    context = chromium.new_context(base_url=community.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(ROUND)
    expect(page.locator("#part-figures").get_by_role("img").first).to_be_visible()
    page.locator("#part-contributions summary").first.click()
    expect(page.locator(".checks").first).to_be_visible()
    context.close()
