"""Judging and publishing staged tables: all good tables of a chunk become visible at once.

One transaction replaces their partitions, moves their latest views and writes the control rows of
all tables, the failed ones too. A table that cannot be published is recorded and left as it was.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import duckdb

from mirror_assets.mirroring import control, coverage
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.errors import (
    CoverageTooLow,
    DriftRefused,
    MirrorError,
    RowsUnaccounted,
    StaleRefresh,
    VolumeDropped,
    at_edge,
)
from mirror_assets.mirroring.landing import Manifest
from mirror_assets.mirroring.names import warehouse_name
from mirror_assets.mirroring.schema import Column, Drift, TableSchema, compare, fold
from mirror_assets.mirroring.typed import SENTENCES, ColumnDigest, LoadedPart, Reject
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse

_log = logging.getLogger(__name__)
#: Views of older days dropped per publication: usually one is due, a few more catch up.
_SHARDS_DROPPED = 5
_HISTORY = (
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
)


@dataclass
class Staged:
    """One table, copied and typed, waiting to be published; or the reason why it cannot be."""

    table: TableSpec
    folder: Path | None
    replayed: bool = False
    error: MirrorError | None = None
    manifest: Manifest | None = None
    files: tuple[Path, ...] = ()
    loaded: int = 0
    rejected: int = 0
    rejects: tuple[Reject, ...] = ()
    zero_dates_nulled: int = 0
    misfits_nulled: Counter[str] = field(default_factory=Counter)
    digests: dict[str, ColumnDigest] = field(default_factory=dict)
    export: str = ""
    seconds: float = 0.0
    settled: bool = False

    def complete(self, manifest: Manifest, parts: Sequence[LoadedPart], export: str) -> None:
        """Fill in what the export and the typed load gave. Raises RowsUnaccounted."""
        self.manifest = manifest
        self.export = export
        self.files = tuple(part.parquet for part in parts if part.parquet is not None)
        self.loaded = sum(part.rows for part in parts)
        self.rejected = sum(part.rejected for part in parts)
        self.rejects = tuple(reject for part in parts for reject in part.rejects)
        self.zero_dates_nulled = sum(part.zero_dates_nulled for part in parts)
        for part in parts:
            self.misfits_nulled.update(part.misfits_nulled)
        for part in parts:
            for column, digest in part.digests.items():
                self.digests[column] = self.digests.get(column, ColumnDigest(0, 0)) + digest
        if self.loaded + self.rejected != manifest.source_rows:
            raise RowsUnaccounted(
                f"{manifest.source_rows} source rows, but {self.loaded} loaded and"
                f" {self.rejected} rejected",
                remedy="nothing was published; run the partition again",
            )


@dataclass(frozen=True)
class TableReport:
    """The outcome for one table and partition. Rows, bytes and seconds are plain numbers."""

    database: str
    table: TableSpec
    partition: date
    run_id: str
    published: bool
    replayed: bool
    source_rows: int
    loaded: int
    rejected: int
    allowed: int
    zero_dates_nulled: int
    coverage: float | None
    drift: str
    bytes: int
    seconds: float
    refreshed_at: datetime | None
    snapshot_at: datetime | None
    export: str
    schema: TableSchema | None
    reject_kinds: dict[str, int]
    error: MirrorError | None
    misfits_nulled: int = 0
    set_aside: str = ""


@dataclass(frozen=True)
class _Context:
    spec: DatabaseSpec
    partition: date
    run_id: str
    load_time: datetime
    accept_volume: frozenset[str]


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
    table does not hold back the others.
    """
    context = _Context(spec, partition, run_id, load_time, accept_volume)
    for item in staged:
        if item.error is None:
            item.error = _coverage_fault(item, partition)
    try:
        outcomes = warehouse.commit(lambda tx: _publish_all(tx, context, staged, clock()))
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


@dataclass(frozen=True)
class _Outcome:
    drift: Drift
    error: MirrorError | None


def _record_fault(
    warehouse: Warehouse, context: _Context, item: Staged, error: MirrorError, now: datetime
) -> _Outcome:
    """Record a table that the warehouse refused; if even that fails, the report still tells."""
    outcome = _Outcome(Drift(), error)
    try:
        warehouse.commit(lambda tx: _record(tx, context, [(item, outcome)], now))
    except Exception as second:
        _log.error("%s; and MIRROR_ERRORS was not written: %s", error, at_edge(second))
    return outcome


def _publish_all(
    tx: Transaction, context: _Context, staged: Sequence[Staged], now: datetime
) -> list[_Outcome]:
    ensure_control_tables(tx, context.spec)
    history = _history(tx, context, [item.table.name for item in staged])
    before = _declared_before(tx, context, history)
    outcomes = [
        _publish_one(tx, context, item, history[item.table.name], before.get(item.table.name))
        for item in staged
    ]
    _record(tx, context, list(zip(staged, outcomes, strict=True)), now)
    return outcomes


def _publish_one(
    tx: Transaction,
    context: _Context,
    item: Staged,
    history: Sequence[Row],
    before: TableSchema | None,
) -> _Outcome:
    if item.error is not None or item.manifest is None:
        return _Outcome(Drift(), item.error)
    table = context.spec.storage_name(item.table.name)
    source = as_published(item.manifest.schema)
    drift = Drift()
    try:
        _refuse_stale(tx, context, item, item.manifest, history)
        _refuse_shrunk(item, history, context)
        drift = _drift(tx, context, table, source, history, before)
        drift = _follow(tx, context, item.table, source, drift, history)
    except MirrorError as error:
        return _Outcome(drift, at_edge(error, f"{context.spec.name}/{item.table.name}"))
    tx.replace_partition(context.spec.dataset, table, context.partition, item.files)
    newest = max([row["partition"] for row in history] + [context.partition])
    tx.latest_view(context.spec.dataset, context.spec.view_name(item.table.name), table, newest)
    if context.spec.entry.layout == "sharded":
        _shard_views(tx, context, item.table, table, history)
    return _Outcome(drift, None)


def _shard_views(
    tx: Transaction,
    context: _Context,
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
    for old in days[first : first + _SHARDS_DROPPED]:
        tx.drop_view(spec.dataset, spec.shard_name(table.name, old))


def _history(tx: Transaction, context: _Context, tables: Sequence[str]) -> dict[str, list[Row]]:
    """Earlier successful publications of each table, all partitions."""
    found: dict[str, list[Row]] = {name: [] for name in tables}
    rows = tx.select(
        context.spec.dataset,
        control.METADATA.name,
        _HISTORY,
        TABLE_NAME=list(tables),
        published=True,
    )
    for row in rows:
        found[row["TABLE_NAME"]].append(row)
    return found


# -- judgements


def _coverage_fault(item: Staged, partition: date) -> MirrorError | None:
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


def _refuse_stale(
    tx: Transaction,
    context: _Context,
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


def _found_the_same(
    tx: Transaction, context: _Context, item: Staged, snapshot_at: datetime
) -> bool:
    """Whether another reading of the partition, at an instant, found just what this one did."""
    mine = _content(item)
    rows = tx.select(
        *(context.spec.dataset, control.METADATA.name, tuple(mine)),
        TABLE_NAME=item.table.name,
        partition=context.partition,
        published=True,
        snapshot_at=snapshot_at,
    )
    return bool(rows) and all(row == mine for row in rows)


def _refuse_shrunk(item: Staged, history: Sequence[Row], context: _Context) -> None:
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


def _declared_before(
    tx: Transaction, context: _Context, history: dict[str, list[Row]]
) -> dict[str, TableSchema | None]:
    """What the source declared for each table when it was last published, up to this day."""
    newest = {
        name: max(earlier, key=lambda row: (row["partition"], control.recorded(row)))
        for name, rows in history.items()
        if (earlier := [row for row in rows if row["partition"] <= context.partition])
    }
    if not newest:
        return {}
    columns = ("TABLE_NAME", "partition", "run_id", "primary_key", "columns")
    rows = tx.select(
        *(context.spec.dataset, control.METADATA.name, columns),
        TABLE_NAME=list(newest),
        partition=sorted({row["partition"] for row in newest.values()}),
        run_id=sorted({row["run_id"] for row in newest.values()}),
        published=True,
    )
    mark = ("partition", "run_id")
    return {
        row["TABLE_NAME"]: control.declared(row)
        for row in rows
        if all(row[name] == newest[row["TABLE_NAME"]][name] for name in mark)
    }


def _drift(
    tx: Transaction,
    context: _Context,
    table: str,
    source: TableSchema,
    history: Sequence[Row],
    before: TableSchema | None,
) -> Drift:
    """What the warehouse table must follow to hold the source's columns."""
    known = tx.schema(context.spec.dataset, table)
    if known is None:
        return Drift()
    drift = compare(known, source, before)
    return _of_replay(drift, known) if _is_replay(context, history) else drift


def _is_replay(context: _Context, history: Sequence[Row]) -> bool:
    """Whether a later partition is already published."""
    return any(row["partition"] > context.partition for row in history)


def _follow(
    tx: Transaction,
    context: _Context,
    spec: TableSpec,
    source: TableSchema,
    drift: Drift,
    history: Sequence[Row],
) -> Drift:
    """Create or evolve the warehouse table, or set it aside. Raises DriftRefused."""
    dataset, table = context.spec.dataset, context.spec.storage_name(spec.name)
    if tx.schema(dataset, table) is None:
        tx.create_table(dataset, table, source, partitioned=True)
        return drift
    if _is_replay(context, history):
        _refuse_turning_back(drift, table)
    outcome = drift.outcome(spec.breaking_drift)
    if outcome == "refuses":
        raise DriftRefused(f"the schema changed: {drift.broken}", remedy=refusal(spec, table))
    if outcome == "follows":
        tx.evolve(dataset, table, source, drift)
        return drift
    name = _free_name(tx, dataset, table)
    _refuse_miscounted(tx, dataset, table, name, drift, history)
    tx.rename(dataset, table, name)
    tx.create_table(dataset, table, source, partitioned=True)
    return Drift(drift.changes, set_aside=name)


def refusal(spec: TableSpec, table: str) -> str:
    """What to do about a breaking change that the catalog's policy refuses."""
    return (
        f"set breaking_drift: deprecate for {spec.name} (history moves to {table}_depr_<n>), or"
        " have the change undone at the source"
    )


def _refuse_turning_back(drift: Drift, table: str) -> None:
    """Following an older export would bring back what later days have dropped, or make the table
    one that cannot take the next day.
    """
    if drift.breaking or any(change.change in ("added", "widened") for change in drift.changes):
        raise DriftRefused(
            f"the export differs from the table: {drift}",
            remedy="nothing to do: the table follows later days, and this day stands as it was"
            f" published, in {table} or {table}_depr_<n>",
        )


def _free_name(tx: Transaction, dataset: str, table: str) -> str:
    """The name for a table set aside: numbers go up, also when an older one was dropped."""
    stem = fold(f"{table}_depr_")
    tails = [fold(name).removeprefix(stem) for name in tx.tables(dataset)]
    return f"{table}_depr_{max((int(tail) for tail in tails if tail.isdigit()), default=0) + 1}"


def _refuse_miscounted(
    tx: Transaction, dataset: str, table: str, name: str, drift: Drift, history: Sequence[Row]
) -> None:
    """A table is only set aside while it holds, day by day, the rows recorded as loaded.

    Days before its oldest have expired, or were set aside earlier.
    """
    loaded = {row["partition"]: row["loaded_rows"] for row in sorted(history, key=control.recorded)}
    held = tx.days(dataset, table)
    wrong = [day for day, rows in held.items() if loaded.get(day) != rows]
    oldest = min(held, default=max(loaded, default=date.max))
    lost = {day for day, rows in loaded.items() if rows and day >= oldest and day not in held}
    if lost:
        stem = name.rpartition("_")[0]
        aside = [other for other in tx.tables(dataset) if fold(other).startswith(fold(stem))]
        lost -= {day for other in aside for day in tx.days(dataset, other)}
    if not wrong and not lost:
        return
    day = min([*wrong, *lost])
    raise DriftRefused(
        f"the schema changed: {drift.broken}; but its history cannot be set aside: {day} holds"
        f" {held.get(day, 0)} rows, {loaded.get(day, 0)} were recorded as loaded",
        remedy=f"find out who changed {dataset}.{table}; replay the day, or rename the table to"
        f" {name} by hand; then run the partition again",
    )


def as_published(schema: TableSchema) -> TableSchema:
    """A source's schema under the warehouse's names."""
    columns = (
        Column(warehouse_name(c.name), c.source_type, c.type, c.required, c.encoding)
        for c in schema.columns
    )
    return TableSchema(tuple(columns), schema.primary_key)


def _of_replay(drift: Drift, known: TableSchema) -> Drift:
    """A replayed older export may lack columns that came later: they are NULL in its rows. Its
    columns go into those of the same name, whatever their case is now.
    """
    kept = (
        change
        for change in drift.changes
        if change.change != "recased"
        and (change.change != "removed" or known.column(change.column).required)
    )
    return Drift(tuple(kept))


# -- records


def ensure_control_tables(tx: Transaction, spec: DatabaseSpec) -> None:
    """Create what is missing of the mirror's own tables, columns and latest views."""
    tables = [(spec.dataset, table) for table in control.DATASET_TABLES]
    changed = [_ensure(tx, dataset, table) for dataset, table in tables]
    for table in control.sli_tables(spec.name):
        _ensure(tx, control.SLI_DATASET, table)
    if any(changed):
        for view, statement in control.latest_views(spec.dataset).items():
            tx.view(spec.dataset, view, statement)


def _ensure(tx: Transaction, dataset: str, table: control.ControlTable) -> bool:
    """Create a control table, or add the columns that a newer version writes."""
    known = tx.schema(dataset, table.name)
    if known is None:
        tx.create_table(dataset, table.name, table.schema, partitioned=False)
        return True
    added = Drift(tuple(c for c in compare(known, table.schema).changes if c.change == "added"))
    tx.evolve(dataset, table.name, table.schema, added)
    return bool(added)


def _record(
    tx: Transaction,
    context: _Context,
    outcomes: Sequence[tuple[Staged, _Outcome]],
    now: datetime,
) -> None:
    ensure_control_tables(tx, context.spec)
    dataset = context.spec.dataset
    metadata = [_metadata_row(context, item, outcome, now) for item, outcome in outcomes]
    errors = [row for item, outcome in outcomes for row in _error_rows(context, item, outcome)]
    attempts = tx.select(dataset, control.METADATA.name, _HISTORY, partition=context.partition)
    tables = {item.table.name for item, _outcome in outcomes}
    mine = [r for r in attempts if r["run_id"] == context.run_id and r["TABLE_NAME"] in tables]
    if mine:  # else there is nothing to replace, and looking for it in a year of rows takes time
        same = {"run_id": context.run_id, "partition": context.partition}
        repeated = sorted(row["TABLE_NAME"] for row in mine)
        tx.replace_rows(dataset, control.METADATA.name, [], TABLE_NAME=repeated, **same)
        tx.replace_rows(dataset, control.ERRORS.name, [], table=repeated, **same)
    tx.replace_rows(dataset, control.METADATA.name, metadata)
    tx.replace_rows(dataset, control.ERRORS.name, errors)
    if context.spec.entry.layout == "sharded":
        tx.view(dataset, *control.errors_shard(dataset, context.partition))

    attempts = [row for row in attempts if row not in mine] + metadata
    complete = control.completeness_row(
        context.spec, context.partition, attempts, run_id=context.run_id, now=now
    )
    tx.replace_rows(dataset, control.COMPLETENESS.name, [complete], partition=context.partition)
    sli = control.coverage_row(attempts, context.partition, run_id=context.run_id, now=now)
    tx.replace_rows(
        control.SLI_DATASET,
        control.coverage_table(context.spec.name).name,
        [sli],
        run_id=context.run_id,
    )


def _metadata_row(context: _Context, item: Staged, outcome: _Outcome, now: datetime) -> Row:
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
        **_content(item),
    }


def _content(item: Staged) -> Row:
    """What a reading of a table found: its columns, its rows in number and in digests."""
    manifest = item.manifest
    digests = {name: (d.present, d.hashes) for name, d in item.digests.items()}
    return {
        "TABLE_ROWS": manifest.source_rows if manifest else 0,
        "digests": control.digests_json(digests, f"duckdb {duckdb.__version__}"),
        **control.declared_json(as_published(manifest.schema) if manifest else None),
    }


def _error_rows(context: _Context, item: Staged, outcome: _Outcome) -> list[Row]:
    rows = [_reject_row(context, item, reject) for reject in item.rejects]
    unlisted = item.rejected - len(item.rejects)
    if unlisted > 0:
        rows.append(
            control.error_row(
                table=item.table.name,
                error=f"{unlisted} more rows: {SENTENCES['unlisted']}",
                resource="BQ",
                kind="unlisted",
                load_time=context.load_time,
                partition=context.partition,
                run_id=context.run_id,
            )
        )
    if outcome.error is not None:
        rows.append(
            control.error_row(
                table=item.table.name,
                error=outcome.error.sentence,
                resource=outcome.error.resource,
                kind=outcome.error.kind,
                load_time=context.load_time,
                partition=context.partition,
                run_id=context.run_id,
            )
        )
    return rows


def _reject_row(context: _Context, item: Staged, reject: Reject) -> Row:
    return control.error_row(
        table=item.table.name,
        error=f"{reject.column}: {SENTENCES[reject.kind].format(columns=_width(item))}",
        resource="BQ",
        kind=reject.kind,
        load_time=context.load_time,
        partition=context.partition,
        run_id=context.run_id,
        file=reject.file,
        row_number=reject.row_number,
        column=reject.column,
        row_text=reject.text,
        row_key=reject.key,
    )


def _width(item: Staged) -> int:
    return len(item.manifest.schema.columns) if item.manifest else 0


def _naive(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _report(context: _Context, item: Staged, outcome: _Outcome) -> TableReport:
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


def _set_aside(context: _Context, table: TableSpec, drift: Drift) -> str:
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
