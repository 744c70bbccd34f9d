"""The DuckLake adapter, one behaviour at a time, over a real lake in a temporary folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import WarehouseFault
from mirror_assets.mirroring.names import sql, warehouse_name
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema
from mirror_assets.mirroring.warehouses.ducklake import (
    ALIAS,
    DuckLakeTransaction,
    DuckLakeWarehouse,
    install_extensions,
)
from tests.conftest import LakeCatalog, LakeCatalogs

DAY = date(2026, 11, 22)
NEXT = DAY + timedelta(days=1)
#: What does not depend on the catalog.
sqlite_only = pytest.mark.parametrize("lake_catalogs", ["sqlite"], indirect=True)
CONTROL = TableSchema(
    (
        Column("run", "", types.STRING, True),
        Column("rows", "", types.INT64),
        Column("at", "", types.TIMESTAMP),
        Column("note", "", types.STRING),
    )
)


Opener = Callable[..., DuckLakeWarehouse]


@pytest.fixture
def open_lake(tmp_path: Path, extensions: Path, lake_catalog: LakeCatalog) -> Iterator[Opener]:
    opened = []

    def open_(**options: Any) -> DuckLakeWarehouse:
        known = {"memory": "128MB", "password": lake_catalog.password} | options
        lake = DuckLakeWarehouse(lake_catalog.url, tmp_path / "lake", extensions, **known)
        opened.append(lake)
        return lake

    yield open_
    for lake in opened:
        lake.close()


@pytest.fixture
def lake(open_lake: Opener) -> DuckLakeWarehouse:
    return open_lake()


def schema(**kinds: str) -> TableSchema:
    """Columns of these logical types; a trailing ``!`` makes one required."""
    return TableSchema(
        tuple(
            Column(name, "", LogicalType.parse(kind.rstrip("!")), kind.endswith("!"))
            for name, kind in kinds.items()
        )
    )


def stage(lake: DuckLakeWarehouse, table: str, day: date, **columns: list[Any]) -> str:
    file = lake.staging("clinic", table, day) + "/0.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def publish(lake: DuckLakeWarehouse, table: str, day: date, *values: int) -> None:
    """Make ``values`` the day's rows of a table with one column ``v``."""
    files = [stage(lake, table, day, v=list(values))] if values else []

    def body(tx: DuckLakeTransaction) -> None:
        if tx.schema("clinic", table) is None:
            tx.create_table("clinic", table, schema(v="INT64"), partitioned=True)
        tx.replace_partition("clinic", table, day, files)
        tx.latest_view("clinic", f"{table}_latest", table, day)

    lake.commit(body)


def column(lake: DuckLakeWarehouse, statement: str) -> list[Any]:
    return [row[0] for row in lake.query(statement).rows]


def parquet_files(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


# -- publication


def test_the_body_runs_again_after_a_conflict(lake: DuckLakeWarehouse, open_lake: Opener) -> None:
    publish(lake, "visit", DAY, 1)
    other = open_lake()
    tries = []

    def body(tx: DuckLakeTransaction) -> None:
        tx.replace_rows("clinic", "log", [{"v": 2}], v=2)
        if not tries:
            tries.append("first")
            thread = threading.Thread(target=_commit_without_turn, args=(other,))
            thread.start()
            thread.join()

    lake.commit(lambda tx: tx.create_table("clinic", "log", schema(v="INT64"), partitioned=False))
    lake.commit(lambda tx: tx.replace_rows("clinic", "log", [], v=0))
    lake.commit(body)

    assert tries == ["first"]
    assert sorted(column(lake, "SELECT v FROM clinic.log")) == [1, 2]


def test_two_overlapping_publications_of_an_empty_day_leave_one(
    lake: DuckLakeWarehouse, open_lake: Opener
) -> None:
    """Neither finds anything to delete, so nothing but the conflict keeps one of them out."""
    lake.commit(lambda tx: tx.create_table("clinic", "t", schema(v="INT64"), partitioned=True))
    other = open_lake()
    other._open_writer()
    mine, theirs = (stage(lake, "t", DAY, v=[generation]) for generation in (1, 2))
    tries = []

    def body(tx: DuckLakeTransaction) -> None:
        tx.replace_partition("clinic", "t", DAY, [mine])
        if not tries:
            tries.append("first")
            other._attempt(lambda rival: rival.replace_partition("clinic", "t", DAY, [theirs]))

    lake.commit(body)

    assert column(lake, "SELECT v FROM clinic.t") == [1]


def _commit_without_turn(lake: DuckLakeWarehouse) -> None:
    lake._attempt(lambda tx: tx.replace_rows("clinic", "log", [{"v": 1}], v=1))


@pytest.mark.parametrize("rows", [1, 2000])
def test_replaced_files_of_any_size_leave_the_disk_with_their_snapshots(
    lake: DuckLakeWarehouse, tmp_path: Path, rows: int
) -> None:
    """Inlined deletes would keep each small file ever published, and read it, for ever."""
    for generation in range(4):
        publish(lake, "visit", DAY, *[generation] * rows)
    assert len(parquet_files(tmp_path)) == 4

    done = lake.maintain(time_travel_days=0)

    assert done["files_deleted"] == 3
    assert len(parquet_files(tmp_path)) == 1
    assert set(column(lake, "SELECT v FROM clinic.visit")) == {3}


def test_time_travel_until_the_snapshots_expire(lake: DuckLakeWarehouse) -> None:
    publish(lake, "visit", DAY, 1)
    [version] = column(lake, "SELECT max(snapshot_id) FROM lake.snapshots()")
    publish(lake, "visit", DAY, 2)
    before = f"SELECT v FROM clinic.visit AT (VERSION => {version})"

    lake.maintain(time_travel_days=7)
    assert column(lake, before) == [1]

    assert lake.maintain(time_travel_days=0)["snapshots_expired"] > 0
    with pytest.raises(WarehouseFault):
        lake.query(before)
    assert column(lake, "SELECT v FROM clinic.visit") == [2]


@sqlite_only
def test_hostile_table_names(lake: DuckLakeWarehouse) -> None:
    hostile = ("a b", "é", 'say "hi"', "it's", "select", "order by", "50%", "a[1]*?", "p=q")
    for number, table in enumerate(hostile):
        name = warehouse_name(table)
        file = stage(lake, table, DAY, v=[number])

        def body(tx: DuckLakeTransaction, name: str = name, file: str = file) -> None:
            tx.create_table("clinic", name, schema(v="INT64"), partitioned=True)
            tx.replace_partition("clinic", name, DAY, [file])
            tx.latest_view("clinic", f"{name}_latest", name, DAY)

        lake.commit(body)

    for number, table in enumerate(hostile):
        view = sql(warehouse_name(table) + "_latest")
        assert column(lake, f"SELECT v FROM clinic.{view}") == [number]


def test_hostile_columns_and_five_hundred_of_them(lake: DuckLakeWarehouse) -> None:
    hostile = ["a b", "é", "select", "Group", "1st", "x-y", *(f"c{i}" for i in range(494))]
    wide = schema(**dict.fromkeys(hostile, "INT64!"))
    file = stage(lake, "wide", DAY, **{name: [i] for i, name in enumerate(hostile)})

    def body(tx: DuckLakeTransaction) -> TableSchema | None:
        tx.create_table("clinic", "wide", wide, partitioned=True)
        tx.replace_partition("clinic", "wide", DAY, [file])
        tx.latest_view("clinic", "wide_latest", "wide", DAY)
        return tx.schema("clinic", "wide")

    assert lake.commit(body) == wide
    answer = lake.query("SELECT * FROM clinic.wide_latest")
    assert answer.columns == tuple(hostile)
    assert answer.dicts() == [dict(zip(hostile, range(500), strict=True))]


# -- schema


# -- control rows


@pytest.fixture
def control(lake: DuckLakeWarehouse) -> DuckLakeWarehouse:
    lake.commit(lambda tx: tx.create_table("clinic", "log", CONTROL, partitioned=False))
    return lake


def log_row(run: str, rows: int | None, note: str | None = None) -> dict[str, Any]:
    return {"run": run, "rows": rows, "at": datetime(2026, 11, 22, tzinfo=UTC), "note": note}


def test_few_control_rows_make_no_file(control: DuckLakeWarehouse, tmp_path: Path) -> None:
    control.commit(lambda tx: tx.replace_rows("clinic", "log", [log_row("a", 1)], run="a"))

    assert parquet_files(tmp_path / "lake") == []


def test_only_control_tables_keep_rows_in_the_catalog(control: DuckLakeWarehouse) -> None:
    publish(control, "notes", DAY, 1, 2)
    control.commit(lambda tx: tx.replace_rows("clinic", "log", [log_row("a", 1)], run="a"))
    publish(control, "notes", DAY, 3)

    inlined = control.commit(
        lambda tx: tx._connection.execute(
            f"SELECT t.table_name FROM __ducklake_metadata_{ALIAS}.ducklake_inlined_data_tables"
            f" JOIN __ducklake_metadata_{ALIAS}.ducklake_table t USING (table_id)"
        ).fetchall()
    )
    assert inlined == [("log",)]


def test_rows_written_where_their_table_is_made_are_read_back(lake: DuckLakeWarehouse) -> None:
    def create(tx: DuckLakeTransaction) -> None:
        tx.create_table("clinic", "log", CONTROL, partitioned=False)
        tx.replace_rows("clinic", "log", [log_row("a", 1), log_row("b", 2)])
        tx.replace_rows("clinic", "log", [log_row("a", 3)], run="a")

    lake.commit(create)
    lake.commit(lambda tx: tx.replace_rows("clinic", "log", [log_row("b", 4)], run="b"))

    assert sorted(column(lake, "SELECT rows FROM clinic.log")) == [3, 4]


@pytest.mark.parametrize("count", [3, 700])
def test_blanked_text_is_gone_from_the_files_after_maintenance(
    control: DuckLakeWarehouse, tmp_path: Path, lake_catalog: LakeCatalog, count: int
) -> None:
    canary = "canary-0b9f"
    rows = [log_row("a", n, note) for n in range(count) for note in ("aaa", canary, "zzz")]
    control.commit(lambda tx: tx.replace_rows("clinic", "log", rows, run="a"))
    assert canary in everything_of(lake_catalog, tmp_path)

    control.commit(lambda tx: tx.blank_before("clinic", "log", "note", "at", NEXT))
    control.maintain(time_travel_days=0)
    control.maintain(time_travel_days=0)
    control.close()

    assert canary not in everything_of(lake_catalog, tmp_path)
    assert column(control, "SELECT count(*) FROM clinic.log WHERE note IS NULL") == [3 * count]


def everything_of(catalog: LakeCatalog, root: Path) -> str:
    """The raw bytes of the catalog's files, and the values of the lake's Parquet files."""
    files = [path for path in root.rglob("*.parquet") if path.is_file()]
    values = [str(pq.read_table(path, partitioning=None).to_pylist()) for path in files]
    return "\n".join([catalog.bytes().decode("latin-1"), *values])


# -- maintenance


def test_debris_is_swept_and_what_a_running_writer_staged_is_not(
    lake: DuckLakeWarehouse, tmp_path: Path
) -> None:
    publish(lake, "visit", DAY, 1)
    orphan = Path(stage(lake, "visit", DAY, v=[2]))
    empty = Path(lake.staging("clinic", "gone", DAY))
    theirs = Path(lake._lake) / ".bigquery/staged/0.parquet"  # BigQuery's, on its way there
    theirs.parent.mkdir(parents=True)
    shutil.copy(orphan, theirs)
    yesterday = time.time() - 25 * 3600
    for path in (orphan, empty, theirs):
        os.utime(path, (yesterday, yesterday))
    staged = Path(stage(lake, "visit", NEXT, v=[3]))
    just_made = Path(lake.staging("clinic", "patient", NEXT))

    done = lake.maintain(time_travel_days=7)

    assert done["orphans_deleted"] == 1
    assert [path.exists() for path in (orphan, empty)] == [False] * 2
    assert theirs.exists()
    assert staged.exists()
    assert just_made.exists()
    assert column(lake, "SELECT v FROM clinic.visit") == [1]


# -- reading


def test_before_anything_is_mirrored_a_query_says_so(lake: DuckLakeWarehouse) -> None:
    with pytest.raises(WarehouseFault, match="nothing has been mirrored yet"):
        lake.query("SELECT 1")


def test_a_query_sees_commits_made_after_the_first_query(
    lake: DuckLakeWarehouse, open_lake: Opener
) -> None:
    reader = open_lake()
    publish(lake, "visit", DAY, 1)
    assert column(reader, "SELECT v FROM clinic.visit") == [1]

    publish(lake, "visit", DAY, 2)

    assert column(reader, "SELECT v FROM clinic.visit") == [2]


@pytest.fixture(scope="module")
def mirrored(
    tmp_path_factory: pytest.TempPathFactory,
    extensions: Path,
    lake_catalogs: LakeCatalogs,
) -> Iterator[Mirrored]:
    """A lake with one table, secrets beside it, and a file that a clean-up would delete."""
    root = tmp_path_factory.mktemp("mirrored")
    at = lake_catalogs.empty(root, "mirrored")
    lake = DuckLakeWarehouse(at.url, root / "lake", extensions, password=at.password)
    publish(lake, "visit", DAY, 1)
    publish(lake, "visit", DAY, 2)
    lake._open_writer().execute("CALL ducklake_expire_snapshots('lake', older_than => now())")
    (root / "lake2").mkdir()
    (root / "secret.csv").write_text("a\nsecret-4711\n")
    for path in ("secret.parquet", "lake2/secret.parquet"):
        pq.write_table(pa.table({"a": ["secret-4711"]}), root / path)
    with sqlite3.connect(root / "secret.sqlite") as outside:
        outside.execute("CREATE TABLE t (a)")
        outside.execute("INSERT INTO t VALUES ('secret-4711')")
    yield lake, root
    lake.close()


Mirrored = tuple[DuckLakeWarehouse, Path]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT v FROM clinic.visit;",
        "FROM clinic.visit",
        "WITH w AS (SELECT v FROM clinic.visit) SELECT * FROM w",
        "SELECT max(range) FROM range(2)",
        "EXPLAIN SELECT 1",
        "explain analyze SELECT 1",
        "DESCRIBE clinic.visit",
        "SUMMARIZE clinic.visit",
        "SHOW ALL TABLES",
        "FROM lake.snapshots()",
        "FROM duckdb_settings()",
        "PIVOT clinic.visit ON v IN (1) USING count(*)",
    ],
)
def test_reading_statements_are_answered(mirrored: Mirrored, statement: str) -> None:
    lake, _root = mirrored

    assert lake.query(statement).rows


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE TABLE clinic.x (i int)", "read-only"),
        ("CREATE TEMP TABLE x AS SELECT 1", "read-only"),
        ("INSERT INTO clinic.visit VALUES (2, DATE '2026-11-22')", "read-only"),
        ("DELETE FROM clinic.visit", "read-only"),
        ("DROP TABLE clinic.visit", "read-only"),
        ("COPY (SELECT 1) TO '{tmp}/out.csv'", "read-only"),
        ("COPY (SELECT 1) TO '{tmp}/lake/out.csv'", "read-only"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{tmp}/lake/out.csv'", "read-only"),
        ("SELECT 1; DELETE FROM clinic.visit", "read-only"),
        ("SELECT 1; SELECT 2", "single"),
        ("", "read-only"),
        ("ATTACH '{tmp}/other.db'", "read-only"),
        ("SET lock_configuration = false", "read-only"),
        ("INSTALL httpfs", "read-only"),
        ("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)", "read-only"),
        ("FROM ducklake_cleanup_old_files('lake', cleanup_all => true)", "may not call"),
        ("FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)", "may not call"),
        ("FROM read_csv('{tmp}/secret.csv')", "may not call read_csv"),
        ("FROM sqlite_scan('{tmp}/secret.sqlite', 't')", "may not call sqlite_scan"),
        ("SELECT (SELECT a FROM \"Sqlite_Scan\"('{tmp}/secret.sqlite', 't'))", "may not call"),
        ("FROM query('FROM sqlite_scan(''{tmp}/secret.sqlite'', ''t'')')", "may not call query"),
        ("FROM '{tmp}/secret.csv'", "no other files"),
        ("FROM '{tmp}/secret.sqlite'", "refused"),
        ("FROM '{tmp}/secret.parquet'", "no other files"),
        ("FROM '{tmp}/lake2/secret.parquet'", "no other files"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT colour FROM clinic.visit", '"colour" not found'),
        ("FROM clinic.visitors", "visitors does not exist"),
    ],
)
def test_what_a_query_may_not_do_is_refused_with_the_next_step(
    mirrored: Mirrored, statement: str, told: str
) -> None:
    lake, root = mirrored
    before = files_below(root)
    assert len(parquet_files(root / "lake")) == 2

    with pytest.raises(WarehouseFault) as caught:
        lake.query(statement.replace("{tmp}", str(root)))

    assert told in caught.value.what
    assert "write one SELECT" in caught.value.remedy
    assert "secret-4711" not in caught.value.sentence
    assert files_below(root) == before
    assert column(lake, "SELECT v FROM clinic.visit") == [2]


def files_below(root: Path) -> list[Path]:
    """All files but SQLite's journals, which come and go."""
    names = (path for path in root.rglob("*") if path.suffix not in (".sqlite-wal", ".sqlite-shm"))
    return sorted(path for path in names if path.is_file())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT note::INT FROM clinic.log",
        "SELECT note::DATE FROM clinic.log",
        "SELECT error('row ' || note) FROM clinic.log",
        "SELECT rows + 9223372036854775807 FROM clinic.log",
        "SELECT regexp_matches('x', note) FROM clinic.log",
    ],
)
def test_errors_never_carry_a_rows_values(control: DuckLakeWarehouse, statement: str) -> None:
    rows = [log_row("a", 4711, "canary-4711(")]
    control.commit(lambda tx: tx.replace_rows("clinic", "log", rows))

    with pytest.raises(WarehouseFault) as caught:
        control.query(statement)

    assert "4711" not in caught.value.sentence
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_errors_of_a_commit_never_carry_a_rows_values(control: DuckLakeWarehouse) -> None:
    rows = [{**log_row("a", 1), "run": None, "note": "canary-4711"}]

    with pytest.raises(WarehouseFault) as caught:
        control.commit(lambda tx: tx.replace_rows("clinic", "log", rows))

    assert "4711" not in caught.value.sentence
    assert "a value is missing in a required column" in caught.value.what
    assert caught.value.__suppress_context__
    control.commit(lambda tx: tx.replace_rows("clinic", "log", [log_row("b", 1)]))


# -- files


@sqlite_only
def test_the_catalog_stays_in_wal_mode(lake: DuckLakeWarehouse, tmp_path: Path) -> None:
    publish(lake, "visit", DAY, 1)
    lake.maintain(time_travel_days=0)
    lake.close()

    header = (tmp_path / "lake" / "catalog.sqlite").read_bytes()
    assert header[18:20] == b"\x02\x02"  # WAL, by SQLite's file format
    assert not (tmp_path / "lake" / "catalog.sqlite-wal").exists()


def test_everything_in_the_lake_is_private(control: DuckLakeWarehouse, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = Path(control.staging("clinic", "visit", DAY))
        rows = [log_row("a", n) for n in range(700)]
        control.commit(lambda tx: tx.replace_rows("clinic", "log", rows, run="a"))
        control.commit(lambda tx: tx.replace_rows("clinic", "log", rows[:600], rows=[1, 2]))
        control.query("FROM clinic.log")
        control.maintain(time_travel_days=0)
        assert folder.is_dir()
    finally:
        assert os.umask(before) == 0o022

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "lake").rglob("*")}
    assert parquet_files(tmp_path / "lake")
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


@sqlite_only
def test_spilled_data_lies_in_private_scratch_and_is_gone_after_close(
    lake: DuckLakeWarehouse, tmp_path: Path
) -> None:
    publish(lake, "visit", DAY, 1)
    scratch = tmp_path / "scratch"

    lake.query(
        "SELECT count(*) FROM (SELECT repeat(i::VARCHAR, 10) AS s, count(*)"
        " FROM range(2000000) t(i) GROUP BY s)"
    )

    assert list(scratch.glob("*/*/")) != []  # DuckDB made it to spill, else this proves nothing
    assert {stat.S_IMODE(path.stat().st_mode) for path in scratch.glob("*/")} == {0o700}
    lake.close()
    assert list(scratch.iterdir()) == []


# -- extensions

_OFFLINE = """
import sys
from datetime import date
from pathlib import Path
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse, install_extensions
root = Path(sys.argv[1])
install_extensions(root / "extensions")
lake = DuckLakeWarehouse(f"ducklake:sqlite:{root}/c.sqlite", root / "lake", root / "extensions")
lake.commit(lambda tx: tx.view("main", "v", "SELECT 1 AS v"))
assert lake.query("SELECT v FROM v").rows == [(1,)]
for row in lake._open_writer().execute(
    "SELECT extension_name, install_path FROM duckdb_extensions() WHERE loaded"
    " AND install_mode <> 'STATICALLY_LINKED' ORDER BY 1"
).fetchall():
    sys.stdout.write(" ".join(row) + "\\n")
"""


def test_without_a_network_only_our_private_extensions_are_used(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-c", _OFFLINE, str(tmp_path)]
    if _can_unshare():
        command = ["unshare", "--net", *command]
    nowhere = "http://127.0.0.1:9"
    environment = {"HOME": str(home), "http_proxy": nowhere, "https_proxy": nowhere}
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}

    for _time in range(2):
        done = subprocess.run(
            command, env={**environment, **path}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        assert sorted(found) == ["ducklake", "icu", "sqlite_scanner"]
        assert all(place.startswith(str(tmp_path / "extensions")) for place in found.values())
    assert list(home.iterdir()) == []


def _can_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0


def test_an_extension_that_was_exchanged_is_verified_again(tmp_path: Path) -> None:
    def opened() -> None:
        url = f"ducklake:sqlite:{tmp_path}/lake.sqlite"
        with closing(DuckLakeWarehouse(url, tmp_path / "lake", tmp_path / "x")) as warehouse:
            warehouse.commit(lambda _: None)

    opened()
    opened()  # not verified again
    file = next((tmp_path / "x").rglob("ducklake.duckdb_extension"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    other = tmp_path / "other"
    other.write_bytes(data)
    other.replace(file)
    with pytest.raises(WarehouseFault):
        opened()


def test_installed_extensions_are_not_copied_again(tmp_path: Path) -> None:
    install_extensions(tmp_path)
    files = sorted(tmp_path.rglob("*.duckdb_extension"))
    before = [(path, path.stat().st_ino) for path in files]
    install_extensions(tmp_path)

    assert len(before) == 3
    assert [(path, path.stat().st_ino) for path in files] == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()].__len__() == 3
