"""When two cells are equal, said once for every engine, and the SQL that asks an engine.

A cell has a form that each engine computes from the typed value by means of its own; none of it is
the export's formatting.

| Logical type | Form |
|---|---|
| BOOL | ``1`` or ``0`` |
| INT64, DECIMAL | its digits, with exactly the type's scale |
| FLOAT64 | the 16 hexadecimal digits of its IEEE 754 bits, ``nan`` for any NaN, 0 for -0 |
| STRING, BYTES | the UTF-8 text, the bytes |
| DATE | year x 10,000 + month x 100 + day |
| DATETIME, TIMESTAMP | microseconds since 1970-01-01 00:00:00 (UTC) |

A cell's hash is the first 60 bits of its form's MD5, NULL for NULL. A row's hash is that of its
cells' hashes. Sums of hashes do not depend on order and are exact in every engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.schema import Column, LogicalType

ABSENT = "~"  # stands for NULL in a row's hash


@dataclass(frozen=True)
class Cell:
    """A column as it is to be compared: ``type`` is the warehouse's, all else the source's.

    ``first`` to ``last`` are the days that a date may have where the policies turn any other into
    NULL; None where they do not.
    """

    name: str
    type: LogicalType
    column: Column
    masked: bool = False
    nulls_zero: bool = False
    first: date | None = None
    last: date | None = None


def cells_of(
    columns: Sequence[Column], table: TableSpec, held: dict[str, LogicalType]
) -> list[Cell]:
    """The source's columns with the types that the warehouse holds them in, by source name."""
    return [_cell(column, table, held.get(column.name, column.type)) for column in columns]


def _cell(column: Column, table: TableSpec, logical: LogicalType) -> Cell:
    cell = Cell(column.name, logical, column, masked=column.name in table.masked_columns)
    if not logical.is_date:
        return cell
    if table.nulls_misfits(column):
        cell = replace(cell, first=table.first_date, last=table.last_date)
    return replace(cell, nulls_zero=table.zero_dates == "null")


def tells_apart(key: Sequence[Cell]) -> bool:
    """Whether a key can identify rows. Masked values are all alike."""
    return bool(key) and not any(cell.masked for cell in key)


def hash_of(form: bytes) -> int:
    """The hash of a form that is not NULL."""
    return int(hashlib.md5(form, usedforsecurity=False).hexdigest()[:15], 16)


def row_hash(hashes: Sequence[int | None]) -> int:
    """The hash of a row of cell hashes."""
    return hash_of(":".join(ABSENT if h is None else str(h) for h in hashes).encode())
