"""Tables as people hold them: what their types, signs, codes and indexes mean is taken or refused in words, in packing and in serving."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc
from scipy.sparse import csr_matrix
from sklearn.metrics import r2_score

import batchlab
from batchlab.analysis.tails import heavy_tail
from batchlab.config import load_profile
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.intake.held import Held, taken
from batchlab.notebook import _by_time, _split_is_asked
from batchlab.retraining.dividing import retraining_split
from batchlab.rows.split import split
from batchlab.scoring.shipping import export, predicted
from batchlab.search.remarks import against_constant
from batchlab.search.yardsticks import Fitting
from batchlab.serving.batchlab_serving import UnusableRows, _load_pyfunc, frame_packed
from batchlab.sources.arrow import Arrow
from batchlab.sources.csv import Csv
from batchlab.sources.parquet import Parquet
from batchlab.table import PackedTable, pack
from batchlab.table.columns import CheckRule, Columns
from flows.options import column_overrides
from tests.conftest import SMALL
from tests.test_own_modules import LITTLE
from tests.test_search import decided

ROWS = 120
FEW: dict[str, Any] = {"strategies": ["full_batch", "mini_batch"], "progress": False}
FEW["overrides"] = [*SMALL, "train.epochs=10", "search.batch_rows=[8,32]"]


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(size=ROWS), "b": rng.normal(size=ROWS)})
    return made.assign(y=3 * made.a + made.b + rng.normal(size=ROWS))


def packed(frame: pd.DataFrame, folder: Path, csv: bool = False, rule: CheckRule | None = None, **columns: Any) -> PackedTable:
    """Pack a frame by way of the file that a person would write."""
    chosen = Columns(**{"target": "y", **columns})
    if csv:
        frame.to_csv(folder / "rows.csv", index=False)
        return pack(Csv(path=folder / "rows.csv"), chosen, folder / "tables", rule=rule or CheckRule())
    frame.to_parquet(folder / "rows.parquet", index=False)
    return pack(Parquet(path=folder / "rows.parquet"), chosen, folder / "tables", rule=rule or CheckRule())


def feature(table: PackedTable, name: str) -> np.ndarray[Any, Any]:
    """One packed column `[rows]`, its offset added again."""
    offsets = {own: column.offset for column in table.schema.columns for own in column.packed_names}
    return np.asarray(table.features[:, table.schema.packed_names.index(name)], np.float64) + offsets[name]


DURATIONS = pd.to_timedelta(np.arange(ROWS) * 1.5, unit="h")


def test_durations_are_seconds_in_packing_and_serving_whatever_their_unit(frame: pd.DataFrame, tmp_path: Path) -> None:
    for unit in ("ns", "us", "ms", "s"):
        (tmp_path / unit).mkdir()
        given = frame.assign(waited=pd.Series(DURATIONS).where(frame.index != 7).to_numpy().astype(f"timedelta64[{unit}]"))
        table = packed(given, tmp_path / unit)
        expected = np.where(np.arange(ROWS) == 7, np.nan, DURATIONS.total_seconds())
        np.testing.assert_allclose(feature(table, "waited"), expected, atol=0.5)
        np.testing.assert_array_equal(frame_packed(given, table.schema.columns), table.features)


def test_a_duration_can_be_the_target_the_time_and_the_group(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = packed(frame.assign(waited=DURATIONS, y=DURATIONS * 2), tmp_path, time="waited")
    np.testing.assert_array_equal(table.target, DURATIONS.total_seconds() * 2)
    np.testing.assert_array_equal(table.side_column("time"), DURATIONS.total_seconds())
    (tmp_path / "grouped").mkdir()
    grouped = packed(frame.assign(waited=pd.to_timedelta(np.arange(ROWS) % 5, unit="D")), tmp_path / "grouped", group="waited")
    assert len(set(np.asarray(grouped.side_column("group")))) == 5


@pytest.mark.parametrize(("freq", "clock"), [("M", False), ("D", False), ("W", False), ("Q", False), ("h", True)])
def test_periods_are_the_dates_on_which_they_begin(frame: pd.DataFrame, tmp_path: Path, freq: str, clock: bool) -> None:
    periods = pd.Series(pd.period_range("2000-01-01", periods=ROWS, freq=freq)).where(frame.index != 3)
    given = frame.assign(month=periods)
    table = packed(given, tmp_path)
    expected = periods.dt.to_timestamp().to_numpy().astype("datetime64[us]").astype(np.float64) / 86_400e6
    np.testing.assert_allclose(feature(table, "month.days"), np.where(np.arange(ROWS) == 3, np.nan, expected), rtol=1e-6)
    assert ("month.day_sin" in table.schema.packed_names) == clock
    np.testing.assert_array_equal(frame_packed(given, table.schema.columns), table.features)


def test_periods_of_a_file_are_dates_too_where_pandas_was_not_imported_and_in_arrow_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = frame.assign(month=pd.period_range("2000-01", periods=ROWS, freq="M"))
    given.to_parquet(tmp_path / "rows.parquet", index=False)
    code = (
        "from batchlab.sources.parquet import Parquet; import sys; from pathlib import Path\n"
        "assert 'pandas' not in sys.modules\n"
        f"print(Parquet(path=Path({str(tmp_path / 'rows.parquet')!r})).peek().field('month').type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "date32[day]"
    held = pa.Table.from_pandas(given, preserve_index=False)
    with ipc.new_file(tmp_path / "rows.arrow", held.schema) as file:
        file.write_table(held)
    table = pack(Arrow(path=tmp_path / "rows.arrow"), Columns(target="y"), tmp_path / "tables")
    assert feature(table, "month.days")[12] == 11_323  # 2001-01-01


DAYS = pd.date_range("2020-01-01", periods=ROWS)


def names(held: Held) -> list[str]:
    return [name for name, _ in held.columns]


@pytest.mark.parametrize(
    ("index", "columns", "time", "note"),
    [
        (pd.RangeIndex(ROWS), ["a", "b", "y"], None, None),
        (pd.RangeIndex(ROWS, name="row"), ["a", "b", "y"], None, "index 'row' only numbers the rows"),
        (pd.Index(np.arange(ROWS)[::-1].copy()), ["a", "b", "y"], None, None),
        (DAYS, ["index", "a", "b", "y"], "index", None),
        (DAYS.rename("day").tz_localize("UTC"), ["day", "a", "b", "y"], "day", None),
        (DAYS.rename("b"), ["b (index)", "a", "b", "y"], "b (index)", None),
        (pd.period_range("2000-01", periods=ROWS, freq="M", name="month"), ["month", "a", "b", "y"], "month", None),
        (pd.Index([day.date() for day in DAYS], name="day"), ["day", "a", "b", "y"], "day", None),
        (pd.Index(np.arange(1900, 1900 + ROWS), name="year"), ["year", "a", "b", "y"], None, "index 'year' is taken as a column"),
        (pd.Index(np.arange(ROWS), name="id"), ["a", "b", "y"], None, "index 'id' only numbers the rows"),
        (pd.Index(1 + np.arange(ROWS)[::-1], name="id"), ["a", "b", "y"], None, "index 'id' only numbers the rows"),
        (pd.Index(["x", "y"] * (ROWS // 2), name="kind"), ["kind", "a", "b", "y"], None, "index 'kind' is taken as a column"),
        (pd.Index([f"w{row}" for row in range(ROWS)], name="id"), ["a", "b", "y"], None, "index 'id' only names the rows"),
        (pd.Index(DAYS.strftime("%Y-%m-%d")), ["index", "a", "b", "y"], "index", None),
        (pd.Index(DAYS.strftime("%d.%m.%Y"), name="day"), ["day", "a", "b", "y"], "day", None),
        (pd.Index([f"w{row}" for row in range(ROWS)]), ["a", "b", "y"], None, None),
        (pd.MultiIndex.from_arrays([["x"] * ROWS, DAYS], names=["shop", "day"]), ["shop", "day", "a", "b", "y"], "day", "index 'shop'"),
    ],
)
def test_an_index_that_holds_something_is_a_column_and_dates_order_the_rows(
    frame: pd.DataFrame, index: pd.Index, columns: list[str], time: str | None, note: str | None
) -> None:
    held = taken(frame.set_index(index), "y")
    assert (names(held), held.time) == (columns, time)
    assert held.notes == [] if note is None else note in held.notes[0]


def test_an_index_that_is_a_column_too_is_taken_once(frame: pd.DataFrame) -> None:
    held = taken(frame.assign(day=DAYS).set_index("day", drop=False), "y")
    assert (names(held), held.time, held.notes) == (["a", "b", "y", "day"], "day", [])


def test_rows_are_split_by_the_time_of_the_index_unless_somebody_chose_otherwise(frame: pd.DataFrame, tmp_path: Path) -> None:
    held = taken(frame.set_index(DAYS.rename("day")), "y")

    def chosen(*overrides: str, profile: str = "quick") -> tuple[list[str], list[str]]:
        settings = load_profile(profile, data="rows.parquet", target="y", overrides=overrides)
        return _by_time(held, settings, _split_is_asked(settings, profile, overrides))

    settings, (note,) = chosen()
    assert settings == ['columns.time="day"', "split.kind=chronological"]
    assert "split by time (chronological)" in note
    assert "overrides=['split.kind=random']" in note
    settings, (note,) = chosen("split.kind=random")
    assert (settings, note.endswith("the split is random, as asked for")) == (['columns.time="day"'], True)
    assert chosen("columns.time=a") == chosen('columns.drop=["day"]') == ([], [])
    (tmp_path / "own.toml").write_text('[split]\nkind = "random"\n[strategies.full_batch]\n')
    assert chosen(profile=str(tmp_path / "own.toml"))[0] == ['columns.time="day"']


def test_a_comparison_of_a_frame_of_dates_tests_on_the_latest_and_says_so(frame: pd.DataFrame) -> None:
    shuffled = frame.set_index(DAYS.rename("day")).sample(frac=1, random_state=0)
    found = batchlab.compare(shuffled, "y", strategies=["mini_batch"], **LITTLE)
    times, parts = shuffled.index, found.search.experiment.split
    assert times[parts.test].min() > times[parts.validation].max() > times[parts.train].max()
    assert "split by time (chronological)" in found.verdict.notes[0]
    assert "split by time (chronological)" in found.page()
    assert "split by time (chronological)" in found._repr_html_()


class Speaking:
    """A table of another library: all that is known of it is that it speaks Arrow's protocol."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class Polars(Speaking):
    """As polars does it: with `to_arrow`, and views where its stream has text."""

    __arrow_c_stream__ = None  # type: ignore[assignment]

    def to_arrow(self) -> pa.Table:
        return self.table


@pytest.mark.parametrize("kind", ["table", "batch", "reader", "stream", "to_arrow"])
def test_arrow_tables_and_what_speaks_arrow_are_taken(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    words = pa.array(["x", "z"] * (ROWS // 2), pa.string_view())
    waited = pa.array(DURATIONS.to_numpy().astype("timedelta64[us]"))
    table = pa.table({"a": frame.a, "kind": words, "waited": waited, "many": words.dictionary_encode(), "y": frame.y})
    given = {
        "table": table,
        "batch": table.to_batches()[0],
        "reader": table.to_reader(),
        "stream": Speaking(table),
        "to_arrow": Polars(table),
    }[kind]
    held = taken(given, "y")
    held.write(tmp_path / "rows.parquet", ())
    packed_table = pack(Parquet(path=tmp_path / "rows.parquet"), Columns(target="y"), tmp_path / "tables")
    kinds = {column.name: column.kind for column in packed_table.schema.columns}
    assert kinds == {"a": "number", "kind": "category", "waited": "number", "many": "category"}
    np.testing.assert_array_equal(packed_table.target, frame.y)


def test_arrays_are_taken_as_x_and_y(frame: pd.DataFrame) -> None:
    features, target = frame[["a", "b"]], frame.y
    assert names(taken(features.to_numpy(), target.to_numpy())) == ["x0", "x1", "y"]
    assert names(taken(features.to_numpy().tolist(), target.tolist())) == ["x0", "x1", "y"]
    assert names(taken(features, target)) == ["a", "b", "y"]
    assert names(taken(features, target.to_numpy()[:, None])) == ["a", "b", "y"]
    assert names(taken(features.rename(columns={"b": "y"}), target.to_numpy())) == ["a", "y", "target"]
    assert names(taken(pa.Table.from_pandas(features), pa.array(target))) == ["a", "b", "y"]
    held = taken(features.to_numpy(), np.where(target > 0, "up", "down"))
    assert held.target == "y"
    assert held.columns[-1][1].to_pylist() == np.where(target > 0, "up", "down").tolist()
    found = batchlab.compare(features.to_numpy(), target.to_numpy(), strategies=["mini_batch"], **LITTLE)
    assert found.search.experiment.table.schema.features == ("x0", "x1")


class Point:
    """Something that is no value of a table."""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"c": [1, "two", 3.5] * (ROWS // 3)},
            ["column 'c' holds values of several types (40 int, 40 str, 40 float)", "to_numeric(frame['c']"],
        ),
        ({"c": np.ones(ROWS) * 1j}, ["column 'c' holds complex numbers (120 complex); give their real and imaginary parts"]),
        ({"c": [Point()] * ROWS}, ["column 'c' holds what is neither number, text, boolean nor date (120 Point"]),
        ({"c": [1, "x"] * (ROWS // 2), "d": np.ones(ROWS) * 1j}, ["column 'c' holds values", "column 'd' holds complex"]),
    ],
)
def test_columns_that_arrow_cannot_take_are_named_with_what_they_hold(
    frame: pd.DataFrame, tmp_path: Path, change: dict[str, Any], expected: list[str]
) -> None:
    held = taken(frame.assign(**change), "y")
    with pytest.raises(BadInput) as caught:
        held.write(tmp_path / "rows.parquet", ())
    assert all(words in str(caught.value) for words in expected)
    held.write(tmp_path / "rows.parquet", tuple(change))  # dropped columns do no harm
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == ROWS


def test_an_arrow_type_that_no_file_takes_is_named(tmp_path: Path) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(BadInput, match=r"column 'u' holds sparse_union.*, which no table file takes; drop it"):
        taken(pa.table({"u": union, "y": [1, 2]}), "y").write(tmp_path / "rows.parquet", ())


@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [
        (3, "y", "takes a pandas DataFrame, a polars or Arrow table, arrays X [rows, …] and y [rows], or a data set, not int"),
        (np.ones((3, 2)), "y", "an array has no column names, so target must be the values to predict"),
        (pd.DataFrame({"a": [1, 2]}), None, "target is missing: name the column to predict"),
        (np.ones(3), np.ones(3), "X has the shape (3,), but must be [rows, …]: X.reshape(-1, 1)"),
        (np.ones((3, 200, 200)), np.ones(3), "a row of X has 40,000 numbers (200, 200); at most 16,384 can be columns of a table"),
        (np.ones((3, 2)), np.ones(4), "X has 3 rows but y has 4"),
        (np.ones((3, 2)), np.ones((3, 2)), "y has the shape (3, 2), but must be [rows]"),
        (pd.DataFrame({"a": [1, 2]}), pd.Series([1, 2], [1, 2]), "X and y have different indexes"),
        (pd.DataFrame({"a": [1, 2]}), pd.Series([1, 2], name="a"), "y is named 'a', and so is a column of X"),
        (csr_matrix(np.eye(3)), np.ones(3), "make the sparse matrix a plain one: X.toarray()"),
    ],
)
def test_what_is_no_table_or_does_not_go_together_is_refused(given: Any, target: Any, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        taken(given, target)
    assert expected in str(caught.value)


@pytest.mark.parametrize("csv", [False, True])
def test_rows_without_a_target_are_left_out_with_their_number_and_are_no_bad_rows(frame: pd.DataFrame, tmp_path: Path, csv: bool) -> None:
    given = frame.assign(y=frame.y.where(frame.index % 2 == 0))
    table = packed(given, tmp_path, csv)
    assert (table.schema.rows, table.schema.unlabelled, table.schema.quarantined, table.schema.source_rows) == (60, 60, {}, 120)
    np.testing.assert_allclose(table.target, given.y.dropna())
    assert table.quarantine is None
    (note,) = table.schema.notes
    assert note == (
        "target 'y' is missing in 60 of 120 rows (50.0%), which are left out; only 60 rows are left to train, validate and test on"
    )


def test_bad_rows_are_a_share_of_those_that_have_a_target(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = frame.assign(y=frame.y.where(frame.index >= 100).where(frame.index < 118, np.inf))
    with pytest.raises(BadInput, match=r"2 of 20 rows \(10\.0%\) cannot be used"):
        packed(given, tmp_path)


def test_rows_that_cannot_be_used_are_counted_in_the_notes_and_where_they_are_is_said_where_that_stays(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    table = packed(frame.assign(y=frame.y.where(frame.index > 0, np.inf)), tmp_path)
    (said,) = table.notes(with_place=False)
    assert said == "1 of 120 rows cannot be used (target 'y' is infinite: 1)"
    assert table.notes() == [f"{said}; they are in {table.quarantine}"]


def test_a_class_whose_name_means_missing_is_named_in_the_note(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = frame.assign(y=["mild", "severe", "none", ""] * 30)
    (note,) = packed(given, tmp_path).schema.notes
    assert "missing in 60 of 120 rows (50.0%), which are left out (30 'none' among them: if that is a class of its own, give it" in note


def test_bad_rows_of_a_frame_are_in_the_error_and_in_a_file_that_stays(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    given = frame.assign(y=frame.y.where(frame.index % 10 > 0, np.inf))
    with pytest.raises(BadInput, match=r"12 of 120 rows \(10\.0%\) cannot be used") as caught:
        batchlab.compare(given, "y", **FEW)
    said = str(caught.value)
    assert "The first: row 0: target 'y' is infinite; row 10: target 'y' is infinite; row 20: target 'y' is infinite." in said
    (kept,) = tmp_path.iterdir()
    assert f"They are in '{kept}', each with its reason" in said
    assert pd.read_parquet(kept)["row"].tolist() == [*range(0, ROWS, 10)]


def test_bad_lines_of_a_file_are_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n3\n4,5\n")
    with pytest.raises(BadInput, match=r"The first: line 3: 1 column where the header has 2\. They are in '"):
        pack(Csv(path=tmp_path / "rows.csv"), Columns(target="y"), tmp_path / "tables", rule=CheckRule())


@pytest.mark.parametrize(
    ("own", "constant", "classes", "expected"),
    [
        (1.453, 1.216, False, "1.453, is higher than that of always predicting the mean, 1.216, so worse than no model: there may be"),
        (1.2, 1.216, False, "1.2, is hardly lower than that of always predicting the mean, 1.216: there may be"),
        (1.21601, 1.21602, False, "1.216, is the same as that of always predicting the mean: there may be"),
        (0.7, 0.69, True, "0.7, is higher than that of always predicting the classes' shares, 0.69, so worse than no model"),
        (0.5, 1.216, False, None),
    ],
)
def test_a_loss_that_is_no_better_than_a_constants_is_said_to_be_what_it_is(
    own: float, constant: float, classes: bool, expected: str | None
) -> None:
    said = against_constant(own, constant, 30, classes)
    assert (expected in said[0]) if expected else said == []


def coded(frame: pd.DataFrame, code: float = -999) -> pd.DataFrame:
    return frame.assign(
        heat=np.where(np.arange(ROWS) % 10 == 0, code, np.round(20 + 5 * frame.a, 1)),
        rooms=np.where(np.arange(ROWS) % 30 == 0, code, np.arange(ROWS) % 5).astype(int),
        kind=np.where(np.arange(ROWS) % 12 == 0, "unknown", np.where(frame.b > 0, "up", "down")),
    )


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("code", [-999, 9999, -99, 999])
def test_codes_far_outside_everything_else_are_warned_of_with_count_share_and_what_to_do(
    frame: pd.DataFrame, tmp_path: Path, csv: bool, code: int
) -> None:
    notes = packed(coded(frame, code), tmp_path, csv).schema.notes
    (heat,) = (note for note in notes if "'heat'" in note)
    assert f"column 'heat' holds {code} 12 times (10.0% of the rows), far outside its other values (" in heat
    assert f"give --missing {code} (columns.missing=[{code}])" in heat
    assert [
        f"column 'rooms' holds {code} 4 times (3.3% of the rows), far outside its other values (0 to 4)" in note for note in notes
    ].count(True)


def test_a_code_in_the_target_is_warned_of_and_several_codes_in_one_note(frame: pd.DataFrame, tmp_path: Path) -> None:
    given = frame.assign(
        a=frame.a.where(frame.index % 6 != 0, -999).where(frame.index % 7 != 0, 9999), y=frame.y.where(frame.index > 3, 999)
    )
    target, feature = packed(given, tmp_path).schema.notes
    assert target.startswith("column 'y' holds 999 4 times (3.3% of the rows)")
    assert "and 9999 18 times" in feature
    assert "-999 17 times" in feature
    assert "--missing 9999" in feature
    assert "--missing -999" in feature


def test_ordinary_values_that_look_like_codes_are_not_warned_of(frame: pd.DataFrame, tmp_path: Path) -> None:
    percent, ids, once = np.arange(ROWS) % 100, np.arange(ROWS) + 9_900, np.where(np.arange(ROWS) == 5, 999, frame.a)
    table = packed(frame.assign(percent=percent, ids=ids, once=once, price=np.round(np.exp(5 + frame.a)) + 0.99), tmp_path)
    assert table.schema.notes == ()


def test_codes_are_found_over_many_portions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 300_000
    frame = pd.DataFrame({"a": rng.normal(size=rows), "y": rng.normal(size=rows)})
    frame.loc[[5, 200_000, 299_999], "a"] = -9999.0
    (note,) = packed(frame, tmp_path).schema.notes
    assert "column 'a' holds -9999 3 times (0.0% of the rows), far outside" in note


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("given", [[-999, "unknown"], ["-999", "unknown"], ["-999.0", " unknown"[1:]]])
def test_given_codes_are_missing_in_packing_and_in_serving_alike(frame: pd.DataFrame, tmp_path: Path, csv: bool, given: list[Any]) -> None:
    made = coded(frame)
    table = packed(made, tmp_path, csv, missing=given)
    assert np.isnan(feature(table, "heat")).sum() == 12
    assert np.isnan(feature(table, "rooms")).sum() == 4
    assert np.isnan(feature(table, "kind")).sum() == 10
    assert {column.name: column.vocabulary for column in table.schema.columns}["kind"] in (("down", "up"), ("up", "down"))
    assert table.schema.notes == ()
    np.testing.assert_array_equal(frame_packed(made, table.schema.columns), table.features)
    np.testing.assert_array_equal(frame_packed(made.astype({"heat": str, "rooms": str}), table.schema.columns), table.features)
    np.testing.assert_array_equal(frame_packed(made.astype({"heat": np.float32}), table.schema.columns)[:, 1:2], table.features[:, 1:2])


def test_a_given_code_in_the_target_leaves_its_rows_out(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = packed(frame.assign(y=frame.y.where(frame.index % 10 > 0, -999)), tmp_path, missing=[-999])
    assert (table.schema.rows, table.schema.unlabelled) == (108, 12)


def test_a_code_is_given_at_the_command_line_and_in_a_profile() -> None:
    assert column_overrides(None, None, None, missing=["-999", "9999"]) == ['columns.missing=["-999", "9999"]']
    for override in ('columns.missing=["-999", "9999"]', "columns.missing=[-999, 9999.0]"):
        assert load_profile("quick", overrides=[override]).columns.missing == ("-999", "9999")
    assert load_profile("quick", overrides=["columns.missing=-999"]).columns.missing == ("-999",)
    words = ["batchlab", "compare", "--missing", "-999", "--missing", "9999", "--data", "gone.csv", "--target", "y"]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = {words!r}; from flows.cli import main; main()"], capture_output=True, text=True
    )
    assert (done.returncode, "'gone.csv' does not exist" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (
            ["$1,234.50", "$7", "-$3.25", "$ 12"],
            [1234.5, 7, -3.25, 12],
            "column 'c' holds numbers with the sign $; '$1,234.50' was read as 1234.5",
        ),
        (["($1,234.50)", "$7", "$-3", "8"], [-1234.5, 7, -3, 8], "with the sign $; '($1,234.50)' was read as -1234.5"),
        (["€ 12", "€ 1.234,50", "-€ 3,5", "€ 0"], [12, 1234.5, -3.5, 0], "with the sign €; '€ 12' was read as 12"),
        (["12 €", "1.234,50€", "3,5 €", "0 €"], [12, 1234.5, 3.5, 0], "with the sign €"),
        (["£1e3", "£2", "£.5", "£3."], [1000, 2, 0.5, 3], "with the sign £"),
        (["12%", "7.5 %", "-3%", "+4%"], [12, 7.5, -3, 4], "with the sign %; '12%' was read as 12"),
        (
            ["1 234,5", "12 345 678,25", "7", "-1 000"],
            [1234.5, 12345678.25, 7, -1000],
            "blanks between thousands; '1 234,5' was read as 1234.5",
        ),
        (["1\u00a0234.5", "1\u202f000", "2\u2009000", "7"], [1234.5, 1000, 2000, 7], "blanks between thousands"),
        (
            ["1'234.50", "12\u2019000", "7", "1'000'000"],
            [1234.5, 12000, 7, 1000000],
            "apostrophes between thousands; '1'234.50' was read as 1234.5",
        ),
        (["1 234,50 €", "7 €", "12 345 €", "0,5 €"], [1234.5, 7, 12345, 0.5], "with the sign € and blanks between thousands"),
    ],
)
def test_signs_and_separators_of_numbers_are_read_and_said_in_packing_and_serving_alike(
    frame: pd.DataFrame, tmp_path: Path, values: list[str], expected: list[float], note: str
) -> None:
    given = frame.assign(c=values * (ROWS // 4))
    table = packed(given, tmp_path)
    np.testing.assert_allclose(feature(table, "c"), expected * (ROWS // 4), rtol=1e-6)
    (said,) = table.schema.notes
    assert note in said
    np.testing.assert_array_equal(frame_packed(given, table.schema.columns), table.features)
    numbers = given.assign(c=expected * (ROWS // 4))
    np.testing.assert_allclose(frame_packed(numbers, table.schema.columns), table.features, rtol=1e-6)
    (tmp_path / "csv").mkdir()
    np.testing.assert_allclose(feature(packed(given, tmp_path / "csv", csv=True), "c"), expected * (ROWS // 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        (["$1", "€2", "$3", "£4"], "numbers in several units: 60 with $, 30 with €, 30 with £"),
        (["1%", "2", "3%", "4%"], "numbers in several units: 90 with %, 30 without a sign"),
        (["$1", "2%", "$3", "$4"], "numbers in several units: 90 with $, 30 with %"),
    ],
)
def test_a_column_of_several_units_is_refused_with_how_often_each_occurs(
    frame: pd.DataFrame, tmp_path: Path, values: list[str], counted: str
) -> None:
    given = frame.assign(c=values * (ROWS // 4))
    with pytest.raises(BadInput) as caught:
        packed(given, tmp_path)
    assert f"'c' ({counted})" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        packed(given, tmp_path, target="c")
    assert f"target 'c' ({counted}) cannot be learnt" in str(caught.value)


def test_a_value_of_another_unit_is_a_bad_row_and_no_number_for_the_model(frame: pd.DataFrame, tmp_path: Path) -> None:
    table = packed(frame.assign(c=["€ 9", "5.5 km", *["$1,000"] * (ROWS - 2)]), tmp_path)
    assert table.schema.quarantined == {"column 'c' holds what is not a number in $": 2}
    with pytest.raises(UnusableRows, match=r"column 'c' holds 1 values that are not a number in \$: '€ 9' \(row 0 first\)"):
        frame_packed(frame.head(2).assign(c=["€ 9", "$9"]), table.schema.columns)


@pytest.mark.parametrize("values", [["12 kg", "13 kg"], ["1 23", "2 34"], ["070 123 456", "071 123 456"], ["$", "%"]])
def test_what_is_no_number_with_a_sign_stays_a_category(frame: pd.DataFrame, tmp_path: Path, values: list[str]) -> None:
    table = packed(frame.assign(c=values * (ROWS // 2)), tmp_path)
    assert {column.name: column.kind for column in table.schema.columns}["c"] == "category"
    assert table.schema.notes == ()


def test_a_target_in_money_is_learnt_as_numbers_and_its_codes_may_be_missing(frame: pd.DataFrame, tmp_path: Path) -> None:
    prices = [f"${1000 + row:,}.50" if row % 10 else "unknown" for row in range(ROWS)]
    table = packed(frame.assign(y=prices), tmp_path, missing=["unknown"])
    assert table.schema.target.task == "regression"
    np.testing.assert_array_equal(table.target, [1000.5 + row for row in range(ROWS) if row % 10])


def heavy(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows)})
    return made.assign(y=np.exp(3 + 1.2 * made.a + 0.5 * made.b + 0.2 * rng.normal(size=rows)))


@pytest.fixture(scope="module")
def in_logarithms(tmp_path_factory: pytest.TempPathFactory) -> batchlab.Comparison:
    """A search to its verdict, with neither memory nor loaders measured."""
    folder = tmp_path_factory.mktemp("heavy")
    heavy().to_parquet(folder / "rows.parquet", index=False)
    overrides = [*FEW["overrides"], "train.epochs=60", "target_scale=log"]
    settings = load_profile("quick", data=str(folder / "rows.parquet"), target="y", strategies=FEW["strategies"], overrides=overrides)
    table = pack(settings.source, settings.named_columns(), folder / "tables", settings.seed)
    return batchlab.Comparison(decided(Experiment(settings, table, split(table, settings.split, settings.seed))))


def test_a_target_learnt_on_its_logarithm_is_predicted_in_its_own_unit_and_compared_on_the_logarithm(
    in_logarithms: batchlab.Comparison,
) -> None:
    experiment, verdict = in_logarithms.search.experiment, in_logarithms.verdict
    best = in_logarithms.search.findings.best
    assert best is not None
    rows = experiment.split.test
    truth = np.asarray(experiment.table.target[rows])
    predictions = predicted(experiment.ship(best.shown), experiment.table.seen, rows)[:, 0]
    assert r2_score(truth, predictions) > 0.9
    assert experiment.loss_unit_name == "log(y)²"
    losses = (np.log(predictions) - np.log(truth)) ** 2
    np.testing.assert_allclose(experiment.test_losses([best.shown])[0], losses.mean(), rtol=1e-6)
    assert verdict.test_loss == pytest.approx(losses.mean(), rel=0.2)  # the mean over trainings
    assert 0.02 < losses.mean() < 0.06  # its noise has a variance of 0.04
    logs = np.log(np.asarray(experiment.table.target))
    constant = np.mean((logs[rows] - logs[experiment.split.train].mean()) ** 2)
    assert experiment.constant_test_loss == pytest.approx(constant)
    assert experiment.constant_loss * experiment.loss_unit == pytest.approx(
        np.mean((logs[experiment.split.validation] - logs[experiment.split.train].mean()) ** 2), rel=1e-3
    )
    scores = experiment.test_scores(best.shown)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean((truth - predictions) ** 2)))
    assert any(f"a root mean squared error of {scores['rmse']:.4g}" in note for note in verdict.notes)


def test_a_model_of_the_logarithm_is_exported_with_the_way_back(in_logarithms: batchlab.Comparison, tmp_path: Path) -> None:
    experiment, best = in_logarithms.search.experiment, in_logarithms.search.findings.best
    assert best is not None
    model = experiment.ship(best.shown)
    export(model, experiment.table.schema.columns, tmp_path)
    served = _load_pyfunc(str(tmp_path))
    rows = heavy()[["b", "a"]].tail(20)
    found = served.predict(rows)
    np.testing.assert_allclose(found, predicted(model, experiment.table.seen, np.arange(380, 400)), rtol=1e-9)
    assert (found > 0).all()


def test_yardsticks_are_compared_on_the_logarithm_too(in_logarithms: batchlab.Comparison) -> None:
    experiment = in_logarithms.search.experiment
    found, _ = Fitting(experiment, lambda: 60.0).all()
    losses = {item.key: item.test_loss for item in found}
    assert losses["constant"] == pytest.approx(experiment.constant_test_loss)
    assert 0.02 < losses["linear"] < 0.06


def test_a_heavy_tail_is_told_with_its_measure_and_what_to_do() -> None:
    notes = batchlab.compare(heavy(), "y", strategies=["mini_batch"], **LITTLE).verdict.notes
    (said,) = (note for note in notes if "heavy-tailed" in note)
    assert "--set target_scale=log" in said
    assert re.search(
        r"its skewness is [0-9.]+, that of its logarithm -?[0-9.]+, and the largest 1% of the training rows hold [0-9]+% of its sum", said
    )


def test_a_tail_is_heavy_only_where_the_logarithm_tames_it() -> None:
    rng = np.random.default_rng(0)
    assert heavy_tail(rng.lognormal(size=5000)) is not None
    assert heavy_tail(rng.normal(100, 10, size=5000)) is None
    assert heavy_tail(rng.lognormal(size=5000) - 0.1) is None
    assert heavy_tail(np.where(np.arange(5000) % 100 == 0, 1e6, rng.uniform(1, 2, 5000))) is None
    assert heavy_tail(np.ones(5000)) is None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0.0, *range(1, ROWS)], "target_scale 'log' needs a target above 0, but the least of 'y' is 0; use 'linear'"),
        ([0, 1] * (ROWS // 2), "target_scale 'log' is for numbers, but target 'y' has classes (binary)"),
    ],
)
def test_a_target_without_a_logarithm_is_refused(frame: pd.DataFrame, target: list[float], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        batchlab.compare(frame.assign(y=target), "y", **{**FEW, "overrides": [*FEW["overrides"], "target_scale=log"]})
    assert str(caught.value).startswith(expected)


def test_retraining_refuses_the_logarithm_by_name(frame: pd.DataFrame, tmp_path: Path) -> None:
    profile = load_profile("nightly", data="rows.parquet", target="y", overrides=["target_scale=log"])
    with pytest.raises(BadInput, match=r"target_scale 'log' is for comparisons"):
        retraining_split(packed(frame, tmp_path), profile, None)


def test_values_that_are_missing_from_now_on_do_not_break_the_contract_of_before(tmp_path: Path) -> None:
    path, rng = tmp_path / "areas.csv", np.random.default_rng(0)
    frame = pd.DataFrame({"area": np.where(np.arange(200) % 12 == 0, -999.0, rng.normal(size=200)), "y": rng.normal(size=200)})
    frame.to_csv(path, index=False)
    shares = []
    for overrides in ([], ["columns.missing=[-999]"]):
        profile = load_profile("quick", data=str(path), target="y", overrides=overrides)
        table = pack(profile.source, profile.named_columns(), tmp_path / "tables", profile.seed, profile.checks)
        shares.append(float(np.isnan(table.features[:, 0]).mean()))
    assert shares == [0.0, pytest.approx(17 / 200)]
