"""Whole mirror runs of a real database into BigQuery's double, with the lake in Cloud Storage."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_assets.mirroring import discover, doctor, retention, status, storage, types
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.doctor import Finding
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.warehouses.base import Transaction
from mirror_assets.mirroring.warehouses.bigquery import BigQueryWarehouse
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from tests.conftest import Bench, CloudStorage, utc_now
from tests.fakes.bigquery import BigQuery, Fault, bigquery
from tests.mirroring.test_verify import prove

CANARY = "canary-8d1f"


class CloudBench(Bench):
    """A bench in production's shape: lake and landing zone in Cloud Storage, BigQuery beside."""

    def __init__(self, place: str, double: BigQuery, *args: Any) -> None:
        self.place = place
        self.double = double
        super().__init__(*args)

    @property
    def variables(self) -> dict[str, str]:
        return super().variables | {
            "MIRROR_WAREHOUSE": f"bigquery:{self.double.project}?location=US"
            f"&endpoint={self.double.url}",
            "MIRROR_LAKE": f"{self.place}/lake",
        }


@pytest.fixture(scope="module")
def service() -> Iterator[BigQuery]:
    with bigquery() as double:
        yield double


@pytest.fixture
def cloud(
    bench: Bench, service: BigQuery, cloud_storage: CloudStorage, tmp_path: Path
) -> Iterator[CloudBench]:
    service.clear()
    made = CloudBench(
        *(cloud_storage.bucket(), service, bench.server, tmp_path, bench.schema),
        bench._extensions,
    )
    yield made
    made.close()
    assert service.wrong == []


VISIT = f"""
    CREATE TABLE visit (
        id bigint PRIMARY KEY, seen datetime(6), at timestamp(6) NULL, day date, lasted time(3),
        fee decimal(12,4) NOT NULL, huge decimal(38,10), ratio double, small float, ok tinyint(1),
        note text, said json, picture blob, wide bigint unsigned, bits bit(5)
    ) CHARACTER SET utf8mb4;
    CREATE TABLE patient (id bigint PRIMARY KEY, name varchar(50) NOT NULL);
    INSERT INTO patient VALUES (1, '{CANARY}'), (2, 'NULL');
    INSERT INTO visit VALUES
      (1, '2021-03-14 02:30:00.000001', '2021-03-14 10:00:00.5', '9999-12-31', '-838:59:59', 1.5,
       1234567890123456789012345678.0123456789, 0.1, 0.1, 1, 'a "quoted", text\\n😀', '{{"a": 1}}',
       x'00ff', 18446744073709551615, b'10101'),
      (2, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, '', NULL, '', NULL, NULL),
      (3, '0001-01-01 00:00:00', '1970-01-01 00:00:01', '0001-01-01', '23:59:59.999',
       -99999999.9999, -0.0000000001, -1e308, 3e38, 0, '{CANARY}', '[]', 'bytes', 0, b'0')
"""


def small(cloud: CloudBench, **fields: Any) -> DatabaseSpec:
    """Two tables of a hosted database, in a catalog."""
    cloud.run(*filter(str.strip, VISIT.split(";\n")))
    return cloud.catalog(["visit", "patient"], **fields)


def published(cloud: CloudBench, spec: DatabaseSpec, **options: Any) -> None:
    reports = cloud.mirror_day(spec, **options)
    assert {name: str(report.error) for name, report in reports.items()} == dict.fromkeys(
        reports, "None"
    )


def test_a_day_in_bigquery_is_proven_cell_by_cell(cloud: CloudBench) -> None:
    spec = small(cloud)
    published(cloud, spec)

    for against in ("source", "export", "digests"):
        proofs = prove(cloud, spec, against=against)  # type: ignore[arg-type]
        found = [(p.proven, p.against, p.faults) for p in proofs.values()]
        assert found == [(True, against, [])] * 2
    assert (proofs["visit"].reference_rows, proofs["visit"].held_rows) == (3, 3)


def test_one_changed_bit_in_bigquery_is_found(cloud: CloudBench) -> None:
    spec = small(cloud)
    published(cloud, spec)
    cloud.double.duck.execute("UPDATE clinic_mirror.visit SET ratio = ratio + 1e-17 WHERE id = 1")
    proof = prove(cloud, spec)["visit"]

    assert proof.faults == ["1 rows changed", "columns with differences: ratio"]
    (named,) = proof.named
    assert (named.key, named.how, named.columns) == ('{"id": "1"}', "changed", ("ratio",))
    assert not prove(cloud, spec, against="digests")["visit"].proven


def test_the_control_tables_answer_the_same_questions(cloud: CloudBench) -> None:
    spec = small(cloud)
    assert status.days(cloud.warehouse, spec, 3) == []
    cloud.run("INSERT INTO visit (id, fee, day) VALUES (4, 1, '0000-00-00')")
    cloud.run("ALTER TABLE visit MODIFY COLUMN day varchar(10)")
    spec = cloud.catalog({"patient": None, "visit": {"columns": {"day": {"type": "DATE"}}}})
    cloud.run("UPDATE visit SET day = 'no day' WHERE id = 4")
    reports = cloud.mirror_day(spec)
    day = cloud.day(spec)

    assert reports["patient"].published
    assert not reports["visit"].published
    (today,) = status.days(cloud.warehouse, spec, 1)
    assert (today.complete, today.missing, today.published) == (False, "visit", 1)
    assert [row[:2] for row in status.failures(cloud.warehouse, spec, day).rows] == [
        ("visit", "coverage")
    ]
    summary = status.error_summary(cloud.warehouse, spec, day).rows
    assert ("visit", "day", 1) in [(row[0], row[1], row[3]) for row in summary]
    (row, _fault) = status.error_rows(cloud.warehouse, spec, day, table="visit", limit=9).rows
    assert json.loads(row[1]) == {"id": "4"}
    assert status.seconds(cloud.warehouse, spec, day) >= 0


def test_a_table_follows_its_source_in_bigquery(cloud: CloudBench) -> None:
    spec = small(cloud)
    earlier = cloud.earlier(spec, days=1)
    published(cloud, spec, source=earlier)
    cloud.run(
        "ALTER TABLE visit ADD COLUMN more text, MODIFY COLUMN fee decimal(14,6) NULL,"
        " CHANGE COLUMN note Note text"
    )
    reports = cloud.mirror_day(spec)

    assert reports["visit"].drift == (
        "more added; fee widened from DECIMAL(12,4) to DECIMAL(14,6); fee relaxed;"
        " Note recased from note to Note"
    ) or set(reports["visit"].drift.split("; ")) == {
        "more added",
        "fee widened from DECIMAL(12,4) to DECIMAL(14,6)",
        "fee relaxed",
        "Note recased from note to Note",
    }
    assert all(proof.proven for proof in prove(cloud, spec).values())
    day = cloud.day(spec)
    assert cloud.query("SELECT count(*), count(more) FROM clinic_mirror.visit") == [(6, 0)]
    url = cloud.settings.database_url("clinic")
    assert discover.differences(spec, url, cloud.warehouse) == []
    assert cloud.warehouse.commit(lambda tx: tx.days("clinic_mirror", "visit")) == {
        day: 3,
        day - timedelta(days=1): 3,
    }


def test_a_breaking_change_sets_the_history_aside(cloud: CloudBench) -> None:
    spec = small(cloud)
    published(cloud, spec, source=cloud.earlier(spec, days=1))
    cloud.run("ALTER TABLE visit DROP COLUMN bits")
    spec = cloud.catalog({"patient": None, "visit": {"breaking_drift": "deprecate"}})

    reports = cloud.mirror_day(spec)

    assert reports["visit"].published, reports["visit"].error
    assert "visit_depr_1" in reports["visit"].set_aside
    assert cloud.query("SELECT count(bits) FROM clinic_mirror.visit_depr_1") == [(2,)]
    assert cloud.query("SELECT count(*) FROM clinic_mirror.visit_latest") == [(3,)]
    assert prove(cloud, spec)["visit"].proven


def test_shards_are_views_of_days(cloud: CloudBench) -> None:
    spec = small(cloud, layout="sharded", latest_view="{table}")
    published(cloud, spec)
    day = cloud.day(spec)

    assert cloud.query("SELECT count(*) FROM clinic_mirror.visit") == [(3,)]
    assert cloud.query(f"SELECT count(*) FROM clinic_mirror.visit_{day:%Y%m%d}") == [(3,)]
    assert cloud.query(f"SELECT count(*) FROM clinic_mirror.clinic_mirror_errors_{day:%Y%m%d}") == [
        (0,)
    ]


def test_partitions_expire_in_bigquery(cloud: CloudBench, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small(cloud, retention={"lake_days": 30, "landing_days": 2, "time_travel_days": 2})
    published(cloud, spec, source=cloud.earlier(spec, days=40))
    published(cloud, spec)
    left = f"{cloud.warehouse.staging('clinic_mirror', 'visit', cloud.day(spec))}/0.parquet"
    storage.lake(left).put({left: b"of a running process"})

    done = retention.expire([spec], cloud.landing, cloud.warehouse, now=datetime.now(UTC))

    assert done["tables_dropped"] == 0
    days = cloud.warehouse.commit(lambda tx: tx.days("clinic_mirror", "visit"))
    assert days == {cloud.day(spec): 3}
    assert cloud.double.datasets["clinic_mirror"]["maxTimeTravelHours"] == "48"
    assert storage.lake(left).read(left)
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: datetime.now(UTC).timestamp() + 2 * 86_400)
        assert cloud.warehouse.maintain(time_travel_days=2)["orphans_deleted"] == 1


def test_the_files_of_a_lake_in_the_same_place_survive_upkeep(
    cloud: CloudBench, extensions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake with files in Cloud Storage is the step before BigQuery."""
    url, place = f"ducklake:sqlite:{tmp_path}/home/lake.sqlite", f"{cloud.place}/lake"
    earlier = DuckLakeWarehouse(url, place, extensions, memory="128MB")
    day = datetime.now(UTC).date()
    file = f"{earlier.staging('clinic', 'visit', day)}/0.parquet"
    with storage.lake(file).create(file) as target:
        pq.write_table(pa.table({"v": [1]}), target)
    number = TableSchema((Column("v", "", types.INT64),))

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "visit", number, partitioned=True)
        tx.replace_partition("clinic", "visit", day, [file])

    earlier.commit(body)
    spec = small(cloud)
    published(cloud, spec)
    left = f"{cloud.warehouse.staging('clinic_mirror', 'visit', day)}/0.parquet"
    storage.lake(left).put({left: b"of a killed process"})

    monkeypatch.setattr(time, "time", lambda: datetime.now(UTC).timestamp() + 2 * 86_400)
    assert cloud.warehouse.maintain(time_travel_days=2)["orphans_deleted"] == 1

    assert earlier.query("SELECT v FROM clinic.visit").rows == [(1,)]
    earlier.close()


@pytest.mark.parametrize("passes", [True, False])
def test_a_publication_that_the_service_interrupts_is_reported_as_what_became_of_it(
    cloud: CloudBench, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    spec = small(cloud)
    times = 1 if passes else 99
    view = "CREATE OR REPLACE VIEW `a-project`.`clinic_mirror`.`visit"
    cloud.double.faults.append(
        Fault("POST", "/jobs$", 403, "quotaExceeded", times=times, body=view)
    )

    reports = cloud.mirror_day(spec, run_id="same")

    control_rows = "SELECT TABLE_NAME, published FROM clinic_mirror.MIRROR_METADATA ORDER BY 1"
    if not passes:
        assert {(r.published, r.error and r.error.kind) for r in reports.values()} == {
            (False, "pending")
        }
        assert all(r.error and r.error.transient for r in reports.values())
        assert cloud.query(control_rows) == []
        with monkeypatch.context() as later:  # upkeep leaves what the plan names
            later.setattr(time, "time", lambda: datetime.now(UTC).timestamp() + 2 * 86_400)
            assert cloud.warehouse.maintain(time_travel_days=2)["orphans_deleted"] == 0
        cloud.double.faults.clear()
        cloud.warehouse.commit(lambda tx: tx.tables("clinic_mirror"))  # the next writer
    else:
        assert {(r.published, r.error) for r in reports.values()} == {(True, None)}
    assert cloud.query(control_rows) == [("patient", True), ("visit", True)]
    assert cloud.query("SELECT count(*) FROM clinic_mirror.visit_latest") == [(3,)]
    assert all(proof.proven for proof in prove(cloud, spec).values())


def test_downstream_inputs_are_found(cloud: CloudBench) -> None:
    spec = small(cloud)
    published(cloud, spec)

    read = inputs(cloud.warehouse, [spec], cloud.day(spec), {"clinic": ("visit", "patient")})

    assert cloud.query(f"SELECT max(id) FROM {read.relation('clinic', 'visit')} v") == [(3,)]
    assert utc_now() - read.recorded_at < timedelta(minutes=5)


def test_nothing_of_a_row_is_in_a_request_but_in_answers(
    cloud: CloudBench, cloud_storage: CloudStorage
) -> None:
    """Invariant 8: rows travel as files; what the service logs of jobs holds none."""
    spec = small(cloud)
    cloud.run(f"UPDATE patient SET name = '{CANARY}' WHERE id = 2")
    published(cloud, spec)

    assert cloud.query("SELECT name FROM clinic_mirror.patient ORDER BY id") == [(CANARY,)] * 2
    assert not [path for _verb, path, body in cloud.double.requests if CANARY in body + path]
    assert cloud_storage.objects(f"{cloud.place}/lake") == {}  # what was loaded is not kept


def test_run_twice_a_day_is_loaded_again_and_not_doubled(cloud: CloudBench) -> None:
    spec = small(cloud)
    for _time in range(2):
        published(cloud, spec, run_id="same")

    assert cloud.query("SELECT count(*) FROM clinic_mirror.visit") == [(3,)]
    assert cloud.query("SELECT count(*) FROM clinic_mirror.MIRROR_METADATA") == [(2,)]
    assert cloud.query("SELECT count(*) FROM clinic_mirror.MIRROR_COMPLETENESS") == [(1,)]
    assert isinstance(cloud.warehouse, BigQueryWarehouse)


def test_the_doctor_tells_location_rights_and_costs(cloud: CloudBench) -> None:
    spec = small(cloud)

    def look() -> dict[str, Finding]:
        findings = doctor._dataset(spec, cloud.warehouse)
        return {finding.verdict: finding for finding in findings}

    assert "not there yet" in look()["ok"].found
    published(cloud, spec)
    assert look()["ok"].found == (
        "in US, can be written; reading all of its 2 latest views is 0.000 MB"
    )
    views = ["patient_latest", "visit_latest"]
    each = [cloud.warehouse._cost("clinic_mirror", [view]) for view in views]
    assert [size > 0 for size in each] == [True, True]
    assert cloud.warehouse._cost("clinic_mirror", views) == sum(each)
    assert cloud.warehouse._cost("clinic_mirror", 60 * views) == 60 * sum(each)
    cloud.double.faults.append(Fault("POST", "/tables$", 403, "accessDenied"))
    refused = look()["fail"]
    assert "accessDenied" in refused.found
    assert "roles/bigquery.dataEditor" in refused.next
    cloud.double.datasets["clinic_mirror"]["location"] = "EU"
    assert look()["fail"].found == "it is in EU, and MIRROR_WAREHOUSE says US"
    assert not [name for _d, name in cloud.double.tables if name.startswith("mirror_temporary")]
