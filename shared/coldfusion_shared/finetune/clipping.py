"""A sum of gradients to which no example adds more than a bound, and its noise."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from coldfusion_shared.finetune.noise import SecretNoise

# What rounding may add to a clipped gradient's length, and more.
ROUNDING = 1.0 + 1e-4
# Numbers whose squares are added up in float32. Of ten million at once torch makes a norm on a CPU
# that is a hundredth too short: by so much more would an example count than is accounted for.
ROW = 4096


class ClippedSum:
    """The gradients of one step's examples, each clipped, added up."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], clip: float) -> None:
        """
        Begin with nothing; what an earlier step has left in the gradients is thrown away.

        Args:
            parameters: what learns.
            clip: the length that an example's gradient, over all parameters, has at most.
        """
        self.parameters, self.clip = list(parameters), clip
        self.sums = [torch.zeros_like(one) for one in self.parameters]
        self._empty()

    def take(self) -> None:
        """Add what one example has left in the parameters' gradients, and empty them."""
        found = [
            (total, one.grad)
            for total, one in zip(self.sums, self.parameters, strict=True)
            if one.grad is not None
        ]
        if found:
            norm = length([grad for _, grad in found])
            # What is no number has no length that could be bounded, and is left out.
            if math.isfinite(norm):
                factor = min(1.0, self.clip / (norm * ROUNDING)) if norm else 1.0
                for total, grad in found:
                    total.add_(grad, alpha=factor)
        self._empty()

    def release(self, noise: float, expected: float, source: SecretNoise) -> None:
        """
        Leave the noisy mean in the parameters' gradients.

        Args:
            noise: standard deviation, in multiples of the clip.
            expected: examples of a step on average: how many there were is nobody's business.
            source: of the noise.
        """
        for total, one in zip(self.sums, self.parameters, strict=True):
            if noise > 0:
                total.add_(source.like(total), alpha=noise * self.clip)
            one.grad = total.div_(expected)

    def _empty(self) -> None:
        for one in self.parameters:
            one.grad = None


def length(tensors: Iterable[torch.Tensor]) -> float:
    """Return the Euclidean norm of all numbers of `tensors` together, to 1e-5 of itself."""
    parts = [part for tensor in tensors for part in _parts(tensor.reshape(-1))]
    # Not every GPU knows float64.
    return float(torch.cat(parts).cpu().to(torch.float64).norm()) if parts else 0.0


def _parts(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the norms of a flat tensor's rows, and the numbers that fill none."""
    whole = flat.numel() - flat.numel() % ROW
    return torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1), flat[whole:]
