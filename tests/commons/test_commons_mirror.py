"""The Commons mirror: twice a day into one shard, exactly the known bad rows, shard views."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.sample import commons, member_index, quality_measure
from mirror_assets.sample.servers import PostgreSQL
from tests.conftest import SCALE, Bench, KindBench

SAMPLE_CATALOGS = Path(commons.__file__).parent / "catalogs"


@pytest.fixture
def living(
    postgres: PostgreSQL, tmp_path: Path, extensions: Path
) -> Iterator[tuple[KindBench, DatabaseSpec]]:
    """A bench over a fresh sample Commons, and its real catalog."""
    commons.create(postgres, database="commons", scale=SCALE)
    bench = KindBench("postgresql", postgres, tmp_path, "commons", extensions)
    try:
        yield bench, bench.settings.database("commons")
    finally:
        bench.close()


def mirror(bench: KindBench, spec: DatabaseSpec, **options: object) -> dict[str, TableReport]:
    return bench.mirror_day(spec, **options)  # type: ignore[arg-type]


def test_commons_mirrors_every_table_but_the_excluded(
    living: tuple[KindBench, DatabaseSpec],
) -> None:
    bench, spec = living
    reports = mirror(bench, spec)
    assert {name: str(r.error) for name, r in reports.items() if r.error} == {}
    assert set(reports) == set(commons.MIRRORED)
    assert not set(reports) & set(commons.EXCLUDED)
    counts = commons.row_counts(SCALE)
    assert {n: r.source_rows for n, r in reports.items()} == {n: counts[n] for n in reports}


def test_commons_rejects_exactly_the_known_bad_rows(
    living: tuple[KindBench, DatabaseSpec],
) -> None:
    bench, spec = living
    reports = mirror(bench, spec)
    known = commons.known_bad(SCALE)
    found = bench.query('SELECT "table", "column" FROM commons_mirror."MIRROR_ERRORS" ORDER BY ALL')
    assert found == sorted((bad.table, bad.column) for bad in known)
    for bad in known:
        (column, value), *_ = bad.key.items()
        left = bench.query(
            f'SELECT count(*) FROM commons_mirror."{bad.table}" WHERE "{column}" = \'{value}\''
        )
        assert left == [(0,)], bad
    assert sum(report.rejected for report in reports.values()) == len(known)


def test_e_44_31_tables_make_groups_of_15_15_and_1(bench: Bench) -> None:
    spec = bench.catalog([f"t{number}" for number in range(31)])
    assert [len(chunk) for chunk in spec.chunks] == [15, 15, 1]


def test_e_45_a_second_run_replaces_data_and_errors_of_the_shard(
    living: tuple[KindBench, DatabaseSpec], postgres: PostgreSQL
) -> None:
    bench, spec = living
    morning = mirror(bench, spec, run_id="morning")
    commons.change(postgres, database="commons", scale=SCALE, mutation=1)
    evening = mirror(bench, spec, run_id="evening")
    day = datetime.now(UTC).date()
    changed = [n for n in evening if evening[n].source_rows != morning[n].source_rows]
    assert changed
    for name, report in evening.items():
        shard = f'commons_mirror."{name}_{day:%Y%m%d}"'
        assert bench.query(f"SELECT count(*) FROM {shard}") == [(report.loaded,)]
        assert bench.query(f'SELECT count(*) FROM commons_mirror."{name}"') == [(report.loaded,)]
    errors = f'commons_mirror."commons_mirror_errors_{day:%Y%m%d}"'
    shown = bench.query(f'SELECT "tableName", "errorMsg", "rawLine", "timestamp" FROM {errors}')
    assert len(shown) == sum(report.rejected for report in evening.values())
    told_apart = bench.query(
        'SELECT run_id, count(*) FROM commons_mirror."MIRROR_METADATA" GROUP BY 1 ORDER BY 1'
    )
    assert told_apart == [("evening", len(spec.tables)), ("morning", len(spec.tables))]
    coverage = bench.query("SELECT count(*) FROM sli_metrics.commons_mirror_coverage")
    assert coverage == [(2,)]  # F-5: one row per run


def test_shard_views_stay_for_the_newest_days_only(bench: Bench) -> None:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)")
    spec = bench.catalog(["a"], layout="sharded", latest_view="{table}", shard_views=2)
    for days in (3, 2, 1, 0):
        bench.mirror_day(spec, source=bench.earlier(spec, days=days))
    today = bench.day(spec)
    views = bench.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'clinic_mirror'"
        " AND table_type = 'VIEW' AND table_name LIKE 'a%' ORDER BY 1"
    )
    kept = [f"a_{today - timedelta(days=1):%Y%m%d}", f"a_{today:%Y%m%d}"]
    assert [name for (name,) in views] == ["a", *kept]


@pytest.mark.parametrize("name", ["member_index", "quality_measure"])
def test_more_databases_are_one_catalog_each(
    postgres: PostgreSQL,
    tmp_path: Path,
    extensions: Path,
    name: str,
) -> None:
    module = {"member_index": member_index, "quality_measure": quality_measure}[name]
    module.create(postgres, database=name, scale=SCALE)
    bench = KindBench("postgresql", postgres, tmp_path, name, extensions)
    try:
        settings = bench.settings_with(MIRROR_CATALOG_PATH=str(SAMPLE_CATALOGS))
        reports = mirror(bench, settings.database(name))
        assert {n: str(r.error) for n, r in reports.items() if r.error} == {}
        assert set(reports) == set(module.MIRRORED)
    finally:
        bench.close()


_RUN = """
import sys
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.scratch import remove_scratch
from mirror_assets.settings import Settings
from datetime import UTC, datetime
name = sys.argv[1]
settings = Settings.from_env()
spec = settings.database(name)
scratch = settings.new_scratch()
with MirrorRun(spec, open_source(spec, settings.database_url(name)), settings.landing(),
               settings.warehouse(), partition=datetime.now(UTC).date(), run_id=name,
               tables=spec.tables, scratch=scratch, memory=settings.memory) as run:
    bad = [str(r.error) for chunk in spec.chunks for r in run.publish(chunk) if r.error]
remove_scratch(scratch)
sys.exit("; ".join(bad) or 0)
"""


def test_two_databases_at_once_in_one_lake_beside_an_open_analyst(
    vendor: Bench, living: tuple[KindBench, DatabaseSpec], postgres: PostgreSQL
) -> None:
    bench, spec = living
    mirror(bench, spec)
    analyst = bench.warehouse._connect(read_only=True)  # type: ignore[attr-defined]
    analyst.execute("BEGIN")
    count = 'SELECT count(*) FROM commons_mirror."patient"'
    before = analyst.execute(count).fetchone()
    commons.change(postgres, database="commons", scale=SCALE, mutation=1)
    env = os.environ | bench.variables | {"ELATION_DATABASE_URL": vendor.url}
    env |= {"COMMONS_DATABASE_URL": bench.url}
    children = [
        subprocess.Popen([sys.executable, "-c", _RUN, name], env=env, stderr=subprocess.PIPE)
        for name in ("elation", "commons")
    ]
    for child in children:
        _out, error = child.communicate(timeout=120)
        assert child.returncode == 0, error.decode()
    assert analyst.execute(count).fetchone() == before
    analyst.execute("COMMIT")
    analyst.close()
    complete = bench.query(
        'SELECT complete, missing_tables FROM elation_mirror."MIRROR_COMPLETENESS" UNION ALL'
        ' SELECT complete, missing_tables FROM commons_mirror."MIRROR_COMPLETENESS"'
    )
    assert complete == [(True, None), (True, None)]


def test_a_replay_of_a_live_day_is_exact_and_another_day_is_refused(
    living: tuple[KindBench, DatabaseSpec],
) -> None:
    bench, spec = living
    tables = ("market", "user")
    mirror_some = {"day": datetime.now(UTC).date()}
    bench.mirror_day(spec, *tables, **mirror_some)  # type: ignore[arg-type]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    replayed = bench.mirror_day(spec, *tables, **mirror_some, clock=lambda: tomorrow)  # type: ignore[arg-type]
    assert all(report.replayed and report.published for report in replayed.values())
    old = datetime.now(UTC).date() - timedelta(days=1)
    refused = bench.mirror_day(spec, "market", day=old)["market"]
    assert refused.error is not None
    assert refused.error.kind == "wrong_day"


def test_the_source_is_opened_by_the_catalogs_kind(bench: Bench) -> None:
    mysql = bench.catalog(["a"])
    postgres = bench.catalog(["a"], database="other", kind="postgresql")
    url = "postgresql+psycopg2://reader@127.0.0.1:1/x"
    assert type(open_source(mysql, bench.url)).__name__ == "MySQLSource"
    assert type(open_source(postgres, url)).__name__ == "PostgresSource"
