"""PostgreSQL, a real server on loopback: types, chunks, memory, and that its password stays where it is."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from batchlab.errors import BadInput
from batchlab.sources.base import Reading
from batchlab.sources.sql import Sql

PASSWORD = "S3CRET/pass@word"
ENCODED = "S3CRET%2Fpass%40word"


def binary(name: str) -> str | None:
    """Return the path of a server's program: Debian keeps them beside the search path."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(versions[-1]) if versions else None)


pytestmark = pytest.mark.skipif(binary("initdb") is None, reason="PostgreSQL is not installed; `make postgres` does that")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL, without a password, of a database server of this test session; it runs as nobody where root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="batchlab-postgres-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(binary(program)), "-D", str(folder / "data"), *arguments]
        account = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **account)  # type: ignore[call-overload]

    run("initdb", "-U", "me", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8")
    run("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off")
    yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
    run("pg_ctl", "stop", "-m", "immediate")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's URL, with the password where it belongs: in libpq's variable."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return server


def execute(url: str, *statements: str) -> None:
    from sqlalchemy import create_engine, text

    with create_engine(url).begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def rows_of(reading: Reading) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for batch in reading.batches(print) for row in batch.to_pylist()]


def test_the_types_of_postgresql_are_read_as_what_they_mean(url: str, tmp_path: Path) -> None:
    execute(
        url,
        "drop table if exists kinds",
        """create table kinds (n bigint, s smallint, x double precision, d numeric(20, 4), b boolean, t text, day date,
           at timestamp, zoned timestamptz, u uuid, j jsonb, a integer[], i interval, raw bytea, "odd % name:x" integer)""",
        "insert into kinds (n) select g from generate_series(1, 30000) g",
        """insert into kinds values (9007199254740993, 7, 0.5, 12345.6789, true, 'é', '2024-01-02', '2024-01-02 03:04:05.000006',
           '2024-01-02 03:04:05+02', '00000000-0000-0000-0000-000000000005', '{"k": [1, null]}', '{1,2}', '1 minute', '\\x00ff', 3)""",
    )
    reading = Sql(url=url, query="select * from kinds order by n;").opened(0, tmp_path)
    kinds = [pa.int64(), pa.int64(), pa.float64(), pa.float64(), pa.bool_(), pa.string(), pa.date32(), pa.timestamp("us")]
    kinds += [pa.timestamp("us", "UTC"), pa.string(), pa.string(), pa.string(), pa.float64(), pa.binary(), pa.int64()]
    assert reading.schema.types == kinds
    rows = rows_of(reading)
    assert (len(rows), rows[0][:3]) == (30001, (1, None, None))
    last = rows[-1]
    assert last[:6] == (9007199254740993, 7, 0.5, 12345.6789, True, "é")
    assert [str(value) for value in last[6:9]] == ["2024-01-02", "2024-01-02 03:04:05.000006", "2024-01-02 01:04:05+00:00"]
    assert last[9:] == ("00000000-0000-0000-0000-000000000005", '{"k": [1, null]}', "[1, 2]", 60.0, b"\x00\xff", 3)


def test_later_passes_see_the_rows_that_were_read_whatever_happens_to_the_table(url: str, tmp_path: Path) -> None:
    execute(url, "create schema if not exists other", "drop table if exists other.moving", "create table other.moving as select 1 as n")
    source = Sql(url=url, table="other.moving")
    before = source.opened(0, tmp_path)
    execute(url, "insert into other.moving values (2)")
    assert (rows_of(before), rows_of(before)) == ([(1,)], [(1,)])
    after = source.opened(0, tmp_path)
    assert rows_of(after) == [(1,), (2,)]
    assert after.fingerprint != before.fingerprint == before.fingerprint


def test_a_query_that_writes_leaves_the_database_as_it_was(url: str, tmp_path: Path) -> None:
    execute(url, "drop table if exists safe", "create table safe as select 1 as n")
    with pytest.raises(BadInput, match=r"cannot be read: .*syntax error"):
        Sql(url=url, query="delete from safe returning n").opened(0, tmp_path)
    assert rows_of(Sql(url=url, table="safe").opened(0, tmp_path)) == [(1,)]


def test_rows_stream_from_the_server_in_bounded_memory(url: str, tmp_path: Path) -> None:
    query = "select g as n, repeat(md5(g::text), 8) as text from generate_series(1, 600000) g"
    code = f"""
import re, pathlib
from batchlab.sources.sql import Sql
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
Sql(url={url!r}, query="select 1").opened(0, pathlib.Path({str(tmp_path)!r}))
before = peak()
reading = Sql(url={url!r}, query={query!r}).opened(0, pathlib.Path({str(tmp_path)!r}))
print(sum(batch.num_rows for batch in reading.batches(print)), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    rows, extra_megabytes = map(int, done.stdout.split())
    assert rows == 600_000
    assert extra_megabytes < 100, "the rows have 160 MB"


def test_a_password_is_taken_from_the_url_or_a_variable_and_is_never_shown(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    for password in (ENCODED, "${DATABASE_PASSWORD}"):
        url = server.replace("me@", f"me:{password}@").replace("postgresql+psycopg", "postgresql")
        assert rows_of(Sql(url=url, query="select 1").opened(0, tmp_path)) == [(1,)]
        for broken in ({"query": "select nothing_there"}, {"table": "nothing_there"}, {}):
            source = Sql.model_validate({"url": url, **broken})
            with pytest.raises(BadInput) as caught:
                source.opened(0, tmp_path)
            for shown in (str(caught.value), repr(source), str(source.model_dump()), source.model_dump_json(), source.name):
                assert "S3CRET" not in shown
            assert caught.value.__cause__ is None
    with pytest.raises(BadInput, match="password") as caught:
        Sql(url=server.replace("me@", "me:S3CRETwrong@"), query="select 1").opened(0, tmp_path)
    assert "S3CRET" not in str(caught.value)


def test_tables_that_exist_are_listed_when_none_is_named(url: str, tmp_path: Path) -> None:
    execute(url, "create table if not exists prices as select 1 as n")
    with pytest.raises(BadInput, match=r"set source.table to one of its tables \(.*prices.*\), or source.query"):
        Sql(url=url).peek()
    assert Sql(url=url, table="prices").peek() == pa.schema([("n", pa.int64())])
