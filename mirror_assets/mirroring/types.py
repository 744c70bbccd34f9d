"""Source type -> logical type -> warehouse type: one function each way.

Only types that DuckDB's Parquet and BigQuery both hold exactly are logical types
(docs/adr/0002-parquet-types.md). Everything else becomes exact text, or an early error that
names the column.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mirror_assets.mirroring.errors import CatalogError, UnsupportedType
from mirror_assets.mirroring.schema import (
    MAX_DECIMAL_DIGITS,
    Column,
    Encoding,
    LogicalType,
)

#: What happens to a value that its column's warehouse type cannot hold: its row is rejected, the
#: value becomes NULL and is counted, or the whole column is loaded as the source's own text.
Misfits = Literal["reject", "null", "text"]

BOOL = LogicalType("BOOL")
INT64 = LogicalType("INT64")
FLOAT64 = LogicalType("FLOAT64")
STRING = LogicalType("STRING")
BYTES = LogicalType("BYTES")
DATE = LogicalType("DATE")
DATETIME = LogicalType("DATETIME")
TIMESTAMP = LogicalType("TIMESTAMP")


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

    ``data_type`` is the bare type word, ``full_type`` its whole declaration. ``charset`` is
    MySQL's character set of a text.
    """

    name: str
    data_type: str
    full_type: str = field(repr=False)  #: may list values of an enum
    nullable: bool
    precision: int | None = None
    scale: int | None = None
    charset: str = ""


_MYSQL_TEXT = (
    *("char", "varchar", "tinytext", "text", "mediumtext", "longtext"),
    *("enum", "set", "json", "uuid", "inet4", "inet6"),
)
_MYSQL_BINARY = ["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"]
#: Loaded as the server's own bytes: SRID (4 bytes, little-endian), then well-known binary.
_MYSQL_SHAPES = (
    *("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"),
    *("multipolygon", "geometrycollection", "geomcollection"),
)
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
    **{name: _always(BYTES) for name in (*_MYSQL_SHAPES, "vector")},
}

_POSTGRES_TEXT = (
    *("character varying", "character", "text", "citext", "name", "uuid", "xml"),
    *("json", "jsonb", "jsonpath", "hstore", "ltree", "ARRAY", "composite", "enum"),
    *("tsvector", "tsquery", "bit", "bit varying", '"char"', "range", "multirange"),
    *("interval", "time without time zone", "time with time zone", "money"),
    *("point", "line", "lseg", "box", "path", "polygon", "circle"),
    *("inet", "cidr", "macaddr", "macaddr8"),
    *("pg_lsn", "pg_snapshot", "txid_snapshot", "xid", "xid8", "cid", "tid", "aclitem"),
    *("regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper"),
    *("regoperator", "regproc", "regprocedure", "regrole", "regtype", "refcursor"),
    *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
    *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "gtsvector"),
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
_BINARY_TYPES = {
    "mysql": frozenset([*_MYSQL_BINARY, *_MYSQL_SHAPES, "vector"]),
    "postgresql": frozenset(["bytea"]),
}


def column_of(
    kind: str,
    table: str,
    column: SourceColumn,
    policy: TypePolicy,
    declared: LogicalType | None = None,
) -> Column:
    """The mirrored column for a source column; ``declared`` is what the catalog wants it to be.

    Raises UnsupportedType, naming table and column, for a type without a mapping.
    """
    mapping = MAPPINGS[kind].get(column.data_type)
    if mapping is None and declared != STRING:
        fault = UnsupportedType(
            f"column {column.name} has type {column.full_type}, which has no mapping",
            where=table,
            remedy="in the catalog exclude the column, or load its text: `columns:"
            f" {{{column.name}: {{misfits: text}}}}`",
        )
        fault.column = column.name
        raise fault
    is_binary = column.data_type in _BINARY_TYPES[kind]
    if declared is not None and is_binary and declared.kind not in ("STRING", "BYTES"):
        raise CatalogError(
            f"column {column.name} is binary and cannot be loaded as {declared}",
            where=table,
            remedy="declare STRING (hexadecimal) or BYTES",
        )
    own = mapping(column, policy) if mapping else STRING
    return Column(
        name=column.name,
        source_type=column.full_type,
        type=declared or own,
        required=not column.nullable,
        encoding="hex" if is_binary else _text_encoding(column, declared, own),
        word=column.data_type,
    )


def _text_encoding(
    column: SourceColumn, declared: LogicalType | None, own: LogicalType
) -> Encoding:
    if declared is not None and declared != own:
        return "declared" if declared != STRING else "text"
    is_exact = own == STRING or (own != FLOAT64 and column.precision is not None)
    return "text" if column.data_type != "numeric" or is_exact else "unbounded"


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
