"""A round's life as data and pure decisions: states, closing, lateness, gate. No effects."""

from coldfusion_shared.rounds.states import (
    ENDS,
    TRANSITIONS,
    UNDER_WAY,
    RoundState,
    check_transition,
)

__all__ = ["ENDS", "TRANSITIONS", "UNDER_WAY", "RoundState", "check_transition"]
