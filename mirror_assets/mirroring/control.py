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
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema, shown_type

SLI_DATASET = "sli_metrics"
Row = dict[str, Any]


@dataclass(frozen=True)
class ControlTable:
    """A table the mirror writes for itself; ``once`` is the name that older versions gave it."""

    name: str
    schema: TableSchema
    once: str | None = None


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
        misfits_nulled=(types.INT64, False),
        misfit_columns=(types.STRING, False),
        recorded_at=(types.TIMESTAMP, False),
        yielded=(types.BOOL, False),
        primary_key=(types.STRING, False),
        columns=(types.STRING, False),
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
        row_key=(types.STRING, False),
    ),
)
#: One row per day, for consumers outside Dagster: the last of those below.
COMPLETENESS_VIEW = "MIRROR_COMPLETENESS"
#: What was said of a day, one row after the other: adding one is cheap in an old lake, where
#: replacing one looks through the list of all files.
COMPLETENESS = ControlTable(
    f"{COMPLETENESS_VIEW}_HISTORY",
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
    once=COMPLETENESS_VIEW,
)
DATASET_TABLES = (METADATA, ERRORS, COMPLETENESS)
#: The last attempt at a table comes first. Runs overlap, so what counts is when an attempt was
#: recorded, not when its run began; one that yielded to a newer state says nothing of the table.
_LAST_FIRST = "coalesce(yielded, FALSE), coalesce(recorded_at, BQ_LOAD_TIME) DESC"


def views(dataset: str) -> dict[str, str]:
    """The views over the control tables: the last attempt at each table's newest day, its errors,
    and of each day whether it is complete.

    An attempt without errors shows none, so the errors view never keeps an old bad day.
    """
    name = f"{METADATA.name}_latest"
    errors = errors_of(dataset, f'"{dataset}"."{name}"')
    return {
        name: _last(dataset),
        f"{ERRORS.name}_latest": f"SELECT e.* FROM {errors}",
        COMPLETENESS_VIEW: (
            f'SELECT * FROM "{dataset}"."{COMPLETENESS.name}" WHERE TRUE QUALIFY row_number()'
            " OVER (PARTITION BY partition ORDER BY updated_at DESC) = 1"
        ),
    }


def last_said(rows: Sequence[Row]) -> list[Row]:
    """The rows of the view among those of its table: of each day the one written last."""
    ordered = sorted(rows, key=lambda row: row["updated_at"])
    return list({row["partition"]: row for row in ordered}.values())


def last_attempts(dataset: str, day: date) -> str:
    """SQL for the MIRROR_METADATA rows of each table's last attempt at a day."""
    return f"({_last(dataset, f'partition = DATE {literal(str(day))}')})"


def last_published(dataset: str, day: date) -> str:
    """SQL for the MIRROR_METADATA rows of the attempts whose rows a day holds."""
    return f"({_last(dataset, f'published AND partition = DATE {literal(str(day))}')})"


def newest_published(dataset: str, day: date, *, is_exact: bool) -> str:
    """A query for each table's newest partition of a day, or up to it, when it was recorded, and
    how many rows it was given.
    """
    upto = f"published AND partition {'=' if is_exact else '<='} DATE {literal(str(day))}"
    columns = "TABLE_NAME, partition, coalesce(recorded_at, BQ_LOAD_TIME), loaded_rows"
    return _last(dataset, upto, columns)


def _last(dataset: str, where: str = "TRUE", columns: str = "*") -> str:
    return (
        f'SELECT {columns} FROM "{dataset}"."{METADATA.name}" WHERE {where} QUALIFY row_number()'
        f" OVER (PARTITION BY TABLE_NAME ORDER BY partition DESC, {_LAST_FIRST}) = 1"
    )


def errors_of(dataset: str, attempts: str) -> str:
    """SQL for MIRROR_ERRORS rows ``e``, each beside its attempt ``m``, a MIRROR_METADATA row."""
    return (
        f'"{dataset}"."{ERRORS.name}" AS e JOIN {attempts} AS m'
        ' ON e.run_id = m.run_id AND e.partition = m.partition AND e."table" = m.TABLE_NAME'
    )


def errors_shard(dataset: str, day: date) -> tuple[str, str]:
    """Name and statement of the sharded layout's errors of one day, as the importer named them.

    Only the last attempt of each table counts, so a later run replaces an earlier one's errors.
    """
    return (
        f"{dataset}_errors_{day:%Y%m%d}",
        f'SELECT e."table" AS "tableName", e.error AS "errorMsg",'
        ' coalesce(e.row_text, \'\') AS "rawLine", CAST(e.load_time AS TIMESTAMP) AS "timestamp"'
        f" FROM {errors_of(dataset, last_attempts(dataset, day))}",
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
    row_key: str | None = None,
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
        "row_key": row_key,
    }


def digests_json(digests: dict[str, tuple[int, int]], engine: str) -> str:
    """Per-column ``[values present, sum of hashes]`` with the engine that hashed them."""
    return json.dumps({"engine": engine, "columns": digests}, ensure_ascii=False)


def declared_json(schema: TableSchema | None) -> Row:
    """The columns of MIRROR_METADATA that keep what the source declared, so that a change which
    does not show in the warehouse is found.
    """
    if schema is None:
        return {"primary_key": None, "columns": None}
    columns = {c.name: [shown_type(c.source_type), str(c.type), c.required] for c in schema.columns}
    return {
        "primary_key": json.dumps(schema.primary_key, ensure_ascii=False),
        "columns": json.dumps(columns, ensure_ascii=False),
    }


def last_declared(dataset: str) -> str:
    """A query for what the source declared for each table when it was last published."""
    return _last(dataset, "published", "TABLE_NAME, primary_key, columns")


def declared(row: Row) -> TableSchema | None:
    """The inverse of ``declared_json``; None for rows of an older version."""
    if row["columns"] is None:
        return None
    columns = (
        Column(name, source_type, LogicalType.parse(logical), required)
        for name, (source_type, logical, required) in json.loads(row["columns"]).items()
    )
    return TableSchema(tuple(columns), tuple(json.loads(row["primary_key"])))


def newest_attempts(rows: Sequence[Row]) -> dict[str, Row]:
    """The last MIRROR_METADATA row of each table, as ``_LAST_FIRST`` orders them."""
    newest: dict[str, Row] = {}
    for row in sorted(rows, key=recorded):
        newest[row["TABLE_NAME"]] = row
    return newest


def recorded(row: Row) -> tuple[bool, datetime]:
    """Orders attempts, the last one last."""
    return not row["yielded"], row["recorded_at"] or row["BQ_LOAD_TIME"]


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

    No figure is given when a table failed before its rows were counted. A table that yielded to a
    newer state counts in the run that published that.
    """
    own = [row for row in attempts if row["run_id"] == run_id and not row["yielded"]]
    mine = newest_attempts(own).values()
    loaded = sum(row["loaded_rows"] if row["published"] else 0 for row in mine)
    total = sum(row["TABLE_ROWS"] for row in mine)
    uncounted = any(not row["published"] and row["snapshot_at"] is None for row in mine)
    return {
        "updated_time": now.replace(tzinfo=None),
        "shard": f"{partition:%Y%m%d}",
        "coverage": None if uncounted else coverage.coverage(loaded, total - loaded),
        "run_id": run_id,
    }
