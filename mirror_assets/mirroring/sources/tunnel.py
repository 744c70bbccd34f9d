"""A source behind an SSH host: a supervised ``ssh -N -L`` for as long as a connection is open.

Each snapshot has a tunnel of its own. One that is cut fails the table that is being read, as any
cut connection does; the next snapshot opens another.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SourceUnavailable,
    SshRefused,
    SshUnavailable,
)
from mirror_assets.mirroring.loopback import LOOPBACK, free_port
from mirror_assets.mirroring.sources.base import Login, Snapshot, Source, TableState
from mirror_assets.mirroring.ssh import SshHost, check_name

_log = logging.getLogger(__name__)
_START_SECONDS = 45
_EXPLAIN_SECONDS = 0.5
_MOST_PORTS = 4
_KEPT_LINES = 50
#: The fastest that OpenSSH has where the processor knows AES; the host may choose another.
_CIPHERS = "^aes128-gcm@openssh.com"
_TAKEN = re.compile(r"address already in use|cannot listen to port", re.IGNORECASE)
_PROHIBITED = re.compile(r"^channel \d+: open failed: administratively", re.MULTILINE)
_NO_DATABASE = re.compile(r"^channel \d+: open failed: connect failed", re.MULTILINE)


@dataclass(frozen=True)
class Tunnel:
    """A way to ``remote_host:remote_port``, as the SSH host sees it.

    A fault of the tunnel that time may cure is tried again, ``attempts`` in all, ``wait`` seconds
    apart; a refusal is not, nor is any fault of the database behind it.
    """

    host: SshHost
    remote_host: str
    remote_port: int
    attempts: int = 5
    wait: float = 10.0
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False, repr=False)
    choose_port: Callable[[], int] = field(default=free_port, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name("the database's host", self.remote_host)
        if not 0 < self.remote_port < 1 << 16:
            raise SettingsError("the database's port is not a port")

    @contextmanager
    def open(self) -> Iterator[OpenTunnel]:
        """An open tunnel; its client has ended when this is left, however it is left.

        Raises SshUnavailable when no attempt succeeded, SshRefused, SettingsError.
        """
        opened = self._attempt()
        try:
            yield opened
        finally:
            opened.close()

    def _attempt(self) -> OpenTunnel:
        for attempt in range(1, self.attempts):
            try:
                return self._begin()
            except SshUnavailable as error:
                _log.warning(
                    "attempt %d of %d: %s: %s; again in %g s",
                    *(attempt, self.attempts, error.where, error.what, self.wait),
                )
            self.sleep(self.wait)
        try:
            return self._begin()
        except SshUnavailable as error:
            raise _after(self.attempts, error) from None

    def _begin(self) -> OpenTunnel:
        return begin(self.host, self._target, choose_port=self.choose_port)

    @property
    def _target(self) -> str:
        is_v6 = ":" in self.remote_host
        return f"{f'[{self.remote_host}]' if is_v6 else self.remote_host}:{self.remote_port}"


def _after(attempts: int, error: SshUnavailable) -> SshUnavailable:
    if attempts == 1:
        return error
    what = f"{error.what} ({attempts} attempts)"
    return SshUnavailable(what, where=error.where, remedy=error.remedy)


def begin(
    host: SshHost,
    target: str,
    *,
    session: Mapping[str, str] | None = None,
    choose_port: Callable[[], int] = free_port,
) -> OpenTunnel:
    """An open tunnel to ``target``: an address, or a socket's path, as the host sees it. The caller
    closes it.

    ``session``: the host forwards only beside a session with these variables, and says a line in it
    when it does. Raises SshUnavailable, SshRefused, SettingsError.
    """
    for _ in range(_MOST_PORTS):
        opened = OpenTunnel(host, target, choose_port(), session)
        try:
            if opened.wait_until_up():
                return opened
            fault = opened.fault()
        except BaseException:
            opened.close()
            raise
        opened.close()
        if not opened.port_was_taken:
            raise fault
    raise SshUnavailable(
        f"no free port was found in {_MOST_PORTS} attempts",
        where=host.where,
        remedy="see what listens on this machine's loopback ports",
    )


class OpenTunnel:
    """A running client that listens on ``port`` of the loopback interface.

    Its thread lives as long as the client, because the kernel ends the client (PDEATHSIG) with the
    thread that began it: when this process is killed, no ssh stays behind.
    """

    def __init__(
        self, host: SshHost, target: str, port: int, session: Mapping[str, str] | None = None
    ) -> None:
        self.port = port
        self._host = host
        self._target = target
        self._session = session
        self._token = secrets.token_hex(8)
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._begun = threading.Event()
        self._settled = threading.Event()  # up, or over
        self._is_up = False
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._supervise, name="ssh", daemon=True)
        self._files = ExitStack()  # those that the client reads at its start
        self._command = self._arguments()
        self._thread.start()

    def _arguments(self) -> list[str]:
        programs = {name: shutil.which(name) for name in ("setpriv", "ssh")}
        missing = sorted(name for name, path in programs.items() if path is None)
        if missing:
            raise SshRefused(
                f"{missing[0]} is not installed",
                where=self._host.where,
                remedy="apt-get install openssh-client util-linux",
            )
        options = {
            "Ciphers": _CIPHERS,
            "ExitOnForwardFailure": "yes",
            # the client runs it once it is logged in and listens
            "PermitLocalCommand": "yes",
            "LocalCommand": f"echo {self._token}",
            "LogLevel": "INFO",
        }
        if self._session:
            options["SendEnv"] = " ".join(self._session)
        client = self._host.command(
            "-N" if self._session is None else "-T",
            *("-L", f"{LOOPBACK}:{self.port}:{self._target}"),
            **options,
        )
        return ["setpriv", "--pdeathsig", "KILL", *self._files.enter_context(client)]

    def _supervise(self) -> None:
        try:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "SHELL": "/bin/sh",
                    "LC_ALL": "C",
                    **(self._session or {}),
                },
                start_new_session=True,  # a person's Ctrl-C is for the client at the terminal
            )
        except OSError:
            self._settled.set()
            return
        finally:
            self._begun.set()
        assert self._process.stdout is not None
        with self._process.stdout as output:
            listens = False
            for line in output:
                if line.strip() == self._token:
                    listens = True
                    is_up = self._session is None
                else:
                    self._said.append(line[:300])
                    is_up = listens and self._session is not None and not self._fault_in(line)
                if is_up:
                    self._is_up = True
                    self._settled.set()
        self._process.wait()
        self._settled.set()

    def wait_until_up(self) -> bool:
        """Whether the client listens; else it has ended, or was too slow."""
        with self._files:
            self._settled.wait(_START_SECONDS)
        return self._is_up

    @property
    def port_was_taken(self) -> bool:
        return not self._is_up and bool(_TAKEN.search(self._text))

    def fault(self) -> MirrorError:
        """What the client complains of."""
        return self._fault_in(self._text) or SshUnavailable(
            "the tunnel was cut" if self._is_up else "the tunnel did not open",
            where=self._host.where,
            remedy="try again; if it lasts, try ssh by hand: docs/operations.md",
        )

    def _fault_in(self, said: str) -> MirrorError | None:
        if _PROHIBITED.search(said):
            return SshRefused(
                f"the host does not let us through to the database at {self._target}",
                where=self._host.where,
                remedy="check the database's host and port, or have them permitted (PermitOpen)",
            )
        if _NO_DATABASE.search(said):
            return SshUnavailable(
                f"the host could not reach the database at {self._target}",
                where=self._host.where,
                remedy="try again; if it lasts, check the database's host and port, ask its owner",
            )
        return self._host.complaint(said)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """A connection that failed for the tunnel's sake says so."""
        try:
            yield
        except SourceUnavailable:
            found = self._late_fault()
            if found is None:
                raise
            raise found from None

    def _late_fault(self) -> MirrorError | None:
        """The client's line may come a moment after the connection's end."""
        deadline = time.monotonic() + _EXPLAIN_SECONDS
        while time.monotonic() < deadline:
            if found := self._fault_in(self._text):
                return found
            if not self._thread.is_alive():
                return self.fault()
            time.sleep(0.02)
        return None

    def close(self) -> None:
        """End the client. It has nothing to save, and SIGTERM may be blocked: so it is killed."""
        self._begun.wait()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    @property
    def _text(self) -> str:
        return "".join(self._said.copy())


class TunneledSource:
    """A source that is reached through a tunnel; ``made`` is it at a local port."""

    def __init__(self, tunnel: Tunnel, made: Callable[[int], Source]) -> None:
        self._tunnel = tunnel
        self._made = made

    def states(self) -> dict[str, TableState]:
        with self._tunnel.open() as opened, opened.explaining():
            return self._made(opened.port).states()

    def login(self) -> Login:
        with self._tunnel.open() as opened, opened.explaining():
            return self._made(opened.port).login()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._tunnel.open() as opened, ExitStack() as stack:
            with opened.explaining():
                snapshot = stack.enter_context(self._made(opened.port).snapshot())
            yield snapshot
