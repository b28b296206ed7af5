"""Figures, drawn with matplotlib, which is imported when the first one is drawn: `pip install 'handgrad[plots]'`.

Each function draws into the Axes it is given, or into a new Figure of its own, and returns the Axes; `save` writes it
to a file. No pyplot and no rcParams: nothing global changes, and no display is needed. A new Figure is transparent, its
text and lines of middle tones that can be read on white paper as on a dark page.
"""

from handgrad.viz.canvas import BLUE, INK, ORANGE, alt_text, panels, save
from handgrad.viz.confusion import confusion, confusion_text
from handgrad.viz.costs import cost, ledger
from handgrad.viz.curvature import compare_losses, sharpness
from handgrad.viz.demo import demo_2d
from handgrad.viz.descent import descend_2d, wiggle_cost, wiggle_signs
from handgrad.viz.images import images
from handgrad.viz.inside import activations, saliency
from handgrad.viz.kernels import kernels
from handgrad.viz.learning import learning_curve
from handgrad.viz.net import net
from handgrad.viz.report import report
from handgrad.viz.run import draw_run
from handgrad.viz.sweep import sweep
from handgrad.viz.trace import trace
from handgrad.viz.wrong import wrong

__all__ = [
    "BLUE",
    "INK",
    "ORANGE",
    "cost",
    "net",
    "panels",
    "descend_2d",
    "wiggle_cost",
    "wiggle_signs",
    "ledger",
    "activations",
    "saliency",
    "alt_text",
    "compare_losses",
    "confusion",
    "confusion_text",
    "demo_2d",
    "draw_run",
    "images",
    "kernels",
    "learning_curve",
    "report",
    "save",
    "sweep",
    "sharpness",
    "trace",
    "wrong",
]
