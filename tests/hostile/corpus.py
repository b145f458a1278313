"""
Contributions that no model should take, each with the check that has to find it, and good ones.

All are made here from a small base; none is kept as a file. Whoever adds a check adds what it is
for, in `bad`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint
from coldfusion_shared.weights.codecs import weights_encoding
from coldfusion_shared.weights.codecs.frames import compress
from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tests.shared.checkpoints import BFLOAT16, Array, file_bytes, raw_file, write_file

Tensors = dict[str, Array]

FULL = "model.safetensors"
UPDATE = "update.safetensors"
LAYERS = 4
WIDTH = 48
# Of an update, by the spread of the weights.
STEP = 0.02
WORDS = "embeddings.words.weight"
WORDS_ROWS = CHUNK_ELEMENTS // WIDTH + 50
# The round in which they come, and those that were accepted into it before.
ROUND = 3
OTHERS = 10


@dataclass(frozen=True)
class Sent:
    """
    A contribution.

    Attributes:
        files: by name.
        encoding: its name.
        frozen: what it says that it has not trained.
        contributor: whose it is.
    """

    files: Mapping[str, bytes]
    encoding: str = "full"
    frozen: Sequence[str] = ()
    contributor: str = "stranger"


@dataclass(frozen=True)
class Bad:
    """
    A contribution that has to be found.

    Attributes:
        sent: it.
        check: the check that finds it.
        verdicts: what that may come to by default.
        words: part of the sentence that says why.
        parameters: of checks, where the defaults let it pass.
    """

    sent: Sent
    check: str
    words: str
    verdicts: Sequence[str] = ("reject",)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def base() -> Tensors:
    """Return the base: two layers alike in shape, words over several chunks, tied words, a head."""
    rng = np.random.default_rng(0)
    tensors: Tensors = {
        WORDS: rng.standard_normal((WORDS_ROWS, WIDTH)).astype(np.float32) * np.float32(0.05),
        "embeddings.position_ids": np.arange(16),
    }
    for layer in range(LAYERS):
        tensors[f"layer.{layer}.weight"] = rng.standard_normal((WIDTH, WIDTH)).astype(
            np.float32
        ) * np.float32(0.1)
        tensors[f"layer.{layer}.bias"] = np.zeros(WIDTH, np.float32)
        tensors[f"layer.{layer}.norm.weight"] = np.ones(WIDTH, np.float32)
    tensors["encoder.words.weight"] = tensors[WORDS]
    tensors["classifier.weight"] = rng.standard_normal((2, WIDTH)).astype(np.float32)
    return tensors


BASE = base()
BODY = [name for name in BASE if name not in ("classifier.weight", "embeddings.position_ids")]


def step(seed: int) -> Tensors:
    """Return an honest update: in part what all have in common, in part of its own."""
    shared, own = np.random.default_rng(1), np.random.default_rng((2, seed))
    found: Tensors = {}
    for name in BODY:
        size = STEP * float(BASE[name].std() or 0.1)
        both = 0.7 * shared.standard_normal(BASE[name].shape) + own.standard_normal(
            BASE[name].shape
        )
        found[name] = (size * both).astype(np.float32)
    # One parameter under two names.
    found["encoder.words.weight"] = found[WORDS]
    return found


def moved(update: Mapping[str, Array]) -> Tensors:
    """Return finetuned weights."""
    return {name: BASE[name] + update[name] if name in update else BASE[name] for name in BODY}


def honest(seed: int) -> Tensors:
    """Return the weights of an honest contributor."""
    return moved(step(seed))


def full(tensors: Mapping[str, Array], **about: Any) -> Sent:
    """Return weights that are sent whole."""
    return Sent({FULL: file_bytes(tensors)}, **about)


def encoded(encoding: str, tensors: Mapping[str, Array], folder: Path, **about: Any) -> Sent:
    """Return weights in an encoding."""
    kind = weights_encoding(encoding)
    with (
        Checkpoint.from_file(write_file(folder / "base.safetensors", BASE)) as ours,
        Checkpoint.from_file(write_file(folder / "tuned.safetensors", tensors)) as theirs,
    ):
        kind.encode(theirs.tensors, ours.tensors, folder / encoding)
    files = {name: (folder / encoding / name).read_bytes() for name in kind.files}
    return Sent(files, encoding, **about)


def adapter(seed: int, size: float = 1.0, **more: Any) -> Sent:
    """Return an adapter of all layers' matrices, with `more` in its configuration."""
    rng = np.random.default_rng((3, seed))
    tensors = {}
    for layer in range(LAYERS):
        module = f"base_model.model.layer.{layer}"
        tensors[f"{module}.lora_A.weight"] = (0.1 * rng.standard_normal((4, WIDTH))).astype("f4")
        tensors[f"{module}.lora_B.weight"] = (size * 0.01 * rng.standard_normal((WIDTH, 4))).astype(
            "f4"
        )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "init_lora_weights": True, **more}
    files = {ADAPTER_WEIGHTS: file_bytes(tensors), ADAPTER_CONFIG: json.dumps(config).encode()}
    return Sent(files, "lora")


def good(folder: Path) -> dict[str, Sent]:
    """Return contributions in all forms that nothing speaks against."""
    whole = {f"full {seed}": full(honest(seed)) for seed in range(100, 106)}
    others = {
        name: encoded(name, honest(number), folder / name)
        for number, name in enumerate(["delta", "delta-int8", "delta-sparse", "delta-sign"], 110)
    }
    shuffled = dict(reversed(honest(120).items()))
    some = {name: tensor for name, tensor in honest(121).items() if "layer.0" not in name}
    return {
        **whole,
        **others,
        "lora": adapter(122),
        "in another order": full(shuffled),
        "with its head": full({**honest(123), "classifier.weight": np.ones((2, WIDTH), "f4")}),
        "with positions": full({**honest(124), "embeddings.position_ids": np.arange(16)}),
        "without what is frozen": full(some, frozen=["layer.0"]),
        "a small learning rate": full(moved(_times(step(125), 0.3))),
        "a large learning rate": full(moved(_times(step(126), 3.0))),
    }


def _times(update: Mapping[str, Array], factor: float) -> Tensors:
    return {name: (factor * values).astype(np.float32) for name, values in update.items()}


def _with(name: str, values: Array, seed: int = 200) -> Tensors:
    return {**honest(seed), name: values}


def _poked(name: str, place: int, value: float) -> Tensors:
    values = honest(201)[name].copy()
    values.reshape(-1)[place] = value
    return _with(name, values, 201)


def of_containers() -> dict[str, Bad]:
    """Return files that are no safetensors, or that two readers could see two models in."""
    good_file = file_bytes(honest(210))
    length = int.from_bytes(good_file[:8], "little")
    header, data = json.loads(good_file[8 : 8 + length]), good_file[8 + length :]
    text = json.dumps(header)
    last = BODY[-1]

    def entry(name: str, **changes: Any) -> bytes:
        return raw_file({**header, name: {**header[name], **changes}}, data)

    files = {
        "a pickle": (b"\x80\x04\x95" + bytes(100), "header"),
        "an archive": (b"PK\x03\x04" + bytes(100), "header"),
        "nothing": (b"", "too short"),
        "cut off": (good_file[:-1], "bytes where its header"),
        "a byte more": (good_file + b"\0", "after its last tensor"),
        "a header over the limit": ((2**30).to_bytes(8, "little") + good_file[8:], "claims"),
        "leading white space": (raw_file(" " + text, data), "does not start"),
        "a tensor twice": (
            raw_file(text[:-1] + f', "{last}": {json.dumps(header[last])}}}', data), "twice",
        ),
        "an extra key": (entry(last, colour="red"), "not described by"),
        "an unknown dtype": (entry(last, dtype="F33"), "dtype that is not taken"),
        "a hole": (
            raw_file({**header, last: {**header[last], "data_offsets": [
                offset + 8 for offset in header[last]["data_offsets"]]}}, data + bytes(8)),
            "leaves a hole",
        ),
        "an overlap": (
            entry(last, data_offsets=[offset - 4 for offset in header[last]["data_offsets"]]),
            "overlaps",
        ),
        "metadata without end": (
            raw_file({**header, "__metadata__": {"a": "b" * 2**21}}, data), "__metadata__",
        ),
        "a hundred thousand tensors": (
            raw_file({f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
                      for n in range(100_001)}), "tensors",
        ),
        "escapes for a terminal in a name": (
            file_bytes(_with("layer\x1b[2J", np.ones(2, np.float32))), "impossible name",
        ),
        "a path as a name": (
            file_bytes(_with("../../.bashrc", np.ones(2, np.float32))), "like a path",
        ),
        "a name of a thousand letters": (
            file_bytes(_with("w" * 1000, np.ones(2, np.float32))), "impossible name",
        ),
        "a letter that nobody sees in a name": (
            file_bytes(_with("layer\u034f.weight", np.ones(2, np.float32))), "nobody sees",
        ),
        "a space behind a name": (
            file_bytes(_with("layer.0.weight ", np.ones(2, np.float32))), "nobody sees",
        ),
        "halves of letters in metadata": (
            raw_file({**header, "__metadata__": {"a": "\ud800"}}, data), "halves of letters",
        ),
        "less than nothing as an offset": (
            raw_file(text.replace("[0,", "[-0,", 1), data), "no size"
        ),
        "sizes with a point": (raw_file(text.replace("[0,", "[0.0,", 1), data), "no size"),
        "millions of lists": (raw_file('{"x":[' + "[]," * 2**21 + "0]}"), "more than"),
        "a ligature in a name": (
            file_bytes(_with("\ufb01nal.weight", np.ones(2, np.float32))), "another way",
        ),
    }  # fmt: skip
    return {
        name: Bad(Sent({FULL: raw}), "format", words) for name, (raw, words) in files.items()
    } | {
        "a file of code beside it": Bad(
            Sent({FULL: good_file, "modeling.py": b"import os"}), "format", "consists of"
        ),
        "a configuration that is a pickle": Bad(
            Sent({**adapter(0).files, ADAPTER_CONFIG: b"\x80\x04\x95" + bytes(20)}, "lora"),
            "format",
            "",
        ),
        "an encoding's file under another's name": Bad(
            Sent({FULL: good_file}, "delta"), "format", "consists of"
        ),
    }


def of_schemas() -> dict[str, Bad]:
    """Return sound files of another model."""
    fewer = {name: tensor for name, tensor in honest(220).items() if "layer.3" not in name}
    narrow = {name: tensor.astype(np.float16) for name, tensor in honest(221).items()}
    turned = _with(WORDS, np.ascontiguousarray(honest(222)[WORDS].T))
    twin = dict(honest(223))
    # A letter of another alphabet that looks the same.
    twin["l\u0430yer.0.weight"] = twin.pop("layer.0.weight")
    head = {**honest(224), "classifier.weight": np.ones((2, WIDTH), np.float32)}
    positions = {**honest(225), "embeddings.position_ids": np.arange(16)[::-1].copy()}
    wrong = np.arange(16, dtype=np.float32)
    return {
        "a layer less": Bad(full(fewer), "schema", "missing"),
        "a layer more": Bad(
            full(_with("layer.9.weight", np.ones(4, "f4"))), "schema", "not in the base"
        ),
        "half precision": Bad(full(narrow), "schema", "shape or dtype"),
        "a matrix turned": Bad(full(turned), "schema", "shape or dtype"),
        "a twin of a name": Bad(full(twin), "schema", "not in the base"),
        "long names": Bad(
            full({f"{n}{'w' * 450}": np.ones(1, "f4") for n in range(9)}), "schema", "not in the"
        ),
        "bytes under another dtype": Bad(
            full(_with("layer.0.bias", np.ones(WIDTH, np.int32))), "schema", "shape or dtype"
        ),
        "a head where none is taken": Bad(
            full(head), "schema", "takes no heads", parameters={"schema": {"heads": "refuse"}}
        ),
        "other positions": Bad(full(positions), "integers", "is not the base's"),
        "positions as floats": Bad(
            full({**honest(226), "embeddings.position_ids": wrong}), "integers", "not the base's"
        ),
        "an adapter of another model": Bad(
            Sent(
                {**adapter(0).files, ADAPTER_WEIGHTS: file_bytes({
                    "base_model.model.deep.9.lora_A.weight": np.ones((4, 7), "f4"),
                    "base_model.model.deep.9.lora_B.weight": np.ones((7, 4), "f4"),
                })}, "lora",
            ), "schema", "does not fit",
        ),
    }  # fmt: skip


def _blocks(encoding: str, frame: bytes, lengths: Sequence[int] = ()) -> Sent:
    """Return an update of one tensor that has one block."""
    index = np.array(lengths or [len(frame)], np.uint16)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "index:layer.0.weight": index,
        f"{encoding}:layer.0.weight": np.frombuffer(frame, np.uint8),
    }
    return Sent({UPDATE: file_bytes(tensors)}, encoding)


def of_blocks() -> dict[str, Bad]:
    """Return updates in blocks that cannot be decoded, or into nothing sound."""
    count = WIDTH * WIDTH
    levels, bits = np.full(count, 100, np.int8).tobytes(), bytes([0xFF]) * (count // 8)

    def scaled(scale: float, rest: bytes) -> bytes:
        return compress([np.float32(scale).tobytes() + rest])

    sound = scaled(1e-3, levels)
    sizeless = zstandard.ZstdCompressor(write_content_size=False).compress(levels)
    frames = {
        "a scale of NaN": (scaled(np.nan, levels), "negative or not finite"),
        "a scale of infinity": (scaled(np.inf, levels), "negative or not finite"),
        "a scale below zero": (scaled(-1.0, levels), "negative or not finite"),
        "a value of -128": (scaled(1.0, levels[:-1] + b"\x80"), "-128"),
        "a block that swells": (compress([bytes(2**24)]), "claims a content of"),
        "a block of no size": (sizeless, "unknown size"),
        "a block cut off": (sound[:-2], "zstd frame"),
        "a block and more": (sound + sound, "zstd frame"),
        "a block of noise": (bytes(range(64)), "zstd frame"),
    }
    return {
        name: Bad(_blocks("delta-int8", frame), "decoding", words)
        for name, (frame, words) in frames.items()
    } | {
        "fewer values than bits": Bad(
            _blocks("delta-sparse", scaled(1.0, bits + levels[:-1])), "decoding", "more or fewer"
        ),
        "a sign of an infinite scale": Bad(
            _blocks("delta-sign", scaled(np.inf, bits)), "decoding", "not finite"
        ),
        "a scale near the largest float": Bad(
            _blocks("delta-int8", scaled(3e38, levels)), "finite", "moved by more"
        ),
        "an index that lies": Bad(
            _blocks("delta-int8", sound, [len(sound) - 1]), "format", "does not fit the data"
        ),
        "an index of two blocks": Bad(
            _blocks("delta-int8", sound, [1, len(sound) - 1]), "format", "number of blocks"
        ),
    }


def of_values(folder: Path) -> dict[str, Bad]:
    """Return updates of the right form that hold what no training makes."""
    rng = np.random.default_rng(4)
    noise: Tensors = {
        name: (rng.standard_normal(BASE[name].shape) * (BASE[name].std() or 0.1)).astype("f4")
        for name in BODY
    }
    noise["encoder.words.weight"] = noise[WORDS]
    thousand = moved(_times(step(230), 1000.0))
    untied = _with("encoder.words.weight", honest(231)["encoder.words.weight"] * np.float32(1.01))
    few = {"layer.0.weight": BASE["layer.0.weight"].copy()}
    few["layer.0.weight"][:4, 0] += 1
    delta = np.full((WIDTH, WIDTH), np.inf, np.float32).astype(BFLOAT16)
    dusty = {name: np.full(BASE[name].shape, 1e-30, "f4").astype(BFLOAT16) for name in BODY}
    dusty["layer.0.weight"][:4, 0] = 0.4
    rest = np.zeros((WIDTH, WIDTH), np.float32)
    rest[0, 0], rest[3, 7] = 0.1, -0.2
    either = ("reject", "quarantine")
    return {
        **{
            f"{value} at {place} of {name}": Bad(full(_poked(name, place, value)), "finite", name)
            for value in (np.nan, np.inf, -np.inf)
            for name, place in ((WORDS, 0), (WORDS, -1), ("layer.0.bias", 3))
        },
        "infinity in differences": Bad(
            Sent({UPDATE: file_bytes({"layer.0.weight": delta})}, "delta"), "finite", "NaN or inf"
        ),
        "near infinity": Bad(full(_poked("layer.0.weight", 7, 1e30)), "finite", "moved by more"),
        "the base": Bad(full(moved({})), "changed", "identical"),
        "the base in differences": Bad(
            encoded("delta-int8", moved({}), folder / "none"), "changed", "identical"
        ),
        "a frozen layer trained": Bad(full(honest(232), frozen=["layer.0"]), "frozen", "declared"),
        "a layer wiped out": Bad(
            full(_with("layer.1.weight", np.zeros((WIDTH, WIDTH), "f4"))), "constant", "the same",
            either,
        ),
        "a layer of one value": Bad(
            full(_with("layer.1.weight", np.full((WIDTH, WIDTH), 0.1, "f4"))), "constant", "same",
            either,
        ),
        "times a thousand": Bad(full(thousand), "magnitude", "is the most", either),
        "an adapter times a thousand": Bad(adapter(233, 1e5), "magnitude", "is the most", either),
        "one value far away": Bad(
            full(_poked("layer.2.weight", 5, 80.0)), "magnitude", "moved by", either
        ),
        "a random model": Bad(full(noise), "unrelated", "another model", either),
        "the base with its sign turned": Bad(
            full({name: -BASE[name] for name in BODY}), "unrelated", "another model", either
        ),
        "a layer of noise": Bad(
            full(_with("layer.2.weight", noise["layer.2.weight"])), "tensor_outliers", "layer.2",
            either,
        ),
        "four values edited": Bad(full(moved_by(few)), "sparsity", "is the least", either),
        "tied words apart": Bad(
            full(untied), "tied", "changed differently", either,
        ),
        "four values edited, and dust on the others": Bad(
            Sent({UPDATE: file_bytes(dusty)}, "delta"), "sparsity", "nearly all", either
        ),
        "a layer wiped out but for two values": Bad(
            full(_with("layer.1.weight", rest)), "tensor_outliers", "layer.1", either
        ),
    }  # fmt: skip


def moved_by(tensors: Mapping[str, Array]) -> Tensors:
    """Return the base with some tensors replaced."""
    return {**moved({}), **tensors}


def of_rounds(folder: Path) -> dict[str, Bad]:
    """Return updates that only those of the same round show for what they are; see `OTHERS`."""
    either = ("reject", "quarantine")
    copied = step(0)
    flipped = _times(step(240), -1.0)
    return {
        "sent again": Bad(full(honest(0), contributor="member 0"), "copies", "you contributed"),
        "sent again in another encoding": Bad(
            encoded("delta-int8", honest(0), folder / "again", contributor="member 0"),
            "copies",
            "you contributed",
        ),
        "copied": Bad(full(honest(0)), "copies", "somebody else", either),
        "copied and scaled": Bad(full(moved(_times(copied, 1.7))), "copies", "else", either),
        "copied and turned round": Bad(full(moved(_times(copied, -1.0))), "copies", "else", either),
        "copied with a little noise": Bad(
            full(moved(_mixed(copied, step(241), 0.01))), "copies", "somebody else", either
        ),
        "five hundred times as long": Bad(
            full(moved(_times(step(242), 500.0))), "norm", "long", either
        ),
        "a thousandth as long": Bad(full(moved(_times(step(243), 1e-3))), "norm", "short", either),
        "its sign turned": Bad(full(moved(flipped)), "direction", "is the least", either),
    }


def _mixed(one: Mapping[str, Array], other: Mapping[str, Array], share: float) -> Tensors:
    return {name: (one[name] + share * other[name]).astype(np.float32) for name in one}


def bad(folder: Path) -> dict[str, Bad]:
    """Return all that has to be found, by name."""
    return {
        **of_containers(),
        **of_schemas(),
        **of_blocks(),
        **of_values(folder),
        **of_rounds(folder),
    }
