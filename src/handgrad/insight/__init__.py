"""Looking inside a net: gradient checks and summaries."""

from handgrad.insight.check import check_gradients, check_layer
from handgrad.insight.descent import Path, descend_2d
from handgrad.insight.report import Report, Row
from handgrad.insight.summary import Summary, SummaryRow, summary
from handgrad.insight.surface import Surface, surfaces
from handgrad.insight.wiggle import wiggle, wiggle_in_turn
from handgrad.insight.wiggle_study import CostRow, SignRow, WiggleCost, WiggleSigns, wiggle_cost, wiggle_signs

__all__ = [
    "CostRow",
    "Path",
    "Report",
    "Row",
    "SignRow",
    "Summary",
    "SummaryRow",
    "Surface",
    "WiggleCost",
    "WiggleSigns",
    "check_gradients",
    "check_layer",
    "descend_2d",
    "summary",
    "surfaces",
    "wiggle",
    "wiggle_cost",
    "wiggle_in_turn",
    "wiggle_signs",
]
