"""Faults of servers, networks, disks and rivals: nothing half-published, a clear next step.

What belongs to a run's ordinary life is in test_mirror_run.py, kills are in test_kill_points.py.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pymysql
import pytest
import sqlalchemy as sa

from mirror_assets.mirroring import status, storage
from mirror_assets.mirroring.errors import (
    LandingFault,
    MirrorError,
    RefreshLanded,
    SourceFault,
    SourceLocked,
    SourceUnavailable,
    StaleRefresh,
    WarehouseFault,
)
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.sources import mysql, open_source, postgres
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.sample.servers import MariaDB, PostgreSQL, PrivateServer
from tests.conftest import Interrupted, kind_bench, small_packets, start, utc_now

if TYPE_CHECKING:
    from tests.conftest import Bench, Kind, KindBench

MORNING = datetime(2026, 3, 10, 4, 30, tzinfo=UTC)
DAY = MORNING.date()


def _interrupted(bench: Bench, spec: Any, table: str, moment: str, action: Callable[[], None]):
    return Interrupted(bench.source(spec), table, moment, action)


def _make(bench: Bench, *tables: str, rows: int = 3) -> None:
    for table in tables:
        values = ", ".join(f"({number}, 'note {number}')" for number in range(1, rows + 1))
        bench.run(
            f"CREATE TABLE {table} (id int PRIMARY KEY, note varchar(100) NOT NULL)",
            f"INSERT INTO {table} VALUES {values}",
        )


def _published(reports: dict[str, TableReport]) -> dict[str, bool]:
    return {name: report.published for name, report in reports.items()}


# -- rows larger than the servers' buffers


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_rows_beyond_max_allowed_packet_arrive_whole(bench: Bench, driver: str) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, a longtext, b longblob, c longtext NOT NULL)",
        "INSERT INTO t VALUES (1, 'small', 'small', ''), (3, NULL, NULL, 'after')",
        "INSERT INTO t VALUES (2, REPEAT('a,\"b\\n', 1600000), REPEAT(X'00FF22', 1000000),"
        " CONCAT(REPEAT('é', 4500000), 'end'))",
    )
    spec = bench.catalog(["t"])
    with small_packets(bench):
        report = bench.mirror_day(spec, source=bench.source(spec, driver=driver))["t"]
    assert (report.error, report.loaded, report.rejected) == (None, 3, 0)
    wanted = "id, md5(a), md5(b), md5(c)"
    assert bench.rows("t_latest", wanted) == bench.ask(f"SELECT {wanted} FROM t ORDER BY id")
    [(longest,)] = bench.rows("MIRROR_METADATA", "bytes")
    assert longest > 20_000_000


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_long_texts_full_of_quotes_do_not_hold_the_server_up(bench: Bench, driver: str) -> None:
    """Its REPLACE takes the square of their length: 200 of these would take it a quarter hour."""
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, a longtext, v varchar(3000), b longblob)",
        *(
            f"INSERT INTO t VALUES ({n}, REPEAT('\"', {n}), REPEAT('\"', 3000), NULL)"
            for n in (8191, 8192, 8193)
        ),
        'INSERT INTO t SELECT seq, REPEAT(\'{"k": "é"}\', 20000), NULL, NULL FROM seq_1_to_200',
        "INSERT INTO t VALUES (0, NULL, '', REPEAT(X'00FF22', 1000000))",
    )
    spec = bench.catalog(["t"])
    with small_packets(bench):
        report = bench.mirror_day(spec, source=bench.source(spec, driver=driver))["t"]
    assert (report.error, report.loaded, report.rejected) == (None, 204, 0)
    wanted = "id, md5(a), md5(v), md5(b)"
    assert bench.rows("t_latest", wanted) == bench.ask(f"SELECT {wanted} FROM t ORDER BY id")


def test_a_computed_value_that_the_server_leaves_out_is_never_a_silent_null(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, a longtext, twice longtext AS (CONCAT(a, a)) VIRTUAL)",
        "INSERT INTO t (id, a) VALUES (1, REPEAT('x', 700000))",
    )
    _make(bench, "u")
    spec = bench.catalog(["t", "u"])
    with small_packets(bench):
        reports = bench.mirror_day(spec)
    error = reports["t"].error
    assert isinstance(error, SourceFault)
    assert "max_allowed_packet" in error.what
    assert "raised at the server" in error.remedy
    assert reports["u"].published
    assert bench.mirror_day(spec)["t"].published
    assert bench.rows("t_latest", "length(twice)") == [(1_400_000,)]


def test_a_row_of_twenty_megabytes_arrives_whole_from_postgresql(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b bytea, c text NOT NULL)",
        "INSERT INTO t VALUES (1, 'small', 'small', ''), (3, NULL, NULL, 'after'), (2,"
        " repeat(E'a,\"b\\n', 1600000), decode(repeat('00ff22', 1000000), 'hex'),"
        " repeat('é', 4500000) || 'end')",
    )
    report = pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"]
    assert (report.error, report.loaded, report.rejected) == (None, 3, 0)
    wanted = "id, md5(a), md5(b), md5(c)"
    assert pg_bench.rows("t_latest", wanted) == pg_bench.ask(f"SELECT {wanted} FROM t ORDER BY id")
    assert report.bytes > 20_000_000


# -- servers that go away, locks, logins


@pytest.fixture(params=["mysql", "postgresql"])
def own_bench(
    request: pytest.FixtureRequest, tmp_path: Path, extensions: Path
) -> Iterator[KindBench]:
    """A bench over a server of the test's own, once of each kind."""
    kind: Kind = request.param
    start = MariaDB.start if kind == "mysql" else PostgreSQL.start
    server: PrivateServer = start(tmp_path / "own-server")
    try:
        with kind_bench(kind, server, tmp_path, extensions) as made:
            yield made
    finally:
        server.remove()


def test_a_server_that_restarts_during_a_run_costs_the_table_being_read(
    own_bench: KindBench,
) -> None:
    _make(own_bench, "a", "b", "c")
    spec = own_bench.catalog(["a", "b", "c"])

    def restart() -> None:
        own_bench.server.stop()
        type(own_bench.server).start(own_bench.server.directory)

    source = _interrupted(own_bench, spec, "b", "before", restart)
    reports = own_bench.mirror_day(spec, source=source)
    assert _published(reports) == {"a": True, "b": False, "c": True}
    error = reports["b"].error
    assert isinstance(error, SourceUnavailable)
    assert (error.transient, error.where) == (True, "clinic/b")
    assert "check the host" in error.remedy
    assert own_bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "b")]

    source = _interrupted(own_bench, spec, "b", "before", own_bench.server.stop)
    reports = own_bench.mirror_day(spec, source=source)
    assert _published(reports) == {"a": True, "b": False, "c": False}
    assert isinstance(reports["c"].error, SourceUnavailable)
    assert not list((own_bench.root / "landing").glob("*/*/b_*.csv"))

    type(own_bench.server).start(own_bench.server.directory)
    assert all(_published(own_bench.mirror_day(spec)).values())
    assert own_bench.rows("MIRROR_COMPLETENESS", "complete") == [(True,)]


@contextmanager
def _locked(bench: KindBench, table: str) -> Iterator[None]:
    """Another session keeps everybody from a table."""
    lock = {
        "mysql": f"LOCK TABLES {table} WRITE",
        "postgresql": f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    }[bench.kind]
    with closing(bench.server.admin(bench.schema)) as session, session.cursor() as cursor:
        cursor.execute(lock)
        yield


def test_a_table_locked_for_too_long_fails_alone_and_the_snapshot_stays(
    any_bench: KindBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(any_bench, "a", "b", "c")
    spec = any_bench.catalog(["a", "b", "c"])
    for module in (mysql, postgres):
        monkeypatch.setattr(module, "_LOCK_SECONDS", 1)
    with _locked(any_bench, "b"):
        began = time.monotonic()
        assert set(any_bench.source(spec).states()) == {"a", "b", "c"}
        reports = any_bench.mirror_day(spec)
        assert time.monotonic() - began < 20
    assert _published(reports) == {"a": True, "b": False, "c": True}
    error = reports["b"].error
    assert isinstance(error, SourceLocked)
    assert (error.transient, error.where) == (True, "clinic/b")
    assert "longer than the 1 seconds" in error.what
    columns = "DISTINCT snapshot_at, snapshot"
    instants = any_bench.rows("MIRROR_METADATA", columns, where="published")
    assert [snapshot for _at, snapshot in instants] == ["one instant"]
    assert any_bench.mirror_day(spec)["b"].published


def test_our_waits_for_locks_end_within_minutes() -> None:
    assert mysql._LOCK_SECONDS < mysql._SILENT_SECONDS  # so that the server tells, not the network
    assert max(mysql._LOCK_SECONDS, postgres._LOCK_SECONDS) <= 600


# -- silence


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_no_limit_of_ours_or_of_the_server_ends_a_silent_statement(
    bench: Bench, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COUNT of a large table is silent for minutes: no connection is cut for that."""
    assert mysql._SILENT_SECONDS >= 4 * 3600  # a billion rows
    monkeypatch.setattr(mysql, "_CONNECT_SECONDS", 1)
    _make(bench, "t")
    source = bench.source(bench.catalog(["t"]), driver=driver)
    bench.run("SET GLOBAL max_statement_time = 0.3")
    try:
        with source.snapshot() as snapshot:
            assert snapshot.ask("SELECT SLEEP(1.2)") == [("0",)]
    finally:
        bench.run("SET GLOBAL max_statement_time = 0")


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_a_host_that_never_greets_is_given_up(
    bench: Bench, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = sa.make_url(bench.url).set(port=mute.getsockname()[1])
        text = url.render_as_string(hide_password=False)
        began = time.monotonic()
        with pytest.raises(SourceUnavailable):
            mysql.MySQLSource(bench.catalog(["t"]), text, driver=driver).states()
    assert time.monotonic() - began < 10


_LOSE_PEER = """
import ctypes, fcntl, os, socket, struct, sys, threading
from pathlib import Path
import sqlalchemy as sa
from mirror_assets.mirroring.catalog import load
from mirror_assets.mirroring.errors import SourceUnavailable
from mirror_assets.mirroring.sources import mysql

catalog, text, driver = sys.argv[1:]
url = sa.make_url(text)
server = socket.create_connection((url.host, url.port))
# sockets stay where they were opened: the server's outside, those made from here on inside
if ctypes.CDLL(None).unshare(0x40000000 if not os.getuid() else 0x50000000):
    sys.exit("no network namespaces here")

def switch(on):
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", on))  # SIOCSIFFLAGS, IFF_UP

def forward(one, other):
    while data := one.recv(65536):
        other.sendall(data)

def serve(listener):
    client = listener.accept()[0]
    for pair in ((client, server), (server, client)):
        threading.Thread(target=forward, args=pair, daemon=True).start()

switch(1)
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=[listener], daemon=True).start()
mysql._KEEPALIVE = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
near = url.set(port=listener.getsockname()[1]).render_as_string(hide_password=False)
with mysql.MySQLSource(load(Path(catalog)), near, driver=driver).snapshot() as snapshot:
    threading.Timer(0.3, switch, [0]).start()
    try:
        snapshot.ask("SELECT SLEEP(40)")
    except SourceUnavailable:
        print("noticed", flush=True)
    os._exit(0)
"""


def test_a_peer_that_vanished_is_noticed_while_a_statement_is_silent(bench: Bench) -> None:
    """A network namespace is switched off amid a statement: nobody says goodbye."""
    bench.catalog(["t"])
    catalog = str(bench.catalogs / "clinic.catalog.yaml")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _LOSE_PEER, catalog, bench.url, driver],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for driver in ("auto", "pymysql")
    ]
    for child in children:
        told, complaint = child.communicate(timeout=30)
        if "no network namespaces" in complaint:
            pytest.skip("this machine lets us make no network namespace")
        assert told == "noticed\n", complaint


# -- logins


@pytest.mark.parametrize(
    ("code", "transient"),
    [(2003, True), (2006, True), (2013, True), (2055, True)]
    + [(code, False) for code in (2007, 2020, 2049, 2059, 2061)],
)
def test_which_errors_of_the_mysql_client_may_pass_by_themselves(
    code: int, transient: bool
) -> None:
    error = pymysql.err.OperationalError(code, "CANARY")
    found = mysql._translate(error, "clinic")
    assert found.transient is transient
    assert str(code) in found.what
    assert "CANARY" not in repr(found)


def test_a_way_to_log_in_that_the_client_does_not_have_is_permanent(bench: Bench) -> None:
    login = f"{bench.schema}_old@'127.0.0.1'"
    old = "mysql_old_password USING '5d2e19393cc5ef67'"
    bench.run("SET GLOBAL secure_auth = 0", f"CREATE USER {login} IDENTIFIED VIA {old}")
    try:
        url = sa.make_url(bench.url).set(username=f"{bench.schema}_old", password="password")
        text = url.render_as_string(hide_password=False)
        source = mysql.MySQLSource(bench.catalog(["t"]), text, driver="pymysql")
        with pytest.raises(SourceFault, match="a way to log in") as caught:
            source.states()
    finally:
        bench.run(f"DROP USER {login}", "SET GLOBAL secure_auth = 1")
    assert "caching_sha2_password" in caught.value.remedy


PASSWORD = "p@ss:/?#[]%&+ word'\""


@contextmanager
def _login(bench: KindBench, password: str) -> Iterator[str]:
    """A login that may select; the URL of its database without a password."""
    name = f"{bench.schema}_login"
    user = f"{name}@'127.0.0.1'" if bench.kind == "mysql" else name
    create, grants = {
        "mysql": (f"CREATE USER {user} IDENTIFIED BY %s", [f"GRANT SELECT ON *.* TO {user}"]),
        "postgresql": (
            f"CREATE ROLE {user} LOGIN PASSWORD %s",
            [f"GRANT CONNECT ON DATABASE {bench.schema} TO {user}", f"GRANT reader TO {user}"],
        ),
    }[bench.kind]
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute(create, (password,))
        for grant in grants:
            cursor.execute(grant)
        try:
            url = sa.make_url(bench.url)
            yield f"{url.drivername}://{name}@{url.host}:{url.port}/{bench.schema}"
        finally:
            if bench.kind == "postgresql":
                cursor.execute(f"DROP OWNED BY {user}")
            cursor.execute(f"DROP {'USER' if bench.kind == 'mysql' else 'ROLE'} {user}")


def test_a_password_of_special_characters_works_and_is_never_shown(
    any_bench: KindBench, tmp_path: Path
) -> None:
    _make(any_bench, "t")
    spec = any_bench.catalog(["t"])
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o400)
    with _login(any_bench, PASSWORD) as bare:
        encoded = bare.replace("@", f":{quote(PASSWORD, safe='')}@", 1)
        given: tuple[dict[str, str], ...] = (
            {"CLINIC_DATABASE_URL": encoded},
            {"CLINIC_DATABASE_URL": bare, "CLINIC_DATABASE_PASSWORD": PASSWORD},
            {"CLINIC_DATABASE_URL": bare, "CLINIC_DATABASE_PASSWORD_FILE": str(secret)},
        )
        for variables in given:
            url = any_bench.settings_with(**variables).database_url("clinic")
            assert set(open_source(spec, url).states()) == {"t"}

        wrong = bare.replace("@", f":{quote(PASSWORD + 'x', safe='')}@", 1)
        error = any_bench.mirror_day(spec, source=open_source(spec, wrong))["t"].error
    assert isinstance(error, SourceFault)
    assert not error.transient
    assert "check the login in <NAME>_DATABASE_URL" in error.remedy
    for text in (str(error), repr(error), repr(vars(error))):
        for piece in ("p@ss", "p%40ss", "+ word", "word%27"):
            assert piece not in text


def test_a_password_that_was_not_encoded_is_not_quoted(any_bench: KindBench) -> None:
    spec = any_bench.catalog(["t"])
    url = any_bench.url.replace("reader:", f"reader:{PASSWORD}", 1)
    with pytest.raises(MirrorError) as caught:
        open_source(spec, url).states()
    assert not caught.value.transient
    for piece in ("p@ss", "+ word"):
        assert piece not in repr(vars(caught.value)) + str(caught.value)


def test_a_server_without_free_connections_is_transient(any_bench: KindBench) -> None:
    _make(any_bench, "t")
    spec = any_bench.catalog(["t"])
    limit, none = {
        "mysql": ("USER reader@'127.0.0.1' WITH MAX_USER_CONNECTIONS", 0),
        "postgresql": ("ROLE reader CONNECTION LIMIT", -1),
    }[any_bench.kind]
    any_bench.run(f"ALTER {limit} 1")
    try:
        with any_bench.source(spec).snapshot():
            error = any_bench.mirror_day(spec)["t"].error
        assert isinstance(error, SourceUnavailable)
        assert any_bench.mirror_day(spec)["t"].published
    finally:
        any_bench.run(f"ALTER {limit} {none}")


# -- a refresh while we copy


def test_a_refresh_that_lands_while_we_copy_is_never_mixed_with_the_one_before(
    bench: Bench,
) -> None:
    _make(bench, "a", "b", "c")
    spec = bench.catalog(["a", "b", "c"])
    day = bench.day(spec)
    bench.next_second()

    def refresh() -> None:
        bench.run("DROP TABLE a, c")
        _make(bench, "a", "c", rows=5)

    source = _interrupted(bench, spec, "b", "before", refresh)
    reports = bench.mirror_day(spec, day=day, source=source)
    assert _published(reports) == {"a": True, "b": True, "c": False}
    assert isinstance(reports["c"].error, RefreshLanded)
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "c")]

    bench.run("DROP TABLE b")  # until we had read it, the vendor would have waited here
    _make(bench, "b", rows=5)
    # what a retry does: only the failed tables, of the new refresh
    assert all(_published(bench.mirror_day(spec, "c")).values())
    assert bench.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "a, b")]
    assert all(_published(bench.mirror_day(spec)).values())
    assert bench.rows("MIRROR_COMPLETENESS", "complete, source_rows") == [(True, 15)]


# -- rivals


def _rule(share: float = 0.5) -> dict[str, Any]:
    return {"rule": "vendor", "cron": "0 5 * * *", "settle_minutes": 0, "share": share}


def _last(bench: Bench) -> list[tuple[Any, ...]]:
    return bench.rows("MIRROR_METADATA_latest", "TABLE_NAME, run_id, published")


def test_a_slower_run_never_brings_back_a_table_that_was_altered_alone_since(bench: Bench) -> None:
    _make(bench, "t", "u")
    spec = bench.catalog(["t", "u"], refresh=_rule())
    bench.next_second()

    def overtake() -> None:
        bench.run("DROP TABLE t")
        _make(bench, "t", rows=5)
        assert all(_published(bench.mirror_day(spec, run_id="fast")).values())

    reports = bench.mirror_day(spec, run_id="slow", between=overtake)
    assert _published(reports) == {"t": False, "u": True}
    error = reports["t"].error
    assert isinstance(error, StaleRefresh)
    assert error.remedy == "nothing to do: readers have the newer state"
    assert bench.rows("t_latest", "count(*)") == [(5,)]
    # the yielded attempt is kept, but the table is described by the run that won
    assert _last(bench) == [("t", "fast", True), ("u", "slow", True)]
    assert bench.errors() == []
    assert bench.rows("MIRROR_COMPLETENESS", "complete, loaded_rows") == [(True, 8)]
    assert bench.rows("MIRROR_METADATA", "TABLE_NAME, run_id", where="yielded") == [("t", "slow")]
    assert status.failures(bench.warehouse, spec, bench.day(spec)).rows == []

    again = bench.mirror_day(spec, run_id="again")
    assert [report.replayed for report in again.values()] == [True, True]
    assert _last(bench) == [("t", "again", True), ("u", "again", True)]


def test_an_older_export_of_the_same_refresh_yields_and_the_newest_may_be_repeated(
    bench: Bench,
) -> None:
    _make(bench, "t", "u")
    spec = bench.catalog(["t", "u"], refresh=_rule())
    tomorrow = lambda: datetime.now(UTC) + timedelta(days=1)  # noqa: E731
    day = bench.day(spec)
    bench.mirror_day(spec)

    def overtake() -> None:
        bench.next_second()
        bench.run("DROP TABLE t")
        _make(bench, "t", rows=5)
        bench.mirror_day(spec)

    replay = bench.mirror_day(spec, day=day, clock=tomorrow, between=overtake)
    assert replay["u"].replayed
    assert isinstance(replay["t"].error, StaleRefresh)
    repeated = bench.mirror_day(spec, day=day, clock=tomorrow)
    assert all(report.published and report.replayed for report in repeated.values())
    assert bench.rows("t_latest", "count(*)") == [(5,)]


def test_a_live_day_stays_whole_when_an_overlapping_run_yields(any_bench: KindBench) -> None:
    _make(any_bench, "t")
    spec = any_bench.catalog(["t"])

    def overtake() -> None:
        any_bench.run("INSERT INTO t VALUES (4, 'later')")
        assert any_bench.mirror_day(spec, run_id="fast")["t"].published

    slow = any_bench.mirror_day(spec, run_id="slow", between=overtake)["t"]
    assert isinstance(slow.error, StaleRefresh)
    assert any_bench.rows("t_latest", "count(*)") == [(4,)]
    assert any_bench.rows("MIRROR_COMPLETENESS", "complete, loaded_rows") == [(True, 4)]
    assert _last(any_bench) == [("t", "fast", True)]


def test_the_last_attempt_is_the_one_recorded_last_not_the_one_begun_last(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    reports = bench.mirror_day(
        spec, run_id="early", between=lambda: bench.mirror_day(spec, run_id="late")
    )
    assert reports["t"].published
    assert _last(bench) == [("t", "early", True)]
    [(begun, recorded)] = bench.rows(
        "MIRROR_METADATA",
        "arg_max(run_id, BQ_LOAD_TIME), arg_max(run_id, recorded_at)",
    )
    assert (begun, recorded) == ("late", "early")


def test_rows_of_an_older_version_count_from_the_start_of_their_run(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec, run_id="old")

    def age(tx: Any) -> None:
        for column in ("recorded_at", "yielded"):
            tx._connection.execute(f'ALTER TABLE clinic_mirror."MIRROR_METADATA" DROP {column}')

    for view in ("MIRROR_METADATA_latest", "MIRROR_ERRORS_latest"):
        bench.warehouse.commit(lambda tx, view=view: tx.drop_view("clinic_mirror", view))
    bench.warehouse.commit(age)
    assert bench.mirror_day(spec, run_id="new")["t"].published
    recorded = bench.rows("MIRROR_METADATA", "run_id, recorded_at IS NULL, yielded")
    assert recorded == [("new", False, False), ("old", True, None)]
    assert _last(bench) == [("t", "new", True)]


# -- full disks


@contextmanager
def _small_disk(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own; the function changes its options. Needs root, as the servers do."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, f"{options},mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield (
            lambda changed: (
                subprocess.run([*mount, f"remount,{changed}", "tmpfs", str(folder)], check=True)
                and None
            )
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(bench: Bench, table: str, rows: int = 12_000) -> None:
    """A table that does not compress: about 1 KB a row."""
    value = "CONCAT(" + ", ".join(["HEX(RANDOM_BYTES(128))"] * 4) + ")"
    bench.run(
        f"CREATE TABLE {table} (id int PRIMARY KEY, v text)",
        f"INSERT INTO {table} SELECT seq, {value} FROM seq_1_to_{rows}",
    )


def _refused_for_space(report: TableReport, kind: type[MirrorError], variable: str) -> None:
    error = report.error
    assert isinstance(error, kind)
    assert error.transient
    assert variable in error.remedy
    assert error.where


@pytest.mark.parametrize(
    ("small", "large"), [("size=4m", "size=64m"), ("nr_inodes=9", "nr_inodes=100")]
)
def test_a_full_landing_zone(bench: Bench, small: str, large: str) -> None:
    """Without space the file cannot grow; without inodes its manifest cannot be made."""
    _fill(bench, "big")
    _make(bench, "small")
    spec = bench.catalog(["big", "small"])
    zone = bench.root / "landing"
    with _small_disk(zone, small) as change:
        filler = [zone / f"filler{number}" for number in range(5)]
        for file in filler if "inodes" in small else []:
            file.touch()
        reports = bench.mirror_day(spec, part_bytes=2 << 20)
        _refused_for_space(reports["big"], LandingFault, "MIRROR_LANDING")
        assert "No space left on device" in str(reports["big"].error)
        assert not reports["big"].published
        assert not list(zone.rglob("big_*")), "the space of the failed export is given back"
        assert bench.rows("MIRROR_ERRORS_latest", "kind", where="\"table\" = 'big'") == [
            ("landing",)
        ]
        change(large)
        assert all(_published(bench.mirror_day(spec)).values())
        assert bench.landing.find("clinic", "big", bench.day(spec)) is not None


def test_a_full_lake(bench: Bench) -> None:
    _fill(bench, "big")
    _make(bench, "small")
    spec = bench.catalog(["big", "small"])
    with _small_disk(bench.root / "lake", "size=4m") as change:
        reports = bench.mirror_day(spec)
        assert _published(reports) == {"big": False, "small": True}
        _refused_for_space(reports["big"], WarehouseFault, "MIRROR_LAKE")
        assert not list((bench.root / "lake" / "clinic_mirror" / "big").rglob("*.parquet"))
        change("size=64m")
        assert all(_published(bench.mirror_day(spec)).values())
        assert bench.rows("big_latest", "count(*)") == [(12_000,)]
        bench.close()


def test_a_full_catalog_disk(bench: Bench) -> None:
    _make(bench, "t", "u")
    spec = bench.catalog(["t", "u"])
    disk = bench.root / "catalog-disk"
    with _small_disk(disk, "size=2m"):
        warehouse = bench.settings_with(
            MIRROR_WAREHOUSE=f"ducklake:sqlite:{disk}/lake.sqlite"
        ).warehouse()
        assert all(_published(bench.mirror_day(spec, warehouse=warehouse)).values())
        bench.next_second()
        bench.run("DROP TABLE t, u")
        _make(bench, "t", "u", rows=5)
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        reports = bench.mirror_day(spec, warehouse=warehouse)
        assert _published(reports) == {"t": False, "u": False}
        for report in reports.values():
            _refused_for_space(report, WarehouseFault, "MIRROR_WAREHOUSE")
            assert "the disk is full" in str(report.error)
        filler.unlink()
        counted = "SELECT count(*) FROM clinic_mirror.t_latest"
        assert warehouse.query(counted).rows == [(3,)]
        assert all(_published(bench.mirror_day(spec, warehouse=warehouse)).values())
        assert warehouse.query(counted).rows == [(5,)]
        warehouse.close()


def test_a_full_scratch_folder_of_a_remote_landing_zone(bench: Bench) -> None:
    _fill(bench, "big", rows=6_000)
    spec = bench.catalog(["big"])
    disk = bench.root / "scratch-disk"
    with _small_disk(disk, "size=4m") as change:
        bench.landing = Landing(f"memory://{bench.schema}", disk)
        report = bench.mirror_day(spec)["big"]
        _refused_for_space(report, LandingFault, "MIRROR_SCRATCH")
        assert not list(disk.iterdir())
        change("size=64m")
        assert bench.mirror_day(spec)["big"].published
        assert not list(disk.iterdir())


def test_a_full_scratch_folder_is_named_before_anything_is_read(bench: Bench) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    with _small_disk(bench.root / "scratch", "nr_inodes=3") as change:
        with pytest.raises(WarehouseFault, match="MIRROR_SCRATCH") as caught:
            bench.mirror_day(spec)
        assert caught.value.transient
        change("nr_inodes=100")
        assert bench.mirror_day(spec)["t"].published


# -- power cuts


def test_files_are_on_the_disk_before_the_catalog_names_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    told: list[tuple[str, bool, bool]] = []

    real = storage.persist

    def persist(folder: Path) -> None:
        real(folder)
        written = [p for p in folder.rglob("*") if p.suffix in (".parquet", ".csv")]
        told.append((folder.name, bool(written), _is_visible(bench, "t")))

    monkeypatch.setattr(storage, "persist", persist)
    assert bench.mirror_day(spec)["t"].published
    assert told == [("landing", True, False), ("lake", True, False)]
    assert _is_visible(bench, "t")


def _is_visible(bench: Bench, table: str) -> bool:
    if not (bench.root / "lake.sqlite").exists():
        return False
    tables = bench.query("SELECT table_name FROM information_schema.tables")
    return (table,) in tables


# -- damaged exports


@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_export_is_written_again_while_the_source_holds_its_refresh(
    bench: Bench, damage: str
) -> None:
    _make(bench, "t")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec)
    [part] = (bench.root / "landing" / "clinic").glob("*/t_*.csv")
    good = part.read_bytes()
    part.write_bytes(good.replace(b"note 2", b"note 9") if damage == "changed" else good[:-5])
    again = bench.mirror_day(spec)["t"]
    assert (again.published, again.replayed, again.loaded) == (True, False, 3)
    assert bench.exported("t") == good
    assert bench.mirror_day(spec)["t"].replayed


# -- a table whose every row is bad


@pytest.mark.parametrize("rows", [60_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
def test_a_table_of_bad_rows_only_is_counted_in_bounded_memory(bench: Bench, rows: int) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(60), d date)",
        "SET sql_mode = ''",
        f"INSERT INTO t SELECT seq, REPEAT('x', 50), '0000-00-00' FROM seq_1_to_{rows}",
    )
    spec = bench.catalog(["t"])
    process = bench.child(bench.day(spec), "bad")
    start(process)
    out, told = process.communicate(timeout=500)
    assert process.returncode == 1
    assert f"{rows} of {rows} rows were rejected, 0 are allowed" in told
    kinds = bench.rows("MIRROR_ERRORS", "kind, count(*), max(row_number)", where="true GROUP BY 1")
    assert sorted(kinds) == [
        ("coverage", 1, None),
        ("unlisted", 1, None),
        ("zero_date", 10_000, 10_000),
    ]
    listed = bench.rows("MIRROR_ERRORS", "error", where="kind = 'unlisted'")
    assert listed[0][0].startswith(f"{rows - 10_000} more rows")
    counts = "TABLE_ROWS, loaded_rows, rejected_rows, published"
    assert bench.rows("MIRROR_METADATA", counts) == [(rows, 0, rows, False)]
    assert not _is_visible(bench, "t")
    assert int(out.split("peak ")[1]) < 700


# -- a vendor that never stops


class _Vendor(threading.Thread):
    """Drops and makes tables anew, generation after generation, and measures its own waits."""

    def __init__(self, bench: Bench, tables: tuple[str, ...], rows: int) -> None:
        super().__init__(daemon=True)
        self._bench = bench
        self._tables = tables
        self._rows = rows
        self.generation = 1
        self.longest = 0.0
        self.stopped = threading.Event()

    def run(self) -> None:
        with closing(self._bench.server.admin(self._bench.schema)) as admin:
            cursor = admin.cursor()
            while not self.stopped.is_set():
                self.generation += 1
                for table in self._tables:
                    self._rebuild(cursor, table)

    def _rebuild(self, cursor: Any, table: str) -> None:
        began = time.monotonic()
        cursor.execute(f"DROP TABLE {table}")
        self.longest = max(self.longest, time.monotonic() - began)
        cursor.execute(make_generation(table, self.generation, self._rows))


def make_generation(table: str, generation: int, rows: int) -> str:
    return (
        f"CREATE TABLE {table} (PRIMARY KEY (id)) AS"
        f" SELECT seq AS id, {generation} AS generation, REPEAT('x', 200) AS v"
        f" FROM seq_1_to_{rows}"
    )


class _Reader(threading.Thread):
    """Looks at the latest views again and again; remembers what was mixed and what failed."""

    def __init__(self, bench: Bench, tables: tuple[str, ...], rows: int) -> None:
        super().__init__(daemon=True)
        self._warehouse = bench.settings_with().warehouse()
        self._tables = tables
        self._rows = rows
        self.wrong: list[Any] = []
        self.seen: set[int] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            for table in self._tables:
                try:
                    self._look(table)
                except MirrorError as error:
                    self.wrong.append(error)
            self.stopped.wait(0.02)
        self._warehouse.close()

    def _look(self, table: str) -> None:
        columns = "count(*), min(generation), max(generation)"
        statement = f"SELECT {columns} FROM clinic_mirror.{table}_latest"
        [(count, least, most)] = self._warehouse.query(statement).rows
        if count != self._rows or least != most:
            self.wrong.append((table, count, least, most))
        self.seen.add(most)


@pytest.mark.parametrize(
    ("rounds", "rows"), [(3, 5_000), pytest.param(25, 30_000, marks=pytest.mark.slow)]
)
def test_a_vendor_that_rebuilds_in_a_loop_harms_no_reader_and_never_waits_for_a_run(
    bench: Bench, rounds: int, rows: int
) -> None:
    tables = ("a", "b", "c", "d", "e", "f")
    bench.run(*(make_generation(table, 1, rows) for table in tables))
    spec = bench.catalog(list(tables), refresh={"cron": "0 5 * * *"})
    began = time.monotonic()
    first = bench.mirror_day(spec, day=utc_now().date())
    assert all(_published(first).values())
    whole = time.monotonic() - began
    vendor, reader = _Vendor(bench, tables, rows), _Reader(bench, tables, rows)
    vendor.start()
    reader.start()
    kinds: set[str] = set()
    try:
        for _round in range(rounds):
            reports = bench.mirror_day(spec, day=utc_now().date())
            kinds |= {report.error.kind for report in reports.values() if report.error}
    finally:
        for thread in (vendor, reader):
            thread.stopped.set()
            thread.join(60)
    assert reader.wrong == []
    assert kinds <= {"refresh_landed", "source"}, "what the vendor does is told as such"
    assert vendor.generation > rounds
    # a DROP waits for the table that is being read, never for the run
    assert vendor.longest < max(1.0, whole / 2)
    reports = bench.mirror_day(spec, day=utc_now().date())
    assert all(_published(reports).values())
    generations = {bench.rows(f"{table}_latest", "max(generation)")[0][0] for table in tables}
    assert generations <= {vendor.generation - 1, vendor.generation}
