"""What nobody can draw again: noise, and what a model draws of its own, such as dropout."""

from __future__ import annotations

import math
import os

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# Numbers drawn at once: what a processor's cache holds.
PART = 1 << 16
# Of 64 random bits, what a float64 between 0 and 1 can tell apart.
KEPT_BITS = 53


class SecretNoise:
    """
    Independent standard normal numbers, from AES in counter mode under a key of this object alone.

    Not from torch's generators: their seed on a CPU has 32 bits, which can be tried, and a
    checkpoint holds their state.
    """

    def __init__(self) -> None:
        """Take a fresh key of the system's."""
        cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(os.urandom(16)))
        self._stream = cipher.encryptor()

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return noise of the shape, dtype and device of `tensor`."""
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
        for start in range(0, len(flat), PART):
            part = flat[start : start + PART]
            part.copy_(self._normal(len(part)))
        return flat.view(tensor.shape).to(tensor.device)

    def _normal(self, count: int) -> torch.Tensor:
        """Return `count` numbers in float64, by Box and Muller's transform."""
        pairs = -(-count // 2)
        uniform = self._uniform(2 * pairs)
        radius = uniform[:pairs].log().mul_(-2.0).sqrt_()
        angle = uniform[pairs:].mul(2.0 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]

    def _uniform(self, count: int) -> torch.Tensor:
        """Return `count` float64 between 0 and 1, neither of them among them."""
        drawn = torch.frombuffer(
            bytearray(self._stream.update(bytes(8 * count))), dtype=torch.int64
        )
        kept = drawn & ((1 << KEPT_BITS) - 1)
        # Of the largest of them float64 makes 1, whose logarithm is 0: no harm.
        return (kept.to(torch.float64) + 0.5) * 2.0**-KEPT_BITS


def draw_apart() -> None:
    """
    Let what torch draws next depend on nothing that was drawn before.

    Otherwise an example that takes part would shift the random numbers of all that come after it,
    and change their gradients, which no clipping bounds. The seed in the settings decides nothing
    any more: everybody knows it.
    """
    torch.manual_seed(int.from_bytes(os.urandom(8), "little"))
