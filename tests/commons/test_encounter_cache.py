"""The cache job over SSH and HTTP, believed by the rows that appear in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from mirror_assets.commons.encounter_cache import (
    CacheNotFilled,
    CacheReport,
    CacheTable,
    error_link,
    fill_cache,
    wait_for,
)
from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SourceFault,
    SourceUnavailable,
)
from mirror_assets.mirroring.remote_job import (
    HttpJob,
    JobRefused,
    JobUnreachable,
    LocalJob,
    ProgressLines,
    RemoteJob,
    SshJob,
)
from mirror_assets.mirroring.ssh import SshHost
from mirror_assets.sample.sshd import SshServer, make_key, program
from tests.commons.cache import CANARY, Database, encounter, job_command, write_document

LINK = "https://errors.example.org/?q=cacheCcdEncounter"
SECRET = "s3cret-of-the-hook"


def fill(
    job: RemoteJob, table: CacheTable, *, expected: int = 5, seconds: float = 60, **more: Any
) -> tuple[CacheReport, list[str]]:
    log: list[str] = []
    options: dict[str, Any] = {"link": LINK, "log": log.append, "every": 0.05, **more}
    return fill_cache(job, table, expected=expected, seconds=seconds, **options), log


@dataclass
class Scripted:
    """A job that does something of the test's."""

    action: Callable[[], object]
    exit_code: int | None = 0

    def run(self, lines: ProgressLines, seconds: float) -> int | None:
        self.action()
        return self.exit_code


# --- SSH ------------------------------------------------------------------------------------


class Server(SshServer):
    """A private SSH server that runs jobs."""

    def job(self, *command: str) -> SshJob:
        return SshJob(self.host, command)


@contextmanager
def in_python(server: Server) -> Iterator[None]:
    """AsyncSSH, which hangs the command up when its client has gone, as sshd does."""
    with background_loop() as run:
        listener = run(
            _listen(
                server_host_keys=[str(server.host_key)],
                authorized_client_keys=f"{server.identity}.pub",
                process_factory=_serve,
                encoding=None,
                line_editor=False,
            )
        )
        server.port = listener.get_port()
        yield
        listener.close()


async def _listen(**options: Any) -> asyncssh.SSHAcceptor:
    return await asyncssh.listen("127.0.0.1", 0, **options)


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", process.command or "true"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    gone = asyncio.create_task(process.wait_closed())
    copied = asyncio.create_task(_copy(child, process))
    await asyncio.wait([gone, copied], return_when=asyncio.FIRST_COMPLETED)
    if not copied.done():
        os.killpg(child.pid, signal.SIGHUP)
        copied.cancel()
    else:
        process.exit(await child.wait())
    gone.cancel()


async def _copy(
    child: asyncio.subprocess.Process, process: asyncssh.SSHServerProcess[bytes]
) -> None:
    assert child.stdout is not None
    while data := await child.stdout.read(4096):
        process.stdout.write(data)


@contextmanager
def background_loop() -> Iterator[Callable[[Any], Any]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
        return True
    return False


def wait_until(holds: Callable[[], bool], log: Path | None = None, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, log.read_text() if log and log.exists() else "too late"
        time.sleep(0.02)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            Server.running,
            id="openssh",
            marks=pytest.mark.skipif(not program(), reason="no openssh-server here"),
        ),
        pytest.param(in_python, id="asyncssh"),
    ],
)
def ssh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ssh"))
    with request.param(server):
        yield server


def test_over_ssh_the_rows_appear(ssh: Server, documents: Path, database: Database) -> None:
    report, log = fill(ssh.job(*job_command(documents, database)), database.cache)
    assert (report.expected, report.appeared, report.exit_code) == (5, 5, 0)
    assert report.warnings == ()
    assert report.link == LINK
    assert 0 < report.seconds < 60
    assert log == ["read 3 of 3 documents", "cached 5 encounters"]
    assert database.rows() == [
        ("m1", "Non-Visit Note", "1"),
        ("m1", "Visit Note", "1"),
        ("m1", "Visit Note", "2"),
        ("m2", "Visit Note", "3"),
        ("m2", "Visit Note", "4"),
    ]


def test_over_ssh_a_job_that_lies_is_believed_by_its_rows(
    ssh: Server, documents: Path, database: Database
) -> None:
    report, _ = fill(ssh.job(*job_command(documents, database, "--lie")), database.cache)
    assert (report.appeared, report.exit_code) == (5, 3)
    [warning] = report.warnings
    assert "exit code 3, but its rows are there" in warning
    assert LINK in warning


def test_over_ssh_success_without_rows_is_a_failure(ssh: Server, database: Database) -> None:
    with pytest.raises(CacheNotFilled) as caught:
        fill(ssh.job("true"), database.cache, seconds=1)
    assert "0 of 5 rows appeared" in str(caught.value)
    assert "exit code 0" in str(caught.value)
    assert LINK in str(caught.value)
    assert caught.value.transient


def test_over_ssh_arguments_arrive_as_they_are(ssh: Server, tmp_path: Path) -> None:
    target = tmp_path / "arguments"
    odd = ["a b", "$HOME", "'", '"', "*", "; touch x", "-n"]
    script = "import json, sys; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    job = ssh.job(sys.executable, "-c", script, str(target), *odd)
    assert job.run(ProgressLines(lambda line: None), 30) == 0
    assert json.loads(target.read_text()) == odd


def test_over_ssh_the_job_ends_at_the_deadline(
    ssh: Server, database: Database, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; echo 1 of 9 documents; sleep 300; echo late"
    began = time.monotonic()
    log: list[str] = []
    with pytest.raises(CacheNotFilled, match="stopped at the deadline"):
        fill(ssh.job("sh", "-c", script), database.cache, seconds=3, log=log.append)
    assert time.monotonic() - began < 12
    assert log == ["1 of 9 documents"]
    wait_until(lambda: not alive(int(pid_file.read_text())))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def test_over_ssh_a_stopped_job_counts_by_its_rows(
    ssh: Server, documents: Path, database: Database
) -> None:
    filling = " ".join(f"'{part}'" for part in job_command(documents, database))
    report, _ = fill(ssh.job("sh", "-c", f"{filling}; sleep 300"), database.cache, seconds=8)
    assert (report.appeared, report.exit_code) == (5, None)
    assert len(report.warnings) == 1


def test_over_ssh_row_values_stay_out_of_the_log(ssh: Server, database: Database) -> None:
    script = f"echo patient {CANARY}; echo {CANARY} >&2; echo 2 of 5 members; echo {CANARY}; exit 4"
    log: list[str] = []
    with pytest.raises(CacheNotFilled) as caught:
        fill(ssh.job("sh", "-c", script), database.cache, seconds=1, log=log.append)
    assert log == ["(2 lines withheld)", "2 of 5 members", "(1 lines withheld)"]
    assert CANARY not in str(caught.value)
    assert "exit code 4" in str(caught.value)


def test_over_ssh_an_unknown_host_key_is_refused(
    ssh: Server, database: Database, tmp_path: Path
) -> None:
    make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    (tmp_path / "wrong").write_text(f"[127.0.0.1]:{ssh.port} {other}")
    (tmp_path / "empty").touch()
    mark = tmp_path / "mark"
    for known in ("wrong", "empty"):
        host = replace(ssh.host, known_hosts=tmp_path / known)
        job = SshJob(host, ("touch", str(mark)))
        with pytest.raises(JobRefused, match="known key") as caught:
            fill(job, database.cache)
        assert LINK in str(caught.value)
    assert not mark.exists()


def test_over_ssh_an_unknown_login_is_refused(
    ssh: Server, database: Database, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger")
    with pytest.raises(JobRefused, match="refused the login"):
        host = replace(ssh.host, identity=tmp_path / "stranger")
        fill(SshJob(host, ("true",)), database.cache)


def test_over_ssh_nobody_answers(ssh: Server, database: Database) -> None:
    with pytest.raises(JobUnreachable, match="could not be reached") as caught:
        fill(SshJob(replace(ssh.host, port=free_port()), ("true",)), database.cache)
    assert caught.value.transient
    assert LINK in str(caught.value)


@pytest.mark.parametrize("changed", [{"host": "-oProxyCommand=x"}, {"user": "-x"}, {"host": "a b"}])
def test_ssh_options_cannot_be_smuggled(changed: dict[str, Any], tmp_path: Path) -> None:
    host = SshHost("host", "user", tmp_path / "key", tmp_path / "known")
    with pytest.raises(SettingsError):
        replace(host, **changed)
    with pytest.raises(SettingsError, match="no command"):
        SshJob(host, ())


# --- HTTP -----------------------------------------------------------------------------------


class Hook:
    """A hook over real HTTP; ``command`` is what it runs, ``behaviour`` how it answers."""

    def __init__(self) -> None:
        self.command: tuple[str, ...] = ("true",)
        self.behaviour = "stream"
        self.begun = 0
        self.ended = threading.Event()
        self.port = free_port()
        app = Starlette(routes=[Route("/run", self.answer, methods=["POST"])])
        self.server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical")
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/run?token={CANARY}"

    @property
    def job(self) -> HttpJob:
        return HttpJob(self.url, SECRET)

    async def answer(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {SECRET}":
            return Response(CANARY, status_code=403)
        if self.behaviour == "redirect":
            return RedirectResponse(f"http://127.0.0.1:{free_port()}/elsewhere")
        if self.behaviour.isdigit():
            return Response(CANARY, status_code=int(self.behaviour))
        self.begun += 1
        return StreamingResponse(self._output(), media_type="text/plain")

    async def _output(self) -> AsyncIterator[bytes]:
        process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            while data := await process.stdout.read(64):
                yield data
            code = await process.wait()
            if self.behaviour == "cut":
                raise ConnectionResetError
            if self.behaviour == "stream":
                yield b"exit code %d\n" % code
        finally:
            if process.returncode is None:
                process.kill()
            self.ended.set()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    thread = threading.Thread(target=made.server.run, daemon=True)
    thread.start()
    wait_until(lambda: answers(made.port))
    yield made
    made.server.should_exit = made.server.force_exit = True
    thread.join(10)


def test_over_http_the_rows_appear(hook: Hook, documents: Path, database: Database) -> None:
    hook.command = job_command(documents, database)
    report, log = fill(hook.job, database.cache)
    assert (report.appeared, report.exit_code, report.warnings) == (5, 0, ())
    assert log == ["read 3 of 3 documents", "cached 5 encounters", "exit code 0"]


def test_over_http_a_job_that_lies_is_believed_by_its_rows(
    hook: Hook, documents: Path, database: Database
) -> None:
    hook.command = job_command(documents, database, "--lie")
    report, _ = fill(hook.job, database.cache)
    assert (report.appeared, report.exit_code, len(report.warnings)) == (5, 3, 1)


def test_over_http_without_an_exit_line_the_status_counts(
    hook: Hook, documents: Path, database: Database
) -> None:
    hook.behaviour, hook.command = "silent", job_command(documents, database)
    report, _ = fill(hook.job, database.cache)
    assert (report.appeared, report.exit_code) == (5, 0)


def test_over_http_a_cut_connection_counts_by_the_rows(
    hook: Hook, documents: Path, database: Database
) -> None:
    hook.behaviour, hook.command = "cut", job_command(documents, database)
    report, _ = fill(hook.job, database.cache)
    assert (report.appeared, report.exit_code) == (5, None)
    assert "connection was cut" in report.warnings[0]


def test_over_http_success_without_rows_is_a_failure(hook: Hook, database: Database) -> None:
    with pytest.raises(CacheNotFilled, match="0 of 5 rows appeared") as caught:
        fill(hook.job, database.cache, seconds=1)
    assert LINK in str(caught.value)


def test_over_http_the_job_ends_at_the_deadline(hook: Hook, database: Database) -> None:
    """Also when it keeps talking, so that no single wait is long."""
    hook.command = ("sh", "-c", "while true; do echo 1 members; sleep 0.2; done")
    began = time.monotonic()
    log: list[str] = []
    with pytest.raises(CacheNotFilled, match="stopped at the deadline"):
        fill(hook.job, database.cache, seconds=2, log=log.append)
    assert time.monotonic() - began < 8
    assert "1 members" in log
    assert hook.ended.wait(10)


def test_over_http_row_values_stay_out_of_the_log(hook: Hook, database: Database) -> None:
    hook.command = ("sh", "-c", f"echo {CANARY}; echo 3 rows; echo {CANARY}; exit 2")
    log: list[str] = []
    with pytest.raises(CacheNotFilled, match="exit code 2") as caught:
        fill(hook.job, database.cache, seconds=1, log=log.append)
    assert log == ["(1 lines withheld)", "3 rows", "(1 lines withheld)", "exit code 2"]
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [("404", JobRefused), ("redirect", JobRefused), ("429", JobUnreachable)],
)
def test_over_http_a_refusal_is_told_at_once(
    hook: Hook, database: Database, behaviour: str, error: type[MirrorError]
) -> None:
    hook.behaviour = behaviour
    with pytest.raises(error) as caught:
        fill(hook.job, database.cache)
    assert CANARY not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert LINK in str(caught.value)
    assert hook.begun == 0


def test_over_http_a_wrong_secret_is_refused(hook: Hook, database: Database) -> None:
    with pytest.raises(JobRefused, match="status 403"):
        fill(HttpJob(hook.url, "another"), database.cache)


def test_over_http_a_server_error_counts_by_the_rows(hook: Hook, database: Database) -> None:
    hook.behaviour = "500"
    with pytest.raises(CacheNotFilled, match="exit code 500"):
        fill(hook.job, database.cache, seconds=1)


def test_over_http_nobody_answers(database: Database) -> None:
    with pytest.raises(JobUnreachable):
        fill(HttpJob(f"http://127.0.0.1:{free_port()}/", SECRET), database.cache)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/run",
        "ftp://127.0.0.1/run",
        f"https://user:{CANARY}@hooks.example.org/",
        f"https://[{CANARY}",
        f"https://hooks.example.org:{CANARY}/",
        "https:///run",
        "",
    ],
)
def test_a_hook_needs_a_safe_address(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        HttpJob(url, SECRET)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "two\nlines", "naïve"])
def test_a_hook_needs_a_secret_that_can_be_sent(secret: str) -> None:
    with pytest.raises(SettingsError):
        HttpJob("https://hooks.example.org/run", secret)


def test_a_secret_that_lies_elsewhere_is_fetched_when_the_job_runs(
    hook: Hook, database: Database
) -> None:
    asked = []

    def fetched() -> str:
        asked.append("once")
        return SECRET

    hook.command = ("true",)
    job = HttpJob(hook.url, fetched)
    assert asked == []
    assert job.run(ProgressLines(print), 30) == 0
    assert asked == ["once"]
    with pytest.raises(SettingsError, match="cannot be sent"):
        HttpJob(hook.url, lambda: "two\nlines").run(ProgressLines(print), 30)


def test_secrets_are_not_shown(database: Database) -> None:
    shown = repr(HttpJob(f"https://hooks.example.org/?token={CANARY}", SECRET))
    assert SECRET not in shown
    assert CANARY not in shown
    assert "reader" not in repr(database.cache)


# --- On this machine ------------------------------------------------------------------------


def test_a_command_of_this_machine_fills_the_cache(documents: Path, database: Database) -> None:
    report, log = fill(LocalJob(job_command(documents, database)), database.cache)
    assert (report.appeared, report.exit_code, report.warnings) == (5, 0, ())
    assert log == ["read 3 of 3 documents", "cached 5 encounters"]


def test_a_command_of_this_machine_ends_with_its_children_at_the_deadline(
    database: Database, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    job = LocalJob(("sh", "-c", f"sleep 300 & echo $! > {pid_file}; echo 1 rows; wait"))
    with pytest.raises(CacheNotFilled, match="stopped at the deadline"):
        fill(job, database.cache, seconds=1)
    wait_until(lambda: not alive(int(pid_file.read_text())))


def test_a_command_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(JobRefused, match="cannot be run") as caught:
        fill(LocalJob(("/nowhere/at-all", CANARY)), database.cache)
    assert CANARY not in str(caught.value)
    assert LINK in str(caught.value)


# --- Rows -----------------------------------------------------------------------------------


def create_cache(database: Database) -> None:
    database.run(
        'CREATE TABLE ccd_encounter_cache ("patientId" text PRIMARY KEY,'
        ' "createdAt" timestamptz NOT NULL, "updatedAt" timestamptz NOT NULL)'
    )


def test_only_rows_since_the_job_began_count(database: Database) -> None:
    """Two of yesterday's rows: one is updated, one is left; and one is new."""
    create_cache(database)
    database.run(
        "INSERT INTO ccd_encounter_cache SELECT x, now() - interval '1 day', now() -"
        " interval '1 day' FROM unnest(ARRAY['a', 'b']) x"
    )

    def write() -> None:
        database.run(
            """UPDATE ccd_encounter_cache SET "updatedAt" = now() WHERE "patientId" = 'a'"""
        )
        database.run("INSERT INTO ccd_encounter_cache VALUES ('c', now(), now())")

    report, _ = fill(Scripted(write), database.cache, expected=2)
    assert report.appeared == 2
    with pytest.raises(CacheNotFilled, match="0 of 1 rows"):
        fill(Scripted(lambda: None), database.cache, expected=1, seconds=0.3)


def test_rows_that_come_after_the_job_has_ended_are_awaited(database: Database) -> None:
    create_cache(database)
    insert = "INSERT INTO ccd_encounter_cache VALUES ('late', now(), now())"
    timer = threading.Timer(0.5, database.run, [insert])
    report, _ = fill(Scripted(timer.start), database.cache, expected=1, seconds=20)
    assert report.appeared == 1
    assert 0.4 < report.seconds < 10


def test_some_of_the_rows_are_not_enough(database: Database) -> None:
    create_cache(database)
    insert = "INSERT INTO ccd_encounter_cache VALUES ('one', now(), now())"
    with pytest.raises(CacheNotFilled, match="1 of 2 rows"):
        fill(Scripted(lambda: database.run(insert)), database.cache, expected=2, seconds=0.5)


def test_nothing_expected_needs_no_row(database: Database) -> None:
    report, _ = fill(Scripted(lambda: None), database.cache, expected=0)
    assert (report.appeared, report.warnings) == (0, ())


def test_times_without_zone_are_read_as_utc(database: Database) -> None:
    database.run("ALTER DATABASE " + database.name + " SET timezone = 'America/New_York'")
    database.run(
        'CREATE TABLE ccd_encounter_cache ("createdAt" timestamp NULL, "updatedAt" timestamp NULL)'
    )
    began = database.cache.now()
    database.run("INSERT INTO ccd_encounter_cache VALUES (now() AT TIME ZONE 'UTC', NULL)")
    database.run(
        "INSERT INTO ccd_encounter_cache VALUES (now() AT TIME ZONE 'UTC' - interval '1 h', NULL)"
    )
    assert database.cache.written_since(began) == 1


def test_a_database_away_for_a_moment_is_asked_again(database: Database) -> None:
    create_cache(database)
    database.run("INSERT INTO ccd_encounter_cache VALUES ('x', now() + interval '1 h', now())")
    flaky = _Flaky(database.cache.url, failures=2)
    report, _ = fill(Scripted(lambda: None), flaky, expected=1, seconds=20)
    assert (report.appeared, flaky.asked) == (1, 3)


class _Flaky(CacheTable):
    """A cache table whose database hangs up some times."""

    def __init__(self, url: str, failures: int) -> None:
        super().__init__(url)
        object.__setattr__(self, "failures", failures)
        object.__setattr__(self, "asked", 0)

    failures: int
    asked: int

    def written_since(self, instant: datetime) -> int:
        object.__setattr__(self, "asked", self.asked + 1)
        if self.asked <= self.failures:
            raise SourceUnavailable("the connection was cut")
        return super().written_since(instant)


def test_a_database_that_stays_away_is_told(database: Database) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        fill(Scripted(lambda: None), _Flaky(database.cache.url, 10**6), seconds=0.3)
    assert LINK in str(caught.value)


def test_without_a_database_the_job_is_not_begun(database: Database) -> None:
    begun: list[int] = []
    url = database.cache.url.replace(f":{database.server.port}/", f":{free_port()}/")
    with pytest.raises(SourceUnavailable) as caught:
        fill(Scripted(lambda: begun.append(1)), CacheTable(url))
    assert begun == []
    assert LINK in str(caught.value)


def test_hidden_rows_are_refused_and_not_counted_as_missing(database: Database) -> None:
    create_cache(database)
    database.run("ALTER TABLE ccd_encounter_cache ENABLE ROW LEVEL SECURITY")
    with pytest.raises(SourceFault, match="access denied"):
        database.cache.written_since(database.cache.now())


def test_a_table_without_its_times_is_a_fault(database: Database) -> None:
    database.run('CREATE TABLE ccd_encounter_cache ("patientId" text)')
    with pytest.raises(SourceFault, match="refused the statement"):
        database.cache.written_since(database.cache.now())


@pytest.mark.parametrize("url", [f"mysql+pymysql://u:{CANARY}@h/d", f"::{CANARY}"])
def test_the_cache_is_in_postgresql(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        CacheTable(url).now()
    assert CANARY not in str(caught.value)


def test_incomplete_data_are_said_to_be(database: Database) -> None:
    report, _ = fill(
        Scripted(lambda: None, exit_code=1), database.cache, expected=0, incomplete_upstream=True
    )
    assert report.incomplete_upstream
    lying, incomplete = report.warnings
    assert "exit code 1" in lying
    assert "incomplete" in incomplete


# --- Output ---------------------------------------------------------------------------------


def logged(*chunks: bytes) -> list[str]:
    log: list[str] = []
    lines = ProgressLines(log.append)
    for chunk in chunks:
        lines.feed(chunk)
    lines.close()
    return log


@pytest.mark.parametrize(
    "line",
    [
        "read 10 of 250 documents",
        "10/250 members",
        "processed: 12 rows",
        "12 encounters cached",
        "40%",
        "100 % done",
        "done",
        "finished in 12.5 s",
        "exit code 3",
    ],
)
def test_progress_passes(line: str) -> None:
    assert logged(f"{line}\n".encode()) == [line]


@pytest.mark.parametrize(
    "line",
    [
        CANARY,
        "77001",
        "1980/12",
        "patient 77001",
        "member 5 done",
        f"read 10 of 250 documents {CANARY}",
        f"{CANARY} 5 rows",
        "123456789 rows",
        "12 rows x",
        "٣ rows",
        "exit code 1234",
        "x" * 10_000,
        "\x00",
    ],
)
def test_everything_else_is_withheld(line: str) -> None:
    assert logged(f"{line}\n".encode()) == ["(1 lines withheld)"]


def test_terminal_output_is_read_like_a_file() -> None:
    assert logged(b"\x1b[32m5 rows\x1b[0m\r\n10%\r20%\r\n\r\n") == ["5 rows", "10%", "20%"]


def test_a_flood_of_progress_is_cut_short() -> None:
    log = logged(b"1 rows\n" * 1500)
    assert len(log) == 1001
    assert log[-1] == "(500 lines withheld)"


def test_a_line_without_end_takes_no_memory() -> None:
    lines = ProgressLines(lambda line: None)
    for _ in range(1000):
        lines.feed(b"x" * 1000)
    assert len(lines._rest) <= 200


OUTPUT = f"5 rows\n{CANARY}\né\n1 of 2 members\r\n{'y' * 300}\n{CANARY}\n7%".encode()


@given(st.lists(st.integers(0, len(OUTPUT)), max_size=8))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(OUTPUT)]
    chunks = [OUTPUT[start:end] for start, end in itertools.pairwise(edges)]
    assert logged(*chunks) == [
        "5 rows",
        "(2 lines withheld)",
        "1 of 2 members",
        "(2 lines withheld)",
        "7%",
    ]


# --- Waiting and linking --------------------------------------------------------------------


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def test_a_ready_upstream_is_not_waited_for() -> None:
    clock = Clock()
    assert wait_for(lambda: True, 0, clock, clock.sleep)
    assert clock.naps == []


def test_an_upstream_is_waited_for_until_it_is_done() -> None:
    clock = Clock()
    assert wait_for(lambda: clock.now >= 1150, 2000, clock, clock.sleep)
    assert clock.naps == [60, 60, 60]


def test_after_the_deadline_the_job_goes_on_without_its_upstream() -> None:
    clock = Clock()
    assert not wait_for(lambda: False, 1100, clock, clock.sleep)
    assert clock.naps == [60, 40]


def test_an_upstream_done_at_the_last_moment_counts() -> None:
    clock = Clock()
    assert wait_for(lambda: clock.now >= 1100, 1100, clock, clock.sleep)


SINCE = datetime(2026, 11, 22, 5, tzinfo=UTC)
UNTIL = datetime(2026, 11, 22, 6, tzinfo=UTC)


def test_the_link_has_the_default_filter_and_the_times() -> None:
    template = "https://errors.example.org/?q={filter}&from={since}&to={until}&x={other}"
    assert error_link(template, since=SINCE, until=UNTIL) == (
        "https://errors.example.org/?q=cacheCcdEncounter"
        "&from=2026-11-22T05%3A00%3A00%2B00%3A00&to=2026-11-22T06%3A00%3A00%2B00%3A00&x={other}"
    )


def test_the_link_takes_another_filter() -> None:
    made = error_link("https://e/{filter}", since=SINCE, until=UNTIL, error_filter="a&b {since}")
    assert made == "https://e/a%26b%20%7Bsince%7D"


def test_a_template_without_filter_is_refused() -> None:
    with pytest.raises(SettingsError, match="filter"):
        error_link("https://e/", since=SINCE, until=UNTIL)


# --- The demo's job -------------------------------------------------------------------------


def run_job(documents: Path, database: Database, *more: str) -> subprocess.CompletedProcess[str]:
    command = job_command(documents, database, *more)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_second_job_updates_the_same_rows(documents: Path, database: Database) -> None:
    assert run_job(documents, database).returncode == 0
    first, began = database.rows(), database.cache.now()
    write_document(documents, "m2", json.dumps([encounter(3)]))
    done = run_job(documents, database, "--lie")
    assert (done.returncode, done.stderr) == (3, "")
    assert database.rows() == first
    assert database.cache.written_since(began) == 4


def test_a_broken_document_leaves_the_others(documents: Path, database: Database) -> None:
    write_document(documents, "m2", f'[{{"patient": "{CANARY}"}}]')
    done = run_job(documents, database)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == ["cached 3 encounters", "failed 1 documents"]
    assert CANARY not in done.stdout + done.stderr


def test_equal_encounters_are_one_row_and_nameless_ones_stay_apart(
    documents: Path, database: Database
) -> None:
    nameless = encounter(1)
    cast("dict[str, Any]", nameless["encounter"])["identifiers"] = []
    shutil.rmtree(documents)
    write_document(documents, "m1", json.dumps([encounter(1), encounter(1), nameless, nameless]))
    assert "cached 3 encounters" in run_job(documents, database).stdout


def test_the_url_may_be_in_a_file(documents: Path, database: Database, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{database.admin_url}\n")
    done = run_job(documents, database, "--url-file", str(tmp_path / "url"), "--url", CANARY)
    assert (done.returncode, len(database.rows())) == (0, 5)


def test_a_job_without_url_says_how_to_name_it(documents: Path, database: Database) -> None:
    done = run_job(documents, database, "--url", "")
    assert done.returncode == 2
    assert "--url-file" in done.stderr


def test_a_job_without_database_fails_without_its_address(
    documents: Path, database: Database
) -> None:
    url = f"postgresql+psycopg2://u:{CANARY}@127.0.0.1:{free_port()}/x"
    done = run_job(documents, database, "--url", url)
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr
