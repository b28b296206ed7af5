"""What a benchmark found: lines of figures, with the ratio of ours to theirs and the bound that it is to keep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from handgrad.timing import Timing


@dataclass(frozen=True)
class Bound:
    """What a ratio of ours to theirs must not exceed, and what it should come to.

    Args:
        at_most: more is a miss.
        goal: as much or less is what we are after; None for no goal.

    Example:
        >>> print(Bound(1.0, goal=0.5))
        1, goal 0.5
    """

    at_most: float
    goal: float | None = None

    def __str__(self) -> str:
        """The bound as it stands in a table."""
        return f"{self.at_most:.3g}" if self.goal is None else f"{self.at_most:.3g}, goal {self.goal:.3g}"


@dataclass(frozen=True)
class Line:
    """One contender's figure in one case.

    `ratio` is our figure over this one, None where there is nothing to compare; `low` and `high` are quartiles.

    Args:
        case: what was done, such as the net and its batch.
        contender: who did it.
        value: the median, in the table's unit.
        low: the lower quartile.
        high: the upper quartile.
        ratio: our figure over this one.
        bound: of the ratio.

    Example:
        >>> Line("lenet, batch 128", "jax.grad", 20.0, ratio=0.6, bound=Bound(1.0, goal=0.5)).verdict
        'kept'
        >>> Line("lenet, batch 128", "flax", 9.0, ratio=1.3, bound=Bound(1.0)).verdict
        'missed'
    """

    case: str
    contender: str
    value: float
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    bound: Bound | None = None

    @property
    def verdict(self) -> str:
        """Whether the bound is kept: "goal", "kept", "missed", or "" where there is none."""
        if self.ratio is None or self.bound is None:
            return ""
        if self.ratio > self.bound.at_most:
            return "missed"
        return "goal" if self.bound.goal is not None and self.ratio <= self.bound.goal else "kept"


@dataclass(frozen=True)
class Table:
    """Lines of one quantity.

    `name` is short and for machines, `unit` that of the values, and `notes` say what could not be measured.

    Args:
        name: short, for machines.
        title: for readers.
        unit: of the lines' values.
        lines: one for each contender in each case.
        notes: what could not be measured.

    Example:
        >>> lines = Line("lenet", "by hand", 12.0), Line("lenet", "jax.grad", 20.0, ratio=0.6)
        >>> table = Table("steps", "A training step", "ms", lines)
        >>> min(table.lines, key=lambda line: line.value).contender
        'by hand'
    """

    name: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


def line_of(case: str, contender: str, timing: Timing, **more) -> Line:
    """The line of a timing."""
    return Line(case, contender, timing.median, timing.low, timing.high, **more)


def compared(lines: Sequence[Line], ours: str) -> list[Line]:
    """The lines of one case with the ratio of our value to each other's.

    Args:
        lines: of one case.
        ours: the contender that the others are compared with.

    Returns:
        The lines in the same order.

    Raises:
        ValueError: none of the lines is ours.

    Example:
        >>> [line.ratio for line in compared([Line("pool", "by hand", 2.0), Line("pool", "jax.grad", 8.0)], "by hand")]
        [None, 0.25]
    """
    values = [line.value for line in lines if line.contender == ours]
    if not values:
        raise ValueError(f"compared: no line is of {ours!r}, only of {', '.join(line.contender for line in lines)}")
    return [
        line if line.contender == ours or line.value == 0 else replace(line, ratio=values[0] / line.value)
        for line in lines
    ]


def bounded(lines: Iterable[Line], bounds: Mapping[str, Bound]) -> list[Line]:
    """The lines with the bound of their contender, by name."""
    return [replace(line, bound=bounds.get(line.contender)) for line in lines]


def as_text(table: Table) -> str:
    """The table for a terminal.

    Args:
        table: what was measured.

    Returns:
        The text: title, columns, notes.

    Example:
        >>> lines = (Line("pool", "by hand", 2.0, 1.5, 2.5), Line("pool", "jax.grad", 8.0, 7.0, 9.0, 0.25, Bound(0.5)))
        >>> print(as_text(Table("pools", "Pools", "ms", lines)))
        Pools
        case  contender     ms  quartiles  ours to theirs  wanted
        pool  by hand      2.0    1.5-2.5
        pool  jax.grad     8.0    7.0-9.0            0.25     0.5  kept
    """
    cells = [_header(table), *_rows(table)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    turned = (str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.rjust, str.ljust)
    texts = [
        "  ".join(turn(cell, width) for turn, cell, width in zip(turned, row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([table.title, *texts, *table.notes])


def as_markdown(table: Table) -> str:
    """The table in Markdown, under a heading.

    Args:
        table: what was measured.

    Returns:
        The text, a line for each of the table's.

    Example:
        >>> print(as_markdown(Table("steps", "A training step", "ms", (Line("lenet", "jax.grad", 20.0, ratio=0.6),))))
        ### A training step
        <BLANKLINE>
        | case | contender | ms | quartiles | ours to theirs | wanted |  |
        | --- | --- | ---: | ---: | ---: | ---: | --- |
        | lenet | jax.grad | 20.0 |  | 0.60 |  |  |
    """
    rule = ["---", "---", "---:", "---:", "---:", "---:", "---"]
    rows = [_header(table), rule, *_rows(table)]
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"### {table.title}\n", *(f"| {' | '.join(row)} |" for row in rows), *notes])


def _header(table: Table) -> list[str]:
    return ["case", "contender", table.unit, "quartiles", "ours to theirs", "wanted", ""]


def _rows(table: Table) -> list[list[str]]:
    return [
        [
            line.case,
            line.contender,
            number(line.value),
            "" if line.low is None or line.high is None else f"{number(line.low)}-{number(line.high)}",
            "" if line.ratio is None else f"{line.ratio:.2f}",
            "" if line.bound is None else str(line.bound),
            line.verdict,
        ]
        for line in table.lines
    ]


def number(value: float) -> str:
    """A figure with about three digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.3f}"


def as_records(tables: Iterable[Table]) -> list[dict]:
    """The tables as plain values for JSON, each line with its verdict.

    Args:
        tables: as `bench` gives them.

    Returns:
        A dict for each table.

    Example:
        >>> table = Table("steps", "A training step", "ms", (Line("lenet", "jax", 20.0, ratio=0.6, bound=Bound(1.0)),))
        >>> [(record["name"], record["lines"][0]["verdict"]) for record in as_records([table])]
        [('steps', 'kept')]
    """
    return [
        asdict(table) | {"lines": [asdict(line) | {"verdict": line.verdict} for line in table.lines]}
        for table in tables
    ]
