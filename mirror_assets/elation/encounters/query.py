"""A day's encounters as one set-based statement: a chain of named queries, one join each.

Lists are aggregated before they are joined, so that no join multiplies a note, and every list has
an order of its own: the rows of a day do not depend on the order of the tables' rows.

Parents come before their children and groups of bullets by their parent's sequence, bill items
and diagnoses by their sequence numbers, tags by their ids. Of several bills on a note the newest
counts: the last one created, then the one with the largest id.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from mirror_assets.elation import local_time
from mirror_assets.elation.encounters import shapes
from mirror_assets.elation.encounters.ranges import ALL, Part, every
from mirror_assets.elation.encounters.shapes import (
    address,
    code,
    empty,
    identifier,
    in_order,
    null,
    record,
)
from mirror_assets.mirroring.names import literal

#: (database, table) -> SQL of that table's rows of the day; databases elation, member_index.
Relation = Callable[[str, str], str]

SOURCE = "elation"
_NOTES = ("visit_note", "non_visit_note")
#: So many notes with their bullets, bills and tags become rows in 512 MB.
_PART_NOTES = 25_000


def bounds(relation: Relation) -> str:
    """SQL for the bounds of `statement`'s parts: one column of note ids.

    Ranges of ids, because the bullets of notes made together lie together, too.
    """
    notes = " UNION ALL ".join(
        f"SELECT n.id FROM {relation('elation', table)} n" for table in _NOTES
    )
    return every(_PART_NOTES, "id", f"({notes}) a")


def message_id(instant: datetime) -> str:
    """The UTC instant as 14 digits and one of tenths: larger is later, also as a number."""
    utc = instant.astimezone(UTC)
    return f"{utc:%Y%m%d%H%M%S}{utc.microsecond // 100_000}"


def statement(
    relation: Relation, *, inserted_at: datetime, message_id: str, part: Part = ALL
) -> str:
    """The encounters of a day (DuckDB's dialect), with columns as in `shapes.COLUMNS`.

    ``inserted_at`` (an instant with its offset) and ``message_id`` stand in every row: derive
    them from the partition's content, and the same tables give the same rows. ``part`` limits the
    answer to some of the notes, between `bounds`. Ordered by member and note.
    """
    instant = inserted_at.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    return f"""{_with(_queries(relation, part))}
    SELECT
        CAST({literal(message_id)} AS VARCHAR) AS "messageId",
        CAST({literal(instant)} AS TIMESTAMPTZ) AS "insertedAt",
        FALSE AS "isStreaming",
        {_patient()} AS patient,
        n.encounter AS encounter
    FROM (SELECT * FROM visit_encounters UNION ALL SELECT * FROM non_visit_encounters) n
    JOIN members m ON m.number = n.patient_id
    ORDER BY m.patient_id NULLS FIRST, m.mrn NULLS FIRST, n.note NULLS FIRST, n.id NULLS FIRST"""


def counts(relation: Relation) -> str:
    """One row that counts what `statement` had to decide; every column is a count.

    ``notes`` all live notes, ``encounters`` the rows of `statement`, ``members`` with notes,
    ``notes_without_member``, ``mrns_not_numeric`` of live members,
    ``notes_with_several_bills``, ``locations_from_practice`` and ``locations_missing`` of notes
    with a bill.
    """
    bills = "visit_notes n JOIN bills b ON b.visit_note_id = n.id"
    several = f"""
        SELECT n.id FROM visit_notes n
        JOIN {relation("elation", "bill")} b ON b.visit_note_id = n.id
        GROUP BY n.id HAVING count(*) > 1"""
    queries = {
        "all_members": _all_members(relation),
        "members": _MEMBERS,
        "live": _live_notes(relation),
        "known": "SELECT m.patient_id AS member FROM live n"
        " JOIN members m ON m.number = n.patient_id",
        "visit_notes": _notes(relation, "visit_note", ALL),
        "bills": _bills(relation),
    }
    columns = {
        "notes": "SELECT count(*) FROM live",
        "encounters": "SELECT count(*) FROM known",
        "members": "SELECT count(DISTINCT member) FROM known",
        "notes_without_member": "SELECT count(*) FROM live"
        " WHERE patient_id NOT IN (SELECT number FROM members)",
        "mrns_not_numeric": "SELECT count(*) FROM all_members WHERE number IS NULL",
        "notes_with_several_bills": f"SELECT count(*) FROM ({several}) s",
        "locations_from_practice": f"SELECT count(*) FROM {bills} WHERE b.place = 'practice'",
        "locations_missing": f"SELECT count(*) FROM {bills} WHERE b.place = 'none'",
    }
    answer = ", ".join(f"({query}) AS {name}" for name, query in columns.items())
    return f"{_with(queries)} SELECT {answer}"


def _with(queries: dict[str, str]) -> str:
    return "WITH " + ",\n".join(f"{name} AS ({query})" for name, query in queries.items())


def _queries(relation: Relation, part: Part) -> dict[str, str]:
    """Each query reads the tables and the queries before it."""
    return {
        "all_members": _all_members(relation),
        "members": _MEMBERS,
        "providers": _providers(relation),
        "visit_notes": _notes(relation, "visit_note", part),
        "bills": _bills(relation),
        "diagnosed": _diagnosed(relation),
        "diagnoses": _DIAGNOSES,
        "bullets": _bullets(relation),
        "visit_reasons": _VISIT_REASONS,
        "visit_encounters": _visit_encounters(),
        "non_visit_notes": _notes(relation, "non_visit_note", part),
        "non_visit_said": _non_visit_said(relation),
        "non_visit_reasons": _NON_VISIT_REASONS,
        "non_visit_encounters": _non_visit_encounters(),
    }


# -- members


def _all_members(relation: Relation) -> str:
    """Live members with a live MRN of ours; ``number`` is NULL where that is none."""
    return f"""
        SELECT m.id AS patient_id, r.mrn AS mrn,
            CASE WHEN regexp_matches(r.mrn, '^[0-9]{{1,18}}$')
                THEN TRY_CAST(r.mrn AS BIGINT) END AS number
        FROM {relation("member_index", "member")} m
        JOIN {relation("member_index", "mrn")} r ON r.id = m."mrnId"
        WHERE m."deletedAt" IS NULL AND r."deletedAt" IS NULL AND r.name = {literal(SOURCE)}"""


_MEMBERS = "SELECT patient_id, mrn, number FROM all_members WHERE number IS NOT NULL"


def _patient() -> str:
    return record(
        patientId="m.patient_id",
        externalId="m.mrn",
        source=record(name=literal(SOURCE), commonId=null()),
    )


# -- notes


def _notes(relation: Relation, table: str, part: Part) -> str:
    """Live notes of known members."""
    return f"""
        SELECT n.* FROM {relation("elation", table)} n
        WHERE n.deletion_time IS NULL AND n.patient_id IN (SELECT number FROM members)
            {part.holds("n.id")}"""


def _live_notes(relation: Relation) -> str:
    return " UNION ALL ".join(
        f"SELECT n.patient_id FROM {relation('elation', table)} n WHERE n.deletion_time IS NULL"
        for table in _NOTES
    )


def _moment(column: str) -> str:
    return record(raw=_raw(column), instant=local_time.instant(column), date="CAST(NULL AS DATE)")


def _raw(column: str) -> str:
    """The wall time as text, to the millisecond; without formats, which differ by dialect."""
    text = f"CAST({column} AS VARCHAR)"
    return f"replace(substr({text}, 1, 19), ' ', 'T') || '.' || rpad(substr({text}, 21, 3), 3, '0')"


def _encounter(note: str, **own: str) -> str:
    """An encounter; ``own`` is what the two kinds of notes fill differently."""
    ended = f"{note}.signed_time"
    return record(
        identifiers=own["identifiers"],
        type=own["type"],
        dateTime=_moment(f"{note}.document_date"),
        endDateTime=f"CASE WHEN {ended} IS NOT NULL THEN {_moment(ended)} END",
        providers=f"[{_provider('u')}]",
        locations=own["locations"],
        diagnoses=own["diagnoses"],
        reasons=own["reasons"],
        draft=f"{ended} IS NULL",
    )


def _visit_encounters() -> str:
    ids = identifier("n.id", "Visit Note")
    bill_ids = identifier("b.id", "Bill")
    encounter = _encounter(
        "n",
        identifiers=f"CASE WHEN b.id IS NULL THEN [{ids}] ELSE [{ids}, {bill_ids}] END",
        type=code(
            "coalesce(d.cpt, 'Unknown')", "CASE WHEN d.cpt IS NOT NULL THEN 'CPT' END", "n.name"
        ),
        locations=f"coalesce(b.locations, {empty(shapes.LOCATION)})",
        diagnoses=f"coalesce(d.diagnoses, {empty(shapes.CODE)})",
        reasons=f"coalesce(r.reasons, {empty(shapes.REASON)})",
    )
    return f"""
        SELECT n.patient_id, 0 AS note, n.id, {encounter} AS encounter
        FROM visit_notes n
        LEFT JOIN bills b ON b.visit_note_id = n.id
        LEFT JOIN diagnoses d ON d.bill_id = b.id
        LEFT JOIN visit_reasons r ON r.note_id = n.id
        LEFT JOIN providers u ON u.user_id = coalesce(n.signed_by_user_id, n.physician_user_id)"""


def _non_visit_encounters() -> str:
    encounter = _encounter(
        "n",
        identifiers=f"[{identifier('n.id', 'Non-Visit Note')}]",
        type=code("'Unknown'", None, "n.note_type"),
        locations=empty(shapes.LOCATION),
        diagnoses=empty(shapes.CODE),
        reasons=f"coalesce(r.reasons, {empty(shapes.REASON)})",
    )
    return f"""
        SELECT n.patient_id, 1 AS note, n.id, {encounter} AS encounter
        FROM non_visit_notes n
        LEFT JOIN non_visit_reasons r ON r.note_id = n.id
        LEFT JOIN providers u ON u.user_id = n.signed_by_user_id"""


# -- providers


def _providers(relation: Relation) -> str:
    """Users with their own practice's address and phone."""
    person = record(
        identifiers=f"list_concat({_if_said('u.npi', identifier('u.npi', 'npi'))},"
        f" [{identifier(_EMAIL, 'email')}])",
        firstName="u.first_name",
        lastName="u.last_name",
        credentials=_if_said("u.credentials", "u.credentials", shapes.TEXT),
        address=address("p", "address_line1", "address_line2"),
        phone="p.phone",
        role=code(name="u.specialty"),
    )
    return f"""
        SELECT u.id AS user_id, {person} AS provider
        FROM {relation("elation", "user")} u
        LEFT JOIN {relation("elation", "practice")} p ON p.id = u.practice_id"""


#: From the first plus to the last at sign: ann.ray+ct@clinic.test is ann.ray@clinic.test.
_EMAIL = r"regexp_replace(u.email, '\+.*@', '@')"


def _if_said(column: str, item: str, kind: str = shapes.IDENTIFIER) -> str:
    """A list of one, or of none where the column is NULL or blank."""
    return f"CASE WHEN {column} <> '' THEN [{item}] ELSE {empty(kind)} END"


def _provider(alias: str) -> str:
    """The joined user, or a provider of whom nothing is known."""
    nobody = record(
        identifiers=empty(shapes.IDENTIFIER),
        firstName=null(),
        lastName=null(),
        credentials=empty(shapes.TEXT),
        address=record(**dict.fromkeys(("street1", "street2", "city", "state", "zip"), null())),
        phone=null(),
        role=null(shapes.CODE),
    )
    return f"CASE WHEN {alias}.user_id IS NULL THEN {nobody} ELSE {alias}.provider END"


# -- bills


def _bills(relation: Relation) -> str:
    """The newest bill of each note and where it says the visit was.

    ``place`` tells how that was found: location, practice (as a fallback) or none.
    """
    at_location = record(
        address=address("l", "address", "suite"),
        type=code("CAST(b.place_of_service AS VARCHAR)", literal("CMS Place of Service Code Set")),
        name=null(),
    )
    at_practice = record(
        address=address("p", "address_line1", "address_line2"), type=code(), name="p.name"
    )
    return f"""
        SELECT b.id, b.visit_note_id,
            CASE WHEN l.id IS NOT NULL THEN [{at_location}]
                WHEN p.id IS NOT NULL THEN [{at_practice}]
                ELSE {empty(shapes.LOCATION)} END AS locations,
            CASE WHEN l.id IS NOT NULL THEN 'location'
                WHEN p.id IS NOT NULL THEN 'practice' ELSE 'none' END AS place
        FROM ({_newest_bills(relation)}) b
        LEFT JOIN {relation("elation", "service_location")} l
            ON l.id = b.service_location_id AND l.deletion_time IS NULL
        LEFT JOIN {relation("elation", "practice")} p ON p.id = b.practice_id"""


def _newest_bills(relation: Relation) -> str:
    return f"""
        SELECT b.id, b.visit_note_id, b.practice_id, b.service_location_id, b.place_of_service
        FROM {relation("elation", "bill")} b
        JOIN visit_notes n ON n.id = b.visit_note_id
        QUALIFY row_number() OVER (PARTITION BY b.visit_note_id
            ORDER BY b.creation_time DESC NULLS LAST, b.id DESC NULLS LAST) = 1"""


def _diagnosed(relation: Relation) -> str:
    """What each live bill item says: its procedure, then its diagnoses, ICD-10 before ICD-9.

    ``rank`` puts the procedure before the diagnoses, ``place`` orders the codes of one diagnosis.
    """
    items = f"""
        SELECT i.id, i.bill_id, i.seqno, i.cpt FROM {relation("elation", "bill_item")} i
        JOIN bills b ON b.id = i.bill_id WHERE i.deletion_time IS NULL"""
    answers = [
        f"SELECT i.bill_id, i.cpt, i.seqno, i.id AS item_id, 0 AS rank, 0 AS dx_seqno,"
        f" 0 AS icd10_id, 0 AS icd9_id, 0 AS place, i.cpt AS code, 'CPT' AS system,"
        f" {null()} AS name FROM ({items}) i"
    ]
    for place, table, system in ((1, "icd10", "ICD-10"), (2, "icd9", "ICD-9")):
        answers.append(f"""
            SELECT i.bill_id, i.cpt, i.seqno, i.id AS item_id, 1 AS rank, x.seqno AS dx_seqno,
                x.icd10_id, coalesce(x.icd9_id, -1) AS icd9_id, {place} AS place,
                c.code, {literal(system)} AS system, c.description AS name
            FROM ({items}) i
            JOIN {relation("elation", "bill_item_dx")} x ON x.bill_item_id = i.id
            JOIN {relation("elation", table)} c ON c.id = x.{table}_id""")
    return " UNION ALL ".join(answers)


_IN_BILL = in_order(
    code("k.code", "k.system", "k.name"),
    ("seqno", "item_id", "rank", "dx_seqno", "icd10_id", "icd9_id", "place"),
    **{name: name for name in ("code", "system", "name")},
)
_DIAGNOSES = f"""
    SELECT bill_id, nullif(max(cpt), '') AS cpt, {_IN_BILL} AS diagnoses
    FROM diagnosed GROUP BY bill_id"""


# -- reasons


def _bullets(relation: Relation) -> str:
    """Live bullets with the place of their group; a deleted parent still places its children."""
    table = relation("elation", "visit_note_bullet")
    return f"""
        SELECT b.visit_note_id AS note_id, b.id, b.sequence, b.category, b.text,
            coalesce(b.parent_bullet_id, b.id) AS group_id,
            coalesce(g.sequence, b.sequence) AS group_sequence,
            CASE WHEN b.parent_bullet_id IS NULL THEN 0 ELSE 1 END AS child
        FROM {table} b
        JOIN visit_notes n ON n.id = b.visit_note_id
        LEFT JOIN {table} g ON g.id = b.parent_bullet_id
        WHERE b.deleted_date IS NULL"""


_IN_VISIT = in_order(
    shapes.reason(name="k.category", notes="k.notes"),
    ("group_sequence", "group_id", "child", "sequence", "id"),
    category="category",
    notes="text",
)
_VISIT_REASONS = f"SELECT note_id, {_IN_VISIT} AS reasons FROM bullets GROUP BY note_id"


def _non_visit_said(relation: Relation) -> str:
    """Bullets, then tags; a link to a tag that is not there says nothing."""
    nothing = ", ".join(f"{null()} AS {name}" for name in ("code", "code_type", "value"))
    return f"""
        SELECT b.non_visit_note_id AS note_id, 0 AS place, b.sequence, b.id, {nothing}, b.text
        FROM {relation("elation", "non_visit_note_bullet")} b
        JOIN non_visit_notes n ON n.id = b.non_visit_note_id
        UNION ALL
        SELECT k.non_visit_note_id AS note_id, 1 AS place, 0 AS sequence, t.id,
            t.code, t.code_type, t.value, t.description AS text
        FROM {relation("elation", "non_visit_note_document_tag")} k
        JOIN non_visit_notes n ON n.id = k.non_visit_note_id
        JOIN {relation("elation", "document_tag")} t ON t.id = k.document_tag_id"""


_IN_NON_VISIT = in_order(
    shapes.reason(value="k.code", system="k.system", name="k.name", notes="k.notes"),
    ("place", "sequence", "id"),
    code="code",
    system="code_type",
    name="value",
    notes="text",
)
_NON_VISIT_REASONS = f"""
    SELECT note_id, {_IN_NON_VISIT} AS reasons FROM non_visit_said GROUP BY note_id"""
