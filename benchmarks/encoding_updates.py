"""One finetuned model's update in each encoding, and the mean of several as a new base."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.encoding_speed import MB, decode_all
from coldfusion_shared.finetune.output import whole_folder
from coldfusion_shared.finetune.training import ADAPTER_FOLDER
from coldfusion_shared.fusion.engine import Onto, fused
from coldfusion_shared.fusion.new_folder import new_folder
from coldfusion_shared.fusion.plan import make_plan
from coldfusion_shared.fusion.updates import SentUpdate, Update, together_in_update
from coldfusion_shared.fusion.views import weights_view
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
from coldfusion_shared.weights.codecs import discover, open_update, weights_encoding
from coldfusion_shared.weights.differences.container import Pair
from coldfusion_shared.weights.differences.write import write_difference
from coldfusion_shared.weights.digests import file_sha256
from coldfusion_shared.weights.layout import SIDE_FILES, SINGLE_FILE
from coldfusion_shared.weights.tied import fused_tensors
from coldfusion_shared.weights.write import match_body

LORA = "lora"


def encode(name: str, finetuned: Path, base: Path, out: Path) -> dict[str, Any]:
    """
    Write the update of the model in the folder `finetuned` into the new folder `out`.

    Returns:
        share: its bytes by those of the float32 weights of the body.
        relative_error, cosine: between the update and what is decoded; null for an adapter, which
            is sent as it was learnt.
        encode, decode: MB of the body's float32 weights in a second of CPU time; no `encode` for
            an adapter.
    """
    with Checkpoint.from_folder(base) as ours, whole_folder(out) as folder:
        spans = body(ours.spans())
        size = sum(4 * span.elements for span in spans.values())
        if name == LORA:
            told = _copied(finetuned / ADAPTER_FOLDER, folder)
        else:
            told = _encoded(name, finetuned, ours, folder, size)
        with ExitStack() as stack:
            reader = _opened(stack, name, folder, ours)
            begun = time.process_time()
            decode_all(reader, spans)
            told["decode"] = size / MB / (time.process_time() - begun)
    return {"share": told.pop("bytes") / size, **told}


def difference_share(old: Path, new: Path) -> float:
    """Return the bytes of the exact difference between two folders' weights, by the new file's."""
    before, after = (
        FileEntry(path=SINGLE_FILE, size=file.stat().st_size, sha256=file_sha256(file))
        for file in (old / SINGLE_FILE, new / SINGLE_FILE)
    )
    with (
        closing(FileSource(old / SINGLE_FILE)) as read,
        closing(FileSource(new / SINGLE_FILE)) as to,
    ):
        pair = Pair.of(before, after)
        return write_difference(read, to, pair, lambda data: None) / after.size


def _copied(adapter: Path, folder: Path) -> dict[str, Any]:
    files = discover()[LORA].files
    for file in files:
        shutil.copyfile(adapter / file, folder / file)
    size = sum((folder / file).stat().st_size for file in files)
    return {"bytes": size, "relative_error": None, "cosine": None, "encode": None}


def _encoded(
    name: str, finetuned: Path, base: Checkpoint, folder: Path, size: int
) -> dict[str, Any]:
    with Checkpoint.from_folder(finetuned) as theirs:
        tensors = match_body(theirs, base)
        begun = time.process_time()
        cost = weights_encoding(name).encode(tensors, base.tensors, folder)
        speed = size / MB / (time.process_time() - begun)
    return {
        "bytes": cost.bytes,
        "relative_error": cost.relative_error,
        "cosine": cost.cosine,
        "encode": speed,
    }


def _opened(stack: ExitStack, name: str, folder: Path, base: Checkpoint) -> SentUpdate:
    sources = {file: FileSource(folder / file) for file in discover()[name].files}
    for source in sources.values():
        stack.callback(source.close)
    return open_update(name, sources, base.tensors)


def fuse(name: str, updates: Mapping[str, Path], base: Path, out: Path) -> None:
    """
    Write the model folder `out`: `base` and the mean of updates, as a Repository fuses.

    Args:
        name: the updates' encoding.
        updates: folders that `encode` has written, by who made them.
        base: a folder with one file of float32 weights.
        out: it appears whole or not at all.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(Checkpoint.from_folder(base))
        sent = {who: _opened(stack, name, folder, ours) for who, folder in updates.items()}
        spans = ours.spans()
        tensors = fused_tensors(ours, [together_in_update(one, spans) for one in sent.values()])
        plan = make_plan(
            tensors.spans, [Update(who, reader) for who, reader in sent.items()], Recipe()
        )
        folder = stack.enter_context(new_folder(out))
        with (folder / SINGLE_FILE).open("wb") as file:
            for piece in fused(plan, Onto(ours, tied=tensors.tied), [weights_view(spans)]):
                file.write(piece.data)
        for side in SIDE_FILES:
            if (base / side).is_file():
                shutil.copyfile(base / side, folder / side)
