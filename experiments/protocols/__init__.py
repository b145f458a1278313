"""The experiments, one file each: the paper's, and our own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from coldfusion_shared.registry import Registry
from experiments.lab import Lab


@dataclass(frozen=True)
class Protocol:
    """
    An experiment.

    Attributes:
        name: as it is run.
        summary: one line for lists.
        paper: where the paper has it; null: it is our own.
        run: does it: makes bases and scores them. It is called to count what is to be done, with
            placeholders for all that is not there yet, again and again where several processes
            make it, with placeholders for what others are at, and in the end in earnest.
        reference: the arm that all others are compared with.
        pairs: from the arms that were measured to further ones to compare, each with another.
        served: whether its lines can be made by a running server.
        pooled: whether its data sets are a pool that the run's base learns, so that some of them
            can be left out.
    """

    name: str
    summary: str
    paper: str | None
    run: Callable[[Lab], None]
    reference: str = "pretrained"
    pairs: Callable[[list[str]], list[tuple[str, str]]] = lambda arms: []
    served: bool = False
    pooled: bool = True


registry: Registry[Protocol] = Registry("experiment", "coldfusion.experiments")


def protocol(
    name: str,
    summary: str,
    paper: str | None = None,
    *,
    reference: str = "pretrained",
    pairs: Callable[[list[str]], list[tuple[str, str]]] = lambda arms: [],
    served: bool = False,
    pooled: bool = True,
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Return a decorator that registers a function as a protocol; see `Protocol`."""

    def add(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        made = Protocol(name, summary, paper, run, reference, pairs, served, pooled)
        registry.register(name)(made)
        return run

    return add


def discover() -> Registry[Protocol]:
    """Return the registry after importing every protocol."""
    registry.discover(sys.modules[__name__])
    return registry


def last_with_first(arms: list[str]) -> list[tuple[str, str]]:
    """Compare the last arm of a sweep with its first."""
    swept = [arm for arm in arms if arm != "pretrained"]
    return [(swept[-1], swept[0])] if len(swept) > 1 else []


def all_with_first(arms: list[str]) -> list[tuple[str, str]]:
    """Compare each arm of a sweep with its first."""
    swept = [arm for arm in arms if arm != "pretrained"]
    return [(arm, swept[0]) for arm in swept[1:]]
