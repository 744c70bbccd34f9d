"""Deleting what the catalogs say has expired, so that deleted data is really gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, PermanentError, TransientError, at_edge
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.names import PARTITION_COLUMN, sql
from mirror_assets.mirroring.schema import fold
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse

#: One part of the work; says what it did, by name.
Step = Callable[[], dict[str, int]]


@dataclass(frozen=True)
class Copies:
    """A table made from the mirrors, one copy per day; ``column`` says of which day a row is."""

    dataset: str
    table: str
    column: str


_SET_ASIDE = re.compile(r".+_depr_\d+", re.IGNORECASE)


def expire(
    databases: Sequence[DatabaseSpec],
    landing: Landing,
    warehouse: Warehouse,
    *,
    now: datetime,
    further: Mapping[str, Step] | None = None,
) -> dict[str, int]:
    """Expire exports, partitions, kept row text and snapshots of every database; what was done.

    ``further`` steps, by what they expire, are taken before the snapshots.

    A step that fails does not stop the others; its error is raised when they are done.
    """
    done = {"exports_deleted": 0, "tables_dropped": 0}
    faults: list[MirrorError] = []

    def attempt(where: str, step: Step) -> None:
        try:
            for name, count in step().items():
                done[name] = done.get(name, 0) + count
        except Exception as error:
            faults.append(at_edge(error, where))

    for spec in databases:
        attempt(f"exports of {spec.name}", partial(_expire_exports, spec, landing, now))
        attempt(f"tables of {spec.name}", partial(_expire_tables, spec, warehouse, now))
    for where, step in (further or {}).items():
        attempt(where, step)
    travel = max((spec.entry.retention.time_travel_days for spec in databases), default=7)
    attempt("warehouse", lambda: warehouse.maintain(time_travel_days=travel))
    if faults:
        raise _together(faults)
    return done


def expire_copies(copies: Sequence[Copies], warehouse: Warehouse, oldest: date) -> int:
    """Delete what derived tables hold of days before ``oldest``, but the newest day of each; how
    many tables were shortened. Tables that were never made are passed over.
    """
    shortened = 0
    for dataset in sorted({copy.dataset for copy in copies}):
        there = warehouse.schemas(dataset)
        found = [copy for copy in copies if copy.dataset == dataset and copy.table in there]
        shortened += sum(_shorten(copy, warehouse, oldest) for copy in found)
    return shortened


def _shorten(copy: Copies, warehouse: Warehouse, oldest: date) -> bool:
    extremes = f"min({sql(copy.column)}), max({sql(copy.column)})"
    ((first, newest),) = warehouse.query(
        f"SELECT {extremes} FROM {sql(copy.dataset)}.{sql(copy.table)}"
    ).rows
    if first is None or first >= min(oldest, newest):
        return False
    kept = min(oldest, newest)
    warehouse.commit(lambda tx: tx.delete_before(copy.dataset, copy.table, copy.column, kept))
    return True


def _together(faults: Sequence[MirrorError]) -> MirrorError:
    if len(faults) == 1:
        return faults[0]
    kind = TransientError if any(fault.transient for fault in faults) else PermanentError
    return kind("; ".join(fault.sentence for fault in faults))


def _expire_exports(spec: DatabaseSpec, landing: Landing, now: datetime) -> dict[str, int]:
    days = spec.entry.retention.landing_days
    if days is None:
        return {}
    return {"exports_deleted": len(landing.expire(spec.name, (now - timedelta(days=days)).date()))}


def _expire_tables(spec: DatabaseSpec, warehouse: Warehouse, now: datetime) -> dict[str, int]:
    return {"tables_dropped": warehouse.commit(lambda tx: _expire_rows(tx, spec, now))}


def _expire_rows(tx: Transaction, spec: DatabaseSpec, now: datetime) -> int:
    """Expire row text and partitions; how many emptied tables were dropped."""
    retention = spec.entry.retention
    tables = tx.tables(spec.dataset)
    if control.ERRORS.name in tables:
        oldest_text = (now - timedelta(days=retention.row_text_days)).date()
        tx.blank_before(spec.dataset, control.ERRORS.name, "row_text", "partition", oldest_text)
    if retention.lake_days is None or control.METADATA.name not in tables:
        return 0
    oldest = (now - timedelta(days=retention.lake_days)).date()
    newest = _newest_days(tx, spec)
    dropped = 0
    for name in (name for name, partitioned in tables.items() if partitioned):
        # a silent source must not empty its latest view: the newest partition stays
        first = min(oldest, newest.get(fold(name), oldest))
        tx.delete_before(spec.dataset, name, PARTITION_COLUMN, first)
        is_aside = fold(name) not in newest and _SET_ASIDE.fullmatch(name)
        if is_aside and not tx.days(spec.dataset, name):
            tx.drop_table(spec.dataset, name)
            dropped += 1
    return dropped


def _newest_days(tx: Transaction, spec: DatabaseSpec) -> dict[bytes, date]:
    """The newest published day of each table of the catalog, and of those made from it beside it,
    by the folded name of its table.
    """
    names = [name for table in spec.tables for name in (table.name, *table.derived_names)]
    mirrored = {name: fold(spec.storage_name(name)) for name in names}
    newest = dict.fromkeys(mirrored.values(), date.min)  # never published: kept whole
    columns = ("TABLE_NAME", "partition")
    published = tx.select(spec.dataset, control.METADATA.name, columns, published=True)
    for row in sorted(published, key=lambda row: row["partition"]):
        if row["TABLE_NAME"] in mirrored:
            newest[mirrored[row["TABLE_NAME"]]] = row["partition"]
    return newest
