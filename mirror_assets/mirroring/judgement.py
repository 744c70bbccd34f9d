"""Whether a staged table may be published: enough rows, and no older state over a newer one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from mirror_assets.mirroring import control, coverage
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.errors import CoverageTooLow, MirrorError, StaleRefresh, VolumeDropped
from mirror_assets.mirroring.landing import Manifest
from mirror_assets.mirroring.records import content
from mirror_assets.mirroring.staged import Context, Staged
from mirror_assets.mirroring.warehouses.base import Transaction


def coverage_fault(item: Staged, partition: date) -> MirrorError | None:
    allowed = item.table.allowed_rejects(partition)
    covered = coverage.allowed_coverage(item.loaded, item.rejected, allowed)
    if covered >= item.table.coverage:
        return None
    return CoverageTooLow(
        f"{item.rejected} of {item.loaded + item.rejected} rows were rejected,"
        f" {allowed} are allowed",
        where=f"{item.table.database}/{item.table.name}",
        remedy=f"see `mirror errors {item.table.database} --partition {partition}`; have the rows"
        " mended at the source, or allow them in the catalog (bad_records_allowed)",
    )


def refuse_stale(
    tx: Transaction,
    context: Context,
    item: Staged,
    manifest: Manifest,
    history: Sequence[Row],
) -> None:
    """A later refresh wins; of one refresh the later reading, because a table may have been altered
    alone between two. Where both found the same, as in two runs at once, either may be published.
    """
    mine = (manifest.refreshed_at or manifest.snapshot_at, manifest.snapshot_at)
    held = [
        (row["refreshed_at"] or row["snapshot_at"], row["snapshot_at"])
        for row in history
        if row["partition"] == context.partition and row["snapshot_at"] is not None
    ]
    newest = max(held, default=mine)
    part = 0 if newest[0] > mine[0] else 1
    if newest <= mine or (part == 1 and _found_the_same(tx, context, item, newest[1])):
        return
    raise StaleRefresh(
        f"the partition already holds a newer state, of {newest[part]:%Y-%m-%d %H:%M:%S} UTC;"
        f" this one is of {mine[part]:%Y-%m-%d %H:%M:%S} UTC",
        remedy="nothing to do: readers have the newer state",
    )


def _found_the_same(tx: Transaction, context: Context, item: Staged, snapshot_at: datetime) -> bool:
    """Whether another reading of the partition, at an instant, found just what this one did."""
    mine = content(item)
    rows = tx.select(
        *(context.spec.dataset, control.METADATA.name, tuple(mine)),
        TABLE_NAME=item.table.name,
        partition=context.partition,
        published=True,
        snapshot_at=snapshot_at,
    )
    return bool(rows) and all(row == mine for row in rows)


def refuse_shrunk(item: Staged, history: Sequence[Row], context: Context) -> None:
    if item.manifest is None or item.table.name in context.accept_volume:
        return
    mine = item.manifest.refreshed_at or item.manifest.snapshot_at
    earlier = [row for row in history if (row["refreshed_at"] or row["snapshot_at"]) < mine]
    if not earlier:
        return
    previous = max(earlier, key=lambda row: row["refreshed_at"] or row["snapshot_at"])
    if item.manifest.source_rows >= item.table.volume * previous["TABLE_ROWS"]:
        return
    raise VolumeDropped(
        f"the source has {item.manifest.source_rows} rows, {previous['partition']} had"
        f" {previous['TABLE_ROWS']}",
        remedy="check the source; if it is right, run again with the run tag"
        f" mirror/accept_volume={item.table.name}, or set the table's `volume` in the catalog",
    )
