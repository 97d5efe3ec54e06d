"""The throughput knee: the batch size beyond which larger batches hardly train more rows a second."""

import math
from collections.abc import Sequence

import numpy as np

KNEE_SHARE = 0.8


def throughput_knee(batch_rows: Sequence[float], seconds_per_step: Sequence[float]) -> float | None:
    """Return the smallest batch size, in rows, that trains at 80% of the best rows a second; interpolated in logarithms between those
    tried. None for fewer than two."""
    if len(batch_rows) < 2:
        return None
    order = np.argsort(batch_rows)
    sizes, seconds = np.asarray(batch_rows, np.float64)[order], np.asarray(seconds_per_step, np.float64)[order]
    speed = np.log(sizes / seconds)
    enough = speed.max() + math.log(KNEE_SHARE)
    place = int(np.argmax(speed >= enough))
    if place == 0:
        return float(sizes[0])
    share = (enough - speed[place - 1]) / (speed[place] - speed[place - 1])
    return float(np.exp(np.log(sizes[place - 1]) + share * np.log(sizes[place] / sizes[place - 1])))
