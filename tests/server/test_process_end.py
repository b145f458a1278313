"""A process beside the API ends on a signal, whatever its work is at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coldfusion_server.db.migrate import migrate
from coldfusion_server.services.context import open_context
from coldfusion_server.services.identity import claim_store
from coldfusion_server.settings import Settings

# What trains looks whether it is to end between two steps; this one never does.
PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from coldfusion_server import process
from coldfusion_server.settings import Settings
import torch

process.LAST_CHUNK_SECONDS = 0.1

def work(context, stop):
    values = torch.ones(300, 300, requires_grad=True)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while True:
        (values @ values).sum().backward()

process.run_alone(Settings(data_dir=Path(sys.argv[1])), work)
"""


def test_work_that_goes_on_computing_does_not_abort_the_end(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed, whose threads are in question")
    context = open_context(Settings(data_dir=tmp_path))
    migrate(context.database)
    claim_store(context)
    context.close()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "idle=False" in done.stderr
