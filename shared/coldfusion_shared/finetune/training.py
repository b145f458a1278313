"""Training with transformers' Trainer. Imports torch, so it is imported lazily itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file
from transformers import PrinterCallback, set_seed

from coldfusion_shared.data.dataset import Split, TextDataset
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune import processes
from coldfusion_shared.finetune.arguments import arguments, unused_gpus
from coldfusion_shared.finetune.batches import share_out
from coldfusion_shared.finetune.callbacks import BestWeights, Clock, Epochs, ProgressCallback
from coldfusion_shared.finetune.checkpoints import Checkpoints, Mark
from coldfusion_shared.finetune.collate import Reproducible
from coldfusion_shared.finetune.failures import diverged, out_of_memory
from coldfusion_shared.finetune.frozen import body_of, freeze, frozen_by
from coldfusion_shared.finetune.order import EpochOrder, length_of
from coldfusion_shared.finetune.precision import choose_precision
from coldfusion_shared.finetune.privacy import Privacy, plan_privacy, require_private
from coldfusion_shared.finetune.private_trainer import (
    PrivateSeq2SeqTrainer,
    PrivateTrainer,
    TellsEpsilon,
)
from coldfusion_shared.finetune.rows import encode_rows
from coldfusion_shared.finetune.settings import FinetuneSettings
from coldfusion_shared.finetune.trainer import BEST, OurSeq2SeqTrainer, OurTrainer, free_memory
from coldfusion_shared.finetune.whole import require_whole
from coldfusion_shared.tasks import Task
from coldfusion_shared.tasks.pretrained import load_tokenizer, longest_input

if TYPE_CHECKING:
    from coldfusion_shared.finetune.lora import Adapter

Progress = Callable[[int, int, float], None]
# In the folder of the finetuned model.
ADAPTER_FOLDER = "adapter"
# A checkpoint to go on from.
Begun = tuple[Path, Mark]
# Large models are written in parts.
WEIGHTS = "model*.safetensors"
# Adam keeps two numbers for each weight.
NUMBERS_A_WEIGHT, BYTES_A_NUMBER = 3, 4


class Training:
    """A base with a fresh head, and the data that it learns from."""

    def __init__(
        self,
        base: Path,
        dataset: TextDataset,
        settings: FinetuneSettings,
        task: Task,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Load the base.

        Raises:
            BadModel: it cannot be loaded, or the task's model leaves out a part of it.
            InvalidRequest: the model or the machine cannot do what the settings ask for.
        """
        self.base, self.dataset, self.settings, self.task = base, dataset, settings, task
        self.say = say if processes.is_first() else lambda _: None
        self.precision = choose_precision(settings.precision)
        self.privacy: Privacy | None = None
        if settings.dp:
            self.privacy = plan_privacy(settings, len(dataset.train))
            if self.precision == "fp16":
                # It scales the losses, and with them what is clipped.
                self.precision = "fp32"
        self.batches = share_out(
            settings.batch_size, settings.gradient_accumulation, processes.count()
        )
        self.tokenizer = load_tokenizer(base)
        self.adapter: Adapter | None = None
        self.model = self._fresh_model()
        self.max_length = longest_input(self.tokenizer, self.model, settings.max_length)
        if self.max_length < settings.max_length:
            self.say(f"This model takes {self.max_length} tokens at most; what is longer is cut.")
        if settings.gradient_checkpointing and not self.model.supports_gradient_checkpointing:
            raise InvalidRequest(
                f"A {type(self.model).__name__} cannot compute with --gradient-checkpointing.",
                hint="Leave it out, and use a smaller --batch-size with --gradient-accumulation.",
            )

    def run(
        self,
        progress: Progress,
        checkpoints: Checkpoints | None = None,
        *callbacks: Any,
    ) -> int:
        """
        Train, and return the steps it took.

        Args:
            progress: called after each step.
            checkpoints: to go on from and to write; null: none.
            callbacks: of transformers, that watch it besides.

        Raises:
            TrainingFailed: it diverges.
        """
        if unused := unused_gpus(processes.count()):
            self.say(
                f"{unused} more GPUs are here and not used. To use them all, begin the command "
                f"with: torchrun --nproc-per-node {unused + 1} -m coldfusion_client"
            )
        while True:
            try:
                steps = self._train(progress, checkpoints, callbacks)
                break
            except (MemoryError, RuntimeError) as error:
                # Of several processes, only one may have noticed; the others wait for it.
                alone = self.batches.size == 1 or self.privacy is not None
                if not out_of_memory(error) or processes.count() > 1 or alone:
                    raise
            self._make_smaller()
        # The last step's loss was taken before its update.
        if not all(weight.isfinite().all() for weight in self.model.parameters()):
            raise diverged(steps, self.settings.learning_rate, self.precision)
        return steps

    def score(self, split: Split) -> Mapping[str, float]:
        """Return the metrics of the model on a split, in percent; the task's own among them."""
        with TemporaryDirectory() as scratch:
            trainer = self._trainer(scratch, split)
            metrics = trainer.evaluate()
        names = [name.removeprefix("eval_metric_") for name in metrics if "eval_metric_" in name]
        return {name: float(metrics[f"eval_metric_{name}"]) for name in names}

    def save(self, folder: Path) -> None:
        """
        Write the model with its head, its config and its tokenizer.

        An adapter is written beside it, without the head, and added to the model's weights.
        """
        if self.adapter:
            self.adapter.save(folder / ADAPTER_FOLDER)
            self.model, self.adapter = self.adapter.merged(), None
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _fresh_model(self) -> Any:
        # Before the head is drawn.
        set_seed(self.settings.seed)
        model = self.task.build_model(self.base, self.dataset)
        require_whole(model, self.base)
        if self.privacy:
            require_private(model)
        self.adapter = self._choose_weights(model)
        return model

    def _choose_weights(self, model: Any) -> Adapter | None:
        """Let learn what the settings say; return the adapter, if that is what learns."""
        settings = self.settings
        if not (settings.lora or settings.freeze):
            return None
        body = body_of(model, self.base)
        frozen = frozen_by(settings.freeze or (), body)
        if not settings.lora:
            freeze(model, frozen)
            return None
        from coldfusion_shared.finetune.lora import Adapter

        return Adapter(model, settings, set(body.values()), frozen)

    def _make_smaller(self) -> None:
        smaller = self.batches.smaller()
        assert smaller is not None
        self.batches = smaller
        self.model = self.adapter = None
        free_memory()
        self.say(
            f"The memory does not suffice: going on with {smaller.size} examples at a time. A step "
            f"still learns from {smaller.step}."
        )
        self.model = self._fresh_model()

    def _train(
        self, progress: Progress, checkpoints: Checkpoints | None, callbacks: tuple[Any, ...]
    ) -> int:
        best = BestWeights() if self.settings.early_stopping else None
        begun: Begun | None = None
        if checkpoints:
            newest = checkpoints.latest() if processes.is_first() else None
            begun = processes.from_first(newest)
        if begun and best:
            _restore(best, *begun)
        if begun and self.privacy:
            self.privacy.resume(begun[0])
        if begun and begun[1].finished:
            steps = begun[1].step
            for part in begun[0].glob(WEIGHTS):
                self._load(load_file(part))
        else:
            watching = [*callbacks, ProgressCallback(progress, self.precision)]
            steps = self._learn(checkpoints, begun, best, watching)
        if best and best.weights:
            self._load(best.weights)
        return steps

    def _learn(
        self,
        checkpoints: Checkpoints | None,
        begun: Begun | None,
        best: BestWeights | None,
        callbacks: list[Any],
    ) -> int:
        if best:
            callbacks.append(best)
        if checkpoints:
            callbacks.append(Clock(checkpoints, self._checkpoint_bytes()))
        if self.privacy:
            self.say(self.privacy.planned())
            callbacks.append(TellsEpsilon(self.privacy, self.say))
        if begun:
            self.say(f"Going on after step {begun[1].step}.")
        with nullcontext(checkpoints.folder) if checkpoints else TemporaryDirectory() as folder:
            trainer = self._trainer(str(folder), self.dataset.validation, learns=True)
            trainer.best, trainer.checkpoints = best, checkpoints
            for callback in callbacks:
                trainer.add_callback(callback)
            trainer.train(resume_from_checkpoint=str(begun[0]) if begun else None)
        return int(trainer.state.global_step)

    def _load(self, weights: Mapping[str, Any]) -> None:
        # Not strictly: tied weights are written once.
        self.model.load_state_dict(weights, strict=False)

    def _checkpoint_bytes(self) -> int:
        weights = sum(
            int(weight.numel()) for weight in self.model.parameters() if weight.requires_grad
        )
        best = 1 if self.settings.early_stopping else 0
        return (NUMBERS_A_WEIGHT + best) * BYTES_A_NUMBER * weights

    def _trainer(self, folder: str, scored: Split, *, learns: bool = False) -> Any:
        scoring = self.task.scoring(self.tokenizer, scored, self.max_length)
        collator = Reproducible(self.task.collator(self.tokenizer, self.model), self.settings.seed)
        generates = self.task.generates
        kind: Any = OurSeq2SeqTrainer if generates else OurTrainer
        learnt: Any = None
        order = None
        if learns and self.privacy:
            kind = PrivateSeq2SeqTrainer if generates else PrivateTrainer
            learnt = encode_rows(self.task, self.tokenizer, self.dataset.train, self.max_length)
        elif learns:
            learnt = self.task.encode(self.tokenizer, self.dataset.train, self.max_length)
            order = EpochOrder(
                [length_of(example) for example in learnt],
                self.batches.step,
                self.settings.seed,
                grouped=self.settings.group_by_length,
            )
        trainer = kind(
            model=self.model,
            args=arguments(
                self.settings, self.batches, self.precision, folder, generates=generates
            ),
            train_dataset=learnt,
            eval_dataset=scoring.examples,
            data_collator=collator,
            compute_metrics=lambda outcome: self._metrics(
                scoring.score(outcome.predictions, outcome.label_ids)
            ),
            # All the outputs of a language model would hardly fit into memory.
            preprocess_logits_for_metrics=getattr(self.task, "reduce", None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.order, trainer.say = order, self.say
        if learns and self.privacy:
            trainer.privacy = self.privacy
        if learns:
            trainer.add_callback(Epochs(*([order] if order else []), collator))
        return trainer

    def _metrics(self, scores: Mapping[str, float]) -> dict[str, float]:
        # A model whose outputs are no numbers is no better than any other.
        score = scores[self.task.metric]
        named = {f"metric_{name}": value for name, value in scores.items()}
        return {**named, "score": score if math.isfinite(score) else -math.inf}


def _restore(best: BestWeights, path: Path, mark: Mark) -> None:
    best.idle_epochs = mark.idle_epochs
    best.score = -math.inf if mark.score is None else mark.score
    if (path / BEST).exists():
        best.weights = load_file(path / BEST)
