"""Commands that do not train must not wait for what trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "sklearn", "numpy", "pyarrow", "datasets", "pandas"}


@pytest.mark.parametrize("package", ["data", "tasks", "finetune", "evaluate"])
def test_a_package_imports_nothing_heavy(package: str) -> None:
    code = f"import sys, coldfusion_shared.{package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
