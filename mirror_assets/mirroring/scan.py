"""The SQL over one CSV part of an export: its good rows, and its bad ones with their fault."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirror_assets.mirroring.casts import Field
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.names import literal, sql, warehouse_name
from mirror_assets.mirroring.schema import TableSchema

#: Characters of a rejected row's text that are kept, where the catalog asks for it.
MAX_ROW_TEXT = 16 * 1024
DEFAULT_LINE = 1 << 20


@dataclass(frozen=True)
class CsvPart:
    """A closed export part to load. ``first_row`` is the ordinal of its first record."""

    path: Path
    file: str
    rows: int
    longest: int
    first_row: int


class Scan:
    """Statements over one part, read as text; a record of another width is left out by DuckDB."""

    def __init__(self, schema: TableSchema, spec: TableSpec, part: CsvPart) -> None:
        self.schema = schema
        self.spec = spec
        self.part = part
        self._fields = [Field(f"c{i}", c, spec) for i, c in enumerate(schema.columns)]

    @property
    def _source(self) -> str:
        columns = ", ".join(f"'{field.text}': 'VARCHAR'" for field in self._fields)
        options = "buffer_size = 33554432"
        if self.part.longest > DEFAULT_LINE:
            # near the longest record good rows are rejected: twice its length is safe
            longest = self.part.longest + 1024
            options = f"max_line_size = {longest}, buffer_size = {2 * longest}, parallel = false"
        return (
            f"read_csv({literal(str(self.part.path))}, columns = {{{columns}}}, header = false,"
            " auto_detect = false, delim = ',', quote = '\"', escape = '\"', new_line = '\\n',"
            " nullstr = '', allow_quoted_nulls = false, ignore_errors = true,"
            f" {options})"
        )

    @property
    def _is_good(self) -> str:
        """SQL that is true where no column has a fault: leaner than asking for the faults."""
        return " AND ".join(field.holds for field in self._fields if field.holds) or "TRUE"

    @property
    def _every_field(self) -> str:
        # A scan checks only the columns it reads: naming all of them keeps broken records out,
        # as they are kept out of good_rows.
        return ", ".join(f"left({field.text}, 1)" for field in self._fields)

    def good_rows(self) -> str:
        """The typed rows that every field holds in, by warehouse name. Each field is cast once, as
        long as DuckDB does not push the condition into the inner query.
        """
        outer = [
            Field(field.text, field.column, self.spec, typed=f"v{i}")
            for i, field in enumerate(self._fields)
        ]
        casts = ", ".join(f"{f.text}, {f.cast} AS v{i}" for i, f in enumerate(self._fields))
        values = ", ".join(f"{f.value} AS {sql(warehouse_name(f.column.name))}" for f in outer)
        holds = " AND ".join(f.holds for f in outer if f.holds) or "TRUE"
        return f"SELECT {values} FROM (SELECT {casts} FROM {self._source}) WHERE {holds}"

    def count_bad_values(self) -> str:
        return (
            "SELECT count(*) FILTER (ok IS NOT TRUE AND seen >= 0) FROM"
            f" (SELECT {self._is_good} AS ok, len([{self._every_field}]) AS seen"
            f" FROM {self._source})"
        )

    def bad_values(self, limit: int) -> str:
        """Read-order number, ``column NUL kind``, key fields and optional text of rows whose
        values fail.
        """
        faults = ((field.column, field.fault) for field in self._fields)
        fault = " ".join(
            f"WHEN ({fault}) IS NOT NULL THEN {literal(column.name)} || chr(0) || ({fault})"
            for column, fault in faults
            if fault
        )
        text = self._row_text if self.spec.keep_row_text else "NULL"
        key = ", ".join(self._fields[i].text for i in self.key_places)
        return (
            f"SELECT number, fault, key, text FROM (SELECT row_number() OVER () AS number,"
            f" CASE {fault} END AS fault, [{key}] AS key, {text} AS text,"
            f" len([{self._every_field}]) AS seen FROM {self._source})"
            f" WHERE fault IS NOT NULL AND seen >= 0 ORDER BY number LIMIT {limit}"
        )

    @property
    def key_places(self) -> list[int]:
        """Where the primary key's columns stand in a record; [] without a key."""
        return [self.schema.names.index(name) for name in self.schema.key]

    @property
    def _row_text(self) -> str:
        fields = ", ".join(f"coalesce({field.text}, '')" for field in self._fields)
        return f"left(concat_ws(',', {fields}), {MAX_ROW_TEXT})"

    def nulled(self) -> str | None:
        """How many values of good rows the policies made NULL: all zero dates, then the misfits of
        each of ``nulling_columns``; None when no policy does.
        """
        zero = [field.nulled_zero_date for field in self._fields if field.nulled_zero_date]
        misfits = [field.nulled_misfit for field in self._fields if field.nulled_misfit]
        if not zero and not misfits:
            return None
        every = f"len([{self._every_field}]) >= 0"
        zeros = " + ".join(f"count(*) FILTER ({test})" for test in zero) or "0"
        counts = "".join(f", count(*) FILTER ({test})" for test in misfits)
        return f"SELECT {zeros}{counts} FROM {self._source} WHERE {self._is_good} AND {every}"

    @property
    def nulling_columns(self) -> list[str]:
        """Columns whose misfits become NULL."""
        return [field.column.name for field in self._fields if field.nulled_misfit]
