"""A net comes back from its text, and nothing in a text is run."""

import pytest

import handgrad as hg
from handgrad.layers.layer import Layer
from handgrad.models import NAMES, by_name, from_text


@pytest.mark.parametrize("name", NAMES)
def test_every_model_comes_back_from_its_text(name):
    net = by_name(name)
    found = from_text(str(net))
    assert found == net and hash(found) == hash(net)


@pytest.mark.parametrize(
    "net",
    [
        hg.Dense(3),
        hg.Chain(hg.Conv(4, (3, 5), strides=(1, 2), padding=((1, 0), (2, 2)), name="first"), hg.LeakyRelu(0.2)),
        hg.Chain(hg.Residual(hg.Dense(4), shortcut=hg.Dense(4)), hg.Parallel(hg.Dense(2), hg.Relu(), join="add")),
    ],
    ids=str,
)
def test_settings_names_and_branches_come_back(net):
    assert from_text(str(net)) == net


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must be a net as str"),
        ("Chain(", "must be a net as str"),
        ("3", "must be a net as str"),
        ("(" * 5000, "must be a net as str"),
        ("-" * 9000 + "1", "must be a net as str"),
        ("Chain(Mine(3))", "'Mine' is no layer of handgrad.layers"),
        ("__import__('os').system('true')", "is no layer of handgrad.layers"),
        ("Chain(Lambda(print))", "'print' is neither a layer nor a plain number"),
        ("Chain(Lambda(__import__('os')))", "'__import__' is no layer"),
        ("Layer()", "'Layer' is no layer"),
        ("Dense(2**9**9)", "is neither a layer nor a plain number"),
        ("Dense(*[3])", "one by one"),
        ("Dense(**{'features': 3})", "one by one"),
        ("a" * 1_000_001, "which no net has"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        from_text(text)
    assert message in str(error.value)


def test_arguments_are_the_layers_own_errors():
    with pytest.raises(TypeError, match="must be a str, got int"):
        from_text(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises((TypeError, ValueError), match="features"):
        from_text("Dense(-1)")
    assert isinstance(from_text("Dense(1)"), Layer)
