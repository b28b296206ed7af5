"""ops/dense.py against jax.vjp of the plain formula, and by numbers worked out on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops import dense, dense_backward, dense_forward

pytestmark = pytest.mark.core


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=["vector", "batch", "two-leading-axes"])
def test_matches_jax_vjp(leading):
    keys = jax.random.split(jax.random.key(0), 4)
    x, kernel = jax.random.normal(keys[0], (*leading, 4)), jax.random.normal(keys[1], (4, 5))
    bias, dy = jax.random.normal(keys[2], (5,)), jax.random.normal(keys[3], (*leading, 5))
    expected, vjp = jax.vjp(
        lambda x, k, b: jnp.einsum("...i,io->...o", x, k) + b.reshape((1,) * len(leading) + (5,)), x, kernel, bias
    )
    y, kept = dense_forward(x, kernel, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    for got, want in zip(jax.jit(dense_backward)(kept, kernel, dy), vjp(dy), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_numbers_by_hand():
    dx, dkernel, dbias = dense_backward(
        jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 5.0], [7.0, 11.0]]), jnp.array([[1.0, 10.0]])
    )
    assert dx.tolist() == [[53.0, 117.0]]
    assert dkernel.tolist() == [[1.0, 10.0], [2.0, 20.0]]
    assert dbias.tolist() == [1.0, 10.0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_keeps_the_dtype(dtype):
    x, kernel, dy = (jnp.ones(shape, dtype) for shape in ((2, 3), (3, 4), (2, 4)))
    y, kept = dense_forward(x, kernel, jnp.ones(4, dtype))
    assert {a.dtype for a in (y, *dense_backward(kept, kernel, dy))} == {jnp.dtype(dtype)}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"last axis of x must be 4 .* got x \(2, 3\); put Flatten\(\)"):
        dense(jnp.ones((2, 3)), jnp.ones((4, 5)))
    with pytest.raises(ValueError, match=r"kernel must be \(in, out\), got shape \(4,\)"):
        dense(jnp.ones((2, 4)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"bias must be \(5,\)"):
        dense(jnp.ones((2, 4)), jnp.ones((4, 5)), jnp.ones(1))
    with pytest.raises(TypeError, match="x must be floating, got int"):
        dense(jnp.ones((2, 4), int), jnp.ones((4, 5)))
