"""A day of mirrored tables in DuckDB, with a practice, its location, a user and a member."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import duckdb

from mirror_assets.elation import encounters
from mirror_assets.mirroring.names import sql
from mirror_assets.sample import elation, member_index

INSERTED_AT = datetime(2021, 3, 2, 8, 31, 9, 470_000, tzinfo=UTC)
M1, M2 = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
MRN = 77001

COLUMNS = {"elation": elation._COLUMNS, "member_index": member_index._COLUMNS}
#: The mirror's types for the sources' own; the others are text.
_TYPES = {
    **dict.fromkeys(("bigint", "int", "integer"), "BIGINT"),
    "tinyint(1)": "BOOLEAN",
    "datetime": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "decimal(10,2)": "DOUBLE",
}
TABLES = {
    "elation": (
        *("user", "practice", "service_location", "visit_note", "visit_note_bullet"),
        *("non_visit_note", "non_visit_note_bullet", "non_visit_note_document_tag"),
        *("document_tag", "bill", "bill_item", "bill_item_dx", "icd10", "icd9"),
    ),
    "member_index": ("member", "mrn"),
}
Record = dict[str, Any]


class Day:
    """Tables to put rows into, and the encounters that follow from them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        for database, tables in TABLES.items():
            connection.execute(f"CREATE SCHEMA {database}")
            for table in tables:
                connection.execute(
                    f"CREATE TABLE {self.relation(database, table)} ({_columns(database, table)})"
                )

    def relation(self, database: str, table: str) -> str:
        return f"{database}.{sql(table)}"

    def add(self, table: str, **row: Any) -> None:
        database = "member_index" if table in TABLES["member_index"] else "elation"
        names = ", ".join(map(sql, row))
        marks = ", ".join("?" for _ in row)
        self.connection.execute(
            f"INSERT INTO {self.relation(database, table)} ({names}) VALUES ({marks})",
            list(row.values()),
        )

    def member(self, member: str, mrn: str, name: str = "elation", **row: Any) -> None:
        """A member with an MRN; ``row`` is the member's."""
        mrn_id = str(uuid5(NAMESPACE_OID, member))
        self.add("mrn", id=mrn_id, mrn=mrn, name=name)
        self.add("member", id=member, mrnId=mrn_id, **row)

    def visit(self, note: int = 5001, **row: Any) -> None:
        """A visit note that nobody signed, of the base member."""
        base = {"patient_id": MRN, "practice_id": 900, "name": "Office Visit Note"}
        when = {"document_date": "2021-01-15 09:30:00"}
        self.add("visit_note", id=note, **{**base, **when, **row})

    def non_visit(self, note: int = 7001, **row: Any) -> None:
        base = {"patient_id": MRN, "practice_id": 900, "note_type": "phone"}
        when = {"document_date": "2021-01-16 10:00:00"}
        self.add("non_visit_note", id=note, **{**base, **when, **row})

    def bill(self, bill: int = 6001, note: int = 5001, **row: Any) -> None:
        base = {"practice_id": 900, "service_location_id": 910, "place_of_service": 12}
        self.add("bill", id=bill, visit_note_id=note, **{**base, **row})

    def statement(self, **options: Any) -> str:
        instant = options.pop("inserted_at", INSERTED_AT)
        return encounters.statement(
            self.relation,
            inserted_at=instant,
            message_id=encounters.message_id(instant),
            **options,
        )

    def rows(self, **options: Any) -> list[Record]:
        """The encounters' rows by member, kind of note and note."""
        answer = self.connection.execute(
            f"SELECT * FROM ({self.statement(**options)}) ORDER BY patient.patientId,"
            " encounter.identifiers[1].idType DESC, CAST(encounter.identifiers[1].id AS BIGINT)"
        )
        columns = [column[0] for column in answer.description]
        return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

    def told(self) -> list[Record]:
        return [row["encounter"] for row in self.rows()]

    def encounter(self) -> Record:
        (only,) = self.told()
        return only

    def counts(self) -> Record:
        answer = self.connection.execute(encounters.counts(self.relation))
        columns = [column[0] for column in answer.description]
        row = answer.fetchone()
        assert row is not None
        return dict(zip(columns, row, strict=True))

    def documents(self, **options: Any) -> Iterator[encounters.Document]:
        reader = self.connection.execute(
            encounters.documents_statement(f"({self.statement(**options)})")
        ).to_arrow_reader(2)
        return encounters.documents(reader)

    def shuffle(self) -> None:
        """The same rows in another order."""
        for database, tables in TABLES.items():
            for table in tables:
                name = self.relation(database, table)
                self.connection.execute(
                    f"CREATE OR REPLACE TABLE {name} AS FROM {name} ORDER BY random()"
                )


@contextmanager
def opened(extensions: Path, *, base: bool = True) -> Iterator[Day]:
    with duckdb.connect(config={"extension_directory": str(extensions)}) as connection:
        connection.execute("LOAD icu; SET TimeZone = 'UTC'")
        day = Day(connection)
        if base:
            fill(day)
        yield day


def fill(day: Day) -> None:
    city = {"city": "Dover", "state": "DE", "zip": "19901"}
    day.add(
        "practice",
        id=900,
        name="North Clinic",
        address_line1="12 Elm St",
        address_line2="Unit 4",
        phone="302-555-0101",
        **city,
    )
    day.add("service_location", id=910, practice_id=900, address="80 Oak Ave", **city)
    day.add(
        "user",
        id=920,
        email="ivy.tan+de@clinic.test",
        practice_id=900,
        first_name="Ivy",
        last_name="Tan",
        specialty="Family Medicine",
        credentials="NP",
        npi="1999999990",
    )
    day.add("user", id=921, email="bo.ray@clinic.test", practice_id=901, first_name="Bo")
    day.member(M1, str(MRN))


def _columns(database: str, table: str) -> str:
    declared = re.findall(
        r"^\s*[\"`]?(\w+)[\"`]? ([a-z]+(?:\(\d+(?:,\d+)?\))?)", COLUMNS[database][table], re.M
    )
    return ", ".join(f"{sql(name)} {_TYPES.get(kind, 'VARCHAR')}" for name, kind in declared)
