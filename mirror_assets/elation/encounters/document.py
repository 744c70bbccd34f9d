"""One JSON document per member: the array of the member's encounters, on one line.

The database writes the JSON of each encounter; here its bytes are only put together and digested.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

from mirror_assets.elation.encounters.ranges import ALL, Part, every
from mirror_assets.elation.encounters.shapes import record

#: So many encounters are sorted as JSON in 512 MB.
_PART_ROWS = 60_000
#: Of a note that begins so, the encounters come before those of other notes.
_FIRST = "Visit Note"


#: Makes documents of the record batches of `documents_statement`.
MakeDocuments = Callable[[Iterable[Any]], Iterator["Document"]]


@dataclass(frozen=True)
class Document:
    """A member's document. ``digest`` covers what it says of the member, not the run's stamp."""

    patient_id: str
    digest: str
    body: bytes


def documents_bounds(rows: str) -> str:
    """SQL for the bounds of `documents_statement`'s parts: one column of member ids."""
    members = f"""(SELECT e.patient."patientId" AS patient_id FROM {rows} e
        WHERE e.patient."patientId" IS NOT NULL) m"""
    return every(_PART_ROWS, "patient_id", members)


def documents_statement(rows: str, part: Part = ALL) -> str:
    """The rows of `documents` (DuckDB) from encounters, which ``rows`` names or selects.

    Columns patient_id, stamp, said: two JSON objects that together are the encounter's. Ordered
    by member; within one, visit notes before others, each by local time, then by id. ``part``
    limits the answer to some of the members, between `documents_bounds`; where the rows' files
    are ordered by member, few of their row groups are read for it.
    """
    stamp = record(
        messageId='e."messageId"', insertedAt=_iso('e."insertedAt"'), isStreaming='e."isStreaming"'
    )
    said = record(patient="e.patient", encounter=_encounter())
    note = 'e.encounter."identifiers"[1]'
    return f"""
        SELECT e.patient."patientId" AS patient_id, to_json({stamp}) AS stamp,
            to_json({said}) AS said
        FROM {rows} e
        WHERE e.patient."patientId" IS NOT NULL{part.holds('e.patient."patientId"')}
        ORDER BY e.patient."patientId", CASE WHEN {note}."idType" = '{_FIRST}' THEN 0 ELSE 1 END,
            e.encounter."dateTime"."raw", CAST({note}."id" AS BIGINT), e.patient."externalId\""""


def documents(batches: Iterable[Any]) -> Iterator[Document]:
    """A document per member from Arrow record batches of `documents_statement`, in their order.

    All rows of a member must follow each other; holds one batch and one document in memory.
    """
    for patient_id, group in groupby(notes(batches), key=lambda row: row[0]):
        stamps, said = zip(*((row[1], row[2]) for row in group), strict=True)
        encounters = (a[:-1] + b"," + b[1:] for a, b in zip(stamps, said, strict=True))
        body = b"[" + b",".join(encounters) + b"]"
        yield Document(patient_id.decode(), digest(said), body)


def notes(batches: Iterable[Any]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Member, stamp and what is said, of every row of `documents_statement`."""
    return chain.from_iterable(map(_rows, batches))


def _rows(batch: Any) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Bytes, because most of them only pass through."""
    names = ("patient_id", "stamp", "said")
    columns = (batch.column(name).cast("binary").to_pylist() for name in names)
    return zip(*columns, strict=True)


def digest(said: Iterable[bytes]) -> str:
    return hashlib.blake2b(b",".join(said), digest_size=16).hexdigest()


def _encounter() -> str:
    fields = {
        name: f'e.encounter."{name}"'
        for name in (
            *("identifiers", "type", "dateTime", "endDateTime", "providers"),
            *("locations", "diagnoses", "reasons", "draft"),
        )
    }
    for name in ("dateTime", "endDateTime"):
        fields[name] = _moment(fields[name])
    return record(**fields)


def _moment(value: str) -> str:
    """One text: the instant, else the date, else the local time as it was."""
    instant = _iso(f'{value}."instant"')
    return f'coalesce({instant}, CAST({value}."date" AS VARCHAR), {value}."raw")'


def _iso(instant: str) -> str:
    """ISO 8601 in UTC; a fraction of a second has 3 or 6 digits, or is left out when it is zero."""
    text = f"replace(CAST(timezone('UTC', {instant}) AS VARCHAR), ' ', 'T')"
    return (
        f"CASE WHEN length({text}) = 19 THEN {text} WHEN length({text}) <= 23"
        f" THEN rpad({text}, 23, '0') ELSE rpad({text}, 26, '0') END || 'Z'"
    )
