"""
Tied tensors: one parameter that a file holds under several names.

Libraries save a tied parameter once or several times as they like, so a base may hold both its
embeddings and the head that shares them, and a contribution only one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from coldfusion_shared.errors import BadModel
from coldfusion_shared.weights.body import body
from coldfusion_shared.weights.checkpoint import Checkpoint, StoredTensor, chunks
from coldfusion_shared.weights.header import TensorSpan

SAMPLE_ELEMENTS = 1024

# Says of a contribution whether it has the same in two tensors.
Together = Callable[[str, str], bool]


def tied_groups(tensors: Mapping[str, StoredTensor]) -> list[list[str]]:
    """
    Return the groups of names that hold the very same values, in the order of `tensors`.

    Only matrices of floats that are not constant at their beginning: vectors and fresh tensors
    agree by chance.
    """
    groups: dict[tuple[object, ...], list[list[str]]] = {}
    for name, tensor in tensors.items():
        sample = _sample(tensor)
        if sample is None:
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
        body: `spans` and what is tied to them within the body. An optimizer's state has all of
            these, because what is tied in one round may come apart in the next.
    """

    spans: Mapping[str, TensorSpan]
    tied: Mapping[str, str]
    body: Mapping[str, TensorSpan]


def fused_tensors(
    base: Checkpoint, contributions: Iterable[Together], *, heads: bool = False
) -> FusedTensors:
    """
    Return which tensors of `base` are fused, and which follow them.

    Tensors that are equal in the base are one parameter only if no contribution has them apart: a
    model whose layers began as copies of each other has many that are equal by chance.

    Args:
        base: what is fused onto.
        contributions: what each of them says of two tensors.
        heads: whether heads are fused, too.

    Raises:
        BadModel: the base has nothing that could be fused.
    """
    shared = body(base.spans(), heads=heads)
    if not any(span.elements for span in shared.values()):
        raise BadModel("The base has no floating-point tensors outside of heads.")
    pairs = {}
    for group in tied_groups(base.tensors):
        first = next((name for name in group if name in shared), None)
        if first is not None:
            pairs.update({name: first for name in group if name != first})
    for together in contributions:
        pairs = {name: first for name, first in pairs.items() if together(name, first)}
    spans = {name: span for name, span in shared.items() if name not in pairs}
    return FusedTensors(spans, pairs, shared)


def together_in(tensors: Mapping[str, StoredTensor]) -> Together:
    """Return what a model with `tensors`, under the base's names, says: one saved once is tied."""

    def together(name: str, first: str) -> bool:
        if name not in tensors or first not in tensors:
            return True
        return same_values(tensors[name], tensors[first])

    return together


def _sample(tensor: StoredTensor) -> bytes | None:
    if not tensor.span.is_float or len(tensor.span.shape) < 2 or not tensor.span.elements:
        return None
    values = tensor.values(0, min(SAMPLE_ELEMENTS, tensor.span.elements))
    return None if (values == values[0]).all() else values.tobytes()


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether dtype, shape and every bit of the two are the same."""
    return one.span.kind() == other.span.kind() and all(
        one.values(start, stop).tobytes() == other.values(start, stop).tobytes()
        for start, stop in chunks(one.span.elements)
    )
