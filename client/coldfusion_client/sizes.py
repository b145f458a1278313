"""How large what is sent will be: told before anything is made, in float32 and without headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_client.bodies import frozen_in

if TYPE_CHECKING:
    from coldfusion_shared.finetune.settings import FinetuneSettings
    from coldfusion_shared.weights.header import TensorSpan

# Parts of the names of embeddings, which are matrices and no linear layers.
_EMBEDDINGS = ("embed", "wte", "wpe", "shared", "attention_bias")


def body_bytes(base: Path, frozen: Sequence[str] = ()) -> int:
    """
    Return how large the float32 body of a model is that was finetuned from a base's folder.

    Args:
        base: the base's folder.
        frozen: patterns of what stays at home, in the base's words.
    """
    return 4 * sum(span.elements for span in _learning(base, frozen).values())


def adapted_bytes(base: Path, settings: FinetuneSettings) -> int:
    """Return about how large the matrices are that an adapter would change."""
    return 4 * sum(span.elements for span in _adapted(base, settings))


def adapter_bytes(base: Path, settings: FinetuneSettings) -> int:
    """Return about how large a LoRA adapter would be."""
    matrices = _adapted(base, settings)
    magnitudes = sum(span.shape[0] for span in matrices) if settings.dora else 0
    return 4 * (settings.rank * sum(sum(span.shape) for span in matrices) + magnitudes)


def _learning(base: Path, frozen: Sequence[str]) -> dict[str, TensorSpan]:
    from coldfusion_shared.weights.body import body
    from coldfusion_shared.weights.checkpoint import Checkpoint
    from coldfusion_shared.weights.frozen import is_frozen

    with Checkpoint.from_folder(base) as checkpoint:
        shared = body(checkpoint.spans())
    return {name: span for name, span in shared.items() if not is_frozen(name, frozen)}


def _adapted(base: Path, settings: FinetuneSettings) -> list[TensorSpan]:
    """Return the matrices that are adapted, as far as their names tell."""
    learning = _learning(base, frozen_in(base, settings.freeze))
    return [
        span
        for name, span in learning.items()
        if len(span.shape) == 2 and _is_adapted(name, span, settings)
    ]


def _is_adapted(name: str, span: TensorSpan, settings: FinetuneSettings) -> bool:
    from coldfusion_shared.finetune.settings import ALL_LINEAR
    from coldfusion_shared.weights.lora.match import largest_rank

    if settings.targets == (ALL_LINEAR,):
        fits = largest_rank(span.shape) >= settings.rank
        return fits and not any(part in name for part in _EMBEDDINGS)
    module = "." + name.removesuffix(".weight")
    # A target may also be a whole name in the finetuned model, which may begin with one word more.
    return any(
        module.endswith(f".{target}") or f".{target}".endswith(module)
        for target in settings.targets
    )
