"""A callback for transformers' Trainer that contributes when the training has ended."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from coldfusion_client.adapters import check_sendable, has_adapter
from coldfusion_client.bases import LATEST, model_name, version_name
from coldfusion_client.cli.text import clean
from coldfusion_client.client import Client
from coldfusion_client.forms import FULL
from coldfusion_client.memory import save, unwrapped
from coldfusion_client.quoting import command_line
from coldfusion_client.record import RECORD_FILE, Record, read_record, write_record
from coldfusion_client.training import ADAPTER_FOLDER
from coldfusion_shared.errors import (
    AlreadyContributed,
    BadModel,
    BadWeights,
    ColdFusionError,
    InvalidRequest,
)
from coldfusion_shared.schemas.contributions import Contribution, Work

FOLDER = "coldfusion"

# The same weights would be refused again.
_DECIDED = (BadModel, BadWeights, AlreadyContributed)


class ContributionWarning(UserWarning):
    """A model was trained, and something about contributing it did not go well."""


class ColdFusionCallback(TrainerCallback):
    """
    Saves the model when the training has ended, then contributes it. Once, by the main process.

        Trainer(..., callbacks=[ColdFusionCallback("org/base", base="v3")])

    The training comes first: whatever goes wrong with the contribution becomes a
    `ContributionWarning` that says how to contribute later, unless `strict`.

    Attributes:
        contribution: what became of it; null: not yet, or it went wrong.
    """

    contribution: Contribution | None

    def __init__(
        self,
        model: str,
        base: str | None = None,
        *,
        client: Client | None = None,
        folder: Path | str | None = None,
        wait: bool = True,
        onto_latest: bool = False,
        strict: bool = False,
        work: Work | None = None,
        encoding: str = FULL,
    ) -> None:
        """
        Say what to contribute to.

        Args:
            model: owner/name.
            base: the version that is finetuned, such as ``v3``; null: what the folder says that the
                model was loaded from, when the training begins.
            client: who contributes; null: a `Client` with all defaults.
            folder: where the finetuned model is saved, with its head and tokenizer, an adapter in
                the folder `ADAPTER_FOLDER` in it; null: `FOLDER` below the Trainer's output folder.
            wait: wait for the verdict.
            onto_latest: put the update onto the newest base where that is another one by then.
            strict: let errors end the training script, before the training where that is possible.
            work: what may be said of the work in public; null: nothing.
            encoding: the form of the update, as for `Client.contribute`.

        Raises:
            InvalidRequest: that is no name of a model, or no version.
        """
        self.model = model_name(model)
        self.base = None if base is None else _exact(version_name(base))
        self.folder = None if folder is None else Path(folder)
        self.wait, self.onto_latest, self.strict, self.work = wait, onto_latest, strict, work
        self.encoding = encoding
        self.contribution = None
        self._client = client
        self._record: Record | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """
        Find out which base it is, and whether contributing is allowed: before hours of training.

        Raises:
            InvalidRequest: neither `base` nor the model's folder says which base it is.
            BadModel: the model is spread over processes, so that this one cannot save it.
        """
        if args.fsdp or args.deepspeed:
            raise BadModel(
                "With FSDP or DeepSpeed no single process holds the model; the callback cannot "
                "save it.",
                hint="Train without the callback, then trainer.save_model(FOLDER), and: "
                + command_line("coldfusion-client", "push", self.model, "FOLDER"),
            )
        if not state.is_world_process_zero:
            return
        self._record = self._loaded_from(kwargs.get("model"))
        if self.base is None:
            if self._record is None:
                raise InvalidRequest(
                    f"Nobody says which base of {self.model} is finetuned here.",
                    hint="Add it, such as: ColdFusionCallback(..., base='v3')",
                )
            self.base = self._record.manifest.version
        with self._forgiving("It will be trained and saved all the same."), self._open() as client:
            client.check(self.model, kwargs.get("model"), encoding=self.encoding)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the model, then contribute it."""
        if not state.is_world_process_zero:
            return
        folder = self.folder or Path(str(args.output_dir), FOLDER)
        unsaved = "The model is still in memory; save it with: trainer.save_model(FOLDER)"
        with self._forgiving(unsaved):
            self._contribute(self._save(folder, kwargs), kwargs["model"])

    def _save(self, folder: Path, parts: dict[str, Any]) -> Path:
        """Write everything into `folder`; return the folder to contribute."""
        # Beside the whole model of a training before, an adapter would be passed over.
        adapted = has_adapter(unwrapped(parts["model"]))
        where = folder / ADAPTER_FOLDER if adapted else folder
        where.mkdir(parents=True, exist_ok=True)
        sent = save(parts["model"], where)
        # A record from a training before would say of these weights what is not true.
        (sent / RECORD_FILE).unlink(missing_ok=True)
        if parts.get("processing_class") is not None:
            parts["processing_class"].save_pretrained(folder)
        if self._record is not None and self._record.manifest.version == self.base:
            write_record(sent, self._record.model_copy(update={"finetuned": True}))
        return sent

    def _contribute(self, folder: Path, model: Any) -> None:
        adapted = has_adapter(unwrapped(model))
        command = self._command(folder, FULL if adapted else self.encoding)
        again = f"The model is saved; contribute it with: {command}"
        with self._forgiving(again, f"The model is saved in {folder}."), self._open() as client:
            if adapted:
                # Of several adapters the folder is that of one alone.
                check_sendable(unwrapped(model))
            self.contribution = client.contribute(
                self.model,
                folder,
                self.base,
                wait=self.wait,
                onto_latest=self.onto_latest,
                work=self.work,
                encoding=self.encoding,
            )

    def _command(self, folder: Path, encoding: str) -> str:
        assert self.base is not None, "the training has begun"
        words = ["push", self.model, str(folder.absolute()), "--base", self.base]
        if encoding != FULL:
            words += ["--encoding", encoding]
        if self._client is not None:
            words += ["--server", self._client.server]
        return command_line("coldfusion-client", *words)

    def _loaded_from(self, model: Any) -> Record | None:
        path = getattr(model, "name_or_path", None)
        record = read_record(Path(path)) if path else None
        if record is None or record.finetuned or record.manifest.model != self.model:
            return None
        return record

    @contextmanager
    def _open(self) -> Iterator[Client]:
        if self._client is not None:
            yield self._client  # its owner closes it
            return
        with Client() as client:
            yield client

    @contextmanager
    def _forgiving(self, then: str, decided: str = "") -> Iterator[None]:
        """
        Turn what goes wrong inside into a warning, unless `strict`.

        Args:
            then: what to do afterwards.
            decided: what to say instead where trying again would change nothing.
        """
        try:
            yield
        except Exception as error:
            if self.strict:
                raise
            if isinstance(error, _DECIDED):
                then = decided or then
            what, hint = f"{type(error).__name__}: {error}.", None
            if isinstance(error, ColdFusionError):
                what, hint = error.message, error.hint
            # Parts of it come from the server; the rest is a command, to be kept as it is.
            said = clean(" ".join(filter(None, [what, hint])))
            text = f"Not contributed to {self.model}: {said} {then}"
            warnings.warn(text, ContributionWarning, stacklevel=2)


def _exact(version: str) -> str:
    if version == LATEST:
        raise InvalidRequest(
            "The newest base may be another one when the training has ended.",
            hint="Name the version that you loaded, such as: base='v3'",
        )
    return version
