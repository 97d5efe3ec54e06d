"""Memory that is promised is kept: mapped rows do not stay, orders are had in parts, and a whole search stays within its allowance."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from batchlab.allowance import Allowance, free_bytes, memory_limit
from batchlab.errors import BatchlabError
from batchlab.files import mapped
from batchlab.files.mapped import gathered, portion
from batchlab.rows.split import Split
from batchlab.scattered import Scattered
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from tests.conftest import SMALL

STATUS = Path("/proc/self/status")
MIB = 2**20
linux = pytest.mark.skipif(not STATUS.exists(), reason="a process's memory is read from Linux's /proc")


@given(rows=st.integers(1, 3000), seed=st.integers(0, 2**31))
def test_a_scattered_order_has_every_row_once_and_its_parts_are_those_of_the_whole(rows: int, seed: int) -> None:
    order = Scattered(rows, np.random.default_rng(seed))
    whole = order.rows(0, rows)
    np.testing.assert_array_equal(np.sort(whole), np.arange(rows))
    cut = rows // 3
    np.testing.assert_array_equal(np.concatenate([order.rows(0, cut), order.rows(cut, rows + 10)]), whole)


def test_scattered_orders_put_every_row_anywhere_alike() -> None:
    counts, draws = np.zeros((7, 7)), 7000
    for seed in range(draws):
        counts[np.arange(7), Scattered(7, np.random.default_rng(seed)).rows(0, 7)] += 1
    expected = draws / 7
    assert ((counts - expected) ** 2 / expected).sum() < 80  # chi², 36 degrees of freedom: 1 in 30,000


@pytest.mark.parametrize("shuffled", [True, False])
def test_mini_batches_of_very_many_rows_come_in_pieces_of_the_same_order(shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("base", "mini_batch"):
        monkeypatch.setattr(f"batchlab.strategies.{module}.MOST_DRAWN_WHOLE", 1000)
    strategy, rows = MiniBatch(batch_rows=3, shuffled=shuffled), 200_000
    whole = strategy.order(Population(rows), 5, 2)
    pieces = list(strategy.pieces(Population(rows), 5, 2, steps_done=4))
    np.testing.assert_array_equal(np.concatenate([piece.rows for piece in pieces]), whole.rows[12:])
    assert len(pieces) == 4
    assert all(len(piece.rows) % 3 == 0 for piece in pieces[:-1])
    np.testing.assert_array_equal(np.sort(whole.rows), np.arange(rows))


def on_disk(path: Path, array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    np.save(path, array)
    return np.asarray(np.load(path, mmap_mode="r"))


@linux
def test_rows_of_a_large_file_are_read_without_a_page_of_it_staying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", 16 * MIB)
    held = np.random.default_rng(0).random((1_000_000, 8), np.float32)
    rows = np.random.default_rng(1).integers(-5, len(held), 20_000)
    array = on_disk(tmp_path / "rows.npy", held)
    gathered(array, rows[:1])  # compiles
    before = file_pages()
    for view, same in ((array, held), (array[:, 3], held[:, 3]), (array[17:], held[17:])):
        np.testing.assert_array_equal(gathered(view, rows), same[rows])
        np.testing.assert_array_equal(portion(view[:, None] if view.ndim == 1 else view, 5, 90), same[5:90].reshape(85, -1))
    np.testing.assert_array_equal(portion(array, 400_000, 2_000_000), held[400_000:])
    assert file_pages() - before < 2 * MIB
    assert array[rows].shape == (20_000, 8)
    assert file_pages() - before > 16 * MIB  # as indexing the map would have done


def file_pages() -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssFile:"))
    return int(line.split()[1]) * 1024


def test_a_file_that_was_cut_short_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", 1)
    array = on_disk(tmp_path / "rows.npy", np.zeros((1000, 8), np.float32))
    with (tmp_path / "rows.npy").open("rb+") as file:
        file.truncate(4096)
    with pytest.raises(BatchlabError, match=r"ends before its row 900: it was cut"):
        gathered(array, np.array([3, 900]))
    with pytest.raises(BatchlabError, match=r"ends before its row 1000: it was cut"):
        portion(array, 0, 1000)


def test_a_sample_of_a_part_is_one_of_its_rows_each_as_likely() -> None:
    labels = np.zeros(3_000_000, np.uint8)
    labels[::3] = 1
    parts = Split(labels, "")
    for part, label, most in (("train", 0, 1000), ("train", 0, 1_900_000), ("validation", 1, 999_999)):
        rows = parts.rows(part, most, seed=1)  # type: ignore[arg-type]
        assert len(rows) == most
        assert (np.diff(rows) > 0).all()
        assert (labels[rows] == label).all()
        assert rows.mean() / 1.5e6 == pytest.approx(1, abs=0.1)


def test_rows_and_trainings_share_one_allowance() -> None:
    allowance = Allowance.of(2.0)
    assert allowance.total_bytes == 2 * 2**30
    assert allowance.rows_bytes + allowance.trainings_bytes(allowance.rows_bytes) == allowance.total_bytes
    assert allowance.trainings_bytes(0) < allowance.total_bytes / 2
    assert allowance.trainings_bytes(allowance.total_bytes + 1) == 0
    assert 0 < Allowance.of(None).total_bytes < free_bytes() * 1.5 <= memory_limit() * 1.5


ROWS, COLUMNS, ALLOWED = 4_200_000, 20, 0.25
SEARCH = """
import re, sys
from pathlib import Path
from batchlab.allowance import give_back_freed_memory
from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.search.records import verdict_of
from batchlab.search.search import Search
from batchlab.rows.split import split
from batchlab.table import pack

def resident(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

def searched(data, target, *overrides):
    overrides = [*sys.argv[4:], "train.max_rows=100_000", "search.batch_rows=[32,128]", *overrides]
    profile = load_profile("quick", data=data, target=target, strategies=["streaming"], overrides=overrides)
    table = pack(profile.source, profile.named_columns(), Path(sys.argv[2]))
    search = Search(Experiment(profile, table, split(table, profile.split, 0)))
    for part in search.parts():
        part.run()
    _ = search.experiment.leaks, search.experiment.portrait
    assert verdict_of(search.findings, "").strategy is not None
    return search.experiment.data.stored

give_back_freed_memory()
assert searched("diabetes", None) is None  # what the libraries take
libraries = resident("VmHWM")
stored = searched(sys.argv[1], "y", "memory_gib=" + sys.argv[3])
print(libraries, resident("VmHWM"), stored is not None)
"""


@linux
@pytest.mark.slow
def test_packing_and_searching_a_table_larger_than_the_allowance_stays_within_it(tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet")
    command = [sys.executable, "-c", SEARCH, str(tmp_path / "rows.parquet"), str(tmp_path / "tables"), str(ALLOWED), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    libraries, peak, in_files = done.stdout.split()[-3:]
    assert in_files == "True"
    samples = 64  # those of leaks and the portrait, and batches being packed, are bounded by themselves and not counted in the allowance
    grown = int(peak) - int(libraries)
    assert grown < 1024 * ALLOWED + samples, f"{grown} MiB beyond {libraries}"
    assert 4 * ROWS * COLUMNS > 1.2 * ALLOWED * 2**30


def write(path: Path) -> None:
    rng, weights = np.random.default_rng(0), np.arange(COLUMNS, dtype=np.float32)
    schema = pa.schema([(name, pa.float32()) for name in (*(f"x{number}" for number in range(COLUMNS)), "y")])
    with parquet.ParquetWriter(path, schema, compression=None, use_dictionary=False) as file:
        for _ in range(12):
            rows = rng.standard_normal((ROWS // 12, COLUMNS), np.float32)
            file.write_table(pa.table([*rows.T, rows @ weights], schema=schema))
