"""Validation and test splits for data that come without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldfusion_shared.data.dataset import Split
from coldfusion_shared.data.sampling import stratified_order

# The share of the training data that each missing split is made of.
SHARE = 0.15


def complete(
    given: Mapping[str, Split], inputs: tuple[str, ...], seed: int
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """
    Return train, validation and test, and a note for each that had to be made.

    Copies of an example, by the roles `inputs`, all go to the same split, so that nobody is scored
    on what was learnt.
    """
    missing = [name for name in ("validation", "test") if name not in given]
    if not missing:
        return dict(given), ()
    train = given["train"]
    parts = _divided(train, inputs, missing, seed)
    notes = tuple(
        f"There is no {name} split: {len(parts[name])} of the {len(train)} training examples are "
        "held back for it."
        for name in missing
    )
    return {**given, **parts}, notes


def _divided(
    train: Split, inputs: tuple[str, ...], missing: list[str], seed: int
) -> dict[str, Split]:
    first_rows: dict[Any, int] = {}
    for row, example in enumerate(train.keys(inputs)):
        first_rows.setdefault(hashable(example), row)
    rows, strata = list(first_rows.values()), train.strata
    order = [rows[i] for i in stratified_order([strata[row] for row in rows], seed)]
    part_of = dict.fromkeys(rows, "train")
    size = max(1, int(SHARE * len(rows)))
    for name in missing:
        # From the end: the order's first half is what holds every label.
        part_of.update(dict.fromkeys(order[-size:], name))
        del order[-size:]
    homes = [part_of[first_rows[hashable(example)]] for example in train.keys(inputs)]
    return {
        name: train.take([row for row, home in enumerate(homes) if home == name])
        for name in ("train", *missing)
    }


def hashable(value: Any) -> Any:
    """Return what equals another value's just when they are equal, whatever is nested in it."""
    if isinstance(value, Mapping):
        return tuple((key, hashable(value[key])) for key in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(hashable(one) for one in value)
    return value
