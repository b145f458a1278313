"""
A sketch of an update: a few numbers that tell how it lies to any other without reading either.

A count sketch (https://doi.org/10.1016/S0304-3975(03)00400-6): each value is added, with a random
sign, to one of `SIZE` buckets. The inner product of two sketches is that of the updates on average
over the keys, with a standard deviation of about 1 / sqrt(SIZE), or 1.1%, of the product of their
norms; a norm, or the length of a difference, is off by about 1 / sqrt(2 SIZE), or 0.8%, of itself.
That is so of values whose signs have no pattern, as training leaves them: signs are taken from one
table again and again, and where all values have the same one a norm may be off by a tenth.
Linear: the sketch of a sum is the sum of the sketches.

Buckets and signs follow from a secret key, the tensor's name and the place in it. Who does not know
the key cannot make an update whose sketch looks like another's, or unlike it.

A tensor is cut into groups of `GROUP` values and a group into rows of p values, p a prime not much
below `SIZE` that the key chooses, so that no dimension of a model falls into step with the rows.
The values of a row go to p neighbouring buckets, from a place on that the key chooses; their signs
are a window of a long table. So the values of a row lie in buckets of their own, and a whole group
takes a few operations on arrays.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from struct import Struct

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import InvalidRequest

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Buckets. Sketches of another size, or made in another way, cannot be compared.
SIZE = 8192
# Values of a tensor whose buckets are chosen together.
GROUP = 2**17
KEY_BYTES = 32

# Lengths of rows.
_PRIMES = tuple(
    n for n in range(7681, SIZE) if all(n % divisor for divisor in range(2, int(sqrt(n)) + 1))
)
# Windows of signs begin at so many places, and those of neighbouring rows so far apart.
_WINDOWS = 2**15
_STEP = 1021
_CHOICES = Struct("<3Q")
_SIGNS = _WINDOWS + GROUP // _PRIMES[0] * _STEP + SIZE


@dataclass(frozen=True, eq=False)
class Sketch:
    """
    The sketch of one update; to be compared with others of the same key alone.

    Attributes:
        values: the buckets, (SIZE,), float32.
    """

    values: Floats

    @property
    def norm(self) -> float:
        """An estimate of the update's Euclidean norm."""
        return sqrt(self.dot(self))

    def dot(self, other: Sketch) -> float:
        """Return an estimate of the inner product of the two updates."""
        return float(np.dot(self.values.astype(np.float64), other.values.astype(np.float64)))

    def cosine(self, other: Sketch) -> float:
        """Return an estimate of the cosine between the two updates; 0 where one is zero."""
        lengths = self.norm * other.norm
        return max(-1.0, min(1.0, self.dot(other) / lengths)) if lengths else 0.0

    def distance(self, other: Sketch) -> float:
        """Return an estimate of the Euclidean distance between the two updates."""
        difference = self.values.astype(np.float64) - other.values
        return sqrt(float(np.dot(difference, difference)))

    def __add__(self, other: Sketch) -> Sketch:
        return Sketch(self.values + other.values)

    def to_text(self) -> str:
        """Return it as base64 of its little-endian float32 values."""
        return base64.b64encode(self.values.astype("<f4").tobytes()).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> Sketch:
        """Return the sketch that `to_text` wrote; raises `InvalidRequest` where it is none."""
        try:
            values = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        except ValueError:
            values = np.empty(0, "<f4")
        if values.size != SIZE:
            raise InvalidRequest("This is not the text of a sketch.")
        return cls(values.astype(np.float32))


@dataclass(frozen=True, eq=False)
class Part:
    """
    What one group adds to a sketch.

    Attributes:
        place: the bucket of its first value; after the last bucket comes the first.
        values: to be added to the buckets from `place` on, (n,) with n at most SIZE.
    """

    place: int
    values: Floats


class Sketcher:
    """Makes the parts of sketches with one key; several threads may use it."""

    def __init__(self, key: bytes) -> None:
        """Expand `key`, `KEY_BYTES` bytes that are secret."""
        self._key = hashlib.blake2b(b"sketch groups", key=key, digest_size=KEY_BYTES).digest()
        seed = hashlib.blake2b(b"sketch signs", key=key, digest_size=KEY_BYTES).digest()
        bits = np.unpackbits(np.frombuffer(hashlib.shake_256(seed).digest(_SIGNS // 8 + 1), "u1"))
        self._signs = np.where(bits[:_SIGNS], np.float32(1), np.float32(-1))

    def part(self, tensor: str, start: int, values: Floats) -> Part:
        """
        Return what some values of one group add to the sketch.

        Args:
            tensor: name of the tensor that they are of.
            start: place of the first of them in the flattened tensor.
            values: (n,), contiguous, up to the end of the group at the most.
        """
        group, before = divmod(start, GROUP)
        if before:
            values = np.concatenate([np.zeros(before, np.float32), values])
        row, window, place = self._chosen(tensor, group)
        whole = values.size // row
        rest = values[whole * row :]
        after = window + whole * _STEP
        last = rest * self._signs[after : after + rest.size]
        if not whole:
            return Part(place, last)
        signs: Floats = np.ndarray(
            (whole, row), np.float32, self._signs.data, 4 * window, (4 * _STEP, 4)
        )
        sums = np.einsum("ij,ij->j", values[: whole * row].reshape(whole, row), signs)
        sums[: rest.size] += last
        return Part(place, sums)

    def parts(self, tensor: str, start: int, values: Floats) -> Iterator[Part]:
        """Yield what values of any number of groups add to the sketch; arguments as in `part`."""
        stop = start + values.size
        while start < stop:
            end = min(stop, (start // GROUP + 1) * GROUP)
            yield self.part(tensor, start, values[: end - start])
            values, start = values[end - start :], end

    def _chosen(self, tensor: str, group: int) -> tuple[int, int, int]:
        """Return length of rows, first window of signs and first bucket of a group."""
        said = f"{group}\0{tensor}".encode()
        raw = hashlib.blake2b(said, key=self._key, digest_size=24).digest()
        row, window, place = _CHOICES.unpack(raw)
        return _PRIMES[row % len(_PRIMES)], window % _WINDOWS, place % SIZE


class SketchSum:
    """A sketch that grows part by part; the order changes nothing that float32 could tell."""

    def __init__(self) -> None:
        """Begin with the sketch of nothing."""
        # What reaches over the last bucket lies behind it until the end.
        self._sums: Doubles = np.zeros(2 * SIZE)

    def add(self, part: Part) -> None:
        """Add a part."""
        buckets = self._sums[part.place : part.place + part.values.size]
        np.add(buckets, part.values, out=buckets)

    def sketch(self) -> Sketch:
        """Return the sketch of all that was added, rounded once."""
        return Sketch((self._sums[:SIZE] + self._sums[SIZE:]).astype(np.float32))
