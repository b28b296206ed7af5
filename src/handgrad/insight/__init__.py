"""Looking inside a net: gradient checks and summaries."""

from handgrad.insight import rules
from handgrad.insight.check import check_gradients, check_layer
from handgrad.insight.compare import Comparison, ComparisonRow, compare
from handgrad.insight.cost import Cost, CostRow, cost
from handgrad.insight.curvature import Sharpness, gauss_newton_diagonal, gauss_newton_product, hvp, sharpness
from handgrad.insight.descent import SURFACES, Path, Surface, descend_2d
from handgrad.insight.kfac import Factors, KfacState, kfac, kfac_factors
from handgrad.insight.ledger import Ledger, LedgerRow, ledger
from handgrad.insight.per_example import clipped_grad, per_example_grads, per_example_norms
from handgrad.insight.report import Report, Row
from handgrad.insight.saliency import activations, grad_cam, integrated_gradients, saliency, smooth_grad
from handgrad.insight.summary import Summary, SummaryRow, summary
from handgrad.insight.trace import Trace, trace
from handgrad.insight.trace_findings import Finding, NonFinite, TraceRow
from handgrad.insight.wiggle import WiggleCost, wiggle, wiggle_cost, wiggle_signs, wiggle_value_and_grad

__all__ = [
    "Comparison",
    "ComparisonRow",
    "compare",
    "Report",
    "Row",
    "Summary",
    "SummaryRow",
    "Trace",
    "TraceRow",
    "Finding",
    "NonFinite",
    "check_gradients",
    "check_layer",
    "summary",
    "trace",
    "SURFACES",
    "Path",
    "Surface",
    "descend_2d",
    "WiggleCost",
    "wiggle",
    "wiggle_cost",
    "wiggle_signs",
    "wiggle_value_and_grad",
    "Cost",
    "CostRow",
    "Ledger",
    "LedgerRow",
    "cost",
    "ledger",
    "Factors",
    "Sharpness",
    "gauss_newton_diagonal",
    "gauss_newton_product",
    "hvp",
    "KfacState",
    "kfac",
    "kfac_factors",
    "sharpness",
    "activations",
    "grad_cam",
    "integrated_gradients",
    "saliency",
    "smooth_grad",
    "rules",
    "clipped_grad",
    "per_example_grads",
    "per_example_norms",
]
