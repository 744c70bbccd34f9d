"""Tables made from mirrored ones: one partition per day, replaced as a whole with its latest view.

Rows are staged as Parquet first, so that readers and other writers wait for a commit only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mirror_assets.mirroring.storage import lake
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse


@dataclass
class Derived:
    """A staged partition of a derived table; ``files`` has the same columns in each."""

    dataset: str
    table: str
    day: date
    folder: str
    files: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    settled: bool = False

    def publish(self, tx: Transaction, view: str) -> None:
        """Make the staged rows the day's, and let the view show the newest day that there was,
        which may be an empty one.
        """
        tx.ensure_like(self.dataset, self.table, self.files[0])
        filled = self.files if self.rows else []
        tx.replace_partition(self.dataset, self.table, self.day, filled)
        shown = tx.view_day(self.dataset, view) or tx.newest_day(self.dataset, self.table)
        tx.latest_view(self.dataset, view, self.table, max(shown or self.day, self.day))


@contextmanager
def staged(warehouse: Warehouse, dataset: str, table: str, day: date) -> Iterator[Derived]:
    """A partition to stage rows for; what was staged and not published is removed."""
    made = Derived(dataset, table, day, warehouse.staging(dataset, table, day))
    try:
        yield made
    finally:
        if not made.settled:
            warehouse.discard(made.folder)


def stage_query(warehouse: Warehouse, made: Derived, statements: Sequence[str]) -> None:
    """Stage the answers of some queries, each of them in memory for itself."""
    for statement in statements:
        path = f"{made.folder}/{len(made.files)}.parquet"
        made.rows += warehouse.save(statement, path)
        _add(made, path)


def stage_batches(made: Derived, schema: Any, batches: Iterable[Any]) -> None:
    """Stage Arrow record batches of one schema."""
    import pyarrow.parquet as pq  # here, because it would slow down loading the code location

    path = f"{made.folder}/{len(made.files)}.parquet"
    files = lake(made.folder)
    with (
        files.guard(f"{made.dataset}.{made.table}"),
        files.create(path) as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        for batch in batches:
            made.rows += batch.num_rows
            writer.write_batch(batch)
    _add(made, path)


def _add(made: Derived, path: str) -> None:
    files = lake(path)
    with files.guard(f"{made.dataset}.{made.table}"):
        made.bytes += files.size(path)
    made.files.append(path)
