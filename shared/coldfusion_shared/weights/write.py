"""Weights files written span by span: the body alone, and an update put onto another base."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from coldfusion_shared.errors import IncompatibleWeights, StorageFull
from coldfusion_shared.fusion.updates import Scratch, SentUpdate
from coldfusion_shared.weights.body import OPTIONAL_MODULE, align, body, check_body, twins
from coldfusion_shared.weights.checkpoint import (
    Checkpoint,
    StoredTensor,
    chunks,
)
from coldfusion_shared.weights.header import TensorSpan, build_header
from coldfusion_shared.weights.tied import tied_groups

Progress = Callable[[int], None]
Spans = Iterator[npt.NDArray[Any]]


def match_body(
    finetuned: Checkpoint, base: Checkpoint, *, heads: bool = False
) -> dict[str, StoredTensor]:
    """
    Return the tensors of `finetuned` that are the base's body, under the base's names.

    Args:
        finetuned: a model with whatever head.
        base: what it was finetuned from.
        heads: whether the base's heads belong to it, too.

    Raises:
        IncompatibleWeights: it is a model of another architecture.
    """
    wanted = body(base.spans(), heads=heads)
    names = align(wanted, finetuned.tensors)
    matched = {ours: finetuned.tensors[theirs] for ours, theirs in names.items()}
    missing = [name for name in wanted if name not in matched]
    if missing:
        _add_tied(matched, missing, finetuned, base)
    for name in missing:
        if name not in matched and OPTIONAL_MODULE in name.split("."):
            matched[name] = base.tensors[name]
    candidate = {name: tensor.span for name, tensor in matched.items()}
    used = set(names.values())
    further = [name for name in finetuned.tensors if name not in used and name not in base.tensors]
    for name in twins(used, further):
        candidate[name] = finetuned.tensors[name].span
    check_body(base.spans(), candidate, heads=heads)
    return matched


def _add_tied(
    matched: dict[str, StoredTensor], missing: list[str], finetuned: Checkpoint, base: Checkpoint
) -> None:
    """A tied tensor that was saved once is there under its other names, a head's among them."""
    names = align(base.tensors, finetuned.tensors)
    for group in tied_groups(base.tensors):
        there = next((name for name in group if name in names), None)
        if there is not None:
            tensor = finetuned.tensors[names[there]]
            matched.update({name: tensor for name in group if name in missing})


def write_body(
    finetuned: Checkpoint, base: Checkpoint, out: Path, progress: Progress = lambda _: None
) -> None:
    """
    Write the body of `finetuned` to the safetensors file `out`, under the base's names and order.

    Args:
        finetuned: a finetuned model, with its head, its names as its architecture has them.
        base: the base that it was finetuned from.
        out: the file to write; it appears whole or not at all.
        progress: called with the number of bytes of each span that was written.

    Raises:
        IncompatibleWeights: `finetuned` is a model of another architecture.
        StorageFull: no room on the disk.
    """
    tensors = match_body(finetuned, base)
    order = [name for name in base.tensors if name in tensors]
    header = build_header(
        (name, tensors[name].span.dtype, tensors[name].span.shape) for name in order
    )
    _write(out, header, _stored([tensors[name] for name in order]), progress)


def write_rebased(
    contribution: Checkpoint,
    made_from: Checkpoint,
    onto: Checkpoint,
    out: Path,
    progress: Progress = lambda _: None,
) -> None:
    """
    Put the update of `contribution` onto another base: ``onto + (contribution - made_from)``.

    Args:
        contribution: a body as `write_body` writes it.
        made_from: the base that it was finetuned from.
        onto: another base of the same model.
        out: the file to write; it appears whole or not at all.
        progress: called with the number of bytes of each span that was written.
    """
    wanted = body(onto.spans())
    check_body(made_from.spans(), contribution.spans())
    before = body(made_from.spans())
    if {n: s.shape for n, s in wanted.items()} != {n: s.shape for n, s in before.items()}:
        raise IncompatibleWeights("The two bases are of different architectures.")
    # In the contribution's own dtype: a coarser base's would round most of the update away.
    header = build_header(
        (name, contribution.tensors[name].span.dtype, span.shape) for name, span in wanted.items()
    )
    _write(out, header, _rebased(wanted, contribution, made_from, onto), progress)


def write_tensors(tensors: Mapping[str, StoredTensor], out: Path) -> None:
    """Write `tensors` under their names into one file; it appears whole or not at all."""
    header = build_header((name, one.span.dtype, one.span.shape) for name, one in tensors.items())
    _write(out, header, _stored(list(tensors.values())), lambda _: None)


def write_decoded(finetuned: Checkpoint, base: Checkpoint, update: SentUpdate, out: Path) -> None:
    """
    Write the model that others have of an encoded update: its body decoded, its head as it is.

    Args:
        finetuned: the model, in its own names; decides about dtypes.
        base: what it was finetuned from.
        update: what it was encoded to.
        out: the file to write; it appears whole or not at all.
    """
    theirs = {name: ours for ours, name in align(body(base.spans()), finetuned.tensors).items()}
    header = build_header(
        (name, tensor.span.dtype, tensor.span.shape) for name, tensor in finetuned.tensors.items()
    )
    _write(out, header, _decoded(finetuned, base, update, theirs), lambda _: None)


def _decoded(
    finetuned: Checkpoint, base: Checkpoint, update: SentUpdate, theirs: dict[str, str]
) -> Spans:
    scratch, changed = Scratch(), frozenset(update.names)
    for name, tensor in finetuned.tensors.items():
        ours = theirs.get(name)
        for start, stop in chunks(tensor.span.elements):
            values = tensor.values(start, stop)
            if ours in changed:
                out = np.empty(stop - start, np.float32)
                update.read(base.tensors[ours].span, start, stop, out, scratch)
                values = (base.tensors[ours].values(start, stop) + out).astype(values.dtype)
            yield values


def _stored(tensors: list[StoredTensor]) -> Spans:
    for tensor in tensors:
        for start, stop in chunks(tensor.span.elements):
            yield tensor.values(start, stop)


def _rebased(
    wanted: dict[str, TensorSpan], contribution: Checkpoint, made_from: Checkpoint, onto: Checkpoint
) -> Spans:
    for name, span in wanted.items():
        sources = [model.tensors[name] for model in (contribution, made_from, onto)]
        for start, stop in chunks(span.elements):
            theirs, before, ours = (source.values(start, stop) for source in sources)
            moved = ours.astype(np.float64) + (theirs.astype(np.float64) - before)
            yield moved.astype(theirs.dtype)


def _write(out: Path, header: bytes, spans: Spans, progress: Progress) -> None:
    with appearing_whole(out) as file:
        file.write(header)
        for span in spans:
            # A view of bytes: numpy's bfloat16 has no buffer of its own.
            file.write(span.view(np.uint8).data)
            progress(span.nbytes)


@contextmanager
def appearing_whole(out: Path) -> Iterator[BinaryIO]:
    """
    Yield a file that becomes `out` at the end, and that is gone if the end is not reached.

    Raises:
        StorageFull: no room on the disk.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(
            f"The disk is full; {out.name} could not be written.",
            hint=f"Free some space under {out.parent} and run the command again.",
        ) from None
    finally:
        partial.unlink(missing_ok=True)
