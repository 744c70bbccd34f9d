"""Publishing staged tables: all good tables of a chunk become visible at once.

One transaction replaces their partitions, moves their latest views and writes the control rows of
all tables, the failed ones too. A table that cannot be published is recorded and left as it was.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime

from mirror_assets.mirroring import coverage, evolution, judgement, records
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.errors import MirrorError, PublicationPending, at_edge
from mirror_assets.mirroring.schema import Drift, TableSchema
from mirror_assets.mirroring.staged import Context, Outcome, Staged, TableReport
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse

_log = logging.getLogger(__name__)


def publish(
    spec: DatabaseSpec,
    warehouse: Warehouse,
    staged: Sequence[Staged],
    *,
    partition: date,
    run_id: str,
    load_time: datetime,
    accept_volume: frozenset[str],
    clock: Callable[[], datetime],
) -> list[TableReport]:
    """Publish the good tables among ``staged`` together and record all of them.

    When the transaction as a whole is refused, every table gets one of its own, so that one bad
    table does not hold back the others. What is pending is neither tried again nor recorded: what
    the next writer finishes has the rows that tell of it.
    """
    context = Context(spec, partition, run_id, load_time, accept_volume)
    for item in staged:
        if item.error is None:
            item.error = judgement.coverage_fault(item, partition)
    try:
        outcomes = records.commit(
            warehouse, spec, lambda tx: _publish_all(tx, context, staged, clock())
        )
    except PublicationPending as error:
        pending = at_edge(error)
        outcomes = [Outcome(Drift(), item.error or pending) for item in staged]
    except Exception as error:
        if len(staged) == 1:
            fault = at_edge(error, f"{spec.name}/{staged[0].table.name}")
            outcomes = [_record_fault(warehouse, context, staged[0], fault, clock())]
        else:
            return [
                report
                for item in staged
                for report in publish(
                    spec,
                    warehouse,
                    [item],
                    partition=partition,
                    run_id=run_id,
                    load_time=load_time,
                    accept_volume=accept_volume,
                    clock=clock,
                )
            ]
    for item, outcome in zip(staged, outcomes, strict=True):
        item.settled = True
        if outcome.error is not None and item.folder is not None:
            warehouse.discard(item.folder)
    return [_report(context, item, outcome) for item, outcome in zip(staged, outcomes, strict=True)]


def _record_fault(
    warehouse: Warehouse, context: Context, item: Staged, error: MirrorError, now: datetime
) -> Outcome:
    """Record a table that the warehouse refused; if even that fails, the report still tells."""
    outcome = Outcome(Drift(), error)

    def body(tx: Transaction) -> None:
        before = records.read_before(tx, context, [item.table.name])
        records.record(tx, context, [(item, outcome)], before.attempts, now)

    try:
        records.commit(warehouse, context.spec, body)
    except Exception as second:
        _log.error("%s; and MIRROR_ERRORS was not written: %s", error, at_edge(second))
    return outcome


def _publish_all(
    tx: Transaction, context: Context, staged: Sequence[Staged], now: datetime
) -> list[Outcome]:
    before = records.read_before(tx, context, [item.table.name for item in staged])
    declared = evolution.declared_before(context, before.published)
    outcomes = [
        _publish_one(tx, context, item, before.published[name], declared.get(name))
        for item in staged
        for name in [item.table.name]
    ]
    records.record(tx, context, list(zip(staged, outcomes, strict=True)), before.attempts, now)
    return outcomes


def _publish_one(
    tx: Transaction,
    context: Context,
    item: Staged,
    history: Sequence[Row],
    before: TableSchema | None,
) -> Outcome:
    if item.error is not None or item.manifest is None:
        return Outcome(Drift(), item.error)
    table = context.spec.storage_name(item.table.name)
    source = evolution.as_published(item.manifest.schema)
    drift = Drift()
    try:
        judgement.refuse_stale(tx, context, item, item.manifest, history)
        judgement.refuse_shrunk(item, history, context)
        held = tx.schema(context.spec.dataset, table)
        drift = evolution.drift_of(context, held, source, history, before)
        drift = evolution.follow(tx, context, item.table, held, source, drift, history)
    except MirrorError as error:
        return Outcome(drift, at_edge(error, f"{context.spec.name}/{item.table.name}"))
    tx.replace_partition(context.spec.dataset, table, context.partition, item.files)
    newest = max([row["partition"] for row in history] + [context.partition])
    tx.latest_view(context.spec.dataset, context.spec.view_name(item.table.name), table, newest)
    if context.spec.entry.layout == "sharded":
        _shard_views(tx, context, item.table, table, history)
    return Outcome(drift, None)


def _shard_views(
    tx: Transaction,
    context: Context,
    table: TableSpec,
    storage: str,
    history: Sequence[Row],
) -> None:
    """One view per day, for the newest days of the catalog's ``shard_views``."""
    spec = context.spec
    days = sorted({row["partition"] for row in history} | {context.partition}, reverse=True)
    if context.partition in days[: spec.entry.shard_views]:
        shard = spec.shard_name(table.name, context.partition)
        tx.latest_view(spec.dataset, shard, storage, context.partition)
    first = spec.entry.shard_views
    for old in days[first : first + records.SHARDS_DROPPED]:
        tx.drop_view(spec.dataset, spec.shard_name(table.name, old))


def _report(context: Context, item: Staged, outcome: Outcome) -> TableReport:
    manifest = item.manifest
    kinds = Counter(f"{reject.column}: {reject.kind}" for reject in item.rejects)
    return TableReport(
        database=context.spec.name,
        table=item.table,
        partition=context.partition,
        run_id=context.run_id,
        published=outcome.error is None,
        replayed=item.replayed,
        source_rows=manifest.source_rows if manifest else 0,
        loaded=item.loaded,
        rejected=item.rejected,
        allowed=item.table.allowed_rejects(context.partition),
        zero_dates_nulled=item.zero_dates_nulled,
        misfits_nulled=item.misfits_nulled.total(),
        set_aside=_set_aside(context, item.table, outcome.drift),
        coverage=coverage.coverage(item.loaded, item.rejected),
        drift=str(outcome.drift),
        bytes=manifest.bytes if manifest else 0,
        seconds=item.seconds,
        refreshed_at=manifest.refreshed_at if manifest else None,
        snapshot_at=manifest.snapshot_at if manifest else None,
        export=item.export,
        schema=manifest.schema if manifest else None,
        reject_kinds=dict(kinds),
        error=outcome.error,
    )


def _set_aside(context: Context, table: TableSpec, drift: Drift) -> str:
    """What became of the history of a table that could not follow its source; mostly nothing."""
    if not drift.set_aside:
        return ""
    dataset, storage = context.spec.dataset, context.spec.storage_name(table.name)
    return (
        f"{context.spec.name}/{table.name}: the schema changed: {drift.broken}; the history of"
        f" {dataset}.{storage} is now {dataset}.{drift.set_aside}, and {storage} starts with"
        f" {context.partition}. Next: have queries over older days read {drift.set_aside}; drop"
        " it when nobody needs it"
    )
