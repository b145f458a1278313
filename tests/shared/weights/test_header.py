"""Headers: what we write the safetensors library reads, and the other way; nothing else gets in."""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from coldfusion_shared.errors import MalformedWeights
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.header import (
    _INVISIBLE,
    ITEM_BYTES,
    MAX_HEADER_BYTES,
    MAX_METADATA,
    MAX_NAME,
    MAX_TENSORS,
    Header,
    build_header,
    parse_header,
    read_header,
)
from tests.shared.checkpoints import file_bytes, raw_file

deserialize: Any = safetensors.deserialize  # it has no types

TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def is_plain(name: str) -> bool:
    """Return whether a name is written in one way only, and is no path."""
    parts = name.replace("\\", "/").split("/")
    plain = unicodedata.normalize("NFKC", name) == name.strip() and not _INVISIBLE.search(name)
    return plain and parts[0] != "" and ".." not in parts


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")),
    min_size=1,
    max_size=20,
).filter(lambda name: name.isprintable() and name != "__metadata__" and is_plain(name))
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
specs = st.dictionaries(names, st.tuples(st.sampled_from(sorted(ITEM_BYTES)), shapes), max_size=6)
Specs = dict[str, tuple[str, tuple[int, ...]]]


def parse(raw: bytes) -> Header:
    """Parse the header of a whole file, as `read_header` does."""
    return parse_header(raw[: 8 + int.from_bytes(raw[:8], "little")], len(raw))


def bytes_of(dtype: str, shape: tuple[int, ...], seed: int) -> bytes:
    """Return some bytes for such a tensor; of booleans only 0 and 1 are values."""
    size = int(np.prod(shape)) * ITEM_BYTES[dtype]
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "BOOL" else 256, size)
    return raw.astype(np.uint8).tobytes()


@given(specs)
def test_the_library_reads_what_we_write(given_specs: Specs) -> None:
    data = {name: bytes_of(*spec, seed=len(name)) for name, spec in given_specs.items()}
    header = build_header((name, dtype, shape) for name, (dtype, shape) in given_specs.items())
    raw = header + b"".join(data.values())
    assert len(header) % 8 == 0
    read = dict(deserialize(raw))
    assert set(read) == set(given_specs)
    for name, (dtype, shape) in given_specs.items():
        assert (read[name]["dtype"], tuple(read[name]["shape"])) == (dtype, shape)
        assert bytes(read[name]["data"]) == data[name]


@given(specs)
def test_we_read_what_we_write_in_its_order(given_specs: Specs) -> None:
    tensors = [(name, dtype, shape) for name, (dtype, shape) in given_specs.items()]
    header = build_header(tensors)
    size = len(header) + sum(int(np.prod(s)) * ITEM_BYTES[d] for _, d, s in tensors)
    parsed = parse_header(header, size)
    assert parsed.data_start == len(header)
    assert parsed.metadata == {"format": "pt"}
    # Empty tensors lie at one point with their neighbours, so only their place is kept.
    order = [(t.name, t.dtype, t.shape) for t in parsed.tensors if t.elements]
    assert order == [tensor for tensor in tensors if 0 not in tensor[2]]
    assert {(t.name, t.dtype, t.shape) for t in parsed.tensors} == set(tensors)


# Not the empty dictionary: with that and no tensor, safetensors 0.8 writes a broken header.
@given(
    specs,
    st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=3),
)
def test_we_read_what_the_library_writes(
    given_specs: Specs, metadata: dict[str, str] | None
) -> None:
    tensors = {
        name: torch.frombuffer(
            bytearray(bytes_of(dtype, shape, 3)) or bytearray(8), dtype=TORCH_DTYPES[dtype]
        )[: int(np.prod(shape))].reshape(shape)
        for name, (dtype, shape) in given_specs.items()
    }
    raw = safetensors.torch.save(tensors, metadata)
    parsed = parse(raw)
    assert dict(parsed.metadata) == (metadata or {})
    assert {t.name: (t.dtype, t.shape) for t in parsed.tensors} == given_specs
    for span in parsed.tensors:
        expected = tensors[span.name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert raw[span.start : span.stop] == expected


def entry(**changes: Any) -> dict[str, Any]:
    """Return the entry of an F32 tensor of two values, with `changes`."""
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


def one(**changes: Any) -> bytes:
    """Return a file of one such tensor."""
    return raw_file({"x": entry(**changes)}, bytes(8))


GOOD = file_bytes({"x": np.arange(6, dtype=np.float32), "y": np.ones(3, np.int64)})
TEXT = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

HOSTILE: Mapping[str, bytes] = {
    "empty": b"",
    "a length alone": bytes(7),
    "header of no length": bytes(8),
    "header of no length with data": bytes(16),
    "length beyond the file": struct.pack("<Q", 100) + b"{}",
    "length of 2**64-1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "length of 2**63": struct.pack("<Q", 2**63) + b"{}",
    "length just over the limit": struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(10),
    "length too small": struct.pack("<Q", 20) + GOOD[8:],
    "pickle": b"\x80\x04\x95" + bytes(40),
    "zip": b"PK\x03\x04" + bytes(60),
    "an array": raw_file("[]"),
    "a number": raw_file("1"),
    "null": raw_file("null"),
    "no JSON": raw_file("{nope}"),
    "NaN as an entry": raw_file('{"x":NaN}'),
    "two objects": raw_file("{}{}"),
    "leading space": raw_file(" {}"),
    "leading newline": raw_file("\n{}"),
    "byte order mark": raw_file(b"\xef\xbb\xbf{}"),
    "NUL padding": raw_file(b"{}\0\0"),
    "not UTF-8": raw_file(b'{"\xff":' + TEXT.encode() + b"}", bytes(8)),
    "UTF-16": raw_file("{}".encode("utf-16-le")),
    "overlong UTF-8": raw_file(b'{"\xc0\xaf":' + TEXT.encode() + b"}", bytes(8)),
    "lone surrogate in a name": raw_file('{"\\ud800":' + TEXT + "}", bytes(8)),
    "deep nesting": raw_file('{"x":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "deep objects": raw_file('{"x":' * 50_000 + "1" + "}" * 50_000),
    "a number of 10000 digits": raw_file('{"x":' + "9" * 10_000 + "}"),
    "duplicate tensor": raw_file(f'{{"x":{TEXT},"x":{TEXT}}}', bytes(8)),
    "duplicate through an escape": raw_file(f'{{"x":{TEXT},"\\u0078":{TEXT}}}', bytes(8)),
    "duplicate metadata": raw_file('{"__metadata__":{},"__metadata__":{}}'),
    "duplicate key in metadata": raw_file('{"__metadata__":{"a":"b","a":"c"}}'),
    "duplicate key in an entry": raw_file(
        '{"x":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', bytes(8)
    ),
    "metadata null": raw_file({"__metadata__": None}),
    "metadata list": raw_file({"__metadata__": []}),
    "metadata of numbers": raw_file({"__metadata__": {"a": 1}}),
    "metadata of objects": raw_file({"__metadata__": {"a": {}}}),
    "metadata as a tensor": raw_file({"__metadata__": entry()}, bytes(8)),
    "entry null": raw_file({"x": None}),
    "entry a list": raw_file({"x": ["F32", [2], [0, 8]]}, bytes(8)),
    "entry without dtype": raw_file({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    "entry with more": one(more=1),
    "empty name": raw_file({"": entry()}, bytes(8)),
    "name too long": raw_file({"x" * (MAX_NAME + 1): entry()}, bytes(8)),
    "newline in a name": raw_file({"a\nb": entry()}, bytes(8)),
    "NUL in a name": raw_file({"a\0b": entry()}, bytes(8)),
    "escape in a name": raw_file({"a\x1b[31m": entry()}, bytes(8)),
    "right-to-left override in a name": raw_file({"a\u202eb": entry()}, bytes(8)),
    "a path upwards as a name": raw_file({"../../etc/passwd": entry()}, bytes(8)),
    "a path upwards in a name": raw_file({"layer/../../x": entry()}, bytes(8)),
    "a path upwards with backslashes": raw_file({"layer\\..\\x": entry()}, bytes(8)),
    "an absolute path as a name": raw_file({"/etc/passwd": entry()}, bytes(8)),
    "a name with a ligature": raw_file({"\ufb01nal.weight": entry()}, bytes(8)),
    "a name of wide letters": raw_file({"\uff57eight": entry()}, bytes(8)),
    "a name with a combining accent": raw_file({"e\u0301": entry()}, bytes(8)),
    "a letter that nobody sees in a name": raw_file({"x\u034fy": entry()}, bytes(8)),
    "a selector at the end of a name": raw_file({"x\ufe0f": entry()}, bytes(8)),
    "a filler as a name": raw_file({"\u1160": entry()}, bytes(8)),
    "a space behind a name": raw_file({"x ": entry()}, bytes(8)),
    "half a letter in metadata": raw_file(
        f'{{"__metadata__":{{"a":"\\ud800"}},"x":{TEXT}}}', bytes(8)
    ),
    "half a letter as a key of metadata": raw_file(
        f'{{"__metadata__":{{"\\udfff":"a"}},"x":{TEXT}}}', bytes(8)
    ),
    "offset of minus zero": raw_file(f'{{"x":{TEXT.replace("[0", "[-0")}}}', bytes(8)),
    "millions of lists": raw_file('{"x":[' + "[]," * 2**21 + "0]}"),
    "millions of objects": raw_file('{"x":[' + "{}," * 2**21 + "0]}"),
    "millions of numbers": raw_file('{"x":[' + "7," * 2**22 + "0]}"),
    "metadata without end": raw_file({"__metadata__": {"a": "b" * (MAX_METADATA + 1)}}),
    "line separator in a name": raw_file({"a\u2028b": entry()}, bytes(8)),
    "dtype unknown": one(dtype="F31"),
    "dtype in lower case": one(dtype="f32"),
    "dtype of 8 bits": raw_file({"x": entry(dtype="F8_E4M3", data_offsets=[0, 2])}, bytes(2)),
    "dtype null": one(dtype=None),
    "dtype list": one(dtype=["F32"]),
    "dtype number": one(dtype=4),
    "shape null": one(shape=None),
    "shape number": one(shape=2),
    "shape text": one(shape="2"),
    "shape of texts": one(shape=["2"]),
    "shape of floats": one(shape=[2.0]),
    "shape of booleans": raw_file({"x": entry(shape=[True], data_offsets=[0, 4])}, bytes(4)),
    "shape negative": one(shape=[-2]),
    "shape doubly negative": one(shape=[-1, -2]),
    "shape too large for the data": one(shape=[3]),
    "shape that wraps at 2**64": one(shape=[2**62, 4, 2]),
    "shape beyond 63 bits": one(shape=[2**63]),
    "shape of too many axes": one(shape=[2] + [1] * 16),
    "shape huge but empty elsewhere": one(shape=[2**62, 2**62]),
    "offsets null": one(data_offsets=None),
    "one offset": one(data_offsets=[8]),
    "three offsets": one(data_offsets=[0, 8, 8]),
    "offsets as booleans": raw_file(
        {"x": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}}, bytes(1)
    ),
    "offsets as floats": one(data_offsets=[0.0, 8.0]),
    "offsets negative": one(data_offsets=[-8, 0]),
    "offsets backwards": one(data_offsets=[8, 0]),
    "offsets into the header": raw_file({"x": entry(data_offsets=[-4, 4])}, bytes(8)),
    "offsets beyond the file": one(data_offsets=[8, 16]),
    "hole at the start": raw_file({"x": entry(data_offsets=[4, 12])}, bytes(12)),
    "hole in the middle": raw_file(
        {"x": entry(), "y": entry(data_offsets=[12, 20])}, bytes(20)
    ),
    "overlap": raw_file({"x": entry(), "y": entry(data_offsets=[4, 12])}, bytes(12)),
    "the same data twice": raw_file({"x": entry(), "y": entry()}, bytes(8)),
    "an empty tensor inside another": raw_file(
        {"x": entry(), "y": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}, bytes(8)
    ),
    "an empty tensor behind the end": raw_file(
        {"x": entry(), "y": {"dtype": "F32", "shape": [0], "data_offsets": [9, 9]}}, bytes(8)
    ),
    "a trailing byte": GOOD + b"\0",
    "data without tensors": raw_file({}, bytes(4)),
    "data missing": GOOD[:-1],
    "too many tensors": raw_file(
        {
            str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
            for i in range(MAX_TENSORS + 1)
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_malformed_for_every_reader(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(raw)
    with pytest.raises(MalformedWeights):
        read_header(path)
    with pytest.raises(MalformedWeights):
        Checkpoint.from_file(path)


def test_a_file_cut_off_anywhere_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for length in range(len(GOOD)):
        path.write_bytes(GOOD[:length])
        with pytest.raises(MalformedWeights):
            read_header(path)


def test_the_uncut_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.safetensors"
    path.write_bytes(GOOD)
    assert [tensor.name for tensor in read_header(path).tensors] == ["x", "y"]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_malformed(raw: bytes) -> None:
    try:
        parse_header(raw, len(raw))
    except MalformedWeights:
        return
    json.loads(raw[8:])


@given(st.binary(max_size=80), st.integers(0, 40))
def test_arbitrary_headers_raise_nothing_but_malformed(text: bytes, more: int) -> None:
    raw = raw_file(b"{" + text, bytes(more))
    try:
        parse(raw)
    except MalformedWeights:
        return
    deserialize(raw)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_what_is_taken_of_mutated_files_the_library_takes_alike(
    changes: list[tuple[int, int]],
) -> None:
    raw = bytearray(GOOD)
    for place, value in changes:
        raw[place] = value
    try:
        ours = parse(bytes(raw))
    except MalformedWeights:
        return
    theirs = dict(deserialize(bytes(raw)))
    assert {t.name: (t.dtype, list(t.shape)) for t in ours.tensors} == {
        name: (tensor["dtype"], list(tensor["shape"])) for name, tensor in theirs.items()
    }
    for span in ours.tensors:
        assert bytes(raw[span.start : span.stop]) == bytes(theirs[span.name]["data"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), json_values, max_size=4))
def test_arbitrary_json_raises_nothing_but_malformed(header: dict[str, Any]) -> None:
    raw = raw_file(json.dumps(header), bytes(8))
    try:
        parse(raw)
    except MalformedWeights as error:
        assert error.message.isprintable()


def test_two_files_with_a_tensor_of_one_name_are_malformed(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (tmp_path / name).write_bytes(GOOD)
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}})
    )
    with pytest.raises(MalformedWeights, match="Two files"):
        Checkpoint.from_folder(tmp_path)
