"""What is sent of a finetuned model: the files of an encoding, and what the encoding loses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coldfusion_client.bases import base_folder
from coldfusion_client.bodies import write_contribution
from coldfusion_client.disk import write_atomically, writing
from coldfusion_client.forms import LORA, Form
from coldfusion_client.source import Source
from coldfusion_shared.errors import (
    BadModel,
    ContributionRejected,
    EncodingRefused,
    InvalidRequest,
    TrainingFailed,
)
from coldfusion_shared.schemas.bases import Base
from coldfusion_shared.schemas.contributions import Finding

if TYPE_CHECKING:
    from coldfusion_shared.weights.checkpoint import FileSource
    from coldfusion_shared.weights.codecs.changes import Tensors
    from coldfusion_shared.weights.lora import LoraUpdate

# Returns the score of a finetuned model's folder, in percent.
Score = Callable[[Path], float]

FULL_FILE = "model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"
# With the update: a base that is fused of many forgives noise, but not all of it. Signs of normal
# values have 0.8.
LEAST_COSINE = 0.6
# Points that a decoded model may be worse than what it was encoded from.
MOST_LOSS = 1.0


@dataclass(frozen=True)
class Package:
    """
    What is sent.

    Attributes:
        encoding: its name.
        files: by the names that the encoding gives them.
        frozen: patterns of names of what was not trained.
        relative_error: length of the encoding's error by the update's; null: there is none.
        cosine: between the update and what is decoded; null likewise.
        score: of the finetuned model, decoded, in percent; null: not measured.
        weights_sha256: of the finetuned body before it was encoded or moved; null: of an adapter.
    """

    encoding: str
    files: Mapping[str, Path]
    frozen: tuple[str, ...] = ()
    relative_error: float | None = None
    cosine: float | None = None
    score: float | None = None
    weights_sha256: str | None = None

    def told(self) -> str:
        """Return a sentence on what the encoding costs."""
        size = sum(path.stat().st_size for path in self.files.values())
        error = f"off by {100 * (self.relative_error or 0):.1f}% of the update's length"
        kept = f"{error}, cosine {self.cosine:.4f}" if self.cosine is not None else error
        score = "" if self.score is None else f"; decoded, the model scores {self.score:.1f}"
        return f"Encoded as {self.encoding}: {size / 1e6:,.1f} MB; {kept}{score}."


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter of peft's and no model's weights."""
    weights = (folder / name for name in (FULL_FILE, f"{FULL_FILE}.index.json"))
    return (folder / "adapter_config.json").is_file() and not any(p.exists() for p in weights)


def check_adapter(folder: Path) -> None:
    """Raise `BadModel` where the files of an adapter's folder show that it cannot be sent."""
    from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from coldfusion_shared.weights.lora.config import parse_config

    if not (folder / ADAPTER_WEIGHTS).is_file():
        missing = f"The adapter in {folder} has no {ADAPTER_WEIGHTS}"
        if not (folder / PICKLED_ADAPTER).is_file():
            raise BadModel(f"{missing}.", hint="Save it with peft's save_pretrained(folder).")
        raise BadModel(
            f"{missing} but {PICKLED_ADAPTER}, which could run anything when it is read.",
            hint="Convert it with peft, where model is its base as transformers loads it: "
            "PeftModel.from_pretrained(model, folder).save_pretrained(folder)",
        )
    try:
        parse_config((folder / ADAPTER_CONFIG).read_bytes())
    except BadModel as error:
        again = "Save the adapter again with peft's save_pretrained(folder)."
        raise BadModel(error.message, hint=error.hint or again) from None


def pack(
    source: Source,
    finetuned: Path,
    made_from: Base,
    onto: Base,
    form: Form,
    folder: Path,
    *,
    score: Score | None = None,
    reference: float | None = None,
) -> Package:
    """
    Write what is sent of a finetuned model into `folder`, screened as the server will.

    Args:
        source: brings the bases, and is told what the encoding costs.
        finetuned: a transformers folder.
        made_from: the base that it was finetuned from.
        onto: the base that it is contributed to.
        form: the form it may take; what loses too much is followed by what loses less.
        folder: where the files go.
        score: measures a decoded model; null: none is made.
        reference: the finetuned model's own score, in percent.

    Raises:
        BadModel, IncompatibleWeights, MalformedWeights: the model does not fit the base.
        ContributionRejected: the server would reject it; the message says why.
        StorageFull: no room.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if form.adapter is not None and _may_travel(source, form.adapter, made_from, onto):
        package = _adapter(source, form, made_from, folder)
    else:
        _check_weights(finetuned, form, made_from)
        if form.adapter is not None:
            source.reporter.say(
                f"The adapter learnt on {made_from.version} means something else on "
                f"{onto.version}: it replaces tensors, or is a DoRA. The finetuned weights "
                "are sent in its place."
            )
        package = _encoded(source, finetuned, made_from, onto, form, folder, score, reference)
    _screen(source, onto, package, form)
    return package


def _may_travel(source: Source, adapter: Path, made_from: Base, onto: Base) -> bool:
    """Return whether an adapter means the same on `onto`: what it replaces, or DoRA, does not."""
    if made_from.version == onto.version:
        return True
    with ExitStack() as stack:
        update = _opened(source, adapter, made_from, stack)
        return all(
            change.whole is None and (change.factors is None or change.factors.magnitude is None)
            for change in update.changes.values()
        )


def _check_weights(finetuned: Path, form: Form, made_from: Base) -> None:
    """Refuse to send weights where there is nothing but an adapter, or no form for them."""
    if is_adapter(finetuned):
        raise InvalidRequest(
            "This adapter means something else on a newer base: it replaces tensors, or is a DoRA.",
            hint="Merge it into its model with peft's merge_and_unload(), save that, and push it "
            f"with --base {made_from.version} --onto latest.",
        )
    if not form.encodings:
        raise EncodingRefused(
            "The model takes nothing but adapters, and this one means something else on a newer "
            "base.",
            hint="Train it again from the newest base.",
        )


def _adapter(source: Source, form: Form, made_from: Base, folder: Path) -> Package:
    """Write the adapter anew, without heads and without what only says where it was made."""
    from coldfusion_shared.weights.checkpoint import Checkpoint
    from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
    from coldfusion_shared.weights.lora.config import without_private
    from coldfusion_shared.weights.lora.match import without_heads
    from coldfusion_shared.weights.write import write_tensors

    assert form.adapter is not None
    files = {name: folder / name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG)}
    with ExitStack() as stack:
        update = _opened(source, form.adapter, made_from, stack)
        tensors = stack.enter_context(Checkpoint.from_file(form.adapter / ADAPTER_WEIGHTS)).tensors
        write_tensors(without_heads(tensors, update.base), files[ADAPTER_WEIGHTS])
    config = without_private((form.adapter / ADAPTER_CONFIG).read_bytes())
    write_atomically(files[ADAPTER_CONFIG], config)
    return Package(LORA, files, form.frozen)


def _opened(source: Source, adapter: Path, made_from: Base, stack: ExitStack) -> LoraUpdate:
    from coldfusion_shared.weights.checkpoint import Checkpoint, FileSource
    from coldfusion_shared.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, open_adapter

    check_adapter(adapter)
    base = stack.enter_context(Checkpoint.from_folder(base_folder(source, made_from)))
    weights = FileSource(adapter / ADAPTER_WEIGHTS)
    stack.callback(weights.close)
    return open_adapter((adapter / ADAPTER_CONFIG).read_bytes(), weights, base.tensors)


def _encoded(
    source: Source,
    finetuned: Path,
    made_from: Base,
    onto: Base,
    form: Form,
    folder: Path,
    score: Score | None,
    reference: float | None,
) -> Package:
    whole = folder / "whole.safetensors"
    digest = write_contribution(source, finetuned, made_from, onto, whole)
    for place, encoding in enumerate(form.encodings, 1):
        package = _encode(source, whole, onto, encoding, form, folder)
        if score is not None and package.relative_error:
            package = _scored(source, finetuned, made_from, onto, package, score)
        if package.encoding != "full":
            source.reporter.say(package.told())
        if place == len(form.encodings) or not _loses_too_much(package, reference):
            break
        source.reporter.say("That is too much; the next encoding loses less.")
        for path in package.files.values():
            path.unlink()
    whole.unlink(missing_ok=True)
    return replace(package, weights_sha256=digest)


def _loses_too_much(package: Package, reference: float | None) -> bool:
    if package.cosine is not None and package.cosine < LEAST_COSINE:
        return True
    if package.score is None or reference is None:
        return False
    return package.score < reference - MOST_LOSS


def _encode(
    source: Source, whole: Path, onto: Base, encoding: str, form: Form, folder: Path
) -> Package:
    from coldfusion_shared.fusion.executor import threads
    from coldfusion_shared.weights.checkpoint import Checkpoint
    from coldfusion_shared.weights.codecs import weights_encoding

    if encoding == "full" and not form.frozen:
        # As it was written: nothing is lost, and nothing left out.
        return Package(encoding, {FULL_FILE: whole.rename(folder / FULL_FILE)})
    kind = weights_encoding(encoding)
    with (
        Checkpoint.from_file(whole) as weights,
        Checkpoint.from_folder(base_folder(source, onto)) as base,
    ):
        executor = threads(os.cpu_count() or 1)
        tensors = _trained(weights.tensors, base.tensors, form.frozen)
        cost = kind.encode(tensors, base.tensors, folder, executor=executor)
    files = {name: folder / name for name in kind.files}
    return Package(encoding, files, form.frozen, cost.relative_error, cost.cosine)


def _trained(weights: Tensors, base: Tensors, frozen: Sequence[str]) -> Tensors:
    """Return what is not frozen; raises `ContributionRejected` where what is has changed."""
    from coldfusion_shared.weights.codecs.changes import changed
    from coldfusion_shared.weights.frozen import is_frozen

    still = {name: tensor for name, tensor in weights.items() if is_frozen(name, frozen)}
    moved = changed(still, base, lambda _: None)
    if moved:
        raise ContributionRejected(
            f"{moved[0]} was to be frozen, and has changed all the same.",
            hint="Leave it out of --freeze, or finetune again.",
            tensors=moved[:10],
        )
    return {name: tensor for name, tensor in weights.items() if name not in still}


def _scored(
    source: Source, finetuned: Path, made_from: Base, onto: Base, package: Package, score: Score
) -> Package:
    """Measure the model that others would have of the package."""
    from coldfusion_shared.weights.checkpoint import Checkpoint
    from coldfusion_shared.weights.codecs import open_update
    from coldfusion_shared.weights.write import write_decoded

    with source.cache.scratch() as folder, ExitStack() as stack:
        for path in finetuned.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and "index" not in path.name:
                shutil.copyfile(path, folder / path.name)
        model = stack.enter_context(Checkpoint.from_folder(finetuned))
        before = stack.enter_context(Checkpoint.from_folder(base_folder(source, made_from)))
        target = stack.enter_context(Checkpoint.from_folder(base_folder(source, onto)))
        update = open_update(package.encoding, _sources(package, stack), target.tensors)
        write_decoded(model, before, update, folder / FULL_FILE)
        try:
            return replace(package, score=score(folder))
        except TrainingFailed as error:
            source.reporter.warn(f"The decoded model could not be scored: {error.message}")
            return package


def _sources(package: Package, stack: ExitStack) -> dict[str, FileSource]:
    from coldfusion_shared.weights.checkpoint import FileSource

    sources = {name: FileSource(path) for name, path in package.files.items()}
    for opened in sources.values():
        stack.callback(opened.close)
    return sources


def _screen(source: Source, onto: Base, package: Package, form: Form) -> None:
    """
    Do what the server will, but for what compares with others: nobody here has them.

    Raises:
        ContributionRejected: the server would reject it.
    """
    from coldfusion_shared.fusion.executor import threads
    from coldfusion_shared.screening import known_parameters
    from coldfusion_shared.screening.screen import Encoded, screen
    from coldfusion_shared.weights.checkpoint import Checkpoint

    with ExitStack() as stack:
        base = stack.enter_context(Checkpoint.from_folder(base_folder(source, onto)))
        sources = _sources(package, stack)
        outcome = screen(
            Encoded(package.encoding, sources, package.frozen),
            base,
            parameters=known_parameters(form.screening),
            executor=threads(os.cpu_count() or 1),
        )
    for finding in outcome.findings:
        if finding.verdict == "quarantine":
            source.reporter.warn(f"This will wait for a maintainer's decision: {finding.message}.")
        elif finding.verdict == "warn":
            source.reporter.warn(f"This will be taken with a remark: {finding.message}.")
    if outcome.verdict == "reject":
        for path in package.files.values():
            path.unlink()
        raise _rejected(outcome.rejections, outcome.hint)


def _rejected(rejections: Sequence[Finding], hint: str | None) -> ContributionRejected:
    reasons = "; ".join(finding.message.rstrip(".") for finding in rejections)
    return ContributionRejected(
        f"The finetuned weights would be rejected: {reasons}.",
        hint=f"Nothing was sent. {hint or 'Finetune again with other settings.'}",
        tensors=[name for finding in rejections for name in finding.tensors],
    )
