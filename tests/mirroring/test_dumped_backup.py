"""A database read from a dump that is restored into a private server of ours."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources import backup, dumped, private_postgres
from mirror_assets.mirroring.sources.dumped import DumpProvider
from mirror_assets.sample.servers import PostgreSQL
from mirror_assets.settings import backups, reading
from tests.conftest import KindBench, utc_now

RULE = {"provider": "postgres", "ready_minutes": 0.05}
CANARY = "canary-of-a-patient"


@pytest.fixture(scope="module")
def clinic(postgres: PostgreSQL) -> Iterator[str]:
    """A database that no test changes: keys, a partitioned table, a type, what is not ours."""
    name = "dumped"
    postgres.create_database(name)
    with closing(postgres.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute(
            "CREATE TYPE mood AS ENUM ('good', 'bad');"
            "CREATE TABLE patient (id int PRIMARY KEY, name text, mood mood);"
            f"INSERT INTO patient SELECT i, '{CANARY}' || i, 'good' FROM generate_series(1, 50) i;"
            "CREATE TABLE visit (id serial PRIMARY KEY, day date) PARTITION BY RANGE (id);"
            "CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM (1) TO (1000);"
            "INSERT INTO visit (day) SELECT '2026-11-01' FROM generate_series(1, 20);"
            "CREATE TABLE letter (id int PRIMARY KEY, patient int REFERENCES patient (id));"
            "CREATE TABLE secret (id int REFERENCES patient (id)); INSERT INTO secret VALUES (1);"
            "CREATE VIEW shown AS SELECT * FROM secret;"
        )
    postgres.create_reader(name)
    with closing(postgres.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute("REVOKE SELECT ON secret, shown FROM reader")
    yield name


@pytest.fixture
def desk(
    postgres: PostgreSQL, clinic: str, tmp_path: Path, extensions: Path
) -> Iterator[tuple[KindBench, DatabaseSpec]]:
    """A bench over it, and a catalog that reads it from a backup."""
    bench = KindBench("postgresql", postgres, tmp_path, clinic, extensions)
    spec = bench.catalog(["letter", "patient", "visit"], backup=RULE)
    yield bench, spec
    bench.close()


def provider_of(bench: KindBench, spec: DatabaseSpec) -> DumpProvider:
    found = backups.provider(bench.settings, spec)
    assert isinstance(found, DumpProvider)
    return found


def copies(bench: KindBench) -> list[str]:
    """Handles of copies of which anything is left: a folder, or a server that runs."""
    folder = backups.copies_folder(bench.settings)
    left = {path.name for path in folder.glob("*")}
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    left |= {line for line in listed.stdout.splitlines() if str(folder) in line}
    return sorted(left)


@pytest.fixture(autouse=True)
def lent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where root lends folders to PostgreSQL's own user."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder)
        path.chmod(0o711)
        monkeypatch.setattr(private_postgres, "_LENT", path)
        yield path
        assert list(path.glob("*")) == []


def test_the_partition_holds_the_instant_of_the_backup(
    desk: tuple[KindBench, DatabaseSpec], caplog: pytest.LogCaptureFixture
) -> None:
    bench, spec = desk
    caplog.set_level(logging.INFO)
    began = utc_now()
    reports = bench.mirror_day(spec, source=reading.source(bench.settings, spec))
    assert {name: str(r.error) for name, r in reports.items() if r.error} == {}
    assert {name: r.loaded for name, r in reports.items()} == {
        "letter": 0,
        "patient": 50,
        "visit": 20,
    }
    taken = {report.snapshot_at for report in reports.values()}
    assert len(taken) == 1
    assert began <= taken.pop() <= utc_now()
    assert all(report.schema and report.schema.key for report in reports.values())
    isolations = bench.query('SELECT DISTINCT snapshot FROM clinic_mirror."MIRROR_METADATA"')
    assert isolations == [("one instant",)]
    assert bench.rows("patient", "id, name, mood", where="id = 7") == [(7, f"{CANARY}7", "good")]
    assert copies(bench) == []
    told = caplog.text
    assert "holds the state of" in told
    assert "is removed" in told
    assert CANARY not in told
    assert bench.server._password("reader") not in told


def test_another_days_run_makes_no_backup(
    desk: tuple[KindBench, DatabaseSpec], caplog: pytest.LogCaptureFixture
) -> None:
    bench, spec = desk
    caplog.set_level(logging.INFO)
    yesterday = utc_now().date() - timedelta(days=1)
    source = reading.source(bench.settings, spec)
    report = bench.mirror_day(spec, "patient", day=yesterday, source=source)["patient"]
    assert report.error is not None
    assert report.error.kind == "wrong_day"
    assert "a backup is made" not in caplog.text


def test_e_43_a_copy_that_dies_in_the_middle_of_a_table_publishes_nothing_of_it(
    desk: tuple[KindBench, DatabaseSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec = desk
    folder = backups.copies_folder(bench.settings)
    real = backup.PostgresSnapshot.export

    def dying(self: Any, table: Any, schema: Any, writer: Any) -> int:
        if table.name != "patient" or "copy" not in self._session._raw.dsn:
            return real(self, table, schema, writer)
        writer.write(b"1,half,good\n", 1, 12)
        for path in folder.glob("*"):
            data = private_postgres.home(path) / "data"
            pid = private_postgres.server_pid(data, data / "postmaster.pid")
            assert pid
            private_postgres.stop(pid, signal.SIGQUIT, 10)
        return real(self, table, schema, writer)

    monkeypatch.setattr(backup.PostgresSnapshot, "export", dying)
    reports = bench.mirror_day(
        spec, "letter", "patient", "visit", source=reading.source(bench.settings, spec)
    )
    assert reports["letter"].published
    for name in ("patient", "visit"):
        error = reports[name].error
        assert error is not None
        assert error.transient
        assert CANARY not in str(error)
    published = bench.query(
        'SELECT "TABLE_NAME" FROM clinic_mirror."MIRROR_METADATA" WHERE published'
    )
    assert published == [("letter",)]
    assert copies(bench) == []


def failing(stage: str) -> Callable[[str], str]:
    """PostgreSQL's programs, of which one ends with exit code 3 after half its output."""
    real = private_postgres.program

    def found(name: str) -> str:
        if name != stage:
            return real(name)
        path = Path(os.environ["PG_FAILING"]) / name
        path.write_text(
            f'#!/bin/sh\n{real(name)} "$@" | head -c 900\necho "{CANARY}" >&2\nexit 3\n'
        )
        path.chmod(0o755)
        return str(path)

    return found


@pytest.mark.parametrize("stage", ["pg_dump", pytest.param("pg_restore", marks=pytest.mark.slow)])
def test_each_stage_is_believed_by_its_own_exit_code(
    desk: tuple[KindBench, DatabaseSpec],
    stage: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, spec = desk
    monkeypatch.setenv("PG_FAILING", str(tmp_path))
    monkeypatch.setattr(dumped.private, "program", failing(stage))
    source = reading.source(bench.settings, spec)
    error = bench.mirror_day(spec, "patient", source=source)["patient"].error
    assert error is not None
    assert (error.kind, error.transient) == ("backup", True)
    assert error.what.startswith(f"{stage} ended with exit code 3")
    assert CANARY not in caplog.text + str(error)
    assert copies(bench) == []


@pytest.mark.slow
def test_a_table_that_lost_rows_on_the_way_is_noticed(
    desk: tuple[KindBench, DatabaseSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec = desk
    monkeypatch.setattr(
        dumped, "_WANTED", dumped._WANTED.replace("ORDER BY", "AND c.relname <> 'visit_1' ORDER BY")
    )
    error = bench.mirror_day(spec, "patient", source=reading.source(bench.settings, spec))[
        "patient"
    ].error
    assert error is not None
    assert (error.where, error.kind) == ("clinic/visit", "rows_unaccounted")
    assert "holds 0 of 20 rows" in error.what


def test_provisioning_that_fails_leaves_nothing(
    desk: tuple[KindBench, DatabaseSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec = desk
    monkeypatch.setattr(private_postgres, "start", _refuse)
    error = bench.mirror_day(spec, "patient", source=reading.source(bench.settings, spec))[
        "patient"
    ].error
    assert error is not None
    assert error.kind == "private_server"
    assert copies(bench) == []


def _refuse(*_: object, **__: object) -> None:
    raise private_postgres.ServerFailed("no port is free")


_CHILD = """
import sys
from datetime import UTC, datetime
from mirror_assets.settings import reading
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.settings import Settings
settings = Settings.from_env()
spec = settings.database("clinic")
with reading.source(settings, spec).snapshot() as snapshot:
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_the_copy_of_a_killed_run_is_swept_and_only_that(
    desk: tuple[KindBench, DatabaseSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _spec = desk
    folder = backups.copies_folder(bench.settings)
    command = [sys.executable, "-c", _CHILD]
    environment = os.environ | bench.variables | {"CLINIC_DATABASE_URL": bench.url}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    killed, living = (
        subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
        for _ in range(2)
    )
    try:
        for child in (killed, living):
            assert child.stdout.readline() == "reading\n"
        homes = [private_postgres.home(path) for path in folder.glob("*")]
        killed.kill()
        killed.wait()
        assert len(list(folder.glob("*"))) == 2
        settings = bench.settings_with(CLINIC_DATABASE_URL=bench.url)
        spec = settings.database("clinic")
        assert backups.sweep_leftovers(settings, spec, lambda _run: False) == {}, "it is young yet"
        later = utc_now() + timedelta(hours=7)
        monkeypatch.setattr(backups, "datetime", _At(later))
        assert list(backups.sweep_leftovers(settings, spec, lambda _run: False).values()) == [None]
        assert len(list(folder.glob("*"))) == 1
        living.communicate("", timeout=20)
        assert living.returncode == 0
    finally:
        for child in (killed, living):
            child.kill()
    assert copies(bench) == []
    assert not any(home.exists() for home in homes)


class _At:
    def __init__(self, instant: datetime) -> None:
        self._instant = instant

    def now(self, _zone: object) -> datetime:
        return self._instant


def test_what_is_not_a_table_is_refused_by_name(desk: tuple[KindBench, DatabaseSpec]) -> None:
    bench, _spec = desk
    spec = bench.catalog(["patient", "shown"], backup=RULE)
    source = reading.source(bench.settings, spec)
    error = bench.mirror_day(spec, "patient", source=source)["patient"].error
    assert error is not None
    assert "shown is not a table" in error.what
