"""One attacker in a round: what it costs the base, by method, without any screening."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coldfusion_shared.schemas.recipes import Recipe
from coldfusion_shared.weights.checkpoint import Checkpoint
from coldfusion_shared.weights.layout import SIDE_FILES, SINGLE_FILE
from coldfusion_shared.weights.write import write_body
from experiments.cache import MODEL
from experiments.digests import digest_of
from experiments.lab import Lab, Model
from experiments.protocols import protocol
from experiments.steps.finetuning import contribution_rate
from experiments.steps.following import PRETRAINED, looked_at
from experiments.steps.fusing import Update, by_method, fused
from experiments.steps.lines import Seat, Way, first_round
from experiments.steps.scoring import suite_of

if TYPE_CHECKING:
    from benchmarks.attackers import Attack
    from benchmarks.sent import Sent

# As updates travel here.
FULL = "full"


def _pairs(arms: list[str]) -> list[tuple[str, str]]:
    """Compare each attacked method with itself among honest contributors."""
    return [(arm, arm.rpartition(", ")[0]) for arm in arms if arm.rpartition(", ")[0] in arms]


@protocol("attacks", "one attacker in a round, by fusing method", pairs=_pairs)
def run(lab: Lab) -> None:
    """The last contributor of the round is the attacker; it knows what all others send."""
    # Not above, as all of these load torch: a list of the protocols does not need it.
    from benchmarks.attackers import ATTACKS, HONEST, RANDOM_LABELS

    names = lab.data.names
    loaded = suite_of(lab, names, names)
    lr = contribution_rate(lab, names, "all")
    wanted = lab.settings.attacks
    attacks = [
        one for name, one in ATTACKS.items()
        if one.trained in (HONEST, RANDOM_LABELS) and (wanted is None or name in wanted)
    ]  # fmt: skip
    for seed in lab.seeds:
        looked_at(lab, PRETRAINED, lab.pretrained, seed, loaded, [])
        way = Way("all", names, lr, Recipe(), rounds=1)
        honest = first_round(lab, way, seed)
        mislabelled = first_round(lab, replace(way, part=_mislabelled), seed)
        rounds = {"": honest}
        for attack in attacks:
            own = mislabelled[-1] if attack.trained == RANDOM_LABELS else honest[-1]
            rounds[attack.name] = [*honest[:-1], _attacker(lab, attack, own, honest, seed)]
        for method in lab.settings.attacked_methods:
            for name, updates in rounds.items():
                arm = f"{method}, {name}" if name else method
                recipe = by_method(lab.settings.recipe, method)
                with lab.failing(arm, 1, seed):
                    base = fused(lab, lab.pretrained, updates, recipe)
                    looked_at(lab, arm, base, seed, loaded, [], 1)


def _mislabelled(lab: Lab, seat: Seat, seed: int) -> Any:
    from benchmarks.attack_scores import randomly_labelled

    part = lab.data.part(seat.dataset, lab.settings.examples, seed, seat.turn)
    last = seat.place == lab.settings.contributors - 1
    return randomly_labelled(part, seed) if last else part


def _attacker(lab: Lab, attack: Attack, own: Update, honest: Sequence[Update], seed: int) -> Update:
    from benchmarks import attackers
    from benchmarks import sent as sending
    from benchmarks.attackers import Room

    base, others = lab.pretrained, honest[:-1]
    inputs = {
        "attack": attack.name,
        "base": base.digest,
        "own": own.model.digest,
        "honest": [update.model.digest for update in others],
        "seed": seed,
        "code": _code_of(attackers, sending),
    }

    def build(folder: Path) -> dict[str, Any]:
        # As they would travel: the body alone, under the base's names.
        sent = {
            update.name: _body(update.model, base, folder / f"sent-{place}")
            for place, update in enumerate([*others, own])
        }
        theirs = {update.name: sent[update.name] for update in others}
        room = Room(base.folder(), theirs)
        room.write(attack, sent[own.name], len(theirs), seed, folder / MODEL)
        _copy_side_files(base.folder(), folder / MODEL)
        _remove([one.folder for one in sent.values()])
        return {}

    what = f"{attack.name}, seed {seed}"
    return Update(own.name, lab.make_model("attack", what, inputs, 1, build))


def _code_of(*modules: ModuleType) -> str:
    files = [Path(str(module.__file__)) for module in modules]
    return digest_of(files[0].parent, files)


def _body(model: Model, base: Model, folder: Path) -> Sent:
    from benchmarks.sent import Sent

    folder.mkdir()
    with (
        Checkpoint.from_folder(model.folder()) as theirs,
        Checkpoint.from_folder(base.folder()) as ours,
    ):
        write_body(theirs, ours, folder / SINGLE_FILE)
    return Sent(FULL, folder)


def _copy_side_files(base: Path, out: Path) -> None:
    for name in SIDE_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, out / name)


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)
