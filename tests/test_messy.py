"""Tables as they come, made with their truth known: every value used is right, every row not used has its reason, nothing else is left."""

import gzip
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from batchlab.errors import BadInput
from batchlab.serving.batchlab_serving import UnusableRows, frame_packed
from batchlab.sources.arrow import Arrow
from batchlab.sources.csv import Csv
from batchlab.sources.parquet import Parquet
from batchlab.table import PackedTable, pack
from batchlab.table.columns import CheckRule, Columns
from batchlab.table.packing import BAD_LINE

ANY_SHARE = CheckRule(largest_quarantined=1.0)


@dataclass
class Truth:
    """What was written: the values of every row that can be used, and where each of the others is and why it cannot."""

    used: list[dict[str, Any]] = field(default_factory=list)
    bad_lines: dict[int, tuple[str, str]] = field(default_factory=dict)
    bad_rows: dict[int, tuple[str, dict[str, str]]] = field(default_factory=dict)
    unlabelled: int = 0
    records: int = 0
    parsed: int = 0


class Messy:
    """Writes a messy CSV file, record by record, and remembers what it wrote."""

    words = (
        "plain",
        "ni\u00f1o",
        "\u00c5rhus",
        'He said "hi"',
        "one,two;three|four",
        "two\nlines",
        "caf\u00e9 de la gare",
        "tab\there",
        '"',
    )

    def __init__(self, delimiter: str, comma: bool, encoding: str, end: str, seed: int) -> None:
        self.delimiter, self.comma, self.encoding, self.end = delimiter, comma, encoding, end
        self.random, self.truth, self.line = random.Random(seed), Truth(), 2
        self.names = ["number", "size", "note", "city", "flag", "when", "nothing", "always", "price"]
        self.content = bytearray(delimiter.join(self.names).encode(encoding) + end.encode())

    def write(self, rows: int, categories: int) -> bytes:
        for number in range(rows):
            kind = self.random.random()
            if kind < 0.02:
                self.broken(number)
            elif kind < 0.03:
                self.unusable(number, categories)
            else:
                self.usable(number, categories)
        return bytes(self.content)

    def record(self, values: dict[str, str]) -> None:
        text = self.delimiter.join(self.quoted(values[name]) for name in self.names) + self.end
        self.content += text.encode(self.encoding)
        self.line += text.count("\n")
        self.truth.records += 1
        self.truth.parsed += 1

    def quoted(self, value: str) -> str:
        if any(sign in value for sign in (self.delimiter, '"', "\n")) or (value and self.random.random() < 0.1):
            return '"' + value.replace('"', '""') + '"'
        return value

    def row(self, number: int, categories: int) -> tuple[dict[str, str], dict[str, Any]]:
        """One row as it is written, and as it is meant."""
        size, price = self.size(), round(self.random.gauss(0, 1e3), 3)
        city = f"k{number % categories:05}" if self.random.random() > 0.03 else None
        flag, when = self.random.choice([True, False, None]), self.random.choice([None, *[0] * 20])
        if when is not None:
            when = self.random.randrange(-30_000, 60_000)
        date = None if when is None else pd.Timestamp(when, unit="D")
        style = self.random.choice(["%Y-%m-%d", "%d.%m.%Y", "%d %b %Y"])
        note = self.random.choice(self.words)
        written = {
            "number": str(number),
            "size": size[0],
            "note": note,
            "city": city or self.gap(),
            "flag": self.gap() if flag is None else self.random.choice([str(flag), str(flag).lower(), str(flag).upper()]),
            "when": self.gap() if date is None else date.strftime(style),
            "nothing": self.gap(),
            "always": "7",
            "price": self.spelled(price),
        }
        meant = {"number": number, "size": size[1], "note": note, "city": city, "flag": flag, "when": when, "always": 7, "price": price}
        return written, meant

    def size(self) -> tuple[str, float]:
        """A number in one of the ways that people write them, a gap, or an infinity."""
        value = round(self.random.uniform(-5000, 5000), 4)
        ways = [(self.spelled(value), value)] * 8 + [(self.gap(), np.nan), (self.random.choice(["inf", "-Infinity", "INF"]), np.nan)]
        ways += [(f"  {self.spelled(value)} ", value), ("+" + self.spelled(abs(value)), abs(value)), ("12e3", 12e3), ("41", 41.0)]
        return self.random.choice(ways)

    def spelled(self, value: float) -> str:
        return str(value).replace(".", ",") if self.comma else str(value)

    def gap(self) -> str:
        return self.random.choice(["", "", "NA", "null", "NaN", "  "])

    def usable(self, number: int, categories: int) -> None:
        written, meant = self.row(number, categories)
        self.record(written)
        self.truth.used.append(meant)

    def unusable(self, number: int, categories: int) -> None:
        written, _ = self.row(number, categories)
        column, value, reason = self.random.choice(
            [
                ("size", "large", "column 'size': 'large' is not a number"),
                ("size", "0x1F", "column 'size': '0x1F' is not a number"),
                ("when", "31.02.2020", "column 'when': '31.02.2020' is not a date in a known format"),
                ("when", "soon", "column 'when': 'soon' is not a date in a known format"),
                ("price", "", "target 'price' is missing"),
                ("price", "-inf", "target 'price' is infinite"),
                ("price", "much", "column 'price': 'much' is not a number"),
            ]
        )
        written[column] = value
        if reason == "target 'price' is missing":
            self.truth.unlabelled += 1
        else:
            self.truth.bad_rows[self.truth.parsed] = (reason, written)
        self.record(written)

    def broken(self, number: int) -> None:
        sign = self.delimiter
        ways = {
            sign.join([str(number)] * 4): "4 columns where the header has 9",
            sign.join([str(number)] * 12): "12 columns where the header has 9",
            f'{number}{sign}"closed" and on{sign * 7}1': "text follows a closing quote",
            f"{number}{sign}a\0b{sign * 7}1": "a NUL byte",
        }
        text, reason = self.random.choice(list(ways.items()))
        content = text.encode(self.encoding)
        if self.encoding.startswith("utf-8") and self.random.random() < 0.25:
            content, reason = f"{number}{sign}caf".encode() + b"\xe9" + (sign * 7).encode() + b"1", "byte 0xE9, which is not UTF-8"
            text = content.decode("utf-8", "replace")
        self.content += content + self.end.encode()
        self.truth.bad_lines[self.line] = (reason, text)
        self.line += 1
        self.truth.records += 1


@pytest.mark.parametrize("variant", ["utf-8 with a mark", "latin-1 with decimal commas"])
def test_every_row_of_a_messy_file_is_used_as_it_was_meant_or_in_quarantine_with_its_reason(variant: str, tmp_path: Path) -> None:
    utf8 = variant.startswith("utf-8")
    messy = Messy(",", False, "utf-8", "\n", seed=1) if utf8 else Messy(";", True, "latin-1", "\r\n", seed=2)
    content = messy.write(100_000, 50_000)
    (tmp_path / "rows.csv").write_bytes((b"\xef\xbb\xbf" if utf8 else b"") + content)
    table, truth = pack(Csv(path=tmp_path / "rows.csv"), Columns(target="price"), tmp_path / "tables"), messy.truth
    assert table.schema.rows == len(truth.used)
    assert table.schema.rows + sum(table.schema.quarantined.values()) + truth.unlabelled == truth.records == 100_000
    assert (table.schema.unlabelled, table.schema.source_rows) == (truth.unlabelled, truth.records)
    assert table.schema.quarantined[BAD_LINE] == len(truth.bad_lines) > 1800
    check_used(table, pd.DataFrame(truth.used))
    check_quarantined(table, truth)
    notes = " ".join(table.schema.notes)
    assert f"column 'nothing' is empty: all {truth.parsed:,} values are missing" in notes
    assert "column 'when' holds dates in 3 formats: " in notes
    assert "encoding utf-8" in notes if utf8 else "delimiter ';', encoding cp125" in notes


def check_used(table: PackedTable, meant: pd.DataFrame) -> None:
    columns = {column.name: column for column in table.schema.columns}
    kinds = {"number": "number", "size": "number", "note": "category", "city": "category", "flag": "boolean", "when": "datetime"}
    assert {name: column.kind for name, column in columns.items()} == kinds | {"always": "number"}
    packed = dict(zip(table.schema.packed_names, np.asarray(table.features).T, strict=True))
    np.testing.assert_array_equal(table.target, meant["price"])
    for name in ("number", "size", "always"):
        np.testing.assert_array_equal(packed[name] + np.float32(columns[name].offset), meant[name].to_numpy(np.float32), name)
    np.testing.assert_array_equal(packed["flag"], meant["flag"].map({True: 1.0, False: 0.0}).to_numpy(np.float32))
    days = meant["when"].to_numpy(np.float64)
    np.testing.assert_array_equal(packed["when.days"], days.astype(np.float32))
    np.testing.assert_allclose(packed["when.week_sin"], np.sin(2 * np.pi * days / 7), atol=1e-5)
    np.testing.assert_allclose(packed["when.year_cos"], np.cos(2 * np.pi * days / 365.2425), atol=1e-5)
    for name, different in (("note", len(Messy.words)), ("city", 50_000)):
        vocabulary = np.array([*columns[name].vocabulary, None], object)
        assert len(set(columns[name].vocabulary)) == len(columns[name].vocabulary) <= different
        words = vocabulary[np.where(np.isnan(packed[name]), -1, packed[name]).astype(np.int64)]
        assert words.tolist() == [None if pd.isna(word) else word for word in meant[name]]
    assert len(columns["city"].vocabulary) > 49_000


def check_quarantined(table: PackedTable, truth: Truth) -> None:
    assert table.quarantine is not None
    kept = pd.read_parquet(table.quarantine)
    lines, rows = kept[kept["line"].notna()], kept[kept["row"].notna()]
    assert len(lines) + len(rows) == len(kept)
    found = {int(item.line): (item.reason, item.text) for item in lines.itertuples()}
    assert found == truth.bad_lines
    given = {int(item.row): (item.reason, json.loads(item.text)) for item in rows.itertuples()}
    assert given == truth.bad_rows


FLIPPED_OR_CUT = 24
ROWS = 300


def plain_table(rows: int = ROWS) -> pa.Table:
    """Rows that know what they should hold: every column follows from `number`."""
    number = np.arange(rows)
    words = pa.array([f"word {one % 9}" for one in number.tolist()])
    return pa.table({"number": number, "x": number * 0.5 - 7, "word": words, "y": number * 1.25})


def written(kind: str, folder: Path, table: pa.Table) -> bytes:
    """Return the bytes of a file of the table; Parquet with checksums of its pages."""
    path = folder / f"whole.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=100, write_page_checksum=True, use_dictionary=["word"])
    elif kind in ("arrow", "arrows"):
        with (ipc.new_file if kind == "arrow" else ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    else:
        text: bytes = table.to_pandas().to_csv(index=False).encode()
        packed = {"csv": lambda: text, "csv.gz": lambda: gzip.compress(text), "csv.zst": lambda: pa.compress(text, "zstd", asbytes=True)}
        path.write_bytes(packed[kind]())
    return path.read_bytes()


def damages(whole: bytes, seed: int) -> Iterator[tuple[bytes, int]]:
    """Yield damaged copies, and how many bytes of each are not as they were (a cut counts as one)."""
    chance = random.Random(seed)
    for number in range(FLIPPED_OR_CUT):
        content = bytearray(whole)
        if number % 3 == 0:
            yield bytes(content[: chance.randrange(1, len(content))]), 1
            continue
        flips = chance.choice([1, 1, 2, 5])
        for _ in range(flips):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        yield bytes(content), flips


def source_of(path: Path) -> Any:
    kinds = {".parquet": Parquet, ".arrow": Arrow, ".arrows": Arrow, ".feather": Arrow}
    return kinds.get(path.suffix, Csv)(path=path)


def nothing_is_left(tables: Path) -> None:
    """No draft, and no folder that is no table."""
    if tables.exists():
        folders = [path for path in tables.iterdir() if path.is_dir() and path.name not in (".reading", "contracts")]
        assert all((path / "schema.json").exists() and not path.name.startswith(".packing-") for path in folders), folders


def wrong_rows(table: PackedTable) -> int:
    """How many packed rows do not hold what follows from their `number`."""
    names = table.schema.packed_names
    packed = {name: np.asarray(table.features)[:, place].astype(np.float64) for place, name in enumerate(names)}
    offset = {column.name: column.offset for column in table.schema.columns}
    number = packed["number"] + offset["number"]
    (word,) = (column for column in table.schema.columns if column.name == "word")
    words = np.array([*word.vocabulary, None], object)[np.where(np.isnan(packed["word"]), -1, packed["word"]).astype(np.int64)]
    right = (packed["x"] + offset["x"] == number * 0.5 - 7) & (np.asarray(table.target, np.float64) == number * 1.25)
    right &= np.array([meant == found for meant, found in zip([f"word {one % 9:.0f}" for one in number], words, strict=True)])
    return int((~right).sum())


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "csv.zst", "parquet", "arrow", "arrows"])
def test_a_damaged_file_is_refused_or_makes_a_table_that_is_right_but_for_the_damage(kind: str, tmp_path: Path) -> None:
    whole, refused, packed = written(kind, tmp_path, plain_table()), 0, 0
    for number, (content, damaged) in enumerate(damages(whole, seed=len(kind))):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / f"rows.{kind}").write_bytes(content)
        try:
            table = pack(source_of(folder / f"rows.{kind}"), Columns(target="y", task="regression"), folder / "tables", rule=ANY_SHARE)
        except BadInput:
            refused += 1
        else:
            packed += 1
            assert len(table.features) == len(table.target) == table.schema.rows
            if {"number", "x", "word"} == set(table.schema.features):
                check_damaged(kind, table, content, damaged)
        nothing_is_left(folder / "tables")
    assert refused + packed == FLIPPED_OR_CUT
    assert (packed if kind == "csv" else refused) > FLIPPED_OR_CUT // 4


def check_damaged(kind: str, table: PackedTable, content: bytes, damaged: int) -> None:
    """Hold a table of a damaged file to what its format can promise: all rows where it has checksums, else those not damaged."""
    if kind in ("csv.gz", "parquet"):
        assert (table.schema.source_rows, table.schema.quarantined, wrong_rows(table)) == (ROWS, {}, 0)
    if kind == "csv":  # a flipped sign is in one line, and may join or divide two
        assert wrong_rows(table) <= 2 * damaged
        assert abs(table.schema.source_rows - (content.count(b"\n") - 1)) <= damaged + 1
        assert table.schema.source_rows >= ROWS - 2 * damaged or len(content) < len(plain_table().to_pandas().to_csv(index=False))
    if kind in ("arrow", "arrows"):  # no checksums: a flipped value is a value
        assert wrong_rows(table) <= 2 * damaged


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.zst", "parquet", "arrow"])
def test_a_file_with_another_ending_or_without_content_is_refused(ending: str, tmp_path: Path) -> None:
    contents = {kind: written(kind, tmp_path, plain_table()) for kind in ("csv", "csv.gz", "csv.zst", "parquet", "arrow")}
    contents |= {
        "nothing": b"",
        "zeros": bytes(1000),
        "header": b"number,x,word,y\n",
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }
    del contents[ending]
    for number, (name, content) in enumerate(contents.items()):
        path = tmp_path / str(number) / f"rows.{ending}"
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"rows\.|there are no rows|does not exist"):
            pytest.fail(f"{name} as {ending}: {pack(source_of(path), Columns(target='y'), path.parent / 'tables').schema}")
        nothing_is_left(path.parent / "tables")


@pytest.mark.parametrize("ending", [pytest.param("csv", marks=pytest.mark.slow), "parquet"])
def test_ten_thousand_columns_are_packed_in_bounded_time_and_memory(ending: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(150, 10_000)).round(4)
    frame = pd.DataFrame(values, columns=[f"c{number}" for number in range(10_000)])
    frame.to_csv(tmp_path / "rows.csv", index=False) if ending == "csv" else frame.to_parquet(tmp_path / "rows.parquet")
    code = f"""
from pathlib import Path
from batchlab.sources import located
from batchlab.sources.{ending} import {ending.capitalize()}
from batchlab.table import pack
from batchlab.table.columns import Columns
pack({ending.capitalize()}(path="rows.{ending}"), Columns(target="c0"), Path("tables"))
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 1500
    (folder,) = (tmp_path / "tables").glob("*/schema.json")
    table = PackedTable.open(folder.parent)
    np.testing.assert_array_equal(table.features, values[:, 1:].astype(np.float32))
    nothing_is_left(tmp_path / "tables")


BATCHES = 1000
MODELS = {
    "linear one_hot regression": ("linear", "one_hot", "price"),
    "mlp one_hot classes": ("mlp", "one_hot", "band"),
    "mlp embedding classes": ("mlp", "embedding", "band"),
}
PREDICTING = """
import sys
import mlflow, numpy as np, pandas as pd
sys.modules["batchlab"] = None  # importing it would fail
mlflow.set_tracking_uri(sys.argv[1])
rows, wrong = pd.read_parquet("rows.parquet"), 0
for uri in sys.argv[4:]:
    model, chance = mlflow.pyfunc.load_model(uri), np.random.default_rng(0)
    expected = np.load(uri.rsplit("/", 1)[1] + ".npy")
    for batch in range(int(sys.argv[2])):
        some = chance.integers(0, len(rows), chance.integers(1, 40))
        shuffled = rows.iloc[some][chance.permutation(rows.columns)]
        wrong = max(wrong, float(np.abs(np.asarray(model.predict(shuffled)) - expected[some]).max()))
print(wrong)
model = mlflow.pyfunc.load_model(sys.argv[3])
strange = rows.head(6).assign(city=["Paris", None, "", "Rome", "NA", "\\u00e9"], size=[None, float("inf"), 1e30, -5, 0, 3], sold=pd.NaT)
print(np.isfinite(np.asarray(model.predict(strange))).all())
kinds = {"a missing column": rows.drop(columns=["size"]), "a renamed one": rows.rename(columns={"city": "town"})}
kinds |= {"text for numbers": rows.assign(size="large"), "numbers for dates": rows.assign(sold=5)}
kinds |= {"dates for numbers": rows.assign(size=rows["sold"]), "times for booleans": rows.assign(garden=rows["sold"])}
kinds |= {"lists for categories": rows.assign(city=[[1]] * len(rows))}
for kind, frame in kinds.items():
    try:
        print(kind, model.predict(frame))
    except Exception as error:
        print(kind, "|", " ".join(str(error).split()))
"""


def houses(rows: int = 1500) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    frame = pd.DataFrame({"size": chance.normal(80, 30, rows), "rooms": chance.integers(1, 9, rows), "garden": chance.random(rows) < 0.4})
    frame["sold"] = pd.Timestamp("2019-01-01") + pd.to_timedelta(chance.integers(0, 10**8, rows), "s")
    frame["city"] = chance.choice(["Rome", "Oslo", "Bern", "Lima"], rows)
    frame["price"] = 3 * frame["size"] + 20 * frame["garden"] + 10 * (frame["city"] == "Oslo") + chance.normal(0, 5, rows)
    frame["band"] = pd.cut(frame["price"], 3, labels=["low", "middle", "high"]).astype(str)
    for column in ("size", "sold", "city"):
        frame.loc[chance.random(rows) < 0.1, column] = None
    return frame


def recorded(name: str, folder: Path, frame: pd.DataFrame) -> tuple[str, np.ndarray[Any, Any]]:
    """Train a small model and log it as a comparison does; return its address, and what the training pipeline predicts for the rows."""
    import torch

    from batchlab.config import load_profile
    from batchlab.engine.backends.base import seeded_network
    from batchlab.experiment import Experiment
    from batchlab.rows.split import split
    from batchlab.rows.training_data import tensors
    from tasks import store
    from tasks.models import log_model

    model, encoding, target = MODELS[name]
    other = {"price": "band", "band": "price"}[target]
    overrides = [f"model.kind={model}", f"encoding.categories={encoding}", f'columns.drop=["{other}"]', "train.precision=float64"]
    overrides += ["train.learning_rate=[0.05]", "train.epochs=3"]
    profile = load_profile("quick", data=str(folder / "rows.parquet"), target=target, strategies=["mini_batch"], overrides=overrides)
    table = pack(profile.source, profile.named_columns(), folder / f"tables-{target}", profile.seed)
    experiment = Experiment(profile, table, split(table, profile.split, profile.seed))
    (result,) = experiment.train("mini_batch")
    assert result.diverged_at is None
    assert table.schema.rows == len(frame)
    network = seeded_network(experiment.model, experiment.shape, 0).double()
    with torch.no_grad():
        for part, weights in network.named_parameters():
            weights.copy_(torch.from_numpy(np.asarray(result.weights[part])))
        inputs, _ = tensors(table, np.arange(len(frame)), experiment.preparation, torch.float64)
        validation = experiment.data.validation_features
        assert torch.equal(inputs[torch.from_numpy(experiment.split.validation)], validation)  # they are what training saw
        outputs = network(inputs)
    unscaled = outputs * experiment.preparation.target_scale + experiment.preparation.target_mean
    run = store.client().create_run(store.client().create_experiment(f"messy {name}"))
    uri = log_model(run.info.run_id, experiment, result)
    return uri, (outputs.softmax(1) if target == "band" else unscaled).numpy()


@pytest.mark.slow
def test_a_thousand_batches_of_raw_rows_in_any_order_of_columns_get_the_training_pipelines_predictions(tmp_path: Path) -> None:
    from tasks import store

    frame = houses()
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    uris = []
    for name in MODELS:
        uri, expected = recorded(name, tmp_path, frame)
        np.save(tmp_path / f"{uri.rsplit('/', 1)[1]}.npy", expected)
        assert np.ptp(expected[:, 0]) > 0.1
        uris.append(uri)
    arguments = [store.tracking_uri(), str(-(-BATCHES // len(uris))), uris[0], *uris]
    done = subprocess.run([sys.executable, "-c", PREDICTING, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    largest, finite, *refusals = done.stdout.splitlines()
    assert float(largest) < 1e-6
    assert finite == "True"
    said = dict(line.split(" | ", 1) for line in refusals)
    for kind, words in {
        "a missing column": ("size",),
        "a renamed one": ("city",),
        "text for numbers": ("column 'size' holds", "number"),
        "numbers for dates": ("column 'sold' holds int64", "dates"),
        "dates for numbers": ("column 'size' holds timestamp", "numbers"),
        "times for booleans": ("column 'garden' holds timestamp", "true and false"),
        "lists for categories": ("column 'city' holds list", "categories"),
    }.items():
        assert all(word in said[kind] for word in words), said[kind]


def packed_frame(frame: pd.DataFrame | pa.Table, folder: Path, rule: CheckRule = ANY_SHARE, **columns: Any) -> PackedTable:
    folder.mkdir(exist_ok=True)
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, folder / "rows.parquet")
    return pack(Parquet(path=folder / "rows.parquet"), Columns(**{"target": "y", **columns}), folder / "tables", rule=rule)


def packed_text(values: list[str], folder: Path, others: str = "1.5", **columns: Any) -> PackedTable:
    """Pack a CSV file whose column `c` holds the values, repeated to 200 rows; column `other` tells how numbers are written."""
    rows = [f'{number};"{values[number % len(values)]}";{others}\n' for number in range(200)]
    (folder / "rows.csv").write_text("y;c;other\n" + "".join(rows))
    return pack(Csv(path=folder / "rows.csv"), Columns(**{"target": "y", **columns}), folder / "tables", rule=ANY_SHARE)


def values_of(table: PackedTable, name: str) -> list[float]:
    (column,) = (column for column in table.schema.columns if column.name == name)
    place = table.schema.packed_names.index(column.packed_names[0])
    return [float(value) for value in np.asarray(table.features)[:, place].astype(np.float64) + column.offset]


@pytest.mark.parametrize(
    ("values", "others", "expected", "note"),
    [
        (["1,234", "12,500"], "1.5", [1234, 12500], None),
        (["1,234", "12,500"], "1,5", [1.234, 12.5], None),
        (["1.234", "12.500"], "1,5", [1234, 12500], None),
        (["1.234", "12.500"], "1.5", [1.234, 12.5], None),
        (
            ["1,234", "12,500"],
            "7",
            [1234, 12500],
            "column 'c' holds numbers like '1,234', which could be 1.234 or 1234; it was read as 1234",
        ),
        (["1,234.50", "2,000,000"], "7", [1234.5, 2e6], None),
        (["1.234,50", "-,5", "1,5e2", "+INF"], "7", [1234.5, -0.5, 150, np.nan], None),
        (["0.125", "1.125"], "7", [0.125, 1.125], None),
    ],
)
def test_separators_of_thousands_and_decimals_are_told_apart_or_said_to_be_unclear(
    values: list[str], others: str, expected: list[float], note: str | None, tmp_path: Path
) -> None:
    table = packed_text(values, tmp_path, others)
    np.testing.assert_allclose(values_of(table, "c")[: len(expected)], expected, rtol=1e-6)
    assert [text for text in table.schema.notes if "could be" in text] == ([note] if note else [])


@pytest.mark.parametrize("word", ["nAn", "nan(1)", "0x10", "\u0661\u0662", "1_000", "\u22125", "(5)", "5%", "$5", "1e", "1 00"])
def test_what_is_no_number_in_a_column_of_numbers_is_in_quarantine_whatever_else_is_in_its_portion(word: str, tmp_path: Path) -> None:
    table = packed_text(["2"] * 30 + [word] + ["3"] * 9, tmp_path)
    assert table.schema.quarantined == {"column 'c' holds what is not a number": 5}
    assert pd.read_parquet(table.quarantine)["reason"].tolist() == [f"column 'c': {word!r} is not a number"] * 5
    assert set(values_of(table, "c")) == {2.0, 3.0}


def test_a_column_of_numbers_that_turns_into_text_is_refused_and_one_of_codes_is_a_category(tmp_path: Path) -> None:
    rows, text = 140_000, 60_000
    numbers = [f"{number}.25" for number in range(rows)]
    frame = pd.DataFrame({"y": np.arange(rows + text) * 0.5, "c": numbers + [f"text {number % 50}" for number in range(text)]})
    with pytest.raises(BadInput, match=r"'c' \(more than [0-9,]+ different values in 200,000 rows; 70% are numbers\)"):
        packed_frame(frame, tmp_path)
    with pytest.raises(BadInput, match=r"target 'c' holds text with more than .* different values, more than 1000 classes"):
        packed_frame(frame, tmp_path / "as target", target="c")
    codes = [str(number % 900) for number in range(rows)] + [f"text {number % 50}" for number in range(text)]
    table = packed_frame(frame.assign(c=codes), tmp_path / "codes")
    assert len(table.schema.columns[0].vocabulary) == 950
    assert [table.schema.columns[0].vocabulary[int(code)] for code in values_of(table, "c")] == codes


def test_a_million_categories_stay_within_memory_and_are_said_to_be_too_many(tmp_path: Path) -> None:
    rows = 1_000_000
    frame = pd.DataFrame({"y": np.arange(rows) * 0.5, "c": np.char.mod("customer %d", np.arange(rows))})
    with pytest.raises(BadInput, match=r"'c' \(more than 5[0-9]{2},[0-9]{3} different values in 1,000,000 rows\); leave them out"):
        packed_frame(frame, tmp_path)
    table = packed_frame(frame, tmp_path, categorical=["c"])
    assert "column 'c' has more than 5" in " ".join(table.schema.notes)
    assert 200_000 < len(table.schema.columns[0].vocabulary) <= 500_000


DAY = pd.Timedelta("1D")


def test_placeholder_dates_and_dates_before_1970_are_days_and_break_nothing(tmp_path: Path) -> None:
    days = np.array(["0001-01-01", "1969-12-31", "1900-02-28", "9999-12-31", "2020-02-29", "2262-04-12"], "datetime64[D]")
    for number, kind in enumerate((pa.date32(), pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Berlin"), pa.string())):
        table = pa.table({"y": np.arange(60.0) ** 2, "c": pa.array(np.tile(days, 10)).cast(kind)})
        packed = packed_frame(table, tmp_path / str(number))
        np.testing.assert_array_equal(values_of(packed, "c")[:6], days.astype(np.int64).astype(np.float32))
        assert packed_frame(table, tmp_path / str(number)).path == packed.path  # its contract can be read again


def test_dates_that_no_computer_counts_in_microseconds_are_in_quarantine(tmp_path: Path) -> None:
    for number, (far, kind) in enumerate(((2**31 - 1, pa.date32()), (-(2**62), pa.timestamp("ms")), (2**60, pa.timestamp("ms")))):
        raw = pa.array([far if row == 5 else row for row in range(60)], pa.int32() if kind == pa.date32() else pa.int64())
        table = packed_frame(pa.table({"y": np.arange(60.0) ** 2, "c": raw.cast(kind)}), tmp_path / str(number))
        assert table.schema.quarantined == {"column 'c' holds what is not a date within 280,000 years of 1970": 1}
        assert "out of range" in pd.read_parquet(table.quarantine)["text"].item()


HOSTILE = {
    "a view": pa.array(["a", "b", None] * 20, pa.string_view()),
    "a dictionary": pa.array(["a", "b", None] * 20).dictionary_encode(),
    "half numbers": pa.array(np.arange(60).astype(np.float16)),
    "decimals": pa.array(range(60)).cast(pa.decimal128(38, 3)),
    "nanoseconds of a day": pa.array([1001] * 60).cast(pa.time64("ns")),
    "nulls": pa.nulls(60),
    "no dates": pa.nulls(60, pa.date32()),
    "far seconds": pa.array([10**15, 5, None] * 20, pa.timestamp("s")),
    "a zone that nobody knows": pa.array([1, 2, 3] * 20, pa.timestamp("us", "Mars/Base")),
    "a run": pa.RunEndEncodedArray.from_arrays([60], ["a"]),
    "bytes": pa.array([b"a", b"\xff", None] * 20),
    "a list": pa.array([[1], [2], None] * 20),
    "durations": pa.array([1001, 2, None] * 20, pa.duration("ns")),
}
REFUSED = ("a run", "bytes", "a list")


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("part", ["feature", "dropped", "categorical", "group", "key", "time", "weight", "target"])
def test_columns_of_any_type_are_packed_or_refused_by_name_in_every_part(kind: str, part: str, tmp_path: Path) -> None:
    unusable = [str(number) if number % 30 else "x" for number in range(60)]  # rows that go to quarantine with all their columns
    table = pa.table({"y": np.arange(60.0) ** 2, "z": unusable, "held": HOSTILE[kind]})
    with ipc.new_file(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    chosen = {"feature": {}, "dropped": {"drop": ["held"]}, "categorical": {"categorical": ["held"]}}.get(part, {part: "held"})
    columns = Columns(**{"target": "y", **chosen})
    may_be_refused = part != "dropped" and (kind in REFUSED or part not in ("feature", "categorical"))
    try:
        packed = pack(Arrow(path=tmp_path / "rows.arrow"), columns, tmp_path / "tables", rule=ANY_SHARE)
    except BadInput as error:
        refusal = str(error)
        assert may_be_refused, refusal
        assert "held" in refusal
    else:
        assert kind not in REFUSED or part == "dropped"
        assert packed.schema.source_rows == 60
        assert packed.schema.quarantined["column 'z' holds what is not a number"] == 2
    nothing_is_left(tmp_path / "tables")


def test_numbers_that_are_names_are_not_confused_silently(tmp_path: Path) -> None:
    names = 2**53 + np.arange(60)
    frame = pd.DataFrame({"y": np.arange(60.0) ** 2, "id": names})
    with pytest.raises(
        BadInput, match=r"column 'id' holds whole numbers like 9\.0072e\+15, of which only multiples of 2 can be told apart"
    ):
        packed_frame(frame, tmp_path)
    assert len(packed_frame(frame, tmp_path / "1", categorical=["id"]).schema.columns[0].vocabulary) == 60
    keys = packed_frame(frame.assign(z=1), tmp_path / "2", key="id").side_column("key")
    assert len(np.unique(np.asarray(keys))) == 60
    with pytest.raises(BadInput, match=r"target 'id' has classes beyond 2\^53"):
        packed_frame(frame.assign(id=names // 30 * 30 + 1), tmp_path / "3", target="id")


def test_a_group_or_key_that_is_blank_in_a_text_file_is_missing_as_it_is_in_any_other(tmp_path: Path) -> None:
    for part in ("group", "key"):
        table = packed_text(["a", "", "b", "NA"], tmp_path, **{part: "c"})
        assert table.schema.quarantined == {f"{part} 'c' is missing": 100}


def test_a_table_without_a_usable_row_is_refused_with_the_reasons_whatever_share_is_allowed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": [np.inf] * 5, "z": range(5)}).astype(float)
    with pytest.raises(BadInput, match=r"5 of 5 rows \(100\.0%\) cannot be used: target 'y' is infinite: 5\..* They are in '"):
        packed_frame(frame, tmp_path)


def test_a_contract_can_list_the_values_of_any_column_and_takes_them_as_packing_does(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": np.arange(60.0) ** 2, "rooms": [1, 2, 3] * 20, "city": [" Rome", "Oslo ", "NA"] * 20})
    packed_frame(frame, tmp_path)
    (path,) = (tmp_path / "tables" / "contracts").iterdir()
    terms = json.loads(path.read_text())
    terms["columns"]["rooms"]["values"], terms["columns"]["city"]["values"] = ["1", "2"], ["Rome", "Oslo"]
    path.write_text(json.dumps(terms))
    table = packed_frame(frame, tmp_path)
    assert table.schema.quarantined == {"column 'rooms' is outside its contract": 20}


def test_a_contract_that_was_deleted_is_inferred_anew_even_when_the_table_is_there(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": np.arange(60.0) ** 2, "z": range(60)})
    first = packed_frame(frame, tmp_path)
    (path,) = (tmp_path / "tables" / "contracts").iterdir()
    terms = path.read_text()
    path.unlink()
    assert packed_frame(frame, tmp_path).path == first.path
    assert path.read_text() == terms
    with pytest.raises(BadInput, match="column 'z' holds dates instead of numbers"):
        packed_frame(frame.assign(z=pd.Timestamp("2020-01-01")), tmp_path)


COLUMNS = {"number": [1.0, 2.0, 3.0], "flag": [True, False, None], "when": pd.to_datetime(["2020-01-01", "2021-05-05", None])}


def served_columns(folder: Path) -> Any:
    """Columns of a table read from typed rows, and of one read from text."""
    frame = pd.DataFrame({name: list(values) * 20 for name, values in COLUMNS.items()}).assign(y=np.arange(60.0) ** 2)
    frame["word"] = ["True", "maybe", "2.5"] * 20
    typed = packed_frame(frame, folder).schema.columns
    frame.to_csv(folder / "rows.csv", index=False)
    return typed, pack(Csv(path=folder / "rows.csv"), Columns(target="y"), folder / "tables").schema.columns


STRANGE = {
    "missing of two kinds": pd.Series([pd.NA, "a", 1], dtype=object),
    "arrays among text": pd.Series([np.array([1, 2]), "a", 1], dtype=object),
    "complex numbers": pd.Series([1 + 2j, 3, 4]),
    "durations": pd.Series(pd.to_timedelta([1, 2, 3], "D")),
    "huge integers": pd.Series([10**30, 1, 2], dtype=object),
    "half characters": pd.Series(["\ud800", "1", "2"], dtype=object),
    "sets": pd.Series([{1}, {2}, {3}]),
    "months": pd.Series(pd.period_range("2020", periods=3, freq="M")),
    "bytes": pd.Series([b"1", b"\xff", b""]),
    "far dates": pd.Series(np.array([2**60, 1, 2], "datetime64[s]")),
    "times of day": pd.Series(pd.to_datetime(["2020-01-01 10:00"] * 3)).dt.time,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_rows_are_predicted_or_refused_by_the_name_of_their_column(kind: str, tmp_path: Path) -> None:
    for columns in served_columns(tmp_path):
        good = pd.DataFrame({**COLUMNS, "word": ["True", "maybe", "new"]})
        assert frame_packed(good, columns).shape == (3, sum(len(column.packed_names) for column in columns))
        for column in columns:
            try:
                found = frame_packed(good.assign(**{column.name: STRANGE[kind]}), columns)
            except UnusableRows as error:
                refusal = str(error)
                assert f"column '{column.name}' holds" in refusal
            else:
                taken = {("number", "huge integers"), ("number", "durations"), ("datetime", "months")}
                assert column.kind == "category" or (column.kind, kind) in taken
                assert found.shape[0] == 3
    with pytest.raises(UnusableRows, match="column 'flag' more than once"):
        frame_packed(pd.concat([good, good[["flag"]]], axis=1), columns)


def test_rows_are_read_as_the_training_rows_were_whatever_type_they_come_in(tmp_path: Path) -> None:
    typed, text = served_columns(tmp_path)
    places = {column.name: column for column in text}
    for column in ("number", "flag", "when"):
        for columns in (typed, text):
            (one,) = (item for item in columns if item.name == column)
            expected = frame_packed(pd.DataFrame({column: COLUMNS[column]}), [one])
            np.testing.assert_array_equal(
                frame_packed(pd.DataFrame({column: pd.Series(COLUMNS[column]).convert_dtypes()}), [one]), expected
            )
    vocabulary = places["word"].vocabulary
    for values, word in (
        (pd.Series([True] * 3), "True"),
        (pd.Series([2.5] * 3), "2.5"),
        (pd.Series(["maybe"] * 3, dtype="category"), "maybe"),
    ):
        np.testing.assert_array_equal(frame_packed(pd.DataFrame({"word": values}), [places["word"]]), [[vocabulary.index(word)]] * 3)
    sparse = pd.Series(pd.arrays.SparseArray([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(frame_packed(pd.DataFrame({"number": sparse}), [typed[0]]), [[1], [np.nan], [3]])
    with pytest.raises(UnusableRows, match=r"column 'flag' holds 1 values that are not true or false: 7 \(row 1 first\)"):
        frame_packed(pd.DataFrame({"flag": [1, 7, 0]}), [places["flag"]])


def test_dates_as_categories_are_the_same_words_in_every_type_and_unit(tmp_path: Path) -> None:
    days = pd.Series(pd.to_datetime(["2020-01-01", "2021-05-05", "2021-05-05 10:30"] * 20, format="ISO8601"))
    table = packed_frame(pd.DataFrame({"y": np.arange(60.0) ** 2, "day": days}), tmp_path, categorical=["day"])
    assert set(table.schema.columns[0].vocabulary) == {"2020-01-01", "2021-05-05", "2021-05-05 10:30:00"}
    for given in (days.astype("datetime64[ns]"), days.astype("datetime64[s]"), days.dt.tz_localize("UTC")):
        np.testing.assert_array_equal(frame_packed(pd.DataFrame({"day": given}), table.schema.columns), table.features)
    dates = pd.DataFrame({"day": days.dt.date[:2]})
    np.testing.assert_array_equal(frame_packed(dates, table.schema.columns), np.asarray(table.features)[:2])


def test_western_text_in_an_old_encoding_is_read_as_western(tmp_path: Path) -> None:
    for number, words in enumerate(
        (["ni\u00f1o", "se\u00f1or"], ["\u00c5se", "r\u00f8d gr\u00f8d"], ["\u00a35", "20\u00b0C"], ["M\u00fcller", "Gr\u00f6\u00dfe"])
    ):
        rows = "".join(f"{row}.5,{words[row % 2]}\n" for row in range(2000))
        (tmp_path / f"{number}.csv").write_bytes(f"y,c\n{rows}".encode("latin-1"))
        table = pack(Csv(path=tmp_path / f"{number}.csv"), Columns(target="y"), tmp_path / "tables")
        assert set(table.schema.columns[0].vocabulary) == set(words)


def test_many_who_pack_the_same_table_at_once_all_get_it(tmp_path: Path) -> None:
    for attempt in range(12):
        folder, failed = tmp_path / str(attempt), []
        folder.mkdir()
        pq.write_table(plain_table(50), folder / "rows.parquet")
        together = threading.Barrier(6)

        def work(folder: Path = folder, together: threading.Barrier = together, failed: list[BaseException] = failed) -> None:
            together.wait()
            try:
                table = pack(Parquet(path=folder / "rows.parquet"), Columns(target="y"), folder / "tables")
                assert (table.schema.rows, wrong_rows(table), len(table.facts), table.example.exists()) == (50, 0, 4, True)
            except BaseException as error:
                failed.append(error)

        workers = [threading.Thread(target=work) for _ in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failed
        nothing_is_left(folder / "tables")


PACKING = """
import sys
from pathlib import Path
from batchlab.errors import BadInput
from batchlab.sources.csv import Csv
from batchlab.table import pack
from batchlab.table.columns import Columns
from batchlab.table.packing import Listener

def fill(label, share):
    if label.startswith("packing") and len(sys.argv) > 3:
        try:
            with open(sys.argv[3], "ab") as file:
                file.write(bytes(1 << 26))
        except OSError:
            pass

print("ready", flush=True)
try:
    pack(Csv(path=sys.argv[1]), Columns(target="y"), Path(sys.argv[2]), listener=Listener(on_share=fill))
    print("packed")
except BadInput as error:
    print("refused:", error)
"""


def long_file(folder: Path) -> Path:
    rows = 120_000
    frame = pd.DataFrame({f"x{number}": np.random.default_rng(number).normal(size=rows).round(3) for number in range(6)})
    frame.assign(word=[f"w{row % 50}" for row in range(rows)], y=frame["x0"] * 2).to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def packing(*arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PACKING, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_pass_that_is_stopped_at_any_moment_leaves_no_table_but_a_whole_one(tmp_path: Path) -> None:
    path, chance = long_file(tmp_path), random.Random(0)
    began = time.monotonic()
    assert packing(path, tmp_path / "whole").communicate()[0] == "packed\n"
    takes = time.monotonic() - began - 0.3
    for how in [signal.SIGKILL] * 3 + [signal.SIGINT] * 2:
        process = packing(path, tmp_path / "tables")
        time.sleep(chance.uniform(0, takes))
        process.send_signal(how)
        process.communicate()
        for schema in (tmp_path / "tables").glob("[!.]*/schema.json"):
            assert PackedTable.open(schema.parent).features.shape == (120_000, 7)
        if how == signal.SIGINT:  # it tidies up behind itself, and behind those who were killed
            nothing_is_left(tmp_path / "tables")
    table = pack(Csv(path=path), Columns(target="y"), tmp_path / "tables")
    (reference,) = (tmp_path / "whole").glob("[!.]*/schema.json")
    for part in ("features", "target"):
        assert (table.path / f"{part}.npy").read_bytes() == (reference.parent / f"{part}.npy").read_bytes()
    nothing_is_left(tmp_path / "tables")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_fills_up_during_packing_is_told_and_keeps_no_half_table(small_disk: Path, tmp_path: Path) -> None:
    output, errors = packing(long_file(tmp_path), small_disk / "tables", small_disk / "filler").communicate()
    assert output.startswith("refused: "), errors
    assert "No space left on device" in output or "are free; make room" in output
    (small_disk / "filler").unlink()
    nothing_is_left(small_disk / "tables")
    assert not list((small_disk / "tables").glob("*/schema.json"))


def test_a_store_that_cannot_be_written_is_told(small_disk: Path, tmp_path: Path) -> None:
    path = long_file(tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    output, errors = packing(path, small_disk / "tables").communicate()
    assert output.startswith(f"refused: the packed table cannot be written under '{small_disk}/tables': Read-only file system"), errors
