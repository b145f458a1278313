"""Screen one contribution: header first, then one pass over the update for all checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coldfusion_shared.errors import (
    BadModel,
    BadWeights,
    ColdFusionError,
    IncompatibleWeights,
    InvalidRequest,
    NonFiniteWeights,
    UndecodableUpdate,
)
from coldfusion_shared.fusion.updates import Scratch
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import discover
from coldfusion_shared.screening.check import Check, Subject
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import CHUNK_ELEMENTS, ByteSource, Checkpoint, chunks
from coldfusion_shared.weights.codecs import open_update

if TYPE_CHECKING:
    from coldfusion_shared.fusion.updates import SentUpdate


@dataclass(frozen=True)
class Encoded:
    """
    An update as it was sent.

    Attributes:
        encoding: its encoding's name.
        sources: its files by name.
        frozen: patterns of names of tensors and modules that it says it has not changed.
    """

    encoding: str
    sources: Mapping[str, ByteSource]
    frozen: Sequence[str] = ()


@dataclass(frozen=True)
class Screening:
    """
    The outcome.

    Attributes:
        findings: one for each check that was run.
        digest: SHA-256 of the canonical update; null if its values were not read.
        hint: what its contributor can do where it cannot be read; null: nothing to say.
    """

    findings: list[Finding]
    digest: str | None
    hint: str | None = None

    @property
    def rejections(self) -> list[Finding]:
        """The findings that reject."""
        return [finding for finding in self.findings if finding.verdict == "reject"]


def screen(
    given: Encoded, base: Checkpoint, progress: Callable[[int], None] = lambda _: None
) -> Screening:
    """
    Screen an update, made from `base`, in whatever encoding.

    Args:
        given: the contribution's files.
        base: the base that it says it was made from.
        progress: called with the number of bytes of each chunk of weights that was read.
    """
    try:
        update = open_update(given.encoding, given.sources, base.tensors)
    except IncompatibleWeights as error:
        return Screening([_rejection("schema", error)], None, error.hint)
    except (BadWeights, BadModel, InvalidRequest) as error:
        return Screening([_rejection("format", error)], None, error.hint)
    readable = Finding(check="format", verdict="pass", message=f"valid as {given.encoding}")
    subject = Subject(given.encoding, frozenset(update.names), given.frozen, base.spans())
    registry = discover()
    checks = [registry[name](subject) for name in registry]
    findings = [finding for check in checks if (finding := check.header()) is not None]
    if findings:
        return Screening([readable, *findings], None)
    try:
        digest = _read_values(update, base, checks, progress)
    except (UndecodableUpdate, NonFiniteWeights) as error:
        return Screening([readable, _rejection("decoding", error)], None, error.hint)
    return Screening([readable, *(check.conclude() for check in checks)], digest)


def _rejection(check: str, error: ColdFusionError) -> Finding:
    return Finding(
        check=check, verdict="reject", message=error.message, tensors=list(error.tensors)[:10]
    )


def _read_values(
    update: SentUpdate,
    base: Checkpoint,
    checks: list[Check],
    progress: Callable[[int], None],
) -> str:
    """
    Show all values to all checks and return the digest of the canonical update.

    Canonical: name, shape and float32 values of the body's update in the order of the names, less
    the chunks that did not change; so that the same update in another order, under another header,
    or with its zeros written out, has the same digest.
    """
    digest, scratch, changed = hashlib.sha256(), Scratch(), frozenset(update.names)
    out = np.empty(CHUNK_ELEMENTS, np.float32)
    for name, span in sorted(body(base.spans()).items()):
        if name not in changed:
            continue
        for start, stop in chunks(span.elements):
            values = out[: stop - start]
            # What is not finite is found by a check, and not told by a warning.
            with np.errstate(over="ignore", invalid="ignore"):
                update.read(span, start, stop, values, scratch)
            if values.any():
                digest.update(f"{name}\0{span.shape}\0{start}\0".encode())
                digest.update(values.view(np.uint8).data)
            before = base.tensors[name].values(start, stop)
            for check in checks:
                check.observe(name, values, before)
            progress(values.nbytes)
    return digest.hexdigest()
