"""Whether a model that will be trained is all of the base that it was built from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import BadModel
from coldfusion_shared.weights.body import OPTIONAL_MODULE, align, body
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.tied import tied_groups


def require_whole(model: Any, base: Path) -> None:
    """
    Refuse a model that leaves out a part of the base's body: nobody could contribute it.

    Args:
        model: with its head, as it will be trained.
        base: the transformers folder that it was built from.

    Raises:
        BadModel: tensors are missing; they are named.
    """
    names = list(model.state_dict())
    with Checkpoint.from_folder(base) as checkpoint:
        wanted = body(checkpoint.spans())
        found = set(align(wanted, names))
        missing = [
            name for name in wanted if name not in found and OPTIONAL_MODULE not in name.split(".")
        ]
        if missing:
            missing = _without_tied(missing, checkpoint, names)
    if missing:
        raise BadModel(
            f"A {type(model).__name__} leaves out {len(missing)} of the base's tensors, such as "
            f"{missing[0]}: what it learns could not be contributed.",
            hint="Take another kind of task, or a base that is all in such a model.",
            tensors=missing[:10],
        )


def _without_tied(missing: list[str], base: Checkpoint, names: Collection[str]) -> list[str]:
    """Return those that are no other name of a parameter that the model has."""
    found = set(align(base.tensors, names))
    there = {name for group in tied_groups(base.tensors) if found & set(group) for name in group}
    return [name for name in missing if name not in there]
