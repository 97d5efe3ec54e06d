"""The simulated year's rows: weekly files of a shop's demand, of which everything is known, also what no model can know."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
BEGIN, ROWS, WEEKS = datetime(2025, 1, 6, tzinfo=UTC), 600, 52
DRIFT = 26
"""From this week on rows come from elsewhere, and mean something else."""
NOISE = 3.0
"""The standard deviation of what nothing explains: no model's expected loss is below its square."""
TRUE_ROWS = 20_000
"""On so many fresh rows the expected loss of a version is measured."""
TARGET, TIME = "demand", "time"
REGIONS = ("north", "south", "east")
SCHEMA, REPAIRED, NOISY, MIXED = 13, 14, 18, 40
EVENTS = {
    8: "no file arrives",
    SCHEMA: "the file lacks the column 'price'",
    REPAIRED: f"the file of week {SCHEMA} is repaired",
    NOISY: "a broken counter: the target's noise is two and a half times as large",
    DRIFT: "inputs and their relation to the target change",
    MIXED: "a wrong join mixes up the file's targets",
    MIXED + 1: f"the file of week {MIXED} is repaired",
}


@dataclass(frozen=True)
class World:
    """How rows come about: means of the inputs, shares of the regions, and what each is worth."""

    visitors: float
    price: float
    shares: tuple[float, float, float]
    of_visitors: float
    of_price: float
    of_region: tuple[float, float, float]


BEFORE = World(20, 10, (0.5, 0.3, 0.2), of_visitors=1.2, of_price=-2.0, of_region=(0, 4, -3))
AFTER = World(24, 11, (0.3, 0.3, 0.4), of_visitors=0.8, of_price=-3.0, of_region=(0, 2, 1))


def world(week: int) -> World:
    """Return how rows come about in a week, from 1."""
    return BEFORE if week < DRIFT else AFTER


def monday(week: int) -> datetime:
    """Return when a week begins."""
    return BEGIN + timedelta(weeks=week - 1)


def drawn(week: int, rows: int = ROWS, seed: int = 0) -> tuple[pd.DataFrame, Numbers]:
    """Return rows of a week in the order of time, and the target without noise `[rows]`."""
    rng, of = np.random.default_rng((seed, week)), world(week)
    region = rng.choice(len(REGIONS), rows, p=of.shares)
    visitors, price, rain = of.visitors + 5 * rng.normal(size=rows), of.price + 2 * rng.normal(size=rows), rng.gamma(1.5, 2.0, rows)
    truth = 60 + of.of_visitors * (visitors - 20) + of.of_price * (price - 10) - 0.5 * rain + np.asarray(of.of_region)[region]
    columns = {
        TIME: pd.date_range(monday(week), monday(week + 1), rows + 1)[:-1].tz_localize(None).as_unit("us"),
        "visitors": visitors,
        "price": price,
        "rain": rain,
        "region": np.asarray(REGIONS)[region],
        TARGET: truth + NOISE * rng.normal(size=rows),
    }
    return pd.DataFrame(columns), truth


def arrive(folder: Path, week: int) -> None:
    """Write what arrives in a week; some weeks something is wrong with it, or an earlier file is repaired."""
    if week == 8:
        return
    rows, truth = drawn(week)
    if week == SCHEMA:
        rows = rows.drop(columns="price")
    if week == NOISY:
        rows = rows.assign(**{TARGET: truth + 2.5 * (rows[TARGET] - truth)})
    if week == MIXED:
        rows = rows.assign(**{TARGET: np.random.default_rng(1).permutation(rows[TARGET])})
    for wrong in (SCHEMA, MIXED):
        if week == wrong + 1:
            _write(folder, wrong, drawn(wrong)[0])
    _write(folder, week, rows)


def _write(folder: Path, week: int, rows: pd.DataFrame) -> None:
    rows.to_parquet(folder / f"week-{week:02d}.parquet", index=False)


def lowest_loss(folder: Path, holdout_rows: int) -> float:
    """Return the mean squared loss of the true function on the latest so many rows that are in the folder."""
    weeks: Iterable[int] = (int(path.stem.removeprefix("week-")) for path in sorted(folder.glob("*.parquet"))[-3:])
    errors = []
    for week in weeks:
        held = pd.read_parquet(folder / f"week-{week:02d}.parquet")[TARGET].to_numpy()
        errors.append((held - drawn(week)[1]) ** 2)
    return float(np.concatenate(errors)[-holdout_rows:].mean())
