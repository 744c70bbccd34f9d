"""Sensors, schedules, health checks, alerts and upkeep over a vendor that refreshes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import dagster as dg
import pytest

from mirror_assets.mirroring import derived
from mirror_assets.mirroring.retention import expire
from mirror_assets.orchestration import sensors, upkeep
from mirror_assets.orchestration.dbt_manifest import Manifest
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.sample import elation
from mirror_assets.settings import Settings
from tests.conftest import SCALE, Bench
from tests.orchestration.conftest import Run

Execute = Callable[..., Run]


@pytest.fixture
def graph(vendor: Bench, monkeypatch: pytest.MonkeyPatch) -> dg.RepositoryDefinition:
    for name, value in (vendor.variables | {"MIRROR_SETTLE_MINUTES": "0.01"}).items():
        monkeypatch.setenv(name, value)
    return build_definitions(Settings.from_env()).get_repository_def()


def look(graph: dg.RepositoryDefinition, cursor: str | None) -> tuple[list[Any], str, str | None]:
    """One tick of the refresh sensor: requests, reason to skip, and the cursor it leaves."""
    context = dg.build_sensor_context(cursor=cursor, repository_def=graph)
    data = graph.get_sensor_def("elation_refresh_sensor").evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message or "", data.cursor


def settle() -> None:
    import time

    time.sleep(1.7)  # CREATE_TIME counts seconds, and the wait is 0.6 of one


def test_the_sensor_fires_once_per_complete_refresh(
    vendor: Bench, graph: dg.RepositoryDefinition
) -> None:
    settle()
    requests, _reason, cursor = look(graph, None)
    assert len(requests) == 1
    assert requests[0].partition_key == datetime.now(UTC).date().isoformat()
    again, reason, cursor = look(graph, cursor)
    assert again == []
    assert "already requested" in reason

    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE, mode="alter")
    settle()
    altered, reason, cursor = look(graph, cursor)
    assert altered == []
    assert elation.ALTERED_TABLE in reason

    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE, mutation=2)
    settle()
    second, _reason, cursor = look(graph, cursor)
    assert len(second) == 1
    assert second[0].partition_key == requests[0].partition_key
    assert second[0].run_key != requests[0].run_key


def test_a_half_finished_refresh_does_not_fire(
    vendor: Bench, graph: dg.RepositoryDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = len(elation.TABLES) // 2
    vendor.run(*(f"DROP TABLE `{name}`" for name in elation.TABLES[:half]))
    settle()
    requests, reason, _cursor = look(graph, None)
    assert requests == []
    assert "are not to be seen" in reason


class _AWindowLater(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + timedelta(minutes=61)


def test_a_refresh_without_one_table_fires_when_it_has_ended(
    vendor: Bench, graph: dg.RepositoryDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor.run("DROP TABLE bill")
    settle()
    now = datetime.now(UTC)
    for requests, reason in (look(graph, None)[:2], fall_back(graph, now)):
        assert requests == []
        assert "not to be seen: bill" in reason
        assert "waiting" in reason
    monkeypatch.setattr(sensors, "datetime", _AWindowLater)
    (seen,), _reason, cursor = look(graph, None)
    (missed,), _reason = fall_back(graph, now)
    assert seen.run_key == missed.run_key  # whoever is second starts nothing
    assert seen.partition_key == now.date().isoformat()
    assert look(graph, cursor)[0] == []


def test_a_refresh_mirrored_by_hand_does_not_fire(
    vendor: Bench, graph: dg.RepositoryDefinition
) -> None:
    spec = vendor.elation()
    settle()
    vendor.mirror_day(spec)
    requests, reason, cursor = look(graph, None)
    assert requests == []
    assert "mirrored already" in reason
    assert cursor is not None


def fall_back(graph: dg.RepositoryDefinition, moment: datetime) -> tuple[list[Any], str]:
    context = dg.build_schedule_context(scheduled_execution_time=moment, repository_def=graph)
    data = graph.get_schedule_def("elation_fallback").evaluate_tick(context)
    return list(data.run_requests or []), data.skip_message or ""


def test_the_fallback_mirrors_what_the_sensor_missed_and_only_that(
    vendor: Bench, graph: dg.RepositoryDefinition
) -> None:
    now = datetime.now(UTC)
    settle()
    requests, _reason = fall_back(graph, now)
    assert [request.partition_key for request in requests] == [now.date().isoformat()]
    vendor.mirror_day(vendor.elation())
    requests, reason = fall_back(graph, now)
    assert requests == []
    assert "is mirrored" in reason


def test_the_fallback_does_not_relabel_an_old_refresh(graph: dg.RepositoryDefinition) -> None:
    settle()
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    requests, reason = fall_back(graph, tomorrow)
    assert requests == []
    assert f"no complete refresh of {tomorrow.date()}" in reason


def test_a_live_database_is_mirrored_at_its_hours(bench: Bench, definitions: Any) -> None:
    bench.run("CREATE TABLE a (id int)")
    bench.catalog(["a"], refresh={"rule": "schedule", "cron": ["0 5 * * *", "0 17 * * *"]})
    graph = definitions().get_repository_def()
    schedule = graph.get_schedule_def("clinic_schedule")
    assert schedule.cron_schedule == ["0 5 * * *", "0 17 * * *"]
    moment = datetime(2026, 11, 22, 17, tzinfo=UTC)
    context = dg.build_schedule_context(scheduled_execution_time=moment, repository_def=graph)
    data = schedule.evaluate_tick(context)
    assert [request.partition_key for request in data.run_requests or []] == ["2026-11-22"]


def test_a_fresh_database_is_healthy_and_leaves_its_slis(bench: Bench, execute: Execute) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    spec = bench.catalog(["a"], freshness_hours=1)
    bench.mirror_day(spec)
    run = execute("clinic_health")
    assert run.success
    assert run.check_names["freshness"][0]
    assert run.check_names["catalog_complete"][0]
    age = bench.query("SELECT hours_since_last_update FROM sli_metrics.clinic_mirror_age")
    assert len(age) == 1
    assert 0 <= age[0][0] < 1


def test_a_stale_database_turns_the_run_red_and_names_the_vendor(
    bench: Bench, execute: Execute
) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"], freshness_hours=24, vendor_contact="the vendor's desk")
    bench.mirror_day(spec, source=bench.earlier(spec, days=2))
    run = execute("clinic_health")
    assert not run.success
    passed, sentence = run.check_names["freshness"]
    assert not passed
    assert "24 are allowed" in sentence
    assert sentence in run.failures[0]


def test_a_table_nobody_mirrors_is_a_warning(bench: Bench, execute: Execute) -> None:
    bench.run("CREATE TABLE a (id int)", "CREATE TABLE forgotten (id int)")
    spec = bench.catalog(["a"])
    bench.mirror_day(spec)
    run = execute("clinic_health")
    assert run.success
    passed, sentence = run.check_names["catalog_complete"]
    assert not passed
    assert "forgotten" in sentence
    bench.catalog(["a"], exclude=["forgot*"])
    assert execute("clinic_health").check_names["catalog_complete"][0]


def test_upkeep_deletes_what_has_expired_and_nothing_else(bench: Bench, execute: Execute) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    retention = {"landing_days": 2, "lake_days": 3, "time_travel_days": 0}
    spec = bench.catalog(["a"], retention=retention)
    for days in (5, 1):
        bench.mirror_day(spec, source=bench.earlier(spec, days=days))
    kept = bench.day(spec) - timedelta(days=1)
    assert execute("upkeep").success
    assert bench.landing.days("clinic") == [kept]
    assert bench.rows("a", '"_PARTITIONDATE"') == [(kept,)]
    # Elation's seven days of time travel keep the file; alone, this database keeps none
    expire((spec,), bench.landing, bench.warehouse, now=datetime.now(UTC))
    files = bench.root.glob("lake/clinic_mirror/a/**/*.parquet")
    assert [path.parent.parent.name for path in files] == [f"_PARTITIONDATE={kept}"]


def test_upkeep_keeps_derived_data_as_long_as_the_settings_say(
    bench: Bench, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    bench.mirror_day(bench.catalog(["a"]))
    today = datetime.now(UTC).date()
    for days in (40, 5):
        day = today - timedelta(days=days)
        for dataset, table in (("medical", "patient_encounters"), ("mrt_commons", "user")):
            with derived.staged(bench.warehouse, dataset, table, day) as made:
                rows = [f"SELECT DATE '{day}' AS mirror_date"]
                derived.stage_query(bench.warehouse, made, rows)
                bench.warehouse.commit(lambda tx, made=made: made.publish(tx, f"{made.table}_view"))
                made.settled = True

    def held(table: str) -> list[int]:
        rows = bench.query(f"SELECT DISTINCT mirror_date FROM {table}")
        return sorted((today - day).days for (day,) in rows)

    assert execute("upkeep").success
    assert held("mrt_commons.user") == held("medical.patient_encounters") == [5, 40]
    monkeypatch.setenv("MIRROR_DERIVED_DAYS", "30")
    assert execute("upkeep").success
    assert held("mrt_commons.user") == held("medical.patient_encounters") == [5]


def test_every_table_that_dbt_makes_expires() -> None:
    manifest = Manifest.load()
    made = {f"{node['schema']}.{node['name']}" for node in manifest.models.values()}
    known = {f"{copy.dataset}.{copy.table}" for copy in upkeep.copies()}
    assert made - known == {"src_mirrored.src_patient_encounters_latest"}  # a view
    assert known - made == {"medical.patient_encounters", "dbt_audit.run_results"}
