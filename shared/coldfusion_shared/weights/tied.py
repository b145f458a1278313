"""
Tied tensors: one parameter that a file holds under several names.

Libraries save a tied parameter once or several times as they like, so a base may hold both its
embeddings and the head that shares them, and a contribution only one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coldfusion_shared.errors import BadModel
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint, StoredTensor, chunks
from coldfusion_shared.weights.header import TensorSpan

SAMPLE_ELEMENTS = 1024


def tied_groups(tensors: Mapping[str, StoredTensor]) -> list[list[str]]:
    """
    Return the groups of names that hold the very same values, in the order of `tensors`.

    Only matrices of floats that are not zero at their beginning: vectors and fresh zeros agree by
    chance.
    """
    groups: dict[tuple[object, ...], list[list[str]]] = {}
    for name, tensor in tensors.items():
        sample = _sample(tensor)
        if not any(sample):
            continue
        alike = groups.setdefault((tensor.span.dtype, tensor.span.shape, sample), [])
        group = next((found for found in alike if same_values(tensors[found[0]], tensor)), None)
        if group is None:
            alike.append([name])
        else:
            group.append(name)
    return [group for alike in groups.values() for group in alike if len(group) > 1]


@dataclass(frozen=True)
class FusedTensors:
    """
    What of a base is fused.

    Attributes:
        spans: the tensors of the body, of tied ones the first.
        tied: every other tensor that is the same parameter, and the one in `spans`.
    """

    spans: Mapping[str, TensorSpan]
    tied: Mapping[str, str]


def fused_tensors(base: Checkpoint) -> FusedTensors:
    """
    Return which tensors of `base` are fused, and which follow them.

    Raises:
        BadModel: the base has nothing that could be fused.
    """
    shared = body(base.spans())
    if not any(span.elements for span in shared.values()):
        raise BadModel("The base has no floating-point tensors outside of heads.")
    tied = {}
    for group in tied_groups(base.tensors):
        first = next((name for name in group if name in shared), None)
        if first is not None:
            tied.update({name: first for name in group if name != first})
    return FusedTensors({name: span for name, span in shared.items() if name not in tied}, tied)


def _sample(tensor: StoredTensor) -> bytes:
    if not tensor.span.is_float or len(tensor.span.shape) < 2:
        return b""
    return tensor.values(0, min(SAMPLE_ELEMENTS, tensor.span.elements)).tobytes()


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether dtype, shape and every bit of the two are the same."""
    return one.span.kind() == other.span.kind() and all(
        one.values(start, stop).tobytes() == other.values(start, stop).tobytes()
        for start, stop in chunks(one.span.elements)
    )
