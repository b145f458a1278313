"""A text data set with its three splits, as columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from coldfusion_shared.data.sampling import stratified_order


@dataclass(frozen=True)
class Split:
    """Examples as columns of one length: texts, their second texts (or None), label indices."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int]) -> Split:
        """Return the examples at `indices`, in that order."""
        return Split(
            tuple(self.texts[i] for i in indices),
            None if self.pairs is None else tuple(self.pairs[i] for i in indices),
            tuple(self.labels[i] for i in indices),
        )

    def sample(self, size: int, seed: int) -> Split:
        """Return at most `size` examples, stratified by label, in their present order."""
        return self.take(sorted(stratified_order(self.labels, seed)[:size]))

    def inputs(self) -> Iterator[tuple[str, str | None]]:
        """Return each example's text and second text."""
        return zip(self.texts, self.pairs or (None,) * len(self), strict=True)


@dataclass(frozen=True)
class TextDataset:
    """
    A labelled data set: what to learn from, what to choose by, and what to be scored on.

    `labels` are the names that the splits' label indices stand for. `notes` tell the person what
    was decided while reading, such as which split was made from which.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    @property
    def has_pairs(self) -> bool:
        """Whether an example is two texts."""
        return self.train.pairs is not None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of label names and examples: the same however the data were stored."""
        sha = hashlib.sha256()
        for record in self._records():
            sha.update(json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n")
        return sha.hexdigest()

    def _records(self) -> Iterable[Sequence[str | int | None]]:
        yield ["labels", *self.labels]
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, split in parts.items():
            for (text, pair), label in zip(split.inputs(), split.labels, strict=True):
                yield name, text, pair, label

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
