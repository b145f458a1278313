"""How values moved, as bytes that compress; what is said in the package's docstring."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coldfusion_shared.weights.differences.container import Kind

# A plane is compressed in groups of so many values, of similar exponents: each gets statistics of
# its own. In smaller ones those cost more than they save.
GROUP_ELEMENTS = 2**13

Bytes = npt.NDArray[np.uint8]
_Bits = npt.NDArray[Any]

# Bits of a pattern below those that values are ordered by.
_SHIFTS = {Kind.F64: 52, Kind.F32: 23, Kind.F16: 10, Kind.BF16: 7}


def pack(kind: Kind, old: Bytes, new: Bytes) -> list[bytes]:
    """
    Return what makes `new` of `old`, (n,) each, as parts with statistics of their own.

    Args:
        kind: a kind that has a frame and builds on old bytes.
        old: the old bytes.
        new: the new ones.
    """
    if kind == Kind.BYTES:
        return [(new - old).tobytes()]
    before, moved = _bits(kind, old), _ordered(_bits(kind, new))
    moved -= _ordered(before)
    moved += _middle(moved)
    keys = _keys(kind, before)
    moved = moved[np.argsort(keys, kind="stable")]
    edges = _edges(keys)
    return [
        plane[start:stop].tobytes()
        for plane in _planes(moved)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def unpack(kind: Kind, old: Bytes, content: bytes) -> Bytes:
    """Return the new bytes, (n,), of which `pack` has made `content`, n bytes in one piece."""
    raw = np.frombuffer(content, np.uint8)
    if kind == Kind.BYTES:
        return old + raw
    before = _bits(kind, old)
    sent = _joined(raw, before.dtype)
    sent -= _middle(sent)
    moved = np.empty_like(sent)
    moved[np.argsort(_keys(kind, before), kind="stable")] = sent
    moved += _ordered(before)
    new: Bytes = _ordered(moved).view(np.uint8)
    return new


def _bits(kind: Kind, raw: Bytes) -> _Bits:
    return raw.view(f"<u{kind.item_bytes}")


def _ordered(bits: _Bits) -> _Bits:
    """Flip what is below a set sign, in new memory; done twice it leads back."""
    item = bits.itemsize
    flips: _Bits = (bits.view(f"<i{item}") >> (8 * item - 1)).view(bits.dtype)
    flips >>= bits.dtype.type(1)
    flips ^= bits
    return flips


def _middle(bits: _Bits) -> Any:
    """Return 128 in each byte. Then a sign shows in one plane, and not in all above it, too."""
    return bits.dtype.type(int.from_bytes(b"\x80" * bits.itemsize, "little"))


def _keys(kind: Kind, before: _Bits) -> Bytes:
    """Return what values are ordered by; numpy sorts bytes in one pass."""
    keys: Bytes = (before >> before.dtype.type(_SHIFTS[kind])).astype(np.uint8)
    return keys


def _edges(keys: Bytes) -> list[int]:
    """Return where groups begin, and the end; values of one key stay together."""
    edges = [0]
    for stop in np.cumsum(np.bincount(keys)).tolist():
        if stop - edges[-1] >= GROUP_ELEMENTS:
            edges.append(stop)
    if len(edges) == 1:
        return [0, keys.size]
    return [*edges[:-1], keys.size]


def _planes(bits: _Bits) -> list[Bytes]:
    shifts = range(0, 8 * bits.itemsize, 8)
    return [(bits >> bits.dtype.type(shift)).astype(np.uint8) for shift in shifts]


def _joined(raw: Bytes, dtype: np.dtype[Any]) -> _Bits:
    """Return the values of `raw`, (w * n,), whose first n bytes are their last ones; (n,)."""
    planes = raw.reshape(dtype.itemsize, -1)
    bits: _Bits = planes[-1].astype(dtype)
    for plane in planes[-2::-1]:
        bits <<= dtype.type(8)
        bits |= plane
    return bits
