"""Fusing sparse updates: an election of signs, and the sum of the values that agree with it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from coldfusion_shared.fusion.methods import Block, Parameters
from coldfusion_shared.fusion.updates import Doubles, Floats


class MergeParameters(Parameters):
    """How what is left of sparse updates becomes one."""

    elect_sign: bool = Field(
        default=False, description="take only the values that agree with the elected sign, as TIES"
    )
    normalize: bool = Field(
        default=True, description="divide by the weights' sum; false: task arithmetic, the sum"
    )
    scale: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="factor of the fused update (lambda)"
    )


def merge(parameters: MergeParameters, block: Block) -> Floats:
    """Return the weighted mean, or sum, of what is left of the updates, times lambda, (n,)."""
    if parameters.elect_sign:
        fused = agreeing(block.stack, block.prior, normalize=parameters.normalize)
    else:
        total = _sum(block.stack, block.prior)
        if parameters.normalize:
            total /= block.prior.sum()
        fused = total.astype(np.float32)
    fused *= np.float32(parameters.scale)
    return fused


def agreeing(
    stack: Floats, weights: Doubles, *, normalize: bool, votes: Doubles | None = None
) -> Floats:
    """
    Elect a sign for each coordinate and sum up ``weights[c] * stack[c]`` over those that have it.

    The sign is that of the weighted sum, plus where it is 0. Zeros belong to neither side.

    Args:
        stack: updates, (K, n).
        weights: (K,).
        normalize: divide by the weight of those that agree.
        votes: weights for the election, (K,); null: the same.

    Returns:
        Shape (n,), float32; 0 where nothing agrees.
    """
    sign = (_sum(stack, weights if votes is None else votes) >= 0).astype(np.float32)
    sign *= 2
    sign -= 1
    total, weight_sum, zero = np.zeros_like(sign), np.zeros_like(sign), np.zeros_like(sign)
    agrees, mask = np.empty_like(sign), np.empty(sign.shape, bool)
    # In units of the largest, so that no weight is too small or too large for float32.
    unit = float(weights.max())
    for row, weight in zip(stack, (weights / unit).astype(np.float32), strict=True):
        # What agrees is positive now, and all else 0.
        np.multiply(row, sign, out=agrees)
        np.maximum(agrees, zero, out=agrees)
        np.greater(agrees, zero, out=mask)
        if weight != 1:
            agrees *= weight
        total += agrees
        np.multiply(mask, weight, out=agrees)
        weight_sum += agrees
    total *= sign
    if normalize:
        np.divide(total, weight_sum, out=total, where=weight_sum > 0)
    elif unit != 1:
        total *= unit
    return total


def _sum(stack: Floats, weights: Doubles) -> Doubles:
    """Return the weighted sum in float64, so that no order of the rows decides a sign."""
    total, term = np.zeros(stack.shape[1]), np.empty(stack.shape[1])
    for row, weight in zip(stack, weights, strict=True):
        if weight == 1:
            total += row
        else:
            np.multiply(row, weight, out=term, dtype=np.float64)
            total += term
    return total
