"""Safetensors files written by a few lines of their own, apart from the code under test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

DTYPE_NAMES = {
    np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16", np.dtype(np.int64): "I64", np.dtype(np.int32): "I32",
    np.dtype(np.int16): "I16", np.dtype(np.int8): "I8", np.dtype(np.uint64): "U64",
    np.dtype(np.uint32): "U32", np.dtype(np.uint16): "U16", np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}  # fmt: skip
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def raw_file(header: object, data: bytes = b"") -> bytes:
    """Return a file with `header`, given as text, bytes or something to dump as JSON."""
    if isinstance(header, str):
        header = header.encode()
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def file_bytes(tensors: Tensors, metadata: dict[str, str] | None = None) -> bytes:
    """Return the safetensors file of `tensors`, in their order."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, array in tensors.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    return raw_file(header, data)


def write_file(path: Path, tensors: Tensors) -> Path:
    """Write the safetensors file of `tensors` and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_bytes(tensors))
    return path


def read_file(raw: bytes) -> dict[str, Array]:
    """Return the tensors of a safetensors file, in the order of their data."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    dtypes = {name: dtype for dtype, name in DTYPE_NAMES.items()}
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return {
        name: np.frombuffer(
            raw[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]],
            dtype=dtypes[entry["dtype"]],
        ).reshape(entry["shape"])
        for name, entry in entries
    }
