"""A million notes become encounters in Parquet and a document per member, in bounded memory.

``python -m benchmarks.encounters run PLACE`` is one measured run over the tables in PLACE.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.config import ROOT, _size
from benchmarks.sections import Section, at_most
from benchmarks.timing import Case, once
from mirror_assets.elation import encounters
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.storage import private_folder
from mirror_assets.mirroring.warehouses.ducklake import install_extensions
from mirror_assets.sample.generator import PHRASES

NOTES = _size("NOTES", 1_000_000)
_MEMBERS = NOTES // 20
_SECONDS, _MEMORY_MB = 60, 1000
_ROW_GROUP = 2048
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
    command = [sys.executable, "-m", "benchmarks.encounters", "run", str(tables), str(place)]
    runs = {name: once(Case(name, command)) for name in ("every document new", "none changed")}
    shutil.rmtree(place)
    figures = ("rows", "documents", "written", "MB", "statement", "documents_seconds")
    return Section(
        f"Encounters of {NOTES:,} notes (DuckDB limited to 512MB)",
        ("", "seconds", "peak MB", *figures[:4], "of them statement s", "documents s"),
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


def run(tables: Path, place: Path) -> dict[str, Any]:
    """The rows of every part of the members, then the documents of these rows."""
    rows = place / "rows"
    shutil.rmtree(rows, ignore_errors=True)
    private_folder(rows)
    instant = datetime.now(UTC)
    began = time.monotonic()
    with _connect(place) as connection:
        cuts = connection.execute(encounters.bounds(_relation(tables))).fetchall()
        for number, part in enumerate(encounters.parts(cut for (cut,) in cuts)):
            statement = encounters.statement(
                _relation(tables),
                inserted_at=instant,
                message_id=encounters.message_id(instant),
                part=part,
            )
            file = literal(str(rows / f"{number}.parquet"))
            options = f"FORMAT parquet, ROW_GROUP_SIZE {_ROW_GROUP}"
            connection.execute(f"COPY ({statement}) TO {file} ({options})")
        copied = time.monotonic() - began
        documents = _documents(connection, f"read_parquet('{rows}/*.parquet')")
        store = encounters.DocumentStore(str(place / "documents"))
        done = store.write(encounters.Version(_DAY, instant), documents)
        held = connection.execute(f"SELECT count(*) FROM read_parquet('{rows}/*.parquet')")
        count = held.fetchone()
    return {
        "rows": count[0] if count else 0,
        "documents": done.written + done.unchanged,
        "written": done.written,
        "MB": done.bytes / 1e6,
        "statement": copied,
        "documents_seconds": time.monotonic() - began - copied,
    }


def _documents(connection: duckdb.DuckDBPyConnection, rows: str) -> Iterator[encounters.Document]:
    cuts = connection.execute(encounters.documents_bounds(rows)).fetchall()
    for part in encounters.parts(cut for (cut,) in cuts):
        reading = encounters.documents_statement(rows, part)
        yield from encounters.documents(connection.execute(reading).to_arrow_reader(4096))


def _relation(tables: Path) -> encounters.Relation:
    return lambda database, table: f"read_parquet('{tables}/{database}/{table}.parquet')"


def _connect(place: Path) -> duckdb.DuckDBPyConnection:
    extensions = ROOT / "extensions"
    install_extensions(extensions)
    connection = duckdb.connect(
        config={
            "extension_directory": str(extensions),
            "memory_limit": "512MB",
            "temp_directory": str(private_folder(place / "spill")),
        }
    )
    connection.execute("LOAD icu; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    return connection


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
    print(json.dumps(run(*map(Path, sys.argv[2:]))))
