"""A text data set with its three splits, as columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from coldfusion_shared.data.sampling import stratified_order


@dataclass(frozen=True)
class Split:
    """
    Examples as columns of one length, at least one.

    `columns` are by role: what a column is to the task, such as "text" or "label". `names` are what
    integers in them stand for, where scoring has to know it.
    """

    columns: Mapping[str, tuple[Any, ...]]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, role: str) -> tuple[Any, ...]:
        return self.columns[role]

    def get(self, role: str) -> tuple[Any, ...] | None:
        """Return the column of a role, or None where there is none."""
        return self.columns.get(role)

    def take(self, indices: Sequence[int]) -> Split:
        """Return the examples at `indices`, in that order."""
        return Split(
            {role: tuple(column[i] for i in indices) for role, column in self.columns.items()},
            self.names,
        )

    def sample(self, size: int, seed: int) -> Split:
        """Return at most `size` examples, stratified by label, in their present order."""
        return self.take(sorted(stratified_order(self.strata, seed)[:size]))

    @property
    def strata(self) -> Sequence[int]:
        """What sampling is stratified by: labels where an example has one of a few."""
        labels = self.columns.get("label", ())
        whole = bool(labels) and all(isinstance(label, int) for label in labels)
        return labels if whole else (0,) * len(self)

    def keys(self, roles: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Return each example's values of `roles`, None for those that there are not."""
        absent = (None,) * len(self)
        return zip(*(self.columns.get(role, absent) for role in roles), strict=True)


@dataclass(frozen=True)
class TextDataset:
    """
    A data set: what to learn from, what to choose by, and what to be scored on.

    `task` is the kind of task that it was read for. `labels` are the names that label indices
    stand for, () where the task has none. `notes` tell the person what was decided while reading,
    such as which columns are read, and which split was made from which.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of task, labels and examples: the same however the data were stored."""
        sha = hashlib.sha256()
        for record in self._records():
            line = json.dumps(record, separators=(",", ":"), sort_keys=True)
            sha.update(line.encode("ascii") + b"\n")
        return sha.hexdigest()

    def _records(self) -> Iterable[Sequence[Any]]:
        yield ["task", self.task]
        yield ["labels", *self.labels]
        for name, split in self.splits.items():
            roles = sorted(split.columns)
            yield [name, *roles]
            yield from split.keys(roles)

    def capped(
        self,
        *,
        train: int | None = None,
        validation: int | None = None,
        test: int | None = None,
        seed: int,
    ) -> TextDataset:
        """Return the data set with at most so many examples a split, stratified by label."""
        return replace(
            self,
            train=_capped(self.train, train, seed),
            validation=_capped(self.validation, validation, seed),
            test=_capped(self.test, test, seed),
        )


def _capped(split: Split, size: int | None, seed: int) -> Split:
    return split if size is None or size >= len(split) else split.sample(size, seed)
