"""What a contribution would be: everything read, checked and measured, nothing sent or kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coldfusion_client.bases import LATEST, base_file, base_folder, find_base
from coldfusion_client.bodies import frozen_in
from coldfusion_client.contribute import Order, check_encoding
from coldfusion_client.folder_names import require_utf8
from coldfusion_client.forms import FULL, LORA, SHARES, choose_encodings
from coldfusion_client.permission import check_permission
from coldfusion_client.sizes import adapted_bytes, adapter_bytes, body_bytes
from coldfusion_client.source import Source
from coldfusion_client.speeds import upload_speed
from coldfusion_client.training import Say, Trainer
from coldfusion_shared.errors import InvalidRequest
from coldfusion_shared.finetune import processes
from coldfusion_shared.schemas.bases import Base

if TYPE_CHECKING:
    from coldfusion_shared.data.dataset import TextDataset
    from coldfusion_shared.data.report import Finding
    from coldfusion_shared.finetune.estimate import Estimate
    from coldfusion_shared.finetune.settings import FinetuneSettings


class Planner(Trainer, Protocol):
    """A trainer that can tell what a training would take."""

    def estimate(
        self, base: Path, dataset: TextDataset, settings: FinetuneSettings, say: Say
    ) -> Estimate:
        """Return what finetuning would take, measured on a few real steps."""


@dataclass(frozen=True)
class Plan:
    """
    What would happen.

    Attributes:
        base: that would be finetuned.
        dataset: as it was read.
        settings: how it would be finetuned.
        findings: what a person should know of the data.
        estimate: what the training would take.
        upload: bytes that would be sent.
    """

    base: Base
    dataset: TextDataset
    settings: FinetuneSettings
    findings: list[Finding]
    estimate: Estimate
    upload: int

    @property
    def splits(self) -> dict[str, int]:
        """Examples of each split."""
        return {name: len(split) for name, split in self.dataset.splits.items()}

    def as_json(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "dry_run": True,
            "model": self.base.model,
            "base": self.base.version,
            "dataset": self.dataset.name,
            "task": self.dataset.task,
            "columns": list(self.dataset.train.columns),
            "labels": len(self.dataset.labels) or None,
            "splits": self.splits,
            "findings": [asdict(finding) for finding in self.findings],
            **asdict(self.estimate),
            "upload": self.upload,
            "settings": self.settings.as_used(),
        }

    def as_text(self, size: Any) -> str:
        """Return it for people, in lines; `size` says a number of bytes."""
        measured, labels = self.estimate, len(self.dataset.labels)
        of_labels = f", {labels} labels" if labels else ""
        splits = ", ".join(f"{count} {name}" for name, count in self.splits.items())
        ending = "at most" if self.settings.early_stopping else "in all"
        return "\n".join(
            [
                *(f"{'!' if one.serious else '-'} {one.text}" for one in self.findings),
                f"Base: {self.base.model} {self.base.version}",
                f"Task: {self.dataset.task}{of_labels}, scored by {measured.metric}",
                f"Columns: {', '.join(self.dataset.train.columns)}",
                f"Examples: {splits}",
                f"Steps: {measured.steps} {ending}, of {measured.step_examples} examples, in "
                f"{measured.precision}",
                f"Time: {_span(measured.seconds)} {ending}, scoring included "
                f"({measured.step_seconds:.2f} s a step, measured); transfers come on top",
                f"Memory: {size(measured.memory)} of the {measured.memory_of}, measured",
                f"Upload: {size(self.upload)} of weights; the data and the head stay here",
                "Nothing was contributed. Without --dry-run it is.",
            ]
        )


def dry_run(order: Order, source: Source, trainer: Planner) -> Plan:
    """
    Do everything that `contribute` would, but train to the end, write and send.

    Raises:
        InvalidRequest: several processes were started for it.
        Unauthenticated, TokenExpired, Forbidden, ModelNotFound, BadData, BadModel,
        TrainingFailed: as `contribute` would.
    """
    if processes.count() > 1:
        raise InvalidRequest(
            "A dry run is for one process.", hint="Give the command without torchrun."
        )
    require_utf8(order.output or Path(), source.cache.root)
    check_permission(source.api.whoami(), order.model)
    check_encoding(order, source.api.model(order.model).policy)
    base = find_base(source, order.model, LATEST)
    config = base_file(source, base, "config.json")
    dataset = trainer.read(order.data, order.settings.seed, config)
    for note in dataset.notes:
        source.reporter.say(note)
    folder = base_folder(source, base)
    findings = trainer.check(folder, dataset, order.settings)
    source.reporter.say("Measuring a few steps ...")
    measured = trainer.estimate(folder, dataset, order.settings, source.reporter.say)
    return Plan(
        base, dataset, order.settings, findings, measured, _upload_bytes(order, source, folder)
    )


def _upload_bytes(order: Order, source: Source, folder: Path) -> int:
    """Return about how many bytes would be sent."""
    settings = order.settings
    size = body_bytes(folder, frozen_in(folder, settings.freeze))
    policy = source.api.model(order.model).policy
    speed = upload_speed(source.cache.root, source.api.server)
    chosen = choose_encodings(order.wanted, policy, size, speed)[0]
    if chosen == LORA:
        return adapter_bytes(folder, settings)
    if settings.lora and chosen != FULL:
        # Of what did not change nothing is sent.
        size = adapted_bytes(folder, settings)
    return round(SHARES[chosen] * size)


def _span(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
