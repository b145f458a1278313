"""What the tensors of an adapter's file are, by their names: which module's, and in which role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from coldfusion_shared.errors import IncompatibleWeights
from coldfusion_shared.weights.checkpoint import StoredTensor
from coldfusion_shared.weights.header import short
from coldfusion_shared.weights.lora.config import MERGE_HINT

Role = Literal["A", "B", "embedding_A", "embedding_B", "magnitude", "whole", "start"]

# What peft puts in front of every name.
WRAPPER = "base_model.model."
# How the name of a wrapped module's own tensor goes on.
WRAPPED = "base_layer"
_ENDINGS: dict[str, Role] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding_A",
    ".lora_embedding_B": "embedding_B",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}


@dataclass
class Parts:
    """
    What an adapter has for one tensor of the model that it was trained on.

    Attributes:
        name: that tensor's, as that model calls it.
        tensors: by role: the factors, the magnitudes, the whole tensor, and for one that has
            factors besides, what they are added to.
    """

    name: str
    tensors: dict[Role, StoredTensor] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module's name."""
        return self.name.rpartition(".")[0]

    @property
    def whole(self) -> StoredTensor | None:
        """The tensor that takes the place of the base's."""
        return self.tensors.get("whole") or self.tensors.get("start")

    @property
    def has_factors(self) -> bool:
        """Whether there is something else than whole tensors."""
        return bool(self.tensors.keys() - {"whole", "start"})


def sorted_out(tensors: Mapping[str, StoredTensor]) -> dict[str, Parts]:
    """
    Return what the file's `tensors` are, by the names of the tensors that they change.

    Raises:
        IncompatibleWeights: one is of no kind that is known, or two are for the same.
    """
    found: dict[str, Parts] = {}
    for stored, tensor in tensors.items():
        name, role = _named(stored)
        parts = found.setdefault(name, Parts(name))
        if role in parts.tensors:
            raise IncompatibleWeights(
                f"The adapter has two tensors for {short(name)!r}.",
                hint="Save it again with peft's save_pretrained().",
                tensors=[parts.tensors[role].span.name, stored],
            )
        parts.tensors[role] = tensor
    return found


def _named(stored: str) -> tuple[str, Role]:
    name = stored.removeprefix(WRAPPER)
    for ending, role in _ENDINGS.items():
        if name.endswith(ending):
            return f"{name.removesuffix(ending)}.weight", role
    if any(part.startswith("lora_") for part in name.split(".")):
        raise IncompatibleWeights(
            "The adapter has a tensor of a kind that cannot be read as an update: "
            f"{short(stored)!r}.",
            hint=MERGE_HINT,
            tensors=[stored],
        )
    module, _, own = name.rpartition(".")
    if module.endswith(f".{WRAPPED}"):
        return f"{module.removesuffix(f'.{WRAPPED}')}.{own}", "start"
    return name, "whole"
