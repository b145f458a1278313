"""What a run is called: the same task has the same name in every version of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coldfusion_client.journal import task_key

if TYPE_CHECKING:
    from coldfusion_shared.finetune.settings import FinetuneSettings

# Names may also have been made of all of these settings, defaults among them.
_ONCE_ALL = frozenset(
    {
        "epochs", "lr", "batch_size", "gradient_accumulation", "gradient_checkpointing",
        "precision", "max_length", "group_by_length", "seed", "max_steps", "early_stopping",
        "lora", "lora_rank", "lora_alpha", "lora_targets", "rslora", "dora", "freeze",
    }
)  # fmt: skip


def task_names(
    server: str, model: str, data_digest: str, settings: FinetuneSettings
) -> tuple[str, ...]:
    """
    Return the names of a task: the one that a new run takes, then those of older runs.

    Only what is not a setting's default is in a name, so that a new setting changes none.
    """
    chosen = settings.model_dump(mode="json", exclude_defaults=True)
    names = (task_key(server, model, data_digest, chosen),)
    if not chosen.keys() <= _ONCE_ALL:
        return names
    everything = settings.model_dump(mode="json", include=set(_ONCE_ALL))
    return (*names, task_key(server, model, data_digest, everything))
