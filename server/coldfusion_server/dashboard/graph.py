"""
A model's lineage to geometry. Pure: what is drawn with it is the templates' business.

Bases stand in columns by their number. The head's line is straight; what branches off runs on a
track of its own below it. Each contributor has a lane below the tracks; a contribution stands in
it, left of the base that it went into. What would be too many is bundled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from coldfusion_server.services.lineage import Ancestor, Input, Lineage

NodeKind = Literal["base", "ghost", "contribution", "bundle", "contributor"]
EdgeKind = Literal["parent", "made_from", "into", "by"]
Point = tuple[float, float]

# The drawing's own units; without zoom, pixels.
COLUMN, TRACK, ROW = 128.0, 58.0, 26.0
LEFT, RIGHT, TOP, BOTTOM = 132.0, 96.0, 40.0, 24.0
# Of the first column's base: its contributions stand left of it.
INSET = 96.0
LANES_GAP = 22.0
BASE = (52.0, 30.0)
GHOST = (48.0, 24.0)
DOT = (16.0, 16.0)
BUNDLE = (46.0, 20.0)
NAME = (112.0, 22.0)
# Corners of lines, and how far those that leave a base are from those that arrive.
CORNER, APART, ABOVE = 9.0, 9.0, 11.0
THIN, THICK = 1.25, 7.0
# A base of more contributions has them in one bundle; of one contributor's, so many stand apart.
MANY, OF_ONE = 12, 3
# Contributors with lanes of their own.
LANES = 16


@dataclass(frozen=True)
class Node:
    """
    Something to follow: a rectangle around its middle.

    Attributes:
        key: what tells it from all others.
        kind: what it is; a ghost is a base outside of the range.
        x, y: its middle.
        size: width and height.
        base: the base that it is.
        inputs: the contributions that it is, or of which it is the contributor.
        label: what is written on it.
    """

    key: str
    kind: NodeKind
    x: float
    y: float
    size: tuple[float, float]
    base: Ancestor | None = None
    inputs: tuple[Input, ...] = ()
    label: str = ""

    @property
    def left(self) -> float:
        """Its left end."""
        return self.x - self.size[0] / 2

    @property
    def right(self) -> float:
        """Its right end."""
        return self.x + self.size[0] / 2

    @property
    def top(self) -> float:
        """Its upper end."""
        return self.y - self.size[1] / 2

    @property
    def bottom(self) -> float:
        """Its lower end."""
        return self.y + self.size[1] / 2

    @property
    def staleness(self) -> int:
        """How far behind the latest of its contributions was."""
        return max((item.staleness for item in self.inputs), default=0)


@dataclass(frozen=True)
class Edge:
    """
    A line from one node to another.

    Attributes:
        kind: what it says.
        source, target: keys of nodes; empty: it comes from, or goes, outside of the range.
        path: for SVG.
        points: those that the path is made of, its corners among them.
        width: of the line.
        late: whether what it carries was made from an older base.
        abandoned: whether it leads to a base that the head does not come from.
    """

    kind: EdgeKind
    source: str
    target: str
    path: str
    points: tuple[Point, ...]
    width: float = THIN
    late: bool = False
    abandoned: bool = False


@dataclass(frozen=True)
class Graph:
    """A drawing of a range of bases; what comes first lies below."""

    width: float
    height: float
    nodes: list[Node]
    edges: list[Edge]

    def of(self, kind: NodeKind) -> list[Node]:
        """Return the nodes of one kind."""
        return [node for node in self.nodes if node.kind == kind]


@dataclass
class _Drawing:
    """What is drawn so far."""

    lineage: Lineage
    tracks: dict[int, int]
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    @property
    def columns(self) -> dict[int, float]:
        """Where the columns are, by the numbers of the bases."""
        return {
            base.number: LEFT + INSET + COLUMN * index
            for index, base in enumerate(self.lineage.shown)
        }

    def add(self, node: Node) -> Node:
        """Add a node, and return it."""
        self.nodes[node.key] = node
        return node


def graph(lineage: Lineage) -> Graph:
    """Return the drawing of a lineage's range."""
    drawing = _Drawing(lineage, _packed(tracks(lineage.bases), lineage))
    lowest = _draw_bases(drawing)
    lowest = _draw_contributions(drawing, lowest + LANES_GAP)
    width = max(drawing.columns.values()) + RIGHT
    return Graph(width, lowest + BOTTOM, list(drawing.nodes.values()), drawing.edges)


def tracks(bases: Sequence[Ancestor]) -> dict[int, int]:
    """
    Return on which track each base stands, by number: 0 for the head's line.

    A branch has its track from behind the base where it begins to its last base, so that no two
    lines run over each other.
    """
    found = {base.number: 0 for base in bases if not base.abandoned}
    by_number = {base.number: base for base in bases}
    ends: list[int] = []
    for base in bases:
        if base.number in found:
            continue
        chain = _chain(base, bases, found)
        begin = base.number if base.parent is None else base.parent + 1
        track = next((i for i, end in enumerate(ends) if end < begin), len(ends))
        ends[track : track + 1] = [chain[-1]]
        found |= dict.fromkeys(chain, track + 1)
    assert found.keys() == by_number.keys()
    return found


def _chain(first: Ancestor, bases: Sequence[Ancestor], placed: Iterable[int]) -> list[int]:
    """Return a branch from its first base on: of several children the first one goes on."""
    taken, chain = set(placed), [first.number]
    for base in bases:
        if base.parent == chain[-1] and base.number not in taken:
            chain.append(base.number)
    return chain


def _packed(placed: dict[int, int], lineage: Lineage) -> dict[int, int]:
    """Leave out the tracks on which nothing of the range is seen."""
    seen = {0}
    for base in lineage.bases:
        begin = base.number if base.parent is None else base.parent
        if begin <= lineage.last and base.number >= lineage.first:
            seen.add(placed[base.number])
    places = {track: index for index, track in enumerate(sorted(seen))}
    return {number: places.get(track, 0) for number, track in placed.items()}


def _draw_bases(drawing: _Drawing) -> float:
    """Draw bases and what leads from one to another; return how far down they go."""
    lineage, columns = drawing.lineage, drawing.columns
    for base in lineage.shown:
        y = _track_y(drawing, base.number)
        drawing.add(
            Node(base.version, "base", columns[base.number], y, BASE, base, label=base.version)
        )
    for base in lineage.bases:
        if base.parent is not None:
            _draw_parent(drawing, base, base.parent)
    deepest = max(node.bottom for node in drawing.nodes.values())
    lines = [y for edge in drawing.edges for _, y in edge.points]
    return max([deepest, *lines])


def _track_y(drawing: _Drawing, number: int) -> float:
    return TOP + TRACK * drawing.tracks[number]


def _draw_parent(drawing: _Drawing, base: Ancestor, parent: int) -> None:
    first, last = drawing.lineage.first, drawing.lineage.last
    if base.number < first or parent > last:
        return
    y = _track_y(drawing, base.number)
    right = max(drawing.columns.values()) + RIGHT - GHOST[0] / 2 - 4
    source = drawing.nodes.get(f"v{parent}") or _ghost(drawing, parent, GHOST[0] / 2 + 6, y)
    target = drawing.nodes.get(base.version) or _ghost(drawing, base.number, right, y)
    points = [(source.right, source.y)]
    if source.y == y:
        path = f"M{_at(points[0])}H{target.left:g}"
    else:
        # Onto its track at once, so that it crosses no column on another one's.
        turn = source.right + COLUMN / 4
        points += [(turn, source.y), (turn, y), (source.right + COLUMN / 2, y)]
        path = f"M{_at(points[0])}C{_at(points[1])} {_at(points[2])} {_at(points[3])}"
        path += f"H{target.left:g}"
    points.append((target.left, y))
    drawing.edges.append(
        Edge("parent", source.key, target.key, path, tuple(points), 2.5, abandoned=base.abandoned)
    )


def _ghost(drawing: _Drawing, number: int, x: float, y: float) -> Node:
    """Return a base outside of the range at its edge; two lines to it from two tracks have two."""
    base = next(one for one in drawing.lineage.bases if one.number == number)
    key = f"v{number}@{x:g},{y:g}"
    return drawing.add(Node(key, "ghost", x, y, GHOST, base, label=base.version))


@dataclass(frozen=True)
class _Group:
    """Contributions that are drawn as one, in a lane; its own lane is that of all the others."""

    lane: str | None
    inputs: tuple[Input, ...]
    bundled: bool


def _draw_contributions(drawing: _Drawing, top: float) -> float:
    """Draw the lanes and what stands in them; return how far down they go."""
    groups = _groups(drawing.lineage.inputs)
    lanes = list(dict.fromkeys(group.lane for group in groups if group.lane is not None))
    order: list[str | None] = [*lanes, *([None] if any(g.lane is None for g in groups) else [])]
    heaviest = max((_weight(group) or 0.0 for group in groups), default=0.0)
    for lane in order:
        mine = [group for group in groups if group.lane == lane]
        cells: Counter[int] = Counter()
        drawn: list[Node] = []
        for group in mine:
            result = group.inputs[0].result
            y = top + ROW * (cells[result] + 0.5)
            cells[result] += 1
            drawn.append(_draw_group(drawing, group, y, heaviest))
        if lane is not None:
            _draw_lane(drawing, lane, top + ROW / 2, mine, drawn)
        top += ROW * max(cells.values())
    return top


def _draw_group(drawing: _Drawing, group: _Group, y: float, heaviest: float) -> Node:
    first = group.inputs[0]
    x = drawing.columns[first.result] - COLUMN / 2
    number = len(group.inputs)
    node = Node(
        # A replay fuses the same contribution into another base.
        f"{first.id} in v{first.result}",
        "bundle" if group.bundled else "contribution",
        x,
        y,
        BUNDLE if group.bundled else DOT,
        inputs=group.inputs,
        label=f"{number:,}" if group.bundled else "",
    )
    drawing.add(node)
    _draw_origin(drawing, node, first.made_from)
    _draw_into(drawing, node, f"v{first.result}", _width(_weight(group), heaviest))
    return node


def _draw_origin(drawing: _Drawing, node: Node, made_from: int) -> None:
    """Draw a line from the base that something was made from, or a stub from the left."""
    late = node.staleness > 0
    # What is late may pass what stands in the same lane: above it.
    y = node.y - ABOVE if late else node.y
    source = drawing.nodes.get(f"v{made_from}")
    if source is None:
        points = [(node.left - 16.0, y), (node.left, node.y)]
        path = f"M{_at(points[0])}L{_at(points[1])}"
        key = ""
    else:
        x = source.x + APART
        points = [(x, source.bottom), (x, y - CORNER), (x, y), (x + CORNER, y)]
        path = f"M{_at(points[0])}V{y - CORNER:g}Q{_at(points[2])} {_at(points[3])}"
        if late:
            points += [(node.left - CORNER, y)]
            path += f"H{node.left - CORNER:g}"
        points.append((node.left, node.y))
        path += f"L{_at(points[-1])}"
        key = source.key
    drawing.edges.append(Edge("made_from", key, node.key, path, tuple(points), late=late))


def _draw_into(drawing: _Drawing, node: Node, result: str, width: float) -> None:
    target = drawing.nodes[result]
    x = target.x - APART
    points = (
        (node.right, node.y),
        (x - CORNER, node.y),
        (x, node.y),
        (x, node.y - CORNER),
        (x, target.bottom),
    )
    path = f"M{_at(points[0])}H{points[1][0]:g}Q{_at(points[2])} {_at(points[3])}V{target.bottom:g}"
    late = node.staleness > 0
    drawing.edges.append(Edge("into", node.key, target.key, path, points, width, late))


def _draw_lane(
    drawing: _Drawing, name: str, y: float, groups: Sequence[_Group], nodes: Sequence[Node]
) -> None:
    """Draw a contributor's name, and a line to what he or she has made."""
    inputs = tuple(item for group in groups for item in group.inputs)
    key = f"by {name}"
    label = drawing.add(
        Node(key, "contributor", 6 + NAME[0] / 2, y, NAME, inputs=inputs, label=name)
    )
    trunk = label.right + 6
    for node in nodes:
        points = [(label.right, y), (trunk, y), (trunk, node.y), (node.left, node.y)]
        path = f"M{_at(points[0])}H{trunk:g}V{node.y:g}H{node.left:g}"
        drawing.edges.append(Edge("by", key, node.key, path, tuple(points)))


def _groups(inputs: Sequence[Input]) -> list[_Group]:
    """Return what is drawn as one: bundles of bases that have many, and single contributions."""
    per_base = Counter(item.result for item in inputs)
    apart = [item for item in inputs if per_base[item.result] <= MANY]
    named = _named(apart)
    cells: dict[tuple[str | None, int, int], list[Input]] = {}
    for item in inputs:
        lane = item.contributor if item.contributor in named else None
        if per_base[item.result] > MANY:
            lane = None
        cells.setdefault((lane, item.result, item.made_from), []).append(item)
    crowded = Counter((lane, result) for (lane, result, _), found in cells.items() for _ in found)
    groups: list[_Group] = []
    for (lane, result, _), found in cells.items():
        if lane is None or crowded[lane, result] > OF_ONE:
            groups.append(_Group(lane, tuple(found), bundled=True))
        else:
            groups += [_Group(lane, (item,), bundled=False) for item in found]
    return sorted(groups, key=lambda group: _rank(named, group))


def _named(inputs: Sequence[Input]) -> dict[str, int]:
    """Return who has a lane, and which: who made most comes first, then who came first."""
    made = Counter(item.contributor for item in inputs)
    order = {name: index for index, name in enumerate(made)}
    first = sorted(made, key=lambda name: (-made[name], order[name]))[:LANES]
    return {name: index for index, name in enumerate(first)}


def _rank(named: dict[str, int], group: _Group) -> tuple[int, int, int]:
    lane = len(named) if group.lane is None else named[group.lane]
    return lane, group.inputs[0].result, -group.inputs[0].made_from


def _weight(group: _Group) -> float | None:
    known = [item.weight for item in group.inputs if item.weight is not None]
    return sum(known) if known else None


def _width(weight: float | None, heaviest: float) -> float:
    """Return how thick a line is: what weighs most is thickest."""
    if weight is None or heaviest <= 0:
        return THIN
    return round(THIN + (THICK - THIN) * max(0.0, weight) / heaviest, 2)


def _at(point: Point) -> str:
    return f"{point[0]:g} {point[1]:g}"
