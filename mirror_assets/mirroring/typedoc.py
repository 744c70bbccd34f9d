"""Writes docs/types.md from the type mappings: ``python -m mirror_assets.mirroring.typedoc``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from mirror_assets.mirroring import types
from mirror_assets.mirroring.schema import Column
from mirror_assets.mirroring.types import SourceColumn, TypePolicy

_PAGE = Path(__file__).parents[2] / "docs" / "types.md"
_TITLES = {"mysql": "MySQL and MariaDB", "postgresql": "PostgreSQL"}
_OTHER = TypePolicy(tinyint1="boolean", decimals="float", binary="hex")

#: What a bare type word does not show: (declaration, precision, scale).
_VARIANTS: dict[str, dict[str, tuple[tuple[str, int | None, int | None], ...]]] = {
    "mysql": {
        "tinyint": (("tinyint(1)", 3, 0), ("tinyint(1) unsigned", 3, 0), ("tinyint", 3, 0)),
        "bigint": (("bigint", 19, 0), ("bigint unsigned", 20, 0)),
        "decimal": (
            ("decimal(10,2)", 10, 2),
            ("decimal(38,20)", 38, 20),
            ("decimal(65,30)", 65, 30),
        ),
        "bit": (("bit(1)", 1, None), ("bit(8)", 8, None), ("bit(64)", 64, None)),
    },
    "postgresql": {
        "numeric": (
            ("numeric(10,2)", 10, 2),
            ("numeric(38,20)", 38, 20),
            ("numeric(50,2)", 50, 2),
            ("numeric", None, None),
        ),
    },
}

_INTRO = """\
# Types

Written by `python -m mirror_assets.mirroring.typedoc` from `mirroring/types.py`; a test keeps it
current. Why these types and no others: [ADR 0002](adr/0002-parquet-types.md).

A column has one logical type, which holds every value the source's type can have, exactly (unless
`decimals: float` asks for less). A value that does not hold is a reject with its place. A type
that is not listed stops its table with an error that names the column: exclude the column in the
catalog, or map the type.

Policies, per database in its catalog:

| Field | Default | Choice | What it changes |
|---|---|---|---|
| `tinyint1` | `integer` | `boolean` | `tinyint(1)`, `bit(1)` become BOOL; a 2 is a reject |
| `decimals` | `exact` | `float` | every decimal becomes FLOAT64, about 15 digits |
| `binary` | `bytes` | `hex` | binary becomes lower-case hexadecimal text |
| `unbounded_numeric` | `text` | `numeric` | unlimited numeric is DECIMAL(38,9), or a reject |
| `zero_dates` | `reject` | `null` | `0000-00-00` and dates with month or day 00 become NULL |

Masked columns are STRING. `first_date` and `last_date` bound dates, datetimes and timestamps;
outside 0001-01-01 to 9999-12-31 no date is loaded, because BigQuery holds none.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRO, *(line for kind in types.MAPPINGS for line in _section(kind))])


def _section(kind: str) -> Iterator[str]:
    yield f"## {_TITLES[kind]}\n"
    yield "| Source type | DuckDB, DuckLake | BigQuery | With the other policy |"
    yield "|---|---|---|---|"
    rows = (
        (column, _mapped(kind, column))
        for name in types.MAPPINGS[kind]
        for column in _of(kind, name)
    )
    for mapped, group in groupby(rows, key=lambda row: row[1]):
        names = ", ".join(f"`{column.full_type}`" for column, _mapped in group)
        yield f"| {names} | {' | '.join(mapped)} |"
    yield ""


def _of(kind: str, name: str) -> Iterator[SourceColumn]:
    for full, precision, scale in _VARIANTS[kind].get(name, ((name, None, None),)):
        yield SourceColumn("c", name, full, True, precision, scale)


def _mapped(kind: str, source: SourceColumn) -> tuple[str, str, str]:
    column = types.column_of(kind, "", source, TypePolicy())
    other = types.column_of(kind, "", source, _OTHER)
    return _duckdb(column), types.to_bigquery(column.type), _changed(column, other)


def _duckdb(column: Column) -> str:
    return types.to_duckdb(column.type)


def _changed(column: Column, other: Column) -> str:
    return "" if other.type == column.type else f"{_duckdb(other)}, {types.to_bigquery(other.type)}"


def main() -> None:
    """Write the page."""
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
