import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from pydantic import SecretStr, field_serializer

from batchlab.errors import BadInput, UnknownName
from batchlab.sources.base import Source
from batchlab.sources.places import without_password
from batchlab.sources.spool import Spool, SpoolReading, type_of

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import URL, Connection, CursorResult

CHUNK_VALUES = 1_000_000
LONGEST_CHUNK = 20_000
PEEKED_ROWS = 1_000
CONNECT_SECONDS = 20
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Sql(Source):
    """A table of a database, or what a query returns. It is read once, in chunks, and later passes read what was kept.

    Nothing is ever committed, and the password is in no name, error or record: best leave it out of the URL, and to `PGPASSWORD`,
    libpq's password file or a variable (`postgresql://me:${SECRET}@host/db`). A query without ORDER BY may return rows in another
    order the next time; they are then another table.
    """

    kind: Literal["sql"] = "sql"
    url: SecretStr
    query: str | None = None
    table: str | None = None

    @field_serializer("url")
    def _url_without_password(self, url: SecretStr) -> str:
        return without_password(url.get_secret_value())

    @property
    def name(self) -> str:
        if self.table:
            return self.table
        last = without_password(self.url.get_secret_value()).split("?")[0].rsplit("/", 1)[-1]
        return Path(last).stem or self.kind

    @property
    def location(self) -> str:
        return without_password(self.url.get_secret_value())

    @property
    def identity(self) -> str:
        return f"{self.location} {self.table or self.query}"

    def opened(self, seed: int, scratch: Path) -> SpoolReading:
        scratch.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix="sql-", dir=scratch)
        with self._result() as result:
            return _spooled(result, folder).finished()

    def peek(self) -> "pa.Schema | None":
        """Return the types of the first rows of a table; a query may take long, and is not run for this."""
        if self.query is not None:
            self._check_choice()
            return None
        import pyarrow as pa

        with self._result() as result:
            names, columns = list(result.keys()), zip(*islice(result, PEEKED_ROWS), strict=True)
            types = [type_of(values) for values in columns] or [pa.null()] * len(names)
        return pa.schema([pa.field(name, kind) for name, kind in zip(names, types, strict=True)])

    def newest(self, column: str) -> float | None:
        """Return the largest value of a column, found by the database: the watermark that new rows are told by. None for text."""
        with self._result(column) as result:
            found = result.scalar()
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e6
        if isinstance(found, date):
            return datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp() * 1e6
        return float(found) if isinstance(found, int | float | Decimal) else None

    @contextmanager
    def _result(self, newest: str | None = None) -> "Iterator[CursorResult[Any]]":
        """Run the query, or ask for its largest value of the column `newest`, with a cursor on the server; raises BadInput for what the
        database says, without the password."""
        from sqlalchemy.exc import SQLAlchemyError

        url = self._address()
        try:
            with _connected(url) as connection:
                text = self._text(connection)
                if newest is not None:
                    text = f"SELECT max({connection.dialect.identifier_preparer.quote(newest)}) FROM (\n{text}\n) AS rows_of_batchlab"
                result = connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(text)
                if not result.returns_rows:
                    raise BadInput("the query returns no rows and no columns; give one that begins with SELECT.")
                yield result
        except (SQLAlchemyError, sqlite3.Error, OSError, OverflowError, ValueError) as error:
            raise BadInput(f"'{self.location}' cannot be read: {_said(error, url)}") from None

    def _address(self) -> "URL":
        """Return the URL with its variables filled in; plain `postgresql://` takes the driver that is installed."""
        from sqlalchemy import make_url
        from sqlalchemy.exc import SQLAlchemyError

        text = self.url.get_secret_value()
        missing = [name for name in _VARIABLE.findall(text) if name not in os.environ]
        if missing:
            raise BadInput(f"'{self.location}' names the environment variable {missing[0]}, which is not set.")
        text = _VARIABLE.sub(lambda found: quote(os.environ[found[1]], safe=""), text)
        try:
            url = make_url(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", text))
            url.get_dialect()
        except (SQLAlchemyError, ValueError, ImportError) as error:
            problem = without_password(str(error).splitlines()[0])
            raise BadInput(f"'{self.location}' is no database that can be read: {problem}") from None
        if url.password == "***":
            raise BadInput(f"'{self.location}' holds no password but the stars that stand for it; leave it out and set PGPASSWORD.")
        return url

    def _text(self, connection: "Connection") -> str:
        """Return the SQL to run; raises BadInput, with the tables that there are, when none can be made."""
        from sqlalchemy import inspect

        if self.query is not None and self.table is None:
            return self.query.strip().rstrip(";")
        schema, _, table = (self.table or "").rpartition(".")
        inspector = inspect(connection)
        if self.table is not None and self.query is None and inspector.has_table(table, schema or None):
            quoted = connection.dialect.identifier_preparer.quote
            return "SELECT * FROM " + ".".join(quoted(part) for part in (schema, table) if part)
        tables = sorted([*inspector.get_table_names(), *inspector.get_view_names()])
        if self.query is not None:
            raise BadInput("source.query and source.table are both given; a comparison reads one of them.")
        if self.table is not None:
            raise UnknownName("table", self.table, tables)
        shown = ", ".join(tables[:20]) + (f" and {len(tables) - 20} more" if len(tables) > 20 else "")
        raise BadInput(
            f"'{self.location}' is a database; set source.table to one of its tables ({shown or 'it has none'}), or source.query."
        )

    def _check_choice(self) -> None:
        if self.table is not None:
            raise BadInput("source.query and source.table are both given; a comparison reads one of them.")
        self._address()


@contextmanager
def _connected(url: "URL") -> "Iterator[Connection]":
    """Connect for one reading; nothing is committed."""
    from sqlalchemy import NullPool, create_engine

    if url.get_backend_name() == "sqlite":
        path = _existing(url.database)
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        engine = create_engine("sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(uri, uri=True))
    else:
        limit = {"connect_timeout": CONNECT_SECONDS} if url.get_driver_name() == "psycopg" and "connect_timeout" not in url.query else {}
        engine = create_engine(url, poolclass=NullPool, connect_args=limit, hide_parameters=True)
    with engine.connect() as connection:
        yield connection


def _existing(database: str | None) -> Path:
    """Return the path of an SQLite file; SQLite itself would make an empty one."""
    if not database or database == ":memory:":
        raise BadInput("an SQLite database in memory holds nothing; give a file: sqlite:///data.db")
    path = Path(database)
    if not path.is_file():
        raise BadInput(f"'{database}' does not exist (looked in {Path.cwd()}); an SQLite file is given as sqlite:///data.db")
    return path


def _spooled(result: "CursorResult[Any]", folder: "TemporaryDirectory[str]") -> Spool:
    names = list(result.keys())
    spool = Spool(names, folder)
    for rows in result.partitions(max(1, min(LONGEST_CHUNK, CHUNK_VALUES // max(len(names), 1)))):
        spool.add(rows)
    return spool


def _said(error: Exception, url: "URL") -> str:
    """Return the first line of what the database said, without the password even where a driver repeats it."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    password = str(url.password or "")
    said = without_password(lines[0])
    return said.replace(password, "***") if password else said
