"""The sample Commons, member-index and quality-measure databases in a real PostgreSQL server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa

from mirror_assets.mirroring.catalog import load
from mirror_assets.sample import commons, elation, member_index, quality_measure
from mirror_assets.sample.generator import Edit, Sample
from mirror_assets.sample.servers import PostgreSQL

SCALE = 0.01
PACKAGE = Path(commons.__file__).parents[1]
MODULES = (commons, member_index, quality_measure)
CATALOGS = {
    commons: PACKAGE / "commons" / "catalog.yaml",
    member_index: PACKAGE / "sample" / "catalogs" / "member_index.catalog.yaml",
    quality_measure: PACKAGE / "sample" / "catalogs" / "quality_measure.catalog.yaml",
}
#: Columns of Commons whose values are ids in another table.
RELATIONS = [
    ("clinic", "marketId", "market"),
    ("clinic_pod", "clinicId", "clinic"),
    ("clinic_pod_member", "userId", "user"),
    ("clinic_pod_member", "clinicPodId", "clinic_pod"),
    ("user", "homeClinicId", "clinic"),
    ("user", "homeMarketId", "market"),
    ("patient", "homeClinicId", "clinic"),
    ("patient", "homeMarketId", "market"),
    ("goal", "createdById", "user"),
    ("goal_comment", "goalId", "goal"),
    ("task", "goalGroupId", "goal"),
    ("task", "createdById", "user"),
    ("task", "assignedToId", "user"),
    ("task_comment", "taskId", "task"),
    ("note_revision", "timelineEventId", "timeline_event"),
    ("timeline_event", "createdById", "user"),
    ("appointment", "clinicId", "clinic"),
    ("appointment", "addressId", "address"),
    ("patient_answer", "userId", "user"),
    ("patient_answer", "patientScreeningToolSubmissionId", "patient_screening_tool_submission"),
    ("patient_answer", "riskAreaAssessmentSubmissionId", "risk_area_assessment_submission"),
    ("outreach_attempt", "userId", "user"),
    ("phone_call", "userId", "user"),
    ("sms_message", "userId", "user"),
]


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


class Asked:
    """The databases of one server, asked as the admin; dates arrive as PostgreSQL writes them."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server

    def ask(self, database: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with closing(self.server.admin(database)) as connection, connection.cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.execute(query, arguments or None)
            return cursor.fetchall()

    def value(self, database: str, query: str, *arguments: object) -> Any:
        return self.ask(database, query, *arguments)[0][0]

    def counts(self, database: str, tables: tuple[str, ...]) -> dict[str, int]:
        union = " UNION ALL ".join(f"SELECT '{t}', count(*) FROM \"{t}\"" for t in tables)
        return dict(self.ask(database, union))

    def checksums(self, database: str, tables: tuple[str, ...]) -> dict[str, str]:
        union = " UNION ALL ".join(
            f"SELECT '{t}', md5(string_agg(r::text, '|' ORDER BY r::text)) FROM \"{t}\" r"
            for t in tables
        )
        return dict(self.ask(database, union))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    server = PostgreSQL.start(tmp_path_factory.mktemp("postgres"))
    try:
        for module in MODULES:
            module.create(server, scale=SCALE)
        yield Asked(server)
    finally:
        server.remove()


# --- What is there --------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_every_table_has_its_promised_rows(asked: Asked, module: ModuleType) -> None:
    database = _name(module)
    tables = asked.ask(
        database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    )
    assert [name for (name,) in tables] == sorted(module.TABLES)
    assert asked.counts(database, module.TABLES) == module.row_counts(SCALE)


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_the_catalog_lists_exactly_the_tables_that_are_not_excluded(module: ModuleType) -> None:
    spec = load(CATALOGS[module])
    assert spec.name == _name(module)
    assert spec.dataset == f"{_name(module)}_mirror"
    assert {table.name for table in spec.tables} == set(module.MIRRORED)
    assert {name for name in module.TABLES if spec.excluded(name)} == set(module.EXCLUDED)
    assert spec.view_name("user") == "user"
    assert spec.entry.layout == "sharded"


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_the_catalog_s_primary_keys_are_the_source_s(asked: Asked, module: ModuleType) -> None:
    rows = asked.ask(
        _name(module),
        "SELECT conrelid::regclass::text, array_agg(attname::text ORDER BY array_position(conkey,"
        " attnum)) FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid"
        " AND attnum = ANY(conkey) WHERE contype = 'p' AND connamespace = 'public'::regnamespace"
        " GROUP BY 1",
    )
    source = {table.strip('"'): tuple(columns) for table, columns in rows}
    declared = {t.name: t.primary_key for t in load(CATALOGS[module]).tables if t.primary_key}
    assert declared == {name: key for name, key in source.items() if name in module.MIRRORED}


def test_commons_catalog_is_as_documented() -> None:
    spec = load(CATALOGS[commons])
    assert spec.entry.refresh.cron == ("0 5 * * *", "0 17 * * *")
    assert [len(chunk) for chunk in spec.chunks] == [15, 15, 7]
    assert spec.entry.retention.landing_days == 2
    assert spec.excluded("pg_stat") and spec.excluded("sql_parts") and not spec.excluded("pg")
    assert [table.name for table in spec.tables if table.keep_row_text] == ["partner"]
    allowed = {t.name: t.allowed_rejects(date(2030, 12, 31)) for t in spec.tables}
    bad = [row.table for row in commons.known_bad(SCALE)]
    assert {t: n for t, n in allowed.items() if n} == {t: bad.count(t) for t in bad}
    assert {table.allowed_rejects(date(2031, 1, 1)) for table in spec.tables} == {0}


def test_member_index_and_quality_measure_have_their_hours() -> None:
    assert load(CATALOGS[member_index]).entry.refresh.cron == ("0 20 * * *",)
    assert load(CATALOGS[quality_measure]).entry.refresh.cron == ("0 11 * * *",)
    assert len(member_index.MIRRORED) == 13
    assert len(quality_measure.MIRRORED) == 8


def test_commons_has_a_view_and_a_table_of_the_same_name_elsewhere(asked: Asked) -> None:
    kinds = asked.ask(
        "commons",
        "SELECT table_schema, table_name, table_type FROM information_schema.tables"
        " WHERE table_name IN (%s, %s)",
        commons.VIEW,
        commons.ARCHIVE_TABLE,
    )
    assert set(kinds) == {
        ("public", commons.VIEW, "VIEW"),
        ("public", "patient", "BASE TABLE"),
        ("archive", "patient", "BASE TABLE"),
    }
    live = f'SELECT count(*) = count(DISTINCT "patientId"), count(*) > 0 FROM {commons.VIEW}'
    assert asked.ask("commons", live) == [(True, True)]


def test_the_reader_may_read_the_default_schema_and_nothing_else(asked: Asked) -> None:
    engine = sa.create_engine(asked.server.url("commons"))
    with engine.connect() as reader:
        assert reader.execute(sa.text('SELECT count(*) FROM "user"')).scalar_one() > 0
    for statement in ("DELETE FROM market", "SELECT * FROM archive.patient"):
        with engine.connect() as reader, pytest.raises(sa.exc.ProgrammingError, match="denied"):
            reader.execute(sa.text(statement))
    engine.dispose()


def test_every_type_of_the_importer_occurs_in_the_mirrored_tables(asked: Asked) -> None:
    types = asked.ask(
        "commons",
        "SELECT DISTINCT data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = ANY(%s)",
        list(commons.MIRRORED),
    )
    assert {name for (name,) in types} == {
        *("boolean", "uuid", "text", "integer", "bigint", "smallint", "numeric", "date"),
        *("timestamp with time zone", "timestamp without time zone", "character varying"),
        *("jsonb", "json", "ARRAY", "USER-DEFINED", "double precision", "real", "interval"),
        "bytea",
    }


def test_no_row_of_commons_refers_to_a_missing_one(asked: Asked) -> None:
    found = []
    for child, column, parent in RELATIONS:
        query = (
            f'SELECT count(c."{column}"), count(p.id) FROM "{child}" c'
            f' LEFT JOIN "{parent}" p ON p.id = c."{column}"'
        )
        [(named, matched)] = asked.ask("commons", query)
        if named != matched or named == 0:
            found.append(f"{child}.{column}: {named} named, {matched} matched")
    assert found == []
    with_patient = asked.ask(
        "commons",
        "SELECT DISTINCT c.table_name FROM information_schema.columns c JOIN pg_tables t"
        " ON t.tablename = c.table_name AND t.schemaname = 'public'"
        " WHERE c.table_schema = 'public' AND column_name = 'patientId'",
    )
    assert len(with_patient) > 15
    for (child,) in with_patient:
        lost = f'SELECT count(*) FROM "{child}" WHERE "patientId" NOT IN (SELECT id FROM patient)'
        assert asked.value("commons", lost) == 0, child


# --- Determinism ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_the_same_seed_gives_the_same_rows(asked: Asked, module: ModuleType) -> None:
    other = f"{_name(module)}_again"
    tables = module.TABLES
    before = asked.checksums(_name(module), tables)
    module.create(asked.server, database=other, scale=SCALE)
    assert asked.checksums(other, tables) == before
    module.create(asked.server, database=other, scale=SCALE, seed=7)
    after = asked.checksums(other, tables)
    assert after != before
    assert after["knex_migrations"] == before["knex_migrations"]


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_counts_hold_at_every_scale(module: ModuleType, scale: float) -> None:
    sample: Sample = module.sample(scale, 5)
    for table, count in module.row_counts(scale).items():
        assert len(list(sample.rows(table))) == count


# --- Consistency across the databases ---------------------------------------------------------


def test_commons_mrns_are_elation_s_patients(asked: Asked) -> None:
    known = {str(patient.id) for patient in elation.patients(SCALE)}
    mrns = asked.ask("commons", "SELECT mrn FROM patient")
    stored = {mrn for (mrn,) in mrns}
    assert known < stored and None in stored
    names = asked.ask("commons", 'SELECT mrn, "firstName", "lastName" FROM patient')
    for patient in elation.patients(SCALE):
        assert (str(patient.id), patient.first_name, patient.last_name) in names
    births = dict(asked.ask("commons", 'SELECT "cityblockId", "dateOfBirth"::text FROM patient'))
    assert births[100_000_000 + 3] == elation.patients(SCALE)[3].birth_date.isoformat()


def test_commons_users_are_elation_s_without_the_tag(asked: Asked) -> None:
    logins = [login.email for login in elation.users(SCALE)]
    assert any("+" in email for email in logins)
    untagged = {email.replace("+elation", "") for email in logins}
    rows = dict(asked.ask("commons", 'SELECT email, "deletedAt" IS NOT NULL FROM "user"'))
    shared = untagged & rows.keys()
    assert shared and untagged - shared and rows.keys() - untagged, "some are missing on each side"
    assert {rows[email] for email in shared} == {True, False}
    assert not any("+" in email for email in rows)


def test_commons_patients_are_the_members_of_the_index(asked: Asked) -> None:
    patients = asked.ask(
        "commons",
        'SELECT id::text, "cityblockId"::bigint, mrn, "memberId", "deletedAt" FROM patient',
    )
    members = asked.ask(
        "member_index",
        'SELECT m.id::text, "cbhId", r.mrn, i."externalId", m."deletedAt" FROM member m'
        ' LEFT JOIN mrn r ON r.id = m."mrnId"'
        ' JOIN member_insurance i ON i."memberId" = m.id AND i.current IS NOT FALSE',
    )
    duplicates = set(members) - set(patients)
    assert set(patients) < set(members)
    assert {row[4] is None for row in duplicates} == {False}
    assert len(duplicates) == member_index.groups(SCALE).duplicates


def test_told_appointments_match_elation_s_by_patient_name_and_start(asked: Asked) -> None:
    rows = set(
        asked.ask(
            "commons",
            'SELECT p.mrn, a."providerName", ("startAt" AT TIME ZONE \'America/Los_Angeles\')'
            ' FROM appointment a JOIN patient p ON p.id = a."patientId"'
            " WHERE a.\"generatedBy\" = 'siu'",
        )
    )
    theirs = {
        (str(v.patient), f"{v.physician.first_name} {v.physician.last_name}", v.start)
        for v in elation.appointments(SCALE)
    }
    assert rows and rows <= theirs


def test_quality_events_name_known_members_and_users(asked: Asked) -> None:
    known = asked.ask("member_index", "SELECT id::text FROM member")
    events = asked.ask("quality_measure", 'SELECT DISTINCT "memberId"::text FROM member_measure')
    assert events and set(events) <= set(known)
    users = asked.ask("commons", 'SELECT id::text FROM "user"')
    named = asked.ask(
        "quality_measure",
        'SELECT DISTINCT "userId"::text FROM member_measure WHERE "userId" IS NOT NULL',
    )
    assert named and set(named) <= set(users)


# --- Member index ---------------------------------------------------------------------------


def test_the_index_has_what_a_careful_reader_must_tell_apart(asked: Asked) -> None:
    [(deleted, points_to_deleted, other_ehr, none, invented)] = asked.ask(
        "member_index",
        'SELECT count(*) FILTER (WHERE m."deletedAt" IS NOT NULL),'
        ' count(*) FILTER (WHERE m."deletedAt" IS NULL AND r."deletedAt" IS NOT NULL),'
        " count(*) FILTER (WHERE r.name = 'acpny'), count(*) FILTER (WHERE \"mrnId\" IS NULL),"
        ' count(*) FILTER (WHERE "cohortId" = 0) FROM member m LEFT JOIN mrn r ON r.id = "mrnId"',
    )
    assert min(deleted, points_to_deleted, other_ehr, none, invented) > 0
    first = str(elation.patients(SCALE)[0].id)
    held = asked.ask(
        "member_index",
        'SELECT r.name, r."deletedAt" IS NULL, m."deletedAt" IS NULL FROM mrn r'
        ' JOIN member m ON m."mrnId" = r.id WHERE mrn = %s ORDER BY 1, 2',
        first,
    )
    assert held == [("elation", False, False), ("elation", True, True), ("acpny", True, True)]


def test_an_mrn_is_unique_among_the_live_ones_of_an_ehr(asked: Asked) -> None:
    copy = (
        "INSERT INTO mrn SELECT gen_random_uuid(), mrn, name, now(), now()"
        ' FROM mrn WHERE "deletedAt" IS NULL LIMIT 1'
    )
    with pytest.raises(psycopg2.errors.UniqueViolation):
        asked.ask("member_index", copy)
    audit = asked.ask(
        "member_index",
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name IN ('createdAt', 'updatedAt', 'deletedAt', 'deletedReason',"
        " 'updatedBy', 'deletedBy', 'clientSource') GROUP BY 1 HAVING count(*) = 7",
    )
    assert {name for (name,) in audit} == set(member_index.MIRRORED)


# --- Quality measure ------------------------------------------------------------------------


def test_the_reference_data_is_complete(asked: Asked) -> None:
    [counts] = asked.ask(
        "quality_measure",
        "SELECT (SELECT count(*) FROM elation_map),"
        ' (SELECT count(*) FROM (SELECT DISTINCT "codeType", code FROM elation_map) AS pairs),'
        ' (SELECT count(*) FROM measure WHERE "deletedAt" IS NULL),'
        " (SELECT count(*) FROM member_measure_status), (SELECT count(*) FROM"
        " member_measure_source), (SELECT count(*) FROM market), (SELECT count(*) FROM"
        " measure_category), (SELECT count(*) FROM market_measure)",
    )
    assert counts == (46, 39, 15, 7, 4, 8, 10, 56)
    statuses = asked.ask("quality_measure", "SELECT name FROM member_measure_status ORDER BY id")
    assert [name for (name,) in statuses] == list(quality_measure.STATUSES)
    assert asked.ask(
        "quality_measure", "SELECT id, name FROM member_measure_source ORDER BY 1"
    ) == [
        (1, "able"),
        (2, "commons"),
        (3, "elation"),
        (4, "qm_service"),
    ]


def test_measures_are_as_documented(asked: Asked) -> None:
    rows = asked.ask(
        "quality_measure",
        'SELECT id, code, "displayName", type, "deletedAt" IS NULL, trigger, "rateId"'
        " FROM measure ORDER BY id",
    )
    assert {(row[5], row[6]) for row in rows} == {("annual", 0)}
    assert [row[0] for row in rows if not row[4]] == [4, 5]
    assert [row[0] for row in rows if row[3] == "outcome"] == [13, 14]
    assert rows[0][1:3] == ("HEDIS ABA", "BMI")
    assert rows[9][1:3] == ("HEDIS CDC5", "Diabetes: Eye Exam")
    assert rows[16][1:3] == ("ABLE FVO", "Flu Vaccine")
    slugs = asked.ask("quality_measure", "SELECT slug FROM market ORDER BY id")
    assert slugs[0] == ("new-york-city",) and slugs[7] == ("carefirst-dc",)
    links = asked.ask(
        "quality_measure",
        'SELECT slug, array_agg("measureId" ORDER BY "measureId") FROM market_measure l'
        ' JOIN market m ON m.id = l."marketId" GROUP BY 1',
    )
    assert dict(links)["piedmont-triad"] == [1, 6, 7, 11]
    assert dict(links)["carefirst-dc"] == [4, 5, 6, 14, 16, 17]
    assert "virtual" not in dict(links)


def test_seven_codes_affect_two_measures(asked: Asked) -> None:
    rows = asked.ask(
        "quality_measure",
        'SELECT "codeType", code, array_agg("measureId" ORDER BY "measureId") FROM elation_map'
        " GROUP BY 1, 2 HAVING count(*) > 1",
    )
    assert {(kind, code): measures for kind, code, measures in rows} == {
        ("icd10", "O24.419"): [9, 10],
        ("icd10", "E09.9"): [9, 10],
        ("cpt", "G8482"): [4, 5],
        ("hcpcs", "G8482"): [4, 5],
        ("cpt", "G8483"): [4, 5],
        ("hcpcs", "G8483"): [4, 5],
        ("snomed", "385763009"): [6, 7],
    }
    excluded = asked.value(
        "quality_measure", 'SELECT count(*) FROM elation_map WHERE "statusId" = 6'
    )
    assert excluded == 15


# --- Rows known to be bad, and those only feared ----------------------------------------------

_OUTSIDE = "NOT BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
_BAD_TESTS = {
    "date": f'"{{0}}" {_OUTSIDE}',
    "timestamp with time zone": (
        "\"{0}\" < '0001-01-01 00:00+00' OR \"{0}\" >= '10000-01-01 00:00+00'"
    ),
    "timestamp without time zone": "\"{0}\" < '0001-01-01' OR \"{0}\" >= '10000-01-01'",
    "numeric": "\"{0}\" = 'NaN'",
}
_VALUES = {
    "before_christ": "0044-03-15 BC",
    "infinite_date": "infinity",
    "far_future": "20000-01-01 00:00:00+00",
    "not_a_number": "NaN",
    "infinite_instant": "infinity",
    "infinite_datetime": "-infinity",
    "instant_before_christ": "0044-03-15 12:00:00+00 BC",
}


def _bad_cells(asked: Asked, database: str) -> set[tuple[str, str, str, str]]:
    """Table, key, column and text of every cell that no warehouse type holds."""
    columns = asked.ask(
        database,
        "SELECT c.table_name, column_name, data_type FROM information_schema.columns c"
        " JOIN pg_tables t ON t.tablename = c.table_name AND t.schemaname = 'public'"
        " WHERE c.table_schema = 'public' AND data_type = ANY(%s)",
        list(_BAD_TESTS),
    )
    union = " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb(r) ->> 'id', '{column}', \"{column}\"::text FROM \"{table}\" r"
        f" WHERE {_BAD_TESTS[kind].format(column)}"
        for table, column, kind in columns
    )
    return {(table, key, column, text) for table, key, column, text in asked.ask(database, union)}


def _expected_bad() -> set[tuple[str, str, str, str]]:
    return {
        (bad.table, str(bad.key["id"]), bad.column, _VALUES[bad.kind])
        for bad in commons.known_bad(SCALE)
    }


def test_exactly_the_known_cells_are_bad(asked: Asked) -> None:
    assert _bad_cells(asked, "commons") == _expected_bad()
    assert len(_expected_bad()) == 9
    assert {bad.kind for bad in commons.known_bad(SCALE)} == set(_VALUES)
    assert _bad_cells(asked, "member_index") == set()
    assert _bad_cells(asked, "quality_measure") == set()


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3])
def test_bad_rows_exist_at_every_scale(scale: float) -> None:
    rows = commons.known_bad(scale, 5)
    assert len({(row.table, row.key["id"]) for row in rows}) == 9
    bodies = commons.broken_bodies(scale, 5)
    assert len({(row.table, row.key["id"]) for row in bodies}) == 8


def test_words_that_mean_nothing_are_names(asked: Asked) -> None:
    names = asked.ask(
        "commons", 'SELECT "lastName" FROM patient WHERE lower("lastName") = \'null\''
    )
    assert sorted(names) == [("NULL",), ("Null",), ("null",)]
    labels = asked.ask(
        "commons", "SELECT DISTINCT label FROM patient_vital WHERE label IS NOT NULL"
    )
    assert {("null",), ("Null",), ("NULL",), ("",), (r"\N",)} <= set(labels)


def test_awkward_texts_arrive_unchanged(asked: Asked) -> None:
    stored = {body for (body,) in asked.ask("commons", "SELECT body FROM sms_message")}
    assert set(commons._TEXTS) <= stored
    assert any("\r\n" in text for text in stored)
    assert any("\r" in text and "\n" not in text for text in stored)
    assert any('"' in text and "'" in text for text in stored)
    required = asked.value(
        "commons",
        "SELECT is_nullable FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name = 'sms_message' AND column_name = 'body'",
    )
    assert required == "NO" and "" in stored


def test_old_far_and_fine_moments_are_there(asked: Asked) -> None:
    [(first, last, fine)] = asked.ask(
        "commons",
        'SELECT min("takenAt"), max("takenAt"), count(*) FILTER (WHERE'
        ' extract(microseconds FROM "takenAt")::bigint % 1000000 <> 0) FROM patient_vital',
    )
    assert first == datetime(1900, 1, 1, tzinfo=UTC)
    assert last == datetime(2999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert fine > 0
    days = {
        str(day) for (day,) in asked.ask("commons", 'SELECT "takenOn"::text FROM patient_vital')
    }
    assert {"0001-01-01", "1900-01-01", "2999-12-31"} <= days
    born = 'SELECT min("dateOfBirth") FROM patient WHERE "dateOfBirth" > DATE \'0001-01-01\''
    assert asked.value("commons", born) == date(1900, 1, 1)


def test_the_type_table_holds_its_extremes(asked: Asked) -> None:
    [row] = asked.ask(
        "commons",
        'SELECT max("deviceSerial"), min("deviceSerial"), max(systolic), max(temperature)::text,'
        " max(\"rawValue\") > 1e30, bool_or(waveform = ''), bool_or(waveform = E'\\\\x0a5c782c'),"
        " bool_or(flags[2] = 'say \"x\"'), bool_or(flags[3] = 'NULL'), bool_or(flags[4] IS NULL),"
        " bool_or(readings = '{{1,2},{3,4}}'), bool_or(detail::text LIKE '%  %'),"
        " bool_or(device = 'null'), bool_or(cost = 99999999.99), bool_or(unit = '')"
        " FROM patient_vital",
    )
    assert row[:4] == (2**63 - 1, -(2**63), 32767, "Infinity")
    assert all(row[4:])


def test_events_repeat_some_rows(asked: Asked) -> None:
    total, distinct = asked.ask(
        "commons", 'SELECT count(*), count(DISTINCT (body, type, "createdAt")) FROM event'
    )[0]
    assert 0 < distinct < total


# --- Rich texts -----------------------------------------------------------------------------


def _bodies(asked: Asked, table: str) -> dict[str, str | None]:
    return dict(asked.ask("commons", f'SELECT id::text, "contentState" FROM "{table}"'))


@pytest.mark.parametrize("table", commons.BODY_TABLES)
def test_bodies_are_documents_except_the_known_ones(asked: Asked, table: str) -> None:
    bodies = _bodies(asked, table)
    assert set(commons.EMPTY_BODIES) <= set(bodies.values())
    broken = {
        str(bad.key["id"]): bad.kind for bad in commons.broken_bodies(SCALE) if bad.table == table
    }
    assert sorted(broken.values()) == ["invalid_json", "no_blocks"]
    for key, body in bodies.items():
        if body in commons.EMPTY_BODIES:
            continue
        assert _fault(body or "") == broken.get(key)


def _fault(body: str) -> str | None:
    try:
        document = json.loads(body)
    except json.JSONDecodeError:
        return "invalid_json"
    if "blocks" not in document:
        return "no_blocks"
    for block in document["blocks"]:
        units = len(block["text"].encode("utf-16-le")) // 2
        for span in (*block["inlineStyleRanges"], *block["entityRanges"]):
            assert span["offset"] >= 0 and span["offset"] + span["length"] <= units
        assert all(str(span["key"]) in document["entityMap"] for span in block["entityRanges"])
    return None


def test_bodies_use_every_kind_of_block_style_and_entity(asked: Asked) -> None:
    kinds, styles, entities, texts, depths = set(), set(), set(), set(), set()
    mentioned = set()
    for body in _bodies(asked, "note").values():
        if body in commons.EMPTY_BODIES or _fault(body or "") is not None:
            continue
        document = json.loads(body or "")
        for block in document["blocks"]:
            kinds.add(block["type"])
            styles |= {span["style"] for span in block["inlineStyleRanges"]}
            texts.add(block["text"])
            depths.add(block["depth"])
        for entity in document["entityMap"].values():
            entities.add(entity["type"])
            if entity["type"] == "mention":
                mentioned.add(entity["data"]["mention"]["id"])
    headers = {f"header-{n}" for n in ("one", "two", "three", "four", "five", "six")}
    assert kinds == headers | {
        *("unstyled", "unordered-list-item", "ordered-list-item", "blockquote", "code-block"),
        *("atomic", "unknown"),
    }
    assert styles == {"BOLD", "UNDERLINE", "ITALIC", "STRIKETHROUGH", "CODE"}
    assert entities == {"mention", "LINK", "IMAGE"}
    assert {"", "\ufeff"} <= texts
    assert depths == {0, 1}
    known = {key for (key,) in asked.ask("commons", 'SELECT id::text FROM "user"')}
    assert mentioned and mentioned <= known


# --- A day's edits --------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_a_change_updates_inserts_and_deletes(asked: Asked, module: ModuleType) -> None:
    database = f"{_name(module)}_living"
    server, tables = asked.server, module.TABLES
    edits: dict[str, Edit] = module._EDITS
    module.create(server, database=database, scale=SCALE)
    before, counts = asked.checksums(database, tables), asked.counts(database, tables)
    bad = _bad_cells(asked, database)
    progress: list[str] = []
    module.change(server, database=database, scale=SCALE, mutation=1, progress=progress.append)
    after = asked.checksums(database, tables)
    assert {table for table in tables if before[table] != after[table]} == set(edits)
    assert progress == list(edits)
    for table, rows in asked.counts(database, tables).items():
        added = 1 + counts[table] // 200 if table in edits and edits[table].grows else 0
        lost = counts[table] + added - rows
        assert (0 <= lost <= 1 + counts[table] // 500) if table in edits else lost == 0, table
    assert _bad_cells(asked, database) == bad

    module.change(server, database=database, scale=SCALE, mutation=2)
    later = asked.checksums(database, tables)
    assert {table for table in tables if later[table] != after[table]} == set(edits)
    with pytest.raises(ValueError, match="from 1"):
        module.change(server, database=database, scale=SCALE, mutation=0)


def test_a_change_is_made_whole_or_not_at_all(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asked.checksums("member_index", member_index.TABLES)
    broken = {**member_index._EDITS, "email": Edit(update="no_such_column = 1")}
    monkeypatch.setattr(member_index, "_EDITS", broken)
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        member_index.change(asked.server, scale=SCALE)
    assert asked.checksums("member_index", member_index.TABLES) == before


def test_the_same_changes_give_the_same_state(asked: Asked) -> None:
    states = []
    for name in ("first", "second"):
        commons.create(asked.server, database=name, scale=SCALE)
        for mutation in (1, 2):
            commons.change(asked.server, database=name, scale=SCALE, mutation=mutation)
        states.append(asked.checksums(name, commons.TABLES))
    assert states[0] == states[1]
