"""Ten downloads of one model at the same time, each into a cache of its own, each with threads."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from huggingface_hub import snapshot_download

MODEL, FOLDER = sys.argv[1:]
DOWNLOADS = 10


def download(number: int) -> list[str]:
    folder = snapshot_download(MODEL, cache_dir=Path(FOLDER) / str(number), max_workers=8)
    # A file's name in the cache is the digest that was promised.
    return sorted(f"{path.name} {path.resolve().name}" for path in Path(folder).iterdir())


with ThreadPoolExecutor(DOWNLOADS) as pool:
    found = list(pool.map(download, range(DOWNLOADS)))
sys.stdout.write(json.dumps(found))
