"""A process of many that dies leaves the others waiting in a sum for ever. Here they notice, say so, and end.

Each process counts a pulse up in the store of keys and values that the coordinator, process 0, keeps for all. A thread
of its own looks at the pulses of the others, also while the main thread waits in a collective. A process that ends says
how: done, or failed with an error. One that has said nothing, and whose pulse stands still, is gone. A collective may
also break at once when a peer dies; the process then waits for the verdict, which says why, before it fails by itself.

When process 0 itself is killed its store is gone too, and JAX ends the others at once, by its own message.
"""

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

BEATS = 10  # pulses within the patience
LOST = 75  # exit code EX_TEMPFAIL: try again
DONE, FAILED = "done", "failed "
FOLDER = "handgrad/pulse"


class Watch:
    """The pulse of this process, and its view of the others.

    Args:
        client: of the coordinator, with key_value_set and key_value_dir_get.
        process: which process this is.
        processes: how many there are.
        patience: seconds without a pulse after which a peer is gone.
        end: what is done with the message then.
    """

    def __init__(
        self, client: Any, process: int, processes: int, patience: float, end: Callable[[str], None] | None = None
    ) -> None:
        self._client, self._process, self._processes, self._patience = client, process, processes, patience
        self._end, self._over = end or _end, threading.Event()

    def start(self) -> None:
        """Beat and look until this process ends; tell the others then how it ended."""
        before = sys.excepthook

        def failed(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
            before(kind, error, traceback)
            if issubclass(kind, jax.errors.JaxRuntimeError):
                self._over.wait(self._patience * (1 + 2 / BEATS))
            self.stop(f"{FAILED}{kind.__name__}: {error}")
            atexit.register(self._leave)

        sys.excepthook = failed
        atexit.register(self.stop)
        threading.Thread(target=self._run, name="watch of the peers", daemon=True).start()

    def stop(self, how: str = DONE) -> None:
        """Beat no more, and say why; the first reason stands."""
        if not self._over.is_set():
            self._over.set()
            self._say(how)

    def _run(self) -> None:
        pulses: dict[int, str] = {}
        since = dict.fromkeys(range(self._processes), time.monotonic())
        for beat in range(2**62):
            self._say(str(beat))
            for peer, pulse in self._pulses().items():
                if pulses.get(peer) != pulse:
                    pulses[peer], since[peer] = pulse, time.monotonic()
            message = self._verdict(pulses, {peer: time.monotonic() - then for peer, then in since.items()})
            if message and not self._over.is_set():
                return self._end(
                    f"distributed: {message}; process {self._process} cannot go on without it and ends. "
                    f"Start all processes anew: fit with resume=True goes on from the newest checkpoint"
                )
            if self._over.wait(self._patience / BEATS):
                return

    def _verdict(self, pulses: dict[int, str], silent: dict[int, float]) -> str | None:
        """What there is to say of a peer without which this process cannot go on."""
        for peer in range(self._processes):
            pulse, who = pulses.get(peer, ""), f"process {peer} of {self._processes}"
            if peer != self._process and pulse.startswith(FAILED):
                return f"{who} failed with {pulse.removeprefix(FAILED)}"
            if peer != self._process and pulse != DONE and silent[peer] > self._patience:
                return f"{who} is gone, no sign of it for {silent[peer]:.0f} s"
        return None

    def _say(self, word: str) -> None:
        try:
            self._client.key_value_set(f"{FOLDER}/{self._process}", word, allow_overwrite=True)
        except Exception:  # of any kind that a broken line has; the others hear that this one is silent
            return

    def _pulses(self) -> dict[int, str]:
        try:
            return {int(key.rsplit("/")[-1]): pulse for key, pulse in self._client.key_value_dir_get(FOLDER)}
        except Exception:  # as above: no sign of anyone
            return {}

    def _leave(self) -> None:
        """End without JAX's own farewell, which waits for peers that end without one."""
        if self._process == 0:
            time.sleep(2 * self._patience / BEATS)  # the store ends with this process; the others shall read it first
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _end(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    os._exit(LOST)  # the main thread waits in a collective, where no exception reaches it
