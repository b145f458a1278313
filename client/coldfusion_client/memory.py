"""Models in memory, written down to be contributed or kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldfusion_client.adapters import check_sendable, has_adapter, save_adapters
from coldfusion_client.cache import Cache
from coldfusion_client.disk import writing
from coldfusion_shared.errors import BadModel


@contextmanager
def saved(model: Any, cache: Cache) -> Iterator[Path]:
    """
    Yield a folder with what is contributed of `model`; it is removed in the end.

    Raises:
        BadModel: it is no model of transformers or peft, or its adapter cannot be contributed.
        StorageFull: no room in the cache's folder.
    """
    model = unwrapped(model)
    if has_adapter(model):
        check_sendable(model)
    with cache.scratch() as scratch:
        yield save(model, scratch)


def save(model: Any, folder: Path) -> Path:
    """
    Write `model`, or the adapters that peft has put into it, into `folder`, without a bar.

    Returns the folder of what is contributed: `folder`, or one in it.

    Raises:
        BadModel: it is no model of transformers or peft, or nothing saves its adapters.
        StorageFull: no room.
    """
    model = unwrapped(model)
    if not hasattr(model, "save_pretrained") and not has_adapter(model):
        raise BadModel(
            f"A {type(model).__name__} is no transformers model.",
            hint="Give a model that has save_pretrained, or the folder of one.",
        )
    with writing(folder), _without_bars():
        if has_adapter(model):
            return save_adapters(model, folder)
        model.save_pretrained(folder)
        return folder


def unwrapped(model: Any) -> Any:
    """Return the model that others were put around."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if not hasattr(model, "save_pretrained"):
        model = getattr(model, "module", model)  # and DistributedDataParallel
    return model


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
