"""What a saved model keeps beside its graph, so that it can be trained on and judged on other tables: weights, preparation, lineage."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from batchlab.errors import BadInput
from batchlab.files.received import arrays_of, check_plain, json_of, refusing
from batchlab.files.sealing import SEAL, check_sealed
from batchlab.records import Record
from batchlab.retraining.fresh import Mark, Stretch
from batchlab.rows.preparation import Category, Preparation
from batchlab.serving.batchlab_serving import SEQUENCE, InSequence, PackedColumn, columns_of, sequence_of

Weights = dict[str, NDArray[np.float64]]
WEIGHTS, LINEAGE, COLUMNS, FOLDER = "weights.npz", "lineage.json", "columns.json", "exported"
ARRAYS = ("places", "mean", "scale", "fill", "flagged")


class Lineage(Record):
    """Where a model comes from: the recommended `recipe` that it was trained with, as keys of a profile; what was `asked` of the comparison
    that recommended it, on how many rows and which hardware; the mark of its table, the stretch that was held out, what it predicts, and
    the `source` of its rows where that has a place."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    recipe: dict[str, Any]
    asked: dict[str, Any]
    compared_rows: int
    comparison_run_id: str
    hardware: dict[str, Any]
    mark: Mark
    held_out: Stretch
    classes: tuple[str, ...] = ()
    start: str = "scratch"
    target: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Saved:
    """A saved model opened for more than prediction."""

    columns: tuple[PackedColumn, ...]
    preparation: Preparation
    weights: Weights
    lineage: Lineage
    sequence: InSequence | None = None


def save(folder: Path, preparation: Preparation, weights: Weights, lineage: Lineage) -> None:
    """Write what `opened` reads into the folder of an exported model."""
    arrays = {name: getattr(preparation, name) for name in ARRAYS}
    arrays |= {f"weight/{name}": values for name, values in weights.items()}
    arrays |= {f"slots/{category.name}": category.slots for category in preparation.categories}
    np.savez(folder / WEIGHTS, allow_pickle=False, **arrays)
    described = {
        "categories": [[item.name, item.place, item.width, item.kept] for item in preparation.categories],
        "embedded": preparation.embedded,
        "target_mean": preparation.target_mean,
        "target_scale": preparation.target_scale,
        "log_target": preparation.log_target,
        "names": preparation.names,
    }
    (folder / LINEAGE).write_text(json.dumps({"preparation": described, "lineage": lineage.model_dump(mode="json")}, indent=1))


def opened(folder: Path) -> Saved:
    """Return what `save` wrote; raises BadInput for a model that was not trained to be kept retrained."""
    if not (folder / LINEAGE).exists():
        raise BadInput("it holds nothing of what retraining needs; take a model that `batchlab retrain` made, or another name (--model).")
    columns, described, arrays = columns_in(folder), json_of(folder / LINEAGE), arrays_of(folder / WEIGHTS, "file of weights")
    with refusing(folder / LINEAGE, "description of a saved model"):
        preparation = _preparation(described["preparation"], arrays)
        weights = {name.removeprefix("weight/"): values for name, values in arrays.items() if name.startswith("weight/")}
        return Saved(columns, preparation, weights, Lineage.model_validate(described["lineage"]), sequence_in(folder))


def columns_in(folder: Path) -> tuple[PackedColumn, ...]:
    """Return the columns of the exported model in the folder; raises BadInput where its files are not as they were written."""
    if (folder / SEAL).exists():  # a model of an earlier version has none
        check_sealed(folder, "take another version of the model (`batchlab champion`), or train it anew")
    check_plain(folder / COLUMNS)
    with refusing(folder / COLUMNS, "list of columns"):
        return TypeAdapter(tuple[PackedColumn, ...]).validate_python([asdict(column) for column in columns_of(folder)])


def sequence_in(folder: Path) -> InSequence | None:
    """Return how rows follow each other for the exported model in the folder, which `columns_in` has looked at; None for one at a time."""
    if not (folder / SEQUENCE).exists():
        return None
    check_plain(folder / SEQUENCE)
    with refusing(folder / SEQUENCE, "description of rows in sequence"):
        found = sequence_of(folder)
        return None if found is None else TypeAdapter(InSequence).validate_python(asdict(found))


def _preparation(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Preparation:
    """Return the preparation of a saved model; raises ValueError for parts that do not go together."""
    held = {name: arrays[name] for name in ARRAYS}
    numbers = {held[name].shape for name in ("places", "mean", "scale", "fill")}
    if (
        len(numbers) > 1
        or any(array.ndim != 1 for array in held.values())
        or {held["places"].dtype.kind, held["flagged"].dtype.kind} != {"i"}
    ):
        raise ValueError(f"its numbers have shapes {sorted(numbers)}")
    categories = [
        Category(str(name), int(place), arrays[f"slots/{name}"], int(width), int(kept)) for name, place, width, kept in facts["categories"]
    ]
    if any(category.slots.ndim != 1 or category.slots.dtype.kind != "i" for category in categories):
        raise ValueError("the slots of a category are no whole numbers")
    return Preparation(
        **held,
        categories=tuple(categories),
        embedded=bool(facts["embedded"]),
        target_mean=float(facts["target_mean"]),
        target_scale=float(facts["target_scale"]),
        log_target=bool(facts.get("log_target", False)),
        names=tuple(map(str, facts["names"])),
    )
