"""What does the update do alone, to the scores of the base that it was made from?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from coldfusion_shared.parameters import Parameters
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import check_parameters, checks
from coldfusion_shared.screening.check import Check
from coldfusion_shared.screening.history import Past
from coldfusion_shared.screening.measures import Measures

NAME = "usefulness"


class UsefulnessParameters(Parameters):
    """Parameters of `usefulness`."""

    enabled: bool = Field(
        default=False,
        description="whether each contribution is measured alone, by the gate's suite, when the "
        "Repository's own evaluator has nothing else to do",
    )
    tolerance: Annotated[float, Field(ge=0, le=100)] = Field(
        default=1.0,
        description="points that base and update together may lose beside the base, on top of a "
        "standard error, before the receipt has a warning",
    )


@checks.register(NAME)
class UsefulnessCheck(Check):
    """
    Whether the update does the base any good takes an evaluation, which is made later.

    Nobody waits for it: what it does is told in the receipt, to its contributor and to who decides
    on a quarantine. Alone an update may well cost points on other tasks than its own; it is the
    round's fuse that its gate judges.
    """

    name = NAME
    summary = "base and update together score no worse on the gate's suite; measured afterwards"
    parameters_type = UsefulnessParameters

    def conclude(self, measures: Measures, past: Past) -> Finding:
        """Leave it to an evaluator."""
        return self.passed("what it does alone to the scores is measured later")


def wanted(screening: Mapping[str, Mapping[str, Any]]) -> UsefulnessParameters | None:
    """Return the parameters, where a policy's `screening` asks for this; else null."""
    parameters = check_parameters(screening)[NAME]
    assert isinstance(parameters, UsefulnessParameters), "those of this check"
    return parameters if parameters.enabled else None
