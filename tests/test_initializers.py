"""initializers.py: its scales against closed forms and jax.nn.initializers, its types, its errors."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import initializers

KERNEL = (3, 3, 50, 100)  # fan_in 450, fan_out 900
VARIANCE = {"he": 2 / 450, "glorot": 2 / (450 + 900), "lecun": 1 / 450}
NAMES = [f"{family}_{kind}" for family in VARIANCE for kind in ("normal", "uniform")]
every_random = pytest.mark.parametrize("name", NAMES)
key = jax.random.key(3)


def draw(name, shape=KERNEL, dtype=jnp.float64):
    return np.asarray(getattr(initializers, name)(key, shape, dtype), np.float64)


@every_random
def test_mean_and_variance(name):
    kernel, variance = draw(name), VARIANCE[name.split("_")[0]]
    n = kernel.size  # 45,000: the variance of n normal draws has relative standard error sqrt(2/n) = 0.007
    assert abs(kernel.mean()) < 4 * np.sqrt(variance / n)
    assert abs(kernel.var() / variance - 1) < 4 * np.sqrt(2 / n)


@every_random
def test_the_form_of_the_distribution(name):
    standard = draw(name) / draw(name).std()
    kurtosis, largest = (standard**4).mean(), np.abs(standard).max()
    if name.endswith("uniform"):
        assert abs(kurtosis - 9 / 5) < 0.02 and largest < np.sqrt(3) * 1.01
    else:
        assert abs(kurtosis - 3) < 0.1 and largest > 3.5  # jax.nn's truncated normal stops at 2.3


@pytest.mark.parametrize("shape", [KERNEL, (4, 5)])
@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("uniform")])
def test_uniform_equals_jax(name, shape):
    expected = getattr(jax.nn.initializers, name)()(key, shape, jnp.float64)
    np.testing.assert_allclose(draw(name, shape), expected, rtol=1e-12, atol=1e-16)  # -a + 2a u cancels near 0


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", [*NAMES, "zeros", "ones"])
def test_dtype_is_obeyed(name, dtype):
    init = getattr(initializers, name)
    assert jax.eval_shape(lambda: init(key, (4, 5), dtype)).dtype == dtype
    assert jax.eval_shape(lambda: init(key, (4, 5))).dtype == jnp.float32


@every_random
def test_half_precision_is_rounded_float32(name):
    expected = getattr(initializers, name)(key, (4, 5), jnp.float32).astype(jnp.bfloat16)
    assert (getattr(initializers, name)(key, (4, 5), jnp.bfloat16) == expected).all()


@every_random
def test_other_keys_give_other_draws(name):
    init = getattr(initializers, name)
    assert not np.any(np.asarray(init(jax.random.key(0), (4, 5))) == np.asarray(init(jax.random.key(1), (4, 5))))


@every_random
@pytest.mark.parametrize("shape", [(), (5,)])
def test_a_fan_needs_rank_two(name, shape):
    with pytest.raises(ValueError, match=rf"{name}: shape must be \(spatial..., in, out\), rank 2 at least, got \("):
        getattr(initializers, name)(key, shape)


@every_random
def test_empty_kernel_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: every size of shape must be at least 1, got \(3, 0, 4\)"):
        getattr(initializers, name)(key, (3, 0, 4))


@every_random
def test_integer_dtype_is_refused(name):
    with pytest.raises(TypeError, match=rf"{name}: dtype must be floating point, got int32"):
        getattr(initializers, name)(key, (3, 4), jnp.int32)


def test_zeros_ones_constant():
    for init, value in ((initializers.zeros, 0), (initializers.ones, 1), (initializers.constant(-0.25), -0.25)):
        for shape in ((), (3,), (2, 3)):
            np.testing.assert_array_equal(init(key, shape, jnp.float32), np.full(shape, value, np.float32), strict=True)


def test_equal_constants_are_equal_and_compile_once():
    constant: Any = initializers.constant
    assert constant(0.5) == constant(np.float32(0.5)) != constant(0.25)
    assert hash(constant(1)) == hash(constant(1.0))
    run: Any = jax.jit(lambda init: init(None, (2,)), static_argnums=0)
    for _ in range(2):
        run(constant(0.1))
    assert run._cache_size() == 1


@pytest.mark.parametrize("value", ["1", None, 1j, np.ones(2)], ids=["str", "None", "complex", "array"])
def test_constant_wants_a_number(value):
    with pytest.raises(TypeError, match=f"constant: value must be a real number, got {type(value).__name__}"):
        initializers.constant(value)
