"""A diagram of a net: its layers with their shapes, and both ways through them, forward and backward."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handgrad.insight.summary import Summary, summary
from handgrad.layers.layer import Layer, Shape, check_is_layer
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described, matplotlib, without_axis
from handgrad.viz.net_layout import CELL, GLYPH, LINE, PLAIN, RADIUS, Box, Leaf, Point, flow, parts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PURPLE = "#8f6cc0"  # layers that learn
APART = 0.035  # half the distance of the forward and the backward arrow, inches
JOINS = {"copy": "+", "add": "+", "multiply": "×", "concatenate": "‖"}
MARGIN, LEGEND, TITLE = 0.05, 0.2, 0.22  # around the drawing, below it, and for each line of the title
PAGE, TALLEST = 7.2, 23.0  # inches: the width, and the height above which it is wider


def net(layer: Layer, in_shape: Shape, ax: "Axes | None" = None, *, width: float | None = None) -> "Axes":
    """Draw a net's layers, each with the tensor it gives, and the arrows of both passes: forward blue, backward orange.

    A block is as wide and high as its tensor's image and as deep as its channels, on scales that flatten; a bar is a
    tensor without an image. Purple layers learn; the line below one is its share of all parameters. Where branches
    part, x is copied and their gradients are summed (an orange +); where they are summed (a blue +), dy is copied: the
    two are dual. Nothing is computed or allocated.

    Args:
        layer: any layer, a whole net as a rule.
        in_shape: the shape of an input, without the batch axis.
        ax: where to draw, the text in proportion; None makes a Figure.
        width: of a new Figure, in inches: 3.5 is a column's. It is wider where branches do not fit. None is a page's
            7.2, and more for a deep net, so that it is at most about two feet high.

    Returns:
        The Axes.

    Raises:
        ImportError: without matplotlib.
        TypeError: something that is no layer.
        ValueError: an in_shape that does not fit the net, or a width below 2.

    Example:
        >>> import handgrad as hg
        >>> hg.viz.net(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(10)), (8, 8, 1)).get_title()
        'dense1 holds 98.5 % of 2,610 parameters'
    """
    check_is_layer(layer, "viz.net")
    if width is not None and not width >= 2:
        raise ValueError(f"viz.net: width must be at least 2 inches, got {width!r}")
    counted = summary(layer, in_shape)
    layers = [row for row in counted.rows if row.kind]
    parts = parts_of(layer, {row.name: row for row in layers})
    lines = PLAIN + any("/" in row.name for row in layers)
    ends = Leaf("input", tuple(in_shape), kind="input"), Leaf("loss", (), kind="loss")
    room = (width or PAGE) - 2 * MARGIN
    drawing = flow((ends[0], *parts, ends[1]), room, lines)
    while width is None and drawing.above + drawing.below > max(TALLEST, room):
        room *= 1.2
        drawing = flow((ends[0], *parts, ends[1]), room, lines)
    sheet = _sheet(ax, drawing, counted, [tuple(in_shape), *(row.out_shape for row in layers)], lines)
    for mark in sorted(drawing.moved(MARGIN, drawing.above + MARGIN), key=lambda mark: mark.kind != "frame"):
        {"cell": _cell, "node": _node, "wire": _wire, "frame": _frame, "label": _label}[mark.kind](sheet, *mark[1:])
    _legend(sheet)
    return described(
        sheet.ax,
        f"Diagram of a net of {_layers(len(layers))}, from input {_shape(in_shape)} to "
        f"{_shape(layers[-1].out_shape) if layers else 'loss'}, arrows forward above and backward below",
    )


@dataclass(frozen=True)
class _Sheet:
    """Where to draw, and the scales.

    Sizes are in inches of the drawing: `scale` of the Axes' inches make one, and text is in proportion. `side` and
    `channels` are the largest of all tensors, `parameters` those of all layers, `lines` the lines of text in a card.
    """

    ax: "Axes"
    width: float
    height: float
    side: int
    channels: int
    parameters: int
    scale: float
    lines: int

    def text(self, x: float, y: float, words: str, size: float, colour: str = INK, room: float = CELL, **style: Any):
        """Words of a size in points, or of the size at which they fit into the room."""
        wide = 0.66 if style.get("weight") == "bold" else 0.6  # of a letter, in ems, at most on average
        fitting = 72 * (room - 0.04) / (wide * max(len(words), 1))
        settings = {"ha": "center", "va": "center", "color": colour, "fontsize": min(size, fitting) * self.scale}
        return self.ax.text(x, y, words, **settings | style)


def _sheet(ax: "Axes | None", drawing: Box, counted: Summary, shapes: list[Shape], lines: int) -> _Sheet:
    """The Axes with one unit an inch, y downward, and the scales."""
    width, height = drawing.width + 2 * MARGIN, drawing.above + drawing.below + 2 * MARGIN + LEGEND
    title = textwrap.fill(_finding(counted), max(int(width * 72 / (11 * 0.62)), 8))
    head = TITLE * (1 + title.count("\n")) + 0.08
    own = ax is None
    ax = canvas(ax, width, height + head)
    figure: Any = ax.figure
    if own:
        figure.set_layout_engine("none")
        ax.set_position((0.0, 0.0, 1.0, height / (height + head)))
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", title=title)
    without_axis(ax)
    box = ax.get_window_extent()
    scale = min(box.width / width, box.height / height) / figure.dpi
    side = max((max(shape[:-1]) for shape in shapes if len(shape) > 1), default=1)
    channels = max((shape[-1] for shape in shapes if shape), default=1)
    return _Sheet(ax, width, height, side, channels, counted.parameters, scale, lines)


def _cell(sheet: _Sheet, points: tuple[Point, ...], leaf: Leaf) -> None:
    """A card with the tensor's picture, name, shape, parameters, and the layer's share of them as a line."""
    patches = matplotlib("patches")
    (x, y), left = points[0], points[0][0] - CELL / 2
    height = 2 * GLYPH + sheet.lines * LINE + 0.05
    card = patches.FancyBboxPatch(
        (left, y - GLYPH), CELL, height, "round,pad=0,rounding_size=0.06", facecolor=INK, alpha=0.09, linewidth=0
    )
    sheet.ax.add_patch(card)
    prefix, _, name = leaf.path.rpartition("/")
    line = y + GLYPH + LINE / 2
    if sheet.lines > PLAIN:
        sheet.text(x, line, prefix and prefix + "/", 5)
        line += LINE
    colour = PURPLE if leaf.parameters else INK
    sheet.text(x, line, name, 7, colour, weight="bold", gid=leaf.path)
    if leaf.kind == "loss":
        _turn(sheet, x, y)
        return
    _tensor(sheet, x, y, leaf.shape, colour, filled=leaf.kind == "layer")
    sheet.text(x, line + LINE, _shape(leaf.shape), 6.5)
    if leaf.parameters:
        share = leaf.parameters / sheet.parameters
        percent = f" · {100 * share:.0f} %" if share >= 0.005 else ""
        sheet.text(x, line + 2 * LINE, f"{leaf.parameters:,}{percent}", 6, PURPLE)
        bottom = y - GLYPH + height - 0.015
        for length, strength in ((1.0, 0.25), (share, 1.0)):
            ends = [left + 0.05, left + 0.05 + length * (CELL - 0.1)]
            sheet.ax.plot(ends, [bottom] * 2, color=PURPLE, alpha=strength, linewidth=2 * sheet.scale,
                          solid_capstyle="butt")  # fmt: skip


def _turn(sheet: _Sheet, x: float, y: float) -> None:
    """The loss: where forward ends, backward begins."""
    arc = matplotlib("patches").Arc
    for first, last, colour in ((180, 360, BLUE), (0, 180, ORANGE)):  # y goes down
        sheet.ax.add_patch(
            arc((x, y), 0.36, 0.36, theta1=first, theta2=last, color=colour, linewidth=1.1 * sheet.scale)
        )
    sheet.text(x, y, "L", 12, style="italic", family="serif", va="center_baseline")


def _tensor(sheet: _Sheet, x: float, y: float, shape: Shape, colour: str, filled: bool) -> None:
    """A block whose front is the image and whose depth the channels, or a bar for a tensor without an image."""
    patches = matplotlib("patches")
    *image, channels = shape or (1,)
    flat = math.log1p(channels) / math.log1p(sheet.channels)
    if image:
        height, width = (max(0.36 * math.cbrt(size / sheet.side), 0.04) for size in (image[0], image[-1]))
        width = 0.06 if len(image) == 1 else width
        depth = 0.05 + 0.2 * flat
    else:
        height, width, depth = 0.08 + 0.4 * flat, 0.055, 0.045
    dx, dy = 0.8 * depth, 0.45 * depth
    left, top = x - (width + dx) / 2, y - (height - dy) / 2
    right, bottom = left + width, top + height
    front = [(left, top), (right, top), (right, bottom), (left, bottom)]
    roof = [(left, top), (left + dx, top - dy), (right + dx, top - dy), (right, top)]
    flank = [(right, top), (right + dx, top - dy), (right + dx, bottom - dy), (right, bottom)]
    for face, strength in ((front, 0.55), (roof, 0.3), (flank, 0.8)):
        inside = matplotlib("colors").to_rgba(colour, strength if filled else 0.0)
        sheet.ax.add_patch(
            patches.Polygon(face, facecolor=inside, edgecolor=colour, linewidth=0.7 * sheet.scale, joinstyle="round")
        )


def _wire(sheet: _Sheet, points: tuple[Point, ...], what: None) -> None:
    """Forward at the left hand of its way, which is above where it goes right, and backward at the other."""
    _arrow(sheet, _aside(points, APART), BLUE)
    _arrow(sheet, _aside(points, -APART)[::-1], ORANGE)


def _arrow(sheet: _Sheet, points: list[Point], colour: str) -> None:
    """A line with rounded corners and a head at its end."""
    path, patches = matplotlib("path").Path, matplotlib("patches")
    corners, codes, round_by = [points[0]], [path.MOVETO], 0.05
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        corners += [_towards(corner, before, round_by), corner, _towards(corner, after, round_by)]
        codes += [path.LINETO, path.CURVE3, path.CURVE3]
    sheet.ax.add_patch(
        patches.FancyArrowPatch(
            path=path([*corners, points[-1]], [*codes, path.LINETO]),
            arrowstyle="-|>,head_length=0.5,head_width=0.25",
            mutation_scale=7 * sheet.scale,
            color=colour,
            linewidth=1.1 * sheet.scale,
            shrinkA=0,
            shrinkB=0,
            joinstyle="miter",
            capstyle="butt",
        )  # fmt: skip
    )


def _towards(point: Point, other: Point, length: float) -> Point:
    """A point at a distance from one on the way to another, at most half of it."""
    distance = math.dist(point, other) or 1.0
    part = min(length / distance, 0.5)
    return point[0] + part * (other[0] - point[0]), point[1] + part * (other[1] - point[1])


def _aside(points: tuple[Point, ...], by: float) -> list[Point]:
    """The line moved to its left by so much; its pieces lie along the axes."""
    normals = []
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        length = abs(x1 - x0) + abs(y1 - y0) or 1.0
        normals.append(((y1 - y0) / length, -(x1 - x0) / length))
    ways = [[normals[0]], *([a, b] for a, b in zip(normals, normals[1:], strict=False)), [normals[-1]]]
    return [
        (x + by * sum(n[0] for n in way), y + by * sum(n[1] for n in way))
        for (x, y), way in zip(points, ways, strict=True)
    ]


def _node(sheet: _Sheet, points: tuple[Point, ...], join: str) -> None:
    """A circle with what happens there: at a fork backward's sum, at a join forward's."""
    colour = ORANGE if join == "copy" else BLUE
    sheet.ax.add_patch(
        matplotlib("patches").Circle(points[0], RADIUS, facecolor="none", edgecolor=colour, linewidth=sheet.scale)
    )
    sheet.text(*points[0], JOINS[join], 8, colour, va="center_baseline")


def _frame(sheet: _Sheet, points: tuple[Point, ...], label: str) -> None:
    """A dashed frame around branches, with their name."""
    (left, top), (right, bottom) = points
    sheet.ax.add_patch(
        matplotlib("patches").FancyBboxPatch(
            (left, top),
            right - left,
            bottom - top,
            "round,pad=0,rounding_size=0.08",
            facecolor="none",
            edgecolor=INK,
            alpha=0.6,
            linestyle=(0, (3, 2)),
            linewidth=0.7 * sheet.scale,
        )  # fmt: skip
    )
    sheet.text(left + 0.08, top + 0.1, label, 6.5, room=right - left - 0.16, ha="left", style="italic")


def _label(sheet: _Sheet, points: tuple[Point, ...], words: str) -> None:
    sheet.text(points[0][0], points[0][1] + 0.11, words, 5.5)


def _legend(sheet: _Sheet) -> None:
    """What the colours say, in them."""
    y, room = sheet.height - 0.1, sheet.width / 3
    words = ("→ forward: values", BLUE, MARGIN, "left"), ("← backward: gradients", ORANGE, sheet.width / 2, "center")
    size = min(6.5, 72 * room / (0.6 * len(words[1][0])))
    for text, colour, x, side in (*words, ("layers that learn", PURPLE, sheet.width - MARGIN, "right")):
        sheet.text(x, y, text, size, colour, sheet.width, ha=side)


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count != 1 else ''}"


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a number"


def _finding(counted: Summary) -> str:
    """Where most parameters are: the one layer that has more than half, else the kind of layers that has most."""
    rows = [row for row in counted.rows if row.parameters]
    if not rows:
        return f"{_layers(len([row for row in counted.rows if row.kind]))}, without a parameter to learn"
    kinds: dict[str, list] = defaultdict(list)
    for row in rows:
        kinds[row.kind].append(row)
    kind, most = max(kinds.items(), key=lambda item: sum(row.parameters for row in item[1]))
    who = f"{most[0].name} holds" if len(most) == 1 else f"{len(most)} {kind} layers hold"
    share = 100 * sum(row.parameters for row in most) / counted.parameters
    return f"{who} {f'{share:.1f} % of' if len(most) < len(rows) else 'all'} {counted.parameters:,} parameters"
