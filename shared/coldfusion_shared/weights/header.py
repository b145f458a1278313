"""
The header of a safetensors file, read strictly and written canonically. No numpy, no torch.

The format (https://github.com/huggingface/safetensors): 8 bytes of little-endian length n, n bytes
of JSON object {name: {dtype, shape, data_offsets}}, then the data. Stricter here than the library:
duplicate names, unknown keys, leading white space, holes, overlaps and absurd sizes are refused,
because two readers could see two different models in one such file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn
from unicodedata import is_normalized

from coldfusion_shared.errors import MalformedWeights

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 100_000
MAX_NAME = 500
# Letters of keys and values together. What trainers note there has some thousands.
MAX_METADATA = 2**20
# Brackets and commas that such a header may have, in names and metadata, too: what has more would
# take half a gigabyte before anybody saw that it is no header.
MAX_BRACKETS = 3 * MAX_TENSORS + MAX_METADATA
MAX_COMMAS = 10 * MAX_TENSORS + MAX_METADATA
_SEPARATORS = re.compile(r"[/\\]")
# Letters that nobody sees, and that normalising leaves.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
# Of a name in a sentence.
_SHOWN_NAME = 100


@dataclass(frozen=True)
class TensorSpan:
    """One tensor's name, type and place. `start` and `stop` are bytes from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether it holds weights, rather than counters or positions."""
        return self.dtype in FLOAT_DTYPES

    def kind(self) -> str:
        """Return dtype and shape for a message, like ``F32 [384, 384]``."""
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Header:
    """A whole header: tensors in the order of their data, and where the data start."""

    tensors: tuple[TensorSpan, ...]
    data_start: int
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """
    Read the header of the safetensors file at `path`.

    Raises:
        MalformedWeights: the file is not strictly what the specification says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        return parse_header(prefix + file.read(header_length(prefix, size)), size)


def header_length(prefix: bytes, file_size: int) -> int:
    """Return the length in bytes of the JSON that follows the first 8 bytes, `prefix`."""
    if len(prefix) < 8:
        raise MalformedWeights(f"The file is too short for safetensors ({file_size} bytes).")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise MalformedWeights(
            f"The header claims {length} bytes; at most {MAX_HEADER_BYTES} are taken.",
            hint="Save the file with safetensors; other formats (pickle, zip) are never read.",
        )
    if 8 + length > file_size:
        raise MalformedWeights(
            f"The file ends inside its header ({file_size} bytes, header to {8 + length}).",
            hint="The file is cut off; save or copy it again.",
        )
    return length


def parse_header(raw: bytes, file_size: int) -> Header:
    """
    Parse `raw`, the file's first bytes up to the end of the header.

    Args:
        raw: 8 bytes of length and the JSON.
        file_size: bytes of the whole file; the data must fill it exactly.
    """
    data_start = 8 + header_length(raw[:8], file_size)
    entries = _load_json(raw[8:data_start])
    metadata = _metadata(entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        raise MalformedWeights(f"The file has {len(entries)} tensors; {MAX_TENSORS} are the limit.")
    tensors = [_span(name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_tiling(tensors, data_start, file_size)
    return Header(tuple(tensors), data_start, metadata)


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """
    Return the header of a file whose data are `tensors`, (name, dtype, shape), one after another.

    Padded with spaces so that the data start at a multiple of 8.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape in tensors:
        stop = offset + prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def short(name: str) -> str:
    """Return a tensor's name for a sentence, which a long one would fill."""
    return name if len(name) <= _SHOWN_NAME else f"{name[: _SHOWN_NAME - 3]}..."


def _load_json(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise MalformedWeights("The header does not start with '{'.")
    if raw.count(b"[") + raw.count(b"{") > MAX_BRACKETS or raw.count(b",") > MAX_COMMAS:
        raise MalformedWeights(f"The header describes more than {MAX_TENSORS} tensors.")
    try:
        loaded = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_int=_size,
            parse_float=_not_a_size,
            parse_constant=_not_a_size,
        )
    except UnicodeDecodeError:
        raise MalformedWeights("The header is not UTF-8.") from None
    except RecursionError:
        raise MalformedWeights("The header is nested too deeply.") from None
    except ValueError as error:
        raise MalformedWeights(f"The header is not JSON: {error}.") from None
    if not isinstance(loaded, dict):
        raise MalformedWeights("The header is not a JSON object.")
    return loaded


def _size(digits: str) -> int:
    return _not_a_size(digits) if digits[0] == "-" else int(digits)


def _not_a_size(number: str) -> NoReturn:
    # Also -0 and 1e3, which other readers refuse.
    raise MalformedWeights(f"The header has a number that is no size: {number:.40}.")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedWeights("The header names something twice.")
    return result


def _metadata(entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise MalformedWeights("The header's __metadata__ is not an object of texts.")
    if not all(_is_text(key) and _is_text(value) for key, value in entry.items()):
        raise MalformedWeights("The header's __metadata__ has halves of letters.")
    letters = sum(len(key) + len(value) for key, value in entry.items())
    if letters > MAX_METADATA:
        raise MalformedWeights(
            f"The header's __metadata__ has {letters} letters; {MAX_METADATA} are the limit.",
            hint="Save the file without it; nothing in it is read.",
        )
    return entry


def _is_text(value: str) -> bool:
    """Return whether `value` can be written down: JSON can escape what no text has."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _span(name: str, entry: Any, data_start: int) -> TensorSpan:
    _check_name(name)
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        raise MalformedWeights(f"Tensor {name!r} is not described by dtype, shape, data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise MalformedWeights(f"Tensor {name!r} has a dtype that is not taken: {dtype!r:.40}.")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > 16:
        raise MalformedWeights(f"Tensor {name!r} has an impossible shape or offsets.")
    start, stop = offsets
    if stop - start != prod(shape) * ITEM_BYTES[dtype]:
        raise MalformedWeights(f"Tensor {name!r} has offsets that do not fit its shape and dtype.")
    return TensorSpan(name, dtype, tuple(shape), data_start + start, data_start + stop)


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise MalformedWeights(f"A tensor has an impossible name: {name[:60]!r}.")
    # Two names that look the same would be two tensors, of which a person sees one.
    if name != name.strip() or _INVISIBLE.search(name):
        raise MalformedWeights(f"The name {name[:60]!a} has letters that nobody sees.")
    if not is_normalized("NFKC", name):
        raise MalformedWeights(f"The name {name[:60]!a} can be written in another way, too.")
    # No name is used as a path here; elsewhere one may be.
    if name[0] in "/\\" or ".." in _SEPARATORS.split(name):
        raise MalformedWeights(f"A tensor is named like a path: {name[:60]!r}.")


def _are_sizes(values: Any) -> bool:
    # type() and not isinstance: True is an int, too.
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 2**63 for value in values
    )


def _check_tiling(tensors: list[TensorSpan], data_start: int, file_size: int) -> None:
    """A hole or an overlap could hide bytes that no check sees."""
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            kind = "overlaps the one before it" if tensor.start < end else "leaves a hole before it"
            raise MalformedWeights(f"The data of tensor {tensor.name!r} {kind}.")
        end = tensor.stop
    if end > file_size:
        raise MalformedWeights(
            f"The file has {file_size} bytes where its header describes {end}.",
            hint="The file is cut off; save or copy it again.",
        )
    if end < file_size:
        raise MalformedWeights(f"The file has {file_size - end} bytes after its last tensor.")
