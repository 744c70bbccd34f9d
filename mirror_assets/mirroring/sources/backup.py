"""A restored backup as a source: back up, restore, wait, read, and always remove the copy.

The copy is the snapshot: it shows the instant at which the backup was taken, however often it is
connected to, and lives as long as the run that reads it. Whatever happens to the run, the copy is
removed; one that a killed run left behind is known by its handle, and swept.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Event

from mirror_assets.mirroring.catalog import BackupRule, DatabaseSpec
from mirror_assets.mirroring.errors import (
    BackupFailed,
    CatalogError,
    MirrorError,
    RunStopped,
    SourceUnavailable,
    at_edge,
)
from mirror_assets.mirroring.sources.base import Copy, Login, Provider, TableState
from mirror_assets.mirroring.sources.postgres import PostgresSnapshot, PostgresSource

#: How often a restored copy is asked whether it accepts connections, over ``ready_minutes``.
CHECKS = 60
_RECONNECTIONS = 3
_log = logging.getLogger(__name__)


class BackupSource:
    """A PostgreSQL database, read from a backup of it that is restored for the occasion."""

    def __init__(self, spec: DatabaseSpec, provider: Provider, run_id: str = "") -> None:
        """``run_id``: by which others can ask whether the copy is still needed."""
        self._spec = spec
        self._mark = _run_mark(run_id)
        self._rule = rule_of(spec)
        self._provider = provider
        self._stopped = Event()
        self._run: ExitStack | None = None
        self._copy: tuple[str, datetime] | None = None

    def states(self) -> dict[str, TableState]:
        """What the database itself shows: no copy is made for a look at the catalogue."""
        with self._provider.live() as url:
            return PostgresSource(self._spec, url).states()

    def login(self) -> Login:
        """The login's rights at the database itself."""
        with self._provider.live() as url:
            return PostgresSource(self._spec, url).login()

    @contextmanager
    def held(self, stopped: Event) -> Iterator[None]:
        """A scope in which all snapshots are of one copy, made for the first of them."""
        with ExitStack() as run:
            self._stopped, self._run = stopped, run
            try:
                yield
            finally:
                self._run = self._copy = None

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSnapshot]:
        with ExitStack() as own:
            if self._copy is None:
                keeper = self._run or own
                handle, taken_at = keeper.enter_context(self._restored())
                checks = CHECKS
                if self._run is not None:
                    self._copy = handle, taken_at
            else:
                (handle, taken_at), checks = self._copy, _RECONNECTIONS
            url = own.enter_context(self._ready(handle, checks))
            snapshot = own.enter_context(PostgresSource(self._spec, url).snapshot())
            snapshot.taken_at = taken_at
            yield snapshot

    @contextmanager
    def _restored(self) -> Iterator[tuple[str, datetime]]:
        now = datetime.now(UTC)
        with suppress(MirrorError):  # the sensor tells; whatever is wrong stops us soon enough
            sweep(self._spec, self._provider, now, is_running=_nobody_knows)
        marks = filter(None, (f"{now:%Y%m%d}", self._mark, secrets.token_hex(3)))
        handle = handle_prefix(self._spec.name) + "-".join(marks)
        try:
            _log.info("%s: a backup is made and restored", handle)
            taken_at = self._provider.restore(handle, self._pause)
            _log.info("%s: holds the state of %s", handle, f"{taken_at:%Y-%m-%d %H:%M:%S} UTC")
            yield handle, taken_at
        finally:
            self._remove(handle)

    def _remove(self, handle: str) -> None:
        """What was read is true whether or not this works: so a failure is told, not raised."""
        try:
            self._provider.remove(handle)
        except Exception as error:
            _log.warning(
                "%s is left behind: %s; the sensor backup_leftovers removes it",
                handle,
                at_edge(error, self._spec.name).sentence,
            )
        else:
            _log.info("%s is removed", handle)

    @contextmanager
    def _ready(self, handle: str, checks: int) -> Iterator[str]:
        """A URL of the copy, once that accepts connections."""
        with ExitStack() as stack:
            for check in range(1, checks + 1):
                try:
                    with ExitStack() as attempt:
                        url = attempt.enter_context(self._provider.connect(handle, self._pause))
                        PostgresSource(self._spec, url).states()
                        stack.push(attempt.pop_all())
                    break
                except SourceUnavailable:
                    _log.info("%s: check %d of %d: not ready", handle, check, checks)
                if check < checks:
                    self._pause(60 * self._rule.ready_minutes / CHECKS)
            else:
                raise BackupFailed(
                    f"the restored copy did not accept connections in {checks} checks",
                    where=self._spec.name,
                    remedy="run the partition again; if it lasts, look at the provider's own log,"
                    " or raise backup.ready_minutes in the catalog",
                )
            yield url

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise RunStopped("the run was stopped while it waited", where=self._spec.name)


def handle_prefix(database: str) -> str:
    """How the handles of all copies of a database begin; a day, the mark of the run, if it has any,
    and a token follow.
    """
    return f"{database}-mirror-job-"


def is_copy(handle: str, database: str) -> bool:
    """Whether a handle is one of ours, and not somebody else's that only begins like it."""
    return _parsed(handle, database) is not None


def _run_mark(run_id: str) -> str:
    """What a handle holds of a run's id; "" of an id that is not a UUID."""
    return run_id[:8] if re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", run_id) else ""


def _parsed(handle: str, database: str) -> re.Match[str] | None:
    prefix = re.escape(handle_prefix(database))
    return re.fullmatch(rf"{prefix}\d{{8}}(-(?P<run>[0-9a-f]{{8}}))?-[0-9a-f]{{6}}", handle)


def rule_of(spec: DatabaseSpec) -> BackupRule:
    if spec.entry.backup is None:
        raise CatalogError("backup: is not there", where=f"catalog {spec.name}")
    return spec.entry.backup


#: Whether the run of this mark is running.
IsRunning = Callable[[str], bool]


def _nobody_asked(mark: str) -> bool:
    del mark
    return False


def _nobody_knows(mark: str) -> bool:
    del mark
    return True


def leftovers(
    spec: DatabaseSpec, provider: Provider, now: datetime, is_running: IsRunning = _nobody_asked
) -> list[Copy]:
    """Copies older than the catalog allows, whose run is not known to be alive.

    ``is_running`` is asked where the provider cannot tell; of a copy without a mark nobody can.
    """
    oldest = now - timedelta(hours=rule_of(spec).leftover_hours)

    def is_needed(copy: Copy) -> bool:
        if copy.in_use is not None:
            return copy.in_use
        parsed = _parsed(copy.handle, spec.name)
        mark = parsed["run"] if parsed else None
        return mark is not None and is_running(mark)

    return [copy for copy in provider.copies() if copy.since <= oldest and not is_needed(copy)]


def sweep(
    spec: DatabaseSpec, provider: Provider, now: datetime, is_running: IsRunning = _nobody_asked
) -> dict[str, MirrorError | None]:
    """Remove leftovers: by handle, None or why it is still there. Raises when none can be seen."""
    done: dict[str, MirrorError | None] = {}
    for copy in leftovers(spec, provider, now, is_running):
        try:
            provider.remove(copy.handle)
        except Exception as error:
            done[copy.handle] = at_edge(error, spec.name)
            _log.warning("%s is still left behind: %s", copy.handle, done[copy.handle])
        else:
            done[copy.handle] = None
            _log.warning("%s was left behind and is removed", copy.handle)
    return done
