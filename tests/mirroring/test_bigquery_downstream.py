"""What hangs off the mirrors says the same on BigQuery as on the lake, from the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.commons import transformed
from mirror_assets.elation import encounters
from mirror_assets.mirroring import derived
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.warehouses.bigquery import BigQueryWarehouse
from tests.conftest import CloudStorage
from tests.elation.encounters_day import INSERTED_AT, TABLES, Day, opened
from tests.fakes.bigquery import BigQuery, bigquery
from tests.mirroring.test_bigquery_run import CloudBench, cloud, published, service

__all__ = ["cloud", "service"]
DAY = date(2021, 3, 2)


@pytest.fixture
def day(extensions: Path) -> Iterator[Day]:
    with opened(extensions) as tables:
        tables.visit(signed_time="2021-03-14 02:30:00", signed_by_user_id=920)
        tables.visit(5002, document_date="2021-11-07 01:30:00.000001")
        tables.non_visit()
        tables.bill()
        tables.add("bill_item", id=1, bill_id=6001, seqno=1, cpt="99213")
        for n in range(1, 4):
            base = {"visit_note_id": 5001, "category": "Reason", "text": f"text {n}"}
            tables.add("visit_note_bullet", id=n, sequence=4 - n, **base)
        yield tables


@pytest.fixture
def warehouse(tmp_path: Path, day: Day) -> Iterator[BigQueryWarehouse]:
    """The day's tables in BigQuery."""
    with bigquery() as double:
        url = f"bigquery:{double.project}?location=US&endpoint={double.url}"
        made = BigQueryWarehouse(url, str(tmp_path / "lake"))
        for database, tables in TABLES.items():
            copy(made, day, database, tables)
        yield made
        made.close()
        assert double.wrong == []


def copy(made: BigQueryWarehouse, day: Day, database: str, tables: tuple[str, ...]) -> None:
    files = {}
    for table in tables:
        files[table] = f"{made.staging(dataset(database), table, DAY)}/0.parquet"
        source = f"{database}.{sql(table)}"
        day.connection.execute(f"COPY {source} TO '{files[table]}' (FORMAT parquet)")

    def body(tx: Any) -> None:
        for table, file in files.items():
            tx.ensure_like(dataset(database), table, file)
            tx.replace_partition(dataset(database), table, DAY, [file])

    made.commit(body)


def dataset(database: str) -> str:
    return f"{database}_mirror"


def test_encounters_and_their_documents_are_the_same(
    warehouse: BigQueryWarehouse, day: Day
) -> None:
    def relation(database: str, table: str) -> str:
        return warehouse.relation(dataset(database), table, DAY)

    stamp = {"inserted_at": INSERTED_AT, "message_id": "1"}
    ours = day.connection.execute(encounters.statement(day.relation, **stamp)).fetchall()
    assert ours
    assert warehouse.query(encounters.statement(relation, **stamp)).rows == ours
    counts = day.connection.execute(encounters.counts(day.relation)).fetchall()
    assert warehouse.query(encounters.counts(relation)).rows == counts
    assert warehouse.query(encounters.bounds(relation)).rows == []

    with derived.staged(warehouse, "medical", "patient_encounters", DAY) as made:
        derived.stage_query(warehouse, made, [encounters.statement(relation, **stamp)])
        warehouse.commit(lambda tx: made.publish(tx, "patient_encounters_latest"))
        made.settled = True
    rows = warehouse.relation("medical", "patient_encounters", DAY)
    assert warehouse.query(encounters.documents_bounds(rows)).rows == []
    with warehouse.batches(encounters.documents_statement(rows)) as batches:
        found = list(encounters.documents(batches))
    day.connection.execute(f"CREATE TABLE said AS {encounters.statement(day.relation, **stamp)}")
    reader = day.connection.execute(encounters.documents_statement("said")).to_arrow_reader(100)
    assert found == list(encounters.documents(reader))


def test_readable_notes_are_published(cloud: CloudBench, cloud_storage: CloudStorage) -> None:
    good = '{"blocks": [{"text": "hello"}], "entityMap": {}}'
    cloud.run(
        "CREATE TABLE note (id varchar(9) PRIMARY KEY, fee decimal(30,12), body longtext)",
        f"INSERT INTO note VALUES ('n1', 1.5, '{good}'), ('n2', NULL, NULL)",
    )
    spec = cloud.catalog({"note": {"primary_key": ["id"], "draftjs": "body"}})
    published(cloud, spec)
    read = inputs(cloud.warehouse, [spec], cloud.day(spec), {"clinic": ("note",)})

    for _time in range(2):
        told = transformed.transform(cloud.warehouse, spec, spec.table("note"), read, "texts")

    assert (told.rows, told.broken.total()) == (2, 0)
    rows = cloud.query("SELECT id, text FROM clinic_mirror.note_transformed_latest ORDER BY id")
    assert rows == [("n1", "hello"), ("n2", "")]
    assert cloud_storage.objects(f"{cloud.place}/lake") == {}
    assert isinstance(cloud.double, BigQuery)
