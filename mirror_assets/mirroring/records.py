"""What the mirror writes down about its attempts, in the transaction that publishes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import duckdb

from mirror_assets.mirroring import control, coverage
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.errors import StaleRefresh
from mirror_assets.mirroring.evolution import as_published
from mirror_assets.mirroring.schema import Drift, compare
from mirror_assets.mirroring.staged import Context, Outcome, Staged
from mirror_assets.mirroring.typed import SENTENCES
from mirror_assets.mirroring.warehouses.base import Nearest, Transaction, Warehouse

T = TypeVar("T")

#: Views of older days dropped per publication: usually one is due, a few more catch up.
SHARDS_DROPPED = 5
HISTORY = (
    "TABLE_NAME",
    "partition",
    "run_id",
    "published",
    "refreshed_at",
    "snapshot_at",
    "TABLE_ROWS",
    "loaded_rows",
    "rejected_rows",
    "BQ_LOAD_TIME",
    "recorded_at",
    "yielded",
    "primary_key",
    "columns",
)
#: The least difference between two instants.
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Before:
    """What MIRROR_METADATA says before a publication: each table's earlier successful ones, of this
    partition and the nearest others, and all attempts at this one.
    """

    published: dict[str, list[Row]]
    attempts: list[Row]


def read_before(tx: Transaction, context: Context, tables: Sequence[str]) -> Before:
    """One query, because the embedded warehouse looks through its whole list of files for each; of
    few rows, because they would grow with the lake's age.
    """
    entry = context.spec.entry
    days = 2  # this one and the one before it, and the newest: a day is that of its instant
    if entry.layout == "sharded":
        days += entry.shard_views + SHARDS_DROPPED
    rows = tx.select(
        *(context.spec.dataset, control.METADATA.name, HISTORY),
        {"TABLE_NAME": tables, "published": True},
        {"partition": context.partition},
        nearest=Nearest("partition", context.partition, ("TABLE_NAME", "published"), days),
    )
    published: dict[str, list[Row]] = {name: [] for name in tables}
    for row in rows:
        if row["published"] and row["TABLE_NAME"] in published:
            published[row["TABLE_NAME"]].append(row)
    return Before(published, [row for row in rows if row["partition"] == context.partition])


def commit(warehouse: Warehouse, spec: DatabaseSpec, body: Callable[[Transaction], T]) -> T:
    """Run a body that writes into the mirror's own tables.

    What is missing of these is committed by itself: a lake keeps rows in its catalog, and out of
    files, only of tables that are there.
    """

    def prepared(tx: Transaction) -> tuple[T] | None:
        return None if _ensure_control_tables(tx, spec) else (body(tx),)

    done = warehouse.commit(prepared) or warehouse.commit(prepared)
    assert done is not None, "control tables were made twice"
    return done[0]


def _ensure_control_tables(tx: Transaction, spec: DatabaseSpec) -> bool:
    """Create what is missing of the mirror's own tables, columns and latest views."""
    changed = [_ensure(tx, spec.dataset, table) for table in control.DATASET_TABLES]
    slis = [_ensure(tx, control.SLI_DATASET, table) for table in control.sli_tables(spec.name)]
    if any(changed):
        for view, statement in control.views(spec.dataset).items():
            tx.view(spec.dataset, view, statement)
    return any([*changed, *slis])


def _ensure(tx: Transaction, dataset: str, table: control.ControlTable) -> bool:
    """Create a control table, or add the columns that a newer version writes."""
    known = tx.schema(dataset, table.name)
    if known is None:
        tx.create_table(dataset, table.name, table.schema, partitioned=False)
        if table.once is not None:
            _move_rows(tx, dataset, table.once, table)
        return True
    added = Drift(tuple(c for c in compare(known, table.schema).changes if c.change == "added"))
    tx.evolve(dataset, table.name, table.schema, added)
    return bool(added)


def _move_rows(tx: Transaction, dataset: str, old: str, new: control.ControlTable) -> None:
    """What an older version wrote, from the name that is a view's now.

    Not by renaming: DuckLake's catalog breaks where a table is renamed and altered together.
    """
    known = tx.schema(dataset, old)
    if known is None:
        return
    columns = [column.name for column in known.columns]
    tx.replace_rows(dataset, new.name, tx.select(dataset, old, columns))
    tx.drop_table(dataset, old)


def record(
    tx: Transaction,
    context: Context,
    outcomes: Sequence[tuple[Staged, Outcome]],
    attempts: Sequence[Row],
    now: datetime,
) -> None:
    """Write the control rows of these tables, and the day's completeness and coverage anew.

    ``attempts`` are the day's before; what they show not to be there is not looked for. Whatever
    the clocks of several machines say, what is written last is recorded last.
    """
    recorded = [row["recorded_at"] for row in attempts if row["recorded_at"] is not None]
    now = max([now, *(instant + _TICK for instant in recorded)])
    dataset = context.spec.dataset
    metadata = [_metadata_row(context, item, outcome, now) for item, outcome in outcomes]
    errors = [row for item, outcome in outcomes for row in _error_rows(context, item, outcome)]
    tables = {item.table.name for item, _outcome in outcomes}
    mine = [r for r in attempts if r["run_id"] == context.run_id and r["TABLE_NAME"] in tables]
    if mine:
        same = {"run_id": context.run_id, "partition": context.partition}
        repeated = sorted(row["TABLE_NAME"] for row in mine)
        tx.replace_rows(dataset, control.METADATA.name, [], TABLE_NAME=repeated, **same)
        tx.replace_rows(dataset, control.ERRORS.name, [], table=repeated, **same)
    tx.replace_rows(dataset, control.METADATA.name, metadata)
    tx.replace_rows(dataset, control.ERRORS.name, errors)
    if context.spec.entry.layout == "sharded":
        tx.view(dataset, *control.errors_shard(dataset, context.partition))

    after = [row for row in attempts if row not in mine] + metadata
    day, run_id = context.partition, context.run_id
    complete = control.completeness_row(context.spec, day, after, run_id=run_id, now=now)
    tx.replace_rows(dataset, control.COMPLETENESS.name, [complete])
    _record_coverage(tx, context, attempts, after, now)


def _record_coverage(
    tx: Transaction, context: Context, before: Sequence[Row], after: Sequence[Row], now: datetime
) -> None:
    """The run's one coverage row, rewritten when another chunk of it changes the figure."""
    run_id = context.run_id
    mirrored = {table.name for table in context.spec.tables}
    before, after = (
        [row for row in rows if row["TABLE_NAME"] in mirrored] for rows in (before, after)
    )
    has_row = any(row["run_id"] == run_id for row in before)
    was, is_now = (
        control.coverage_row(rows, context.partition, run_id=run_id, now=now)
        for rows in (before, after)
    )
    if has_row and was == is_now:
        return
    table = control.coverage_table(context.spec.name).name
    earlier = {"run_id": run_id} if has_row else {}
    tx.replace_rows(control.SLI_DATASET, table, [is_now], **earlier)


def _metadata_row(context: Context, item: Staged, outcome: Outcome, now: datetime) -> Row:
    manifest = item.manifest
    info = manifest.source_info if manifest else {}
    return {
        "TABLE_NAME": item.table.name,
        "CREATE_TIME": _naive(info.get("create_time")),
        "UPDATE_TIME": _naive(info.get("update_time")),
        "DB_TIMEZONE": info.get("db_timezone") or "UTC",
        "TABLE_SIZE_MB": int(info.get("size_mb") or 0),
        "BQ_LOAD_TIME": context.load_time,
        "BQ_PARTITION": f"{context.partition:%Y%m%d}",
        "partition": context.partition,
        "run_id": context.run_id,
        "published": outcome.error is None,
        "refreshed_at": manifest.refreshed_at if manifest else None,
        "snapshot_at": manifest.snapshot_at if manifest else None,
        "snapshot": manifest.isolation if manifest else None,
        "loaded_rows": item.loaded,
        "rejected_rows": item.rejected,
        "coverage": coverage.coverage(item.loaded, item.rejected),
        "zero_dates_nulled": item.zero_dates_nulled,
        "misfits_nulled": item.misfits_nulled.total(),
        "misfit_columns": json.dumps(item.misfits_nulled) if item.misfits_nulled else None,
        "drift": str(outcome.drift) if outcome.drift else None,
        "seconds": round(item.seconds, 3),
        "bytes": manifest.bytes if manifest else 0,
        "export": item.export or None,
        "recorded_at": now,
        "yielded": isinstance(outcome.error, StaleRefresh),
        **content(item),
    }


def content(item: Staged) -> Row:
    """What a reading of a table found: its columns, its rows in number and in digests."""
    manifest = item.manifest
    digests = {name: (d.present, d.hashes) for name, d in item.digests.items()}
    return {
        "TABLE_ROWS": manifest.source_rows if manifest else 0,
        "digests": control.digests_json(digests, f"duckdb {duckdb.__version__}"),
        **control.declared_json(as_published(manifest.schema) if manifest else None),
    }


def _error_rows(context: Context, item: Staged, outcome: Outcome) -> list[Row]:
    """The MIRROR_ERRORS rows of a table: its rejected rows, how many are not listed, its fault."""
    row = partial(
        control.error_row,
        table=item.table.name,
        load_time=context.load_time,
        partition=context.partition,
        run_id=context.run_id,
    )
    width = len(item.manifest.schema.columns) if item.manifest else 0
    rows = [
        row(
            error=f"{reject.column}: {SENTENCES[reject.kind].format(columns=width)}",
            resource="BQ",
            kind=reject.kind,
            file=reject.file,
            row_number=reject.row_number,
            column=reject.column,
            row_text=reject.text,
            row_key=reject.key,
        )
        for reject in item.rejects
    ]
    unlisted = item.rejected - len(item.rejects)
    if unlisted > 0:
        more = f"{unlisted} more rows: {SENTENCES['unlisted']}"
        rows.append(row(error=more, resource="BQ", kind="unlisted"))
    fault = outcome.error
    if fault is not None:
        rows.append(row(error=fault.sentence, resource=fault.resource, kind=fault.kind))
    return rows


def _naive(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
