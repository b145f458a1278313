"""A browser, and a page over the server of the test's own module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.dashboard.browser import Community, Watch, chromium_running


# Not for the session: while it is open, an event loop runs in the thread of all tests.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with chromium_running() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, community: Community) -> Iterator[Page]:
    """A page that must stay without faults for the whole test; `watch` is what it did."""
    context = chromium.new_context(base_url=community.url)
    opened = context.new_page()
    watch = Watch(opened, community.url)
    opened.watch = watch  # type: ignore[attr-defined]
    yield opened
    context.close()
    assert not watch.faults
