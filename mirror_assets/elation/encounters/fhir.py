"""The members' encounters as FHIR R4: a `Bundle` of `Encounter`s for each member.

Made of the same rows as the JSON documents. What FHIR asks for and Elation does not say is said to
be unknown; codes of systems that FHIR has no address for go without one.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from mirror_assets.elation.encounters.document import Document, digest, notes
from mirror_assets.elation.encounters.store import DocumentStore

Resource = dict[str, Any]
Record = Mapping[str, Any]

NAME = "encounters.fhir-r4.json"

#: By the letters and digits of a code system's name, in lower case.
SYSTEMS = {
    "cpt": "http://www.ama-assn.org/go/cpt",
    "icd10": "http://hl7.org/fhir/sid/icd-10-cm",
    "icd9": "http://hl7.org/fhir/sid/icd-9-cm",
    "loinc": "http://loinc.org",
    "snomed": "http://snomed.info/sct",
    "hcpcs": "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "cmsplaceofservicecodeset": "https://www.cms.gov/Medicare/Coding/place-of-service-codes",
}
_NPI = "http://hl7.org/fhir/sid/us-npi"
#: A visit is ambulatory; of what else somebody noted, nobody knows where it was.
_AMBULATORY = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "code": "AMB",
    "display": "ambulatory",
}
_UNKNOWN = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor",
    "code": "UNK",
    "display": "unknown",
}
_VISIT = "Visit Note"
_PROCEDURES = "cpt"
_NAMESPACE = uuid.UUID("6f0b2a54-2b5f-5d0e-9d3c-0d8c6f6a7f10")
_CODE = re.compile(r"\S+( \S+)*")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def bundles(batches: Iterable[Any]) -> Iterator[Document]:
    """A document per member, as `document.documents` gives them, of the same batches."""
    for patient_id, group in groupby(notes(batches), key=lambda row: row[0]):
        told = bundle([json.loads(said) for _, _, said in group])
        body = _bytes(told)
        yield Document(patient_id.decode(), digest([body]), body)


def store(url: str) -> DocumentStore:
    """Where bundles lie, beside the JSON documents; written only when they changed."""
    return DocumentStore(url, name=NAME, empty=_bytes(bundle([])))


def bundle(said: Sequence[Record]) -> Resource:
    """The Bundle of one member's encounters, each with its ``patient`` and ``encounter``."""
    made: Resource = {"resourceType": "Bundle", "type": "collection"}
    if said:
        made["entry"] = [
            {"fullUrl": _urn(resource["id"]), "resource": resource}
            for resource in (_encounter(one["patient"], one["encounter"]) for one in said)
        ]
    return made


def _encounter(patient: Record, encounter: Record) -> Resource:
    first = encounter["identifiers"][0]
    subject = {"type": "Patient", "identifier": {"value": patient["patientId"]}}
    coded = [_coded(number, code, subject) for number, code in enumerate(encounter["diagnoses"], 1)]
    contained = [resource for resource in coded if resource is not None]
    return _said(
        resourceType="Encounter",
        id=f"{first['idType']}-{first['id']}".lower().replace(" ", "-"),
        contained=contained,
        identifier=[
            {"type": {"text": one["idType"]}, "value": one["id"]}
            for one in encounter["identifiers"]
        ],
        status="in-progress" if encounter["draft"] else "finished",
        **{"class": _AMBULATORY if first["idType"] == _VISIT else _UNKNOWN},
        type=_kind(encounter["type"]),
        subject=subject,
        participant=[
            {"individual": person} for person in map(_person, encounter["providers"]) if person
        ],
        period=_said(start=_time(encounter["dateTime"]), end=_time(encounter["endDateTime"])),
        reasonCode=[reason for reason in map(_concept, encounter["reasons"]) if reason],
        diagnosis=[{"condition": {"reference": f"#{one['id']}"}} for one in contained],
        location=[{"location": place} for place in map(_place, encounter["locations"]) if place],
    )


def _coded(number: int, code: Record, subject: Resource) -> Resource | None:
    """What was billed: a procedure, or a condition."""
    concept = _concept(code)
    if not concept:
        return None
    if _key(code["codeSystemName"]) == _PROCEDURES:
        what: Resource = {
            "resourceType": "Procedure",
            "id": f"billed-{number}",
            "status": "unknown",
        }
    else:
        what = {"resourceType": "Condition", "id": f"billed-{number}"}
    return what | {"code": concept, "subject": subject}


def _kind(said: Record) -> list[Resource]:
    """The billed procedure as a code, the note's own name as text: not a name of that code."""
    coding = [] if said["code"] == "Unknown" else _coding(said)
    concept = _said(coding=coding, text=_text(said["name"]))
    return [concept] if concept else []


def _concept(said: Record) -> Resource:
    """A CodeableConcept; empty where nothing is said."""
    name = _text(said["name"])
    return _said(coding=_coding(said, name), text=_text(said.get("notes")) or name)


def _coding(said: Record, display: str | None = None) -> list[Resource]:
    code = said["code"]
    if not code or not _CODE.fullmatch(code):
        return []
    system = SYSTEMS.get(_key(said["codeSystemName"]))
    return [_said(system=system, code=code, display=display)]


def _person(provider: Record) -> Resource:
    numbers = {one["idType"]: one["id"] for one in provider["identifiers"]}
    name = " ".join(filter(None, (_text(provider["firstName"]), _text(provider["lastName"]))))
    npi = _text(numbers.get("npi"))
    identifier = {"system": _NPI, "value": npi} if npi else None
    told = _said(identifier=identifier, display=name)
    return {"type": "Practitioner"} | told if told else {}


def _place(location: Record) -> Resource:
    address = location["address"]
    parts = (_text(address[part]) for part in ("street1", "street2", "city", "state", "zip"))
    display = _text(location["name"]) or ", ".join(filter(None, parts))
    return {"type": "Location", "display": display} if display else {}


def _time(text: str | None) -> str | None:
    """A FHIR dateTime: an instant as it is; of a local time without offset, its date."""
    if text is None or text.endswith("Z"):
        return text
    found = _DATE.match(text)
    return found[0] if found else None


def _bytes(resource: Resource) -> bytes:
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()


def _urn(resource_id: str) -> str:
    return f"urn:uuid:{uuid.uuid5(_NAMESPACE, resource_id)}"


def _key(system: str | None) -> str:
    return re.sub(r"[^a-z0-9]", "", (system or "").lower())


def _text(text: str | None) -> str | None:
    """A text that says something; FHIR has no empty ones."""
    return text if text and text.strip() else None


def _said(**fields: Any) -> Resource:
    """A record without what is empty."""
    return {name: value for name, value in fields.items() if value}
