"""A DuckLake whose files lie in Cloud Storage, its catalog in a file or in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import WarehouseFault
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.storage import lake as files_of
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction, DuckLakeWarehouse
from tests.conftest import LakeCatalog
from tests.fakes.cloud_storage import CloudStorage

DAY, NEXT = date(2026, 11, 22), date(2026, 11, 23)
SCHEMA = TableSchema((Column("v", "", types.INT64),))


@pytest.fixture
def place(cloud_storage: CloudStorage) -> str:
    return f"{cloud_storage.bucket()}/lake"


@pytest.fixture
def lake(
    place: str, lake_catalog: LakeCatalog, tmp_path: Path, extensions: Path
) -> Iterator[DuckLakeWarehouse]:
    made = DuckLakeWarehouse(
        *(lake_catalog.url, place, extensions),
        scratch=tmp_path / "scratch",
        memory="128MB",
        orphan_hours=0,
        password=lake_catalog.password,
    )
    yield made
    made.close()
    assert list(tmp_path.glob("scratch/*")) == []


def stage(lake: DuckLakeWarehouse, day: date, *values: int) -> str:
    path = f"{lake.staging('clinic', 'visit', day)}/0.parquet"
    with files_of(path).create(path) as file:
        pq.write_table(pa.table({"v": list(values)}), file)
    return path


def publish(lake: DuckLakeWarehouse, day: date, *values: int) -> str:
    file = stage(lake, day, *values)

    def body(tx: DuckLakeTransaction) -> None:
        if tx.schema("clinic", "visit") is None:
            tx.create_table("clinic", "visit", SCHEMA, partitioned=True)
        tx.replace_partition("clinic", "visit", day, [file])
        tx.latest_view("clinic", "visit_latest", "visit", day)

    lake.commit(body)
    return file


def test_days_are_replaced_read_and_cleaned_up(
    lake: DuckLakeWarehouse, place: str, cloud_storage: CloudStorage
) -> None:
    publish(lake, DAY, 1)
    replaced = publish(lake, NEXT, 2)
    kept = publish(lake, NEXT, 3, 4)
    orphan = stage(lake, NEXT, 5)
    assert lake.query("SELECT v FROM clinic.visit_latest ORDER BY v").rows == [(3,), (4,)]
    assert lake.query("SELECT v FROM clinic.visit ORDER BY v").rows == [(1,), (3,), (4,)]
    for outside in (f"{place}-other/x.parquet", kept, "/etc/passwd"):
        with pytest.raises(WarehouseFault):
            lake.query(f"SELECT * FROM read_parquet('{outside}')")

    done = lake.maintain(time_travel_days=0)

    assert (done["files_deleted"], done["orphans_deleted"]) == (1, 1)
    left = {f"{place}/{name}" for name in cloud_storage.objects(place)}
    assert len(left) == 2
    assert kept in left
    assert not left & {replaced, orphan}
    assert lake.query("SELECT v FROM clinic.visit ORDER BY v").rows == [(1,), (3,), (4,)]


def test_upkeep_leaves_what_is_on_its_way_to_bigquery(
    lake: DuckLakeWarehouse, place: str, cloud_storage: CloudStorage
) -> None:
    theirs = {f"{place}/.bigquery/{name}": b"x" for name in ("journal/clinic.json", "staged/0.p")}
    files_of(place).put(theirs | {f"{place}/clinic/left.parquet": b"x"})
    publish(lake, DAY, 1)

    assert lake.maintain(time_travel_days=0)["orphans_deleted"] == 1
    left = {f"{place}/{name}" for name in cloud_storage.objects(place)}
    assert theirs.keys() < left


def test_answers_are_saved_beside_the_lakes_files(lake: DuckLakeWarehouse) -> None:
    publish(lake, DAY, 1, 2)
    path = f"{lake.staging('clinic', 'made', DAY)}/0.parquet"

    assert lake.save(f"SELECT v * 2 AS w FROM {lake.relation('clinic', 'visit', DAY)}", path) == 2

    def body(tx: DuckLakeTransaction) -> None:
        tx.ensure_like("clinic", "made", path)
        tx.replace_partition("clinic", "made", DAY, [path])

    lake.commit(body)
    assert lake.query("SELECT w FROM clinic.made ORDER BY w").rows == [(2,), (4,)]


def test_control_rows_survive_maintenance(lake: DuckLakeWarehouse) -> None:
    def body(tx: DuckLakeTransaction) -> None:
        tx.create_table("clinic", "log", SCHEMA, partitioned=False)
        tx.replace_rows("clinic", "log", [{"v": n} for n in range(700)])

    lake.commit(body)
    lake.commit(lambda tx: tx.replace_rows("clinic", "log", [{"v": -1}], v=list(range(600))))
    lake.maintain(time_travel_days=0)

    counted = lake.query("SELECT count(*), min(v) FROM clinic.log").rows
    assert counted == [(101, -1)]


def test_a_discarded_staging_folder_is_empty(
    lake: DuckLakeWarehouse, place: str, cloud_storage: CloudStorage
) -> None:
    file = stage(lake, DAY, 1)
    assert len(cloud_storage.objects(place)) == 1

    lake.discard(file.rpartition("/")[0])
    lake.discard(file.rpartition("/")[0])

    assert cloud_storage.objects(place) == {}
