"""Tables as they are: every row is used or in quarantine with its reason, and a saved model reads raw rows as packing did."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.errors import BadInput
from batchlab.rows.preparation import measured_preparation
from batchlab.rows.split import SplitRule, split
from batchlab.serving.batchlab_serving import UnusableRows, frame_packed
from batchlab.sources.csv import Csv
from batchlab.sources.parquet import Parquet
from batchlab.table import PackedTable, pack
from batchlab.table.columns import CheckRule, Columns, EncodingRule

ROWS = 2000


def everyday(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """A frame with every kind of column, gaps in each, and a target that depends on them."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"size": rng.normal(50, 20, rows), "rooms": rng.integers(1, 9, rows), "garden": rng.random(rows) < 0.3})
    frame["sold"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, rows), "D")
    frame["city"] = rng.choice(["Rome", "Oslo", "Bern", "Lima"], rows, p=[0.5, 0.3, 0.15, 0.05])
    frame["price"] = 3 * frame["size"] + 20 * frame["garden"] + 10 * (frame["city"] == "Oslo") + rng.normal(0, 5, rows)
    for column, share in (("size", 0.1), ("sold", 0.05), ("city", 0.08)):
        frame.loc[rng.random(rows) < share, column] = None
    return frame


def packed(frame: pd.DataFrame, folder: Path, rule: CheckRule | None = None, csv: bool = False, **columns: Any) -> PackedTable:
    chosen = Columns(**{"target": "price", **columns})
    if csv:
        frame.to_csv(folder / "rows.csv", index=False)
        return pack(Csv(path=folder / "rows.csv"), chosen, folder / "tables", rule=rule or CheckRule())
    frame.to_parquet(folder / "rows.parquet", index=False)
    return pack(Parquet(path=folder / "rows.parquet"), chosen, folder / "tables", rule=rule or CheckRule())


def kinds(table: PackedTable) -> dict[str, str]:
    return {column.name: column.kind for column in table.schema.columns}


@pytest.mark.parametrize("csv", [False, True])
def test_every_kind_of_column_is_packed_with_its_gaps(csv: bool, tmp_path: Path) -> None:
    frame = everyday()
    table = packed(frame, tmp_path, csv=csv)
    assert kinds(table) == {"size": "number", "rooms": "number", "garden": "boolean", "sold": "datetime", "city": "category"}
    names = table.schema.packed_names
    assert (
        names
        == ("size", "rooms", "garden", *(f"sold.{part}" for part in ("days", "year_sin", "year_cos", "week_sin", "week_cos")), "city")[
            : len(names)
        ]
        or "sold.day_sin" in names
    )
    np.testing.assert_allclose(table.features[:, 0], frame["size"].to_numpy(np.float32))
    days = (frame["sold"] - pd.Timestamp(0)) / pd.Timedelta("1D")
    np.testing.assert_allclose(table.features[:, names.index("sold.days")], days, rtol=1e-6)
    (city,) = (column for column in table.schema.columns if column.name == "city")
    assert city.vocabulary == ("Rome", "Oslo", "Bern", "Lima")
    codes = frame["city"].map({word: code for code, word in enumerate(city.vocabulary)})
    np.testing.assert_array_equal(table.features[:, -1], codes.to_numpy(np.float32))
    facts = {item.name: item for item in table.facts}
    assert [facts[name].missing for name in ("size", "sold", "city", "rooms")] == [*frame[["size", "sold", "city"]].isna().sum(), 0]


def test_a_long_name_in_any_script_makes_a_contract_that_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / f"{'Ж' * 120}.csv"
    pd.DataFrame({"x": range(60), "ü" * 200: range(60)}).to_csv(path, index=False)
    table = pack(Csv(path=str(path)), Columns(target="ü" * 200), tmp_path / "tables")
    (contract,) = (tmp_path / "tables" / "contracts").iterdir()
    assert len(contract.name.encode()) <= 120
    assert table.schema.rows == 60


def test_a_csv_and_a_parquet_file_of_the_same_rows_make_the_same_inputs(tmp_path: Path) -> None:
    tables = [packed(everyday(), tmp_path, csv=csv) for csv in (False, True)]
    made = []
    for table in tables:
        parts = split(table, SplitRule(), 0)
        preparation = measured_preparation(table, parts, True, EncodingRule())
        made.append((preparation, inputs_of(preparation, np.asarray(table.features))))
    numbers = dict(zip(made[0][0].names, made[0][1].T, strict=True))
    for name, values in zip(made[1][0].names, made[1][1].T, strict=True):
        np.testing.assert_allclose(values, numbers[name], atol=2e-5)


def inputs_of(preparation: Any, features: Any) -> Any:
    import torch

    from batchlab.rows.inputs import Inputs

    return Inputs(preparation)(torch.from_numpy(np.array(features))).numpy()


def test_inputs_are_scaled_filled_and_encoded_with_training_rows_only(tmp_path: Path) -> None:
    frame = everyday()
    table = packed(frame, tmp_path)
    parts = split(table, SplitRule(), 0)
    preparation = measured_preparation(table, parts, True, EncodingRule(most_categories=2))
    found = dict(zip(preparation.names, inputs_of(preparation, table.features).T, strict=True))
    train = frame.iloc[parts.train]
    expected = ((frame["size"] - train["size"].mean()) / train["size"].std(ddof=0)).fillna(0.0)
    np.testing.assert_allclose(found["size"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["size is missing"], frame["size"].isna())
    np.testing.assert_array_equal(found["city = Rome"], frame["city"] == "Rome")
    np.testing.assert_array_equal(found["city = others"], frame["city"].isin(["Bern", "Lima"]))
    np.testing.assert_array_equal(found["city is missing"], frame["city"].isna())
    assert not any(name.startswith("rooms is") for name in preparation.names)
    unscaled = measured_preparation(table, parts, False, EncodingRule())
    plain = dict(zip(unscaled.names, inputs_of(unscaled, table.features).T, strict=True))
    np.testing.assert_allclose(plain["size"], frame["size"].fillna(train["size"].mean()), rtol=1e-5)


def test_text_is_refused_by_name_and_can_be_dropped_or_taken_as_categories(tmp_path: Path) -> None:
    frame = everyday().assign(remark=[f"sold to customer {number}" for number in range(ROWS)])
    with pytest.raises(
        BadInput, match=r"these columns hold text .*'remark' \(2,000 different values in 2,000 rows\); leave them out with --drop"
    ):
        packed(frame, tmp_path)
    assert "remark" not in kinds(packed(frame, tmp_path, drop=["remark"]))
    assert kinds(packed(frame, tmp_path, categorical=["remark", "rooms"]))["rooms"] == "category"


def test_a_number_as_category_has_the_same_words_whatever_its_type(tmp_path: Path) -> None:
    frame = everyday()
    for rooms in (frame["rooms"], frame["rooms"].astype(float), frame["rooms"].astype(str)):
        table = packed(frame.assign(rooms=rooms), tmp_path, categorical=["rooms"])
        (column,) = (column for column in table.schema.columns if column.name == "rooms")
        assert set(column.vocabulary) == {str(number) for number in range(1, 9)}


def test_unix_times_keep_their_resolution(tmp_path: Path) -> None:
    frame = everyday().assign(at=1.7e9 + np.arange(ROWS) * 60)
    table = packed(frame, tmp_path)
    (column,) = (column for column in table.schema.columns if column.name == "at")
    place = table.schema.packed_names.index("at")
    np.testing.assert_allclose(table.features[:, place] + column.offset, frame["at"], atol=0.01)


DATES = pd.date_range("2021-01-01", periods=ROWS, freq="7h")


@pytest.mark.parametrize(
    ("style", "formats"),
    [
        ("%Y-%m-%d", ("ISO8601",)),
        ("%Y-%m-%dT%H:%M:%S", ("ISO8601",)),
        ("%d/%m/%Y", ("%d/%m/%Y",)),
        ("%m/%d/%Y", ("%m/%d/%Y",)),
        ("%d.%m.%Y %H:%M", ("%d.%m.%Y %H:%M",)),
        ("%d %b %Y", ("%d %b %Y",)),
        ("%Y/%m/%d", ("ISO8601",)),
    ],
)
def test_dates_are_read_in_the_format_they_are_written_in(style: str, formats: tuple[str, ...], tmp_path: Path) -> None:
    table = packed(everyday().assign(when=DATES.strftime(style)), tmp_path)
    (column,) = (column for column in table.schema.columns if column.name == "when")
    assert (column.kind, column.formats) == ("datetime", formats)
    place = table.schema.packed_names.index("when.days")
    expected = pd.to_datetime(pd.Series(DATES.strftime(style)), format=style)
    np.testing.assert_allclose(table.features[:, place], (expected - pd.Timestamp(0)) / pd.Timedelta("1D"), rtol=1e-6)


def test_dates_that_could_be_read_two_ways_are_said_to_be(tmp_path: Path) -> None:
    early = pd.date_range("2021-01-01", periods=12).repeat(ROWS // 12 + 1)[:ROWS]
    table = packed(everyday().assign(when=early.strftime("%d/%m/%Y")), tmp_path)
    assert "could be day/month or month/day" in " ".join(table.schema.notes)


def test_decimal_commas_are_read_as_numbers(tmp_path: Path) -> None:
    frame = everyday()
    text = frame["size"].map(
        lambda value: None if pd.isna(value) else f"{value * 100:,.2f}".replace(",", " ").replace(".", ",").replace(" ", ".")
    )
    table = packed(frame.assign(size=text), tmp_path)
    np.testing.assert_allclose(table.features[:, 0], (frame["size"] * 100).round(2).to_numpy(np.float32), rtol=1e-6)


def test_rows_that_cannot_be_used_are_in_quarantine_with_their_reason(tmp_path: Path) -> None:
    frame = everyday()
    frame["size"] = frame["size"].map(lambda value: None if pd.isna(value) else str(value))
    frame.loc[[3, 5], "size"] = "large"
    frame.loc[[5, 7, 9], "price"] = None
    frame.loc[[11, 13], "price"] = np.inf
    table = packed(frame, tmp_path)
    assert table.quarantine is not None
    kept = pd.read_parquet(table.quarantine).sort_values("row")
    assert kept["row"].tolist() == [3, 11, 13]
    assert kept["reason"].tolist() == ["column 'size': 'large' is not a number", *["target 'price' is infinite"] * 2]
    assert json.loads(kept["text"].iloc[0])["size"] == "large"
    assert (table.schema.rows, table.schema.unlabelled, table.schema.source_rows) == (ROWS - 6, 3, ROWS)


def test_more_bad_rows_than_the_set_share_fail_the_run_and_stay_to_be_looked_at(tmp_path: Path) -> None:
    frame = everyday()
    frame.loc[:199, "price"] = np.inf
    with pytest.raises(
        BadInput, match=r"200 of 2,000 rows \(10\.0%\) cannot be used, more than 5% .*target 'price' is infinite: 200"
    ) as caught:
        packed(frame, tmp_path)
    place = Path(str(caught.value).split("They are in '")[1].split("'")[0])
    assert len(pd.read_parquet(place)) == 200
    assert not [path for path in (tmp_path / "tables").iterdir() if (path / "features.npy").exists()]
    assert packed(frame, tmp_path, rule=CheckRule(largest_quarantined=0.1)).schema.rows == 1800


def contract_of(folder: Path) -> Path:
    (path,) = (folder / "tables" / "contracts").iterdir()
    return path


def test_a_contract_is_inferred_once_and_enforced_on_the_next_rows(tmp_path: Path) -> None:
    first = packed(everyday(), tmp_path)
    terms = json.loads(contract_of(tmp_path).read_text())["columns"]
    assert terms["rooms"] == {"kind": "number", "minimum": 0.0, "maximum": 15.0, "largest_missing": 0.05, "values": None}
    assert packed(everyday(), tmp_path).path == first.path
    other = everyday(seed=1)
    other.loc[[1, 2], "rooms"] = 99
    table = packed(other, tmp_path)
    assert table.schema.quarantined == {"column 'rooms' is outside its contract": 2}
    assert packed(other, tmp_path).path == table.path
    far = rf"The contract '{contract_of(tmp_path)}' allows 'rooms' 0 to 15: where the new values are right, edit it \(or delete it"
    for _ in range(2):
        with pytest.raises(BadInput, match=far):
            packed(other.assign(rooms=other["rooms"] + 50), tmp_path)
    for broken, expected in (
        (other.drop(columns="city"), "column 'city' is missing"),
        (other.assign(size="many"), "column 'size' holds categories instead of numbers"),
        (other.assign(garden=None), "column 'garden' misses 100.0% of its values, more than 5.0%"),
    ):
        with pytest.raises(BadInput, match=f"breaks its contract: .*{expected}"):
            packed(broken, tmp_path)


def test_an_edited_contract_is_obeyed_even_for_the_rows_it_came_from(tmp_path: Path) -> None:
    frame = everyday()
    first = packed(frame, tmp_path)
    path = contract_of(tmp_path)
    contract = json.loads(path.read_text())
    contract["columns"]["city"]["values"] = ["Rome", "Oslo", "Bern"]
    contract["columns"]["sold"]["minimum"] = "2020-01-05"
    path.write_text(json.dumps(contract))
    table = packed(frame, tmp_path, rule=CheckRule(largest_quarantined=0.2))
    early = (frame["sold"] < "2020-01-05").sum()
    assert table.path != first.path
    assert table.schema.quarantined["column 'sold' is outside its contract"] == early
    assert sum(table.schema.quarantined.values()) == ((frame["city"] == "Lima") | (frame["sold"] < "2020-01-05")).sum()
    path.write_text("{")
    with pytest.raises(BadInput, match="cannot be read"):
        packed(frame, tmp_path)


def test_a_key_that_comes_to_repeat_breaks_the_contract(tmp_path: Path) -> None:
    frame = everyday().assign(order=np.arange(ROWS))
    packed(frame, tmp_path, key="order")
    with pytest.raises(BadInput, match="key column 'order' holds values that occur more than once"):
        packed(frame.assign(order=np.arange(ROWS) // 2), tmp_path, key="order")


def test_raw_rows_in_any_order_of_columns_are_packed_as_the_table_was(tmp_path: Path) -> None:
    frame = everyday()
    table = packed(frame, tmp_path)
    shuffled = frame[["city", "price", "rooms", "sold", "garden", "size"]]
    np.testing.assert_array_equal(frame_packed(shuffled, table.schema.columns), table.features)
    objects = shuffled.astype({"rooms": object, "garden": object, "city": "category"})
    np.testing.assert_array_equal(frame_packed(objects, table.schema.columns), table.features)


def test_rows_that_do_not_fit_a_model_are_refused_by_column(tmp_path: Path) -> None:
    frame = everyday()
    columns = packed(frame, tmp_path).schema.columns
    with pytest.raises(
        UnusableRows, match="the rows lack column 'rooms', 'city'; the model was trained on size, rooms, garden, sold, city"
    ):
        frame_packed(frame.drop(columns=["city", "rooms"]), columns)
    with pytest.raises(
        UnusableRows,
        match=r"column 'size' holds 2000 values that are not a number: 'big', .* was trained on numbers; column 'sold' holds int64",
    ):
        frame_packed(frame.assign(size="big", sold=5), columns)
    text = packed(frame.assign(size=frame["size"].astype(str)), tmp_path).schema.columns
    with pytest.raises(UnusableRows, match=r"column 'size' holds 2 values that are not a number: 'big', 'tall' \(row 4 first\)"):
        frame_packed(frame.assign(size=["1.5"] * 4 + ["big", "tall"] + [""] * (ROWS - 6)), text)


def test_a_killed_pass_leaves_no_table_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    rows = 3_000_000
    pd.DataFrame({f"x{number}": np.random.default_rng(number).random(rows, np.float32) for number in range(12)}).to_parquet(
        tmp_path / "rows.parquet"
    )
    code = (
        "from pathlib import Path\nfrom batchlab.table import pack\nfrom batchlab.table.columns import Columns\n"
        "from batchlab.sources.parquet import Parquet\n"
        f"print('ready', flush=True)\npack(Parquet(path='{tmp_path}/rows.parquet'), Columns(target='x0'), Path('{tmp_path}/tables'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "tables").glob(".packing-*/features.npy")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "tables").glob(".packing-*"))) == 1
    assert not list((tmp_path / "tables").glob("*/schema.json"))
    table = pack(Parquet(path=str(tmp_path / "rows.parquet")), Columns(target="x0"), tmp_path / "tables")
    assert table.schema.rows == rows
    assert not list((tmp_path / "tables").glob(".packing-*"))


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match=r"packing about 2,000 rows × \d+ columns needs about 0\.0 GB under .* where 0\.0 GB are free"):
        packed(everyday(), tmp_path)
    assert not list((tmp_path / "tables").glob(".packing-*"))


@settings(max_examples=40)
@given(data=st.data())
def test_numbers_come_through_packing_as_they_were(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = data.draw(
        st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32), st.sampled_from([np.inf, -np.inf, np.nan])), min_size=8, max_size=60)
    )
    target = np.arange(len(values)) * 1.5
    folder = tmp_path_factory.mktemp("numbers")
    frame = pd.DataFrame({"x": pd.Series(values, dtype="float64"), "other": target, "price": target})
    for csv in (False, True):
        if frame["x"].isna().all() and csv:
            continue
        table = packed(frame, folder, csv=csv)
        expected = frame["x"].where(np.isfinite(frame["x"])).to_numpy(np.float32)
        if "x" in table.schema.features:
            (column,) = (column for column in table.schema.columns if column.name == "x")
            np.testing.assert_allclose(table.features[:, 0] + np.float32(column.offset), expected, rtol=1e-6)


def test_codes_with_leading_zeros_are_categories_and_a_model_asks_for_their_zeros(tmp_path: Path) -> None:
    frame = everyday().assign(zip=[f"{number:05d}" for number in np.random.default_rng(0).integers(501, 30000, 20)[np.arange(ROWS) % 20]])
    table = packed(frame, tmp_path, csv=True)
    assert kinds(table)["zip"] == "category"
    assert "some begin with 0: codes, not quantities" in " ".join(table.schema.notes)
    with pytest.raises(UnusableRows, match=r"column 'zip' holds int64, but the model was trained on codes like '0\d+'; read it as text"):
        frame_packed(pd.read_csv(tmp_path / "rows.csv"), table.schema.columns)
    np.testing.assert_array_equal(frame_packed(pd.read_csv(tmp_path / "rows.csv", dtype=str), table.schema.columns), table.features)


def test_a_model_takes_dates_and_numbers_as_text_as_json_sends_them(tmp_path: Path) -> None:
    frame = everyday()
    table = packed(frame, tmp_path)
    sent = json.loads(frame.to_json(orient="split", date_format="iso"))
    np.testing.assert_array_equal(frame_packed(pd.DataFrame(sent["data"], columns=sent["columns"]), table.schema.columns), table.features)
    text = frame.assign(rooms=frame["rooms"].astype(str))
    np.testing.assert_array_equal(frame_packed(text, table.schema.columns), table.features)


def test_a_number_that_rises_from_row_to_row_may_go_on(tmp_path: Path) -> None:
    packed(everyday().assign(order=np.arange(ROWS) + 10_000), tmp_path)
    assert packed(everyday(seed=1).assign(order=np.arange(ROWS) + 90_000), tmp_path).schema.quarantined == {}


def test_what_is_constant_or_new_is_said(tmp_path: Path) -> None:
    assert packed(everyday().assign(fixed=3.5), tmp_path).schema.notes == ("column 'fixed' is constant: 3.5",)
    notes = " ".join(packed(everyday(seed=1).assign(fixed=3.5, more=np.arange(ROWS)), tmp_path).schema.notes)
    assert "column 'more' is not in the contract" in notes


def test_settings_of_the_split_stay_whatever_the_order_they_are_given_in() -> None:
    from batchlab.config import load_profile

    rule = load_profile("quick", overrides=["split.folds=3", "split.kind=walk_forward", "split.embargo=5"]).split
    assert (rule.kind, rule.folds, rule.embargo, rule.test) == ("walk_forward", 3, 5, 0.2)


def test_an_embargo_without_time_and_a_file_without_header_are_refused(tmp_path: Path) -> None:
    table = packed(everyday(), tmp_path)
    with pytest.raises(BadInput, match=r"embargo keeps parts apart in time, but split\.kind is random"):
        split(table, SplitRule(embargo=5), 0)
    (tmp_path / "bare.csv").write_text("1.5,2.5,3\n2.5,3.5,4\n")
    with pytest.raises(BadInput, match=r"the columns are named 1\.5, 2\.5, 3 …: the first line must hold their names"):
        pack(Csv(path=tmp_path / "bare.csv"), Columns(target="y"), tmp_path / "tables")


@pytest.mark.parametrize("csv", [False, True])
def test_a_time_column_of_numbers_is_a_feature_too_and_one_of_dates_is_not(csv: bool, tmp_path: Path) -> None:
    frame = everyday().assign(minute=np.arange(ROWS))
    assert "minute" in kinds(packed(frame, tmp_path, csv=csv, time="minute"))
    assert "sold" not in kinds(packed(frame.dropna(subset="sold"), tmp_path, csv=csv, time="sold"))
