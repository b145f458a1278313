"""A lab on tiny inputs, for tests of single steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.cache import Cache
from experiments.data import Data
from experiments.lab import Lab, model_in
from experiments.notebook import Notebook
from experiments.presets import settings_of
from experiments.progress import Clock
from experiments.records import Records
from tests.experiments.conftest import Inputs

PROTOCOL = "main"


def lab_of(inputs: Inputs, folder: Path, **given: Any) -> Lab:
    """Return a lab with a notebook in `folder`, and a cache there."""
    settings = settings_of("tiny", PROTOCOL, given)
    measuring = settings.measuring
    judged = measuring.validation if measuring.split == "validation" else 0
    return Lab(
        protocol=PROTOCOL,
        settings=settings,
        data=Data(inputs.data, None, judged),
        pretrained=model_in(inputs.base),
        cache=Cache(folder / "cache", 10**9),
        clock=Clock(quiet=True),
        notebook=Notebook(PROTOCOL, Records(folder / "records.jsonl")),
        machine="test",
    )
