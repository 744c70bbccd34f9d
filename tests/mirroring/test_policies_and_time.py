"""Exports outlive catalogs and days outlive runs: what must still hold then."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from mirror_assets.mirroring import health
from mirror_assets.mirroring.control import COMPLETENESS, COMPLETENESS_VIEW
from mirror_assets.mirroring.errors import CatalogError
from mirror_assets.mirroring.schema import TableSchema
from mirror_assets.mirroring.warehouses.base import Transaction
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction
from tests.conftest import Bench, Interrupted, KindBench, utc_now


def _people(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, ssn varchar(20))",
        "INSERT INTO t VALUES (1, '123-45')",
    )


def test_a_column_masked_since_the_export_is_read_again(bench: Bench) -> None:
    _people(bench)
    bench.mirror_day(bench.catalog(["t"]))
    report = bench.mirror_day(bench.catalog({"t": {"masked_columns": ["ssn"]}}))["t"]
    assert (report.published, report.replayed) == (True, False)
    assert bench.rows("t_latest") == [(1, "masked")]


@pytest.mark.parametrize("policy", ["masked_columns", "exclude_columns"])
def test_a_replay_never_brings_a_hidden_column_back(bench: Bench, policy: str) -> None:
    _people(bench)
    spec = bench.catalog(["t"])
    past = bench.day(spec) - timedelta(days=1)
    bench.mirror_day(spec, source=bench.earlier(spec, days=1))
    assert bench.mirror_day(spec, day=past)["t"].replayed
    hidden = bench.catalog({"t": {policy: ["ssn"]}})
    refused = bench.mirror_day(hidden, day=past)["t"]
    assert refused.error is not None
    assert "excluded or masked since" in refused.error.what


def test_a_replay_does_not_add_a_column_that_later_days_dropped(bench: Bench) -> None:
    _people(bench)
    spec = bench.catalog(["t"], breaking_drift="deprecate")
    past = bench.day(spec) - timedelta(days=1)
    bench.mirror_day(spec, source=bench.earlier(spec, days=1))
    bench.run("ALTER TABLE t DROP COLUMN ssn")
    today = bench.mirror_day(spec)["t"]
    assert today.published
    replayed = bench.mirror_day(spec, day=past)["t"]
    assert replayed.error is not None
    assert replayed.error.kind == "drift"
    assert bench.rows("t_latest") == [(1,)]


def test_sharded_tables_cannot_be_set_aside(bench: Bench) -> None:
    sharded = {"layout": "sharded", "latest_view": "{table}"}
    with pytest.raises(CatalogError, match="older days' views"):
        bench.catalog(["t"], **sharded, breaking_drift="deprecate")
    bench.catalog(["t"], **sharded)


def test_a_table_that_is_still_being_filled_is_no_complete_refresh(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int)")
    bench.next_second()
    spec = bench.catalog(["t"], refresh={"rule": "vendor", "cron": "0 5 * * *"})
    source = bench.earlier(spec, hours=1)
    assert health.look_at_source(spec, source, utc_now()).refresh_instant is not None
    bench.run("INSERT INTO t VALUES (1)")
    view = health.look_at_source(spec, source, utc_now())
    assert view.refresh_instant is None
    assert "waiting" in view.facts["refresh_state"]


def test_a_live_day_is_not_whole_while_a_tables_last_attempt_failed(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE a (id int)", "CREATE TABLE b (id int)")
    spec = any_bench.catalog(["a", "b"])
    any_bench.mirror_day(spec)
    whole = "complete, missing_tables"
    assert any_bench.rows("MIRROR_COMPLETENESS", whole) == [(True, None)]
    any_bench.run("DROP TABLE b")
    any_bench.mirror_day(spec)
    assert any_bench.rows("MIRROR_COMPLETENESS", whole) == [(False, "b")]


def test_a_failed_run_does_not_make_old_live_data_fresh(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE a (id int)")
    spec = any_bench.catalog(["a"], freshness_hours=1)
    any_bench.mirror_day(spec)
    view = health.SourceView(True, "")
    later = utc_now() + timedelta(hours=2)
    assert health.freshness(spec, any_bench.warehouse, view, utc_now()).fresh
    assert not health.freshness(spec, any_bench.warehouse, view, later).fresh
    any_bench.mirror_day(spec, day=any_bench.day(spec) - timedelta(days=9))
    assert not health.freshness(spec, any_bench.warehouse, view, later).fresh


def test_coverage_gives_no_figure_when_a_tables_rows_were_never_counted(bench: Bench) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    bench.run("CREATE TABLE b (id int)")
    bench.mirror_day(bench.catalog({"a": None, "b": {"exclude_columns": ["gone"]}}))
    assert bench.query("SELECT coverage FROM sli_metrics.clinic_mirror_coverage") == [(None,)]


def test_a_silent_source_keeps_its_newest_partition(bench: Bench) -> None:
    from mirror_assets.mirroring.retention import expire

    _people(bench)
    spec = bench.catalog(["t"], retention={"lake_days": 5})
    bench.mirror_day(spec, source=bench.earlier(spec, days=30))
    bench.mirror_day(spec, source=bench.earlier(spec, days=20))
    expire((spec,), bench.landing, bench.warehouse, now=utc_now())
    assert len(bench.rows("t")) == 1
    assert bench.rows("t_latest") == [(1, "123-45")]


def test_a_table_that_costs_the_connection_fails_alone(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.run(f"CREATE TABLE {name} (id int)", f"INSERT INTO {name} VALUES (1)")
    spec = bench.catalog(["a", "b", "c"])

    def kill() -> None:
        for (number,) in bench.ask(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'reader'"
        ):
            bench.run(f"KILL CONNECTION {number}")

    reports = bench.mirror_day(spec, source=Interrupted(bench.source(spec), "b", "before", kill))
    assert {name: report.published for name, report in reports.items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    assert reports["b"].error is not None
    assert reports["b"].error.transient


def test_a_live_snapshot_taken_anew_is_said_to_be_another_instant(pg_bench: KindBench) -> None:
    for name in ("a", "b", "c"):
        pg_bench.run(f"CREATE TABLE {name} (id int)")
    spec = pg_bench.catalog(["a", "b", "c"])

    def kill() -> None:
        pg_bench.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"
        )

    source = Interrupted(pg_bench.source(spec), "b", "before", kill)
    reports = pg_bench.mirror_day(spec, source=source)
    assert [reports[name].published for name in ("a", "b", "c")] == [True, False, True]
    told = dict(pg_bench.rows("MIRROR_METADATA", "TABLE_NAME, snapshot", where="published"))
    assert told == {"a": "one instant", "c": "per table"}


def test_control_tables_of_an_older_version_gain_the_newer_columns(bench: Bench) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"])
    bench.mirror_day(spec)

    def age(tx: DuckLakeTransaction) -> None:
        tx._connection.execute(
            'ALTER TABLE clinic_mirror."MIRROR_COMPLETENESS_HISTORY" DROP COLUMN newest_snapshot_at'
        )

    bench.warehouse.commit(age)  # type: ignore[arg-type]
    assert bench.mirror_day(spec)["a"].published
    newest = bench.rows("MIRROR_COMPLETENESS", "newest_snapshot_at IS NOT NULL")
    assert newest == [(True,)]


def test_completeness_written_by_an_older_version_moves_below_its_view(bench: Bench) -> None:
    bench.run("CREATE TABLE a (id int)")
    spec = bench.catalog(["a"])
    before = date(2020, 1, 1)
    told = {
        "partition": before,
        "complete": True,
        "tables_expected": 1,
        "tables_published": 1,
        "missing_tables": None,
        "refreshed_at": None,
        "oldest_snapshot_at": None,
        "source_rows": 3,
        "loaded_rows": 3,
        "rejected_rows": 0,
        "run_id": "then",
        "updated_at": datetime(2020, 1, 1, 12, tzinfo=UTC),
    }
    older = TableSchema(tuple(c for c in COMPLETENESS.schema.columns if c.name in told))

    def write(tx: Transaction) -> None:
        tx.create_table(spec.dataset, COMPLETENESS_VIEW, older, partitioned=False)
        tx.replace_rows(spec.dataset, COMPLETENESS_VIEW, [told])

    bench.warehouse.commit(write)
    for _ in range(2):
        assert bench.mirror_day(spec)["a"].published
        days = bench.rows(COMPLETENESS_VIEW, "partition, loaded_rows")
        assert sorted(days) == [(before, 3), (bench.day(spec), 0)]


def test_what_is_said_of_a_day_last_counts_whatever_the_clock_says(bench: Bench) -> None:
    bench.run("CREATE TABLE a (id int)", "CREATE TABLE b (id int)")
    spec = bench.catalog(["a", "b"])
    bench.mirror_day(spec, "a", clock=lambda: utc_now() + timedelta(hours=1))
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "b")]
    bench.mirror_day(spec, "b")
    assert bench.rows("MIRROR_COMPLETENESS", "complete") == [(True,)]
    assert bench.rows("MIRROR_METADATA_latest", "count(*) FILTER (published)") == [(2,)]
