"""Scoring a table into a file: the numbers of the model, every row in its place, whole or not at all, in bounded memory."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from batchlab.config import load_profile
from batchlab.engine.records import TrialResult, best
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.scoring.predictions import PORTION_ROWS, SavedModel, scored
from batchlab.scoring.shipping import export
from batchlab.serving.batchlab_serving import _load_pyfunc
from batchlab.sources import SOURCES, Source, located
from batchlab.table import pack
from tests.conftest import CHECKOUT, SCRATCH, command_path, complaints
from tests.test_messy import houses

if TYPE_CHECKING:
    from tasks.registry import Version

RUN = "0123456789abcdef0123456789abcdef"


def trained(folder: Path, target: str, *choices: str) -> tuple[Experiment, TrialResult]:
    """A small network on rows with numbers, dates, categories and gaps."""
    path = folder / "training.parquet"
    houses().to_parquet(path)
    other = {"price": "band", "band": "price"}[target]
    chosen = ["model.kind=mlp", "train.epochs=5", "train.learning_rate=0.1", f'columns.drop=["{other}"]', *choices]
    profile = load_profile("quick", data=str(path), target=target, strategies=["mini_batch"], overrides=chosen)
    table = pack(profile.source, profile.named_columns(), folder / "tables", profile.seed)
    experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
    return experiment, best(experiment.train("mini_batch"))


def exported(folder: Path, target: str) -> tuple[str, ...]:
    """Write such a model into the folder, and return its classes."""
    experiment, result = trained(folder, target)
    export(experiment.ship(result), experiment.table.schema.columns, folder)
    return experiment.table.schema.target.classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model that predicts prices."""
    made = tmp_path_factory.mktemp("prices")
    exported(made, "price")
    return made


@pytest.fixture(scope="module")
def prices(folder: Path) -> SavedModel:
    return SavedModel(_load_pyfunc(str(folder)), (), "houses", 7, RUN)


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    made = tmp_path_factory.mktemp("bands")
    classes = exported(made, "band")
    return SavedModel(_load_pyfunc(str(made)), classes, "houses", 7, RUN)


def source(path: Path | str) -> Source:
    found = located(str(path))
    return SOURCES[found.pop("kind")](**found)


def score(model: SavedModel, data: Path | str, out: Path, *keep: str) -> pd.DataFrame:
    rows, without = scored(model, source(data), str(out), SCRATCH / "reading", keep)
    found = pd.read_parquet(out) if out.suffix == ".parquet" else pd.read_csv(out)
    assert (len(found), without) == (rows, 0)
    return found


def nothing_else(folder: Path, *names: str) -> None:
    assert {path.name for path in folder.iterdir()} == set(names)


def test_the_file_holds_kept_columns_prediction_and_what_made_it(prices: SavedModel, tmp_path: Path) -> None:
    rows = houses(3000)
    rows.to_parquet(tmp_path / "rows.parquet")
    found = score(prices, tmp_path / "rows.parquet", tmp_path / "out.parquet", "city", "price")
    assert list(found.columns) == ["city", "price", "prediction", "model_version", "run_id"]
    np.testing.assert_allclose(found["prediction"], prices.served.predict(rows)[:, 0], rtol=1e-12)
    assert np.corrcoef(found["prediction"], rows["price"])[0, 1] > 0.8
    pd.testing.assert_series_equal(found["city"], rows["city"])
    assert (set(found["model_version"]), set(found["run_id"])) == ({7}, {RUN})
    file = pq.ParquetFile(tmp_path / "out.parquet")
    noted = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert (noted["batchlab.model"], noted["batchlab.model_version"], noted["batchlab.run_id"]) == ("houses", "7", RUN)
    signed = [file.metadata.row_group(0).column(place) for place in (3, 4)]
    assert all("RLE_DICTIONARY" in column.encodings and column.total_compressed_size < 200 for column in signed)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".csv.gz"])
def test_classes_are_predicted_by_name_with_a_probability_each_in_every_format(bands: SavedModel, ending: str, tmp_path: Path) -> None:
    rows = houses(2000)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    found = score(bands, tmp_path / "rows.csv", tmp_path / f"out{ending}", "rooms")
    names = ["high", "low", "middle"]
    assert list(found.columns) == ["rooms", "prediction", *(f"probability_{name}" for name in names), "model_version", "run_id"]
    expected = bands.served.predict(pd.read_csv(tmp_path / "rows.csv"))
    np.testing.assert_allclose(found[[f"probability_{name}" for name in names]], expected, rtol=1e-9, atol=1e-12)
    assert found["prediction"].tolist() == [names[place] for place in expected.argmax(axis=1)]
    assert (found["prediction"] == rows["band"]).mean() > 0.7
    np.testing.assert_array_equal(found["rooms"].astype(int), rows["rooms"])  # text of a CSV file stays text in Parquet


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, 400), max_size=6))
def test_rows_are_predicted_alike_in_whatever_batches_they_come(prices: SavedModel, cuts: list[int]) -> None:
    folder = SCRATCH / "batches"
    folder.mkdir(exist_ok=True)
    table = pa.Table.from_pandas(houses(400), preserve_index=False)
    bounds = [0, *sorted(cuts), 400]
    with ipc.new_file(folder / "rows.arrow", table.schema) as writer:
        for start, end in itertools.pairwise(bounds):
            writer.write_table(table.slice(start, end - start))
    found = score(prices, folder / "rows.arrow", folder / "out.parquet", "rooms")
    np.testing.assert_allclose(found["prediction"], prices.served.predict(table.to_pandas())[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(found["rooms"], table["rooms"])


def test_many_portions_on_many_threads_keep_the_order_of_the_rows(prices: SavedModel, tmp_path: Path) -> None:
    rows = pd.concat([houses(1500)] * 60, ignore_index=True).assign(number=range(90_000))
    assert len(rows) > 2 * PORTION_ROWS
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=7000)
    found = score(prices, tmp_path / "rows.parquet", tmp_path / "out.parquet", "number")
    np.testing.assert_array_equal(found["number"], np.arange(90_000))
    np.testing.assert_allclose(found["prediction"], np.tile(prices.served.predict(houses(1500))[:, 0], 60), rtol=1e-12)


def test_arrow_batches_and_data_frames_make_the_same_numbers(prices: SavedModel) -> None:
    rows = houses(300).sample(frac=1, axis=1, random_state=1)
    rows["city"] = rows["city"].astype("category")
    rows.loc[:20, "city"] = None
    batch = pa.Table.from_pandas(rows, preserve_index=False)
    np.testing.assert_array_equal(prices.served.predict_batch(batch), prices.served.predict(rows))
    assert prices.served.predict_batch(batch.slice(0, 0)).shape == prices.served.predict(rows[:0]).shape == (0, 1)


def test_no_rows_make_a_file_without_rows(bands: SavedModel, tmp_path: Path) -> None:
    houses(10)[:0].to_parquet(tmp_path / "rows.parquet")
    found = score(bands, tmp_path / "rows.parquet", tmp_path / "out.parquet")
    assert (len(found), found.shape[1]) == (0, 6)


REFUSED = {
    "missing": (lambda rows: rows.drop(columns="size"), [], r"version 7 of 'houses': the rows lack column 'size'"),
    "retyped": (
        lambda rows: rows.assign(size=rows["sold"]),
        [],
        r"column 'size' holds timestamp\[[nu]s\], but the model was trained on numbers",
    ),
    "unknown": (lambda rows: rows, ["citi"], "--keep: column 'citi' does not exist; did you mean 'city'"),
    "twice": (lambda rows: rows, ["city", "city"], "column 'city' is there more than once"),
    "taken": (lambda rows: rows.assign(prediction=1), ["prediction"], "column 'prediction' has the name of one that is made"),
    "lists": (lambda rows: rows.assign(tags=[[1]] * len(rows)), ["tags"], "cannot hold these columns: Unsupported Type:list"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_rows_that_do_not_fit_leave_the_file_as_it_was(prices: SavedModel, case: str, tmp_path: Path) -> None:
    change, keep, reason = REFUSED[case]
    change(houses(100)).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(BadInput, match=reason):
        score(prices, tmp_path / "rows.parquet", tmp_path / "out.csv", *keep)
    assert (tmp_path / "out.csv").read_text() == "older"
    nothing_else(tmp_path, "rows.parquet", "out.csv")


def test_a_value_or_line_that_cannot_be_read_is_told_by_its_row_or_line(prices: SavedModel, tmp_path: Path) -> None:
    rows, path = pd.concat([houses(1000)] * 40, ignore_index=True), tmp_path / "rows.csv"
    rows.astype({"size": object}).assign(size=rows["size"].where(rows.index != 39_000, "large")).to_csv(path, index=False)
    with pytest.raises(BadInput, match=r"column 'size' holds 1 values that are not a number: 'large' \(row 39000 first\)"):
        score(prices, path, tmp_path / "out.csv")
    lines = rows.to_csv(index=False).splitlines()
    lines[35_000] = "1,2,3"
    path.write_text("\n".join(lines))
    with pytest.raises(BadInput, match=r"line 35,001 is no row: 3 columns where the header has 7: '1,2,3'"):
        score(prices, path, tmp_path / "out.csv")
    nothing_else(tmp_path, "rows.csv")


def test_places_that_cannot_be_written_are_refused_before_anything_is_read(prices: SavedModel, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    houses(50).to_parquet(tmp_path / "data" / "rows.parquet")
    (tmp_path / "folder.csv").mkdir()
    for out, reason in (
        ("none/out.csv", "none' does not exist"),
        ("folder.csv", "is a folder"),
        ("out.xlsx", "ends in none of .parquet, .csv, .csv.gz"),
        ("data/rows.parquet", "lies where --data is read from"),
        ("data/other.csv", "lies where --data is read from"),
    ):
        with pytest.raises(BadInput, match=re.escape(reason)):
            score(prices, tmp_path / "data", tmp_path / out)
    with pytest.raises(BadInput, match="is a URL"):
        scored(prices, source(tmp_path / "data"), "s3://bucket/out.csv", SCRATCH / "reading")
    nothing_else(tmp_path, "data", "folder.csv")


WAITING = """
import sys
from pathlib import Path
from batchlab.scoring.predictions import SavedModel, scored
from batchlab.serving.batchlab_serving import _load_pyfunc
from batchlab.sources.parquet import Parquet

def wait(label, share):
    print(label, flush=True)
    sys.stdin.readline()

model = SavedModel(_load_pyfunc(sys.argv[1]), (), "houses", 8, "killed")
scored(model, Parquet(path=sys.argv[2]), sys.argv[3], Path(sys.argv[4]), (), wait)
print("done")
"""


@pytest.mark.slow
def test_a_run_killed_in_the_middle_leaves_no_result_and_the_next_one_removes_its_draft(
    prices: SavedModel, folder: Path, tmp_path: Path
) -> None:
    out, data = tmp_path / "out.parquet", tmp_path / "rows.parquet"
    pd.concat([houses(1500)] * 60, ignore_index=True).to_parquet(data)

    def started() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", WAITING, str(folder), str(data), str(out), str(SCRATCH / "reading")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("scoring row")
        return process

    killed, living = started(), started()
    assert not out.exists()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not out.exists()
    assert len(drafts(tmp_path)) == 2
    score(prices, data, out)
    assert len(drafts(tmp_path)) == 1  # that of the process that lives
    assert set(pd.read_parquet(out)["model_version"]) == {7}
    assert living.communicate("\n" * 99)[0].endswith("done\n")
    assert set(pd.read_parquet(out)["model_version"]) == {8}
    nothing_else(tmp_path, "rows.parquet", "out.parquet")


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(".out.parquet.*.part"))


PEAKS = """
import sys
from pathlib import Path
from batchlab.scoring.predictions import SavedModel, scored
from batchlab.serving.batchlab_serving import _load_pyfunc
from batchlab.sources.parquet import Parquet

model = SavedModel(_load_pyfunc(sys.argv[1]), (), "houses", 8, "measured")
for data in sys.argv[2:]:
    scored(model, Parquet(path=data), data + ".out.parquet", Path(data).parent / "reading", ("note",))
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of resident memory is read from /proc")
def test_ten_times_the_rows_take_no_more_memory(folder: Path, tmp_path: Path) -> None:
    portion = pa.Table.from_pandas(houses(50_000).assign(note=[f"{row:0100}" for row in range(50_000)]), preserve_index=False)
    for rows in (200_000, 2_000_000):
        with pq.ParquetWriter(tmp_path / f"{rows}.parquet", portion.schema) as writer:
            for _ in range(rows // 50_000):
                writer.write_table(portion)
    files = [str(tmp_path / f"{rows}.parquet") for rows in (200_000, 2_000_000)]
    done = subprocess.run([sys.executable, "-c", PEAKS, str(folder), *files], check=True, capture_output=True, text=True)
    small, large = map(int, done.stdout.split())
    assert pq.ParquetFile(files[1]).metadata.num_rows == 2_000_000
    assert large - small < 1_800_000 * portion.nbytes / 50_000 / 2  # half of what the further rows take in memory


@contextmanager
def store_of(mlruns: Path) -> Iterator[None]:
    """Work on the store in `mlruns`, in this process too."""
    from tasks import store

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHLAB_MLRUNS", str(mlruns))
        store.client.cache_clear()
        yield
    store.client.cache_clear()


def registered(folder: Path, name: str, target: str = "price") -> "Version":
    """Train, log and register such a model as the champion."""
    from tasks import registry, store
    from tasks.models import log_model

    experiment, result = trained(folder, target)
    run = store.client().create_run(store.experiment_id(name)).info.run_id
    version = registry.registered(name, log_model(run, experiment, result), run, {})
    registry.promoted(version, None)
    return version


def check_own_file(version: "Version", copy: Path) -> None:
    """Models that carry different files run under their own, whichever was loaded first."""
    import mlflow

    from tasks import model_files

    shutil.copytree(mlflow.artifacts.download_artifacts(artifact_uri=version.uri), copy)
    with (copy / "code" / "batchlab_serving.py").open("a") as file:
        file.write('\n\nAGE = "older"\n')
    before = list(sys.path)
    ages = [type(model_files.loaded(uri).get_raw_model()).predict.__globals__.get("AGE") for uri in (version.uri, str(copy), version.uri)]
    assert (ages, sys.path) == ([None, "older", None], before)


def test_the_champion_predicts_at_the_command_line_and_in_three_lines_of_pandas(mlruns: Path, scratch: Path) -> None:
    rows = houses(500).drop(columns=["price", "band"])
    rows.to_csv("new.csv", index=False)
    rows.drop(columns="city").to_csv("lacking.csv", index=False)
    (code,) = re.findall(r"```python\n(import mlflow.+?)```", (CHECKOUT / "docs" / "serving.md").read_text(), re.DOTALL)
    with store_of(mlruns):
        version, made = registered(scratch, "houses"), dict[str, Any]()
        exec(code, made)
        check_own_file(version, scratch / "older")

    def predict(*options: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)}
        return subprocess.run([command_path(), "predict", *options], env=environment, capture_output=True, text=True, check=False)

    done = predict("--data", "new.csv", "--out", "out.parquet", "--keep", "rooms, city")
    assert done.returncode == 0, done.stderr
    assert f"500 rows predicted by 'houses' version 1 (run {version.run_id}) into out.parquet" in done.stdout
    found = pd.read_parquet("out.parquet")
    assert list(found.columns) == ["rooms", "city", "prediction", "model_version", "run_id"]
    assert set(found["run_id"]) == {version.run_id}
    np.testing.assert_allclose(found["prediction"], made["predictions"][:, 0], rtol=1e-9)
    refused = predict("--data", "lacking.csv", "--out", "other.csv")
    assert (refused.returncode, complaints(refused)) == (2, 1)
    assert "lack column 'city'" in refused.stderr
