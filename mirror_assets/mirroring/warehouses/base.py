"""What the engine asks of a warehouse. DuckLake and BigQuery load the same Parquet files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol, TypeVar

from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.schema import Drift, TableSchema

T = TypeVar("T")
#: Columns and the values, or lists of values, that they must equal.
Equal = Mapping[str, Any]
#: The folder of MIRROR_LAKE for what is on its way to BigQuery, whose upkeep is its own.
BIGQUERY_FOLDER = ".bigquery"


@dataclass(frozen=True)
class Nearest:
    """A narrower choice of rows: of those that are alike in the columns ``by``, those of the
    newest ``count`` days up to ``day`` and those of the newest ``count`` days after it.
    """

    column: str
    day: date
    by: tuple[str, ...]
    count: int


def is_near(nearest: Nearest, quoted: Callable[[str], str]) -> str:
    """A condition of QUALIFY, in a dialect that quotes names so."""
    column = quoted(nearest.column)
    alike = ", ".join([*map(quoted, nearest.by), f"{column} > DATE '{nearest.day}'"])
    return f"dense_rank() OVER (PARTITION BY {alike} ORDER BY {column} DESC) <= {nearest.count}"


def day_shown(statement: str) -> date | None:
    """The day in a latest view's own text, in which it is the only text literal."""
    days = re.findall(r"'(\d{4}-\d{2}-\d{2})'", statement)
    return date.fromisoformat(days[-1]) if days else None


@dataclass(frozen=True)
class Rows:
    """The answer to a read-only query."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Transaction(Protocol):
    """Changes that readers see together (BigQuery: a job each, control rows last)."""

    def schema(self, dataset: str, table: str) -> TableSchema | None:
        """A table's columns without ``_PARTITIONDATE``; None when there is no such table.

        Raises DriftRefused for a column that the mirror could not have made.
        """

    def tables(self, dataset: str) -> dict[str, bool]:
        """Every table and view of a dataset, and whether it is a table with ``_PARTITIONDATE``."""

    def days(self, dataset: str, table: str) -> dict[date, int]:
        """The partitions of a table and their rows; {} where it has no partitions.

        Rows without a day, which somebody else must have written, count as those of the year 1.
        """

    def create_table(
        self, dataset: str, table: str, schema: TableSchema, *, partitioned: bool
    ) -> None:
        """Create a table; ``partitioned`` adds ``_PARTITIONDATE``."""

    def evolve(self, dataset: str, table: str, schema: TableSchema, drift: Drift) -> None:
        """Apply harmless drift: add columns as nullable, relax, widen, rename in case only."""

    def rename(self, dataset: str, table: str, new_name: str) -> None:
        """Set a table's history aside."""

    def ensure_like(self, dataset: str, table: str, file: str) -> None:
        """Create a partitioned table with a Parquet file's columns, or add those that are new.

        Raises DriftRefused where a column has another type than the table's.
        """

    def newest_day(self, dataset: str, table: str) -> date | None:
        """The newest partition of a table; None while it has none."""

    def drop_table(self, dataset: str, table: str) -> None:
        """Remove a table with its rows."""

    def replace_partition(self, dataset: str, table: str, day: date, files: Sequence[str]) -> None:
        """Make exactly these Parquet files the day's rows; no files make it empty.

        A file is an absolute path or a ``gs://`` URL, below a folder that ``staging`` made.
        """

    def latest_view(self, dataset: str, view: str, table: str, day: date) -> None:
        """Show one day of a table, without ``_PARTITIONDATE``."""

    def view_day(self, dataset: str, view: str) -> date | None:
        """The day that a latest view shows; None while there is no such view."""

    def view(self, dataset: str, view: str, statement: str) -> None:
        """Create or replace a view over a statement in DuckDB's dialect."""

    def drop_view(self, dataset: str, view: str) -> None:
        """Remove a view, if it is there."""

    def select(
        self,
        dataset: str,
        table: str,
        columns: Sequence[str],
        /,
        *any_of: Equal,
        nearest: Nearest | None = None,
        **equal: Any,
    ) -> list[dict[str, Any]]:
        """Rows of a control table whose columns equal the given values (or are among a list), and
        at least one of the alternatives where there are any; of those the ``nearest``, which
        choose among the rows that were there before this transaction.
        """

    def replace_rows(
        self, dataset: str, table: str, rows: Sequence[dict[str, Any]], /, **equal: Any
    ) -> None:
        """Replace the rows of a control table that match ``equal``."""

    def delete_before(self, dataset: str, table: str, column: str, day: date) -> None:
        """Drop partitions or control rows older than a day."""

    def blank_before(self, dataset: str, table: str, blanked: str, column: str, day: date) -> None:
        """Set a column to NULL in control rows older than a day."""


class Warehouse(Protocol):
    """One warehouse. ``dialect`` names the engine that answers its queries."""

    dialect: str

    def commit(self, body: Callable[[Transaction], T]) -> T:
        """Run a body as one transaction; on a conflict, run it again from the start.

        Raises PublicationPending where it was begun and the next one will finish it, or where
        nobody can say whether it was done.
        """

    def query(self, statement: str, *, limit: int | None = None, native: bool = False) -> Rows:
        """A read-only query in DuckDB's dialect, as ours all are, or, as people write it
        (``native``), in the warehouse's own; never changes anything.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """While it is held, no other of our processes holds it, nor writes what its holder may
        write; for writers that do not ask, such as dbt.
        """

    def alone(self, name: str) -> AbstractContextManager[None]:
        """While it is held, no other of our processes holds the same ``name``; all else goes on. A
        killed holder gives it up. Raises WarehouseFault.
        """

    def relation(self, dataset: str, table: str, day: date) -> str:
        """SQL of a day's rows of a table, without ``_PARTITIONDATE``."""

    def save(self, statement: str, path: str) -> int:
        """Write the answer of one of our own queries as Parquet; how many rows it has."""

    def batches(self, statement: str) -> AbstractContextManager[Any]:
        """The answer of one of our own queries, streamed: an Arrow RecordBatchReader."""

    def schemas(self, dataset: str) -> dict[str, TableSchema | MirrorError]:
        """Every table of a dataset, read-only; the error where ``schema`` would raise one."""

    def staging(self, dataset: str, table: str, day: date) -> str:
        """A new private folder for Parquet parts that ``replace_partition`` may then own: an
        absolute path or a ``gs://`` URL, without a slash at its end. Raises WarehouseFault.
        """

    def discard(self, folder: str) -> None:
        """Remove a staging folder that was not published, unless its publication is pending."""

    def maintain(self, *, time_travel_days: int) -> dict[str, int]:
        """Expire old snapshots, delete files nothing refers to, sweep orphans; what was done."""

    def look_at(self, dataset: str, views: Sequence[str]) -> str:
        """What people who run it should know of a dataset and of reading its latest views; empty
        where there is nothing to tell. Raises the error that publishing into it would meet.
        """

    def close(self) -> None:
        """Let go of connections."""
