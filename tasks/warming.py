"""What a comparison needs later, made ready beside what it does first: MLflow's store, the kernels, and slow imports."""

import importlib
import threading
from contextlib import suppress

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

    for part in (store.client, warm, *(lambda name=name: importlib.import_module(name) for name in (() if spare_memory else LATER))):
        with suppress(Exception):  # told by whoever needs it
            part()
