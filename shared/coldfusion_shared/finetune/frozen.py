"""Which weights of a model learn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.weights.body import align, body
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.frozen import is_frozen, parts_of

SHOWN = 4


def body_of(model: Any, base: Path) -> set[str]:
    """Return the names of the tensors of `model` that are the body of the base in that folder."""
    with Checkpoint.from_folder(base) as checkpoint:
        shared = body(checkpoint.spans())
    return set(align(shared, list(model.state_dict())).values())


def frozen_by(patterns: Sequence[str], names: Collection[str]) -> set[str]:
    """
    Return those of `names` that a pattern stands for; `is_frozen` says what patterns are.

    Raises:
        InvalidRequest: a pattern stands for nothing, or nothing is left.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if is_frozen(name, [pattern])}
        if not matching:
            raise InvalidRequest(
                f"Nothing of the model's body is called {pattern!r}, so it cannot be frozen.",
                hint=f"There are {listed(closest(pattern, names))}.",
            )
        found |= matching
    if names and found >= set(names):
        raise InvalidRequest(
            "The whole body would be frozen, and nothing be left to contribute.",
            hint="Freeze less of it.",
        )
    return found


def freeze(model: Any, names: Collection[str]) -> None:
    """Let the parameters of these names stay as they are, under whatever name they are tied to."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names:
            parameter.requires_grad_(False)


def learning(model: Any) -> dict[str, Any]:
    """Return the model's state without what stays as it is, by name."""
    still = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    return {name: value for name, value in model.state_dict().items() if name not in still}


def closest(wanted: str, names: Iterable[str]) -> list[str]:
    """Return modules and parts of `names` that are spelt most like `wanted`, or the outermost."""
    parts = list(dict.fromkeys(part for name in names for part in parts_of(name)))
    near = get_close_matches(wanted, parts, SHOWN, 0.5)
    return near or sorted(dict.fromkeys(name.rpartition(".")[0] for name in names))[:SHOWN]


def listed(names: Sequence[str]) -> str:
    """Return names for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
