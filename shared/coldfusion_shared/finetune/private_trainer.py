"""
DP-SGD in transformers' Trainer.

An example's gradient is computed for it alone, one after the other. Opacus' own way computes those
of a batch at once, by hooks that take the first dimension of every layer's input for the examples:
position embeddings and the biases of T5 have another one there. Alone it holds for every model,
for shared weights and for adapters, and takes no more memory than one example.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from coldfusion_shared.finetune.clipping import ClippedSum
from coldfusion_shared.finetune.noise import SecretNoise, draw_apart
from coldfusion_shared.finetune.poisson import PoissonSteps
from coldfusion_shared.finetune.privacy import Privacy, in_words
from coldfusion_shared.finetune.rows import Pieces
from coldfusion_shared.finetune.trainer import OurSeq2SeqTrainer, OurTrainer, scored_labels


class _Private:
    """What is of DP-SGD, for both of our trainers."""

    privacy: Privacy

    def __init__(self, *args: Any, **options: Any) -> None:
        """Build it as the Trainer is built; `privacy` is set afterwards."""
        super().__init__(*args, **options)
        self.noise = SecretNoise()

    def get_train_dataloader(self) -> Any:
        """Return what draws each step's examples."""
        rows: Any = self.train_dataset  # type: ignore[attr-defined]
        drawn = PoissonSteps(len(rows), self.privacy.sample_rate, self.privacy.epoch)
        return DataLoader(rows, batch_sampler=drawn, collate_fn=list)

    def get_batch_samples(self, batches: Iterator[Any], count: int, _: Any) -> Any:
        """Fetch a step's examples, which are one batch."""
        return list(islice(batches, count)), None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Leave the noisy mean of the clipped gradients; return the examples' mean loss."""
        rows: list[Pieces] = inputs
        model.train()
        learning = (one for one in model.parameters() if one.requires_grad)
        clipped = ClippedSum(learning, self.privacy.clip)
        loss = torch.zeros((), device=self.args.device)  # type: ignore[attr-defined]
        for pieces in rows:
            draw_apart()
            loss += self._learn(model, pieces) / len(rows)
            clipped.take()
        self.privacy.count()
        clipped.release(self.privacy.noise, self.privacy.batch, self.noise)
        return loss

    def _learn(self, model: Any, pieces: Pieces) -> Any:
        """Leave the gradient of one example, and return its loss."""
        trainer: Any = self
        total = torch.zeros((), device=trainer.args.device)
        shifted = getattr(self, "_loss_shifts_labels", False)
        for piece in pieces:
            batch = trainer._prepare_inputs(trainer.data_collator([piece]))
            trainer.weights = [float(scored_labels(batch, shifted) > 0) / len(pieces)]
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, batch)
            trainer.accelerator.backward(loss)
            total += loss.detach()
        return total

    def floating_point_ops(self, *_: Any) -> int:
        """Count none: nobody asks, and a step is no dictionary."""
        return 0

    def _save_more(self, path: Path) -> None:
        self.privacy.save(path)


class PrivateTrainer(_Private, OurTrainer):
    """For tasks that are scored on the model's outputs."""


class PrivateSeq2SeqTrainer(_Private, OurSeq2SeqTrainer):
    """For tasks that are scored on what the model writes."""


class TellsEpsilon(TrainerCallback):
    """Says after each epoch what has been spent."""

    def __init__(self, privacy: Privacy, say: Any) -> None:
        """Tell `say` of `privacy`."""
        self.privacy, self.say = privacy, say

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say it."""
        spent = self.privacy.spent
        self.say(
            f"Epsilon {in_words(spent.epsilon)} after {spent.steps} of {state.max_steps} steps."
        )
