"""An invented Elation database: every source table, plausible rows, and rows known to be bad.

The same scale and seed always give the same rows. All names, texts and numbers are made up.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from pymysql.cursors import Cursor

from mirror_assets.sample.generator import (
    CITIES,
    CREDENTIALS,
    PHRASES,
    SPECIALTIES,
    STREETS,
    Cell,
    Flaw,
    Progress,
    Row,
    full_name,
    npi,
    optional,
    phone,
    plain,
)
from mirror_assets.sample.generator import SPECIAL_TEXTS as _SPECIAL_TEXTS
from mirror_assets.sample.generator import BadRow as BadRow
from mirror_assets.sample.servers import MariaDB

ARCHIVE_SCHEMA = "elation_archive"
ARCHIVE_TABLE = "visit_note"
VIEW = "v_signed_visit_note"
EMPTY_TABLE = "claim_attachment"
TYPE_TABLE = "device_reading"
VENDOR_TABLE = "vendor_job_log"
ALTERED_TABLE = "bill"
BIG_TABLE = "visit_note_bullet_big"

# A surrogate pair encoded half by half (CESU-8): MariaDB lets it into utf8mb4 even in strict
# mode, while strict decoders refuse it.
INVALID_BYTES = b"\xed\xa0\xbd\xed\xb8\x80"

_STRICT = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"


# --- Tables ---------------------------------------------------------------------------------

# The order is that of the vendor's rebuild.
_COLUMNS: dict[str, str] = {
    "practice": """
        id bigint NOT NULL PRIMARY KEY,
        name varchar(200) NOT NULL,
        address_line1 varchar(200) NOT NULL,
        address_line2 varchar(200) NULL,
        city varchar(100) NOT NULL,
        state varchar(2) NOT NULL,
        zip varchar(10) NOT NULL,
        phone varchar(30) NULL,
        fax varchar(30) NULL
    """,
    "user": """
        id bigint NOT NULL PRIMARY KEY,
        email varchar(254) NOT NULL,
        is_active tinyint(1) NOT NULL,
        practice_id bigint NOT NULL,
        first_name varchar(100) NULL,
        last_name varchar(100) NULL,
        is_practice_admin tinyint(1) NOT NULL,
        user_type varchar(30) NOT NULL,
        office_staff_id bigint NULL,
        physician_id bigint NULL,
        specialty varchar(100) NULL,
        credentials varchar(50) NULL,
        npi varchar(20) NULL
    """,
    "physician": """
        id bigint NOT NULL PRIMARY KEY,
        user_id bigint NOT NULL,
        npi varchar(20) NULL,
        specialty varchar(100) NULL
    """,
    "office_staff": """
        id bigint NOT NULL PRIMARY KEY,
        user_id bigint NOT NULL,
        title varchar(100) NULL
    """,
    "service_location": """
        id bigint NOT NULL PRIMARY KEY,
        practice_id bigint NOT NULL,
        address varchar(200) NOT NULL,
        suite varchar(50) NULL,
        city varchar(100) NOT NULL,
        state varchar(2) NOT NULL,
        zip varchar(10) NOT NULL,
        phone varchar(30) NULL,
        fax varchar(30) NULL,
        is_primary tinyint(1) NOT NULL,
        creation_time datetime NULL,
        deletion_time datetime NULL,
        created_by_user_id bigint NULL,
        deleted_by_user_id bigint NULL
    """,
    "patient": """
        id bigint NOT NULL PRIMARY KEY,
        first_name varchar(100) NOT NULL,
        last_name varchar(100) NOT NULL,
        dob date NULL,
        sex varchar(20) NULL,
        practice_id bigint NOT NULL,
        primary_physician_user_id bigint NULL,
        notes longtext NULL,
        last_modified datetime NOT NULL,
        deletion_time datetime NULL
    """,
    "patient_insurance": """
        patient_id bigint NOT NULL,
        member_id varchar(50) NOT NULL,
        `rank` varchar(20) NOT NULL
    """,
    "patient_immunization": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        name varchar(200) NULL,
        manufacturer_name varchar(200) NULL,
        method varchar(100) NULL,
        administered_date date NULL,
        expiration_date date NULL,
        cvx int NULL,
        deletion_time datetime NULL
    """,
    "icd10": """
        id bigint NOT NULL PRIMARY KEY,
        code varchar(10) NOT NULL,
        description varchar(255) NOT NULL
    """,
    "icd9": """
        id bigint NOT NULL PRIMARY KEY,
        code varchar(10) NOT NULL,
        description varchar(255) NOT NULL
    """,
    "document_tag": """
        id bigint NOT NULL PRIMARY KEY,
        practice_id bigint NULL,
        value varchar(255) NOT NULL,
        description varchar(500) NULL,
        code_type varchar(20) NULL,
        code varchar(50) NULL,
        concept_name varchar(255) NULL
    """,
    "visit_note": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        practice_id bigint NOT NULL,
        name varchar(100) NULL,
        document_date datetime NOT NULL,
        chart_feed_date datetime NOT NULL,
        physician_user_id bigint NULL,
        signed_by_user_id bigint NULL,
        created_by_user_id bigint NULL,
        deleted_by_user_id bigint NULL,
        last_modified datetime NULL,
        creation_time datetime NULL,
        deletion_time datetime NULL,
        signed_time datetime NULL,
        from_plr int NOT NULL,
        transition_of_care varchar(50) NULL,
        meds_reconciled tinyint(1) NULL,
        current_meds_documented tinyint(1) NULL
    """,
    "visit_note_bullet": """
        id bigint NOT NULL PRIMARY KEY,
        visit_note_id bigint NOT NULL,
        parent_bullet_id bigint NULL,
        category varchar(50) NOT NULL,
        sequence int NOT NULL,
        text longtext NOT NULL,
        deleted_date datetime NULL
    """,
    "visit_note_document_tag": """
        visit_note_id bigint NOT NULL,
        document_tag_id bigint NOT NULL,
        PRIMARY KEY (visit_note_id, document_tag_id)
    """,
    "non_visit_note": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        practice_id bigint NOT NULL,
        note_type varchar(50) NULL,
        document_date datetime NOT NULL,
        chart_feed_date datetime NOT NULL,
        last_modified datetime NULL,
        creation_time datetime NULL,
        deletion_time datetime NULL,
        signed_time datetime NULL,
        created_by_user_id bigint NULL,
        deleted_by_user_id bigint NULL,
        signed_by_user_id bigint NULL,
        from_plr int NOT NULL
    """,
    "non_visit_note_bullet": """
        id bigint NOT NULL PRIMARY KEY,
        non_visit_note_id bigint NOT NULL,
        sequence int NOT NULL,
        text longtext NOT NULL
    """,
    "non_visit_note_document_tag": """
        non_visit_note_id bigint NOT NULL,
        document_tag_id bigint NOT NULL,
        PRIMARY KEY (non_visit_note_id, document_tag_id)
    """,
    "lab_report": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        practice_id bigint NOT NULL,
        custom_title varchar(200) NULL,
        report_type varchar(50) NULL,
        requisition_number varchar(50) NULL,
        collected_date datetime NULL,
        reported_date datetime NULL,
        document_date datetime NOT NULL,
        chart_feed_date datetime NULL,
        signed_by_user_id bigint NULL,
        signed_time datetime NULL,
        creation_time datetime NULL,
        deletion_time datetime NULL
    """,
    "lab_report_document_tag": """
        lab_report_id bigint NOT NULL,
        document_tag_id bigint NOT NULL,
        PRIMARY KEY (lab_report_id, document_tag_id)
    """,
    "bill": """
        id bigint NOT NULL PRIMARY KEY,
        visit_note_id bigint NOT NULL,
        practice_id bigint NOT NULL,
        notes longtext NULL,
        ref_number varchar(50) NULL,
        billing_status varchar(50) NULL,
        billing_error longtext NULL,
        referring_provider varchar(200) NULL,
        referring_provider_state varchar(2) NULL,
        billing_date datetime NULL,
        copay_collection_date datetime NULL,
        creation_time datetime NULL,
        last_modified datetime NULL,
        service_location_id bigint NULL,
        place_of_service int NULL,
        show_dual_coding tinyint(1) NOT NULL,
        deferred_bill tinyint(1) NOT NULL,
        copay_amount decimal(10,2) NULL,
        created_by_user_id bigint NULL
    """,
    "bill_item": """
        id bigint NOT NULL PRIMARY KEY,
        bill_id bigint NOT NULL,
        seqno int NOT NULL,
        cpt varchar(20) NOT NULL,
        modifier_1 varchar(5) NULL,
        modifier_2 varchar(5) NULL,
        modifier_3 varchar(5) NULL,
        modifier_4 varchar(5) NULL,
        units decimal(10,2) NULL,
        unit_charge decimal(10,2) NULL,
        last_modified datetime NULL,
        creation_time datetime NULL,
        deletion_time datetime NULL,
        created_by_user_id bigint NULL,
        deleted_by_user_id bigint NULL
    """,
    "bill_item_dx": """
        bill_item_id bigint NOT NULL,
        seqno int NOT NULL,
        dx varchar(20) NOT NULL,
        icd10_id bigint NOT NULL,
        icd9_id bigint NULL
    """,
    "appointment": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NULL,
        physician_user_id bigint NULL,
        appt_type varchar(100) NULL,
        description longtext NULL,
        billing_note longtext NULL,
        duration int NULL,
        appt_time datetime NOT NULL,
        creation_time datetime NOT NULL,
        status varchar(50) NULL,
        deletion_time datetime NULL
    """,
    "appointment_status": """
        id bigint NOT NULL PRIMARY KEY,
        appointment_id bigint NOT NULL,
        status varchar(50) NOT NULL,
        creation_time datetime NOT NULL,
        created_by_user_id bigint NULL,
        deletion_time datetime NULL
    """,
    "med_order": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        prescribing_user_id bigint NULL,
        creation_time datetime NULL,
        last_modified datetime NULL,
        deletion_time datetime NULL,
        type varchar(50) NULL,
        medication_type varchar(50) NULL,
        route varchar(50) NULL,
        form varchar(50) NULL,
        strength varchar(50) NULL,
        qty varchar(50) NULL,
        auth_refills varchar(50) NULL,
        ndc varchar(50) NULL,
        displayed_medication_name varchar(255) NULL,
        directions longtext NULL,
        pharmacy_instructions longtext NULL,
        start_date date NULL
    """,
    "referral_order": """
        id bigint NOT NULL PRIMARY KEY,
        patient_id bigint NOT NULL,
        prescribing_user_id bigint NULL,
        practice_id bigint NOT NULL,
        creation_time datetime NULL,
        last_modified datetime NULL,
        deletion_time datetime NULL,
        recipient_org_name varchar(200) NULL,
        recipient_firstname varchar(100) NULL,
        recipient_lastname varchar(100) NULL,
        recipient_credentials varchar(50) NULL,
        recipient_npi varchar(20) NULL,
        recipient_specialty varchar(100) NULL,
        subject varchar(255) NULL,
        body longtext NULL,
        delivery_method varchar(50) NULL
    """,
    "claim_attachment": """
        id bigint NOT NULL PRIMARY KEY,
        bill_id bigint NULL,
        file_name varchar(255) NULL,
        uploaded_time datetime NULL
    """,
    "device_reading": """
        id bigint NOT NULL PRIMARY KEY,
        quality tinyint(4) NOT NULL,
        channel smallint NULL,
        sample_count int NOT NULL,
        device_serial bigint NULL,
        ratio double NULL,
        level float NULL,
        cost decimal(10,2) NULL,
        raw binary(16) NULL,
        unit char(8) NULL,
        summary text NULL,
        detail mediumtext NULL,
        payload longtext NULL,
        reading_date date NULL,
        reading_time datetime(6) NULL,
        is_valid tinyint(1) NULL
    """,
    "vendor_job_log": """
        id bigint NOT NULL PRIMARY KEY,
        job_name varchar(100) NOT NULL,
        started_at datetime NOT NULL,
        finished_at datetime NULL,
        message text NULL
    """,
}

TABLES: tuple[str, ...] = tuple(_COLUMNS)
"""Every base table of the main schema, in the order of the vendor's rebuild."""

SOURCE_TABLES: tuple[str, ...] = tuple(
    name
    for name in _COLUMNS
    if name not in {"physician", "office_staff", "patient", EMPTY_TABLE, TYPE_TABLE, VENDOR_TABLE}
)
"""The tables whose names and columns are known from their readers."""

_CHARACTER_SETS = {"icd9": "latin1"}


# --- Row counts -----------------------------------------------------------------------------

_FULL_COUNTS = {
    "practice": 12,
    "service_location": 24,
    "patient": 2_000,
    "patient_insurance": 2_600,
    "patient_immunization": 4_000,
    "document_tag": 300,
    "visit_note": 20_000,
    "visit_note_bullet": 150_000,
    "visit_note_document_tag": 5_000,
    "non_visit_note": 20_000,
    "non_visit_note_bullet": 60_000,
    "non_visit_note_document_tag": 3_500,
    "lab_report": 6_000,
    "lab_report_document_tag": 1_500,
    "bill": 19_000,
    "bill_item": 60_000,
    "bill_item_dx": 80_000,
    "appointment": 12_000,
    "appointment_status": 30_000,
    "med_order": 8_000,
    "referral_order": 3_000,
    "device_reading": 500,
}
_LEAST = {"document_tag": 24, "device_reading": 24, "patient": 12, "service_location": 5}
_LEAST_OTHERS = 6
_LEAST_USERS = 10


def row_counts(scale: float) -> dict[str, int]:
    """The rows of every base table at a scale; 1.0 is a practice of about 2,000 members."""
    users = max(_LEAST_USERS, round(40 * scale))
    counts = {
        name: max(_LEAST.get(name, _LEAST_OTHERS), round(full * scale))
        for name, full in _FULL_COUNTS.items()
    }
    fixed = {
        "user": users,
        "physician": (users + 1) // 2,
        "office_staff": users // 2,
        "icd10": len(_ICD10),
        "icd9": len(_ICD9),
        EMPTY_TABLE: 0,
        VENDOR_TABLE: 8,
    }
    known = counts | fixed
    return {name: known[name] for name in TABLES}


# --- Rows known to be bad -------------------------------------------------------------------


_FLAWS = (
    Flaw("patient", "dob", "invalid_date", 1, "'2021-00-15'"),
    Flaw("patient_immunization", "administered_date", "out_of_range", 2, "'9999-12-31'"),
    Flaw("visit_note", "meds_reconciled", "not_boolean", 1, "2"),
    Flaw("med_order", "last_modified", "zero_date", 2, "'0000-00-00 00:00:00'"),
    Flaw(
        "referral_order",
        "body",
        "invalid_encoding",
        1,
        f"X'{(b'Please evaluate ' + INVALID_BYTES + b' thank you').hex()}'",
    ),
)


def known_bad(scale: float = 1.0, seed: int = 2021) -> list[BadRow]:
    """The bad cells of a sample database; they survive every refresh of the same scale and seed."""
    return [
        BadRow(flaw.table, {"id": _id(flaw.table, index)}, flaw.column, flaw.kind)
        for flaw in _FLAWS
        for index in _flawed_rows(flaw, scale, seed)
    ]


def _flawed_rows(flaw: Flaw, scale: float, seed: int) -> list[int]:
    rng = random.Random(f"{seed}:flaw:{flaw.table}")
    return sorted(rng.sample(range(row_counts(scale)[flaw.table]), flaw.rows))


# --- Words ----------------------------------------------------------------------------------

_STAFF_TITLES = ("Front Desk", "Medical Assistant", "Care Coordinator")
_SECTIONS = ("Reason", "HPI", "Med", "PE", "Assessment", "Plan", "Followup")
_VISIT_NAMES = (
    "Office Visit Note",
    "Telemedicine Note",
    "House Call Visit Note",
    "Telephone Visit Note",
    "Async Visit Note",
    "App Visit Note",
    "Hospital Visit Note",
    "RN Home Visit",
    "Visit Note",
    None,
)
_NOTE_TYPES = ("phone", "nonvisit", "email", "", None)
_APPOINTMENT_TYPES = (
    "Annual Provider Visit - Home",
    "Medical Intake - Hub",
    "Follow Up - Televideo",
    "Annual Provider Visit - Televideo",
    "Telephonic Check In",
    "Medical Intake - Home",
    None,
)
_OUTCOMES = (
    "completed",
    "checkedout",
    "billed",
    "cancelled",
    "canceled",
    "notseen",
    "no show",
    "scheduled",
)
_CPT = ("99213", "99214", "99349", "99350", "G0439", "3074F", "96127", "")
_VACCINES = (
    (212, "COVID-19, Ad26"),
    (213, "COVID-19, unspecified"),
    (140, "Influenza"),
    (33, "PPV"),
)
_DRUGS = (
    ("Metformin", "tablet", "500 mg"),
    ("Lisinopril", "tablet", "10 mg"),
    ("Albuterol HFA", "inhaler", "90 mcg/act"),
    ("Insulin glargine", "solution", "100 unit/mL"),
    ("Sertraline", "tablet", "50 mg"),
)
_CODE_TYPES = ("CPT", "cptii", "HCPCS", "ICD10", "icd10", "LOINC", "SNOMED", None)
_HCC_ANSWERS = ("CONFIRMED", "RESOLVED", "DISCONFIRMED", "INCONCLUSIVE")
_ICD10 = (
    ("E11.9", "Type 2 diabetes mellitus without complications"),
    ("I10", "Essential (primary) hypertension"),
    ("E78.5", "Hyperlipidemia, unspecified"),
    ("J45.909", "Unspecified asthma, uncomplicated"),
    ("F32.9", "Major depressive disorder, single episode, unspecified"),
    ("N18.3", "Chronic kidney disease, stage 3 (moderate)"),
    ("I50.9", "Heart failure, unspecified"),
    ("J44.9", "Chronic obstructive pulmonary disease, unspecified"),
    ("M54.5", "Low back pain"),
    ("Z23", "Encounter for immunization"),
    ("E66.9", "Obesity, unspecified"),
    ("O24.419", "Gestational diabetes mellitus in pregnancy, unspecified control"),
    ("H81.09", "Ménière's disease, unspecified ear"),
    ("M35.00", "Sjögren syndrome, unspecified"),
    ("F11.20", "Opioid dependence, uncomplicated"),
    ("G47.33", "Obstructive sleep apnea (adult) (pediatric)"),
)
_ICD9 = (
    ("250.00", "Diabetes mellitus without mention of complication"),
    ("401.9", "Unspecified essential hypertension"),
    ("272.4", "Other and unspecified hyperlipidemia"),
    ("493.90", "Asthma, unspecified"),
    ("386.00", "Ménière's disease, unspecified"),
    ("710.2", "Sicca syndrome (Sjögren's)"),
    ("724.2", "Lumbago"),
    ("278.00", "Obesity, unspecified"),
    ("357.0", "Acute infective polyneuritis (Guillain-Barré)"),
    ("327.23", "Obstructive sleep apnea, 20°-30° positional"),
)


# --- Rows -----------------------------------------------------------------------------------

_FIRST_DAY = datetime(2019, 1, 1)
_DAYS = 900
_BASE_ID = 140_700_000_000_000


class _Visit(NamedTuple):
    patient: int
    user: int
    start: datetime
    signed: datetime | None


class _Rows:
    """Makes the rows of each table; the method of a table carries its name.

    A row depends on the seed and its own number only, so a longer table starts with the same
    rows. Numbers beyond the table's count are the rows that a refresh adds.
    """

    def __init__(self, counts: dict[str, int], seed: int) -> None:
        self._counts = counts
        self._seed = seed
        self._rng = random.Random()
        self._visits = self._encounters("visit_note")
        self._notes = self._encounters("non_visit_note")

    def of(self, table: str, count: int) -> Iterator[Row]:
        """The first rows of a table."""
        maker: Callable[[int], Row] = getattr(self, table)
        self._rng = random.Random(f"{self._seed}:{table}")
        return map(maker, range(count))

    def practice(self, i: int) -> Row:
        city, state = CITIES[i % len(CITIES)]
        return (
            _id("practice", i),
            f"{city} Sample Practice {i + 1}",
            f"{100 + i} {STREETS[i % len(STREETS)]}",
            optional(i, f"Suite {i + 1}"),
            city,
            state,
            f"{10000 + 37 * i:05}",
            phone(i),
            optional(i + 5, phone(i + 1)),
        )

    def user(self, i: int) -> Row:
        physician = i % 2 == 0
        first, last = full_name(i)
        # A user type of empty text occurs in the source.
        user_type = "" if i % 10 == 9 else "physician" if physician else "office_staff"
        tag = "+elation" if i % 3 == 0 else ""
        return (
            _id("user", i),
            f"{plain(first)}.{plain(last)}{i}{tag}@example.org",
            0 if i % 11 == 10 else 1,
            _id("practice", self._practice_of(i)),
            first,
            last,
            1 if i % 8 == 0 else 0,
            user_type,
            None if physician else _id("office_staff", i // 2),
            _id("physician", i // 2) if physician else None,
            SPECIALTIES[i // 2 % len(SPECIALTIES)] if physician else None,
            CREDENTIALS[i % len(CREDENTIALS)] if i % 7 else None,
            npi(i) if physician else None,
        )

    def physician(self, i: int) -> Row:
        specialty = SPECIALTIES[i % len(SPECIALTIES)]
        return (_id("physician", i), _id("user", 2 * i), npi(2 * i), specialty)

    def office_staff(self, i: int) -> Row:
        title = _STAFF_TITLES[i % len(_STAFF_TITLES)]
        return (_id("office_staff", i), _id("user", 2 * i + 1), optional(i, title))

    def service_location(self, i: int) -> Row:
        city, state = CITIES[i % len(CITIES)]
        created = self._time()
        gone = i % 5 == 4
        return (
            _id("service_location", i),
            _id("practice", i % self._counts["practice"]),
            f"{500 + i} {STREETS[i % len(STREETS)]}",
            optional(i, f"Floor {i + 1}"),
            city,
            state,
            f"{10000 + 37 * i:05}",
            phone(i),
            None,
            1 if i < self._counts["practice"] else 0,
            created,
            created + timedelta(days=30) if gone else None,
            self._any("user"),
            self._any("user") if gone else None,
        )

    def patient(self, i: int) -> Row:
        first, last = full_name(7 * i + 3)
        physician = self._physician()
        modified = self._time()
        return (
            _id("patient", i),
            first,
            f"{last} {i + 1}",
            date(1930, 1, 1) + timedelta(days=self._rng.randrange(29_000)),
            ("Female", "Male", "Unknown", "", None)[i % 5],
            _id("practice", self._practice_of(physician)),
            _id("user", physician) if i % 9 else None,
            self._optional_text(i),
            modified,
            self._rarely(modified),
        )

    def patient_insurance(self, i: int) -> Row:
        patients = self._counts["patient"]
        rank = ("primary", "secondary", "tertiary")[min(i // patients, 2)]
        return (_id("patient", i % patients), _insurance_number(i), rank)

    def patient_immunization(self, i: int) -> Row:
        cvx, name = _VACCINES[i % len(_VACCINES)]
        given = self._time()
        return (
            _id("patient_immunization", i),
            self._any("patient"),
            name,
            optional(i, "Sample Vaccines, Inc."),
            ("Intramuscular", "Subcutaneous", None)[i % 3],
            given.date() if i % 12 else None,
            (given + timedelta(days=365)).date(),
            cvx if i % 10 else None,
            self._rarely(given),
        )

    def icd10(self, i: int) -> Row:
        return (_id("icd10", i), *_ICD10[i])

    def icd9(self, i: int) -> Row:
        return (_id("icd9", i), *_ICD9[i])

    def document_tag(self, i: int) -> Row:
        code, description = _ICD10[i % len(_ICD10)]
        practice = None if i % 3 else _id("practice", i % self._counts["practice"])
        key = _id("document_tag", i)
        if i % 4 == 1:
            answer = f"{code.replace('.', '')} {_HCC_ANSWERS[i // 4 % 4]}"
            return (key, practice, answer, None, None, None, None)
        if i % 4 == 3:
            answer = f"HCC{i} {_HCC_ANSWERS[i // 4 % 4]}"
            return (key, practice, answer, "", None, "", None)
        code_type = _CODE_TYPES[i // 2 % len(_CODE_TYPES)]
        is_icd = code_type is not None and code_type.lower() == "icd10"
        coded = code if is_icd else _CPT[i // 2 % len(_CPT)]
        concept = optional(i, "Sample concept")
        return (key, practice, f"{description} ({i})", description, code_type, coded, concept)

    def visit_note(self, i: int) -> Row:
        visit = self._visits[i]
        user = _id("user", visit.user)
        gone = self._rarely(visit.start)
        return (
            _id("visit_note", i),
            _id("patient", visit.patient),
            _id("practice", self._practice_of(visit.user)),
            _VISIT_NAMES[i % len(_VISIT_NAMES)],
            visit.start,
            visit.start + timedelta(minutes=1),
            user if i % 6 else None,
            user if visit.signed else None,
            self._any("user"),
            self._any("user") if gone else None,
            visit.start + timedelta(hours=1),
            visit.start - timedelta(minutes=5),
            gone,
            visit.signed,
            0 if i % 50 else 1,
            optional(i, "Hospital discharge"),
            (1, 0, None)[i % 3],
            (None, 1, 1, 0)[i % 4],
        )

    def visit_note_bullet(self, i: int) -> Row:
        note, position = self._share(i, "visit_note_bullet", "visit_note")
        parent = None if position % 3 == 0 else _id("visit_note_bullet", i - position % 3)
        return (
            _id("visit_note_bullet", i),
            _id("visit_note", note),
            parent if i < self._counts["visit_note_bullet"] else None,
            _SECTIONS[position % len(_SECTIONS)],
            position,
            self._text(i),
            self._rarely(self._visits[note].start),
        )

    def visit_note_document_tag(self, i: int) -> Row:
        return self._tag_link(i, "visit_note_document_tag", "visit_note")

    def non_visit_note(self, i: int) -> Row:
        note = self._notes[i]
        user = _id("user", note.user)
        gone = self._rarely(note.start)
        return (
            _id("non_visit_note", i),
            _id("patient", note.patient),
            _id("practice", self._practice_of(note.user)),
            _NOTE_TYPES[i % len(_NOTE_TYPES)],
            note.start,
            note.start + timedelta(minutes=1),
            note.start + timedelta(hours=2),
            note.start,
            gone,
            note.signed,
            user,
            self._any("user") if gone else None,
            user if note.signed else None,
            0,
        )

    def non_visit_note_bullet(self, i: int) -> Row:
        note, position = self._share(i, "non_visit_note_bullet", "non_visit_note")
        key = _id("non_visit_note_bullet", i)
        return (key, _id("non_visit_note", note), position, self._text(i))

    def non_visit_note_document_tag(self, i: int) -> Row:
        return self._tag_link(i, "non_visit_note_document_tag", "non_visit_note")

    def lab_report(self, i: int) -> Row:
        physician = self._physician()
        collected = self._time()
        reported = collected + timedelta(days=1)
        signed = i % 5 != 0
        return (
            _id("lab_report", i),
            self._any("patient"),
            _id("practice", self._practice_of(physician)),
            optional(i, "Basic metabolic panel, fasting"),
            ("Lab", "Imaging", "", None)[i % 4],
            f"REQ-{i:07}",
            collected,
            reported,
            reported,
            reported + timedelta(minutes=2),
            _id("user", physician) if signed else None,
            reported + timedelta(hours=3) if signed else None,
            reported,
            self._rarely(reported),
        )

    def lab_report_document_tag(self, i: int) -> Row:
        return self._tag_link(i, "lab_report_document_tag", "lab_report")

    def bill(self, i: int) -> Row:
        note = i * self._counts["visit_note"] // self._counts["bill"]
        # A second bill for the same note is rare but real.
        note = note - 1 if i % 200 == 199 else note
        visit = self._visits[note]
        created = visit.start + timedelta(hours=4)
        return (
            _id("bill", i),
            _id("visit_note", note),
            _id("practice", self._practice_of(visit.user)),
            self._optional_text(i),
            f"B{i:08}" if i % 4 else None,
            ("billed", "unbilled", "BilledError", "", None)[i % 5],
            'Rejected: missing modifier, see "box 24"' if i % 5 == 2 else None,
            optional(i + 3, "Dr. Echo Sampleton"),
            "NY" if i % 3 else None,
            created + timedelta(days=2) if i % 5 == 0 else None,
            created if i % 7 == 0 else None,
            created,
            created + timedelta(days=1),
            self._any("service_location") if i % 8 else None,
            (11, 12, 2, 11, None)[i % 5],
            1 if i % 6 == 0 else 0,
            1 if i % 9 == 0 else 0,
            f"{5 * (i % 7)}.{i % 100:02}" if i % 7 else None,
            _id("user", visit.user),
        )

    def bill_item(self, i: int) -> Row:
        bill, position = self._share(i, "bill_item", "bill")
        created = self._time()
        gone = self._rarely(created)
        return (
            _id("bill_item", i),
            _id("bill", bill),
            position,
            _CPT[self._rng.randrange(len(_CPT))],
            "25" if i % 6 == 0 else None,
            "95" if i % 12 == 0 else None,
            "" if i % 30 == 0 else None,
            None,
            "1.00" if i % 10 else "2.50",
            f"{20 + i % 180}.{i % 100:02}" if i % 25 else None,
            created + timedelta(hours=1),
            created,
            gone,
            self._any("user"),
            self._any("user") if gone else None,
        )

    def bill_item_dx(self, i: int) -> Row:
        item, position = self._share(i, "bill_item_dx", "bill_item")
        code = self._rng.randrange(len(_ICD10))
        old = None if i % 3 == 0 else _id("icd9", code % len(_ICD9))
        dx = "" if i % 20 == 0 else _ICD10[code][0]
        return (_id("bill_item", item), position, dx, _id("icd10", code), old)

    def appointment(self, i: int) -> Row:
        # It precedes the visit note of the same number, on the same day with the same people.
        visit = self._visits[i % len(self._visits)]
        created = visit.start - timedelta(days=self._rng.randrange(1, 60))
        return (
            _id("appointment", i),
            None if i % 25 == 24 else _id("patient", visit.patient),
            _id("user", visit.user),
            _APPOINTMENT_TYPES[i % len(_APPOINTMENT_TYPES)],
            self._optional_text(i),
            optional(i, 'Bring logbook, "blue" card'),
            (30, 60, 15, 45, None)[i % 5],
            visit.start.replace(minute=visit.start.minute // 15 * 15),
            created,
            _OUTCOMES[i % len(_OUTCOMES)],
            self._rarely(created),
        )

    def appointment_status(self, i: int) -> Row:
        appointment, position = self._share(i, "appointment_status", "appointment")
        booked = self._visits[appointment % len(self._visits)].start - timedelta(days=1)
        outcome = _OUTCOMES[appointment % len(_OUTCOMES)]
        created = booked + timedelta(hours=9 * position)
        return (
            _id("appointment_status", i),
            _id("appointment", appointment),
            outcome if position else "scheduled",
            created,
            self._any("user"),
            self._rarely(created),
        )

    def med_order(self, i: int) -> Row:
        name, form, strength = _DRUGS[i % len(_DRUGS)]
        created = self._time()
        ndc = f"{10000 + i % 89999:05}-{i % 10000:04}-{i % 100:02}"
        return (
            _id("med_order", i),
            self._any("patient"),
            _id("user", self._physician()) if i % 20 else None,
            created,
            created + timedelta(days=self._rng.randrange(30)),
            self._rarely(created),
            ("New Rx", "Refill", "Discontinue", None)[i % 4],
            ("prescription", "OTC", None)[i % 3],
            ("oral", "inhalation", "subcutaneous")[i % 3],
            form,
            strength,
            str(30 * (1 + i % 3)),
            ("0", "3", "", None)[i % 4],
            (ndc, ndc.replace("-", "."), f"'{ndc}'", f" {ndc.replace('-', '')} ", None)[i % 5],
            f"{name} {strength} {form}",
            self._text(i),
            optional(i, 'Dispense as written; call "first"'),
            created.date() if i % 6 else None,
        )

    def referral_order(self, i: int) -> Row:
        physician = self._physician()
        created = self._time()
        first, last = full_name(3 * i + 1)
        return (
            _id("referral_order", i),
            self._any("patient"),
            _id("user", physician),
            _id("practice", self._practice_of(physician)),
            created,
            created + timedelta(hours=6),
            self._rarely(created),
            optional(i, "Sample Cardiology Group, PC"),
            first if i % 4 else "",
            last if i % 4 else " ",
            CREDENTIALS[i % len(CREDENTIALS)],
            npi(1000 + i) if i % 5 else None,
            SPECIALTIES[i % len(SPECIALTIES)],
            f"Referral: {PHRASES[i % len(PHRASES)]}",
            self._text(i),
            ("fax", "print", "direct", None)[i % 4],
        )

    def claim_attachment(self, i: int) -> Row:
        return (_id("claim_attachment", i), None, None, None)

    def device_reading(self, i: int) -> Row:
        moment = self._time() + timedelta(microseconds=self._rng.randrange(10**6))
        raw = bytes(self._rng.randrange(256) for _ in range(16))
        special = _SPECIAL_TEXTS[i % len(_SPECIAL_TEXTS)]
        return (
            _id("device_reading", i),
            (7, -128, 127, 0)[i % 4],
            (None, -32768, 32767, i)[i % 4],
            (i, -(2**31), 2**31 - 1)[i % 3],
            (2**53 + 1 + 2 * i, None, 2**63 + 1 - i)[i % 3],
            (self._rng.random() * 1e6, 0.1, -1e-300, None)[i % 4],
            (i / 8, None, -0.5)[i % 3],
            ("99999999.99", "-0.01", "0.10", None)[i % 4],
            (raw, bytes(16), b"\xff" * 16, None)[i % 4],
            ("mmHg", "", "µmol/L", None)[i % 4],
            special,
            None if i % 5 == 0 else special * 3,
            special if i % 7 else None,
            (moment.date(), date(2020, 2, 29), date(1900, 1, 1), None)[i % 4],
            (moment, datetime(2020, 2, 29, 23, 15), None)[i % 3],
            (1, 0, None)[i % 3],
        )

    def vendor_job_log(self, i: int) -> Row:
        begin = _FIRST_DAY + timedelta(days=_DAYS + i, hours=20)
        end = begin + timedelta(minutes=30 + i) if i % 4 else None
        return (_id("vendor_job_log", i), "hosted_db_rebuild", begin, end, optional(i, "done"))

    def _encounters(self, table: str) -> list[_Visit]:
        count = self._counts[table]
        self._rng = random.Random(f"{self._seed}:encounters:{table}")
        return [self._encounter() for _ in range(count + _added_rows(table, count))]

    def _encounter(self) -> _Visit:
        patient = self._rng.randrange(self._counts["patient"])
        user = self._physician()
        start = self._time()
        draft = self._rng.random() < 0.07
        signed = None if draft else start + timedelta(minutes=self._rng.randrange(10, 4000))
        return _Visit(patient, user, start, signed)

    def _tag_link(self, i: int, links: str, documents: str) -> Row:
        """Two different tags for each tagged document, so that no pair occurs twice."""
        tagged = (self._counts[links] + 1) // 2
        document = i // 2 * self._counts[documents] // tagged
        tag = (document * 5 + i % 2) % self._counts["document_tag"]
        return (_id(documents, document), _id("document_tag", tag))

    def _share(self, i: int, children: str, parents: str) -> tuple[int, int]:
        """The parent of an evenly spread child, and the child's place beneath it."""
        child_count, parent_count = self._counts[children], self._counts[parents]
        if i >= child_count:
            return i % parent_count, 1_000 + i - child_count
        parent = i * parent_count // child_count
        return parent, i + (-parent * child_count // parent_count)

    def _physician(self) -> int:
        return 2 * self._rng.randrange(self._counts["physician"])

    def _practice_of(self, user: int) -> int:
        return user // 2 % self._counts["practice"]

    def _any(self, table: str) -> int:
        return _id(table, self._rng.randrange(self._counts[table]))

    def _time(self) -> datetime:
        """A moment of working hours, which no clock change can make ambiguous."""
        minutes = 420 + self._rng.randrange(660)
        return _FIRST_DAY + timedelta(days=self._rng.randrange(_DAYS), minutes=minutes)

    def _rarely(self, after: datetime) -> datetime | None:
        if self._rng.random() >= 0.03:
            return None
        return after + timedelta(days=1)

    def _text(self, i: int) -> str:
        if i % 7 == 0:
            return _SPECIAL_TEXTS[i // 7 % len(_SPECIAL_TEXTS)]
        return ". ".join(self._rng.choices(PHRASES, k=1 + i % 4))

    def _optional_text(self, i: int) -> str | None:
        return None if i % 5 == 0 else self._text(i)


def _id(table: str, index: int) -> int:
    return _BASE_ID + TABLES.index(table) * 1_000_000_000 + 1 + index


# --- What other sample databases know ---------------------------------------------------------


class Patient(NamedTuple):
    """A patient as another system would know the person; ``id`` is the MRN."""

    id: int
    first_name: str
    last_name: str
    birth_date: date
    sex: str | None
    insurance: str | None


class User(NamedTuple):
    """A login; its e-mail address may carry a ``+tag``."""

    id: int
    email: str
    first_name: str
    last_name: str
    npi: str | None
    credentials: str | None


class Appointment(NamedTuple):
    """An appointment with a patient; the times are wall time of the US Pacific coast."""

    patient: int
    physician: User
    kind: str | None
    minutes: int | None
    start: datetime
    created: datetime


def patients(scale: float = 1.0, seed: int = 2021) -> list[Patient]:
    """Every patient of the sample, with true birth dates."""
    counts = row_counts(scale)
    insured = counts["patient_insurance"]
    rows = _Rows(counts, seed).of("patient", counts["patient"])
    return [
        Patient(*row[:5], _insurance_number(i) if i < insured else None)  # type: ignore[call-arg, arg-type]
        for i, row in enumerate(rows)
    ]


def users(scale: float = 1.0, seed: int = 2021) -> list[User]:
    """Every login of the sample."""
    counts = row_counts(scale)
    rows = _Rows(counts, seed).of("user", counts["user"])
    return [User(row[0], row[1], row[4], row[5], row[12], row[11]) for row in rows]  # type: ignore[arg-type]


def appointments(scale: float = 1.0, seed: int = 2021) -> list[Appointment]:
    """Every appointment that is a patient's; the others only block time."""
    counts = row_counts(scale)
    people = {user.id: user for user in users(scale, seed)}
    return [
        Appointment(row[1], people[row[2]], row[3], row[6], row[7], row[8])  # type: ignore[arg-type, index]
        for row in _Rows(counts, seed).of("appointment", counts["appointment"])
        if row[1] is not None
    ]


def _insurance_number(i: int) -> str:
    return f"SMP{i * 7919 % 10**9:09}"


# --- Refreshed rows -------------------------------------------------------------------------

_GROWING = frozenset(
    {
        "visit_note",
        "visit_note_bullet",
        "non_visit_note",
        "non_visit_note_bullet",
        "lab_report",
        "appointment",
        "med_order",
        "referral_order",
        "patient_immunization",
    }
)
# Nothing refers to these tables, so that losing rows leaves no orphans.
_SHRINKING = frozenset(
    {
        "visit_note_document_tag",
        "non_visit_note_bullet",
        "bill_item_dx",
        "appointment_status",
        "med_order",
        "referral_order",
        "patient_immunization",
    }
)
_CHANGING = {
    "user": "specialty",
    "patient": "last_modified",
    "visit_note": "last_modified",
    "visit_note_bullet": "text",
    "non_visit_note": "last_modified",
    "non_visit_note_bullet": "text",
    "lab_report": "custom_title",
    "bill": "last_modified",
    "bill_item": "last_modified",
    "appointment": "appt_type",
    "med_order": "directions",
    "referral_order": "subject",
}


def _added_rows(table: str, count: int) -> int:
    return 1 + count // 200 if table in _GROWING else 0


def _refreshed(
    rows: Iterator[Row],
    column: int | None,
    chosen: tuple[set[int], set[int]],
    mutation: int,
) -> Iterator[Row]:
    changed, removed = chosen
    for i, row in enumerate(rows):
        if i in removed:
            continue
        if column is None or i not in changed:
            yield row
            continue
        yield (*row[:column], _changed_cell(row[column], mutation), *row[column + 1 :])


def _changed_cell(value: Cell, mutation: int) -> Cell:
    if isinstance(value, datetime):
        return value + timedelta(hours=mutation)
    text = value if isinstance(value, str) and value else "Changed"
    return f"{text} (rev {mutation})"


# --- Building -------------------------------------------------------------------------------


class _Builder:
    """Builds tables of one schema over one connection."""

    def __init__(self, cursor: Cursor, schema: str, scale: float, seed: int, folder: Path) -> None:
        self._cursor = cursor
        self._schema = schema
        self._scale = scale
        self._seed = seed
        self._folder = folder
        self._counts = row_counts(scale)
        self._rows = _Rows(self._counts, seed)

    def build(self, table: str, mutation: int = 0) -> None:
        """Drop and recreate one table; a mutation other than 0 gives changed rows."""
        self._cursor.execute("SET SESSION sql_mode = %s", (_STRICT,))
        self._cursor.execute(f"DROP TABLE IF EXISTS {self._name(table)}")
        self._cursor.execute(
            f"CREATE TABLE {self._name(table)} ({_COLUMNS[table]}) "
            f"ENGINE=InnoDB DEFAULT CHARSET={_CHARACTER_SETS.get(table, 'utf8mb4')}"
        )
        columns = self._column_types(table)
        self._load(table, columns, self._table_rows(table, list(columns), mutation))
        self._spoil(table)
        # Without fresh statistics the catalogue shows every table as empty for some seconds.
        self._cursor.execute(f"ANALYZE TABLE {self._name(table)}")

    def _table_rows(self, table: str, columns: Sequence[str], mutation: int) -> Iterator[Row]:
        count = self._counts[table]
        if mutation == 0:
            return self._rows.of(table, count)
        rows = self._rows.of(table, count + _added_rows(table, count))
        rng = random.Random(f"{self._seed}:{mutation}:{table}")
        changed = set(rng.sample(range(count), min(count, 1 + count // 100)))
        removed = set(rng.sample(range(count), 1 + count // 500)) if table in _SHRINKING else set()
        column = columns.index(_CHANGING[table]) if table in _CHANGING else None
        return _refreshed(rows, column, (changed, removed - self._flawed(table)), mutation)

    def _flawed(self, table: str) -> set[int]:
        flaws = [flaw for flaw in _FLAWS if flaw.table == table]
        return {i for flaw in flaws for i in _flawed_rows(flaw, self._scale, self._seed)}

    def _column_types(self, table: str) -> dict[str, str]:
        self._cursor.execute(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            (self._schema, table),
        )
        return dict(self._cursor.fetchall())

    def _load(self, table: str, columns: dict[str, str], rows: Iterator[Row]) -> None:
        path = self._folder / f"{table}.tsv"
        written = _write_rows(path, rows)
        binary = [name for name, data_type in columns.items() if data_type == "binary"]
        targets = [f"@{name}" if name in binary else f"`{name}`" for name in columns]
        decoded = [f"`{name}` = UNHEX(@{name})" for name in binary]
        self._cursor.execute(
            f"LOAD DATA LOCAL INFILE %s INTO TABLE {self._name(table)} CHARACTER SET utf8mb4 "
            r"FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n' "
            f"({', '.join(targets)})" + (f" SET {', '.join(decoded)}" if decoded else ""),
            (str(path),),
        )
        loaded = self._cursor.rowcount
        path.unlink()
        self._refuse_loss(table, written, loaded)

    def _refuse_loss(self, table: str, written: int, loaded: int) -> None:
        """A local load turns errors into warnings even in strict mode."""
        self._cursor.execute("SHOW WARNINGS LIMIT 3")
        warnings = self._cursor.fetchall()
        if loaded != written or warnings:
            raise RuntimeError(f"{table}: loaded {loaded} of {written} rows, warnings {warnings}")

    def _spoil(self, table: str) -> None:
        self._cursor.execute("SET SESSION sql_mode = ''")
        for flaw in _FLAWS:
            if flaw.table != table:
                continue
            for i in _flawed_rows(flaw, self._scale, self._seed):
                self._cursor.execute(
                    f"UPDATE {self._name(table)} SET `{flaw.column}` = {flaw.literal} "
                    "WHERE id = %s",
                    (_id(table, i),),
                )

    def _name(self, table: str) -> str:
        return f"`{self._schema}`.`{table}`"


def create(
    server: MariaDB,
    *,
    schema: str = "elation",
    scale: float = 1.0,
    seed: int = 2021,
    progress: Progress | None = None,
) -> None:
    """Create the sample database and its archive from nothing, with a login that may read both."""
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{schema}`")
        cursor.execute(f"CREATE DATABASE `{schema}`")
        _build_tables(cursor, schema, TABLES, scale, seed, 0, progress)
        cursor.execute(
            f"CREATE VIEW `{schema}`.`{VIEW}` AS SELECT id, patient_id, signed_time "
            f"FROM `{schema}`.visit_note WHERE signed_time IS NOT NULL"
        )
        _create_archive(cursor)
    server.create_reader(schema)
    server.create_reader(ARCHIVE_SCHEMA)


def refresh(
    server: MariaDB,
    *,
    schema: str = "elation",
    scale: float = 1.0,
    seed: int = 2021,
    mode: Literal["whole", "half", "alter"] = "whole",
    mutation: int = 1,
    progress: Progress | None = None,
) -> None:
    """Do what the vendor does once a day, with the scale and seed of the creation.

    `whole` drops and recreates every table with changed rows, `half` stops after the first half
    of `TABLES`, `alter` only changes the structure of `ALTERED_TABLE`. Whatever was rebuilt has a
    newer CREATE_TIME than everything before.
    """
    with closing(server.admin(schema)) as connection, connection.cursor() as cursor:
        _await_next_second(cursor, schema)
        if mode == "alter":
            _alter(cursor, progress)
            return
        tables = TABLES if mode == "whole" else TABLES[: len(TABLES) // 2]
        _build_tables(cursor, schema, tables, scale, seed, mutation, progress)


def _build_tables(
    cursor: Cursor,
    schema: str,
    tables: Sequence[str],
    scale: float,
    seed: int,
    mutation: int,
    progress: Progress | None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        builder = _Builder(cursor, schema, scale, seed, Path(folder))
        for table in tables:
            builder.build(table, mutation)
            if progress is not None:
                progress(table)


def _create_archive(cursor: Cursor) -> None:
    """A table of the same name with other columns: a catalogue query without schema sees both."""
    cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{ARCHIVE_SCHEMA}`")
    cursor.execute(
        f"CREATE OR REPLACE TABLE `{ARCHIVE_SCHEMA}`.`{ARCHIVE_TABLE}` ("
        "id int NOT NULL PRIMARY KEY, archived_on date NOT NULL, payload longtext NULL, "
        "patient_id varchar(40) NULL) ENGINE=InnoDB"
    )
    cursor.executemany(
        f"INSERT INTO `{ARCHIVE_SCHEMA}`.`{ARCHIVE_TABLE}` VALUES (%s, %s, %s, %s)",
        [(i, "2018-12-31", f"archived note {i}", f"old-{i}") for i in range(1, 6)],
    )


def _alter(cursor: Cursor, progress: Progress | None) -> None:
    cursor.execute(f"ALTER TABLE `{ALTERED_TABLE}` ADD COLUMN vendor_probe int NULL")
    cursor.execute(f"ALTER TABLE `{ALTERED_TABLE}` DROP COLUMN vendor_probe")
    if progress is not None:
        progress(ALTERED_TABLE)


def _await_next_second(cursor: Cursor, schema: str) -> None:
    """CREATE_TIME counts whole seconds: a table rebuilt within one would seem unchanged."""
    while True:
        cursor.execute(
            # the clock of files is a little behind
            "SELECT MAX(create_time) + INTERVAL 1050000 MICROSECOND > NOW(6)"
            " FROM information_schema.tables "
            "WHERE table_schema = %s",
            (schema,),
        )
        row = cursor.fetchone()
        if row is None or not row[0]:
            return
        time.sleep(0.05)


def _write_rows(path: Path, rows: Iterator[Row]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="") as handle:
        for row in rows:
            handle.write("\t".join(map(_cell, row)) + "\n")
            written += 1
    return written


def _cell(value: Cell) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, str):
        return value.replace("\\", r"\\").replace("\t", r"\t").replace("\n", r"\n")
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


# --- Tables for benchmarks ------------------------------------------------------------------


def wide_schema(server: MariaDB, *, schema: str, tables: int = 300, rows: int = 2_000) -> None:
    """Create a schema of many small tables of mixed columns, `t_000` and so on."""
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS `{schema}`")
        cursor.execute(f"CREATE DATABASE `{schema}`")
        cursor.execute(f"USE `{schema}`")
        for number in range(tables):
            _wide_table(cursor, f"t_{number:03}", number, rows)
    server.create_reader(schema)


def _wide_table(cursor: Cursor, table: str, number: int, rows: int) -> None:
    cursor.execute(
        f"CREATE TABLE `{table}` (id bigint NOT NULL PRIMARY KEY, label varchar(80) NOT NULL, "
        "body text NULL, happened datetime NOT NULL, amount decimal(12,2) NULL, quantity int NULL) "
        "ENGINE=InnoDB"
    )
    cursor.execute(
        f"INSERT INTO `{table}` SELECT seq, CONCAT('label ', seq), "
        "IF(seq % 9 = 0, NULL, REPEAT('small, \"quoted\" text ', 1 + seq % 5)), "
        "TIMESTAMPADD(MINUTE, seq * 37, '2020-01-01'), seq * 1.25, "
        f"IF(seq % 4 = 0, NULL, seq + {number}) FROM seq_1_to_{rows}"
    )
    cursor.execute(f"ANALYZE TABLE `{table}`")


def big_table(server: MariaDB, *, schema: str, rows: int = 3_000_000) -> None:
    """Create the table `BIG_TABLE` with long texts inside the server."""
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{schema}`")
        cursor.execute(f"USE `{schema}`")
        cursor.execute(f"CREATE OR REPLACE TABLE `{BIG_TABLE}` ({_BIG_COLUMNS}) ENGINE=InnoDB")
        # Lets InnoDB sort and write whole pages instead of logging each row.
        cursor.execute("SET SESSION unique_checks = 0, foreign_key_checks = 0")
        cursor.execute(
            f"INSERT INTO `{BIG_TABLE}` SELECT {_BIG_VALUES} FROM seq_1_to_{rows}",
            (". ".join(PHRASES).replace(",", ";"),),
        )
        cursor.execute(f"ANALYZE TABLE `{BIG_TABLE}`")
    server.create_reader(schema)


_BIG_COLUMNS = """
    id bigint NOT NULL PRIMARY KEY,
    visit_note_id bigint NOT NULL,
    parent_bullet_id bigint NULL,
    category varchar(50) NOT NULL,
    sequence int NOT NULL,
    text longtext NOT NULL,
    units decimal(10,2) NULL,
    document_date date NOT NULL,
    creation_time datetime NOT NULL,
    deleted_date datetime NULL,
    is_signed tinyint(1) NULL
"""
_BIG_VALUES = f"""
    {_BASE_ID} + seq,
    {_BASE_ID} + seq DIV 8,
    IF(seq %% 3 = 0, NULL, {_BASE_ID} + seq - seq %% 3),
    ELT(1 + seq %% 4, 'Reason', 'HPI', 'Med', 'Plan'),
    seq %% 8,
    CONCAT(
        IF(seq %% 50 = 0, 'Says "better", señora 🙂\\n', ''),
        SUBSTRING(%s, 1 + seq * 7 %% 400, 120 + seq %% 55)
    ),
    IF(seq %% 5 = 0, NULL, seq %% 1000 / 4),
    TIMESTAMPADD(DAY, seq %% 900, '2019-01-01'),
    TIMESTAMPADD(MINUTE, seq %% 1000000, '2019-01-01'),
    IF(seq %% 33 = 0, TIMESTAMPADD(MINUTE, seq %% 1000000, '2019-01-02'), NULL),
    IF(seq %% 10 = 0, NULL, seq %% 2)
"""
