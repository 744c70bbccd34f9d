"""A private SSH server with its own host key and one login, as long as a context lasts."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from mirror_assets.mirroring.loopback import LOOPBACK, free_port
from mirror_assets.mirroring.ssh import SshHost

_START_SECONDS = 15.0


class SshServer:
    """Its keys and files; ``running`` starts an OpenSSH server with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = getpass.getuser()
        self.identity, self.host_key = folder / "identity", folder / "host_key"
        for key in (self.identity, self.host_key):
            make_key(key)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        return f"{self.user}@{LOOPBACK}:{self.port}"

    @property
    def known_hosts(self) -> Path:
        return self.known_as(self.host_key)

    def known_as(self, key: Path) -> Path:
        """A known_hosts file that has this key for the server."""
        path = self.folder / f"{key.name}.known_hosts"
        path.write_text(f"[{LOOPBACK}]:{self.port} {key.with_suffix('.pub').read_text()}")
        return path

    @property
    def host(self) -> SshHost:
        return SshHost(LOOPBACK, self.user, self.identity, self.known_hosts, self.port)

    @contextmanager
    def running(self, *settings: str) -> Iterator[None]:
        """``settings`` are lines of its configuration."""
        self.start(*settings)
        try:
            yield
        finally:
            self.stop()

    def start(self, *settings: str) -> None:
        """Start it, on the port it had before."""
        self.port = self.port or free_port()
        config, log = self.folder / "sshd_config", self.folder / "sshd.log"
        lines = (
            f"Port {self.port}",
            f"ListenAddress {LOOPBACK}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.identity}.pub",
            *("PidFile none", "UsePAM no", "StrictModes no", "UseDNS no"),
            *("PasswordAuthentication no", "KbdInteractiveAuthentication no"),
            "PermitRootLogin prohibit-password",
            *("MaxStartups 100", *settings),
        )
        config.write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:  # only then it gives up rights, in this folder
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [program(), "-D", "-f", str(config), "-E", str(log)]
        self._process = subprocess.Popen(command)
        _wait_until(lambda: _answers(self.port), log)

    def stop(self) -> None:
        """Stop it, and cut every connection to it."""
        if self._process is None:
            return
        self.cut()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def cut(self) -> None:
        """Cut every connection; the server goes on listening."""
        assert self._process is not None
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take connections for as long as this lasts, and say nothing in them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def sessions(self) -> list[int]:
        """The processes that serve a connection."""
        assert self._process is not None
        return _descendants(self._process.pid)


def program() -> str:
    """The server's program, which must be called by its whole path; empty where there is none."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") or ""


def make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)


def _descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _answers(port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection((LOOPBACK, port), 1)):
        return True
    return False


def _wait_until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            shown = log.read_text(errors="replace") if log.exists() else "(no log)"
            raise RuntimeError(f"sshd did not start:\n{shown}")
        time.sleep(0.02)
