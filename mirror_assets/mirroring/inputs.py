"""What a derived table reads: the published rows of mirrored tables, as they stood on a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import InputMissing
from mirror_assets.mirroring.warehouses.base import Warehouse

#: Databases and the tables of each that are read.
Tables = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Inputs:
    """Tables of one day. ``days`` says which partition of each (database, table) is read.

    ``recorded_at`` is the instant at which the last of them was published: a replaced input makes
    it later.
    """

    warehouse: Warehouse
    specs: Mapping[str, DatabaseSpec]
    days: Mapping[tuple[str, str], date]
    recorded_at: datetime

    def relation(self, database: str, table: str) -> str:
        """SQL of a table's rows, with the source's columns only."""
        spec = self.specs[database]
        day = self.days[database, table]
        return self.warehouse.relation(spec.dataset, spec.storage_name(table), day)


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
    InputMissing, naming every table that is not published.
    """
    known = {spec.name: spec for spec in specs}
    days: dict[tuple[str, str], date] = {}
    recorded: list[datetime] = []
    missing: list[str] = []
    for database, wanted in tables.items():
        spec = known.get(database)
        found = _published(warehouse, spec, day, is_exact=database not in as_of) if spec else {}
        for table in wanted:
            if table in found:
                days[database, table] = found[table][0]
                recorded.append(found[table][1])
            else:
                missing.append(f"{database}/{table}")
    if missing:
        raise InputMissing(
            f"no published partition of {day} of {', '.join(sorted(missing))}",
            remedy="materialize the missing tables for that day (`mirror status` says why they are"
            " not there); this asset then starts by itself",
        )
    return Inputs(warehouse, known, days, max(recorded))


def _published(
    warehouse: Warehouse, spec: DatabaseSpec, day: date, *, is_exact: bool
) -> dict[str, tuple[date, datetime]]:
    """The partition to read of every published table, and when that was recorded."""
    if control.METADATA.name not in warehouse.schemas(spec.dataset):
        return {}
    rows = warehouse.query(control.newest_published(spec.dataset, day, is_exact=is_exact)).rows
    return {table: (partition, recorded) for table, partition, recorded in rows}
