"""What tests in real Chromium share: a running server, contributors, and what a page never does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.e2e.programs import Server
from tests.faults.stage import wait_for
from tests.server.repository import MODEL, body_of, declaration
from tests.shared.checkpoints import Array, file_bytes

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PART = 64 * 1024
# A machine that runs other tests beside may be far slower than the usual 5 s allow.
PATIENCE_MS = 180_000
PHONE = ViewportSize(width=360, height=740)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no program called chromium")


@contextmanager
def chromium_running() -> Iterator[Browser]:
    """Start Chromium, with patience for a machine that runs other tests beside."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE_MS
        )
        make = browser.new_context

        def patient(**options: Any) -> BrowserContext:
            context = make(**options)
            context.set_default_timeout(PATIENCE_MS)
            return context

        browser.new_context = patient  # type: ignore[method-assign]
        yield browser
        browser.close()


def tensors() -> dict[str, Array]:
    """Return a model whose uploads have several parts."""
    values = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    return {"encoder.weight": values, "encoder.bias": values[0].copy()}


class Community:
    """A running server, and people who talk to it over HTTP; each has a token."""

    def __init__(self, server: Server, tokens: dict[str, str]) -> None:
        self.server = server
        self.tokens = tokens
        # A connection for each request: while a test watches the browser the server ends those
        # that nothing is said on, perhaps at the moment when the next request is sent.
        alone = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=120, limits=alone)

    @property
    def url(self) -> str:
        return self.server.url

    def post(self, who: str, path: str, body: Any = None, **headers: str) -> Any:
        headers["Authorization"] = f"Bearer {self.tokens[who]}"
        answer = self.http.post(f"/v1{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def declare(self, who: str, raw: bytes, base: str, *, model: str = MODEL, **work: Any) -> Any:
        body = {**declaration(raw, base), "work": work}
        key = {"Idempotency-Key": f"{who} for {model} {base}: {body['files'][0]['sha256']}"}
        return self.post(who, f"/models/{model}/contributions", body, **key)

    def send(self, declared: Any, raw: bytes, parts: slice = slice(None)) -> None:
        (file,) = declared["upload"]["files"]
        for part in file["parts"][parts]:
            start = (part["number"] - 1) * file["part_size"]
            answer = self.http.put(part["url"], content=raw[start : start + part["size"]])
            assert answer.status_code == 200, answer.text

    def complete(self, who: str, declared: Any) -> None:
        self.post(who, f"/contributions/{declared['contribution']['id']}/complete")

    def contribute(self, who: str, raw: bytes, base: str, **work: Any) -> None:
        declared = self.declare(who, raw, base, **work)
        self.send(declared, raw)
        self.complete(who, declared)

    def evaluate(self, version: str, score: float, **more: Any) -> None:
        body = {"suite": "demo", "protocol": "frozen", "scores": {"reviews": score}, **more}
        self.post("eve", f"/models/{MODEL}/bases/{version}/evaluations", body)

    def go_to(self, version: str, reason: str = "a try") -> None:
        """Roll back to a base, or forward again."""
        self.post("mia", f"/models/{MODEL}/rollback", {"version": version, "reason": reason})

    @property
    def version(self) -> str:
        return str(self.http.get(f"/v1/models/{MODEL}").json()["current"])

    def past_v0(self) -> None:
        """Wait for a round, made here unless another test has made one."""
        if self.version == "v0":
            for seed, who in enumerate(("dan", "eli"), 51):
                self.contribute(who, file_bytes(body_of(tensors(), seed)), "v0")
        wait_for(lambda: self.version != "v0", "a round")


@contextmanager
def running(folder: Path, tokens: dict[str, str]) -> Iterator[Community]:
    """Serve the data in `folder`, in a process of its own; uploads come in small parts."""
    server = Server(folder, settings={"COLDFUSION_PART_BYTES": str(PART)})
    server.start()
    community = Community(server, tokens)
    try:
        yield community
    finally:
        community.http.close()
        server.end()


class Watch:
    """What a page must never do, noted while it is open."""

    def __init__(self, page: Page, url: str) -> None:
        self.faults: list[str] = []
        self.fetched: list[str] = []
        self.url = url
        page.on("console", lambda message: self.faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        self.fetched.append(request.url)
        if not request.url.startswith(self.url):
            self.faults.append(f"request to {request.url}")


def log_in(page: Page, token: str, then: str = "/") -> None:
    """Log in with a token; come to the page `then`."""
    page.goto(f"/login?next={then}")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").first.click()
    expect(page.locator(".who")).to_be_visible()


def live(page: Page, path: str) -> None:
    """Open `path`, wait until its stream is open, and mark the document, to know it again."""
    page.goto(path)
    expect(page.locator("#pulse")).to_have_text("Live")
    page.evaluate("window.stillTheSame = true")


# Each part once: something may have happened between the page and its stream.
FETCHED = """() => {
    const fetched = new Set(performance.getEntriesByType("resource").map((entry) => entry.name));
    return [...document.querySelectorAll("[data-live]")].every(
        (part) => fetched.has(new URL(part.getAttribute("hx-get"), location).href)); }"""


def at_rest(page: Page) -> None:
    """
    Wait until nothing of a page is swapped any more but what becomes another one.

    Where a part is swapped between the press of a button and its release, a click is none; and
    between two keys the focus may begin anew.
    """
    wait_for(lambda: page.evaluate(FETCHED), "the parts that a page fetches at first")


def is_the_same_document(page: Page) -> bool:
    """Return whether the document is still the one that `live` marked: nothing was reloaded."""
    return bool(page.evaluate("window.stillTheSame === true"))
