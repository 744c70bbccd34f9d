"""The on-call questions, asked of the control tables: is it complete, what is missing, why?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.control import COMPLETENESS_VIEW, METADATA, errors_of, last_attempts
from mirror_assets.mirroring.coverage import coverage
from mirror_assets.mirroring.warehouses.base import Rows, Warehouse


@dataclass(frozen=True)
class DayStatus:
    """One day of one database, as MIRROR_COMPLETENESS has it."""

    database: str
    partition: date
    complete: bool
    expected: int
    published: int
    source_rows: int
    loaded: int
    rejected: int
    missing: str
    refreshed_at: object

    @property
    def coverage(self) -> float | None:
        return coverage(self.loaded, self.rejected)


def days(warehouse: Warehouse, spec: DatabaseSpec, count: int) -> list[DayStatus]:
    """The newest days of a database, newest first; [] when nothing was mirrored."""
    if not _exists(warehouse, spec):
        return []
    answer = warehouse.query(
        "SELECT partition, complete, tables_expected, tables_published, source_rows, loaded_rows,"
        " rejected_rows, coalesce(missing_tables, ''), refreshed_at"
        f" FROM {spec.dataset}.{COMPLETENESS_VIEW} ORDER BY partition DESC LIMIT {int(count)}"
    )
    return [DayStatus(spec.name, *row) for row in answer.rows]


def failures(warehouse: Warehouse, spec: DatabaseSpec, day: date) -> Rows:
    """Tables whose last attempt at a day was not published, and our sentence for it."""
    return warehouse.query(
        f'SELECT e."table", e.kind, e.error FROM {_of_last_attempts(spec, day)}'
        " WHERE NOT m.published AND e.row_number IS NULL"
        " AND e.kind <> 'unlisted' ORDER BY 1"
    )


def seconds(warehouse: Warehouse, spec: DatabaseSpec, day: date) -> float:
    """Seconds spent copying and typing the tables of a day's last attempts."""
    attempts = last_attempts(spec.dataset, day)
    answer = warehouse.query(f"SELECT coalesce(sum(seconds), 0) FROM {attempts} AS m")
    return float(answer.rows[0][0])


def error_summary(warehouse: Warehouse, spec: DatabaseSpec, day: date) -> Rows:
    """Errors of a day's last attempts, counted by table, column and kind."""
    return warehouse.query(
        'SELECT "table", "column", kind, count(*) AS records, min(error) AS error'
        f" FROM (SELECT e.* FROM {_of_last_attempts(spec, day)}) GROUP BY ALL ORDER BY ALL"
    )


def error_rows(
    warehouse: Warehouse, spec: DatabaseSpec, day: date, *, table: str | None, limit: int
) -> Rows:
    """Errors of a day's last attempts, one by one, with the place of each rejected record."""
    chosen = f" WHERE \"table\" = '{table.replace(chr(39), chr(39) * 2)}'" if table else ""
    return warehouse.query(
        'SELECT "table", row_key, row_number, "column", kind, error, file'
        f" FROM (SELECT e.* FROM {_of_last_attempts(spec, day)}){chosen}"
        f' ORDER BY "table", row_number LIMIT {int(limit)}'
    )


def _of_last_attempts(spec: DatabaseSpec, day: date) -> str:
    return errors_of(spec.dataset, last_attempts(spec.dataset, day))


def _exists(warehouse: Warehouse, spec: DatabaseSpec) -> bool:
    return METADATA.name in warehouse.schemas(spec.dataset)
