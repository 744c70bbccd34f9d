"""An invented Commons database: the care platform's tables, rich texts, and rows known to be bad.

Its people are those of the sample Elation and member-index databases of the same scale and seed:
a patient's id is the member's, the MRN is Elation's patient id as text, and users have Elation's
e-mail addresses without the plus-tag. The same scale and seed always give the same rows.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from mirror_assets.sample import elation, member_index
from mirror_assets.sample.generator import (
    CITIES,
    CREDENTIALS,
    DAYS,
    FIRST_DAY,
    LAST_DAY,
    PHRASES,
    SPECIAL_TEXTS,
    STREETS,
    BadRow,
    Cell,
    Dice,
    Edit,
    Flaw,
    Progress,
    Row,
    Sample,
    array,
    full_name,
    identifier,
    npi,
    optional,
    phone,
    plain,
)
from mirror_assets.sample.servers import PostgreSQL

ARCHIVE_SCHEMA = "archive"
ARCHIVE_TABLE = "patient"
VIEW = "current_patient_state"
EMPTY_TABLE = "batch_upload"
TYPE_TABLE = "patient_vital"
BODY_TABLES = ("note", "note_revision", "goal_comment", "task_comment")
BODY_COLUMN = "contentState"

# --- Tables ---------------------------------------------------------------------------------

_CREATED = '"createdAt" timestamptz NOT NULL'
_TIMES = f'{_CREATED}, "updatedAt" timestamptz NOT NULL, "deletedAt" timestamptz NULL'
_KEY = "id uuid NOT NULL PRIMARY KEY"
_BODY = f'{_KEY}, "{BODY_COLUMN}" text NULL'

_COLUMNS: dict[str, str] = {
    "market": f"{_KEY}, name text NOT NULL, {_TIMES}",
    "partner": f'{_KEY}, name text NOT NULL, "contractEndsOn" date NULL, {_TIMES}',
    "clinic": f'{_KEY}, name text NOT NULL, "marketId" uuid NOT NULL, {_TIMES}',
    "clinic_pod": f'{_KEY}, name text NOT NULL, "clinicId" uuid NOT NULL, {_TIMES}',
    "user": f"""
        {_KEY},
        "firstName" text NULL,
        "lastName" text NULL,
        email text NOT NULL UNIQUE,
        phone text NULL,
        npi text NULL,
        "userRole" text NOT NULL,
        "homeClinicId" uuid NOT NULL,
        "homeMarketId" uuid NULL,
        permissions text[] NOT NULL,
        "lastLoginAt" timestamptz NULL,
        "terminatedAt" timestamptz NULL,
        {_TIMES}
    """,
    "clinic_pod_member": f"""
        "userId" uuid NOT NULL,
        "clinicPodId" uuid NOT NULL,
        {_CREATED},
        "deletedAt" timestamptz NULL,
        PRIMARY KEY ("userId", "createdAt")
    """,
    "address": f"""
        {_KEY},
        street1 text NULL,
        street2 text NULL,
        city text NULL,
        state text NULL,
        zip text NULL,
        lat double precision NULL,
        long double precision NULL,
        description text NULL,
        {_TIMES}
    """,
    "patient": f"""
        {_KEY},
        "firstName" text NULL,
        "middleName" text NULL,
        "lastName" text NOT NULL,
        "dateOfBirth" date NULL,
        "cityblockId" integer NOT NULL UNIQUE,
        "memberId" text NULL,
        "medicaidId" text NULL,
        mrn text NULL,
        nmi text NULL,
        ssn text NULL,
        "ssnEnd" varchar(4) NULL,
        insurance text NULL,
        "lineOfBusiness" text NULL,
        "productDescription" text NULL,
        "homeMarketId" uuid NOT NULL,
        "homeClinicId" uuid NOT NULL,
        "pcpPractice" text NULL,
        "doNotCall" boolean NULL,
        "enrollmentSource" text NULL,
        {_TIMES}
    """,
    "patient_info": f"""
        {_KEY},
        "patientId" uuid NOT NULL UNIQUE,
        gender text NULL,
        "isWhite" boolean NULL,
        "isBlack" boolean NULL,
        "isAsian" boolean NULL,
        "isAmericanIndianAlaskan" boolean NULL,
        "isHawaiianPacific" boolean NULL,
        "isOtherRace" boolean NULL,
        "isHispanic" boolean NULL,
        "hasHealthcareProxy" boolean NULL,
        "hasMolst" text NULL,
        {_TIMES}
    """,
    "patient_attribute": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        type text NOT NULL,
        value text NOT NULL,
        {_TIMES}
    """,
    "patient_state": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "currentState" text NOT NULL,
        "updatedById" uuid NULL,
        {_TIMES}
    """,
    "patient_disenrollment": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        reason text NOT NULL,
        "currentState" text NULL,
        {_TIMES}
    """,
    "patient_acuity": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        score smallint NOT NULL,
        "isRecommended" boolean NOT NULL,
        "updatedById" uuid NULL,
        {_TIMES}
    """,
    "care_team": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "userId" uuid NOT NULL,
        "isPrimaryContact" boolean NULL,
        {_TIMES}
    """,
    "goal": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        title text NOT NULL,
        description text NULL,
        label text NULL,
        "riskAreaSlug" text NULL,
        "templateSlug" text NULL,
        rank bigint NOT NULL,
        "isLegacy" boolean NOT NULL,
        "createdById" uuid NOT NULL,
        "completedById" uuid NULL,
        "dueAt" timestamptz NULL,
        "completedAt" timestamptz NULL,
        "archivedAt" timestamptz NULL,
        {_TIMES}
    """,
    "task": f"""
        {_KEY},
        "groupId" uuid NOT NULL,
        "goalGroupId" uuid NULL,
        "patientId" uuid NOT NULL,
        title text NOT NULL,
        description text NULL,
        status text NULL,
        "createdById" uuid NOT NULL,
        "assignedToId" uuid NULL,
        "completedById" uuid NULL,
        "dueAt" timestamptz NULL,
        "completedAt" timestamptz NULL,
        "isDraft" boolean NOT NULL,
        "isUrgent" boolean NOT NULL,
        "isLegacy" boolean NOT NULL,
        "isMemberSelfManagement" boolean NOT NULL,
        rank numeric(20,10) NULL,
        "noteDraftGroupId" uuid NULL,
        "templateSlug" text NULL,
        "batchUploadId" uuid NULL,
        {_TIMES}
    """,
    "task_label": f'{_KEY}, "taskGroupId" uuid NOT NULL, label text NOT NULL, {_TIMES}',
    "goal_comment": f"""
        {_BODY},
        "goalId" uuid NOT NULL,
        "createdById" uuid NOT NULL,
        {_TIMES}
    """,
    "task_comment": f"""
        {_BODY},
        "taskId" uuid NOT NULL,
        "createdById" uuid NOT NULL,
        {_TIMES}
    """,
    "timeline_event": f"""
        {_KEY},
        "groupId" uuid NOT NULL,
        "patientId" uuid NOT NULL,
        "createdById" uuid NOT NULL,
        "eventType" text NOT NULL,
        "eventTimestamp" timestamptz NULL,
        "dataSource" text NULL,
        "isPublished" boolean NOT NULL,
        "markedAsErrorReason" text NULL,
        "isLegacy" boolean NOT NULL,
        location text NULL,
        status text NULL,
        metadata jsonb NULL,
        {_TIMES}
    """,
    "note": f"""
        {_BODY},
        "eventGroupId" uuid NOT NULL,
        "templateSlug" text NULL,
        text text NULL,
        {_TIMES}
    """,
    "note_revision": f'{_BODY}, "timelineEventId" uuid NOT NULL, {_TIMES}',
    "event": f"body jsonb NOT NULL, type text NOT NULL, {_CREATED}",
    "event_attendee": """
        "eventGroupId" uuid NOT NULL,
        "idSource" text NOT NULL,
        attendee text NOT NULL,
        "deletedAt" timestamptz NULL
    """,
    "appointment": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "startAt" timestamptz NOT NULL,
        "endAt" timestamptz NULL,
        title text NULL,
        description text NULL,
        "providerName" text NULL,
        "providerCredentials" text NULL,
        "generatedBy" appointment_source NOT NULL,
        "clinicId" uuid NULL,
        "addressId" uuid NULL,
        "locationFreeText" text NULL,
        facility text NULL,
        "googleCalendarId" text NULL,
        "googleCalendarEventId" text NULL,
        "htmlLink" text NULL,
        "createdById" uuid NULL,
        {_TIMES}
    """,
    "risk_area_assessment_submission": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "assessmentSlug" text NOT NULL,
        "completedAt" timestamptz NULL,
        {_TIMES}
    """,
    "patient_screening_tool_submission": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "screeningToolSlug" text NOT NULL,
        score numeric(10,2) NULL,
        "scoredAt" timestamptz NULL,
        {_TIMES}
    """,
    "patient_answer": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "userId" uuid NOT NULL,
        "questionSlug" text NOT NULL,
        "questionText" text NULL,
        "answerSlug" text NULL,
        "answerText" text NULL,
        "answerValue" text NOT NULL,
        "patientScreeningToolSubmissionId" uuid NULL,
        "riskAreaAssessmentSubmissionId" uuid NULL,
        {_TIMES}
    """,
    "patient_document": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "documentType" text NULL,
        "signedOn" date NULL,
        {_TIMES}
    """,
    "outreach_attempt": f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        "userId" uuid NOT NULL,
        direction text NOT NULL,
        modality text NOT NULL,
        "personReached" text NULL,
        outcome text NULL,
        "notInterestedReason" text NULL,
        "isScheduledVisit" boolean NULL,
        notes text NULL,
        "attemptedAt" timestamptz NOT NULL,
        {_TIMES}
    """,
    "phone_call": f"""
        {_KEY},
        "patientId" uuid NULL,
        "userId" uuid NOT NULL,
        "contactNumber" text NOT NULL,
        direction text NOT NULL,
        duration integer NOT NULL,
        "callStatus" text NOT NULL,
        provider text NULL,
        device text NULL,
        "callReceiver" text NULL,
        "providerPayload" json NOT NULL,
        "callId" text NOT NULL,
        "providerCreatedAt" timestamptz NOT NULL,
        {_TIMES}
    """,
    "sms_message": f"""
        {_KEY},
        "patientId" uuid NULL,
        "userId" uuid NOT NULL,
        body text NOT NULL,
        "contactNumber" text NOT NULL,
        direction text NOT NULL,
        provider text NULL,
        {_TIMES}
    """,
    "builder_risk_area_group": f"""
        {_KEY},
        slug text NOT NULL,
        title text NOT NULL,
        "shortTitle" text NULL
    """,
    "builder_question": f"""
        {_KEY},
        slug text NOT NULL,
        title text NOT NULL,
        kind text NOT NULL,
        "isConditional" boolean NOT NULL
    """,
    "builder_question_assessment_screening_tool": f"""
        {_KEY},
        "questionSlug" text NOT NULL,
        "assessmentSlug" text NULL,
        "screeningToolSlug" text NULL,
        "questionOrder" integer NOT NULL
    """,
    TYPE_TABLE: f"""
        {_KEY},
        "patientId" uuid NOT NULL,
        unit vital_unit NULL,
        systolic smallint NULL,
        weight real NULL,
        temperature double precision NULL,
        cost numeric(10,2) NULL,
        "rawValue" numeric NULL,
        "deviceSerial" bigint NULL,
        readings integer[] NULL,
        flags text[] NULL,
        detail json NULL,
        device jsonb NULL,
        waveform bytea NULL,
        "measuredFor" interval NULL,
        "takenLocal" timestamp without time zone NULL,
        "takenAt" timestamptz NULL,
        "takenOn" date NULL,
        label varchar(40) NULL
    """,
    EMPTY_TABLE: f'{_KEY}, "fileName" text NOT NULL, "uploadedById" uuid NULL, {_TIMES}',
    # What the export leaves out.
    **member_index.KNEX_COLUMNS,
    "google_auth": f"""
        {_KEY},
        "userId" uuid NOT NULL,
        "accessToken" text NOT NULL,
        "expiresAt" timestamptz NOT NULL
    """,
    "note_draft": f'{_BODY}, "createdById" uuid NOT NULL, {_TIMES}',
    "claim_encounter_cache": f'{_KEY}, "patientId" uuid NOT NULL, body jsonb NOT NULL, {_CREATED}',
    "patient_event": f'{_KEY}, "patientId" uuid NOT NULL, kind text NOT NULL, {_CREATED}',
}
TABLES: tuple[str, ...] = tuple(_COLUMNS)
"""Every base table of the default schema."""

EXCLUDED = (
    "knex_migrations",
    "knex_migrations_lock",
    "google_auth",
    "note_draft",
    "claim_encounter_cache",
    "patient_event",
)
MIRRORED: tuple[str, ...] = tuple(name for name in TABLES if name not in EXCLUDED)

_BEFORE = (
    "CREATE TYPE appointment_source AS ENUM ('siu', 'commons')",
    "CREATE TYPE vital_unit AS ENUM ('mmHg', 'kg', '°C', 'two words', '')",
)
_AFTER = (
    f'CREATE VIEW {VIEW} AS SELECT "patientId", "currentState", "createdAt" '
    'FROM patient_state WHERE "deletedAt" IS NULL',
    f"CREATE SCHEMA {ARCHIVE_SCHEMA}",
    f"CREATE TABLE {ARCHIVE_SCHEMA}.{ARCHIVE_TABLE} ("
    "id integer PRIMARY KEY, archived_on date NOT NULL, payload text, mrn integer)",
    f"INSERT INTO {ARCHIVE_SCHEMA}.{ARCHIVE_TABLE} "
    "SELECT n, DATE '2018-12-31', 'archived patient ' || n, n FROM generate_series(1, 5) AS n",
)

# --- Row counts -----------------------------------------------------------------------------

_FULL_COUNTS = {
    "clinic_pod_member": 180,
    "patient_attribute": 5_000,
    "patient_state": 12_000,
    "patient_disenrollment": 300,
    "patient_acuity": 5_000,
    "care_team": 8_000,
    "goal": 8_000,
    "task": 30_000,
    "task_label": 12_000,
    "goal_comment": 4_000,
    "task_comment": 4_000,
    "timeline_event": 40_000,
    "note": 20_000,
    "note_revision": 6_000,
    "event": 16_000,
    "event_attendee": 10_000,
    "appointment": 15_000,
    "risk_area_assessment_submission": 3_000,
    "patient_screening_tool_submission": 3_000,
    "patient_answer": 60_000,
    "patient_document": 5_000,
    "outreach_attempt": 8_000,
    "phone_call": 8_000,
    "sms_message": 10_000,
    "builder_question": 200,
    "builder_question_assessment_screening_tool": 300,
    TYPE_TABLE: 1_000,
    "google_auth": 50,
    "note_draft": 500,
    "claim_encounter_cache": 1_000,
    "patient_event": 2_000,
}
# Enough for every kind of body, and for every awkward text in one table.
_LEAST = {**dict.fromkeys(BODY_TABLES, 50), "sms_message": 120}
_LEAST_OTHERS = 26


def row_counts(scale: float) -> dict[str, int]:
    """The rows of every base table at a scale; 1.0 is about 300,000 rows."""
    groups = member_index.groups(scale)
    people = sum(groups) - groups.duplicates
    counts = {
        name: max(_LEAST.get(name, _LEAST_OTHERS), round(full * scale))
        for name, full in _FULL_COUNTS.items()
    }
    fixed = {
        "market": len(_MARKETS),
        "partner": len(member_index.PARTNERS),
        "clinic": len(_MARKETS) + 4,
        "clinic_pod": 2 * len(_MARKETS) + 8,
        "user": len(_shared_logins(scale)) + _other_users(scale),
        "address": people,
        "patient": people,
        "patient_info": people,
        "builder_risk_area_group": len(_RISK_AREAS),
        EMPTY_TABLE: 0,
        "knex_migrations": 40,
        "knex_migrations_lock": 1,
    }
    known = counts | fixed
    return {name: known[name] for name in TABLES}


# --- Rows known to be bad -------------------------------------------------------------------

_FLAWS = (
    Flaw("patient", "dateOfBirth", "before_christ", 1, "'0044-03-15 BC'"),
    Flaw("partner", "contractEndsOn", "infinite_date", 1, "'infinity'"),
    Flaw("task", "dueAt", "far_future", 2, "'20000-01-01 00:00:00+00'"),
    Flaw("patient_screening_tool_submission", "score", "not_a_number", 2, "'NaN'"),
    Flaw("outreach_attempt", "attemptedAt", "infinite_instant", 1, "'infinity'"),
    Flaw(TYPE_TABLE, "takenLocal", "infinite_datetime", 1, "'-infinity'"),
    Flaw(
        "timeline_event",
        "eventTimestamp",
        "instant_before_christ",
        1,
        "'0044-03-15 12:00:00+00 BC'",
    ),
)


def known_bad(scale: float = 1.0, seed: int = 2021) -> list[BadRow]:
    """The cells that no warehouse type can hold; they survive every change."""
    return sample(scale, seed).known_bad


# --- Rich texts -----------------------------------------------------------------------------

EMPTY_BODIES: tuple[str | None, ...] = (None, "null", "{}", "[]", '""', "")
"""What stands for no text at all."""

_BROKEN_BODIES = {
    5: ("invalid_json", '{"blocks":[{"key":"a1b2c","text":"cut off in the mid'),
    11: ("no_blocks", '{"text":"an old client wrote this","version":1}'),
}
_FIRST_EMPTY = 20
_BODY_PERIOD = 50


def broken_bodies(scale: float = 1.0, seed: int = 2021) -> list[BadRow]:
    """Bodies that are good text for a mirror, and that no reader of rich texts can render."""
    rows = sample(scale, seed).row
    return [
        BadRow(table, {"id": rows(table, i)[0]}, BODY_COLUMN, kind)
        for table in BODY_TABLES
        for i, (kind, _body) in _BROKEN_BODIES.items()
    ]


def _spared(table: str) -> frozenset[int]:
    return frozenset(_BROKEN_BODIES) if table in BODY_TABLES else frozenset()


Json = dict[str, object]


def _block(text: str, kind: str = "unstyled", depth: int = 0, **ranges: list[Json]) -> Json:
    return {
        "text": text,
        "type": kind,
        "depth": depth,
        "inlineStyleRanges": ranges.get("styles", []),
        "entityRanges": ranges.get("entities", []),
        "data": {},
    }


def _styles(text: str, words: Sequence[tuple[str, str]]) -> list[Json]:
    return [
        {"offset": text.index(word), "length": len(word), "style": style} for word, style in words
    ]


def _ranges(text: str, words: Sequence[str]) -> list[Json]:
    return [
        {"offset": text.index(word), "length": len(word), "key": key}
        for key, word in enumerate(words)
    ]


def _entity(kind: str, data: Json, mutability: str = "MUTABLE") -> Json:
    return {"type": kind, "mutability": mutability, "data": data}


def _mention(identity: str, name: str) -> Json:
    return _entity("mention", {"mention": {"id": identity, "name": name}}, "SEGMENTED")


class _Bodies:
    """Draft.js documents of every kind that occurs, in turn."""

    def __init__(self, people: Sequence["User"]) -> None:
        self._people = people
        self._kinds: tuple[Callable[[int, str], tuple[list[Json], list[Json]]], ...] = (
            self._paragraphs,
            self._styled,
            self._bullets,
            self._numbered,
            self._mentioned,
            self._linked,
            self._headed,
            self._quoted,
            self._gaps,
            self._emoji,
            self._paragraphs,
            self._pictured,
        )

    def body(self, i: int, text: str) -> str | None:
        """The body of a row; broken and empty ones have their places."""
        if i in _BROKEN_BODIES:
            return _BROKEN_BODIES[i][1]
        empty = i % _BODY_PERIOD - _FIRST_EMPTY
        if 0 <= empty < len(EMPTY_BODIES):
            return EMPTY_BODIES[empty]
        blocks, entities = self._kinds[i % len(self._kinds)](i, text)
        document = {
            "blocks": [
                {"key": f"{(64 * i + n) % 2**20:05x}", **block} for n, block in enumerate(blocks)
            ],
            "entityMap": {str(key): entity for key, entity in enumerate(entities)},
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    def _paragraphs(self, i: int, text: str) -> tuple[list[Json], list[Json]]:
        return [_block(text), _block(f"2*3 = 6_x, `code` and #{i} > 1")], []

    def _styled(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        line = "bold under italic struck code all"
        words = [("bold", "BOLD"), ("under", "UNDERLINE"), ("italic ", "ITALIC")]
        words += [("struck", "STRIKETHROUGH"), ("code", "CODE")]
        words += [("all", style) for style in ("BOLD", "UNDERLINE", "ITALIC", "STRIKETHROUGH")]
        return [_block(line, styles=_styles(line, words)), _block(text)], []

    def _bullets(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        kind = "unordered-list-item"
        items = [_block("one", kind), _block("sub", kind, 1), _block(text, kind)]
        return [_block("Intro"), *items, _block("then", "ordered-list-item"), _block("End")], []

    def _numbered(self, i: int, _text: str) -> tuple[list[Json], list[Json]]:
        kind = "ordered-list-item"
        return [_block(f"step {n} of {i}", kind, n % 4 // 3) for n in range(11)], []

    def _mentioned(self, i: int, text: str) -> tuple[list[Json], list[Json]]:
        first, second = (self._people[(i + n) % len(self._people)] for n in (0, 1))
        names = [f"{user.first_name} {user.last_name}" for user in (first, second)]
        line = f"Hi @{names[0]} and {names[1]}#2, please call"
        words = [f"@{names[0]}", f"{names[1]}#2"]
        mentions = [
            _mention(user.id, name) for user, name in zip((first, second), names, strict=True)
        ]
        return [_block(line, entities=_ranges(line, words)), _block(text)], mentions

    def _linked(self, i: int, text: str) -> tuple[list[Json], list[Json]]:
        line = "see site and plan"
        links = [
            _entity("LINK", {"url": f"https://docs.example.org/a(b)/{i}", "title": "A title"}),
            _entity("LINK", {"href": "https://docs.example.org/plan?x=1&y=2"}),
        ]
        return [_block(line, entities=_ranges(line, ["site", "plan"])), _block(text)], links

    def _headed(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        levels = ("one", "two", "three", "four", "five", "six")
        return [*(_block(f"Level {n}", f"header-{n}") for n in levels), _block(text)], []

    def _quoted(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        return [_block(text, "blockquote"), _block("x = *1*", "code-block")], []

    def _gaps(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        return [_block("A"), _block(""), _block(text), _block("\ufeff"), _block("B")], []

    def _emoji(self, _i: int, text: str) -> tuple[list[Json], list[Json]]:
        line = "🙂💪🏽 bold after emoji"
        return [_block(line, styles=_styles(line, [("bold", "BOLD")])), _block(text, "unknown")], []

    def _pictured(self, i: int, text: str) -> tuple[list[Json], list[Json]]:
        picture = _entity("IMAGE", {"src": f"https://files.example.org/{i}.png", "alt": "scan"})
        atomic = _block(" ", "atomic", entities=[{"offset": 0, "length": 1, "key": 0}])
        return [_block(text), atomic], [picture]


# --- People ---------------------------------------------------------------------------------


class User(NamedTuple):
    """A user of Commons; ``elation`` is the id of the same person's login there."""

    number: int
    id: str
    first_name: str
    last_name: str
    email: str
    npi: str | None
    deleted_at: datetime | None
    elation: int | None


_TAG = re.compile(r"\+[^@]*")


@lru_cache(maxsize=8)
def users(scale: float = 1.0, seed: int = 2021) -> tuple[User, ...]:
    """Every user: those of Elation except some, of whom some are deleted, and others."""
    logins, shared = elation.users(scale, seed), _shared_logins(scale)
    return (
        *(_colleague(i, logins[n]) for i, n in enumerate(shared)),
        *(_other_user(len(shared) + i) for i in range(_other_users(scale))),
    )


def _shared_logins(scale: float) -> list[int]:
    """The numbers of Elation's logins whose people use Commons as well."""
    return [i for i in range(elation.row_counts(scale)["user"]) if i % 7 != 6]


def _other_users(scale: float) -> int:
    return max(8, round(60 * scale))


def _colleague(i: int, login: elation.User) -> User:
    return User(
        number=i,
        id=identifier("user", i),
        first_name=login.first_name,
        last_name=login.last_name,
        email=_TAG.sub("", login.email),
        npi=login.npi,
        deleted_at=LAST_DAY - timedelta(days=20 + i) if i % 8 == 4 else None,
        elation=login.id,
    )


def _other_user(i: int) -> User:
    first, last = full_name(3 * i + 2)
    return User(
        number=i,
        id=identifier("user", i),
        first_name=first,
        last_name=last,
        email=f"{plain(first)}.{plain(last)}.care{i}@example.org",
        npi=npi(5_000 + i) if i % 3 == 0 else None,
        deleted_at=LAST_DAY - timedelta(days=i) if i % 13 == 12 else None,
        elation=None,
    )


def _patients(scale: float, seed: int) -> list[member_index.Member]:
    """Everybody in the member index but the deleted duplicates."""
    return [member for member in member_index.members(scale, seed) if not member.duplicate]


# --- Words ----------------------------------------------------------------------------------

_PACIFIC = ZoneInfo("America/Los_Angeles")
_TEXTS = (*SPECIAL_TEXTS, "old\rMac\rlines", "null", "all of \"it\",\r\n'and'\ttabs\\", "\ufeffBOM")
_MARKETS = (
    "New York City",
    "Connecticut",
    "Charlotte",
    "Fayetteville",
    "Piedmont Triad",
    "Massachusetts",
    "Virtual",
    "CareFirst DC",
)
_RISK_AREAS = (
    *("Diabetes", "Heart Failure", "Asthma", "Kidney Disease", "Housing", "Food", "Transport"),
    *("Depression", "Substance Use", "Caregiving", "Dental", "Vision", "Pain", "Medication"),
)
STATES = (
    *("attributed", "assigned", "contact_attempted", "reached", "interested", "very_interested"),
    *("consented", "enrolled", "disenrolled_after_consent", "disenrolled", "not_interested"),
    "ineligible",
)
_ROLES = (
    *("Community_Health_Partner", "Physician", "Nurse_Care_Manager", "Nurse_Practitioner"),
    *("Behavioral_Health_Specialist", "Member_Support_Specialist", "Ops_Lead"),
)
_EVENT_TYPES = ("note", "appointment", "phoneCall", "smsMessage", "addTask", "externalEvent")
_CALL_STATUSES = (
    *("completed", "missed", "voicemail", "no-answer", "busy", "canceled", "failed", "abandoned"),
    *("incoming", "outgoing"),
)
_ANSWERS = (("yes", "Yes"), ("no", "No"), ("sometimes", "Sometimes"), (None, None))
_TOOLS = ("phq-9", "gad-7", "audit-c", "falls-risk", "health-literacy")
_VISITS = ("Annual Provider Visit - Home", "Check in - Televideo", "Intake - Hub", None)


# --- Rows -----------------------------------------------------------------------------------


class _Rows:
    """Makes any row of each table; the method of a table carries its name."""

    def __init__(self, scale: float, seed: int) -> None:
        self._counts = row_counts(scale)
        self._patients = _patients(scale, seed)
        self._by_mrn = {m.mrn: m for m in self._patients if m.ehr == "elation"}
        self._users = users(scale, seed)
        self._bodies = _Bodies(self._users)
        self._visits = elation.appointments(scale, seed)
        self._dice = {table: Dice(seed, f"commons.{table}") for table in TABLES}

    def row(self, table: str, i: int) -> Row:
        maker: Callable[[int], Row] = getattr(self, table)
        return maker(i)

    def market(self, i: int) -> Row:
        return (_id("market", i), _MARKETS[i], *self._times("market", i))

    def partner(self, i: int) -> Row:
        end = date(2999, 12, 31) if i % 2 else None
        return (_id("partner", i), member_index.PARTNERS[i], end, *self._times("partner", i))

    def clinic(self, i: int) -> Row:
        name = f"{_MARKETS[i % len(_MARKETS)]} Hub {i + 1}"
        market = _id("market", i % len(_MARKETS))
        return (_id("clinic", i), name, market, *self._times("clinic", i))

    def clinic_pod(self, i: int) -> Row:
        clinic = self._some("clinic", i)
        return (_id("clinic_pod", i), f"Pod {i + 1}", clinic, *self._times("clinic_pod", i))

    def user(self, i: int) -> Row:
        user = self._users[i]
        created, updated, _gone = self._times("user", i)
        if user.deleted_at is not None:
            created, updated = min(_moment(created), user.deleted_at), user.deleted_at
        terminated = user.deleted_at - timedelta(days=1) if user.deleted_at else None
        return (
            user.id,
            user.first_name,
            user.last_name,
            user.email,
            phone(i) if i % 6 else None,
            user.npi,
            _ROLES[i % len(_ROLES)],
            self._some("clinic", i),
            self._some("market", i) if i % 5 else None,
            array([["green", "blue"][i % 2], 'may "edit", all', None][: i % 4]),
            LAST_DAY - timedelta(hours=i) if i % 9 != 8 else None,
            terminated,
            created,
            updated,
            user.deleted_at,
        )

    def clinic_pod_member(self, i: int) -> Row:
        created = FIRST_DAY + timedelta(days=7 * (i // len(self._users)), microseconds=i)
        left = created + timedelta(days=6) if i % 4 == 3 else None
        return (self._any_user(i), self._some("clinic_pod", i), created, left)

    def address(self, i: int) -> Row:
        city, state = CITIES[i % len(CITIES)]
        spot = self._dice["address"].below(1_000_000, i, "spot")
        return (
            _id("address", i),
            f"{1 + i % 900} {STREETS[i % len(STREETS)]}",
            optional(i, f"Apt {i % 60}"),
            city,
            state,
            f"{i * 37 % 100_000:05}",
            (40 + spot / 1_000_000, None, 0.1 + 0.2)[i % 3],
            (-73 - spot / 3, None, -1e-300)[i % 3],
            optional(i + 1, 'Ring "twice",\r\nuse the rear door'),
            *self._times("address", i),
        )

    def patient(self, i: int) -> Row:
        member = self._patients[i]
        created, updated, _gone = self._times("patient", i)
        if member.deleted_at is not None:
            created, updated = min(_moment(created), member.deleted_at), member.deleted_at
        return (
            member.id,
            member.first_name,
            optional(i, "Q."),
            member.last_name,
            member.birth_date,
            member.cbh_id,
            member.insurance,
            f"MD{i:08}" if i % 3 else None,
            member.mrn,
            f"NMI-{i:06}" if i % 10 == 0 else None,
            f"000{i % 100:02}{i % 10_000:04}" if i % 3 else None,
            f"{i % 10_000:04}" if i % 3 else None,
            member_index.PARTNERS[member.partner],
            ("medicaid", "medicare", "commercial", "dual", None)[i % 5],
            optional(i, "HMO, Silver"),
            self._some("market", i),
            self._some("clinic", i),
            optional(i + 4, "Sample Practice & Sons"),
            (True, False, None)[i % 3],
            ("outreach", "", None)[i % 3],
            created,
            updated,
            member.deleted_at,
        )

    def patient_info(self, i: int) -> Row:
        flags = [(True, False, None)[(i + n) % 3] for n in range(8)]
        return (
            _id("patient_info", i),
            self._patients[i].id,
            ("female", "male", "nonbinary", "", None)[i % 5],
            *flags,
            ("yes", "no", "", None)[i % 4],
            *self._times("patient_info", i),
        )

    def patient_attribute(self, i: int) -> Row:
        kinds = ("language", "pronoun", "preferredName", "caregiver")
        value = ("español", "", "null", "Zoë", "two\nlines")[i % 5]
        key, patient = _id("patient_attribute", i), self._any_patient("patient_attribute", i)
        return (key, patient, kinds[i % 4], value, *self._times("patient_attribute", i))

    def patient_state(self, i: int) -> Row:
        """The states of a patient one after the other, of which the last is live."""
        people, total = len(self._patients), self._counts["patient_state"]
        step, patient = divmod(i, people)
        rounds = -(-total // people) + 1
        created = FIRST_DAY + timedelta(days=step * DAYS // rounds, hours=patient % 700)
        is_last = i + people >= total
        gone = None if is_last else FIRST_DAY + timedelta(days=(step + 1) * DAYS // rounds)
        if gone is not None:
            gone += timedelta(hours=patient % 700)
        return (
            _id("patient_state", i),
            self._patients[patient].id,
            STATES[(step + patient % 7) % len(STATES)],
            self._any_user(i) if i % 4 else None,
            created,
            gone or created,
            gone,
        )

    def patient_disenrollment(self, i: int) -> Row:
        return (
            _id("patient_disenrollment", i),
            self._any_patient("patient_disenrollment", i),
            ("moved", "deceased", "lost coverage", "")[i % 4],
            STATES[8 + i % 2] if i % 3 else None,
            *self._times("patient_disenrollment", i),
        )

    def patient_acuity(self, i: int) -> Row:
        return (
            _id("patient_acuity", i),
            self._patients[i % len(self._patients)].id,
            i % 6,
            i % 5 == 4,
            self._any_user(i) if i % 3 else None,
            *self._times("patient_acuity", i),
        )

    def care_team(self, i: int) -> Row:
        patient = self._patients[i % len(self._patients)].id
        primary = (True, False, None)[i % 3]
        times = self._times("care_team", i)
        return (_id("care_team", i), patient, self._any_user(i), primary, *times)

    def goal(self, i: int) -> Row:
        created, updated, gone = self._times("goal", i)
        done = i % 4 == 1
        return (
            _id("goal", i),
            self._patients[self._patient_of_goal(i)].id,
            "Administrative Tasks" if i % 40 == 39 else f"Goal {i}: {PHRASES[i % len(PHRASES)]}",
            self._words("goal", i) if i % 3 else None,
            ("health", "social", "", None)[i % 4],
            _slug(_RISK_AREAS[i % len(_RISK_AREAS)]) if i % 6 else None,
            f"template-{i % 30}" if i % 5 == 0 else None,
            2**53 + 1 + i if i % 50 == 7 else i,
            i % 12 == 0,
            self._any_user(i),
            self._any_user(i + 1) if done else None,
            _moment(created) + timedelta(days=30) if i % 3 else None,
            updated if done else None,
            updated if i % 15 == 14 else None,
            created,
            updated,
            gone,
        )

    def task(self, i: int) -> Row:
        """Two states of most tasks; the states of a task share its group."""
        group = i // 2
        created, updated, gone = self._times("task", i)
        goal = group % self._counts["goal"]
        done = i % 4 == 1
        due = (_moment(created) + timedelta(days=14), None, _END_OF_TIME)[i % 3]
        return (
            _id("task", i),
            _id("task_group", group),
            _id("goal", goal) if group % 9 else None,
            self._patients[self._patient_of_goal(goal)].id,
            "" if i % 90 == 8 else f"Task {group}: {PHRASES[i % len(PHRASES)]}",
            self._words("task", i) if i % 4 else None,
            ("notStarted", "inProgress", "completed", None)[i % 4],
            self._any_user(group),
            self._any_user(group + 3) if i % 8 else None,
            self._any_user(group + 5) if done else None,
            due,
            updated if done else None,
            i % 20 == 0,
            i % 11 == 0,
            i % 12 == 0,
            i % 17 == 0,
            f"{i % 1_000}.{i % 10**10:010}" if i % 6 else None,
            _id("note_draft", i) if i % 50 == 0 else None,
            f"task-template-{i % 40}" if i % 5 == 0 else None,
            None,
            created,
            updated,
            gone,
        )

    def task_label(self, i: int) -> Row:
        group = _id("task_group", i % max(1, self._counts["task"] // 2))
        label = ("urgent, call", "benefits", "home visit", "NULL")[i % 4]
        return (_id("task_label", i), group, label, *self._times("task_label", i))

    def goal_comment(self, i: int) -> Row:
        goal = self._some("goal", i)
        return self._body("goal_comment", i, goal, self._any_user(i))

    def task_comment(self, i: int) -> Row:
        task = self._some("task", i)
        return self._body("task_comment", i, task, self._any_user(i))

    def timeline_event(self, i: int) -> Row:
        """Events of a group follow each other; the note of a group has the group's number."""
        group = i % max(1, self._counts["note"])
        created, updated, gone = self._times("timeline_event", i)
        metadata = {
            "isTransitionOfCare": (True, False, None)[i % 3],
            "direction": ("inbound", "outbound")[i % 2],
            "referral": optional(i, 'to the "food" pantry'),
            "referralReason": f"reason {i}\nsecond line" if i % 5 == 0 else None,
        }
        return (
            _id("timeline_event", i),
            _id("event_group", group),
            self._patients[group % len(self._patients)].id,
            self._any_user(group),
            _EVENT_TYPES[i % len(_EVENT_TYPES)],
            created if i % 10 else None,
            ("commons", "elation", "acpny", None)[i % 4],
            i % 7 != 0,
            "wrong patient" if i % 80 == 79 else None,
            i % 12 == 0,
            ("home", "hub", "phone", "", None)[i % 5],
            ("completed", "attempted", None)[i % 3],
            _json(metadata) if i % 6 else None,
            created,
            updated,
            gone,
        )

    def note(self, i: int) -> Row:
        group = _id("event_group", i)
        legacy = self._words("note", i) if i % 16 == 0 else None
        template = f"note-template-{i % 12}" if i % 3 else None
        return self._body("note", i, group, template, legacy)

    def note_revision(self, i: int) -> Row:
        return self._body("note_revision", i, self._some("timeline_event", i))

    def event(self, i: int) -> Row:
        """Every fifth row repeats the one before in all columns."""
        n = i - 1 if i % 5 == 4 else i
        created, _updated, _gone = self._times("event", n)
        body = {
            "id": n,
            "note": self._words("event", n),
            "tags": ["a", "ü", None],
            "big": 2**60 + n,
        }
        return (_json(body), _EVENT_TYPES[n % len(_EVENT_TYPES)], created)

    def event_attendee(self, i: int) -> Row:
        group = _id("event_group", i // 2 % max(1, self._counts["note"]))
        is_user = i % 2 == 0
        who = self._any_user(i) if is_user else "Ms. Example, neighbor"
        gone = self._dice["event_attendee"].moment(i) if i % 30 == 29 else None
        return (group, "user" if is_user else "freeText", who, gone)

    def appointment(self, i: int) -> Row:
        """First those that Elation told, then those made in Commons."""
        known = i < len(self._visits) and i % 10 != 9
        return self._told_appointment(i) if known else self._own_appointment(i)

    def _told_appointment(self, i: int) -> Row:
        visit = self._visits[i]
        start = visit.start.replace(tzinfo=_PACIFIC).astimezone(UTC)
        created = visit.created.replace(tzinfo=_PACIFIC).astimezone(UTC)
        length = timedelta(minutes=visit.minutes or 30)
        return (
            _id("appointment", i),
            self._by_mrn[str(visit.patient)].id,
            start,
            start + length if visit.minutes else None,
            visit.kind,
            self._words("appointment", i) if i % 3 else None,
            f"{visit.physician.first_name} {visit.physician.last_name}",
            visit.physician.credentials,
            "siu",
            None,
            None,
            optional(i, "Samplebrook Hub, 2nd floor"),
            ("Hub", "Home", "", None)[i % 4],
            None,
            None,
            None,
            None,
            created,
            created + timedelta(seconds=i % 3_600, microseconds=1),
            created + timedelta(days=2) if i % 33 == 32 else None,
        )

    def _own_appointment(self, i: int) -> Row:
        user = self._users[i % len(self._users)]
        start = self._dice["appointment"].moment(i, "start").replace(second=0, microsecond=0)
        return (
            _id("appointment", i),
            self._any_patient("appointment", i),
            start,
            start + timedelta(hours=1),
            _VISITS[i % len(_VISITS)],
            self._words("appointment", i),
            f"{user.first_name} {user.last_name}",
            CREDENTIALS[i % len(CREDENTIALS)],
            "commons",
            self._some("clinic", i) if i % 2 else None,
            None if i % 2 else self._some("address", i),
            optional(i, "Lobby"),
            None,
            f"calendar{i % 40}@example.org",
            f"event{i:010}",
            f"https://calendar.example.org/event?eid={i}&ctz=x",
            user.id,
            *self._times("appointment", i),
        )

    def risk_area_assessment_submission(self, i: int) -> Row:
        table = "risk_area_assessment_submission"
        created, updated, gone = self._times(table, i)
        slug = f"assessment-{_slug(_RISK_AREAS[i % len(_RISK_AREAS)])}"
        done = updated if i % 4 else None
        return (_id(table, i), self._any_patient(table, i), slug, done, created, updated, gone)

    def patient_screening_tool_submission(self, i: int) -> Row:
        table = "patient_screening_tool_submission"
        created, updated, gone = self._times(table, i)
        return (
            _id(table, i),
            self._any_patient(table, i),
            _TOOLS[i % len(_TOOLS)],
            _score(i),
            updated if i % 6 else None,
            created,
            updated,
            gone,
        )

    def patient_answer(self, i: int) -> Row:
        slug, text = _ANSWERS[i % len(_ANSWERS)]
        tool = self._some("patient_screening_tool_submission", i) if i % 3 == 0 else None
        area = self._some("risk_area_assessment_submission", i) if i % 3 == 1 else None
        question = i % self._counts["builder_question"]
        return (
            _id("patient_answer", i),
            self._any_patient("patient_answer", i),
            self._any_user(i),
            f"question-{question}",
            f"How about number {question}?",
            slug,
            text,
            (str(i % 5), "", "null", "true", self._words("patient_answer", i))[i % 5],
            tool,
            area,
            *self._times("patient_answer", i),
        )

    def patient_document(self, i: int) -> Row:
        signed = (date(1900, 1, 1), date(2020, 2, 29), None)[i % 3]
        return (
            _id("patient_document", i),
            self._any_patient("patient_document", i),
            ("hcp", "molst", "consent", "", None)[i % 5],
            signed,
            *self._times("patient_document", i),
        )

    def outreach_attempt(self, i: int) -> Row:
        created, updated, gone = self._times("outreach_attempt", i)
        return (
            _id("outreach_attempt", i),
            self._any_patient("outreach_attempt", i),
            self._any_user(i),
            ("inbound", "outbound")[i % 2],
            ("phone", "text", "inPerson", "mail")[i % 4],
            ("member", "family", "noOne", None)[i % 4],
            ("interested", "notInterested", "noAnswer", None)[i % 4],
            "happy with current doctor" if i % 4 == 1 else None,
            (True, False, None)[i % 3],
            self._words("outreach_attempt", i) if i % 5 else None,
            created,
            created,
            updated,
            gone,
        )

    def phone_call(self, i: int) -> Row:
        created, updated, gone = self._times("phone_call", i)
        payload = {"call_id": i, "legs": [{"n": 1, "to": phone(i)}], "note": SPECIAL_TEXTS[i % 12]}
        return (
            _id("phone_call", i),
            self._any_patient("phone_call", i) if i % 6 else None,
            self._any_user(i),
            phone(i),
            ("fromUser", "toUser")[i % 2],
            i % 3_600,
            _CALL_STATUSES[i % len(_CALL_STATUSES)],
            ("dialpad", "direct", "twilio", None)[i % 4],
            ("iphone", "android", "web", "desktop_app", "forwarding_number", None)[i % 6],
            ("user", "department", None)[i % 3],
            # The type json keeps blanks and line ends as they were sent.
            json.dumps(payload, ensure_ascii=i % 2 == 0, indent=1 if i % 4 == 0 else None),
            f"call-{i:010}",
            created,
            created,
            updated,
            gone,
        )

    def sms_message(self, i: int) -> Row:
        return (
            _id("sms_message", i),
            self._any_patient("sms_message", i) if i % 6 else None,
            self._any_user(i),
            self._words("sms_message", i),
            phone(i),
            ("fromUser", "toUser")[i % 2],
            ("twilio", None)[i % 2],
            *self._times("sms_message", i),
        )

    def builder_risk_area_group(self, i: int) -> Row:
        title = _RISK_AREAS[i]
        short = title.split()[0] if i % 3 else None
        return (_id("builder_risk_area_group", i), _slug(title), title, short)

    def builder_question(self, i: int) -> Row:
        kind = ("radio", "multiselect", "freetext", "dropdown")[i % 4]
        title = f"How about number {i}?"
        return (_id("builder_question", i), f"question-{i}", title, kind, i % 5 == 4)

    def builder_question_assessment_screening_tool(self, i: int) -> Row:
        table = "builder_question_assessment_screening_tool"
        question = f"question-{i % self._counts['builder_question']}"
        area = f"assessment-{_slug(_RISK_AREAS[i % len(_RISK_AREAS)])}" if i % 2 else None
        tool = None if i % 2 else _TOOLS[i % len(_TOOLS)]
        return (_id(table, i), question, area, tool, i)

    def patient_vital(self, i: int) -> Row:
        taken = self._dice[TYPE_TABLE].moment(i)
        noise = self._dice[TYPE_TABLE].below(10**6, i, "noise")
        return (
            _id(TYPE_TABLE, i),
            self._any_patient(TYPE_TABLE, i),
            ("mmHg", "kg", "°C", "two words", "", None)[i % 6],
            (None, -32768, 32767, 120)[i % 4],
            (70.5, None, -0.1, 1e-30)[i % 4],
            (36 + noise / 10**6, None, "Infinity", 1e308, 5e-324, "-Infinity")[i % 6],
            ("99999999.99", "-0.01", "0.10", None)[i % 4],
            (f"{10**30 + i}.{noise:06}00000000000001", "0.00", "-1e-20", None)[i % 4],
            (2**63 - 1, -(2**63), 2**53 + 1 + 2 * i, None)[i % 4],
            (array([1, None, -(2**31), i]), "{}", "{{1,2},{3,4}}", None)[i % 4],
            (array(["a,b", 'say "x"', "NULL", None, "", "back\\slash\nline"]), "{}", None)[i % 3],
            ('{"b": 1,  "a" : [1, 2.50], "b": 2}', "null", '"text"', None)[i % 4],
            (_json({"serial": 10**25 + i, "note": _TEXTS[i % len(_TEXTS)]}), "{}", "null", None)[
                i % 4
            ],
            (bytes([i % 256, 0, 255, 92]), b"", b"\n\\x,", None)[i % 4],
            ("1 year 2 mons 3 days 04:05:06.789", "-00:00:00.000001", "0", None)[i % 4],
            (
                taken.replace(tzinfo=None),
                datetime(1900, 1, 1),
                datetime(2999, 12, 31, 23, 59),
                None,
            )[i % 4],
            (taken, datetime(1900, 1, 1, tzinfo=UTC), _END_OF_TIME, None)[i % 4],
            (taken.date(), date(1900, 1, 1), date(2999, 12, 31), date(1, 1, 1), None)[i % 5],
            ("null", "Null", "NULL", "", " ", r"\N", ",", '"', None)[i % 9],
        )

    def batch_upload(self, i: int) -> Row:
        return (_id(EMPTY_TABLE, i), "", None, *self._times(EMPTY_TABLE, i))

    def knex_migrations(self, i: int) -> Row:
        return member_index.migration(i)

    def knex_migrations_lock(self, _i: int) -> Row:
        return (1, 0)

    def google_auth(self, i: int) -> Row:
        token = f"not-a-real-token-{_id('token', i)}"
        return (_id("google_auth", i), self._any_user(i), token, LAST_DAY)

    def note_draft(self, i: int) -> Row:
        return self._body("note_draft", i, self._any_user(i))

    def claim_encounter_cache(self, i: int) -> Row:
        created, _updated, _gone = self._times("claim_encounter_cache", i)
        patient = self._any_patient("claim_encounter_cache", i)
        return (_id("claim_encounter_cache", i), patient, _json({"claim": i}), created)

    def patient_event(self, i: int) -> Row:
        created, _updated, _gone = self._times("patient_event", i)
        patient = self._any_patient("patient_event", i)
        return (_id("patient_event", i), patient, _EVENT_TYPES[i % 6], created)

    def _body(self, table: str, i: int, *others: Cell) -> Row:
        body = self._bodies.body(i, self._words(table, i))
        return (_id(table, i), body, *others, *self._times(table, i))

    def _times(self, table: str, i: int) -> tuple[Cell, Cell, Cell]:
        """When a row was created, updated and, now and then, deleted."""
        dice = self._dice[table]
        created = dice.moment(i)
        updated = created + timedelta(microseconds=dice.below(86_400_000_000, i, "updated"))
        gone = updated if dice.below(100, i, "deleted") < 3 else None
        return created, updated, gone

    def _words(self, table: str, i: int) -> str:
        return self._dice[table].text(i, _TEXTS)

    def _patient_of_goal(self, i: int) -> int:
        return self._dice["goal"].below(len(self._patients), i, "patient")

    def _any_patient(self, table: str, i: int) -> str:
        return self._patients[self._dice[table].below(len(self._patients), i, "patient")].id

    def _any_user(self, i: int) -> str:
        return self._users[i * 13 % len(self._users)].id

    def _some(self, table: str, i: int) -> str:
        """The id of a row of a table, evenly spread."""
        return _id(table, i % self._counts[table])


_END_OF_TIME = datetime(2999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


def _id(table: str, i: int) -> str:
    return identifier(f"commons.{table}", i)


def _moment(value: Cell) -> datetime:
    assert isinstance(value, datetime)
    return value


def _score(i: int) -> str | None:
    extremes = {1: "99999999.99", 2: "-0.01", 3: "0.10", 4: None}
    return extremes.get(i % 50, f"{i % 28}.{i % 4 * 25:02}")


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- Building -------------------------------------------------------------------------------

_TOUCH = (
    "\"updatedAt\" = TIMESTAMPTZ '2021-06-20 05:00:00.123456+00' + {mutation} * INTERVAL '12 hours'"
)
_EDITS = {
    "user": Edit(update=f"{_TOUCH}, \"lastLoginAt\" = TIMESTAMPTZ '2021-06-20 04:59:59.5+00'"),
    "patient": Edit(update=f"{_TOUCH}, \"pcpPractice\" = 'Practice {{mutation}}'"),
    "patient_attribute": Edit(update=_TOUCH, grows=True, shrinks=True),
    "patient_acuity": Edit(grows=True),
    "care_team": Edit(update=f'{_TOUCH}, "deletedAt" = "updatedAt"', grows=True),
    "goal": Edit(update=f"{_TOUCH}, label = 'changed {{mutation}}'", grows=True),
    "task": Edit(update=f"{_TOUCH}, status = 'changed {{mutation}}'", grows=True),
    "task_label": Edit(grows=True, shrinks=True),
    "goal_comment": Edit(update=_TOUCH, grows=True, shrinks=True),
    "task_comment": Edit(grows=True, shrinks=True),
    "timeline_event": Edit(update=f'{_TOUCH}, "isPublished" = NOT "isPublished"', grows=True),
    "note": Edit(update=f"{_TOUCH}, text = 'revised {{mutation}}'", grows=True),
    "note_revision": Edit(grows=True, shrinks=True),
    "event": Edit(grows=True),
    "appointment": Edit(update=f"{_TOUCH}, title = 'Moved {{mutation}}'", grows=True),
    "patient_answer": Edit(update=f"{_TOUCH}, \"answerValue\" = '{{mutation}}'", grows=True),
    "patient_document": Edit(update=_TOUCH, shrinks=True),
    "outreach_attempt": Edit(update=_TOUCH, grows=True, shrinks=True),
    "phone_call": Edit(grows=True),
    "sms_message": Edit(update=f"{_TOUCH}, body = 'changed {{mutation}}'", grows=True),
}


@lru_cache(maxsize=4)
def sample(scale: float = 1.0, seed: int = 2021) -> Sample:
    """The database as a plan that nothing has built yet."""
    return Sample(
        columns=_COLUMNS,
        counts=row_counts(scale),
        row=_Rows(scale, seed).row,
        seed=seed,
        flaws=_FLAWS,
        edits=_EDITS,
        spared=_spared,
        before=_BEFORE,
        after=_AFTER,
    )


def create(
    server: PostgreSQL,
    *,
    database: str = "commons",
    scale: float = 1.0,
    seed: int = 2021,
    progress: Progress | None = None,
) -> None:
    """Create the sample database and its archive from nothing, with a login that may read it."""
    sample(scale, seed).create(server, database, progress)


def change(
    server: PostgreSQL,
    *,
    database: str = "commons",
    scale: float = 1.0,
    seed: int = 2021,
    mutation: int = 1,
    progress: Progress | None = None,
) -> None:
    """Edit the living database as half a day does, with the scale and seed of the creation."""
    sample(scale, seed).change(server, database, mutation, progress)
