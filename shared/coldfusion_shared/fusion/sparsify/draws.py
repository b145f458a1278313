"""Random numbers for coordinates: the same for a coordinate whatever span it is asked for in."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Floats

# Numbers of 32 bits from one step of the generator's counter, which makes four of 64.
PER_STEP = 8

# 24 bits a draw: as many as a float32 keeps, so that none is rounded up to 1.
DRAW_STEP = 2.0**-24


def uniform_draws(key: bytes, start: int, stop: int) -> Floats:
    """
    Return draws for coordinates `start` to `stop`, uniform in [0, 1), (n,), float32.

    Philox is a function of key and counter, and the counter is the coordinate's own place.

    Args:
        key: whose draws these are, from `draw_key`.
        start: first coordinate.
        stop: the coordinate after the last one.
    """
    first = start // PER_STEP
    steps = -(-stop // PER_STEP) - first
    generator = np.random.Philox(counter=first, key=int.from_bytes(key, "little"))
    raw = generator.random_raw(4 * steps)
    # Little-endian whatever the machine, so that the draws travel.
    bits: npt.NDArray[np.uint32] = raw.astype("<u8", copy=False).view("<u4")
    wanted = bits[start - first * PER_STEP : stop - first * PER_STEP]
    return (wanted >> 8).astype(np.float32) * np.float32(DRAW_STEP)


def draw_key(seed: int, contribution: str, tensor: str) -> bytes:
    """Return the 16 bytes that make the draws of a contribution's tensor its own."""
    text = f"{seed}\0{contribution}\0{tensor}".encode()
    return hashlib.sha256(text).digest()[:16]
