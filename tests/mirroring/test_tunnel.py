"""Sources behind a real SSH server: what is tried again, what is refused, what is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mirror_assets.mirroring import ssh
from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SourceFault,
    SourceUnavailable,
    SshRefused,
    SshUnavailable,
)
from mirror_assets.mirroring.loopback import free_port
from mirror_assets.mirroring.sources import Address, Tunnel, open_source
from mirror_assets.sample.sshd import SshServer, make_key, program
from tests.conftest import ROOT, Interrupted, KindBench

pytestmark = pytest.mark.skipif(not program(), reason="no openssh-server here")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SshServer:
    return SshServer(tmp_path_factory.mktemp("sshd"))


@pytest.fixture
def sshd(keys: SshServer) -> Iterator[SshServer]:
    with keys.running():
        yield keys


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A key that nobody knows."""
    make_key(tmp_path / "stranger")
    return tmp_path / "stranger"


class Waits(list[float]):
    """Waits that do not take time; something may happen during one of them."""

    def __init__(self, number: int = 0, action: Callable[[], object] = lambda: None) -> None:
        self._number, self._action = number, action

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if len(self) == self._number:
            self._action()


def tunnel(sshd: SshServer, bench: KindBench, waits: Waits | None = None) -> Tunnel:
    url = make_url(bench.url)
    assert url.host is not None
    assert url.port is not None
    return Tunnel(sshd.host, url.host, url.port, sleep=waits if waits is not None else Waits())


def reached(bench: KindBench, way: Tunnel, *, password: str = "") -> Address:
    """The bench's database at a URL whose own port answers to nobody but the SSH host."""
    url = make_url(bench.url)
    if password:
        url = url.set(password=password)
    return Address(url.set(port=1).render_as_string(hide_password=False), way)


def clients() -> list[int]:
    """The ssh clients that this process has begun and that still live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if name == "ssh" and int(rest.split()[1]) == os.getpid():
            found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def small(bench: KindBench, *tables: str) -> None:
    for table in tables:
        bench.run(f"CREATE TABLE {table} (id int)", f"INSERT INTO {table} VALUES (7)")


def test_both_kinds_of_server_are_mirrored_through_a_tunnel(
    any_bench: KindBench, sshd: SshServer
) -> None:
    small(any_bench, "t")
    spec = any_bench.catalog(["t"])
    source = open_source(spec, reached(any_bench, tunnel(sshd, any_bench)))
    with source.snapshot(), source.snapshot():
        assert len(clients()) == 2  # several at once, each with a port of its own
    assert any_bench.mirror_day(spec, source=source)["t"].published
    assert any_bench.rows("t_latest") == [(7,)]
    assert set(source.states()) == {"t"}
    assert clients() == []


def test_a_2_a_tunnel_that_fails_four_times_is_waited_for(
    pg_bench: KindBench, keys: SshServer
) -> None:
    small(pg_bench, "t")
    spec = pg_bench.catalog(["t"])
    keys.port = keys.port or free_port()
    waits = Waits(4, keys.start)
    try:
        source = open_source(spec, reached(pg_bench, tunnel(keys, pg_bench, waits)))
        assert pg_bench.mirror_day(spec, source=source)["t"].loaded == 1
    finally:
        keys.stop()
    assert waits == [10.0] * 4


def test_a_3_a_tunnel_that_fails_five_times_loads_nothing(
    pg_bench: KindBench, keys: SshServer
) -> None:
    small(pg_bench, "t", "u")
    spec = pg_bench.catalog(["t", "u"])
    keys.port = keys.port or free_port()
    waits = Waits()
    way = tunnel(keys, pg_bench, waits)
    with pytest.raises(SshUnavailable, match=r"could not be reached.*\(5 attempts\)"), way.open():
        pass
    assert waits == [10.0] * 4
    reports = pg_bench.mirror_day(spec, source=open_source(spec, reached(pg_bench, way)))
    for report in reports.values():
        assert isinstance(report.error, SshUnavailable)
        assert report.error.transient
        assert not report.published
    assert pg_bench.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 't'") == []
    assert clients() == []


def test_whoever_cannot_wait_tries_once(pg_bench: KindBench, keys: SshServer) -> None:
    keys.port = keys.port or free_port()
    waits = Waits()
    address = reached(pg_bench, tunnel(keys, pg_bench, waits)).at_once
    with pytest.raises(SshUnavailable):
        open_source(pg_bench.catalog(["t"]), address).states()
    assert waits == []


def _refusals(sshd: SshServer, stranger: Path) -> dict[str, tuple[Tunnel, str]]:
    host, nobody = sshd.host, stranger.with_name("known_hosts")
    nobody.touch()
    tunnels = {
        "a strange login": (replace(host, identity=stranger), "refused the login"),
        "another host key": (
            replace(host, known_hosts=sshd.known_as(stranger)),
            "does not show its known key",
        ),
        "no host key": (replace(host, known_hosts=nobody), "no known key"),
    }
    return {
        name: (Tunnel(made, "127.0.0.1", 1, sleep=Waits()), told)
        for name, (made, told) in tunnels.items()
    }


def test_wrong_keys_on_either_side_are_refused_at_once(sshd: SshServer, stranger: Path) -> None:
    for name, (way, told) in _refusals(sshd, stranger).items():
        with pytest.raises(SshRefused, match=told) as caught, way.open():
            pytest.fail(name)
        assert not caught.value.transient
        assert way.sleep == []  # never tried again
        assert caught.value.__cause__ is None
        if "known key" in told:
            assert "never skip this" in caught.value.remedy
            assert (Path(ROOT) / "docs/operations.md").read_text().count("The SSH host is refused")
        for secret in (str(stranger), sshd.user + "@", "SHA256:", "@@@"):
            assert secret not in str(caught.value)
    assert clients() == []


def test_a_15_a_key_that_others_can_read_is_refused(sshd: SshServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(sshd.identity.read_bytes())
    way = Tunnel(replace(sshd.host, identity=key), "127.0.0.1", 1)
    for mode in (0o440, 0o404, 0o644):
        key.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 0400"), way.open():
            pass
    for mode in (0o400, 0o600):
        key.chmod(mode)
        with way.open():
            assert len(clients()) == 1


def test_faults_of_the_database_are_not_tried_again(any_bench: KindBench, sshd: SshServer) -> None:
    spec, waits = any_bench.catalog(["t"]), Waits()
    way = tunnel(sshd, any_bench, waits)
    with pytest.raises(SourceFault, match="access denied") as caught:
        open_source(spec, reached(any_bench, way, password="hush-hush")).states()
    assert "hush" not in repr(vars(caught.value))
    away = replace(way, remote_port=1)
    with pytest.raises(SshUnavailable, match=r"could not reach the database at 127.0.0.1:1"):
        open_source(spec, reached(any_bench, away)).states()
    assert waits == []


def test_a_database_that_the_host_does_not_permit_is_named(
    pg_bench: KindBench, keys: SshServer
) -> None:
    with keys.running("PermitOpen 127.0.0.1:2"):
        source = open_source(pg_bench.catalog(["t"]), reached(pg_bench, tunnel(keys, pg_bench)))
        with pytest.raises(SshRefused, match="does not let us through"):
            source.states()


def test_a_tunnel_cut_amid_a_table_fails_that_table_only(
    any_bench: KindBench, sshd: SshServer
) -> None:
    digits = "SELECT 0 UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4"
    any_bench.run(
        "CREATE TABLE big (v {text})",
        "INSERT INTO big SELECT repeat('patient', 70000)"
        f" FROM ({digits}) a CROSS JOIN ({digits}) b CROSS JOIN (SELECT 0 UNION ALL SELECT 1) c",
    )
    small(any_bench, "next")
    spec = any_bench.catalog(["big", "next"])
    source = open_source(spec, reached(any_bench, tunnel(sshd, any_bench)))
    reports = any_bench.mirror_day(spec, source=Interrupted(source, "big", "amid", sshd.cut))
    error = reports["big"].error
    assert isinstance(error, SourceUnavailable)
    assert error.transient
    assert "patient" not in error.sentence
    assert reports["next"].published
    assert clients() == []
    # run again, after a restart of the server
    sshd.stop()
    sshd.start()
    assert any_bench.mirror_day(spec, source=source)["big"].loaded == 50


def test_a_host_that_falls_silent_amid_a_table_is_noticed(
    pg_bench: KindBench, sshd: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveInterval", "1")
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveCountMax", "2")
    pg_bench.run(
        "CREATE TABLE big (v text)",
        "INSERT INTO big SELECT repeat('patient', 70000) FROM generate_series(1, 50)",
    )
    small(pg_bench, "next")
    spec = pg_bench.catalog(["big", "next"])
    source = open_source(spec, reached(pg_bench, tunnel(sshd, pg_bench)))
    silent: list[int] = []

    def fall_silent() -> None:
        silent.extend(sshd.sessions())
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)

    def speak_again() -> None:
        for pid in silent:
            os.kill(pid, signal.SIGCONT)

    late = threading.Timer(20, speak_again)  # or this would wait for ever where nobody notices
    late.start()
    began = time.monotonic()
    reports = pg_bench.mirror_day(spec, source=Interrupted(source, "big", "amid", fall_silent))
    late.cancel()
    assert time.monotonic() - began < 15
    assert isinstance(reports["big"].error, SourceUnavailable)
    assert reports["next"].published


def test_a_taken_port_is_left_to_its_owner(sshd: SshServer) -> None:
    ports = iter([sshd.port, free_port()])
    waits = Waits()
    way = Tunnel(sshd.host, "127.0.0.1", sshd.port, sleep=waits, choose_port=lambda: next(ports))
    with way.open() as opened:
        assert opened.port != sshd.port
    assert waits == []
    always = replace(way, choose_port=lambda: sshd.port)
    with pytest.raises(SshUnavailable, match="no free port"), always.open():
        pass


def test_the_client_ends_with_its_block_however_that_ends(sshd: SshServer) -> None:
    way = Tunnel(sshd.host, "127.0.0.1", sshd.port)
    for ending in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(ending), way.open():
            assert len(clients()) == 1
            raise ending
        assert clients() == []


_CHILD = """
import sys, signal, threading
from pathlib import Path
from mirror_assets.mirroring.sources import Tunnel
from mirror_assets.mirroring.ssh import SshHost
place, identity, known_hosts = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
way = Tunnel(SshHost.parse(place, Path(identity), Path(known_hosts)), "127.0.0.1", 1)
held = []
def hold():  # the thread that opens a tunnel may end before it
    context = way.open()
    held.append((context, context.__enter__()))
thread = threading.Thread(target=hold)
thread.start()
thread.join()
print(held[0][1]._process.pid, flush=True)
sys.stdin.read()
"""


def test_a_process_killed_with_9_leaves_no_client(sshd: SshServer) -> None:
    host = sshd.host
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, sshd.place, host.identity, host.known_hosts],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        assert alive(pid)
        assert sshd.sessions()
        child.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(pid))
    wait_until(lambda: not sshd.sessions())


@pytest.mark.parametrize("changed", [{"remote_host": "-x y"}, {"remote_port": 0}])
def test_a_target_that_is_none_is_refused(keys: SshServer, changed: dict[str, str]) -> None:
    with pytest.raises(MirrorError):
        replace(Tunnel(keys.host, "db.example.org", 3306), **changed)  # type: ignore[arg-type]
    assert Tunnel(keys.host, "::1", 3306)._target == "[::1]:3306"


def test_the_port_of_a_tunnel_is_on_the_loopback_interface_only(sshd: SshServer) -> None:
    with Tunnel(sshd.host, "127.0.0.1", sshd.port).open() as opened:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        heard = [line.split()[1] for line in lines if line.split()[3] == "0A"]
        assert [a for a in heard if a.endswith(f":{opened.port:04X}")] == [
            f"0100007F:{opened.port:04X}"
        ]
        with closing(socket.create_connection(("127.0.0.1", opened.port), 5)) as through:
            assert through.recv(8).startswith(b"SSH-2.0")


def test_a_hosts_banner_is_not_taken_for_a_complaint(keys: SshServer) -> None:
    banner = keys.folder / "banner"
    banner.write_text("Permission denied to whoever is not one of us.\n")
    waits = Waits()
    keys.start(f"Banner {banner}")
    try:
        with Tunnel(keys.host, "127.0.0.1", keys.port, sleep=waits).open() as opened:
            assert opened.port
    finally:
        keys.stop()
    assert waits == []
