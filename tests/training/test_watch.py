import sys
import threading

import jax
import pytest

from handgrad.training import watch
from handgrad.training.watch import FOLDER, Watch


class Store(dict):
    """The coordinator's store of keys and values."""

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        self[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in list(self.items()) if key.startswith(folder)]


@pytest.fixture
def watched(monkeypatch):
    """Process 0 of two, its store, and the messages it would have ended with beside its own last word then."""
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    monkeypatch.setattr(watch.atexit, "register", lambda *_: None)  # the last of them ends this very process
    store, ended, heard = Store(), [], threading.Event()

    def end(message):
        ended.append((message, store[f"{FOLDER}/0"]))
        heard.set()

    process = Watch(store, 0, 2, patience=0.5, end=end)
    yield process, store, ended, heard
    process.stop()


def raised(kind):
    """What Python does with an error that nobody caught."""
    sys.excepthook(kind, kind("read error: connection reset by peer"), None)


def test_a_collective_that_breaks_for_a_dead_peer_ends_by_the_verdict_on_the_peer(watched):
    process, store, ended, _ = watched
    process.start()
    raised(jax.errors.JaxRuntimeError)
    ((message, last_word),) = ended
    assert message.startswith("distributed: process 1 of 2 is gone, no sign of it for")
    assert last_word.isdecimal()  # it had not yet told the others that it failed by itself


def test_an_error_of_its_own_is_told_to_the_others_at_once(watched):
    process, store, ended, _ = watched
    process.start()
    raised(ValueError)
    assert store[f"{FOLDER}/0"] == "failed ValueError: read error: connection reset by peer"
    assert not ended


def test_a_peer_that_failed_is_named_with_its_error(watched):
    process, store, ended, heard = watched
    store[f"{FOLDER}/1"] = "failed OSError: disk full"
    process.start()
    assert heard.wait(30)
    assert ended[0][0].startswith("distributed: process 1 of 2 failed with OSError: disk full; process 0 cannot go on")


def test_a_peer_that_is_done_is_not_missed(watched):
    process, store, ended, heard = watched
    store[f"{FOLDER}/1"] = "done"
    process.start()
    assert not heard.wait(1.0)
