"""The forms in which updates travel: what is left of a base that is made of them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.codecs import discover
from coldfusion_shared.weights.codecs.encoding import WeightsEncoding
from coldfusion_shared.weights.layout import SINGLE_FILE
from coldfusion_shared.weights.write import write_decoded
from experiments.cache import MODEL
from experiments.lab import Lab, Model
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, followed, looked_at, scorings
from experiments.steps.lines import Change, Seat, Way
from experiments.steps.scoring import suite_of

FULL = "full"


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    return [(arm, FULL) for arm in arms if arm not in (PRETRAINED, FULL)]


@protocol("encodings", "updates in every encoding", pairs=_pairs)
def run(lab: Lab) -> None:
    """Adapters are in `lora-vs-full`: they are learnt otherwise, and not only sent."""
    names = lab.data.names
    loaded, last = suite_of(lab, names, names), scorings(lab)
    lr = contribution_rate(lab, names, "all")
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, last)
        for name in lab.settings.encodings or _all():
            change = None if name == FULL else _sent(name, seed)
            way = Way(name, names, lr, lab.settings.recipe, change=change)
            followed(lab, way, seed, loaded, last)


def _all() -> list[str]:
    found = [name for name in discover() if issubclass(discover()[name], WeightsEncoding)]
    return sorted(found, key=lambda name: (name != FULL, name))


def _sent(name: str, seed: int) -> Change:
    # Not above: it needs zstandard, which no other protocol does.
    from benchmarks.encoding_updates import encode

    def change(lab: Lab, base: Model, seat: Seat, model: Model) -> Model:
        inputs = {"encoding": name, "base": base.digest, "model": model.digest}

        def build(folder: Path) -> dict[str, Any]:
            cost = encode(name, model.folder(), base.folder(), folder / "sent")
            _decode(name, base.folder(), model.folder(), folder)
            return {"share": cost["share"]}

        found = lab.make_model("encode", f"{seat.dataset}, {name}", inputs, 1, build)
        if lab.notes:
            lab.note(
                "measure", name, iteration=seat.round, seed=seed, dataset=seat.dataset,
                value=100 * found.facts["share"], note="percent of the float32 bytes",
            )  # fmt: skip
        return found

    return change


def _decode(name: str, base: Path, model: Path, folder: Path) -> None:
    """Write the model that others have of an update in ``sent/``, in its place."""
    from benchmarks.sent import Sent

    out = folder / MODEL
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors*"))
    with ExitStack() as stack:
        ours = stack.enter_context(Checkpoint.from_folder(base))
        theirs = stack.enter_context(Checkpoint.from_folder(model))
        update = Sent(name, folder / "sent").opened(stack, ours)
        write_decoded(theirs, ours, update, out / SINGLE_FILE)
    shutil.rmtree(folder / "sent")
