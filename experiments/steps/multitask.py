"""
Multitask learning: one body and a head for each data set, trained in turn. A baseline.

Optimizer, schedule, clipping and order are those of a finetuning, so that nothing but the method
differs from what contributors do.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.finetune.threads import fitting_threads
from experiments.cache import MODEL
from experiments.digests import digest_of
from experiments.lab import Lab, Model


@dataclass(frozen=True)
class Share:
    """A data set's part in it: its examples, and how many steps are of it."""

    part: TextDataset
    steps: int


def multitask(lab: Lab, base: Model, shares: Sequence[Share], lr: float, seed: int) -> Model:
    """
    Return `base` after learning all of `shares` together; it carries the first one's head.

    Args:
        lab: whose settings hold.
        base: what to begin with.
        shares: data sets, each with its steps.
        lr: learning rate.
        seed: of heads and order.

    Raises:
        TrainingFailed: it diverges.
    """
    learning = lab.settings.learning
    steps = [share.steps for share in shares]
    inputs = {
        "base": base.digest,
        "shares": [[share.part.digest, count] for share, count in zip(shares, steps, strict=True)],
        "lr": lr,
        "seed": seed,
        "batch_size": learning.batch_size,
        "max_length": learning.max_length,
        "machine": lab.machine,
        # It is no part of the engine, whose code the cache knows.
        "code": digest_of(Path(__file__).parent, [Path(__file__)]),
    }

    def build(folder: Path) -> dict[str, Any]:
        with fitting_threads():
            joint = _Joint(base.folder(), [share.part for share in shares], inputs)
            joint.learn(steps, lr, seed)
            validation = joint.validation()
            joint.save(folder / MODEL)
        return {"validation": validation, "steps": sum(steps), "dataset": "all of them"}

    what = f"{len(shares)} data sets, {sum(steps)} steps, lr {lr:g}, seed {seed}"
    return lab.make_model("multitask", what, inputs, sum(steps) * learning.batch_size, build)


class _Joint:
    """Models with one body among them."""

    def __init__(self, base: Path, parts: Sequence[TextDataset], inputs: Mapping[str, Any]) -> None:
        from transformers import set_seed

        from coldfusion_shared.finetune.precision import choose_precision, device_kind
        from coldfusion_shared.tasks import task_named
        from coldfusion_shared.tasks.pretrained import load_tokenizer, longest_input

        # Before the heads are drawn.
        set_seed(inputs["seed"])
        self.parts, self.inputs = parts, inputs
        self.device, self.precision = device_kind(), choose_precision("auto")
        self.tokenizer = load_tokenizer(base)
        self.tasks = [task_named(part.task) for part in parts]
        self.models = [
            task.build_model(base, part) for task, part in zip(self.tasks, parts, strict=True)
        ]
        prefix = self.models[0].base_model_prefix
        for model in self.models:
            setattr(model, prefix, getattr(self.models[0], prefix))
            model.to(self.device)
        self.length = longest_input(self.tokenizer, self.models[0], inputs["max_length"])

    def learn(self, steps: Sequence[int], lr: float, seed: int) -> None:
        """Take `steps` steps of each data set, in random order."""
        import torch
        import transformers

        from coldfusion_shared.finetune.arguments import LONGEST_GRADIENT, WARMUP

        weights = list(dict.fromkeys(p for model in self.models for p in model.parameters()))
        # Fused, as the Trainer's is: on a CPU nine times as quick.
        optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True)
        total = sum(steps)
        scheduler: Any = transformers.get_linear_schedule_with_warmup  # it has no types
        schedule = scheduler(optimizer, round(WARMUP * total), total)
        batches = [self._batches(index, seed) for index in range(len(self.parts))]
        turns = [index for index, count in enumerate(steps) for _ in range(count)]
        random.Random(f"turns/{seed}").shuffle(turns)
        for model in self.models:
            model.train()
        for done, index in enumerate(turns, 1):
            loss = self._outputs(index, next(batches[index])).loss
            if not loss.isfinite():
                raise TrainingFailed(
                    f"Multitask diverged in step {done} of {total} with a learning rate of {lr:g}."
                )
            loss.backward()
            # Heads of other data sets have no gradient, and stay as they are.
            torch.nn.utils.clip_grad_norm_(weights, LONGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        # The last step's loss was taken before its update.
        if not all(weight.isfinite().all() for weight in weights):
            raise TrainingFailed(f"Multitask diverged with a learning rate of {lr:g}.")

    def validation(self) -> float:
        """Return the mean over the data sets of the heads' scores on validation parts."""
        import torch

        scores = []
        for index, (task, part) in enumerate(zip(self.tasks, self.parts, strict=True)):
            self.models[index].eval()
            scoring = task.scoring(self.tokenizer, part.validation, self.length)
            collate = task.collator(self.tokenizer, self.models[index])
            examples, size = list(scoring.examples), self.inputs["batch_size"]
            logits, labels = [], []
            for start in range(0, len(examples), size):
                batch = collate(examples[start : start + size])
                with torch.inference_mode():
                    logits.append(self._outputs(index, batch).logits.float().cpu())
                labels.append(batch["labels"].cpu())
            found = scoring.score(torch.cat(logits).numpy(), torch.cat(labels).numpy())
            scores.append(float(found[task.metric]))
        return sum(scores) / len(scores)

    def save(self, folder: Path) -> None:
        """Write the body with the first data set's head, and the tokenizer."""
        self.models[0].save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _outputs(self, index: int, batch: Any) -> Any:
        import torch

        # Gradients of fp16 would have to be scaled; bf16 has the range of float32.
        halved = self.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=halved):
            return self.models[index](**{name: v.to(self.device) for name, v in batch.items()})

    def _batches(self, index: int, seed: int) -> Iterator[Any]:
        from coldfusion_shared.finetune.order import EpochOrder, length_of

        task, size = self.tasks[index], self.inputs["batch_size"]
        examples = task.encode(self.tokenizer, self.parts[index].train, self.length)
        collate = task.collator(self.tokenizer, self.models[index])
        order = EpochOrder([length_of(one) for one in examples], size, seed, grouped=True)
        for epoch in itertools.count():
            order.set_epoch(epoch)
            places = list(order)
            for start in range(0, len(places), size):
                yield collate([examples[place] for place in places[start : start + size]])
