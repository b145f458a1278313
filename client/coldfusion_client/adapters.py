"""Adapters that peft has put into a model in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coldfusion_shared.errors import BadModel

# peft writes the adapter of this name into the folder itself, and every other below it.
_UNNAMED = "default"


def has_adapter(model: Any) -> bool:
    """Return whether peft has put an adapter into `model`."""
    return hasattr(model, "peft_config")


def check_sendable(model: Any) -> None:
    """
    Check, as far as its configuration tells, that the adapter in `model` can be contributed.

    Raises:
        BadModel: it is no LoRA that can be computed exactly, several are active, or nothing saves
            them.
    """
    from coldfusion_shared.weights.lora.config import parse_config

    _check_saved(model)
    active = _active(model)
    if len(active) != 1:
        raise BadModel(
            f"{len(active)} adapters are active in the model, and one is contributed at a time.",
            hint="Choose it: model.set_adapter(name), or merge them first.",
        )
    # As peft writes it, which turns sets into lists.
    entries = json.dumps(model.peft_config[active[0]].to_dict(), default=list)
    parse_config(entries.encode())


def save_adapters(model: Any, folder: Path) -> Path:
    """
    Write the adapters of `model` into `folder`; return the folder of the one that is active.

    Raises:
        BadModel: nothing saves them.
    """
    _check_saved(model)
    model.save_pretrained(folder)
    name = _active(model)[0]
    return folder if name == _UNNAMED or not _is_wrapped(model) else folder / name


def _active(model: Any) -> list[str]:
    active = model.active_adapters
    # A method of transformers' models, an attribute of peft's.
    return list(active() if callable(active) else active)


def _is_wrapped(model: Any) -> bool:
    from peft import PeftModel

    return isinstance(model, PeftModel)


def _check_saved(model: Any) -> None:
    """Refuse layers that were put into a model without its knowing: it would save them wrongly."""
    if not (_is_wrapped(model) or getattr(model, "_hf_peft_config_loaded", False)):
        raise BadModel(
            f"A {type(model).__name__} does not save the adapter that is in it.",
            hint="Use peft's get_peft_model(), or merge it: model = model.merge_and_unload()",
        )
