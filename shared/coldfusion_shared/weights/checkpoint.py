"""A model's weights, wherever they lie: tensors by name, values by ranges, never whole files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import ml_dtypes
import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import MalformedWeights
from coldfusion_shared.weights.header import (
    ITEM_BYTES,
    Header,
    TensorSpan,
    header_length,
    parse_header,
)
from coldfusion_shared.weights.layout import weight_files

NUMPY_DTYPES: dict[str, npt.DTypeLike] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip

# Small enough that a chunk of each input and the float64 sums stay in a core's own cache.
CHUNK_ELEMENTS = 2**17


class ByteSource(Protocol):
    """Immutable bytes that can be read by range: a file, later an object in a store."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes from `start` to `stop`; valid until `close`."""

    def release(self, start: int, stop: int) -> None:
        """Say that the bytes from `start` to `stop` are not needed again soon."""

    def close(self) -> None:
        """Give back what is held."""


class FileSource:
    """A memory-mapped file whose pages are given back once they were read."""

    def __init__(self, path: Path) -> None:
        """Map the file at `path`."""
        self.path = path
        with path.open("rb") as file:
            self._size = path.stat().st_size
            # An empty file cannot be mapped.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self._size else None

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def read(self, start: int, stop: int) -> memoryview:
        """Return the bytes from `start` to `stop`, mapped, not copied."""
        if self._map is None:
            return memoryview(b"")
        return memoryview(self._map)[start:stop]

    def release(self, start: int, stop: int) -> None:
        """Give the pages between `start` and `stop` back to the system."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if self._map is not None and stop > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, stop - first)

    def close(self) -> None:
        """
        Forget the mapping.

        Not `mmap.close`, which refuses while an array still looks at it; the last one frees it.
        """
        self._map = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a source."""

    span: TensorSpan
    source: ByteSource

    def values(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return elements `start` to `stop` of the flattened tensor, in its own dtype, (n,)."""
        item = ITEM_BYTES[self.span.dtype]
        raw = self.source.read(self.span.start + start * item, self.span.start + stop * item)
        return np.frombuffer(raw, dtype=NUMPY_DTYPES[self.span.dtype])

    def release(self, start: int, stop: int) -> None:
        """Say that elements `start` to `stop` are not needed again soon."""
        item = ITEM_BYTES[self.span.dtype]
        self.source.release(self.span.start + start * item, self.span.start + stop * item)


class Checkpoint:
    """The tensors of one model, in one file or several."""

    def __init__(self, sources: Mapping[str, ByteSource]) -> None:
        """
        Read the headers of `sources`, by file name.

        Raises:
            MalformedWeights: a header is wrong, or two files hold a tensor of the same name.
        """
        self.sources = dict(sources)
        self.headers: dict[str, Header] = {}
        self.tensors: dict[str, StoredTensor] = {}
        for name, source in self.sources.items():
            self._add(name, source)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Open the model folder `folder`; raises `BadModel` where there is no model."""
        return cls({name: FileSource(folder / name) for name in weight_files(folder)})

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open one safetensors file."""
        return cls({path.name: FileSource(path)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the sources."""
        for source in self.sources.values():
            source.close()

    def spans(self) -> dict[str, TensorSpan]:
        """Return every tensor's name, type and place."""
        return {name: tensor.span for name, tensor in self.tensors.items()}

    def _add(self, file: str, source: ByteSource) -> None:
        prefix = bytes(source.read(0, min(8, source.size)))
        end = 8 + header_length(prefix, source.size)
        header = parse_header(bytes(source.read(0, end)), source.size)
        for span in header.tensors:
            if span.name in self.tensors:
                raise MalformedWeights(f"Two files hold a tensor {span.name!r}.")
            self.tensors[span.name] = StoredTensor(span, source)
        self.headers[file] = header


def chunks(elements: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the fixed grid of chunks over a tensor of `elements` values."""
    for start in range(0, elements, CHUNK_ELEMENTS):
        yield start, min(start + CHUNK_ELEMENTS, elements)
