"""Mirror runs through Dagster: what is materialized, what is checked, what is retried."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.events import RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run

from tests.conftest import Bench
from tests.orchestration.conftest import Run

Execute = Callable[..., Run]


def two_good_and_one_bad(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.run(f"CREATE TABLE {name} (id int primary key, d date)")
        bench.run(f"INSERT INTO {name} VALUES (1, '2026-01-01'), (2, '2026-01-02')")
    bench.run("SET sql_mode = ''", "INSERT INTO b VALUES (3, '2026-00-01')")


def test_a_failed_table_is_not_materialized_and_the_others_are(
    bench: Bench, execute: Execute
) -> None:
    two_good_and_one_bad(bench)
    spec = bench.catalog(["a", "b", "c"])
    run = execute("clinic_mirror", bench.day(spec))
    assert not run.success
    assert run.materialized == {"a", "c"}
    assert run.checks == {"a": True, "b": False, "c": True}
    assert "1 of 3 tables were not published" in run.failures[0]
    assert "mirror errors clinic" in run.failures[0]
    assert bench.rows("a_latest", "id") == [(1,), (2,)]
    assert ("b", "BQ", "coverage") in bench.errors()


def test_all_good_tables_make_a_green_run_with_numbers_that_plot(
    bench: Bench, execute: Execute
) -> None:
    bench.run("CREATE TABLE a (id int primary key, t text)", "INSERT INTO a VALUES (1, 'x')")
    spec = bench.catalog(["a"])
    run = execute("clinic_mirror", bench.day(spec))
    assert run.success
    metadata = run.metadata("a")
    assert metadata["dagster/row_count"] == metadata["source_rows"] == 1
    assert metadata["rejected_rows"] == 0
    assert metadata["coverage_percent"] == 100.0
    for number in ("seconds", "rows_per_second", "megabytes"):
        assert isinstance(metadata[number], int | float)
    columns = metadata["dagster/column_schema"].columns
    assert [(c.name, c.type, c.constraints.nullable) for c in columns] == [
        ("id", "INT64", False),
        ("t", "STRING", True),
    ]


def test_permanent_failures_are_not_retried(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance
) -> None:
    two_good_and_one_bad(bench)
    spec = bench.catalog(["a", "b", "c"])
    run = execute("clinic_mirror", bench.day(spec))
    assert not _would_retry(instance, run)


def test_transient_failures_are_retried_once(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"])
    day = bench.day(spec)
    monkeypatch.setenv("CLINIC_DATABASE_URL", "mysql+pymysql://reader@127.0.0.1:1/clinic")
    run = execute("clinic_mirror", day)
    assert not run.success
    assert _would_retry(instance, run)
    assert run.tags["dagster/retry_strategy"] == "FROM_ASSET_FAILURE"
    again = _reexecute(instance, run, monkeypatch)
    assert not _would_retry(instance, again)


def test_a_retry_picks_only_the_tables_that_failed(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance
) -> None:
    two_good_and_one_bad(bench)
    spec = bench.catalog(["a", "b", "c"])
    run = execute("clinic_mirror", bench.day(spec))
    record = instance.get_run_by_id(run.run_id)
    assert record and record.execution_plan_snapshot_id
    plan = instance.get_execution_plan_snapshot(record.execution_plan_snapshot_id)
    assets, _checks = instance.run_domain.get_keys_to_reexecute(run.run_id, plan)
    assert {key.path[-1] for key in assets} == {"b"}


def test_a_chunk_refuses_a_range_of_days_and_takes_each_alone(
    bench: Bench, execute: Execute
) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"])
    day = bench.day(spec)
    bounds = {
        "dagster/asset_partition_range_start": str(day - timedelta(days=1)),
        "dagster/asset_partition_range_end": str(day),
    }
    refused = execute("clinic_mirror", None, tags=bounds)
    assert not refused.success
    assert refused.materialized == set()
    assert "takes one partition, this one was given 2" in refused.failures[0]
    assert execute("clinic_mirror", day).materialized == {"a"}


def test_a_backfill_replays_the_days_that_are_kept_and_refuses_the_others(
    bench: Bench, execute: Execute
) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    spec = bench.catalog(["a"])
    today = bench.day(spec)
    yesterday, before = today - timedelta(days=1), today - timedelta(days=2)
    bench.mirror_day(spec, source=bench.earlier(spec, days=1))
    bench.run("INSERT INTO a VALUES (2)")
    assert execute("clinic_mirror", today).success
    replayed = execute("clinic_mirror", yesterday)
    assert replayed.success
    assert replayed.metadata("a")["replayed_from_landing"]
    refused = execute("clinic_mirror", before)
    assert refused.materialized == set()
    assert f"no export of {before}" in refused.failures[0]
    assert f"the source now holds {today}" in refused.failures[0]
    assert bench.rows("a", '"_PARTITIONDATE", id') == [
        (yesterday, 1),
        (today, 1),
        (today, 2),
    ]


def test_the_chunks_of_a_run_share_one_snapshot(bench: Bench, execute: Execute) -> None:
    names = [f"t{number}" for number in range(5)]
    for name in names:
        bench.run(f"CREATE TABLE {name} (id int)")
    spec = bench.catalog(names, chunk_size=2)
    run = execute("clinic_mirror", bench.day(spec))
    assert run.materialized == set(names)
    instants = bench.rows("MIRROR_METADATA", "DISTINCT snapshot_at, snapshot, run_id")
    assert len(instants) == 1
    assert instants[0][1:] == ("one instant", run.run_id)


def test_a_subset_of_tables_can_be_materialized(bench: Bench, execute: Execute) -> None:
    for name in ("a", "b", "c"):
        bench.run(f"CREATE TABLE {name} (id int)")
    spec = bench.catalog(["a", "b", "c"], chunk_size=2)
    run = execute("clinic_mirror", bench.day(spec), asset_selection=[dg.AssetKey(["clinic", "c"])])
    assert run.materialized == {"c"}
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "a, b")]


def test_a_shrunken_table_is_refused_until_a_person_accepts_it(
    bench: Bench, execute: Execute
) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a SELECT seq FROM seq_1_to_10")
    spec = bench.catalog(["a"])
    bench.mirror_day(spec, source=bench.earlier(spec, days=1))
    bench.run("DELETE FROM a WHERE id > 2")
    today = bench.day(spec)
    refused = execute("clinic_mirror", today)
    assert refused.checks == {"a": False}
    assert "mirror/accept_volume=a" in refused.failures[0]
    accepted = execute("clinic_mirror", today, tags={"mirror/accept_volume": "a"})
    assert accepted.success


def test_no_row_value_and_no_password_reaches_the_event_log(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance, capfd
) -> None:
    canary = "CANARY-7f3a"
    bench.run(
        "CREATE TABLE a (id int primary key, note text, d date)",
        f"INSERT INTO a VALUES (1, '{canary}', '2026-01-01')",
        "SET sql_mode = ''",
        f"INSERT INTO a VALUES (2, '{canary}', '2026-00-01')",
        f"CREATE TABLE b (id int, `{canary[:6]}` geometry, note text)",
        f"INSERT INTO b VALUES (1, NULL, '{canary}')",
    )
    bench.catalog(["a", "b", "nowhere"])
    run = execute("clinic_mirror", datetime.now(UTC).date())
    assert not run.success
    told = run.everything() + "".join(capfd.readouterr())
    password = bench.url.split(":")[2].split("@")[0]
    assert canary not in told
    assert password not in told


def test_scratch_is_empty_after_a_run(bench: Bench, execute: Execute, tmp_path: Path) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"])
    assert execute("clinic_mirror", bench.day(spec)).success
    assert list((tmp_path / "scratch").glob("*")) == []


def _reexecute(instance: dg.DagsterInstance, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """Execute a run again as its child, as the daemon does."""
    monkeypatch.delitem(sys.modules, "mirror_assets.definitions", raising=False)
    job = ReconstructableJob(
        ReconstructableRepository.for_module("mirror_assets.definitions", "defs"), "clinic_mirror"
    )
    options = dg.ReexecutionOptions(parent_run_id=run.run_id)
    with dg.execute_job(job, instance, reexecution_options=options, raise_on_error=False) as child:
        assert not child.success
        return child.run_id


def _would_retry(instance: dg.DagsterInstance, run: Run | str) -> bool:
    """What the run-retry daemon decides about a run that ended in a step failure."""
    record = instance.get_run_by_id(run if isinstance(run, str) else run.run_id)
    assert record is not None
    return auto_reexecution_should_retry_run(instance, record, RunFailureReason.STEP_FAILURE)
