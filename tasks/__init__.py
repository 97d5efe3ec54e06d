"""Prefect tasks: WHERE things run and are recorded. Each calls the library and writes what came of it to MLflow."""
