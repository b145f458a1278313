"""The demo's evaluator: measures every base on everybody's test part, as anybody could."""

from __future__ import annotations

import json
from pathlib import Path

from coldfusion_client import Client
from coldfusion_shared.evaluate.comparison import compare
from coldfusion_shared.evaluate.comparison_text import verdict_text
from coldfusion_shared.evaluate.results import Evaluated
from examples.demo.community import MODEL, TRAINING, Server
from examples.demo.data import Member

SEEDS = 3


class Evaluator:
    """Measures bases by linear probing, and posts the scores."""

    def __init__(self, server: Server, token: str, people: list[Member], work: Path) -> None:
        """Write the suite into `work`, where downloads are kept, too."""
        self.suite = _write_suite(work / "suite.yaml", people)
        self.client = Client(server.url, token, cache=work / "home" / "evaluator")
        self.measured: list[Evaluated] = []

    def measure(self, version: str) -> Evaluated:
        """Measure one base; takes a good part of a minute."""
        found = self.client.evaluate(MODEL, self.suite, version, seeds=SEEDS, post=True)
        self.measured.append(found)
        return found

    def verdict(self) -> str:
        """Say whether the newest base is better than v0, at the measured noise."""
        first, last = self.measured[0], self.measured[-1]
        return verdict_text(compare(first, last), "v0", f"v{len(self.measured) - 1}")


def _write_suite(path: Path, people: list[Member]) -> Path:
    """A seed learns from half of the examples, so that seeds differ."""
    sizes = {
        part: min(len(member.dataset.splits[part]) for member in people)
        for part in ("train", "validation", "test")
    }
    suite = {
        "name": "demo",
        "datasets": [{"data": str(member.folder.absolute())} for member in people],
        "limits": {**sizes, "train": sizes["train"] // 2},
        "max_length": int(TRAINING["--max-length"]),
    }
    # JSON is YAML, too.
    path.write_text(json.dumps(suite, indent=2) + "\n", encoding="utf-8")
    return path
