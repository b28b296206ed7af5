"""Pictures of the activations, softmax, dropout and the joins."""

import jax.numpy as jnp
import numpy as np
from docs.pictures.cells import VIOLET, Board, Call, Picture, call, jacobian, number
from docs.pictures.curves import legend, small_axes, title, value_and_slope

from handgrad import ops

PIECES = {"relu": (0,), "leaky_relu": (0,), "relu6": (0, 6), "hard_sigmoid": (-3, 3), "hardswish": (-3, 3)}
SMOOTH = ("tanh", "sigmoid", "softplus", "elu", "selu", "silu", "gelu")


def relu() -> Picture:
    """Five numbers, a mask, and the same mask on the way back."""
    x = np.asarray([-2.0, -1, 0, 1, 2])
    made = call("relu", x, dy=[1, 2, 3, 4, 5])
    board = Board()
    board.both_ways(
        made, jacobian("relu", x), out=3, into=1, reach=np.eye(5, dtype=bool), labels=(False, False),
        forward="forward: what is above 0 passes", backward="backward: the same mask on dy",
    )  # fmt: skip
    board.space(0.35)
    _, mask = ops.relu_forward(jnp.asarray(x, jnp.float32))
    board.row("mask", np.asarray(mask).astype(int))
    return board.done("ReLU of five numbers; nothing goes along a dotted line, and none of dy comes back at 0")


def activations() -> Picture:
    """Each activation in pieces, its slope, and its slope at each kink."""
    figure, axes = small_axes(3, 2, 5, 6)
    calls, words = [], []
    for ax, (name, kinks) in zip(axes, PIECES.items(), strict=False):
        x = np.unique(np.concatenate([np.linspace(-4, 7 if name == "relu6" else 4, 221), np.asarray(kinks, float)]))
        made = call(name, x.astype(np.float32), dy=np.ones_like(x))
        value_and_slope(ax, made.arrays[0], made.y, made.gradients[0], kinks)
        title(ax, name)
        calls.append(made)
        words += [f"{name} has the slope {number(_slope(made, kink))} at {kink}" for kink in kinks]
    _key(axes[-1], axes[0])
    words = "; ".join(words).replace("-", "\N{MINUS SIGN}")
    return Picture(figure, [], calls, f"Curves of five activations, blue, and their slopes, orange. {words}.")


def smooth_activations() -> Picture:
    """Each smooth activation and its slope."""
    figure, axes = small_axes(4, 2, 5, 7.6)
    calls = []
    for ax, name in zip(axes, SMOOTH, strict=False):
        x = np.linspace(-4, 4, 161)
        made = call(name, x, dy=np.ones_like(x))
        value_and_slope(ax, made.arrays[0], made.y, made.gradients[0], (0,) if name == "selu" else ())
        title(ax, name)
        calls.append(made)
    _key(axes[-1], axes[0])
    peaks = ", ".join(f"{c.name} {number(c.gradients[0].max())}" for c in calls)
    words = "Curves of seven smooth activations, blue, and their slopes, orange, from \N{MINUS SIGN}4 to 4."
    return Picture(figure, [], calls, f"{words} The largest slopes: {peaks}.")


def _slope(made: Call, at: float) -> float:
    return float(made.gradients[0][np.flatnonzero(made.arrays[0] == at)[0]])


def _key(ax, drawn) -> None:
    """The last, empty Axes hold the legend of all."""
    ax.set_axis_off()
    handles, names = drawn.get_legend_handles_labels()
    legend(ax, handles=handles, labels=names, loc="center")


def sigmoid() -> Picture:
    """Three numbers; backward reads its slope off y."""
    x = np.asarray([-2.0, 0, 2])
    made = call("sigmoid", x, dy=[10, 10, 10])
    board = Board()
    board.both_ways(made, jacobian("sigmoid", x), out=1, into=1, labels=(False, True), forward="forward: y = σ(x)",
                    backward="backward: dx = dy y (1 − y), from y alone")  # fmt: skip
    return board.done("Sigmoid of three numbers")


def prelu() -> Picture:
    """Four numbers and the slope they share."""
    x, slope = np.asarray([[-4.0], [-2], [1], [2]]), np.asarray([0.5])
    made = call("prelu", x, slope, dy=[1, 2, 3, 4])
    board = Board(pitch=1.3)
    board.both_ways(made, jacobian("prelu", x, slope), out=0, into=1, forward="forward: a = ½ where x is not above 0",
                    backward="backward: the same slopes on dy")  # fmt: skip
    board.space()
    board.heading("gradient of a: Σ dy x, where x is not above 0", VIOLET)
    through = jacobian("prelu", x, slope, argument=1).T
    board.flow(("dy", made.dy), ("da", made.gradients[1]), through, 0, VIOLET, reach=np.ones((1, 4), bool))
    return board.done("PReLU of four numbers")


def softmax() -> Picture:
    """Three logits; each probability hangs on all of them."""
    return _softmax("softmax", "forward: all x feed each y", "backward: times y[j] ([j = k] − y[k])")


def log_softmax() -> Picture:
    """The same for the logarithm."""
    return _softmax("log_softmax", "forward: all x feed each y", "backward: times [j = k] − p[k]")


def _softmax(name: str, forward: str, backward: str) -> Picture:
    x = np.asarray([2.0, 1, 0])
    made = call(name, x, dy=[1, 0, 0])
    board = Board(pitch=1.8)
    board.both_ways(made, jacobian(name, x), out=0, into=1, labels=(False, True), forward=forward, backward=backward)
    return board.done(f"{name} of three numbers")


def dropout() -> Picture:
    """Five numbers, of which three are kept and doubled."""
    x, keep = np.asarray([1.0, 2, 3, 4, 5]), np.asarray([True, False, True, True, False])
    made = call("dropout", x, keep, dy=[1, 2, 3, 4, 5], rate=0.5)
    board = Board()
    board.heading("the mask, drawn once and kept")
    board.row("keep", keep.astype(int))
    board.space(0.45)
    board.both_ways(
        made, jacobian("dropout", x, keep, rate=0.5), out=0, into=2, reach=np.eye(5, dtype=bool),
        forward="forward, inverted, r = ½", backward="backward: the same map on dy",
    )  # fmt: skip
    return board.done("Dropout of five numbers; nothing goes along a dotted line")


def concatenate() -> Picture:
    """Two arrays side by side, and the cut."""
    first, second = np.asarray([1.0, 2]), np.asarray([3.0])
    made = call("concatenate", first, second, dy=[10, 20, 30])
    board = Board()
    _joined(
        board, made, out=0, into=2, labels=(False, False), forward="forward: side by side", backward="backward: a cut"
    )
    return board.done("Concatenation of [1, 2] and [3]; each input has a gradient of its own shape")


def add() -> Picture:
    """A sum whose second array is copied along the first."""
    first, second = np.asarray([1.0, 2, 3]), np.asarray([10.0])
    made = call("add", first, second, dy=[1, 2, 3])
    board = Board()
    _joined(board, made, out=1, into=3, labels=(False, False), forward="forward: sums; the 10 is copied along",
            backward="backward: copies; where copied, a sum")  # fmt: skip
    return board.done("The sum of [1, 2, 3] and [10]")


def multiply() -> Picture:
    """A product whose second array is copied along the first."""
    first, second = np.asarray([1.0, 2, 3]), np.asarray([10.0])
    made = call("multiply", first, second, dy=[1, 2, 3])
    board = Board(pitch=1.1)
    _joined(board, made, out=1, into=3, labels=(False, True), forward="forward: products; the 10 is copied along",
            backward="backward: dy times the other factor")  # fmt: skip
    return board.done("The product of [1, 2, 3] and [10]")


def _joined(board: Board, made: Call, **how) -> None:
    """Forward and backward with both arrays in one row, a gap between them."""
    matrix = np.hstack([jacobian(made.name, *made.arrays, argument=i, **made.settings) for i in (0, 1)])
    board.both_ways(made, matrix, arguments=(0, 1), split=made.arrays[0].size, names=("x₁, x₂", "y"), **how)
