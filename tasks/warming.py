"""What a comparison needs later, made ready beside what it does first: the kernels at once; MLflow's store and slow imports when the search
allows it, for they hold the lock that its own steps need."""

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

LEAST_MINUTES = 1.0
"""A search of less time has none to spare: what comes after it is imported after it."""
# Named here is what MLflow, torch.export and matplotlib would import by themselves at first use, in the order of need.
LATER = ("mlflow.pyfunc", "torch.export._trace", "sklearn.metrics", "matplotlib.figure")
_allowed, _thread = threading.Event(), threading.Thread()


def begin(spare_memory: bool = False) -> None:
    """Begin to make all of it ready in the background. Who needs a part waits for it by itself, and hears of what fails there.

    With `spare_memory` what is needed after the search alone is imported then, when the search has given back what it took: 170 MiB.
    """
    global _thread
    _allowed.clear()
    _thread = threading.Thread(target=_all, args=(spare_memory,), name="warming", daemon=True)
    _thread.start()


def allow() -> None:
    """Let what comes after the search be made ready now."""
    _allowed.set()


def wait_until_allowed(ended: threading.Event) -> None:
    """Return when that is allowed, or `ended` is set; at once where nothing was begun in the background."""
    while _thread.is_alive() and not _allowed.wait(0.1) and not ended.is_set():
        pass


def settle() -> None:
    """Return when nothing is made ready any more: steps are timed with nothing beside them."""
    if _allowed.is_set() and _thread.is_alive():
        _thread.join()


def _all(spare_memory: bool) -> None:
    from batchlab.engine.backends.numba_cpu import warm
    from tasks import drawing, store

    with suppress(Exception):  # told by whoever needs it
        warm()
    _allowed.wait()
    if not spare_memory:
        drawing.begin()
    later = [partial(importlib.import_module, name) for name in (() if spare_memory else LATER)]
    parts: list[Callable[[], object]] = [store.client, *later, drawing.helper.wait_until_ready]
    for part in parts:
        with suppress(Exception):
            part()
