"""A sample database of the quality-measure service: its real reference data, invented events.

Which category a measure has, and the unique names of the two well visits and the two flu
measures, are assumptions; everything else of the reference data is as documented.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from mirror_assets.sample import commons, member_index
from mirror_assets.sample.generator import (
    FIRST_DAY,
    PHRASES,
    Cell,
    Dice,
    Edit,
    Progress,
    Row,
    Sample,
)
from mirror_assets.sample.servers import PostgreSQL

EXCLUDED = ("knex_migrations", "knex_migrations_lock")

# --- Tables ---------------------------------------------------------------------------------

_AUDIT = """
        "createdAt" timestamptz NOT NULL,
        "updatedAt" timestamptz NOT NULL,
        "deletedAt" timestamptz NULL,
        "deletedReason" text NULL
"""
_NAMED = f"id integer NOT NULL PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, {_AUDIT}"
_COLUMNS: dict[str, str] = {
    "measure_category": _NAMED,
    "member_measure_source": _NAMED,
    "member_measure_status": _NAMED,
    "measure": f"""
        id integer NOT NULL PRIMARY KEY,
        code varchar(255) NOT NULL,
        "rateId" integer NOT NULL DEFAULT 0,
        name varchar(255) NOT NULL,
        "displayName" varchar(255) NOT NULL,
        "categoryId" integer NULL REFERENCES measure_category,
        "triggerCloseBy" interval NULL,
        type measure_type NOT NULL,
        trigger measure_trigger NOT NULL,
        {_AUDIT},
        UNIQUE (code, "rateId")
    """,
    "market": f"""
        id integer NOT NULL PRIMARY KEY,
        name varchar(255) NOT NULL UNIQUE,
        slug varchar(255) NOT NULL UNIQUE,
        {_AUDIT}
    """,
    "market_measure": f"""
        id integer NOT NULL PRIMARY KEY,
        "marketId" integer NOT NULL REFERENCES market,
        "measureId" integer NOT NULL REFERENCES measure,
        {_AUDIT}
    """,
    "elation_map": f"""
        id integer NOT NULL PRIMARY KEY,
        "codeType" varchar(255) NOT NULL,
        code varchar(255) NOT NULL,
        "measureId" integer NOT NULL REFERENCES measure,
        "statusId" integer NOT NULL REFERENCES member_measure_status,
        {_AUDIT}
    """,
    "member_measure": f"""
        id bigint NOT NULL PRIMARY KEY,
        "memberId" uuid NOT NULL,
        "measureId" integer NOT NULL REFERENCES measure,
        "sourceId" integer NOT NULL REFERENCES member_measure_source,
        "statusId" integer NOT NULL REFERENCES member_measure_status,
        reason text NULL,
        "setOn" timestamptz NOT NULL,
        "lastConfirmed" timestamptz NOT NULL DEFAULT now(),
        "userId" uuid NULL,
        "performanceYear" integer NULL,
        {_AUDIT}
    """,
    **member_index.KNEX_COLUMNS,
}
TABLES: tuple[str, ...] = tuple(_COLUMNS)
"""Every base table of the default schema."""

MIRRORED: tuple[str, ...] = tuple(name for name in TABLES if name not in EXCLUDED)

_BEFORE = (
    "CREATE TYPE measure_type AS ENUM ('outcome', 'process')",
    "CREATE TYPE measure_trigger AS ENUM ('annual', 'event')",
)
_AFTER = (
    'CREATE INDEX member_measure_current ON member_measure ("memberId", "measureId", "deletedAt")',
    'CREATE UNIQUE INDEX measure_live_name ON measure (name) WHERE "deletedAt" IS NULL',
)

# --- Reference data -------------------------------------------------------------------------

STATUSES = ("provOpen", "open", "provClosed", "closed", "failed", "excluded", "deniedService")
SOURCES = ("able", "commons", "elation", "qm_service")
CATEGORIES = (
    "Wellness",
    "AOD",
    "Well Visit",
    "Cancer Screening",
    "Vaccination",
    "Diabetes",
    "Cardiovascular",
    "Bone Health",
    "Statin",
    "Maternal",
)
MARKETS = (
    "New York City",
    "Connecticut",
    "Charlotte",
    "Fayetteville",
    "Piedmont Triad",
    "Massachusetts",
    "Virtual",
    "CareFirst DC",
)


class Measure(NamedTuple):
    """A measure; the first has id 1."""

    code: str
    display: str
    category: str | None
    type: Literal["process", "outcome"] = "process"
    deleted: bool = False

    @property
    def name(self) -> str:
        """Unique among the live ones, where several show the same words."""
        if self.display in {"Well Visit", "Flu Vaccine"}:
            return f"{self.display} {self.code.split()[1]}"
        return self.display


MEASURES = (
    Measure("HEDIS ABA", "BMI", "Wellness"),
    Measure("ABLE AWV1", "Well Visit", "Well Visit"),
    Measure("ABLE AWV2", "Well Visit", "Well Visit"),
    Measure("HEDIS FVA", "Flu Vaccine", "Vaccination", deleted=True),
    Measure("HEDIS FVO", "Flu Vaccine", "Vaccination", deleted=True),
    Measure("HEDIS BCS", "Breast Cancer Scr.", "Cancer Screening"),
    Measure("HEDIS CCS", "Cervical Cancer Scr.", "Cancer Screening"),
    Measure("HEDIS COL", "Colorectal Cancer Scr.", "Cancer Screening"),
    Measure("HEDIS CDC1", "Diabetes: HbA1c Testing", "Diabetes"),
    Measure("HEDIS CDC5", "Diabetes: Eye Exam", "Diabetes"),
    Measure("HEDIS CDC6", "Diabetes: Nephropathy", "Diabetes"),
    Measure("HEDIS AAP1", "Preventive Health Visit", "Well Visit"),
    Measure("HEDIS CBP", "Blood Pressure", "Cardiovascular", "outcome"),
    Measure("HEDIS CDC3", "Diabetes: A1c < 8.0%", "Diabetes", "outcome"),
    Measure("HEDIS CHL", "Chlamydia Scr.", None),
    Measure("ABLE FVA", "Flu Vaccine", "Vaccination"),
    Measure("ABLE FVO", "Flu Vaccine", "Vaccination"),
)
_ID = {measure.code: i for i, measure in enumerate(MEASURES, start=1)}
_LIVE = tuple(i for i, measure in enumerate(MEASURES, start=1) if not measure.deleted)

_NORTH_EAST = (*range(1, 12), 16, 17)
_CAROLINA = (1, 6, 7, 11)
MARKET_MEASURES: dict[str, tuple[int, ...]] = {
    "New York City": _NORTH_EAST,
    "Connecticut": _NORTH_EAST,
    "Charlotte": _CAROLINA,
    "Fayetteville": _CAROLINA,
    "Piedmont Triad": _CAROLINA,
    "Massachusetts": (1, 4, 5, 6, 8, 10, 12, 13, 14, 15, 16, 17),
    "Virtual": (),
    "CareFirst DC": (4, 5, 6, 14, 16, 17),
}
_LINKS = tuple(
    (market, measure)
    for market, name in enumerate(MARKETS, start=1)
    for measure in MARKET_MEASURES[name]
)

# measure, status, code type, codes
_SEED: tuple[tuple[str, str, str, str], ...] = (
    ("HEDIS CDC5", "closed", "cptii", "2022F"),
    ("HEDIS CDC5", "excluded", "icd10", "O24.419 E09.9"),
    ("HEDIS CDC1", "closed", "cpt", "3044F 3045F 3046F"),
    ("HEDIS CDC1", "excluded", "icd10", "O24.419 E09.9"),
    ("HEDIS FVA", "closed", "cpt", "90471 G8482"),
    ("HEDIS FVA", "closed", "hcpcs", "G8482"),
    ("HEDIS FVA", "excluded", "cpt", "G8483"),
    ("HEDIS FVA", "excluded", "hcpcs", "G8483"),
    ("HEDIS FVO", "closed", "cpt", "G0008 G8482"),
    ("HEDIS FVO", "closed", "hcpcs", "G8482"),
    ("HEDIS FVO", "excluded", "cpt", "G8483"),
    ("HEDIS FVO", "excluded", "hcpcs", "G8483"),
    ("HEDIS ABA", "closed", "cptii", "3008F"),
    ("HEDIS ABA", "closed", "icd10", "Z68.51 Z68.52 Z68.53 Z68.54"),
    ("HEDIS ABA", "excluded", "icd10", "O00.00"),
    ("HEDIS CDC6", "closed", "loinc", "5804-0 14959-1"),
    ("HEDIS CDC6", "closed", "icd10", "N18.6 N18.4 E08.21"),
    ("HEDIS CDC6", "closed", "cpt", "4010F"),
    ("ABLE AWV1", "closed", "cpt", "G0438 G0439"),
    ("ABLE AWV2", "closed", "cpt", "99385 99386 99387 99395 99396 99397"),
    ("HEDIS CCS", "closed", "loinc", "18500-9"),
    ("HEDIS CCS", "excluded", "icd10", "Z90.710 Z90.712"),
    ("HEDIS CCS", "excluded", "snomed", "385763009"),
    ("HEDIS BCS", "closed", "hcpcs", "G9899"),
    ("HEDIS BCS", "excluded", "icd10", "Z90.12 Z90.13"),
    ("HEDIS BCS", "excluded", "snomed", "385763009"),
)
ELATION_MAP: tuple[tuple[str, str, int, int], ...] = tuple(
    (code_type, code, _ID[measure], STATUSES.index(status) + 1)
    for measure, status, code_type, codes in _SEED
    for code in codes.split()
)
"""Code type, code, measure id and status id of every row of the map, in the order of the ids."""

# --- Rows -----------------------------------------------------------------------------------

_SEEDED = FIRST_DAY - timedelta(days=20)
_FLU_REPLACED = FIRST_DAY.replace(year=2021, month=2)
_LATER = ("closed", "provOpen", "excluded", "closed", "open", "failed", "deniedService")


def row_counts(scale: float) -> dict[str, int]:
    """The rows of every base table at a scale; the reference data is always complete."""
    return {
        "measure_category": len(CATEGORIES),
        "member_measure_source": len(SOURCES),
        "member_measure_status": len(STATUSES),
        "measure": len(MEASURES),
        "market": len(MARKETS),
        "market_measure": len(_LINKS),
        "elation_map": len(ELATION_MAP),
        "member_measure": max(40, round(6_000 * scale)),
        "knex_migrations": 15,
        "knex_migrations_lock": 1,
    }


class _Rows:
    """Makes any row of each table; the method of a table carries its name."""

    def __init__(self, scale: float, seed: int) -> None:
        self._members = member_index.members(scale, seed)
        self._users = commons.users(scale, seed)
        self._dice = Dice(seed, "quality_measure")

    def row(self, table: str, i: int) -> Row:
        maker: Callable[[int], Row] = getattr(self, table)
        return maker(i)

    def measure_category(self, i: int) -> Row:
        return (i + 1, CATEGORIES[i], *_seeded())

    def member_measure_source(self, i: int) -> Row:
        return (i + 1, SOURCES[i], *_seeded())

    def member_measure_status(self, i: int) -> Row:
        return (i + 1, STATUSES[i], *_seeded())

    def measure(self, i: int) -> Row:
        measure = MEASURES[i]
        category = CATEGORIES.index(measure.category) + 1 if measure.category else None
        gone = (_FLU_REPLACED, "replaced by the ABLE measure") if measure.deleted else None
        return (
            i + 1,
            measure.code,
            0,
            measure.name,
            measure.display,
            category,
            None,
            measure.type,
            "annual",
            *_seeded(gone),
        )

    def market(self, i: int) -> Row:
        return (i + 1, MARKETS[i], MARKETS[i].lower().replace(" ", "-"), *_seeded())

    def market_measure(self, i: int) -> Row:
        return (i + 1, *_LINKS[i], *_seeded())

    def elation_map(self, i: int) -> Row:
        return (i + 1, *ELATION_MAP[i], *_seeded())

    def member_measure(self, i: int) -> Row:
        """Able opens a measure of a member, then somebody tells how it went on."""
        pair, later = divmod(i, 2)
        people = len(self._members)
        member = self._members[pair % people]
        measure = _LIVE[(pair + pair // people) % len(_LIVE)]
        opened = self._opened(pair)
        status, source = "open", "able"
        if later:
            status = _LATER[pair % len(_LATER)]
            source = ("elation", "commons", "able", "elation", "qm_service")[pair % 5]
        set_on = opened + timedelta(days=30 * later, microseconds=later * (pair % 1_000))
        confirmed = set_on + timedelta(days=self._dice.below(20, i, "confirmed"))
        gone = (confirmed, "member deleted") if member.deleted_at else None
        return (
            i + 1,
            member.id,
            measure,
            SOURCES.index(source) + 1,
            STATUSES.index(status) + 1,
            (None, "", PHRASES[pair % len(PHRASES)])[pair % 3] if later else None,
            set_on,
            confirmed,
            self._users[pair % len(self._users)].id if source == "commons" else None,
            2021 if source == "able" else None,
            set_on,
            confirmed,
            *(gone or (None, None)),
        )

    def knex_migrations(self, i: int) -> Row:
        return member_index.migration(i)

    def knex_migrations_lock(self, _i: int) -> Row:
        return (1, 0)

    def _opened(self, pair: int) -> datetime:
        """A moment early in 2021, so that what follows belongs to the same year of every measure.

        The flu's year ends in June.
        """
        start = FIRST_DAY.replace(year=2021)
        return start + timedelta(seconds=self._dice.below(90 * 86_400, pair, "opened"))


def _seeded(gone: tuple[datetime, str] | None = None) -> tuple[Cell, ...]:
    return (_SEEDED, gone[0] if gone else _SEEDED, *(gone or (None, None)))


# --- Building -------------------------------------------------------------------------------

_EDITS = {
    "member_measure": Edit(
        update='"lastConfirmed" = "lastConfirmed" + {mutation} * INTERVAL \'1 day\', '
        '"updatedAt" = "updatedAt" + {mutation} * INTERVAL \'1 day\'',
        grows=True,
        shrinks=True,
    ),
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
    database: str = "quality_measure",
    scale: float = 1.0,
    seed: int = 2021,
    progress: Progress | None = None,
) -> None:
    """Create the sample database from nothing, with a login that may read it."""
    sample(scale, seed).create(server, database, progress)


def change(
    server: PostgreSQL,
    *,
    database: str = "quality_measure",
    scale: float = 1.0,
    seed: int = 2021,
    mutation: int = 1,
    progress: Progress | None = None,
) -> None:
    """Edit the events as a day does, with the scale and seed of the creation."""
    sample(scale, seed).change(server, database, mutation, progress)
