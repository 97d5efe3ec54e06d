"""Where rows come from, and the table they are packed into."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from batchlab.errors import BadInput
from batchlab.sources import located
from batchlab.sources.bundled import Bundled
from batchlab.sources.csv import Csv
from batchlab.sources.parquet import Parquet
from batchlab.sources.synthetic import Synthetic
from batchlab.table import PackedTable, pack
from batchlab.table.columns import Columns


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    made["count"] = rng.integers(0, 1000, 60)
    made["price"] = 2 * made["a"] + rng.normal(size=60)
    return made


def packed_csv(frame: pd.DataFrame, folder: Path, **columns: Any) -> PackedTable:
    frame.to_csv(folder / "rows.csv", index=False)
    return pack(Csv(path=folder / "rows.csv"), Columns(**{"target": "price", **columns}), folder / "tables")  # type: ignore[arg-type]


def test_synthetic_prices_are_the_notebooks_numbers_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.linspace(1, 100, 100).reshape(-1, 1)
    y = 0.5 * x + torch.randn(100, 1) * 10 + 100
    (batch,) = Synthetic(rows=100, seed=0).opened(7, tmp_path).batches(lambda line: None)
    np.testing.assert_array_equal(batch["day"].to_numpy(), x[:, 0].numpy())
    np.testing.assert_array_equal(batch["price"].to_numpy(), y[:, 0].numpy())


@pytest.mark.parametrize(
    ("dataset", "task", "rows", "features"),
    [
        ("diabetes", "regression", 442, 10),
        ("breast_cancer", "binary", 569, 30),
        ("digits", "multiclass", 1797, 64),
        ("wine", "multiclass", 178, 13),
    ],
)
def test_bundled_data_sets_are_packed_with_the_task_their_target_asks_for(
    dataset: str, task: str, rows: int, features: int, tmp_path: Path
) -> None:
    table = pack(Bundled(dataset=dataset), Columns(target="target"), tmp_path)  # type: ignore[arg-type]
    assert (table.schema.target.task, table.features.shape) == (task, (rows, features))


def test_csv_parquet_and_a_folder_of_parquet_pack_to_the_same_table(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    frame.iloc[:25].to_parquet(tmp_path / "folder" / "part-0.parquet")
    frame.iloc[25:].to_parquet(tmp_path / "folder" / "part-1.parquet")
    frame.to_parquet(tmp_path / "rows.parquet")
    expected = frame[["a", "b", "c", "count"]].to_numpy(np.float32)
    tables = [packed_csv(frame, tmp_path)]
    tables += [pack(Parquet(path=tmp_path / name), Columns(target="price"), tmp_path / "tables") for name in ("rows.parquet", "folder")]
    for table in tables:
        np.testing.assert_array_equal(table.features, expected)
        np.testing.assert_allclose(table.target, frame["price"], rtol=1e-15)
        assert [column.integer for column in table.schema.columns] == [False, False, False, True]


def test_a_second_pass_reuses_the_packed_table_and_a_changed_file_never_does(frame: pd.DataFrame, tmp_path: Path) -> None:
    first = packed_csv(frame, tmp_path)
    written = (first.path / "features.npy").stat().st_mtime_ns
    again = packed_csv(frame, tmp_path)
    assert (again.path, (again.path / "features.npy").stat().st_mtime_ns) == (first.path, written)
    frame.loc[0, "a"] += 1e-3
    assert packed_csv(frame, tmp_path).path != first.path
    assert not list((tmp_path / "tables").glob(".packing-*"))


def test_text_targets_become_classes_in_sorted_order(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["price"] = np.where(frame["a"] > 0, "yes", "no")
    table = packed_csv(frame, tmp_path)
    assert (table.schema.target.task, table.schema.target.classes) == ("binary", ("no", "yes"))
    np.testing.assert_array_equal(table.target, (frame["a"] > 0).astype(int))


def test_the_weight_column_and_a_date_to_split_by_are_no_features(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["when"] = pd.date_range("2024-01-01", periods=60)
    frame.to_parquet(tmp_path / "rows.parquet")
    table = pack(Parquet(path=tmp_path / "rows.parquet"), Columns(target="price", time="when", weight="count"), tmp_path / "tables")
    assert table.schema.features == ("a", "b", "c")
    np.testing.assert_array_equal(table.side_column("weight"), frame["count"])


@pytest.mark.parametrize(
    ("values", "choice", "task"),
    [
        ([1.5, 2.5, 3.0] * 20, "auto", "regression"),
        ([0.0, 1.0] * 30, "auto", "binary"),
        ([1, 2, 3] * 20, "auto", "multiclass"),
        ([1, 2, 3] * 20, "regression", "regression"),
        (list(range(60)), "auto", "regression"),
        (["x", "y", "z"] * 20, "auto", "multiclass"),
    ],
)
def test_the_task_is_inferred_from_the_target_and_can_be_forced(
    frame: pd.DataFrame, tmp_path: Path, values: list[object], choice: str, task: str
) -> None:
    frame["price"] = values
    assert packed_csv(frame, tmp_path, task=choice).schema.target.task == task


@pytest.mark.parametrize(
    ("change", "columns", "expected"),
    [
        ({}, {"target": "prize"}, "target column 'prize' does not exist; did you mean 'price'?"),
        ({"price": 5.0}, {}, "target 'price' is constant: all 60 rows hold 5"),
        ({"price": None}, {}, "target 'price' is missing in all 60 rows"),
        ({"city": [f"street {number}" for number in range(60)]}, {}, "'city' (60 different values in 60 rows); leave them out with --drop"),
        ({"a": 1e39}, {}, "column 'a' reaches 1e+39, beyond float32's 3.4e+38"),
        ({}, {"weight": "a"}, "weights must be ≥ 0"),
        ({}, {"task": "binary"}, "task binary needs a target with 2 values, but 'price' has 60"),
        ({"price": ["x", "y"] * 30}, {"task": "regression"}, "target 'price' holds text, which regression cannot use"),
        ({"": 1.0}, {}, "column 1 has no name (an index that pandas wrote?)"),
        ({"price": 1e200}, {"task": "regression"}, "is constant"),
        ({"price": np.arange(60) * 1e200}, {}, "target 'price' reaches 5.9e+201"),
        (
            {"price": [1.5, 2.5, np.inf, np.inf] * 15},
            {},
            "30 of 60 rows (50.0%) cannot be used, more than 5% (checks.largest_quarantined): target 'price' is infinite",
        ),
        ({"price": [*range(5), *[None] * 55]}, {}, "target 'price' is missing in 55 of 60 rows; the 5 left are too few to train"),
        ({"city": "Rome"}, {"time": "city"}, "time column 'city' holds text that is neither numbers nor dates"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(
    frame: pd.DataFrame, tmp_path: Path, change: dict[str, object], columns: dict[str, str], expected: str
) -> None:
    changed = frame.assign(**change)
    with pytest.raises(BadInput) as caught:
        packed_csv(changed[sorted(changed.columns)], tmp_path, **columns)
    assert expected in str(caught.value)
    assert not [*(tmp_path / "tables").glob("*/schema.json"), *(tmp_path / "tables").glob(".packing-*")]


def test_a_truncated_parquet_file_an_empty_folder_and_a_missing_file_are_refused(frame: pd.DataFrame, scratch: Path) -> None:
    frame.to_parquet("whole.parquet")
    whole = Path("whole.parquet").read_bytes()
    Path("half.parquet").write_bytes(whole[: len(whole) // 2])
    Path("empty").mkdir()
    for path, expected in (
        ("half.parquet", "cannot be read as Parquet"),
        ("empty", "holds no"),
        ("gone.parquet", "does not exist"),
    ):
        with pytest.raises(BadInput, match=expected):
            pack(Parquet(path=Path(path)), Columns(target="price"), scratch / "tables")


def test_a_file_of_an_unknown_kind_is_refused(scratch: Path) -> None:
    Path("notes.docx").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=r"notes\.docx"):
        located("notes.docx")


def test_columns_that_are_almost_constant_or_exactly_constant_can_be_packed(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = packed_csv(frame.assign(fixed=3.25), tmp_path)
    assert set(table.features[:, table.schema.features.index("fixed")]) == {3.25}


def test_categoricals_are_read_as_their_values(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["price"] = pd.Categorical(np.where(frame["a"] > 0, "yes", "no"))
    frame["count"] = pd.Categorical(frame["count"])
    frame.to_parquet(tmp_path / "rows.parquet")
    table = pack(Parquet(path=tmp_path / "rows.parquet"), Columns(target="price"), tmp_path / "tables")
    assert table.schema.target.classes == ("no", "yes")
    assert [column.integer for column in table.schema.columns] == [False, False, False, True]


def test_integers_beyond_what_a_float_holds_exactly_are_packed(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["count"] = np.arange(60, dtype=np.uint64) * 10**17 + 2**60
    assert packed_csv(frame, tmp_path).features[:, 3].max() == np.float32(frame["count"].max())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty (0 bytes); a CSV file is expected"),
        (b"a,price\n", "there are no rows"),
        (b"a,price\n1,2\n3\n", "line cannot be cut into columns: 1"),
    ],
)
def test_a_csv_file_that_is_not_what_it_should_be_is_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    source = Csv(path=tmp_path / "rows.csv")

    def peek_and_pack() -> None:
        source.peek()
        pack(source, Columns(target="price"), tmp_path / "tables")

    with pytest.raises(BadInput) as caught:
        peek_and_pack()
    assert expected in str(caught.value)
