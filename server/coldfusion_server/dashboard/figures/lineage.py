"""How a model came to be, drawn: bases, contributions and contributors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

from fastapi import Query

from coldfusion_server.dashboard import charts, formats
from coldfusion_server.dashboard.figures.figure import Cell, Column, Figure
from coldfusion_server.dashboard.graph import Graph, Node, graph
from coldfusion_server.dashboard.loading import Reader
from coldfusion_server.dashboard.rendering import environment
from coldfusion_server.services.lineage import RANGE, Ancestor, Input, Lineage
from coldfusion_shared.schemas.models import Model

Upto = Annotated[
    int | None,
    Query(ge=0, le=10**9, description="of a lineage: number of its last base; null: the newest"),
]
# The page's colours, and the light ones, of lines by what they say.
STROKES = {
    "parent": "accent, #0b6b7f",
    "made_from": "muted, #566471",
    "into": "accent, #0b6b7f",
    "late": "second, #b0500c",
    "by": "muted, #566471",
}


def lineage(read: Reader, model: Model, upto: int | None = None) -> Figure:
    """Return the newest bases up to a number, and what they were fused from."""
    return lineage_of(read.lineage(model, upto))


def newest(read: Reader, model: Model) -> Figure:
    """Return the newest bases and what they were fused from."""
    return lineage(read, model)


def lineage_of(found: Lineage) -> Figure:
    """Return the figure of a lineage that was read already."""
    rounds = {base.number: base.round for base in found.shown}
    return Figure(
        name="lineage",
        title=f"The lineage of {found.model}",
        told=summary(found),
        columns=[
            Column("what", "base or contribution"),
            Column("id", "the base's version, or the contribution's id"),
            Column("from", "the base that it was fused onto, or made from; empty: v0 has none"),
            Column("into", "the base that the contribution went into"),
            Column("round", "in which it was fused"),
            Column("contributor", "who made the contribution"),
            Column("weight", "factor of its update; empty: the method works value by value"),
            Column("staleness", "bases that the contribution was behind"),
            Column("replays", "the base that a replay's stands in for"),
            Column("state", "of a base: current, older, or abandoned by the head"),
            Column("published_at", "when the base was published"),
        ],
        rows=[
            *(_base_row(base) for base in found.shown),
            *(_input_row(rounds, item) for item in found.inputs),
        ],
        svg=_drawn(found),
    )


def summary(found: Lineage) -> str:
    """Return what the drawing shows, in a sentence or two."""
    shown = found.shown
    people = len({item.contributor for item in found.inputs})
    said = f"{_versions(shown)} of {formats.count(len(found.bases), 'base')}"
    if found.inputs:
        # What a replay fuses once more is the same contribution.
        different = {item.id for item in found.inputs}
        said += f", fused from {formats.count(len(different), 'contribution')}"
        said += f" by {formats.count(people, 'contributor')}"
    left = [base.version for base in shown if base.abandoned]
    if left:
        said += f". The head does not come from {', '.join(left)}"
    late = len({item.id for item in found.inputs if item.staleness})
    if late:
        said += f". {formats.count(late, 'contribution')} came late"
    return f"{said}."


def told(found: Lineage, node: Node) -> str:
    """Return what a node is, in words."""
    if node.base is not None:
        return _base_words(found, node)
    people = formats.count(len({item.contributor for item in node.inputs}), "contributor")
    counted = formats.count(len(node.inputs), "contribution")
    if node.kind == "contributor":
        return f"{formats.printable(node.label)}: {counted} drawn here"
    first = node.inputs[0]
    way = f"made from v{first.made_from}, into v{first.result}"
    late = f", {formats.count(node.staleness, 'base')} behind" if node.staleness else ""
    if node.kind == "bundle":
        return f"{counted} by {people}, {way}{late}"
    weight = "" if first.weight is None else f", weight {first.weight:.3g}"
    return f"Contribution of {formats.printable(first.contributor)}, {way}{weight}{late}"


def link(found: Lineage, node: Node) -> str:
    """Return the address of what a node is."""
    if node.kind == "contributor":
        return f"/contributors/{quote(node.label)}"
    if node.kind == "contribution":
        return f"/contributions/{node.inputs[0].id}"
    if node.kind == "bundle":
        result = next(base for base in found.shown if base.number == node.inputs[0].result)
        return f"/models/{found.model}/rounds/{result.round}"
    assert node.base is not None, "bases and ghosts have one"
    number = node.base.number
    if node.kind == "base":
        return f"/models/{found.model}/bases/v{number}"
    upto = number if number < found.first else number + RANGE - 1
    return f"/models/{found.model}/lineage?upto={upto}"


def _drawn(found: Lineage) -> str:
    drawing: Graph = graph(found)
    return (
        environment()
        .get_template("figures/lineage.svg")
        .render(
            title=summary(found),
            drawing=drawing,
            names={node.key: f"n{index}" for index, node in enumerate(drawing.nodes)},
            links={node.key: link(found, node) for node in drawing.nodes},
            told={node.key: told(found, node) for node in drawing.nodes},
            shortened=charts.shortened,
            STROKES=STROKES,
        )
    )


def _base_words(found: Lineage, node: Node) -> str:
    base = node.base
    assert base is not None, "asked of bases alone"
    if node.kind == "ghost":
        return f"{base.version}, {'before' if base.number < found.first else 'after'} these"
    said = [base.version, base.state]
    if base.parent is None:
        return f"{', '.join(said)}: the pretrained model"
    said.append(f"fused in round {base.round} onto v{base.parent}")
    said.append(f"of {formats.count(found.counts[base.number], 'contribution')}")
    if base.replays is not None:
        said.append(f"in place of v{base.replays}")
    return ", ".join(said)


def _versions(bases: Sequence[Ancestor]) -> str:
    first, last = bases[0].version, bases[-1].version
    return first if first == last else f"{first} to {last}"


def _base_row(base: Ancestor) -> list[Cell]:
    return [
        "base",
        base.version,
        None if base.parent is None else f"v{base.parent}",
        None,
        base.round,
        None,
        None,
        None,
        None if base.replays is None else f"v{base.replays}",
        base.state,
        formats.iso(base.created_at),
    ]


def _input_row(rounds: dict[int, int | None], item: Input) -> list[Cell]:
    return [
        "contribution",
        item.id,
        f"v{item.made_from}",
        f"v{item.result}",
        rounds[item.result],
        item.contributor,
        item.weight,
        item.staleness,
        None,
        None,
        None,
    ]
