"""Fusing sparse updates: an election of signs, and the sum of the values that agree with it."""

from __future__ import annotations

import numpy as np

from coldfusion_shared.fusion.updates import Doubles, Floats, weighted_sum


def merged(stack: Floats, weights: Doubles, *, elect_sign: bool, normalize: bool) -> Doubles:
    """
    Return the sum of ``weights[c] * stack[c]``, of all values or of those with the elected sign.

    Args:
        stack: updates, (K, n); overwritten.
        weights: (K,).
        elect_sign: whether only those count that agree.
        normalize: divide by the sum of the weights that count.
    """
    if elect_sign:
        return agreeing(stack, weights, normalize=normalize)
    total = weighted_sum(stack, weights)
    if normalize:
        total /= weights.sum()
    return total


def agreeing(
    stack: Floats, weights: Doubles, *, normalize: bool, votes: Doubles | None = None
) -> Doubles:
    """
    Elect a sign for each coordinate and sum up ``weights[c] * stack[c]`` over those that have it.

    The sign is that of the weighted sum, plus where it is 0. Zeros belong to neither side.

    Args:
        stack: updates, (K, n).
        weights: (K,).
        normalize: divide by the weight of those that agree.
        votes: weights for the election, (K,); null: the same.

    Returns:
        Shape (n,), float64; 0 where nothing agrees.
    """
    elected = np.where(weighted_sum(stack, weights if votes is None else votes) >= 0, 1, -1)
    sign = elected.astype(np.float32)
    total, weight_sum = np.zeros(stack.shape[1]), np.zeros(stack.shape[1])
    for row, weight in zip(stack, weights, strict=True):
        # What agrees is positive now, and all else 0.
        agrees = np.maximum(row * sign, 0)
        total += np.multiply(agrees, weight, dtype=np.float64)
        weight_sum += np.multiply(agrees > 0, weight)
    total *= sign
    if normalize:
        np.divide(total, weight_sum, out=total, where=weight_sum > 0)
    return total
