"""Writes docs/types.md from the type mappings: ``python -m mirror_assets.mirroring.typedoc``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import duckdb

from mirror_assets.mirroring import catalog, types
from mirror_assets.mirroring.casts import Field
from mirror_assets.mirroring.schema import Column
from mirror_assets.mirroring.types import SourceColumn, TypePolicy

_PAGE = Path(__file__).parents[2] / "docs" / "types.md"
_TITLES = {"mysql": "MySQL and MariaDB", "postgresql": "PostgreSQL"}
_TABLE = catalog.of_entry(
    catalog.DatabaseEntry(database="any", kind="mysql", tables=["any"])
).tables[0]
_OTHERS = (
    TypePolicy(tinyint1="boolean", decimals="float", binary="hex"),
    TypePolicy(unbounded_numeric="numeric"),
)

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

#: Values at the edge of what a type word can hold, as the export writes them.
_EXTREMES: dict[str, dict[str, tuple[str, ...]]] = {
    "mysql": {
        "date": ("0000-00-00", "2020-00-10", "9999-12-31"),
        "datetime": ("0000-00-00 00:00:00", "2020-10-00 00:00:00", "9999-12-31 23:59:59.999999"),
        "timestamp": ("0000-00-00 00:00:00+00",),
    },
    "postgresql": {
        "numeric": ("NaN",),
        "date": ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01"),
        "timestamp without time zone": ("infinity", "0044-03-15 12:00:00 BC"),
        "timestamp with time zone": ("-infinity", "294276-12-31 00:00:00+00"),
    },
}  # fmt: skip
#: The same for what another policy makes of them.
_OTHER_EXTREMES: dict[str, tuple[str, ...]] = {
    "tinyint(1)": ("2",),
    "bit(1)": ("2",),
    "numeric": ("NaN", "Infinity", "0.0123456789", "1" + 308 * "0", "1" + 309 * "0"),
}
#: Types whose bytes may be no character of their character set.
_TEXTS = {
    "mysql": {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"},
    "postgresql": {"character varying", "character", "text", "citext", "name"},
}
_NO_CHARACTER = "bytes that are no character"
_SHOWN = 24  # characters of a value

_INTRO = """\
# Types

Written by `python -m mirror_assets.mirroring.typedoc` from `mirroring/types.py`; a test keeps it
current. Why these types and no others: [ADR 0002](adr/0002-parquet-types.md).

A column has one logical type, which holds the values of the source's type exactly (unless
`decimals: float` asks for less). A value that it cannot hold is a misfit. `misfits` in the catalog
says what becomes of it, per source type (`misfits: {date: null}`) and per column
(`columns: {born_on: {misfits: text}}`):

| `misfits` | A value that does not hold |
|---|---|
| `reject` (default) | its row is a reject, listed in MIRROR_ERRORS with its key and place |
| `null` | the value becomes NULL and is counted (`misfits_nulled`); the row stays |
| `text` | the whole column is loaded as the source's own text |

A column may be declared another type than its source's, `columns: {age: {type: INT64}}`;
then every value's text must have that type's canonical form (`1.5` is no INT64, `12.345` no
DECIMAL(10,2), `1e400` no FLOAT64), or it is a misfit. A type that is not listed stops its table
with an error that names the column: exclude the column, or load its text (`misfits: text`).

Policies, per database in its catalog:

| Field | Default | Choice | What it changes |
|---|---|---|---|
| `tinyint1` | `integer` | `boolean` | `tinyint(1)`, `bit(1)` become BOOL; a 2 is a reject |
| `decimals` | `exact` | `float` | decimals become FLOAT64, some 15 digits; beyond 1e308 a reject |
| `binary` | `bytes` | `hex` | binary becomes lower-case hexadecimal text |
| `unbounded_numeric` | `text` | `numeric` | unlimited numeric is DECIMAL(38,9), or a reject |
| `zero_dates` | `reject` | `null` | `0000-00-00` and dates with month or day 00 become NULL |

MySQL's geometry is the server's own bytes: SRID (4 bytes, little-endian), then well-known binary.
Text with bytes that are no character of its character set is always a reject, never altered:
MySQL itself would send a question mark. A FLOAT64 has no `-0.0`; it is loaded as the equal `0.0`.
Masked columns are STRING. `first_date` and `last_date` bound dates, datetimes and timestamps;
outside 0001-01-01 to 9999-12-31 no date is loaded, because BigQuery holds none.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRO, *(line for kind in types.MAPPINGS for line in _section(kind))])


def _section(kind: str) -> Iterator[str]:
    yield f"## {_TITLES[kind]}\n"
    yield "| Source type | Parquet, DuckLake | BigQuery | Misfits | With the other policy |"
    yield "|---|---|---|---|---|"
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


def _mapped(kind: str, source: SourceColumn) -> tuple[str, str, str, str]:
    column = types.column_of(kind, "", source, TypePolicy())
    others = (types.column_of(kind, "", source, policy) for policy in _OTHERS)
    changed = [_changed(other, source.full_type) for other in others if other.type != column.type]
    misfits = _misfits(column, _EXTREMES[kind].get(source.data_type, ()))
    if source.data_type in _TEXTS[kind]:
        misfits = _NO_CHARACTER
    return _duckdb(column), types.to_bigquery(column.type), misfits, "; or ".join(changed)


def _misfits(column: Column, texts: Iterable[str]) -> str:
    return ", ".join(f"`{_shown(text)}`" for text in texts if _is_misfit(column, text))


def _is_misfit(column: Column, text: str) -> bool:
    """Whether the typed load refuses a text: asked of the load's own SQL."""
    if column.encoding == "hex":
        return False
    fault = Field("c0", column, _TABLE).fault or "NULL"
    row = duckdb.execute(f"SELECT {fault} FROM (SELECT ? AS c0)", [text]).fetchone()
    return row is not None and row[0] is not None


def _shown(text: str) -> str:
    zeros = len(text) - len(text.rstrip("0"))
    if zeros > _SHOWN:
        return f"1e{zeros}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 2]}.."


def _duckdb(column: Column) -> str:
    return types.to_duckdb(column.type)


def _changed(other: Column, full_type: str) -> str:
    """What another policy makes of a column, and which of its values are misfits then."""
    misfits = _misfits(other, _OTHER_EXTREMES.get(full_type, ()))
    told = f"{_duckdb(other)}, {types.to_bigquery(other.type)}"
    return f"{told}; misfit: {misfits}" if misfits else told


def main() -> None:
    """Write the page."""
    _PAGE.parent.mkdir(exist_ok=True)
    _PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
