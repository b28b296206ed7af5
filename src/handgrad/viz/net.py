"""A net as a diagram: layers with their shapes, forward and backward arrows, branches one below the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handgrad.insight.leaves import innermost, is_open
from handgrad.insight.summary import Summary, SummaryRow, summary
from handgrad.layers.branches import Residual
from handgrad.layers.container import Chain
from handgrad.layers.layer import Layer, Shape
from handgrad.viz.canvas import BLUE, INK, ORANGE, canvas, described, matplotlib, without_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEP, BOX, HEIGHT, ROW = 1.62, 1.22, 0.72, 1.2  # from box to box, a box's width and height, from row to row
LONGEST = 6  # boxes in a row


Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A layer and where it stands."""

    row: SummaryRow
    left: float
    top: float

    @property
    def right(self) -> float:
        """The x of its right side."""
        return self.left + BOX


@dataclass(frozen=True)
class Part:
    """A piece of the diagram: boxes, arrows from point to point, its size, and the points where arrows come and go."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[Point, Point], ...]
    width: float
    height: float
    entry: tuple[Point, ...]
    leave: tuple[Point, ...]

    def moved(self, right: float, down: float) -> "Part":
        """The same elsewhere."""
        boxes = tuple(Box(box.row, box.left + right, box.top + down) for box in self.boxes)
        arrows = tuple(((a + right, b + down), (c + right, d + down)) for (a, b), (c, d) in self.arrows)
        ends = (tuple((x + right, y + down) for x, y in points) for points in (self.entry, self.leave))
        return Part(boxes, arrows, self.width, self.height, *ends)


def net(layer: Layer, in_shape: Shape, ax: "Axes | None" = None) -> "Axes":
    """Draw the layers of a net with their names, output shapes and parameters; nothing is computed.

    Blue arrows are the forward pass, orange ones the backward pass: each layer is crossed twice. Branches stand one
    below the other; a long net goes on in the next row.

    Args:
        layer: any layer.
        in_shape: the shape of an input, without the batch axis.
        ax: where to draw; None makes a Figure.

    Returns:
        The Axes; its title says how many parameters there are, and where most of them are.

    Raises:
        ImportError: without matplotlib.
        TypeError, ValueError: as `hg.summary`.

    Example:
        >>> import handgrad as hg
        >>> net(hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.Flatten(), hg.Dense(10)), (8, 8, 1)).get_title()
        '2,610 parameters, 98 % of them in dense1'
    """
    found = summary(layer, tuple(in_shape))
    rows = {row.name: row for row in found.rows}
    lines = _lines(layer, rows)
    width = max(line.width for line in lines)
    height = sum(line.height for line in lines)
    ax = canvas(ax, 1.02 * width + 0.5, 0.95 * height + 0.5)
    down, before = 0.0, None
    for line in lines:
        line = line.moved(0.0, down)
        if before is not None:
            _turn(ax, before, line)
        for box in line.boxes:
            _draw_box(ax, box)
        for start, end in line.arrows:
            _draw_arrows(ax, start, end)
        before, down = line, down + line.height
    x = "x".join(map(str, in_shape))
    ax.text(-0.12, lines[0].entry[0][1], f"input\n{x}", ha="right", va="center", fontsize=7, color=ax.title.get_color())
    ax.set(xlim=(-0.95, width + 0.35), ylim=(down - 0.1, -0.2))
    without_axis(ax)
    ax.set_title(_finding(found))
    kinds = ", ".join(row.name for row in found.rows if row.kind)
    return described(ax, f"Diagram of a net of {len(found.rows)} layers: {kinds}")


def _lines(layer: Layer, rows: dict[str, SummaryRow]) -> list[Part]:
    """The net as rows of parts."""
    parts = _parts(layer, "", rows)
    lines, line = [], [parts[0]]
    for part in parts[1:]:
        if sum(p.width for p in line) + part.width > LONGEST * STEP + 0.01:
            lines.append(_side_by_side(line))
            line = []
        line.append(part)
    return [*lines, _side_by_side(line)]


def _parts(layer: Layer, path: str, rows: dict[str, SummaryRow]) -> list[Part]:
    """The parts that follow one another in a layer."""
    if not is_open(layer):
        row = rows[path or layer.name or layer.kind]
        sides = ((0.0, HEIGHT / 2),), ((BOX, HEIGHT / 2),)
        return [Part((Box(row, 0.0, 0.0),), (), STEP, ROW, *sides)]
    children: Any = [(f"{path}/{name}" if path else name, child) for name, child in layer.items()]  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(innermost(layer), Chain):
        return [part for name, child in children for part in _parts(child, name, rows)]
    branches = [_side_by_side(_parts(child, name, rows)) for name, child in children]
    return [_one_below_another(branches, skip=isinstance(layer, Residual) and len(branches) == 1)]


def _side_by_side(parts: list[Part]) -> Part:
    boxes, arrows, x = [], [], 0.0
    placed: list[Part] = []
    for part in parts:
        placed.append(part.moved(x, 0.0))
        x += part.width
    for one, two in zip(placed, placed[1:], strict=False):
        arrows += [(start, end) for start in one.leave for end in two.entry]
    for part in placed:
        boxes += part.boxes
        arrows += part.arrows
    return Part(tuple(boxes), tuple(arrows), x, max(p.height for p in placed), placed[0].entry, placed[-1].leave)


def _one_below_another(branches: list[Part], skip: bool) -> Part:
    """Branches over one input; a residual's identity is an arrow below its body."""
    boxes, arrows, down = [], [], 0.0
    entry, leave = [], []
    width = max(branch.width for branch in branches)
    for branch in branches:
        placed = branch.moved(0.0, down)
        boxes += placed.boxes
        arrows += placed.arrows
        entry, leave = [*entry, *placed.entry], [*leave, *placed.leave]
        down += branch.height
    if skip:
        y = down - ROW + HEIGHT + 0.22
        arrows.append(((0.0, y), (width - STEP + BOX, y)))
        down += 0.3
    return Part(tuple(boxes), tuple(arrows), width, down, tuple(entry), tuple(leave))


def _draw_box(ax: "Axes", box: Box) -> None:
    """A box with name, shape and parameters; layers that learn are filled."""
    patches, learns = matplotlib("patches"), box.row.parameters > 0
    shape = "x".join(map(str, box.row.out_shape))
    face = (*matplotlib("colors").to_rgb(BLUE), 0.18) if learns else "none"
    style = patches.BoxStyle("round", pad=0, rounding_size=0.08)
    ax.add_patch(
        patches.FancyBboxPatch(
            (box.left, box.top), BOX, HEIGHT, boxstyle=style, facecolor=face, edgecolor=INK, linewidth=0.8
        )
    )
    name = box.row.name if len(box.row.name) <= 18 else f"…{box.row.name[-17:]}"
    texts = [(name, 7.5 if len(name) <= 11 else 5.5, True), (shape, 6.5, False)]
    if learns:
        texts.append((f"{box.row.parameters:,}", 6, False))
    for i, (text, size, bold) in enumerate(texts):
        y = box.top + HEIGHT * (i + 0.5 + 0.15 * (3 - len(texts))) / (len(texts) + 0.3 * (3 - len(texts)))
        weight = "bold" if bold else "normal"
        ax.text(
            box.left + BOX / 2,
            y,
            text,
            ha="center",
            va="center",
            fontsize=size,
            weight=weight,
            color=ax.title.get_color(),
        )


def _draw_arrows(ax: "Axes", start: Point, end: Point) -> None:
    """Forward above, backward below."""
    (a, b), (c, d) = start, end
    gap = 0.06
    for colour, tail, head, y in (
        (BLUE, (a + gap, b), (c - gap, d), -0.09),
        (ORANGE, (c - gap, d), (a + gap, b), 0.09),
    ):
        style = {
            "arrowstyle": "-|>",
            "color": colour,
            "linewidth": 1.1,
            "shrinkA": 0,
            "shrinkB": 0,
            "mutation_scale": 7,
        }
        ax.annotate("", xy=(head[0], head[1] + y), xytext=(tail[0], tail[1] + y), arrowprops=style)


def _turn(ax: "Axes", before: Part, after: Part) -> None:
    """From the end of a row to the beginning of the next: thin lines in the gap between them."""
    right, end = before.leave[0]
    edge = max(box.right for box in before.boxes)
    gap = after.boxes[0].top - (ROW - HEIGHT) / 2
    for colour, shift in ((BLUE, -0.05), (ORANGE, 0.05)):
        out, into = end + shift, after.entry[0][1] + shift
        xs = [right + 0.04, edge + 0.2 + shift, edge + 0.2 + shift, -0.2 - shift, -0.2 - shift, -0.04]
        ys = [out, out, gap + shift, gap + shift, into, into]
        ax.plot(xs, ys, color=colour, linewidth=1.0, solid_capstyle="round")


def _finding(found: Summary) -> str:
    """How many parameters there are, and which few layers hold most of them."""
    total = found.parameters
    if not total:
        return "no parameters"
    largest = sorted((row for row in found.rows if row.parameters), key=lambda row: -row.parameters)
    count, held = 0, 0
    while held < 0.9 * total and count < 3:
        held += largest[count].parameters
        count += 1
        if count == len(largest):
            break
    share = f"{100 * held / total:.3g} %"
    if count == 1:
        return f"{total:,} parameters, {share} of them in {largest[0].name}"
    return f"{total:,} parameters, {share} of them in {count} of {len(largest)} layers"
