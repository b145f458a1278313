"""Rounds close while people finetune: a contribution follows the newest base, if it may."""

from __future__ import annotations

from collections.abc import Callable

from coldfusion_client.bases import LATEST, find_base
from coldfusion_client.source import Source
from coldfusion_shared.errors import BaseOutdated
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Contribution

# A round may close again while the update is put onto its base.
MAX_MOVES = 5


def onto_newest(
    source: Source,
    made_from: Base,
    attempt: Callable[[Base], Contribution],
    *,
    onto_latest: bool,
) -> Contribution:
    """
    Return what `attempt` makes of `made_from`, or of the newest base if `onto_latest`.

    Raises:
        BaseOutdated: there is a newer base, which may not be used or is outdated again and again.
    """
    for moves_left in reversed(range(MAX_MOVES)):
        onto = find_base(source, made_from.model, LATEST) if onto_latest else made_from
        try:
            return attempt(onto)
        except BaseOutdated as error:
            if not (onto_latest and moves_left):
                raise _explained(error, made_from) from None
    raise AssertionError("the last attempt returns or raises")


def _explained(error: BaseOutdated, made_from: Base) -> BaseOutdated:
    return BaseOutdated(
        error.message,
        hint="Nothing is lost: the same command with --onto latest (in Python: onto_latest=True) "
        f"puts what was learnt from {made_from.version} onto the newest base, without training "
        "again.",
    )
