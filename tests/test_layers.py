"""Imports go down only: flows → tasks → batchlab; and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, TOLD_IMPORTS, Command, imported

FORBIDDEN = {
    "batchlab": {"flows", "tasks", "prefect", "mlflow", "typer", "rich"},
    "tasks": {"flows", "typer", "rich"},
    "flows": {"torch", "pandas", "mlflow", "numpy", "sklearn", "pyarrow"},
}
SOURCES = [(layer, path) for layer in FORBIDDEN for path in sorted((CHECKOUT / layer).rglob("*.py"))]


@pytest.mark.parametrize(("layer", "path"), SOURCES, ids=[str(path.relative_to(CHECKOUT)) for _, path in SOURCES])
def test_imports_go_down_only(layer: str, path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text()))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    nodes = ast.walk(ast.parse(path.read_text()))
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not {name.split(".")[0] for name in names} & FORBIDDEN[layer]


@pytest.mark.parametrize("module", ["batchlab.config", "flows.cli", "flows.local_server"])
def test_what_answers_at_once_imports_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'prefect', 'mlflow', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"import {module}, sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("words", ["--help", "server status", "doctor"])
def test_a_command_that_only_looks_imports_neither_torch_nor_prefect_nor_mlflow(batchlab: Command, words: str) -> None:
    done = batchlab(*words.split(), **TOLD_IMPORTS)
    assert done.returncode == 0, done.stderr
    assert imported(done) & {"typer", "torch", "prefect", "mlflow", "pandas", "sklearn", "scipy.stats", "matplotlib"} == {"typer"}
