"""A job of somebody else, run with a deadline: on a host by SSH, by a hook, or on this machine.

Whoever asked for it judges it by its outcome. It prints what it likes, so only lines of known
progress shapes reach the log.
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
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import SplitResult, urlsplit

from mirror_assets.mirroring.errors import (
    PermanentError,
    SettingsError,
    TransientError,
    placed,
    reason,
)
from mirror_assets.mirroring.secret_files import NamedSecrets, Secret, told
from mirror_assets.mirroring.ssh import SshHost, Value, read_host

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
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class JobUnreachable(TransientError):  # noqa: N818
    """The job could not be started: nobody answered."""

    kind = "job_unreachable"


class JobRefused(PermanentError):  # noqa: N818
    """The job could not be started: the other side, or we, refused."""

    kind = "job_refused"


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
    """Something elsewhere that is asked to work."""

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

    host: SshHost
    command: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.command:
            raise SettingsError("the job has no command", where="remote job")

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        with tempfile.TemporaryDirectory(prefix="remote-job-") as folder:
            client_log = Path(folder) / "ssh.log"
            with self._client(client_log) as arguments:
                code = _run_until(arguments, lines, deadline)
            if code == _SSH_FAILED:
                self._raise_if_never_begun(client_log)
        return code

    def _client(self, client_log: Path) -> AbstractContextManager[list[str]]:
        return self.host.command(
            *("-tt", "-E", str(client_log)),
            remote=[shlex.join(self.command)],
            ClearAllForwardings="yes",
        )

    def _raise_if_never_begun(self, client_log: Path) -> None:
        said = client_log.read_text(errors="replace") if client_log.exists() else ""
        fault = self.host.complaint(said)
        if fault is not None:
            kind = JobUnreachable if fault.transient else JobRefused
            raise kind(fault.what, where=fault.where, remedy=fault.remedy)


@dataclass(frozen=True)
class LocalJob:
    """A command on this machine: an argument list, read by no shell."""

    command: tuple[str, ...]

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        try:
            return _run_until(self.command, lines, time.monotonic() + seconds)
        except OSError as error:
            raise JobRefused(
                f"the job's command cannot be run: {reason(error)}",
                where="remote job",
                remedy="check the job's command",
            ) from None


@dataclass(frozen=True)
class HttpJob:
    """A hook that runs the job while it answers the POST, its output line by line.

    A last line ``exit code N`` is the job's; otherwise 2xx counts as 0, and 5xx as itself.
    """

    url: str = field(repr=False)
    secret: Secret = field(repr=False)

    def __post_init__(self) -> None:
        parts = _parts(self.url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise SettingsError(
                "the job's hook would get its secret in the clear",
                where="remote job",
                remedy="use an https address",
            )
        if isinstance(self.secret, str):
            _check_sendable(self.secret)

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        secret = told(self.secret)
        _check_sendable(secret)
        return asyncio.run(self._post(secret, lines, seconds))

    async def _post(self, secret: str, lines: ProgressLines, seconds: float) -> int | None:
        import aiohttp  # here, because it would slow down loading the code location

        timeout = aiohttp.ClientTimeout(total=max(seconds, 0.001), sock_connect=_CONNECT_SECONDS)
        headers = {"Authorization": f"Bearer {secret}"}
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


def _check_sendable(secret: str) -> None:
    if not secret or not secret.isascii() or not secret.isprintable():
        raise SettingsError("the job's secret is empty or cannot be sent", where="remote job")


def _parts(url: str) -> SplitResult:
    """The parts of a hook's address; a login in it would end up in logs."""
    try:
        parts = urlsplit(url)
        if parts.hostname and parts.username is None and parts.port != 0:
            return parts
    except ValueError:  # it quotes the address
        pass
    raise SettingsError(
        "the job's hook has no valid address, or one with a login",
        where="remote job",
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


# --- Settings -------------------------------------------------------------------------------


def read_job(value: Value, secrets: NamedSecrets, prefix: str) -> RemoteJob | None:
    """The job that variables ``<prefix>_URL``, ``_SECRET_FILE``, ``_HOST``, ``_IDENTITY``,
    ``_KNOWN_HOSTS`` and ``_COMMAND`` name; None where they name none. Raises SettingsError.
    """
    url, place = value(f"{prefix}_URL"), value(f"{prefix}_HOST")
    command = _command(value, f"{prefix}_COMMAND")
    if url and (place or command):
        raise SettingsError(
            "the job is named twice",
            where=f"{prefix}_URL",
            remedy=f"set it, or {prefix}_COMMAND (with {prefix}_HOST), not both",
        )
    if url:
        return _hook(url, secrets, prefix)
    if place and not command:
        raise SettingsError("the host has nothing to run", where=f"{prefix}_COMMAND")
    if place:
        return SshJob(read_host(value, secrets, f"{prefix}_HOST"), command)
    return LocalJob(command) if command else None


def _hook(url: str, secrets: NamedSecrets, prefix: str) -> HttpJob:
    secret_file = f"{prefix}_SECRET_FILE"
    found = secrets.named_in_file(secret_file)
    if not found:
        raise SettingsError(
            "the hook has no secret",
            where=secret_file,
            remedy="name a file of mode 0400 that holds it",
        )
    with placed(f"{prefix}_URL, {secret_file}"):
        return HttpJob(url, found)


def _command(value: Value, name: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(value(name)))
    except ValueError:
        raise SettingsError(
            "the command has a quote or a backslash without its end", where=name
        ) from None
