"""A model's weights, wherever they lie: tensors by name, values by ranges, never whole files."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import finalize

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

# What one task of a pass over a model works on; the grid is the same on every machine.
CHUNK_ELEMENTS = 2**17


class ByteSource(Protocol):
    """Immutable bytes that can be read by range, by many threads: a file, an object in a store."""

    @property
    def size(self) -> int:
        """Bytes in all."""

    def read_into(self, start: int, buffer: memoryview) -> None:
        """
        Fill `buffer`, of bytes, with what stands from `start` on.

        Raises:
            MalformedWeights: there are fewer bytes than there were at first, or they cannot be
                read.
        """

    def close(self) -> None:
        """Give back what is held."""


class FileSource:
    """
    A file, read by position.

    Not memory-mapped: a file that shrinks under a mapping kills the process, here it is an error.
    """

    def __init__(self, path: Path) -> None:
        """Open the file at `path`."""
        self.path = path
        self._file = _open(path)
        self._size = os.fstat(self._file).st_size
        self._close = finalize(self, os.close, self._file)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._size

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with what stands from `start` on."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[done:]], start + done)
            except OSError as error:
                raise MalformedWeights(f"{self._name} cannot be read: {error.strerror}.") from error
            if not count:
                raise MalformedWeights(
                    f"{self._name} became shorter while it was read.",
                    hint="Let whatever writes it finish, then run the command again.",
                )
            done += count

    @property
    def _name(self) -> str:
        return f"The file {self.path.parent.name}/{self.path.name}"

    def close(self) -> None:
        """Close the file."""
        self._close()
        # The number may be another file's by now.
        self._file = -1


def _open(path: Path) -> int:
    """Open a file for reading; where the process may have no more, raise the limit first."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return os.open(path, os.O_RDONLY)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a source."""

    span: TensorSpan
    source: ByteSource

    def values(
        self, start: int, stop: int, buffer: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[Any]:
        """
        Return elements `start` to `stop` of the flattened tensor, in its own dtype, (n,).

        Args:
            start: first element.
            stop: the element after the last one.
            buffer: where the bytes go, long enough for them; null: new memory.
        """
        item = ITEM_BYTES[self.span.dtype]
        size = (stop - start) * item
        raw = np.empty(size, np.uint8) if buffer is None else buffer[:size]
        self.source.read_into(self.span.start + start * item, raw.data)
        return raw.view(NUMPY_DTYPES[self.span.dtype])


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
        prefix = _first(source, min(8, source.size))
        end = 8 + header_length(prefix, source.size)
        header = parse_header(_first(source, end), source.size)
        for span in header.tensors:
            if span.name in self.tensors:
                raise MalformedWeights(f"Two files hold a tensor {span.name!r}.")
            self.tensors[span.name] = StoredTensor(span, source)
        self.headers[file] = header


def _first(source: ByteSource, count: int) -> bytes:
    raw = bytearray(count)
    source.read_into(0, memoryview(raw))
    return bytes(raw)


def chunks(elements: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the fixed grid of chunks over a tensor of `elements` values."""
    for start in range(0, elements, CHUNK_ELEMENTS):
        yield start, min(start + CHUNK_ELEMENTS, elements)
