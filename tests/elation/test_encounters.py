"""Encounters from mirrored tables: every rule of the mapping, in the database that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.elation import encounters
from mirror_assets.elation.encounters import Part, query
from tests.elation.encounters_day import INSERTED_AT, M1, M2, MRN, Day, Record, opened

SIGNED = "2021-01-15 18:00:00"
NO_ADDRESS = dict.fromkeys(("street1", "street2", "city", "state", "zip"))
NO_CODE = dict.fromkeys(("code", "codeSystem", "codeSystemName", "name"))
NORTH_CLINIC = {
    "street1": "12 Elm St",
    "street2": "Unit 4",
    "city": "Dover",
    "state": "DE",
    "zip": "19901",
}
OAK_AVENUE = NORTH_CLINIC | {"street1": "80 Oak Ave", "street2": None}
IVY: Record = {
    "identifiers": [
        {"id": "1999999990", "idType": "npi"},
        {"id": "ivy.tan@clinic.test", "idType": "email"},
    ],
    "firstName": "Ivy",
    "lastName": "Tan",
    "credentials": ["NP"],
    "address": NORTH_CLINIC,
    "phone": "302-555-0101",
    "role": NO_CODE | {"name": "Family Medicine"},
}
NOBODY: Record = {
    "identifiers": [],
    "firstName": None,
    "lastName": None,
    "credentials": [],
    "address": NO_ADDRESS,
    "phone": None,
    "role": None,
}


@pytest.fixture
def day(extensions: Path) -> Iterator[Day]:
    with opened(extensions) as tables:
        yield tables


def moment(raw: str, instant: datetime) -> Record:
    return {"raw": raw, "instant": instant, "date": None}


def diagnosis(code: str, system: str, name: str | None = None) -> Record:
    return NO_CODE | {"code": code, "codeSystemName": system, "name": name}


def bullet(day: Day, number: int, sequence: int, text: str = "", **row: Any) -> None:
    base = {"visit_note_id": 5001, "category": "Reason"}
    text = text or f"text {number}"
    day.add("visit_note_bullet", id=number, sequence=sequence, text=text, **{**base, **row})


def item(day: Day, number: int, seqno: int, cpt: str, bill: int = 6001, **row: Any) -> None:
    day.add("bill_item", id=number, bill_id=bill, seqno=seqno, cpt=cpt, **row)


def notes(encounter: Record) -> list[str]:
    return [reason["notes"] for reason in encounter["reasons"]]


# -- the conformance cases


def test_b_1_a_signed_note_without_a_bill(day: Day) -> None:
    day.visit(signed_time=SIGNED, signed_by_user_id=920)
    assert day.rows() == [
        {
            "messageId": "202103020831094",
            "insertedAt": INSERTED_AT,
            "isStreaming": False,
            "patient": {
                "patientId": M1,
                "externalId": "77001",
                "source": {"name": "elation", "commonId": None},
            },
            "encounter": {
                "identifiers": [{"id": "5001", "idType": "Visit Note"}],
                "type": NO_CODE | {"code": "Unknown", "name": "Office Visit Note"},
                "dateTime": moment(
                    "2021-01-15T09:30:00.000", datetime(2021, 1, 15, 17, 30, tzinfo=UTC)
                ),
                "endDateTime": moment(
                    "2021-01-15T18:00:00.000", datetime(2021, 1, 16, 2, tzinfo=UTC)
                ),
                "providers": [IVY],
                "locations": [],
                "diagnoses": [],
                "reasons": [],
                "draft": False,
            },
        }
    ]


def test_b_2_summer_time(day: Day) -> None:
    day.visit(document_date="2021-07-01 23:15:00")
    instant = datetime(2021, 7, 2, 6, 15, tzinfo=UTC)
    assert day.encounter()["dateTime"] == moment("2021-07-01T23:15:00.000", instant)


def test_b_3_an_unsigned_note_is_a_draft_of_its_physician(day: Day) -> None:
    day.visit(physician_user_id=920)
    encounter = day.encounter()
    assert (encounter["endDateTime"], encounter["draft"]) == (None, True)
    assert encounter["providers"] == [IVY]


def test_b_4_the_signer_goes_before_the_physician(day: Day) -> None:
    day.visit(physician_user_id=920, signed_by_user_id=921, signed_time=SIGNED)
    assert day.encounter()["providers"] == [
        NOBODY
        | {
            "identifiers": [{"id": "bo.ray@clinic.test", "idType": "email"}],
            "firstName": "Bo",
            "role": NO_CODE,
        }
    ]


def test_b_5_nobody_signed_and_nobody_is_the_physician(day: Day) -> None:
    day.visit()
    assert day.encounter()["providers"] == [NOBODY]


def test_b_6_a_bill_at_a_service_location(day: Day) -> None:
    day.visit()
    day.bill()
    encounter = day.encounter()
    assert encounter["identifiers"][1:] == [{"id": "6001", "idType": "Bill"}]
    place = NO_CODE | {"code": "12", "codeSystemName": "CMS Place of Service Code Set"}
    assert encounter["locations"] == [{"address": OAK_AVENUE, "type": place, "name": None}]


def test_b_7_a_deleted_location_falls_back_to_the_practice(day: Day) -> None:
    day.connection.execute("UPDATE elation.service_location SET deletion_time = '2021-01-01'")
    day.visit()
    day.bill()
    assert day.encounter()["locations"] == [
        {"address": NORTH_CLINIC, "type": NO_CODE, "name": "North Clinic"}
    ]
    assert day.counts()["locations_from_practice"] == 1


def test_b_8_a_bill_without_location_and_practice(day: Day) -> None:
    day.visit()
    day.bill(service_location_id=None, practice_id=999)
    assert day.encounter()["locations"] == []
    assert day.counts()["locations_missing"] == 1


def test_b_9_the_type_is_the_last_procedure_by_text(day: Day) -> None:
    day.visit()
    day.bill()
    item(day, 1, 1, "G0439")
    item(day, 2, 2, "99213")
    procedure = {"code": "G0439", "codeSystemName": "CPT", "name": "Office Visit Note"}
    assert day.encounter()["type"] == NO_CODE | procedure


def test_b_10_an_empty_procedure_is_no_type_but_a_diagnosis(day: Day) -> None:
    day.visit()
    day.bill()
    item(day, 1, 1, "")
    encounter = day.encounter()
    assert encounter["type"] == NO_CODE | {"code": "Unknown", "name": "Office Visit Note"}
    assert encounter["diagnoses"] == [diagnosis("", "CPT")]


def test_b_11_a_procedure_then_its_diagnoses(day: Day) -> None:
    day.visit()
    day.bill()
    item(day, 1, 1, "99213")
    day.add("icd10", id=31, code="E11.9", description="Type 2 diabetes")
    day.add("icd9", id=41, code="250.00", description="Diabetes mellitus")
    day.add("bill_item_dx", bill_item_id=1, seqno=1, dx="E11.9", icd10_id=31, icd9_id=41)
    assert day.encounter()["diagnoses"] == [
        diagnosis("99213", "CPT"),
        diagnosis("E11.9", "ICD-10", "Type 2 diabetes"),
        diagnosis("250.00", "ICD-9", "Diabetes mellitus"),
    ]


def test_b_12_a_deleted_bill_item_is_absent(day: Day) -> None:
    day.visit()
    day.bill()
    item(day, 1, 1, "99213")
    item(day, 2, 2, "G0439", deletion_time="2021-01-16")
    encounter = day.encounter()
    assert encounter["type"]["code"] == "99213"
    assert encounter["diagnoses"] == [diagnosis("99213", "CPT")]


def test_b_13_a_parent_bullet_then_its_children_by_sequence(day: Day) -> None:
    day.visit()
    bullet(day, 3, 2, parent_bullet_id=1)
    bullet(day, 2, 1, parent_bullet_id=1)
    bullet(day, 1, 0, "knee pain")
    reasons = day.encounter()["reasons"]
    assert reasons[0] == NO_CODE | {"name": "Reason", "notes": "knee pain"}
    assert [reason["notes"] for reason in reasons] == ["knee pain", "text 2", "text 3"]
    assert {reason["name"] for reason in reasons} == {"Reason"}


def test_b_14_a_deleted_bullet_is_absent(day: Day) -> None:
    day.visit()
    bullet(day, 1, 0)
    bullet(day, 2, 1, deleted_date="2021-01-16")
    assert notes(day.encounter()) == ["text 1"]


def test_b_15_a_non_visit_note_says_bullets_then_tags(day: Day) -> None:
    day.non_visit()
    day.add("non_visit_note_bullet", id=1, non_visit_note_id=7001, sequence=0, text="called")
    day.add(
        "document_tag",
        id=51,
        value="Flu shot",
        code_type="CPT",
        code="90471",
        description="Immunization admin",
    )
    day.add("non_visit_note_document_tag", non_visit_note_id=7001, document_tag_id=51)
    encounter = day.encounter()
    assert encounter["identifiers"] == [{"id": "7001", "idType": "Non-Visit Note"}]
    assert encounter["type"] == NO_CODE | {"code": "Unknown", "name": "phone"}
    assert encounter["reasons"] == [
        NO_CODE | {"notes": "called"},
        {
            "code": "90471",
            "codeSystem": None,
            "codeSystemName": "CPT",
            "name": "Flu shot",
            "notes": "Immunization admin",
        },
    ]
    assert (encounter["locations"], encounter["diagnoses"]) == ([], [])


def test_b_16_a_link_to_a_missing_tag_says_nothing(day: Day) -> None:
    day.non_visit()
    day.add("non_visit_note_document_tag", non_visit_note_id=7001, document_tag_id=51)
    assert day.encounter()["reasons"] == []


@pytest.mark.parametrize(
    ("email", "plain"),
    [
        ("ivy.tan+de@clinic.test", "ivy.tan@clinic.test"),
        ("a+b+c@clinic.test", "a@clinic.test"),
        ("a+b@c@clinic.test", "a@clinic.test"),
        ("plain@clinic.test", "plain@clinic.test"),
        ("a@clinic+x.test", "a@clinic+x.test"),
    ],
)
def test_b_17_an_email_without_its_plus_tag(day: Day, email: str, plain: str) -> None:
    day.connection.execute("UPDATE elation.user SET email = ? WHERE id = 920", [email])
    day.visit(physician_user_id=920)
    identifiers = day.encounter()["providers"][0]["identifiers"]
    assert identifiers == [{"id": "1999999990", "idType": "npi"}, {"id": plain, "idType": "email"}]


def test_b_18_a_note_of_an_unknown_mrn(day: Day) -> None:
    day.visit(patient_id=88888)
    day.non_visit(patient_id=88888)
    assert day.rows() == []
    assert day.counts()["notes_without_member"] == 2


def test_b_19_a_member_without_notes(day: Day) -> None:
    day.member(M2, "77002")
    day.visit()
    assert {row["patient"]["patientId"] for row in day.rows()} == {M1}
    assert [document.patient_id for document in day.documents()] == [M1]


def test_b_20_two_runs_of_the_same_tables_say_the_same(day: Day) -> None:
    day.visit()
    first, again = day.rows(), day.rows()
    later = day.rows(inserted_at=INSERTED_AT + timedelta(hours=1))
    assert first == again
    assert later[0]["messageId"] > first[0]["messageId"]
    assert later[0]["encounter"] == first[0]["encounter"]


@pytest.mark.parametrize(
    ("first", "second", "newest"),
    [
        pytest.param("2021-01-16", "2021-01-17", "6002", id="created later"),
        pytest.param("2021-01-17", "2021-01-16", "6001", id="created earlier"),
        pytest.param("2021-01-17", "2021-01-17", "6002", id="created together"),
        pytest.param("2021-01-17", None, "6001", id="created at an unknown time"),
    ],
)
def test_b_21_of_two_bills_the_newest(
    day: Day, first: str | None, second: str | None, newest: str
) -> None:
    day.visit()
    day.bill(6001, creation_time=first)
    day.bill(6002, creation_time=second)
    item(day, 1, 1, "99213", bill=6001)
    item(day, 2, 1, "99214", bill=6002)
    encounter = day.encounter()
    assert encounter["identifiers"][1] == {"id": newest, "idType": "Bill"}
    assert encounter["type"]["code"] == {"6001": "99213", "6002": "99214"}[newest]
    assert len(encounter["diagnoses"]) == 1
    assert day.counts()["notes_with_several_bills"] == 1


def test_b_22_deleted_notes_are_absent(day: Day) -> None:
    day.visit(deletion_time="2021-01-16")
    day.non_visit(deletion_time="2021-01-16")
    assert day.rows() == []
    assert day.counts()["notes"] == 0


# -- members


def test_deleted_members_deleted_mrns_and_other_ehrs_are_unknown(day: Day) -> None:
    day.member(M2, "77002", deletedAt="2021-01-01 00:00:00+00")
    day.member("other", "77003", name="acpny")
    day.member("unnumbered", "77004")
    day.connection.execute(
        "UPDATE member_index.mrn SET \"deletedAt\" = '2021-01-01' WHERE mrn = '77004'"
    )
    for number in (77002, 77003, 77004):
        day.visit(number, patient_id=number)
    assert day.rows() == []
    assert day.counts()["notes_without_member"] == 3


@pytest.mark.parametrize(
    "mrn", ["", "abc", "77001x", "0x12CC9", "77001.0", "7e4", " 77001", "-77001", "9" * 19]
)
def test_an_mrn_that_is_no_number_is_counted(day: Day, mrn: str) -> None:
    day.member(M2, mrn)
    day.visit()
    assert [row["patient"]["patientId"] for row in day.rows()] == [M1]
    assert day.counts()["mrns_not_numeric"] == 1


def test_two_members_of_one_mrn_both_get_its_notes(day: Day) -> None:
    day.member(M2, str(MRN))
    day.visit()
    assert [row["patient"]["patientId"] for row in day.rows()] == [M1, M2]
    counted = day.counts()
    assert (counted["notes"], counted["encounters"], counted["members"]) == (1, 2, 2)


# -- order


def _fill_out_of_order(day: Day) -> None:
    day.visit()
    day.bill()
    for number, sequence, parent in (
        *((11, 1, None), (12, 1, None), (13, 0, None)),
        *((21, 5, 11), (22, 5, 11), (23, 0, 12), (24, 9, 13), (25, 2, 99)),
    ):
        bullet(day, number, sequence, parent_bullet_id=parent)
    for number, seqno, cpt in ((1, 2, "99215"), (2, 1, "99213"), (3, 1, "99214")):
        item(day, number, seqno, cpt)
    for number in (31, 32):
        day.add("icd10", id=number, code=f"E11.{number}", description="ten")
        day.add("icd9", id=number, code=f"250.{number}", description="nine")
    for seqno, code in ((2, 31), (1, 32), (1, 31)):
        day.add("bill_item_dx", bill_item_id=2, seqno=seqno, dx="", icd10_id=code, icd9_id=code)
    day.add("bill_item_dx", bill_item_id=2, seqno=1, dx="", icd10_id=31, icd9_id=32)
    day.non_visit()
    for number, sequence in ((1, 2), (2, 1), (3, 1)):
        text = f"text {number}"
        row = {"non_visit_note_id": 7001, "sequence": sequence, "text": text}
        day.add("non_visit_note_bullet", id=number, **row)
    for number in (53, 51, 52):
        day.add("document_tag", id=number, value=f"tag {number}")
        day.add("non_visit_note_document_tag", non_visit_note_id=7001, document_tag_id=number)


def test_every_list_has_an_order_of_its_own(day: Day) -> None:
    _fill_out_of_order(day)
    for _ in range(5):
        day.shuffle()
        visit, non_visit = day.told()
        assert notes(visit) == [
            *("text 13", "text 24"),
            *("text 11", "text 21", "text 22"),
            *("text 12", "text 23"),
            "text 25",
        ]
        assert [found["code"] for found in visit["diagnoses"]] == [
            "99213",
            *("E11.31", "250.31", "E11.31", "250.32", "E11.32", "250.32", "E11.31", "250.31"),
            "99214",
            "99215",
        ]
        assert notes(non_visit)[:3] == ["text 2", "text 3", "text 1"]
        tags = [reason["name"] for reason in non_visit["reasons"][3:]]
        assert tags == ["tag 51", "tag 52", "tag 53"]


def test_a_child_with_a_lower_sequence_still_follows_its_parent(day: Day) -> None:
    day.visit()
    bullet(day, 1, 5)
    bullet(day, 2, 0, parent_bullet_id=1)
    assert notes(day.encounter()) == ["text 1", "text 2"]


def test_a_deleted_parent_still_places_its_children(day: Day) -> None:
    day.visit()
    bullet(day, 1, 0, deleted_date="2021-01-16")
    bullet(day, 2, 9, parent_bullet_id=1)
    bullet(day, 3, 5)
    assert notes(day.encounter()) == ["text 2", "text 3"]


# -- particulars


@pytest.mark.parametrize("blank", [None, ""])
def test_what_a_provider_does_not_say(day: Day, blank: str | None) -> None:
    day.connection.execute("UPDATE elation.user SET npi = ?, credentials = ?", [blank, blank])
    day.visit(physician_user_id=920)
    (provider,) = day.encounter()["providers"]
    assert provider["identifiers"] == IVY["identifiers"][1:]
    assert provider["credentials"] == []


def test_a_signer_who_is_no_user_is_nobody(day: Day) -> None:
    day.visit(signed_by_user_id=999, physician_user_id=920, signed_time=SIGNED)
    assert day.encounter()["providers"] == [NOBODY]


def test_a_non_visit_note_knows_its_signer_only(day: Day) -> None:
    day.non_visit(created_by_user_id=920)
    day.non_visit(7002, signed_by_user_id=920, signed_time=SIGNED)
    unsigned, signed = day.told()
    assert (unsigned["providers"], unsigned["draft"]) == ([NOBODY], True)
    assert (signed["providers"], signed["draft"]) == ([IVY], False)


@pytest.mark.parametrize(
    ("wall", "instant"),
    [
        ("2021-03-14 02:30:00", datetime(2021, 3, 14, 10, 30, tzinfo=UTC)),
        ("2021-11-07 01:30:00", datetime(2021, 11, 7, 9, 30, tzinfo=UTC)),
    ],
)
def test_notes_of_the_hours_when_clocks_change(day: Day, wall: str, instant: datetime) -> None:
    day.visit(document_date=wall)
    raw = wall.replace(" ", "T") + ".000"
    assert day.encounter()["dateTime"] == moment(raw, instant)


@pytest.mark.parametrize(("fraction", "raw"), [(".5", ".500"), (".123456", ".123"), ("", ".000")])
def test_raw_times_are_to_the_millisecond(day: Day, fraction: str, raw: str) -> None:
    day.visit(document_date=f"2021-01-15 09:30:00{fraction}")
    assert day.encounter()["dateTime"]["raw"] == f"2021-01-15T09:30:00{raw}"


def test_texts_are_kept_as_they_are(day: Day) -> None:
    day.visit(name="NULL")
    text = 'two\nlines, "quoted"; señora 🙂 \\'
    bullet(day, 1, 0, text)
    encounter = day.encounter()
    assert (encounter["type"]["name"], notes(encounter)) == ("NULL", [text])


def test_message_ids_are_utc_with_one_digit_of_tenths() -> None:
    pacific = INSERTED_AT.astimezone(timezone(timedelta(hours=-8)))
    assert encounters.message_id(INSERTED_AT) == "202103020831094"
    assert encounters.message_id(pacific) == "202103020831094"


# -- the whole


def test_empty_tables_give_no_rows(extensions: Path) -> None:
    with opened(extensions, base=False) as day:
        assert day.rows() == []
        assert list(day.documents()) == []
        assert set(day.counts().values()) == {0}


def test_the_table_is_the_model(day: Day) -> None:
    described = day.connection.execute(f"DESCRIBE {day.statement()}").fetchall()
    found = {name: kind for name, kind, *_ in described}
    expected = day.connection.execute(
        "SELECT " + ", ".join(f'NULL::{kind} AS "{c}"' for c, kind in encounters.COLUMNS.items())
    )
    assert found == {column[0]: str(column[1]) for column in expected.description}


def _key(row: Record) -> tuple[str, str]:
    return row["patient"]["patientId"], row["encounter"]["identifiers"][0]["id"]


@pytest.mark.parametrize("size", [1, 7, 80, 1_000])
def test_the_parts_are_the_whole(day: Day, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(query, "_PART_NOTES", size)
    for number in range(40):
        day.visit(9000 + 3 * number)
        day.non_visit(9001 + 2 * number)
    cuts = day.connection.execute(encounters.bounds(day.relation)).fetchall()
    parts = encounters.parts(cut for (cut,) in cuts)
    rows = [day.rows(part=part) for part in parts]
    assert max(map(len, rows)) <= size + 1
    assert sorted((row for some in rows for row in some), key=_key) == sorted(day.rows(), key=_key)


def test_parts_lie_between_bounds() -> None:
    assert encounters.parts([]) == (Part(),)
    assert encounters.parts([9, 5, 5]) == (Part(None, 5), Part(5, 9), Part(9, None))
