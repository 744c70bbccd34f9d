"""Source type -> logical type -> warehouse type: one function each way.

Only types that DuckDB's Parquet and BigQuery both hold exactly are logical types
(docs/adr/0002-parquet-types.md). Everything else becomes exact text, or an early error that
names the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mirror_assets.mirroring.errors import UnsupportedType
from mirror_assets.mirroring.schema import Column, LogicalType

BOOL = LogicalType("BOOL")
INT64 = LogicalType("INT64")
FLOAT64 = LogicalType("FLOAT64")
STRING = LogicalType("STRING")
BYTES = LogicalType("BYTES")
DATE = LogicalType("DATE")
DATETIME = LogicalType("DATETIME")
TIMESTAMP = LogicalType("TIMESTAMP")
#: The widest decimal that DuckDB, Parquet and BIGNUMERIC all hold.
MAX_DECIMAL_DIGITS = 38


def decimal(precision: int, scale: int) -> LogicalType:
    """An exact decimal, or text where it has more digits than both warehouses hold."""
    if precision > MAX_DECIMAL_DIGITS or scale > precision or scale < 0:
        return STRING
    return LogicalType("DECIMAL", precision, scale)


@dataclass(frozen=True)
class TypePolicy:
    """How a database wants its ambiguous types; see docs/types.md for what each choice means."""

    tinyint1: Literal["boolean", "integer"] = "integer"
    decimals: Literal["exact", "float"] = "exact"
    binary: Literal["bytes", "hex"] = "bytes"
    unbounded_numeric: Literal["text", "numeric"] = "text"


@dataclass(frozen=True)
class SourceColumn:
    """A column as the source's catalogue describes it.

    ``data_type`` is the bare type word, ``full_type`` its whole declaration.
    """

    name: str
    data_type: str
    full_type: str
    nullable: bool
    precision: int | None = None
    scale: int | None = None


_MYSQL_TEXT = (
    *("char", "varchar", "tinytext", "text", "mediumtext", "longtext"),
    *("enum", "set", "json", "uuid", "inet4", "inet6"),
)
_MYSQL_BINARY = ["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"]
_MYSQL_INTEGERS = ["tinyint", "smallint", "mediumint", "int", "bigint", "year"]
_MYSQL_FLOATS = ("float", "double")


def _mysql_integer(column: SourceColumn, policy: TypePolicy) -> LogicalType:
    if column.full_type == "tinyint(1)" and policy.tinyint1 == "boolean":
        return BOOL
    if column.data_type == "bigint" and "unsigned" in column.full_type:
        return decimal(20, 0)
    return INT64


def _decimal(column: SourceColumn, policy: TypePolicy) -> LogicalType:
    if policy.decimals == "float":
        return FLOAT64
    if column.precision is None or column.scale is None:
        # PostgreSQL's numeric without limits, NaN included
        return STRING if policy.unbounded_numeric == "text" else decimal(MAX_DECIMAL_DIGITS, 9)
    return decimal(column.precision, column.scale)


def _mysql_bit(column: SourceColumn, policy: TypePolicy) -> LogicalType:
    if column.full_type == "bit(1)" and policy.tinyint1 == "boolean":
        return BOOL
    return decimal(20, 0) if column.full_type == "bit(64)" else INT64


def _binary(_column: SourceColumn, policy: TypePolicy) -> LogicalType:
    return STRING if policy.binary == "hex" else BYTES


def _always(logical: LogicalType) -> Callable[[SourceColumn, TypePolicy], LogicalType]:
    return lambda _column, _policy: logical


_Mapping = dict[str, Callable[[SourceColumn, TypePolicy], LogicalType]]

MYSQL: _Mapping = {
    **dict.fromkeys(_MYSQL_INTEGERS, _mysql_integer),
    **{name: _always(FLOAT64) for name in _MYSQL_FLOATS},
    **{name: _always(STRING) for name in _MYSQL_TEXT},
    **dict.fromkeys(_MYSQL_BINARY, _binary),
    "decimal": _decimal,
    "bit": _mysql_bit,
    "date": _always(DATE),
    "datetime": _always(DATETIME),
    "timestamp": _always(TIMESTAMP),
    "time": _always(STRING),  # runs from -838:59:59 to 838:59:59
    "geometry": _always(BYTES),
    "point": _always(BYTES),
}

_POSTGRES_TEXT = (
    *("character varying", "character", "text", "citext", "name", "uuid", "xml"),
    *("json", "jsonb", "jsonpath", "hstore", "ltree", "ARRAY", "composite", "enum"),
    *("tsvector", "tsquery", "bit", "bit varying", '"char"', "range", "multirange"),
    *("interval", "time without time zone", "time with time zone", "money"),
    *("point", "line", "lseg", "box", "path", "polygon", "circle"),
    *("inet", "cidr", "macaddr", "macaddr8"),
)

POSTGRES: _Mapping = {
    **{name: _always(STRING) for name in _POSTGRES_TEXT},
    **{name: _always(INT64) for name in ("smallint", "integer", "bigint", "oid")},
    **{name: _always(FLOAT64) for name in ("real", "double precision")},
    "boolean": _always(BOOL),
    "numeric": _decimal,
    "bytea": _binary,
    "date": _always(DATE),
    "timestamp without time zone": _always(DATETIME),
    "timestamp with time zone": _always(TIMESTAMP),
}

MAPPINGS: dict[str, _Mapping] = {"mysql": MYSQL, "postgresql": POSTGRES}
_BINARY_TYPES = frozenset([*_MYSQL_BINARY, "bytea", "geometry", "point"])


def column_of(kind: str, table: str, column: SourceColumn, policy: TypePolicy) -> Column:
    """The mirrored column for a source column.

    Raises UnsupportedType, naming table and column, for a type without a mapping.
    """
    mapping = MAPPINGS[kind].get(column.data_type)
    if mapping is None:
        fault = UnsupportedType(
            f"column {column.name} has type {column.full_type}, which has no mapping",
            where=table,
            remedy="exclude the column in the catalog, or map the type in mirroring/types.py",
        )
        fault.column = column.name
        raise fault
    logical = mapping(column, policy)
    is_hex = (kind == "mysql" and column.data_type in _BINARY_TYPES) or column.data_type == "bytea"
    is_unbounded = column.data_type == "numeric" and (
        logical == FLOAT64 or (column.precision is None and logical != STRING)
    )
    return Column(
        name=column.name,
        source_type=column.full_type,
        type=logical,
        required=not column.nullable,
        encoding="hex" if is_hex else "unbounded" if is_unbounded else "text",
    )


_DUCKDB: dict[str, str] = {
    "BOOL": "BOOLEAN",
    "INT64": "BIGINT",
    "FLOAT64": "DOUBLE",
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "DATE": "DATE",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
}
_FROM_DUCKDB = {duckdb: kind for kind, duckdb in _DUCKDB.items()}
_DUCKDB_DECIMAL = re.compile(r"DECIMAL\((\d+),\s?(\d+)\)")


def to_duckdb(logical: LogicalType) -> str:
    """The DuckDB (and DuckLake) column type."""
    return str(logical) if logical.kind == "DECIMAL" else _DUCKDB[logical.kind]


def from_duckdb(text: str) -> LogicalType:
    """The logical type of a DuckDB column type that ``to_duckdb`` could have written."""
    if match := _DUCKDB_DECIMAL.fullmatch(text):
        return LogicalType("DECIMAL", int(match[1]), int(match[2]))
    return LogicalType(_FROM_DUCKDB[text])  # type: ignore[arg-type]


def to_bigquery(logical: LogicalType) -> str:
    """The BigQuery column type; NUMERIC where it suffices, else BIGNUMERIC."""
    if logical.kind != "DECIMAL":
        return logical.kind
    fits_numeric = logical.scale <= 9 and logical.precision - logical.scale <= 29
    name = "NUMERIC" if fits_numeric else "BIGNUMERIC"
    return f"{name}({logical.precision},{logical.scale})"


_BIGQUERY_DECIMAL = re.compile(r"(?:BIG)?NUMERIC\((\d+),\s?(\d+)\)")


def from_bigquery(text: str) -> LogicalType:
    """The logical type of a BigQuery column type that ``to_bigquery`` could have written."""
    if match := _BIGQUERY_DECIMAL.fullmatch(text):
        return LogicalType("DECIMAL", int(match[1]), int(match[2]))
    return LogicalType(text)  # type: ignore[arg-type]
