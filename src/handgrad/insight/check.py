"""Gradient checks of an objective and of a layer: by hand, by jax.grad and by finite differences, side by side.

All run in float64 at the highest matmul precision, in one mode and with the same key, so with the same masks.
three_way.py compares, differences.py has the finite differences, witness.py finds the layer at fault.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.gradient import Objective, value_and_grad
from handgrad.insight.contract import check_contract
from handgrad.insight.report import Report
from handgrad.insight.three_way import AUTOMATIC_TOLERANCE, Point, three_way
from handgrad.insight.witness import parted_layers
from handgrad.layers.layer import Array, Layer, Params, Shape, State, check_is_layer


def check_gradients(
    objective: Objective,
    params: Params,
    x: Any,
    y: Any,
    state: State = (),
    key: Array | None = None,
    *,
    coordinates: int = 10,
    seed: int = 0,
) -> Report:
    """Check the gradient of an objective in its parameters and its input, leaf by leaf.

    Each row sets the gradient by hand (`value_and_grad(objective)`) beside the automatic one (jax.value_and_grad) and
    central differences, gives the slope of the Taylor remainder, and names the odd one out. An error in one layer's dx
    shows in all leaves below it, so the report also says in which layers the two passes part.

    Everything runs in float64 whatever the caller's mode; a key draws other masks there than in float32. A small batch
    (4 to 16 examples) is enough and quick. Biases of zero can put units exactly on the kink of a ReLU, and equal pixels
    tie in a max pool; differences are set aside there, so a check says more where the parameters have moved a little.

    Args:
        objective: what is trained.
        params: the parameters, float arrays of any width.
        x: inputs (N, ...), floating.
        y: labels, as the loss wants them.
        state: the net's state.
        key: for dropout.
        coordinates: how many coordinates of each leaf to try; a smaller leaf is tried whole.
        seed: draws the coordinates and directions.

    Returns:
        A Report: `.ok`, `.rows`, `.first_wrong`, and as a string a table.

    Raises:
        TypeError: something that is no Objective, inputs that are not floating, or a layer that breaks the contract,
            such as a backward whose gradients are not built like params.
        ValueError: coordinates below 1.

    Example:
        >>> import handgrad as hg
        >>> net = hg.Chain(hg.Dense(4), hg.Tanh(), hg.Dense(3))
        >>> params, state = net.init(jax.random.key(0), (5,), jnp.float32)
        >>> x, y = jax.random.normal(jax.random.key(1), (6, 5), jnp.float32), jnp.array([0, 1, 2, 0, 1, 2])
        >>> report = check_gradients(hg.Objective(net, hg.SoftmaxCrossEntropy()), params, x, y, state)
        >>> report.ok, [row.name for row in report.rows]
        (True, ['x', 'dense1/bias', 'dense1/kernel', 'dense2/bias', 'dense2/kernel'])
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"check_gradients: wants an hg.Objective, got {objective!r}; for a layer use hg.check_layer")
    _check_coordinates("check_gradients", coordinates)
    with _float64():
        point = _as_float64({"params": params, "x": jnp.asarray(x)})
        params, x, state = point["params"], point["x"], _as_float64(state)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"check_gradients: x must be floating, got {x.dtype}; convert with astype")
        check_contract("check_gradients", objective.net, params, x, state, key)

        def loss(point: Point, state: State, key: Array | None) -> Array:
            return objective(point["params"], point["x"], y, state, key)[0]

        @jax.jit
        def by_hand(point: Point, state: State, key: Array | None) -> tuple[Array, Point]:
            gradient = value_and_grad(objective, (0, 1))
            (value, _), (dparams, dx) = gradient(point["params"], point["x"], y, state, key)
            return value, {"params": dparams, "x": dx}

        def dlogits(logits: Array) -> tuple[Array, Array]:
            return objective.loss.value_and_grad(logits, y)[1], jax.grad(objective.loss)(logits, y)

        rows, value, problems = three_way(loss, by_hand, point, (state, key), objective.net, coordinates, seed)
        report = Report(value, rows, problems=problems)
        if report.ok:
            return report
        parted = parted_layers(objective.net, params, x, state, key, dlogits, AUTOMATIC_TOLERANCE)
        return Report(value, rows, parted, problems)


def check_layer(layer: Layer, in_shape: Shape, *, batch: int = 3, seed: int = 0, coordinates: int = 10) -> Report:
    """Check a layer's backward, or a whole net's: against jax.vjp of its apply_train and against finite differences.

    Input, parameters (biases too, for zeros hide errors), state and cotangent dy are drawn at random, in float64; what
    is differentiated is the number <dy, y>. Forward and backward are jitted apart, so the residuals cross jit, and
    forward must give the values and the new state of apply_train, with the same masks for a key.

    Args:
        layer: any layer.
        in_shape: the shape of an input, without the batch axis.
        batch: how many inputs.
        seed: draws everything.
        coordinates: how many coordinates of each leaf to try.

    Returns:
        A Report with a row for x and for each parameter.

    Raises:
        TypeError: something that is no layer, or breaks the contract; the message says what is missing.
        ValueError: a batch or coordinates below 1.

    Example:
        >>> import handgrad as hg
        >>> report = check_layer(hg.Dense(3), (4,))
        >>> report.ok, [row.name for row in report.rows]
        (True, ['x', 'bias', 'kernel'])
        >>> class Negative(hg.Dense):
        ...     def backward(self, params, residuals, dy):
        ...         dx, dparams = super().backward(params, residuals, dy)
        ...         return -dx, dparams
        >>> report = check_layer(Negative(3), (4,))
        >>> report.ok, [row.name for row in report.rows if not row.ok], report.rows[0].odd
        (False, ['x'], 'manual')
    """
    check_is_layer(layer, "check_layer")
    _check_coordinates("check_layer", coordinates)
    if batch < 1:
        raise ValueError(f"check_layer: batch must be at least 1, got {batch}")
    with _float64():
        random, key = np.random.default_rng(seed), jax.random.key(seed)
        point, state = _random_point(layer, (batch, *in_shape), key, random)
        check_contract("check_layer", layer, point["params"], point["x"], state, key)
        forward, backward, apply_train = (jax.jit(f) for f in (layer.forward, layer.backward, layer.apply_train))
        y, new_state, _ = forward(point["params"], point["x"], state, key)
        plain_y, plain_state = apply_train(point["params"], point["x"], state, key)
        dy = jnp.asarray(random.normal(size=y.shape))

        def product(point: Point, state: State, key: Array, dy: Array) -> Array:
            return jnp.vdot(dy, layer.apply_train(point["params"], point["x"], state, key)[0])

        def by_hand(point: Point, state: State, key: Array, dy: Array) -> tuple[Array, Point]:
            y, _, residuals = forward(point["params"], point["x"], state, key)
            dx, dparams = backward(point["params"], residuals, dy)
            return jnp.vdot(dy, y), {"params": dparams, "x": dx}

        rows, value, _ = three_way(product, by_hand, point, (state, key, dy), layer, coordinates, seed)
        pairs = (("output", y, plain_y), ("new state", new_state, plain_state))
        problems = tuple(
            f"forward's {name} differs from apply_train's" for name, own, plain in pairs if not _close(own, plain)
        )
        report = Report(value, rows, problems=problems)
        if report.ok:
            return report
        args = (layer, point["params"], point["x"], state, key)
        return Report(value, rows, parted_layers(*args, lambda _: (dy, dy), AUTOMATIC_TOLERANCE), problems)


def _random_point(layer: Layer, shape: Shape, key: Array, random: np.random.Generator) -> tuple[Point, Any]:
    """Params and input, and a state, all random and nowhere zero. In NumPy: eager JAX would compile for each shape."""
    params, state = jax.jit(lambda key: layer.init(key, shape[1:], jnp.float64))(key)
    params = _with_noise(params, lambda shape: 0.1 * random.normal(size=shape))
    state = _with_noise(state, lambda shape: random.uniform(size=shape))  # a variance stays positive
    return {"params": params, "x": jnp.asarray(random.normal(size=shape))}, state


def _with_noise(tree: Any, noise: Callable[[Shape], np.ndarray]) -> Any:
    """The tree with noise added to its float leaves."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float64) + noise(leaf.shape)) if _is_floating(leaf) else leaf, tree
    )


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating)


def _as_float64(tree: Any) -> Any:
    """Float leaves in float64, by way of NumPy; others, such as keys and counts, as they are."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)) if _is_floating(leaf) else leaf, tree)


def _close(own: Any, plain: Any) -> bool:
    pairs = zip(jax.tree.leaves(own), jax.tree.leaves(plain), strict=True)
    return all(np.allclose(a, b, rtol=AUTOMATIC_TOLERANCE, atol=1e-12) for a, b in pairs)


def _check_coordinates(who: str, coordinates: int) -> None:
    if coordinates < 1:
        raise ValueError(f"{who}: coordinates must be at least 1, got {coordinates}")


@contextmanager
def _float64() -> Iterator[None]:
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield
