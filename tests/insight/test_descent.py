"""Descent beside plain loops, the surfaces' gradients beside jax.grad, and stability limits in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import handgrad as hg
from handgrad.insight.descent import SURFACES, Surface

RATE, BETA = 0.01, 0.8


def loop(rule, gradient, start, steps):
    """rule(point, gradient, memory) -> point, memory, in NumPy."""
    points, memory = [np.array(start, float)], np.zeros(2)
    for _ in range(steps):
        point, memory = rule(points[-1], np.asarray(gradient(jnp.asarray(points[-1]))), memory)
        points.append(point)
    return np.array(points)


def heavy_ball(p, g, v):
    v = BETA * v + g
    return p - RATE * v, v


def nesterov(p, g, v):
    v = BETA * v + g
    return p - RATE * (g + BETA * v), v


def lecture(p, g, last):
    return p - RATE * (BETA * last + g), g


RULES = {
    "sgd": (hg.sgd(RATE), lambda p, g, v: (p - RATE * g, v)),
    "heavy ball": (hg.momentum(RATE, BETA), heavy_ball),
    "nesterov": (hg.momentum(RATE, BETA, nesterov=True), nesterov),
    "lecture": (hg.previous_gradient_momentum(RATE, BETA), lecture),
    "optax": (optax.sgd(RATE), lambda p, g, v: (p - RATE * g, v)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["ravine", "minima"])
def test_paths_are_those_of_a_loop(rule, name):
    optimizer, by_loop = RULES[rule]
    path = hg.descend_2d(name, optimizer, (1.0, 0.4), steps=12)
    wanted = loop(by_loop, jax.grad(SURFACES[name].value), (1.0, 0.4), 12)
    np.testing.assert_allclose(path.points, wanted, rtol=1e-10)
    np.testing.assert_allclose(path.values[3], SURFACES[name].value(jnp.asarray(wanted[3])), rtol=1e-10)


@pytest.mark.parametrize("name", SURFACES)
def test_gradients_by_hand_are_jax_grads(name):
    surface = SURFACES[name]
    for point in jax.random.normal(jax.random.key(0), (5, 2)):
        np.testing.assert_allclose(surface.gradient(point), jax.grad(surface.value)(point), rtol=1e-12, atol=1e-14)


def farthest(optimizer_of, rates, steps=400):
    """|point| at the end for each rate x curvature, on the bowl, whose curvature is 1."""
    ends = jax.vmap(lambda rate: hg.descend_2d("bowl", optimizer_of(rate), (1.0, 0.0), steps).points[-1])(rates)
    return np.abs(np.asarray(ends)[:, 0])


@pytest.mark.parametrize(
    ("optimizer_of", "limit"),
    [
        (hg.sgd, 2.0),
        (lambda r: hg.momentum(r, 0.9), 2 * 1.9),
        (lambda r: hg.momentum(r, 0.9, nesterov=True), 2 * 1.9 / 2.8),
        (lambda r: hg.previous_gradient_momentum(r, 0.9), 1 / 0.9),
    ],
)
def test_the_largest_stable_rate_is_the_closed_form(optimizer_of, limit):
    """2, 2(1+β), 2(1+β)/(1+2β) and 1/α: the edge of where the recurrence's roots lie in the unit circle."""
    below, above = farthest(optimizer_of, jnp.array([0.97 * limit, 1.03 * limit]))
    assert below < 1 and (above > 3 or np.isnan(above))


def test_on_the_line_into_a_saddle_descent_is_stuck():
    path = hg.descend_2d("saddle", hg.sgd(0.1), (1.0, 0.0), 200)
    assert path.points[-1, 1] == 0 and abs(path.points[-1, 0]) < 1e-10
    off = hg.descend_2d("saddle", hg.sgd(0.1), (1.0, 1e-6), 200)
    assert off.points[-1, 1] == pytest.approx(2**0.5)


def test_one_pulse_of_gradient():
    """A slope of 1 at the first step and none after: heavy ball and Nesterov coast to -η/(1-β), the lecture's form
    takes one step more, α times the first, and stops."""
    pulse = Surface(
        "pulse", lambda p: p[0], lambda p: jnp.where(p[0] == 0, jnp.array([1.0, 0.0]), 0.0), (-1, -1), (1, 1)
    )
    rules = hg.sgd(0.1), hg.momentum(0.1), hg.momentum(0.1, nesterov=True), hg.previous_gradient_momentum(0.1, 0.9)
    paths = [hg.descend_2d(pulse, rule, (0.0, 0.0), 400).points[:, 0] for rule in rules]
    np.testing.assert_allclose([path[-1] for path in paths], [-0.1, -1, -1, -0.19], rtol=1e-12)
    assert (paths[3][2:] == paths[3][2]).all() and (jnp.diff(paths[1])[:50] < 0).all()


def test_the_lectures_form_bears_most_at_a_third():
    """min(1/α, 2/(1-α)): 1.11 at 0.9, 3 at 1/3, 2.22 at 0.1, where the root comes to -1 first."""
    for alpha, limit in ((1 / 3, 3.0), (0.1, 2 / 0.9)):
        below, above = farthest(
            lambda r, alpha=alpha: hg.previous_gradient_momentum(r, alpha), jnp.array([0.97 * limit, 1.03 * limit])
        )
        assert below < 1 and (above > 3 or np.isnan(above))


def test_the_ravine_takes_plain_descent_as_long_as_its_curvatures_say():
    """At its best rate 2/(1 + κ) both coordinates shrink by (κ-1)/(κ+1) a step."""
    points = hg.descend_2d("ravine", hg.sgd(2 / 101), (1.0, 1.0), 400).points
    np.testing.assert_allclose(jnp.abs(points[-1]), (99 / 101) ** 400, rtol=1e-9)
    far = np.linalg.norm(points, axis=1) > 1e-3
    assert far.sum() == np.ceil(np.log(1e-3 / 2**0.5) / np.log(99 / 101)) == 363


def test_a_surface_of_ones_own_and_one_that_is_left():
    mine = Surface(
        "mine", lambda p: p[0] ** 4 + p[1] ** 2, lambda p: jnp.stack([4 * p[0] ** 3, 2 * p[1]]), (-1, -1), (1, 1)
    )
    path = hg.descend_2d(mine, hg.sgd(10.0), (1.0, 1.0), 10)
    assert not np.isfinite(path.values[-1])
    assert hg.viz.descend_2d({"too fast": path}, mine).get_title().startswith("mine: after 10 steps")


def test_errors():
    with pytest.raises(ValueError, match="surface must be one of bowl, ravine, saddle, minima, plateau, got 'hill'"):
        hg.descend_2d("hill", hg.sgd(0.1), (0, 0))
    with pytest.raises(TypeError, match="must be a Surface or the name of one"):
        hg.descend_2d(3, hg.sgd(0.1), (0, 0))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must have init and update"):
        hg.descend_2d("bowl", hg.sgd, (0, 0))
    with pytest.raises(ValueError, match=r"start of two numbers and a step or more, got \(3,\) and 100"):
        hg.descend_2d("bowl", hg.sgd(0.1), (0, 0, 0))
