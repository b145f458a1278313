"""Screen one contribution: header first, then one pass over the values for all checks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coldfusion_shared.errors import MalformedWeights
from coldfusion_shared.schemas.contributions import Finding
from coldfusion_shared.screening import discover
from coldfusion_shared.screening.check import Check
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import ByteSource, Checkpoint, chunks


@dataclass(frozen=True)
class Screening:
    """
    The outcome.

    Attributes:
        findings: one for each check that was run.
        digest: SHA-256 of the canonical tensors; null if their values were not read.
    """

    findings: list[Finding]
    digest: str | None

    @property
    def rejections(self) -> list[Finding]:
        """The findings that reject."""
        return [finding for finding in self.findings if finding.verdict == "reject"]


def screen(
    source: ByteSource, base: Checkpoint, progress: Callable[[int], None] = lambda _: None
) -> Screening:
    """
    Screen the safetensors file `source`, made from `base`.

    Args:
        source: the contribution's weights.
        base: the base that it says it was made from.
        progress: called with the number of bytes of each chunk that was read.
    """
    try:
        candidate = Checkpoint({"contribution": source})
    except MalformedWeights as error:
        return Screening([Finding(check="format", verdict="reject", message=error.message)], None)
    readable = Finding(check="format", verdict="pass", message="strictly valid safetensors")
    registry = discover()
    checks = [registry[name]() for name in registry]
    decided = [check.header(candidate.spans(), base.spans()) for check in checks]
    findings = [finding for finding in decided if finding is not None]
    if findings:
        return Screening([readable, *findings], None)
    digest = _read_values(candidate, base, checks, progress)
    return Screening([readable, *(check.conclude() for check in checks)], digest)


def _read_values(
    candidate: Checkpoint, base: Checkpoint, checks: list[Check], progress: Callable[[int], None]
) -> str:
    """
    Show all values to all checks and return the digest of the canonical tensors.

    Canonical: name, dtype, shape and bytes of the body in the order of the names, so that the same
    weights in another order or under another header have the same digest.
    """
    digest = hashlib.sha256()
    for name in sorted(body(base.spans())):
        theirs, ours = candidate.tensors[name], base.tensors[name]
        digest.update(f"{name}\0{theirs.span.kind()}\0".encode())
        for start, stop in chunks(theirs.span.elements):
            values, before = theirs.values(start, stop), ours.values(start, stop)
            digest.update(values.view(np.uint8).data)
            for check in checks:
                check.observe(name, values, before)
            progress(values.nbytes)
    return digest.hexdigest()
