"""Commons' encounter cache: a remote job is run with a deadline, and believed by its rows alone.

The job's exit code is known to lie, either way. What counts is how many rows of the cache table
were written since it began, by the database's own clock: rows that are there make a success, with
a warning when the job says otherwise; rows that are missing make a failure, whatever it says.

The job prints what it likes, so only lines of known progress shapes reach the log.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import SplitResult, quote, urlsplit

import aiohttp
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from mirror_assets.mirroring.errors import (
    MirrorError,
    PermanentError,
    SettingsError,
    SourceUnavailable,
    TransientError,
    reason,
)
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.sources import common

TABLE = "ccd_encounter_cache"
FILTER = "cacheCcdEncounter"
Log = Callable[[str], None]

_VERBS = "read|cached|queued|processed|written|done|failed|skipped|remaining"
_NOUNS = "documents?|members?|encounters?|rows?|messages?|jobs?"
#: Counts with a known unit: a bare number could be anybody's.
PROGRESS: tuple[re.Pattern[str], ...] = (
    re.compile(
        rf"(?:(?:{_VERBS}):? )?\d{{1,7}}(?: ?(?:/|of) ?\d{{1,7}})? (?:{_NOUNS})(?: (?:{_VERBS}))?",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(r"\d{1,3} ?%(?: done)?", re.ASCII),
    re.compile(r"(?:done|finished)(?: in \d{1,6}(?:\.\d{1,3})? ?s)?", re.ASCII | re.IGNORECASE),
    re.compile(r"exit code \d{1,3}", re.ASCII),
)
_EXIT_LINE = re.compile(r"exit code (\d{1,3})", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LONGEST_LINE = 200
#: A line is an event of the run, and events are kept for ever.
_MOST_LINES = 1000

_CONNECT_SECONDS = 15
_KILL_SECONDS = 5.0
_READ_BYTES = 1 << 16
_SSH_FAILED = 255
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*", re.ASCII)
_HOST_KEY = re.compile(r"host key verification failed|host key is known", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|too many authentication failures", re.IGNORECASE)
_NO_WAY = re.compile(
    r"ssh: connect to host|could not resolve hostname|banner exchange|kex_exchange_identification",
    re.IGNORECASE,
)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

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


class JobUnreachable(TransientError):  # noqa: N818
    """The job could not be started: nobody answered."""

    kind = "cache_job_unreachable"


class JobRefused(PermanentError):  # noqa: N818
    """The job could not be started: the other side, or we, refused."""

    kind = "cache_job_refused"


# --- Output ---------------------------------------------------------------------------------


class ProgressLines:
    """Bytes of a job's output in, lines that are surely progress out; the others are counted."""

    def __init__(self, log: Log, shapes: Sequence[re.Pattern[str]] = PROGRESS) -> None:
        self.exit_code: int | None = None
        self._log = log
        self._shapes = shapes
        self._rest = bytearray()
        self._overlong = False
        self._passed = 0
        self._withheld = 0

    def feed(self, data: bytes) -> None:
        first, *further = re.split(rb"[\r\n]", data)
        self._extend(first)
        for part in further:
            self._end_line()
            self._extend(part)

    def close(self) -> None:
        """End the last line, and tell what was withheld at the end."""
        self._end_line()
        self._tell_withheld()

    def _extend(self, part: bytes) -> None:
        self._overlong = self._overlong or len(self._rest) + len(part) > _LONGEST_LINE
        if not self._overlong:
            self._rest += part

    def _end_line(self) -> None:
        line = _COLOUR.sub("", self._rest.decode("utf-8", "replace")).strip()
        overlong, self._overlong = self._overlong, False
        self._rest.clear()
        if not line and not overlong:
            return
        if overlong or self._passed >= _MOST_LINES or not self._known(line):
            self._withheld += 1
            return
        self._tell_withheld()
        self._passed += 1
        self._log(line)
        if match := _EXIT_LINE.fullmatch(line):
            self.exit_code = int(match[1])

    def _known(self, line: str) -> bool:
        return any(shape.fullmatch(line) for shape in self._shapes)

    def _tell_withheld(self) -> None:
        if self._withheld:
            self._log(f"({self._withheld} lines withheld)")
            self._withheld = 0


# --- Jobs -----------------------------------------------------------------------------------


class RemoteJob(Protocol):
    """Something elsewhere that fills the cache."""

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        """Run it for at most so many seconds and give its exit code.

        None when it gave none: it was stopped at the deadline, or the connection was cut. Raises
        JobUnreachable or JobRefused when it surely has not begun.
        """


@dataclass(frozen=True)
class SshJob:
    """A command on a host, through the OpenSSH client; the host must show a known key.

    ``command`` is an argument list: no shell of ours reads it, and it is quoted for the host's. It
    gets a terminal, so that it is hung up when the connection ends, as at the deadline.
    """

    host: str
    user: str
    command: tuple[str, ...]
    identity: Path
    known_hosts: Path
    port: int = 22

    def __post_init__(self) -> None:
        for what, name in (("host", self.host), ("user", self.user)):
            if not _NAME.fullmatch(name):
                raise SettingsError(
                    f"the cache job's {what} is not a name", where="encounter cache"
                )
        if not self.command:
            raise SettingsError("the cache job has no command", where="encounter cache")

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        with tempfile.TemporaryDirectory(prefix="cache-job-") as folder:
            client_log = Path(folder) / "ssh.log"
            code = _run_until(self._arguments(client_log), lines, deadline)
            if code == _SSH_FAILED:
                self._raise_if_never_begun(client_log)
        return code

    def _arguments(self, client_log: Path) -> list[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": os.devnull,
            "UpdateHostKeys": "no",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT_SECONDS),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "4",
            "LogLevel": "ERROR",
        }
        return [
            *("ssh", "-F", os.devnull, "-tt", "-E", str(client_log)),
            *(f"-o{name}={value}" for name, value in options.items()),
            *("-i", str(self.identity), "-p", str(self.port), "-l", self.user),
            *("--", self.host, shlex.join(self.command)),
        ]

    def _raise_if_never_begun(self, client_log: Path) -> None:
        """The client's own complaints, told in our words."""
        said = client_log.read_text(errors="replace") if client_log.exists() else ""
        where = f"ssh {self.host}:{self.port}"
        if _HOST_KEY.search(said):
            raise JobRefused(
                "the host did not show its known key",
                where=where,
                remedy="ask its owner for the key and mend the known_hosts file; never skip this",
            )
        if _DENIED.search(said):
            raise JobRefused(
                "the host refused the login",
                where=where,
                remedy="check the user, the identity file and its mode (0600)",
            )
        if _NO_WAY.search(said):
            raise JobUnreachable(
                "the host could not be reached", where=where, remedy="check host, port and network"
            )


@dataclass(frozen=True)
class LocalJob:
    """A command on this machine: an argument list, read by no shell."""

    command: tuple[str, ...]

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        try:
            return _run_until(self.command, lines, time.monotonic() + seconds)
        except OSError as error:
            raise JobRefused(
                f"the cache job's command cannot be run: {reason(error)}",
                where="encounter cache",
                remedy="check MIRROR_CACHE_JOB_COMMAND",
            ) from None


@dataclass(frozen=True)
class HttpJob:
    """A hook that runs the job while it answers the POST, its output line by line.

    A last line ``exit code N`` is the job's; otherwise 2xx counts as 0, and 5xx as itself.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise SettingsError(
                "the cache job's hook would get its secret in the clear",
                where="encounter cache",
                remedy="use an https address",
            )
        if not self.secret or not self.secret.isascii() or not self.secret.isprintable():
            raise SettingsError(
                "the cache job's secret is empty or cannot be sent", where="encounter cache"
            )

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        return asyncio.run(self._post(lines, seconds))

    async def _post(self, lines: ProgressLines, seconds: float) -> int | None:
        timeout = aiohttp.ClientTimeout(total=max(seconds, 0.001), sock_connect=_CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {self.secret}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self.url, headers=headers, allow_redirects=False) as answer,
            ):
                self._raise_if_never_begun(answer.status)
                async for chunk in answer.content.iter_any():
                    lines.feed(chunk)
                lines.close()
                status = 0 if answer.status < 300 else answer.status
                return status if lines.exit_code is None else lines.exit_code
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL):
            raise JobRefused(
                "the hook's certificate or address is not valid",
                where=self._shown,
                remedy="check its address, and that its certificate is of a known authority",
            ) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise JobUnreachable(
                "the hook could not be reached", where=self._shown, remedy="check its address"
            ) from None
        except (aiohttp.ClientError, TimeoutError):
            return None
        finally:
            lines.close()

    def _raise_if_never_begun(self, status: int) -> None:
        if status == 429:
            raise JobUnreachable(
                "the hook is busy (429)", where=self._shown, remedy="try again later"
            )
        if 300 <= status < 500:
            raise JobRefused(
                f"the hook refused with status {status}",
                where=self._shown,
                remedy="check its address and its secret",
            )

    @property
    def _shown(self) -> str:
        parts = _parts(self.url)
        return f"hook {parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _parts(url: str) -> SplitResult:
    """The parts of a hook's address; a login in it would end up in logs."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.username is None and parts.port != 0:
            return parts
    except ValueError:  # it quotes the address
        pass
    raise SettingsError(
        "the cache job's hook has no valid address, or one with a login",
        where="encounter cache",
        remedy="write https://host/path, and give the secret apart",
    ) from None


def _run_until(arguments: Sequence[str], lines: ProgressLines, deadline: float) -> int | None:
    """The exit code of a process of our own, or None when it had to be stopped at the deadline."""
    process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        _read_until(process.stdout, lines, deadline)
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        _stop(process)
        process.stdout.close()
        lines.close()


def _read_until(output: IO[bytes], lines: ProgressLines, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            data = os.read(output.fileno(), _READ_BYTES)
            if not data:
                return
            lines.feed(data)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, asking first."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_SECONDS)


# --- Rows -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class CacheTable:
    """The cache table of a Commons database; it is only counted, in a read-only session."""

    url: str = field(repr=False)
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
        engine = self._engine()
        try:
            with engine.connect() as connection:
                return connection.execute(statement).scalar_one()
        except sa.exc.DBAPIError as error:
            raise self._fault(error) from None
        finally:
            engine.dispose()

    def _engine(self) -> sa.Engine:
        url = common.parsed(self.url, "commons", _EXAMPLE)
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
