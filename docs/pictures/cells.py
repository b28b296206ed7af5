"""What all pictures of ops share: rows of numbered cells, and lines from the cells that feed to the cell that is fed.

A `Board` is drawn from top to bottom. Forward is blue and above, backward is orange and below; one fed cell of each
stands out with all that feeds it. The numbers are those of the op: `Call` holds them, and tests compare them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.ops import vjp
from handgrad.viz import canvas
from handgrad.viz.canvas import BLUE, INK, ORANGE

UNIT = 0.6  # inches a cell is wide
TALL = 0.62  # a cell's height, in cells
GAP = 1.3  # between a row and the row it feeds
LABEL = 10  # points
STANDS_OUT = 0.3  # the strength of a cell that does; 1 fills it
VIOLET = "#8a63c9"  # what belongs to a parameter


@dataclass(frozen=True)
class Call:
    """One call of an op: what went in, what came out, and the hand-derived gradients of all arrays."""

    name: str
    arrays: tuple[np.ndarray, ...]
    settings: dict[str, Any]
    y: np.ndarray
    dy: np.ndarray
    gradients: tuple[np.ndarray, ...]


@dataclass
class Picture:
    """A figure, the rows of numbers on it in the order drawn, the calls they are from, and the figure in words."""

    figure: Any
    rows: list[tuple[str, np.ndarray]]
    calls: list[Any]
    alt: str

    def save(self, path: Path) -> None:
        """Write the SVG with its words; letters stay text, so that numbers can be searched and read aloud."""
        import matplotlib

        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "handgrad"}):
            metadata = {"Date": None, "Description": self.alt}
            self.figure.savefig(path, format="svg", bbox_inches="tight", pad_inches=0.05, metadata=metadata)


def call(name: str, *arrays: Any, dy: Any, **settings: Any) -> Call:
    """Call an op and its backward rule on float32 copies of the arrays."""
    given = tuple(a if _whole(a) else jnp.asarray(a, jnp.float32) for a in arrays)
    y, backward = vjp(name, *given, **settings)
    gradients = backward(jnp.asarray(dy, jnp.float32).reshape(y.shape))
    numbers = [np.asarray(a) for a in (*given, y)]
    return Call(
        name, tuple(numbers[:-1]), settings, numbers[-1], np.asarray(dy, np.float32).reshape(y.shape),
        tuple(np.asarray(g) for g in gradients),
    )  # fmt: skip


def jacobian(name: str, *arrays: Any, argument: int = 0, **settings: Any) -> np.ndarray:
    """The op's Jacobian (outputs, inputs) by its backward rule: row p is what unit p of dy sends back."""
    given = tuple(a if _whole(a) else jnp.asarray(a, jnp.float32) for a in arrays)
    y, backward = vjp(name, *given, **settings)
    units = np.eye(y.size, dtype=np.float32)
    return np.stack([np.asarray(backward(jnp.asarray(u.reshape(y.shape)))[argument]).ravel() for u in units])


def _whole(array: Any) -> bool:
    """Whether these are masks or winners, which keep their dtype."""
    return isinstance(array, (np.ndarray, jax.Array)) and not jnp.issubdtype(array.dtype, jnp.floating)


def number(value: Any, digits: int = 2) -> str:
    """A number as it stands in a cell: at most two decimals, a true minus, and no minus for 0."""
    text = f"{float(value):.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "0") else text.replace("-", "\N{MINUS SIGN}")


def fraction(value: Any) -> str:
    """A weight beside its line: thirds and quarters as such, which need less room than decimals."""
    glyphs = {1 / 2: "½", 1 / 3: "⅓", 2 / 3: "⅔", 1 / 4: "¼", 3 / 4: "¾"}
    return next((glyph for share, glyph in glyphs.items() if np.isclose(share, float(value))), number(value))


def listed(values: Any) -> str:
    """A row in words: "[1, 2, 3]"."""
    return "[" + ", ".join(number(v) for v in np.ravel(values)) + "]"


def column(values: Any) -> np.ndarray:
    """Numbers along one spatial axis of one example with one channel: (1, n, 1)."""
    return np.asarray(values, np.float32).reshape(1, -1, 1)


@dataclass
class Board:
    """A picture under way, `columns` cells wide."""

    columns: float = 6
    pitch: float = 1.0  # from one cell to the next, above 1 where the lines carry long numbers
    y: float = 0.0
    rows: list[tuple[str, np.ndarray]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)

    def __post_init__(self):
        """Axes whose unit is a cell."""
        self.ax = canvas.canvas(None, 1, 1)
        self.ax.set_axis_off()
        self.ax.set_aspect("equal")

    def heading(self, text: str, colour: str = INK) -> None:
        """A line of text over what follows; it begins a sentence of the words too."""
        self.ax.text(-1.35, self.y + 0.1, text, color=colour, fontsize=LABEL + 0.5, weight="bold", va="bottom")
        self.y -= 0.3
        self.words.append(text.rstrip(".") + ".")

    def row(
        self,
        label: str,
        values: Any,
        *,
        at: float | None = None,
        y: float | None = None,
        colours: dict[int, tuple[str, float]] | None = None,
        split: int | None = None,
    ) -> tuple[np.ndarray, float]:
        """A row of cells with a label on its left; gives the cells' centres in x, and the row's y.

        `colours` fills cells: index to (colour, strength); see `STANDS_OUT`. `split` leaves a gap before that cell,
        where another array begins.
        """
        values = np.ravel(np.asarray(values))
        y = self.y if y is None else y
        gap = 0.0 if split is None else 0.6
        wide = 1 + self.pitch * (len(values) - 1) + gap
        start = (self.columns - wide) / 2 if at is None else at
        centres = start + 0.5 + self.pitch * np.arange(len(values)) + gap * (np.arange(len(values)) >= (split or 0))
        self.ax.text(-0.3, y, label, color=INK, fontsize=LABEL, ha="right", va="center", style="italic")
        for i, (centre, value) in enumerate(zip(centres, values, strict=True)):
            self.cell(centre, y, number(value), (colours or {}).get(i))
        self.rows.append((label, values))
        self.words.append(f"{label} = {listed(values)}.")
        self.y = min(self.y, y - TALL)
        return centres, y

    def cell(self, x: float, y: float, text: str, fill: tuple[str, float] | None = None, width: float = 1.0) -> None:
        """One cell with its text, around (x, y); where it stands out, a frame, for its number must stay legible."""
        from matplotlib.patches import Rectangle

        colour, strength = fill or (INK, 0.0)
        corner, stands_out = (x - width / 2, y - TALL / 2), STANDS_OUT <= strength < 1
        if strength:
            alpha = strength if strength == 1 else min(strength, 0.16)
            self.ax.add_patch(Rectangle(corner, width, TALL, facecolor=colour, alpha=alpha, linewidth=0))
        frame = (
            {"edgecolor": colour, "linewidth": 2, "zorder": 3} if stands_out else {"edgecolor": INK, "linewidth": 0.9}
        )
        self.ax.add_patch(Rectangle(corner, width, TALL, fill=False, **frame))
        weight = "bold" if stands_out else "normal"
        self.ax.text(x, y, text, color=INK, fontsize=LABEL, ha="center", va="center", weight=weight)

    def flow(
        self,
        above: tuple[str, Any],
        below: tuple[str, Any],
        weights: np.ndarray,
        focus: int,
        colour: str,
        *,
        reach: np.ndarray | None = None,
        labels: bool = True,
        at: tuple[float | None, float | None] = (None, None),
        splits: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """Two rows and the lines between: cell b below is fed by those a above with weights[b, a].

        Lines of weight 0 that `reach` has (a tap of 0, a loser of its window) are dotted. The one cell `focus` below
        and all that feeds it stand out, and with `labels` its lines carry their weights.
        """
        lines = weights != 0 if reach is None else (weights != 0) | reach
        fed = {int(a): (colour, 0.12) for a in np.flatnonzero(weights[focus])}
        tops, top = self.row(*above, at=at[0], colours=fed, split=splits[0])
        self.y = top - TALL - GAP
        bottoms, bottom = self.row(*below, at=at[1], colours={focus: (colour, 0.34)}, split=splits[1])
        for b, a in sorted(np.argwhere(lines).tolist(), key=lambda edge: edge[0] == focus):
            self._line(tops[a], top - TALL / 2, bottoms[b], bottom + TALL / 2, weights[b, a], b == focus, colour)
        said = []
        for a in np.flatnonzero(lines[focus]):
            weight = weights[focus, a]
            if labels:
                x = tops[a] + 0.3 * (bottoms[focus] - tops[a])
                z = top - TALL / 2 - 0.3 * GAP
                side = "right" if tops[a] < bottoms[focus] - 0.2 else "left"
                clear = 0.08 + 0.13 * abs(bottoms[focus] - tops[a]) / GAP  # a flat line needs more
                gap = -clear if side == "right" else clear
                text = "×" + fraction(weight)
                self.ax.text(x + gap, z, text, color=colour, fontsize=LABEL - 1, ha=side, va="center")
            if weight:
                said.append(f"{above[0]}[{a}]" + (f" times {fraction(weight)}" if labels and weight != 1 else ""))
        verb = "takes" if labels else "is fed by"
        self.words.append(f"{below[0]}[{focus}] {verb} {' plus '.join(said) or 'nothing'}.")

    def _line(self, x0, y0, x1, y1, weight, stands_out, colour) -> None:
        """One line, dotted where nothing goes along it, with an arrow where it stands out."""
        style = "-" if weight else (0, (1, 2))
        if stands_out and weight:
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
            self.ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        else:
            width, alpha = (1.4, 0.9) if stands_out else (0.8, 0.45 if weight else 0.6)
            self.ax.plot([x0, x1], [y0, y1], color=colour if stands_out else INK, ls=style, lw=width, alpha=alpha)

    def both_ways(
        self,
        call: Call,
        matrix: np.ndarray,
        *,
        out: int,
        into: int,
        names: tuple[str, str] = ("x", "y"),
        forward: str = "forward",
        backward: str = "backward",
        arguments: tuple[int, ...] = (0,),
        labels: tuple[bool, bool] = (True, True),
        reach: np.ndarray | None = None,
        at: tuple[float | None, float | None] = (None, None),
        split: int | None = None,
    ) -> None:
        """Forward and below it backward, the same lines turned over: y[out] and dx[into] stand out.

        The matrix is the Jacobian (outputs, inputs); `arguments` says which arrays stand side by side in the row of x.
        `labels` writes its entries forward and backward; forward only those of a linear op say how y is made.
        """
        x, y = names
        self.calls.append(call)
        given, sent = (np.concatenate([some[i].ravel() for i in arguments]) for some in (call.arrays, call.gradients))
        self.heading(forward, BLUE)
        splits = (split, None)
        self.flow((x, given), (y, call.y), matrix, out, BLUE, labels=labels[0], reach=reach, at=at, splits=splits)
        self.space()
        self.heading(backward, ORANGE)
        turned = {"reach": None if reach is None else reach.T, "at": at[::-1], "splits": splits[::-1]}
        self.flow(
            ("d" + y, call.dy), ("d" + x.replace(", ", ", d"), sent), matrix.T, into, ORANGE, labels=labels[1], **turned
        )

    def note(self, text: str, colour: str = INK, at: float = -1.35, size: float = LABEL - 1) -> None:
        """A line of text in the picture; it is a sentence of the words too."""
        self.ax.text(at, self.y, text, color=colour, fontsize=size, va="center")
        self.y -= 0.45
        self.words.append(text.rstrip(".") + ".")

    def space(self, amount: float = 0.55) -> None:
        """Leave some room."""
        self.y -= amount

    def done(self, about: str) -> Picture:
        """The finished picture: the figure takes the size of what is on it."""
        left, right, low = -1.75, self.columns + 0.15, self.y
        self.ax.set_xlim(left, right)
        self.ax.set_ylim(low, 0.75)
        figure: Any = self.ax.figure
        figure.set_layout_engine("none")
        figure.set_size_inches((right - left) * UNIT, (0.75 - low) * UNIT)
        self.ax.set_position((0, 0, 1, 1))
        return Picture(figure, self.rows, self.calls, " ".join([about.rstrip(".") + ".", *self.words]))
