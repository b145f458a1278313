"""A delivery's states, and when a receiver that failed is tried again. Data, no effects."""

from __future__ import annotations

from enum import StrEnum


class DeliveryState(StrEnum):
    """Where a delivery is between its event and its receiver."""

    WAITING = "waiting"
    FAILED = "failed"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


# Those are tried once more.
PENDING = frozenset({DeliveryState.WAITING, DeliveryState.FAILED})

# Seconds between one try and the next: more than a day in all.
PAUSES = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18000.0, 18000.0, 18000.0, 18000.0)
# A receiver that says when to come again is believed up to here, in seconds.
LONGEST_PAUSE = 18000.0
# Each pause is longer by up to this share of it, so that what failed together does not come back
# together.
JITTER = 0.25


def pause_after(attempts: int, chance: float, asked_for: float | None = None) -> float | None:
    """
    Return the seconds until the next try, or null where there is none.

    Args:
        attempts: how many have failed, 1 or more.
        chance: a random number from 0 up to 1.
        asked_for: seconds that the receiver wants to be left alone, by Retry-After.
    """
    if attempts > len(PAUSES):
        return None
    pause = PAUSES[attempts - 1] * (1 + JITTER * chance)
    return max(pause, min(asked_for or 0.0, LONGEST_PAUSE))
