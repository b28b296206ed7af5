"""What a gradient check found: a row for each leaf, and the table of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

SIDES = "<<>>><<"  # where each column's text is set


class Row(NamedTuple):
    """One leaf of the check. Errors are relative: ‖a - b‖ / max(‖a‖, ‖b‖).

    Attributes:
        name: the leaf, `conv1/kernel`, or `x` for the input.
        shape: its shape.
        automatic_error: between the gradients by hand and by jax.grad, over the whole leaf.
        difference_error: between the gradient by hand and central differences, along the directions that were tried;
            NaN where all were set aside.
        slope: of the Taylor remainder for the gradient by hand: 2 is right and 1 is wrong; inf where the remainder is
            rounding alone, for a function that is linear there; NaN where every direction straddles a kink.
        directions: how many directions were tried: coordinates, random ones, and those in which the gradients part.
        kinks: how many of them straddle a kink and were set aside.
        odd: the one of three that disagrees with the other two: "manual", "automatic" or "finite differences"; "-" if
            all agree, "undecided" if the differences cannot tell.

    Example:
        >>> import handgrad as hg
        >>> report = hg.check_layer(hg.Relu(), (3,))
        >>> row = report.rows[0]
        >>> row.name, row.shape, row.automatic_error, row.odd, row.ok
        ('x', (3, 3), 0.0, '-', True)
    """

    name: str
    shape: tuple[int, ...]
    automatic_error: float
    difference_error: float
    slope: float
    directions: int
    kinks: int
    odd: str

    @property
    def ok(self) -> bool:
        """Whether all three agree."""
        return self.odd == "-"


@dataclass(frozen=True)
class Report:
    """A gradient check: `ok`, `rows` by leaf, and as a string the table of them.

    Attributes:
        value: of the function that was differentiated, such as the loss.
        rows: one for each leaf, from the input to the loss.
        parted: the layers whose own backward or forward differs from the automatic one, the nearest to the loss first;
            looked for only where something is wrong.
        problems: whatever else is wrong, as sentences.

    Example:
        >>> row = Row("dense1/bias", (3,), 1e-16, 1e-9, 2.0, 6, 0, "-")
        >>> report = Report(1.5, (row,))
        >>> report.ok, report.first_wrong
        (True, None)
        >>> print(report)
        gradient check in float64, value 1.5
        leaf         shape  hand/automatic  hand/differences  slope  kinks   odd one out
        dense1/bias  (3,)          1.0e-16           1.0e-09   2.00  0 of 6  -
        all three agree
    """

    value: float
    rows: tuple[Row, ...]
    parted: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and all(row.ok for row in self.rows)

    @property
    def first_wrong(self) -> str | None:
        """Where to look first: the layer nearest to the loss that differs, else the wrong leaf nearest to it."""
        wrong = [row.name for row in self.rows if not row.ok]
        return next(iter((*self.parted, *reversed(wrong))), None)

    def __str__(self) -> str:
        """The table, at most about 110 columns wide."""
        return "\n".join([self._head(), *table(self._cells(), SIDES), *self._verdict()])

    def record(self) -> dict[str, Any]:
        """What the table says, as JSON holds it: `ok`, `head`, `cells`, their `sides`, and the `verdict`'s lines."""
        cells = [list(row) for row in self._cells()]
        return {"ok": self.ok, "head": self._head(), "cells": cells, "sides": SIDES, "verdict": self._verdict()}

    def _head(self) -> str:
        return f"gradient check in float64, value {self.value:.10g}"

    def _cells(self) -> list[tuple[str, ...]]:
        """The table's texts, a header first."""
        header = ("leaf", "shape", "hand/automatic", "hand/differences", "slope", "kinks", "odd one out")
        return [header] + [
            (
                shortened(row.name),
                "x".join(map(str, row.shape)) if len(row.shape) > 1 else str(row.shape),
                _error(row.automatic_error),
                _error(row.difference_error),
                _slope(row.slope),
                f"{row.kinks} of {row.directions}",
                row.odd,
            )
            for row in self.rows
        ]

    def _verdict(self) -> list[str]:
        if self.ok:
            return ["all three agree"]
        wrong = sum(not row.ok for row in self.rows)
        lines = (
            [f"WRONG: {wrong} of {len(self.rows)} leaves disagree; look first at {self.first_wrong}"] if wrong else []
        )
        if self.parted:
            lines.append(
                f"layers where the passes by hand and by jax.vjp part, from the loss down: {', '.join(self.parted)}"
            )
        return lines + [f"WRONG: {problem}" for problem in self.problems]


def table(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Lines of aligned columns; `sides` has a < or > for each: where the column's text is set."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{text:{side}{width}}" for text, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def shortened(name: str, width: int = 36) -> str:
    """A long name without its beginning, for the end says more."""
    return name if len(name) <= width else "…" + name[1 - width :]


def _error(error: float) -> str:
    return "-" if math.isnan(error) else f"{error:.1e}"


def _slope(slope: float) -> str:
    return "-" if math.isnan(slope) else "exact" if math.isinf(slope) else f"{slope:.2f}"
