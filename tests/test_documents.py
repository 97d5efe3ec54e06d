"""The documents say what the code does: every setting is in the reference, every path of the README's tree exists."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from batchlab.config import Profile
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.errors import BatchlabError
from batchlab.models import MODELS
from batchlab.records import discover
from batchlab.sources import SOURCES
from batchlab.strategies import STRATEGIES, Population, Strategy
from tests.conftest import CHECKOUT

KINDS = {"source": SOURCES, "model": MODELS, "train.optimizer": OPTIMIZERS, "strategies.NAME": STRATEGIES}


def keys(record: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in record.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        found |= keys(field.annotation, f"{prefix}{name}.") if nested else {prefix + name}  # type: ignore[arg-type]
    return found


def test_the_reference_names_every_setting() -> None:
    reference = (CHECKOUT / "docs" / "reference.md").read_text()
    expected = keys(Profile) - {"source", "model", "train.optimizer", "strategies"}
    for prefix, kinds in KINDS.items():
        expected |= {f"{prefix}.{name}" for kind in kinds.values() for name in kind.model_fields}
    assert not {key for key in expected if f"`{key}`" not in reference}


def test_the_reference_names_no_setting_that_is_gone() -> None:
    reference = (CHECKOUT / "docs" / "reference.md").read_text()
    named = set(re.findall(r"`((?:source|split|model|train|search|retraining|strategies\.NAME)\.[a-z0-9_.]+)`", reference))
    known = keys(Profile) | {f"{prefix}.{name}" for prefix, kinds in KINDS.items() for kind in kinds.values() for name in kind.model_fields}
    assert named <= known


def test_every_path_in_the_readmes_tree_exists() -> None:
    tree = (CHECKOUT / "README.md").read_text().split("## How it is built")[1].split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        names = line.split("  ")[0].split(", ") if not line.startswith(" ") else line.strip().split("   ")[0].split("  ")[0].split(", ")
        for name in names:
            path = CHECKOUT / (name if not line.startswith(" ") else folder + name)
            assert path.exists(), path
        if not line.startswith(" "):
            folder = names[0]


def test_the_strategy_shown_in_contributing_works_as_printed() -> None:
    code = (CHECKOUT / "CONTRIBUTING.md").read_text().split("```python")[1].split("```")[0]
    namespace: dict[str, object] = {"__name__": "sorted_batch"}
    exec(code, namespace)
    shown = namespace["SortedBatch"]
    assert isinstance(shown, type)
    assert issubclass(shown, Strategy)
    steps = list(shown(batch_rows=4).order(Population(10), 0, 0))
    assert [row for step in steps for block in step for row in block] == list(range(10))


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kinds_of_mine").mkdir()
    (tmp_path / "kinds_of_mine" / "__init__.py").write_text("")
    (tmp_path / "kinds_of_mine" / "broken.py").write_text("class Broken(Strategy): ...")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BatchlabError, match=r"kinds_of_mine/broken.py cannot be imported: NameError: name 'Strategy' is not defined"):
        discover("kinds_of_mine", Strategy)
