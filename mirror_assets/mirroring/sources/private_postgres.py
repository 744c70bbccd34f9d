"""A PostgreSQL server of our own in one folder: installed, started, told from others, ended.

It listens on 127.0.0.1 only and outlives the process that started it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mirror_assets.mirroring.errors import PermanentError, reason
from mirror_assets.mirroring.loopback import LOOPBACK

_START_SECONDS = 60
_POLL_SECONDS = 0.05
#: Where a process of root lends PostgreSQL's own user a folder that it can reach.
_NOTE = "home"
_LENT = Path("/var/tmp")  # noqa: S108 - a folder of its own is made in it


class ServerFailed(PermanentError):  # noqa: N818 - the kinds read as nouns
    """A private server could not be installed or started."""

    kind = "private_server"


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs, the newest version that is installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    folders = (*map(str, versions), os.environ.get("PATH", os.defpath))
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        raise ServerFailed(
            f"the program {name} was not found", remedy="install the Debian package postgresql"
        )
    return found


def home(directory: Path) -> Path:
    """The folder above the data directory: the directory itself, or one that was lent."""
    note = directory / _NOTE
    return Path(note.read_text()) if note.exists() else directory


def make_home(directory: Path, prefix: str) -> Path:
    """The same, where nothing is there yet. PostgreSQL refuses to run as root, and its own user
    may not be able to reach the directory, so root lends it a folder elsewhere.
    """
    if is_root() and not (directory / _NOTE).exists():
        lent = Path(tempfile.mkdtemp(prefix=prefix, dir=_LENT))
        (directory / _NOTE).write_text(str(lent))
        shutil.chown(lent, user="postgres", group="postgres")
    return home(directory)


def initdb(data: Path, *, user: str, password: str) -> None:
    """Fill a data directory; ``user`` may do everything and logs in with the password."""
    # A file and not a pipe: the other user may not open the pipe of a root process.
    file = data.parent / "initdb.password"
    file.unlink(missing_ok=True)
    write_private(file, password, mode=0o400)
    try:
        if is_root():
            shutil.chown(file, user="postgres")
        _run(
            program("initdb"),
            *(f"--pgdata={data}", f"--username={user}", f"--pwfile={file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
        )
    finally:
        file.unlink()


def start(data: Path, port: int, **settings: str) -> None:
    """Start the server of a data directory and return when it answers."""
    own = {"unix_socket_directories": "''", "synchronous_commit": "off", **settings}
    options = " ".join(f"-c {name}={value}" for name, value in own.items())
    _run(
        program("pg_ctl"),
        *("start", "-w", f"-t{_START_SECONDS}", "-D", str(data), f"--log={data / 'server.log'}"),
        f"--options=-p {port} -h {LOOPBACK} {options}",
    )


def server_pid(data: Path, pid_file: Path) -> int | None:
    """The process that serves a data directory. A stale file may name a process id that now
    belongs to somebody else, so the process must name the directory.
    """
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    path = os.fsencode(data)
    return pid if {path, b"--datadir=" + path}.intersection(command.split(b"\0")) else None


def stop(pid: int, how: signal.Signals, seconds: float) -> bool:
    """Ask a server to end; whether it is gone in time."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    deadline = time.monotonic() + seconds
    while not exited(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def exited(pid: int) -> bool:
    """Whether a process has ended; a child of this process is collected as well."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return _state(pid) in {"", "Z", "X"}


def is_root() -> bool:
    return os.geteuid() == 0


def write_private(path: Path, text: str, mode: int) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdecimal())


def _state(pid: int) -> str:
    """The letter of a process state, empty when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return fields.rpartition(")")[2].split()[0]


def _run(*command: str) -> None:
    """Run one of PostgreSQL's programs as a user that it accepts; no row passes through these."""
    done = _output([*_as_postgres(), *command])
    if done.returncode != 0:
        name = Path(command[0]).name
        lines = done.stdout.strip().splitlines()[-3:]
        raise ServerFailed(
            f"{name} failed ({'; '.join(lines) or f'exit code {done.returncode}'})",
            remedy="check space and rights of its folder",
        )


def _output(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - an argument list, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise ServerFailed(f"{command[0]} cannot be run: {reason(error)}") from None


def _as_postgres() -> list[str]:
    if not is_root():
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
