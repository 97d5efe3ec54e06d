"""The slow imports of a comparison and its kernels, made ready while the server starts instead of one by one in the middle of it."""

import importlib
import threading

# What torch.export, MLflow's store and matplotlib import by themselves at first use is named here too.
SLOW = (
    "torch",
    "torch.export._trace",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.metrics",
    "sklearn.feature_selection",
    "matplotlib.figure",
)


def compile_kernels() -> None:
    """Start to compile the CPU kernels, or to load them from disk, in the background; training waits for them by itself."""
    from batchlab.engine.backends.numba_cpu import warm

    threading.Thread(target=warm, name="kernels", daemon=True).start()


def import_all() -> None:
    """Import what a comparison will need."""
    for module in SLOW:
        importlib.import_module(module)
