"""Decisions in real Chromium: a maintainer makes them, and a visitor sees them at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.browser import (
    PHONE,
    Community,
    Watch,
    at_rest,
    is_the_same_document,
    live,
    log_in,
    needs_chromium,
    running,
    tensors,
)
from tests.server.repository import ANY_UPDATE, MODEL, body_of, repository
from tests.shared.checkpoints import file_bytes

# What is longer than a hundredth of the base waits for a maintainer.
STRICT = {**ANY_UPDATE, "magnitude": {"relative_norm": 0.01, "action": "quarantine"}}

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def community(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    folder = tmp_path_factory.mktemp("decisions") / "data"
    with repository(folder) as made:
        made.model(tensors=tensors(), min_contributions=5, screening=STRICT)
        tokens = {name: made.token(name) for name in ("ann", "bob", "odd", "dan")}
        tokens["mia"] = made.token("mia", "maintainer")
    with running(folder, tokens) as community:
        yield community


def opened(chromium: Browser, community: Community, **options: object) -> tuple[Page, Watch]:
    """Return a page of a browser of its own, and what it must never do."""
    context = chromium.new_context(base_url=community.url, **options)  # type: ignore[arg-type]
    page = context.new_page()
    return page, Watch(page, community.url)


def contribute(community: Community, who: str, seed: int, scale: float = 1e-3) -> None:
    raw = file_bytes(body_of(tensors(), seed, scale))
    community.contribute(who, raw, community.version, dataset=f"data of {who}")


def test_a_visitor_sees_what_a_maintainer_decides(chromium: Browser, community: Community) -> None:
    contribute(community, "ann", 1)
    contribute(community, "odd", 2, 0.05)
    visitor, watch = opened(chromium, community)
    mia, watch_of_mia = opened(chromium, community)
    live(visitor, f"/models/{MODEL}")
    row = visitor.locator(".contribution", has_text="odd")
    expect(row).to_contain_text("quarantined")
    expect(visitor.get_by_role("link", name="Release")).to_have_count(0)

    log_in(mia, community.tokens["mia"], f"/models/{MODEL}")
    at_rest(mia)
    mia.locator(".contribution", has_text="odd").get_by_role("link", name="Release").click()
    mia.get_by_label("Reason").fill("a new language")
    mia.get_by_role("button", name="Go on").click()
    expect(mia.get_by_role("heading", name="What will happen")).to_be_visible()
    mia.get_by_role("button", name="Release").click()
    expect(mia.locator(".outcome")).to_contain_text("is released. It goes into round 1.")
    expect(row.locator(".badge").first).to_have_text("accepted")
    assert is_the_same_document(visitor)

    mia.goto(f"/models/{MODEL}")
    at_rest(mia)
    mia.locator("#part-round").get_by_role("link", name="Close", exact=True).click()
    mia.get_by_role("button", name="Go on").click()
    mia.get_by_role("button", name="Close").click()
    expect(mia.get_by_text("Round 1 is closed and will be fused.")).to_be_visible()
    expect(visitor.locator(".version.big")).to_have_text("v1")
    expect(visitor.locator("#round-title")).to_contain_text("Round 2")
    assert is_the_same_document(visitor)
    mia.reload()
    expect(mia.get_by_text("Round 1 is closed and will be fused.")).to_have_count(0)

    mia.goto(f"/models/{MODEL}/bases/v0")
    at_rest(mia)
    mia.get_by_role("link", name="Make it the current base").click()
    mia.get_by_label("Reason").fill("v1 forgot")
    mia.get_by_role("button", name="Go on").click()
    mia.get_by_role("button", name="Make it the current base").click()
    expect(visitor.locator(".version.big")).to_have_text("v0")
    assert is_the_same_document(visitor)
    for page in (visitor, mia):
        page.context.close()
    assert not watch.faults and not watch_of_mia.faults


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_policy_is_mended_and_saved_by_keyboard(
    chromium: Browser, community: Community, scripts: bool
) -> None:
    mia, watch = opened(chromium, community, java_script_enabled=scripts)
    log_in(mia, community.tokens["mia"], f"/models/{MODEL}")
    mia.get_by_role("link", name="Change the policy").press("Enter")
    days = "40" if scripts else "50"
    mia.get_by_label("Min contributions").fill("many")
    mia.get_by_label("Max staleness").fill(days)
    mia.get_by_label("Max staleness").press("Enter")
    # Whoever cannot see it hears what is wrong first, and is led there.
    expect(mia.get_by_role("alert")).to_contain_text("This has to be a whole number.")
    expect(mia.get_by_role("alert")).to_be_focused()
    mia.get_by_role("alert").get_by_role("link", name="Min contributions").press("Enter")
    box = mia.get_by_label("Min contributions")
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(box).to_have_value("many")
    box.fill("5")
    box.press("Enter")
    row = mia.get_by_role("row", name="max_staleness")
    expect(row).to_contain_text(days)
    mia.get_by_role("button", name="Back to the form").click()
    expect(mia.get_by_label("Max staleness")).to_have_value(days)
    mia.get_by_role("button", name="Go on").click()
    mia.get_by_role("button", name="Change the policy").click()
    expect(mia.get_by_text("The policy of demo/tiny is changed")).to_be_visible()
    policy = community.http.get(f"/v1/models/{MODEL}").json()["policy"]
    assert (policy["max_staleness"], policy["screening"]) == (int(days), STRICT)
    mia.context.close()
    # A page that answers a form that was not right is no fault.
    assert [fault for fault in watch.faults if "status of 422" not in fault] == []


def serious(page: Page) -> list[str]:
    """Return what axe-core finds serious on a page."""
    at_rest(page)
    found = Axe().run(page).response["violations"]
    return [
        f"{page.url}: {one['id']}: {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_form_has_a_serious_finding(
    chromium: Browser, community: Community, scheme: str
) -> None:
    mia, _ = opened(chromium, community, color_scheme=scheme)
    log_in(mia, community.tokens["mia"], f"/models/{MODEL}")
    decide = f"/decide/models/{MODEL}"
    for path in ("/policy", "/replays", "/bases/v0/evaluate", "/rounds/99/close"):
        mia.goto(decide + path)
        assert not serious(mia)
    mia.goto(f"{decide}/policy")
    for details in mia.locator("details").all():
        details.locator("summary").click()
    mia.get_by_label("Min contributions").fill("many")
    mia.get_by_role("button", name="Go on").click()
    expect(mia.get_by_role("alert")).to_be_focused()
    assert not serious(mia)
    mia.get_by_label("Min contributions").fill("9")
    mia.get_by_role("button", name="Go on").click()
    expect(mia.get_by_role("heading", name="What will happen")).to_be_visible()
    assert not serious(mia)
    mia.context.close()


def test_forms_fit_a_phone(chromium: Browser, community: Community) -> None:
    contribute(community, "dan", 9)
    mia, watch = opened(chromium, community, viewport=PHONE, is_mobile=True)
    log_in(mia, community.tokens["mia"], f"/models/{MODEL}")
    number = community.http.get(f"/v1/models/{MODEL}").json()["open_round"]
    decide = f"/decide/models/{MODEL}"
    for path in (f"{decide}/policy", f"{decide}/rounds/{number}/cancel", f"{decide}/replays"):
        mia.goto(path)
        assert mia.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"], path
    mia.goto(f"{decide}/policy")
    mia.get_by_label("Contributor weights").fill('{"' + "x" * 200 + '": 1}')
    mia.get_by_role("button", name="Go on").click()
    expect(mia.get_by_role("heading", name="What will happen")).to_be_visible()
    assert mia.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
    mia.context.close()
    assert not watch.faults
