"""Descents against numpy loops of each rule, surfaces against jax.grad, stability against its closed forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import handgrad as hg
from handgrad.insight.descent import Path, descend_2d
from handgrad.insight.surface import quadratic, surfaces

BOWL = surfaces["bowl"]


@pytest.mark.parametrize("name", surfaces)
def test_gradients_by_hand(name):
    surface = surfaces[name]
    low, high = np.array(surface.box).T
    points = jnp.asarray(np.random.default_rng(0).uniform(low, high, (50, 2)))
    by_hand, automatic = jax.jit(lambda p: (jax.vmap(surface.slope)(p), jax.vmap(jax.grad(surface.value))(p)))(points)
    np.testing.assert_allclose(by_hand, automatic, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["bowl", "ravine", "two_minima", "himmelblau"])
def test_minima_are_minima(name):
    surface = surfaces[name]
    for minimum in surface.minima:
        p = jnp.array(minimum)
        assert jnp.abs(surface.slope(p)).max() < 1e-4  # they are written down to six digits
        assert (jnp.linalg.eigvalsh(jax.hessian(surface.value)(p)) > 0).all()


def rule(name, lr=0.1, beta=0.8):
    """The formulas of optimizers/descent.py over numpy: (p, gradient, memory, step) -> p, memory."""

    def heavy_ball(p, g, m, t):
        m = beta * m + g
        return p - lr * m, m

    def nesterov(p, g, m, t):
        m = beta * m + g
        return p - lr * (g + beta * m), m

    def adam(p, g, m, t):
        mean, square = 0.9 * m[0] + 0.1 * g, 0.999 * m[1] + 0.001 * g * g
        move = mean / (1 - 0.9 ** (t + 1)) / (np.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-8)
        return p - lr * move, np.stack([mean, square])

    return {
        "sgd": (hg.sgd(lr), lambda p, g, m, t: (p - lr * g, m), np.zeros(2)),
        "heavy ball": (hg.momentum(lr, beta), heavy_ball, np.zeros(2)),
        "nesterov": (hg.momentum(lr, beta, nesterov=True), nesterov, np.zeros(2)),
        "previous": (
            hg.previous_gradient_momentum(lr, beta),
            lambda p, g, m, t: (p - lr * (beta * m + g), g),
            np.zeros(2),
        ),
        "adam": (hg.adam(lr), adam, np.zeros((2, 2))),
    }[name]


@pytest.mark.parametrize("name", ["sgd", "heavy ball", "nesterov", "previous", "adam"])
def test_it_is_the_loop(name):
    surface = surfaces["two_minima"]
    optimizer, move, memory = rule(name)
    path = descend_2d(surface, optimizer, np.array([1.5, -0.7]), 12)
    p, slope = np.array([1.5, -0.7]), jax.jit(surface.slope)
    for t in range(13):
        g = np.asarray(slope(p))
        np.testing.assert_allclose(path.points[t], p, rtol=1e-12)
        np.testing.assert_allclose(path.gradients[t], g, rtol=1e-10, atol=1e-14)
        x, y = p
        assert float(path.values[t]) == pytest.approx((x**2 - 1) ** 2 / 4 + x / 10 + y**2 / 2, rel=1e-12)
        p, memory = move(p, g, memory, t)
    assert path.points.shape == (13, 2) and path.values.shape == (13,)


def test_optax_goes_the_same_way():
    ours = descend_2d(surfaces["himmelblau"], hg.adam(0.1), (0.0, 0.0), 20)
    with jax.numpy_dtype_promotion("standard"):
        theirs = descend_2d(surfaces["himmelblau"], optax.adam(0.1), (0.0, 0.0), 20)
    np.testing.assert_allclose(ours.points, theirs.points, rtol=1e-10)


def test_starts_and_rates_by_vmap_and_jit():
    starts, rates = jnp.array([[1.0, 1.0], [-2.0, 0.5]]), jnp.array([0.1, 0.3])
    both = jax.jit(jax.vmap(lambda start, lr: descend_2d(BOWL, hg.sgd(lr), start, 5)))(starts, rates)
    assert both.points.shape == (2, 6, 2) and both.steps_to().shape == (2,)
    for i in range(2):
        one = descend_2d(BOWL, hg.sgd(float(rates[i])), starts[i], 5)
        chex.assert_trees_all_close(jax.tree.map(lambda a, i=i: a[i], both), one, rtol=1e-12)


def test_a_surface_of_the_users_own_is_differentiated_by_jax():
    own = hg.Surface("own", lambda p: jnp.sum(p**4))
    path = descend_2d(own, hg.sgd(0.01), (1, -2), 1)  # ints are taken as floats
    np.testing.assert_allclose(path.points, [[1, -2], [0.96, -1.68]], rtol=1e-12)


def limits(rate):
    """The largest stable s = η h, from the equations in the docstring of insight/descent.py."""
    b = 0.9
    return {
        "none": (hg.sgd(rate), 2),
        "heavy ball": (hg.momentum(rate, b), 2 * (1 + b)),
        "nesterov": (hg.momentum(rate, b, nesterov=True), 2 * (1 + b) / (1 + 2 * b)),
        "previous": (hg.previous_gradient_momentum(rate, b), 1 / b),
        "previous, a third": (hg.previous_gradient_momentum(rate, 1 / 3), 3),
        "previous, a tenth": (hg.previous_gradient_momentum(rate, 0.1), 2 / 0.9),
    }


@pytest.mark.parametrize("name", limits(1.0))
def test_stable_range(name):
    """Just below the limit |x| falls, just above it grows; on curvature 3, as lr times curvature counts."""
    _, limit = limits(1.0)[name]
    surface = quadratic(3.0, 3.0)

    @jax.jit
    @jax.vmap
    def size(s):
        path = descend_2d(surface, limits(s / 3)[name][0], (1.0, 0.5), 2000)
        return jnp.abs(path.points[-60:, 0]).max() / jnp.abs(path.points[300:360, 0]).max()

    falls, grows = size(jnp.array([0.995, 1.005]) * limit)
    assert falls < 0.5 and grows > 2


def test_the_quickest_through_the_ravine():
    """κ = 100: descent leaves (κ-1)/(κ+1) of the distance a step, heavy ball (√κ-1)/(√κ+1), at their best settings."""
    ravine, start = surfaces["ravine"], (1.0, 1.0)
    plain = descend_2d(ravine, hg.sgd(2 / 101), start, 400).steps_to()
    expected = np.log(1e-3 / np.sqrt(2)) / np.log(99 / 101)  # both coordinates shrink by 99/101 a step
    assert float(plain) == np.ceil(expected) == 363
    ball = descend_2d(ravine, hg.momentum((2 / 11) ** 2, (9 / 11) ** 2), start, 400).steps_to()
    nesterov = descend_2d(ravine, hg.momentum(0.012, 0.82, nesterov=True), start, 400).steps_to()
    lecture = descend_2d(ravine, hg.previous_gradient_momentum(0.0288, 0.31), start, 400).steps_to()
    assert 35 < ball < 80 and 50 < nesterov < 60 and 170 < lecture < 190


def test_one_pulse_of_gradient():
    """A slope of 1 at the first step and none after: heavy ball and Nesterov coast to -η/(1-β), the lecture's form
    takes one step more, α of the first, and stops."""
    pulse = hg.Surface("pulse", lambda p: p[0], lambda p: jnp.where(p == 0, jnp.array([1.0, 0.0]), 0.0))
    ends = {
        name: np.asarray(descend_2d(pulse, optimizer, (0.0, 0.0), 400).points[:, 0])
        for name, optimizer in {
            "none": hg.sgd(0.1),
            "ball": hg.momentum(0.1),
            "nesterov": hg.momentum(0.1, nesterov=True),
            "previous": hg.previous_gradient_momentum(0.1, 0.9),
        }.items()
    }
    assert {name: round(float(x[-1]), 6) for name, x in ends.items()} == {
        "none": -0.1, "ball": -1.0, "nesterov": -1.0, "previous": -0.19,
    }  # fmt: skip
    assert ends["previous"][2:].std() == 0 and (np.diff(ends["ball"])[:50] < 0).all()


def test_the_saddle_holds_whoever_comes_along_its_ridge():
    for optimizer in (hg.sgd(0.1), hg.momentum(0.1, 0.5), hg.adam(0.1)):
        path = descend_2d(surfaces["saddle"], optimizer, (1.0, 0.0), 500)
        assert not path.points[:, 1].any() and abs(float(path.points[-1, 0])) < 1e-6
    assert descend_2d(surfaces["saddle"], hg.sgd(0.1), (1.0, 1e-9), 500).values[-1] < -1


def test_the_plateau_is_flat_where_the_unit_is_sure_and_wrong():
    """σ(-10) for 1 and σ(10) for 0: each slope is (σ - target) σ (1 - σ) = 4.5e-5, two add up."""
    slope = surfaces["plateau"].slope(jnp.array([-10.0, 0.0]))
    sigma = 1 / (1 + np.exp(10))
    np.testing.assert_allclose(slope, [-2 * (1 - sigma) ** 2 * sigma, 0], rtol=1e-10, atol=1e-15)
    assert round(-float(slope[0]) / 2 * 1e5, 1) == 4.5


def test_bowl_rates_around_1_are_equally_quick_and_one_ping_pongs():
    half, more = (descend_2d(BOWL, hg.sgd(lr), (1.0, 0.0), 30) for lr in (0.5, 1.5))
    assert float(half.steps_to()) == float(more.steps_to()) == 10
    assert (half.points[1:, 0] > 0).all() and (more.points[1::2, 0] < 0).all()


def test_steps_to():
    points = jnp.array([[3.0, 0.0], [0.5, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    path = Path(points, points[:, 0], points)
    assert [float(path.steps_to((0.0, 0.0), d)) for d in (5, 1, 0.9, 0)] == [0, 3, 4, 4]
    assert float(path.steps_to((9.0, 9.0))) == jnp.inf
    lost = Path(points.at[4].set(jnp.nan), points[:, 0], points)
    assert float(lost.steps_to((0.0, 0.0), 5)) == jnp.inf


def test_divergence_is_no_error():
    path = descend_2d(surfaces["himmelblau"], hg.sgd(1.0), (4.0, 4.0), 30)
    assert not np.isfinite(np.asarray(path.values[-1])) and float(path.steps_to((3.0, 2.0))) == jnp.inf


def test_errors():
    with pytest.raises(TypeError, match=r"descend_2d: surface must be an hg.Surface, such as hg.surfaces\['bowl'\]"):
        descend_2d("bowl", hg.sgd(0.1), (0.0, 0.0), 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"descend_2d: an optimizer must have init and update, got .*write sgd\(...\)"):
        descend_2d(BOWL, hg.sgd, (0.0, 0.0), 3)
    with pytest.raises(ValueError, match=r"start must be a point \(2,\), got shape \(3, 2\); use jax.vmap"):
        descend_2d(BOWL, hg.sgd(0.1), np.ones((3, 2)), 3)
    for steps in (0, 2.5):
        with pytest.raises(ValueError, match=f"descend_2d: steps must be a positive int, got {steps}"):
            descend_2d(BOWL, hg.sgd(0.1), (0.0, 0.0), steps)  # pyright: ignore[reportArgumentType]
