"""What each extra brings, and what importing costs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("shared", "client", "server")
HEAVY = {"torch", "transformers", "datasets", "sklearn", "numpy", "pyarrow"}
SERVER_ONLY = {"fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "boto3", "psycopg"}


def _requirements(distribution: str, extras: set[str]) -> set[str]:
    """Names of all that `distribution` with `extras` needs, by our own metadata."""
    names: set[str] = set()
    for line in requires(distribution) or []:
        marker = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        if marker and marker[1] not in extras:
            continue
        own = re.match(r"coldfusion\[([^\]]+)\]", line)
        if own:
            names |= _requirements(distribution, set(own[1].split(",")))
        else:
            name = re.match(r"[A-Za-z0-9_.-]+", line)
            assert name is not None
            names.add(name[0].lower().replace("-", "_"))
    return names


def test_a_client_install_brings_no_web_framework_no_database_no_store_and_no_torch() -> None:
    assert not _requirements("coldfusion", {"client"}) & (SERVER_ONLY | {"torch", "transformers"})


def test_a_server_install_brings_no_torch() -> None:
    assert not _requirements("coldfusion", {"server"}) & {"torch", "transformers"}


@pytest.mark.parametrize("program", ["coldfusion_client", "coldfusion_server"])
def test_help_imports_nothing_heavy(program: str) -> None:
    script = (
        f"import sys; sys.argv=['x','--help']\nfrom {program}.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('loaded:', *sorted({HEAVY | SERVER_ONLY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("program", ["client", "server"])
def test_a_program_without_its_extra_says_what_to_install(program: str) -> None:
    # No site-packages: nothing but the standard library and our own sources.
    script = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + sys.argv[1:]\n"
        f"from coldfusion_{program}.__main__ import main\nmain()"
    )
    command = [sys.executable, "-S", "-c", script, *(str(ROOT / part) for part in PARTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert f"pip install 'coldfusion[{program}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_both_programs_import_without_torch_in_the_way() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "import coldfusion_client.cli.app, coldfusion_server.process\n"
        "import coldfusion_shared.fusion.engine, coldfusion_shared.screening.screen"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
