"""
Tied tensors: one parameter that a file holds under several names.

Libraries save a tied parameter once or several times as they like, so a base may hold both its
embeddings and the head that shares them, and a contribution only one of the two.
"""

from __future__ import annotations

from collections.abc import Mapping

from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import StoredTensor, chunks

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
        group = next((found for found in alike if _same(tensors[found[0]], tensor)), None)
        if group is None:
            alike.append([name])
        else:
            group.append(name)
    return [group for alike in groups.values() for group in alike if len(group) > 1]


def tied_to_body(base: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Map each tensor of `base` outside its body to the one of the body that it is tied to."""
    shared = body({name: tensor.span for name, tensor in base.items()})
    found = {}
    for group in tied_groups(base):
        ours = [name for name in group if name in shared]
        found.update({name: ours[0] for name in group if ours and name not in shared})
    return found


def _sample(tensor: StoredTensor) -> bytes:
    if not tensor.span.is_float or len(tensor.span.shape) < 2:
        return b""
    return tensor.values(0, min(SAMPLE_ELEMENTS, tensor.span.elements)).tobytes()


def _same(one: StoredTensor, other: StoredTensor) -> bool:
    return all(
        one.values(start, stop).tobytes() == other.values(start, stop).tobytes()
        for start, stop in chunks(one.span.elements)
    )
