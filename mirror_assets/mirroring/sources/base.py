"""What the engine asks of a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any, Protocol, runtime_checkable

from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.landing import ExportWriter, Isolation
from mirror_assets.mirroring.schema import TableSchema


@dataclass(frozen=True)
class TableState:
    """A base table as the source's catalogue shows it.

    ``created_at`` (UTC) changes when the table is rebuilt; None where the source has no such
    notion. ``updated_at`` (UTC) is its last known change. ``versioned``: whether a snapshot of the
    server covers it. ``info`` goes into the manifest and MIRROR_METADATA.
    """

    name: str
    created_at: datetime | None
    size_mb: int
    info: dict[str, Any] = field(default_factory=dict, compare=False)
    updated_at: datetime | None = None
    versioned: bool = True


@dataclass(frozen=True)
class Login:
    """What a source says of our login: its ``clock`` (UTC), and ``changes``, the privileges by
    which it could change the mirrored tables.
    """

    clock: datetime
    changes: tuple[str, ...]


class Snapshot(Protocol):
    """One consistent read of a source. Not thread-safe."""

    taken_at: datetime
    isolation: Isolation

    def tables(self) -> dict[str, TableState]:
        """The state of every base table at the beginning of the snapshot."""

    def schema(self, table: TableSpec) -> TableSchema:
        """The mirrored columns in ordinal order. Raises UnsupportedType, SourceFault."""

    def count(self, table: TableSpec) -> int:
        """The exact number of rows."""

    def export(self, table: TableSpec, schema: TableSchema, writer: ExportWriter) -> int:
        """Stream every row into the writer; returns how many. Parts are closed at the end."""

    def check_unchanged(self, table: TableSpec) -> None:
        """Raise RefreshLanded when the table was rebuilt since the snapshot began."""

    def relation(self, table: TableSpec) -> str:
        """The table's name in the source's SQL."""

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The answer to a read-only statement inside the snapshot."""

    def release(self) -> None:
        """Let go of the locks on the table just read, so that the vendor can rebuild it."""


class Source(Protocol):
    """One database server's schema."""

    def states(self) -> dict[str, TableState]:
        """Every base table now, from one cheap catalogue query."""

    def login(self) -> Login:
        """Who we are there, and what its clock says."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open a consistent snapshot; closed in all cases."""


@runtime_checkable
class Held(Protocol):
    """A source whose snapshots share something costly."""

    def held(self, stopped: Event) -> AbstractContextManager[None]:
        """For as long as this lasts, every snapshot shows one state; ``stopped`` ends waiting."""


def held(source: Source, stopped: Event) -> AbstractContextManager[None]:
    """What all snapshots of a run share; nothing, where the source is a server itself."""
    return source.held(stopped) if isinstance(source, Held) else nullcontext()


#: Waits so many seconds. Raises RunStopped when somebody ends the run meanwhile.
Pause = Callable[[float], None]


@dataclass(frozen=True)
class Copy:
    """A restored copy, whose or that of a run that was killed. ``since`` is UTC.

    ``in_use``: its run is known to be alive, or to be gone; None: who made it cannot tell.
    """

    handle: str
    since: datetime
    in_use: bool | None = False


class Provider(Protocol):
    """Who makes backups of one database and restores them under a handle."""

    def live(self) -> AbstractContextManager[str]:
        """A URL of the database itself, for its catalogue."""

    def restore(self, handle: str, pause: Pause) -> datetime:
        """Back up and restore; returns the instant (UTC) at which the backup was taken."""

    def connect(self, handle: str, pause: Pause) -> AbstractContextManager[str]:
        """A URL of the copy. Raises SourceUnavailable while that may still come up by itself."""

    def remove(self, handle: str) -> None:
        """Remove a copy, or what there is of it; nothing to do when it is gone."""

    def copies(self) -> Sequence[Copy]:
        """Every copy of this database that is there."""
