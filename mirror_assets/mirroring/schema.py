"""Columns and tables as the engine sees them, and what each kind of schema drift means.

| Change at the source | Told as | The next run |
|---|---|---|
| column added, nullable or not | added | adds it, nullable: older days have no value |
| NOT NULL dropped | relaxed | drops it too |
| NOT NULL added | tightened | publishes; the column stays nullable |
| type widened, all old values still exact | widened | widens the column |
| decimal narrowed | narrowed | publishes; the column stays wide |
| other words, same type here (int, bigint) | redeclared | publishes |
| name changed in case only | recased | renames the column |
| columns in another order | reordered | publishes; columns are matched by name |
| primary key | primary key changed | publishes; whole days are replaced, never merged |
| column removed, or renamed | removed (and added) | refuses, or sets the history aside |
| any other type | retyped | refuses, or sets the history aside |

One breaking change among harmless ones makes the whole breaking: nothing is followed by halves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

#: The widest decimal that DuckDB, Parquet and BIGNUMERIC all hold.
MAX_DECIMAL_DIGITS = 38

Kind = Literal[
    "BOOL", "INT64", "FLOAT64", "DECIMAL", "STRING", "BYTES", "DATE", "DATETIME", "TIMESTAMP"
]

#: Text forms in which an export may carry a value, beyond the type's own canonical text:
#: ``unbounded`` numbers may have more digits than the type holds; ``declared`` values are any text,
#: because the catalog declares another type than the source's.
Encoding = Literal["text", "hex", "unbounded", "declared"]


@dataclass(frozen=True)
class LogicalType:
    """A type that both warehouses hold exactly. ``precision`` and ``scale`` only with DECIMAL."""

    kind: Kind
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        return f"DECIMAL({self.precision},{self.scale})" if self.kind == "DECIMAL" else self.kind

    @property
    def is_date(self) -> bool:
        """Whether values are days or instants, which have a range of their own."""
        return self.kind in ("DATE", "DATETIME", "TIMESTAMP")

    @classmethod
    def parse(cls, text: str) -> LogicalType:
        """The inverse of ``str``. Raises ValueError, naming what is allowed."""
        decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", text)
        if decimal and int(decimal[2]) <= int(decimal[1]) <= MAX_DECIMAL_DIGITS and int(decimal[1]):
            return cls("DECIMAL", int(decimal[1]), int(decimal[2]))
        plain = [kind for kind in get_args(Kind) if kind != "DECIMAL"]
        if text not in plain:
            limit = f"DECIMAL(p,s) with p up to {MAX_DECIMAL_DIGITS}"
            raise ValueError(f"allowed: {', '.join(plain)}, {limit}")
        return cls(text)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Column:
    """One mirrored column: its name, the source's own type text, and the type it is loaded as.

    ``word`` is the bare word of the source's type, by which a catalog names it.
    """

    name: str
    source_type: str = field(repr=False)  #: may list values of an enum
    type: LogicalType
    required: bool = False
    encoding: Encoding = "text"
    word: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source_type": self.source_type,
            "type": str(self.type),
            "required": self.required,
            "encoding": self.encoding,
            "word": self.word,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Column:
        return cls(
            name=data["name"],
            source_type=data["source_type"],
            type=LogicalType.parse(data["type"]),
            required=data["required"],
            encoding=data["encoding"],
            word=data.get("word", ""),
        )


@dataclass(frozen=True)
class TableSchema:
    """The columns of one table in ordinal order, and its primary key where it has one."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key, where all its columns are mirrored; else nothing tells rows apart."""
        return self.primary_key if set(self.primary_key) <= set(self.names) else ()

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


Change = Literal[
    "added",
    "relaxed",
    "tightened",
    "widened",
    "narrowed",
    "recased",
    "redeclared",
    "reordered",
    "rekeyed",
    "removed",
    "retyped",
]
#: Changes that neither lose nor bend a value. A tightened column is one: the warehouse's column
#: stays nullable, because older days may hold NULLs, and holds every value of a NOT NULL column.
HARMLESS: frozenset[Change] = frozenset(get_args(Change)) - {"removed", "retyped"}
#: Changes that leave the warehouse as it is, and so would be found again every day.
_TOLD_ONCE: frozenset[Change] = frozenset({"tightened", "narrowed"})

Outcome = Literal["follows", "refuses", "sets aside"]


@dataclass(frozen=True)
class ColumnDrift:
    """One difference between a source column and the warehouse table's column."""

    change: Change
    column: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.change == "rekeyed":
            return f"primary key changed from {self.before} to {self.after}"
        if self.change == "reordered":
            return "columns reordered"
        if self.before and self.after:
            return f"{self.column} {self.change} from {self.before} to {self.after}"
        return f"{self.column} {self.change}"


@dataclass(frozen=True)
class Drift:
    """All differences of one table; empty when the schemas agree. ``set_aside``: the new name of
    the table whose history could not be continued.
    """

    changes: tuple[ColumnDrift, ...] = field(default=())
    set_aside: str = ""

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        told = "; ".join(map(str, self.changes)) or "none"
        return f"{told}; history set aside as {self.set_aside}" if self.set_aside else told

    @property
    def breaking(self) -> tuple[ColumnDrift, ...]:
        return tuple(change for change in self.changes if change.change not in HARMLESS)

    @property
    def broken(self) -> str:
        """The breaking changes in words, with the likely reason when it can be seen."""
        return "; ".join(map(str, self.breaking)) + self.hint

    @property
    def hint(self) -> str:
        """That exactly one column left and one of the same type came, where it is so."""
        gone = [change for change in self.changes if change.change == "removed"]
        come = [change for change in self.changes if change.change == "added"]
        if len(gone) != 1 or len(come) != 1 or gone[0].before != come[0].after:
            return ""
        return f" (it looks as if {gone[0].column} was renamed to {come[0].column})"

    def outcome(self, breaking_drift: str) -> Outcome:
        """What a run does about it under the table's policy."""
        if not self.breaking:
            return "follows"
        return "sets aside" if breaking_drift == "deprecate" else "refuses"


def fold(name: str) -> bytes:
    """A name as DuckDB compares it: case counts only outside ASCII."""
    return name.encode().lower()


def can_widen(before: LogicalType, after: LogicalType) -> bool:
    """Whether every value of ``before`` is exactly a value of ``after`` in both warehouses."""
    if before.kind == "INT64" and after.kind == "DECIMAL":
        return after.precision - after.scale >= 19
    if before.kind == "DECIMAL" and after.kind == "DECIMAL":
        whole_before = before.precision - before.scale
        whole_after = after.precision - after.scale
        return after.scale >= before.scale and whole_after >= whole_before
    return False


def compare(
    warehouse: TableSchema, source: TableSchema, before: TableSchema | None = None
) -> Drift:
    """Drift from the warehouse's columns to the source's.

    ``before`` is what the source declared when the table was last published. With it, changes that
    do not show in the warehouse are found, and those that leave it as it is are told only once.
    """
    known = {fold(column.name): column for column in warehouse.columns}
    incoming = {fold(column.name): column for column in source.columns}
    changes = [
        ColumnDrift("removed", column.name, before=str(column.type))
        for name, column in known.items()
        if name not in incoming
    ]
    for name, column in incoming.items():
        if name not in known:
            changes.append(ColumnDrift("added", column.name, after=str(column.type)))
            continue
        changes.extend(_compare_column(known[name], column))
    if before is None:
        return Drift(tuple(changes))
    changes = [change for change in changes if change.change not in _TOLD_ONCE]
    return Drift((*changes, *_since(before, source)))


def _compare_column(before: Column, after: Column) -> list[ColumnDrift]:
    """Differences under the source's name for the column; its new name comes first."""
    name = after.name
    changes: list[ColumnDrift] = []
    if before.name != name:
        changes.append(ColumnDrift("recased", name, before.name, name))
    if before.type != after.type:
        change = _type_change(before.type, after.type)
        changes.append(ColumnDrift(change, name, str(before.type), str(after.type)))
    if before.required and not after.required:
        changes.append(ColumnDrift("relaxed", name))
    if after.required and not before.required:
        changes.append(ColumnDrift("tightened", name))
    return changes


def _type_change(before: LogicalType, after: LogicalType) -> Change:
    if can_widen(before, after):
        return "widened"
    # DuckLake takes files of a narrower decimal into a column, and no other type than its own
    is_narrower = before.kind == after.kind == "DECIMAL" and can_widen(after, before)
    return "narrowed" if is_narrower else "retyped"


def _since(before: TableSchema, source: TableSchema) -> list[ColumnDrift]:
    """What the source declares otherwise than before, as far as the warehouse does not show it."""
    known = {fold(column.name): column for column in before.columns}
    changes: list[ColumnDrift] = []
    for column in source.columns:
        earlier = known.get(fold(column.name))
        if earlier is None:
            continue
        found = [c for c in _compare_column(earlier, column) if c.change in _TOLD_ONCE]
        words = shown_type(earlier.source_type), shown_type(column.source_type)
        if earlier.type == column.type and words[0] != words[1]:
            found.append(ColumnDrift("redeclared", column.name, *words))
        changes += found
    incoming = [fold(column.name) for column in source.columns]
    kept = [name for name in known if name in incoming]
    if kept != [name for name in incoming if name in known]:
        changes.append(ColumnDrift("reordered", "columns"))
    keys = [[fold(name) for name in schema.primary_key] for schema in (before, source)]
    if keys[0] != keys[1]:
        shown = (_shown_key(before.primary_key), _shown_key(source.primary_key))
        changes.append(ColumnDrift("rekeyed", "primary key", *shown))
    return changes


def shown_type(source_type: str) -> str:
    """A source's type without the values that an enum lists."""
    return re.sub(r"\(.*'.*\)", "(..)", source_type, flags=re.DOTALL)


def _shown_key(columns: tuple[str, ...]) -> str:
    return f"({', '.join(columns)})" if columns else "none"
