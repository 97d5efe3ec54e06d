"""The slow imports of a comparison, done at once while the server starts instead of one by one in the middle of it."""

import importlib

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


def import_all() -> None:
    """Import what a comparison will need."""
    for module in SLOW:
        importlib.import_module(module)
