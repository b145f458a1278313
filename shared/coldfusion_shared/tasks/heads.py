"""Which class of transformers makes a task's model of a base, and whether there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldfusion_shared.errors import BadModel
from coldfusion_shared.tasks.architectures import (
    Architecture,
    architecture_of,
    require_architecture,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coldfusion_shared.tasks import Task


def head_of(base: Path, task: str, heads: Mapping[Architecture, str]) -> str:
    """Return the one of `heads` that is for the model in `base`; refuses one that none is for."""
    require_architecture(base, task, tuple(heads))
    return heads[architecture_of(base / "config.json")]


def require_head(task: Task, config: Path) -> None:
    """
    Refuse a base that transformers has no model of such a task for, by its `config` file alone.

    So that it is known before weights are downloaded. A task that does not say its `heads` is
    taken at its word.

    Raises:
        BadModel: transformers does not know such models, or has no such head for them.
    """
    from transformers import CONFIG_MAPPING

    from coldfusion_shared.tasks import in_order

    architecture = architecture_of(config)
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise BadModel(
            f"The installed transformers knows no models of the type {kind!r:.60}.",
            hint="Update it with: pip install -U transformers. If that does not help, take "
            "another base.",
        )
    if _has_head(task, architecture, CONFIG_MAPPING[kind]):
        return
    others = [one.name for one in in_order() if _has_head(one, architecture, CONFIG_MAPPING[kind])]
    raise BadModel(
        f"transformers has no head for {task.name} on models of the type {kind}.",
        hint="Take another base, or, if the data suit it, another task with --task: "
        f"{', '.join(others)}."
        if others
        else "Take another base.",
    )


def _has_head(task: Task, architecture: Architecture, config: Any) -> bool:
    import transformers

    heads: Mapping[Architecture, str] | None = getattr(task, "heads", None)
    if heads is None:
        return architecture in task.architectures
    if architecture not in heads:
        return False
    known = getattr(transformers, heads[architecture])._model_mapping
    # Not `in`, which does not find the types of models that share their config with another one.
    return known.get(config, None) is not None
