"""data.augment but mixup: closed forms on tiny images, every draw as often as another, purity, images apart, errors."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from draws import KEY, assert_uniform, assert_uniform_between, changed, counts, images
from handgrad import data
from handgrad.data import augment

numpy: Any = np
untyped: Any = augment  # where types are wrong, or wider than a checker follows
ALL: dict[str, Any] = {
    "flip": augment.flip(),
    "crop": augment.crop(2),
    "shift": augment.shift(2, mode="reflect"),
    "rotate": augment.rotate(40),
    "scale": augment.scale((0.5, 2), method="nearest"),
    "brightness": augment.brightness(),
    "contrast": augment.contrast((0.5, 2), clip=(-1, 1)),
    "cutout": augment.cutout(3),
    "erase": augment.erase(0.9),
    "mixup": augment.mixup(5, alpha=1.0),
    "composed": augment.compose(augment.flip(), augment.crop(2), augment.cutout(3)),
}


# Purity


@pytest.mark.parametrize("name", ALL)
def test_each_is_jitted_and_its_images_are_on_the_device(name):
    assert isinstance(ALL[name], type(jax.jit(abs)))
    assert isinstance(ALL[name](KEY, images(), np.array([4, 0, 1, 2]))[0], jax.Array)


@pytest.mark.parametrize("name", ALL)
def test_the_same_key_gives_the_same_batch_under_jit_and_vmap(name):
    x, y, keys = images(), np.array([4, 0, 1, 2]), jax.random.split(KEY, 3)
    each = [ALL[name](key, x, y) for key in keys]
    together = jax.jit(jax.vmap(ALL[name], (0, None, None)))(keys, x, y)
    for got, expected in zip(together, zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(got, np.stack(expected), rtol=1e-14, atol=1e-14)
    again = ALL[name](keys[0], jnp.asarray(x), jnp.asarray(y))
    for one, other in zip(each[0], again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(each[0][0], each[1][0])


def test_raw_keys_are_typed_keys():
    one, other = (ALL["shift"](key, images(), None)[0] for key in (KEY, jax.random.key_data(KEY)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in ALL if name != "mixup"])
def test_no_image_sees_its_neighbours(name):
    x, y = images(), np.arange(4)
    other = x.copy()
    other[1] = np.nan
    one, two = (np.asarray(ALL[name](KEY, x, y)[0]) for x in (x, other))
    np.testing.assert_array_equal(one[[0, 2, 3]], two[[0, 2, 3]])


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_dtypes_stay(name):
    key, y = jax.eval_shape(lambda: KEY), jax.ShapeDtypeStruct((4,), jnp.int32)
    for dtype in (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16):
        x = jax.ShapeDtypeStruct((4, 6, 5, 2), dtype)
        got, labels = jax.eval_shape(ALL[name], key, x, y)
        assert (got.shape, got.dtype) == (x.shape, x.dtype)
        assert (labels.shape, labels.dtype) == (((4, 5), jnp.float32) if name == "mixup" else (y.shape, y.dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_short_floats_are_computed_in_float32(dtype):
    x = np.asarray(jnp.asarray(images(8), dtype))
    got = augment.rotate((30, 30))(KEY, x, None)[0]
    exact = augment.rotate((30, 30))(KEY, x.astype("float32"), None)[0]
    ulp = float(jnp.finfo(dtype).eps)  # two programs may round a last digit apart
    np.testing.assert_allclose(np.asarray(got, "float32"), exact, rtol=ulp, atol=2e-6)


def test_a_batch_may_be_empty_and_an_image_one_pixel():
    many = augment.compose(*(one for name, one in ALL.items() if name != "composed"))
    x, y = many(KEY, images(0), np.zeros(0, int))
    assert x.shape == (0, 6, 5, 2) and y.shape == (0, 5)
    x, y = jax.eval_shape(many, KEY, images(1, 1, 1, 1), np.array([2]))
    assert x.shape == (1, 1, 1, 1) and y.shape == (1, 5)


def test_labels_may_be_anything():
    y = {"class": np.arange(4, dtype=np.uint8), "box": np.ones((4, 4), "float32")}
    got = ALL["flip"](KEY, images(), y)[1]
    assert {name: str(a.dtype) for name, a in got.items()} == {"class": "uint8", "box": "float32"}
    assert ALL["flip"](KEY, images(), None)[1] is None


# Moves


def test_flip():
    x = images(2)
    np.testing.assert_array_equal(changed(augment.flip(1.0), x), x[:, :, ::-1])
    np.testing.assert_array_equal(changed(augment.flip(1.0, vertical=True), x), x[:, ::-1])
    np.testing.assert_array_equal(changed(augment.flip(0.0), x), x)


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_flip_draws_for_each_image(rate):
    x = np.tile(np.array([1.0, 2.0]).reshape(1, 1, 2, 1), (2000, 1, 1, 1))
    flipped = changed(augment.flip(rate), x)[:, 0, 0, 0] == 2
    assert stats.binomtest(int(flipped.sum()), 2000, rate).pvalue > 1e-6


def test_shift_moves_a_delta_everywhere_alike():
    x = np.zeros((4000, 7, 5, 1))
    x[:, 3, 2] = 1
    wanted = [np.roll(x[0], move, (0, 1)) for move in itertools.product(range(-2, 3), range(-2, 3))]
    assert_uniform(counts(changed(augment.shift(2), x), wanted))
    assert_uniform(counts(changed(augment.shift((0, 1)), x), [np.roll(x[0], move, 1) for move in (-1, 0, 1)]))


def test_images_are_moved_apart_from_each_other():
    x = np.zeros((2, 1, 5, 1))
    x[:, 0, 2] = 1
    keys = jax.random.split(KEY, 2000)
    moved = np.asarray(jax.vmap(lambda key: augment.shift((0, 1))(key, x, None)[0])(keys)).argmax(3)[..., 0] - 1
    assert_uniform(np.bincount(3 * moved[:, 0, 0] + moved[:, 1, 0], minlength=9))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_crop_gives_every_window_of_the_padded_image(mode):
    image, value = images(1)[0], {"constant_values": 7.0} if mode == "constant" else {}
    padded = numpy.pad(image, ((2, 2), (1, 1), (0, 0)), mode, **value)
    x = np.tile(image[None], (3000, 1, 1, 1))
    for size in (None, (8, 3)):
        height, width = size or image.shape[:2]
        places = itertools.product(range(11 - height), range(8 - width))
        windows = [padded[i : i + height, j : j + width] for i, j in places]
        got = changed(augment.crop((2, 1), size=size, mode=mode, value=7.0), x)
        assert got.shape == (3000, height, width, 2)
        assert_uniform(counts(got, windows))


def test_crop_without_padding_cuts_and_shift_of_nothing_is_the_identity():
    image = np.arange(12.0).reshape(1, 3, 4, 1)
    got = changed(augment.crop(0, size=(3, 2)), np.tile(image, (900, 1, 1, 1)))
    assert_uniform(counts(got, [image[0, :, j : j + 2] for j in range(3)]))
    np.testing.assert_array_equal(changed(augment.shift(0), image), image)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_rotate_by_right_angles_is_rot90(method):
    for side in (4, 5):
        x = images(2, side, side)
        got = changed(augment.rotate((90, 90), method=method), x)
        np.testing.assert_allclose(got, np.rot90(x, 1, (1, 2)), atol=1e-12)
    x = images(2)
    np.testing.assert_allclose(changed(augment.rotate((-180, -180), method=method), x), x[:, ::-1, ::-1], atol=1e-12)
    np.testing.assert_array_equal(changed(augment.rotate(0, method=method), x), x)


@pytest.mark.parametrize("angle", [-130, 30])
@pytest.mark.parametrize("method, order", [("bilinear", 1), ("nearest", 0)])
def test_rotate_is_scipys(method, order, angle):
    x = images(2, 7, 6)
    expected = ndimage.rotate(x, angle, (2, 1), reshape=False, order=order, mode="grid-constant", cval=0.3)
    got = changed(augment.rotate((angle, angle), method=method, value=0.3), x)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_rotate_draws_angles_uniformly():
    x = np.tile(np.arange(-10.0, 11.0)[None, None, :, None], (2000, 21, 1, 1))  # a ramp: x'(i, j) = j cos - i sin
    for degrees, low, high in ((40, -40, 40), ((10, 20), 10, 20)):
        got = changed(augment.rotate(degrees), x)
        assert_uniform_between(np.rad2deg(np.arctan2(-got[:, 11, 10, 0], got[:, 10, 11, 0])), low, high)


def test_scale_of_one_is_the_identity():
    for dtype, method in itertools.product(("float64", "float32"), ("bilinear", "nearest")):
        x = images(2, dtype=dtype)
        np.testing.assert_array_equal(changed(untyped.scale((1, 1), method=method), x), x)


def test_scale_by_hand():
    ramp = np.tile(np.arange(4.0), (4, 1))
    x = np.stack([ramp, ramp.T])[..., None]
    for factor, method, wanted in (
        (2, "bilinear", [0.75, 1.25, 1.75, 2.25]),  # 1.5 + (j - 1.5)/2 on a ramp
        (2, "nearest", [1, 1, 2, 2]),
        (0.5, "bilinear", [9, 0.5, 2.5, 9]),  # places -1.5, 0.5, 2.5, 4.5
        (0.75, "bilinear", [4.5, 5 / 6, 13 / 6, 6]),  # -0.5 is half 0, half outside; 3.5 half 3
        (0.5, "nearest", [9, 1, 3, 9]),
    ):
        got = changed(untyped.scale((factor, factor), method=method, value=9.0), x)[..., 0]
        np.testing.assert_allclose(got[0, 1], wanted, atol=1e-12)
        np.testing.assert_allclose(got[1, :, 1], wanted, atol=1e-12)


def test_scale_draws_factors_uniformly():
    x = np.tile(np.arange(-5.0, 6.0)[None, None, :, None], (2000, 1, 1, 1))
    got = changed(augment.scale((0.5, 2)), x)
    assert_uniform_between(1 / got[:, 0, 6, 0], 0.5, 2)


# Pixels


def test_brightness_adds_one_number_to_an_image():
    x = images(2000, 2, 2)
    added = changed(augment.brightness(0.4), x) - x
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1], x.shape), atol=1e-12)
    assert_uniform_between(added[:, 0, 0, 0], -0.4, 0.4)
    clipped = changed(augment.brightness(0.4, clip=(-0.5, 1)), x)
    np.testing.assert_allclose(clipped, np.clip(x + added, -0.5, 1), atol=1e-12)


def test_contrast_stretches_about_the_mean_of_each_channel():
    x = images(2000, 2, 2)
    got, mean = changed(augment.contrast((0.5, 2)), x), x.mean((1, 2), keepdims=True)
    factors = (got - mean) / (x - mean)
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1, :1, :1], x.shape), rtol=1e-6)
    assert_uniform_between(factors[:, 0, 0, 0], 0.5, 2)
    clipped = changed(augment.contrast((0.5, 2), clip=(-0.5, 1)), x)
    np.testing.assert_allclose(clipped, np.clip(got, -0.5, 1), atol=1e-12)


@pytest.mark.parametrize("size, reach", [(1, (0, 1)), (2, (1, 1)), (3, (1, 2))])
def test_cutout_covers_a_square_about_every_pixel_alike(size, reach):
    image = images(1, 5, 4)[0]
    holes = []
    for i, j in itertools.product(range(5), range(4)):
        covered = image.copy()
        covered[max(i - reach[0], 0) : i + reach[1], max(j - reach[0], 0) : j + reach[1]] = 7
        holes.append(covered)
    got = changed(augment.cutout(size, value=7.0), np.tile(image[None], (3000, 1, 1, 1)))
    assert_uniform(counts(got, holes))
    assert got[:, :, :, 0].size / 20 == 3000 and (got == 7).sum((1, 2, 3)).max() == 2 * size**2


def test_cutout_and_erase_leave_images_alone_at_their_rate():
    x = np.ones((2000, 3, 3, 1))
    for augmentation in (augment.cutout(1, rate=0.3), augment.erase(0.3, area=(0.1, 0.1), aspect=(1, 1))):
        holes = changed(augmentation, x).reshape(2000, 9) == 0
        assert stats.binomtest(int(holes.any(1).sum()), 2000, 0.3).pvalue > 1e-6
        assert_uniform(holes.sum(0))  # whether and where are drawn apart


def test_erase_covers_a_rectangle_inside():
    image = images(1, 4, 5)[0]
    places = list(itertools.product(range(3), range(4)))
    holes = np.tile(image[None], (len(places), 1, 1, 1))
    for hole, (i, j) in zip(holes, places, strict=True):
        hole[i : i + 2, j : j + 2] = 7
    x = np.tile(image[None], (3000, 1, 1, 1))
    assert_uniform(counts(changed(augment.erase(1.0, area=(0.2, 0.2), aspect=(1, 1), value=7.0), x), holes))


@pytest.mark.parametrize(
    "area, aspect, sides", [(0.25, 4, (8, 2)), (0.25, 0.25, (2, 8)), (1, 4, (8, 4)), (1, 1, (8, 8)), (0, 1, (0, 0))]
)
def test_sides_of_erase(area, aspect, sides):
    hole = changed(augment.erase(1.0, area=(area, area), aspect=(aspect, aspect)), np.ones((1, 8, 8, 1)))[0, :, :, 0]
    assert ((hole == 0).any(1).sum(), (hole == 0).any(0).sum(), (hole == 0).sum()) == (*sides, sides[0] * sides[1])


def test_erase_draws_areas_and_shapes():
    hole = changed(augment.erase(0.5, area=(0.1, 0.3), aspect=(0.5, 2)), np.ones((1500, 60, 60, 1)))[..., 0] == 0
    hole = hole[hole.any((1, 2))]
    height, width = hole.any(2).sum(1), hole.any(1).sum(1)
    np.testing.assert_array_equal(height * width, hole.sum((1, 2)))
    assert_uniform_between(height * width / 3600, 0.1, 0.3, slack=0.02)  # sides are rounded
    assert_uniform_between(np.log(height / width), np.log(0.5), np.log(2), slack=0.1)
    correlation: Any = stats.spearmanr(height * width, height / width)
    assert correlation.pvalue > 1e-6  # each by a key of its own


# Compose


def test_compose_gives_each_a_key_of_its_own():
    parts = [ALL[name] for name in ("brightness", "crop", "cutout")]
    x, y, keys = images(), np.arange(4), jax.random.split(KEY, 3)
    expected = x
    for part, key in zip(parts, keys, strict=True):
        expected = part(key, expected, y)[0]
    np.testing.assert_allclose(changed(augment.compose(*parts), x), expected, atol=1e-14)
    twice = changed(augment.compose(augment.brightness(), augment.brightness()), np.zeros((50, 1, 1, 1)))
    once = changed(augment.brightness(), np.zeros((50, 1, 1, 1)), keys[0])
    assert abs(twice - 2 * once).min() > 1e-6


def test_compose_is_one_jitted_function_in_order():
    def double(key, x, y):
        return 2 * x, y + 1

    def add(key, x, y):
        return x + 1, 2 * y

    x, y = augment.compose(double, augment.compose(add), augment.compose())(KEY, np.ones((1, 1, 1, 1)), np.array([1]))
    assert x.item() == 3 and y.item() == 4
    assert ALL["composed"].lower(KEY, images(), np.arange(4)).as_text().count("func.func public") == 1


# Errors

X, Y = images(), np.arange(4)
ERRORS = {  # call, class, message
    "uint8": (lambda: ALL["flip"](KEY, X.astype(np.uint8), Y), TypeError, r"flip: x must be floating .* uint8; .*norm"),
    "composed uint8": (lambda: ALL["composed"](KEY, X.astype(np.uint8), Y), TypeError, "compose: x must be .* uint8"),
    "int": (lambda: ALL["mixup"](KEY, X.astype(int), Y), TypeError, "mixup: x must be floating point, got int64"),
    "list": (lambda: ALL["flip"](KEY, X.tolist(), Y), TypeError, "flip: x must be an array, got list"),
    "rank": (
        lambda: ALL["crop"](KEY, X[0], Y),
        ValueError,
        r"crop: x must be images \(N, H, W, C\), got .*\(6, 5, 2\)",
    ),
    "flat": (lambda: ALL["crop"](KEY, X[:, :0], Y), ValueError, "crop: x must be images .* got shape"),
    "seed": (lambda: ALL["rotate"](3, X, Y), TypeError, r"rotate: key must be a key of jax.random, got int.*key\(0\)"),
    "no key": (lambda: ALL["rotate"](None, X, Y), TypeError, "rotate: key must be a key of jax.random, got NoneType"),
    "keys": (
        lambda: ALL["erase"](jax.random.split(KEY, 2), X, Y),
        ValueError,
        r"erase: key must be one key, got shape \(2,\); use vmap",
    ),
    "rate": (lambda: augment.flip(1.5), ValueError, "flip: rate must be finite and from 0 to 1, got 1.5"),
    "rate nan": (
        lambda: augment.erase(float("nan")),
        ValueError,
        "erase: rate must be finite and from 0 to 1, got nan",
    ),
    "rate str": (lambda: untyped.cutout(3, rate="all"), TypeError, "cutout: rate must be a number, got 'all'"),
    "rate bool": (lambda: augment.flip(True), TypeError, "flip: rate must be a number, got True"),
    "padding": (lambda: augment.crop(-1), ValueError, "crop: padding must be at least 0, got -1"),
    "padding float": (lambda: untyped.crop(1.5), TypeError, "crop: padding must be an int, got 1.5"),
    "three": (lambda: untyped.crop((1, 2, 3)), ValueError, r"crop: padding must be an int or a pair .* \(1, 2, 3\)"),
    "size": (lambda: augment.crop(0, size=0), ValueError, "crop: size must be at least 1, got 0"),
    "large": (
        lambda: augment.crop(1, size=8)(KEY, X, Y),
        ValueError,
        r"crop: size must fit the padded images, got \(8, 8\) for images \(4, 6, 5, 2\) padded by \(1, 1\)",
    ),
    "mode": (
        lambda: untyped.shift(2, mode="zeros"),
        ValueError,
        "shift: mode must be one of constant, reflect, edge, got 'zeros'",
    ),
    "pixels": (lambda: augment.shift((1, -2)), ValueError, "shift: pixels must be at least 0, got -2"),
    "value": (lambda: augment.shift(2, value=float("inf")), ValueError, "shift: value must be finite .* got inf"),
    "degrees": (lambda: augment.rotate(-10), ValueError, "rotate: degrees must be finite and from 0 to 360, got -10"),
    "order": (lambda: augment.rotate((5, -5)), ValueError, r"rotate: degrees must be \(low, high\), .* got \(5, -5\)"),
    "method": (lambda: untyped.rotate(method="cubic"), ValueError, "rotate: method must be one of bilinear, nearest"),
    "factors": (lambda: untyped.scale(1.2), TypeError, r"scale: factors must be a pair \(low, high\), got 1.2"),
    "factor 0": (
        lambda: augment.scale((0, 1)),
        ValueError,
        "scale: factors must be finite and from 0.01 to 100, got 0",
    ),
    "delta": (lambda: augment.brightness(-0.1), ValueError, "brightness: delta must be finite and from 0 to inf"),
    "clip": (lambda: augment.contrast(clip=(1, 0)), ValueError, r"contrast: clip must be \(low, high\)"),
    "hole": (lambda: augment.cutout(0), ValueError, "cutout: size must be at least 1, got 0"),
    "area": (lambda: augment.erase(area=(0.5, 1.5)), ValueError, "erase: area must be finite and from 0 to 1, got 1.5"),
    "aspect": (lambda: augment.erase(aspect=(0, 1)), ValueError, "erase: aspect must be finite and from 0.01 to 100"),
    "classes": (lambda: augment.mixup(0), ValueError, "mixup: classes must be at least 1, got 0"),
    "alpha": (lambda: augment.mixup(3, alpha=0), ValueError, "mixup: alpha must be above 0, got 0"),
    "float labels": (lambda: ALL["mixup"](KEY, X, Y / 2), TypeError, r"mixup: y must be ints \(N,\) or floats"),
    "int rows": (lambda: ALL["mixup"](KEY, X, np.eye(5, dtype=int)[:4]), TypeError, "mixup: y must be .* got int64"),
    "width": (lambda: ALL["mixup"](KEY, X, np.eye(4)), ValueError, r"y must be \(4,\) or \(4, 5\) .* got \(4, 4\)"),
    "number": (lambda: ALL["mixup"](KEY, X, Y[1:]), ValueError, r"y must be \(4,\) or \(4, 5\) .* got \(3,\)"),
    "no labels": (lambda: ALL["mixup"](KEY, X, None), TypeError, "mixup: y must be an array, got NoneType"),
    "compose": (lambda: untyped.compose(3), TypeError, r"compose: wants functions \(key, x, y\) -> \(x, y\), got 3"),
}


@pytest.mark.parametrize("call, error, message", ERRORS.values(), ids=ERRORS)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_all_are_public():
    assert "augment" in data.__all__
    assert all(callable(getattr(augment, name)) for name in augment.__all__ if name != "Augmentation")
