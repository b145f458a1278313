"""
One download by huggingface_hub, in a process of its own: ``python -m benchmarks.hub_once JOB``.

Imports nothing of ours. JOB is a JSON file; HF_ENDPOINT says from where. The seconds are printed as
JSON; they begin when all is imported, and no connection is open.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import huggingface_hub
from huggingface_hub import snapshot_download


def main(model: str, cache: str) -> None:
    """Download the model into an empty cache and print what it cost."""
    started = time.perf_counter()
    folder = snapshot_download(model, cache_dir=cache)
    seconds = time.perf_counter() - started
    for path in Path(folder).iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    synced = time.perf_counter() - started
    version = huggingface_hub.__version__
    sys.stdout.write(json.dumps({"seconds": seconds, "synced": synced, "version": version}) + "\n")


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    main(job["model"], job["cache"])
