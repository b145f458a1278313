"""
The pictures in docs/how-to/dashboard.md, of a running server: ``python -m docs.screenshots URL``.

Every page is opened in Chromium, and kept as a PNG of few colours, so that all of them together
weigh less than one photograph. ``--token-file`` names a file with a maintainer's token, for the
pages that only maintainers see.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, ViewportSize, sync_playwright

FOLDER = Path(__file__).parent / "how-to" / "dashboard"
SIZE = ViewportSize(width=1180, height=860)
# Flat colours and text: more would not be seen.
COLOURS = 96
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]


def main() -> int:
    """Take the pictures that are asked for; return the exit status."""
    options = _parser().parse_args()
    browser_path = shutil.which("chromium")
    if browser_path is None:
        sys.stderr.write("There is no program called chromium.\n")
        return 1
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        context = browser.new_context(
            base_url=options.url, viewport=SIZE, color_scheme="dark" if options.dark else "light"
        )
        if options.token_file is not None:
            _log_in(context, options.token_file.read_text().strip())
        for shot in options.pages:
            name, _, path = shot.partition("=")
            _take(context, name, path)
        browser.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the server")
    parser.add_argument("pages", nargs="+", metavar="NAME=PATH", help="such as overview=/")
    parser.add_argument("--token-file", type=Path, help="of a maintainer")
    parser.add_argument("--dark", action="store_true")
    return parser


def _log_in(context: BrowserContext, token: str) -> None:
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Log in").first.click()
    page.wait_for_url("/")
    page.close()


def _take(context: BrowserContext, name: str, path: str) -> None:
    page = context.new_page()
    page.goto(path, wait_until="load")
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    target = FOLDER / f"{name}.png"
    picture.convert("RGB").quantize(COLOURS).save(target, optimize=True)
    sys.stdout.write(f"{target.name}: {target.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    sys.exit(main())
