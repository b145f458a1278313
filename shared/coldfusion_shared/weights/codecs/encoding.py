"""What an encoding is: files that an update is written to, and read from span by span."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from coldfusion_shared.errors import BadWeights, IncompatibleWeights, MalformedWeights
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.header import TensorSpan, short

if TYPE_CHECKING:
    from coldfusion_shared.fusion.executor import Executor
    from coldfusion_shared.fusion.updates import SentUpdate
    from coldfusion_shared.weights.checkpoint import ByteSource, StoredTensor

UPDATE_FILE = "update.safetensors"

Progress = Callable[[int], None]


def silent(_: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True)
class Sums:
    """
    How far an update is from its decoded self, summed over values in float64.

    Attributes:
        update: sum of the squares of the update.
        error: sum of the squares of the error, decoded less update.
        cross: sum of the products of the two.
    """

    update: float = 0.0
    error: float = 0.0
    cross: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.update + other.update, self.error + other.error, self.cross + other.cross)


@dataclass(frozen=True)
class Encoded:
    """
    What encoding an update has come to.

    Attributes:
        bytes: size of all its files.
        relative_error: ``||decoded - update|| / ||update||`` over all tensors; 0 for no update.
        cosine: between the two, over all tensors; 1 where nothing is lost.
    """

    bytes: int
    relative_error: float
    cosine: float

    @classmethod
    def of(cls, size: int, sums: Sums) -> Encoded:
        """Return what `sums` over all values of an update of `size` bytes say."""
        if not sums.error:
            return cls(size, 0.0, 1.0)
        decoded = max(0.0, sums.update + 2 * sums.cross + sums.error)
        lengths = sqrt(sums.update) * sqrt(decoded)
        cosine = (sums.update + sums.cross) / lengths if lengths else 0.0
        return cls(size, sqrt(sums.error) / sqrt(sums.update), max(-1.0, min(1.0, cosine)))


class Encoding(ABC):
    """
    One way to write an update down.

    Attributes:
        name: as in policies and manifests.
        files: names of the files that it consists of.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open(
        self, sources: Mapping[str, ByteSource], base: Mapping[str, StoredTensor]
    ) -> SentUpdate:
        """
        Return the reader of an update; see `open_update`.

        Its `read` raises UndecodableUpdate where a block is not what it should be.
        """

    def check_files(self, sources: Mapping[str, ByteSource]) -> None:
        """Raise `MalformedWeights` unless `sources` are this encoding's files."""
        if set(sources) != set(self.files):
            raise MalformedWeights(
                f"The encoding {self.name!r} consists of {', '.join(self.files)}, and not of "
                f"{', '.join(sorted(sources)) or 'nothing'}."
            )


class WeightsEncoding(Encoding):
    """One that any finetuned model can be brought into."""

    @abstractmethod
    def encode(
        self,
        finetuned: Mapping[str, StoredTensor],
        base: Mapping[str, StoredTensor],
        folder: Path,
        progress: Progress = silent,
        executor: Executor | None = None,
    ) -> Encoded:
        """
        Write the update of `finetuned` into `folder` and measure what it lost.

        Memory is bounded by some chunks for each thread, whatever the model's size.

        Args:
            finetuned: tensors under the base's names, as `match_body` gives them; those of the
                base that are missing did not change.
            base: what it was finetuned from.
            folder: where the files go; each appears whole or not at all.
            progress: called with bytes of finetuned weights that were dealt with; in all as many
                as the floats of `finetuned` have.
            executor: works on the chunks; null: this thread. It changes no byte.

        Raises:
            NonFiniteWeights: the update holds NaN or infinity; the tensor is named.
            IncompatibleWeights: a tensor has another shape than the base's.
            MalformedWeights: the base has names or numbers of tensors that no reader would take.
            StorageFull: no room on the disk.
        """

    @abstractmethod
    def max_bytes(self, base: Mapping[str, TensorSpan]) -> int:
        """Return how many bytes all files of an update of the tensors `base` have at most."""

    def source(self, sources: Mapping[str, ByteSource]) -> ByteSource:
        """Return the source of an encoding that has one file."""
        self.check_files(sources)
        return sources[self.files[0]]


def changeable(base: Mapping[str, TensorSpan]) -> dict[str, TensorSpan]:
    """Return the tensors of `base` that an update may have: the body's. Heads stay at home."""
    return body(base)


def check_shapes(
    finetuned: Mapping[str, StoredTensor], base: Mapping[str, StoredTensor]
) -> list[str]:
    """
    Return the names of the floats of `finetuned`, in the base's order.

    Raises:
        IncompatibleWeights: some are not in the base, or have other shapes than there.
    """
    wrong = [
        name
        for name, tensor in finetuned.items()
        if name not in base or tensor.span.shape != base[name].span.shape
    ]
    if wrong:
        raise IncompatibleWeights(
            f"{len(wrong)} tensors are not in the base, or not of its shape ({listed(wrong)}).",
            hint="Encode a model against the very base that it was finetuned from.",
            tensors=wrong[:10],
        )
    return [name for name in base if name in finetuned and base[name].span.is_float]


def refuse(error: type[BadWeights], faults: Mapping[str, Iterable[str]]) -> None:
    """Raise `error` if there are `faults`, names of tensors by what is wrong with them."""
    found = {what: list(names) for what, names in faults.items()}
    found = {what: names for what, names in found.items() if names}
    if found:
        told = (f"{len(names)} {what} ({listed(names)})" for what, names in found.items())
        raise error(
            f"The weights do not fit the base: {'; '.join(told)}.",
            hint="Contribute a model that was finetuned from a base of this very model; "
            "coldfusion-client pull gets it.",
            tensors=[name for names in found.values() for name in names][:10],
        )


def listed(names: list[str]) -> str:
    """Return the first of `names` for a message."""
    return ", ".join(map(short, names[:3])) + (", ..." if len(names) > 3 else "")
