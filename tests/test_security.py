"""What a stranger's file or name can do: nothing but be refused, or be read. docs/security.md says what is promised."""

import gzip
import hashlib
import json
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batchlab.config import load_profile
from batchlab.errors import BadInput
from batchlab.files.sealing import SEAL, seal
from batchlab.rows.split import Split, split
from batchlab.search.known import Known
from batchlab.search.plain import restored
from batchlab.search.saving import load, save
from batchlab.search.search import Search
from batchlab.sources import SOURCES, located
from batchlab.sources.sql import Sql
from batchlab.table import PackedTable, pack
from batchlab.table import contract as contracts
from tasks import unfinished
from tests.conftest import CHECKOUT, QUICKLY, Command
from tests.damage import nested

Edit = Callable[[Path], Any]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


# Packed tables and splits


@pytest.fixture
def table(tmp_path: Path) -> PackedTable:
    """A table with classes, and its split."""
    profile = load_profile(data="wine")
    made = pack(profile.source, profile.named_columns(), tmp_path / "tables", 0)
    split(made, profile.split, 0).save(made)
    return made


def opened(folder: Path) -> None:
    """Open and read all of a table."""
    found = PackedTable.open(folder)
    assert len(found.features) == len(found.target) == len(found.read("features", 0, 10**6))
    assert found.facts
    assert found.side_column("weight") is None
    for path in folder.glob("split-*.npy"):
        Split.open(path)


def linked(name: str) -> Edit:
    def edit(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return edit


def replaced(name: str, array: Any) -> Edit:
    return lambda folder: np.save(folder / name, array, allow_pickle=True)


def huge(folder: Path) -> None:
    content = (folder / "features.npy").read_bytes()
    header = re.sub(rb"\((\d+), (\d+)\), \}( *)", lambda found: b"(99999999999999, 13), }" + found[3][:-11], content)
    assert len(header) == len(content)
    (folder / "features.npy").write_bytes(header)


def piped(folder: Path) -> None:
    (folder / "target.npy").unlink()
    os.mkfifo(folder / "target.npy")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (linked("features.npy"), r"features.npy' is a symbolic link; it must be a file"),
        (linked("schema.json"), r"schema.json' is a symbolic link"),
        (linked(SEAL), r"seal.json' is a symbolic link"),
        (piped, r"target.npy' is a pipe or a device"),
        (
            replaced("weight.npy", np.ones(178)),
            r"weight.npy' was added since it was written; remove '.+', so that the table is packed again",
        ),
        (lambda folder: (folder / "statistics.json").unlink(), r"statistics.json' is missing"),
        (lambda folder: (folder / SEAL).write_text('{"../../x": {"digest": "", "stamp": []}}'), r"x' is missing; remove"),
        (lambda folder: (folder / SEAL).write_text(nested(100_000)), r"seal.json' is no JSON that can be used"),
        (lambda folder: (folder / SEAL).write_text("[1]"), r"seal.json' is no list of files and their digests"),
    ],
    ids=["linked rows", "linked schema", "linked seal", "pipe", "added", "missing", "names outside", "nested", "no seal"],
)
def test_a_table_of_other_files_than_its_own_is_refused(edit: Edit, said: str, table: PackedTable) -> None:
    opened(table.path)
    edit(table.path)
    with pytest.raises(BadInput, match=said):
        opened(table.path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (replaced("features.npy", np.array([Touch(Path("/tmp/never"))] * 178)), r"features.npy' is no column of a packed table"),
        (huge, r"features.npy' is no column of a packed table"),
        (replaced("target.npy", np.full(178, 7)), r"target.npy' holds other numbers than those of 3 classes"),
        (replaced("target.npy", np.zeros(177, np.int64)), r"target.npy' holds int64 \(177,\) instead of <f8 or <i8 \(178,\)"),
        (replaced("features.npy", np.zeros((178, 13), ">f4")), r"features.npy' holds >f4"),
        (lambda folder: (folder / "schema.json").write_text(nested(50_000)), "schema.json' is no description of a packed table"),
        (lambda folder: (folder / "schema.json").write_text('{"rows": 1}'), "schema.json' is no description of a packed table"),
        (lambda folder: (folder / "statistics.json").write_text('[{"name": 1}]'), "statistics.json' is no list of what is in columns"),
    ],
    ids=["pickle", "huge", "classes", "rows", "order of bytes", "nested", "fields", "facts"],
)
def test_a_strangers_table_with_a_seal_of_its_own_runs_nothing_and_leads_nowhere(edit: Edit, said: str, table: PackedTable) -> None:
    edit(table.path)
    seal(table.path)
    facts = json.loads((table.path / SEAL).read_text())
    (table.path / SEAL).write_text(json.dumps({name: fact | {"stamp": []} for name, fact in facts.items()}))  # as on another disk
    with pytest.raises(BadInput, match=said):
        opened(table.path)


def test_labels_that_are_not_those_of_their_name_are_no_split(table: PackedTable) -> None:
    (path,) = table.path.glob("split-*.npy")
    labels = np.load(path)
    for other in (labels[::-1].copy(), labels[:-1], labels.astype(np.int64), np.full(len(labels), 99, np.uint8)):
        np.save(path, other)
        with pytest.raises(BadInput, match=r"split-.+npy' is not as it was written: its digest is another"):
            Split.open(path)


def test_a_table_that_was_copied_is_read_and_one_that_was_touched_is_looked_at(table: PackedTable, tmp_path: Path) -> None:
    shutil.copytree(table.path, tmp_path / "copied" / table.path.name)
    opened(tmp_path / "copied" / table.path.name)
    os.utime(table.path / "features.npy")
    opened(table.path)


# Contracts, profiles and what is remembered


def test_a_contract_that_leads_elsewhere_or_has_no_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.json"
    path.symlink_to("/etc/passwd")
    with pytest.raises(BadInput, match="is a symbolic link") as caught:
        contracts.opened(path)
    assert "root:" not in str(caught.value)
    for content in (nested(100_000), '{"columns": ' * 2000, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "{}"):
        path.unlink()
        path.write_text(content)
        with pytest.raises(BadInput, match=f"contract '{path}' cannot be read"):
            contracts.opened(path)


CODE = 'model = {{ kind = "custom", factory = "hostile:build" }}\n{}\n[strategies.full_batch]\n'


def test_a_profile_from_a_file_runs_no_code_unless_its_user_says_so(scratch: Path) -> None:
    Path("hostile.py").write_text("open('ran', 'w')\ndef build(features, outputs): ...\n")
    Path("own.toml").write_text(CODE.format(""))
    with pytest.raises(
        BadInput, match=r"'own.toml' runs code: model.factory is 'hostile:build'. If you trust it, say so: --set model.factory="
    ):
        load_profile("own.toml")
    with pytest.raises(BadInput, match="runs code"):
        load_profile("own.toml", overrides=["model.kind=custom", "train.epochs=3"])
    assert load_profile("own.toml", overrides=["model.factory=hostile:build"]).model.kind == "custom"
    assert load_profile("own.toml", overrides=["model.kind=linear"]).model.kind == "linear"
    assert not Path("ran").exists()


def test_a_profile_from_a_file_sends_no_variable_to_a_database_unless_its_user_says_so(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://me:${AWS_SECRET}@elsewhere.example/db"
    Path("own.toml").write_text(f'source = {{ kind = "sql", url = "{url}", table = "t" }}\n[strategies.full_batch]\n')
    with pytest.raises(BadInput, match=r"sends what the environment holds to a database: source.url is 'postgresql://me:"):
        load_profile("own.toml")
    assert load_profile("own.toml", overrides=[f"source.url={url}"]).source.kind == "sql"
    assert load_profile("own.toml", data="wine").source.kind == "bundled"
    Path("own.toml").write_text(Path("own.toml").read_text().replace(":${AWS_SECRET}", ""))
    assert load_profile("own.toml").source.kind == "sql"
    monkeypatch.setenv("PGPASSWORD", "S3CRET")
    with pytest.raises(BadInput, match="sends what the environment holds"):
        load_profile("own.toml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"a = {nested(50_000)}".encode(), "profile 'own.toml' cannot be used"),
        (b"a." * 5000 + b"b = 1", "profile 'own.toml'"),
        (b"target = '\xff'", "own.toml' is no text that can be used"),
        (b"seed = 'x'\n[strategies.full_batch]\n", "profile 'own.toml': seed: "),
    ],
    ids=["nested", "dotted", "bytes", "value"],
)
def test_a_profile_that_is_none_is_refused_by_name(content: bytes, said: str, scratch: Path) -> None:
    Path("own.toml").write_bytes(content)
    with pytest.raises(BadInput, match=said):
        load_profile("own.toml")


def test_an_unfinished_comparison_names_no_file_outside_its_folder(searched: Search, mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    save(searched.known, mlruns / "outside.npz")
    gone = json.dumps([os.uname().nodename, 2**22 + 1, 0.0])
    folder = unfinished._folder()
    (folder / "a.json").write_text(json.dumps({"key": "k", "run_id": "../outside", "owner": gone}))
    (folder / "b.json").write_text(nested(100_000))
    (folder / "c.json").symlink_to("/etc/passwd")
    (folder / "d.json").write_text(json.dumps({"key": "k", "run_id": "d", "owner": "[]"}))
    (folder / "d.npz").write_bytes(b"x")
    assert unfinished.left_by("k") is None
    assert (mlruns / "outside.npz").exists()
    assert Path("/etc/passwd").exists()


# State files


def test_a_state_file_runs_nothing_expands_to_nothing_and_leads_nowhere(searched: Search, tmp_path: Path) -> None:
    path, ran = tmp_path / "known.npz", tmp_path / "ran"
    save(searched.known, tmp_path / "whole.npz")
    text = np.frombuffer(json.dumps({"format": 2, "state": None}).encode(), np.uint8)
    deep = np.frombuffer(f'{{"format": 2, "state": {nested(100_000)}}}'.encode(), np.uint8)

    def bomb() -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("text.npy", "w") as entry:
            for _ in range(100):
                entry.write(bytes(2**20))

    makers: tuple[Callable[[], object], ...] = (
        lambda: np.savez(path, text=text, other=np.array([Touch(ran)], dtype=object)),
        lambda: path.write_bytes(pickle.dumps(Touch(ran))),
        lambda: np.savez(path, text=deep),
        lambda: path.symlink_to(tmp_path / "whole.npz"),
        lambda: os.mkfifo(path),
        bomb,
    )
    for make in makers:
        path.unlink(missing_ok=True)
        make()
        for _ in range(2):
            with pytest.raises(BadInput, match=r"known.npz'? (holds nothing that can be taken up|is a )"):
                load(path, Known)
            if path.is_file() and not path.is_symlink():
                path.write_bytes(hashlib.sha256(path.read_bytes()).digest() + path.read_bytes())  # as somebody who knows the format would
    assert not ran.exists()


def test_places_and_types_that_no_search_writes_are_refused() -> None:
    arrays = {"<f8": np.zeros(4), "|u1": np.zeros(4, np.uint8), "odd": np.zeros(4), "|O": np.zeros(4, object)}
    curve = {name: [] for name in ("step", "epoch", "rows_seen", "wall_seconds", "train_loss", "validation_loss", "last_validation_loss")}
    for hostile in (
        {"array": ["<f8", 0, [5]]},
        {"array": ["<f8", -2, [1]]},
        {"array": ["<f8", 0, [-1]]},
        {"array": ["<f8", 0, [2**62, 2**62]]},
        {"array": ["<f8", 0, [True]]},
        {"array": ["odd", 0, [1]]},
        {"array": ["|O", 0, [1]]},
        {"array": ["<f8", 0]},
        {"kind": "Path", "fields": {"0": "/etc/passwd"}},
        {"kind": "Trial", "fields": {"learning_rate": "0.1", "seed": 1}},
        {"kind": "Trial", "fields": {"learning_rate": 0.1, "seed": 1.5}},
        {"kind": "Trial", "fields": {"learning_rate": 0.1}},
        {"kind": "Known", "fields": {"trainings": {"kind": "Trial", "fields": {"learning_rate": 0.1, "seed": 1}}}},
        {"kind": "Curve", "fields": {**curve, "step": [1]}},
        {"kind": "Setting", "fields": {"updates": {"kind": "Sgd", "fields": {}}, "optimizer": 1, "learning_rate": 1.0}},
        {"kind": "MiniBatch", "fields": {"batch_rows": -1}},
        {"pairs": [[{"pairs": []}, 1]]},
        {"tuple": 5},
        {"other": []},
        {},
    ):
        with pytest.raises((ValueError, TypeError, KeyError)):
            restored(hostile, arrays)


# Sources


def _read(path: Path, scratch: Path) -> int:
    found = located(str(path))
    reading = SOURCES[found["kind"]].model_validate(found).opened(0, scratch)
    return sum(batch.num_rows for batch in reading.batches(lambda bad: None))


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("beginning", "filling", "said"),
    [
        (b"a,y\n", b"0", "line 2 does not end within 67,108,864 bytes"),
        (b"a,y\n1,", b'"' + b"0" * 1023, "line 2 does not end within 67,108,864 bytes"),
        (b"", b"a,", "line 1 does not end within 67,108,864 bytes"),
    ],
    ids=["line", "quotes", "header"],
)
def test_a_compressed_bomb_of_one_line_is_refused_in_bounded_memory(
    ending: str, beginning: bytes, filling: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.csv{ending}"
    block = filling * (2**20 // len(filling))
    with pa.output_stream(str(path), compression="gzip" if ending == ".gz" else "zstd") as stream:
        stream.write(beginning)
        for _ in range(100):
            stream.write(block)
    assert path.stat().st_size < 2**20
    with pytest.raises(BadInput, match=f"rows.csv{ending}' cannot be read as CSV: {said}"):
        _read(path, tmp_path)


def test_a_header_of_countless_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"a" + b",a" * 300_000 + b"\n1\n"))
    with pytest.raises(BadInput, match="line 1, the header, has 300,001 names, more than 262,144"):
        _read(tmp_path / "rows.csv.gz", tmp_path)


def test_a_folder_whose_links_lead_in_circles_is_read_once(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    (folder / "deeper").mkdir(parents=True)
    for place in (folder, folder / "deeper"):
        (place / "rows.csv").write_text("a,y\n1,2\n")
        for name in "bcd":
            (place / name).symlink_to(folder)
    assert _read(folder, tmp_path) == 2
    assert _read(tmp_path / "rows" / "**" / "*.csv", tmp_path) == 2


HOSTILE = 'x"; drop table rows; --'


def test_hostile_names_in_a_database_are_names(tmp_path: Path) -> None:
    quoted = '"' + HOSTILE.replace('"', '""') + '"'
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("create table rows (a)")
        connection.execute(f'create table {quoted} ({quoted} integer, "a\'b" text, [%(x)s] real)')
        connection.execute(f"insert into {quoted} values (3, 'it''s', 1.5)")
    connection.close()
    source = Sql(url=f"sqlite:///{tmp_path}/rows.db", table=HOSTILE)
    (batch,) = source.opened(0, tmp_path / "scratch").batches(lambda bad: None)
    assert batch.to_pylist() == [{HOSTILE: 3, "a'b": "it's", "%(x)s": 1.5}]
    assert source.newest(HOSTILE) == 3
    for hostile in ("rows; drop table rows", "rows) union select 1 --"):
        with pytest.raises(BadInput, match="does not exist"):
            Sql(url=f"sqlite:///{tmp_path}/rows.db", table=hostile).opened(0, tmp_path / "scratch")
    with pytest.raises(BadInput, match=r"readonly|one statement"):
        Sql(url=f"sqlite:///{tmp_path}/rows.db", query="drop table rows").opened(0, tmp_path / "scratch")
    assert sqlite3.connect(tmp_path / "rows.db").execute("select count(*) from rows").fetchone() == (0,)


# Locks, drafts and secrets

HOLDER = """
import sys, time
from tasks import registry
with registry.exclusive("prices"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_that_a_dead_process_left_is_free_and_its_file_may_stay(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import registry

    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    environment = {**os.environ, "BATCHLAB_MLRUNS": str(mlruns)}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert (mlruns / ".locks" / "prices.lock").exists()
    with registry.exclusive("prices"):
        pass


def test_a_lock_or_draft_that_links_elsewhere_changes_nothing_there(
    mlruns: Path, table: PackedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchlab.table.writing import PREFIX, remove_abandoned
    from tasks import registry

    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "text").write_text("kept")
    (mlruns / ".locks").mkdir()
    (mlruns / ".locks" / "prices.lock").symlink_to(precious / "text")
    with pytest.raises(OSError, match="symbolic"), registry.exclusive("prices"):
        pass
    (table.path.parent / f"{PREFIX}x").symlink_to(precious)
    remove_abandoned(table.path.parent)
    assert [path.name for path in precious.iterdir()] == ["text"]
    assert (precious / "text").read_text() == "kept"


@pytest.mark.slow
def test_a_secret_of_a_database_reaches_no_store_no_server_and_no_log(batchlab: Command, mlruns: Path, tmp_path: Path) -> None:
    secret, rng = "S3CRETx7f9", np.random.default_rng(0)
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute("create table rows (a real, y real)")
        connection.executemany("insert into rows values (?, ?)", rng.normal(size=(200, 2)).tolist())
    connection.close()
    url = "sqlite:///rows.db?token=${DATABASE_TOKEN}"
    chosen = ["--data", url, "--target", "y", "--set", "source.table=rows", "--set", "train.epochs=2", "--strategies", "full_batch"]
    done = batchlab("compare", *chosen, *QUICKLY, DATABASE_TOKEN=secret)
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    places = [mlruns, Path(os.environ["PREFECT_HOME"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []


DANGEROUS = re.compile(
    r"pickle\.loads?\(|torch\.load\(|torch\.export\.load\(|(?<!\.)\b(?:eval|exec)\(|yaml\.load\(|shell=True|allow_pickle=True"
)
KNOWN = {
    "batchlab/search/apart.py": "pickle.load(",  # the pipe to a child of this process
    "batchlab/serving/graphs.py": "torch.export.load(",  # of an archive that was checked and written anew
    "batchlab/serving/batchlab_serving.py": "torch.export.load(",  # MLflow's loader in a saved model, which is code of that model anyway
}


def test_nothing_else_in_the_program_can_run_what_it_reads() -> None:
    found = set()
    for folder in ("batchlab", "tasks", "flows"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            code = "\n".join(line.split("#")[0] for line in path.read_text().splitlines() if not line.lstrip().startswith(('"', "`")))
            found |= {(str(path.relative_to(CHECKOUT)), call) for call in DANGEROUS.findall(code)}
    assert {(name, call) for name, call in found if KNOWN.get(name) != call.replace("loads", "load")} == set()
