"""Tables that a job of the application writes as files, joined with those of its database.

The job leaves, in one folder, ``<label>_export_<table>_schema_<YYYYMMDD>`` and
``<label>_export_<table>_data_<YYYYMMDD>`` of each of its tables, and their names in
``exported_builder_table_names``, between commas or newlines, in quotes or not.

- A schema line is ``column,type,nullable`` as in ``information_schema.columns``: ``dueAt,timestamp
  with time zone,YES``. Just three fields.
- Data are CSV as PostgreSQL's COPY writes it, UTF-8, without a header: NULL is an empty field
  without quotes, the empty text is ``""``, quotes are doubled, every record ends with a newline.
  Instants bear their offset; any is taken.

They become exports like any other: what their columns cannot hold is a reject, and the rest is
counted. Their rows are of the time at which the job ran, which their metadata says.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from threading import Event
from typing import TYPE_CHECKING, Any

from mirror_assets.mirroring.catalog import MASK, DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import (
    MirrorError,
    RefreshLanded,
    SourceFault,
    TransientError,
)
from mirror_assets.mirroring.landing import ExportWriter, Isolation
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.sources import common
from mirror_assets.mirroring.sources.base import Login, Snapshot, Source, TableState, held
from mirror_assets.mirroring.storage import Storage
from mirror_assets.mirroring.types import SourceColumn

if TYPE_CHECKING:
    from mirror_assets.mirroring.remote_job import RemoteJob

LIST = "exported_builder_table_names"
_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r?\n)')
_BATCH_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class ExportFailed(TransientError):  # noqa: N818 - the kinds read as nouns
    """The application's job did not write its tables."""

    kind = "export_job"


#: Of each kind of file, a digest of what the storage knows of it (length, times, number or
#: generation, checksum); "" while it is not there.
_State = dict[str, str]


@dataclass(frozen=True)
class ExportJob:
    """Who writes the files, and how many seconds it may take."""

    job: RemoteJob
    seconds: float


class Files:
    """The files of one database. ``setting`` is the variable that names their folder."""

    def __init__(self, url: str, label: str, setting: str) -> None:
        self._storage = Storage(url, name="the exports' folder", setting=setting)
        self._label = label

    def names(self) -> list[str]:
        """The tables that the job says it wrote."""
        text = self._read(LIST).decode(errors="replace")
        return [name for part in re.split(r"[,\s]+", text) if (name := part.strip("\"'"))]

    def schema(self, table: str, day: date) -> list[SourceColumn]:
        lines = self._read(self._name(table, "schema", day)).decode(errors="replace").splitlines()
        return [_column(table, number, row) for number, row in enumerate(csv.reader(lines), 1)]

    def lines(self, table: str, day: date) -> Iterator[bytes]:
        """The data, line by line."""
        # a generator: what its reader raises is not taken for a fault of the files
        name = self._name(table, "data", day)
        with self._found(name), self._storage.fs.open(self._path(name), "rb") as file:
            yield from file

    def state(self, table: str, day: date) -> _State:
        """What tells one writing of a table's files from the next."""
        return {kind: self._key(self._name(table, kind, day)) for kind in ("schema", "data")}

    def listed(self) -> str:
        return self._key(LIST)

    def size_mb(self, table: str, day: date) -> int:
        with self._found(name := self._name(table, "data", day)):
            return round(self._storage.size(self._path(name)) / (1 << 20))

    def _name(self, table: str, kind: str, day: date) -> str:
        return f"{self._label}_export_{table}_{kind}_{day:%Y%m%d}"

    def _path(self, name: str) -> str:
        return f"{self._storage.root}/{name}"

    def _read(self, name: str) -> bytes:
        with self._found(name):
            return self._storage.read(self._path(name))

    def _key(self, name: str) -> str:
        """What tells one writing of a file from the next; "" while it is not there."""
        with self._storage.guard(name):
            self._storage.fs.invalidate_cache()
            try:
                return str(self._storage.fs.ukey(self._path(name)))
            except FileNotFoundError:
                return ""

    @contextmanager
    def _found(self, name: str) -> Iterator[None]:
        with self._storage.guard(name):
            try:
                yield
            except FileNotFoundError:
                raise ExportFailed(
                    f"there is no file {name}",
                    where="exported tables",
                    remedy="look at the application's job; it writes the files of its own day",
                ) from None


class JoinedSource:
    """A database's tables and those of its application's files; a table that is in both is read
    from the files. A job that fails costs the tables that only it has, and no others.

    The job runs before a snapshot is opened: it may take an hour, for which an open transaction
    would keep a live database from vacuuming.
    """

    def __init__(
        self,
        spec: DatabaseSpec,
        source: Source,
        files: Files,
        job: ExportJob | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._spec = spec
        self._source = source
        self._files = files
        self._job = job
        self._clock = clock
        self._ran_on: date | None = None
        self._fault: MirrorError | None = None
        self._before: dict[str, _State] = {}

    def states(self) -> dict[str, TableState]:
        found = self._source.states()
        try:
            return found | {name: _state(name, 0) for name in self._files.names()}
        except MirrorError:
            return found  # nothing was ever exported

    def login(self) -> Login:
        return self._source.login()

    @contextmanager
    def held(self, stopped: Event) -> Iterator[None]:
        with held(self._source, stopped):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        if self._ran_on is None:
            self._ran_on = self._clock().astimezone(UTC).date()
            self._run_job(self._ran_on)
        with self._source.snapshot() as snapshot:
            fault = self._fault or self._of_another_day(snapshot.taken_at.date())
            yield _Joined(self._spec, snapshot, self._files, fault, self._before)

    def _of_another_day(self, day: date) -> MirrorError | None:
        if self._job is None or day == self._ran_on:
            return None
        return ExportFailed(
            f"the job wrote the files of {self._ran_on}, and the snapshot is of {day}",
            where=self._spec.name,
            remedy="midnight (UTC) came between them: re-execute from asset failure",
        )

    def _run_job(self, day: date) -> None:
        """Run it once per source, and remember why its tables cannot be read."""
        from mirror_assets.mirroring.remote_job import ProgressLines  # its client is slow to load

        try:
            if self._job is not None:
                self._before = {t.name: self._files.state(t.name, day) for t in self._spec.tables}
                listed = self._files.listed()
                lines = ProgressLines(_log.info)
                code = self._job.job.run(lines, self._job.seconds)
                self._refuse(code, listed)
            self._files.names()
        except MirrorError as error:
            self._fault = error
            _log.warning("the application's tables were not exported: %s", error.sentence)

    def _refuse(self, code: int | None, listed: str) -> None:
        if code == 0 and self._files.listed() != listed:
            return
        ended = (
            "was stopped at its deadline, or its connection was cut"
            if code is None
            else f"ended with exit code {code}"
            if code
            else f"ended well, and wrote no new {LIST}"
        )
        raise ExportFailed(
            f"the job that exports the application's tables {ended}",
            where=self._spec.name,
            remedy="look at the application's own log; then re-execute from asset failure",
        )


class _Joined:
    """A snapshot with the tables of the files of its day."""

    isolation: Isolation

    def __init__(
        self,
        spec: DatabaseSpec,
        snapshot: Snapshot,
        files: Files,
        fault: MirrorError | None,
        before: dict[str, _State],
    ) -> None:
        self._spec = spec
        self._snapshot = snapshot
        self._files = files
        self._fault = fault
        self._before = before
        self.taken_at: datetime = snapshot.taken_at
        self.isolation = snapshot.isolation
        self._day = snapshot.taken_at.date()
        self._listed = frozenset() if fault else frozenset(files.names())
        self._read: dict[str, _Read] = {}

    def tables(self) -> dict[str, TableState]:
        own = {
            table.name: _state(table.name, self._files.size_mb(table.name, self._day))
            for table in self._spec.tables
            if table.name in self._listed and self._is_there(table)
        }
        return self._snapshot.tables() | own

    def schema(self, table: TableSpec) -> TableSchema:
        if not self._is_exported(table):
            return self._snapshot.schema(table)
        self._refuse_old(table)
        found = self._begin(table).columns
        schema = common.mirrored(self._spec, table, found, ())
        return TableSchema(tuple(_checked(column) for column in schema.columns), schema.primary_key)

    def count(self, table: TableSpec) -> int:
        if not self._is_exported(table):
            return self._snapshot.count(table)
        return sum(1 for _record in self._rows(table))

    def export(self, table: TableSpec, schema: TableSchema, writer: ExportWriter) -> int:
        if not self._is_exported(table):
            return self._snapshot.export(table, schema, writer)
        kept = _kept(self._begun(table).columns, table)
        masked = [column.name in table.masked_columns for column in schema.columns]
        is_hex = [column.encoding == "hex" for column in schema.columns]
        where, rows = self._where(table), 0
        batch: list[bytes] = []
        held_bytes = 0
        for record in self._rows(table):
            fields = _fields(record, where, rows + 1)
            if len(fields) == kept.width:
                chosen = zip((fields[i] for i in kept.places), masked, is_hex, strict=True)
                fields = [_rewritten(*each) for each in chosen]
            else:
                fields = _of_another_width(fields, len(schema.columns))
            batch.append(b",".join(fields) + b"\n")
            held_bytes += len(batch[-1])
            rows += 1
            if held_bytes >= _BATCH_BYTES:
                writer.write(b"".join(batch), len(batch), max(map(len, batch)))
                batch, held_bytes = [], 0
        if batch:
            writer.write(b"".join(batch), len(batch), max(map(len, batch)))
        writer.close_part()
        return rows

    def check_unchanged(self, table: TableSpec) -> None:
        """Rows are counted and read in passes of their own, by the columns of a third file: all of
        one writing, or the table is not read.
        """
        if not self._is_exported(table):
            self._snapshot.check_unchanged(table)
            return
        if read := self._read.get(table.name):
            self._refuse_change(table, read.state)

    def relation(self, table: TableSpec) -> str:
        if self._is_exported(table):
            raise SourceFault("the table lies in files", where=self._where(table))
        return self._snapshot.relation(table)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._snapshot.ask(statement)

    def release(self) -> None:
        self._snapshot.release()

    def _begin(self, table: TableSpec) -> _Read:
        """Read the columns, and remember of which writing they are."""
        state = self._files.state(table.name, self._day)
        read = self._read.get(table.name)
        if read is None or read.state != state:
            with self._changed_or(table, state):
                read = _Read(state, tuple(self._files.schema(table.name, self._day)))
            self._read[table.name] = read
        return read

    def _rows(self, table: TableSpec) -> Iterator[bytes]:
        with self._changed_or(table, self._begun(table).state):
            yield from _records(self._files.lines(table.name, self._day), self._where(table))

    def _begun(self, table: TableSpec) -> _Read:
        return self._read.get(table.name) or self._begin(table)

    @contextmanager
    def _changed_or(self, table: TableSpec, state: _State) -> Iterator[None]:
        """Files that are being written look broken: then that is what is wrong with them."""
        try:
            yield
        except MirrorError:
            self._refuse_change(table, state)
            raise

    def _refuse_change(self, table: TableSpec, state: _State) -> None:
        if self._files.state(table.name, self._day) != state:
            raise RefreshLanded(
                "the table's files were written anew while they were being read",
                where=self._where(table),
                remedy="the run is tried again on the new files",
            )

    def _is_exported(self, table: TableSpec) -> bool:
        """Also a table of which we only know that the database has none: the job's fault is its."""
        if self._fault is not None and table.name not in self._snapshot.tables():
            raise type(self._fault)(
                self._fault.what, where=self._where(table), remedy=self._fault.remedy
            )
        return table.name in self._listed

    def _is_there(self, table: TableSpec) -> bool:
        return all(self._files.state(table.name, self._day).values())

    def _refuse_old(self, table: TableSpec) -> None:
        """Files of an earlier run of the job are not what this one wrote."""
        before = self._before.get(table.name)
        now = self._files.state(table.name, self._day)
        if before and any(key and before[kind] == key for kind, key in now.items()):
            raise ExportFailed(
                "the job listed the table and did not write its files again",
                where=self._where(table),
                remedy="look at the application's own log; then re-execute from asset failure",
            )

    def _where(self, table: TableSpec) -> str:
        return f"{self._spec.name}/{table.name}"


@dataclass(frozen=True)
class _Read:
    """The columns of one writing of a table's files."""

    state: _State
    columns: tuple[SourceColumn, ...]


@dataclass(frozen=True)
class _Kept:
    """How many fields a record has, and where those that are mirrored stand."""

    width: int
    places: tuple[int, ...]


def _kept(found: Sequence[SourceColumn], table: TableSpec) -> _Kept:
    hidden = table.exclude_columns
    return _Kept(len(found), tuple(i for i, c in enumerate(found) if c.name not in hidden))


def _state(name: str, size_mb: int) -> TableState:
    return TableState(name, None, size_mb, {"create_time": None, "db_timezone": "UTC"}, None, False)


def _checked(column: Column) -> Column:
    """Somebody else wrote the text, so its form is checked with its type."""
    plain = column.type.kind == "STRING" or column.encoding == "hex"
    return column if plain else replace(column, encoding="declared")


def _column(table: str, number: int, row: list[str]) -> SourceColumn:
    if len(row) != 3 or row[2].upper() not in ("YES", "NO"):
        raise SourceFault(
            f"line {number} of the schema file is not `column,type,YES or NO`",
            where=table,
            remedy="have the application's job mended",
        )
    name, word, nullable = row
    known = "enum" if word == "USER-DEFINED" else word
    return SourceColumn(name, known, word, nullable.upper() == "YES")


def _records(lines: Iterable[bytes], where: str) -> Iterator[bytes]:
    """Records with their newline: lines, of which a quote that is open joins several."""
    pending = b""
    for line in lines:
        pending += line
        if pending.count(b'"') % 2 == 0 and pending.endswith(b"\n"):
            yield pending
            pending = b""
    if pending:
        raise SourceFault(
            "the data file ends within a record",
            where=where,
            remedy="the job was cut off; run the partition again",
        )


def _fields(record: bytes, where: str, number: int) -> list[bytes]:
    """The fields as they stand, quotes included."""
    if b'"' not in record:
        return record.rstrip(b"\r\n").split(b",")
    found = list(_FIELD.finditer(record))
    if not found or found[-1].end() != len(record) or sum(len(m[0]) for m in found) != len(record):
        raise SourceFault(
            f"record {number} of the data file is not CSV as PostgreSQL writes it",
            where=where,
            remedy="have the application's job mended",
        )
    return [match[1] for match in found]


def _of_another_width(fields: list[bytes], width: int) -> list[bytes]:
    """A record that nobody can read, so that it is rejected: which column its values belong to, and
    whether they may leave, is not known.
    """
    blanks = [b'""'] * len(fields)
    return [*blanks, b'""'] if len(blanks) == width else blanks


def _rewritten(field: bytes, masked: bool, is_hex: bool) -> bytes:
    """A field in our dialect: everything but NULL in quotes."""
    if not field:
        return b""
    if masked:
        return b'"' + MASK.encode() + b'"'
    if is_hex:
        field = field.strip(b'"').removeprefix(b"\\x")
    return field if field.startswith(b'"') else b'"' + field + b'"'
