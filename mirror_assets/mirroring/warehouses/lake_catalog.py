"""Where a DuckLake keeps its catalog: an SQLite file on one machine, or PostgreSQL for several.

A catalog lets writers take turns, because overlapping ones conflict as a whole.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from mirror_assets.mirroring.errors import SettingsError, WarehouseFault
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.storage import private_file, private_folder

_SQLITE = "ducklake:sqlite:"
_POSTGRES = "ducklake:postgres:"
_EXAMPLE = f"{_POSTGRES}host=.. dbname=.. user=.."
_WHERE = "MIRROR_WAREHOUSE"
_LOGIN = "mirror_catalog"
#: The turn of those who change the lake.
WRITER = "writer"
#: Theirs among PostgreSQL's advisory locks, which are a database's own; other turns lie above it.
_TURN = 7316021554
#: How long a wait for the turn goes without looking whether we were told to stop.
_PATIENCE = "2s"
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
#: A dead machine gives its turn up after about a minute.
_CONNECTING = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
#: Only found in a driver's text, never shown: libpq gives no code when connecting fails.
_LOGIN_REFUSED = ("password", "pg_hba.conf", "does not exist", "certificate", "ssl", "root.crt")

#: Least and greatest values of columns by file. Queries find their files by the partition; DuckLake
#: reads the statistics of all files of all tables for every column that a condition names.
_NEEDLESS_STATISTICS = """
DELETE FROM ducklake_file_column_stats AS s
WHERE s.data_file_id IN (SELECT data_file_id FROM ducklake_file_partition_value)
  AND NOT EXISTS (
    SELECT 1 FROM ducklake_partition_info AS i JOIN ducklake_partition_column AS c
    USING (partition_id) WHERE i.table_id = s.table_id AND c.column_id = s.column_id
  )
"""
#: One row or more for each file of the lake; DuckLake asks for those of one table.
_LOOKED_THROUGH = (
    "ducklake_data_file",
    "ducklake_file_column_stats",
    "ducklake_file_partition_value",
)
_HAS_COMMIT = "SELECT EXISTS (SELECT 1 FROM ducklake_snapshot_changes WHERE commit_extra_info = {})"
#: DuckLake's own tables, quoted.
_TABLES = """
SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
WHERE schemaname = 'public' AND tablename LIKE 'ducklake\\_%' AND tableowner = current_user
ORDER BY tablename
"""


class Catalog(Protocol):
    """The database that knows a lake's tables and files."""

    #: As MIRROR_WAREHOUSE names it; no secret is in it.
    shown: str
    #: What ATTACH is given; no secret is in it either.
    url: str
    #: DuckDB's extension that speaks to it.
    extension: str

    @property
    def folder(self) -> Path | None:
        """Where it is on this machine, if it is."""

    def login(self) -> Sequence[str]:
        """Statements that let a DuckDB connection log in; they hold the secret."""

    def options(self) -> Sequence[str]:
        """Options of ATTACH."""

    def exists(self) -> bool:
        """Whether anything was ever written. Raises WarehouseFault."""

    def prepare(self) -> None:
        """What must be there before DuckLake writes its first tables."""

    def turn(self, home: Path, name: str = WRITER) -> AbstractContextManager[None]:
        """While it is held nobody else has the same one; a killed holder gives it up by dying.

        ``home`` is a folder of this machine that all its writers know.
        """

    def has_commit(self, name: str) -> bool:
        """Whether a transaction was committed that called itself so (``commit_extra_info``)."""

    def compact(self) -> None:
        """Give back the room of deleted rows, so that what they said is gone from disk too."""


def open_catalog(url: str, password: str | None = None) -> Catalog:
    """The catalog that MIRROR_WAREHOUSE names. Raises SettingsError."""
    if url.startswith(_SQLITE):
        path = Path(url.removeprefix(_SQLITE))
        if path.is_dir():
            raise SettingsError(f"{path} is a folder", where=_WHERE, remedy="name a file in it")
        return SqliteCatalog(path)
    if url.startswith(_POSTGRES):
        return PostgresCatalog(url.removeprefix(_POSTGRES), password)
    raise SettingsError(
        "a lake's catalog is an SQLite file or a PostgreSQL database",
        where=_WHERE,
        remedy=f"use {_SQLITE}<file> or {_EXAMPLE}",
    )


def attached(url: str) -> str:
    """What DuckDB is given for MIRROR_WAREHOUSE: of a lake in PostgreSQL, with verified TLS."""
    return open_catalog(url).url if url.startswith("ducklake:") else url


class SqliteCatalog:
    """An SQLite file: several processes of one machine."""

    extension = "sqlite_scanner"

    def __init__(self, path: Path) -> None:
        self.shown = self.url = f"{_SQLITE}{path}"
        self._path = path
        self.folder = path.absolute().parent

    def login(self) -> Sequence[str]:
        return ()

    def options(self) -> Sequence[str]:
        return ("BUSY_TIMEOUT 10000",)

    def exists(self) -> bool:
        if not self._path.exists():
            return False
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            found = "SELECT count(*) FROM sqlite_master WHERE name = 'ducklake_snapshot'"
            return bool(connection.execute(found).fetchone()[0])

    def prepare(self) -> None:
        """Create the file in WAL mode: readers then never stop a writer."""
        private_folder(self.folder)
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        self._path.chmod(0o600)

    @contextmanager
    def turn(self, home: Path, name: str = WRITER) -> Iterator[None]:
        with private_file(home / f".{name}.lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def has_commit(self, name: str) -> bool:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return bool(connection.execute(_HAS_COMMIT.format("?"), (name,)).fetchone()[0])

    def compact(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=1, isolation_level=None)) as connection:
            try:
                connection.execute(_NEEDLESS_STATISTICS)
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError:
                return  # somebody reads: the next time will do


class PostgresCatalog:
    """A PostgreSQL database: several machines, one lake.

    ``address`` is libpq's: ``host=.. dbname=.. user=..`` or ``postgresql://user@host/database``.
    """

    extension = "postgres_scanner"
    folder = None

    def __init__(self, address: str, password: str | None) -> None:
        self._address = _completed(address)
        self._password = password
        self.shown = f"{_POSTGRES}{address}"
        self.url = f"{_POSTGRES}{self._address}"

    def login(self) -> Sequence[str]:
        if self._password is None:
            return ()
        secret = f"TYPE postgres, PASSWORD {literal(self._password)}"
        return (f"CREATE TEMPORARY SECRET {_LOGIN} ({secret})",)

    def options(self) -> Sequence[str]:
        return () if self._password is None else (f"META_SECRET '{_LOGIN}'",)

    def exists(self) -> bool:
        with self._session() as session:
            session.execute("SELECT to_regclass('public.ducklake_snapshot') IS NOT NULL")
            return bool(session.fetchone()[0])

    def prepare(self) -> None:
        """Nothing: DuckLake makes its tables in the database that is there."""

    @contextmanager
    def turn(
        self,
        home: Path,  # noqa: ARG002 - the turn is the database's
        name: str = WRITER,
    ) -> Iterator[None]:
        with self._session() as session:
            session.execute(f"SET lock_timeout = '{_PATIENCE}'")
            while not self._take_turn(session, name):
                pass
            yield

    def _take_turn(self, session: Any, name: str) -> bool:
        from psycopg2.errors import LockNotAvailable

        try:
            number = _TURN if name == WRITER else _TURN + 1 + zlib.crc32(name.encode())
            session.execute("SELECT pg_advisory_lock(%s)", (number,))
        except LockNotAvailable:
            return False
        return True

    def has_commit(self, name: str) -> bool:
        with self._session() as session:
            session.execute(f"BEGIN; SET LOCAL lock_timeout = '{_PATIENCE}'")
            # of a connection that was cut the server may still be committing
            session.execute("LOCK TABLE ducklake_snapshot_changes IN SHARE MODE")
            session.execute(_HAS_COMMIT.format("%s"), (name,))
            return bool(session.fetchone()[0])

    def compact(self) -> None:
        from psycopg2.errors import LockNotAvailable

        with self._session() as session:
            session.execute(_NEEDLESS_STATISTICS)
            session.execute(_TABLES)
            steps = [f"VACUUM (FULL, ANALYZE) {table}" for (table,) in session.fetchall()]
            steps += [
                f"CREATE INDEX IF NOT EXISTS {t}_of ON {t} (table_id)" for t in _LOOKED_THROUGH
            ]
            session.execute("SET lock_timeout = '1s'")
            for step in steps:
                try:
                    session.execute(step)
                except LockNotAvailable:
                    continue  # somebody reads: the next time will do

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """A cursor of a connection of its own, whose errors are ours."""
        import psycopg2  # here: nobody waits for the driver of a catalog that is not used

        try:
            with closing(psycopg2.connect(self._address, password=self._password)) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    yield cursor
        except psycopg2.Error as error:
            raise _translate(error) from None


def _completed(address: str) -> str:
    """libpq's address with what we ask of every connection. Raises SettingsError."""
    import psycopg2
    from psycopg2.extensions import make_dsn, parse_dsn

    try:
        stated = parse_dsn(address)
    except psycopg2.Error:  # its text quotes the address
        raise SettingsError(
            "the catalog's address is not one of PostgreSQL's",
            where=_WHERE,
            remedy=f"use {_EXAMPLE}",
        ) from None
    if "password" in stated:
        raise SettingsError(
            "the address holds a password, and addresses are shown",
            where=_WHERE,
            remedy="leave it out; put it into the file that MIRROR_WAREHOUSE_PASSWORD_FILE names,"
            " or use libpq's own: PGPASSFILE, passfile=, a client certificate",
        )
    asked = dict(_CONNECTING)
    if not _is_local(stated) and "PGSSLMODE" not in os.environ:
        asked["sslmode"] = "verify-full"
    return make_dsn(**(asked | stated))


def _is_local(address: dict[str, str]) -> bool:
    """Whether nothing leaves this machine: a socket, or loopback."""
    if "service" in address or "PGSERVICE" in os.environ:
        return False
    variable = os.environ.get("PGHOSTADDR") or os.environ.get("PGHOST", "")
    named = address.get("hostaddr") or address.get("host") or variable
    return all(not h or h.startswith(("/", "@")) or h in _LOCAL_HOSTS for h in named.split(","))


def _translate(error: Exception) -> WarehouseFault:
    """A driver's error as ours: its text may quote rows."""
    told = str(error).lower()
    where = "the lake's catalog in PostgreSQL"
    if getattr(error, "pgcode", None) is None and any(sign in told for sign in _LOGIN_REFUSED):
        return WarehouseFault(
            f"access denied ({driver_error(error)})",
            where=where,
            remedy="check database, user and certificate in MIRROR_WAREHOUSE and the password in"
            " the file that MIRROR_WAREHOUSE_PASSWORD_FILE names",
        )
    return WarehouseFault(
        f"the connection failed or the server refused ({driver_error(error)})",
        where=where,
        remedy="try again; if it lasts, check the server and MIRROR_WAREHOUSE",
    )
