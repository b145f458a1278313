"""transformers' Trainer with our order of the examples and our checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import Seq2SeqTrainer, Trainer

from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.callbacks import BestWeights
from coldfusion_shared.finetune.checkpoints import PREFIX, Checkpoints, Mark
from coldfusion_shared.finetune.failures import out_of_memory
from coldfusion_shared.finetune.frozen import learning
from coldfusion_shared.finetune.order import EpochOrder
from coldfusion_shared.tasks.tokens import IGNORED

BEST = "best.safetensors"
# Where the Trainer looks for the weights of a checkpoint.
WEIGHTS_NAME = "model.safetensors"


class _Ours:
    """What is ours, for both of transformers' trainers."""

    order: EpochOrder | None = None
    checkpoints: Checkpoints | None = None
    best: BestWeights | None = None
    say: Callable[[str], None] = staticmethod(lambda _: None)

    def __init__(self, *args: Any, **options: Any) -> None:
        """Build it as the Trainer is built."""
        super().__init__(*args, **options)
        # Many models take the number of a step's examples and make nothing of it: their losses
        # would be added up to a multiple of the step's. `compute_loss` weighs them itself.
        self.model_accepts_loss_kwargs = False
        self.weights: list[float] = []

    def _get_train_sampler(self, *_: Any) -> Any:
        return self.order

    def get_batch_samples(self, *args: Any) -> Any:
        """Fetch a step's batches, and note what each of them counts in the step."""
        trainer: Any = super()
        fetched, items = trainer.get_batch_samples(*args)
        # A language model's first token is nobody's to predict.
        shifted = getattr(self, "_loss_shifts_labels", False)
        counts = [scored_labels(batch, shifted) for batch in fetched]
        self.weights = [len(counts) * count / max(1, sum(counts)) for count in counts]
        return fetched, items

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        """Return a batch's mean loss, so weighed that the batches' mean is that of the step."""
        trainer: Any = super()
        if not model.training:
            return trainer.compute_loss(model, inputs, *args, **options)
        weight = self.weights.pop(0)
        if weight == 0:
            # Nothing in it is to be predicted, such as where no token was masked: the mean of
            # nothing would be no number.
            _, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
            return outputs["logits"].sum() * 0.0
        return weight * trainer.compute_loss(model, inputs, *args, **options)

    def evaluate(self, *args: Any, **options: Any) -> Any:
        """Score as the Trainer does, in smaller batches where the memory does not suffice."""
        trainer: Any = super()
        while True:
            try:
                return trainer.evaluate(*args, **options)
            except (MemoryError, RuntimeError) as error:
                settings = self.args  # type: ignore[attr-defined]
                alone = processes.count() == 1
                if not out_of_memory(error) or not alone or settings.per_device_eval_batch_size < 2:
                    raise
                settings.per_device_eval_batch_size //= 2
            free_memory()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the weights of a checkpoint, where some stay as they are only the others."""
        trainer: Any = super()
        model: Any = self.model  # type: ignore[attr-defined]
        if all(weight.requires_grad for weight in model.parameters()):
            trainer._save(output_dir, state_dict)
        elif processes.is_first():
            assert output_dir is not None, "a checkpoint has its folder"
            folder = Path(output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            weights = {
                name: value.detach().cpu().clone() for name, value in learning(model).items()
            }
            save_file(weights, folder / WEIGHTS_NAME)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; a training does not end because its checkpoint cannot be written."""
        assert self.checkpoints is not None
        trainer: Any = super()
        state = self.state  # type: ignore[attr-defined]
        path = self.checkpoints.folder / f"{PREFIX}{state.global_step}"
        if processes.is_first():
            self.checkpoints.begin()
        processes.meet()
        failure = None
        try:
            trainer._save_checkpoint(model, trial)
            if processes.is_first() and self.best and self.best.weights:
                save_file(self.best.weights, path / BEST)
            self._save_more(path)
        except (OSError, RuntimeError, SafetensorError) as error:
            failure = error
        processes.meet()
        if processes.is_first():
            self._settle(path, failure)

    def _save_more(self, path: Path) -> None:
        """Write what else a checkpoint needs to go on."""

    def _settle(self, path: Path, failure: Exception | None) -> None:
        assert self.checkpoints is not None
        if failure is None:
            try:
                self.checkpoints.complete(path, self._mark(self.checkpoints.training))
                return
            except OSError as error:
                failure = error
        self.checkpoints.give_up(path)
        if not self.checkpoints.failed:
            reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
            self.say(f"A checkpoint could not be written ({reason}). The training goes on.")
        self.checkpoints.failed = True

    def _mark(self, training: str) -> Mark:
        state, control = self.state, self.control  # type: ignore[attr-defined]
        finished = control.should_training_stop or state.global_step >= state.max_steps
        if self.best is None:
            return Mark(training, state.global_step, finished)
        score = self.best.score if math.isfinite(self.best.score) else None
        return Mark(training, state.global_step, finished, score, self.best.idle_epochs)


class OurTrainer(_Ours, Trainer):
    """For tasks that are scored on the model's outputs."""


class OurSeq2SeqTrainer(_Ours, Seq2SeqTrainer):
    """For tasks that are scored on what the model writes."""


def scored_labels(batch: Any, shifted: bool) -> int:
    """Return how many labels of a batch have a part in its loss."""
    labels = batch.get("labels")
    if labels is None:
        return len(next(iter(batch.values())))
    return int((labels[..., 1:] if shifted else labels).ne(IGNORED).sum())


def free_memory() -> None:
    """Give back what no tensor uses any more."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
