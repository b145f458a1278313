"""What one pass over a contribution has measured, in numbers that outlive its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldfusion_shared.screening.sketch import Sketch

# Root mean square of a base's tensor below which its update is measured against this: biases begin
# at 0, and any update is long beside nothing.
RMS_FLOOR = 0.01


@dataclass(frozen=True)
class Measures:
    """
    The numbers of an update, over all tensors of the body.

    Attributes:
        norm: Euclidean norm of the update.
        base_norm: of the base's body.
        cosine_to_base: between the finetuned weights and the base's; near 0: unrelated.
        changed_share: share of the body's values that changed, 0 to 1.
        largest: the largest magnitude in the update.
        tensor_norms: norm of the update of each tensor that changed, relative to the base's tensor.
        digest: keyed digest of the canonical update, 64 hexadecimal digits.
        sketch: tells how it lies to others.
    """

    norm: float
    base_norm: float
    cosine_to_base: float
    changed_share: float
    largest: float
    tensor_norms: Mapping[str, float]
    digest: str
    sketch: Sketch

    @property
    def relative_norm(self) -> float:
        """Norm of the update relative to the base's; 0 for a base that is zero."""
        return self.norm / self.base_norm if self.base_norm else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all but the sketch, as JSON values."""
        numbers = {name: value for name, value in vars(self).items() if name != "sketch"}
        return {**numbers, "tensor_norms": dict(self.tensor_norms)}

    @classmethod
    def from_json(cls, numbers: Mapping[str, Any], sketch: Sketch) -> Measures:
        """Return the measures that `to_json` wrote, with their sketch."""
        return cls(**numbers, sketch=sketch)


def relative_to_tensor(norm: float, base_norm: float, elements: int) -> float:
    """Return a tensor's update's norm relative to the base's tensor of so many `elements`."""
    return norm / max(base_norm, RMS_FLOOR * sqrt(elements)) if elements else 0.0


def profile(norms: Mapping[str, float]) -> dict[str, float]:
    """Return the logarithm of each tensor's norm beside the median tensor's of the update."""
    logs = {name: log(norm) for name, norm in norms.items() if norm > 0}
    middle = median(logs.values()) if logs else 0.0
    return {name: one - middle for name, one in logs.items()}
