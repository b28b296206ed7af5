"""The gradient by hand on meshes of both axis types, and inside shard_map, beside one big batch on one device."""

import chex
import jax
import jax.numpy as jnp
import pytest
from jax import P
from jax.sharding import AxisType, NamedSharding

import handgrad as hg
from handgrad.mesh import explicit_mesh, summed

NET = hg.Chain(
    hg.Conv(4, 3), hg.BatchNorm(), hg.Relu(), hg.Residual(hg.Conv(4, 3)), hg.MaxPool(2), hg.Flatten(),
    hg.Dropout(0.5), hg.Dense(6), hg.Tanh(), hg.Dense(3),
)  # fmt: skip
OBJECTIVE = hg.Objective(NET, hg.SoftmaxCrossEntropy(), l2=0.1)
X, Y = jax.random.normal(jax.random.key(1), (8, 6, 4, 2)), jnp.arange(8) % 3
PARAMS, STATE = NET.init(jax.random.key(0), X.shape[1:], jnp.float64)
KEY = jax.random.key(5)
WEIGHTS = jnp.arange(1.0, 9.0)
COPY = P()


@pytest.fixture(scope="module")
def alone():
    """On one device, automatically."""
    return jax.jit(jax.value_and_grad(OBJECTIVE, has_aux=True))(PARAMS, X, Y, STATE, KEY, WEIGHTS)


def placed(mesh, dense_kernel=COPY):
    """Params, state and key everywhere, but for the first dense kernel; the batch spread over "data"."""

    def put(tree, spec):
        return jax.device_put(tree, NamedSharding(mesh, spec))

    params = put(PARAMS, COPY)
    params["dense1"]["kernel"] = put(PARAMS["dense1"]["kernel"], dense_kernel)
    return params, *put((X, Y), P("data")), *put((STATE, KEY), COPY), put(WEIGHTS, P("data"))


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_a_batch_over_four_devices_is_one_big_batch(alone, kind):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    found = jax.jit(hg.value_and_grad(OBJECTIVE))(*placed(mesh))
    chex.assert_trees_all_close(found, alone, rtol=1e-10, atol=1e-14)
    (_, aux), _ = found
    assert not aux.logits.sharding.is_fully_replicated
    assert len({shard.device for shard in aux.logits.addressable_shards}) == 4


def test_outside_jit_on_an_explicit_mesh(alone):
    net = hg.Chain(hg.Flatten(), hg.Dense(3))
    params, _ = net.init(jax.random.key(0), X.shape[1:], jnp.float64)
    mesh, gradient = jax.make_mesh((4,), ("data",)), hg.grad(hg.Objective(net, hg.SoftmaxCrossEntropy()), (0, 1))
    x, y = jax.device_put((X, Y), NamedSharding(mesh, P("data")))
    found = gradient(jax.device_put(params, NamedSharding(mesh, P())), x, y)
    chex.assert_trees_all_close(found, gradient(params, X, Y), rtol=1e-10, atol=1e-14)
    (_, dx), _ = found
    assert dx.sharding.spec[0] == "data"


def test_params_on_no_mesh_with_a_spread_batch_are_copies(alone):
    mesh = jax.make_mesh((4,), ("data",))
    x, y, weights = jax.device_put((X, Y, WEIGHTS), NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        found = jax.jit(hg.value_and_grad(OBJECTIVE))(PARAMS, x, y, STATE, KEY, weights)
    chex.assert_trees_all_close(found, alone, rtol=1e-10, atol=1e-14)


def test_a_dense_kernel_over_a_model_axis_keeps_its_sharding(alone):
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    args = placed(mesh, P(None, "model"))
    _, grads = found = jax.jit(hg.value_and_grad(OBJECTIVE))(*args)
    chex.assert_trees_all_close(found, alone, rtol=1e-10, atol=1e-14)
    assert grads["dense1"]["kernel"].sharding.spec == P(None, "model")
    assert grads["dense1"]["kernel"].addressable_shards[0].data.shape[1] == 3


def test_arrays_of_two_meshes_are_an_error():
    one, other = jax.make_mesh((4,), ("data",)), jax.make_mesh((4,), ("batch",))
    arrays = [jax.device_put(Y, NamedSharding(mesh, P())) for mesh in (one, other)]
    with pytest.raises(ValueError, match="all arrays must be on one mesh, got .*data.* and .*batch|.*batch.*data"):
        explicit_mesh(arrays)
    assert explicit_mesh(X, Y, None, 3.0) is None


PLAIN = hg.Chain(hg.Conv(4, 3), hg.Relu(), hg.MaxPool(3, 2), hg.Flatten(), hg.Dense(3))


def over_devices(gradient, mesh):
    """Each device differentiates the loss of its quarter of the batch; what comes back is the mean over devices."""

    def each(params, x, y):
        (loss, _), (dparams, dx) = gradient(params, x, y)
        return jax.lax.pmean(loss, "data"), jax.tree.map(lambda g: g / 4, dparams), dx / 4

    outs = (COPY, COPY, P("data"))
    return jax.jit(jax.shard_map(each, mesh=mesh, in_specs=(COPY, P("data"), P("data")), out_specs=outs))


def test_inside_shard_map_the_gradient_is_that_of_one_big_batch():
    """As jax.grad's is there: both sum a copied parameter's gradient over the devices."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    objective = hg.Objective(PLAIN, hg.SoftmaxCrossEntropy(), l2=0.1)
    params, _ = PLAIN.init(jax.random.key(0), X.shape[1:], jnp.float64)
    (loss, _), (dparams, dx) = jax.value_and_grad(objective, (0, 1), has_aux=True)(params, X, Y)
    for gradient in (hg.value_and_grad(objective, (0, 1)), jax.value_and_grad(objective, (0, 1), has_aux=True)):
        found = over_devices(gradient, mesh)(params, X, Y)
        chex.assert_trees_all_close(found, (loss, dparams, dx), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_without_the_sum_each_device_has_a_gradient_of_its_own():
    """What `summed` is there for: a device's own gradient differs from the big batch's, and from its neighbour's."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    layer, loss = hg.Dense(3), hg.SoftmaxCrossEntropy()
    x, params = X.reshape(8, -1), layer.init(jax.random.key(0), (48,), jnp.float64)[0]

    def own(params, x, y):
        logits, _, residuals = layer.forward(params, x)
        _, dparams = layer.backward(params, residuals, loss.value_and_grad(logits, y)[1])
        return dparams["bias"][None], summed(dparams, params)["bias"] / 4

    spread = jax.shard_map(own, mesh=mesh, in_specs=(COPY, P("data"), P("data")), out_specs=(P("data"), COPY))
    each, total = spread(params, x, Y)
    wanted = jax.grad(lambda p: loss(layer.apply(p, x), Y))(params)["bias"]
    chex.assert_trees_all_close(total, wanted, rtol=1e-12)
    assert all(abs(device - wanted).max() > 0.01 for device in each) and abs(each[0] - each[1]).max() > 0.01


def test_a_bridged_op_and_a_bridged_layer_inside_shard_map():
    """A custom_vjp must sum a copied array's gradient itself; jax.grad of the plain op is beside it."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    kernel = jax.random.normal(jax.random.key(2), (3, 3, 2, 4))
    layer = hg.bridge.layer(hg.Conv(4, 3, use_bias=False))
    ways = {
        "op": lambda kernel, x: (hg.bridge.conv(x, kernel) ** 2).sum(),
        "layer": lambda kernel, x: (layer({"kernel": kernel}, x)[0] ** 2).sum(),
        "plain": lambda kernel, x: (hg.ops.conv(x, kernel) ** 2).sum(),
    }
    for way in ways.values():
        each = jax.shard_map(jax.grad(way, (0, 1)), mesh=mesh, in_specs=(COPY, P("data")), out_specs=(COPY, P("data")))
        chex.assert_trees_all_close(jax.jit(each)(kernel, X), jax.grad(ways["plain"], (0, 1))(kernel, X), rtol=1e-10)
