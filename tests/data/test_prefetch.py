"""prefetch: order, errors, threads that end, buffers that are filled anew, settings of JAX, and `fit` with it."""

import contextlib
import gc
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.data import batches, prefetch


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    for thread in workers():
        thread.join(5)  # one that closed itself may still be on its way out
    assert not workers()


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def counted(n, log=None, slow=0.0):
    for i in range(n):
        time.sleep(slow)
        if log is not None:
            log.append(i)
        yield np.full(3, i)


def numbers(iterator):
    return [int(np.asarray(batch).max()) for batch in iterator]


@pytest.mark.parametrize("size", [0, 1, 2, 5, 50])
def test_the_same_batches_in_the_same_order(size):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    found = list(prefetch(batches(x, y, 3, seed=1, epoch=2), size))
    expected = list(batches(x, y, 3, seed=1, epoch=2))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for a, b in zip(one, other, strict=True):
            assert isinstance(a, jax.Array)
            np.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("size", [0, 2])
def test_slow_and_hasty_batches_keep_their_order(size):
    pauses = [0.02, 0, 0.01, 0, 0, 0.02]
    assert numbers(prefetch(counted(6), size, transform=lambda x: time.sleep(pauses[x[0]]) or x)) == list(range(6))


@pytest.mark.parametrize("size", [0, 2])
def test_no_batches(size):
    assert list(prefetch([], size)) == []


def test_transform_takes_the_parts_of_a_tuple_or_the_batch_itself():
    pair = (np.ones(2), np.zeros(2))
    assert numbers(prefetch([pair], transform=lambda x, y: x + y + 1)) == [2]
    assert numbers(prefetch([list(pair)], transform=lambda batch: batch[0])) == [1]


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_than_size_batches_are_made_ahead(size):
    made = []
    iterator = prefetch(counted(20, made), size)
    assert made == []  # nothing runs before the first is asked for
    for i in range(4):
        next(iterator)
        deadline = time.monotonic() + 10
        while len(made) < i + 1 + size and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        assert len(made) == i + 1 + size
    iterator.close()


def test_batches_are_made_while_the_consumer_works():
    """The fourth batch is made while the first is in use: with `size` 0 this would wait for ever."""
    fourth = threading.Event()

    def source():
        for i in range(5):
            if i == 3:
                fourth.set()
            yield np.full(1, i)

    iterator = prefetch(source(), 3)
    next(iterator)
    assert fourth.wait(10)
    assert numbers(iterator) == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_an_error_comes_after_the_batches_before_it_with_its_own_traceback(size):
    def broken_source():
        yield from counted(3)
        raise OSError("the disk is gone")

    iterator, found = prefetch(broken_source(), size), []
    with pytest.raises(OSError, match="the disk is gone") as caught:
        found.extend(int(batch.max()) for batch in iter(lambda: next(iterator), None))
    assert found == [0, 1, 2]
    assert "broken_source" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert list(iterator) == [] and not workers()


@pytest.mark.parametrize("error", [ValueError("bad image"), StopIteration("no end"), KeyboardInterrupt()])
@pytest.mark.parametrize("size", [0, 2])
def test_an_error_of_the_transform_never_ends_the_loop_quietly(size, error):
    def transform(x):
        if x[0] == 2:
            raise error
        return x

    found = []
    with pytest.raises(RuntimeError if isinstance(error, StopIteration) else type(error)):
        for batch in prefetch(counted(5), size, transform=transform):
            found.append(int(batch.max()))
    assert found == [0, 1] and not workers()


class TestEarlyExit:
    def test_break(self):
        for _ in prefetch(counted(100), 2):
            break
        assert not workers()

    def test_close(self):
        iterator = prefetch(counted(100), 2)
        next(iterator)
        assert len(workers()) == 1
        iterator.close()
        assert not workers() and list(iterator) == []

    def test_an_error_of_the_consumer(self):
        with pytest.raises(ZeroDivisionError), contextlib.closing(prefetch(counted(100), 2)) as iterator:
            for _ in iterator:
                raise ZeroDivisionError
        assert not workers()
        with pytest.raises(ZeroDivisionError):
            for _ in prefetch(counted(100), 2):
                raise ZeroDivisionError
        assert not workers()

    def test_forgotten(self):
        iterator = prefetch(counted(100), 2)
        next(iterator)
        del iterator
        assert not workers()

    def test_never_begun(self):
        iterator = prefetch(counted(100), 2)
        assert not workers()
        del iterator

    def test_what_is_closed_is_not_touched_again(self):
        """Closing waits for the batch in the making, so that the source is free once `close` is back."""
        source = counted(100, slow=0.01)
        iterator = prefetch(source, 2)
        next(iterator)
        iterator.close()
        next(source)  # "generator already executing" if the thread were still in it
        source.close()

    def test_source_and_batches_are_let_go(self):
        class Source(list):
            pass

        source = Source(counted(5))
        there = weakref.ref(source)
        iterator = prefetch(source, 2)
        next(iterator)
        del source
        iterator.close()
        del iterator
        assert there() is None

    def test_collected_in_the_thread_itself(self):
        """An iterator in a reference cycle may be found by a garbage collection that its own thread sets off."""
        gone = threading.Event()

        def source():
            yield np.zeros(1)
            while not gone.wait(0.01):
                gc.collect()
            yield np.zeros(1)

        class Ring:
            me: object
            iterator: Iterator

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.disable()
            try:
                ring = Ring()
                ring.me, ring.iterator = ring, prefetch(source(), 2)
                weakref.finalize(ring, gone.set)
                next(ring.iterator)
                del ring
                assert gone.wait(10)
            finally:
                gc.enable()


@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("length", [3, 100_000])
def test_a_buffer_filled_anew_changes_no_batch(size, length):
    raw = np.zeros(8 * length + 64, np.uint8)
    start = -raw.ctypes.data % 64  # so aligned, device_put would share the memory
    buffer = raw[start : start + 8 * length].view(np.float64)

    def source():
        for i in range(5):
            buffer[:] = i
            yield buffer

    kept = list(prefetch(source(), size))
    buffer[:] = 77
    assert [(float(batch.min()), float(batch.max())) for batch in kept] == [(i, i) for i in range(5)]


def test_what_is_no_array_of_numbers_stays():
    names, nothing = np.array(["a", "b"]), None
    batch = {"x": np.ones(2, jnp.bfloat16), "names": names, "objects": np.array([print], object), "n": 3, "z": nothing}
    odd = {
        "fields": np.zeros(2, "i4,f4"),
        "texts": np.array(["a"], np.dtypes.StringDType()),
        "dates": np.zeros(1, "M8[s]"),
    }
    (found,) = prefetch([batch | odd | {"mask": np.array([True])}])
    assert isinstance(found["x"], jax.Array) and found["x"].dtype == jnp.bfloat16
    assert found["names"] is names and found["n"] == 3 and found["z"] is None and found["objects"][0] is print
    assert all(found[name] is array for name, array in odd.items()) and found["mask"].dtype == jnp.bool_


def test_jax_arrays_stay_or_go_where_they_are_sent():
    x, device = jnp.ones(2), jax.devices()[-1]
    assert next(prefetch([x])) is x
    sharding = jax.sharding.SingleDeviceSharding(device)
    for where in (device, sharding, (device, sharding)):
        x_there, parts = next(prefetch([(x, {"a": np.ones(2), "b": np.ones(3)})], device=where))
        assert all(leaf.sharding.device_set == {device} and leaf.committed for leaf in (x_there, *parts.values()))
    one, other = next(prefetch([(x, np.ones(2))], device=(None, device)))
    assert one is x and other.committed


@pytest.mark.parametrize("size", [0, 2])
def test_the_thread_takes_over_the_settings_of_jax(size):
    def told(_):
        return [
            getattr(jax.config, f"jax_{name}")
            for name in ("enable_x64", "default_matmul_precision", "default_prng_impl")
        ]

    with jax.enable_x64(False), jax.default_matmul_precision("highest"), jax.default_prng_impl("rbg"):
        assert list(prefetch([0], size, transform=told)) == [[False, "highest", "rbg"]]
        assert next(prefetch([np.ones(2)], size)).dtype == np.float32
    assert next(prefetch([np.ones(2)], size)).dtype == np.float64


BAD = {
    "prefetch: batches must be an iterable, got int": (TypeError, {"batches": 3}),
    "prefetch: size must be an int, got float 1.5": (TypeError, {"size": 1.5}),
    "prefetch: size must be an int, got bool True": (TypeError, {"size": True}),
    "prefetch: size must be at least 0, got -1; 0 makes each batch when": (ValueError, {"size": -1}),
    "prefetch: transform must be a function, got int": (TypeError, {"transform": 3}),
    "prefetch: device must be a jax.Device, a sharding, or a tree of them, got str": (TypeError, {"device": "cpu"}),
    "prefetch: device must be .*, got int": (TypeError, {"device": (None, 0)}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named_at_the_call(message):
    error, arguments = BAD[message]
    with pytest.raises(error, match=message):
        prefetch(**{"batches": [], **arguments})


NET = hg.Chain(hg.Flatten(), hg.Dense(3), hg.Dropout(0.2))
STEP = hg.make_train_step(hg.Objective(NET, hg.SoftmaxCrossEntropy()), hg.momentum(0.05))
SHIFT = hg.data.augment.shift(1)
X = np.random.default_rng(0).normal(size=(26, 5, 4, 1))
Y = np.arange(26) % 3


def fitted(prefetch, **settings):
    start = hg.init_train_state(NET, hg.momentum(0.05), jax.random.key(0), X.shape[1:], jnp.float64)
    arguments = {"batch_size": 8, "epochs": 3, "seed": 3, "progress": False, "augment": SHIFT}
    train_state, history = hg.fit(start, STEP, X, Y, **{**arguments, **settings}, prefetch=prefetch)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(train_state._replace(key=0))], history["loss"]


def test_fit_is_the_same_run_bit_for_bit(tmp_path):
    plain = fitted(0)
    for size in (1, 2, 20):
        assert fitted(size) == plain
    fitted(2, epochs=1, run_dir=tmp_path)
    assert fitted(2, run_dir=tmp_path, resume=True) == plain


def test_fit_resumed_in_the_middle_of_an_epoch_augments_what_is_left(tmp_path):
    calls = []

    def augment(key, x, y):
        calls.append(jax.random.key_data(key).tobytes())
        if len(calls) == 5 and not tmp_path.joinpath("stopped").exists():
            tmp_path.joinpath("stopped").touch()
            raise KeyboardInterrupt
        return x + jax.random.normal(key, x.shape), y

    whole = fitted(0, augment=lambda key, x, y: (x + jax.random.normal(key, x.shape), y))
    with pytest.raises(KeyboardInterrupt):
        fitted(2, augment=augment, run_dir=tmp_path / "run")
    assert len(calls) == 5  # of 9: those before the error were trained
    del calls[:]
    assert fitted(2, augment=augment, run_dir=tmp_path / "run", resume=True) == whole
    assert len(calls) == 5 and len(set(calls)) == 5 and not workers()


def test_fit_leaves_no_thread_when_a_step_fails():
    def step(train_state, x, y):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hg.fit(
            hg.init_train_state(NET, hg.sgd(0.1), jax.random.key(0), X.shape[1:], jnp.float64),
            *(step, X, Y),
            **{"batch_size": 2, "epochs": 1, "progress": False},
        )
    assert not workers()
