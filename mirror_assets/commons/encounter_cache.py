"""Commons' encounter cache: a remote job is run with a deadline, and believed by its rows alone.

The job's exit code is known to lie, either way. What counts is how many rows of the cache table
were written since it began, by the database's own clock: rows that are there make a success, with
a warning when the job says otherwise; rows that are missing make a failure, whatever it says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SourceUnavailable,
    TransientError,
)
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.remote_job import PROGRESS, Log, ProgressLines, RemoteJob
from mirror_assets.mirroring.sources import Address, Tunnel, common

TABLE = "ccd_encounter_cache"
FILTER = "cacheCcdEncounter"
_CONNECT_SECONDS = 15
_EXAMPLE = "postgresql+psycopg2://user:password@host:port/database"
_SESSION = {
    "timezone": "UTC",
    "row_security": "off",  # raises where a policy would hide rows
    "default_transaction_read_only": "on",
    "statement_timeout": "60000",
}
_UNDEFINED_TABLE, _INSUFFICIENT_PRIVILEGE = "42P01", "42501"


class CacheNotFilled(TransientError):  # noqa: N818 - the kinds read as nouns
    """The job's rows did not appear before the deadline."""

    kind = "encounter_cache"


# --- Rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheTable:
    """The cache table of a Commons database; it is only counted, in a read-only session."""

    url: str = field(repr=False)
    tunnel: Tunnel | None = None
    table: str = TABLE

    def now(self) -> datetime:
        """The database's clock. Raises SourceUnavailable, SourceFault, SettingsError."""
        found: datetime = self._scalar(sa.select(sa.func.now()))
        return found

    def written_since(self, instant: datetime) -> int:
        """How many rows were created or updated since; 0 while there is no such table."""
        created = sa.column("createdAt", sa.DateTime(timezone=True))
        updated = sa.column("updatedAt", sa.DateTime(timezone=True))
        rows = sa.select(sa.func.count()).select_from(sa.table(self.table))
        recent = rows.where(sa.or_(created >= instant, updated >= instant))
        try:
            return int(self._scalar(recent))
        except _MissingTable:
            return 0

    def _scalar(self, statement: sa.Select[Any]) -> Any:
        with Address(self.url, self.tunnel).dialled() as url:
            engine = self._engine(url)
            try:
                with engine.connect() as connection:
                    return connection.execute(statement).scalar_one()
            except sa.exc.DBAPIError as error:
                raise self._fault(error) from None
            finally:
                engine.dispose()

    def _engine(self, address: str) -> sa.Engine:
        url = common.parsed(address, "commons", _EXAMPLE)
        if url.get_backend_name() != "postgresql":
            raise SettingsError(
                "the encounter cache's URL is not a PostgreSQL one",
                where="encounter cache",
                remedy=f"write {_EXAMPLE}",
            )
        options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        return sa.create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={"options": options, "connect_timeout": _CONNECT_SECONDS},
        )

    def _fault(self, error: sa.exc.DBAPIError) -> Exception:
        code = getattr(error.orig, "pgcode", None)
        shown = driver_error(error.orig) if error.orig else "no reason given"
        where = f"commons/{self.table}"
        if code == _UNDEFINED_TABLE:
            return _MissingTable()
        if code == _INSUFFICIENT_PRIVILEGE:
            return common.denied(shown, where)
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            return common.unavailable(shown, where)
        return common.refused(shown, where)


class _MissingTable(Exception):  # noqa: N818
    """The cache table is not there (yet)."""


# --- The run --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheReport:
    """A cache that was filled. ``seconds`` from the job's start until its rows were counted;
    ``exit_code`` None when the job gave none; ``link`` leads to its errors.
    """

    expected: int
    appeared: int
    exit_code: int | None
    seconds: float
    incomplete_upstream: bool
    link: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know although it is a success."""
        found = []
        if self.exit_code != 0:
            found.append(f"{_ending(self.exit_code)}, but its rows are there: see {self.link}")
        if self.incomplete_upstream:
            found.append(
                "the data are incomplete: the clinical summaries upstream were not ready before the"
                " deadline; run the job again when they are"
            )
        return tuple(found)


def fill_cache(
    job: RemoteJob,
    table: CacheTable,
    *,
    expected: int,
    seconds: float,
    link: str,
    log: Log,
    incomplete_upstream: bool = False,
    shapes: Sequence[re.Pattern[str]] = PROGRESS,
    every: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> CacheReport:
    """Run the job and wait for ``expected`` rows, ``seconds`` for both together.

    Raises CacheNotFilled when fewer appeared, JobUnreachable or JobRefused when the job could not
    begin, and the table's errors; every message ends with the link.
    """
    started = clock()
    deadline = started + seconds
    try:
        began = table.now()
        exit_code = job.run(ProgressLines(log, shapes), max(0.0, deadline - clock()))
        appeared = _await_rows(table, began, expected, deadline, every, clock, sleep)
    except MirrorError as error:
        raise _with_link(error, link) from None
    if appeared < expected:
        raise CacheNotFilled(
            f"{appeared} of {expected} rows appeared in {table.table} within"
            f" {clock() - started:.0f} seconds; {_ending(exit_code)}",
            where="encounter cache",
            remedy=f"look for the job's errors at {link}",
        )
    return CacheReport(
        expected=expected,
        appeared=appeared,
        exit_code=exit_code,
        seconds=round(clock() - started, 3),
        incomplete_upstream=incomplete_upstream,
        link=link,
    )


def _await_rows(
    table: CacheTable,
    began: datetime,
    expected: int,
    deadline: float,
    every: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> int:
    """The rows written since; a database that is away for a moment is asked again."""
    while True:
        late = clock() >= deadline
        try:
            appeared = table.written_since(began)
        except SourceUnavailable:
            if late:
                raise
        else:
            if late or appeared >= expected:
                return appeared
        sleep(max(0.0, min(every, deadline - clock())))


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return "the job was stopped at the deadline or its connection was cut"
    return f"the job ended with exit code {exit_code}"


def _with_link(error: MirrorError, link: str) -> MirrorError:
    remedy = f"{error.remedy}; " if error.remedy else ""
    return type(error)(
        error.what, where=error.where, remedy=f"{remedy}look for the job's errors at {link}"
    )


def error_link(
    template: str,
    *,
    since: datetime,
    until: datetime,
    error_filter: str = FILTER,
) -> str:
    """The address of an error-reporting query from a template with ``{filter}``, and where wanted
    ``{since}`` and ``{until}`` (ISO 8601). Raises SettingsError when it has no ``{filter}``.
    """
    if "{filter}" not in template:
        raise SettingsError(
            "the error query's template has no {filter}",
            where="encounter cache",
            remedy="write the query's address with {filter}, and {since} and {until} where wanted",
        )
    fields = {"filter": error_filter, "since": since.isoformat(), "until": until.isoformat()}
    pattern = re.compile(r"\{(" + "|".join(fields) + r")\}")
    return pattern.sub(lambda match: quote(fields[match[1]], safe=""), template)


def wait_for(
    upstream_done: Callable[[], bool],
    deadline: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    *,
    every: float = 60.0,
) -> bool:
    """Whether the upstream was done by the deadline, an instant of ``clock`` in seconds.

    False means: go on, and say that the data are incomplete.
    """
    while not upstream_done():
        left = deadline - clock()
        if left <= 0:
            return False
        sleep(min(every, left))
    return True
