"""The heart: mirror tables of one snapshot into one partition.

One thread exports table after table from the snapshot, a second turns closed parts into typed
Parquet, and the caller publishes chunk by chunk: while one chunk is being reported, the next are
already copied. Nothing is visible to readers before ``publish``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic

from mirror_assets.mirroring import refresh
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import (
    MirrorError,
    PermanentError,
    RefreshIncomplete,
    RefreshLanded,
    RowsUnaccounted,
    SourceUnavailable,
    WarehouseFault,
    WrongDay,
    at_edge,
    reason,
)
from mirror_assets.mirroring.landing import ExportWriter, Isolation, Landing, Manifest, Part
from mirror_assets.mirroring.publication import publish
from mirror_assets.mirroring.scan import CsvPart
from mirror_assets.mirroring.sources.base import Snapshot, Source, TableState, held
from mirror_assets.mirroring.staged import Staged, TableReport
from mirror_assets.mirroring.typed import MAX_LISTED, LoadedPart, TypedLoader
from mirror_assets.mirroring.warehouses.base import Warehouse

#: Tables copied but not yet published, at most: bounds staged files, not memory.
_AHEAD = 45


@dataclass(frozen=True)
class Instant:
    """The state of the source that a run copies. ``stamp`` names the landing folder."""

    stamp: datetime
    refreshed_at: datetime | None
    snapshot_at: datetime


@dataclass
class _Loading:
    """The typed load of one table, fed part by part."""

    folder: str
    room: int = MAX_LISTED
    next_row: int = 1
    futures: list[Future[None]] = field(default_factory=list)
    seconds: float = 0.0
    parts: list[LoadedPart] = field(default_factory=list)


class MirrorRun:
    """Copies tables of one database for one partition, ahead of their publication.

    ``tables`` is the order of copying; ``publish`` may be asked for any of them, once each.
    Where other processes copy more tables of the same run, ``agree`` is told the refresh found
    here, and raises RefreshLanded when theirs is another.
    Use as a context manager: leaving it stops the copying and removes what was not published.
    """

    def __init__(
        self,
        spec: DatabaseSpec,
        source: Source,
        landing: Landing,
        warehouse: Warehouse,
        *,
        partition: date,
        run_id: str,
        tables: Sequence[TableSpec],
        scratch: Path,
        memory: str = "512MB",
        spill: str = "20GB",
        accept_volume: frozenset[str] = frozenset(),
        agree: Callable[[datetime], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._spec = spec
        self._source = source
        self._landing = landing
        self._warehouse = warehouse
        self._partition = partition
        self._run_id = run_id
        self._tables = tuple(tables)
        self._accept_volume = accept_volume
        self._agree = agree
        self._agreed: datetime | None = None
        self._clock = clock
        self._started = clock()
        self._loader = _loader(spec, scratch, memory, spill)
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._typist = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._room = threading.Semaphore(_AHEAD)
        self._asked_for = 0
        self._unseen: MirrorError | None = None
        self._kept: list[date] | None = None
        self._stopped = threading.Event()
        self._reconnected = False
        self._staged: dict[str, Future[Staged]] = {t.name: Future() for t in self._tables}

    def __enter__(self) -> MirrorRun:
        self._copier.submit(self._copy_all)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._room.release(len(self._tables))
        self._copier.shutdown(wait=True)
        self._typist.shutdown(wait=True)
        self._loader.close()
        for staged in self._staged.values():
            if not staged.done():
                continue
            left = staged.result()
            if not left.settled and left.folder is not None:
                self._warehouse.discard(left.folder)

    def publish(self, tables: Sequence[TableSpec]) -> list[TableReport]:
        """Wait for these tables, then publish all good ones in one transaction."""
        self._make_room(tables)
        staged = [self._staged[table.name].result() for table in tables]
        self._confirm(staged)
        if any(item.manifest is not None and not item.replayed for item in staged):
            self._landing.persist()
        return publish(
            self._spec,
            self._warehouse,
            staged,
            partition=self._partition,
            run_id=self._run_id,
            load_time=self._started,
            accept_volume=self._accept_volume,
            clock=self._clock,
        )

    def _confirm(self, staged: Sequence[Staged]) -> None:
        """What was copied is published only while the run's other processes copy that refresh."""
        if self._agree is None or self._agreed is None:
            return
        try:
            self._agree(self._agreed)
        except MirrorError as error:
            for item in staged:
                item.error = item.error or error.at(self._where(item.table))

    def _make_room(self, tables: Sequence[TableSpec]) -> None:
        """Let the copier go ahead of the last of these tables, before we wait for it."""
        last = max(self._tables.index(table) + 1 for table in tables)
        if last > self._asked_for:
            self._room.release(last - self._asked_for)
            self._asked_for = last

    # -- copying, in the copier's thread

    def _copy_all(self) -> None:
        remaining = list(self._tables)
        first: Instant | None = None
        try:
            with held(self._source, self._stopped):
                while remaining and not self._stopped.is_set():
                    with ExitStack() as stack:
                        snapshot, instant = self._open(stack)
                        first = first or instant
                        self._refuse_newer(first, instant)
                        self._copy_until_cut(remaining, snapshot, instant)
        except Exception as error:
            self._fail_all(remaining, at_edge(error))
        self._fail_all(remaining, PermanentError("the run was stopped"))

    def _copy_until_cut(
        self, remaining: list[TableSpec], snapshot: Snapshot | None, instant: Instant | None
    ) -> None:
        """Copy tables until all are done, or one of them cost us the connection."""
        while remaining and not self._stopped.is_set():
            self._room.acquire()
            if self._stopped.is_set():
                return
            if isinstance(self._copy(remaining.pop(0), snapshot, instant), SourceUnavailable):
                self._reconnected = True
                return

    def _refuse_newer(self, first: Instant | None, instant: Instant | None) -> None:
        """After a reconnection the vendor's database must still show the same refresh."""
        then, now = (found.refreshed_at if found else None for found in (first, instant))
        if then != now:
            raise RefreshLanded(
                "the vendor rebuilt the database while it was being read",
                where=self._spec.name,
                remedy="the run is tried again on the new refresh",
            )

    def _open(self, stack: ExitStack) -> tuple[Snapshot | None, Instant | None]:
        """The snapshot to copy from, or nothing when the partition must be replayed."""
        is_past = self._partition < self._clock().date()
        if is_past and self._spec.entry.refresh.rule == "schedule":
            return None, None
        try:
            snapshot = stack.enter_context(self._source.snapshot())
            instant = instant_of(self._spec, snapshot, self._clock())
        except MirrorError as error:
            if not is_past:
                raise
            self._unseen = error  # an export of a past day is replayed without the source
            instant = None
        if instant and instant.stamp.date() == self._partition:
            if self._agree is not None and instant.refreshed_at is not None:
                self._agree(instant.refreshed_at)
                self._agreed = instant.refreshed_at
            return snapshot, instant
        stack.close()
        return None, instant

    def _copy(
        self, table: TableSpec, snapshot: Snapshot | None, instant: Instant | None
    ) -> Exception | None:
        """Copy one table, or replay it; its fault, if any, is its own and returned."""
        staged = Staged(table, None)
        began = monotonic()
        try:
            staged.folder = self._warehouse.staging(self._spec.dataset, table.name, self._partition)
            loading = _Loading(staged.folder)
            manifest = self._reusable(table, snapshot, instant)
            if manifest is None:
                if snapshot is None or instant is None:
                    raise self._refusal(table, instant)
                manifest = self._export(table, snapshot, instant, loading)
            else:
                staged.replayed = True
                self._load_parts(table, manifest, loading, checked=snapshot is not None)
            staged.seconds = monotonic() - began
            self._typist.submit(self._finish, staged, loading, manifest)
        except Exception as error:
            self._typist.submit(self._give_up, staged, at_edge(error, self._where(table)))
            return error
        return None

    def _reusable(
        self, table: TableSpec, snapshot: Snapshot | None, instant: Instant | None
    ) -> Manifest | None:
        """An export to load instead of reading the source: of another day, or of this refresh.

        A table that was rebuilt alone since its export is read again.
        """
        found = self._landing.find(self._spec.name, table.name, self._partition)
        if found is None:
            return None
        if snapshot is None or instant is None:
            _refuse_hidden_columns(table, found)
            return found
        state = snapshot.tables().get(table.name)
        is_same = (
            instant.refreshed_at is not None
            and found.refreshed_at == instant.refreshed_at
            and state is not None
            and found.source_info.get("create_time") == state.info.get("create_time")
            and found.schema == snapshot.schema(table)  # the catalog's policies, too, may be new
        )
        # a damaged one is read again while the source still holds that refresh
        return found if is_same and self._landing.intact(found) else None

    def _refusal(self, table: TableSpec, instant: Instant | None) -> MirrorError:
        """Why a partition can be neither copied nor replayed."""
        if self._unseen is not None:
            return type(self._unseen)(
                f"there is no export of {self._partition} to replay, and {self._unseen.what}",
                where=self._where(table),
                remedy=self._unseen.remedy,
            )
        if self._kept is None:
            self._kept = self._landing.days(self._spec.name)
        kept = ", ".join(map(str, self._kept)) or "none"
        holds = (
            f"the source now holds {instant.stamp.date()}"
            if instant
            else ("the source was not asked: it can only hold today")
        )
        return WrongDay(
            f"there is no export of {self._partition} to replay, and {holds};"
            f" exports are kept of: {kept}",
            where=self._where(table),
            remedy="ask for a day that is still held or kept; today's data is never stored under"
            " another date",
        )

    def _export(
        self, table: TableSpec, snapshot: Snapshot, instant: Instant, loading: _Loading
    ) -> Manifest:
        state = snapshot.tables().get(table.name)
        info = {**state.info, "size_mb": state.size_mb} if state else {}
        schema = snapshot.schema(table)
        writer = self._landing.writer(
            self._spec.name,
            table.name,
            instant.stamp,
            compression=self._spec.entry.compression,
        )

        def draft(rows: int, parts: Sequence[Part]) -> Manifest:
            return Manifest(
                database=self._spec.name,
                table=table.name,
                partition=self._partition,
                stamp=instant.stamp,
                snapshot_at=instant.snapshot_at,
                refreshed_at=instant.refreshed_at,
                isolation=self._isolation(snapshot, state),
                source_rows=rows,
                schema=schema,
                parts=tuple(parts),
                source_info=info,
            )

        empty = draft(0, ())
        writer.on_part = lambda part: self._submit_part(table, empty, loading, part, known=True)
        with self._reading(snapshot, writer):
            snapshot.check_unchanged(table)
            rows = snapshot.count(table)
            exported = snapshot.export(table, schema, writer)
            snapshot.check_unchanged(table)
        if exported != rows:
            raise RowsUnaccounted(
                f"the source counted {rows} rows and delivered {exported}",
                where=self._where(table),
                remedy="the table changed without a transaction; run the partition again",
            )
        manifest = draft(rows, writer.parts)
        writer.finish(manifest)
        return manifest

    @contextmanager
    def _reading(self, snapshot: Snapshot, writer: ExportWriter) -> Iterator[None]:
        """Free the table's lock in all cases; drop the files when it could not be read."""
        try:
            yield
            snapshot.release()
        except BaseException:
            writer.abort()
            with suppress(MirrorError):  # the first error is the one to tell
                snapshot.release()
            raise

    def _isolation(self, snapshot: Snapshot, state: TableState | None) -> Isolation:
        """A second snapshot of a live database, or a table without versions, is another instant;
        of one that stands still between refreshes, it is the same refresh.
        """
        entry = self._spec.entry
        is_again = self._reconnected and entry.backup is None  # a restored copy stays as it is
        is_live = entry.refresh.rule == "schedule"
        if (is_again and is_live) or (state is not None and not state.versioned):
            return "per table"
        is_shared = is_again or self._agree is not None
        return "one refresh" if is_shared else snapshot.isolation

    # -- typing, in the typist's thread

    def _submit_part(
        self, table: TableSpec, manifest: Manifest, loading: _Loading, part: Part, *, known: bool
    ) -> None:
        def load() -> None:
            with self._landing.open_part(manifest, part, known=known) as path:
                self._load_part(table, manifest, loading, part, path)

        loading.futures.append(self._typist.submit(load))

    def _load_parts(
        self, table: TableSpec, manifest: Manifest, loading: _Loading, *, checked: bool
    ) -> None:
        for part in manifest.parts:
            self._submit_part(table, manifest, loading, part, known=checked)

    def _load_part(
        self, table: TableSpec, manifest: Manifest, loading: _Loading, part: Part, path: Path
    ) -> None:
        began = monotonic()
        csv_part = CsvPart(path, part.file, part.rows, part.longest, loading.next_row)
        target = f"{loading.folder}/{len(loading.parts)}.parquet"
        loaded = self._loader.load(csv_part, manifest.schema, table, target, loading.room)
        loading.parts.append(loaded)
        loading.next_row += part.rows
        loading.room -= len(loaded.rejects)
        loading.seconds += monotonic() - began

    def _finish(self, staged: Staged, loading: _Loading, manifest: Manifest) -> None:
        try:
            for future in loading.futures:
                future.result()
            staged.seconds += loading.seconds
            export = self._landing.folder(manifest.database, manifest.stamp)
            staged.complete(manifest, loading.parts, self._landing.uri(export))
        except Exception as error:
            staged.error = at_edge(error, self._where(staged.table))
        self._staged[staged.table.name].set_result(staged)

    def _give_up(self, staged: Staged, error: MirrorError) -> None:
        staged.error = error
        self._staged[staged.table.name].set_result(staged)

    def _fail_all(self, tables: list[TableSpec], error: MirrorError) -> None:
        for table in tables:
            staged = Staged(table, None, error=error.at(self._where(table)))
            self._staged[table.name].set_result(staged)
        tables.clear()

    def _where(self, table: TableSpec) -> str:
        return f"{self._spec.name}/{table.name}"


def _loader(spec: DatabaseSpec, scratch: Path, memory: str, spill: str) -> TypedLoader:
    try:
        return TypedLoader(scratch, memory=memory, spill=spill)
    except OSError as error:
        raise WarehouseFault(
            f"no folder for spilled data could be made: {reason(error)}",
            where=spec.name,
            remedy="check space and rights of MIRROR_SCRATCH, then run the partition again",
        ) from None


def _refuse_hidden_columns(table: TableSpec, export: Manifest) -> None:
    """An export from before a column was excluded or masked must not bring its values back."""
    hidden = [
        column.name
        for column in export.schema.columns
        if column.name in table.exclude_columns
        or (column.name in table.masked_columns and not column.source_type.startswith("masked "))
    ]
    if hidden:
        raise WrongDay(
            f"the export of {export.partition} holds column {hidden[0]!r}, which the catalog has"
            " excluded or masked since",
            remedy="the day cannot be replayed under the new policy; delete its export",
        )


def instant_of(spec: DatabaseSpec, snapshot: Snapshot, now: datetime) -> Instant | None:
    """The instant whose state a snapshot shows. Raises RefreshIncomplete during a rebuild."""
    if spec.entry.refresh.rule == "schedule":
        return Instant(snapshot.taken_at.replace(microsecond=0), None, snapshot.taken_at)
    state = refresh.current(spec, snapshot.tables(), now)
    if state.instant is None:
        contact = f"; {spec.entry.vendor_contact}" if spec.entry.vendor_contact else ""
        raise RefreshIncomplete(
            f"the vendor's refresh is not complete: {state.reason}",
            where=spec.name,
            remedy=f"wait; if it lasts, ask the vendor{contact}",
        )
    return Instant(state.instant, state.instant, snapshot.taken_at)
