"""SCE: select the coordinates that vary the most, weigh by energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.consensus import agreeing
from coldfusion_shared.fusion.methods import (
    Block,
    Blocks,
    CoordinateMethod,
    Parameters,
    methods,
)
from coldfusion_shared.fusion.sparsify.rank import kth_largest
from coldfusion_shared.fusion.updates import Doubles, Floats


class SceParameters(Parameters):
    """Parameters of `sce`."""

    select_topk: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="share of each tensor's coordinates, those that vary the most between the "
        "updates, that is fused; the others stay as they are",
    )


@dataclass(frozen=True)
class Energies:
    """
    What SCE finds out about a tensor beforehand.

    Attributes:
        threshold: coordinates with a smaller deviation stay as they are; null: all of them do.
        weights: each update's share of the energy of what is selected, (K,).
    """

    threshold: np.float32 | None
    weights: Doubles


def prepare(parameters: SceParameters, blocks: Blocks) -> Energies:
    """Find the deviation that the selected coordinates reach, then the updates' energies."""
    threshold = _threshold(parameters.select_topk, blocks)
    energy: Doubles | float = 0.0
    for stack in blocks.read(0, blocks.elements):
        _drop(stack, threshold)
        energy = energy + np.square(stack, dtype=np.float64).sum(axis=1)
    shares = np.asarray(energy)
    total = float(shares.sum())
    equal = np.full(shares.size, 1 / max(1, shares.size))
    return Energies(threshold, shares / total if total > 0 else equal)


def sce(_: SceParameters, block: Block) -> Floats:
    """Return the mean, weighted by energy, of the selected values with the elected sign, (n,)."""
    found: Energies = block.prepared
    _drop(block.stack, found.threshold)
    ones = np.ones(len(block.stack))
    return agreeing(block.stack, found.weights, normalize=True, votes=ones)


def _threshold(topk: float, blocks: Blocks) -> np.float32 | None:
    """Return the standard deviation of the last coordinate that is selected; 0 selects all."""
    if topk >= 1:
        return np.float32(0)

    def stream(first: int, last: int) -> Iterator[Floats]:
        return (_spread(stack) for stack in blocks.read(first, last))

    varying = sum(int(np.count_nonzero(block)) for block in stream(0, blocks.elements))
    selected = int(varying * topk)
    if not selected:
        return None
    return kth_largest(stream, blocks.elements, [selected])[0]


def _spread(stack: Floats) -> Floats:
    """Return the standard deviation: in the order of the variance, and within float32's range."""
    spread: Floats = stack.std(axis=0, dtype=np.float64).astype(np.float32)
    return spread


def _drop(stack: Floats, threshold: np.float32 | None) -> None:
    if threshold is None:
        stack[:] = 0
    elif threshold > 0:
        stack[:, _spread(stack) < threshold] = 0


methods.register("sce")(
    CoordinateMethod(
        summary="coordinates that vary the most, weighted by energy, without minority signs",
        paper="https://arxiv.org/abs/2408.07990",
        parameters=SceParameters,
        prepare=prepare,
        combine=sce,
    )
)
