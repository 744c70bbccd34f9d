"""Publishes days of tiny tables by the real publication, for `benchmarks.lake`.

build DAYS                         the old lake, unless it is there
publish DAY [CHUNK COUNT [START]]  today plus so many days, or some chunks, from an instant on
latest                             milliseconds of queries of a latest view

Of the old lake, three days are real: the first and the last two. The others are rows of the
catalog, as maintenance leaves them, and the control rows that their publication would have written:
what publishing one more day, and reading it, looks through is all there. Their files are not.
"""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.landing import Manifest
from mirror_assets.mirroring.publication import publish
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.staged import Staged
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction, DuckLakeWarehouse
from mirror_assets.settings import Settings

_REAL = 3
_ROWS = 2
_SCHEMA = TableSchema(
    (
        Column("id", "bigint(20)", types.INT64, True),
        Column("label", "varchar(80)", types.STRING, True),
        Column("body", "text", types.STRING),
        Column("happened", "datetime", types.DATETIME, True),
        Column("amount", "decimal(12,2)", types.decimal(12, 2)),
        Column("quantity", "int(11)", types.INT64),
    ),
    ("id",),
)
settings = Settings.from_env()
spec: DatabaseSpec = settings.database("year")
warehouse = DuckLakeWarehouse(
    settings.warehouse_url,
    settings.lake,
    settings.extensions,
    memory=settings.memory,
    password=settings.warehouse_password(),
)


def build(days: str) -> None:
    done = Path(settings.lake).parent / "built"
    if done.exists():
        return
    first, between = _day(0) - timedelta(days=int(days)), int(days) - _REAL
    _publish(first, spec.chunks)
    warehouse.commit(lambda tx: _record_in_bulk(tx, first, between))
    warehouse.maintain(time_travel_days=0)
    for number in (2, 1):
        _publish(_day(-number), spec.chunks)
    for statement in _STAND_INS:
        warehouse._open_writer().execute(statement.format(first=first, days=between))
    warehouse.close()
    done.touch()


def publish_day(day: str, chunk: str = "0", count: str = "-1", start: str = "0") -> None:
    last = int(chunk) + int(count) if int(count) > 0 else None
    print(json.dumps(_publish(_day(int(day)), spec.chunks[int(chunk) : last], float(start))))


def latest() -> None:
    taken = []
    for table in spec.tables[:20]:
        began = time.monotonic()
        answer = warehouse.query(f"SELECT * FROM {spec.dataset}.{spec.view_name(table.name)}")
        taken.append(1000 * (time.monotonic() - began))
        assert len(answer.rows) == _ROWS
    print(json.dumps({"first": taken[0], "next": statistics.median(taken[1:])}))


def _publish(
    day: date, chunks: tuple[tuple[TableSpec, ...], ...], start: float = 0
) -> dict[str, float]:
    """Stage and publish chunks of a day; only publishing is counted: seconds by the clock, those
    of them that went by before its turns came, and seconds of CPU.
    """
    waited = _count_waiting()
    staged = [[_stage(table, day) for table in chunk] for chunk in chunks]
    time.sleep(max(0, start - time.time()))
    began, used = time.monotonic(), time.process_time()
    for chunk in staged:
        reports = publish(
            spec,
            warehouse,
            chunk,
            partition=day,
            run_id=f"run of {day}",
            load_time=_noon(day),
            accept_volume=frozenset(),
            clock=lambda: datetime.now(UTC),
        )
        faults = [str(report.error) for report in reports if not report.published]
        if faults:
            sys.exit(faults[0])
    return {
        "wall": time.monotonic() - began,
        "cpu": time.process_time() - used,
        "waited": sum(waited),
    }


def _count_waiting() -> list[float]:
    """Seconds that go by, from now on, before each of the writer's turns comes."""
    waited: list[float] = []
    catalog = warehouse._catalog
    real = type(catalog).turn

    @contextmanager
    def turn(home: Path) -> Iterator[None]:
        asked = time.monotonic()
        with real(catalog, home):
            waited.append(time.monotonic() - asked)
            yield

    catalog.turn = turn
    return waited


def _stage(table: TableSpec, day: date) -> Staged:
    folder = warehouse.staging(spec.dataset, table.name, day)
    file = f"{folder}/0.parquet"
    shutil.copyfile(_sample(), file)
    manifest = Manifest(
        database=spec.name,
        table=table.name,
        partition=day,
        stamp=_noon(day),
        snapshot_at=_noon(day),
        refreshed_at=None,
        isolation="one instant",
        source_rows=_ROWS,
        schema=_SCHEMA,
        parts=(),
        source_info={},
    )
    return Staged(table, folder, manifest=manifest, files=(file,), loaded=_ROWS)


def _sample() -> Path:
    """One tiny Parquet file, the same for every table and day."""
    path = Path(settings.lake).parent / "sample.parquet"
    if not path.exists():
        values = ", ".join(
            f"{value}::{types.to_duckdb(column.type)} AS {column.name}"
            for value, column in zip(_VALUES, _SCHEMA.columns, strict=True)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        duckdb.sql(
            f"COPY (SELECT {values} FROM range({_ROWS}) r(i)) TO '{partial}' (FORMAT parquet)"
        )
        partial.replace(path)
    return path


_VALUES = ("i", "'label'", "'body'", "'2026-01-01'", "1.25", "i")


#: The first day's files once more for each of the days after it: ids and row ids go on where the
#: lake is.
_META = "__ducklake_metadata_lake"
_STAND_INS = (
    f"""
    CREATE TEMP TABLE stand_in AS
    SELECT f.data_file_id AS model, DATE '{{first}}' + n::INT AS day,
        t.next_row_id + {_ROWS} * (n - 1) AS row_id,
        (SELECT max(next_file_id) FROM {_META}.ducklake_snapshot) - 1
            + row_number() OVER (ORDER BY n, f.data_file_id) AS id
    FROM {_META}.ducklake_data_file f JOIN {_META}.ducklake_table_stats t USING (table_id),
        range(1, {{days}} + 1) r(n)
    WHERE f.path LIKE '%={{first}}/%'
    """,
    f"""
    INSERT INTO {_META}.ducklake_data_file SELECT f.* REPLACE (
        id AS data_file_id, row_id AS row_id_start,
        replace(path, '{{first}}', day::VARCHAR) AS path)
    FROM {_META}.ducklake_data_file f JOIN stand_in ON data_file_id = model
    """,
    f"""
    INSERT INTO {_META}.ducklake_file_partition_value SELECT v.* REPLACE (
        id AS data_file_id, day::VARCHAR AS partition_value)
    FROM {_META}.ducklake_file_partition_value v JOIN stand_in ON data_file_id = model
    """,
    f"""
    INSERT INTO {_META}.ducklake_file_column_stats SELECT s.* REPLACE (
        id AS data_file_id, day::VARCHAR AS min_value, day::VARCHAR AS max_value)
    FROM {_META}.ducklake_file_column_stats s JOIN stand_in ON data_file_id = model
    """,
    f"""
    UPDATE {_META}.ducklake_table_stats SET record_count = record_count + {_ROWS} * {{days}},
        next_row_id = next_row_id + {_ROWS} * {{days}}
    WHERE table_id IN (SELECT table_id FROM {_META}.ducklake_partition_info)
    """,
    f"UPDATE {_META}.ducklake_snapshot SET next_file_id = (SELECT max(id) + 1 FROM stand_in)",
)


def _record_in_bulk(tx: DuckLakeTransaction, first: date, days: int) -> None:
    """The control rows of the first day, moved to the days that were added in bulk."""
    later = {
        "MIRROR_METADATA": "BQ_LOAD_TIME + d AS BQ_LOAD_TIME, snapshot_at + d AS snapshot_at,"
        " CAST(partition + d AS DATE) AS partition,"
        " strftime(partition + d, '%Y%m%d') AS BQ_PARTITION,"
        " 'run of ' || CAST(partition + d AS DATE) AS run_id",
        "MIRROR_COMPLETENESS_HISTORY": "updated_at + d AS updated_at,"
        " CAST(partition + d AS DATE) AS partition",
    }
    for table, moved in later.items():
        path = f"{spec.dataset}.{table}"
        tx._connection.execute(
            f"INSERT INTO {path} SELECT {path.split('.')[1]}.* REPLACE ({moved}) FROM {path},"
            f" (SELECT to_days(i::INT) AS d FROM range(1, {days + 1}) n(i))"
            f" WHERE partition = DATE '{first}'"
        )


def _day(later: int) -> date:
    return datetime.now(UTC).date() + timedelta(days=later)


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


if __name__ == "__main__":
    modes = {"build": build, "publish": publish_day, "latest": latest}
    modes[sys.argv[1]](*sys.argv[2:])
    warehouse.close()
