"""The figures of a round: of one page of its contributions, as many as are compared at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coldfusion_server.dashboard import beside, differences, heat
from coldfusion_server.dashboard.figures.figure import Cell, Column, Figure
from coldfusion_server.dashboard.loading import Reader, RoundView
from coldfusion_server.dashboard.values import Value
from coldfusion_server.services.comparing import MOST, Compared
from coldfusion_shared.schemas.contributions import Contribution, worst
from coldfusion_shared.schemas.gates import EvaluatorVerdict

_WHO = (
    Column("contribution", "id of the contribution"),
    Column("contributor", "who contributed it"),
)


@dataclass(frozen=True)
class Row:
    """
    One contribution's numbers, in words for who does not see the drawings.

    Attributes:
        item: the contribution.
        length: of its update over the round's median; null: not known.
        with_mean: its cosine with the mean of those compared; null: not known.
        nearest, farthest: whose update lies most and least its way, and the cosine; null: none.
        share: of the round's weights, all of its contributor's; null: not known.
    """

    item: Contribution
    length: float | None
    with_mean: float | None
    nearest: tuple[str, float] | None
    farthest: tuple[str, float] | None
    share: float | None


@dataclass(frozen=True)
class Drawn:
    """What a round's page draws, and the same as a table."""

    figures: Mapping[str, Figure]
    rows: Sequence[Row]
    checks: Sequence[str]


def of_page(read: Reader, view: RoundView) -> Drawn:
    """Return all figures of a round, for which the contributions are compared once."""
    compared = read.compared(view)
    made = [make(view, compared) for make in _MADE]
    return Drawn({one.name: one for one in made}, _rows(view, compared), _checks(view))


def _of(make: Callable[[RoundView, Compared], Figure]) -> Callable[[Reader, RoundView], Figure]:
    return lambda read, view: make(view, read.compared(view))


def cosines(view: RoundView, compared: Compared) -> Figure:
    """Show how the updates lie to each other: each pair once, and each with their mean."""
    names = _names(view)
    pairs = [
        (one, other, compared.cosines[row][column])
        for row, one in enumerate(compared.ids)
        for column, other in enumerate(compared.ids[:row])
    ]
    means = zip(compared.ids, compared.with_mean, strict=True)
    told = (
        "Cosines between the updates, to about 0.01: 1 pulls the same way, 0 is at right angles, "
        "\N{MINUS SIGN}1 undoes it. Their mean is that of those that were let in."
    )
    svg = ""
    if len(compared.ids) > 1:
        drawn = [names[one] for one in compared.ids]
        svg = heat.draw(drawn, compared.cosines, compared.with_mean, told)
    columns = [
        *_WHO,
        Column("with", "id of the other contribution; empty: the mean"),
        Column("with_contributor", "who contributed the other; empty: the mean"),
        Column("cosine", "between the two updates, with two decimals; null: one is zero"),
    ]
    rows: list[list[Cell]] = [
        [one, names[one], other, names[other], cosine] for one, other, cosine in pairs
    ]
    rows += [[one, names[one], None, None, cosine] for one, cosine in means]
    return Figure("cosines", "Do they pull the same way?", told, columns, rows, svg)


def norms(view: RoundView, compared: Compared) -> Figure:
    """Show how long the updates are beside the round's median."""
    items = [item for item in view.contributions.items if item.id in compared.lengths]
    told = (
        "Length of each update over the median of the round, on a logarithmic scale. A diamond: a "
        "screening check objected to it."
    )
    if compared.usual is not None:
        low, high = compared.usual
        told += f" Four of five that this model fused before lie between {low:.2g} and {high:.2g}."
    svg = beside.on_logs([_length(item, compared) for item in items], compared.usual, told) \
        if items else ""  # fmt: skip
    columns = [
        *_WHO,
        Column("length", "norm of the update, over the round's median"),
        Column("usual_low", "a tenth of what the model fused before is shorter; null: not known"),
        Column("usual_high", "a tenth of what the model fused before is longer; null: not known"),
        Column("verdict", "the worst of its screening"),
    ]
    usual: Sequence[Cell] = compared.usual or (None, None)
    rows = [
        [item.id, item.contributor, compared.lengths[item.id], *usual, worst(item.findings)]
        for item in items
    ]
    return Figure("norms", "How long are they?", told, columns, rows, svg)


def weights(view: RoundView, compared: Compared) -> Figure:
    """Show what each contribution counts in the fuse."""
    items = [item for item in view.contributions.items[:MOST] if item.weight is not None]
    told = (
        "Weight of each contribution in the fuse."
        if items
        else "Weights are known when the round has been fused by a method that has them."
    )
    if any(_is_late(item) for item in items):
        told += " A bar of the other colour and a factor behind it: it came late and counts less."
    svg = beside.bars([_weight(item) for item in items], told) if items else ""
    columns = [
        *_WHO,
        Column("weight", "factor of its update in the fused one"),
        Column("staleness", "bases that it was behind; null: the round has not closed"),
        Column("factor", "of its update, for being late; null: the round has not closed"),
        Column("contributor_share", "of all weights of the round, its contributor's, 0 to 1"),
    ]
    rows = [
        [item.id, item.contributor, item.weight, item.staleness, item.factor,
         compared.shares.get(item.contributor)]
        for item in view.contributions.items[:MOST]
    ]  # fmt: skip
    return Figure("weights", "What does each count?", told, columns, rows, svg)


def screening(view: RoundView, compared: Compared) -> Figure:
    """Show what every screening check has found and measured."""
    columns = [
        *_WHO,
        Column("check", "name of the check"),
        Column("verdict", "pass, warn, quarantine or reject"),
        Column("measured", "what it measured; null: no number decides"),
        Column("limit", "what that was compared with; null: nothing to compare with yet"),
    ]
    rows = [
        [item.id, item.contributor, found.check, found.verdict, found.measured, found.limit]
        for item in view.contributions.items[:MOST]
        for found in item.findings
    ]
    told = "What each check of the screening found, and the number that it measured."
    return Figure("screening", "What did screening find?", told, columns, rows)


def gate(view: RoundView, compared: Compared) -> Figure:
    """Show by how many points the candidate scores above the base, by evaluator and data set."""
    found = view.round.gate.evaluators if view.round.gate else []
    columns = [
        Column("evaluator", "who measured both"),
        Column("dataset", "name of the data set; empty: the mean of all"),
        Column("difference", "points, candidate less base"),
        Column("standard_error", "of the difference, in points; null: not known"),
        Column("allowed_loss", "points that may be lost; null: not limited by itself"),
        Column("passed", "whether it is enough for this evaluator; of the mean alone"),
    ]
    rows = [row for one in found for row in _judged(one)]
    told = "By how many points the candidate scores above the base it was fused onto."
    if any(one.standard_error is not None for one in found):
        told += " A thin line is one standard error to each side."
    drawn = [row for row in rows if row[0] == found[0].evaluator] if found else []
    svg = ""
    if drawn:
        names = ["all data sets" if row[1] is None else str(row[1]) for row in drawn]
        svg = differences.draw(names, [_value(row[2], row[3]) for row in drawn], told)
    return Figure("gate", "Is the candidate better than its base?", told, columns, rows, svg)


def candidates(view: RoundView, compared: Compared) -> Figure:
    """Show the candidates of a line search and what they scored."""
    found = view.round.gate.line_search if view.round.gate else []
    columns = [
        Column("candidate", "its id"),
        Column("server_lr", "how far it goes the way of the fused update"),
        Column("score", "mean over evaluators, in percent; null: not measured yet"),
    ]
    told = "What was tried: how far to go the way of the fused update, and what that scored."
    rows = [[one.candidate, one.server_lr, one.score] for one in found]
    return Figure("candidates", "How far to go?", told, columns, rows)


_MADE = (cosines, norms, weights, screening, gate, candidates)
FIGURES: dict[str, Callable[[Reader, RoundView], Figure]] = {
    make.__name__: _of(make) for make in _MADE
}


def _rows(view: RoundView, compared: Compared) -> list[Row]:
    names, places = _names(view), {one: place for place, one in enumerate(compared.ids)}
    return [
        Row(
            item,
            compared.lengths.get(item.id),
            compared.with_mean[places[item.id]] if item.id in places else None,
            *_ends(names, compared, places.get(item.id)),
            compared.shares.get(item.contributor),
        )
        for item in view.contributions.items[:MOST]
        if item.id in places or item.weight is not None
    ]


def _ends(
    names: Mapping[str, str], compared: Compared, place: int | None
) -> tuple[tuple[str, float] | None, tuple[str, float] | None]:
    """Return whose update lies most, and least, the way of the one at `place`."""
    if place is None:
        return None, None
    others = [
        (names[other], cosine)
        for other, cosine in zip(compared.ids, compared.cosines[place], strict=True)
        if other != compared.ids[place] and cosine is not None
    ]
    if not others:
        return None, None
    by_cosine = sorted(others, key=lambda one: one[1])
    return by_cosine[-1], by_cosine[0]


def _checks(view: RoundView) -> list[str]:
    """Return the names of all checks that found something, in their order."""
    named = (found.check for item in view.contributions.items[:MOST] for found in item.findings)
    return list(dict.fromkeys(named))


def _names(view: RoundView) -> dict[str, str]:
    return {item.id: item.contributor for item in view.contributions.items}


def _length(item: Contribution, compared: Compared) -> beside.Item:
    length, verdict = compared.lengths[item.id], worst(item.findings)
    told = f"{item.contributor}: {length:.3g} times the median"
    if verdict != "pass":
        told += f"; screening: {verdict}"
    return beside.Item(item.contributor, length, f"{length:.3g}", told, verdict != "pass")


def _weight(item: Contribution) -> beside.Item:
    weight = max(0.0, item.weight or 0.0)
    text, told = f"{weight:.3g}", f"{item.contributor}: weight {weight:.4g}"
    if _is_late(item):
        text += f" ×{item.factor:.2f}"
        told += f", and {item.factor:.2f} times for being late"
    return beside.Item(item.contributor, weight, text, told, _is_late(item))


def _is_late(item: Contribution) -> bool:
    return bool(item.staleness) and item.factor is not None


def _judged(found: EvaluatorVerdict) -> list[list[Cell]]:
    """Return an evaluator's rows: the mean's, then each data set's, the worst first."""
    worst_first = sorted(found.losses.items(), key=lambda one: (-one[1], one[0]))
    return [
        [found.evaluator, None, found.difference, found.standard_error, found.allowed_loss,
         found.passed],
        *(
            [found.evaluator, name, 0.0 - loss, found.standard_errors.get(name),
             found.allowed_losses.get(name), None]
            for name, loss in worst_first
        ),
    ]  # fmt: skip


def _value(points: Cell, error: Cell) -> Value:
    assert isinstance(points, int | float), "a difference is a number"
    return Value(float(points), None if error is None else float(error))
