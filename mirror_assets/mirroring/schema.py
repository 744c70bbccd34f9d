"""Columns and tables as the engine sees them, and what each kind of schema drift means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "BOOL", "INT64", "FLOAT64", "DECIMAL", "STRING", "BYTES", "DATE", "DATETIME", "TIMESTAMP"
]

#: Text forms in which an export may carry a value, beyond the type's own canonical text:
#: ``unbounded`` numbers may have more digits than the type holds.
Encoding = Literal["text", "hex", "unbounded"]


@dataclass(frozen=True)
class LogicalType:
    """A type that both warehouses hold exactly. ``precision`` and ``scale`` only with DECIMAL."""

    kind: Kind
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        return f"DECIMAL({self.precision},{self.scale})" if self.kind == "DECIMAL" else self.kind

    @classmethod
    def parse(cls, text: str) -> LogicalType:
        """The inverse of ``str``."""
        if not text.startswith("DECIMAL("):
            return cls(text)  # type: ignore[arg-type]
        precision, scale = text[len("DECIMAL(") : -1].split(",")
        return cls("DECIMAL", int(precision), int(scale))


@dataclass(frozen=True)
class Column:
    """One mirrored column: its name, the source's own type text, and the type it is loaded as."""

    name: str
    source_type: str
    type: LogicalType
    required: bool = False
    encoding: Encoding = "text"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "source_type": self.source_type,
            "type": str(self.type),
            "required": self.required,
            "encoding": self.encoding,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Column:
        return cls(
            name=data["name"],
            source_type=data["source_type"],
            type=LogicalType.parse(data["type"]),
            required=data["required"],
            encoding=data["encoding"],
        )


@dataclass(frozen=True)
class TableSchema:
    """The columns of one table in ordinal order, and its primary key where it has one."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


Change = Literal["added", "relaxed", "tightened", "widened", "removed", "retyped"]
#: Changes that the warehouse table follows, or that it may ignore (it stays nullable).
HARMLESS: frozenset[Change] = frozenset({"added", "relaxed", "tightened", "widened"})


@dataclass(frozen=True)
class ColumnDrift:
    """One difference between a source column and the warehouse table's column."""

    change: Change
    column: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        if self.change in ("widened", "retyped"):
            return f"{self.column} {self.change} from {self.before} to {self.after}"
        return f"{self.column} {self.change}"


@dataclass(frozen=True)
class Drift:
    """All differences of one table; empty when the schemas agree."""

    changes: tuple[ColumnDrift, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        return "; ".join(map(str, self.changes)) or "none"

    @property
    def breaking(self) -> tuple[ColumnDrift, ...]:
        return tuple(change for change in self.changes if change.change not in HARMLESS)


def can_widen(before: LogicalType, after: LogicalType) -> bool:
    """Whether every value of ``before`` is exactly a value of ``after`` in both warehouses."""
    if before.kind == "INT64" and after.kind == "DECIMAL":
        return after.precision - after.scale >= 19
    if before.kind == "DECIMAL" and after.kind == "DECIMAL":
        whole_before = before.precision - before.scale
        whole_after = after.precision - after.scale
        return after.scale >= before.scale and whole_after >= whole_before
    return False


def compare(warehouse: TableSchema, source: TableSchema) -> Drift:
    """Drift from the warehouse's columns to the source's; order does not count."""
    known = {column.name: column for column in warehouse.columns}
    incoming = {column.name: column for column in source.columns}
    changes = [ColumnDrift("removed", name) for name in known if name not in incoming]
    for name, column in incoming.items():
        if name not in known:
            changes.append(ColumnDrift("added", name, after=str(column.type)))
            continue
        changes.extend(_compare_column(known[name], column))
    return Drift(tuple(changes))


def _compare_column(before: Column, after: Column) -> list[ColumnDrift]:
    changes: list[ColumnDrift] = []
    if before.type != after.type:
        change: Change = "widened" if can_widen(before.type, after.type) else "retyped"
        changes.append(ColumnDrift(change, before.name, str(before.type), str(after.type)))
    if before.required and not after.required:
        changes.append(ColumnDrift("relaxed", before.name))
    if after.required and not before.required:
        changes.append(ColumnDrift("tightened", before.name))
    return changes
