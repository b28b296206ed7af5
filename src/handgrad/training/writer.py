"""Writing beside the training: one job at a time, in a thread, whose errors come out where the training waits for it.

Without a thread: steps, copy, hash and write, steps, ...; with one: steps, copy, steps, ..., and beside those steps the
thread hashes and writes the copy.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait


class Writer:
    """Does jobs in their order, each before the next is taken.

    Args:
        background: whether in a thread; if not, `do` returns when the job is done.

    Example:
        >>> written, writer = [], Writer(background=True)
        >>> for step in (1, 2):
        ...     writer.do(lambda step=step: written.append(step))
        >>> writer.close()
        >>> written
        [1, 2]
    """

    def __init__(self, background: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint") if background else None
        self._running: Future[None] | None = None

    def do(self, job: Callable[[], None]) -> None:
        """Begin a job, once the one before is done; what that one raised is raised here, and the new job left out."""
        self.wait()
        if self._pool is None:
            job()
        else:
            self._running = self._pool.submit(job)

    def wait(self) -> None:
        """Return when nothing is under way, or raise what went wrong."""
        if self._running is not None:
            wait([self._running])  # a Ctrl-C here leaves the job as it is
            done, self._running = self._running, None
            done.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
