"""Export -> typed Parquet parts and rejects, strictly and in bounded memory (DuckDB).

The CSV is read as text and every column TRY_CAST; a row is kept where every cast holds. The count
of kept rows is the COPY's own result. Only when it differs from the manifest do further scans name
the rejected rows, at most MAX_LISTED of them; DuckDB's reject tables are not used, because with a
million bad rows they take gigabytes (docs/adr/0001-lake-and-load.md).
"""

from __future__ import annotations

import csv
import gzip
import json
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import duckdb

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.errors import LandingFault, WarehouseFault
from mirror_assets.mirroring.names import literal, sql, warehouse_name
from mirror_assets.mirroring.scan import DEFAULT_LINE, MAX_ROW_TEXT, CsvPart, Scan
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.scratch import limit_spill
from mirror_assets.mirroring.storage import lake, private_folder

MAX_LISTED = 10_000
MAX_KEY_TEXT = 1024
_ENVELOPE = "envelope"  # pseudo-column of structural faults

#: Our own sentence for each kind of reject; ``columns`` is how many the table has.
SENTENCES = {
    "too_few_columns": "the record has fewer fields than the {columns} expected",
    "too_many_columns": "the record has more fields than the {columns} expected",
    "invalid_encoding": "the text is not valid in its character set",
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


@dataclass(frozen=True)
class Reject:
    """One source row that was refused. ``row_number`` counts from 1 over the table's export;
    ``key`` is the row's primary key as a JSON object of texts, where it has one and is readable.
    """

    file: str
    row_number: int
    column: str
    kind: str
    text: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class LoadedPart:
    """The outcome for one part: its Parquet file (None when no row held) and its rejects."""

    parquet: str | None
    rows: int
    rejected: int
    rejects: tuple[Reject, ...]
    zero_dates_nulled: int
    misfits_nulled: dict[str, int]
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

    ``memory`` limits DuckDB's memory (for example ``512MB``); what exceeds it spills, at
    most ``spill``, to a folder below ``scratch`` that ``close`` removes. A file for a remote lake
    is made there, one at a time. Not thread-safe: one loader, one thread.
    """

    def __init__(
        self, scratch: Path, *, memory: str = "512MB", spill: str = "20GB", threads: int = 2
    ) -> None:
        # its own: processes that share such a folder crash each other
        self._folder = private_folder(scratch / f"load-{secrets.token_hex(8)}")
        self._connection = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(self._folder / "spill"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        limit_spill(self._connection, spill)
        self._connection.execute("SET enable_progress_bar = false")
        self._connection.execute("SET disabled_optimizers = 'filter_pushdown'")  # see good_rows
        self._threads = threads

    def close(self) -> None:
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def load(
        self, part: CsvPart, schema: TableSchema, spec: TableSpec, target: str, room: int
    ) -> LoadedPart:
        """Write the part's good rows to ``target``, a path or URL in the lake, and name the others,
        at most ``room`` of them.

        Raises WarehouseFault when DuckDB cannot read or write at all, or the lake fails.
        """
        with self._made(target, f"{spec.name}, file {part.file}") as local:
            return self._load(Scan(schema, spec, part), local, target, room)

    @contextmanager
    def _made(self, target: str, where: str) -> Iterator[Path]:
        """Where to write a file of the lake; a remote lake is given it when it is complete."""
        files = lake(target)
        if files.local:
            yield Path(target)
            return
        local = self._folder / f"{secrets.token_hex(8)}.parquet"
        try:
            yield local
            if local.exists():
                with files.guard(where):
                    files.put_file(local, target)
        finally:
            local.unlink(missing_ok=True)

    def _load(self, query: Scan, local: Path, target: str, room: int) -> LoadedPart:
        part, schema, spec = query.part, query.schema, query.spec
        try:
            kept = self._copy(query, local)
            digests = self._digests(schema, local) if kept else {}
            zero_dates, misfits = self._nulled(query)
            missing = part.rows - kept
            rejects = self._rejects(query, missing, room) if missing else ()
        except duckdb.Error as error:
            raise WarehouseFault(
                f"the typed load failed ({type(error).__name__})",
                where=f"{spec.name}, file {part.file}",
                remedy="check space and rights of MIRROR_LAKE and MIRROR_SCRATCH, and the limits"
                " MIRROR_MEMORY and MIRROR_SPILL; then retry",
            ) from None
        if not kept:
            local.unlink(missing_ok=True)
        else:
            local.chmod(0o600)
        return LoadedPart(
            parquet=target if kept else None,
            rows=kept,
            rejected=missing,
            rejects=tuple(rejects),
            zero_dates_nulled=zero_dates,
            misfits_nulled=misfits,
            digests=digests,
        )

    def _copy(self, query: Scan, target: Path) -> int:
        if query.part.longest > DEFAULT_LINE:
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

    def _nulled(self, query: Scan) -> tuple[int, dict[str, int]]:
        """Zero dates, and misfits by column, that the policies made NULL."""
        statement = query.nulled()
        row = self._connection.execute(statement).fetchone() if statement else None
        zero_dates, *misfits = row or (0,)
        counts = zip(query.nulling_columns, misfits, strict=False)
        return zero_dates, {name: count for name, count in counts if count}

    def _rejects(self, query: Scan, missing: int, room: int) -> list[Reject]:
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
        key_names = query.schema.primary_key
        listed = [
            Reject(query.part.file, ordinal, *_column_and_kind(fault), text, _key(key_names, key))
            for ordinal, (_number, fault, key, text) in zip(ordinals, rows, strict=True)
        ]
        return sorted(broken + listed, key=lambda reject: reject.row_number)

    def _broken_records(self, query: Scan, wanted: int) -> Iterator[Reject]:
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
            # of a record of another width nobody knows which field is which
            places = query.key_places if kind == "invalid_encoding" else []
            key = _raw_key(query.schema.primary_key, [fields[i] for i in places])
            yield Reject(query.part.file, number, column, kind, text, key)
            found += 1
            if found == wanted:
                return


def digests_of(
    connection: duckdb.DuckDBPyConnection, schema: TableSchema, relation: str
) -> dict[str, ColumnDigest]:
    """The digest of every column of a relation with the schema's warehouse names."""
    row = connection.execute(digest_statement(schema, relation)).fetchone() or (0,)
    pairs = zip(row[1::2], row[2::2], strict=True)
    return {
        column.name: ColumnDigest(int(present), int(hashes))
        for column, (present, hashes) in zip(schema.columns, pairs, strict=True)
    }


def digest_statement(schema: TableSchema, relation: str) -> str:
    """Rows; then per column, read as the schema's type, values present and sum of hashes."""
    columns = (
        f"CAST({sql(warehouse_name(column.name))} AS {types.to_duckdb(column.type)})"
        for column in schema.columns
    )
    wanted = ", ".join(
        f"count({c}), coalesce(sum(hash({c})) FILTER ({c} IS NOT NULL), 0)" for c in columns
    )
    return f"SELECT count(*), {wanted} FROM {relation}"


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
    return _decoded(",".join(fields)[: 4 * MAX_ROW_TEXT])[:MAX_ROW_TEXT]


def _decoded(field: str) -> str:
    return field.encode("latin-1").decode("utf-8", "replace")


def _key(names: Sequence[str], values: Sequence[str | None]) -> str | None:
    if not values:
        return None
    text = json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False)
    return text if len(text) <= MAX_KEY_TEXT else None


def _raw_key(names: Sequence[str], fields: Sequence[str]) -> str | None:
    """The key of a record with invalid bytes, unless it has them itself."""
    return _key(names, list(map(_decoded, fields))) if all(map(_is_utf8, fields)) else None


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
