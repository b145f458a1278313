"""
Coverage-guided fuzzing of the header parser, as a program of its own.

    python -m tests.hostile.fuzz_header CORPUS... [-runs=N] [-max_total_time=SECONDS]

The arguments are libFuzzer's. New inputs that reach new code are written to the first folder. Those
that are kept, in kept_headers, reach all of it, and each some that the others do not.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import pairwise

import atheris

with atheris.instrument_imports(include=["coldfusion_shared.weights.header"]):
    from coldfusion_shared.weights import header

from coldfusion_shared.errors import MalformedWeights

# Larger ones only take longer.
MAX_BYTES = 4096


def parse(raw: bytes) -> None:
    """Parse `raw` as a file, and as the JSON of one whose framing is right: its length changes."""
    whole(raw)
    text = raw[1:]
    whole(len(text).to_bytes(8, "little") + text + bytes(raw[0] if raw else 0))


def whole(raw: bytes) -> None:
    """Parse the header of the file `raw`; whatever is in it, it is refused or it is sound."""
    with suppress(MalformedWeights):
        start = 8 + header.header_length(raw[:8], len(raw))
        check(header.parse_header(raw[:start], len(raw)), len(raw))


def check(found: header.Header, size: int) -> None:
    """Check that what was taken is the whole file, each byte once, and can be written again."""
    tensors = found.tensors
    ends = [found.data_start, *(tensor.stop for tensor in tensors)]
    assert [tensor.start for tensor in tensors] == ends[:-1] and ends[-1] == size
    assert all(before <= after for before, after in pairwise(ends))
    names = [tensor.name for tensor in tensors]
    assert len(set(names)) == len(names)
    assert all(name.isprintable() and 0 < len(name) <= header.MAX_NAME for name in names)
    for tensor in tensors:
        assert tensor.stop - tensor.start == tensor.elements * header.ITEM_BYTES[tensor.dtype]
    again = header.build_header((one.name, one.dtype, one.shape) for one in tensors)
    read = header.parse_header(again, len(again) + size - found.data_start)
    assert {(one.name, one.dtype, one.shape) for one in read.tensors} == {
        (one.name, one.dtype, one.shape) for one in tensors
    }


def main() -> None:
    """Fuzz as the command line says."""
    atheris.Setup([*sys.argv, f"-max_len={MAX_BYTES}"], parse)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
