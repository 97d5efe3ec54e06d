"""What numbers a packed table can hold: checked over all of its rows."""

from collections.abc import Sequence

import numpy as np

from batchlab.errors import BadInput
from batchlab.serving.batchlab_serving import WHOLE, PackedColumn
from batchlab.table.measuring import Figures

LARGEST_TARGET = 1e100
LEAST_FLOAT32_STEPS = 100
"""A column must vary over at least this many float32 steps, or packing would lose it."""


def check_features(columns: Sequence[PackedColumn], figures: Figures) -> None:
    """Raise BadInput for columns that float32 cannot hold."""
    place = 0
    for column in columns:
        if column.kind == "number":
            _check_resolution(column, figures, place)
        place += len(column.packed_names)


def check_target(name: str, figures: Figures) -> None:
    """Raise BadInput when the target's square, the unit of its loss, would leave the range of numbers."""
    low, high = float(figures.minimum[0]), float(figures.maximum[0])
    if high > low and (max(abs(low), abs(high)) > LARGEST_TARGET or high - low < 1 / LARGEST_TARGET):
        raise BadInput(
            f"target '{name}' reaches {max(abs(low), abs(high)):.3g} and spans {high - low:.3g}, "
            "whose squares cannot be computed with; change its unit."
        )


def check_weights(name: str, figures: Figures) -> None:
    """Raise BadInput for weights below 0, or of which none is above."""
    if figures.rows and (figures.minimum[0] < 0 or figures.maximum[0] == 0):
        raise BadInput(
            f"weight column '{name}' ranges from {figures.minimum[0]:g} to {figures.maximum[0]:g}; weights must be ≥ 0, some > 0."
        )


def _check_resolution(column: PackedColumn, figures: Figures, place: int) -> None:
    """Raise BadInput when float32 could not tell the column's values apart."""
    low, high = float(figures.minimum[place]), float(figures.maximum[place])
    largest, spread = max(abs(low), abs(high)), float(figures.spread[place])
    if not np.isfinite(largest):
        return
    if largest > float(np.finfo(np.float32).max):
        raise BadInput(
            f"column '{column.name}' reaches {largest:.3g}, beyond float32's {np.finfo(np.float32).max:.3g}; "
            "rescale it, or take its logarithm."
        )
    step = float(np.spacing(np.float32(max(abs(low - column.offset), abs(high - column.offset)))))
    if column.integer and largest >= WHOLE and spread < LEAST_FLOAT32_STEPS * np.spacing(largest):
        raise BadInput(
            f"column '{column.name}' holds whole numbers like {largest:.6g}, of which only multiples of {np.spacing(largest):g} can be "
            "told apart; if they are names of something, --drop it or take it as --categorical, else subtract their least first."
        )
    if 0 < spread < LEAST_FLOAT32_STEPS * step:
        raise BadInput(
            f"column '{column.name}' varies by {spread:.3g} around {figures.mean[place]:.6g}, where float32 steps are {step:.3g}; "
            f"subtract {figures.mean[place]:.6g} from it first, or remove what lies far out."
        )
