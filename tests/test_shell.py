"""A person's client: read-only, through the tunnel, and nothing of its login is left behind."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mirror_assets.sample.sshd import SshServer, program
from tests.conftest import ROOT, KindBench

pytestmark = pytest.mark.skipif(not program(), reason="no openssh-server here")
_MIRROR = [sys.executable, "-c", "from mirror_assets.cli import main; main()"]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("sshd"))
    with server.running():
        yield server


class Terminal:
    """A pseudo terminal with a process of its own session."""

    def __init__(self, pid: int, device: int) -> None:
        self.pid = pid
        self._device = device
        self.code: int | None = None

    def write(self, text: str) -> None:
        os.write(self._device, text.encode())

    def read_until(self, text: str, seconds: float = 60) -> str:
        told, deadline = "", time.monotonic() + seconds
        while text not in told:
            assert time.monotonic() < deadline, told
            if select.select([self._device], [], [], 0.1)[0]:
                told += os.read(self._device, 4096).decode(errors="replace")
        return told

    def wait(self, seconds: float = 30) -> int:
        """The process's exit code; what it prints meanwhile is thrown away."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            assert time.monotonic() < deadline
            if select.select([self._device], [], [], 0.05)[0]:
                with suppress(OSError):
                    os.read(self._device, 4096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._device)


class Shell:
    """`mirror shell clinic` of a bench whose database is behind an SSH host."""

    def __init__(self, bench: KindBench, sshd: SshServer) -> None:
        self.bench, self.sshd = bench, sshd
        bench.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (7)")
        bench.catalog(["t"])
        self.password = str(make_url(bench.url).password)

    @property
    def variables(self) -> dict[str, str]:
        return self.bench.variables | {
            "PSQL_PAGER": "cat",
            "CLINIC_SSH_HOST": self.sshd.place,
            "CLINIC_SSH_IDENTITY": str(self.sshd.identity),
            "CLINIC_SSH_KNOWN_HOSTS": str(self.sshd.known_hosts),
        }

    @contextmanager
    def started(self) -> Iterator[Terminal]:
        """A shell at a terminal."""
        pid, device = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.execve(_MIRROR[0], [*_MIRROR, "shell", "clinic"], os.environ | self.variables)
        terminal = Terminal(pid, device)
        try:
            yield terminal
        finally:
            terminal.close()

    @contextmanager
    def begun(self) -> Iterator[Terminal]:
        """A shell at a terminal, where a client has answered once."""
        with self.started() as terminal:
            terminal.write("SELECT 7 * 11111 FROM t;\n")
            terminal.read_until("77777")
            yield terminal

    def files(self) -> list[Path]:
        return [path for path in (self.bench.root / "scratch").rglob("*") if path.is_file()]

    def assert_gone(self) -> None:
        wait_until(lambda: not self.files() and not self.sshd.sessions())
        assert list((self.bench.root / "scratch").iterdir()) == []


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def shell(any_bench: KindBench, sshd: SshServer) -> Shell:
    return Shell(any_bench, sshd)


def _commands(pid: int) -> str:
    """The command lines of a process and its descendants."""
    found = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _commands(int(child))
    return found


def _mirror_shell(shell: Shell, statements: str = "", **changed: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*_MIRROR, "shell", "clinic"],
        cwd=ROOT,
        env=os.environ | shell.variables | changed,
        input=statements,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_it_reads_and_cannot_write(shell: Shell) -> None:
    shell.bench.run(
        "GRANT INSERT ON t TO reader"
        if shell.bench.kind == "postgresql"
        else f"GRANT INSERT ON {shell.bench.schema}.t TO reader@'127.0.0.1'"
    )
    _code, told, complained = _mirror_shell(
        shell, "SELECT id + 1 FROM t;\nINSERT INTO t VALUES (8);\n"
    )
    assert "8" in told.split()
    assert "read" in complained.lower()
    assert "only" in complained.lower()
    assert shell.password not in told + complained
    assert shell.bench.ask("SELECT count(*) FROM t") == [(1,)]
    shell.assert_gone()


def test_its_files_are_private_and_no_command_line_has_the_login(shell: Shell) -> None:
    with shell.begun() as terminal:
        files = shell.files()
        assert any(shell.password in path.read_text() for path in files)
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        commands = _commands(terminal.pid)
        assert "setpriv" in commands or "ssh" in commands
        assert shell.password not in commands
        assert shell.sshd.sessions()
        terminal.write("\\q\n")
        assert terminal.wait() == 0
    shell.assert_gone()


def test_ctrl_c_is_the_client_s_and_nothing_is_left(shell: Shell) -> None:
    with shell.begun() as terminal:
        terminal.write("SELECT 'half")
        terminal.write("\x03")  # the statement is dropped; the prompt and the tunnel stay
        time.sleep(0.2)
        terminal.write("SELECT 7 * 22222 FROM t;\n")
        terminal.read_until("155554")
        terminal.write("\\q\n")
        assert terminal.wait() == 0
    shell.assert_gone()


def test_ctrl_c_while_the_tunnel_opens_leaves_nothing(shell: Shell) -> None:
    with shell.sshd.silent():
        with shell.started() as terminal:
            wait_until(lambda: "known_hosts" in _commands(terminal.pid))
            assert list((shell.bench.root / "scratch").iterdir()), "there is something to remove"
            terminal.write("\x03")
            assert terminal.wait() not in (0, None)
        assert list((shell.bench.root / "scratch").iterdir()) == []
    shell.assert_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(shell: Shell, number: signal.Signals) -> None:
    with shell.begun() as terminal:
        os.kill(terminal.pid, number)
        assert terminal.wait() == 128 + number
    shell.assert_gone()


def test_nothing_is_left_where_the_client_cannot_start(shell: Shell, tmp_path: Path) -> None:
    for name in ("ssh", "setpriv", "sh", "echo"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    code, told, complained = _mirror_shell(shell, PATH=str(tmp_path / "bin"))
    assert (code, told) == (1, "")
    assert "is not installed. Next: apt-get install" in complained
    assert "Traceback" not in complained
    shell.assert_gone()
