"""Which weights of a model learn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.weights.body import align, body
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.frozen import is_frozen, parts_of

SHOWN = 4


def body_of(model: Any, base: Path) -> dict[str, str]:
    """Return the names of the tensors of a base's body, and what each is called in `model`."""
    with Checkpoint.from_folder(base) as checkpoint:
        shared = body(checkpoint.spans())
    return align(shared, list(model.state_dict()))


def in_words_of(names: Collection[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """
    Return `patterns` in the words of a base whose tensors have these `names`.

    Under a head the body may be a module of its own, such as ``bert``. Who has seen that model's
    names means the base's: what stands for nothing as it is loses its first word.
    """
    return tuple(_in_words_of(names, pattern) for pattern in patterns)


def _in_words_of(names: Collection[str], pattern: str) -> str:
    rest = pattern.partition(".")[2]
    if not rest or _standing_for(pattern, names) or not _standing_for(rest, names):
        return pattern
    return rest


def _standing_for(pattern: str, names: Iterable[str]) -> set[str]:
    return {name for name in names if is_frozen(name, [pattern])}


def frozen_by(patterns: Sequence[str], names: Mapping[str, str]) -> set[str]:
    """
    Return what is to be frozen of a model, by its own names; `is_frozen` says what patterns are.

    Args:
        patterns: in the base's words, or in the model's.
        names: of the body's tensors, the base's and those in the model.

    Raises:
        InvalidRequest: a pattern stands for nothing, or nothing is left.
    """
    found: set[str] = set()
    for pattern, meant in zip(patterns, in_words_of(names, patterns), strict=True):
        matching = {names[name] for name in _standing_for(meant, names)}
        another = meant != pattern and _standing_for(pattern, names.values()) != matching
        if not matching or another:
            raise InvalidRequest(
                f"Nothing of the model's body is called {pattern!r}, so it cannot be frozen.",
                hint=f"There are {listed(closest(pattern, names))}.",
            )
        found |= matching
    if names and len(found) == len(names):
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
