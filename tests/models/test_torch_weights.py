"""Weights from torchvision: our nets then compute its logits and its gradients, and give the weights back unchanged."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import handgrad as hg
import torchvision_models
from against_torch import first
from handgrad import models

TORCHVISION = torchvision_models.models
KEY = jax.random.key(0)
STAGES = [64, "M", 128, "M", 256, 256, "M", 512, "M"]


def short_vgg(dropout):
    layers = TORCHVISION.vgg.make_layers(STAGES, batch_norm=True)
    return TORCHVISION.VGG(layers, init_weights=False, dropout=dropout)


def short_resnet(block):
    return TORCHVISION.resnet.ResNet(getattr(TORCHVISION.resnet, block), [1, 1, 1, 1])


VGG = partial(models.vgg, (1, 1, 2, 1), dropout=0.0, batch_norm=True)
RESNET = partial(models.resnet, (1, 1, 1, 1))
NETS = {  # ours by classes and width, torchvision's, and the size of an image
    "alexnet": (partial(models.alexnet_one_tower, dropout=0.0), partial(TORCHVISION.alexnet, dropout=0.0), 95),
    "vgg": (VGG, partial(short_vgg, dropout=0.0), 32),
    "resnet": (RESNET, partial(short_resnet, "BasicBlock"), 64),
    "resnet of bottlenecks": (partial(RESNET, bottleneck=True), partial(short_resnet, "Bottleneck"), 64),
}
for n in (11, 13, 16, 19):
    ours = partial(models.by_name, f"vgg{n}", dropout=0.0)
    NETS[f"vgg{n}"] = (ours, partial(getattr(TORCHVISION, f"vgg{n}"), init_weights=False, dropout=0.0), 32)
    theirs = partial(getattr(TORCHVISION, f"vgg{n}_bn"), init_weights=False, dropout=0.0)
    NETS[f"vgg{n}_bn"] = (partial(ours, batch_norm=True), theirs, 64)
for n in (18, 34, 50):
    NETS[f"resnet{n}"] = (partial(models.by_name, f"resnet{n}"), getattr(TORCHVISION, f"resnet{n}"), 64)
SHORT = ("alexnet", "vgg", "resnet", "resnet of bottlenecks")
FAST = [
    ("alexnet", True, jnp.float64),
    ("vgg", True, jnp.float64),
    ("resnet", False, jnp.float32),
]
SLOW = [
    *[(name, training, dtype) for name in SHORT for training in (True, False) for dtype in (jnp.float64, jnp.float32)],
    *[(name, True, jnp.float64) for name in NETS if name not in SHORT],
]


@pytest.fixture(autouse=True)
def without_onednn(monkeypatch):
    """Torch 2.13's float32 backward of narrow convolutions in oneDNN writes past its memory and ends the process."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def pair(name, width=1 / 16, classes=5):
    """Ours, torchvision's with random weights, and the shape of an image."""
    ours, theirs, size = NETS[name]
    net = ours(classes=classes, width=width)
    return net, torchvision_models.model(theirs, width, classes), (size, size, 3)


def logits_and_gradients(net, model, in_shape, training, dtype, batch=3):
    """Both sides' logits, and all gradients of a cross entropy by torch's names; and the state that we get."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(batch, *in_shape)), np.arange(batch) % 5
    model = model.to(torch.float64 if dtype == jnp.float64 else torch.float32)
    params, state = models.from_torch(net, model.state_dict(), in_shape=in_shape)
    objective = hg.Objective(net if training else hg.inference(net), hg.SoftmaxCrossEntropy())
    (_, aux), grads = jax.jit(hg.value_and_grad(objective))(params, jnp.asarray(x, dtype), y, state, KEY)

    logits = model.train(training)(torch.tensor(first(x)).to(next(model.parameters()).dtype))
    nn.functional.cross_entropy(logits, torch.tensor(y)).backward()
    theirs = {name: p.grad for name, p in model.named_parameters()}
    mine = {name: t for name, t in models.to_torch(net, grads, state, in_shape=in_shape).items() if name in theirs}
    return (aux.logits, mine, aux.state), (logits.detach(), theirs)


def close(got, want, rtol, least=0.0, name=""):
    """Equal to rtol of the largest number of the tensor, or of `least`."""
    got, want = np.asarray(got), np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * max(np.abs(want).max(), least), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "training", "dtype"),
    [
        pytest.param(*case, marks=() if case in FAST else pytest.mark.slow, id=f"{case[0]}, {case[1:]}")
        for case in FAST + [case for case in SLOW if case not in FAST]
    ],
)
def test_logits_and_gradients_are_those_of_torchvision(name, training, dtype):
    net, model, in_shape = pair(name)
    (logits, mine, _), (want, theirs) = logits_and_gradients(net, model, in_shape, training, dtype)
    for_logits, for_gradients = (1e-10, 1e-10) if dtype == jnp.float64 else (1e-5, 1e-4)
    close(logits, want, for_logits)
    assert list(mine) == list(theirs)
    largest = max(float(grad.abs().max()) for grad in theirs.values())
    for tensor in theirs:  # the bias of a convolution before a batch norm in training has gradient 0 but for rounding
        close(mine[tensor], theirs[tensor], for_gradients, least=largest / 100, name=tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet18", "resnet50"])
def test_a_net_of_full_width_computes_what_torchvision_computes(name):
    """In inference, on one small image, for the weights alone take a gigabyte.

    In float64: over so many units some lie so near the kink of a ReLU that float32 rounds them to the other side, which
    moves a gradient by more than rounding (in vgg16 by 0.7 % here).
    """
    net, model, in_shape = pair(name, width=1, classes=1000)
    (logits, mine, _), (want, theirs) = logits_and_gradients(net, model, in_shape, False, jnp.float64, batch=1)
    close(logits, want, 1e-10)
    for tensor in theirs:
        close(mine[tensor], theirs[tensor], 1e-10, name=tensor)


def test_running_statistics_move_as_in_torch_but_for_the_unbiased_variance():
    """Ours keeps 0.9 of the old and takes the biased variance, torch takes 0.1 of the new, unbiased one."""
    net, model = hg.Chain(hg.Conv(4, 1), hg.BatchNorm()), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).double()
    names, x = {"conv1": "0", "batchnorm1": "1"}, np.random.default_rng(0).normal(size=(2, 3, 3, 3))
    params, state = models.from_torch(net, model.state_dict(), names=names)
    _, moved = net.apply_train(params, jnp.asarray(x), state)
    model.train()(torch.tensor(first(x)))
    _, theirs = models.from_torch(net, model.state_dict(), names=names)
    close(moved["batchnorm1"]["mean"], theirs["batchnorm1"]["mean"], 1e-12)
    count = 2 * 3 * 3
    for_torch = 0.9 + (moved["batchnorm1"]["var"] - 0.9) * count / (count - 1)
    close(for_torch, theirs["batchnorm1"]["var"], 1e-12)


@pytest.mark.parametrize("name", SHORT)
def test_weights_come_back_from_us_unchanged(name):
    net, model, in_shape = pair(name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    params, state = models.from_torch(net, before)
    like = jax.eval_shape(lambda: net.init(KEY, in_shape, jnp.float64))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (params, state)) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), like
    )
    after = models.to_torch(net, params, state)
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    model.load_state_dict(after)


def test_arrays_of_numpy_in_any_order_do_as_well():
    net, model, _ = pair("resnet")
    weights = {name: tensor.numpy() for name, tensor in sorted(model.state_dict().items(), reverse=True)}
    got, want = models.from_torch(net, weights), models.from_torch(net, model.state_dict())
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), got, want))


def test_bfloat16_both_ways():
    net, model, _ = pair("vgg")
    before = model.to(torch.bfloat16).state_dict()
    params, state = models.from_torch(net, before)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    after = models.to_torch(net, params, state)
    for name, tensor in before.items():
        assert torch.equal(after[name].to(tensor.dtype), tensor), name
    assert after["features.0.weight"].dtype == torch.bfloat16


def test_neither_side_sees_later_changes_of_the_other():
    net, model = hg.Chain(hg.BatchNorm()), nn.Sequential(nn.BatchNorm1d(64)).double()
    names = {"batchnorm1": "0"}
    params, state = models.from_torch(net, model.state_dict(), in_shape=(64,), names=names)
    with torch.no_grad():
        model.state_dict()["0.weight"].zero_()
    assert (np.asarray(params["batchnorm1"]["scale"]) == 1).all()
    models.to_torch(net, params, state, in_shape=(64,), names=names)["0.weight"].zero_()
    assert (np.asarray(params["batchnorm1"]["scale"]) == 1).all()


class Odd(nn.Module):
    """What torchvision's nets do not have: its own names, groups, norms and slopes behind a flatten without a pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, (3, 2), stride=2, padding=(1, 0), groups=2)
        self.norm, self.slope, self.flat_slope = nn.BatchNorm1d(4 * 3 * 4), nn.PReLU(4), nn.PReLU(4 * 3 * 4)
        self.hidden, self.head = nn.Linear(4 * 3 * 4, 48), nn.Linear(48, 3, bias=False)

    def forward(self, x):
        x = self.flat_slope(self.norm(torch.flatten(self.slope(self.conv(x)), 1)))
        return self.head(torch.tanh(self.hidden(x)))


ODD = hg.Chain(
    *(hg.Chain(hg.Conv(4, (3, 2), 2, padding=((1, 1), (0, 0)), groups=2), hg.PRelu(), name="images"), hg.Flatten()),
    *(hg.BatchNorm(), hg.PRelu(), hg.Dense(48), hg.Tanh(), hg.Dense(3, use_bias=False)),
)
ODD_NAMES = {
    "images/conv1": "conv",
    "images/prelu1": "slope",
    "batchnorm1": "norm",
    "prelu1": "flat_slope",
    "dense1": "hidden",
    "dense2": "head",
}


@pytest.mark.parametrize("training", [True, False])
def test_a_net_of_its_own_by_names(training):
    """The order of features behind the flatten reaches the norm, the slopes and the first dense layer, not its bias."""
    torch.manual_seed(0)
    model = Odd().double()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.ndim == 1:
                tensor.uniform_(0.1, 1)
    x = np.random.default_rng(0).normal(size=(4, 6, 8, 2))
    params, state = models.from_torch(ODD, model.state_dict(), in_shape=(6, 8, 2), names=ODD_NAMES)
    run = ODD.apply_train if training else lambda p, x, s: (ODD.apply(p, x, s), s)
    (y, _), vjp = jax.vjp(lambda p: run(p, jnp.asarray(x), state), params)
    want = model.train(training)(torch.tensor(first(x)))
    close(y, want.detach(), 1e-12)
    (want**2).sum().backward()
    (grads,) = vjp((2 * y, jax.tree.map(jnp.zeros_like, state)))
    mine = models.to_torch(ODD, grads, state, in_shape=(6, 8, 2), names=ODD_NAMES)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        close(mine[name], parameter.grad, 1e-10, name=name)


def weights_of(net, in_shape, names):
    params, state = net.init(KEY, in_shape, jnp.float64)
    return models.to_torch(net, params, state, in_shape=in_shape, names=names)


NET, IN_SHAPE, NAMES = hg.Chain(hg.Conv(4, 3), hg.BatchNorm()), (5, 5, 2), {"conv1": "c", "batchnorm1": "n"}


def changed(**tensors):
    """The state_dict of `NET` with other tensors; None takes one out."""
    weights = weights_of(NET, IN_SHAPE, NAMES) | {name.replace("_", ".", 1): t for name, t in tensors.items()}
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def test_a_module_that_is_not_torchvisions_wants_names():
    with pytest.raises(ValueError, match="has no 'features.0.weight', .*; give names= if its modules are not torchvis"):
        models.from_torch(NET, changed(), in_shape=IN_SHAPE)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (
            {"c_weight": None},
            ValueError,
            "the state_dict has no 'c.weight', which params/conv1/kernel of the net wants",
        ),
        ({"n_running_var": None}, ValueError, "has no 'n.running_var', which state/batchnorm1/var"),
        ({"d_weight": np.ones(3)}, ValueError, "'d.weight' of the state_dict is left over"),
        (
            {"c_weight": np.ones((3, 3, 2, 4))},
            ValueError,
            r"'c.weight' must have shape \(4, 2, 3, 3\) for in_shape \(5, 5, 2\), got \(3, 3, 2, 4\)",
        ),
        ({"n_bias": np.ones((4, 1))}, ValueError, r"'n.bias' must have shape \(4,\)"),
        ({"n_running_mean": np.ones(5)}, ValueError, r"'n.running_mean' must have shape \(4,\)"),
        ({"c_bias": np.ones(4, int)}, TypeError, "'c.bias' must be floating, got int64"),
    ],
)
def test_what_does_not_fit_is_named(tensors, error, message):
    with pytest.raises(error, match=f"from_torch: .*{message}"):
        models.from_torch(NET, changed(**tensors), in_shape=IN_SHAPE, names=NAMES)


def test_num_batches_tracked_may_be_missing():
    models.from_torch(NET, changed(n_num_batches_tracked=None), in_shape=IN_SHAPE, names=NAMES)


def test_float64_is_refused_where_jax_would_narrow_it():
    weights = changed()
    with jax.enable_x64(False), pytest.raises(ValueError, match="'c.weight' is float64, which JAX holds only under"):
        models.from_torch(NET, weights, in_shape=IN_SHAPE, names=NAMES)


def test_errors_of_to_torch():
    params, state = NET.init(KEY, IN_SHAPE)
    give = partial(models.to_torch, NET, in_shape=IN_SHAPE, names=NAMES)
    with pytest.raises(ValueError, match="to_torch: state/batchnorm1/mean is missing; pass the params and the state"):
        give(params)
    with pytest.raises(ValueError, match="to_torch: params/dense1/kernel is left over"):
        give(params | {"dense1": {"kernel": np.ones((2, 2))}}, state)
    with pytest.raises(
        ValueError, match=r"params/conv1/bias must have shape \(4,\) for in_shape \(5, 5, 2\), got \(2,\)"
    ):
        give(params | {"conv1": params["conv1"] | {"bias": np.ones(2)}}, state)


@pytest.mark.parametrize(
    ("net", "names", "error", "message"),
    [
        (hg.Dense(3), None, TypeError, r"net must be a container such as hg.Chain, got Dense\(3\)"),
        (hg.Chain(hg.Dense(3)), {}, ValueError, "dense1 has no name in PyTorch; give names={'dense1': ...}"),
        (hg.Chain(hg.Residual(hg.Dense(2))), None, ValueError, "residual1/body has no name in PyTorch"),
    ],
)
def test_a_net_without_names_in_torch_is_refused(net, names, error, message):
    with pytest.raises(error, match=message):
        models.from_torch(net, {}, in_shape=(2,), names=names)


def test_a_missing_torch_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"to_torch needs torch; install it with pip install 'handgrad\[interop\]'"):
        models.to_torch(NET, *NET.init(KEY, IN_SHAPE), in_shape=IN_SHAPE, names=NAMES)
