"""Pictures of the normalisations: the three ways of x to x̂, and which numbers make a set."""

import jax.numpy as jnp
import numpy as np
from docs.pictures.cells import BLUE, INK, LABEL, ORANGE, TALL, VIOLET, Board, Call, Picture, call, jacobian, number

from handgrad import ops

TEAL = "#2a9187"


def batch_norm() -> Picture:
    """Four examples of one channel."""
    x = np.asarray([[1.0], [1], [3], [3]])
    made = call("batch_norm", x, np.asarray([2.0]), np.asarray([1.0]), dy=[2, 0, 0, 0], eps=0.0)
    kept = ops.batch_norm_forward(*(jnp.asarray(a) for a in made.arrays), eps=0.0)[1]
    board = Board()
    _three_ways(board, made, kept, "batch norm, one channel of four examples")
    board.row("dγ, dβ", [made.gradients[1].item(), made.gradients[2].item()])
    return board.done("Batch norm of one channel: γ = 2, β = 1, ε = 0")


def layer_norm() -> Picture:
    """One place of four channels, each with its own γ."""
    x, scale = np.asarray([[1.0, 1, 3, 3]]), np.asarray([1.0, 2, 1, 2])
    made = call("layer_norm", x, scale, np.zeros(4), dy=[4, 0, 2, 0], eps=0.0)
    kept = ops.layer_norm_forward(*(jnp.asarray(a) for a in made.arrays), eps=0.0)[1]
    board = Board()
    _three_ways(board, made, kept, "layer norm, one place of four channels")
    return board.done("Layer norm of one place: γ = [1, 2, 1, 2], β = 0, ε = 0")


def _three_ways(board: Board, made: Call, kept: tuple, what: str) -> None:
    """Forward: from x straight, by way of μ and by way of r; backward: what comes back along each, and their sum."""
    x, mean, var = (np.asarray(k) for k in kept)
    r = 1 / np.sqrt(var)
    hat = (x - mean) * r
    dhat = made.arrays[1] * made.dy
    board.calls.append(made)
    board.heading(f"forward: {what}", BLUE)
    fill = {0: (BLUE, 0.34)}
    tops, top = board.row("x", x, colours=fill)
    middle, bottom = top - TALL / 2 - 0.95, top - TALL - 1.9
    ways = (("μ", mean, VIOLET, tops[0] + 0.75), ("r", r, TEAL, tops[-1] - 0.75))
    for i, x0 in enumerate(tops):
        for _, _, colour, spot in ways:
            ends = (
                [(x0, top - TALL / 2), (spot, middle + TALL / 2)],
                [(spot, middle - TALL / 2), (x0, bottom + TALL / 2)],
            )
            for (xa, ya), (xb, yb) in ends:
                first = i == 0
                board.ax.plot([xa, xb], [ya, yb], color=colour if first else INK, lw=1.8 if first else 0.8,
                              alpha=1 if first else 0.45)  # fmt: skip
    board.ax.plot([tops[0]] * 2, [top - TALL / 2, bottom + TALL / 2], color=BLUE, lw=1.8)
    for name, value, colour, spot in ways:
        board.cell(spot, middle, f"{name} = {number(value.item())}", (colour, 0.2), width=1.3)
    board.y = bottom
    board.row("x̂", hat, colours=fill)
    board.words.append(
        f"Each x reaches each x̂ by μ = {number(mean.item())} and r = {number(r.item())}, its own directly."
    )
    board.space(0.15)
    board.row("y", made.y)
    board.space()
    board.heading("backward: the sum of three ways", ORANGE)
    board.row("dy", made.dy)
    board.space(0.25)
    by_mean, by_r = -dhat.mean() * np.ones_like(dhat), -hat * (dhat * hat).mean()
    np.testing.assert_allclose(made.gradients[0], r * (dhat + by_mean + by_r), atol=1e-6)
    for label, values, colour in (("γ dy", dhat, BLUE), ("by μ", by_mean, VIOLET), ("by r", by_r, TEAL)):
        board.row(label, values, colours={0: (colour, 0.34), **{i: (colour, 0.12) for i in (1, 2, 3)}})
    board.space(0.25)
    board.row("dx", made.gradients[0], colours={0: (ORANGE, 0.34)})
    board.space(0.25)


def norm_sets() -> Picture:
    """Two examples of three places and four channels: with which numbers is one of them normalised?"""
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    board = Board()
    at = (0, 1, 1)
    board.ax.text(-1.35, 0.2, "one cell, and those it is normalised with:", color=INK, fontsize=LABEL)
    board.space()
    for name in ("batch_norm", "layer_norm", "group_norm", "instance_norm"):
        settings = {"num_groups": 2} if name == "group_norm" else {}
        dy = np.zeros_like(x)
        dy[at] = 1
        made = call(name, x, np.ones(4), np.zeros(4), dy=dy, **settings)
        board.calls.append(made)
        moves = made.gradients[0] != 0
        board.heading(f"{name}: {_shape(moves)}", BLUE)
        for n, p, c in np.ndindex(x.shape):
            strength = 1 if (n, p, c) == at else 0.22
            fill = (BLUE, strength) if moves[n, p, c] else None
            board.cell(n * 3.7 - 0.8 + c * 0.8, board.y - p * TALL, "", fill, width=0.8)
        board.y -= 3 * TALL + 0.35
    board.y += 0.5
    return board.done(
        "Which numbers one of them is normalised with, for two examples of three places and four channels"
    )


def _shape(moves: np.ndarray) -> str:
    """A set in words: how many examples, places and channels it spans."""
    spans = [int(moves.any(tuple(k for k in range(3) if k != axis)).sum()) for axis in range(3)]
    parts = [
        f"{n} {what}{'s' if n > 1 else ''}" for n, what in zip(spans, ("example", "place", "channel"), strict=True)
    ]
    return ", ".join(parts)


def local_response_norm() -> Picture:
    """A window of two channels, and the window turned round."""
    x = np.asarray([[1.0, 2, 1, 0]])
    settings = {"size": 2, "alpha": 2.0, "beta": 1.0, "k": 1.0}
    made = call("local_response_norm", x, dy=[10, 10, 10, 10], **settings)
    board = Board(pitch=1.5)
    window = jacobian("local_response_norm", x + 1, **settings) != 0
    board.both_ways(
        made, jacobian("local_response_norm", x, **settings), out=1, into=1, labels=(False, True), reach=window,
        forward="forward: y[c] sees channels c − 1 and c", backward="backward: dx[c] hears c and c + 1",
    )  # fmt: skip
    return board.done("Local response norm of four channels with a window of two")
