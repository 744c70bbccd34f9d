"""The words of each engine's SQL for the forms and hashes of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mirror_assets.mirroring.catalog import MASK
from mirror_assets.mirroring.names import backquoted, sql, warehouse_name
from mirror_assets.mirroring.proof.cells import ABSENT, Cell
from mirror_assets.mirroring.schema import Column


def can_ask(column: Column) -> bool:
    """Whether a source's own SQL can tell the form of every value of a column. Of the texts that a
    catalog declares another type for, only digits are compared without a cast that may fail.
    """
    return column.encoding != "declared" or column.type.kind in ("INT64", "DECIMAL")


class Engine(Protocol):
    """The words of one engine's SQL."""

    def quote(self, name: str) -> str: ...
    def form(self, cell: Cell) -> str:
        """SQL for a cell's form, NULL for NULL."""

    def hash(self, form: str) -> str: ...
    def text(self, cell: Cell) -> str:
        """SQL for a cell of a key as the export tells it, by which rejects are listed."""

    def joined(self, hashes: Sequence[str]) -> str:
        """SQL for hashes as one text, ``:`` between them, ``~`` for NULL."""


class MySQL:
    """MySQL and MariaDB, in a UTC session."""

    def quote(self, name: str) -> str:
        return backquoted(name)

    def hash(self, form: str) -> str:
        return f"CAST(CONV(LEFT(MD5({form}), 15), 16, 10) AS UNSIGNED)"

    def joined(self, hashes: Sequence[str]) -> str:
        texts = ", ".join(f"COALESCE({hashed}, '{ABSENT}')" for hashed in hashes)
        return f"CONCAT_WS(':', {texts})"

    def text(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        if cell.masked:
            return self.form(cell)
        if cell.column.encoding == "hex":
            return f"LOWER(HEX({q}))"
        if cell.column.word == "bit":
            return f"CAST({q} AS UNSIGNED)"
        if cell.column.word == "float":
            return f"CONVERT({q} + 0e0 USING utf8mb4)"
        text = f"CONVERT({q} USING utf8mb4)"
        return f"CONCAT({text}, '+00')" if cell.column.type.kind == "TIMESTAMP" else text

    def form(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        if cell.masked:
            return f"IF({q} IS NULL, NULL, '{MASK}')"
        kind, logical = cell.type.kind, cell.type
        is_text = cell.column.encoding == "declared"
        number = f"CAST({q} AS UNSIGNED)" if cell.column.word == "bit" else q
        match kind:
            case "STRING":
                is_hex = cell.column.encoding == "hex"
                return f"LOWER(HEX({q}))" if is_hex else f"CONVERT({q} USING utf8mb4)"
            case "BYTES":
                return q
            case "BOOL" | "INT64":  # + 0 takes away the zeros of ZEROFILL
                return f"CONVERT({q} USING utf8mb4)" if is_text else f"{number} + 0"
            case "DECIMAL":
                return f"CAST({number} AS DECIMAL({logical.precision},{logical.scale}))"
            case "FLOAT64":  # a point's binary holds the bits of its coordinates
                bits = f"SUBSTR(ST_AsBinary(POINT({q} + 0e0, 0)), 6, 8)"
                return f"LOWER(HEX(REVERSE({bits})))"
        value = f"CAST({q} AS DATE)" if kind == "DATE" else f"CAST({q} AS DATETIME(6))"
        value = value if is_text else q
        form = (
            f"YEAR({value}) * 10000 + MONTH({value}) * 100 + DAY({value})"
            if kind == "DATE"
            else f"TO_SECONDS({value}) * 1000000 + MICROSECOND({value}) - 62167219200000000"
        )
        keeps = [f"MONTH({q}) > 0 AND DAY({q}) > 0"] if cell.nulls_zero else []
        if cell.first and cell.last:
            keeps.append(f"{q} BETWEEN '{cell.first}' AND '{cell.last} 23:59:59.999999'")
        return f"CASE WHEN {' AND '.join(keeps)} THEN {form} END" if keeps else form


class PostgreSQL:
    """PostgreSQL, with the settings of the source's session."""

    def quote(self, name: str) -> str:
        return sql(name)

    def hash(self, form: str) -> str:
        return f"('x' || left(md5({form}), 15))::bit(60)::bigint"

    def joined(self, hashes: Sequence[str]) -> str:
        # an array, because a function takes 100 arguments
        texts = ", ".join(f"({hashed})::text" for hashed in hashes)
        return f"array_to_string(ARRAY[{texts}], ':', '{ABSENT}')"

    def text(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        if cell.masked:
            return self.form(cell)
        if cell.column.encoding == "hex":
            return f"encode({q}, 'hex')"
        return f"concat({q}::float8)" if cell.column.word == "real" else f"concat({q})"

    def form(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        if cell.masked:
            return f"CASE WHEN num_nulls({q}) = 0 THEN '{MASK}' END"
        logical = cell.type
        is_text = cell.column.encoding == "declared"
        match logical.kind:
            case "STRING":
                text = f"encode({q}, 'hex')" if cell.column.encoding == "hex" else f"concat({q})"
                # a cast would cut a character(n)'s spaces; a composite of NULLs is a value
                shown = f"convert_to({text}, 'UTF8')"
                return f"CASE WHEN num_nulls({q}) = 0 THEN {shown} END"
            case "BYTES":
                return q
            case "BOOL":
                return f"{q}::boolean::int::text"
            case "INT64":
                return f"{q}::text" if is_text else f"{q}::bigint::text"
            case "DECIMAL":
                rounded = f"round({q}::numeric, {logical.scale})::text"
                is_number = f"{q}::text ~ '^-?[0-9]+([.][0-9]+)?$'"
                guarded = f"CASE WHEN {is_number} THEN {rounded} ELSE {q}::text END"
                return guarded if is_text else rounded
            case "FLOAT64":
                bits = f"encode(float8send({q}::float8 + 0), 'hex')"
                return f"CASE WHEN {q}::float8 = 'NaN' THEN 'nan' ELSE {bits} END"
        return self._moment(cell, q)

    def _moment(self, cell: Cell, q: str) -> str:
        word = {"DATE": "date", "DATETIME": "timestamp", "TIMESTAMP": "timestamptz"}[cell.type.kind]
        value = f"{q}::{word}"
        keeps = f"isfinite({value})"
        if cell.first and cell.last:
            keeps += f" AND {value} BETWEEN '{cell.first}' AND '{cell.last} 23:59:59.999999'"
        parts = (f"extract({part} from {value})" for part in ("year", "month", "day"))
        year, month, day = parts
        number = (
            f"{year} * 10000 + {month} * 100 + {day}"
            if word == "date"
            else f"extract(epoch from {value}) * 1000000"
        )
        return f"CASE WHEN {keeps} THEN ({number})::bigint::text END"


class DuckDB:
    """The lake: columns by their warehouse names, in their warehouse types."""

    def quote(self, name: str) -> str:
        return sql(warehouse_name(name))

    def hash(self, form: str) -> str:
        return f"('0x' || left(md5({form}), 15))::BIGINT"

    def joined(self, hashes: Sequence[str]) -> str:
        texts = ", ".join(f"coalesce(({hashed})::VARCHAR, '{ABSENT}')" for hashed in hashes)
        return f"array_to_string([{texts}], ':')"

    def text(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        return f"lower(hex({q}))" if cell.type.kind == "BYTES" else f"{q}::VARCHAR"

    def form(self, cell: Cell) -> str:
        q = self.quote(cell.name)
        match cell.type.kind:
            case "STRING" | "BYTES":
                return q
            case "BOOL":
                return f"{q}::INTEGER::VARCHAR"
            case "INT64" | "DECIMAL":
                return f"{q}::VARCHAR"
            case "FLOAT64":
                bits = f"format('{{:016x}}', {q}::BIT::UBIGINT)"
                return f"CASE WHEN isnan({q}) THEN 'nan' ELSE {bits} END"
            case "DATE":
                return f"(year({q}) * 10000 + month({q}) * 100 + day({q}))::VARCHAR"
        return f"epoch_us({q})::VARCHAR"


ENGINES: dict[str, Engine] = {"mysql": MySQL(), "postgresql": PostgreSQL(), "duckdb": DuckDB()}
