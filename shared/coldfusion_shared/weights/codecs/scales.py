"""The beginning of every block's content: a scale for each of its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import UndecodableUpdate
from coldfusion_shared.fusion.updates import Floats
from coldfusion_shared.weights.codecs.blocks import SCALE_BYTES, Block

LARGEST = np.float32(127)


def scales_of(content: bytes, block: Block) -> Floats:
    """Return the scales, (S,)."""
    return np.frombuffer(content, "<f4", block.rows)


def check_scales(content: bytes, block: Block) -> None:
    """
    Check that the scales are finite and at least 0.

    Raises:
        UndecodableUpdate: one is not; the message is a part of a sentence.
    """
    scales = scales_of(content, block)
    # Not so for NaN, either.
    if not (scales.min() >= 0 and scales.max() < np.inf):
        raise UndecodableUpdate("has a scale that is negative or not finite")


def scale_bytes(block: Block) -> int:
    """Return how many bytes the scales of a block have."""
    return SCALE_BYTES * block.rows


def quantised(values: Floats, scales: Floats) -> npt.NDArray[np.int8]:
    """Return `values` as whole 127ths of `scales`, both (n,); a scale of 0 gives 0."""
    # Divided first: the reciprocal of a tiny scale would be infinite.
    shares = values / np.where(scales > 0, scales, np.float32(1))
    shares *= LARGEST
    return np.rint(shares, out=shares).astype(np.int8)


def check_quantised(values: npt.NDArray[np.int8]) -> None:
    """
    Check that `values` are within what a scale may be multiplied with.

    Raises:
        UndecodableUpdate: one is not; the message is a part of a sentence.
    """
    if values.size and values.min() < -LARGEST:
        raise UndecodableUpdate("has a value of -128")


def check_padding(bits: npt.NDArray[Any], block: Block) -> None:
    """
    Check that there are no bits beyond those of a block's values.

    Raises:
        UndecodableUpdate: there are some; the message is a part of a sentence.
    """
    if bits[-1] & (0xFF >> ((block.elements - 1) % 8 + 1)):
        raise UndecodableUpdate("has bits beyond its last value")
