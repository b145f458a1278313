"""What a check is: it sees the header, then what each chunk measured, then it concludes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from coldfusion_shared.parameters import Parameters
from coldfusion_shared.schemas.contributions import Finding, Verdict
from coldfusion_shared.weights.header import TensorSpan, short

if TYPE_CHECKING:
    from coldfusion_shared.screening.chunk import Chunk
    from coldfusion_shared.screening.history import Past
    from coldfusion_shared.screening.measures import Measures
    from coldfusion_shared.weights.checkpoint import StoredTensor

Spans = Mapping[str, TensorSpan]
Action = Literal["warn", "quarantine", "reject"]

# Tensors that a finding names.
MOST_TENSORS = 10
# Of a measured number that a contributor is told.
DIGITS = 4


class Tunable(Parameters):
    """Parameters of a check that a model may set otherwise, or do without."""

    enabled: bool = Field(default=True, description="whether the check is made at all")
    action: Action = Field(
        default="quarantine",
        description="what becomes of a contribution beyond the limit: warn lets it pass with a "
        "remark, quarantine lets it wait for a maintainer, reject refuses it",
    )


@dataclass(frozen=True)
class Subject:
    """
    What is screened.

    Attributes:
        encoding: the form it came in.
        names: tensors of the base that it may have changed.
        frozen: patterns of names that it says it has not changed.
        base: the tensors of the base that it was made from.
        outside: what it has beside the body, under the base's names: heads, integers. None of it
            is fused.
        stored: the base's tensors themselves; where a check has to look at a few again.
    """

    encoding: str
    names: Collection[str]
    frozen: Sequence[str]
    base: Spans
    outside: Mapping[str, StoredTensor] = field(default_factory=dict)
    stored: Mapping[str, StoredTensor] = field(default_factory=dict)


class Check:
    """
    One question to a contribution; a new one is made for each contribution.

    A check overrides what it needs: `header` costs nothing and may stop the screening before any
    value is read. All values are then read once, and what was measured of each chunk is shown to
    all checks by `observe`; no check reads values itself. `values` may stop the screening where
    the values are such that no number over them means anything.

    Attributes:
        name: as in policies and findings.
        summary: one line for lists.
        parameters_type: its parameters; their defaults are what honest contributions allow.
        compares: whether it goes by the past. If so, it may be asked to conclude once more, when
            more is known of others and no file is open any more; it goes by measures, past and
            parameters alone.
        hint: what somebody can do whom it rejects.
        hindsight: whether those who come later change what it says, too. What is usual in a round
            is not known before the round is there; who was first was first.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    parameters_type: ClassVar[type[Parameters]] = Parameters
    compares: ClassVar[bool] = False
    hint: ClassVar[str] = "Ask the model's maintainers: its policy sets the limit."
    hindsight: ClassVar[bool] = False

    def __init__(self, subject: Subject, parameters: Any = None) -> None:
        """
        Prepare for one contribution.

        Args:
            subject: what is screened.
            parameters: of `parameters_type`; null: the defaults.
        """
        self.subject = subject
        self.parameters: Any = self.parameters_type() if parameters is None else parameters

    def header(self) -> Finding | None:
        """Return a finding if what the subject says of itself already decides."""
        return None

    def observe(self, chunk: Chunk) -> None:
        """Look at what was measured of one chunk; they come in the order of names and places."""

    def values(self) -> Finding | None:
        """Return a finding if the values that were seen spoil all that could be said of them."""
        return None

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """
        Return the verdict after all values were seen.

        Args:
            measures: the numbers of this contribution.
            past: what is known of others; a check that has nothing to compare with lets it pass.
        """
        return self.passed("nothing to object")

    def passed(
        self, message: str, measured: float | None = None, limit: float | None = None
    ) -> Finding:
        """Return a finding that lets the contribution pass."""
        return self._finding("pass", message, measured, limit)

    def rejected(self, message: str, tensors: Iterable[str] = ()) -> Finding:
        """Return a finding that rejects the contribution, whatever the parameters say."""
        return self._finding("reject", message, tensors=tensors)

    def flagged(
        self,
        message: str,
        measured: float | None = None,
        limit: float | None = None,
        tensors: Iterable[str] = (),
        *,
        by: str = "action",
    ) -> Finding:
        """
        Return a finding with the verdict that the parameters ask for; of a `Tunable` check.

        Its message ends with the parameter `by` that a policy sets where such work is honest.
        """
        message = f"{message} ({self.name}.{by})"
        return self._finding(self.parameters.action, message, measured, limit, tensors)

    def _finding(
        self,
        verdict: Verdict,
        message: str,
        measured: float | None = None,
        limit: float | None = None,
        tensors: Iterable[str] = (),
    ) -> Finding:
        return Finding(
            check=self.name,
            verdict=verdict,
            message=message,
            measured=None if measured is None else shown(measured),
            limit=limit,
            tensors=list(tensors)[:MOST_TENSORS],
        )


def shown(number: float) -> float:
    """Return `number` with the digits that are told: with all of them a sketch's key could leak."""
    return float(f"{number:.{DIGITS}g}")


def listed(names: Collection[str]) -> str:
    """Return the first of `names`, at least one, and how many others there are, for a message."""
    others = len(names) - 1
    more = f" and {others} other{'s'[: others != 1]}" if others else ""
    return f"{short(next(iter(names)))}{more}"
