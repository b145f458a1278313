"""
The dashboard's pages: how soon a browser paints them, how long the server takes, what they weigh.

A Repository of real processes with some rounds of history, one round with a thousand contributions,
and Chromium with an empty cache for every load. Beside it, in the same run, the form to log in,
which is nearly nothing: what the browser itself takes.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.crowd import fill_round
from benchmarks.measure import say
from benchmarks.repository import Repository, running
from benchmarks.rounds import write_tiny
from coldfusion_client import Client
from coldfusion_server.dashboard.rendering import STATIC
from coldfusion_server.db.database import Database

MODEL, CROWDED = "bench/model", "bench/crowded"
# In seconds, and in bytes.
PAINT_GOAL, CROWD_GOAL, ASSETS_GOAL = 1.0, 2.0, 300_000
# The smallest of all pages: what the browser itself takes, and the style sheet.
NOTHING = "/login"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
# What the browser tells of a load once it has painted, in milliseconds since it was begun.
TIMES = """() => new Promise((done) => {
  const look = () => {
    const load = performance.getEntriesByType("navigation")[0];
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    if (paint) done([load.responseEnd, paint.startTime]);
    else requestAnimationFrame(look);
  };
  look();
})"""
PATIENCE_MS = 60_000.0


@dataclass(frozen=True)
class Settings:
    """
    What is measured.

    Attributes:
        folder: for the Repository.
        browser: the program of Chromium.
        rounds: of history.
        crowd: contributions to one round.
        repeats: loads of each page, of which the median counts.
    """

    folder: Path
    browser: str
    rounds: int
    crowd: int
    repeats: int


@dataclass(frozen=True)
class Load:
    """One load of a page: until its HTML was there, until something was seen; seconds, bytes."""

    answered: float
    painted: float
    html: int


def table(settings: Settings) -> str:
    """Measure and return the table."""
    shutil.rmtree(settings.folder, ignore_errors=True)
    settings.folder.mkdir(parents=True)
    with running(settings.folder / "repository") as repository, sync_playwright() as playwright:
        paths = _live_through(repository, settings)
        browser = playwright.chromium.launch(executable_path=settings.browser, args=FLAGS)
        loads = {what: _load(browser, repository.url + path, settings) for what, path in paths}
        browser.close()
    shutil.rmtree(settings.folder)
    return "\n".join(_lines(settings, loads))


def _lines(settings: Settings, loads: dict[str, Load]) -> Iterator[str]:
    yield (
        f"Chromium without a cache, the median of {settings.repeats} loads; {settings.rounds} "
        f"rounds of history, a round of another model with {settings.crowd} contributions; SQLite, "
        "server and browser on the same machine."
    )
    yield ""
    yield "| page | HTML there, ms | first paint, ms | HTML, kB | goal | |"
    yield "|---|---:|---:|---:|---:|---|"
    for what, load in loads.items():
        goal = CROWD_GOAL if "contributions" in what else PAINT_GOAL
        verdict = "holds" if load.painted < goal else "**misses**"
        yield (
            f"| {what} | {1000 * load.answered:.0f} | {1000 * load.painted:.0f} | "
            f"{load.html / 1000:.0f} | {1000 * goal:.0f} | {verdict} |"
        )
    yield ""
    size = assets()
    verdict = "holds" if size < ASSETS_GOAL else "**misses**"
    goal = ASSETS_GOAL / 1000
    yield f"All assets, compressed: {size / 1000:.0f} kB (goal: {goal:.0f}): {verdict}."


def assets() -> int:
    """Return the bytes of all static files together, each compressed as a proxy does it."""
    files = [path for path in STATIC.rglob("*") if path.suffix in (".css", ".js", ".svg")]
    return sum(len(gzip.compress(path.read_bytes(), 6)) for path in files)


def _live_through(repository: Repository, settings: Settings) -> Sequence[tuple[str, str]]:
    """Make the history; return what each page is, and its path."""
    say(f"{settings.rounds} rounds of history, then {settings.crowd} contributions")
    base = write_tiny(settings.folder / "base", 0)
    repository.create_model(MODEL, base, 1, public=True)
    repository.create_model(CROWDED, base, 10_000, public=True)
    cache = settings.folder / "cache"
    with Client(repository.url, repository.token, cache=cache) as client:
        for number in range(1, settings.rounds + 1):
            folder = write_tiny(settings.folder / "finetuned", number)
            client.contribute(MODEL, folder, f"v{number - 1}", wait=True)
            repository.wait_published(MODEL, number)
        seed = settings.rounds + 1
        folder = write_tiny(settings.folder / "finetuned", seed)
        receipt = client.contribute(CROWDED, folder, "v0", wait=True)
    _crowd(repository, settings.crowd)
    return [
        ("log in", NOTHING),
        ("overview", "/"),
        ("model", f"/models/{MODEL}"),
        ("base", f"/models/{MODEL}/bases/v{settings.rounds}"),
        ("lineage", f"/models/{MODEL}/lineage"),
        ("a contribution", f"/contributions/{receipt.id}"),
        (f"round of {settings.crowd} contributions", f"/models/{CROWDED}/rounds/1"),
        (f"model with {settings.crowd} contributions", f"/models/{CROWDED}"),
        (f"lineage of {settings.crowd} contributions", f"/models/{CROWDED}/lineage"),
    ]


def _crowd(repository: Repository, count: int) -> None:
    database = Database(f"sqlite:///{repository.folder / 'data' / 'coldfusion.db'}")
    try:
        fill_round(database, count)
    finally:
        database.close()


def _load(browser: Browser, url: str, settings: Settings) -> Load:
    """Load a page some times, each with an empty cache; return the medians."""
    say(url)
    loads = [_load_once(browser, url) for _ in range(settings.repeats)]
    return sorted(loads, key=lambda load: load.painted)[len(loads) // 2]


def _load_once(browser: Browser, url: str) -> Load:
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(url, wait_until="load", timeout=PATIENCE_MS)
    assert answer is not None and answer.ok, f"{url}: {answer and answer.status}"
    answered, painted = page.evaluate(TIMES)
    size = len(answer.body())
    context.close()
    return Load(answered / 1000, painted / 1000, size)
