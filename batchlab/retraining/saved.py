"""What a saved model keeps beside its graph, so that it can be trained on and judged on other tables: weights, preparation, lineage."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from batchlab.errors import BadInput
from batchlab.preparation import Category, Preparation
from batchlab.records import Record
from batchlab.retraining.fresh import Mark, Stretch
from batchlab.serving.batchlab_serving import PackedColumn, columns_of

Weights = dict[str, NDArray[np.float64]]
WEIGHTS, LINEAGE, FOLDER = "weights.npz", "lineage.json", "exported"
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
    described = json.loads((folder / LINEAGE).read_text())
    arrays = np.load(folder / WEIGHTS, allow_pickle=False)
    facts = described["preparation"]
    categories = [Category(name, place, arrays[f"slots/{name}"], width, kept) for name, place, width, kept in facts.pop("categories")]
    preparation = Preparation(
        **{name: arrays[name] for name in ARRAYS}, categories=tuple(categories), **{**facts, "names": tuple(facts["names"])}
    )
    weights = {name.removeprefix("weight/"): arrays[name] for name in arrays.files if name.startswith("weight/")}
    return Saved(columns_of(folder), preparation, weights, Lineage.model_validate(described["lineage"]))
