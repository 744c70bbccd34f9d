"""Elation's quality measures from mirrored tables to the service's events."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot

from mirror_assets.delivery.client import Target
from mirror_assets.delivery.ledger import LedgerStore, PostgresLedger
from mirror_assets.delivery.push import DeliveryReport
from mirror_assets.elation.assets import MeasureConfig, measure_feed
from mirror_assets.elation.quality_measures import (
    TABLES,
    DeliveryUnavailable,
    ElationMapUnusable,
    Feed,
    MapRow,
    MeasuresRefused,
    deliver,
    elation_map,
    fault,
    records,
    remapped,
    statement,
    warehouse_ledger,
)
from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import (
    MirrorError,
    PermanentError,
    SettingsError,
    TransientError,
)
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema
from mirror_assets.mirroring.warehouses.base import Rows
from mirror_assets.mirroring.warehouses.ducklake import (
    DuckLakeTransaction,
    DuckLakeWarehouse,
    install_extensions,
)
from mirror_assets.sample import commons, elation, member_index, quality_measure
from mirror_assets.sample.servers import PostgreSQL
from mirror_assets.settings import Settings
from tests.delivery.conftest import open_lake
from tests.delivery.measures import Measures, empty_ledger, member

DAY = date(2021, 3, 6)
AT = datetime(2021, 3, 5, 9, 30)
CANARY = "Zebulon Canary"
_NOTE = {
    "id": "INT64",
    "patient_id": "INT64",
    "signed_by_user_id": "INT64",
    "signed_time": "DATETIME",
    "document_date": "DATETIME",
    "deletion_time": "DATETIME",
}
COLUMNS: dict[str, dict[str, dict[str, str]]] = {
    "elation": {
        "visit_note": _NOTE,
        "non_visit_note": _NOTE,
        "lab_report": _NOTE,
        "visit_note_document_tag": {"visit_note_id": "INT64", "document_tag_id": "INT64"},
        "non_visit_note_document_tag": {"non_visit_note_id": "INT64", "document_tag_id": "INT64"},
        "lab_report_document_tag": {"lab_report_id": "INT64", "document_tag_id": "INT64"},
        "document_tag": {
            "id": "INT64",
            "description": "STRING",
            "code_type": "STRING",
            "code": "STRING",
        },
        "bill": {"id": "INT64", "visit_note_id": "INT64"},
        "bill_item": {
            "id": "INT64",
            "bill_id": "INT64",
            "cpt": "STRING",
            "deletion_time": "DATETIME",
        },
        "bill_item_dx": {
            "bill_item_id": "INT64",
            "seqno": "INT64",
            "icd10_id": "INT64",
            "icd9_id": "INT64",
        },
        "icd10": {"id": "INT64", "code": "STRING", "description": "STRING"},
        "icd9": {"id": "INT64", "code": "STRING", "description": "STRING"},
        "user": {"id": "INT64", "email": "STRING"},
    },
    "member_index": {
        "member": {"id": "STRING", "mrnId": "STRING", "deletedAt": "TIMESTAMP"},
        "mrn": {"id": "STRING", "mrn": "STRING", "name": "STRING", "deletedAt": "TIMESTAMP"},
    },
    "commons": {"user": {"id": "STRING", "email": "STRING", "deletedAt": "TIMESTAMP"}},
}
LEE = str(uuid.UUID(int=77))


def relation(database: str, table: str) -> str:
    return f"{sql(database)}.{sql(table)}"


class Plain:
    """DuckDB in memory, where only what a query answers matters."""

    def __init__(self, extensions: Path) -> None:
        install_extensions(extensions)
        self._connection = duckdb.connect(config={"extension_directory": str(extensions)})
        self._connection.execute("LOAD icu; SET TimeZone = 'UTC'")
        for database, tables in COLUMNS.items():
            self._connection.execute(f"CREATE SCHEMA {database}")
            for table, columns in tables.items():
                listed = ", ".join(
                    f"{sql(name)} {types.to_duckdb(LogicalType.parse(kind))}"
                    for name, kind in columns.items()
                )
                self._connection.execute(f"CREATE TABLE {relation(database, table)} ({listed})")

    def query(self, text: str, *, limit: int | None = None) -> Rows:
        answer = self._connection.execute(text)
        names = tuple(column[0] for column in answer.description or ())
        return Rows(names, answer.fetchall())

    def add(self, database: str, table: str, *rows: dict[str, Any]) -> None:
        self._connection.register("added", pa.Table.from_pylist(rows))
        self._connection.execute(
            f"INSERT INTO {relation(database, table)} BY NAME SELECT * FROM added"
        )

    def close(self) -> None:
        self._connection.close()


class Lake:
    """The tables in a real lake, which also holds the ledger."""

    def __init__(self, warehouse: DuckLakeWarehouse) -> None:
        self.warehouse = warehouse
        self.query = warehouse.query
        warehouse.commit(self._create)

    def _create(self, tx: DuckLakeTransaction) -> None:
        for database, tables in COLUMNS.items():
            for table, columns in tables.items():
                listed = [Column(n, "", LogicalType.parse(kind)) for n, kind in columns.items()]
                tx.create_table(database, table, TableSchema(tuple(listed)), partitioned=False)

    def add(self, database: str, table: str, *rows: dict[str, Any]) -> None:
        self.warehouse.commit(lambda tx: tx.replace_rows(database, table, rows))


class Clinic:
    """The tables that are read; every method adds rows and returns the key."""

    def __init__(self, tables: Plain | Lake, store: LedgerStore) -> None:
        self.tables = tables
        self.store = store
        self.add = tables.add
        self._ids = iter(range(100, 100_000))

    def patient(self, number: int = 1, *, mrn: int | None = None, **changed: Any) -> int:
        """A live member with an MRN of Elation; the MRN."""
        mrn = mrn or 5_000 + number
        key = str(uuid.UUID(int=mrn))
        gone = {name: changed.get(name) for name in ("member_deleted", "mrn_deleted")}
        self.add(
            *("member_index", "mrn"),
            {
                "id": key,
                "mrn": str(mrn),
                "name": changed.get("name", "elation"),
                "deletedAt": gone["mrn_deleted"],
            },
        )
        self.add(
            *("member_index", "member"),
            {"id": member(number), "mrnId": key, "deletedAt": gone["member_deleted"]},
        )
        return mrn

    def note(self, patient: int, kind: str = "visit_note", **changed: Any) -> int:
        """A signed document."""
        note = {
            "id": next(self._ids),
            "patient_id": patient,
            "signed_by_user_id": None,
            "signed_time": AT + timedelta(days=1),
            "document_date": AT,
            "deletion_time": None,
        } | changed
        self.add("elation", kind, note)
        return int(note["id"])

    def tag(
        self,
        note: int,
        code_type: str | None,
        code: str | None,
        description: str | None = "why",
        kind: str = "visit_note",
    ) -> int:
        """A tag of its own on a document."""
        key = next(self._ids)
        told = {"description": description, "code_type": code_type, "code": code}
        self.add("elation", "document_tag", {"id": key, **told})
        self.link(note, key, kind)
        return key

    def link(self, note: int, tag: int, kind: str = "visit_note") -> None:
        self.add("elation", f"{kind}_document_tag", {f"{kind}_id": note, "document_tag_id": tag})

    def billed(self, note: int, cpt: str, deleted: datetime | None = None) -> int:
        """An item on a bill of its own of a visit note."""
        bill, item = next(self._ids), next(self._ids)
        self.add("elation", "bill", {"id": bill, "visit_note_id": note})
        self.add(
            *("elation", "bill_item"),
            {"id": item, "bill_id": bill, "cpt": cpt, "deletion_time": deleted},
        )
        return item

    def user(self, email: str, commons: str, deleted: datetime | None = None) -> int:
        """A login of Elation, and one of Commons with the id LEE."""
        key = next(self._ids)
        self.add("elation", "user", {"id": key, "email": email})
        self.add("commons", "user", {"id": LEE, "email": commons, "deletedAt": deleted})
        return key

    def elements(self, mapping: Sequence[MapRow] = ()) -> dict[str, list[dict[str, Any]]]:
        """What would be posted, by member."""
        mapping = mapping or remapped(SEED)
        rows = self.tables.query(statement(relation, mapping)).rows
        return {r.recipient: json.loads(r.body) for r in records(rows)}

    def statuses(self, number: int = 1) -> list[tuple[int, str]]:
        return [(e["id"], e["status"]) for e in self.elements().get(member(number), [])]


SEED = [
    MapRow(code_type, code, measure, quality_measure.STATUSES[status - 1])
    for code_type, code, measure, status in quality_measure.ELATION_MAP
]


@pytest.fixture
def ledger(postgres: PostgreSQL) -> Iterator[PostgresLedger]:
    with empty_ledger(postgres) as ledger:
        yield ledger


@pytest.fixture
def clinic(extensions: Path, ledger: PostgresLedger) -> Iterator[Clinic]:
    with closing(Plain(extensions)) as tables:
        yield Clinic(tables, ledger)


@pytest.fixture(scope="session")
def shared_service(postgres: PostgreSQL) -> Iterator[Measures]:
    with Measures.started(postgres) as measures:
        yield measures


@pytest.fixture
def service(shared_service: Measures) -> Measures:
    shared_service.clear()
    return shared_service


# -- gathering


def test_c_19_a_tag_reaches_every_measure_it_stands_for(clinic: Clinic) -> None:
    clinic.tag(clinic.note(clinic.patient()), "ICD10", "E09.9")
    assert clinic.statuses() == [(9, "excluded"), (10, "excluded")]


def test_c_20_identical_tags_are_one_element(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    for _ in range(2):
        clinic.tag(note, "CPT", "3044F")
    assert clinic.statuses() == [(9, "closed")]


def test_c_21_an_unsigned_note_counts_for_nothing(clinic: Clinic) -> None:
    clinic.tag(clinic.note(clinic.patient(), signed_time=None), "CPT", "3044F")
    assert clinic.elements() == {}


@pytest.mark.parametrize(
    ("email", "commons", "deleted", "found"),
    [
        ("lee+ma@clinic.test", "lee@clinic.test", None, LEE),
        ("lee@clinic.test", "lee@clinic.test", None, LEE),
        ("lee+a@b+ma@clinic.test", "lee@clinic.test", None, LEE),
        ("lee+ma@clinic.test", "Lee@clinic.test", None, None),
        ("lee+ma@clinic.test", "ivy@clinic.test", None, None),
        ("lee+ma@clinic.test", "lee@clinic.test", AT.replace(tzinfo=UTC), None),
    ],
    ids=["plus", "plain", "greedy", "case", "nobody", "deleted"],
)
def test_c_22_the_signer_by_email(
    clinic: Clinic, email: str, commons: str, deleted: datetime | None, found: str | None
) -> None:
    signer = clinic.user(email, commons, deleted)
    clinic.tag(clinic.note(clinic.patient(), signed_by_user_id=signer), "CPT", "3044F")
    assert [e["userId"] for e in clinic.elements()[member(1)]] == [found]


def test_c_23_a_bill_item_unless_deleted(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    clinic.billed(note, "99396", deleted=AT)
    assert clinic.elements() == {}

    clinic.billed(note, "99396")
    elsewhere = clinic.note(clinic.patient(2), signed_time=None)
    for description in ("short", "the longest one", "middle one", None):
        clinic.tag(elsewhere, "anything", "99396", description)
    assert clinic.elements() == {
        member(1): [
            {
                "userId": None,
                "setOn": "2021-03-05T17:30:00Z",
                "id": 3,
                "status": "closed",
                "reason": "the longest one",
            }
        ]
    }


def test_c_23_equally_long_descriptions_are_all_told(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    clinic.billed(note, "99396")
    for description in ("alike", "equal", "no"):
        clinic.tag(note, "none", "99396", description)
    assert [e["reason"] for e in clinic.elements()[member(1)]] == ["alike", "equal"]


def test_c_24_the_case_of_a_code_counts_and_that_of_its_type_does_not(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    clinic.tag(note, "Cpt", "g0438")
    assert clinic.elements() == {}
    clinic.tag(note, "CPT", "G0438")
    assert clinic.statuses() == [(2, "closed")]


@pytest.mark.parametrize("which", ["member_deleted", "mrn_deleted", "name"])
def test_c_25_a_deleted_member_or_a_foreign_mrn(clinic: Clinic, which: str) -> None:
    changed: dict[str, Any] = {which: "acpny" if which == "name" else AT.replace(tzinfo=UTC)}
    clinic.tag(clinic.note(clinic.patient(**changed)), "CPT", "G0438")
    assert clinic.elements() == {}


def test_the_six_sources(clinic: Clinic) -> None:
    patient = clinic.patient()
    clinic.tag(clinic.note(patient), "CPT", "3044F")
    clinic.tag(clinic.note(patient, "non_visit_note"), "CPTII", "3008F", kind="non_visit_note")
    clinic.tag(clinic.note(patient, "lab_report"), "LOINC", "5804-0", kind="lab_report")
    item = clinic.billed(clinic.note(patient), "G0438")
    clinic.add("elation", "icd10", {"id": 1, "code": "N18.6", "description": "ten"})
    clinic.add("elation", "icd9", {"id": 2, "code": "585.6", "description": "nine"})
    clinic.add(
        *("elation", "bill_item_dx"),
        {"bill_item_id": item, "seqno": 0, "icd10_id": 1, "icd9_id": None},
        {"bill_item_id": item, "seqno": 1, "icd10_id": 99, "icd9_id": 2},
    )
    mapping = [*remapped(SEED), MapRow("icd9", "585.6", 14, "failed")]
    found = clinic.elements(mapping)[member(1)]
    assert [(e["id"], e["status"], e["reason"]) for e in found] == [
        (9, "closed", "why"),
        (1, "closed", "why"),
        (11, "closed", "why"),
        (2, "closed", None),
        (11, "closed", "ten"),
        (14, "failed", "nine"),
    ]


@pytest.mark.parametrize("kind", ["visit_note", "non_visit_note", "lab_report"])
def test_a_deleted_document_counts_for_nothing(clinic: Clinic, kind: str) -> None:
    note = clinic.note(clinic.patient(), kind, deletion_time=AT)
    clinic.tag(note, "CPT", "3044F", kind=kind)
    if kind == "visit_note":
        clinic.billed(note, "G0438")
    assert clinic.elements() == {}


@pytest.mark.parametrize(
    ("code_type", "code"), [(None, "3044F"), ("CPT", None), ("CPT", ""), ("CPT", " "), ("", "x")]
)
def test_a_tag_without_type_or_code_is_dropped(
    clinic: Clinic, code_type: str | None, code: str | None
) -> None:
    note = clinic.note(clinic.patient())
    clinic.tag(note, code_type, code)
    clinic.billed(note, "")
    assert clinic.elements() == {}


@pytest.mark.parametrize(
    ("description", "reason"),
    [("", None), ("  ", None), (None, None), ("NULL", "NULL"), (' é, "x"\n ', ' é, "x"\n ')],
)
def test_an_empty_description_is_no_reason(
    clinic: Clinic, description: str | None, reason: str | None
) -> None:
    clinic.tag(clinic.note(clinic.patient()), "CPT", "3044F", description)
    assert [e["reason"] for e in clinic.elements()[member(1)]] == [reason]


@pytest.mark.parametrize(
    ("local", "told"),
    [
        (datetime(2021, 1, 15, 9, 30), "2021-01-15T17:30:00Z"),
        (datetime(2021, 7, 9, 17, 0), "2021-07-10T00:00:00Z"),
        (datetime(2021, 3, 14, 2, 30), "2021-03-14T10:30:00Z"),
        (datetime(2021, 11, 7, 1, 30), "2021-11-07T09:30:00Z"),
        (datetime(2021, 1, 15, 9, 30, 0, 250_000), "2021-01-15T17:30:00.250000Z"),
    ],
    ids=["winter", "summer", "gap", "overlap", "fraction"],
)
def test_set_on_is_the_documents_wall_time(clinic: Clinic, local: datetime, told: str) -> None:
    clinic.tag(clinic.note(clinic.patient(), document_date=local), "CPT", "3044F")
    assert [e["setOn"] for e in clinic.elements()[member(1)]] == [told]


def test_of_duplicates_the_last_one_keeps_its_place(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    for code in ("3044F", "G0438", "3044F", "4010F"):
        clinic.tag(note, "CPT", code)
    assert [m for m, _ in clinic.statuses()] == [2, 9, 11]


def test_flu_tags_reach_the_measures_that_replaced_the_deleted_ones(clinic: Clinic) -> None:
    note = clinic.note(clinic.patient())
    clinic.tag(note, "HCPCS", "G8482")
    clinic.tag(note, "CPT", "90471")
    assert sorted(clinic.statuses()) == [(16, "closed"), (17, "closed")]
    assert remapped([MapRow("cpt", "x", 4, "s"), MapRow("cpt", "x", 16, "s")]) == [
        MapRow("cpt", "x", 16, "s")
    ]
    assert remapped(SEED[:1]) == SEED[:1]


def test_codes_with_quotes_are_only_text(clinic: Clinic) -> None:
    clinic.tag(clinic.note(clinic.patient()), "CPT", "O'Code {x}")
    found = clinic.elements([MapRow("cpt", "O'Code {x}", 1, "closed")])
    assert len(found[member(1)]) == 1


def test_members_come_in_order_each_with_its_own(clinic: Clinic) -> None:
    for number in (3, 1, 2):
        note = clinic.note(clinic.patient(number))
        clinic.tag(note, "CPT", "3044F", f"of {number}")
    assert [(m, e[0]["reason"]) for m, e in clinic.elements().items()] == [
        (member(n), f"of {n}") for n in (1, 2, 3)
    ]


def test_a_member_with_5000_measures_is_one_record(clinic: Clinic) -> None:
    patient = clinic.patient()
    start = {"signed_by_user_id": None, "signed_time": AT, "deletion_time": None}
    notes = [
        {"id": n, "patient_id": patient, "document_date": AT - timedelta(hours=n)} | start
        for n in range(5_000)
    ]
    clinic.add("elation", "visit_note", *notes)
    tag = {"id": 1, "description": "why", "code_type": "CPT", "code": "3044F"}
    clinic.add("elation", "document_tag", tag)
    links = [{"visit_note_id": n, "document_tag_id": 1} for n in range(5_000)]
    clinic.add("elation", "visit_note_document_tag", *links)
    assert [len(elements) for elements in clinic.elements().values()] == [5_000]


def test_what_is_read_is_what_is_declared(clinic: Clinic) -> None:
    asked: list[tuple[str, str]] = []

    def noting(database: str, table: str) -> str:
        asked.append((database, table))
        return relation(database, table)

    text = statement(noting, SEED)
    assert sorted(asked) == sorted((d, t) for d, tables in TABLES.items() for t in tables)
    assert clinic.tables.query(text).rows == []


def test_the_statement_can_be_told_to_bigquery() -> None:
    told = sqlglot.transpile(
        statement(relation, SEED),
        read="duckdb",
        write="bigquery",
        unsupported_level=sqlglot.ErrorLevel.RAISE,
    )
    assert len(told) == 1
    sqlglot.parse_one(told[0], read="bigquery")


# -- delivering


def feed(service: Measures, **options: Any) -> Feed:
    client = {"backoff_seconds": 0.02, "attempts": 2, **options.pop("client", {})}
    return Feed(
        service.service.url,
        options.pop("api_key", "elation-secret"),
        client=client,
        **options,
    )


def run(
    clinic: Clinic,
    service: Measures,
    run_id: str = "run-1",
    day: date = DAY,
    **options: Any,
) -> DeliveryReport:
    told = options.pop("feed", None) or feed(service, **options)
    tables: Any = clinic.tables
    return deliver(tables, relation, told, clinic.store, partition=day, run_id=run_id)


@pytest.fixture
def three(clinic: Clinic, service: Measures) -> Clinic:
    """Three members with a tag each, whose measures Able has opened in that year."""
    return filled(clinic, service)


def filled(clinic: Clinic, service: Measures) -> Clinic:
    for number in (1, 2, 3):
        clinic.tag(clinic.note(clinic.patient(number)), "CPT", "3044F", CANARY)
    service.open_for([member(number) for number in (1, 2, 3)], measure=9)
    return clinic


CLOSED = (9, "elation", "closed", "2021-03-05T17:30:00")


def elations(service: Measures) -> list[tuple[Any, ...]]:
    return [event for event in service.events() if event[1] == "elation"]


def test_measures_of_a_lake_arrive_once(
    tmp_path: Path, extensions: Path, service: Measures
) -> None:
    with closing(open_lake(tmp_path, extensions)) as lake:
        clinic = filled(Clinic(Lake(lake), warehouse_ledger(lake)), service)
        first = run(clinic, service)
        second = run(clinic, service, "run-2")
    assert (first.recipients, first.elements, first.posted) == (3, 3, 3)
    assert (second.posted, second.unchanged) == (0, 3)
    assert fault(first) is None
    assert fault(second) is None
    assert elations(service) == [CLOSED] * 3


def test_c_27_a_500_fails_the_run_and_a_rerun_completes(three: Clinic, service: Measures) -> None:
    service.service.faults(broken_from=3)
    report = run(three, service, client={"attempts": 1})
    error = fault(report)
    assert (report.posted, report.refused) == (2, 1)
    assert isinstance(error, DeliveryUnavailable)
    assert "1 of 3 members were refused (1 x answered 500 with an error)" in error.sentence
    service.service.faults()
    again = run(three, service, "run-2")
    assert (again.posted, again.unchanged, fault(again)) == (1, 2, None)
    assert elations(service) == [CLOSED] * 3


def test_a_refused_member_is_a_permanent_fault_without_values(
    three: Clinic, service: Measures
) -> None:
    service.service.faults(lasting={member(1): 400})
    report = run(three, service)
    error = fault(report)
    assert (report.posted, report.refused) == (2, 1)
    assert isinstance(error, MeasuresRefused)
    assert not error.transient
    for secret in (CANARY, member(1), "elation-secret"):
        assert secret not in f"{error} {error!r} {report!r}"


def test_a_refused_member_does_not_keep_the_others_from_their_retry(
    three: Clinic, service: Measures
) -> None:
    service.service.faults(lasting={member(1): 400, member(2): 503})
    error = fault(run(three, service))
    assert isinstance(error, DeliveryUnavailable)
    assert error.transient
    assert "2 of 3 members were refused (1 x answered 400" in error.sentence
    assert "1 x answered 503" in error.sentence
    service.service.faults(lasting={member(1): 400})
    again = run(three, service, "run-2")
    assert (again.posted, again.unchanged, again.refused) == (1, 1, 1)
    assert isinstance(fault(again), MeasuresRefused)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("[]", "is empty"),
        ("{}", "is not a list"),
        ("<html>", "is not JSON"),
        ('[{"codeType": "cpt", "code": "1", "measureId": "2", "statusName": "closed"}]', "row"),
        ('[{"codeType": "cpt", "code": "", "measureId": 2, "statusName": "closed"}]', "row"),
        ('[{"codeType": "cpt", "measureId": 2, "statusName": "closed"}]', "row"),
        ("[3]", "row"),
    ],
)
def test_a_map_that_makes_no_sense_stops_before_any_post(
    three: Clinic, service: Measures, answer: str, said: str
) -> None:
    service.service.faults(map_answer=answer)
    with pytest.raises(ElationMapUnusable, match=said) as caught:
        run(three, service)
    assert not caught.value.transient
    assert service.service.counts().get("posts", 0) == 0


def test_the_service_is_down(three: Clinic, service: Measures) -> None:
    down = Feed("http://127.0.0.1:1", "key", client={"attempts": 2, "backoff_seconds": 0.01})
    with pytest.raises(TransientError, match="refused the connection") as caught:
        run(three, service, feed=down)
    assert isinstance(caught.value, DeliveryUnavailable)
    assert caught.value.__cause__ is None


def test_the_service_dies_after_its_map(three: Clinic, service: Measures) -> None:
    service.service.faults(broken_from=1)
    report = run(three, service, client={"attempts": 1})
    error = fault(report)
    assert isinstance(error, MirrorError)
    assert error.transient


def test_a_wrong_key_is_a_permanent_fault(three: Clinic, service: Measures) -> None:
    with pytest.raises(PermanentError, match="answered 403") as caught:
        run(three, service, api_key="wrong-secret")
    assert "wrong-secret" not in f"{caught.value!r} {feed(service, api_key='wrong-secret')!r}"
    assert caught.value.remedy == "check the API key"


def test_an_old_day_posts_nothing(three: Clinic, service: Measures) -> None:
    run(three, service)
    report = run(three, service, "run-2", DAY - timedelta(days=1), resend_all=True)
    assert report.newer == DAY
    assert (report.posted, fault(report)) == (0, None)
    assert service.service.counts()["posts"] == 3


def test_a_dry_run_counts(three: Clinic, service: Measures) -> None:
    report = run(three, service, dry_run=True)
    assert (report.recipients, report.posted, report.pending) == (3, 0, 3)
    assert elations(service) == []


def test_nothing_to_post(clinic: Clinic, service: Measures) -> None:
    report = run(clinic, service)
    assert (report.recipients, report.posted, fault(report)) == (0, 0, None)


def test_a_missing_table_is_named(
    tmp_path: Path, extensions: Path, ledger: PostgresLedger, service: Measures
) -> None:
    def without_bills(database: str, table: str) -> str:
        return relation(database, "gone" if table == "bill_item" else table)

    with (
        closing(open_lake(tmp_path, extensions)) as lake,
        pytest.raises(MirrorError, match="gone"),
    ):
        Lake(lake)
        deliver(lake, without_bills, feed(service), ledger, partition=DAY, run_id="run-1")
    assert service.service.counts().get("posts", 0) == 0


def test_the_services_own_map(service: Measures) -> None:
    assert elation_map(feed(service).target) == SEED


def test_the_settings_say_how_fast_is_posted(tmp_path: Path) -> None:
    key = tmp_path / "measures.key"
    key.write_text("elation-secret")
    key.chmod(0o400)
    stated = {
        "MIRROR_MEASURES_URL": "https://qm.clinic.test",
        "MIRROR_MEASURES_KEY_FILE": str(key),
    }

    def target(**more: str) -> Target:
        return measure_feed(Settings.from_env(stated | more), MeasureConfig()).target

    told = target(MIRROR_MEASURES_CONNECTIONS="3", MIRROR_MEASURES_PER_SECOND="2.5")
    assert (told.connections, told.per_second) == (3, 2.5)
    assert (target().connections, target().per_second) == (15, None)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (Feed("nowhere", "key"), Feed("https://x", "key", client={"speed": 1})):
        with pytest.raises(SettingsError):
            _ = wrong.target


def test_the_sample_has_the_columns_that_are_read() -> None:
    samples = {"elation": elation, "member_index": member_index, "commons": commons}
    for database, tables in COLUMNS.items():
        for table, columns in tables.items():
            declared = samples[database]._COLUMNS[table]
            for column in columns:
                assert re.search(rf"\b{column}\b", declared), (database, table, column)
