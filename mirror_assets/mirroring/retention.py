"""Deleting what the catalogs say has expired, so that deleted data is really gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.names import PARTITION_COLUMN
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse


def expire(
    databases: Sequence[DatabaseSpec], landing: Landing, warehouse: Warehouse, *, now: datetime
) -> dict[str, int]:
    """Expire exports, partitions, kept row text and snapshots of every database; what was done."""
    exports = 0
    for spec in databases:
        if days := spec.entry.retention.landing_days:
            exports += len(landing.expire(spec.name, (now - timedelta(days=days)).date()))
        warehouse.commit(lambda tx, spec=spec: _expire_rows(tx, spec, now))  # type: ignore[misc]
    travel = max((spec.entry.retention.time_travel_days for spec in databases), default=7)
    return {"exports_deleted": exports, **warehouse.maintain(time_travel_days=travel)}


def _expire_rows(tx: Transaction, spec: DatabaseSpec, now: datetime) -> None:
    retention = spec.entry.retention
    if tx.schema(spec.dataset, control.ERRORS.name) is not None:
        oldest_text = (now - timedelta(days=retention.row_text_days)).date()
        tx.blank_before(spec.dataset, control.ERRORS.name, "row_text", "partition", oldest_text)
    if retention.lake_days is None:
        return
    oldest = (now - timedelta(days=retention.lake_days)).date()
    # a silent source must not empty its latest view: the newest partition stays
    newest: dict[str, date] = {}
    if tx.schema(spec.dataset, control.METADATA.name) is not None:
        columns = ("TABLE_NAME", "partition")
        for row in tx.select(spec.dataset, control.METADATA.name, columns, published=True):
            name = spec.storage_name(row["TABLE_NAME"])
            newest[name] = max(row["partition"], newest.get(name, row["partition"]))
    for table in spec.tables:
        name = spec.storage_name(table.name)
        if name in newest and tx.schema(spec.dataset, name) is not None:
            tx.delete_before(spec.dataset, name, PARTITION_COLUMN, min(oldest, newest[name]))
