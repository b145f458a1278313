"""Every page under axe-core, in both colours and on a phone: no finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext

from tests.dashboard.browser import PHONE, Community, at_rest, log_in, needs_chromium, running
from tests.dashboard.history import live_through
from tests.server.repository import MODEL, repository

pytestmark = needs_chromium

OF_MODEL = ("", "/rounds/1", "/rounds/2", "/bases/v0", "/bases/v1", "/lineage")
# What a visitor sees, and what a maintainer sees besides.
FOR_ALL = ("/", "/login", "/nowhere", *(f"/models/{MODEL}{path}" for path in OF_MODEL))
Scheme = Literal["dark", "light"]


@dataclass(frozen=True)
class Past:
    """A running server with a past; `receipts` are its contributions'."""

    community: Community
    receipts: list[str]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("accessible") / "data"
    with repository(folder) as made:
        live_through(made)
        tokens = {"mia": made.token("mia", "maintainer")}
        items = made.get(f"/v1/models/{MODEL}/contributions")["items"]
    with running(folder, tokens) as community:
        yield Past(community, [f"/contributions/{item['id']}" for item in items])


def findings(context: BrowserContext, path: str) -> list[str]:
    """Return what axe-core finds on a page, with the elements it is about."""
    page = context.new_page()
    page.goto(path)
    at_rest(page)
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    page.close()
    return [
        f"{path}: {one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]}"
        for one in found
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_of_a_visitor_has_a_finding(chromium: Browser, past: Past, scheme: Scheme) -> None:
    context = chromium.new_context(base_url=past.community.url, color_scheme=scheme)
    paths = [*FOR_ALL, *past.receipts, "/contributors/ann"]
    found = [finding for path in paths for finding in findings(context, path)]
    context.close()
    assert not found, "\n".join(found)


def test_no_page_has_one_on_a_phone(chromium: Browser, past: Past) -> None:
    context = chromium.new_context(base_url=past.community.url, viewport=PHONE)
    found = [finding for path in FOR_ALL for finding in findings(context, path)]
    context.close()
    assert not found, "\n".join(found)


def test_no_page_of_a_maintainer_has_one(chromium: Browser, past: Past) -> None:
    context = chromium.new_context(base_url=past.community.url)
    page = context.new_page()
    log_in(page, past.community.tokens["mia"])
    page.close()
    decisions = decisions_of(context, [f"/models/{MODEL}", f"/models/{MODEL}/rounds/2"])
    assert decisions, "a maintainer is offered nothing to decide"
    paths = ["/", "/health", f"/models/{MODEL}", *past.receipts, *decisions]
    found = [finding for path in paths for finding in findings(context, path)]
    context.close()
    assert not found, "\n".join(found)


def decisions_of(context: BrowserContext, paths: list[str]) -> list[str]:
    """Return the addresses of the forms that pages link."""
    page = context.new_page()
    found: set[str] = set()
    for path in paths:
        page.goto(path)
        links = page.locator("a[href^='/decide/']").all()
        found |= {link.get_attribute("href") or "" for link in links}
    page.close()
    return sorted(found)
