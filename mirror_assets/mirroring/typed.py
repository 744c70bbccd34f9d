"""Export -> typed Parquet parts and rejects, strictly and in bounded memory (DuckDB).

The CSV is read as text and every column TRY_CAST; a row is kept where every cast holds. The count
of kept rows is the COPY's own result. Only when it differs from the manifest do further scans name
the rejected rows, at most MAX_LISTED of them; DuckDB's reject tables are not used, because with a
million bad rows they take gigabytes (docs/adr/0001-lake-and-load.md).
"""

from __future__ import annotations

import csv
import gzip
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.errors import LandingFault, WarehouseFault
from mirror_assets.mirroring.landing import private_folder
from mirror_assets.mirroring.names import literal, sql, warehouse_name
from mirror_assets.mirroring.schema import Column, TableSchema

MAX_LISTED = 10_000
MAX_ROW_TEXT = 64 * 1024
_DEFAULT_LINE = 1 << 20
_ENVELOPE = "envelope"  # pseudo-column of structural faults

#: Our own sentence for each kind of reject; ``columns`` is how many the table has.
SENTENCES = {
    "too_few_columns": "the record has fewer fields than the {columns} expected",
    "too_many_columns": "the record has more fields than the {columns} expected",
    "invalid_encoding": "the text is not valid UTF-8",
    "null_in_required": "no value in a column that the source declares NOT NULL",
    "zero_date": "a zero date; the catalog's zero_dates policy is reject",
    "out_of_range": "a date outside the catalog's first_date to last_date",
    "not_boolean": "a number other than 0 and 1 in a boolean",
    "not_integer": "not a whole number of 64 bits",
    "not_number": "not a number the column's type holds",
    "not_binary": "not hexadecimal",
    "not_date": "not a calendar date",
    "not_datetime": "not a calendar date with a time",
    "not_timestamp": "not an instant",
    "unlisted": "rejected, beyond the number of rows that are listed one by one",
}
_NOT = {
    "BOOL": "not_boolean",
    "INT64": "not_integer",
    "FLOAT64": "not_number",
    "DECIMAL": "not_number",
    "BYTES": "not_binary",
    "DATE": "not_date",
    "DATETIME": "not_datetime",
    "TIMESTAMP": "not_timestamp",
}


@dataclass(frozen=True)
class Reject:
    """One source row that was refused. ``row_number`` counts from 1 over the table's export."""

    file: str
    row_number: int
    column: str
    kind: str
    text: str | None = None


@dataclass(frozen=True)
class CsvPart:
    """A closed export part to load. ``first_row`` is the ordinal of its first record."""

    path: Path
    file: str
    rows: int
    longest: int
    first_row: int


@dataclass(frozen=True)
class LoadedPart:
    """The outcome for one part: its Parquet file (None when no row held) and its rejects."""

    parquet: Path | None
    rows: int
    rejected: int
    rejects: tuple[Reject, ...]
    zero_dates_nulled: int
    digests: dict[str, ColumnDigest]


@dataclass(frozen=True)
class ColumnDigest:
    """An order-independent fingerprint of a column: values present, and the sum of their hashes."""

    present: int
    hashes: int

    def __add__(self, other: ColumnDigest) -> ColumnDigest:
        return ColumnDigest(self.present + other.present, self.hashes + other.hashes)


class TypedLoader:
    """Loads export parts of any table with one private in-memory DuckDB.

    ``memory`` limits DuckDB's memory (for example ``512MB``); what exceeds it spills to a
    folder below ``scratch`` that ``close`` removes. Not thread-safe: one loader, one thread.
    """

    def __init__(self, scratch: Path, *, memory: str = "512MB", threads: int = 2) -> None:
        # its own: processes that share such a folder crash each other
        self._spill = private_folder(scratch / f"spill-{secrets.token_hex(8)}")
        self._connection = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(self._spill),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._connection.execute("SET enable_progress_bar = false")
        self._threads = threads

    def close(self) -> None:
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def load(
        self, part: CsvPart, schema: TableSchema, spec: TableSpec, target: Path, room: int
    ) -> LoadedPart:
        """Write the part's good rows to ``target`` and name the others, at most ``room`` of them.

        Raises WarehouseFault when DuckDB cannot read or write at all.
        """
        query = _Query(schema, spec, part)
        try:
            kept = self._copy(query, target)
            digests = self._digests(schema, target) if kept else {}
            nulled = self._scalar(query.zero_dates()) if query.nulls_zero_dates else 0
            missing = part.rows - kept
            rejects = self._rejects(query, missing, room) if missing else ()
        except duckdb.Error as error:
            raise WarehouseFault(
                f"the typed load failed ({type(error).__name__})",
                where=f"{spec.name}, file {part.file}",
                remedy="check space and rights of MIRROR_LAKE and the memory limit, then retry",
            ) from None
        if not kept:
            target.unlink(missing_ok=True)
        else:
            target.chmod(0o600)
        return LoadedPart(
            parquet=target if kept else None,
            rows=kept,
            rejected=missing,
            rejects=tuple(rejects),
            zero_dates_nulled=nulled,
            digests=digests,
        )

    def _copy(self, query: _Query, target: Path) -> int:
        if query.part.longest > _DEFAULT_LINE:
            self._connection.execute("SET threads = 1")  # each thread holds two such records
        written = f"TO {literal(str(target))} (FORMAT parquet)"
        count = self._scalar(f"COPY ({query.good_rows()}) {written}")
        self._connection.execute(f"SET threads = {self._threads}")
        return count

    def _digests(self, schema: TableSchema, target: Path) -> dict[str, ColumnDigest]:
        return digests_of(self._connection, schema, f"read_parquet({literal(str(target))})")

    def _scalar(self, statement: str) -> int:
        row = self._connection.execute(statement).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _rejects(self, query: _Query, missing: int, room: int) -> list[Reject]:
        """Name rejected rows: first those whose record is broken, then those whose values are."""
        if room <= 0:
            return []
        bad_values = self._scalar(query.count_bad_values())
        broken = list(self._broken_records(query, min(room, missing - bad_values)))
        if len(broken) == room or bad_values == 0:
            return broken
        self._connection.execute("SET threads = 1; SET preserve_insertion_order = true")
        rows = self._connection.execute(query.bad_values(room - len(broken))).fetchall()
        self._connection.execute(
            f"SET threads = {self._threads}; SET preserve_insertion_order = false"
        )
        taken = [reject.row_number for reject in broken]
        ordinals = _ordinals([row[0] for row in rows], taken, query.part.first_row)
        listed = [
            Reject(query.part.file, ordinal, *_column_and_kind(fault), text)
            for ordinal, (_number, fault, text) in zip(ordinals, rows, strict=True)
        ]
        return sorted(broken + listed, key=lambda reject: reject.row_number)

    def _broken_records(self, query: _Query, wanted: int) -> Iterator[Reject]:
        """Records with a wrong number of fields or invalid UTF-8, read one by one."""
        if wanted <= 0:
            return
        columns = query.schema.columns
        found = 0
        for number, fields in enumerate(_records(query.part), start=query.part.first_row):
            fault = _structural_fault(fields, columns)
            if fault is None:
                continue
            column, kind = fault
            text = _row_text(fields) if query.spec.keep_row_text else None
            yield Reject(query.part.file, number, column, kind, text)
            found += 1
            if found == wanted:
                return


class _Query:
    """The SQL over one CSV part."""

    def __init__(self, schema: TableSchema, spec: TableSpec, part: CsvPart) -> None:
        self.schema = schema
        self.spec = spec
        self.part = part
        self.nulls_zero_dates = spec.zero_dates == "null" and any(
            column.type.kind in ("DATE", "DATETIME", "TIMESTAMP") for column in schema.columns
        )

    @property
    def _source(self) -> str:
        columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(self.schema.columns)))
        options = "buffer_size = 33554432"
        if self.part.longest > _DEFAULT_LINE:
            # near the longest record good rows are rejected: twice its length is safe
            longest = self.part.longest + 1024
            options = f"max_line_size = {longest}, buffer_size = {2 * longest}, parallel = false"
        return (
            f"read_csv({literal(str(self.part.path))}, columns = {{{columns}}}, header = false,"
            " auto_detect = false, delim = ',', quote = '\"', escape = '\"', new_line = '\\n',"
            " nullstr = '', allow_quoted_nulls = false, ignore_errors = true,"
            f" {options})"
        )

    def _typed(self, i: int, column: Column) -> str:
        return _typed_value(f"c{i}", column)

    def _fault(self, i: int, column: Column) -> str | None:
        """SQL for the kind of fault of a field, NULL when it is good; None when it cannot fail."""
        text, typed = f"c{i}", self._typed(i, column)
        cases = []
        kind = column.type.kind
        if kind in ("DATE", "DATETIME", "TIMESTAMP"):
            first, last = self._range(column)
            if self.spec.zero_dates == "reject":
                cases.append(f"WHEN {_is_zero_date(text)} AND {typed} IS NULL THEN 'zero_date'")
            cases.append(f"WHEN {typed} NOT BETWEEN {first} AND {last} THEN 'out_of_range'")
        if kind != "STRING":
            nulled = f" AND NOT {_is_nulled(text)}" if self._nulls(column) else ""
            cases.append(f"WHEN {text} IS NOT NULL AND {typed} IS NULL{nulled} THEN '{_NOT[kind]}'")
        if column.required:
            cases.append(f"WHEN {typed} IS NULL THEN 'null_in_required'")
        return f"CASE {' '.join(cases)} END" if cases else None

    def _nulls(self, column: Column) -> bool:
        return self.nulls_zero_dates and column.type.kind in ("DATE", "DATETIME", "TIMESTAMP")

    def _range(self, column: Column) -> tuple[str, str]:
        first, last = self.spec.first_date.isoformat(), self.spec.last_date.isoformat()
        if column.type.kind == "DATE":
            return f"DATE '{first}'", f"DATE '{last}'"
        if column.type.kind == "DATETIME":
            return f"TIMESTAMP '{first} 00:00:00'", f"TIMESTAMP '{last} 23:59:59.999999'"
        zoned = f"TIMESTAMPTZ '{last} 23:59:59.999999+00'"
        return f"TIMESTAMPTZ '{first} 00:00:00+00'", zoned

    @property
    def _faults(self) -> list[tuple[Column, str]]:
        found = ((column, self._fault(i, column)) for i, column in enumerate(self.schema.columns))
        return [(column, fault) for column, fault in found if fault is not None]

    @property
    def _is_good(self) -> str:
        """SQL that is true where no column has a fault: leaner than asking for the faults."""
        checks = (self._holds(i, column) for i, column in enumerate(self.schema.columns))
        return " AND ".join(check for check in checks if check) or "TRUE"

    def _holds(self, i: int, column: Column) -> str | None:
        text, typed = f"c{i}", self._typed(i, column)
        if column.type.kind in ("DATE", "DATETIME", "TIMESTAMP"):
            first, last = self._range(column)
            holds = f"{typed} BETWEEN {first} AND {last}"
        elif column.required or column.type.kind != "STRING":
            holds = f"{typed} IS NOT NULL"
        else:
            return None
        if column.required:
            return holds
        nulled = f" OR {_is_nulled(text)}" if self._nulls(column) else ""
        return f"({text} IS NULL OR {holds}{nulled})"

    def good_rows(self) -> str:
        values = ", ".join(
            f"{self._typed(i, column)} AS {sql(warehouse_name(column.name))}"
            for i, column in enumerate(self.schema.columns)
        )
        return f"SELECT {values} FROM {self._source} WHERE {self._is_good}"

    @property
    def _every_field(self) -> str:
        # A scan checks only the columns it reads: naming all of them keeps broken records out,
        # as they are kept out of good_rows.
        return ", ".join(f"left(c{i}, 1)" for i in range(len(self.schema.columns)))

    def count_bad_values(self) -> str:
        return (
            "SELECT count(*) FILTER (ok IS NOT TRUE AND seen >= 0) FROM"
            f" (SELECT {self._is_good} AS ok, len([{self._every_field}]) AS seen"
            f" FROM {self._source})"
        )

    def bad_values(self, limit: int) -> str:
        """Read-order number, ``column NUL kind`` and optional text of rows whose values fail."""
        fault = " ".join(
            f"WHEN ({fault}) IS NOT NULL THEN {literal(column.name)} || chr(0) || ({fault})"
            for column, fault in self._faults
        )
        text = self._row_text if self.spec.keep_row_text else "NULL"
        return (
            f"SELECT number, fault, text FROM (SELECT row_number() OVER () AS number,"
            f" CASE {fault} END AS fault, {text} AS text, len([{self._every_field}]) AS seen"
            f" FROM {self._source}) WHERE fault IS NOT NULL AND seen >= 0"
            f" ORDER BY number LIMIT {limit}"
        )

    @property
    def _row_text(self) -> str:
        fields = ", ".join(f"coalesce(c{i}, '')" for i in range(len(self.schema.columns)))
        return f"left(concat_ws(',', {fields}), {MAX_ROW_TEXT // 4})"

    def zero_dates(self) -> str:
        """How many fields of good rows the policy ``zero_dates: null`` turns into NULL."""
        counted = " + ".join(
            f"count(*) FILTER ({_is_nulled(f'c{i}')})"
            for i, column in enumerate(self.schema.columns)
            if self._nulls(column)
        )
        every = f"len([{self._every_field}]) >= 0"
        return f"SELECT {counted} FROM {self._source} WHERE {self._is_good} AND {every}"


def _is_zero_date(text: str) -> str:
    return f"starts_with({text}, '0000-00-00')"


def _is_nulled(text: str) -> str:
    """Zero dates and dates with a zero month or day: MySQL's ways to say unknown."""
    return f"coalesce(substr({text}, 5, 3) = '-00' OR substr({text}, 8, 3) = '-00', false)"


def _typed_value(text: str, column: Column) -> str:
    """SQL that turns a text field into its typed value, or NULL where it does not hold."""
    kind = column.type.kind
    if kind == "STRING":
        return text
    if kind == "BYTES":
        is_hex = f"regexp_full_match({text}, '([0-9a-fA-F]{{2}})*')"
        return f"CASE WHEN {is_hex} THEN unhex({text}) END"
    if kind == "BOOL":
        return (
            f"CASE WHEN trim({text}) IN ('1', 't', 'true') THEN TRUE"
            f" WHEN trim({text}) IN ('0', 'f', 'false') THEN FALSE END"
        )
    typed = f"TRY_CAST({text} AS {types.to_duckdb(column.type)})"
    if kind == "DATE":  # the cast drops what follows the day: `BC`, a time
        later = "[0-9]{5,7}-[0-9]{2}-[0-9]{2}"
        holds = f"length({text}) <= 10 OR regexp_full_match({text}, '{later}')"
        return f"CASE WHEN {holds} THEN {typed} END"
    if column.encoding != "unbounded":
        return typed
    if kind == "FLOAT64":  # too large a number would become infinity
        holds = f"isfinite({typed}) OR regexp_full_match({text}, '-?[A-Za-z]+')"
    else:  # further digits would be rounded away
        digits = f"-?[0-9]+([.][0-9]{{0,{column.type.scale}}}0*)?"
        holds = f"regexp_full_match({text}, '{digits}')"
    return f"CASE WHEN {holds} THEN {typed} END"


def digests_of(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, relation: str
) -> dict[str, ColumnDigest]:
    """The digest of every column of a relation with the schema's warehouse names."""
    columns = [sql(warehouse_name(column.name)) for column in schema.columns]
    wanted = ", ".join(
        f"count({c}), coalesce(sum(hash({c})) FILTER ({c} IS NOT NULL), 0)" for c in columns
    )
    row = connection.execute(f"SELECT {wanted} FROM {relation}").fetchone() or ()
    pairs = zip(row[::2], row[1::2], strict=True)
    return {
        column.name: ColumnDigest(int(present), int(hashes))
        for column, (present, hashes) in zip(schema.columns, pairs, strict=True)
    }


def _records(part: CsvPart) -> Iterator[list[str]]:
    """Every record of a part; bytes stand as their Latin-1 characters, so any file can be read."""
    csv.field_size_limit(max(part.longest + 1, 131072))
    opener = gzip.open if part.path.suffix == ".gz" else open
    try:
        file: IO[str]
        with opener(part.path, "rt", encoding="latin-1", newline="") as file:
            yield from csv.reader(file)
    except (OSError, csv.Error) as error:
        raise LandingFault(
            f"an export file cannot be read back ({type(error).__name__})",
            where=part.file,
            remedy="run the partition again",
        ) from None


def _structural_fault(fields: Sequence[str], columns: Sequence[Column]) -> tuple[str, str] | None:
    if len(fields) < len(columns) and not (len(columns) == 1 and not fields):
        return columns[len(fields)].name, "too_few_columns"
    if len(fields) > len(columns):
        return _ENVELOPE, "too_many_columns"
    for field, column in zip(fields, columns, strict=False):
        if not field.isascii() and not _is_utf8(field):
            return column.name, "invalid_encoding"
    return None


def _is_utf8(field: str) -> bool:
    try:
        field.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _row_text(fields: Sequence[str]) -> str:
    text = ",".join(fields).encode("latin-1")[:MAX_ROW_TEXT]
    return text.decode("utf-8", "replace")[: MAX_ROW_TEXT // 4]


def _column_and_kind(fault: str) -> tuple[str, str]:
    column, kind = fault.rsplit("\x00", 1)
    return column, kind


def _ordinals(read_order: Sequence[int], broken: Sequence[int], first: int) -> Iterator[int]:
    """Ordinals in the export of rows numbered by a scan that left the broken records out.

    Both sequences ascend; ``broken`` holds ordinals, counted from ``first``.
    """
    passed = 0
    for number in read_order:
        while passed < len(broken) and broken[passed] <= first + number - 1 + passed:
            passed += 1
        yield first + number - 1 + passed
