"""In which form an update travels: whole, encoded, or as an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import EncodingRefused, InvalidRequest, UnknownName
from coldfusion_shared.schemas.models import Policy

AUTO = "auto"
FULL = "full"
LORA = "lora"
# From the most exact to the smallest, with the share of a float32 body that is sent. Measured:
# benchmarks/RESULTS.md.
SHARES = {
    "full": 1.0,
    "delta": 0.5,
    "delta-int8": 0.22,
    "delta-sparse": 0.05,
    "delta-sign": 0.033,
}
# An upload that takes no longer needs no saving.
PATIENCE_SECONDS = 60.0
# A home connection's, as long as none was measured.
USUAL_BYTES_A_SECOND = 2e6


@dataclass(frozen=True)
class Form:
    """
    The form that a contribution may take.

    Attributes:
        encodings: to be tried in this order; the last one is taken whatever it loses.
        frozen: patterns of names of what was not trained.
        adapter: folder of a LoRA adapter that is sent in place of weights; null: none.
        asked: the encoding that was asked for, or `AUTO`.
        screening: parameters of screening checks, as in the model's policy.
    """

    encodings: Sequence[str]
    frozen: tuple[str, ...] = ()
    adapter: Path | None = None
    asked: str = AUTO
    screening: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def choose_encodings(wanted: str, policy: Policy, size: int, speed: float | None) -> list[str]:
    """
    Return the encodings to try, the one that saves most first.

    Args:
        wanted: an encoding's name, or `AUTO`: the most exact one that is sent within
            `PATIENCE_SECONDS`.
        policy: the model's.
        size: bytes of the body in float32.
        speed: of uploads, in bytes a second; null: never measured.

    Raises:
        UnknownName: there is no such encoding.
        EncodingRefused: the policy does not take it, or none that holds weights.
    """
    taken = [name for name in SHARES if policy.encodings is None or name in policy.encodings]
    if wanted == AUTO:
        return _quick_enough(taken, policy, size / (speed or USUAL_BYTES_A_SECOND))
    if wanted not in (*SHARES, LORA):
        raise UnknownName(
            f"No encoding is named {wanted!r}.", hint=f"Known: {', '.join((AUTO, *SHARES))}."
        )
    check_taken(wanted, policy)
    if wanted == LORA:
        return [LORA]
    # What loses too much is followed by what loses less.
    return list(reversed(taken[: taken.index(wanted) + 1]))


def check_form(encoding: str, policy: Policy, *, adapter: bool) -> None:
    """
    Refuse an encoding in which weights, or an `adapter`, cannot be sent.

    Raises:
        UnknownName, EncodingRefused: there is no such encoding, or the model does not take it.
        InvalidRequest: it is none for them.
    """
    if not adapter:
        if encoding == LORA:
            raise InvalidRequest(
                "There is no LoRA adapter to send.", hint="Push the folder that peft has saved."
            )
        choose_encodings(encoding, policy, 0, None)
        return
    if encoding not in (AUTO, FULL, LORA):
        raise InvalidRequest(
            f"A LoRA adapter travels as it is, and not as {encoding}.",
            hint="Name no encoding, or merge the adapter into its model first.",
        )
    if policy.encodings is not None and LORA not in policy.encodings:
        raise EncodingRefused(
            "The model takes no LoRA adapters.",
            hint=f"It takes: {', '.join(policy.encodings)}. Merge the adapter into its model with "
            "peft's merge_and_unload(), and contribute that.",
        )


def check_taken(encoding: str, policy: Policy) -> None:
    """Raise `EncodingRefused` where the model takes no contributions in that encoding."""
    if policy.encodings is not None and encoding not in policy.encodings:
        raise EncodingRefused(
            f"The model takes no contributions in the encoding {encoding!r}.",
            hint=f"It takes: {', '.join(policy.encodings)}. Choose one with --encoding, or leave "
            "the choice to --encoding auto.",
        )


def _quick_enough(taken: list[str], policy: Policy, seconds: float) -> list[str]:
    if not taken:
        raise EncodingRefused(
            f"The model takes nothing but {', '.join(policy.encodings or ())}.",
            hint="Finetune with --lora, or push an adapter's folder.",
        )
    quick = [name for name in taken if SHARES[name] * seconds <= PATIENCE_SECONDS]
    first = quick[0] if quick else taken[-1]
    return list(reversed(taken[: taken.index(first) + 1]))
