"""The split: every row once, the same for the same seed, never dividing a moment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.columns import Columns
from batchlab.errors import BadInput
from batchlab.experiment import open_split, save_split
from batchlab.packing import PackedTable, pack
from batchlab.sources.bundled import Bundled
from batchlab.sources.parquet import Parquet
from batchlab.sources.synthetic import Synthetic
from batchlab.split import SplitRule, split


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
    parts = split(table, SplitRule(kind="chronological", column="when", validation=0.2, test=0.2), 0)
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
    read = open_split(save_split(parts, table))
    assert read.digest == parts.digest
    np.testing.assert_array_equal(read.validation, parts.validation)
