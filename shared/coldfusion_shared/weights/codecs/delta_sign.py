"""One bit for each value: its sign, times a magnitude of its row."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from coldfusion_shared.fusion.updates import Floats
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.block_encoding import BlockEncoding
from coldfusion_shared.weights.codecs.blocks import Block
from coldfusion_shared.weights.codecs.scales import (
    check_padding,
    check_scales,
    scale_bytes,
    scales_of,
)

# Beyond it, the error of a row would be longer than the row itself.
MOST_STRETCH = np.float32(2)


@encodings.register("delta-sign")
class DeltaSign(BlockEncoding):
    """
    Signs; what is exactly zero among values that are not gets one by chance.

    In a coarse dtype most small updates are exactly zero: were they all positive, every contributor
    would push the same way, and no mean would take that back. The draw is of the block's own
    values: the same update gives the same bytes, another one other signs.

    The mean magnitude of a row u of n values would have the smallest error, but makes every step
    shorter along the update: by the square of the cosine, ``||u||_1^2 / (n ||u||_2^2)``, 0.64 for
    normal values. A mean over contributors does not give that back, while it does average noise.
    So the scale is ``||u||_2^2 / ||u||_1``, with which ``<decoded, u> = <u, u>`` (the unbiased
    scale of DRIVE, Vargaftik et al. 2021), but at most twice the mean magnitude: the
    error of no row is then longer than the row, where a few large values would make it so.
    """

    name = "delta-sign"

    def content_bytes(self, block: Block) -> tuple[int, int]:
        """Return the one size that there is."""
        size = scale_bytes(block) + block.bit_bytes
        return size, size

    def pack(self, values: Floats, block: Block) -> list[bytes]:
        """Return scales and signs as one part."""
        scales = _scales(np.abs(values), block)
        negative = values < 0
        # Rows that did not change have a scale of 0, and need no signs.
        drawn = (values == 0) & (block.by_row(scales, block.start, block.stop) > 0)
        if count := np.count_nonzero(drawn):
            draws = np.random.default_rng(crc32(values.tobytes()))
            negative[drawn] = draws.integers(0, 2, count, dtype=np.bool_)
        return [scales.tobytes() + np.packbits(negative).tobytes()]

    def check(self, content: bytes, block: Block) -> None:
        """Check scales and bits; see `BlockEncoding.check`."""
        check_scales(content, block)
        check_padding(np.frombuffer(content, np.uint8, offset=scale_bytes(block)), block)

    def unpack(self, content: bytes, block: Block, start: int, stop: int, out: Floats) -> None:
        """Write the scales with their signs, of elements `start` to `stop`, into `out`, (n,)."""
        bits = np.frombuffer(content, np.uint8, offset=scale_bytes(block))
        signs = np.unpackbits(bits, count=stop - block.start)[start - block.start :].view(np.int8)
        # 0 and 1 to 1 and -1.
        signs *= -2
        signs += 1
        np.multiply(signs, block.by_row(scales_of(content, block), start, stop), out=out)


def _scales(magnitudes: Floats, block: Block) -> Floats:
    """Return ``min(sum(m^2) / sum(m), 2 mean(m))`` of each row's magnitudes, (S,)."""
    means = block.mean(magnitudes)
    # Of multiples of the mean, whose squares stay within float32 wherever the values are.
    divisors = block.by_row(np.where(means > 0, means, np.float32(1)), block.start, block.stop)
    multiples = magnitudes / divisors
    multiples *= multiples
    stretches = np.minimum(block.mean(multiples), MOST_STRETCH)
    # Rounding must not lead beyond the row's largest value, which may be the largest float.
    with np.errstate(over="ignore"):
        scales: Floats = np.minimum(means * stretches, block.largest(magnitudes))
    return scales
