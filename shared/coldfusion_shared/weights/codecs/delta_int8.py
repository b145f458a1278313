"""A byte for each value: 127ths of the largest magnitude in its row."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.updates import Floats
from coldfusion_shared.weights.codecs import encodings
from coldfusion_shared.weights.codecs.block_encoding import BlockEncoding
from coldfusion_shared.weights.codecs.blocks import Block
from coldfusion_shared.weights.codecs.scales import (
    LARGEST,
    check_quantised,
    check_scales,
    quantised,
    scale_bytes,
    scales_of,
)


@encodings.register("delta-int8")
class DeltaInt8(BlockEncoding):
    """No value is off by more than 1/254 of the largest magnitude in its row."""

    name = "delta-int8"

    def content_bytes(self, block: Block) -> tuple[int, int]:
        """Return the one size that there is."""
        size = scale_bytes(block) + block.elements
        return size, size

    def pack(self, values: Floats, block: Block) -> list[bytes]:
        """Return scales and values as one part."""
        scales = block.largest(np.abs(values))
        levels = quantised(values, block.by_row(scales, block.start, block.stop))
        return [scales.tobytes() + levels.tobytes()]

    def check(self, content: bytes, block: Block) -> None:
        """Check scales and values; see `BlockEncoding.check`."""
        check_scales(content, block)
        check_quantised(np.frombuffer(content, np.int8, offset=scale_bytes(block)))

    def unpack(self, content: bytes, block: Block, start: int, stop: int, out: Floats) -> None:
        """Write ``q / 127 * scale`` of elements `start` to `stop` into `out`, (n,)."""
        offset = scale_bytes(block) + start - block.start
        np.copyto(out, np.frombuffer(content, np.int8, stop - start, offset))
        out /= LARGEST
        out *= block.by_row(scales_of(content, block), start, stop)
