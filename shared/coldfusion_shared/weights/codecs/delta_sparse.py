"""The largest values alone, each as a byte, and a bit for every value that says which they are."""

from __future__ import annotations

from math import ceil

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import InvalidRequest, UndecodableUpdate
from coldfusion_shared.fusion.updates import Floats
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.block_encoding import BlockEncoding
from coldfusion_shared.weights.codecs.blocks import Block
from coldfusion_shared.weights.codecs.scales import (
    LARGEST,
    check_padding,
    check_quantised,
    check_scales,
    quantised,
    scale_bytes,
    scales_of,
)

DENSITY = 0.1

# Every so many values one is looked at first; so many more are taken than a sample asks for.
SAMPLED = 16
SPARE = 16


@encodings.register("delta-sparse")
class DeltaSparse(BlockEncoding):
    """
    The top `density` by magnitude of every block, the others zero.

    Of each block and not of each tensor: one pass without a threshold that must be known before.
    """

    name = "delta-sparse"

    def __init__(self, density: float = DENSITY) -> None:
        """
        Keep `density` of the values; a reader does not need to know.

        Raises:
            InvalidRequest: it is not above 0 and at most 1.
        """
        if not 0 < density <= 1:
            raise InvalidRequest(
                f"A density of {density} cannot be kept.", hint="Give one above 0, at most 1."
            )
        self.density = density

    def content_bytes(self, block: Block) -> tuple[int, int]:
        """Return the sizes with nothing and with everything kept."""
        size = scale_bytes(block) + block.bit_bytes
        return size, size + block.elements

    def pack(self, values: Floats, block: Block) -> list[bytes]:
        """Return scales and bits as one part, the kept values as the other."""
        magnitudes = np.abs(values)
        kept = _largest(magnitudes, ceil(self.density * block.elements))
        places = np.flatnonzero(kept)
        magnitudes *= kept
        scales = block.largest(magnitudes)
        by_value = block.by_row(scales, block.start, block.stop)
        levels = quantised(values[places], by_value[places])
        return [scales.tobytes() + np.packbits(kept).tobytes(), levels.tobytes()]

    def check(self, content: bytes, block: Block) -> None:
        """Check scales, bits, and that there is one value for each bit."""
        check_scales(content, block)
        bits = content[scale_bytes(block) : scale_bytes(block) + block.bit_bytes]
        values = np.frombuffer(content, np.int8, offset=scale_bytes(block) + block.bit_bytes)
        check_padding(np.frombuffer(bits, np.uint8), block)
        if int.from_bytes(bits).bit_count() != values.size:
            raise UndecodableUpdate("has more or fewer values than bits that say where they are")
        check_quantised(values)

    def unpack(self, content: bytes, block: Block, start: int, stop: int, out: Floats) -> None:
        """Write ``q / 127 * scale`` where a value is kept, else 0, into `out`, (n,)."""
        offset = scale_bytes(block)
        bits = np.frombuffer(content, np.uint8, block.bit_bytes, offset)
        kept = np.unpackbits(bits, count=stop - block.start).view(np.bool_)
        before = int(np.count_nonzero(kept[: start - block.start]))
        places = np.flatnonzero(kept[start - block.start :])
        levels = np.frombuffer(content, np.int8, offset=offset + block.bit_bytes)
        values = levels[before : before + places.size].astype(np.float32)
        values /= LARGEST
        values *= block.by_row(scales_of(content, block), start, stop)[places]
        out[:] = 0
        out[places] = values


def _largest(magnitudes: Floats, count: int) -> npt.NDArray[np.bool_]:
    """Return which of `magnitudes`, (n,), are the `count` largest; of equal ones the first."""
    kept: npt.NDArray[np.bool_] = magnitudes > 0
    # Apart from the zeros, of which there may be so many that they would take longest.
    changed = magnitudes if kept.all() else magnitudes[kept]
    if changed.size > count:
        threshold = _threshold(changed, count)
        np.greater(magnitudes, threshold, out=kept)
        equal = np.flatnonzero(magnitudes == threshold)
        kept[equal[: count - np.count_nonzero(kept)]] = True
    return kept


def _threshold(magnitudes: Floats, count: int) -> np.float32:
    """
    Return which value has the place `count` among `magnitudes`, (n,), from the largest on.

    Found among those alone that a sample says may be it; where the sample is wrong, among all.
    """
    sample = magnitudes[::SAMPLED]
    expected = count * sample.size // magnitudes.size
    few = max(0, sample.size - 2 * expected - SPARE)
    likely = magnitudes[magnitudes >= np.partition(sample, few)[few]]
    found = likely if likely.size >= count else magnitudes
    place = found.size - count
    threshold: np.float32 = np.partition(found, place)[place]
    return threshold
