"""Columns as BigQuery's API has them: the fields of a table, from and to our own types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import DriftRefused, MirrorError
from mirror_assets.mirroring.names import warehouse_name
from mirror_assets.mirroring.schema import Column, Drift, LogicalType, TableSchema, fold

#: A field of a table in the API's JSON: name, type, mode and what else the service keeps of it.
Field = dict[str, Any]
#: The API answers with the names of legacy SQL.
_STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "STRUCT": "RECORD"}
_KINDS = {"BOOL", "INT64", "FLOAT64", "STRING", "BYTES", "DATE", "DATETIME", "TIMESTAMP"}


def field_of(column: Column) -> Field:
    """The field of a mirrored column."""
    mode = "REQUIRED" if column.required else "NULLABLE"
    return {"name": warehouse_name(column.name), **typed(column.type), "mode": mode}


def typed(logical: LogicalType) -> Field:
    """A type as the API spells it, with precision and scale apart."""
    name = types.to_bigquery(logical).partition("(")[0]
    if logical.kind != "DECIMAL":
        return {"type": name}
    return {"type": name, "precision": str(logical.precision), "scale": str(logical.scale)}


def declared(logical: LogicalType) -> str:
    """A type in SQL."""
    return types.to_bigquery(logical)


def schema_of(table: str, fields: Sequence[Field]) -> TableSchema:
    """A table's columns. Raises DriftRefused for one that the mirror could not have made."""
    return TableSchema(tuple(_column(table, field) for field in fields))


def schema_or_error(table: str, fields: Sequence[Field]) -> TableSchema | MirrorError:
    try:
        return schema_of(table, fields)
    except DriftRefused as error:
        return error


def _column(table: str, field: Field) -> Column:
    logical = _logical(field)
    mode = field.get("mode", "NULLABLE")
    if logical is None or mode == "REPEATED":
        raise DriftRefused(
            f"the warehouse's column {field['name']} has type {shown(field)}, which the mirror"
            " never makes: somebody altered the table by hand",
            remedy=f"give the column its type back, or rename the table to {table}_depr_<n>; then"
            " run the partition again",
        )
    return Column(field["name"], "", logical, mode == "REQUIRED")


def _logical(field: Field) -> LogicalType | None:
    name = kind(field)
    if name in ("NUMERIC", "BIGNUMERIC") and "precision" in field:
        return LogicalType("DECIMAL", int(field["precision"]), int(field.get("scale", 0)))
    return LogicalType(name) if name in _KINDS else None  # type: ignore[arg-type]


def kind(field: Field) -> str:
    """A field's type by its name in standard SQL, RECORD for a nested one."""
    name: str = field["type"]
    return _STANDARD.get(name, name)


def shown(field: Field) -> str:
    """A field's type for people."""
    text = kind(field)
    if "precision" in field:
        text += f"({field['precision']},{field.get('scale', 0)})"
    if kind(field) == "RECORD":
        inner = (f"{child['name']} {shown(child)}" for child in field["fields"])
        text = f"STRUCT<{', '.join(inner)}>"
    return f"ARRAY<{text}>" if field.get("mode") == "REPEATED" else text


def evolved(fields: Sequence[Field], schema: TableSchema, drift: Drift) -> list[Field]:
    """Fields after harmless drift; descriptions and policy tags stay with their columns."""
    after = {fold(field["name"]): dict(field) for field in fields}
    for change in drift.changes:
        if change.change == "added":
            column = schema.column(change.column)
            after[fold(change.column)] = field_of(column) | {"mode": "NULLABLE"}
        elif change.change == "relaxed":
            after[fold(change.column)]["mode"] = "NULLABLE"
        elif change.change == "recased":
            after[fold(change.column)]["name"] = change.column
        elif change.change == "widened":
            after[fold(change.column)] |= typed(schema.column(change.column).type)
    return list(after.values())


def of_arrow(schema: Any) -> list[Field]:
    """The fields of Parquet files that were written from Arrow record batches or by DuckDB."""
    return [_of_arrow(field.name, field.type) for field in schema]


def _of_arrow(name: str, kind_: Any) -> Field:
    import pyarrow.types as pt  # here, because it would slow down loading the code location

    if pt.is_list(kind_) or pt.is_large_list(kind_):
        return _of_arrow(name, kind_.value_type) | {"mode": "REPEATED"}
    field: Field = {"name": name, "mode": "NULLABLE"}
    if pt.is_struct(kind_):
        inner = [_of_arrow(child.name, child.type) for child in kind_]
        return field | {"type": "RECORD", "fields": inner}
    if pt.is_decimal(kind_):
        return field | typed(LogicalType("DECIMAL", kind_.precision, kind_.scale))
    if pt.is_timestamp(kind_):
        return field | {"type": "TIMESTAMP" if kind_.tz else "DATETIME"}
    for test, word in (
        (pt.is_boolean, "BOOL"),
        (pt.is_integer, "INT64"),
        (pt.is_floating, "FLOAT64"),
        (pt.is_date, "DATE"),
        (pt.is_string, "STRING"),
        (pt.is_large_string, "STRING"),
        (pt.is_binary, "BYTES"),
        (pt.is_large_binary, "BYTES"),
    ):
        if test(kind_):
            return field | {"type": word}
    raise DriftRefused(
        f"column {name} has a type that BigQuery does not hold: {kind_}",
        remedy="cast it in the query that makes the table",
    )


def to_arrow(fields: Sequence[Field]) -> Any:
    """The Arrow schema of control rows and of streamed answers.

    A number with more digits than NUMERIC holds, and no stated scale, is text: DuckDB and Parquet
    have no type for all of BIGNUMERIC.
    """
    import pyarrow as pa  # here, because it would slow down loading the code location

    return pa.schema([pa.field(field["name"], _arrow_type(field)) for field in fields])


def _arrow_type(field: Field) -> Any:
    import pyarrow as pa

    name = kind(field)
    if name == "RECORD":
        found = pa.struct([pa.field(f["name"], _arrow_type(f)) for f in field["fields"]])
    elif name in ("NUMERIC", "BIGNUMERIC") and "precision" in field:
        found = pa.decimal128(int(field["precision"]), int(field.get("scale", 0)))
    else:
        found = {
            "BOOL": pa.bool_(),
            "INT64": pa.int64(),
            "FLOAT64": pa.float64(),
            "NUMERIC": pa.decimal128(38, 9),
            "BYTES": pa.binary(),
            "DATE": pa.date32(),
            "DATETIME": pa.timestamp("us"),
            "TIMESTAMP": pa.timestamp("us", "UTC"),
        }.get(name, pa.string())
    return pa.list_(found) if field.get("mode") == "REPEATED" else found
