"""A run tells the truth about its day, survives what the vendor does, and can be run again."""

from __future__ import annotations

import os
import random
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import (
    ExportCorrupt,
    RefreshIncomplete,
    RefreshLanded,
    SettingsError,
    SourceFault,
    SourceUnavailable,
    StaleRefresh,
    WrongDay,
)
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.sources.mysql import MySQLSource
from mirror_assets.sample import elation
from mirror_assets.sample.servers import MariaDB
from tests.conftest import Interrupted, start

if TYPE_CHECKING:
    from tests.conftest import Bench

ROOT = Path(__file__).parents[2]
DAY = date(2026, 3, 10)
MORNING = datetime(2026, 3, 10, 4, 30, tzinfo=UTC)
EVENING = datetime(2026, 3, 10, 16, 0, tzinfo=UTC)
NEXT_MORNING = datetime(2026, 3, 11, 4, 30, tzinfo=UTC)


@pytest.fixture
def interrupted(bench: Bench):
    """Makes a source that does something while it reads a table."""
    return lambda spec, table, moment, action: Interrupted(
        bench.source(spec), table, moment, action
    )


def _make(bench: Bench, *tables: str, rows: int = 3) -> None:
    for table in tables:
        bench.run(
            f"CREATE TABLE {table} (id bigint PRIMARY KEY, note varchar(100) NOT NULL)",
            f"INSERT INTO {table} SELECT seq, CONCAT('note ', seq) FROM seq_1_to_{rows}",
        )


# -- the day


def test_another_day_is_replayed_exactly(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("UPDATE t SET note = 'changed'", "INSERT INTO t VALUES (4, 'new')")
    later = bench.as_of(spec, NEXT_MORNING)
    assert not bench.mirror_day(spec, source=later)["t"].replayed

    report = bench.mirror_day(spec, day=DAY, source=later)["t"]

    assert (report.published, report.replayed, report.refreshed_at) == (True, True, MORNING)
    notes = bench.rows("t", "id, note", where=f"_PARTITIONDATE = DATE '{DAY}'")
    assert notes == [(1, "note 1"), (2, "note 2"), (3, "note 3")]
    assert bench.rows("t_latest", "count(*), max(note)") == [(4, "new")]
    stamps = "partition, refreshed_at"
    assert bench.rows("MIRROR_METADATA", f"DISTINCT {stamps}") == [
        (DAY, MORNING),
        (DAY + timedelta(days=1), NEXT_MORNING),
    ]


def test_a_day_that_nobody_kept_is_refused_naming_what_is_held_and_kept(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    later = bench.as_of(spec, NEXT_MORNING)
    report = bench.mirror_day(spec, day=date(2026, 3, 1), source=later)["t"]
    assert isinstance(report.error, WrongDay)
    assert not report.error.transient
    for words in ("no export of 2026-03-01", "now holds 2026-03-11", "kept of: 2026-03-10"):
        assert words in report.error.what
    assert bench.rows("t", "DISTINCT _PARTITIONDATE") == [(DAY,)]


def test_an_expired_export_is_not_replayed(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    later = bench.as_of(spec, NEXT_MORNING)
    assert bench.landing.expire("clinic", DAY) == []
    assert bench.mirror_day(spec, day=DAY, source=later)["t"].replayed
    assert bench.landing.expire("clinic", DAY + timedelta(days=1)) == ["20260310043000"]
    error = bench.mirror_day(spec, day=DAY, source=later)["t"].error
    assert isinstance(error, WrongDay)
    assert bench.rows("t", "count(*)") == [(3,)]  # what was published stays


def test_two_refreshes_of_one_day(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("INSERT INTO t VALUES (4, 'evening')")
    bench.mirror_day(spec, source=bench.as_of(spec, EVENING))

    assert bench.rows("t_latest", "count(*)") == bench.rows("t", "count(*)") == [(4,)]
    folders = sorted(path.name for path in (bench.root / "landing" / "clinic").iterdir())
    assert folders == ["20260310043000", "20260310160000"]
    assert bench.rows("MIRROR_METADATA", "refreshed_at, TABLE_ROWS, published") == [
        (MORNING, 3, True),
        (EVENING, 4, True),
    ]

    stale = bench.mirror_day(spec, source=bench.as_of(spec, MORNING))["t"]
    assert isinstance(stale.error, StaleRefresh)
    assert bench.rows("t_latest", "count(*)") == [(4,)]

    replay = bench.mirror_day(spec, day=DAY, source=bench.as_of(spec, NEXT_MORNING))["t"]
    assert (replay.published, replay.refreshed_at) == (True, EVENING)


def test_a_replay_takes_the_newest_complete_export(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("INSERT INTO t VALUES (4, 'evening')")
    bench.mirror_day(spec, source=bench.as_of(spec, EVENING))
    evening = bench.root / "landing" / "clinic" / "20260310160000"
    other = bench.settings_with(
        MIRROR_WAREHOUSE=f"ducklake:sqlite:{bench.root}/other.sqlite",
        MIRROR_LAKE=str(bench.root / "other"),
    ).warehouse()
    later = bench.as_of(spec, NEXT_MORNING)

    (evening / "t_20260310.manifest.json").unlink()
    report = bench.mirror_day(spec, day=DAY, source=later, warehouse=other)["t"]
    assert (report.published, report.refreshed_at, report.loaded) == (True, MORNING, 3)
    other.close()


def test_a_retry_of_the_same_refresh_does_not_read_the_source_again(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    assert not bench.mirror_day(spec)["t"].replayed
    bench.run("INSERT INTO t VALUES (99, 'written after the export')")
    again = bench.mirror_day(spec)["t"]
    assert (again.published, again.replayed, again.loaded) == (True, True, 3)

    bench.next_second()
    bench.run("CREATE TABLE u AS SELECT * FROM t", "DROP TABLE t", "RENAME TABLE u TO t")
    rebuilt = bench.mirror_day(spec)["t"]
    assert (rebuilt.replayed, rebuilt.loaded) == (False, 4)


def test_a_table_rebuilt_alone_is_read_again_and_the_others_are_not(bench: Bench) -> None:
    _make(bench, "t1", "t2")
    rule = {"rule": "vendor", "cron": "0 5 * * *", "settle_minutes": 0, "share": 0.5}
    spec = bench.catalog(["t1", "t2"], refresh=rule)
    first = bench.mirror_day(spec)
    bench.next_second()
    bench.run("DROP TABLE t2")
    _make(bench, "t2", rows=5)
    again = bench.mirror_day(spec)
    assert {name: report.replayed for name, report in again.items()} == {"t1": True, "t2": False}
    assert again["t2"].refreshed_at == first["t2"].refreshed_at
    assert bench.rows("t2_latest", "count(*)") == bench.rows("t2", "count(*)") == [(5,)]


@pytest.mark.parametrize("damage", ["manifest gone", "manifest torn", "part torn", "part gone"])
def test_an_incomplete_export_does_not_exist(bench: Bench, damage: str) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    folder = bench.root / "landing" / "clinic" / "20260310043000"
    what, how = damage.split()
    file = next(folder.glob("*.manifest.json" if what == "manifest" else "*.csv"))
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-5])
    refused = bench.mirror_day(spec, day=DAY, source=bench.as_of(spec, NEXT_MORNING))["t"]
    assert isinstance(refused.error, WrongDay)
    again = bench.mirror_day(spec, source=bench.as_of(spec, MORNING))["t"]
    assert (again.published, again.replayed, again.loaded) == (True, False, 3)


def test_a_tampered_export_is_refused(bench: Bench) -> None:
    _make(bench, "t", "u")
    spec = bench.catalog(["t", "u"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    part = next((bench.root / "landing" / "clinic").glob("*/t_*.csv"))
    part.write_bytes(part.read_bytes().replace(b"note 2", b"note 9"))
    reports = bench.mirror_day(spec, day=DAY, source=bench.as_of(spec, NEXT_MORNING))
    assert isinstance(reports["t"].error, ExportCorrupt)
    assert not reports["t"].error.transient
    assert reports["u"].published
    assert bench.rows("t_latest", "count(*)", where="note = 'note 2'") == [(1,)]


def test_a_past_day_is_replayed_while_the_vendor_rebuilds(bench: Bench) -> None:
    _make(bench, "t", "u")
    spec = bench.catalog(["t", "u"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("DROP TABLE u")
    source = bench.earlier(spec, days=1)
    reports = bench.mirror_day(spec, day=DAY, source=source)
    assert all(report.published and report.replayed for report in reports.values())

    error = bench.mirror_day(spec, day=DAY - timedelta(days=1), source=source)["t"].error
    assert isinstance(error, RefreshIncomplete)  # the rebuilt state may be that day's
    assert error.transient
    assert "no export of 2026-03-09 to replay" in error.what


def test_a_breaking_replay_never_sets_the_newer_table_aside(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog({"t": {"breaking_drift": "deprecate"}})
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("UPDATE t SET note = id", "ALTER TABLE t MODIFY note int NOT NULL")
    later = bench.as_of(spec, NEXT_MORNING)
    assert bench.mirror_day(spec, source=later)["t"].published

    report = bench.mirror_day(spec, day=DAY, source=later)["t"]
    assert report.error is not None
    assert "t_depr_<n>" in report.error.remedy
    assert bench.rows("t_latest") == [(1, 1), (2, 2), (3, 3)]
    assert bench.rows("t_depr_1", "count(*)") == [(3,)]


def test_an_older_export_without_a_later_column_is_replayed(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.run("ALTER TABLE t ADD COLUMN extra int NULL DEFAULT 7")
    later = bench.as_of(spec, NEXT_MORNING)
    bench.mirror_day(spec, source=later)
    assert bench.mirror_day(spec, day=DAY, source=later)["t"].published
    assert bench.rows("t", "DISTINCT extra", where=f"_PARTITIONDATE = '{DAY}'") == [(None,)]
    assert bench.rows("t_latest", "DISTINCT extra") == [(7,)]


def test_a_live_database_is_read_today_and_replayed_for_other_days(bench: Bench) -> None:
    _make(bench, "t")
    live = {"rule": "schedule", "cron": "0 5 * * *"}
    spec = bench.catalog(["t"], refresh=live)
    today = datetime.now(UTC).date()
    assert bench.mirror_day(spec, day=today)["t"].published
    bench.run("INSERT INTO t VALUES (4, 'later')")
    again = bench.mirror_day(spec, day=today)["t"]
    assert (again.replayed, again.loaded) == (False, 4)  # a new snapshot, not the old export

    tomorrow = lambda: datetime.now(UTC) + timedelta(days=1)  # noqa: E731
    replay = bench.mirror_day(spec, day=today, clock=tomorrow)["t"]
    assert (replay.published, replay.replayed, replay.loaded) == (True, True, 4)
    refused = bench.mirror_day(spec, day=today - timedelta(days=3))["t"]
    assert isinstance(refused.error, WrongDay)
    assert "not asked" in refused.error.what


# -- the vendor, the network, the login


def test_the_vendor_may_drop_a_table_already_read(bench: Bench, interrupted) -> None:
    _make(bench, "t1", "t2")
    spec = bench.catalog(["t1", "t2"])

    def rebuild() -> None:
        bench.run("SET SESSION lock_wait_timeout = 2", "DROP TABLE t1", "CREATE TABLE t1 (id int)")

    reports = bench.mirror_day(
        spec, day=bench.day(spec), source=interrupted(spec, "t2", "before", rebuild)
    )
    assert all(report.published for report in reports.values())
    assert bench.rows("t1_latest", "count(*)") == [(3,)]


def test_a_table_missing_from_a_refresh_that_has_ended_fails_alone(bench: Bench) -> None:
    _make(bench, "t", "u", "v")
    spec = bench.catalog(["t", "u", "v"])
    day = bench.day(spec)
    bench.run("DROP TABLE u")
    for report in bench.mirror_day(spec, day=day).values():  # it may still be on its way
        assert isinstance(report.error, RefreshIncomplete)
        assert not report.published

    ended = timedelta(minutes=spec.entry.refresh.window_minutes)
    reports = bench.mirror_day(spec, day=day, clock=lambda: datetime.now(UTC) + ended)
    assert [name for name, report in reports.items() if report.published] == ["t", "v"]
    error = reports["u"].error
    assert isinstance(error, SourceFault)
    assert not error.transient
    assert "take it out of the catalog" in error.remedy
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "u")]


def test_the_vendor_may_drop_a_table_whose_reading_failed(
    bench: Bench, interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(types.MYSQL, "polygon")
    bench.run("CREATE TABLE t1 (id int, place polygon)")
    _make(bench, "t2")
    bench.run("CREATE TABLE t0 (id int) ENGINE=MyISAM", "INSERT INTO t0 VALUES (1)")
    spec = bench.catalog(["t0", "t1", "t2"])

    def grow() -> None:
        raise OSError(28, "No space left on device")

    def drop() -> None:
        bench.run("SET SESSION lock_wait_timeout = 2", "DROP TABLE t0")

    first = interrupted(spec, "t0", "before", grow)
    kind = type(first)
    source = kind(first, "t2", "before", drop)
    reports = bench.mirror_day(spec, day=bench.day(spec), source=source)
    assert [report.published for report in reports.values()] == [False, False, True]


@pytest.mark.parametrize("change", ["recreated", "dropped", "altered"])
def test_a_table_rebuilt_during_the_run_fails_alone(bench: Bench, interrupted, change: str) -> None:
    _make(bench, "t1", "t2", "t3")
    spec = bench.catalog(["t1", "t2", "t3"])
    day = bench.day(spec)
    bench.next_second()
    statements = {
        "recreated": ["DROP TABLE t2", "CREATE TABLE t2 (id int)", "INSERT INTO t2 VALUES (7)"],
        "dropped": ["DROP TABLE t2"],
        "altered": ["ALTER TABLE t2 ADD COLUMN extra int NULL"],
    }[change]
    source = interrupted(spec, "t1", "before", lambda: bench.run(*statements))

    reports = bench.mirror_day(spec, day=day, source=source)
    assert [report.published for report in reports.values()] == [True, False, True]
    error = reports["t2"].error
    assert isinstance(error, RefreshLanded)
    assert error.transient
    assert bench.errors() == [("t2", "DB", "refresh_landed")]


@pytest.mark.parametrize("moment", ["before", "amid"])
def test_a_killed_connection_is_transient_and_a_rerun_succeeds(
    bench: Bench, interrupted, moment: str
) -> None:
    _make(bench, "t1", "t2", rows=300_000)  # more than the sockets hold
    spec = bench.catalog(["t1", "t2"])

    def kill() -> None:
        for (connection,) in bench.ask(
            "SELECT id FROM information_schema.processlist WHERE user = 'reader' AND db = %s",
            bench.schema,
        ):
            bench.run(f"KILL CONNECTION {connection}")

    reports = bench.mirror_day(spec, source=interrupted(spec, "t1", moment, kill))
    assert isinstance(reports["t1"].error, SourceUnavailable)
    assert reports["t1"].error.transient
    assert reports["t2"].published  # over a new connection, of the same refresh
    assert not list((bench.root / "landing").glob("*/*/t1_*.csv"))
    assert all(report.published for report in bench.mirror_day(spec).values())
    assert bench.errors() == []


def test_a_full_disk_amid_a_table_leaves_the_next_ones_alone(bench: Bench) -> None:
    _make(bench, "t1", "t3")
    bench.run(
        "CREATE TABLE t2 (id int, text longtext)",
        "INSERT INTO t2 SELECT seq, REPEAT('x', 1000) FROM seq_1_to_20000",
    )
    spec = bench.catalog(["t1", "t2", "t3"])
    bench.mirror_day(spec, "t1")  # the lake's own files are made before the limit holds
    with _file_size_limit(4 << 20):
        reports = bench.mirror_day(spec)
    assert [report.published for report in reports.values()] == [True, False, True]
    error = reports["t2"].error
    assert error is not None
    assert (error.kind, error.transient, error.resource) == ("landing", True, "GCS")
    assert bench.mirror_day(spec)["t2"].published


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """The operating system refuses to let any file grow beyond ``size``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _url(bench: Bench, **changed: str) -> str:
    return sa.make_url(bench.url).set(**changed).render_as_string(hide_password=False)


def test_a_login_without_rights_is_permanent_and_names_the_remedy(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.run(
        "CREATE OR REPLACE USER stranger@'127.0.0.1' IDENTIFIED BY 'stranger-secret'",
    )
    try:
        source = MySQLSource(spec, _url(bench, username="stranger", password="stranger-secret"))
        error = bench.mirror_day(spec, day=bench.day(spec), source=source)["t"].error
    finally:
        bench.run("DROP USER stranger@'127.0.0.1'")
    assert isinstance(error, SourceFault)
    assert not error.transient
    assert "GRANT SELECT" in error.remedy


def test_a_wrong_password_is_permanent(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    source = MySQLSource(spec, _url(bench, password="wrong-secret"))
    error = bench.mirror_day(spec, day=bench.day(spec), source=source)["t"].error
    assert isinstance(error, SourceFault)
    assert "wrong-secret" not in repr(error)


def test_select_is_all_the_login_needs(sample: Bench) -> None:
    grants = sample.ask("SHOW GRANTS FOR reader@'127.0.0.1'")
    rights = {str(grant).split("GRANT ")[1].split(" ON ")[0] for (grant,) in grants}
    assert rights == {"SELECT", "USAGE"}
    report = sample.mirror_day(sample.elation("practice"), day=None)["practice"]
    assert report.published


def test_a_server_that_is_down_is_transient(bench: Bench, private_server: MariaDB) -> None:
    spec = bench.catalog(["t"])
    private_server.create_database("clinic")
    private_server.create_reader("clinic")
    source = MySQLSource(spec, private_server.url("clinic"))
    assert source.states() == {}
    private_server.stop()
    with pytest.raises(SourceUnavailable) as caught:
        source.states()
    assert caught.value.transient
    today = datetime.now(UTC).date()
    for day in (today, today - timedelta(days=1)):
        error = bench.mirror_day(spec, day=day, source=source)["t"].error
        assert isinstance(error, SourceUnavailable)


@pytest.mark.parametrize(
    "url", ["", "not a url", "mysql+pymysql://u:hush/x@h:port/db", "mysql://u:hush@[::1/db"]
)
def test_an_unreadable_url_is_not_quoted(bench: Bench, url: str) -> None:
    spec = bench.catalog(["t"])
    with pytest.raises(SettingsError) as caught:
        MySQLSource(spec, url)
    assert "hush" not in str(caught.value)
    assert "percent-encode" in caught.value.remedy


def test_rows_that_do_not_add_up_publish_nothing(bench: Bench, interrupted) -> None:
    bench.run("CREATE TABLE t (id int) ENGINE=MyISAM", "INSERT INTO t VALUES (1), (2)")
    _make(bench, "u")
    spec = bench.catalog(["t", "u"])
    source = interrupted(spec, "t", "before", lambda: bench.run("INSERT INTO t VALUES (3)"))
    reports = bench.mirror_day(spec, day=bench.day(spec), source=source)
    error = reports["t"].error
    assert error is not None
    assert (error.kind, error.transient) == ("rows_unaccounted", True)
    assert "counted 2 rows and delivered 3" in error.what
    assert reports["u"].published
    assert bench.mirror_day(spec)["t"].published


# -- the flow of a run


def test_a_chunk_may_have_more_tables_than_are_copied_ahead(maria: MariaDB, bench: Bench) -> None:
    elation.wide_schema(maria, schema=bench.schema, tables=60, rows=2)
    spec = bench.catalog([f"t_{number:03}" for number in range(60)])
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(len(bench.mirror_day(spec))), daemon=True)
    thread.start()
    thread.join(60)
    assert done == [60]


def test_tables_may_be_asked_for_in_any_order_and_a_run_may_be_left_early(bench: Bench) -> None:
    names = [f"t_{number:03}" for number in range(50)]
    elation.wide_schema(bench.server, schema=bench.schema, tables=50, rows=2)
    spec = bench.catalog(names)
    scratch = bench.settings.new_scratch()
    with MirrorRun(
        spec,
        bench.source(spec),
        bench.landing,
        bench.warehouse,
        partition=bench.day(spec),
        run_id="early",
        tables=spec.tables,
        scratch=scratch,
    ) as run:
        (last,) = run.publish([spec.table("t_049")])
        assert last.published
    assert bench.rows("MIRROR_METADATA", "TABLE_NAME") == [("t_049",)]
    assert len(list((bench.root / "lake").rglob("_PARTITIONDATE=*/*/*.parquet"))) == 1
    assert not list(scratch.iterdir())


def test_a_lake_that_refuses_everything_is_reported_not_raised(bench: Bench) -> None:
    _make(bench, "t1", "t2")
    spec = bench.catalog(["t1", "t2"])
    lock = bench.root / "lake" / ".writer.lock"
    lock.mkdir(parents=True)
    reports = bench.mirror_day(spec)
    assert [report.published for report in reports.values()] == [False, False]
    assert not list((bench.root / "lake").rglob("*.parquet"))
    lock.rmdir()
    assert all(report.published for report in bench.mirror_day(spec).values())


# -- killed, and two at once


def _whole(bench: Bench, tables: int, rows: int) -> None:
    """Every table holds its rows once, and the control tables agree."""
    for number in range(tables):
        table = f"t_{number:03}"
        answer = bench.rows(table, "count(*), count(DISTINCT id), sum(id)")
        assert answer == [(rows, rows, rows * (rows + 1) // 2)]
        assert bench.rows(f"{table}_latest", "count(*)") == [(rows,)]
    complete = "complete, tables_published, source_rows, loaded_rows, rejected_rows"
    assert bench.rows("MIRROR_COMPLETENESS", complete) == [
        (True, tables, tables * rows, tables * rows, 0)
    ]


def _killed_and_run_again(bench: Bench, kills: int, seed: int) -> None:
    tables, rows = 8, 3_000
    elation.wide_schema(bench.server, schema=bench.schema, tables=tables, rows=rows)
    spec = bench.catalog([f"t_{number:03}" for number in range(tables)], chunk_size=3)
    day = bench.day(spec)
    moments = random.Random(seed)
    ended = 0
    for number in range(kills):
        process = bench.child(day, f"killed-{number}")
        start(process)
        time.sleep(moments.uniform(0.0, 1.2))
        process.kill()
        process.communicate()
        ended += process.returncode == 0
        if number % 2 == 0:  # so that later runs export again, and not only replay
            shutil.rmtree(bench.root / "landing" / "clinic", ignore_errors=True)
    assert ended < kills
    process = bench.child(day, "last")
    start(process)
    _out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    _whole(bench, tables, rows)


def test_a_killed_run_can_be_run_again(bench: Bench) -> None:
    _killed_and_run_again(bench, kills=5, seed=1)


@pytest.mark.slow
def test_a_run_killed_many_times_can_be_run_again(bench: Bench) -> None:
    _killed_and_run_again(bench, kills=25, seed=2)


def test_two_processes_on_one_partition_leave_one_copy(bench: Bench) -> None:
    elation.wide_schema(bench.server, schema=bench.schema, tables=6, rows=2_000)
    spec = bench.catalog([f"t_{number:03}" for number in range(6)], chunk_size=2)
    day = bench.day(spec)
    pair = [bench.child(day, name) for name in ("one", "two")]
    for process in pair:
        start(process)
    for process in pair:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    _whole(bench, 6, 2_000)
    assert bench.rows("MIRROR_METADATA", "run_id, count(*)", where="published GROUP BY 1") == [
        ("one", 6),
        ("two", 6),
    ]


def test_two_databases_at_once_in_one_lake(bench: Bench) -> None:
    elation.wide_schema(bench.server, schema=bench.schema, tables=4, rows=2_000)
    tables = [f"t_{number:03}" for number in range(4)]
    spec = bench.catalog(tables, chunk_size=1)
    bench.catalog(tables, chunk_size=1, database="elsewhere")
    day = bench.day(spec)
    os.environ["ELSEWHERE_DATABASE_URL"] = bench.url
    try:
        pair = [bench.child(day, name, name) for name in ("clinic", "elsewhere")]
    finally:
        del os.environ["ELSEWHERE_DATABASE_URL"]
    for process in pair:
        start(process)
    for process in pair:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    _whole(bench, 4, 2_000)
    assert bench.query("SELECT count(*), count(DISTINCT id) FROM elsewhere_mirror.t_003") == [
        (2_000, 2_000)
    ]


# -- memory


def _peak_mb(bench: Bench, rows: int) -> int:
    elation.big_table(bench.server, schema=bench.schema, rows=rows)
    spec = bench.catalog([elation.BIG_TABLE], tinyint1="boolean")
    process = bench.child(bench.day(spec), f"rows-{rows}")
    start(process)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert bench.rows(f"{elation.BIG_TABLE}_latest", "count(*)") == [(rows,)]
    return int(out.split("peak ")[1])


def test_a_table_is_mirrored_in_bounded_memory(bench: Bench) -> None:
    assert _peak_mb(bench, 150_000) < 700


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_table(bench: Bench) -> None:
    small = _peak_mb(bench, 150_000)
    shutil.rmtree(bench.root / "landing")
    large = _peak_mb(bench, 1_500_000)
    assert large < 700
    assert large < small + 250
