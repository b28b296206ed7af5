"""compile.py: options and donation at top level, neither inside other transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import compile as compiling
from handgrad.compile import at_top_level, jit
from handgrad.ops import max_pool_forward, softmax


@pytest.fixture
def doubled():
    return jit(lambda a: 2 * a, donate_argnums=0)


def test_top_level_donates(doubled):
    a = jnp.ones(3)
    np.testing.assert_array_equal(doubled(a), [2, 2, 2])
    assert a.is_deleted()


INSIDE = {  # each calls f on a fresh array that it gives back beside the result
    "jit": lambda f, a: jax.jit(f)(a),
    "jit of constants": lambda f, a: jax.jit(lambda: f(a))(),
    "vmap": lambda f, a: jax.vmap(f)(a),
    "vmap of constants": lambda f, a: jax.vmap(lambda b: f(a))(jnp.ones(2))[0],
    "vmap over a closure": lambda f, a: jax.vmap(lambda s: jit(lambda a: f(a) * s, donate_argnums=0)(a))(jnp.ones(2))[
        0
    ],
    "grad": lambda f, a: jax.grad(lambda a: (f(a) ** 2).sum() / 4)(a),
    "grad of constants": lambda f, a: jax.grad(lambda s: (s * f(a)).sum())(1.0) * jnp.ones(3) / 3,
    "jvp": lambda f, a: jax.jvp(f, (a,), (a,))[1],
    "scan": lambda f, a: jax.lax.scan(lambda c, _: (f(c), None), a, None, length=1)[0],
    "checkpoint": lambda f, a: jax.checkpoint(f)(a),
}


@pytest.mark.parametrize("mode", INSIDE)
def test_inside_a_transformation_nothing_is_donated(doubled, mode):
    a = jnp.ones(3)
    result = INSIDE[mode](doubled, a)
    np.testing.assert_allclose(result, [2, 2, 2])
    assert not a.is_deleted()


def test_options_are_refused_inside_by_a_plain_jit():
    plain = jax.jit(lambda a: a, compiler_options=dict(compiling.CPU_OPTIONS))
    with pytest.raises(ValueError, match="top-level"):
        jax.jit(plain)(1.0)


def test_the_options_reach_the_compiler_on_cpu_only(monkeypatch):
    assert compiling.cpu_options_work()  # tried once, and not by the spy
    tried = []
    real = jax.jit

    def spy(f, **settings):
        compiled = real(f, **settings)
        return lambda *args: (tried.append(settings.get("compiler_options")), compiled(*args))[1]

    monkeypatch.setattr(compiling.jax, "jit", spy)
    f = jit(lambda a: a + 1)
    f(1.0)
    jax.vmap(f)(jnp.ones(2))
    monkeypatch.setattr(compiling.jax, "default_backend", lambda: "gpu")
    f(1.0)
    assert tried == [compiling.CPU_OPTIONS, None, None]


@pytest.mark.parametrize("options", [{"xla_cpu_no_such_option": "1"}, {"xla_cpu_experimental_ynn_fusion_type": "NONE"}])
def test_options_unknown_to_the_compiler_are_dropped(monkeypatch, options):
    monkeypatch.setattr(compiling, "CPU_OPTIONS", options)
    compiling.cpu_options_work.cache_clear()
    try:
        assert jit(lambda a: a + 1)(1) == 2
        assert not compiling.cpu_options_work()
    finally:
        compiling.cpu_options_work.cache_clear()


def test_keywords_static_arguments_and_wrapping():
    def power(a, *, exponent):
        """a to the exponent."""
        assert isinstance(exponent, int)
        return a**exponent

    f = jit(power, static_argnames="exponent")
    assert f(jnp.asarray(3.0), exponent=2) == 9 and f(a=jnp.asarray(2.0), exponent=3) == 8
    assert f.__doc__ == power.__doc__ and getattr(f, "__name__") == "power"  # noqa: B009
    assert jit(lambda n, a: a * n, static_argnums=0)(3, 2.0) == 6


def test_a_donated_argument_given_by_keyword_is_donated_too():
    a = jnp.ones(3)
    jit(lambda a: 2 * a, donate_argnums=0)(a=a)
    assert a.is_deleted()


def test_methods():
    class Scale:
        factor = 3

        @jit
        def __call__(self, a):
            return a * self.factor

    jax.tree_util.register_static(Scale)
    assert Scale()(2.0) == 6


@pytest.mark.slow
@pytest.mark.parametrize("ties", ["first", "split"])
@pytest.mark.parametrize("window", [2, 9])
def test_pools_and_softmax_keep_nan_under_the_options(ties, window):
    x = jnp.arange(1.0, 163).reshape(1, 9, 18, 1).at[0, 3, 3, 0].set(jnp.nan)
    pool = jit(lambda x: max_pool_forward(x, window=window, ties=ties)[0])
    np.testing.assert_array_equal(pool(x), max_pool_forward(x, window=window, ties=ties)[0])
    assert jnp.isnan(pool(x)).sum() == 1
    assert jnp.isnan(jit(lambda x: softmax(x.reshape(9, 18)))(x)).any(-1).tolist() == [n == 3 for n in range(9)]


def test_lower_has_the_options_where_a_call_would():
    assert jit(lambda a: a @ a).lower(jnp.ones((2, 2))).compile()(jnp.ones((2, 2))).shape == (2, 2)


def test_at_top_level():
    inside = []
    jax.eval_shape(lambda: inside.append(at_top_level()))
    assert at_top_level() and inside == [False]


def test_a_thing_that_is_no_function():
    with pytest.raises(TypeError, match="jit: wants a function, got int"):
        jit(3)  # pyright: ignore[reportArgumentType]


def test_the_options_keep_nan_in_reductions_and_in_elementwise_code():
    x = jnp.ones((64, 128)).at[3, 5].set(jnp.nan)
    for f in (jnp.max, jnp.min, jnp.sum, lambda x: jnp.maximum(x, 0).max(0).max()):
        assert jnp.isnan(jit(f)(x))
        assert jnp.isnan(jit(f)(x * x))
