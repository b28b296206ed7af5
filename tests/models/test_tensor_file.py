"""safetensors: what is saved comes back bit for bit, and what is damaged, missing or of another net is named."""

import json
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import models

NET = hg.Chain(hg.Conv(3, 2), hg.BatchNorm(), hg.Flatten(), hg.Dense(2))
IN_SHAPE = (4, 4, 1)


def made(dtype=jnp.float32, net=NET):
    return net.init(jax.random.key(0), IN_SHAPE, dtype)


@pytest.fixture
def saved(tmp_path):
    """A file of `NET` in float32."""
    models.save_safetensors(tmp_path / "net.safetensors", *made())
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
def test_params_and_state_come_back_bit_for_bit(dtype, tmp_path):
    params, state = made(dtype)
    models.save_safetensors(tmp_path / "new" / "net.safetensors", params, state)
    back = models.load_safetensors(tmp_path / "new" / "net.safetensors", NET, IN_SHAPE, dtype)
    assert jax.tree.structure(back) == jax.tree.structure((params, state))
    for got, want in zip(jax.tree.leaves(back), jax.tree.leaves((params, state)), strict=True):
        assert got.dtype == want.dtype and np.asarray(got).tobytes() == np.asarray(want).tobytes()


def test_a_net_without_state_and_one_of_a_single_number(tmp_path):
    net = hg.Chain(hg.Flatten(), hg.Dense(2))
    params, state = made(net=net)
    models.save_safetensors(tmp_path / "net", params)
    assert models.load_safetensors(tmp_path / "net", net, IN_SHAPE)[1] == state == {}
    models.save_safetensors(tmp_path / "net", {"a": jnp.float32(3), "none": jnp.zeros((0, 2), "bfloat16")})
    read = models.read_safetensors(tmp_path / "net")
    assert {name: array.shape for name, array in read.items()} == {"params/a": (), "params/none": (0, 2)}


def test_columns_and_rows_are_not_mixed_up(tmp_path):
    """The library's own numpy.save writes the memory of a transposed array as it lies."""
    models.save_safetensors(tmp_path / "net", {"kernel": np.arange(6.0).reshape(2, 3).T})
    np.testing.assert_array_equal(
        models.read_safetensors(tmp_path / "net")["params/kernel"], np.arange(6.0).reshape(2, 3).T
    )


def test_others_read_ours_and_we_read_theirs(saved):
    numpy_format, torch_format = pytest.importorskip("safetensors.numpy"), pytest.importorskip("safetensors.torch")
    params, state = made()
    theirs = numpy_format.load_file(saved)
    assert sorted(theirs) == [
        *("params/batchnorm1/bias", "params/batchnorm1/scale", "params/conv1/bias", "params/conv1/kernel"),
        *("params/dense1/bias", "params/dense1/kernel", "state/batchnorm1/mean", "state/batchnorm1/var"),
    ]
    np.testing.assert_array_equal(theirs["params/conv1/kernel"], params["conv1"]["kernel"])
    names = {"conv1": "0", "batchnorm1": "1", "dense1": "3"}
    weights = models.to_torch(NET, params, state, in_shape=IN_SHAPE, names=names)
    torch_format.save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, saved)
    got, _ = models.from_torch(NET, models.read_safetensors(saved), in_shape=IN_SHAPE, names=names)
    want = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()) and a.dtype == b.dtype, got, want))


@pytest.mark.parametrize(
    ("net", "dtype", "message"),
    [
        (hg.Chain(*NET.layers, hg.Dense(2)), jnp.float32, "tensor 'params/dense2/bias' is missing; .* another net"),
        (hg.Chain(hg.Conv(3, 2), hg.BatchNorm()), jnp.float32, "tensor 'params/dense1/.*' is left over"),
        (
            hg.Chain(*NET.layers[:-1], hg.Dense(5)),
            jnp.float32,
            r"'params/dense1/bias' must be float32 \(5,\), the file",
        ),
        (NET, jnp.bfloat16, r"'params/batchnorm1/bias' must be bfloat16 \(3,\), the file has float32 \(3,\)"),
    ],
)
def test_a_file_of_another_net_is_refused(net, dtype, message, saved):
    with pytest.raises(ValueError, match=f"net.safetensors: .*{message}"):
        models.load_safetensors(saved, net, IN_SHAPE, dtype)


def test_a_file_cut_off_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for length in {*range(0, len(whole), 37), len(whole) - 1}:
        saved.write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=r"net.safetensors: it is no safetensors file, or a damaged one \(.+\); use"
        ):
            models.read_safetensors(saved)
    saved.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="it is no safetensors file, or a damaged one"):
        models.read_safetensors(saved)


def test_a_changed_number_is_found_and_its_tensor_named(saved):
    header = 8 + struct.unpack("<Q", saved.read_bytes()[:8])[0]
    places = json.loads(saved.read_bytes()[8:header])
    for name in ("params/conv1/kernel", "state/batchnorm1/var"):
        data = bytearray(saved.read_bytes())
        data[header + places[name]["data_offsets"][0]] ^= 1
        saved.with_name("changed").write_bytes(data)
        with pytest.raises(ValueError, match=f"changed: tensor '{name}' is damaged: its sha256 is not that"):
            models.load_safetensors(saved.with_name("changed"), NET, IN_SHAPE)


@pytest.mark.slow
def test_no_byte_of_the_header_breaks_anything_but_as_a_value_error(saved):
    """Each byte turned once: the file is refused, or, where it was no more than a space or a name, read."""
    whole = saved.read_bytes()
    for place in range(0, 8 + struct.unpack("<Q", whole[:8])[0], 5):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        saved.write_bytes(data)
        try:
            models.load_safetensors(saved, NET, IN_SHAPE)
        except ValueError as error:
            assert "net.safetensors: " in str(error)


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        models.read_safetensors(tmp_path / "none")
    with pytest.raises(TypeError, match="leaf 'params/a' must be an array of a dtype that the format has, got str"):
        models.save_safetensors(tmp_path / "net", {"a": "text"})
    with pytest.raises(TypeError, match=r"leaf 'state/key' must be .*, got dtype key<"):
        models.save_safetensors(tmp_path / "net", {}, {"key": jax.random.key(0)})
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="load_safetensors: wants a layer, got the class Dense"):
        models.load_safetensors(tmp_path / "net", hg.Dense, (2,))  # pyright: ignore[reportArgumentType]


def test_a_tensor_of_a_dtype_that_jax_has_not(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "net").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(ValueError, match="net: tensor 'a' is of dtype F8_E8M0; known are F64, F32"):
        models.read_safetensors(tmp_path / "net")


@pytest.mark.parametrize("module", ["safetensors", "safetensors.numpy"])
def test_a_missing_library_names_the_extra(module, monkeypatch, saved):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"needs safetensors; install it with pip install 'handgrad\[interop\]'"):
        models.read_safetensors(saved)
        models.save_safetensors(saved, {})
