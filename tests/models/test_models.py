"""The nets: their sizes are those of their papers, and each one's backward is jax.grad's."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import models
from handgrad.insight.leaves import leaf_layers
from handgrad.models.lenet import ScaledTanh

KEY = jax.random.key(0)
PARAMETERS = {
    "perceptron": 7_850,
    "mlp": 109_386,
    "lenet": 857_738,
    "digits_cnn": 79_626,
    "fashion_cnn": 93_546,
    "lenet5": 61_706,
    "alexnet": 60_965_224,
    "alexnet_one_tower": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet9": 6_573_130,
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet56": 855_770,
    "mobilenet_v1": 4_231_976,
}
WITH_BATCH_NORM = {"vgg11": 132_868_840, "vgg13": 133_053_736, "vgg16": 138_365_992, "vgg19": 143_678_248}

TINY = 1 / 32
NETS = {  # net and in_shape, each as small as its pools allow
    "perceptron": (models.perceptron(), (4, 3, 1)),
    "mlp": (models.mlp(3, hidden=(6, 5), dropout=0.3), (4, 3, 1)),
    "lenet": (models.lenet(), (4, 4, 1)),
    "digits_cnn": (models.digits_cnn(), (4, 4, 1)),
    "lenet5": (models.lenet5(), (16, 16, 1)),
    "lenet5 of the paper": (models.lenet5(3, padding=2, original=True), (12, 12, 1)),
    "alexnet": (models.alexnet(5, width=TINY), (99, 99, 3)),
    "alexnet_one_tower": (models.alexnet_one_tower(5, width=TINY), (95, 95, 3)),
    "vgg": (models.vgg((1, 1, 2), 5, width=TINY), (16, 16, 3)),
    "vgg with batch norm": (models.vgg((1, 2), 5, batch_norm=True, width=TINY), (12, 12, 3)),
    "resnet": (models.resnet((1, 2), 5, width=TINY), (16, 16, 3)),
    "resnet of bottlenecks": (models.resnet((1, 1), 5, width=TINY, bottleneck=True), (16, 16, 3)),
    "fashion_cnn": (models.fashion_cnn(), (4, 4, 1)),
    "resnet9": (models.resnet9(3, widths=(2, 3, 4, 3)), (8, 9, 1)),
    "cifar_resnet": (models.cifar_resnet(1, width=1 / 8), (8, 8, 3)),
    "start of mobilenet_v1": (
        hg.Chain(*models.mobilenet_v1(width=1 / 8).layers[:9], hg.GlobalAvgPool(), hg.Dense(3)),
        (8, 8, 3),
    ),
}
FAST = ("perceptron", "mlp", "lenet5 of the paper", "resnet", "start of mobilenet_v1")
QUICKLY_TRAINED = ("lenet5 of the paper", "resnet")
DEEP = {
    "mobilenet_v1": (models.mobilenet_v1(5, width=TINY), (32, 32, 3)),
    **{f"vgg{n}": (models.by_name(f"vgg{n}", classes=5, width=TINY), (32, 32, 3)) for n in (11, 13, 16, 19)},
    **{f"resnet{n}": (models.by_name(f"resnet{n}", classes=5, width=TINY), (32, 32, 3)) for n in (18, 34, 50)},
    **{f"resnet{n}": (models.by_name(f"resnet{n}", width=1 / 8), (16, 16, 3)) for n in (20, 32, 56)},
}


def shapes(net, in_shape, dtype=jnp.float32):
    return jax.eval_shape(lambda: net.init(KEY, in_shape, dtype))


def count(net, in_shape):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(net, in_shape)[0]))


def given(net, in_shape, dtype=jnp.float64, batch=3):
    """Params, state and x of NumPy's draws: kernels of He's size, all else off the values that hide an error."""
    random = np.random.default_rng(0)

    def drawn(leaf):
        fan_in = leaf.size / leaf.shape[-1] if len(leaf.shape) > 1 else 100
        mean = 0 if len(leaf.shape) > 1 else 1
        return jnp.asarray(random.normal(mean, np.sqrt(2 / fan_in), leaf.shape), leaf.dtype)

    params, state = jax.tree.map(drawn, shapes(net, in_shape, dtype))
    return params, state, jnp.asarray(random.normal(size=(batch, *in_shape)), dtype)


def close(got, want, rtol=1e-10):
    """Equal to rtol of each number, or of the array's largest; a gradient that is 0 but for rounding (of a bias that
    batch norm takes out again) is held against a thousandth of the largest of all."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    largest = [float(jnp.abs(w).max()) for w in jax.tree.leaves(want)]
    for (path, g), w, own in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), largest, strict=True):
        atol = rtol * max(own, max(largest) / 1000)
        np.testing.assert_allclose(g, w, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", models.NAMES)
def test_the_parameters_are_as_many_as_the_paper_says(name):
    assert count(models.by_name(name), models.IN_SHAPES[name]) == PARAMETERS[name]


@pytest.mark.parametrize("name", WITH_BATCH_NORM)
def test_vgg_with_batch_norm_learns_two_more_numbers_a_feature(name):
    assert count(models.by_name(name, batch_norm=True), models.IN_SHAPES[name]) == WITH_BATCH_NORM[name]


def test_lenet5_at_28x28_with_a_margin_and_as_its_paper_has_it():
    assert count(models.lenet5(padding=2), (28, 28, 1)) == 61_706
    assert count(models.lenet5(original=True), (32, 32, 1)) == 61_706 + 2 * (6 + 16)


def test_resnet9_at_the_widths_of_the_example():
    assert count(models.resnet9(widths=(24, 48, 96, 192)), (28, 28, 1)) == 926_578
    with pytest.raises(ValueError, match="resnet9: widths must be the features of four stages, got .24, 48."):
        models.resnet9(widths=(24, 48))


@pytest.mark.slow
def test_multiply_adds():
    """AlexNet's by its five convolutions and three dense layers; the others' by their papers, to the digits given."""
    by_hand = {
        "conv1": 55 * 55 * 96 * 11 * 11 * 3,
        "conv2": 27 * 27 * 256 * 5 * 5 * 48,
        "conv3": 13 * 13 * 384 * 3 * 3 * 256,
        "conv4": 13 * 13 * 384 * 3 * 3 * 192,
        "conv5": 13 * 13 * 256 * 3 * 3 * 192,
        "dense1": 6 * 6 * 256 * 4096,
        "dense2": 4096 * 4096,
        "dense3": 4096 * 1000,
    }
    summary = hg.summary(models.alexnet(), (227, 227, 3))
    assert {row.name: row.multiply_adds for row in summary.rows if row.multiply_adds} == by_hand
    assert summary.multiply_adds == 724_406_816
    assert hg.summary(models.lenet5(), (32, 32, 1)).multiply_adds == 416_520
    millions = {"mobilenet_v1": 569, "resnet18": 1814, "resnet34": 3664, "resnet50": 4089}
    for name, wanted in millions.items():
        assert round(hg.summary(models.by_name(name), models.IN_SHAPES[name]).multiply_adds / 1e6) == wanted


def test_alexnet_normalises_as_its_paper_does():
    """b = a / (2 + 1e-4 Σ a²)^0.75 over five channels, whose sum is not divided by five."""
    (norm,) = {layer for layer in models.alexnet().layers if isinstance(layer, hg.LocalResponseNorm)}
    x = np.random.default_rng(0).normal(0, 50, (2, 3, 3, 7))
    want = np.empty_like(x)
    for i in range(7):
        around = x[..., max(0, i - 2) : i + 3]
        want[..., i] = x[..., i] / (2 + 1e-4 * (around**2).sum(-1)) ** 0.75
    close(norm.apply({}, jnp.asarray(x)), jnp.asarray(want), rtol=1e-12)


def test_alexnet_has_its_layers_in_the_order_of_its_paper():
    kinds = [type(layer).__name__ for layer in models.alexnet().layers]
    first = ["Conv", "Relu", "LocalResponseNorm", "MaxPool"] * 2
    assert kinds[:8] == first and kinds.count("Dropout") == 2
    assert {(pool.window, pool.strides) for pool in models.alexnet().layers if isinstance(pool, hg.MaxPool)} == {(3, 2)}


def check_gradients_of(net, in_shape):
    params, state, x = given(net, in_shape)

    def by_hand(params, x, dy):
        y, new_state, residuals = net.forward(params, x, state, KEY)
        return y, new_state, net.backward(params, residuals, dy)

    def automatic(params, x, dy):
        y, vjp, new_state = jax.vjp(lambda x, p: net.apply_train(p, x, state, KEY), x, params, has_aux=True)
        return y, new_state, vjp(dy)

    classes = jax.eval_shape(net.apply, params, x, state).shape[-1]
    dy = jnp.asarray(np.random.default_rng(1).normal(size=(len(x), classes)))
    got, want = jax.jit(by_hand)(params, x, dy), jax.jit(automatic)(params, x, dy)
    close(got, want)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(want[2])), "an error in zeros would not show"


def fast(names, among):
    """The parameters of a test, slow but for those that between them have every kind of layer and block."""
    return [pytest.param(name, marks=() if name in among else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", fast(NETS, FAST))
def test_backward_is_that_of_jax(name):
    check_gradients_of(*NETS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_backward_of_a_deep_net_is_that_of_jax(name):
    check_gradients_of(*DEEP[name])


@pytest.mark.parametrize("name", fast([*NETS, *DEEP], QUICKLY_TRAINED))
def test_one_step_of_training_lowers_the_loss_of_its_batch(name):
    net, in_shape = (NETS | DEEP)[name]
    objective = hg.Objective(hg.inference(net), hg.SoftmaxCrossEntropy())  # one loss, with neither dropout nor noise
    params, state, x = given(net, in_shape, jnp.float32)
    labels = jnp.arange(len(x), dtype=jnp.int32) % 3
    optimizer = hg.optimizers.chain(hg.optimizers.clip_by_global_norm(1.0), hg.sgd(1e-3))  # no step is too long
    train_state = hg.TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params), KEY)
    step = hg.make_train_step(objective, optimizer, donate=False)
    losses = []
    for _ in range(2):
        train_state, metrics = step(train_state, x, labels)
        losses.append(float(metrics.loss))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("x", [-3.0, -1.0, 0.0, 0.7])
def test_the_scaled_tanh_of_lenet(x):
    """f = A tanh(Sx), f' = A S (1 - tanh²(Sx)); f(±1) = ±1 to the four digits that A is given in."""
    y, _, residuals = ScaledTanh().forward({}, jnp.asarray([x]))
    dx, _ = ScaledTanh().backward({}, residuals, jnp.ones(1))
    np.testing.assert_allclose(y, 1.7159 * np.tanh(2 * x / 3), rtol=1e-14)
    np.testing.assert_allclose(dx, 1.7159 * 2 / 3 * (1 - np.tanh(2 * x / 3) ** 2), rtol=1e-14)
    np.testing.assert_allclose(ScaledTanh().apply({}, jnp.ones(1)), 1, atol=1e-4)


def test_the_subsampling_of_lenet_has_one_coefficient_and_one_bias_a_map():
    """y[c] = f(w[c] · mean of four + b[c])."""
    subsample = hg.Chain(*models.lenet5(original=True).layers[2:5])
    params, state, x = given(subsample, (4, 6, 6))
    assert jax.tree.map(jnp.shape, params) == {"subsample1": {"kernel": (1, 1, 1, 6), "bias": (6,)}}
    mean = np.asarray(x).reshape(3, 2, 2, 3, 2, 6).mean((2, 4))
    before = mean * np.asarray(params["subsample1"]["kernel"]).ravel() + np.asarray(params["subsample1"]["bias"])
    close(subsample.apply(params, x), jnp.asarray(1.7159 * np.tanh(2 / 3 * before)), rtol=1e-12)


def test_every_net_of_the_list_has_a_shape_and_says_where_it_is_from():
    assert list(models.IN_SHAPES) == list(models.NAMES) == list(PARAMETERS)
    for name, make in models.NAMES.items():
        doc = inspect.getdoc(make) or ""
        assert "Example:" in doc and ("Source:" in doc or "See `" in doc or name == "digits_cnn"), name


def test_strides_of_a_bottleneck_lie_in_its_3x3():
    for path, layer in leaf_layers(models.resnet50()):
        if isinstance(layer, hg.Conv) and "body" in path:
            assert layer.strides == 1 or layer.kernel_size == 3, path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.alexnet(width=0), "models: width must be above 0, got 0"),
        (lambda: models.vgg((1,) * 6), "vgg: convolutions must have one to five stages"),
        (lambda: models.by_name("vgg11", depth=3), "vgg11 has no setting 'depth'; it has classes, dropout"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
