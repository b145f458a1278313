"""What an evaluator asks for, and where it is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldfusion_client.api import Api
from coldfusion_client.cache import Cache
from coldfusion_client.reporting import Reporter
from coldfusion_client.source import Source
from coldfusion_client.subjects import Subject

# In the cache: features, and the results of each base, data set and seed.
KEPT_FOLDER = "evaluations"


@dataclass(frozen=True)
class Order:
    """
    What an evaluator asks for.

    Attributes:
        subjects: one, or two of which the second is compared with the first; a candidate, alone, is
            compared with the base that it was fused onto.
        suite: the suite's file.
        protocol: frozen, finetuned or few-shot.
        seeds: how many; each draws the training examples anew.
        gain: compare a single base with the model's v0.
        pin: write the data's digests into the suite's file first.
        post: hand the scores in.
    """

    subjects: tuple[Subject, ...]
    suite: Path
    protocol: str = "frozen"
    seeds: int = 3
    gain: bool = False
    pin: bool = False
    post: bool = False


@dataclass(frozen=True)
class Place:
    """
    Where models are measured: the cache, who is told, and the server where one is needed.

    `key` is the file of the server's public key, where it is not the one that is known.
    """

    cache: Cache
    reporter: Reporter
    api: Api | None = None
    key: Path | None = None

    @property
    def source(self) -> Source:
        """The server, which is there wherever a base is named."""
        assert self.api is not None, "bases are measured beside a server"
        return Source(self.api, self.cache, self.reporter, self.key)

    @property
    def kept(self) -> Path:
        """The folder of what was measured: it is not measured again."""
        return self.cache.root / KEPT_FOLDER
