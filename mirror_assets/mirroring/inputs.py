"""What a derived table reads: the published rows of mirrored tables, as they stood on a day."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import InputMissing, RefreshLanded
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.warehouses.base import Warehouse

#: Databases and the tables of each that are read.
Tables = Mapping[str, Sequence[str]]


class Published(NamedTuple):
    """A partition of a table, as MIRROR_METADATA tells of it."""

    day: date
    recorded_at: datetime
    rows: int


@dataclass(frozen=True)
class Inputs:
    """Tables of one day; ``published`` says which partition of each (database, table) is read."""

    warehouse: Warehouse
    specs: Mapping[str, DatabaseSpec]
    day: date
    published: Mapping[tuple[str, str], Published]
    as_of: frozenset[str]

    @property
    def days(self) -> dict[tuple[str, str], date]:
        return {key: found.day for key, found in self.published.items()}

    @property
    def recorded_at(self) -> datetime:
        """When the last of them was published: a replaced input makes it later."""
        return max(found.recorded_at for found in self.published.values())

    def relation(self, database: str, table: str) -> str:
        """SQL of a table's rows, with the source's columns only."""
        spec, found = self.specs[database], self.published[database, table]
        return self.warehouse.relation(spec.dataset, spec.storage_name(table), found.day)

    def refuse_replaced(self) -> None:
        """Raises RefreshLanded where a table was published again since: what several queries read,
        each for itself, may then be of two states. Ask before what was read is published.
        """
        tables: dict[str, list[str]] = {}
        for database, table in self.published:
            tables.setdefault(database, []).append(table)
        specs = list(self.specs.values())
        now = inputs(self.warehouse, specs, self.day, tables, as_of=self.as_of).published
        if replaced := sorted("/".join(key) for key in now if now[key] != self.published[key]):
            raise RefreshLanded(
                f"published again while it was read: {', '.join(replaced)}",
                remedy="run this again: it then reads the newer rows",
            )


def inputs(
    warehouse: Warehouse,
    specs: Sequence[DatabaseSpec],
    day: date,
    tables: Tables,
    *,
    as_of: frozenset[str] = frozenset(),
) -> Inputs:
    """The tables' partitions of a day; of databases in ``as_of``, the newest ones up to that day.

    Those are mirrored at another hour, so that their own partition of the day may yet come. Raises
    InputMissing, naming every table that is not published, or whose rows are not there any more.
    """
    known = {spec.name: spec for spec in specs}
    read: dict[tuple[str, str], Published] = {}
    missing: list[str] = []
    gone: dict[str, str] = {}
    for database, wanted in tables.items():
        spec = known.get(database)
        there = set(warehouse.schemas(spec.dataset)) if spec else set()
        if spec is None or control.METADATA.name not in there:
            missing += [f"{database}/{table}" for table in wanted]
            continue
        found = _published(warehouse, spec, day, is_exact=database not in as_of)
        missing += [f"{database}/{table}" for table in wanted if table not in found]
        here = {table: found[table] for table in wanted if table in found}
        read |= {(database, table): partition for table, partition in here.items()}
        gone |= _gone(warehouse, spec, here, there)
    if missing:
        raise InputMissing(
            f"no published partition of {day} of {', '.join(sorted(missing))}",
            remedy="materialize the missing tables for that day (`mirror status` says why they are"
            " not there); this asset then starts by itself",
        )
    if gone:
        raise InputMissing(
            "; ".join(f"{table}: {fate}" for table, fate in sorted(gone.items())),
            remedy="leave this day as it was made; an expired one comes back by materializing the"
            " table for that day, as long as its export is in the landing zone",
        )
    return Inputs(warehouse, known, day, read, as_of)


def _published(
    warehouse: Warehouse, spec: DatabaseSpec, day: date, *, is_exact: bool
) -> dict[str, Published]:
    """The partition to read of every published table."""
    rows = warehouse.query(control.newest_published(spec.dataset, day, is_exact=is_exact)).rows
    return {table: Published(*partition) for table, *partition in rows}


def _gone(
    warehouse: Warehouse, spec: DatabaseSpec, read: Mapping[str, Published], there: Set[str]
) -> dict[str, str]:
    """What became of partitions that are recorded as published and not in their tables any more,
    where they would pass for empty ones.
    """
    days = {spec.storage_name(table): found.day for table, found in read.items() if found.rows}
    held = holding(warehouse, spec.dataset, {n: day for n, day in days.items() if n in there})
    fates = {}
    for table, found in read.items():
        name = spec.storage_name(table)
        if name in days.keys() - held:
            aside = re.compile(rf"{re.escape(name)}_depr_\d+", re.IGNORECASE)
            others = {other: found.day for other in there if aside.fullmatch(other)}
            kept = ", ".join(sorted(holding(warehouse, spec.dataset, others)))
            fate = f"were set aside in {kept}" if kept else "have expired"
            fates[f"{spec.name}/{table}"] = f"its rows of {found.day} {fate}"
    return fates


def holding(warehouse: Warehouse, dataset: str, days: Mapping[str, date]) -> set[str]:
    """The tables that have rows of their day."""
    if not days:
        return set()
    questions = (
        f"SELECT {literal(name)} AS name,"
        f" EXISTS (SELECT 1 FROM {warehouse.relation(dataset, name, day)} r) AS held"
        for name, day in days.items()
    )
    return {name for name, held in warehouse.query(" UNION ALL ".join(questions)).rows if held}
