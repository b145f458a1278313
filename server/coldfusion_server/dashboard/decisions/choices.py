"""What the boxes of a form offer to tick."""

from __future__ import annotations

from dataclasses import dataclass

from coldfusion_server.dashboard.decisions.outcomes import Wish
from coldfusion_server.services import contributions
from coldfusion_server.services.paging import MAX_LIMIT, Window
from coldfusion_shared.contributions import ContributionState
from coldfusion_shared.schemas.contributions import Contribution

# A form with more boxes than this is for nobody: the rest is named by the command.
MOST = 1000


@dataclass(frozen=True)
class Choice:
    """One box: its value, and the contribution that it stands for."""

    value: str
    item: Contribution


def set_aside(wish: Wish) -> list[Choice]:
    """Return what a round's gate has rejected and nobody has decided on, the newest first."""
    found: list[Choice] = []
    cursor: str | None = None
    while len(found) < MOST:
        page = contributions.list_contributions(
            wish.ctx,
            wish.model,
            wish.who,
            Window(cursor, MAX_LIMIT),
            round_number=wish.id,
            state=ContributionState.SET_ASIDE,
        )
        found += [Choice(item.id, item) for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found
