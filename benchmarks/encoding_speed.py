"""
How fast encodings are and how small: one update that is like those of real finetunes.

Seconds are CPU time, of a process of one thread: what else the machine does counts little.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from coldfusion_shared.fusion.updates import Scratch, UpdateReader
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, Checkpoint, FileSource, chunks
from coldfusion_shared.weights.codecs import open_update, weights_encoding
from coldfusion_shared.weights.codecs.encoding import Encoded
from coldfusion_shared.weights.header import TensorSpan, build_header

MB = 10**6

SHOWN = ("full", "delta", "delta-int8", "delta-sparse", "delta-sign")
# Of bytes of a float32 upload, and MB/s of float32 output on one core.
SIZE_GOALS = {"delta-int8": 0.26, "delta-sign": 0.04}
DECODE_GOALS = {"delta-int8": 500.0}

HIDDEN = 768
VOCABULARY = 50_265
# Most tokens of a vocabulary are in no example of a task.
UNCHANGED_ROWS = 0.8

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cost:
    """
    What one encoding costs.

    Attributes:
        name: the encoding.
        encoded: its size, and what it lost.
        share: its bytes by those of a full float32 upload.
        encode: MB of float32 input in a second of one core, as each repeat had it.
        decode: MB of float32 output in a second of one core.
    """

    name: str
    encoded: Encoded
    share: float
    encode: list[float]
    decode: list[float]


def table(folder: Path, layers: int = 4, repeats: int = 5) -> str:
    """Return the table of all encodings, of a model of RoBERTa-base's width, in Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        base, finetuned = write_pair(Path(scratch), layers)
        costs = [cost(name, finetuned, base, Path(scratch), repeats) for name in SHOWN]
    lines = [
        "| encoding | bytes | of float32 | relative error | cosine | encode MB/s | decode MB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_row, costs)])


def _row(found: Cost) -> str:
    size = _judged(found.share, SIZE_GOALS.get(found.name), ".4f", above=False)
    decode = _judged(median(found.decode), DECODE_GOALS.get(found.name), ",.0f", above=True)
    return (
        f"| {found.name} | {found.encoded.bytes:,} | {size} | {found.encoded.relative_error:.4f} "
        f"| {found.encoded.cosine:.4f} | {median(found.encode):,.0f} | {decode} |"
    )


def _judged(value: float, goal: float | None, form: str, *, above: bool) -> str:
    told = format(value, form)
    if goal is None:
        return told
    held = value >= goal if above else value <= goal
    return f"{told} ({'holds' if held else 'MISSES'}: {'>=' if above else '<='} {goal:g})"


def cost(name: str, finetuned: Path, base: Path, folder: Path, repeats: int) -> Cost:
    """Return what the encoding `name` costs, after one run that does not count."""
    encode, decode = [], []
    encoding, out = weights_encoding(name), folder / name
    with Checkpoint.from_file(finetuned) as theirs, Checkpoint.from_file(base) as ours:
        size = sum(4 * span.elements for span in ours.spans().values())
        for _ in range(1 + repeats):
            began = time.process_time()
            encoded = encoding.encode(theirs.tensors, ours.tensors, out)
            encode.append(size / MB / (time.process_time() - began))
            sources = {file: FileSource(out / file) for file in encoding.files}
            reader = open_update(name, sources, ours.tensors)
            began = time.process_time()
            decode_all(reader, ours.spans())
            decode.append(size / MB / (time.process_time() - began))
            for source in sources.values():
                source.close()
    return Cost(name, encoded, encoded.bytes / size, encode[1:], decode[1:])


def decode_all(reader: UpdateReader, spans: Mapping[str, TensorSpan]) -> None:
    """Read the whole update as a fuse of few contributions does: a chunk at a time."""
    scratch, out = Scratch(), np.empty(CHUNK_ELEMENTS, np.float32)
    for span in spans.values():
        for start, stop in chunks(span.elements):
            reader.read(span, start, stop, out[: stop - start], scratch)


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an encoder of RoBERTa-base's width."""
    found: dict[str, tuple[int, ...]] = {"embeddings.word.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        found |= {
            f"layer.{layer}.attention.weight": (4 * HIDDEN, HIDDEN),
            f"layer.{layer}.attention.bias": (4 * HIDDEN,),
            f"layer.{layer}.up.weight": (4 * HIDDEN, HIDDEN),
            f"layer.{layer}.down.weight": (HIDDEN, 4 * HIDDEN),
            f"layer.{layer}.norm.weight": (HIDDEN,),
        }
    return found


def write_pair(folder: Path, layers: int) -> tuple[Path, Path]:
    """Write a base of float32 and a finetuned model of it, and return their paths."""
    wanted = shapes(layers)
    paths = folder / "base.safetensors", folder / "finetuned.safetensors"
    header = build_header((name, "F32", shape) for name, shape in wanted.items())
    with paths[0].open("wb") as base, paths[1].open("wb") as finetuned:
        base.write(header)
        finetuned.write(header)
        for weights, update in _tensors(wanted):
            base.write(weights.data)
            finetuned.write((weights + update).data)
    return paths


def _tensors(wanted: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[Floats, Floats]]:
    """Yield weights and updates of normal values; the updates' scale varies by tensor."""
    rng = np.random.default_rng(0)
    for name, shape in wanted.items():
        weights = rng.standard_normal(shape, np.float32) * np.float32(0.02)
        scale = np.float32(2e-4 * 10 ** rng.uniform(-1, 1))
        update = rng.standard_normal(shape, np.float32) * scale
        if name.startswith("embeddings"):
            update[rng.random(len(update)) < UNCHANGED_ROWS] = 0
        yield weights, update
