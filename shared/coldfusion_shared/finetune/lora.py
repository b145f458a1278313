"""
LoRA by peft: an adapter on a model's body, its head trained whole.

The layers are put into the model itself, so that it remains what the Trainer and the tasks know.
Imports torch and peft, so it is imported lazily itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, LoraModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune.frozen import closest, freeze, listed
from coldfusion_shared.finetune.settings import ALL_LINEAR, FinetuneSettings
from coldfusion_shared.weights.lora import ADAPTER_WEIGHTS
from coldfusion_shared.weights.lora.match import largest_rank
from coldfusion_shared.weights.lora.parts import WRAPPER

LINEAR = (nn.Linear, Conv1D)
ADAPTED = (*LINEAR, nn.Embedding)
NAME = "default"


class Adapter:
    """A LoRA adapter in a model."""

    def __init__(
        self,
        model: Any,
        settings: FinetuneSettings,
        body: Collection[str],
        frozen: Collection[str],
    ) -> None:
        """
        Put adapters into `model`, which changes it, and let nothing else of its body learn.

        Args:
            model: of transformers.
            settings: how.
            body: names of the tensors of its body.
            frozen: those of them that are not adapted either.

        Raises:
            InvalidRequest: the settings' targets are none, or cannot be adapted.
        """
        targets = _targets(model, settings, set(body) - set(frozen))
        freeze(model, body)
        learnt = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        self.config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(targets),
            use_rslora=settings.rslora,
            use_dora=settings.dora,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets.values()),
        )
        with warnings.catch_warnings():
            # Of matrices the other way round, for which it sets the flag itself.
            warnings.simplefilter("ignore")
            self._tuner = LoraModel(model, self.config, NAME)
        # peft freezes all but its own.
        for parameter in model.parameters():
            if id(parameter) in learnt:
                parameter.requires_grad_(True)
        self.model = model

    def save(self, folder: Path) -> None:
        """Write the adapter of the body, as peft would, into `folder`."""
        folder.mkdir()
        state = get_peft_model_state_dict(
            self.model, adapter_name=NAME, save_embedding_layers=False
        )
        save_file(
            {
                f"{WRAPPER}{name}": value.detach().cpu().contiguous()
                for name, value in state.items()
            },
            folder / ADAPTER_WEIGHTS,
            metadata={"format": "pt"},
        )
        self.config.inference_mode = True
        # A path of this machine is nobody else's business, and says nothing to them.
        self.config.base_model_name_or_path = None
        # A set by now, whose order is another in each process.
        self.config.target_modules = sorted(self.config.target_modules or ())
        self.config.save_pretrained(str(folder))

    def merged(self) -> Any:
        """Return the model with the adapter added to its weights, which ends the adapter."""
        return self._tuner.merge_and_unload()


def _targets(model: Any, settings: FinetuneSettings, free: Collection[str]) -> dict[str, nn.Module]:
    """Return the modules that are adapted, by name; those whose weights are in `free` can be."""
    modules = {name: module for name, module in model.named_modules() if f"{name}.weight" in free}
    if settings.targets == (ALL_LINEAR,):
        found: dict[str, nn.Module] = {
            name: module
            for name, module in modules.items()
            if isinstance(module, LINEAR) and _largest_rank(module) >= settings.rank
        }
        if not found:
            raise InvalidRequest(
                f"No linear layer of the model's body can have an adapter of rank {settings.rank}.",
                hint="Use a smaller rank, or freeze less.",
            )
        return found
    found = {}
    for target in settings.targets:
        found |= _named(target, modules)
    _check(model, found, settings.rank)
    return found


def _named(target: str, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    fitting = {name: module for name, module in modules.items() if isinstance(module, ADAPTED)}
    found = {
        name: module
        for name, module in modules.items()
        if name == target or name.endswith(f".{target}")
    }
    if not found:
        raise InvalidRequest(
            f"No module of the model's body that could learn is called {target!r}.",
            hint=f"There are {listed(closest(target, fitting))}.",
        )
    unfit = [name for name in found if name not in fitting]
    if unfit:
        raise InvalidRequest(
            f"{unfit[0]} is neither a linear layer nor an embedding, and takes no adapter.",
            hint=f"There are {listed(closest(target, fitting))}.",
        )
    return found


def _check(model: Any, targets: Mapping[str, nn.Module], rank: int) -> None:
    tied = _tied(model)
    for name, module in targets.items():
        if (largest := _largest_rank(module)) < rank:
            raise InvalidRequest(
                f"With rank {rank} the adapter of {name} would have more numbers than its weights.",
                hint=f"Use a rank of {largest} or less, or learn all weights, without --lora.",
            )
        if f"{name}.weight" in tied:
            raise InvalidRequest(
                f"{name} shares its weights with another module, and cannot be adapted alone.",
                hint=f"Leave it out of the targets, or use {ALL_LINEAR}.",
            )


def _largest_rank(module: nn.Module) -> int:
    weight: Any = module.weight
    return largest_rank(tuple(weight.shape))


def _tied(model: Any) -> set[str]:
    """Return the names of parameters that have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for group in names.values() if len(group) > 1 for name in group}
