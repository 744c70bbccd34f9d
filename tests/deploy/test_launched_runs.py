"""Runs launched into the cluster double, which runs what their Jobs say as local processes."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from mirror_assets import definitions
from mirror_assets.keys import REFRESH_TAG
from mirror_assets.settings import Settings
from tests.conftest import Bench
from tests.deploy import chart, launched
from tests.deploy.conftest import launching
from tests.fakes.cloud_storage import CloudStorage
from tests.fakes.kubernetes import Cluster

Status = dg.DagsterRunStatus


class World:
    """A vendor's database of three tables in two chunks, and a cluster to mirror it in."""

    def __init__(self, bench: Bench, cluster: Cluster, instance: dg.DagsterInstance) -> None:
        self.bench = bench
        self.cluster = cluster
        self.instance = instance

    def launch(self, job: str = "clinic_mirror", **tags: str) -> tuple[str, str]:
        """Launch a run of the day that the source holds: run id and name of its Job."""
        found = definitions.build(Settings.from_env()).resolve_job_def(job)
        day = self.bench.day(self.bench.settings.database("clinic"))
        run = launched.create_run(self.instance, found, str(day), **tags)
        return run.run_id, launched.launch(self.instance, run)

    def status(self, run_id: str) -> Status:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def until(self, run_id: str, status: Status, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while self.status(run_id) != status:
            assert time.monotonic() < deadline, (self.status(run_id), self.told(run_id))
            time.sleep(0.2)

    def await_pods(self, run_id: str, number: int, seconds: float = 90) -> None:
        """Wait until a run and its steps have so many pods."""
        deadline = time.monotonic() + seconds
        while len(self.cluster.names) < number:
            assert time.monotonic() < deadline, self.told(run_id)
            time.sleep(0.2)

    def told(self, run_id: str) -> list[str]:
        return [str(event.message) for event in self.instance.all_logs(run_id)][-20:]

    def log_keys(self, run_id: str) -> list[list[str]]:
        """Where the compute log manager keeps what the run's steps print."""
        return [
            [run_id, "compute_logs", event.dagster_event.logs_captured_data.file_key]
            for event in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
            if event.dagster_event is not None
        ]

    def await_lock(self, seconds: float = 60) -> None:
        """Wait until a run waits for the lock of ``held_up``."""
        waiting = "SELECT 1 FROM information_schema.processlist WHERE state LIKE 'Waiting for%'"
        deadline = time.monotonic() + seconds
        with closing(self.bench.server.admin(self.bench.schema)) as admin, admin.cursor() as cursor:
            while not cursor.execute(waiting):
                assert time.monotonic() < deadline
                time.sleep(0.1)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Somebody locks table ``a``, so that a run gets no further."""
        with closing(self.bench.server.admin(self.bench.schema)) as admin:
            with admin.cursor() as cursor:
                cursor.execute("LOCK TABLES a WRITE")
            yield


@contextmanager
def mirrored(bench: Bench, folder: Path, **configured: Any) -> Iterator[World]:
    """A world in production's settings, which must be this process's too while it lasts."""
    for number, name in enumerate("abc"):
        bench.run(f"CREATE TABLE {name} (id int)", f"INSERT INTO {name} VALUES ({number})")
    bench.catalog(["a", "b", "c"], chunk_size=2)
    environment = bench.variables | {
        "MIRROR_ENVIRONMENT": "production",
        "MIRROR_DATABASES": "clinic",
        "MIRROR_DOCUMENTS": str(folder / "documents"),
    }
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with launching(folder, environment, **configured) as (cluster, instance):
            cluster.volumes["catalogs"] = bench.catalogs
            yield World(bench, cluster, instance)


@pytest.fixture
def world(bench: Bench, tmp_path: Path) -> Iterator[World]:
    with mirrored(bench, tmp_path / "cluster") as made:
        yield made


def test_two_pods_mirror_two_chunks_of_one_refresh(world: World) -> None:
    run_id, job = world.launch()
    world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.SUCCESS, (world.told(run_id), world.cluster.log(job))
    steps = [name for name in world.cluster.names if name != job]
    assert len(steps) == 2
    assert all(world.cluster.wait(step) == "Succeeded" for step in steps)
    assert world.cluster.wrong == []

    bench = world.bench
    assert [bench.rows(name, "id") for name in "abc"] == [[(0,)], [(1,)], [(2,)]]
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(True, None)]
    told = bench.rows("MIRROR_METADATA", "DISTINCT snapshot, run_id")
    assert told == [("one refresh", run_id)]
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    (refreshed,) = bench.rows("MIRROR_COMPLETENESS", "refreshed_at")[0]
    assert run.tags[REFRESH_TAG] == refreshed.isoformat()

    # an owned pod goes with the one that started it
    owners = {
        owner["name"]
        for step in world.cluster.jobs
        for owner in step["metadata"].get("ownerReferences") or []
    }
    assert owners == {world.cluster.pod(job)}
    # what was spilled lies in the pod's own scratch volume, and is gone
    assert [path for path in world.cluster.folder.glob("*-scratch/runs/*") if path.is_dir()] == []


@pytest.mark.slow
def test_pods_that_find_another_refresh_than_their_run_publish_nothing(world: World) -> None:
    run_id, job = world.launch(**{REFRESH_TAG: "2026-01-01T04:00:00+00:00"})
    world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.FAILURE
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "true"
    assert world.bench.rows("MIRROR_COMPLETENESS", "complete, tables_published") == [(False, 0)]
    assert {row[0] for row in world.bench.errors("kind")} == {"refresh_landed"}


@pytest.mark.slow
def test_a_run_in_one_pod_copies_all_chunks_from_one_snapshot(world: World) -> None:
    world.bench.catalog(["a", "b", "c"], chunk_size=2, pods={"per": "run"})
    run_id, job = world.launch()
    world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.SUCCESS, world.told(run_id)
    assert world.cluster.names == [job]
    assert world.bench.rows("MIRROR_METADATA", "DISTINCT snapshot") == [("one instant",)]


@pytest.mark.slow
def test_a_run_whose_pod_is_killed_is_found_and_failed(world: World) -> None:
    world.bench.catalog(["a", "b", "c"], chunk_size=2, pods={"per": "run"})
    with world.held_up():
        run_id, job = world.launch()
        world.until(run_id, Status.STARTED)
        world.cluster.kill(job)
        world.cluster.wait(job)
        record = world.instance.get_run_record_by_id(run_id)
        assert record is not None
        assert world.status(run_id) == Status.STARTED  # nobody has noticed
        monitor_started_run(
            world.instance,
            None,  # type: ignore[arg-type]
            record,
            logging.getLogger(__name__),
        )
    assert world.status(run_id) == Status.FAILURE
    run_id, job = world.launch()
    world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.SUCCESS, world.told(run_id)


@pytest.mark.slow
def test_the_killed_pod_of_a_step_fails_its_run_and_the_other_chunk_stays(world: World) -> None:
    with world.held_up():
        run_id, job = world.launch()
        world.await_pods(run_id, 3)
        step = world.cluster.labelled("dagster/op", "clinic_chunk_000")
        other = world.cluster.labelled("dagster/op", "clinic_chunk_001")
        assert world.cluster.wait(other) == "Succeeded"
        world.cluster.kill(step)
        world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.FAILURE
    assert world.bench.rows("c", "id") == [(2,)]
    assert world.bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "a, b")]
    run_id, job = world.launch()
    world.cluster.wait(job, 120)
    assert world.status(run_id) == Status.SUCCESS, world.told(run_id)
    assert world.bench.rows("MIRROR_COMPLETENESS", "complete") == [(True,)]


@pytest.mark.slow
def test_a_run_that_is_terminated_is_canceled(world: World) -> None:
    world.bench.catalog(["a", "b", "c"], chunk_size=2, pods={"per": "run"})
    with world.held_up():
        run_id, job = world.launch()
        # Not while it imports: Python drops what a signal's handler raises in a weakref's callback
        world.await_lock()
        assert world.instance.run_launcher.terminate(run_id)
    world.cluster.wait(job)
    assert world.status(run_id) == Status.CANCELED
    assert world.bench.ask("SELECT 1") == [(1,)]


@pytest.mark.slow
def test_a_terminated_run_ends_the_pods_of_its_steps(world: World) -> None:
    with world.held_up():
        run_id, _job = world.launch()
        world.await_pods(run_id, 3)
        assert world.instance.run_launcher.terminate(run_id)
    for name in world.cluster.names:
        world.cluster.wait(name)
    assert world.status(run_id) == Status.CANCELED


@pytest.mark.slow
def test_what_a_killed_pod_printed_stays_readable(
    bench: Bench, tmp_path: Path, cloud_storage: CloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logs are in the bucket, and the UI's process reads them there."""
    for name in ("pods", "ui"):
        (tmp_path / name).mkdir()
    ours = chart.values()["computeLogManager"]["config"]["gcsComputeLogManager"]
    logs = {
        "module": "dagster_gcp.gcs.compute_log_manager",
        "class": "GCSComputeLogManager",
        "config": {
            "bucket": cloud_storage.bucket().removeprefix("gs://"),
            "prefix": ours["prefix"],
            "local_dir": {"env": "LOGS_OF_THIS_PROCESS"},
            "upload_interval": 1,
        },
    }
    monkeypatch.setenv("LOGS_OF_THIS_PROCESS", str(tmp_path / "ui"))
    with mirrored(bench, tmp_path / "cluster", compute_logs=logs) as world:
        pods = world.cluster.config_maps["mirror-settings"]
        pods |= cloud_storage.variables | {"LOGS_OF_THIS_PROCESS": str(tmp_path / "pods")}
        bench.catalog(["a", "b", "c"], chunk_size=2, pods={"per": "run"})
        with world.held_up():
            run_id, job = world.launch()
            manager: Any = world.instance.compute_log_manager
            deadline = time.monotonic() + 90
            while not any(
                manager.cloud_storage_has_logs(key, ComputeIOType.STDERR, partial=True)
                for key in world.log_keys(run_id)
            ):
                assert time.monotonic() < deadline, world.told(run_id)
                time.sleep(0.5)
            world.cluster.kill(job)
            world.cluster.wait(job)
        shutil.rmtree(tmp_path / "pods")
        (key,) = world.log_keys(run_id)
        text = manager.get_log_data(key).stderr
        assert run_id in text.decode()
