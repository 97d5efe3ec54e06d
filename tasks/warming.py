"""What a comparison needs later, made ready beside what it does first: the kernels, MLflow's store, and slow imports."""

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

SEARCHING, MOST_SECONDS = threading.Event(), 10.0
"""All but the kernels waits until a search has begun, though no longer than this: what is imported before it holds it up."""
# Named here is what MLflow, torch.export and matplotlib would import by themselves at first use, in the order of need.
LATER = ("mlflow.pyfunc", "torch.export._trace", "sklearn.feature_selection", "sklearn.metrics", "matplotlib.figure")


def begin(spare_memory: bool = False) -> threading.Thread:
    """Begin to make all of it ready in the background. Who needs a part waits for it by itself, and hears of what fails there.

    With `spare_memory` what is needed after the search alone is imported then, when the search has given back what it took: 170 MiB.
    """
    thread = threading.Thread(target=_all, args=(spare_memory,), name="warming", daemon=True)
    thread.start()
    return thread


def _all(spare_memory: bool) -> None:
    from batchlab.engine.backends.numba_cpu import warm
    from tasks import store

    with suppress(Exception):
        warm()
    SEARCHING.wait(MOST_SECONDS)
    later = [partial(importlib.import_module, name) for name in (() if spare_memory else LATER)]
    parts: list[Callable[[], object]] = [store.client, *later]
    for part in parts:
        with suppress(Exception):  # told by whoever needs it
            part()
