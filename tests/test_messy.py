"""Tables as they come, made with their truth known: every value used is right, every row not used has its reason, nothing else is left."""

import gzip
import json
import multiprocessing
import os
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
    records: int = 0
    parsed: int = 0


class Messy:
    """Writes a messy CSV file, record by record, and remembers what it wrote."""

    words = ("plain", 'He said "hi"', "one,two;three|four", "two\nlines", "caf\u00e9 de la gare", "tab\there", '"')

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
    assert table.schema.rows + sum(table.schema.quarantined.values()) == truth.records == table.schema.source_rows == 100_000
    assert table.schema.quarantined[BAD_LINE] == len(truth.bad_lines) > 1800
    check_used(table, pd.DataFrame(truth.used))
    check_quarantined(table, truth)
    notes = " ".join(table.schema.notes)
    assert "column 'nothing' is empty: all 98" in notes
    assert "column 'when' holds dates in 3 formats: " in notes
    assert "encoding utf-8" in notes if utf8 else "delimiter ';', encoding cp1252" in notes


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
        np.testing.assert_array_equal(words, meant[name].where(meant[name].notna(), None).to_numpy(object))
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
