"""Models in memory, written down to be contributed or kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldfusion_client.cache import Cache
from coldfusion_client.disk import writing
from coldfusion_shared.errors import BadModel


@contextmanager
def saved(model: Any, cache: Cache) -> Iterator[Path]:
    """
    Yield a folder with the transformers model `model`; it is removed in the end.

    Raises:
        BadModel: it is not one, or not whole.
        StorageFull: no room in the cache's folder.
    """
    with cache.scratch() as scratch:
        save(model, scratch)
        yield scratch


def save(model: Any, folder: Path) -> None:
    """
    Write the transformers model `model` into `folder`, without a bar.

    Raises:
        BadModel: it is not one, or not whole.
        StorageFull: no room.
    """
    if hasattr(model, "peft_config"):
        raise BadModel(
            "The model holds adapters, and only whole weights can be contributed.",
            hint="Merge them first: model = model.merge_and_unload()",
        )
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not hasattr(model, "save_pretrained"):
        model = getattr(model, "module", model)  # and DistributedDataParallel
    if not hasattr(model, "save_pretrained"):
        raise BadModel(
            f"A {type(model).__name__} is no transformers model.",
            hint="Give a model that has save_pretrained, or the folder of one.",
        )
    with writing(folder), _without_bars():
        model.save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    log: Any = logging  # its functions have no types
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()
