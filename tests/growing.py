"""A data set that grows in a folder, for tests of retraining: rows an hour, of which the target follows by a slope that may change."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.conftest import SMALL

OVERRIDES = ['columns.time="day"', "train.epochs=10", "train.learning_rate=0.05", "strategies.mini_batch.batch_rows=32", *SMALL]
"""Settings under which a comparison and a retraining take seconds. The rate is one at which every strategy trains steadily, also after the
values have moved: what becomes of a champion must not hang on which of the highest rates a comparison finds."""


@dataclass
class Growing:
    """A folder of Parquet files; each call adds one that begins where the last one ended."""

    folder: Path
    hours: int = 0
    files: int = 0

    def grow(self, rows: int, slope: float, shift: float = 0.0, spoiled: float = 0.0) -> Path:
        """Add rows whose target follows x by `slope`; x is moved by `shift`, and the targets of the first `spoiled` share are mixed up."""
        frame = sample(rows, seed=self.files, slope=slope, shift=shift)
        frame.insert(0, "day", pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(self.hours, self.hours + rows), unit="h"))
        order = np.arange(rows)
        np.random.default_rng(9).shuffle(order[: int(spoiled * rows)])
        frame["y"] = frame["y"].to_numpy()[order]
        self.hours += rows
        return self.add(frame)

    def add(self, frame: pd.DataFrame) -> Path:
        """Add a file as it is, whole at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files += 1
        draft, path = self.folder / f".{self.files:04}.part", self.folder / f"{self.files:04}.parquet"
        frame.to_parquet(draft)
        draft.rename(path)
        return path


def sample(rows: int, seed: int, slope: float, shift: float = 0.0) -> pd.DataFrame:
    """Rows with a number, a category and the target."""
    rng = np.random.default_rng(seed)
    x, place = rng.normal(shift, 1, rows), rng.choice(["north", "south"], rows)
    return pd.DataFrame({"x": x, "place": place, "y": slope * x + 3.0 * (place == "north") + rng.normal(size=rows)})
