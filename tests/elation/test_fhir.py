"""Bundles of a member's encounters are valid FHIR R4, and say what the JSON document says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.encounter import Encounter

from mirror_assets.elation import encounters
from mirror_assets.elation.encounters import fhir
from tests.elation.encounters_day import M1, M2, Day, opened
from tests.elation.test_encounters_documents import DAY, NEXT, read

CPT, ICD10 = "http://www.ama-assn.org/go/cpt", "http://hl7.org/fhir/sid/icd-10-cm"


@pytest.fixture
def day(extensions: Path) -> Iterator[Day]:
    """A billed visit with reasons, a phone call with a tag, and a draft of another member."""
    with opened(extensions) as tables:
        tables.member(M2, "77002")
        tables.visit(signed_time="2021-01-15 18:00:00", signed_by_user_id=920)
        tables.bill()
        tables.add("bill_item", id=1, bill_id=6001, seqno=0, cpt="99213")
        tables.add("icd10", id=10, code="E11.9", description="Type 2 diabetes")
        tables.add("icd9", id=9, code="250.00", description="")
        tables.add("bill_item_dx", bill_item_id=1, seqno=0, icd10_id=10, icd9_id=9)
        tables.add(
            "visit_note_bullet",
            id=1, visit_note_id=5001, sequence=0, category="Reason", text="knee “pain”\n\t",
        )  # fmt: skip
        tables.non_visit()
        tables.add("document_tag", id=3, code="90471", code_type="CPT", value="Flu shot")
        tables.add("non_visit_note_document_tag", non_visit_note_id=7001, document_tag_id=3)
        tables.visit(5002, patient_id=77002, name="")
        yield tables


def bundles(day: Day) -> dict[str, dict[str, Any]]:
    batches = day.connection.execute(
        encounters.documents_statement(f"({day.statement()})")
    ).to_arrow_reader(2)
    return {made.patient_id: json.loads(made.body) for made in fhir.bundles(batches)}


def told(day: Day, member: str = M1) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundles(day)[member]["entry"]]


def test_every_bundle_is_valid_and_complete(day: Day) -> None:
    made = bundles(day)
    for member, count in ((M1, 2), (M2, 1)):
        bundle = Bundle.model_validate(made[member])
        assert bundle.type == "collection"
        assert [type(entry.resource) for entry in bundle.entry] == [Encounter] * count
        assert len({entry.fullUrl for entry in bundle.entry}) == count
    Bundle.model_validate(fhir.bundle([]))
    with pytest.raises(ValueError, match="status"):  # the judge does judge
        Encounter.model_validate({"resourceType": "Encounter", "class": {"code": "AMB"}})


def test_a_billed_visit(day: Day) -> None:
    visit = told(day)[0]
    assert (visit["id"], visit["status"]) == ("visit-note-5001", "finished")
    assert visit["class"]["code"] == "AMB"
    assert visit["period"] == {"start": "2021-01-15T17:30:00Z", "end": "2021-01-16T02:00:00Z"}
    assert visit["subject"]["identifier"]["value"] == M1
    assert [one["value"] for one in visit["identifier"]] == ["5001", "6001"]
    assert visit["type"] == [
        {"coding": [{"system": CPT, "code": "99213"}], "text": "Office Visit Note"}
    ]
    (participant,) = visit["participant"]
    assert participant["individual"]["display"] == "Ivy Tan"
    assert participant["individual"]["identifier"]["value"] == "1999999990"
    assert visit["location"][0]["location"]["display"] == "80 Oak Ave, Dover, DE, 19901"
    assert visit["reasonCode"] == [{"text": "knee “pain”\n\t"}]


def test_what_was_billed_is_contained_and_referred_to(day: Day) -> None:
    visit = told(day)[0]
    found = [
        (
            one["resourceType"],
            one["code"]["coding"][0].get("system"),
            one["code"]["coding"][0]["code"],
        )
        for one in visit["contained"]
    ]
    assert found == [
        ("Procedure", CPT, "99213"),
        ("Condition", ICD10, "E11.9"),
        ("Condition", "http://hl7.org/fhir/sid/icd-9-cm", "250.00"),
    ]
    references = [one["condition"]["reference"] for one in visit["diagnosis"]]
    assert references == [f"#{one['id']}" for one in visit["contained"]]


def test_a_phone_call_and_a_draft(day: Day) -> None:
    call = told(day)[1]
    assert call["class"]["code"] == "UNK"
    assert call["type"] == [{"text": "phone"}]
    assert call["reasonCode"][0]["coding"] == [
        {"system": CPT, "code": "90471", "display": "Flu shot"}
    ]
    (draft,) = told(day, M2)
    assert draft["status"] == "in-progress"
    assert draft["period"] == {"start": "2021-01-15T17:30:00Z"}
    assert not {"participant", "location", "diagnosis", "type"} & draft.keys()


def test_bundles_lie_beside_the_documents_and_are_written_only_when_changed(
    day: Day, tmp_path: Path
) -> None:
    root = str(tmp_path)

    def write(version: encounters.Version) -> tuple[int, int, int]:
        batches = day.connection.execute(
            encounters.documents_statement(f"({day.statement()})")
        ).to_arrow_reader(100)
        done = fhir.store(root).write(version, fhir.bundles(batches))
        return done.written, done.unchanged, done.emptied

    encounters.DocumentStore(root).write(DAY, day.documents())
    assert write(DAY) == (2, 0, 0)
    assert write(NEXT) == (0, 2, 0)
    day.connection.execute("DELETE FROM elation.visit_note WHERE id = 5002")
    assert write(NEXT) == (0, 1, 1)
    assert json.loads(read(root, M2, fhir.NAME)) == {"resourceType": "Bundle", "type": "collection"}
    assert json.loads(read(root, M2))[0]["encounter"]["draft"] is True


def test_a_code_of_an_unknown_system_goes_without_an_address() -> None:
    said = {
        "code": "X 1",
        "codeSystem": None,
        "codeSystemName": "local",
        "name": " ",
        "notes": None,
    }
    assert fhir._concept(said) == {"coding": [{"code": "X 1"}]}
    assert fhir._concept(said | {"code": " X"}) == {}
    assert fhir._time("2021-03-14T02:30:00.000") == "2021-03-14"
