"""PostgreSQL: ``COPY (SELECT ..) TO STDOUT`` straight into the export; no value passes Python.

One REPEATABLE READ, READ ONLY transaction reads the whole run. Its snapshot is exported, so that
other connections of this process can read the same instant. After each table it rolls back to a
savepoint: the snapshot stays, the table's lock goes, and a failed table does not spoil the next.

A mirrored table holds what ``SELECT * FROM table`` shows at the source: a partitioned parent its
partitions' rows (they are not mirrored on their own), an inheritance parent its children's too.
"""

from __future__ import annotations

import ctypes
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE

from mirror_assets.mirroring.catalog import MASK, DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SourceFault,
    SourceLocked,
    SourceUnavailable,
)
from mirror_assets.mirroring.landing import ExportWriter, Isolation
from mirror_assets.mirroring.names import literal, sql
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.sources import common
from mirror_assets.mirroring.sources.base import Login, TableState
from mirror_assets.mirroring.types import SourceColumn

_EXAMPLE = "postgresql+psycopg2://user:password@host:port/database"
_BATCH_BYTES = 1 << 20
_CONNECT_SECONDS = 15
#: An ALTER TABLE under way must not hold us for ever; sizes are not worth any wait.
_LOCK_SECONDS = 300
_SIZE_LOCK_MS = 500
#: What a URL may say after ``?``; the other settings are ours.
_URL_OPTIONS = frozenset(
    [
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "host", "port"),
        "hostaddr",
        *("target_session_attrs", "application_name", "gssencmode", "channel_binding"),
    ]
)
_DEFAULTS = {
    "application_name": "mirror_assets",
    "connect_timeout": _CONNECT_SECONDS,
    "client_encoding": "UTF8",
    # a dead peer is noticed after some two minutes, however long a statement runs
    "keepalives_idle": 60,
    "keepalives_interval": 15,
    "keepalives_count": 4,
}
#: Every value's text is the same whatever the server, database or role prefers. Intervals are
#: ISO 8601 (``P1Y2M-3DT4H5M6.7S``): every sign is explicit, and BigQuery casts it. Money keeps the
#: server's currency. LOCAL, so that it holds behind a pooler too.
_SETTINGS = (
    "row_security = off",  # raises where a policy would hide rows
    "search_path = pg_catalog",
    "timezone = 'UTC'",
    "datestyle = 'ISO, YMD'",
    "intervalstyle = iso_8601",
    "extra_float_digits = 3",  # the shortest text that is exact
    "bytea_output = hex",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
)
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_TRANSIENT = ("08", "40", "53", "57P", "57014", "55006", "25P03", "58030", "72000")
_LOCKED = "55P03"
_DENIED = ("28", "42501")
_CHANGED = {"42P01": "gone", "3F000": "gone", "42703": "changed"}
_ENCODING = ("22021", "22P05")
#: Only found in libpq's own text, which is English, and never shown.
_UNTRUSTED = ("certificate", "not support ssl", "invalid sslmode")
_INCOMPLETE, _TIMEOUT = "no password supplied", "timeout expired"
_LOGIN_REFUSED = (*_DENIED, "3D000")
_BY_CODE = 3  # libpq's PQERRORS_SQLSTATE: a server's code, in place of its sentence
_TOLD_CODE = re.compile(r"^[^:]+:\s+([0-9A-Z]{5})$", re.MULTILINE)

_RELATIONS = """
SELECT c.relname, c.oid, c.relkind IN ('r', 'p') AND NOT c.relispartition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
"""
_SIZES = """
SELECT c.relname, round(coalesce(CASE
        WHEN c.relkind = 'p' THEN (
            SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(c.oid))
        ELSE pg_total_relation_size(c.oid)
    END, 0) / 1048576.0)::int
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
"""
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
    a.atttypid, a.atttypmod
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_TYPES = """
SELECT t.oid, t.typtype, t.typcategory, t.typbasetype, t.typtypmod,
    CASE WHEN n.nspname = 'pg_catalog' OR t.typname IN ('citext', 'hstore', 'ltree')
        THEN replace(format_type(t.oid, NULL), quote_ident(n.nspname) || '.', '')
        ELSE format_type(t.oid, NULL) END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
"""
_KEYS = """
SELECT c.relname, a.attname
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE n.nspname = %s AND i.indisprimary
ORDER BY c.relname, k.place
"""
_CHANGES = """
SELECT wanted FROM unnest(ARRAY['DELETE', 'INSERT', 'TRUNCATE', 'UPDATE']) AS wanted
WHERE EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, wanted))
ORDER BY 1
"""
#: Catalogue tables show the snapshot; functions show now. TRUNCATE and a rewrite change the file
#: and empty the table even for snapshots begun before.
_UNCHANGED = """
WITH RECURSIVE known(oid) AS (
    SELECT {oid}::oid
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN known ON known.oid = i.inhparent)
SELECT bool_and(c.relfilenode = coalesce(pg_relation_filenode(c.oid), 0)) AND (
    (SELECT relkind <> 'p' FROM pg_class WHERE oid = {oid}::oid)
    OR array_agg(c.oid ORDER BY c.oid) = (
        SELECT array_agg(p.oid ORDER BY p.oid) FROM pg_partition_tree({oid}::oid) t
        JOIN pg_class p ON p.oid = t.relid))
FROM pg_class c JOIN known USING (oid)
"""


class PostgresSource:
    """A schema of a PostgreSQL database behind a SQLAlchemy URL
    (``postgresql+psycopg2://user:password@host:port/database?sslmode=verify-full``).
    """

    def __init__(self, spec: DatabaseSpec, url: str) -> None:
        self._spec = spec
        self._options = libpq_options(url, spec.name)
        self._schema = spec.entry.source_schema or "public"
        self._instants: dict[str, datetime] = {}

    def states(self) -> dict[str, TableState]:
        """Base tables and partitioned parents; views and the like where the catalog names them."""
        with self._session() as session:
            session.begin()
            return _Relations(session, self._spec, self._schema).states

    def login(self) -> Login:
        with self._session() as session:
            session.begin()
            ((now,),) = session.ask("SELECT clock_timestamp()")
            changes = session.ask(_CHANGES, self._schema)
        return Login(now.astimezone(UTC), tuple(row[0] for row in changes))

    @contextmanager
    def snapshot(self, attach: str | None = None) -> Iterator[PostgresSnapshot]:
        """A new snapshot; or a second connection to the one of this ``snapshot_id``, while that
        is open. Each is for one thread.
        """
        with self._session() as session:
            snapshot_id, taken_at = self._share(session, attach)
            try:
                yield PostgresSnapshot(self._spec, self._schema, session, taken_at, snapshot_id)
            finally:
                if attach is None:
                    del self._instants[snapshot_id]

    def _share(self, session: _Session, attach: str | None) -> tuple[str, datetime]:
        if attach is None:
            session.begin()
            # the transaction's first query, which takes the snapshot
            (row,) = session.ask("SELECT pg_export_snapshot(), statement_timestamp()")
            taken_at = row[1].astimezone(UTC)
            self._instants[row[0]] = taken_at
            return row[0], taken_at
        taken_at = self._instants.get(attach)
        if taken_at is None:
            raise SourceUnavailable(
                "the shared snapshot is no longer open",
                where=self._spec.name,
                remedy="run the partition again: all tables must be read from one snapshot",
            )
        session.begin(attach)
        return attach, taken_at

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        session = _Session(self._connect(), self._spec.name)
        try:
            yield session
        finally:
            session.close()

    def _connect(self) -> Any:
        try:
            connection = psycopg2.connect(**self._options)
            connection.autocommit = True  # transactions are begun and ended by our statements
        except psycopg2.Error as error:
            where = f"database {self._spec.name}"
            told = str(error).rpartition("failed: ")[2].lower()
            if any(phrase in told for phrase in _UNTRUSTED):
                raise common.untrusted(driver_error(error), where) from None
            code = "" if _TIMEOUT in told else _login_code(self._options)
            if code.startswith(_LOGIN_REFUSED) or _INCOMPLETE in told:
                shown = f"{driver_error(error)} {code}".rstrip()
                raise common.denied(shown, where) from None
            raise _translate(error, where) from None
        return connection


class _Session:
    """A connection with one read-only transaction, whose errors are our own."""

    def __init__(self, raw: Any, where: str) -> None:
        self._raw = raw
        self._where = where
        self.is_ascii = raw.get_parameter_status("server_encoding") == "SQL_ASCII"

    def begin(self, snapshot_id: str | None = None) -> None:
        """Begin; the first query that follows takes the snapshot, unless one is given."""
        shared = f"; SET TRANSACTION SNAPSHOT {literal(snapshot_id)}" if snapshot_id else ""
        settings = "".join(f"; SET LOCAL {setting}" for setting in _SETTINGS)
        self.run(f"{_BEGIN}{shared}{settings}; SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")

    def ask(self, statement: str, *arguments: Any, where: str = "") -> list[tuple[Any, ...]]:
        try:
            with self._raw.cursor() as cursor:
                cursor.execute(statement, arguments or None)
                return list(cursor.fetchall())
        except psycopg2.Error as error:
            raise _translate(error, where or self._where) from None

    def run(self, statement: str) -> None:
        try:
            with self._raw.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.Error as error:
            raise _translate(error, self._where) from None

    def copy(self, statement: str, records: _Records, where: str) -> None:
        try:
            with self._raw.cursor() as cursor:
                cursor.copy_expert(statement, records)
                records.finish(cursor.rowcount, where)
        except psycopg2.Error as error:
            raise _translate(error, where) from None
        except BaseException:
            with suppress(psycopg2.Error):
                self._raw.cancel()  # else the rest of the table is read before the rollback
            raise

    def close(self) -> None:
        with suppress(psycopg2.Error):  # a dead connection cannot be closed: nothing is lost
            self._raw.close()


class _Records:
    """Takes the server's messages, which are one record each, and writes them in batches."""

    def __init__(self, writer: ExportWriter) -> None:
        self._writer = writer
        self._records: list[bytes] = []
        self._bytes = 0
        self.rows = 0
        self._is_whole = True

    def write(self, record: bytes) -> None:
        self._records.append(record)
        self._bytes += len(record)
        if self._bytes >= _BATCH_BYTES:
            self._flush()

    def finish(self, rows: int, where: str) -> None:
        """Write the rest; ``rows`` is the server's own count."""
        if self._records:
            self._flush()
        if rows != self.rows or not self._is_whole:
            raise SourceFault(
                f"the server copied {rows} rows in {self.rows} messages; each must be one record",
                where=where,
                remedy="connect to PostgreSQL itself, not through what rewrites its messages",
            )
        self._writer.close_part()

    def _flush(self) -> None:
        records, self._records, self._bytes = self._records, [], 0
        self._is_whole = self._is_whole and all(record[-1] == 10 for record in records)
        self.rows += len(records)
        self._writer.write(b"".join(records), len(records), max(map(len, records)))


class _Relations:
    """What can be read in a schema."""

    def __init__(self, session: _Session, spec: DatabaseSpec, schema: str) -> None:
        rows = session.ask(_RELATIONS, schema)
        listed = {table.name for table in spec.tables}
        info = {"create_time": None, "db_timezone": "UTC"}
        sizes = self._sizes(session, schema)
        self.oids: dict[str, int] = {name: oid for name, oid, _is_base in rows}
        self.states = {
            name: TableState(name, None, sizes.get(name, 0), dict(info))
            for name, _oid, is_base in rows
            if is_base or name in listed
        }

    def _sizes(self, session: _Session, schema: str) -> dict[str, int]:
        """Megabytes by table; none are known while somebody holds one of them locked, because
        measuring takes locks, and one locked table must not keep us from all others.
        """
        session.run(f"SAVEPOINT sizes; SET LOCAL lock_timeout = {_SIZE_LOCK_MS}")
        try:
            return dict(session.ask(_SIZES, schema))
        except SourceLocked:
            return {}
        finally:
            session.run("ROLLBACK TO SAVEPOINT sizes")


class PostgresSnapshot:
    """A REPEATABLE READ, READ ONLY transaction; ``snapshot_id`` names it for other connections."""

    isolation: Isolation = "one instant"

    def __init__(
        self,
        spec: DatabaseSpec,
        schema: str,
        session: _Session,
        taken_at: datetime,
        snapshot_id: str,
    ) -> None:
        self._spec = spec
        self._schema = schema
        self._session = session
        self.taken_at = taken_at
        self.snapshot_id = snapshot_id
        session.run("SAVEPOINT mirror")
        self._relations = _Relations(session, spec, schema)
        self._columns = self._read_columns()
        self._keys = self._read_keys()
        self.release()  # looking for partitions has locked them

    def tables(self) -> dict[str, TableState]:
        return self._relations.states

    def schema(self, table: TableSpec) -> TableSchema:
        found = self._columns.get(table.name)
        return common.mirrored(self._spec, table, found, self._keys.get(table.name, ()))

    def count(self, table: TableSpec) -> int:
        ((rows,),) = self._session.ask(
            f"SELECT count(*) FROM {self._name(table)}", where=self._where(table)
        )
        return int(rows)

    def export(self, table: TableSpec, schema: TableSchema, writer: ExportWriter) -> int:
        base = {column.name: column.data_type for column in self._columns[table.name]}
        selected = ", ".join(
            f"{_select(column, base[column.name], table)} AS c{i}"
            for i, column in enumerate(schema.columns)
        )
        quoted = ", ".join(f"c{i}" for i, column in enumerate(schema.columns) if _is_quoted(column))
        force = f", FORCE_QUOTE ({quoted})" if quoted else ""
        records = _Records(writer)
        if self._session.is_ascii:  # such a database may hold any bytes: they come as they are
            self._session.run("SET LOCAL client_encoding = SQL_ASCII")
        self._session.copy(
            f"COPY (SELECT {selected} FROM {self._name(table)}) TO STDOUT (FORMAT csv{force})",
            records,
            self._where(table),
        )
        return records.rows

    def check_unchanged(self, table: TableSpec) -> None:
        """Raise RefreshLanded when the table was truncated, rewritten or dropped, or partitions
        were attached or detached, since the snapshot: its rows would then be missing from it.
        """
        oid = self._relations.oids.get(table.name, 0)
        ((unchanged,),) = self._session.ask(_UNCHANGED.format(oid=oid))
        if unchanged is False:
            raise common.changed("was truncated or rebuilt since the snapshot", self._where(table))

    def relation(self, table: TableSpec) -> str:
        return self._name(table)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._session.ask(statement)

    def release(self) -> None:
        """Give back the table's lock (ACCESS SHARE, which only ALTER and DROP wait for)."""
        self._session.run("ROLLBACK TO SAVEPOINT mirror")

    def _where(self, table: TableSpec) -> str:
        return f"{self._spec.name}/{table.name}"

    def _name(self, table: TableSpec) -> str:
        return f"{sql(self._schema)}.{sql(table.name)}"

    def _read_columns(self) -> dict[str, list[SourceColumn]]:
        found: dict[str, list[SourceColumn]] = {name: [] for name in self._relations.oids}
        kinds = {row[0]: _Type(*row[1:]) for row in self._session.ask(_TYPES)}
        for table, name, full_type, nullable, oid, modifier in self._session.ask(
            _COLUMNS, self._schema
        ):
            kind = kinds[oid]
            while kind.variety == "d":  # a domain; those over domains too
                modifier = kind.modifier if kind.modifier != -1 else modifier
                kind = kinds[kind.base]
            precision, scale = _digits(modifier) if kind.name == "numeric" else (None, None)
            found[table].append(
                SourceColumn(name, kind.word, full_type, nullable, precision, scale)
            )
        return found

    def _read_keys(self) -> dict[str, tuple[str, ...]]:
        keys: dict[str, tuple[str, ...]] = {}
        for table, column in self._session.ask(_KEYS, self._schema):
            keys[table] = (*keys.get(table, ()), column)
        return keys


class _Type(NamedTuple):
    """A row of pg_type. ``name`` is bare for PostgreSQL's own types, else with its schema."""

    variety: str
    category: str
    base: int
    modifier: int
    name: str

    @property
    def word(self) -> str:
        """The type's word in ``types.POSTGRES``."""
        if self.category == "A":
            return "ARRAY"
        varieties = {"c": "composite", "e": "enum", "r": "range", "m": "multirange"}
        return varieties.get(self.variety, self.name)


def _digits(modifier: int) -> tuple[int | None, int | None]:
    """Precision and scale of a numeric; none where it has no limits."""
    if modifier == -1:
        return None, None
    packed = modifier - 4
    return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def _select(column: Column, data_type: str, table: TableSpec) -> str:
    quoted = sql(column.name)
    if column.name in table.masked_columns:  # a composite of NULLs is a value, so not IS NULL
        return f"CASE WHEN num_nulls({quoted}) = 0 THEN '{MASK}' END"
    if column.encoding == "hex":
        return f"encode({quoted}, 'hex')"
    return f"{quoted}::double precision" if data_type == "real" else quoted


def _is_quoted(column: Column) -> bool:
    return column.encoding in ("hex", "declared") or column.type.kind == "STRING"


def libpq_options(url: str, database: str) -> dict[str, Any]:
    """What libpq is told: the parts of the URL, its options, and ours."""
    parsed = common.parsed(url, database, _EXAMPLE)
    unknown = sorted(set(parsed.query) - _URL_OPTIONS)
    if unknown:
        raise SettingsError(
            f"the database URL has an unknown option {unknown[0]!r}",
            where=f"database {database}",
            remedy=f"allowed: {', '.join(sorted(_URL_OPTIONS))}",
        )
    address = {
        "host": parsed.host,
        "port": parsed.port,
        "user": parsed.username,
        "password": parsed.password,
        "dbname": parsed.database,
    }
    given = {name: value for name, value in address.items() if value is not None}
    return {**_DEFAULTS, **given, **parsed.query}


def _login_code(options: dict[str, Any]) -> str:
    """The SQLSTATE with which a server refuses a connection; '' when none comes.

    psycopg2 has none for a connection that failed, and the server's sentence is in its language.
    So it is asked again, through a connection whose errors are told by their code.
    """
    libpq = ctypes.PyDLL(psycopg2._psycopg.__file__)  # finds what the driver is linked to
    libpq.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
    connection = None
    try:
        connection = psycopg2.connect(**options, async_=True)
        libpq.PQsetErrorVerbosity(connection.pgconn_ptr, _BY_CODE)
        _await_connected(connection)
    except psycopg2.Error as error:
        codes = _TOLD_CODE.findall(str(error).rpartition("failed: ")[2])
        return str(codes[-1]) if codes else ""
    finally:
        if connection is not None:
            connection.close()
    return ""


def _await_connected(connection: Any) -> None:
    """Go on connecting until it has succeeded, failed or lasted too long."""
    end = monotonic() + _CONNECT_SECONDS
    while (wanted := connection.poll()) != POLL_OK and (left := end - monotonic()) > 0:
        reading = [connection] if wanted == POLL_READ else []
        writing = [connection] if wanted == POLL_WRITE else []
        select.select(reading, writing, [], left)


def _translate(error: psycopg2.Error, where: str) -> MirrorError:
    """A driver's error as one of ours: never its text, which may quote rows."""
    code = error.pgcode or ""
    shown = driver_error(error)
    if code == _LOCKED:
        return common.locked(shown, where, _LOCK_SECONDS)
    if not code or code.startswith(_TRANSIENT):  # the driver itself gives no code: it was cut off
        return common.unavailable(shown, where)
    if code in _CHANGED:
        return common.changed(f"is {_CHANGED[code]} since the snapshot began ({shown})", where)
    if error.diag.source_function == "check_enable_rls":
        return SourceFault(
            f"row-level security would hide rows from this login ({shown})",
            where=where,
            remedy="ALTER ROLE .. BYPASSRLS, or use a role that the table's policies do not touch",
        )
    if code.startswith(_DENIED):
        return common.denied(shown, where)
    if code in _ENCODING:
        return SourceFault(
            f"a value or name is not valid in the database's encoding ({shown})",
            where=where,
            remedy="correct the value at the source, or exclude its column in the catalog",
        )
    return common.refused(shown, where)
