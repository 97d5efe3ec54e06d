"""The split: every row once, the same for the same seed, never dividing a moment."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import BadInput
from batchlab.rows import assigning
from batchlab.rows.split import Split, SplitRule, split, walk_forward
from batchlab.sources.bundled import Bundled
from batchlab.sources.parquet import Parquet
from batchlab.sources.synthetic import Synthetic
from batchlab.table import PackedTable, pack
from batchlab.table.columns import Columns


def prices(rows: int, tables: Path) -> PackedTable:
    return pack(Synthetic(rows=rows), Columns(target="price"), tables)


@given(rows=st.integers(20, 300), seed=st.integers(0, 2**32), kind=st.sampled_from(["random", "chronological"]))
def test_every_row_is_in_exactly_one_part(rows: int, seed: int, kind: str, tables: Path) -> None:
    parts = split(prices(rows, tables), SplitRule(kind=kind), seed)  # type: ignore[arg-type]
    together = np.concatenate([parts.train, parts.validation, parts.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(rows))
    assert abs(len(parts.test) - 0.15 * rows) <= 1


def test_the_split_is_reproducible_and_its_digest_tells_splits_apart(tables: Path) -> None:
    table = prices(100, tables)
    assert split(table, SplitRule(), 3).digest == split(table, SplitRule(), 3).digest
    others = [split(table, SplitRule(), 4), split(table, SplitRule(test=0.2), 3), split(prices(101, tables), SplitRule(), 3)]
    assert len({split(table, SplitRule(), 3).digest, *(other.digest for other in others)}) == 4


def test_a_chronological_split_by_a_column_keeps_time_in_order_and_moments_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    when = rng.integers(0, 30, 200)
    frame = pd.DataFrame(
        {"x": rng.normal(size=200), "y": rng.normal(size=200), "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(when, "D")}
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    table = pack(Parquet(path=tmp_path / "rows.parquet"), Columns(target="y", time="when"), tmp_path / "tables")
    parts = split(table, SplitRule(kind="chronological", validation=0.2, test=0.2), 0)
    assert when[parts.train].max() < when[parts.validation].min()
    assert when[parts.validation].max() < when[parts.test].min()


def test_in_sample_gives_all_rows_to_every_part(tables: Path) -> None:
    parts = split(prices(100, tables), SplitRule(kind="in_sample"), 0)
    assert parts.sizes() == {"train": 100, "validation": 100, "test": 100}


def test_too_few_rows_are_refused_with_the_sizes(tables: Path) -> None:
    with pytest.raises(BadInput, match="5 rows split 3 / 1 / 1 into train / validation / test, but each part needs at least 2 rows"):
        split(prices(5, tables), SplitRule(), 0)
    with pytest.raises(BadInput, match="leave no training rows"):
        split(prices(100, tables), SplitRule(validation=0.6, test=0.4), 0)


def test_a_class_without_training_rows_is_refused_by_name(tables: Path) -> None:
    wine = pack(Bundled(dataset="wine"), Columns(target="target"), tables)  # its rows stand in the order of their class
    with pytest.raises(BadInput, match=r"no row of class '2' \(48 rows in all\)"):
        split(wine, SplitRule(kind="chronological", validation=0.2, test=0.2), 0)


def test_a_saved_split_is_read_back_as_it_was(tables: Path) -> None:
    table = prices(100, tables)
    parts = split(table, SplitRule(), 0)
    read = Split.open(parts.save(table))
    assert read.digest == parts.digest
    np.testing.assert_array_equal(read.validation, parts.validation)


def dated(rows: int, folder: Path, **columns: str) -> PackedTable:
    """A table whose rows are in no order of time, with customers, an order number and two unequal classes."""
    rng = np.random.default_rng(rows)
    frame = pd.DataFrame({"x": rng.normal(size=rows), "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.permutation(rows), "h")})
    frame["customer"] = [f"c{number}" for number in rng.integers(0, max(2, rows // 10), rows)]
    frame["order"] = np.arange(rows) * 7
    frame["label"] = np.where(np.arange(rows) % 10 == 0, "rare", "common")
    frame.to_parquet(folder / "dated.parquet")
    return pack(Parquet(path=folder / "dated.parquet"), Columns(target="label", **columns), folder / "tables")  # type: ignore[arg-type]


def test_a_stratified_split_keeps_the_shares_of_the_classes_in_every_part(tmp_path: Path) -> None:
    table = dated(1000, tmp_path, drop=["customer"])
    parts = split(table, SplitRule(kind="stratified", validation=0.2, test=0.1), 0)
    assert [int((table.target[rows] == 1).sum()) for rows in (parts.train, parts.validation, parts.test)] == [70, 20, 10]
    assert parts.sizes() == {"train": 700, "validation": 200, "test": 100}


def test_a_stratified_split_of_a_number_is_refused(tables: Path) -> None:
    with pytest.raises(BadInput, match="'stratified' needs classes, but the task is regression"):
        split(prices(100, tables), SplitRule(kind="stratified"), 0)


def test_a_group_is_never_divided(tmp_path: Path) -> None:
    table = dated(1000, tmp_path, group="customer")
    parts, groups = split(table, SplitRule(kind="group"), 0), table.side_column("group")
    assert groups is not None
    sides = [set(groups[rows].tolist()) for rows in (parts.train, parts.validation, parts.test)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert 100 <= parts.sizes()["test"] <= 200
    with pytest.raises(BadInput, match="needs a column of groups; name it with --group-column"):
        split(dated(1000, tmp_path, drop=["customer"]), SplitRule(kind="group"), 0)


def test_rows_with_a_key_keep_their_part_when_rows_are_added_and_reordered(tmp_path: Path) -> None:
    def part_of_key(rows: int) -> dict[int, int]:
        table = dated(rows, tmp_path, key="order", drop=["customer"])
        keys = table.side_column("key")
        assert keys is not None
        return dict(zip(keys.tolist(), split(table, SplitRule(), 5).labels.tolist(), strict=True))

    small, large = part_of_key(500), part_of_key(1500)
    assert small.items() <= large.items()
    assert 0.1 < sum(part == assigning.TEST for part in large.values()) / 1500 < 0.2


def test_an_embargo_leaves_out_the_rows_before_each_cut(tmp_path: Path) -> None:
    table = dated(1000, tmp_path, time="when", drop=["customer"])
    parts, when = split(table, SplitRule(kind="chronological", embargo="2 days"), 0), table.side_column("time")
    assert when is not None
    hour = 3_600_000_000
    for earlier, later in ((parts.train, parts.validation), (parts.validation, parts.test)):
        assert when[later].min() - when[earlier].max() == 49 * hour
    assert parts.unused == 96
    with pytest.raises(BadInput, match="'a while' is no duration"):
        split(table, SplitRule(kind="chronological", embargo="a while"), 0)


def test_walk_forward_folds_train_on_the_past_and_test_on_the_next_period(tmp_path: Path) -> None:
    table = dated(1000, tmp_path, time="when", drop=["customer"])
    rule, when = SplitRule(kind="walk_forward", folds=3, validation=0.1, test=0.1), table.side_column("time")
    assert when is not None
    folds = walk_forward(table, rule)
    assert [fold.sizes() for fold in folds] == [{"train": 600 + 100 * number, "validation": 100, "test": 100} for number in range(3)]
    for fold in folds:
        assert when[fold.train].max() < when[fold.validation].min() < when[fold.validation].max() < when[fold.test].min()
    for before, after in pairwise(folds):
        assert when[after.test].min() > when[before.test].max()
    assert split(table, rule, 0).digest == folds[-1].digest
    with pytest.raises(BadInput, match=r"9 folds .* leave no training rows to the first; use at most 8 folds"):
        split(table, SplitRule(kind="walk_forward", folds=9, validation=0.1, test=0.1), 0)


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    place=st.integers(0, 59),
    whole=st.booleans(),
)
def test_the_value_at_a_place_is_that_of_the_sorted_values(values: list[float], place: int, whole: bool) -> None:
    array = np.array(values).view(np.int64) if whole else np.array(values)
    place = min(place, len(values) - 1)
    assert assigning.smallest(array, place) == np.sort(array)[place]


def test_a_split_of_more_rows_than_a_portion_has_its_exact_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigning, "ROWS_AT_ONCE", 64)
    assert np.bincount(assigning.at_random(None, 1000, (0.2, 0.1), 0)).tolist() == [700, 200, 100]
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [700, 200, 100]))
    labels = assigning.at_random(classes, 1000, (0.2, 0.1), 0)
    assert [np.bincount(labels[classes == label]).tolist() for label in range(3)] == [[490, 140, 70], [140, 40, 20], [70, 20, 10]]
    assert not np.array_equal(assigning.at_random(None, 1000, (0.2, 0.1), 0), assigning.at_random(None, 1000, (0.2, 0.1), 1))
