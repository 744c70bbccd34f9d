"""A table between the typed load and its publication, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import MirrorError, RowsUnaccounted
from mirror_assets.mirroring.landing import Manifest
from mirror_assets.mirroring.schema import Drift, TableSchema
from mirror_assets.mirroring.typed import ColumnDigest, LoadedPart, Reject


@dataclass
class Staged:
    """One table, copied and typed, waiting to be published; or the reason why it cannot be."""

    table: TableSpec
    folder: str | None
    replayed: bool = False
    error: MirrorError | None = None
    manifest: Manifest | None = None
    files: tuple[str, ...] = ()
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
class Context:
    """The run that publishes."""

    spec: DatabaseSpec
    partition: date
    run_id: str
    load_time: datetime
    accept_volume: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What became of a staged table: its drift, and why it was not published."""

    drift: Drift
    error: MirrorError | None
