"""Array files as tables: what NumPy and safetensors hold is what the frame of the same numbers holds, and what is damaged is refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from batchlab.errors import BadInput
from batchlab.sources import located
from batchlab.sources.arrays import Arrays
from batchlab.sources.parquet import Parquet
from batchlab.table import PackedTable, pack
from batchlab.table.columns import Columns

ROWS = 60


@pytest.fixture
def held() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(ROWS, 1, 2, 3)).astype(np.float32)
    return {"x": images, "day": np.arange(ROWS), "y": 2.0 * images[:, 0, 0, 0] + rng.normal(size=ROWS)}


def safetensors(path: Path, tensors: dict[str, np.ndarray], **changes: Any) -> Path:
    """Write the format by hand; `changes` replace entries of the header."""
    header, start, kinds = {"__metadata__": {"format": "pt"}}, 0, {"float32": "F32", "float64": "F64", "int64": "I64", "float16": "F16"}
    for name, values in tensors.items():
        end = start + values.nbytes
        header[name] = {"dtype": kinds[str(values.dtype)], "shape": list(values.shape), "data_offsets": [start, end]}  # type: ignore[assignment]
        start = end
    text = json.dumps({**header, **changes}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(values.tobytes() for values in tensors.values()))
    return path


def packed(path: Path, folder: Path, **columns: Any) -> PackedTable:
    return pack(Arrays(path=str(path)), Columns(**{"target": "y", **columns}), folder / "tables")


def written(kind: str, folder: Path, held: dict[str, np.ndarray]) -> Path:
    path = folder / f"rows.{kind.partition(' ')[0]}"
    if kind == "npz":
        np.savez(path, **held)
    elif kind == "npz compressed":
        np.savez_compressed(path, **held)
    else:
        safetensors(path, held)
    return path


@pytest.mark.parametrize("kind", ["npz", "npz compressed", "safetensors"])
def test_arrays_pack_to_the_same_rows_as_the_frame_of_their_numbers(kind: str, held: dict[str, np.ndarray], tmp_path: Path) -> None:
    table = packed(written(kind, tmp_path, held), tmp_path)
    frame = pd.DataFrame(held["x"].reshape(ROWS, -1), columns=[f"x{place}" for place in range(6)])
    frame.assign(day=held["day"], y=held["y"]).to_parquet(tmp_path / "frame.parquet")
    same = pack(Parquet(path=str(tmp_path / "frame.parquet")), Columns(target="y"), tmp_path / "tables")
    assert [column.name for column in table.schema.columns] == [column.name for column in same.schema.columns]
    np.testing.assert_array_equal(table.features, same.features)
    np.testing.assert_array_equal(table.target, same.target)


def test_one_array_is_a_table_of_its_numbers_and_a_folder_of_them_one_table(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(ROWS, 4))
    np.save(tmp_path / "a.npy", numbers[:40])
    np.save(tmp_path / "b.npy", numbers[40:])
    table = packed(tmp_path, tmp_path, target="x3")
    assert [column.name for column in table.schema.columns] == ["x0", "x1", "x2"]
    np.testing.assert_allclose(table.features + table.offsets if hasattr(table, "offsets") else table.features, numbers[:, :3], rtol=1e-6)


def test_half_precision_other_byte_orders_text_and_dates_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = {"h": rng.normal(size=ROWS).astype(np.float16), "b": rng.normal(size=(ROWS, 2)).astype(">f8"), "y": rng.normal(size=ROWS)}
    words = np.array(["red", "green"])[rng.integers(0, 2, ROWS)]
    days = np.datetime64("2024-01-01") + np.arange(ROWS)
    np.savez(tmp_path / "rows.npz", **held, colour=words, day=days)
    table = packed(tmp_path / "rows.npz", tmp_path)
    kinds = {column.name: column.kind for column in table.schema.columns}
    assert kinds["colour"] == "category"
    assert kinds["day"] not in ("number", "category")
    assert {"h", "b0", "b1"} <= kinds.keys()


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_the_ending_says_that_these_are_arrays(ending: str) -> None:
    assert located(f"some/rows.{ending}") == {"kind": "arrays", "path": f"some/rows.{ending}"}


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        packed(path, path.parent)
    return str(caught.value)


def test_arrays_that_are_no_table_are_refused_with_their_shapes(held: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "lengths.npz", **held, z=np.zeros(3))
    assert "holds x (60, 1, 2, 3), day (60,), y (60,), z (3,); every array must have one row" in refused(tmp_path / "lengths.npz")
    np.savez(tmp_path / "odd.npz", y=np.zeros(3), z=np.zeros(3, complex))
    assert "holds z (complex128); arrays of numbers, text or dates are read" in refused(tmp_path / "odd.npz")
    np.savez(tmp_path / "wide.npz", y=np.zeros(3), x=np.zeros((3, 200, 200)))
    assert "has 40,001 numbers" in refused(tmp_path / "wide.npz")
    np.save(tmp_path / "scalar.npy", np.float64(3))
    assert "must have one row for each row" in refused(tmp_path / "scalar.npy")


def test_files_that_run_code_lie_about_their_size_or_are_cut_off_are_refused(held: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "objects.npy")
    whole = written("npz", tmp_path, held).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as arrays" in refused(tmp_path / "cut.npz")
    (tmp_path / "text.npy").write_text("a,b\n1,2\n")
    assert "is no arrays file" in refused(tmp_path / "text.npy")
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**45},)}}".ljust(117) + "\n"
    lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    with zipfile.ZipFile(tmp_path / "lying.npz", "w") as archive:
        archive.writestr("y.npy", lying)
    assert "states (35184372088832,) of float64" in refused(tmp_path / "lying.npz")
    (tmp_path / "lying.npy").write_bytes(lying)
    assert "cannot be read as arrays" in refused(tmp_path / "lying.npy")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"y": {"dtype": "F64", "shape": [ROWS], "data_offsets": [0, 10**9]}}, "states the bytes 0 to 1000000000"),
        ({"y": {"dtype": "F64", "shape": [ROWS], "data_offsets": [-8, ROWS * 8]}}, "states the bytes -8"),
        ({"y": {"dtype": "F64", "shape": [ROWS + 1], "data_offsets": [0, ROWS * 8]}}, "states (61,) of F64, and 480 bytes"),
        ({"y": {"dtype": "BF16", "shape": [ROWS], "data_offsets": [0, 2 * ROWS]}}, "tensor 'y' holds BF16"),
        ({"y": 3}, "cannot be read as arrays"),
    ],
)
def test_tensors_that_state_what_they_do_not_hold_are_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert expected in refused(safetensors(tmp_path / "rows.safetensors", {"y": np.zeros(ROWS)}, **changes))


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "its header would have" in refused(tmp_path / "rows.safetensors")
