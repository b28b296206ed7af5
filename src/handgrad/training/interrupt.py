"""Ctrl-C and SIGTERM as a wish that a loop can grant between two steps, when its state is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Stop:
    """The signal that came, or None."""

    number: signal.Signals | None = None


@contextlib.contextmanager
def stop_signals(active: bool = True) -> Iterator[Stop]:
    """Take note of SIGINT and SIGTERM instead of dying of them; the old handlers come back afterwards.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread, where Python lets nobody handle signals,
    and if not active, nothing is changed.

    Example:
        >>> with stop_signals() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop.number.name
        'SIGTERM'
    """
    stop = Stop()
    if not active or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: object) -> None:
        if stop.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.number = signal.Signals(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
