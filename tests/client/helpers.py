"""What the client's tests share: a tiny model's files, and a reporter that remembers."""

from __future__ import annotations

import numpy as np

from coldfusion_client.reporting import Silent
from coldfusion_shared.weights.header import build_header

SERVER = "http://repository.test"
NAMES = {"encoder.weight": (4, 4), "encoder.bias": (4,), "pooler.weight": (2, 2)}


class Notes(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.moved: list[float] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def advance(self, amount: float, note: str = "") -> None:
        self.moved.append(amount)


def weights(
    shift: float = 0.0, prefix: str = "", head: bool = False, **shapes: tuple[int, ...]
) -> bytes:
    """Return a tiny safetensors file."""
    rows = {
        f"{prefix}{name}": shapes.get(name.replace(".", "_"), shape)
        for name, shape in NAMES.items()
    }
    if head:
        rows["classifier.weight"] = (2, 4)
    values = [np.full(shape, 1.0 + shift, np.float32).tobytes() for shape in rows.values()]
    return build_header((n, "F32", s) for n, s in rows.items()) + b"".join(values)


def model_files(shift: float = 0.0) -> dict[str, bytes]:
    return {"config.json": b'{"model_type": "bert"}', "model.safetensors": weights(shift)}
