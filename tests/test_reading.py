"""Every source opened and read: the same rows at every pass, in bounded memory, and BadInput for all that cannot be read."""

import datetime
import gzip
import inspect
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs, ipc

from batchlab.errors import BadInput
from batchlab.sources import SOURCES, located
from batchlab.sources.arrow import Arrow
from batchlab.sources.base import BadLine, Reading, Source
from batchlab.sources.bundled import Bundled
from batchlab.sources.csv import Csv
from batchlab.sources.digests import Memory, joint_digest
from batchlab.sources.files import FileSource
from batchlab.sources.parquet import Parquet
from batchlab.sources.places import Place, without_password
from batchlab.sources.spool import Spool
from batchlab.sources.sql import Sql
from batchlab.sources.synthetic import Synthetic

Row = dict[str, Any]


def rows_and_bad(reading: Reading) -> tuple[list[Row], list[BadLine]]:
    bad: list[BadLine] = []
    batches = list(reading.batches(bad.append))
    assert all(batch.schema == reading.schema for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()], bad


def read(source: Source, folder: Path) -> list[Row]:
    """Read twice: both passes yield the same rows, and nothing is bad."""
    reading = source.opened(0, folder / "scratch")
    first, second = rows_and_bad(reading), rows_and_bad(reading)
    assert first == second
    assert first[1] == []
    assert reading.row_count in {None, len(first[0])}
    assert reading.share_read == 1.0
    return first[0]


def read_csv(content: bytes | str, folder: Path, name: str = "rows.csv", **settings: Any) -> tuple[Reading, list[Row], list[BadLine]]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = Csv(path=folder / name, **settings).opened(0, folder / "scratch")
    return reading, *rows_and_bad(reading)


# Any source


def test_synthetic_prices_are_the_notebooks_numbers_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.linspace(1, 100, 100).reshape(-1, 1)
    y = 0.5 * x + torch.randn(100, 1) * 10 + 100
    rows = read(Synthetic(rows=100, seed=0), tmp_path)
    np.testing.assert_array_equal([row["day"] for row in rows], x[:, 0].numpy())
    np.testing.assert_array_equal([row["price"] for row in rows], y[:, 0].numpy())


def test_bundled_rows_are_all_there_and_a_fingerprint_belongs_to_the_content(tmp_path: Path) -> None:
    assert len(read(Bundled(dataset="diabetes"), tmp_path)) == 442
    prints = [Synthetic(rows=50).opened(seed, tmp_path).fingerprint for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


def test_bundled_rows_are_kept_from_the_first_time_on_and_loaded_again_where_that_is_damaged(tmp_path: Path) -> None:
    first = Bundled(dataset="wine").opened(0, tmp_path).fingerprint
    (kept,) = tmp_path.iterdir()
    code = f"""
import sys
from pathlib import Path
from batchlab.sources.bundled import Bundled
print(Bundled(dataset="wine").opened(0, Path({str(tmp_path)!r})).fingerprint, "sklearn" in sys.modules)
"""
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.split() == [first, "False"]
    kept.write_bytes(kept.read_bytes()[:100])
    assert Bundled(dataset="wine").opened(0, tmp_path).fingerprint == first


def test_every_kind_of_source_is_found_and_abstract_ones_are_not() -> None:
    assert set(SOURCES) >= {"arrays", "arrow", "bundled", "csv", "dataset", "parquet", "sql", "synthetic"}
    assert not any(inspect.isabstract(kind) for kind in SOURCES.values())


MADE = {
    "arrays": {"path": "rows.npz"},
    "arrow": {"path": "rows.arrow"},
    "csv": {"path": "rows.csv"},
    "dataset": {"factory": "tests.test_items:pictures"},
    "parquet": {"path": "rows.parquet"},
    "sql": {"url": "sqlite:///rows.sqlite", "table": "rows"},
}
"""Sources that need to be told where their rows are; others are as their defaults make them."""


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_every_source_gives_the_same_rows_at_every_pass_under_a_fingerprint_of_their_own(kind: str, scratch: Path) -> None:
    frame = table(200).to_pandas()[["n", "x"]]
    np.savez("rows.npz", **{name: frame[name].to_numpy() for name in frame})
    frame.to_csv("rows.csv", index=False)
    frame.to_parquet("rows.parquet")
    frame.to_feather("rows.arrow")
    with closing(sqlite3.connect("rows.sqlite")) as database:
        frame.to_sql("rows", database, index=False)
    source = SOURCES[kind].model_validate(MADE.get(kind, {}))
    assert read(source, scratch)
    prints = {source.opened(0, scratch / "scratch").fingerprint for _ in range(2)}
    assert len(prints) == 1
    assert source.name


# CSV: how it is written


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-16-le"])
def test_delimiter_and_encoding_are_found_out(delimiter: str, encoding: str, tmp_path: Path) -> None:
    lines = [
        ["größe", "preis", "ort"],
        ["1,5", "2", "Köln"],
        ["2,5", "3", "Zürich, Süd"],
        ["3,5", "", "Łódź" if "utf" in encoding else "Gent"],
    ]
    quoted = [[f'"{value}"' if delimiter in value else value for value in line] for line in lines]
    content = "\r\n".join(delimiter.join(line) for line in quoted).encode(encoding)
    reading, rows, bad = read_csv(content, tmp_path)
    assert bad == []
    assert [list(row.values()) for row in rows] == lines[1:]
    assert reading.schema.names == lines[0]
    assert ("tab" if delimiter == "\t" else delimiter) in reading.description
    assert f"encoding {encoding}" in reading.description
    peeked = Csv(path=tmp_path / "rows.csv").peek()
    assert peeked == reading.schema


def test_what_was_found_out_can_be_overridden(tmp_path: Path) -> None:
    content = "a;b\n'x;y';caf\xe9\n".encode("cp850")
    _, rows, bad = read_csv(content, tmp_path, delimiter=";", quote="'", encoding="cp850")
    assert (rows, bad) == ([{"a": "x;y", "b": "caf\xe9"}], [])
    assert read_csv("a\tb\n1\t2\n", tmp_path, delimiter="\\t")[1] == [{"a": "1", "b": "2"}]
    assert read_csv('a,b\n"1,2\n', tmp_path, quote="")[1] == [{"a": '"1', "b": "2"}]
    for wrong in ({"delimiter": "ab"}, {"quote": "é"}, {"encoding": "utf-9"}, {"encoding": "hex"}):
        with pytest.raises(ValueError, match=r"must be one ASCII sign|is no encoding"):
            Csv(path="rows.csv", **wrong)


def test_single_quotes_are_found_out_and_an_apostrophe_is_none(tmp_path: Path) -> None:
    assert read_csv("a,b\n'x,y',2\n'z',3\n", tmp_path)[1] == [{"a": "x,y", "b": "2"}, {"a": "z", "b": "3"}]
    assert read_csv("a,b\n'tis,2\nit's,3\n", tmp_path)[1] == [{"a": "'tis", "b": "2"}, {"a": "it's", "b": "3"}]


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis"])
def test_text_of_other_alphabets_is_decoded(encoding: str, tmp_path: Path) -> None:
    words = (
        ["Погода сегодня хорошая, и завтра будет дождь"]
        if encoding == "cp1251"
        else ["今日は天気がいいですから散歩しましょう、そして明日は雨でしょう"]
    )
    content = ("город;цена\n" if encoding == "cp1251" else "都市;値段\n") + "".join(f"{words[0]};{i}\n" for i in range(60))
    _, rows, bad = read_csv(content.encode(encoding), tmp_path)
    assert (len(rows), bad) == (60, [])
    assert list(rows[0].values()) == [words[0], "0"]


def test_a_broken_line_in_a_file_of_utf8_is_bad_and_the_file_stays_utf8(tmp_path: Path) -> None:
    lines = [f"{i},Zürich".encode() for i in range(500)]
    lines[77] = b"77,Z\xfcrich"
    reading, rows, bad = read_csv(b"n,city\n" + b"\n".join(lines) + b"\n", tmp_path)
    assert "utf-8" in reading.description
    assert [(each.line, each.reason, each.text) for each in bad] == [(79, "byte 0xFC, which is not UTF-8", "77,Z\ufffdrich")]
    assert [row["n"] for row in rows] == [str(i) for i in range(500) if i != 77]


def test_damage_in_a_file_of_numbers_is_a_bad_line_and_not_another_encoding(tmp_path: Path) -> None:
    lines = [f"{i},{i}.5".encode() for i in range(500)]
    lines[100] = b"100,1\xff\xfe.5"
    _, rows, bad = read_csv(b"n,x\n" + b"\n".join(lines), tmp_path)
    assert (len(rows), [each.line for each in bad]) == (499, [102])


def test_one_accent_far_into_a_file_decides_its_encoding(tmp_path: Path) -> None:
    content = b"n,city\n" + b"1,Rome\n" * 900_000 + "2,Orléans\n".encode("cp1252")
    reading, rows, bad = read_csv(content, tmp_path)
    assert (reading.description, len(rows), rows[-1]["city"], bad) == ("delimiter ',', encoding cp1252", 900_001, "Orléans", [])


# CSV: lines


def test_every_kind_of_bad_line_is_reported_with_its_number_and_the_rest_is_read(tmp_path: Path) -> None:
    content = b'a,b\n\n1,2\n3\n4,5,6\n"x\ny",7\n8,\x00\n\xc3(,9\n   \n"q"r,10\n11,12\n'
    _, rows, bad = read_csv(content, tmp_path, encoding="utf-8")
    assert rows == [{"a": "1", "b": "2"}, {"a": "x\ny", "b": "7"}, {"a": "11", "b": "12"}]
    assert [(each.line, each.reason) for each in bad] == [
        (4, "1 column where the header has 2"),
        (5, "3 columns where the header has 2"),
        (8, "a NUL byte"),
        (9, "byte 0xC3, which is not UTF-8"),
        (11, "text follows a closing quote"),
    ]


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path) -> None:
    content = "a,b\n" + "".join(f"{i},x\n" for i in range(300_000))
    _, rows, bad = read_csv(content.replace("\n1000,x\n", '\n1000,"x\n'), tmp_path)
    assert (len(rows), [(each.line, each.reason, each.text) for each in bad]) == (
        299_999,
        [(1002, "a quote opens and is not closed", '1000,"x')],
    )


def test_a_lost_quote_among_quoted_values_costs_its_line_and_no_row_silently(tmp_path: Path) -> None:
    content = 'a,b\n1,"x\n' + "".join(f'{i},"y"\n' for i in range(2, 100))
    _, rows, bad = read_csv(content, tmp_path)
    assert ([row["a"] for row in rows], [each.line for each in bad]) == ([str(i) for i in range(2, 100)], [2])


def test_values_may_hold_quotes_line_ends_and_delimiters(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ['he said "no"', "two\nlines", "x,y", "", "\r\n", '"'], "b": ["5' pipe", '5" pipe', " z ", "'", "\t", "é"]})
    frame.to_csv(tmp_path / "frame.csv", index=False)
    assert read(Csv(path=tmp_path / "frame.csv"), tmp_path) == frame.to_dict("records")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system_and_the_last_need_not(end: str, tmp_path: Path) -> None:
    assert read_csv(end.join(["a,b", "1,2", "3,4"]), tmp_path)[1] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_ten_thousand_columns_are_read(tmp_path: Path) -> None:
    names = [f"x{i}" for i in range(10_000)]
    content = "\n".join([",".join(names), *[",".join([str(i)] * 10_000) for i in range(150)]])
    reading, rows, bad = read_csv(content, tmp_path)
    assert (reading.schema.names, len(rows), bad) == (names, 150, [])
    assert set(rows[149].values()) == {"149"}


def test_names_that_repeat_are_left_to_the_check_of_columns(tmp_path: Path) -> None:
    assert read_csv("a,a,\n1,2,3\n", tmp_path)[0].schema.names == ["a", "a", ""]


def test_one_column_is_a_table(tmp_path: Path) -> None:
    assert read_csv("a\n1\n\n2\n", tmp_path)[1] == [{"a": "1"}, {"a": "2"}]


good_lines = st.lists(st.text(alphabet="ab1. é'", max_size=4), min_size=3, max_size=3).map(",".join)
quoted_lines = st.lists(st.text(alphabet='a,"\n;', max_size=5), min_size=3, max_size=3).map(
    lambda values: ",".join('"' + value.replace('"', '""') + '"' for value in values)
)
broken_lines = st.sampled_from(["1,2", "1,2,3,4", "x", '"a"b,1,2', "1,\0,2", "1,\udcff,2", '"a",b', ",,,"])


@given(st.lists(st.one_of(good_lines.filter(str.strip), quoted_lines, broken_lines), max_size=40), st.sampled_from(["", "\n"]))
def test_rows_and_bad_lines_together_are_all_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str) -> None:
    folder = tmp_path_factory.mktemp("lines")
    content = ("\n".join(["a,b,c", *lines]) + end).encode("utf-8", "surrogateescape")
    _, rows, bad = read_csv(content, folder, encoding="utf-8", delimiter=",", quote='"')
    is_broken = [line in {"1,2", "1,2,3,4", "x", '"a"b,1,2', "1,\0,2", "1,\udcff,2", '"a",b', ",,,"} for line in lines]
    starts = np.cumsum([2, *[line.count("\n") + 1 for line in lines]])
    assert [each.line for each in bad] == [start for start, broken in zip(starts, is_broken, strict=False) if broken]
    assert len(rows) == len(lines) - sum(is_broken)


@given(st.text(alphabet='ab1,"\n\r\0 ;é', max_size=200))
def test_any_text_is_read_or_refused_and_never_raises_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    try:
        _, rows, bad = read_csv("a,b\n" + text, tmp_path_factory.mktemp("text"), delimiter=",", quote='"')
    except BadInput:
        return
    if '"' not in text:
        lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip(" ")]
        assert len(rows) + len(bad) == len(lines)


@given(st.text(alphabet='ab1,"\né', max_size=60), st.integers(1, 7))
def test_where_blocks_end_changes_nothing(text: str, size: int) -> None:
    from batchlab.sources.dialect import Dialect
    from batchlab.sources.lines import Cutter

    content = text.encode()
    cutter = Cutter(Dialect(",", '"'))
    blocks = [content[start : start + size] for start in range(0, len(content), size)]

    def records(blocks: list[bytes]) -> list[tuple[bytes, str]]:
        runs = [run for runs in cutter.runs(blocks) for run in runs]
        assert b"".join(run.text for run in runs) == content
        return [(record, run.problem) for run in runs for record in ([run.text] if run.problem else cutter.records(run.text))]

    assert records(blocks) == records([content])


# CSV: files


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_csv_is_read_and_refused_when_it_is_cut_off(ending: str, tmp_path: Path) -> None:
    content = b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(50_000))
    whole = gzip.compress(content, mtime=0) if ending == ".gz" else pa.compress(content, codec="zstd", asbytes=True)
    _, rows, bad = read_csv(whole, tmp_path, f"rows.csv{ending}")
    assert (len(rows), bad) == (50_000, [])
    assert Csv(path=tmp_path / f"rows.csv{ending}").name == "rows"
    for length in (5, len(whole) // 2, len(whole) - 1):
        with pytest.raises(BadInput, match=f"rows.csv{ending}' cannot be read as CSV: Truncated compressed stream"):
            read_csv(whole[:length], tmp_path, f"rows.csv{ending}")


def test_a_folder_of_csv_files_is_one_table_if_they_have_one_header(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "b.csv").write_text("a;b\n3;4\n5\n")
    (folder / "a.csv").write_bytes("a;b\n1;é\n".encode("cp1252"))
    (folder / "_hidden.csv").write_text("other\n")
    for path in (folder, folder / "*.csv", tmp_path / "**" / "*.csv"):
        rows, bad = rows_and_bad(Csv(path=path).opened(0, tmp_path / "scratch"))
        assert [row["a"] for row in rows] == ["1", "3"]
        assert [(each.line, Path(each.file).name) for each in bad] == [(3, "b.csv")]
    (folder / "c.csv").write_text("a;c\n1;2\n")
    with pytest.raises(BadInput, match=r"c.csv' has other columns than '.*a.csv': column 2 is 'c', not 'b'"):
        Csv(path=folder).opened(0, tmp_path / "scratch")


# Parquet and Arrow


def table(rows: int = 1000, start: int = 0) -> pa.Table:
    numbers = np.arange(start, start + rows)
    return pa.table(
        {
            "n": numbers,
            "x": numbers / 7,
            "s": [f"text {n}" for n in numbers],
            "c": pa.array([f"{n % 3}" for n in numbers]).dictionary_encode(),
        }
    )


def write_ipc(held: pa.Table, path: Path, stream: bool = False) -> Path:
    with (ipc.new_stream if stream else ipc.new_file)(path, held.schema) as writer:
        writer.write_table(held, max_chunksize=300)
    return path


def test_parquet_and_both_arrow_formats_yield_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "rows.parquet", row_group_size=300)
    write_ipc(table(), tmp_path / "rows.arrow")
    write_ipc(table(), tmp_path / "stream.ipc", stream=True)
    table().to_pandas().to_feather(tmp_path / "rows.feather")
    sources: list[FileSource] = [Arrow(path=tmp_path / name) for name in ("rows.arrow", "stream.ipc", "rows.feather")]
    for source in [Parquet(path=tmp_path / "rows.parquet"), *sources]:
        assert read(source, tmp_path) == table().to_pylist()
        assert source.peek() == source.opened(0, tmp_path).schema


def test_folders_named_key_value_are_columns_and_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for year, city in ((2023, "Rome%20South"), (2024, "Oslo"), (2024, "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"year={year}" / f"city={city}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"n": [len(city)]}), folder / "part.parquet")
    (tmp_path / "_SUCCESS").touch()
    rows = read(Parquet(path=tmp_path), tmp_path)
    assert [tuple(row.values()) for row in rows] == [(12, 2023, "Rome South"), (4, 2024, "Oslo"), (26, 2024, None)]
    assert read(Parquet(path=tmp_path / "year=2024" / "**"), tmp_path) == [{key: row[key] for key in ("n", "city")} for row in rows[1:]]


def test_files_of_other_types_are_one_table_where_that_is_possible_and_refused_where_not(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [0.5], "z": ["more"]}), tmp_path / "b.parquet")
    assert read(Parquet(path=tmp_path), tmp_path) == [{"n": 1, "x": 1.0, "z": None}, {"n": None, "x": 0.5, "z": "more"}]
    pq.write_table(pa.table({"x": ["text"]}), tmp_path / "c.parquet")
    with pytest.raises(BadInput, match=r"c.parquet': column 'x' holds string, but double in the files before"):
        Parquet(path=tmp_path).opened(0, tmp_path)


def test_a_row_group_of_any_size_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    rows = 2_000_000
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({f"x{i}": rng.normal(size=rows) for i in range(16)}), tmp_path / "rows.parquet", row_group_size=rows)
    code = f"""
import re, pathlib
from batchlab.sources.parquet import Parquet
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
reading = Parquet(path="{tmp_path}/rows.parquet").opened(0, pathlib.Path("{tmp_path}"))
before = peak()
print(sum(batch.num_rows for batch in reading.batches(print)), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    read_rows, extra_megabytes = map(int, done.stdout.split())
    assert read_rows == rows
    assert extra_megabytes < 200, "the file's one row group has 244 MB"


# What cannot be read


def damaged(whole: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    if rng.random() < 0.4:
        return whole[: rng.randrange(len(whole))]
    changed = bytearray(whole)
    for _ in range(rng.choice([1, 1, 3, 20])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("name", ["rows.parquet", "plain.parquet", "rows.arrow", "stream.ipc", "rows.csv.gz", "rows.csv"])
def test_damage_is_bad_input_or_changes_values_and_never_raises_otherwise(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    held = table(700)
    if name.endswith(".parquet"):
        pq.write_table(held, path, row_group_size=300, compression="snappy" if name.startswith("rows") else "none")
    elif "csv" in name:
        text = "n,x,s\n" + "".join(f"{n},{n / 7},text {n}\n" for n in range(700))
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    else:
        write_ipc(held, path, stream=name.endswith(".ipc"))
    source = {"kind": located(str(path))["kind"], "path": path}
    expected, whole = read(SOURCES[source["kind"]].model_validate(source), tmp_path), path.read_bytes()
    refusals: list[str] = []
    for seed in range(60):
        path.write_bytes(damaged(whole, seed))
        try:
            rows, bad = rows_and_bad(SOURCES[source["kind"]].model_validate(source).opened(0, tmp_path / "scratch"))
        except BadInput as error:
            refusals.append(str(error))
            continue
        if name.endswith(".gz"):
            assert (rows, bad) == (expected, [])
    assert all(name in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.parquet", b"a,b\n1,2\n", r"is no parquet file: it begins with b'a,b\\n1,2\\n', which looks like text; name it .csv"),
        ("a.parquet", b"", r"is empty \(0 bytes\); a Parquet file is expected"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.parquet", b"\x00\x01\x02\x03", "which looks of no known format"),
        ("a.csv", b"", r"is empty \(0 bytes\); a CSV file is expected"),
        ("a.csv", b"\n\n", "holds no line but blank ones"),
        ("a.csv", b"\xef\xbb\xbf", "holds no line but blank ones"),
        ("a.csv", b"PAR1....PAR1", "is a Parquet file by its first bytes, not csv; set source.kind=parquet"),
        ("a.csv", gzip.compress(b"a\n", mtime=0), r"is a gzip file by its first bytes, not csv; let its name end in .gz"),
        ("a.csv.gz", b"a,b\n1,2\n", "is no gzip file: it begins with"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "holds no line but blank ones"),
        ("a.csv", b"a,\0\n1,2\n", "cannot be read as CSV: line 1, the header, holds a NUL byte"),
        ("a.csv", b'"a"b,c\n1,2\n', "line 1, the header, cannot be cut into column names: text follows a closing quote"),
        ("a.csv", b"PK\x03\x04....", "is a zip or Excel file by its first bytes, not csv; convert it to Parquet or CSV"),
        ("a.arrow", b"PAR1....PAR1", "is a Parquet file by its first bytes, not arrow"),
        ("a.arrow", b"ARROW1\0\0", "cannot be read as Arrow"),
        ("a.arrow", b"\xff\xff\xff\xff....", "without its end mark"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    source = located(str(tmp_path / name))
    with pytest.raises(BadInput, match=expected) as caught:
        rows_and_bad(SOURCES[source["kind"]].model_validate(source).opened(0, tmp_path / "scratch"))
    assert str(tmp_path / name) in str(caught.value)


# Fingerprints


def age(path: Path, seconds: float = 100) -> None:
    """Make a file look as if it was written a while ago; its ctime cannot be, so that time itself has to pass."""
    os.utime(path, (path.stat().st_atime - seconds, path.stat().st_mtime - seconds))


def test_a_fingerprint_goes_by_content_names_and_settings_and_not_by_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text("a,b\n1,2\n")

    def fingerprint(path: str, **settings: str) -> str:
        return Csv(path=tmp_path / path, **settings).opened(0, tmp_path / "scratch").fingerprint

    same = fingerprint("one")
    assert same == fingerprint("two")
    assert fingerprint("one/a.csv") != fingerprint("one/a.csv", delimiter=";")
    (tmp_path / "two" / "a.csv").rename(tmp_path / "two" / "b.csv")
    assert fingerprint("two") != same
    (tmp_path / "one" / "a.csv").write_text("a,b\n1,3\n")
    assert fingerprint("one") != same


def test_a_file_is_read_once_for_its_digest_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlab.sources.digests.SETTLED_NS", -1)
    path, scratch = tmp_path / "rows.csv", tmp_path / "scratch"
    path.write_text("a,b\n1,2\n")
    first = Csv(path=path).opened(0, scratch).fingerprint
    memory = (scratch / "files.json").read_text()
    files = json.loads(memory.replace(re.search(r'"digest": "(\w+)"', memory)[1], "remembered"))["files"]  # type: ignore[index]
    (scratch / "files.json").write_text(json.dumps({"files": files, "digest": "of others"}))
    assert Csv(path=path).opened(0, scratch).fingerprint == first
    (scratch / "files.json").write_text(json.dumps({"files": files, "digest": joint_digest(files)}))
    remembered = Csv(path=path).opened(0, scratch).fingerprint
    assert remembered != first
    times = path.stat()
    path.write_text("a,b\n1,3\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same mtime: only the ctime tells
    assert Csv(path=path).opened(0, scratch).fingerprint not in {first, remembered}
    (scratch / "files.json").write_text("{broken")
    assert Csv(path=path).opened(0, scratch).fingerprint not in {first, remembered}


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert Csv(path=tmp_path / "rows.csv").opened(0, tmp_path / "scratch").fingerprint
    assert not (tmp_path / "scratch" / "files.json").exists()


def test_memories_of_many_writers_at_once_stay_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr("batchlab.sources.digests.SETTLED_NS", -1)
    for number in range(30):
        (tmp_path / f"{number}.csv").write_text(f"a\n{number}\n")
    sources = [Csv(path=tmp_path / f"{number}.csv") for number in range(30)] * 3
    with ThreadPoolExecutor(8) as pool:
        prints = list(pool.map(lambda source: source.opened(0, tmp_path / "scratch").fingerprint, sources))
    assert prints[:30] == prints[30:60] == prints[60:]
    assert len(set(prints)) == 30
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["files.json"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_a_file_that_changes_between_passes_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    def write(rows: int) -> None:
        table(rows).to_pandas().to_csv(path, index=False) if name.endswith("csv") else pq.write_table(table(rows), path)

    write(10)
    kind = located(str(path))["kind"]
    reading = SOURCES[kind].model_validate({"path": path}).opened(0, tmp_path / "scratch")
    assert len(rows_and_bad(reading)[0]) == 10
    write(11)
    with pytest.raises(BadInput, match=rf"{name}' changed while it was read \(it had \d+ bytes and has \d+\)"):
        rows_and_bad(reading)
    path.unlink()
    with pytest.raises(BadInput, match="it is gone"):
        rows_and_bad(reading)


# Places


def test_a_pattern_names_files_within_a_folder_or_over_any_depth(tmp_path: Path) -> None:
    for name in ("a/1.csv", "a/2.csv", "a/b/3.csv", "c/4.csv", "a/5.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n")

    def names(pattern: str) -> list[str]:
        return [Path(file.path).stem for file in Place.of(f"{tmp_path}/{pattern}").found((".csv",))]

    assert names("a/*.csv") == ["1", "2"]
    assert names("**/*.csv") == ["1", "2", "3", "4"]
    assert names("a/**/[13].csv") == ["1", "3"]
    assert names("?/?.csv") == ["1", "2", "4"]
    with pytest.raises(BadInput, match="matches no file"):
        names("z/*.csv")


def test_urls_and_other_file_systems_are_read_as_paths_are(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(table(), tmp_path / "data" / "a.parquet")
    write_ipc(table(), tmp_path / "rows.arrow")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    by_path, by_url = (Parquet(path=f"{scheme}{tmp_path}/data").opened(0, tmp_path) for scheme in ("", "file://"))
    assert (by_url.fingerprint, rows_and_bad(by_url)) == (by_path.fingerprint, rows_and_bad(by_path))
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    memory = Memory(tmp_path / "scratch")
    for source, expected in ((Parquet(path="data/*.parquet"), 1000), (Arrow(path="rows.arrow"), 1000), (Csv(path="rows.csv"), 1)):
        reading = source.read_at(Place(below, source.path, source.path), memory)
        assert len(rows_and_bad(reading)[0]) == expected
        assert reading.fingerprint == reading.fingerprint
    made, _ = fs.FileSystem.from_uri("mock:///")
    made.create_dir("kept")
    with made.open_output_stream("kept/rows.csv") as out:
        out.write(b"a;b\n1;2\n3;4\n")
    reading = Csv(path="kept").read_at(Place(made, "kept", "mock://kept"), memory)
    assert [row["b"] for row in rows_and_bad(reading)[0]] == ["2", "4"]


def test_an_unknown_scheme_or_a_store_that_cannot_be_reached_is_bad_input(tmp_path: Path) -> None:
    for data in ("ftp://host/rows.csv", "https://host/rows.csv", "nothing://x"):
        with pytest.raises(BadInput, match=r"known are .*s3://.*postgresql://"):
            located(data)
    with pytest.raises(BadInput, match=r"hdfs://nowhere:1/rows.parquet' cannot be opened"):
        Parquet(path="hdfs://nowhere:1/rows.parquet").opened(0, tmp_path)
    source = Parquet(path="s3://me:secret@bucket/rows.parquet?endpoint_override=127.0.0.1%3A1&scheme=http")
    with pytest.raises(BadInput, match=r"s3://me:\*\*\*@bucket") as caught:
        source.opened(0, tmp_path)
    for shown in (str(caught.value), repr(source), str(source.model_dump()), source.name, source.location):
        assert "secret" not in shown


def test_located_tells_the_source_from_what_the_user_wrote(scratch: Path) -> None:
    for name in (
        "csvs/a.csv",
        "csvs/b.tsv.gz",
        "tables/x/a.parquet",
        "tables/notes.txt",
        "both/a.csv",
        "both/a.arrow",
        "none/a.png",
        "odd.xlsx",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("a")
    for data, kind in (
        ("diabetes", "bundled"),
        ("synthetic", "synthetic"),
        ("csvs", "csv"),
        ("csvs/*.gz", "csv"),
        ("tables", "parquet"),
        ("gone.feather", "arrow"),
        ("s3://bucket/x.parquet?region=eu", "parquet"),
        ("sqlite:///rows.db", "sql"),
        ("postgresql://host/db", "sql"),
        ("postgresql+psycopg://host/db", "sql"),
    ):
        assert located(data)["kind"] == kind
    for data, expected in (
        ("", "--data is empty"),
        ("diabets", "did you mean 'diabetes'"),
        ("both", r"several kinds \(1 arrow, 1 csv\); choose some with a pattern, such as 'both/\*.arrow'"),
        ("none", "holds no .parquet"),
        ("odd.xlsx", "none of the endings of tables"),
        ("*.nothing", "matches no file"),
    ):
        with pytest.raises(BadInput, match=expected):
            located(data)


def test_a_missing_file_is_said_with_the_folder_that_was_looked_in(scratch: Path) -> None:
    with pytest.raises(BadInput, match=re.escape(f"'gone.csv' does not exist (looked in {scratch})")):
        Csv(path="gone.csv").peek()


@given(st.text(alphabet="abc:/@?&=", max_size=20))
def test_a_password_never_survives_hiding(password: str) -> None:
    from urllib.parse import quote

    url = f"postgresql://me:{quote('S3CRET' + password, safe='')}@host/db?password=S3CRET"
    assert "S3CRET" not in without_password(f"cannot open '{url}' now")


# Databases


def database(folder: Path, statements: str, rows: list[tuple[Any, ...]] = (), insert: str = "") -> Path:  # type: ignore[assignment]
    path = folder / "rows.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(statements)
        if rows:
            connection.executemany(insert, rows)
    connection.close()
    return path


def test_a_table_and_a_query_of_sqlite_are_read_with_types_that_hold_for_all_chunks(tmp_path: Path) -> None:
    rows = [(n, None if n < 25_000 else n / 2, n if n < 39_999 else "last", "é:%s %(x)s" if n % 2 else None) for n in range(40_000)]
    path = database(
        tmp_path, 'create table "my rows" (n integer, late real, mixed, text text)', rows, 'insert into "my rows" values (?,?,?,?)'
    )
    source = Sql(url=f"sqlite:///{path}", table="my rows")
    read_rows = read(source, tmp_path)
    assert [tuple(row.values()) for row in read_rows] == [(n, late, str(mixed), text) for n, late, mixed, text in rows]
    assert source.opened(0, tmp_path).schema.types == [pa.int64(), pa.float64(), pa.string(), pa.string()]
    assert source.peek().names == ["n", "late", "mixed", "text"]  # type: ignore[union-attr]
    query = Sql(url=f"sqlite:///{path}", query="select n, n * 2.5 as y from \"my rows\" where text like '%:%' and n < 10 order by n desc;")
    assert read(query, tmp_path) == [{"n": n, "y": n * 2.5} for n in (9, 7, 5, 3, 1)]
    prints = [each.opened(0, tmp_path / "scratch").fingerprint for each in (source, source, query)]
    assert prints[0] == prints[1] != prints[2]
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, r"set source.table to one of its tables \(prices, rows\), or source.query"),
        ({"table": "row"}, "table 'row' does not exist; did you mean 'rows'"),
        ({"query": "select c from rows"}, "no such column: c"),
        ({"query": "delete from rows"}, "readonly database"),
        ({"query": "select 1", "table": "rows"}, "both given"),
        ({"url": "sqlite:///gone.db", "table": "rows"}, "'gone.db' does not exist"),
        ({"url": "sqlite://", "table": "rows"}, "in memory holds nothing"),
        ({"url": "nosuch://host/db", "table": "rows"}, "no database that can be read"),
        ({"url": "postgresql://me:${NOT_SET_AT_ALL}@host/db", "table": "rows"}, "variable NOT_SET_AT_ALL, which is not set"),
        ({"url": "postgresql://me:***@host/db", "table": "rows"}, "leave it out and set PGPASSWORD"),
        ({"url": "postgresql://me:S3CRET@127.0.0.1:1/db", "table": "rows"}, r"me:\*\*\*@127.0.0.1:1/db' cannot be read: connection failed"),
        ({"url": "postgresql://me:S3CRET@host:port/db", "table": "rows"}, "no database that can be read"),
    ],
)
def test_a_database_that_cannot_be_read_is_refused_without_its_password(settings: dict[str, str], expected: str, scratch: Path) -> None:
    database(scratch, "create table rows (a, b); create view prices as select * from rows; insert into rows values (1, 2)")
    source = Sql.model_validate({"url": "sqlite:///rows.db", **settings})
    with pytest.raises(BadInput, match=expected) as caught:
        source.opened(0, scratch / "scratch")
    for shown in (
        str(caught.value),
        repr(source),
        str(source.model_dump()),
        source.model_dump_json(),
        source.name,
        source.location,
        source.identity,
    ):
        assert "S3CRET" not in shown
    assert not Path("gone.db").exists()


def test_a_sqlite_file_that_is_none_and_an_empty_table_are_handled(scratch: Path) -> None:
    Path("text.db").write_text("this is no database, but long enough to be looked at as one " * 20)
    with pytest.raises(BadInput, match="file is not a database"):
        Sql(url="sqlite:///text.db", table="rows").opened(0, scratch)
    database(scratch, "create table rows (a integer, b text)")
    source = Sql(url="sqlite:///rows.db", table="rows")
    assert read_empty(source, scratch) == ["a", "b"]
    assert source.peek().names == ["a", "b"]  # type: ignore[union-attr]


def read_empty(source: Source, folder: Path) -> list[str]:
    reading = source.opened(0, folder / "scratch")
    assert rows_and_bad(reading) == ([], [])
    return list(reading.schema.names)


zoned = datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("chunks", "kind", "expected"),
    [
        ([[None, None], [1, None]], pa.int64(), [None, None, 1, None]),
        ([[True], [None]], pa.bool_(), [True, None]),
        ([[1], [0.5]], pa.float64(), [1.0, 0.5]),
        ([[Decimal("1.25")], [Decimal("12345678901234567890.5")]], pa.float64(), [1.25, 12345678901234567890.5]),
        ([[1], [2**70]], pa.float64(), [1.0, 2.0**70]),
        ([[datetime.date(2024, 1, 2)], [datetime.datetime(2024, 1, 2, 3)]], pa.timestamp("us"), None),
        ([[zoned], [None]], pa.timestamp("us", "UTC"), [zoned, None]),
        ([[datetime.timedelta(minutes=1)]], pa.float64(), [60.0]),
        ([[uuid.UUID(int=5)], ["x"]], pa.string(), [str(uuid.UUID(int=5)), "x"]),
        ([[{"b": [1], "a": None}]], pa.string(), ['{"a": null, "b": [1]}']),
        ([[1], ["x"], [None]], pa.string(), ["1", "x", None]),
        ([[None]], pa.null(), [None]),
    ],
)
def test_types_of_a_database_grow_until_they_hold_every_chunk(
    chunks: list[list[Any]], kind: pa.DataType, expected: list[Any] | None, tmp_path: Path
) -> None:
    from tempfile import TemporaryDirectory

    spool = Spool(["v"], TemporaryDirectory(dir=tmp_path))
    for chunk in chunks:
        spool.add([(value,) for value in chunk])
    reading = spool.finished()
    assert reading.schema.field("v").type == kind
    rows, _ = rows_and_bad(reading)
    assert expected is None or [row["v"] for row in rows] == expected
