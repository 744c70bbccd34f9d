"""The mirror's own tables: MIRROR_METADATA, MIRROR_ERRORS, MIRROR_COMPLETENESS and the SLIs.

The first columns of MIRROR_METADATA and MIRROR_ERRORS are the documented ones, in their order.
All rows are keyed by run: running again replaces a run's own rows and no others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mirror_assets.mirroring import coverage, types
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema

SLI_DATASET = "sli_metrics"
Row = dict[str, Any]


@dataclass(frozen=True)
class ControlTable:
    """A table the mirror writes for itself. ``key`` columns say which rows a write replaces."""

    name: str
    schema: TableSchema


def _columns(**declared: tuple[LogicalType, bool]) -> TableSchema:
    return TableSchema(
        tuple(Column(name, "", logical, required) for name, (logical, required) in declared.items())
    )


METADATA = ControlTable(
    "MIRROR_METADATA",
    _columns(
        TABLE_NAME=(types.STRING, True),
        CREATE_TIME=(types.DATETIME, False),
        UPDATE_TIME=(types.DATETIME, False),
        DB_TIMEZONE=(types.STRING, True),
        TABLE_SIZE_MB=(types.INT64, True),
        TABLE_ROWS=(types.INT64, True),
        BQ_LOAD_TIME=(types.TIMESTAMP, True),
        BQ_PARTITION=(types.STRING, True),
        partition=(types.DATE, True),
        run_id=(types.STRING, True),
        published=(types.BOOL, True),
        refreshed_at=(types.TIMESTAMP, False),
        snapshot_at=(types.TIMESTAMP, False),
        snapshot=(types.STRING, False),
        loaded_rows=(types.INT64, True),
        rejected_rows=(types.INT64, True),
        coverage=(types.FLOAT64, False),
        zero_dates_nulled=(types.INT64, True),
        drift=(types.STRING, False),
        seconds=(types.FLOAT64, True),
        bytes=(types.INT64, True),
        export=(types.STRING, False),
        digests=(types.STRING, False),
    ),
)
ERRORS = ControlTable(
    "MIRROR_ERRORS",
    _columns(
        table=(types.STRING, True),
        error=(types.STRING, True),
        resource=(types.STRING, True),
        load_time=(types.TIMESTAMP, True),
        partition=(types.DATE, True),
        run_id=(types.STRING, True),
        file=(types.STRING, False),
        row_number=(types.INT64, False),
        column=(types.STRING, False),
        kind=(types.STRING, True),
        row_text=(types.STRING, False),
    ),
)
COMPLETENESS = ControlTable(
    "MIRROR_COMPLETENESS",
    _columns(
        partition=(types.DATE, True),
        complete=(types.BOOL, True),
        tables_expected=(types.INT64, True),
        tables_published=(types.INT64, True),
        missing_tables=(types.STRING, False),
        refreshed_at=(types.TIMESTAMP, False),
        oldest_snapshot_at=(types.TIMESTAMP, False),
        newest_snapshot_at=(types.TIMESTAMP, False),
        source_rows=(types.INT64, True),
        loaded_rows=(types.INT64, True),
        rejected_rows=(types.INT64, True),
        updated_at=(types.TIMESTAMP, True),
        run_id=(types.STRING, True),
    ),
)
DATASET_TABLES = (METADATA, ERRORS, COMPLETENESS)


def latest_views(dataset: str) -> dict[str, str]:
    """The views over the control tables: the last attempt at each table's newest day, its errors.

    An attempt without errors shows none, so the errors view never keeps an old bad day.
    """
    newest = f'"{dataset}"."{METADATA.name}_latest"'
    return {
        f"{METADATA.name}_latest": f'SELECT * FROM "{dataset}"."{METADATA.name}" QUALIFY'
        " row_number() OVER (PARTITION BY TABLE_NAME"
        " ORDER BY partition DESC, BQ_LOAD_TIME DESC) = 1",
        f"{ERRORS.name}_latest": f'SELECT e.* FROM "{dataset}"."{ERRORS.name}" AS e'
        f" JOIN {newest} AS m ON e.run_id = m.run_id AND e.partition = m.partition"
        ' AND e."table" = m.TABLE_NAME',
    }


def last_attempts(dataset: str, day: date) -> str:
    """SQL for the MIRROR_METADATA rows of each table's last attempt at a day."""
    return (
        f'(SELECT * FROM "{dataset}"."{METADATA.name}" WHERE partition = DATE \'{day}\' QUALIFY'
        " row_number() OVER (PARTITION BY TABLE_NAME ORDER BY BQ_LOAD_TIME DESC) = 1)"
    )


def errors_shard(dataset: str, day: date) -> tuple[str, str]:
    """Name and statement of the sharded layout's errors of one day, as the importer named them.

    Only the last attempt of each table counts, so a later run replaces an earlier one's errors.
    """
    return (
        f"{dataset}_errors_{day:%Y%m%d}",
        f'SELECT e."table" AS "tableName", e.error AS "errorMsg",'
        ' coalesce(e.row_text, \'\') AS "rawLine", CAST(e.load_time AS TIMESTAMP) AS "timestamp"'
        f' FROM "{dataset}"."{ERRORS.name}" AS e JOIN {last_attempts(dataset, day)} AS m'
        ' ON e.run_id = m.run_id AND e.partition = m.partition AND e."table" = m.TABLE_NAME',
    )


def sli_tables(database: str) -> tuple[ControlTable, ...]:
    """The three SLI series of a database."""
    return coverage_table(database), freshness_table(database), age_table(database)


def coverage_table(database: str) -> ControlTable:
    """``sli_metrics.<database>_mirror_coverage``: one row per run."""
    return ControlTable(
        f"{database}_mirror_coverage",
        _columns(
            updated_time=(types.DATETIME, True),
            shard=(types.STRING, True),
            coverage=(types.FLOAT64, False),
            run_id=(types.STRING, True),
        ),
    )


def freshness_table(database: str) -> ControlTable:
    """``sli_metrics.<database>_mirror_freshness``: mean hours since tables were published."""
    return ControlTable(
        f"{database}_mirror_freshness",
        _columns(
            updated_time=(types.DATETIME, True),
            average_age=(types.FLOAT64, False),
            gcs_url=(types.STRING, False),
        ),
    )


def age_table(database: str) -> ControlTable:
    """``sli_metrics.<database>_mirror_age``: hours since the newest data was true at the source."""
    return ControlTable(
        f"{database}_mirror_age",
        _columns(
            updated_time=(types.DATETIME, True),
            hours_since_last_update=(types.FLOAT64, False),
        ),
    )


def error_row(
    *,
    table: str,
    error: str,
    resource: str,
    kind: str,
    load_time: datetime,
    partition: date,
    run_id: str,
    file: str | None = None,
    row_number: int | None = None,
    column: str | None = None,
    row_text: str | None = None,
) -> Row:
    """One MIRROR_ERRORS row."""
    return {
        "table": table,
        "error": error,
        "resource": resource,
        "load_time": load_time,
        "partition": partition,
        "run_id": run_id,
        "file": file,
        "row_number": row_number,
        "column": column,
        "kind": kind,
        "row_text": row_text,
    }


def digests_json(digests: dict[str, tuple[int, int]], engine: str) -> str:
    """Per-column ``[values present, sum of hashes]`` with the engine that hashed them."""
    return json.dumps({"engine": engine, "columns": digests}, ensure_ascii=False)


def newest_attempts(rows: Sequence[Row]) -> dict[str, Row]:
    """The last MIRROR_METADATA row of each table."""
    newest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["BQ_LOAD_TIME"]):
        newest[row["TABLE_NAME"]] = row
    return newest


def completeness_row(
    spec: DatabaseSpec, partition: date, attempts: Sequence[Row], *, run_id: str, now: datetime
) -> Row:
    """Whether a day holds every catalogued table of one and the same refresh.

    ``attempts`` are the day's MIRROR_METADATA rows. A table that failed after an earlier success
    the same day still shows its earlier rows, and counts as missing when a newer refresh exists; of
    a live database, where no refresh tells runs apart, it counts as missing when its last attempt
    failed. The oldest and newest snapshot say how far apart the day's tables were read.
    """
    published = newest_attempts([row for row in attempts if row["published"]])
    instants = [row["refreshed_at"] for row in attempts if row["refreshed_at"]]
    refreshed_at = max(instants, default=None)
    current = {name: row for name, row in published.items() if row["refreshed_at"] == refreshed_at}
    if spec.entry.refresh.rule == "schedule":
        last = newest_attempts(attempts)
        current = {name: row for name, row in current.items() if last[name]["published"]}
    missing = [table.name for table in spec.tables if table.name not in current]
    rows = [current[table.name] for table in spec.tables if table.name in current]
    return {
        "partition": partition,
        "complete": not missing,
        "tables_expected": len(spec.tables),
        "tables_published": len(spec.tables) - len(missing),
        "missing_tables": ", ".join(missing) or None,
        "refreshed_at": refreshed_at,
        "oldest_snapshot_at": min((row["snapshot_at"] for row in rows), default=None),
        "newest_snapshot_at": max((row["snapshot_at"] for row in rows), default=None),
        "source_rows": sum(row["TABLE_ROWS"] for row in rows),
        "loaded_rows": sum(row["loaded_rows"] for row in rows),
        "rejected_rows": sum(row["rejected_rows"] for row in rows),
        "updated_at": now,
        "run_id": run_id,
    }


def coverage_row(attempts: Sequence[Row], partition: date, *, run_id: str, now: datetime) -> Row:
    """A run's coverage over all tables it tried; the rows of failed tables count as not loaded.

    No figure is given when a table failed before its rows were counted.
    """
    mine = newest_attempts([row for row in attempts if row["run_id"] == run_id]).values()
    loaded = sum(row["loaded_rows"] if row["published"] else 0 for row in mine)
    total = sum(row["TABLE_ROWS"] for row in mine)
    uncounted = any(not row["published"] and row["snapshot_at"] is None for row in mine)
    return {
        "updated_time": now.replace(tzinfo=None),
        "shard": f"{partition:%Y%m%d}",
        "coverage": None if uncounted else coverage.coverage(loaded, total - loaded),
        "run_id": run_id,
    }
