"""
The header parser under coverage-guided fuzzing: it refuses or it is right, and never anything else.

COLDFUSION_FUZZ=100 tries a hundred times as long.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is not installed: it has wheels for Linux alone")

from tests.hostile.fuzz_header import parse

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "kept_headers"
RUNS = 50_000 * int(os.environ.get("COLDFUSION_FUZZ", "1"))
# A machine that runs other tests beside may be very slow; it is the runs that end it.
LIMIT_SECONDS = 600


@pytest.mark.parametrize("file", sorted(CORPUS.iterdir()), ids=lambda file: file.name)
def test_what_was_found_before_is_still_right(file: Path) -> None:
    parse(file.read_bytes())


def test_nothing_new_breaks_it(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    command = [sys.executable, "-m", "tests.hostile.fuzz_header", str(new), str(CORPUS)]
    limits = [f"-runs={RUNS}", "-seed=1", "-rss_limit_mb=2048", "-timeout=60"]
    # Linux counts the most memory of whoever starts a program as the program's own, which here are
    # gigabytes of other tests: so a shell stands between.
    between = ["sh", "-c", '"$@"; exit $?', "sh"]
    done = subprocess.run(
        [*between, *command, *limits],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    found = [path.read_bytes() for path in tmp_path.glob("*-*") if path.is_file()]
    assert done.returncode == 0, (found, done.stderr[-3000:])
    assert f"Done {RUNS} runs" in done.stderr, done.stderr[-500:]
