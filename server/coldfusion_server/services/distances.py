"""How far the weights of one base are from those of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np

from coldfusion_server.services import bases
from coldfusion_server.services.context import Context
from coldfusion_shared.schemas.files import FileEntry
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import chunks


def relative_distance(
    ctx: Context, new: Sequence[FileEntry], old: Sequence[FileEntry], alive: Callable[[], None]
) -> float | None:
    """
    Return the Euclidean distance of the bodies over the norm of the old one.

    Both are read chunk by chunk, never as a whole; the sums are in float64.

    Args:
        ctx: the service's surroundings.
        new: files of a base.
        old: files of a base with the same tensors.
        alive: called at every read.

    Returns:
        null where the old one is all zeros, and nothing can be told in its measure.
    """
    apart = size = 0.0
    with (
        bases.open_weights(ctx, new, alive) as ours,
        bases.open_weights(ctx, old, alive) as theirs,
    ):
        for name, span in body(theirs.spans()).items():
            for start, stop in chunks(span.elements):
                before = theirs.tensors[name].values(start, stop).astype(np.float64)
                moved = ours.tensors[name].values(start, stop) - before
                apart += float(moved @ moved)
                size += float(before @ before)
    return sqrt(apart / size) if size else None
