"""Encounters from the vendor's MariaDB and the member index's PostgreSQL, through mirrors and asset
to the warehouse and the documents; and what the cache job hears of them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mirror_assets.commons import assets as commons
from mirror_assets.elation import assets as elation
from mirror_assets.elation.encounters import fhir, query
from mirror_assets.keys import ENCOUNTERS
from mirror_assets.mirroring.names import backquoted, sql
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import key_of
from mirror_assets.sample.servers import PostgreSQL
from mirror_assets.settings import Settings
from tests.commons.cache import Database, job_command
from tests.conftest import Bench
from tests.elation.encounters_day import COLUMNS, M1, TABLES, Day, Record, fill
from tests.mirroring.test_drift import Shifted
from tests.orchestration.conftest import REPOSITORY, Run

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)
INDEX = "encounters_member_index"
#: What stands in required columns that a case does not speak of, by type.
_ANY = {
    **dict.fromkeys(("bigint", "int", "tinyint", "integer"), 0),
    **dict.fromkeys(("varchar", "longtext", "text"), ""),
    **dict.fromkeys(("datetime", "timestamp with time zone"), "2021-01-01 00:00:00"),
}


class Servers(Day):
    """The same tables and rows in the servers that hold them, and a lake they are mirrored to."""

    def __init__(self, vendor: Bench, index: PostgreSQL) -> None:
        self.vendor, self.index = vendor, index
        index.create_database(INDEX)
        index.create_reader(INDEX)
        self._run("mrn", "CREATE TYPE ehr AS ENUM ('elation', 'acpny')")
        for database, tables in TABLES.items():
            for table in tables:
                name = self._quoted(table, table)
                self._run(table, f"CREATE TABLE {name} ({COLUMNS[database][table]})")

    def add(self, table: str, **row: Any) -> None:
        asked = (
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s"
            f" AND is_nullable = 'NO' AND table_schema = '{self._schema(table)}'"
        )
        required = {name: _ANY.get(kind) for name, kind in self._run(table, asked, table)}
        full = required | row
        names = ", ".join(self._quoted(table, name) for name in full)
        marks = ", ".join("%s" for _ in full)
        into = self._quoted(table, table)
        self._run(table, f"INSERT INTO {into} ({names}) VALUES ({marks})", *full.values())

    def refresh(self, table: str, change: str) -> None:
        """Let the vendor rebuild every table, one of them with a change, and mirror that one."""
        self.vendor.next_second()
        rebuilt = [f"ALTER TABLE {backquoted(name)} FORCE" for name in TABLES["elation"]]
        self.vendor.run(f"UPDATE {backquoted(table)} SET {change}", *rebuilt)
        reports = self.vendor.mirror_day(self.vendor.elation(*TABLES["elation"]), table)
        assert reports[table].published

    def mirror(self, ago: int = 0) -> None:
        """Both databases as they are, as if it were some days ago."""
        spec = self.vendor.elation(*TABLES["elation"])
        reports = self.vendor.mirror_day(spec, source=self.vendor.earlier(spec, days=ago))
        clock = datetime.now(UTC) - timedelta(days=ago)
        index = self.vendor.settings_with(**CATALOGS).database("member_index")
        reports |= self.vendor.mirror_day(
            index,
            *TABLES["member_index"],
            day=clock.date(),
            source=Shifted(open_source(index, self.index.url(INDEX)), timedelta(days=ago)),
            clock=lambda: clock,
        )
        assert [report.error for report in reports.values() if not report.published] == []

    def _run(self, table: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        in_index = table in TABLES["member_index"]
        server: Any = self.index if in_index else self.vendor.server
        name = INDEX if in_index else self.vendor.schema
        with closing(server.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def _quoted(self, table: str, name: str) -> str:
        return sql(name) if table in TABLES["member_index"] else backquoted(name)

    def _schema(self, table: str) -> str:
        return "public" if table in TABLES["member_index"] else self.vendor.schema


CATALOGS = {"MIRROR_CATALOG_PATH": str(REPOSITORY / "mirror_assets" / "sample" / "catalogs")}


@pytest.fixture(scope="module")
def servers(module_bench: Bench, postgres: PostgreSQL) -> Iterator[Servers]:
    """The base data with a plain visit, one with a bill, and a phone call, mirrored twice."""
    made = Servers(module_bench, postgres)
    fill(made)
    signed = {"signed_time": "2021-01-15 18:00:00", "signed_by_user_id": 920}
    made.visit(5001, **signed)
    made.visit(5002, document_date="2021-07-01 23:15:00", physician_user_id=920)
    made.bill(6001, 5002)
    made.add("bill_item", id=1, bill_id=6001, cpt="99213")
    made.add("icd10", id=10, code="E11.9", description="Type 2 diabetes")
    made.add("icd9", id=9, code="250.00", description="Diabetes")
    made.add("bill_item_dx", bill_item_id=1, icd10_id=10, icd9_id=9)
    made.non_visit(7001, **signed)
    made.add("non_visit_note_bullet", id=1, non_visit_note_id=7001, text="called")
    made.add(
        "document_tag",
        id=1,
        value="Flu shot",
        code_type="CPT",
        code="90471",
        description="Immunization admin",
    )
    made.add("non_visit_note_document_tag", non_visit_note_id=7001, document_tag_id=1)
    made.mirror(ago=1)
    made.mirror()
    yield made
    with closing(postgres.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {INDEX} WITH (FORCE)")


@dataclass
class World:
    """The assets over the mirrored tables, with documents of the test's own."""

    servers: Servers
    instance: dg.DagsterInstance
    documents: Path
    patch: pytest.MonkeyPatch

    def run(self, key: dg.AssetKey = ENCOUNTERS, day: date = TODAY) -> Run:
        settings = Settings.from_env()
        graph = dg.Definitions.merge(
            elation.definitions(settings, settings.databases()),
            commons.definitions(settings, []),
            dg.Definitions(resources={"mirror": MirrorResource()}, executor=dg.in_process_executor),
        )
        result = graph.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[key],
            partition_key=key_of(day),
            raise_on_error=False,
        )
        return Run(self.instance, result)

    def made(self, key: dg.AssetKey = ENCOUNTERS, day: date = TODAY) -> Record:
        """What a successful run says."""
        run = self.run(key, day)
        assert run.success, run.failures
        return run.metadata(key.path[-1])

    def document(self) -> bytes:
        return (self.documents / M1 / "aggregated_data" / "encounters.v3.json").read_bytes()

    def rows(self, table: str = "patient_encounters", where: str = "TRUE") -> list[Record]:
        """The encounters of the warehouse, in the order of a document."""
        answer = self.servers.vendor.warehouse.query(
            f'SELECT "messageId", encounter FROM medical.{table} WHERE {where} ORDER BY'
            ' encounter."identifiers"[1]."idType" DESC, encounter."dateTime"."raw"'
        )
        return answer.dicts()

    def of_today(self) -> list[Record]:
        return self.rows(where=f"_PARTITIONDATE = DATE '{TODAY}'")


@pytest.fixture
def world(
    servers: Servers, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    documents = tmp_path / "documents"
    for name, value in (servers.vendor.variables | CATALOGS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIRROR_DOCUMENTS", str(documents))
    return World(servers, instance, documents, monkeypatch)


# -- what encounters say

_CITY = {"city": "Dover", "state": "DE", "zip": "19901"}
_NOTHING = {"code": None, "codeSystem": None, "codeSystemName": None, "name": None}
_IVY = {
    "identifiers": [
        {"id": "1999999990", "idType": "npi"},
        {"id": "ivy.tan@clinic.test", "idType": "email"},
    ],
    "firstName": "Ivy",
    "lastName": "Tan",
    "credentials": ["NP"],
    "address": {"street1": "12 Elm St", "street2": "Unit 4", **_CITY},
    "phone": "302-555-0101",
    "role": _NOTHING | {"name": "Family Medicine"},
}
_PLAIN = {
    "identifiers": [{"id": "5001", "idType": "Visit Note"}],
    "type": _NOTHING | {"code": "Unknown", "name": "Office Visit Note"},
    "dateTime": "2021-01-15T17:30:00Z",
    "endDateTime": "2021-01-16T02:00:00Z",
    "providers": [_IVY],
    "locations": [],
    "diagnoses": [],
    "reasons": [],
    "draft": False,
}
_BILLED = _PLAIN | {
    "identifiers": [{"id": "5002", "idType": "Visit Note"}, {"id": "6001", "idType": "Bill"}],
    "type": _NOTHING | {"code": "99213", "codeSystemName": "CPT", "name": "Office Visit Note"},
    "dateTime": "2021-07-02T06:15:00Z",
    "endDateTime": None,
    "locations": [
        {
            "address": {"street1": "80 Oak Ave", "street2": None, **_CITY},
            "type": _NOTHING | {"code": "12", "codeSystemName": "CMS Place of Service Code Set"},
            "name": None,
        }
    ],
    "diagnoses": [
        _NOTHING | {"code": "99213", "codeSystemName": "CPT"},
        _NOTHING | {"code": "E11.9", "codeSystemName": "ICD-10", "name": "Type 2 diabetes"},
        _NOTHING | {"code": "250.00", "codeSystemName": "ICD-9", "name": "Diabetes"},
    ],
    "draft": True,
}
_CALL = _PLAIN | {
    "identifiers": [{"id": "7001", "idType": "Non-Visit Note"}],
    "type": _NOTHING | {"code": "Unknown", "name": "phone"},
    "dateTime": "2021-01-16T18:00:00Z",
    "reasons": [
        _NOTHING | {"notes": "called"},
        _NOTHING
        | {
            "code": "90471",
            "codeSystemName": "CPT",
            "name": "Flu shot",
            "notes": "Immunization admin",
        },
    ],
}


def _as_told(encounter: Record) -> Record:
    """A row's encounter as a document tells it."""
    moments = {}
    for name in ("dateTime", "endDateTime"):
        instant = encounter[name] and encounter[name]["instant"]
        moments[name] = instant and f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    return encounter | moments


def test_b_1_b_6_b_11_b_15_from_the_servers_to_document_and_warehouse(world: World) -> None:
    world.made()
    told = [entry["encounter"] for entry in json.loads(world.document())]
    assert told == [_PLAIN, _BILLED, _CALL]
    assert [_as_told(row["encounter"]) for row in world.of_today()] == told


def test_b_20_a_second_run_leaves_one_set_in_the_warehouse(world: World) -> None:
    world.made()
    document, rows = world.document(), world.of_today()
    again = world.made()
    assert (again["documents_written"], again["documents_unchanged"]) == (0, 1)
    assert world.document() == document
    assert world.of_today() == rows

    world.servers.mirror()  # the same rows, published again
    world.made()
    assert world.document() == document
    replaced = world.of_today()
    assert [row["encounter"] for row in replaced] == [row["encounter"] for row in rows]
    assert {row["messageId"] for row in replaced}.isdisjoint(row["messageId"] for row in rows)
    assert world.rows("patient_encounters_latest") == replaced


def test_an_older_day_leaves_documents_and_latest_views_as_they_were(world: World) -> None:
    world.made()
    document, latest = world.document(), world.rows("patient_encounters_latest")
    older = world.made(day=YESTERDAY)
    assert older["superseded_by"] == key_of(TODAY)
    assert world.document() == document
    assert world.rows("patient_encounters_latest") == latest == world.of_today()
    assert len(world.rows()) == 2 * len(latest)


# -- what the cache job hears


def test_documents_of_a_run_that_failed_after_them_are_read_by_the_job(
    world: World, database: Database
) -> None:
    for name, value in {
        "MIRROR_FHIR": "1",
        "MIRROR_CACHE_JOB_COMMAND": shlex.join(job_command(world.documents, database)),
        "MIRROR_CACHE_JOB_WAIT_MINUTES": "0",
        "COMMONS_DATABASE_URL": database.cache.url,
    }.items():
        world.patch.setenv(name, value)
    in_the_way = world.documents / ".encounters" / fhir.NAME
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    assert not world.run().success
    assert world.document()

    in_the_way.unlink()
    assert world.made()["documents_written"] == 0
    assert world.made(commons.CACHE)["rows_appeared"] == 3


# -- a refresh, after which the rows are others


def test_an_input_replaced_between_two_parts_is_refused(world: World) -> None:
    """The parts have a snapshot each: their rows would be half old, half new."""
    world.made()
    before, save = world.of_today(), DuckLakeWarehouse.save
    parts: list[str] = []

    def replacing(warehouse: DuckLakeWarehouse, statement: str, path: str) -> int:
        if len(parts) == 1:
            world.servers.refresh("visit_note", "name = 'Changed'")
        parts.append(path)
        return save(warehouse, statement, path)

    world.patch.setattr(query, "_PART_NOTES", 1)
    with world.patch.context() as patch:
        patch.setattr(DuckLakeWarehouse, "save", replacing)
        run = world.run()
    assert len(parts) > 2
    assert "published again while it was read: elation/visit_note." in run.failures[0]
    assert run.tags["dagster/retry_on_asset_or_op_failure"] == "true"
    assert world.of_today() == before
    assert not Path(parts[0]).exists()

    world.made()
    names = {row["encounter"]["type"]["name"] for row in world.of_today()}
    assert names == {"Changed", "phone"}
