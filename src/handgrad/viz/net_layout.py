"""Where the parts of a net's diagram lie: cells in lines, branches as lanes between a fork and a join, wires between.

Lengths are inches, y goes down. As letters make words and words lines, each part is a box around a line of flow at
y = 0: it says how far it reaches, where wires come in and go out, and what marks lie in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from handgrad.insight.leaves import is_open
from handgrad.insight.summary import SummaryRow
from handgrad.layers.branches import Branching, Parallel
from handgrad.layers.container import Container
from handgrad.layers.layer import Layer, Shape

CELL, GAP = 0.79, 0.19  # the width of a layer's card, and the least length of a wire
GLYPH, LINE = 0.31, 0.125  # half the height of a tensor's picture, the height of a line of text
FORK, RADIUS = 0.34, 0.075  # the room for a fork, and of its circle
LANE, GUTTER, TURN, LABEL = 0.1, 0.3, 0.19, 0.2  # between lanes, between lines, beside lines, above a frame's content
PLAIN = 3  # lines of text in a card: name, shape, parameters; a path's beginning is one more

Point = tuple[float, float]


class Leaf(NamedTuple):
    """A layer's card: its path, the shape of its output, how many numbers it learns; likewise of input and loss."""

    path: str
    shape: Shape
    parameters: int = 0
    kind: Literal["layer", "input", "loss"] = "layer"


class Branches(NamedTuple):
    """Lanes over one input; an empty one is the identity."""

    path: str
    join: str
    lanes: tuple[tuple["Leaf | Branches", ...], ...]


Part = Leaf | Branches


class Mark(NamedTuple):
    """Something to draw: its points and what it is about.

    cell: its centre, a `Leaf`. node: its centre, "copy" or how branches join. wire: the way of forward. frame: two
    corners, its label. label: a place, its text.
    """

    kind: Literal["cell", "node", "wire", "frame", "label"]
    points: tuple[Point, ...]
    what: Any = None


@dataclass(frozen=True)
class Box:
    """Marks around a line of flow: x from 0 to width, y from -above to below; start and end are for wires."""

    width: float
    above: float
    below: float
    start: Point
    end: Point
    marks: tuple[Mark, ...]

    def moved(self, x: float, y: float) -> tuple[Mark, ...]:
        """Its marks elsewhere."""
        return tuple(mark._replace(points=tuple((px + x, py + y) for px, py in mark.points)) for mark in self.marks)


def parts_of(net: Layer, rows: dict[str, SummaryRow], path: str = "") -> tuple[Part, ...]:
    """A net's layers in order; chains in chains are one flow, and a container of another kind counts as a chain."""
    if not is_open(net):
        row = rows[path or net.name or net.kind]
        return (Leaf(row.name, row.out_shape, row.parameters),)
    lanes = tuple(
        parts_of(layer, rows, f"{path}/{name}" if path else name) for name, layer in cast(Container, net).items()
    )
    if not isinstance(net, Branching):
        return tuple(part for lane in lanes for part in lane)
    join = net.join if isinstance(net, Parallel) else "add"
    return (Branches(path or net.name or net.kind, join, lanes if len(lanes) > 1 or join != "add" else (*lanes, ())),)


def flow(parts: Sequence[Part], limit: float, text: int = PLAIN) -> Box:
    """Parts one after the other, in as few lines of at most `limit` as hold them; a wider part has its own line."""
    boxes = [_branches(part, limit, text) if isinstance(part, Branches) else _cell(part, text) for part in parts]
    lines = [boxes] if _width(boxes) <= limit else _lines(boxes, limit - 2 * TURN)
    margin = TURN if len(lines) > 1 else 0.0
    width = max(_width(line) for line in lines)
    marks: list[Mark] = []
    y, end = 0.0, (0.0, 0.0)
    for number, line in enumerate(lines):
        x = margin
        above, below = max(box.above for box in line), max(box.below for box in line)
        if number:
            turn, y = y, y + above + GUTTER
            start = (x + line[0].start[0], y)
            right, left, middle = end[0] + TURN - 0.03, 0.03, turn + GUTTER / 2
            way = (end, (right, end[1]), (right, middle), (left, middle), (left, y), start)
            marks.append(Mark("wire", way))
        for place, box in enumerate(line):
            if place:
                marks.append(Mark("wire", (end, (x + box.start[0], y))))
            marks += box.moved(x, y)
            end = (x + box.end[0], y + box.end[1])
            x += box.width + GAP
        y += below
    first = lines[0]
    start = (margin + first[0].start[0], 0.0)
    return Box(width + 2 * margin, max(box.above for box in first), y, start, end, tuple(marks))


def _cell(leaf: Leaf, text: int) -> Box:
    below = GLYPH + text * LINE + 0.05
    return Box(CELL, GLYPH, below, (0.0, 0.0), (CELL, 0.0), (Mark("cell", ((CELL / 2, 0.0),), leaf),))


def _branches(part: Branches, limit: float, text: int) -> Box:
    """Lanes below one another, the first on the line of flow; x is copied at the fork, the outputs meet at the join."""
    lanes = [flow(lane, limit - 2 * FORK, text) if lane else None for lane in part.lanes]
    inner = max((lane.width for lane in lanes if lane), default=CELL)
    fork, join = RADIUS + 0.06, inner + 2 * FORK - RADIUS - 0.06
    marks = [Mark("node", ((fork, 0.0),), "copy"), Mark("node", ((join, 0.0),), part.join)]
    above, bottom = 0.0, 0.0
    for number, lane in enumerate(lanes):
        if number == 0:
            y, above = 0.0, lane.above if lane else GLYPH
        else:
            y = bottom + LANE + (lane.above if lane else 0.08)
        out = (fork + RADIUS, 0.0) if number == 0 else (fork, RADIUS)
        into = (join - RADIUS, 0.0) if number == 0 else (join, RADIUS)
        if lane is None:
            marks.append(Mark("wire", _corners(out, (fork, y), (join, y), into)))
            marks.append(Mark("label", (((fork + join) / 2, y),), "identity"))
            bottom = y + 0.12
            continue
        x = FORK + (inner - lane.width) / 2
        start, end = (x + lane.start[0], y + lane.start[1]), (x + lane.end[0], y + lane.end[1])
        back = (join, RADIUS) if end[1] > 0 else into
        marks.append(Mark("wire", _corners(out, (fork, y), start)))
        marks.append(Mark("wire", _corners(end, (join, end[1]), back)))
        marks += lane.moved(x, y)
        bottom = y + lane.below
    above, below, width = above + LABEL, bottom + 0.06, inner + 2 * FORK
    marks.append(Mark("frame", ((0.0, -above + 0.02), (width, below)), part.path))
    return Box(width, above, below, (fork - RADIUS, 0.0), (join + RADIUS, 0.0), tuple(marks))


def _corners(*points: Point) -> tuple[Point, ...]:
    """The points without those that the line passes through straight."""
    kept = [points[0]]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        straight = before[0] == here[0] == after[0] or before[1] == here[1] == after[1]
        kept += [] if straight or here == before else [here]
    return (*kept, points[-1])


def _width(line: Sequence[Box]) -> float:
    return sum(box.width for box in line) + GAP * (len(line) - 1)


def _lines(boxes: Sequence[Box], limit: float) -> list[list[Box]]:
    """Boxes broken into lines, as few as the limit allows, and then as even as that number allows."""
    fewest = _broken(boxes, limit)
    narrow = max(_width(boxes) / len(fewest), max(box.width for box in boxes))
    while narrow < limit and len(_broken(boxes, narrow)) > len(fewest):
        narrow += GAP / 4
    return _broken(boxes, min(narrow, limit)) if narrow < limit else fewest


def _broken(boxes: Sequence[Box], limit: float) -> list[list[Box]]:
    lines: list[list[Box]] = []
    for box in boxes:
        if lines and _width([*lines[-1], box]) <= limit + 1e-9:
            lines[-1].append(box)
        else:
            lines.append([box])
    return lines
