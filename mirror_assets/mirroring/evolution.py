"""How a warehouse table follows its source's schema: evolved, refused, or set aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.errors import DriftRefused
from mirror_assets.mirroring.names import warehouse_name
from mirror_assets.mirroring.schema import Column, Drift, TableSchema, compare, fold
from mirror_assets.mirroring.staged import Context
from mirror_assets.mirroring.warehouses.base import Transaction


def declared_before(
    context: Context, history: dict[str, list[Row]]
) -> dict[str, TableSchema | None]:
    """What the source declared for each table when it was last published, up to this day."""
    return {
        name: control.declared(
            max(earlier, key=lambda row: (row["partition"], control.recorded(row)))
        )
        for name, rows in history.items()
        if (earlier := [row for row in rows if row["partition"] <= context.partition])
    }


def drift_of(
    context: Context,
    held: TableSchema | None,
    source: TableSchema,
    history: Sequence[Row],
    before: TableSchema | None,
) -> Drift:
    """What the warehouse table must follow to hold the source's columns; ``held`` is what it has,
    None where there is no table yet.
    """
    if held is None:
        return Drift()
    drift = compare(held, source, before)
    return _of_replay(drift, held) if _is_replay(context, history) else drift


def _is_replay(context: Context, history: Sequence[Row]) -> bool:
    """Whether a later partition is already published."""
    return any(row["partition"] > context.partition for row in history)


def follow(
    tx: Transaction,
    context: Context,
    spec: TableSpec,
    held: TableSchema | None,
    source: TableSchema,
    drift: Drift,
    history: Sequence[Row],
) -> Drift:
    """Create or evolve the warehouse table, or set it aside. Raises DriftRefused."""
    dataset, table = context.spec.dataset, context.spec.storage_name(spec.name)
    if held is None:
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
    _refuse_miscounted(tx, dataset, table, name, drift, _loaded(tx, dataset, spec.name))
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


def _loaded(tx: Transaction, dataset: str, table: str) -> dict[date, int]:
    """The rows that were loaded for each day of a table, as recorded."""
    columns = ("partition", "loaded_rows", "recorded_at", "BQ_LOAD_TIME", "yielded")
    rows = tx.select(dataset, control.METADATA.name, columns, TABLE_NAME=table, published=True)
    return {row["partition"]: row["loaded_rows"] for row in sorted(rows, key=control.recorded)}


def _refuse_miscounted(
    tx: Transaction, dataset: str, table: str, name: str, drift: Drift, loaded: dict[date, int]
) -> None:
    """A table is only set aside while it holds, day by day, the rows recorded as loaded.

    Days before its oldest have expired, or were set aside earlier.
    """
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
