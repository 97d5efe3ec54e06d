"""How far the trainings are, told to whoever listens, and the way to stop them."""

import threading
import time
from collections.abc import Callable

from batchlab.engine.records import OnProgress, Progress

SECONDS_BETWEEN = 0.1

Listener = Callable[[str, Progress], None]
listeners: list[Listener] = []
stopping = threading.Event()


class Stopped(BaseException):
    """The comparison was interrupted while this strategy trained. No Exception, so that nothing mistakes it for a failure."""


def reporter(strategy: str) -> OnProgress:
    """Return the callback of one strategy's training: tells the listeners now and then, and raises Stopped when asked to stop."""
    last = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal last
        if stopping.is_set():
            raise Stopped(strategy)
        if time.monotonic() - last >= SECONDS_BETWEEN or progress.rows_seen >= progress.rows_total:
            last = time.monotonic()
            for listener in listeners:
                listener(strategy, progress)

    return on_progress
