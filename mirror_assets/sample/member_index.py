"""An invented member-index database: who a member is, under which numbers, in which cohort.

It knows every patient of the sample Elation database of the same scale and seed. Members and
MRNs that a careful reader must tell apart are there on purpose; see `members`.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from mirror_assets.sample import elation
from mirror_assets.sample.generator import (
    CITIES,
    FIRST_DAY,
    LAST_DAY,
    STREETS,
    Cell,
    Dice,
    Edit,
    Progress,
    Row,
    Sample,
    full_name,
    identifier,
    optional,
    phone,
    plain,
)
from mirror_assets.sample.servers import PostgreSQL

EXCLUDED = ("knex_migrations", "knex_migrations_lock")
EHR = Literal["elation", "acpny"]

# --- Tables ---------------------------------------------------------------------------------

_AUDIT = """
        "createdAt" timestamptz NOT NULL,
        "updatedAt" timestamptz NOT NULL,
        "deletedAt" timestamptz NULL,
        "deletedReason" text NULL,
        "updatedBy" uuid NULL,
        "deletedBy" uuid NULL,
        "clientSource" text NULL
"""
KNEX_COLUMNS = {
    "knex_migrations": """
        id integer NOT NULL PRIMARY KEY,
        name varchar(255) NULL,
        batch integer NULL,
        migration_time timestamptz NULL
    """,
    "knex_migrations_lock": """
        "index" integer NOT NULL PRIMARY KEY,
        is_locked integer NULL
    """,
}
_COLUMNS: dict[str, str] = {
    "category": f"id integer NOT NULL PRIMARY KEY, name varchar(255) NOT NULL, {_AUDIT}",
    "partner": f"id integer NOT NULL PRIMARY KEY, name varchar(255) NOT NULL, {_AUDIT}",
    "datasource": f"id integer NOT NULL PRIMARY KEY, name varchar(255) NOT NULL, {_AUDIT}",
    "cohort": f"""
        id integer NOT NULL PRIMARY KEY,
        name varchar(255) NOT NULL,
        "partnerId" integer NOT NULL,
        "goLiveDate" date NULL,
        "revenueGoLiveDate" date NULL,
        {_AUDIT}
    """,
    "mrn": f"""
        id uuid NOT NULL PRIMARY KEY,
        mrn text NOT NULL,
        name ehr NOT NULL,
        {_AUDIT}
    """,
    "member": f"""
        id uuid NOT NULL PRIMARY KEY,
        "cbhId" bigint NOT NULL UNIQUE,
        "partnerId" integer NOT NULL,
        "cohortId" integer NULL,
        "categoryId" integer NULL,
        "mrnId" uuid NULL,
        "zendeskId" bigint NULL,
        {_AUDIT}
    """,
    "member_insurance": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        "datasourceId" integer NOT NULL,
        "externalId" text NOT NULL,
        current boolean NULL,
        {_AUDIT}
    """,
    "member_insurance_details": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberDatasourceId" uuid NOT NULL,
        "lineOfBusiness" text NULL,
        "subLineOfBusiness" text NULL,
        "spanDateStart" date NULL,
        "spanDateEnd" date NULL,
        {_AUDIT}
    """,
    "member_demographics": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        "firstName" text NULL,
        "middleName" text NULL,
        "lastName" text NULL,
        "dateOfBirth" date NULL,
        "dateOfDemise" date NULL,
        sex text NULL,
        gender text NULL,
        ethnicity text NULL,
        race text NULL,
        language text NULL,
        "maritalStatus" text NULL,
        ssn text NULL,
        "ssnLastFour" text NULL,
        "isMarkedDeceased" boolean NOT NULL,
        {_AUDIT}
    """,
    "address": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        "addressType" text NULL,
        street1 text NULL,
        street2 text NULL,
        county text NULL,
        city text NULL,
        state text NULL,
        zip text NULL,
        "spanDateStart" date NULL,
        "spanDateEnd" date NULL,
        {_AUDIT}
    """,
    "phone": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        phone text NOT NULL,
        "phoneType" text NULL,
        {_AUDIT}
    """,
    "email": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        email text NOT NULL,
        {_AUDIT}
    """,
    "member_eligibilities": f"""
        id uuid NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        "commonsHarpStatus" text NULL,
        "commonsHcbsStatus" text NULL,
        {_AUDIT}
    """,
    **KNEX_COLUMNS,
}
TABLES: tuple[str, ...] = tuple(_COLUMNS)
"""Every base table of the default schema."""

MIRRORED: tuple[str, ...] = tuple(name for name in TABLES if name not in EXCLUDED)

_BEFORE = ("CREATE TYPE ehr AS ENUM ('elation', 'acpny')",)
_AFTER = (
    'CREATE UNIQUE INDEX mrn_live ON mrn (name, mrn) WHERE "deletedAt" IS NULL',
    'CREATE INDEX member_mrn ON member ("mrnId")',
)

# --- Members --------------------------------------------------------------------------------

_CATEGORIES = ("high cost", "high risk", "rising risk", "HARP", "removed", "lower risk")
PARTNERS = ("Sample Health Plan", "Mock Mutual, Inc.", "Fauxton Care", "Virtual Partner")
_DATASOURCES = ("sample_plan", "mock_mutual", "fauxton", "bcbs_fixture", "medicaid_ny")
_COHORTS = 9
_BASE_CBH_ID = 100_000_000
_NULL_NAMES = ("null", "Null", "NULL")


class Member(NamedTuple):
    """A member as all sample databases agree on the person.

    ``mrn_row`` is the number of the MRN row that the member points to.
    """

    number: int
    id: str
    cbh_id: int
    mrn: str | None
    ehr: EHR | None
    mrn_row: int | None
    first_name: str
    last_name: str
    birth_date: date
    sex: str | None
    insurance: str
    duplicate: bool
    deleted_at: datetime | None
    mrn_deleted_at: datetime | None

    @property
    def partner(self) -> int:
        return self.number % len(PARTNERS)


class Groups(NamedTuple):
    """The kinds of members, in the order of their numbers."""

    elation: int
    acpny: int
    unnumbered: int
    duplicates: int


def groups(scale: float) -> Groups:
    """How many members of each kind there are; see `members`."""
    known = elation.row_counts(scale)["patient"]
    return Groups(known, max(6, known // 5), max(3, known // 10), max(2, known // 100))


@lru_cache(maxsize=4)
def members(scale: float = 1.0, seed: int = 2021) -> tuple[Member, ...]:
    """Everybody in the index, in four groups.

    First one member for each patient of Elation: some deleted, some pointing to a deleted MRN.
    Then members of the other EHR, acpny, of which the first has the very number of an Elation
    patient, and three have last names that look like no value. Then members without MRN. At the
    end deleted duplicates of Elation's members, each with a deleted MRN row of the same number.
    """
    patients, sizes = elation.patients(scale, seed), groups(scale)
    known = [_known(i, patient) for i, patient in enumerate(patients)]
    first = len(known)
    others = [
        _other(first + i, str(patients[0].id) if i == 0 else f"{90_000_000 + 17 * i}", i, seed)
        for i in range(sizes.acpny)
    ]
    first += len(others)
    unnumbered = [_other(first + i, None, 3 + i, seed) for i in range(sizes.unnumbered)]
    first += len(unnumbered)
    return (*known, *others, *unnumbered, *_duplicates(known, first, sizes))


def _known(i: int, patient: elation.Patient) -> Member:
    return Member(
        number=i,
        id=identifier("member", i),
        cbh_id=_BASE_CBH_ID + i,
        mrn=str(patient.id),
        ehr="elation",
        mrn_row=i,
        first_name=patient.first_name,
        last_name=patient.last_name,
        birth_date=patient.birth_date,
        sex=patient.sex,
        insurance=patient.insurance or _insurance(i),
        duplicate=False,
        deleted_at=LAST_DAY - timedelta(days=i % 90 + 1) if i == 5 or i % 41 == 40 else None,
        mrn_deleted_at=LAST_DAY - timedelta(days=3) if i == 7 or i % 53 == 52 else None,
    )


def _other(number: int, mrn: str | None, i: int, seed: int) -> Member:
    dice = Dice(seed, "other_member")
    first, last = full_name(5 * number + 1)
    named_null = mrn is not None and i in range(1, 1 + len(_NULL_NAMES))
    return Member(
        number=number,
        id=identifier("member", number),
        cbh_id=_BASE_CBH_ID + number,
        mrn=mrn,
        ehr="acpny" if mrn else None,
        mrn_row=number if mrn else None,
        first_name=first,
        last_name=_NULL_NAMES[i - 1] if named_null else f"{last} {number + 1}",
        birth_date=date(1900, 1, 1) + timedelta(days=dice.below(40_000, number, "birth") * (i > 3)),
        sex=("Female", "Male", "Unknown", "", None)[number % 5],
        insurance=_insurance(number),
        duplicate=False,
        deleted_at=None,
        mrn_deleted_at=None,
    )


def _duplicates(known: list[Member], first: int, sizes: Groups) -> list[Member]:
    gone = FIRST_DAY + timedelta(days=400)
    first_row = sizes.elation + sizes.acpny
    return [
        original._replace(
            number=first + i,
            id=identifier("member", first + i),
            cbh_id=_BASE_CBH_ID + first + i,
            mrn_row=first_row + i,
            duplicate=True,
            deleted_at=gone,
            mrn_deleted_at=gone,
        )
        for i, original in enumerate(known[: sizes.duplicates])
    ]


def _insurance(i: int) -> str:
    return f"SMQ{i * 6151 % 10**9:09}"


# --- Rows -----------------------------------------------------------------------------------


def row_counts(scale: float) -> dict[str, int]:
    """The rows of every base table at a scale."""
    sizes = groups(scale)
    people = sum(sizes)
    return {
        "category": len(_CATEGORIES),
        "partner": len(PARTNERS),
        "datasource": len(_DATASOURCES),
        "cohort": _COHORTS,
        "mrn": sizes.elation + sizes.acpny + sizes.duplicates,
        "member": people,
        "member_insurance": people + people // 4,
        "member_insurance_details": people + people // 2,
        "member_demographics": people,
        "address": people + people // 5,
        "phone": people + people // 3,
        "email": people // 2,
        "member_eligibilities": people // 2,
        "knex_migrations": 12,
        "knex_migrations_lock": 1,
    }


class _Rows:
    """Makes any row of each table; the method of a table carries its name."""

    def __init__(self, scale: float, seed: int) -> None:
        self._counts = row_counts(scale)
        self._members = members(scale, seed)
        self._numbered = {m.mrn_row: m for m in self._members if m.mrn_row is not None}
        self._seed = seed
        self._dice = {table: Dice(seed, f"member_index.{table}") for table in TABLES}

    def row(self, table: str, i: int) -> Row:
        maker: Callable[[int], Row] = getattr(self, table)
        return maker(i)

    def category(self, i: int) -> Row:
        return (i + 1, _CATEGORIES[i], *self._audit("category", i))

    def partner(self, i: int) -> Row:
        return (i + 1, PARTNERS[i], *self._audit("partner", i))

    def datasource(self, i: int) -> Row:
        return (i + 1, _DATASOURCES[i], *self._audit("datasource", i))

    def cohort(self, i: int) -> Row:
        live = date(2019, 1, 1) + timedelta(days=91 * i)
        name = f"Sample Cohort {i}" if i else "Test members"
        known = (live, live + timedelta(days=30)) if i % 4 else (live, None)
        return (i, name, i % len(PARTNERS) + 1, *known, *self._audit("cohort", i))

    def mrn(self, i: int) -> Row:
        member = self._numbered.get(i)
        if member is None:  # a number that the day's change brought
            return (identifier("mrn", i), f"{80_000_000 + i}", "acpny", *self._audit("mrn", i))
        audit = self._audit("mrn", i, member.mrn_deleted_at)
        return (identifier("mrn", i), member.mrn, member.ehr, *audit)

    def member(self, i: int) -> Row:
        known = self._members[i] if i < len(self._members) else None
        points_to = known.mrn_row if known else None
        return (
            identifier("member", i),
            _BASE_CBH_ID + i,
            i % len(PARTNERS) + 1,
            # Cohort 0 holds invented members of the real source.
            None if i % 19 == 18 else 0 if i % 97 == 11 else 1 + i % (_COHORTS - 1),
            None if i % 6 == 5 else i % len(_CATEGORIES) + 1,
            identifier("mrn", points_to) if points_to is not None else None,
            None if i % 3 else 360_000_000_000 + 7 * i,
            *self._audit("member", i, known.deleted_at if known else None),
        )

    def member_insurance(self, i: int) -> Row:
        member = self._of(i)
        first = i < len(self._members)
        return (
            identifier("member_insurance", i),
            member.id,
            member.number % len(_DATASOURCES) + 1,
            member.insurance if first else f"OLD-{i:08}",
            (True if i % 8 else None) if first else False,
            *self._audit("member_insurance", i, member.deleted_at),
        )

    def member_insurance_details(self, i: int) -> Row:
        begin = date(2018, 1, 1) + timedelta(days=31 * (i % 36))
        return (
            identifier("member_insurance_details", i),
            identifier("member_insurance", i % self._counts["member_insurance"]),
            ("Medicaid", "Medicare", "Commercial", "Dual", None)[i % 5],
            ("HMO", "", "HARP", None)[i % 4],
            begin,
            (None, date(2999, 12, 31), begin + timedelta(days=365))[i % 3],
            *self._audit("member_insurance_details", i),
        )

    def member_demographics(self, i: int) -> Row:
        member = self._of(i)
        deceased = i % 70 == 69
        return (
            identifier("member_demographics", i),
            member.id,
            member.first_name,
            optional(i, "Q."),
            member.last_name,
            member.birth_date,
            date(2020, 2, 29) if deceased else None,
            member.sex,
            ("female", "male", "nonbinary", None)[i % 4],
            ("not hispanic", "hispanic", "", None)[i % 4],
            ("white", "black", "asian", "other", None)[i % 5],
            ("English", "español", "中文", None)[i % 4],
            ("single", "married", "widowed", None)[i % 4],
            f"000-{i % 100:02}-{i % 10_000:04}" if i % 3 else None,
            f"{i % 10_000:04}" if i % 3 else None,
            deceased,
            *self._audit("member_demographics", i, member.deleted_at),
        )

    def address(self, i: int) -> Row:
        city, state = CITIES[i % len(CITIES)]
        begin = date(2017, 3, 1) + timedelta(days=i % 700)
        return (
            identifier("member_index.address", i),
            self._of(i).id,
            ("home", "mailing", None)[i % 3],
            f"{1 + i % 900} {STREETS[i % len(STREETS)]}",
            optional(i, f"Apt {i % 60}\nback door") if i % 5 == 4 else optional(i, f"Apt {i % 60}"),
            optional(i, f"{city} County"),
            city,
            state,
            f"{i * 37 % 100_000:05}",
            begin,
            (None, date(2999, 12, 31), begin + timedelta(days=400))[i % 3],
            *self._audit("address", i),
        )

    def phone(self, i: int) -> Row:
        kind = ("mobile", "home", "work", "", None)[i % 5]
        return (identifier("phone", i), self._of(i).id, phone(i), kind, *self._audit("phone", i))

    def email(self, i: int) -> Row:
        member = self._of(2 * i)
        address = f"{plain(member.first_name)}{member.number}@members.example.org"
        return (identifier("email", i), member.id, address, *self._audit("email", i))

    def member_eligibilities(self, i: int) -> Row:
        return (
            identifier("member_eligibilities", i),
            self._of(2 * i + 1).id,
            ("eligible", "enrolled", "not eligible", None)[i % 4],
            (None, "eligible", "")[i % 3],
            *self._audit("member_eligibilities", i),
        )

    def knex_migrations(self, i: int) -> Row:
        return migration(i)

    def knex_migrations_lock(self, _i: int) -> Row:
        return (1, 0)

    def _of(self, i: int) -> Member:
        return self._members[i % len(self._members)]

    def _audit(self, table: str, i: int, gone: datetime | None = None) -> tuple[Cell, ...]:
        dice = self._dice[table]
        created = dice.moment(i)
        if gone is not None:
            created = min(created, gone - timedelta(days=1))
        updated = gone or created + timedelta(seconds=dice.below(86_400, i, "updated"))
        who = identifier("member_index.client", i % 9)
        reason = ("duplicate", "disenrolled", "")[i % 3] if gone else None
        source = ("commons", "able", "etl", None)[i % 4]
        return (created, updated, gone, reason, who, who if gone else None, source)


def migration(i: int) -> Row:
    """A row of the table in which the knex library notes what it changed in a database."""
    moment = datetime(2018, 5, 1, 12, tzinfo=UTC) + timedelta(days=20 * i, microseconds=i)
    return (i + 1, f"{moment:%Y%m%d%H%M%S}_change_{i + 1}.js", 1 + i // 3, moment)


# --- Building -------------------------------------------------------------------------------

_TOUCH = (
    "\"updatedAt\" = TIMESTAMPTZ '2021-06-20 09:00:00.123456+00' + {mutation} * INTERVAL '1 day'"
)
_EDITS = {
    "mrn": Edit(grows=True),
    "member": Edit(update=f'{_TOUCH}, "categoryId" = 1 + mod({{mutation}}, 6)', grows=True),
    "member_insurance": Edit(update=f"{_TOUCH}, current = NOT current"),
    "member_demographics": Edit(update=f"{_TOUCH}, language = 'Sample {{mutation}}'"),
    "address": Edit(update=f"{_TOUCH}, street2 = 'Moved {{mutation}}'", grows=True, shrinks=True),
    "phone": Edit(update=f"{_TOUCH}, \"phoneType\" = 'other {{mutation}}'", shrinks=True),
    "email": Edit(shrinks=True),
    "member_eligibilities": Edit(update=_TOUCH, grows=True),
}


def sample(scale: float = 1.0, seed: int = 2021) -> Sample:
    """The database as a plan that nothing has built yet."""
    return Sample(
        columns=_COLUMNS,
        counts=row_counts(scale),
        row=_Rows(scale, seed).row,
        seed=seed,
        edits=_EDITS,
        before=_BEFORE,
        after=_AFTER,
    )


def create(
    server: PostgreSQL,
    *,
    database: str = "member_index",
    scale: float = 1.0,
    seed: int = 2021,
    progress: Progress | None = None,
) -> None:
    """Create the sample database from nothing, with a login that may read it."""
    sample(scale, seed).create(server, database, progress)


def change(
    server: PostgreSQL,
    *,
    database: str = "member_index",
    scale: float = 1.0,
    seed: int = 2021,
    mutation: int = 1,
    progress: Progress | None = None,
) -> None:
    """Edit the living database as a day does, with the scale and seed of the creation."""
    sample(scale, seed).change(server, database, mutation, progress)
