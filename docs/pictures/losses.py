"""Pictures of the losses: curves and bars of a loss and its gradient, and how a mean shares it among examples."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from docs.pictures.cells import BLUE, INK, ORANGE, VIOLET, Board, Picture, listed, number
from docs.pictures.curves import bars, labelled, legend, small_axes, title

import handgrad as hg


@dataclass(frozen=True)
class LossCall:
    """One call of a loss: what went in, the loss and its hand-derived gradient."""

    loss: Any
    logits: np.ndarray
    labels: np.ndarray
    reduction: str
    value: np.ndarray
    dlogits: np.ndarray


def _called(loss: Any, logits: Any, labels: Any, reduction: str = "mean") -> LossCall:
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    value, dlogits = loss.value_and_grad(jnp.asarray(logits), labels, reduction=reduction)
    return LossCall(loss, logits, labels, reduction, np.asarray(value), np.asarray(dlogits))


def softmax_cross_entropy() -> Picture:
    """Three logits: p, the target, and their difference."""
    made = _called(hg.SoftmaxCrossEntropy(), [[2.0, 1, 0]], [0])
    return _p_minus(made, np.eye(3)[made.labels[0]], "the label")


def kl_divergence() -> Picture:
    """The same for a target that is spread."""
    made = _called(hg.KLDivergence(), [[2.0, 1, 0]], [[0.5, 0.25, 0.25]])
    return _p_minus(made, made.labels[0], "the target")


def _p_minus(made: LossCall, target: np.ndarray, what: str) -> Picture:
    """Bars of p, of the target, and of the gradient."""
    p = np.asarray(hg.ops.softmax(jnp.asarray(made.logits)))[0]
    gradient = made.dlogits[0]
    figure, axes = small_axes(3, 1, 4.4, 5)
    names = [f"o = {number(o)}" for o in made.logits[0]]
    sets = (("p = softmax(o)", p, BLUE), (f"y, {what}", target, VIOLET), ("dL/do = p − y", gradient, ORANGE))
    for ax, (text, values, colour) in zip(axes, sets, strict=True):
        bars(ax, values, colour, names)
        ax.set_yticks([])
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
        title(ax, text)
    said = f"p = {_three(p)}, y = {listed(target)}, gradient p − y = {_three(gradient)}, which sums to 0"
    alt = f"{type(made.loss).__name__} of the logits {listed(made.logits)}, loss {number(made.value, 3)}: {said}."
    return Picture(figure, [], [made], alt)


def _three(values: np.ndarray) -> str:
    return "[" + ", ".join(number(v, 3) for v in values) + "]"


def focal() -> Picture:
    """Loss and pull against p, for three γ."""
    margin = np.linspace(-5, 5, 101)
    logits = np.stack([margin, np.zeros_like(margin)], 1)
    p = 1 / (1 + np.exp(-margin))
    figure, (left, right) = small_axes(2, 1, 4.4, 5)
    calls = []
    for gamma, style in ((0.0, "-"), (1.0, "--"), (2.0, ":")):
        made = _called(hg.Focal(gamma=gamma), logits, np.zeros(len(p), int), "none")
        calls.append(made)
        left.plot(p, made.value, color=BLUE, ls=style, label=f"γ = {number(gamma)}")
        right.plot(p, made.dlogits[:, 0], color=ORANGE, ls=style, label=f"γ = {number(gamma)}")
    title(left, "the more certain, the less it counts")
    labelled(left, "", "ℓ")
    labelled(right, "p of the right class", "dℓ/do of the right class")
    legend(left)
    legend(right)
    at = int(np.argmin(abs(p - 0.88)))
    pulls = ", ".join(number(c.dlogits[at, 0], 3) for c in calls)
    return Picture(figure, [], calls, f"Focal loss and its gradient against p for γ 0, 1 and 2; at p = {number(p[at])} "
                   f"the gradients are {pulls}.".replace("-", "−"))  # fmt: skip


def binary_cross_entropy() -> Picture:
    """Loss and slope against the logit, for a yes and a no."""
    o = np.linspace(-5, 5, 101)[:, None]
    yes, no = (_called(hg.BinaryCrossEntropy(), o, np.full_like(o, y), "none") for y in (1, 0))
    figure, (top, bottom) = small_axes(2, 1, 4.4, 5)
    for made, colour, name in ((yes, BLUE, "y = 1"), (no, ORANGE, "y = 0")):
        top.plot(
            o[:, 0], made.value, color=colour, lw=2, label=f"{name}: {'log(1 + e⁻ᵒ)' if made is yes else 'log(1 + eᵒ)'}"
        )
        bottom.plot(o[:, 0], made.dlogits[:, 0], color=colour, lw=2, label=f"{name}: σ(o) − {name[-1]}")
    bottom.axhline(0, color=INK, linewidth=0.6)
    labelled(top, "", "ℓ")
    labelled(bottom, "logit o", "dℓ/do")
    legend(top)
    legend(bottom)
    title(top, "a wrong answer is never flat")
    middle = len(o) // 2
    said = f"at o = 0 they are {number(yes.dlogits[middle, 0])} and {number(no.dlogits[middle, 0])}"
    return Picture(
        figure, [], [yes, no], f"Binary cross-entropy against the logit for y = 1 and y = 0, and its slopes: {said}."
    )


def regression() -> Picture:
    """Squared error and Huber against the error."""
    e = np.linspace(-3, 3, 121)[:, None]
    squared, huber = (_called(loss, e, np.zeros_like(e), "none") for loss in (hg.MeanSquaredError(), hg.Huber()))
    figure, (top, bottom) = small_axes(2, 1, 4.4, 5)
    for made, colour, name in ((squared, BLUE, "squared error"), (huber, ORANGE, "Huber, δ = 1")):
        top.plot(e[:, 0], made.value, color=colour, lw=2, label=name)
        bottom.plot(e[:, 0], made.dlogits[:, 0], color=colour, lw=2, label=name)
    bottom.axhline(0, color=INK, linewidth=0.6)
    labelled(top, "", "ℓ")
    labelled(bottom, "error e = o − y", "dℓ/do")
    legend(top)
    legend(bottom)
    title(top, "far outliers pull no harder on Huber")
    said = f"at e = 3 they are {number(squared.dlogits[-1, 0])} and {number(huber.dlogits[-1, 0])}"
    return Picture(
        figure, [], [squared, huber], f"Squared error and Huber against the error, and their slopes: {said}."
    )


def hinge() -> Picture:
    """Four logits: who comes within the margin of the right one."""
    made = _called(hg.Hinge(), [[2.0, 1.5, 1.25, 0.0]], [0])
    figure, (top, bottom) = small_axes(2, 1, 4.4, 4.4)
    names = ["right", "wrong", "wrong", "wrong"]
    bars(top, made.logits[0], BLUE, names)
    line = made.logits[0, 0] - made.loss.margin
    top.axhline(line, color=VIOLET, ls="--", lw=1.4)
    top.text(3.4, line, "margin", color=VIOLET, ha="right", va="bottom", fontsize=10)
    title(top, "logits o, and the margin below the right one")
    bars(bottom, made.dlogits[0], ORANGE, names)
    title(bottom, "dℓ/do: whoever is above the line is pushed down")
    for ax in (top, bottom):
        ax.set_yticks([])
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.tick_params(length=0)
    alt = f"Hinge loss of the logits {listed(made.logits)}, the first right, margin 1: gradient {listed(made.dlogits)}."
    return Picture(figure, [], [made], alt)


def loss_mean() -> Picture:
    """Three examples with weights: the mean, and each one's share of the gradient."""
    loss, weights = hg.MeanSquaredError(), np.asarray([1.0, 2, 1], np.float32)
    logits, labels = np.asarray([[1.0], [3], [2]], np.float32), np.zeros((3, 1), np.float32)
    each = _called(loss, logits, labels, "none")
    value, dlogits = loss.value_and_grad(jnp.asarray(logits), labels, jnp.asarray(weights))
    shares = weights / weights.sum()
    np.testing.assert_allclose(float(value), float(shares @ each.value), rtol=1e-6)
    np.testing.assert_allclose(dlogits, shares[:, None] * each.dlogits, rtol=1e-6)
    board = Board()
    board.calls.append(each)
    board.heading("forward: L = Σ w ℓ / Σ w for weights 1, 2, 1", BLUE)
    board.flow(("ℓ", each.value), ("L", np.asarray([value])), shares[None], 0, BLUE)
    board.space()
    board.heading("backward: each example gets its share of dL", ORANGE)
    board.flow(("dL", np.ones(1)), ("dℓ", shares), shares[:, None], 1, ORANGE)
    board.space(0.25)
    board.row("dℓ/do", each.dlogits)
    board.row("dL/do", np.asarray(dlogits))
    return board.done("The weighted mean of three examples' squared errors")
