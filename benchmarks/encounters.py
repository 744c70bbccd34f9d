"""A million notes become encounters in a lake and a document per member, in bounded memory.

``python -m benchmarks.encounters run PLACE`` is one measured run over the lake in PLACE.
"""

import json
import shutil
import sys
import time
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.config import ROOT, _size
from benchmarks.sections import Section, at_most
from benchmarks.timing import Case, once
from mirror_assets.elation import encounters
from mirror_assets.mirroring import control
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.records import ensure_control_tables
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse
from mirror_assets.sample import member_index
from mirror_assets.sample.generator import PHRASES
from mirror_assets.settings import Settings

NOTES = _size("NOTES", 1_000_000)
_MEMBERS = NOTES // 20
_SECONDS, _MEMORY_MB = 60, 1000
_DAY = date(2021, 3, 2)
_TEXT = literal(". ".join(PHRASES))
_WHEN = "TIMESTAMP '2018-01-01' + to_minutes(CAST(n * 7919 % 1500000 AS BIGINT))"
_GONE = "CAST(NULL AS TIMESTAMP)"
#: Rows per note and their columns; a note has a visit's or another's bullets, never both.
_TABLES = {
    "member_index/member": (
        _MEMBERS,
        'md5(CAST(n AS VARCHAR)) AS id, CAST(n AS VARCHAR) AS "mrnId",'
        ' CAST(NULL AS TIMESTAMPTZ) AS "deletedAt"',
    ),
    "member_index/mrn": (
        _MEMBERS,
        "CAST(n AS VARCHAR) AS id, CAST(140755312000001 + n * 65536 AS VARCHAR) AS mrn,"
        " 'elation' AS name, CAST(NULL AS TIMESTAMPTZ) AS \"deletedAt\"",
    ),
    "elation/practice": (
        12,
        "n AS id, 'Clinic ' || n AS name, n || ' Elm St' AS address_line1, 'Unit 4' AS"
        " address_line2, 'Dover' AS city, 'DE' AS state, '19901' AS zip, '302-555-0101' AS phone",
    ),
    "elation/service_location": (
        24,
        "n AS id, n || ' Oak Ave' AS address, CAST(NULL AS VARCHAR) AS suite, 'Dover' AS city,"
        f" 'DE' AS state, '19901' AS zip, {_GONE} AS deletion_time",
    ),
    "elation/user": (
        400,
        "n AS id, 'user' || n || '+de@clinic.test' AS email, n % 12 AS practice_id, 'Ivy' AS"
        " first_name, 'Tan' AS last_name, 'Family Medicine' AS specialty, 'NP' AS credentials,"
        " CAST(1999999000 + n AS VARCHAR) AS npi",
    ),
    "elation/icd10": (2_000, "n AS id, 'E' || n AS code, 'Diagnosis number ' || n AS description"),
    "elation/icd9": (2_000, "n AS id, '2' || n AS code, 'Diagnosis number ' || n AS description"),
    "elation/document_tag": (
        300,
        "n AS id, 'Tag ' || n AS value, 'Description ' || n AS description, 'CPT' AS code_type,"
        " CAST(90000 + n AS VARCHAR) AS code",
    ),
    "elation/visit_note": (
        NOTES // 2,
        f"n AS id, 140755312000001 + n % {_MEMBERS} * 65536 AS patient_id, 'Office Visit Note' AS"
        f" name, {_WHEN} AS document_date, if(n % 20 = 0, NULL, {_WHEN}) AS signed_time,"
        f" n % 400 AS signed_by_user_id, n % 400 AS physician_user_id, {_GONE} AS deletion_time",
    ),
    "elation/non_visit_note": (
        NOTES // 2,
        f"n AS id, 140755312000001 + n % {_MEMBERS} * 65536 AS patient_id, 'phone' AS note_type,"
        f" {_WHEN} AS document_date, {_WHEN} AS signed_time, n % 400 AS signed_by_user_id,"
        f" {_GONE} AS deletion_time",
    ),
    "elation/visit_note_bullet": (
        NOTES * 15 // 4,
        f"n AS id, n * 2 // 15 AS visit_note_id, if(n % 3 = 0, NULL, n - n % 3) AS"
        " parent_bullet_id, 'Reason' AS category, n % 8 AS sequence,"
        f" n || ': ' || substr({_TEXT}, 1 + n * 7 % 400, CAST(60 + n % 120 AS BIGINT)) AS text,"
        f" if(n % 30 = 0, TIMESTAMP '2021-01-01', NULL) AS deleted_date",
    ),
    "elation/non_visit_note_bullet": (
        NOTES * 3 // 2,
        "n AS id, n // 3 AS non_visit_note_id, n % 3 AS sequence,"
        f" n || ': ' || substr({_TEXT}, 1 + n * 11 % 400, CAST(60 + n % 120 AS BIGINT)) AS text",
    ),
    "elation/non_visit_note_document_tag": (
        NOTES // 10,
        "n * 5 AS non_visit_note_id, n % 300 AS document_tag_id",
    ),
    "elation/bill": (
        NOTES // 2,
        "n AS id, n AS visit_note_id, n % 12 AS practice_id, if(n % 50 = 0, NULL, n % 24) AS"
        f" service_location_id, 11 AS place_of_service, {_WHEN} AS creation_time",
    ),
    "elation/bill_item": (
        NOTES * 3 // 2,
        "n AS id, n // 3 AS bill_id, n % 3 AS seqno, CAST(99000 + n % 500 AS VARCHAR) AS cpt,"
        f" {_GONE} AS deletion_time",
    ),
    "elation/bill_item_dx": (
        NOTES * 2,
        "n * 3 // 4 AS bill_item_id, n % 4 AS seqno, n % 2000 AS icd10_id,"
        " if(n % 3 = 0, n % 2000, NULL) AS icd9_id",
    ),
}


def section() -> Section:
    """The first run, which writes every document, and one that finds them all unchanged."""
    tables = ROOT / f"encounters_{NOTES}"
    _make(tables)
    place = ROOT / "encounters"
    shutil.rmtree(place, ignore_errors=True)
    _mirror(tables, place)
    command = [sys.executable, "-m", "benchmarks.encounters", "run", str(place)]
    runs = {name: once(Case(name, command)) for name in ("every document new", "none changed")}
    shutil.rmtree(place)
    figures = ("rows", "documents", "written", "MB", "rows_seconds", "documents_seconds")
    return Section(
        f"Encounters of {NOTES:,} notes (DuckDB limited to 512MB)",
        ("", "seconds", "peak MB", *figures[:4], "of them rows s", "documents s"),
        [
            [name, taken.wall, taken.peak, *(taken.said[figure] for figure in figures)]
            for name, taken in runs.items()
        ],
        checks=[
            at_most("seconds", max(taken.wall for taken in runs.values()), _SECONDS, "s"),
            at_most("peak", max(taken.peak for taken in runs.values()), _MEMORY_MB, "MB"),
            at_most("documents written again", runs["none changed"].said["written"], 0),
        ],
    )


def run(place: Path) -> dict[str, Any]:
    """What the asset does: counts, rows and their commit, then the documents of these rows."""
    settings = _settings(place)
    warehouse = settings.warehouse()
    began = time.monotonic()
    read = inputs(warehouse, settings.databases(), _DAY, encounters.READ)
    counts = encounters.publish(read)
    published = time.monotonic() - began
    store = encounters.DocumentStore(settings.documents_url)
    done = encounters.write(store, encounters.documents, read)
    warehouse.close()
    return {
        "rows": counts["encounters"],
        "documents": done.written + done.unchanged,
        "written": done.written,
        "MB": done.bytes / 1e6,
        "rows_seconds": published,
        "documents_seconds": time.monotonic() - began - published,
    }


def _settings(place: Path) -> Settings:
    return Settings.from_env(
        {
            "MIRROR_WAREHOUSE": f"ducklake:sqlite:{place}/lake.sqlite",
            "MIRROR_LAKE": str(place / "lake"),
            "MIRROR_DOCUMENTS": str(place / "documents"),
            "MIRROR_LANDING": str(place / "landing"),
            "MIRROR_SCRATCH": str(place / "scratch"),
            "MIRROR_EXTENSIONS": str(ROOT / "extensions"),
            "MIRROR_CATALOG_PATH": str(Path(member_index.__file__).parent / "catalogs"),
            "MIRROR_MEMORY": "512MB",
        }
    )


def _mirror(tables: Path, place: Path) -> None:
    """A lake in which the tables are a day's partitions."""
    settings = _settings(place)
    warehouse = settings.warehouse()
    for spec in map(settings.database, encounters.READ):
        warehouse.commit(partial(_publish, warehouse, spec, tables / spec.name))
    warehouse.close()


def _publish(warehouse: Warehouse, spec: DatabaseSpec, tables: Path, tx: Transaction) -> None:
    ensure_control_tables(tx, spec)
    for table in encounters.READ[spec.name]:
        name = spec.storage_name(table)
        file = Path(warehouse.staging(spec.dataset, name, _DAY)) / "0.parquet"
        file.hardlink_to(tables / f"{table}.parquet")  # the lake deletes its own name of it
        tx.ensure_like(spec.dataset, name, str(file))
        tx.replace_partition(spec.dataset, name, _DAY, [str(file)])
    rows = [_recorded(table) for table in encounters.READ[spec.name]]
    tx.replace_rows(spec.dataset, control.METADATA.name, rows)


def _recorded(table: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    counts = ("TABLE_SIZE_MB", "TABLE_ROWS", "loaded_rows", "rejected_rows", "zero_dates_nulled")
    return {
        **dict.fromkeys((*counts, "bytes"), 1),
        "TABLE_NAME": table,
        "DB_TIMEZONE": "UTC",
        "BQ_LOAD_TIME": now,
        "BQ_PARTITION": f"{_DAY:%Y%m%d}",
        "partition": _DAY,
        "run_id": "benchmark",
        "published": True,
        "seconds": 0.0,
        "recorded_at": now,
    }


def _make(tables: Path) -> None:
    """Build the tables once; kept from one run to the next."""
    if (tables / "made").exists():
        return
    for name, (rows, columns) in _TABLES.items():
        file = tables / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        duckdb.execute(
            f"COPY (SELECT {columns} FROM range({rows}) r(n)) TO {literal(str(file))}"
            " (FORMAT parquet)"
        )
    (tables / "made").touch()


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[2]))))
