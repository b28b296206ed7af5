"""docs/coming_from_stax.md: each of its blocks runs, and prints what the page says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.example_libraries import optimizers, stax

import handgrad as hg
from test_howto import FENCE, outputs_of

PAGE = Path(__file__).parents[1] / "docs" / "coming_from_stax.md"


@pytest.mark.slow
def test_every_block_prints_what_the_page_says():
    shown = [text for _, _, text in FENCE.findall(PAGE.read_text(encoding="utf-8"))]
    assert outputs_of(PAGE) == [text.removesuffix("\n") for text in shown]
    assert len(shown) >= 10


SAME_NAME = ("Tanh", "Sigmoid", "Softplus", "Elu", "LeakyRelu", "Selu", "Relu", "Identity", "Softmax", "LogSoftmax")
X = jnp.linspace(-2, 3, 2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
PAIRS = {
    **{name: (getattr(hg, name)(), getattr(stax, name)) for name in SAME_NAME},
    "Exp": (hg.Lambda(jnp.exp), stax.Exp),
    "Flatten": (hg.Flatten(), stax.Flatten),
    "MaxPool": (hg.MaxPool(2), stax.MaxPool((2, 2), (2, 2))),
    "AvgPool": (hg.AvgPool(2), stax.AvgPool((2, 2), (2, 2))),
    "MaxPool by 1": (hg.MaxPool(2, strides=1), stax.MaxPool((2, 2))),
    "concatenate": (
        hg.Parallel(hg.Relu(), hg.Tanh()),
        stax.serial(stax.FanOut(2), stax.parallel(stax.Relu, stax.Tanh), stax.FanInConcat()),
    ),
    "residual": (
        hg.Residual(hg.Tanh()),
        stax.serial(stax.FanOut(2), stax.parallel(stax.Tanh, stax.Identity), stax.FanInSum),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_row_of_the_table_of_names_computes_the_same(name):
    ours, (init, apply) = PAIRS[name]
    _, params = init(jax.random.key(0), X.shape)
    theirs = apply(params, X)
    mine = ours.apply(ours.init(jax.random.key(0), X.shape[1:], X.dtype)[0], X)
    assert hg.compare(name, mine, theirs).error < 1e-6


def test_an_average_pool_of_stax_times_four_is_its_sum_pool():
    sums = stax.SumPool((2, 2), (2, 2))[1]((), X)
    assert hg.compare("sum", 4 * hg.AvgPool(2).apply({}, X), sums).error < 1e-6


RULES = {
    "sgd": (hg.sgd(0.1), optimizers.sgd(0.1)),
    "momentum": (hg.momentum(0.1, 0.8), optimizers.momentum(0.1, 0.8)),
    "nesterov": (hg.momentum(0.1, 0.8, nesterov=True), optimizers.nesterov(0.1, 0.8)),
    "adam": (hg.adam(0.1), optimizers.adam(0.1)),
}


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_of_the_table_takes_the_same_way(name):
    ours, (init, update, get) = RULES[name]
    w = jnp.array([1.0, -2.0, 3.0])
    state, their_state, mine = ours.init(w), init(w), w
    for i in range(5):
        updates, state = ours.update(jnp.sin(3 * mine) + i, state, mine)
        their_state = update(i, jnp.sin(3 * get(their_state)) + i, their_state)
        mine = hg.apply_updates(mine, updates)
    assert hg.compare(name, mine, get(their_state)).error < 1e-5
