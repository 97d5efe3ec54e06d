"""Batchlab compares batching strategies on your data, with evidence. This package is the library: WHAT is done.

It knows neither Prefect nor MLflow and can be used from a notebook; `tasks/` and `flows/` build the application on it.
"""

__version__ = "0.1.0"
