"""Models and their encoded updates on disk, and a plain reader written from the format alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from coldfusion_shared.fusion.executor import Executor
from coldfusion_shared.fusion.updates import Scratch, SentUpdate, UpdateReader
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import discover, open_update, weights_encoding
from coldfusion_shared.weights.codecs.encoding import Encoded, WeightsEncoding
from coldfusion_shared.weights.header import TensorSpan
from tests.shared.checkpoints import Array, Tensors, read_file, write_file

BLOCKED = ["delta-int8", "delta-sign", "delta-sparse"]
ALL = ["delta", *BLOCKED, "full"]
BLOCK = 2**14

Floats = npt.NDArray[np.float32]


class Pair:
    """A base and a model that differs from it by a given update, as files."""

    def __init__(self, folder: Path, update: Tensors, base: Tensors | None = None) -> None:
        self.folder = folder
        before = base or {name: np.zeros_like(values) for name, values in update.items()}
        after = {
            name: (before[name] + values).astype(values.dtype) for name, values in update.items()
        }
        self.base = Checkpoint.from_file(write_file(folder / "base" / "m.safetensors", before))
        self.finetuned = Checkpoint.from_file(write_file(folder / "tuned" / "m.safetensors", after))

    def encode(self, encoding: str | WeightsEncoding, executor: Executor | None = None) -> Encoded:
        found = weights_encoding(encoding) if isinstance(encoding, str) else encoding
        return found.encode(
            self.finetuned.tensors, self.base.tensors, self.folder, executor=executor
        )

    def file(self, encoding: str) -> Path:
        return self.folder / discover()[encoding].files[0]

    def open(self, encoding: str) -> SentUpdate:
        path = self.file(encoding)
        return open_update(encoding, {path.name: FileSource(path)}, self.base.tensors)

    def decoded(self, encoding: str) -> dict[str, Floats]:
        """Return the whole update that was encoded last, in the tensors' shapes."""
        reader = self.open(encoding)
        return {
            name: whole(reader, span).reshape(span.shape)
            for name, span in self.base.spans().items()
            if span.is_float
        }

    def round_trip(self, encoding: str | WeightsEncoding) -> dict[str, Floats]:
        self.encode(encoding)
        return self.decoded(encoding if isinstance(encoding, str) else encoding.name)


def whole(reader: UpdateReader, span: TensorSpan) -> Floats:
    return part(reader, span, 0, span.elements)


def part(
    reader: UpdateReader, span: TensorSpan, start: int, stop: int, scratch: Scratch | None = None
) -> Floats:
    out = np.full(stop - start, np.nan, np.float32)
    reader.read(span, start, stop, out, scratch or Scratch())
    return out


def row_of(shape: tuple[int, ...]) -> int:
    """Return how many values a row has, by the format's text."""
    rows = [prod(shape[first:]) for first in range(1, len(shape))]
    return min((row for row in rows if row >= 256), default=prod(shape))


def read_by_the_format(encoding: str, raw: bytes, shapes: Mapping[str, Any]) -> dict[str, Floats]:
    """Return all tensors of an encoding in blocks, value by value."""
    tensors = read_file(raw)
    return {
        name: _read_tensor(encoding, tensors, name, shape).reshape(shape)
        for name, shape in shapes.items()
    }


def _read_tensor(encoding: str, tensors: Tensors, name: str, shape: tuple[int, ...]) -> Floats:
    out = np.zeros(prod(shape), np.float32)
    if f"index:{name}" not in tensors:
        return out
    offset, row, data = 0, row_of(shape), tensors[f"{encoding}:{name}"].tobytes()
    for block, length in enumerate(tensors[f"index:{name}"].tolist()):
        content = zstandard.decompress(data[offset : offset + length])
        offset += length
        start, stop = block * BLOCK, min((block + 1) * BLOCK, out.size)
        out[start:stop] = _read_block(encoding, content, start, stop, row)
    assert offset == len(data)
    return out


def _read_block(encoding: str, content: bytes, start: int, stop: int, row: int) -> Floats:
    rows = (stop - 1) // row - start // row + 1
    scales = np.frombuffer(content, "<f4", rows)
    rest, bits = content[4 * rows :], -(-(stop - start) // 8)
    found = np.zeros(stop - start, np.float32)
    kept = 0
    for place in range(stop - start):
        scale = scales[(start + place) // row - start // row]
        bit = rest[place // 8] >> (7 - place % 8) & 1
        if encoding == "delta-sign":
            found[place] = -scale if bit else scale
            continue
        if encoding == "delta-sparse" and not bit:
            continue
        level = rest[place] if encoding == "delta-int8" else rest[bits + kept]
        kept += 1
        signed = level - 256 if level > 127 else level
        found[place] = np.float32(signed) / np.float32(127) * scale
    return found


def normal(*shape: int, scale: float = 1e-3, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * scale).astype(np.float32)
