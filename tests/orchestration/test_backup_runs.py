"""Mirror runs over a restored backup, through Dagster."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from mirror_assets.mirroring.sources import private_postgres
from mirror_assets.orchestration.alerts.sensors import LEFTOVERS
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.sample.servers import READER
from mirror_assets.settings import Settings, backups
from tests.conftest import ROOT, KindBench, utc_now
from tests.orchestration.conftest import Run

RULE = {"provider": "postgres", "ready_minutes": 1}
CANARY = "canary-password-of-the-copy"


@pytest.fixture
def clinic(pg_bench: KindBench, monkeypatch: pytest.MonkeyPatch) -> KindBench:
    pg_bench.run(
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 30)",
        "CREATE TABLE b (id int PRIMARY KEY)",
    )
    pg_bench.catalog(["a", "b"], backup=RULE, chunk_size=1)
    for name, value in pg_bench.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIRROR_DATABASES", "clinic")
    return pg_bench


def test_all_chunks_share_one_copy_and_the_events_tell_its_life_without_its_password(
    clinic: KindBench, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = secrets.token_hex
    monkeypatch.setattr(secrets, "token_hex", lambda size: CANARY if size == 24 else real(size))
    definitions = build_definitions(Settings.from_env())
    job = definitions.resolve_job_def("clinic_mirror")
    result = job.execute_in_process(instance=instance, partition_key=str(utc_now().date()))
    run = Run(instance, result)
    assert run.materialized == {"a", "b"}
    told = run.everything()
    assert told.count("a backup is made and restored") == 1
    assert "holds the state of" in told
    assert CANARY not in told
    assert clinic.server._password(READER) not in told
    snapshots = clinic.query(
        'SELECT count(DISTINCT snapshot_at) FROM clinic_mirror."MIRROR_METADATA"'
    )
    assert snapshots == [(1,)]
    assert not list(backups.copies_folder(Settings.from_env()).glob("*"))


def test_the_sensor_is_there_where_a_backup_is_read(
    clinic: KindBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sensors() -> set[str]:
        found = build_definitions(Settings.from_env()).get_repository_def().sensor_defs
        return {sensor.name for sensor in found}

    assert LEFTOVERS in sensors()
    monkeypatch.setenv("CLINIC_BACKUP", "live")
    assert LEFTOVERS not in sensors()


@pytest.mark.slow
def test_a_run_that_is_terminated_removes_its_copy(clinic: KindBench, tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    clinic.run("INSERT INTO a SELECT generate_series(1000, 3000000)")  # some seconds to read
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m"]
    command += ["mirror_assets.definitions", "--select", "group:clinic", "--partition"]
    environment = os.environ | {"DAGSTER_HOME": str(home), "CLINIC_DATABASE_URL": clinic.url}
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(
            [*command, str(utc_now().date())], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    folder = backups.copies_folder(Settings.from_env())
    try:
        _await(lambda: bool(list(folder.glob("*/schema.dump"))), child)
        homes = [private_postgres.home(path) for path in folder.glob("*")]
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) != 0
    finally:
        child.kill()
    assert list(folder.glob("*")) == []
    assert not any(home.exists() for home in homes), (tmp_path / "log").read_text()[-2000:]


def _await(condition: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
