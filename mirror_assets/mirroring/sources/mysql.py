"""MySQL and MariaDB: records assembled by the server, over an unbuffered cursor.

One connection reads the whole run inside one consistent snapshot. After each table it rolls back
to a savepoint: the snapshot stays, the table's metadata lock goes, and the vendor can rebuild it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pymysql

from mirror_assets.mirroring.catalog import MASK, DatabaseSpec, TableSpec
from mirror_assets.mirroring.dialect import Formatter, style_of
from mirror_assets.mirroring.errors import MirrorError, SourceFault
from mirror_assets.mirroring.landing import ExportWriter, Isolation
from mirror_assets.mirroring.names import backquoted
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.sources import common
from mirror_assets.mirroring.sources.base import Login, TableState
from mirror_assets.mirroring.types import SourceColumn

try:
    import MySQLdb as _fast  # noqa: N813
    from MySQLdb.cursors import SSCursor as _FastCursor
except ImportError:  # PyMySQL writes the same bytes, slower
    _fast = None

_DRIVER_ERRORS: tuple[type[Exception], ...] = (
    pymysql.err.MySQLError,
    OSError,
    *((_fast.MySQLError,) if _fast else ()),
)
_EXAMPLE = "mysql+pymysql://user:password@host:port/schema"
_BATCH_BYTES = 1 << 20
_MAX_BATCH_ROWS = 500
_FETCHED_ROWS = 8
_CONNECT_SECONDS = 15
#: A statement may be silent for as long as it counts a large table; a dead peer is noticed by
#: keepalive, after some two minutes. Behind a proxy that lives on, this is the last resort.
_SILENT_SECONDS = 6 * 3600
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Servers wait a day for whoever holds LOCK TABLES .. WRITE or alters a table.
_LOCK_SECONDS = 300
#: Bytes. MariaDB moves all that follows for every quote that it doubles: of a text of 60 KB with
#: 20,000 quotes it makes five in a second.
_LONG_TEXT = 8192

_CHANGED = {1412: "changed", 1146: "gone", 1051: "gone", 1054: "changed"}
#: Of a login: wrong, without rights, from this host, locked, its password expired or to be changed.
_DENIED = {1044, 1045, 1130, 1142, 1143, 1227, 1698, 1820, 1862, 3118, 4151}
#: Also those of a limit on connections or queries (1040, 1203, 1226).
_TRANSIENT = {1040, 1053, 1105, 1152, 1158, 1159, 1160, 1161, 1203, 1213, 1226, 1317}
_LOCKED = {1205, 3572}
_VERIFIED = ("VERIFY_CA", "VERIFY_IDENTITY")
#: Only found in a driver's text, never shown: one code stands for all of TLS.
_UNTRUSTED = ("certificate", "does not support ssl", "not support it", "ssl is required")
_LOGIN_UNTOLD = ("auth switch request", "during authentication")  # PyMySQL's, without a code
_VALUE_CUT = "1301"
#: Character sets of which every character has its own in UTF-8. Of the others, bytes without a
#: character would come as question marks, or as U+FFFD.
_WHOLE_CHARSETS = frozenset(
    ["", "utf8", "utf8mb3", "utf8mb4", "ucs2", "utf16", "utf16le", "utf32", "latin1"]
)
_UNKNOWN = "\ufffd".encode()
_WITH_UNKNOWN = ("gb18030",)  # which have that character themselves
#: The client's own: of a way to log in that it does not have, or of what stays as it is.
_LOGIN_UNKNOWN = {2049, 2054, 2059, 2061}
_CLIENT_REFUSED = {2007, 2019, 2020}
_UNREACHABLE = set(range(2000, 2100)) - _LOGIN_UNKNOWN - _CLIENT_REFUSED
#: A role's privileges are not among them.
_CHANGES = """
SELECT DISTINCT PRIVILEGE_TYPE FROM (
    SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES
    UNION ALL SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES
    WHERE %s LIKE TABLE_SCHEMA
    UNION ALL SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES
    WHERE TABLE_SCHEMA = %s) AS granted
WHERE GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')
AND PRIVILEGE_TYPE IN ('INSERT', 'UPDATE', 'DELETE', 'CREATE', 'DROP', 'ALTER')
ORDER BY 1
"""
_RecordsOf = Callable[[Sequence[tuple[bytes | None, ...]]], list[bytes]]


class MySQLSource:
    """A MySQL schema behind a SQLAlchemy URL (``mysql+pymysql://user:password@host/schema``)."""

    def __init__(self, spec: DatabaseSpec, url: str, *, driver: str = "auto") -> None:
        self._spec = spec
        self._url = common.parsed(url, spec.name, _EXAMPLE)
        self._schema = spec.entry.source_schema or self._url.database or spec.name
        self._query = {name: str(value) for name, value in self._url.query.items()}
        self._hostaddr = self._query.get("hostaddr")
        self._tls = _tls_mode(self._query)
        # the C library holds the certificate against the address that it connects to
        is_named_otherwise = self._hostaddr is not None and self._tls in _VERIFIED
        use_fast = driver == "auto" and _fast is not None and not is_named_otherwise
        self._driver = _fast if use_fast else pymysql

    def states(self) -> dict[str, TableState]:
        with self._connection() as connection:
            return connection.states(self._schema)

    def login(self) -> Login:
        with self._connection() as connection:
            (now,) = connection.execute("SELECT UTC_TIMESTAMP(6)")[0]
            changes = connection.execute(_CHANGES, self._schema, self._schema)
        return Login(_instant(now), tuple(row[0] for row in changes))

    @contextmanager
    def snapshot(self) -> Iterator[MySQLSnapshot]:
        with self._connection() as connection:
            yield MySQLSnapshot(self._spec, self._schema, connection)

    @contextmanager
    def _connection(self) -> Iterator[_Connection]:
        connection = _Connection(self._connect(), self._spec.name)
        try:
            # MySQL 8 would show table statistics up to a day old. A server's limit on statements
            # is for those of applications. MariaDB skips MySQL's comments, and MySQL its.
            connection.execute(
                f"SET time_zone = '+00:00', net_write_timeout = 3600,"
                f" lock_wait_timeout = {_LOCK_SECONDS}, max_error_count = 65535"
                " /*!80000 , information_schema_stats_expiry = 0 */"
                " /*!50708 , max_execution_time = 0 */ /*M!100101 , max_statement_time = 0 */"
            )
            if self._tls == "REQUIRED":
                self._refuse_plain(connection)
            yield connection
        finally:
            connection.close()

    def _refuse_plain(self, connection: _Connection) -> None:
        """Where it need not verify, the C library goes on without TLS if none is offered."""
        ((_name, cipher),) = connection.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
        if not cipher:
            raise common.untrusted("no cipher", f"database {self._spec.name}")

    def _connect(self) -> Any:
        options: dict[str, Any] = {
            "host": self._url.host or "127.0.0.1",
            "port": self._url.port or 3306,
            "user": self._url.username or "",
            "password": self._url.password or "",
            "database": self._schema,
            "charset": "utf8mb4",
            "use_unicode": False,
            "conv": self._encoders(),
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _SILENT_SECONDS,
        }
        authority = self._query.get("ssl_ca")
        options |= _tls_options(self._tls, authority, fast=self._driver is not pymysql)
        try:
            return self._dial(options)
        except _DRIVER_ERRORS as error:
            where = f"database {self._spec.name}"
            told = str(error).lower()
            if any(phrase in told for phrase in _UNTRUSTED):
                raise common.untrusted(driver_error(error), where) from None
            if any(phrase in told for phrase in _LOGIN_UNTOLD):
                raise _login_unknown(driver_error(error), where) from None
            raise _translate(error, where) from None
        except RuntimeError as error:  # PyMySQL's, of a package that a way to log in asks for
            raise _login_unknown(driver_error(error), f"database {self._spec.name}") from None

    def _dial(self, options: dict[str, Any]) -> Any:
        """A connection to ``hostaddr``, where there is one, with the host's name for TLS."""
        connection: Any
        host = self._hostaddr or options["host"]
        if self._driver is not pymysql:
            connection = self._driver.connect(**options | {"host": host})
            with socket.socket(fileno=os.dup(connection.fileno())) as own:
                _keep_alive(own)
            return connection
        dialled = socket.create_connection((host, options["port"]), _CONNECT_SECONDS)
        connection = pymysql.connect(
            **options | {"read_timeout": _CONNECT_SECONDS}, defer_connect=True
        )
        try:
            _keep_alive(dialled)
            connection.connect(dialled)
        except BaseException:
            dialled.close()
            raise
        connection._read_timeout = _SILENT_SECONDS  # its only limit, and the greeting's until here
        return connection

    def _encoders(self) -> dict[Any, Any]:
        """Conversions of arguments only: every value comes back as the server's own text."""
        return dict(pymysql.converters.encoders) if self._driver is pymysql else {}


class _Connection:
    """A driver connection whose errors are our own."""

    def __init__(self, raw: Any, where: str) -> None:
        self.raw = raw
        self._where = where

    def execute(self, statement: str, *arguments: str, where: str = "") -> list[tuple[Any, ...]]:
        """Run a small statement; values come back as text, or None."""
        try:
            with self.raw.cursor() as cursor:
                cursor.execute(statement, arguments or None)
                return [tuple(_text(value) for value in row) for row in cursor.fetchall()]
        except _DRIVER_ERRORS as error:
            raise _translate(error, where or self._where) from None

    def stream(
        self, statement: str, where: str
    ) -> Generator[Sequence[tuple[bytes | None, ...]], None, None]:
        """Batches of raw rows, of ``_BATCH_BYTES`` or a few rows more each."""
        cursor_class = _FastCursor if self.raw.__class__.__module__.startswith("MySQLdb") else None
        try:
            cursor = self.raw.cursor(cursor_class or pymysql.cursors.SSCursor)
            try:
                cursor.execute(statement)
                yield from _batches(cursor)
            finally:
                cursor.close()
        except _DRIVER_ERRORS as error:
            raise _translate(error, where) from None

    def states(self, schema: str) -> dict[str, TableState]:
        rows = self.execute(
            "SELECT TABLE_NAME, CREATE_TIME, UPDATE_TIME,"
            " ROUND((COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0)) / 1048576),"
            " @@global.time_zone, @@system_time_zone, ENGINE,"
            " TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(),"
            " CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', @@global.time_zone))"
            " FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
            " ORDER BY TABLE_NAME",
            schema,
        )
        found = {}
        for name, created, updated, size, global_zone, system_zone, engine, offset in rows:
            zone_name = system_zone if global_zone == "SYSTEM" else global_zone
            zone = zone_of(zone_name, self._where, offset)
            info = {
                "create_time": _local(created, zone),
                "update_time": _local(updated, zone),
                "db_timezone": zone_name,
            }
            found[name] = TableState(
                name=name,
                created_at=_utc(created),
                size_mb=int(float(size or 0)),
                info=info,
                updated_at=_utc(updated),
                versioned=engine == "InnoDB",
            )
        return found

    def close(self) -> None:
        with suppress(*_DRIVER_ERRORS):  # a dead connection cannot be closed: nothing is lost
            self.raw.close()


class MySQLSnapshot:
    """A REPEATABLE READ, READ ONLY transaction begun with a consistent snapshot."""

    isolation: Isolation = "one instant"

    def __init__(self, spec: DatabaseSpec, schema: str, connection: _Connection) -> None:
        self._spec = spec
        self._schema = schema
        self._connection = connection
        connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._states = connection.states(schema)
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        now = connection.execute("SELECT UTC_TIMESTAMP(6)")[0][0]
        self.taken_at = _instant(now)
        connection.execute("SAVEPOINT mirror")
        self._computed: set[str] = set()  # tables with columns that are computed when read
        self._columns = self._read_columns()
        self._keys = self._read_keys()

    def tables(self) -> dict[str, TableState]:
        return self._states

    def schema(self, table: TableSpec) -> TableSchema:
        found = self._columns.get(table.name) if table.name in self._states else None
        return common.mirrored(self._spec, table, found, self._keys.get(table.name, ()))

    def count(self, table: TableSpec) -> int:
        rows = self._connection.execute(
            f"SELECT COUNT(*) FROM {backquoted(table.name)}",
            where=f"{self._spec.name}/{table.name}",
        )
        return int(rows[0][0])

    def export(self, table: TableSpec, schema: TableSchema, writer: ExportWriter) -> int:
        found = {column.name: column.charset for column in self._columns[table.name]}
        masked = {column.name: column.name in table.masked_columns for column in schema.columns}
        charsets = ["" if is_masked else found[name] for name, is_masked in masked.items()]
        fields = [
            _select(column, charset, masked=masked[column.name])
            for column, charset in zip(schema.columns, charsets, strict=True)
        ]
        relation, where = backquoted(table.name), f"{self._spec.name}/{table.name}"
        if table.name in self._computed:
            statement = f"SELECT {', '.join(fields)} FROM {relation}"
            formatter = Formatter(schema.columns)
            _read, written = self._copy(statement, formatter.records, writer, where)
            self._refuse_cut_values(where)
        else:
            long = _long(schema.columns)
            record = f"IF({long}, NULL, {_record(schema.columns, fields, charsets)})"
            statement = f"SELECT {record} FROM {relation}"
            read, written = self._copy(statement, _assembled, writer, where)
            # too long for the server to assemble, well or at all: these come as values
            values, records_of = _values(schema.columns, fields, charsets)
            for which in (long, f"NOT ({long}) AND {record} IS NULL"):
                if written < read:
                    left = f"SELECT {values} FROM {relation} WHERE {which}"
                    written += self._copy(left, records_of, writer, where)[1]
        writer.close_part()
        return written

    def _copy(
        self, statement: str, records_of: _RecordsOf, writer: ExportWriter, where: str
    ) -> tuple[int, int]:
        """Write the records of a statement's rows; how many rows came, how many were written."""
        read = written = 0
        # closed at once when the writer fails: unread rows would fail the next table too
        with closing(self._connection.stream(statement, where)) as batches:
            for rows in batches:
                records = records_of(rows)
                read += len(rows)
                written += len(records)
                if records:
                    longest = max(map(len, records)) + 1
                    writer.write(b"\n".join(records) + b"\n", len(records), longest)
        return read, written

    def _refuse_cut_values(self, where: str) -> None:
        """Values that the server computes (virtual columns) become NULL beyond its limit."""
        codes = {row[1] for row in self._connection.execute("SHOW WARNINGS")}
        if _VALUE_CUT in codes:
            raise SourceFault(
                "the server left out computed values longer than its max_allowed_packet"
                f" (warning {_VALUE_CUT})",
                where=where,
                remedy="have max_allowed_packet raised at the server, or exclude the column",
            )

    def check_unchanged(self, table: TableSpec) -> None:
        rows = self._connection.execute(
            "SELECT CREATE_TIME FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
            self._schema,
            table.name,
        )
        now = _utc(rows[0][0]) if rows else None
        state = self._states.get(table.name)
        if state is None or now != state.created_at:
            where = f"{self._spec.name}/{table.name}"
            raise common.changed("was rebuilt while it was being read", where)

    def relation(self, table: TableSpec) -> str:
        return backquoted(table.name)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement)

    def release(self) -> None:
        self._connection.execute("ROLLBACK TO SAVEPOINT mirror")

    def _read_columns(self) -> dict[str, list[SourceColumn]]:
        rows = self._connection.execute(
            "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE,"
            " NUMERIC_PRECISION, NUMERIC_SCALE, CHARACTER_SET_NAME, EXTRA"
            " FROM information_schema.COLUMNS"
            " WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME, ORDINAL_POSITION",
            self._schema,
        )
        found: dict[str, list[SourceColumn]] = {}
        for table, name, data_type, full_type, nullable, precision, scale, charset, extra in rows:
            column = SourceColumn(
                name=name,
                data_type=data_type.lower(),
                full_type=full_type.lower(),
                nullable=nullable == "YES",
                precision=int(precision) if precision is not None else None,
                scale=int(scale) if scale is not None else None,
                charset=charset or "",
            )
            found.setdefault(table, []).append(column)
            if "VIRTUAL" in extra.upper():
                self._computed.add(table)
        return found

    def _read_keys(self) -> dict[str, tuple[str, ...]]:
        rows = self._connection.execute(
            "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS"
            " WHERE TABLE_SCHEMA = %s AND INDEX_NAME = 'PRIMARY'"
            " ORDER BY TABLE_NAME, SEQ_IN_INDEX",
            self._schema,
        )
        keys: dict[str, tuple[str, ...]] = {}
        for table, column in rows:
            keys[table] = (*keys.get(table, ()), column)
        return keys


def _select(column: Column, charset: str, *, masked: bool) -> str:
    quoted = backquoted(column.name)
    if masked:
        return f"IF({quoted} IS NULL, NULL, '{MASK}')"
    base = column.source_type.split("(")[0].split(" ")[0]
    if base == "float":
        return f"CAST({quoted} AS DOUBLE)"  # a FLOAT prints six digits otherwise
    if base == "bit":
        return f"CAST({quoted} AS UNSIGNED)"
    return quoted if charset in _WHOLE_CHARSETS else _converted(quoted, charset)


def _assembled(rows: Sequence[tuple[bytes | None, ...]]) -> list[bytes]:
    """The records that the server assembled; what it could not assemble is left out."""
    return [record for (record,) in rows if record is not None]


def _long(columns: Sequence[Column]) -> str:
    """SQL that is true of rows with a long text: REPLACE takes the square of its length."""
    lengths = [
        f"LENGTH({backquoted(column.name)}) > {_LONG_TEXT}"
        for column in columns
        if style_of(column) == "quoted" and _may_be_long(column.source_type)
    ]
    return f"({' OR '.join(lengths)}) IS TRUE" if lengths else "FALSE"


def _may_be_long(source_type: str) -> bool:
    base, _, rest = source_type.partition("(")
    characters = rest.partition(")")[0]
    if base in ("char", "varchar"):
        return not characters.isdecimal() or 4 * int(characters) > _LONG_TEXT
    return base.endswith(("text", "json"))


def _record(columns: Sequence[Column], fields: Sequence[str], charsets: Sequence[str]) -> str:
    """SQL for a whole record in the export's dialect, NULL where it is too long for the server.

    Both drivers take several times as long for a row of many values as for one text.
    """
    commas = ", ',', ".join(map(_written, columns, fields, charsets))
    return f"CONCAT({commas}, '')"


def _written(column: Column, field: str, charset: str) -> str:
    match style_of(column):
        case "hex":
            text = f"CONCAT('\"', LOWER(HEX({field})), '\"')"
        case "quoted":
            # a lossy character set's text is binary already
            plain = f"CONVERT({field} USING utf8mb4)" if charset in _WHOLE_CHARSETS else field
            text = f"CONCAT('\"', REPLACE({plain}, '\"', '\"\"'), '\"')"
        case "instant":
            text = f"CONCAT({field}, '+00')"
        case "plain":
            text = field
    # not COALESCE: it would hide what was too long
    return text if column.required else f"IF({backquoted(column.name)} IS NULL, '', {text})"


def _converted(quoted: str, charset: str) -> str:
    """The text in UTF-8; where bytes of it are no character, those bytes after one that UTF-8 does
    not have, so that the row is rejected and not altered. NULL where it is too long to compute.
    """
    own, told = f"CAST({quoted} AS BINARY)", f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"
    without = [f"LENGTH({text}) - LENGTH(REPLACE({text}, '?', ''))" for text in (told, own)]
    is_lossy = f"LOCATE('?', {told}) > 0 AND {without[0]} <> {without[1]}"
    if charset not in _WITH_UNKNOWN:
        is_lossy = f"({is_lossy}) OR LOCATE(X'EFBFBD', {told}) > 0"
    return f"IF(({is_lossy}) IS FALSE, {told}, CONCAT(X'FF', {own}))"


def _values(
    columns: Sequence[Column], fields: Sequence[str], charsets: Sequence[str]
) -> tuple[str, _RecordsOf]:
    """SQL for the values of rows that are too long for the server, and what makes records of them.

    It converts texts of any length, but cannot tell what was lost: these come in both forms.
    """
    lossy = {i: charset for i, charset in enumerate(charsets) if charset not in _WHOLE_CHARSETS}
    quoted = [backquoted(column.name) for column in columns]
    told = [quoted[i] if i in lossy else field for i, field in enumerate(fields)]
    own = [f"CONVERT({quoted[i]} USING binary)" for i in lossy]  # CAST has that limit too
    formatter = Formatter(columns)

    def records_of(rows: Sequence[tuple[bytes | None, ...]]) -> list[bytes]:
        return formatter.records([_compared(row, lossy) for row in rows] if lossy else rows)

    return ", ".join([*told, *own]), records_of


def _compared(row: tuple[bytes | None, ...], lossy: dict[int, str]) -> list[bytes | None]:
    """What ``_converted`` says of each text in UTF-8, whose own bytes follow the values."""
    values = list(row[: len(row) - len(lossy)])
    for (place, charset), own in zip(lossy.items(), row[len(values) :], strict=True):
        told = values[place]
        if told is None:
            continue
        is_unknown = charset not in _WITH_UNKNOWN and _UNKNOWN in told
        if own is None or is_unknown or told.count(b"?") != own.count(b"?"):
            values[place] = b"\xff" + (own or told)
    return values


def _batches(cursor: Any) -> Iterator[list[tuple[bytes | None, ...]]]:
    """Few rows are fetched at a time: any of them may be as long as the server sends."""
    rows: list[tuple[bytes | None, ...]] = []
    size = 0
    while fetched := cursor.fetchmany(_FETCHED_ROWS):
        rows.extend(fetched)
        size += sum(len(value) for row in fetched for value in row if value is not None)
        if size >= _BATCH_BYTES or len(rows) >= _MAX_BATCH_ROWS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _utc(text: str | None) -> datetime | None:
    return _instant(text) if text else None


def _local(text: str | None, zone: tzinfo) -> str | None:
    moment = _utc(text)
    return moment.astimezone(zone).replace(tzinfo=None).isoformat(" ") if moment else None


def zone_of(name: str, where: str, offset: str | None = None) -> tzinfo:
    """A MySQL time zone variable (``US/Pacific``, ``-08:00``, ``UTC``) as a tzinfo.

    An operating system's abbreviation (``PDT``) names no zone: then the server's own ``offset`` in
    seconds holds.
    """
    if name[:1] in "+-":
        hours, minutes = name[1:].split(":")
        ahead = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-ahead if name[0] == "-" else ahead)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        if offset is not None:
            return timezone(timedelta(seconds=int(offset)))
        raise SourceFault(
            f"the server's time zone {name!r} is not a zone name we know",
            where=where,
            remedy="set the server's time_zone to an offset or an IANA zone name",
        ) from None


def _keep_alive(connected: socket.socket) -> None:
    """Let the kernel ask a silent peer whether it lives."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # the first is not known to macOS
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _tls_mode(query: dict[str, str]) -> str | None:
    """MySQL's own word; ``ssl_ca`` alone asks for verification."""
    return query.get("ssl_mode") or ("VERIFY_IDENTITY" if query.get("ssl_ca") else None)


def _tls_options(mode: str | None, authority: str | None, *, fast: bool) -> dict[str, Any]:
    """What the driver is told; ``authority`` is a file of certificates, else the system's."""
    if mode is None:
        return {}
    if fast:
        # without `ssl` the C library tries no TLS where it is not asked for
        files = {"ca": authority} if authority else {"cipher": "DEFAULT"}
        return {"ssl_mode": mode, "ssl": files} if mode != "DISABLED" else {"ssl_mode": mode}
    if mode in ("DISABLED", "PREFERRED"):
        return {"ssl_disabled": mode == "DISABLED"}
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = mode == "VERIFY_IDENTITY"
    if mode not in _VERIFIED:
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _translate(error: Exception, where: str) -> MirrorError:
    """A driver's error as one of ours: never its text, which may quote rows."""
    code = next((arg for arg in error.args if isinstance(arg, int)), None)
    shown = driver_error(error)
    if code in _CHANGED:
        return common.changed(f"is {_CHANGED[code]} since the snapshot began ({shown})", where)
    if code in _LOCKED:
        return common.locked(shown, where, _LOCK_SECONDS)
    if code in _DENIED:
        return common.denied(shown, where)
    if code in _LOGIN_UNKNOWN:
        return _login_unknown(shown, where)
    is_dropped = code is None or code == 0 or code in _UNREACHABLE or code in _TRANSIENT
    if is_dropped or isinstance(error, (OSError, TimeoutError)):
        return common.unavailable(shown, where)
    return common.refused(shown, where)


def _login_unknown(shown: str, where: str) -> MirrorError:
    return SourceFault(
        f"the server asks for a way to log in that this client does not have ({shown})",
        where=where,
        remedy="have the login made with caching_sha2_password or mysql_native_password",
    )
