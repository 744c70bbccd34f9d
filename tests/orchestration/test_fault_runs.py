"""Faults as Dagster sees them: what is retried, and that nothing of a row is ever stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from mirror_assets.mirroring.sources import mysql, open_source
from mirror_assets.sample.servers import MariaDB, PostgreSQL
from tests.conftest import Bench, Interrupted, KindBench, kind_bench, utc_now
from tests.orchestration.conftest import REPOSITORY, Run
from tests.orchestration.test_mirror_runs import _would_retry

Execute = Callable[..., Run]


def _retried(execute: Execute, instance: dg.DagsterInstance, run: Run) -> Run:
    """The run that the daemon starts after a failed one: its day, its failed assets."""
    record = instance.get_run_by_id(run.run_id)
    assert record is not None
    assert record.execution_plan_snapshot_id is not None
    plan = instance.get_execution_plan_snapshot(record.execution_plan_snapshot_id)
    assets, _checks = instance.run_domain.get_keys_to_reexecute(run.run_id, plan)
    return execute("clinic_mirror", run.tags["dagster/partition"], asset_selection=list(assets))


def _tables(bench: Bench, *names: str, rows: int = 3) -> None:
    for name in names:
        bench.run(
            f"CREATE TABLE {name} (id int PRIMARY KEY)",
            f"INSERT INTO {name} SELECT seq FROM seq_1_to_{rows}",
        )


def test_a_wrong_password_is_left_for_a_person(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tables(bench, "a")
    day = bench.day(bench.catalog(["a"]))
    url = sa.make_url(bench.url).set(password="wr0ng-secret")
    monkeypatch.setenv("CLINIC_DATABASE_URL", url.render_as_string(hide_password=False))
    run = execute("clinic_mirror", day)
    assert run.materialized == set()
    assert run.checks == {"a": False}
    assert "check the login in <NAME>_DATABASE_URL" in run.failures[0]
    assert "dagster/retry_on_asset_or_op_failure" not in run.tags
    assert not _would_retry(instance, run)
    assert "wr0ng-secret" not in run.everything()


@contextmanager
def _locked(bench: Bench, table: str) -> Iterator[None]:
    with closing(bench.server.admin(bench.schema)) as session, session.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {table} WRITE")
        yield


def test_a_locked_table_is_retried_alone(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tables(bench, "a", "b", "c")
    day = bench.day(bench.catalog(["a", "b", "c"]))
    monkeypatch.setattr(mysql, "_LOCK_SECONDS", 1)
    with _locked(bench, "b"):
        run = execute("clinic_mirror", day)
    assert run.checks == {"a": True, "b": False, "c": True}
    assert "held a lock" in run.failures[0]
    assert _would_retry(instance, run)
    again = _retried(execute, instance, run)
    assert (again.success, again.materialized) == (True, {"b"})
    assert bench.rows("MIRROR_COMPLETENESS", "complete") == [(True,)]


def test_a_refresh_that_lands_amid_a_run_is_retried_on_the_new_one(
    bench: Bench, execute: Execute, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tables(bench, "a", "b")
    day = bench.day(bench.catalog(["a", "b"]))
    bench.next_second()

    def refresh() -> None:
        bench.run("DROP TABLE b")
        _tables(bench, "b", rows=5)

    opener = "mirror_assets.settings.reading.open_source"
    with monkeypatch.context() as patched:
        patched.setattr(
            opener, lambda spec, url: Interrupted(open_source(spec, url), "a", "before", refresh)
        )
        run = execute("clinic_mirror", day)
    assert run.checks == {"a": True, "b": False}
    assert "rebuilt" in run.failures[0] or "changed" in run.failures[0]
    assert _would_retry(instance, run)
    bench.run("DROP TABLE a")
    _tables(bench, "a", rows=5)  # the refresh goes on
    assert _retried(execute, instance, run).materialized == {"b"}
    assert bench.rows("b_latest", "count(*)") == [(5,)]
    # the day is not called whole before both tables are of one refresh
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "a")]
    assert execute("clinic_mirror", day).success
    assert bench.rows("MIRROR_COMPLETENESS", "complete, source_rows") == [(True, 10)]


# -- nothing of a row is stored

#: Lower case, as the type of an ENUM that lists it is shown.
CANARY = "canary-7f3a"


@pytest.fixture
def pair(
    maria: MariaDB, postgres: PostgreSQL, tmp_path: Path, extensions: Path
) -> Iterator[tuple[KindBench, KindBench]]:
    """A database of each kind, mirrored into one lake."""
    with (
        kind_bench("mysql", maria, tmp_path, extensions) as one,
        kind_bench("postgresql", postgres, tmp_path, extensions) as other,
    ):
        yield one, other


def _plant_mysql(bench: KindBench) -> None:
    broken = f"CONCAT('{CANARY}', X'EDA0BDEDB880')"
    bench.run(
        "CREATE TABLE good (id int PRIMARY KEY, c char(40), t tinytext, m mediumtext, l longtext,"
        f" e enum('{CANARY}'), s set('{CANARY}'), j json, b blob, vb varbinary(80))",
        f"INSERT INTO good VALUES (1, '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}',"
        f" '{CANARY}', '{{\"k\": \"{CANARY}\"}}', '{CANARY}', '{CANARY}')",
        "CREATE TABLE tolerated (id int, v longtext, d date)",
        "SET sql_mode = ''",
        f"INSERT INTO tolerated VALUES (1, '{CANARY}', '2026-01-01'),"
        f" (2, '{CANARY}', '2026-00-01'), (3, {broken}, NULL)",
        "CREATE TABLE failing AS SELECT * FROM tolerated",
        f"CREATE TABLE refused (id int, `{CANARY}` varchar(80), MIRROR_x int)",
    )


def _plant_postgresql(bench: KindBench) -> None:
    bench.run(
        "CREATE TYPE own AS (a int, b text)",
        "CREATE TABLE good (id int PRIMARY KEY, v varchar(80), c char(40), t text, j jsonb,"
        " x xml, b bytea, a text[], o own)",
        f"INSERT INTO good VALUES (1, '{CANARY}', '{CANARY}', '{CANARY}',"
        f" '{{\"k\": \"{CANARY}\"}}', '<a>{CANARY}</a>', '{CANARY}', ARRAY['{CANARY}'],"
        f" ROW(1, '{CANARY}'))",
        "CREATE TABLE tolerated (id int, v text, d date)",
        f"INSERT INTO tolerated VALUES (1, '{CANARY}', '2026-01-01'), (2, '{CANARY}', 'infinity')",
        "CREATE TABLE failing AS SELECT * FROM tolerated",
        "CREATE TABLE refused (id int, v text)",
        f"INSERT INTO refused VALUES (1, '{CANARY}')",
        "ALTER TABLE refused ENABLE ROW LEVEL SECURITY",
    )


def _catalog(bench: KindBench, database: str) -> None:
    allowed = {"rows": 2, "reason": "rows planted by this test", "until": "2090-01-01"}
    tables = dict.fromkeys(("good", "tolerated", "failing", "refused"))
    bench.catalog({**tables, "tolerated": {"bad_records_allowed": allowed}}, database=database)


def _everywhere_but(root: Path, allowed: tuple[str, ...]) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and path.relative_to(root).parts[0] not in allowed:
            yield path


def test_a_materialization_leaves_no_value_of_a_row_outside_landing_zone_and_lake(
    pair: tuple[KindBench, KindBench], tmp_path: Path
) -> None:
    one, other = pair
    _plant_mysql(one)
    _plant_postgresql(other)
    _catalog(one, "clinic")
    _catalog(other, "ward")
    home = tmp_path / "dagster-home"
    home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", home)
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    chosen = ["--select", "group:clinic or group:ward", "--partition", str(utc_now().date())]
    variables = {"WARD_DATABASE_URL": other.url, "DAGSTER_HOME": str(home)}
    done = subprocess.run(
        [*command, *chosen, "-m", "mirror_assets.definitions"],
        cwd=REPOSITORY,
        env=os.environ | one.variables | variables,
        capture_output=True,
        check=False,
    )
    stored = {path: path.read_bytes() for path in _everywhere_but(home, ())}
    told = b"".join([done.stdout, done.stderr, *stored.values()])
    assert done.returncode != 0
    for sentence in (b"of 3 rows were rejected", b"of 2 rows were rejected", b"row-level security"):
        assert sentence in told, done.stderr[-3000:]
    assert any(b"were rejected" in text for path, text in stored.items() if "runs" in path.parts)
    assert any("compute_logs" in path.parts for path in stored)

    secrets = [CANARY.encode(), CANARY.encode().hex().encode()]
    secrets += [str(sa.make_url(bench.url).password).encode() for bench in pair]
    kept = ("landing", "lake", "lake.sqlite", "lake.sqlite-wal", "catalogs")
    for path in _everywhere_but(tmp_path, kept):
        for secret in secrets:
            assert secret not in path.read_bytes(), path
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
    for database in ("clinic", "ward"):  # it was really there
        assert CANARY in repr(one.query(f"SELECT * FROM {database}_mirror.good_latest"))
        errors = one.query(f'SELECT * FROM {database}_mirror."MIRROR_ERRORS"')
        assert len(errors) >= 4
        assert CANARY not in repr(errors).replace("row_key", "")
