"""Do tensors that are one parameter stay one?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import checks
from coldfusion_shared.screening.check import Check, Subject, Tunable
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

if TYPE_CHECKING:
    from coldfusion_shared.screening.chunk import Chunk

# Sums of squares of the same values, which different threads may add up a little differently.
_ALIKE = 1e-4


class _Seen:
    """What was seen of one matrix."""

    def __init__(self) -> None:
        self.base_squares = 0.0
        self.update = hashlib.blake2b(digest_size=16)

    def add(self, chunk: Chunk) -> None:
        self.base_squares += chunk.base_squares
        if chunk.tag:
            self.update.update(chunk.start.to_bytes(8, "little") + chunk.tag)


@checks.register("tied")
class TiedCheck(Check):
    """
    Matrices that are the same in the base may be one parameter under two names.

    Those that are all zero say nothing: many layers begin so. Where an update has others apart they
    come apart for all, and a program that ties them again reads only one of the two. Layers that
    began as copies of each other come apart rightly: a model that has such ones sets the action to
    warn for its first round.
    """

    name = "tied"
    summary = "matrices that are the same in the base changed alike"
    parameters_type = Tunable

    def __init__(self, subject: Subject, parameters: Any = None) -> None:
        """Start with nothing seen."""
        super().__init__(subject, parameters)
        self.seen: dict[tuple[str, tuple[int, ...]], dict[str, _Seen]] = defaultdict(dict)

    def observe(self, chunk: Chunk) -> None:
        """Add to what is known of a matrix."""
        span = chunk.span
        if len(span.shape) > 1:
            self.seen[span.dtype, span.shape].setdefault(span.name, _Seen()).add(chunk)

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Flag tied matrices whose updates differ."""
        for matrices in self.seen.values():
            for one, other in self._apart(matrices):
                if self._tied(one, other):
                    told = f"{one} and {other} are the same in the base, and changed differently"
                    return self.flagged(told, tensors=[one, other])
        return self.passed("what is the same in the base changed alike")

    def _apart(self, matrices: dict[str, _Seen]) -> list[tuple[str, str]]:
        """Return neighbours by their base's norm that may be the same there, and are not here."""
        filled = [name for name, seen in matrices.items() if seen.base_squares]
        order = sorted(filled, key=lambda name: matrices[name].base_squares)
        pairs = zip(order, order[1:], strict=False)
        return [
            (one, other)
            for one, other in pairs
            if matrices[other].base_squares * (1 - _ALIKE) <= matrices[one].base_squares
            and matrices[one].update.digest() != matrices[other].update.digest()
        ]

    def _tied(self, one: str, other: str) -> bool:
        from coldfusion_shared.weights.tied import same_values

        return same_values(self.subject.stored[one], self.subject.stored[other])
