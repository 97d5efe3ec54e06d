"""The documents say what the code does: every setting is in the reference, every path of the tree exists, no link is broken."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from batchlab.config import Profile
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.errors import BatchlabError
from batchlab.models import MODELS
from batchlab.records import discover
from batchlab.report.claims import claims
from batchlab.search.findings import Findings
from batchlab.sources import SOURCES
from batchlab.strategies import STRATEGIES, Strategy
from tests.conftest import CHECKOUT

KINDS = {"source": SOURCES, "model": MODELS, "train.optimizer": OPTIMIZERS, "strategies.NAME": STRATEGIES}


def keys(record: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in record.model_fields.items():
        held = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        found |= keys(held[0], f"{prefix}{name}.") if len(held) == 1 else {prefix + name}  # several are kinds of one
    return found


def test_the_reference_names_every_setting() -> None:
    reference = (CHECKOUT / "docs" / "reference.md").read_text()
    expected = keys(Profile) - {"source", "model", "train.optimizer", "strategies"}
    for prefix, kinds in KINDS.items():
        expected |= {f"{prefix}.{name}" for kind in kinds.values() for name in kind.model_fields}
    assert not {key for key in expected if f"`{key}`" not in reference}


def choices(record: type[BaseModel], prefix: str = "") -> dict[str, set[str]]:
    """Return the settings that are one of several words, with these."""
    found = {}
    for name, field in record.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= choices(kind, f"{prefix}{name}.")
            elif get_origin(kind) is Literal and name != "kind":
                found[prefix + name] = {word for word in get_args(kind) if isinstance(word, str)}
    return found


def test_the_reference_names_every_kind_and_every_choice() -> None:
    rows = [line for line in (CHECKOUT / "docs" / "reference.md").read_text().splitlines() if line.startswith("|")]
    expected = choices(Profile)
    for prefix, kinds in KINDS.items():
        expected[f"{prefix}.kind"] = set(kinds)
        for kind in kinds.values():
            expected |= choices(kind, f"{prefix}.")
    missing = {
        (key, word)
        for key, words in expected.items()
        for word in words
        if not any(f"`{key}`" in row and f"`{word}`" in row.partition(f"`{key}`")[2] for row in rows)
    }
    assert missing == set()


def test_the_reference_names_no_setting_that_is_gone() -> None:
    reference = (CHECKOUT / "docs" / "reference.md").read_text()
    named = set(re.findall(r"`((?:source|split|model|train|search|retraining|strategies\.NAME)\.[a-z0-9_.]+)`", reference))
    known = keys(Profile) | {f"{prefix}.{name}" for prefix, kinds in KINDS.items() for kind in kinds.values() for name in kind.model_fields}
    assert named <= known


def test_every_path_in_the_tree_exists() -> None:
    tree = (CHECKOUT / "docs" / "architecture.md").read_text().split("```")[1]
    folder = ""
    for line in tree.strip().splitlines():
        names = line.split("  ")[0].split(", ") if not line.startswith(" ") else line.strip().split("   ")[0].split("  ")[0].split(", ")
        for name in names:
            path = CHECKOUT / (name if not line.startswith(" ") else folder + name)
            assert path.exists(), path
        if not line.startswith(" "):
            folder = names[0]


@pytest.mark.parametrize("document", list(CHECKOUT.glob("*.md")) + sorted((CHECKOUT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_no_link_to_a_file_is_broken(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL))
    assert not [link for link in links if "://" not in link and not (document.parent / link).exists()]


LESSON = CHECKOUT / "docs" / "lesson.ipynb"
CELLS_IN_ORDER = """
import json, sys, matplotlib
matplotlib.use("agg")
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), globals())
"""


def test_the_lesson_runs_and_answers_every_claim(tmp_path: Path, found: Findings) -> None:
    command = [sys.executable, "-c", CELLS_IN_ORDER, str(LESSON)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "diverged" in done.stdout.split("Train with")[0]  # as it is written, before days are scaled
    answers = re.findall(r"Claim: (.*)\n(.+)", done.stdout)
    assert {claim for claim, _ in answers} == {item.claim for item in claims(found)}
    assert "import torch" in done.stdout


def test_the_committed_lesson_shows_what_it_printed_and_nothing_of_the_machine() -> None:
    text = LESSON.read_text()
    assert len(text) < 300_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 1
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/", text)


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kinds_of_mine").mkdir()
    (tmp_path / "kinds_of_mine" / "__init__.py").write_text("")
    (tmp_path / "kinds_of_mine" / "broken.py").write_text("class Broken(Strategy): ...")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BatchlabError, match=r"kinds_of_mine/broken.py cannot be imported: NameError: name 'Strategy' is not defined"):
        discover("kinds_of_mine", Strategy)
