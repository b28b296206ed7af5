"""ops/batching.py: vmap of a convolution in every mode, against the same of the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.ops import batching, conv, conv_backward, conv_forward

random = np.random.default_rng(0)
X, XS = jnp.asarray(random.normal(size=(2, 5, 5, 3))), jnp.asarray(random.normal(size=(3, 2, 5, 5, 3)))
K, KS = jnp.asarray(random.normal(size=(3, 3, 3, 4))), jnp.asarray(random.normal(size=(3, 3, 3, 3, 4)))
DY, DYS = jnp.asarray(random.normal(size=(2, 5, 5, 4))), jnp.asarray(random.normal(size=(3, 2, 5, 5, 4)))
MODES = {
    "over kernels": lambda op: jax.vmap(op, (None, 0))(X, KS),
    "over data": lambda op: jax.vmap(op, (0, None))(XS, K),
    "over both": lambda op: jax.vmap(op)(XS, KS),
    "over the last axis": lambda op: jax.vmap(op, (None, -1), -1)(X, jnp.moveaxis(KS, 0, -1)),
    "nested": lambda op: jax.vmap(lambda x: jax.vmap(lambda k: op(x, k))(KS))(XS),
    "of jvp": lambda op: jax.vmap(lambda t: jax.jvp(lambda k: op(X, k), (K,), (t,))[1])(KS),
    "grad": lambda op: jax.grad(lambda k: (op(X, k) ** 2).sum())(K),
    "of grad": lambda op: jax.vmap(jax.grad(lambda k: (op(X, k) ** 2).sum()))(KS),
    "grad of grad": lambda op: jax.grad(lambda k: (jax.grad(lambda k: (op(X, k) ** 3).sum())(k) ** 2).sum())(K),
    "jvp of grad": lambda op: jax.jvp(jax.grad(lambda k: (op(X, k) ** 3).sum()), (K,), (KS[0],))[1],
    "in scan": lambda op: jax.lax.scan(lambda c, k: (c, jax.vmap(op, (0, None))(XS, k)), 0, KS)[1],
}


@pytest.mark.parametrize("mode", MODES)
def test_conv_forward_in_every_mode(mode):
    got, want = jax.jit(lambda: (MODES[mode](lambda x, k: conv_forward(x, k)[0]), MODES[mode](conv)))()
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11 * float(np.abs(want).max()))


@pytest.mark.parametrize("axes", [(0, None, 0), (None, 0, None), (0, 0, 0), (None, None, 0), (None, 0, 0)])
def test_conv_backward_under_vmap(axes):
    both = zip(axes, (X, K, DY), (XS, KS, DYS), strict=True)
    x, kernel, dy = (one if axis is None else many for axis, one, many in both)

    def automatic(x, kernel, dy):
        return jax.vjp(conv, x, kernel)[1](dy)

    got, want = jax.jit(
        lambda: (jax.vmap(conv_backward, axes)(x, kernel, dy), jax.vmap(automatic, axes)(x, kernel, dy))
    )()
    for ours, theirs in zip(got, want, strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11 * float(np.abs(theirs).max()))


@pytest.mark.parametrize("members, platform, grouped", [(3, "cpu", False), (17, "cpu", True), (3, "gpu", True)])
def test_members_are_unrolled_up_to_a_number_on_cpu(monkeypatch, members, platform, grouped):
    monkeypatch.setattr(batching.jax, "default_backend", lambda: platform)
    kernels = jnp.ones((members, *K.shape))
    text = jax.jit(jax.vmap(lambda k: conv_forward(jnp.asarray(X), k)[0])).lower(kernels).as_text()
    joined = f"tensor<3x3x3x{4 * members}x" in text or f"feature_group_count = {members}" in text
    assert joined == grouped
    assert text.count("stablehlo.convolution") == (1 if grouped else members)
