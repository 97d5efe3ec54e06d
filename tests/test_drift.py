"""Drift: what stays the same raises no alarm, however many the columns and few the rows; what changes is found and named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchlab.errors import BadInput
from batchlab.retraining.drift import ColumnDrift, Drift, drift
from batchlab.retraining.shifts import psi, shift_of_codes, shift_of_numbers
from batchlab.rules.retraining import DriftRule
from batchlab.sources.parquet import Parquet
from batchlab.table import PackedTable, pack
from batchlab.table.columns import Columns

RULE = DriftRule()
OLD, FRESH = 4_000, 500
Change = Callable[[pd.DataFrame], None]


def houses(rows: int, seed: int) -> pd.DataFrame:
    """Rows with every kind of column, gaps, a counter, a constant and a flag that stands still."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": rng.normal(50, 20, rows), "rooms": rng.integers(1, 9, rows), "garden": rng.random(rows) < 0.3})
    frame["city"] = rng.choice(["Rome", "Oslo", "Bern", "Lima"], rows, p=[0.5, 0.3, 0.15, 0.05])
    frame["shop"] = [f"shop {number}" for number in rng.zipf(1.5, rows) % 500]
    frame["version"], frame["fixed"] = 1, 2.5
    frame["price"] = 3 * frame["size"] + rng.normal(0, 5, rows)
    for column, share in (("size", 0.1), ("city", 0.08)):
        frame.loc[rng.random(rows) < share, column] = None
    return frame


def packed(frame: pd.DataFrame, folder: Path, target: str = "price", time: str | None = None) -> PackedTable:
    frame.to_parquet(folder / "rows.parquet", index=False)
    return pack(Parquet(path=folder / "rows.parquet"), Columns(target=target, time=time), folder / "tables")


def found(folder: Path, change: Change = lambda fresh: None, fresh_rows: int = FRESH, seed: int = 1) -> Drift:
    """What is found when `change` befalls the fresh rows."""
    fresh = houses(fresh_rows, seed)
    change(fresh)
    frame = pd.concat([houses(OLD, 0), fresh], ignore_index=True)
    frame["number"], frame["day"] = np.arange(len(frame)), pd.date_range("2024-01-01", periods=len(frame), freq="h")
    return drift(packed(frame, folder), np.arange(OLD), np.arange(OLD, len(frame)), RULE)


def names(result: Drift) -> list[str]:
    return [item.name for item in result.worst]


def column(result: Drift, name: str) -> ColumnDrift:
    return next(item for item in result.columns if item.name == name)


@pytest.mark.parametrize("fresh_rows", [3, 20, 60, 500, 3_000])
def test_the_same_distribution_raises_no_alarm(fresh_rows: int, tmp_path: Path) -> None:
    result = found(tmp_path, fresh_rows=fresh_rows)
    assert not result.drifted, result.text
    assert result.text.startswith("No drift between 4,000 old and")


def test_many_columns_raise_no_alarm_and_hide_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3_000, 300))
    values[2_500:, 17] += 1.0
    frame = pd.DataFrame(values, columns=[f"x{place}" for place in range(300)]).assign(price=rng.standard_normal(3_000))
    result = drift(packed(frame, tmp_path), np.arange(2_500), np.arange(2_500, 3_000), RULE)
    assert names(result) == ["x17"]
    assert sum(item.p_value < 0.05 for item in result.columns) <= 5  # after correction; 15 would be without
    assert "1 of 301 columns drifted between 2,500 old and 500 fresh rows: 'x17' (PSI" in result.text


def test_false_alarms_are_rarer_than_alpha_says() -> None:
    alarms, small = 0, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        shifts = [
            shift_of_numbers(rng.exponential(size=600), rng.exponential(size=60)),
            shift_of_codes(rng.integers(0, 6, 600).astype(float), rng.integers(0, 6, 60).astype(float), list("abcdef")),
        ]
        alarms += sum(shift.p_value < 0.05 for shift in shifts)
        small += [shift.psi for shift in shifts]
    assert alarms <= 60  # of 800, of which 5% are 40
    assert np.mean(small) < 0.1  # 9 × (1/600 + 1/60) = 0.165 of the numbers before chance is taken off
    assert np.mean(np.array(small) >= RULE.largest_psi) < 0.05


def _shifted(fresh: pd.DataFrame) -> None:
    fresh["size"] += 20


def _spread(fresh: pd.DataFrame) -> None:
    fresh["size"] = 50 + 3 * (fresh["size"] - 50)


def _mixed(fresh: pd.DataFrame) -> None:
    fresh.loc[fresh.index % 2 == 0, "city"] = "Lima"


def _new_value(fresh: pd.DataFrame) -> None:
    fresh.loc[fresh["city"] == "Rome", "city"] = "ROME"


def _gone(fresh: pd.DataFrame) -> None:
    fresh.loc[fresh.index % 3 == 0, "rooms"] = None


def _all_gone(fresh: pd.DataFrame) -> None:
    fresh["size"] = None


def _flagged(fresh: pd.DataFrame) -> None:
    fresh["version"] = 2


def _moved(fresh: pd.DataFrame) -> None:
    fresh["fixed"] = 2.0


def _gardens(fresh: pd.DataFrame) -> None:
    fresh["garden"] = fresh.index % 4 > 0


def _dearer(fresh: pd.DataFrame) -> None:
    fresh["price"] *= 1.5


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (_shifted, "size", "→ 69.85"),
        (_spread, "size", "median"),
        (_mixed, "city", "'Lima' 4."),
        (_new_value, "city", "'ROME' 0.0% → 4"),
        (_gone, "rooms", "missing 0.0% → 33.4%"),
        (_all_gone, "size", "→ 100.0%"),
        (_flagged, "version", "median 1 (1 to 1) → 2 (2 to 2)"),
        (_moved, "fixed", "median 2.5 (2.5 to 2.5) → 2 (2 to 2)"),
        (_gardens, "garden", "'true' 30"),
        (_dearer, "price", "median"),
    ],
)
def test_a_change_is_found_and_named(change: Change, name: str, words: str, tmp_path: Path) -> None:
    result = found(tmp_path, change)
    assert names(result) == [name]
    assert words in result.worst[0].change
    assert f"'{name}' (PSI {result.worst[0].psi:.2f}; {result.worst[0].change})" in result.text


def test_a_change_is_found_in_few_rows(tmp_path: Path) -> None:
    assert names(found(tmp_path, _shifted, fresh_rows=60)) == ["size"]


def test_a_significant_trifle_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    shift = shift_of_numbers(rng.normal(0, 1, 50_000), rng.normal(0.1, 1, 50_000))
    assert shift.p_value < 1e-9
    assert shift.psi < 0.02


def test_what_always_moves_on_is_not_tested(tmp_path: Path) -> None:
    result = found(tmp_path)
    assert column(result, "day").untested == "dates always move on"
    assert column(result, "number").untested == "it never falls from row to row, as counters do"
    frame = houses(1_000, 0).assign(second=np.linspace(0, 1e9, 1_000))
    (tmp_path / "timed").mkdir()
    timed = drift(packed(frame, tmp_path / "timed", time="second"), np.arange(500), np.arange(500, 1_000), RULE, time_column="second")
    assert column(timed, "second").untested == "time always moves on"
    assert not timed.drifted
    assert column(timed, "size").untested is None


def test_predictions_and_classes_are_looked_at(tmp_path: Path) -> None:
    frame = houses(1_700, 0).dropna(subset="city").head(1_500)
    table = packed(frame, tmp_path, target="city")
    rows, rng = (np.arange(1_000), np.arange(1_000, 1_500)), np.random.default_rng(0)
    same, other = rng.dirichlet(np.ones(4), 1_000), rng.dirichlet([9, 1, 1, 1], 500)
    result = drift(table, *rows, RULE, (same, rng.dirichlet(np.ones(4), 500)))
    assert not result.drifted
    assert (result.target.kind, result.target.name) == ("category", "city")
    for before, now in ((same, other), (same[:, :2], same[:500, :2] / 2), (same[:, 0], same[:500, 0] + 1), (same[:, :1], other[:, :1])):
        changed = drift(table, *rows, RULE, (before, now))
        assert names(changed) == ["predictions"]
        assert "the predictions (PSI" in changed.text
    assert Drift.model_validate_json(changed.model_dump_json()) == changed


def test_a_sample_decides_of_many_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.random.default_rng(0).standard_normal(9_000)}).assign(price=np.arange(9_000) % 7 * 1.5)
    frame.loc[6_000:, "x"] += 2
    result = drift(packed(frame, tmp_path), np.arange(6_000), np.arange(6_000, 9_000), DriftRule(most_rows=1_000))
    assert (result.reference_rows, result.fresh_rows) == (1_000, 1_000)
    assert names(result) == ["x"]


def test_a_side_without_rows_is_an_error(tmp_path: Path) -> None:
    table = packed(houses(50, 0), tmp_path)
    with pytest.raises(BadInput, match="50 old and 0 fresh"):
        drift(table, np.arange(50), np.arange(0), RULE)


def test_the_stability_index_is_the_textbooks_less_what_chance_adds() -> None:
    before, now = np.array([500_000, 300_000, 200_000]), np.array([400_000, 300_000, 300_000])
    assert psi(before, now) == pytest.approx(0.1 * np.log(5 / 4) + 0.1 * np.log(3 / 2), abs=1e-4)
    assert psi(before, before) == 0
    assert psi(np.array([10, 0]), np.array([0, 10])) > 2
