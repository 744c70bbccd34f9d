"""How old the newest whole day is, whether today's refresh came, and what the catalog misses."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from croniter import croniter

from mirror_assets.mirroring import control, coverage, records, refresh
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse


@dataclass(frozen=True)
class SourceView:
    """What the source's catalogue says about our catalog and its own refresh."""

    catalog_complete: bool
    sentence: str
    refresh_instant: datetime | None = None
    reachable: bool = True
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def unreachable(cls, sentence: str) -> SourceView:
        return cls(False, f"the source could not be asked: {sentence}", None, False)


@dataclass(frozen=True)
class Freshness:
    """The verdict on a database's newest whole day."""

    fresh: bool
    sentence: str
    facts: dict[str, Any]


def look_at_source(spec: DatabaseSpec, source: Source, now: datetime) -> SourceView:
    """Compare the catalog with the source: tables that are gone, that nobody mirrors, that were
    altered alone.
    """
    state = refresh.current(spec, source.states(), now)
    is_vendor = spec.entry.refresh.rule == "vendor"
    altered = state.altered if is_vendor else ()
    is_settled = not is_vendor or state.instant is not None  # during a rebuild some are not there
    missing = state.missing if is_settled else ()
    parts = []
    if missing:
        parts.append(
            f"{len(missing)} catalogued tables are not at the source: {', '.join(missing)}."
            " Next: ask who removed them, or take them out of the catalog"
        )
    if state.unmirrored:
        parts.append(
            f"{len(state.unmirrored)} tables are neither mirrored nor excluded:"
            f" {', '.join(state.unmirrored)}. Next: add them to the catalog, or to its exclude list"
        )
    if altered:
        parts.append(f"altered alone since the refresh: {', '.join(altered)}; expect drift")
    return SourceView(
        catalog_complete=not parts,
        sentence="; ".join(parts) or "every table is mirrored or excluded on purpose",
        refresh_instant=state.instant if is_vendor else None,
        facts={
            "tables_unmirrored": len(state.unmirrored),
            "tables_altered": len(altered),
            "tables_missing": len(missing),
            "refresh_state": state.reason if is_vendor else "live database",
            "source_refresh": state.instant if is_vendor else None,
        },
    )


def freshness(
    spec: DatabaseSpec, warehouse: Warehouse, source: SourceView, now: datetime
) -> Freshness:
    """Judge the newest whole day, and append one row to each of the age and freshness SLIs."""
    return records.commit(warehouse, spec, lambda tx: _freshness(tx, spec, source, now))


def _freshness(tx: Transaction, spec: DatabaseSpec, source: SourceView, now: datetime) -> Freshness:
    said = tx.select(
        spec.dataset,
        control.COMPLETENESS.name,
        (
            "partition",
            "complete",
            "refreshed_at",
            "missing_tables",
            "oldest_snapshot_at",
            "updated_at",
        ),
    )
    days = control.last_said(said)
    whole = [row for row in days if row["complete"]]
    newest = max(whole, key=lambda row: row["partition"], default=None)
    instant = (newest["refreshed_at"] or newest["oldest_snapshot_at"]) if newest else None
    hours = coverage.age(now, instant)
    _write_slis(tx, spec, now, hours)
    reasons = [
        *_age_reasons(spec, newest, hours),
        *_refresh_reasons(spec, source, now),
    ]
    latest = max(days, key=lambda row: row["partition"], default=None)
    missing = latest["missing_tables"] if latest and not latest["complete"] else None
    good = f"the newest whole day is {newest['partition']}, {hours} hours old" if newest else ""
    sentence = "; ".join(reasons) or good
    if latest and missing:
        sentence += f"; {latest['partition']} still misses {missing}"
    return Freshness(
        fresh=not reasons,
        sentence=sentence,
        facts={
            "newest_whole_day": newest["partition"] if newest else None,
            "age_hours": hours,
            "allowed_hours": spec.entry.freshness_hours,
            "source_refresh": source.refresh_instant,
            "missing_tables": missing,
        },
    )


def _age_reasons(
    spec: DatabaseSpec, newest: dict[str, Any] | None, hours: float | None
) -> list[str]:
    if newest is None or hours is None:
        return [f"no day of {spec.name} is whole yet. Next: materialize today's partition"]
    if hours <= spec.entry.freshness_hours:
        return []
    return [
        f"the newest whole day, {newest['partition']}, is {hours} hours old;"
        f" {spec.entry.freshness_hours:g} are allowed. Next: look at the newest run of"
        f" {spec.name}_mirror"
    ]


def _refresh_reasons(spec: DatabaseSpec, source: SourceView, now: datetime) -> list[str]:
    """Whether a vendor's refresh of today is overdue."""
    if spec.entry.refresh.rule != "vendor" or not source.reachable:
        return []
    due = max(croniter(cron, now).get_prev(datetime) for cron in spec.entry.refresh.cron)
    landed = source.refresh_instant
    if landed is not None and landed.date() >= due.date():
        return []
    since = f"the last one is of {landed:%Y-%m-%d %H:%M} UTC" if landed else "none is to be seen"
    contact = spec.entry.vendor_contact
    return [
        f"stale refresh: none landed on {due.date()} by {due:%H:%M} UTC, {since}."
        f" Next: ask the vendor{f' ({contact})' if contact else ''}"
    ]


def _write_slis(tx: Transaction, spec: DatabaseSpec, now: datetime, hours: float | None) -> None:
    stamp = now.astimezone(UTC).replace(tzinfo=None)
    published = tx.select(
        spec.dataset,
        control.METADATA.name,
        ("TABLE_NAME", "BQ_LOAD_TIME", "recorded_at", "yielded", "published"),
    )
    mirrored = {table.name for table in spec.tables}
    newest = control.newest_attempts(
        [row for row in published if row["published"] and row["TABLE_NAME"] in mirrored]
    )
    mean = coverage.freshness(now, [row["BQ_LOAD_TIME"] for row in newest.values()])
    age_row = {"updated_time": stamp, "hours_since_last_update": hours}
    freshness_row = {"updated_time": stamp, "average_age": mean, "gcs_url": None}
    sli = control.SLI_DATASET
    for table, row in (
        (control.age_table(spec.name), age_row),
        (control.freshness_table(spec.name), freshness_row),
    ):
        tx.replace_rows(sli, table.name, [row], updated_time=stamp)
