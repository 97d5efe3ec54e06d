"""Imports go down only: flows → tasks → batchlab; and nothing heavy is imported before it is needed."""

import ast
import graphlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="module")
def rooms() -> ModuleType:
    """docs/rooms.py, where the floors of the library are written down."""
    spec = importlib.util.spec_from_file_location("rooms", CHECKOUT / "docs" / "rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_room_of_the_library_imports_from_those_below_it_only(rooms: ModuleType) -> None:
    assert rooms.wrong() == []


def test_an_import_that_is_turned_round_is_found(rooms: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "batchlab", tmp_path / "batchlab", ignore=shutil.ignore_patterns("__pycache__"))
    loop, model = tmp_path / "batchlab" / "engine" / "loop.py", tmp_path / "batchlab" / "models" / "base.py"
    loop.write_text(loop.read_text() + "\n\ndef late() -> None:\n    from batchlab.search.space import Setting\n")
    model.write_text(model.read_text() + "\nif TYPE_CHECKING:\n    from batchlab.engine.records import Trial\n")
    assert rooms.wrong(tmp_path) == ["batchlab.engine.loop imports batchlab.search.space, which is not below it"]
    (tmp_path / "batchlab" / "attic").mkdir()
    (tmp_path / "batchlab" / "attic" / "__init__.py").write_text("from batchlab.errors import BadInput\n")
    assert "batchlab/attic stands on no floor" in rooms.wrong(tmp_path)


def test_no_files_import_each_other_in_a_circle(rooms: ModuleType) -> None:
    graph: dict[str, set[str]] = {}
    for one, other in rooms.imports():
        if one not in (other, "batchlab"):
            graph.setdefault(one, set()).add(other)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_every_room_is_in_the_picture(rooms: ModuleType) -> None:
    picture = (CHECKOUT / "docs" / "rooms.svg").read_text()
    inside = {path.name.removesuffix(".py") for path in (CHECKOUT / "batchlab").iterdir()} - {
        "__init__",
        "__pycache__",
        "py.typed",
        "profiles",
    }
    assert {room for floor in rooms.FLOORS for room in floor} == inside
    for room in inside:
        assert f">{room}/<" in picture or f">{room}.py<" in picture


EVERYTHING_HEAVY = {"torch", "prefect", "mlflow", "pandas", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        *((module, EVERYTHING_HEAVY) for module in ("batchlab.config", "flows.cli", "flows.local_server")),
        *((module, {"torch", "mlflow", "matplotlib"}) for module in ("batchlab.search.findings", "batchlab.report.document")),
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import {module}, sys; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("words", ["--help", "server status", "doctor"])
def test_a_command_that_only_looks_imports_neither_torch_nor_prefect_nor_mlflow(batchlab: Command, words: str) -> None:
    done = batchlab(*words.split(), **TOLD_IMPORTS)
    assert done.returncode == 0, done.stderr
    assert imported(done) & {"typer", "torch", "prefect", "mlflow", "pandas", "sklearn", "scipy.stats", "matplotlib"} == {"typer"}
