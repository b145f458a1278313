"""Lines of bases: round after round, some contributors finetune the newest one, and it is fused."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coldfusion_shared.data import TextDataset
from coldfusion_shared.errors import TrainingFailed
from coldfusion_shared.schemas.recipes import Recipe
from experiments.lab import Lab, Model
from experiments.steps.finetuning import finetuned
from experiments.steps.fusing import Update, fused

# Seeds of finetunings: one of its own for every place of every round of every line.
ROUNDS, PLACES = 1_000, 1_000


@dataclass(frozen=True)
class Seat:
    """
    A contributor's place in a round.

    Attributes:
        round: from 1.
        place: in the round, from 0.
        dataset: name of its data set.
        turn: parts of it that the line's contributors had before.
    """

    round: int
    place: int
    dataset: str
    turn: int


Fuse = Callable[[Lab, Model, Sequence[Update], int], Model]
Change = Callable[[Lab, Model, Seat, Model], Model]


@dataclass(frozen=True)
class Way:
    """
    How a line goes on.

    Attributes:
        arm: its name.
        pool: data sets that may take part; they are dealt out like a pack of cards.
        lr: learning rate of contributions.
        recipe: how rounds are fused.
        rounds, contributors, examples: sizes; null: the settings'.
        fresh: contributors have examples that nobody had before, as far as there are; else they
            have the same ones in every round.
        options: further settings of finetunings.
        part: what a contributor learns from, in place of the usual.
        change: what becomes of a finetuned model before it is fused, such as an encoding.
        behind: from a seat to the rounds that its base is behind.
        fuse: in place of the recipe.
    """

    arm: str
    pool: Sequence[str]
    lr: float
    recipe: Recipe
    rounds: int | None = None
    contributors: int | None = None
    examples: int | None = None
    fresh: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    part: Callable[[Lab, Seat, int], TextDataset] | None = None
    change: Change | None = None
    behind: Callable[[Seat], int] | None = None
    fuse: Fuse | None = None


def dealt(pool: Sequence[str], rounds: int, contributors: int, seed: int) -> list[list[Seat]]:
    """
    Return who sits where: data sets in random order, each once before one comes again.

    Args:
        pool: their names.
        rounds: of the line.
        contributors: of a round.
        seed: of the order.
    """
    rng, pack, turns = random.Random(f"deal/{seed}"), list[str](), Counter[str]()
    seats: list[list[Seat]] = []
    for number in range(1, rounds + 1):
        seats.append([])
        for place in range(contributors):
            if not pack:
                pack = rng.sample(list(pool), len(pool))
            name = pack.pop()
            seats[-1].append(Seat(number, place, name, turns[name]))
            turns[name] += 1
    return seats


def line(lab: Lab, way: Way, seed: int) -> Iterator[tuple[int, Model]]:
    """
    Yield each round's number, from 1, and the base that it has made.

    A contribution that comes to nothing is noted and left out; a round of which nothing is left
    keeps its base.
    """
    settings = lab.settings
    rounds = dealt(
        way.pool, way.rounds or settings.rounds, way.contributors or settings.contributors, seed
    )
    bases = [lab.pretrained]
    served = lab.repository and lab.repository.begin(lab, way.arm, seed, way.recipe)
    for seats in rounds:
        updates = [
            update for seat in seats if (update := _update(lab, way, seat, bases, seed)) is not None
        ]
        number = seats[0].round
        if not updates:
            bases.append(bases[-1])
        elif served:
            bases.append(served.fused(lab, bases[-1], updates))
        elif way.fuse:
            bases.append(way.fuse(lab, bases[-1], updates, seed))
        else:
            bases.append(fused(lab, bases[-1], updates, way.recipe))
        _note_rate(lab, way, number, seed, bases[-1])
        yield number, bases[-1]


def first_round(lab: Lab, way: Way, seed: int) -> list[Update]:
    """Return the contributions of a line's first round, which nobody fuses."""
    count = way.contributors or lab.settings.contributors
    seats = dealt(way.pool, 1, count, seed)[0]
    found = (_update(lab, way, seat, [lab.pretrained], seed) for seat in seats)
    return [update for update in found if update is not None]


def _update(lab: Lab, way: Way, seat: Seat, bases: list[Model], seed: int) -> Update | None:
    age = min(way.behind(seat) if way.behind else 0, len(bases) - 1)
    base = bases[-1 - age]
    part = way.part(lab, seat, seed) if way.part else _part(lab, way, seat, seed)
    own = (seed * ROUNDS + seat.round) * PLACES + seat.place
    try:
        model = finetuned(lab, base, part, way.lr, own, **way.options)
    except TrainingFailed as error:
        note = f"{seat.dataset}: {error.message}"
        lab.note("failure", way.arm, iteration=seat.round, seed=seed, note=note)
        return None
    if way.change:
        model = way.change(lab, base, seat, model)
    name = f"{seat.round:03}-{seat.place:03}-{seat.dataset}"
    return Update(name, model, base if age else None, age)


def _part(lab: Lab, way: Way, seat: Seat, seed: int) -> TextDataset:
    turn = seat.turn if way.fresh else seat.place
    return lab.data.part(seat.dataset, way.examples or lab.settings.examples, seed, turn)


def _note_rate(lab: Lab, way: Way, number: int, seed: int, base: Model) -> None:
    rate = base.facts.get("server_lr") if lab.notes else None
    if rate is not None:
        lab.note(
            "measure", way.arm, iteration=number, seed=seed, value=rate,
            note="server learning rate",
        )  # fmt: skip
