"""Damaged files: each is refused with a message that names it, or comes to exactly the right result; never to another."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchlab.config import load_profile
from batchlab.errors import BatchlabError
from batchlab.experiment import Experiment
from batchlab.files.received import UNREADABLE
from batchlab.files.sealing import seal
from batchlab.retraining import saved
from batchlab.retraining.fresh import Stretch, mark_of
from batchlab.retraining.saved import Lineage
from batchlab.rows.split import Split
from batchlab.scoring.shipping import GRAPH, export
from batchlab.search.known import Known
from batchlab.search.plain import Arrays, plain, restored
from batchlab.search.saving import load, save
from batchlab.search.search import Search
from batchlab.serving import graphs
from batchlab.table import PackedTable
from batchlab.table import contract as contracts
from tests.damage import damage, edited
from tests.test_predict import trained

FEW, MANY = 12, 400
"""Damages of each of five kinds of files, in the usual tests and in the slow ones."""


@dataclass(frozen=True)
class Subject:
    """Files in a folder, and what reading them comes to, in a form that compares."""

    folder: Path
    read: Callable[[Path], Any]


def of_table(folder: Path) -> Any:
    table = PackedTable.open(folder)
    parts = [np.array(table.features), np.array(table.target), table.read("features", 3, 5), table.read("target", 0, 10**6)]
    sides = [table.side_column(part) for part in ("time", "weight", "group", "key")]
    (labels,) = [Split.open(path).labels for path in folder.glob("split-*.npy")]
    contract = contracts.opened(folder / "contract.json")
    held = [part.tobytes() for part in (*parts, *(side for side in sides if side is not None), labels)]
    return table.schema, table.facts, held, contract, table.example.read_bytes()


def of_model(folder: Path) -> Any:
    opened, rows = saved.opened(folder), np.linspace(-2, 2, 60).astype(np.float32)
    width = sum(len(column.packed_names) for column in opened.columns)
    return (
        opened.columns,
        opened.preparation.digest,
        opened.lineage,
        _predicted(folder, np.resize(rows, (12, width))),
        _flat(opened.weights),
    )


def _predicted(folder: Path, rows: np.ndarray) -> bytes:
    import torch

    with torch.no_grad():
        return bytes(graphs.opened(folder / GRAPH)(torch.from_numpy(rows)).numpy().tobytes())


def _flat(weights: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in weights.items()}


def of_state(folder: Path) -> Any:
    (path,) = folder.glob("*.npz")
    save(load(path, Known), folder.parent / "again.npz")
    return (folder.parent / "again.npz").read_bytes()


def of_profile(folder: Path) -> Any:
    (path,) = folder.glob("*.toml")
    return load_profile(str(path)).model_dump_json()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed table with its split, and a saved model."""
    folder = tmp_path_factory.mktemp("made")
    experiment, result = trained(folder, "band")
    shutil.copytree(experiment.split.save(experiment.table).parent, folder / "table" / experiment.table.schema.digest)
    (folder / "model").mkdir()
    export(experiment.ship(result), experiment.table.schema.columns, folder / "model")
    saved.save(folder / "model", experiment.preparation, result.weights, lineage(experiment))
    seal(folder / "model")
    return folder


def lineage(experiment: Experiment) -> Lineage:
    return Lineage(
        recipe={"seed": 1},
        asked={},
        compared_rows=7,
        comparison_run_id="a",
        hardware={},
        mark=mark_of(experiment.table),
        held_out=Stretch(after=0, last=1),
    )


@pytest.fixture(params=["table", "model", "state", "contract", "profile"])
def subject(request: pytest.FixtureRequest, made: Path, searched: Search, tmp_path: Path) -> Subject:
    folder = tmp_path / "files"
    folder.mkdir()
    if request.param == "table":
        (whole,) = (made / "table").iterdir()
        shutil.copytree(whole, folder / whole.name)
        return Subject(folder / whole.name, of_table)
    if request.param == "model":
        shutil.copytree(made / "model", folder, dirs_exist_ok=True)
        return Subject(folder, of_model)
    if request.param == "state":
        save(searched.known, folder / "known.npz")
        return Subject(folder, of_state)
    if request.param == "contract":
        (whole,) = (made / "table").iterdir()
        shutil.copy(whole / "contract.json", folder)
        return Subject(folder, lambda folder: contracts.opened(folder / "contract.json"))
    (folder / "mine.toml").write_text(PROFILE)
    return Subject(folder, of_profile)


PROFILE = """
target = "price"
seed = 12
source = { kind = "csv", path = "rows.csv", delimiter = ";" }
columns = { time = "day", drop = ["name", "note"], missing = ["-999"] }
split = { kind = "chronological", validation = 0.2, test = 0.1, embargo = "5 days" }
model = { kind = "mlp", widths = [32, 16], activation = "tanh" }

[train]
epochs = 40
learning_rate = [0.01, 0.1]
optimizer = { kind = "sgd", momentum = 0.9 }

[strategies.mini_batch]
batch_rows = 32

[strategies.full_batch]
"""


def _attacked(subject: Subject, count: int) -> tuple[int, int, list[str]]:
    """Damage the files so often, one each time; return how many were refused, how many came to the right result, and what is wrong."""
    expected, whole = subject.read(subject.folder), subject.folder.with_name("whole")
    shutil.copytree(subject.folder, whole)
    names = sorted(path.name for path in whole.iterdir() if path.is_file())
    refused, right, wrong = 0, 0, list[str]()
    for seed in range(count):
        rng = random.Random(seed)
        name = names[seed % len(names)]
        path = subject.folder / name
        way = damage(path, [whole / other for other in names if other != name], rng)
        try:
            found = subject.read(subject.folder)
            same = found == expected or found == _meant(path, expected)
            right += same
            if not same:
                wrong.append(f"{name}, {way}, seed {seed}: another result")
        except BatchlabError as error:
            refused += 1
            if not any(word in str(error) for word in (name, str(subject.folder))):
                wrong.append(f"{name}, {way}, seed {seed}: the file is not named: {error}")
        except Exception as error:
            wrong.append(f"{name}, {way}, seed {seed}: {type(error).__name__}: {error}")
        shutil.copy(whole / name, path)
    assert subject.read(subject.folder) == expected
    return refused, right, wrong


def _meant(path: Path, expected: Any) -> Any:
    """What a file that people write says now, read by another way than the program's: an edit of it is no damage."""
    if isinstance(expected, contracts.Contract):
        return contracts.Contract.model_validate_json(json.dumps(json.loads(path.read_bytes())))
    if path.suffix == ".toml":
        import tomllib

        from batchlab.config import DEFAULT_KINDS, Profile

        return Profile.model_validate({**DEFAULT_KINDS, **tomllib.loads(path.read_text())}).model_dump_json()
    return None


def test_what_a_state_file_says_is_held_to_its_types_and_places_whatever_it_says(searched: Search) -> None:
    store, rng = Arrays(), random.Random(0)
    whole = json.loads(json.dumps(plain(searched.known, store)))
    arrays, refused = store.joined(), 0
    for _ in range(25):
        try:
            assert isinstance(restored(edited(whole, rng), arrays), Known | dict | list | str | int | float | None)
        except UNREADABLE:
            refused += 1
    assert refused > 10


def test_a_damaged_file_is_refused_by_name_or_comes_to_the_right_result(subject: Subject) -> None:
    refused, _, wrong = _attacked(subject, FEW)
    assert not wrong
    assert refused > FEW // 4


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_thousand_damaged_files_are_refused_by_name_or_come_to_the_right_result(subject: Subject) -> None:
    refused, right, wrong = _attacked(subject, MANY)
    print(f"\n{subject.folder.name}: {MANY} damages, {refused} refused, {right} right", end="")
    assert not wrong, "\n".join(wrong)
    assert refused + right == MANY
    assert refused > MANY // 4
