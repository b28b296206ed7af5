"""Pictures of the ops that look through windows: convolutions, dense, pools, unpool, upsample, pad."""

import jax.numpy as jnp
import numpy as np
from docs.pictures.cells import BLUE, ORANGE, VIOLET, Board, Picture, call, column, jacobian

from handgrad import ops


def conv() -> Picture:
    """A kernel of three taps over four places, and its three maps."""
    x, kernel = column([1, 2, 3, 4]), np.reshape([1.0, 0.0, -1.0], (3, 1, 1))
    made = call("conv", x, kernel, dy=[1, 10], padding="VALID")
    board = Board()
    matrix = jacobian("conv", x, kernel, padding="VALID")
    seen = jacobian("conv", x, np.ones_like(kernel), padding="VALID") != 0
    board.both_ways(
        made, matrix, out=0, into=2, reach=seen,
        forward="forward: y[p] sees x through W = [1, 0, −1]", backward="input gradient: W comes back turned round",
    )  # fmt: skip
    board.space()
    board.heading("kernel gradient: x seen through dy = [1, 10]", VIOLET)
    by_kernel = jacobian("conv", x, kernel, padding="VALID", argument=1)  # y[p] by W[i] is x[p + i]
    through = np.stack([np.eye(4)[i : i + 2].T @ made.dy.ravel() for i in range(3)])
    assert np.allclose(through @ x.ravel(), by_kernel.T @ made.dy.ravel())
    board.flow(("x", x), ("dW", made.gradients[1]), through, 0, VIOLET)
    return board.done("Convolution of four numbers with three taps")


def conv_transpose() -> Picture:
    """Each place of x spreads the kernel over y, two places on."""
    x, kernel = column([1, 2, 3]), np.reshape([1.0, 2.0, 3.0], (3, 1, 1))
    settings = {"strides": 2, "padding": "VALID"}
    made = call("conv_transpose", x, kernel, dy=[1, 2, 0, 1, 0, 3, 1], **settings)
    board = Board(7)
    board.both_ways(
        made, jacobian("conv_transpose", x, kernel, **settings), out=2, into=1,
        forward="forward: x[a] spreads W = [1, 2, 3], stride 2; overlaps add", backward="input gradient: a plain conv",
    )  # fmt: skip
    return board.done("Transposed convolution of three numbers with stride 2")


def dense() -> Picture:
    """Three inputs, two outputs, and the outer product that is dW."""
    x, kernel = np.asarray([[1.0, 2.0, 3.0]]), np.asarray([[1.0, -1.0], [0.5, 2.0], [2.0, 0.0]])
    made = call("dense", x, kernel, np.zeros(2), dy=[1, 10])
    board = Board()
    matrix = jacobian("dense", x, kernel, np.zeros(2))
    board.both_ways(
        made, matrix, out=0, into=1, reach=np.ones_like(matrix, bool),
        forward="forward: y = x W", backward="backward: dx = dy Wᵀ",
    )  # fmt: skip
    board.space()
    board.heading("kernel gradient: dW[i, o] = x[i] dy[o]", VIOLET)
    rows = [
        ("", made.dy),
        *((f"x[{i}] = {int(v)}", g) for i, (v, g) in enumerate(zip(x[0], made.gradients[1], strict=True))),
    ]
    for i, (label, values) in enumerate(rows):
        board.row(label or "dy", values, colours={} if i == 0 else {0: (VIOLET, 0.16), 1: (VIOLET, 0.16)})
        board.y -= 0.18 if i == 0 else 0
    return board.done("A dense layer of three inputs and two outputs")


def max_pool() -> Picture:
    """Two overlapping windows that chose the same place."""
    settings = {"window": 3, "strides": 2}
    x = column([1, 2, 5, 3, 0])
    made = call("max_pool", x, dy=[1, 10], **settings)
    board = Board()
    board.both_ways(
        made, jacobian("max_pool", x, **settings), out=1, into=2, labels=(False, False),
        reach=jacobian("avg_pool", x, **settings) != 0,
        forward="forward: each window's winner", backward="backward: dy to the winner, summed",
    )  # fmt: skip
    return board.done("Max pool over windows of 3, 2 apart; dotted lines lead to places that lost")


def avg_pool() -> Picture:
    """Two overlapping windows, each place with a third."""
    settings = {"window": 3, "strides": 2}
    x = column([1, 2, 6, 4, 2])
    made = call("avg_pool", x, dy=[3, 30], **settings)
    board = Board()
    board.both_ways(
        made, jacobian("avg_pool", x, **settings), out=0, into=2,
        forward="forward: the mean of each window", backward="backward: a copy of dy/m over each window",
    )  # fmt: skip
    return board.done("Average pool over windows of 3, 2 apart")


def global_avg_pool() -> Picture:
    """One window over all."""
    x = column([1, 2, 6, 3])
    made = call("global_avg_pool", x, dy=[8])
    board = Board()
    board.both_ways(made, jacobian("global_avg_pool", x), out=0, into=2, forward="forward: the mean of all places",
                    backward="backward: dy/A to each")  # fmt: skip
    return board.done("Global average pool of four places")


def adaptive_avg_pool() -> Picture:
    """Three windows that cover five places."""
    x = column([2, 4, 3, 5, 1])
    made = call("adaptive_avg_pool", x, dy=[2, 3, 4], output_size=3)
    board = Board()
    board.both_ways(
        made, jacobian("adaptive_avg_pool", x, output_size=3), out=1, into=1,
        forward="forward: windows of 2, 3 and 2 places", backward="backward: 3 to 5, the sizes swapped",
    )  # fmt: skip
    return board.done("Adaptive average pool from 5 places to 3")


def adaptive_max_pool() -> Picture:
    """The same windows, and their winners."""
    x = column([2, 4, 3, 5, 1])
    made = call("adaptive_max_pool", x, dy=[2, 3, 4], output_size=3)
    board = Board()
    board.both_ways(
        made, jacobian("adaptive_max_pool", x, output_size=3), out=1, into=3, labels=(False, False),
        reach=jacobian("adaptive_avg_pool", x, output_size=3) != 0,
        forward="forward: each window's winner", backward="backward: dy to the winners",
    )  # fmt: skip
    return board.done("Adaptive max pool from 5 places to 3; dotted lines lead to places that lost")


def global_max_pool() -> Picture:
    """A tie, given to the first and split."""
    x = column([1, 4, 2, 4])
    made = call("global_max_pool", x, dy=[6])
    board = Board()
    every = np.ones((1, 4), bool)
    board.both_ways(
        made, jacobian("global_max_pool", x), out=0, into=1, labels=(False, False), reach=every,
        forward="forward: the maximum; here two places tie", backward='backward, ties="first"',
    )  # fmt: skip
    split = call("global_max_pool", x, dy=[6], ties="split")
    board.calls.append(split)
    board.space()
    board.heading('backward, ties="split"', ORANGE)
    matrix = jacobian("global_max_pool", x, ties="split").T
    board.flow(("dy", split.dy), ("dx", split.gradients[0]), matrix, 1, ORANGE, reach=every.T)
    return board.done("Global max pool of four places")


def max_unpool() -> Picture:
    """Values put where a max pool had its winners."""
    settings = {"window": 3, "strides": 2}
    _, winner = ops.max_pool_forward(jnp.asarray(column([1, 2, 5, 3, 0])), window=3, strides=2)
    x = column([4, 7])
    settings["output_size"] = 5
    made = call("max_unpool", x, winner, dy=[1, 2, 3, 4, 5], **settings)
    board = Board()
    board.both_ways(
        made, jacobian("max_unpool", x, winner, **settings), out=2, into=0, labels=(False, False),
        reach=jacobian("avg_pool", column(np.zeros(5)), window=3, strides=2).T != 0,
        forward="forward: each value to its winner's place", backward="backward: dy read at the winners",
    )  # fmt: skip
    return board.done("Max unpool: the switches are those of a max pool of [1, 2, 5, 3, 0] over windows of 3, 2 apart")


def upsample_nearest() -> Picture:
    """Each place copied."""
    x = column([1, 3])
    made = call("upsample", x, dy=[1, 2, 3, 4], factor=2)
    board = Board()
    board.both_ways(made, jacobian("upsample", x, factor=2), out=1, into=1, labels=(False, False),
                    forward="forward, nearest: copies", backward="backward: sums over what was copied")  # fmt: skip
    return board.done("Upsampling two places by 2, nearest")


def upsample_linear() -> Picture:
    """Points on straight lines between places."""
    x = column([0, 4, 8])
    settings = {"factor": 2, "method": "linear"}
    made = call("upsample", x, dy=[4, 4, 0, 8, 0, 0], **settings)
    board = Board()
    board.both_ways(made, jacobian("upsample", x, **settings), out=2, into=1, forward="forward, linear: y = M x",
                    backward="backward: dx = Mᵀ dy")  # fmt: skip
    return board.done("Upsampling three places by 2, linear")


def pad() -> Picture:
    """A mirror at both ends, folded back."""
    x = column([1, 2, 3, 4])
    settings = {"padding": [(2, 1)], "mode": "reflect"}
    made = call("pad", x, dy=[1, 2, 3, 4, 5, 6, 7], **settings)
    board = Board(7)
    board.both_ways(
        made, jacobian("pad", x, **settings), out=0, into=2, labels=(False, False), at=(2, 0),
        forward="forward, reflect: copies of the inside", backward="backward: the strips folded back",
    )  # fmt: skip
    return board.done("Padding of four places by two before and one behind, reflected")


def pad_modes() -> Picture:
    """What each mode puts around four places."""
    x = column([1, 2, 3, 4])
    board = Board(8)
    board.heading("forward: y for x = [1, 2, 3, 4], two more at each end", BLUE)
    made = {m: call("pad", x, dy=np.ones(8), padding=2, mode=m) for m in ("constant", "edge", "reflect", "wrap")}
    strips = {place: (BLUE, 0.16) for place in (0, 1, 6, 7)}
    for mode, each in made.items():
        board.row(mode, each.y, colours=strips)
        board.space(0.1)
    board.space()
    board.heading("backward: dx for dy of ones, how often each place was copied", ORANGE)
    for mode, each in made.items():
        board.calls.append(each)
        board.row(mode, each.gradients[0])
        board.space(0.1)
    return board.done("The four modes of padding")
