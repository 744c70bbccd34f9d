"""DuckLake under real processes: readers, rival writers, kill -9. Also run as their program."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.names import PARTITION_COLUMN
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction, DuckLakeWarehouse

if TYPE_CHECKING:  # as a program it knows no tests
    from tests.conftest import LakeCatalog

DAY = date(2026, 11, 22)
TABLES = ("a", "b", "c")
SCHEMA = TableSchema(
    (Column("id", "int", types.INT64, True), Column("generation", "int", types.INT64))
)


def open_lake(root: Path, *, turns: bool = True, orphan_hours: float = 24) -> DuckLakeWarehouse:
    """The lake below ``root``; without ``turns`` it writes as if from another machine."""
    url, password = json.loads((root / "catalog.json").read_text())
    lake = DuckLakeWarehouse(
        url,
        root / "lake",
        root / "extensions",
        memory="128MB",
        orphan_hours=orphan_hours,
        password=password,
    )
    if not turns:
        lake._turn = nullcontext  # type: ignore[method-assign]
    return lake


def rows_of(generation: int) -> int:
    return 100 + generation % 7


def stage(lake: DuckLakeWarehouse, table: str, day: date, generation: int) -> str:
    """A Parquet file in which every row tells its generation."""
    file = lake.staging("clinic", table, day) + "/0.parquet"
    rows = rows_of(generation)
    pq.write_table(pa.table({"id": range(rows), "generation": [generation] * rows}), file)
    return file


def publish(
    lake: DuckLakeWarehouse, generation: int, tables: Sequence[str] = TABLES, day: date = DAY
) -> None:
    """Replace the day in all tables, and move their views, in one transaction."""
    files = {table: stage(lake, table, day, generation) for table in tables}

    def body(tx: DuckLakeTransaction) -> None:
        for table, file in files.items():
            if tx.schema("clinic", table) is None:
                tx.create_table("clinic", table, SCHEMA, partitioned=True)
            tx.replace_partition("clinic", table, day, [file])
            tx.latest_view("clinic", f"{table}_latest", table, day)

    lake.commit(body)


def seen(lake: DuckLakeWarehouse) -> tuple[int, ...]:
    """Count, min, max and sum of the generations of the three tables, in one query."""
    wanted = ", ".join(
        f"(SELECT {what} FROM clinic.{table}_latest)"
        for table in TABLES
        for what in ("count(*)", "min(generation)", "max(generation)", "sum(generation)")
    )
    return tuple(lake.query(f"SELECT {wanted}").rows[0])


def is_one_generation(values: Sequence[int]) -> bool:
    generation = values[1]
    rows = rows_of(generation)
    return tuple(values) == (rows, generation, generation, rows * generation) * len(TABLES)


# -- the programs of the child processes


def tell(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _read(root: Path) -> None:
    """Read until the file ``stop`` appears; tell the generations seen and the mixtures."""
    lake = open_lake(root)
    generations, mixed = [], []
    tell("ready")
    while True:
        stopping = (root / "stop").exists()
        values = seen(lake)
        if not is_one_generation(values):
            mixed.append(values)
        generations.append(values[1])
        if stopping:
            break
    tell(json.dumps({"generations": generations, "mixed": mixed}))


def _write(root: Path) -> None:
    """Publish one generation after the other until killed."""
    lake = open_lake(root)
    generation = seen(lake)[1]
    tell("ready")
    while True:
        generation += 1
        publish(lake, generation)
        tell(generation)


def _rival(root: Path, table: str, generation: str, days: str, turns: str) -> None:
    """Publish the same new days as another process does, one after the other."""
    lake = open_lake(root, turns=turns == "True")
    tell("ready")
    while not (root / "go").exists():
        time.sleep(0.001)
    for number in range(int(days)):
        publish(lake, int(generation), [table], DAY + timedelta(days=number))


def _hold(root: Path) -> None:
    """An analyst: keeps a read transaction open until told to look again."""
    lake = open_lake(root)
    connection = lake._connect(read_only=True)
    connection.execute("BEGIN")
    look = "SELECT DISTINCT generation FROM clinic.a"
    tell(json.dumps(connection.execute(look).fetchall()))
    sys.stdin.readline()
    tell(json.dumps(connection.execute(look).fetchall()))
    connection.execute("COMMIT")
    tell(json.dumps(connection.execute(look).fetchall()))


def _spill(root: Path) -> None:
    """A query that needs more memory than it has."""
    with closing(open_lake(root)) as lake:
        answer = lake.query(
            "SELECT count(*) FROM (SELECT repeat(i::VARCHAR, 10) AS s, count(*)"
            " FROM range(2000000) t(i) GROUP BY s)"
        )
    tell(answer.rows[0][0])


_PROGRAMS: dict[str, Callable[..., None]] = {
    "read": _read,
    "write": _write,
    "rival": _rival,
    "hold": _hold,
    "spill": _spill,
}


# -- the tests


@contextmanager
def child(name: str, root: Path, *args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, __file__, name, str(root), *map(str, args)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        pytest.fail(f"the child died: {process.communicate()[1][-2000:]}")
    return text


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
    return out


@pytest.fixture(autouse=True)
def known(lake_catalog: LakeCatalog, tmp_path: Path) -> None:
    """Tell all processes which catalog it is, once of each kind."""
    (tmp_path / "catalog.json").write_text(json.dumps([lake_catalog.url, lake_catalog.password]))


@pytest.fixture
def lake(known: None, tmp_path: Path) -> Iterator[DuckLakeWarehouse]:
    lake = open_lake(tmp_path)
    yield lake
    lake.close()


@pytest.mark.parametrize(
    ("times", "many"), [(20, 1), pytest.param(1000, 2, marks=pytest.mark.slow)]
)
def test_readers_see_whole_generations_only(
    lake: DuckLakeWarehouse, tmp_path: Path, times: int, many: int
) -> None:
    publish(lake, 1)
    with ExitStack() as stack:
        readers = [stack.enter_context(child("read", tmp_path)) for _number in range(many)]
        assert {line(reader) for reader in readers} == {"ready"}
        for generation in range(2, times + 1):
            publish(lake, generation)
        (tmp_path / "stop").touch()
        reports = [json.loads(finished(reader)) for reader in readers]

    for report in reports:
        assert report["mixed"] == []
        assert report["generations"] == sorted(report["generations"])
        assert report["generations"][-1] == times
        assert len(set(report["generations"])) > 2


@pytest.mark.parametrize(
    ("tables", "turns"),
    [(("a", "b"), True), (("a", "a"), True), (("a", "a"), False)],
    ids=["two tables", "one table", "one table, two machines"],
)
def test_rival_writers_never_duplicate_or_lose(
    lake: DuckLakeWarehouse, tmp_path: Path, tables: tuple[str, str], turns: bool
) -> None:
    days = 6
    lake.commit(lambda tx: tx.create_table("clinic", "first", SCHEMA, partitioned=False))
    with (
        child("rival", tmp_path, tables[0], 1, days, turns) as one,
        child("rival", tmp_path, tables[1], 2, days, turns) as two,
    ):
        assert (line(one), line(two)) == ("ready", "ready")
        (tmp_path / "go").touch()
        finished(one)
        finished(two)

    for table in set(tables):
        rows = lake.query(
            f"SELECT {PARTITION_COLUMN}, min(generation), max(generation), count(*)"
            f" FROM clinic.{table} GROUP BY 1 ORDER BY 1"
        ).rows
        assert [row[0] for row in rows] == [DAY + timedelta(days=n) for n in range(days)]
        for _day, least, most, count in rows:
            assert least == most
            assert count == rows_of(least)


def test_an_open_read_transaction_stops_no_writer_and_keeps_its_view(
    lake: DuckLakeWarehouse, tmp_path: Path
) -> None:
    publish(lake, 1)
    with child("hold", tmp_path) as analyst:
        assert json.loads(line(analyst)) == [[1]]
        for generation in range(2, 6):
            publish(lake, generation)  # a blocked commit would fail after its retries
        assert analyst.stdin is not None
        analyst.stdin.write("\n")
        analyst.stdin.flush()
        assert json.loads(line(analyst)) == [[1]]
        assert json.loads(line(analyst)) == [[5]]


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_one_generation_and_no_debris(tmp_path: Path, kills: int) -> None:
    chance = random.Random(20261122)
    lake = open_lake(tmp_path, orphan_hours=0)
    publish(lake, 1)
    for _number in range(kills):
        with child("write", tmp_path) as writer:
            assert line(writer) == "ready"
            line(writer)
            time.sleep(chance.uniform(0, 0.15))
        generation = seen(lake)
        assert is_one_generation(generation)
        publish(lake, generation[1] + 1)
        assert seen(lake)[1] == generation[1] + 1
    stage(lake, "a", DAY, 99)  # what a writer leaves that is killed before it commits
    final = seen(lake)

    done = lake.maintain(time_travel_days=0)

    assert done["orphans_deleted"] >= 1
    assert seen(lake) == final
    files = list((tmp_path / "lake").rglob("*.parquet"))
    assert len(files) == len(TABLES)
    empty = [
        p for p in (tmp_path / "lake" / "clinic").rglob("*") if p.is_dir() and not any(p.iterdir())
    ]
    assert empty == []
    lake.close()


@pytest.mark.parametrize("lake_catalogs", ["sqlite"], indirect=True)
def test_queries_of_several_processes_spill_without_harming_each_other(
    lake: DuckLakeWarehouse, tmp_path: Path
) -> None:
    publish(lake, 1)
    with child("spill", tmp_path) as one, child("spill", tmp_path) as two:
        assert [finished(one), finished(two)] == ["2000000\n", "2000000\n"]

    lake.close()
    assert list((tmp_path / "scratch").iterdir()) == []


if __name__ == "__main__":
    _PROGRAMS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
