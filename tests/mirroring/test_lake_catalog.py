"""What a lake's catalog does beside DuckLake: addresses, logins, turns, a server that goes away."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from psycopg2.extensions import parse_dsn

from mirror_assets.mirroring.errors import PublicationPending, SettingsError, WarehouseFault
from mirror_assets.mirroring.warehouses import Warehouse
from mirror_assets.mirroring.warehouses.base import Transaction
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from mirror_assets.mirroring.warehouses.lake_catalog import open_catalog
from mirror_assets.settings import Settings
from tests.conftest import LAKE_PASSWORD, Bench, LakeCatalog
from tests.fakes.wire import Wire

postgres_only = pytest.mark.parametrize("lake_catalogs", ["postgres"], indirect=True)


@pytest.fixture
def settings(lake_catalog: LakeCatalog, tmp_path: Path, extensions: Path) -> Settings:
    (tmp_path / "lake").mkdir(mode=0o700)
    return Settings.from_env(
        {
            **lake_catalog.variables,
            "MIRROR_LAKE": str(tmp_path / "lake"),
            "MIRROR_EXTENSIONS": str(extensions),
        }
    )


@pytest.fixture
def lake(settings: Settings) -> Iterator[Warehouse]:
    warehouse = settings.warehouse()
    yield warehouse
    warehouse.close()


def write(lake: Warehouse, value: int) -> None:
    lake.commit(lambda tx: tx.view("main", "v", f"SELECT {value} AS v"))


def seen(lake: Warehouse) -> int:
    return int(lake.query("SELECT v FROM v").rows[0][0])


# -- addresses


@pytest.mark.parametrize(
    ("address", "sslmode"),
    [
        ("host=db.example dbname=lake", "verify-full"),
        ("postgresql://mirror@db.example/lake", "verify-full"),
        ("host=127.0.0.1,db.example dbname=lake", "verify-full"),
        ("service=lake", "verify-full"),
        ("host=db.example dbname=lake sslmode=require", "require"),
        ("postgresql://mirror@db.example/lake?sslmode=disable", "disable"),
        ("host=127.0.0.1 dbname=lake", None),
        ("host=/run/postgresql dbname=lake", None),
        ("dbname=lake", None),
    ],
)
def test_what_leaves_the_machine_is_verified_unless_stated(
    address: str, sslmode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PGHOST", "PGHOSTADDR", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    url = open_catalog(f"ducklake:postgres:{address}").url

    assert parse_dsn(url.removeprefix("ducklake:postgres:")).get("sslmode") == sslmode


def test_a_host_named_by_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    assert "sslmode=verify-full" in open_catalog("ducklake:postgres:dbname=lake").url

    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    assert "sslmode" not in open_catalog("ducklake:postgres:dbname=lake").url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ducklake:postgres:host=h dbname=d password=hush-4711", "holds a password"),
        ("ducklake:postgres:postgresql://u:hush-4711@h/d", "holds a password"),
        ("ducklake:postgres:hush-4711 host=h", "not one of PostgreSQL's"),
        ("ducklake:hush-4711.duckdb", "SQLite file or a PostgreSQL database"),
        ("oracle:hush-4711", "no warehouse adapter for 'oracle'"),
    ],
)
def test_an_address_that_will_not_do_is_refused_unseen(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        Settings.from_env({"MIRROR_WAREHOUSE": url, "MIRROR_LAKE": str(tmp_path)}).warehouse()

    assert "hush" not in caught.value.sentence
    assert caught.value.where == "MIRROR_WAREHOUSE"
    assert caught.value.remedy


# -- logins


@postgres_only
def test_the_password_is_read_from_its_file_and_shown_to_nobody(lake: Warehouse) -> None:
    write(lake, 1)

    assert seen(lake) == 1
    for table in ("duckdb_secrets()", "duckdb_databases()", "duckdb_settings()"):
        assert LAKE_PASSWORD[:9] not in str(lake.query(f"FROM {table}").rows)


@postgres_only
def test_a_wrong_password_names_the_file_and_shows_nothing(
    lake_catalog: LakeCatalog, settings: Settings
) -> None:
    (lake_catalog.folder / "catalog.password").write_text("hush-4711")
    with closing(settings.warehouse()) as lake:
        for attempt in (lambda: write(lake, 1), lambda: seen(lake)):
            with pytest.raises(WarehouseFault) as caught:
                attempt()
            assert "access denied" in caught.value.what
            assert "MIRROR_WAREHOUSE_PASSWORD_FILE" in caught.value.remedy
            assert "hush" not in caught.value.sentence


@postgres_only
def test_a_server_without_tls_is_refused_where_it_must_be_verified(
    lake_catalog: LakeCatalog, settings: Settings
) -> None:
    verified = f"{settings.warehouse_url} sslmode=verify-full sslrootcert=/dev/null"
    changed = {**settings.variables, "MIRROR_WAREHOUSE": verified}
    lake = Settings.from_env(changed).warehouse()
    with pytest.raises(WarehouseFault, match="access denied"):
        write(lake, 1)


def test_a_server_that_is_not_there_is_told(tmp_path: Path, extensions: Path) -> None:
    url = "ducklake:postgres:host=127.0.0.1 port=9 dbname=lake"
    variables = {"MIRROR_WAREHOUSE": url, "MIRROR_LAKE": str(tmp_path)}
    lake = Settings.from_env(variables | {"MIRROR_EXTENSIONS": str(extensions)}).warehouse()
    with pytest.raises(WarehouseFault, match="catalog in PostgreSQL: the connection failed"):
        seen(lake)


# -- turns

_HOLD = """
import sys
from mirror_assets.settings import Settings
with Settings.from_env().warehouse().exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_gives_its_turn_up(lake: Warehouse, settings: Settings) -> None:
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (write(lake, 1), done.set()))
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), **settings.variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting.start()
        assert not done.wait(1)
        holder.kill()
    waiting.join(30)

    assert done.is_set()
    assert seen(lake) == 1


# -- a server that goes away


def _hang_up(catalog: LakeCatalog) -> None:
    """What a restart of the server does to every connection."""
    assert catalog.server is not None
    with closing(catalog.server.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname LIKE 'lake%'"
        )


@postgres_only
def test_a_cut_connection_publishes_nothing_and_the_next_attempt_does(
    lake: Warehouse, lake_catalog: LakeCatalog, settings: Settings
) -> None:
    write(lake, 1)

    def body(tx: Transaction) -> None:
        tx.view("main", "v", "SELECT 2 AS v")
        _hang_up(lake_catalog)

    with pytest.raises(WarehouseFault) as caught:
        lake.commit(body)
    assert caught.value.transient
    with closing(settings.warehouse()) as reader:
        assert seen(reader) == 1

    write(lake, 3)
    assert seen(lake) == 3


@pytest.fixture
def wire(lake_catalog: LakeCatalog) -> Iterator[Wire]:
    """A line to the catalog's server."""
    server = lake_catalog.server
    assert server is not None
    with Wire(server.host, server.port) as line:
        yield line


@pytest.fixture
def far(wire: Wire, lake_catalog: LakeCatalog, settings: Settings) -> Iterator[DuckLakeWarehouse]:
    """The lake, its catalog at the end of a line that can break."""
    server = lake_catalog.server
    assert server is not None
    url = settings.warehouse_url.replace(f"port={server.port}", f"port={wire.port}")
    warehouse = Settings.from_env({**settings.variables, "MIRROR_WAREHOUSE": url}).warehouse()
    assert isinstance(warehouse, DuckLakeWarehouse)
    yield warehouse
    warehouse.close()


#: Said when files are added to the lake.
ADDED = ".parquet"


@postgres_only
def test_an_answer_lost_after_the_commit_costs_no_rows(
    bench: Bench, far: DuckLakeWarehouse, wire: Wire
) -> None:
    bench.run("CREATE TABLE visit (id int PRIMARY KEY)", "INSERT INTO visit VALUES (1), (2)")
    bench.run("CREATE TABLE stay (id int PRIMARY KEY)", "INSERT INTO stay VALUES (3)")
    spec = bench.catalog(["visit", "stay"])

    for tables in (("visit", "stay"), ("stay",)):
        reports = bench.mirror_day(
            spec, *tables, warehouse=far, between=lambda: wire.cut_after_commit(ADDED)
        )
        assert [report.error for report in reports.values()] == [None] * len(tables)
    assert wire.cuts == 2

    far.maintain(time_travel_days=0)
    assert far.query("SELECT id FROM clinic_mirror.visit_latest ORDER BY id").rows == [(1,), (2,)]
    assert far.query("SELECT id FROM clinic_mirror.stay_latest").rows == [(3,)]
    told = far.query('SELECT TABLE_NAME, published FROM clinic_mirror."MIRROR_METADATA"').rows
    assert sorted(told) == [*[("stay", True)] * 2, ("visit", True)]


@postgres_only
def test_what_the_catalog_never_answered_is_pending_and_its_files_stay(
    bench: Bench, far: DuckLakeWarehouse, wire: Wire
) -> None:
    bench.run("CREATE TABLE visit (id int PRIMARY KEY)", "INSERT INTO visit VALUES (1)")
    spec = bench.catalog(["visit"])
    bench.mirror_day(spec, warehouse=far)
    far._patience = 0.5

    report = bench.mirror_day(
        *(spec, "visit"),
        warehouse=far,
        between=lambda: wire.cut_after_commit(ADDED, for_good=True),
    )["visit"]
    assert isinstance(report.error, PublicationPending)
    wire.mend()

    assert far.query("SELECT id FROM clinic_mirror.visit_latest").rows == [(1,)]
    assert bench.mirror_day(spec, warehouse=far)["visit"].published
    far.maintain(time_travel_days=0)
    assert far.query("SELECT id FROM clinic_mirror.visit_latest").rows == [(1,)]


class Deaf:
    """A connection whose commits end in an error: ``after`` they were done, or instead."""

    def __init__(self, connection: Any, *, after: bool) -> None:
        self._connection, self._after = connection, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if statement != "COMMIT":
            return self._connection.execute(statement, *values)
        if self._after:
            self._connection.execute(statement)
        raise duckdb.IOException("the answer was lost")


@pytest.mark.parametrize("after", [True, False])
def test_a_commit_that_ends_in_an_error_is_looked_for(lake: Warehouse, after: bool) -> None:
    assert isinstance(lake, DuckLakeWarehouse)
    write(lake, 1)
    lake._writer = Deaf(lake._open_writer(), after=after)  # type: ignore[assignment]
    folder = lake.staging("main", "t", date(2026, 11, 22))

    def body(tx: Transaction) -> None:
        tx.view("main", "v", "SELECT 2 AS v")
        tx.folders.add(folder)  # type: ignore[attr-defined]

    with nullcontext() if after else pytest.raises(WarehouseFault):
        lake.commit(body)

    assert seen(lake) == (2 if after else 1)
    assert lake._promised == set()
    write(lake, 3)
    assert seen(lake) == 3


@postgres_only
def test_a_reader_survives_a_restart_of_the_server(
    lake: Warehouse, lake_catalog: LakeCatalog
) -> None:
    write(lake, 1)
    assert seen(lake) == 1
    _hang_up(lake_catalog)

    assert seen(lake) == 1


# -- a whole mirror


def test_a_database_is_mirrored_into_the_lake(bench: Bench, lake: Warehouse) -> None:
    bench.run("CREATE TABLE visit (id int PRIMARY KEY, note text)")
    bench.run("INSERT INTO visit VALUES (1, 'first'), (2, NULL)")
    spec = bench.catalog(["visit"])

    for _time in range(2):
        report = bench.mirror_day(spec, warehouse=lake)["visit"]
        assert (report.published, report.loaded) == (True, 2)

    rows = lake.query("SELECT id, note FROM clinic_mirror.visit_latest ORDER BY id").rows
    assert rows == [(1, "first"), (2, None)]
    assert lake.query("SELECT complete FROM clinic_mirror.MIRROR_COMPLETENESS").rows == [(True,)]
