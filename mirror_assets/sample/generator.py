"""What the sample databases share: invented words, reproducible choices, loading PostgreSQL."""

import hashlib
import io
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812 - a class in small letters

from mirror_assets.sample.servers import PostgreSQL

Progress = Callable[[str], None]
Cell = str | int | float | bytes | datetime | date | None
Row = tuple[Cell, ...]


@dataclass(frozen=True)
class BadRow:
    """One cell that a faithful copy must report instead of changing."""

    table: str
    key: dict[str, object]
    column: str
    kind: str


class Flaw(NamedTuple):
    """A value that is put into a column of some rows after they were loaded."""

    table: str
    column: str
    kind: str
    rows: int
    literal: str


# --- Words ----------------------------------------------------------------------------------

FIRST_NAMES = ("Alpha", "Bravo", "Delta", "Echo", "Juliett", "Oscar", "Quebec", "Sierra", "Zoë")
LAST_NAMES = (
    "Testwell",
    "Sampleton",
    "Mockford",
    "Fauxley",
    "O'Placeholder",
    "Dummy-Data",
    "Exämple",
)
CITIES = (("Samplebrook", "NY"), ("Mockville", "CT"), ("Fauxton", "MA"), ("Testboro", "NC"))
STREETS = ("Example Ave", "Placeholder St", "Specimen Rd", "Fixture Blvd, Rear")
SPECIALTIES = ("Family Medicine", "Internal Medicine", "Psychiatry", "Nephrology, Hypertension")
CREDENTIALS = ("MD", "DO", "NP", "PA-C", "RN, BSN")
PHRASES = (
    "Patient reports feeling better since last visit",
    "Blood pressure 138/86, repeat 132/84",
    "Denies chest pain, palpitations, or shortness of breath",
    "Continue metformin 500 mg twice daily with food",
    "Follow up in 4 weeks",
    "Lungs clear to auscultation bilaterally",
    "Discussed diet and exercise; member agrees to walk daily",
    "A1c 8.2% (was 9.1%)",
    "Mood stable, PHQ-9 score 6",
    "No medication changes today",
    "Trace edema of both ankles",
    "Reviewed hospital discharge summary with caregiver",
    "Needs transportation for the next appointment",
    "Foot exam: monofilament sensation intact",
    "Started lisinopril 10 mg daily, check potassium in 2 weeks",
    "Food pantry referral given",
)
SPECIAL_TEXTS = (
    'States the pain is "always there", worse at night',
    "Plan:\n- labs, fasting\n- recheck in 2 wks\n",
    "Member is thankful 🙂 and motivated 💪🏽",
    "BP\t150/90\tpulse\t72",
    r"See shared folder \\records\scan\new.pdf and C:\notes",
    "Habla español; señora Muestra, dolor crónico: 3 días",
    "Carriage\r\nreturn from a pasted fax",
    "NULL",
    "",
    "  leading and trailing blanks  ",
    "'single', \"double\", `back` and , only, commas,",
    r"literal \N and \n stay literal",
)


def optional(i: int, value: str) -> str | None:
    """The value, now and then absent, empty or the word NULL."""
    return {0: None, 3: "", 6: "NULL"}.get(i % 11, value)


def full_name(i: int) -> tuple[str, str]:
    return FIRST_NAMES[i % len(FIRST_NAMES)], LAST_NAMES[i // 2 % len(LAST_NAMES)]


def plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isascii() and letter.isalpha())


def phone(i: int) -> str:
    return f"(555) 01{i % 100:02}-{i * 31 % 10000:04}"


def npi(i: int) -> str:
    return f"{1_900_000_000 + i * 101}"


# --- Choices --------------------------------------------------------------------------------

FIRST_DAY = datetime(2019, 1, 1, tzinfo=UTC)
DAYS = 900
LAST_DAY = FIRST_DAY + timedelta(days=DAYS)


def identifier(table: str, i: int) -> str:
    """The UUID of a row; it does not depend on the seed."""
    digest = hashlib.blake2b(f"{table}:{i}".encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"


class Dice:
    """Choices that depend on the seed, a subject, a number and a purpose, and on nothing else."""

    def __init__(self, seed: int, subject: str) -> None:
        self._prefix = f"{seed}:{subject}:"

    def below(self, limit: int, i: int, purpose: str) -> int:
        """A number from 0 to limit - 1."""
        text = f"{self._prefix}{i}:{purpose}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % limit

    def moment(self, i: int, purpose: str = "moment") -> datetime:
        """An instant of the sampled period, with microseconds."""
        return FIRST_DAY + timedelta(microseconds=self.below(DAYS * 86_400_000_000, i, purpose))

    def text(self, i: int, specials: Sequence[str] = SPECIAL_TEXTS) -> str:
        """One to four sentences, and every seventh time something awkward."""
        if i % 7 == 0:
            return specials[i // 7 % len(specials)]
        first = self.below(len(PHRASES), i, "text")
        return ". ".join(PHRASES[(first + 5 * n) % len(PHRASES)] for n in range(1 + i % 4))


# --- PostgreSQL -----------------------------------------------------------------------------

_BATCH = 5_000


class Edit(NamedTuple):
    """What happens to a table from one state to the next.

    ``update`` is a list of SQL assignments, in which ``{mutation}`` is the number of the change.
    Only tables to which nothing refers may shrink.
    """

    update: str = ""
    grows: bool = False
    shrinks: bool = False


@dataclass(frozen=True)
class Sample:
    """A PostgreSQL database of sample tables; ``row`` makes any row from table and number.

    ``before`` and ``after`` are statements around the making of the tables. ``spared`` are the
    row numbers of a table that no change may touch, besides those of the flaws.
    """

    columns: Mapping[str, str]
    counts: Mapping[str, int]
    row: Callable[[str, int], Row]
    seed: int
    flaws: Sequence[Flaw] = ()
    edits: Mapping[str, Edit] = field(default_factory=dict)
    spared: Callable[[str], frozenset[int]] = lambda _table: frozenset()
    before: Sequence[str] = ()
    after: Sequence[str] = ()

    def create(self, server: PostgreSQL, database: str, progress: Progress | None) -> None:
        """Drop and create the database, with a login that may read its default schema."""
        name = sql.Identifier(database)
        with closing(server.admin()) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        server.create_database(database)
        with closing(server.admin(database)) as connection, connection.cursor() as cursor:
            for statement in self.before:
                cursor.execute(statement)
            for table, columns in self.columns.items():
                cursor.execute(f"CREATE TABLE {_quoted(table)} ({columns})")
                _copy(cursor, table, self.rows(table))
                self._spoil(cursor, table)
                if progress is not None:
                    progress(table)
            for statement in self.after:
                cursor.execute(statement)
            # Until then the catalogue does not know how many rows there are.
            cursor.execute("ANALYZE")
        server.create_reader(database)

    def change(
        self, server: PostgreSQL, database: str, mutation: int, progress: Progress | None
    ) -> None:
        """Update, insert and delete some rows of the living database in one transaction."""
        if mutation < 1:
            raise ValueError(f"a mutation is a number from 1: {mutation}")
        with closing(server.admin(database)) as connection:
            connection.autocommit = False
            with connection, connection.cursor() as cursor:
                for table, edit in self.edits.items():
                    self._edit(cursor, table, edit, mutation)
                    if progress is not None:
                        progress(table)

    def rows(self, table: str) -> Iterator[Row]:
        """The rows of a newly created table, before they are spoiled."""
        return (self.row(table, i) for i in range(self.counts[table]))

    @cached_property
    def known_bad(self) -> list[BadRow]:
        return [
            BadRow(flaw.table, {"id": self.row(flaw.table, i)[0]}, flaw.column, flaw.kind)
            for flaw in self.flaws
            for i in self._flawed(flaw)
        ]

    def _flawed(self, flaw: Flaw) -> list[int]:
        rng = random.Random(f"{self.seed}:flaw:{flaw.table}:{flaw.column}")
        return sorted(rng.sample(range(self.counts[flaw.table]), flaw.rows))

    def _spoil(self, cursor: Cursor, table: str) -> None:
        for flaw in self.flaws:
            if flaw.table != table:
                continue
            keys = [str(self.row(table, i)[0]) for i in self._flawed(flaw)]
            cursor.execute(
                f"UPDATE {_quoted(table)} SET {_quoted(flaw.column)} = {flaw.literal} "
                "WHERE id::text = ANY(%s)",
                (keys,),
            )

    def _edit(self, cursor: Cursor, table: str, edit: Edit, mutation: int) -> None:
        count, name = self.counts[table], _quoted(table)
        flawed = {i for f in self.flaws if f.table == table for i in self._flawed(f)}
        untouched = self.spared(table) | flawed
        rng = random.Random(f"{self.seed}:{mutation}:{table}")
        changed = set(rng.sample(range(count), 1 + count // 100)) - untouched
        removed = set(rng.sample(range(count), 1 + count // 500)) - untouched
        if edit.update:
            keys = [str(self.row(table, i)[0]) for i in sorted(changed)]
            assignments = edit.update.replace("{mutation}", str(mutation))
            cursor.execute(f"UPDATE {name} SET {assignments} WHERE id::text = ANY(%s)", (keys,))
        if edit.shrinks:
            keys = [str(self.row(table, i)[0]) for i in sorted(removed)]
            cursor.execute(f"DELETE FROM {name} WHERE id::text = ANY(%s)", (keys,))
        if edit.grows:
            added = 1 + count // 200
            first = count + (mutation - 1) * added
            _add(cursor, table, (self.row(table, i) for i in range(first, first + added)))


def _quoted(name: str) -> str:
    return f'"{name}"'


def _copy(cursor: Cursor, table: str, rows: Iterable[Row]) -> None:
    source = iter(rows)
    while lines := ["\t".join(map(_cell, row)) + "\n" for row in islice(source, _BATCH)]:
        cursor.copy_expert(f"COPY {_quoted(table)} FROM STDIN", io.StringIO("".join(lines)))
        if cursor.rowcount != len(lines):
            raise RuntimeError(f"{table}: loaded {cursor.rowcount} of {len(lines)} rows")


def _add(cursor: Cursor, table: str, rows: Iterable[Row]) -> None:
    """Insert rows unless they are there, so that the same change can be made again."""
    cursor.execute(
        f"CREATE TEMPORARY TABLE added (LIKE {_quoted(table)} INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    _copy(cursor, "added", rows)
    cursor.execute(f"INSERT INTO {_quoted(table)} SELECT * FROM added ON CONFLICT DO NOTHING")
    cursor.execute("DROP TABLE added")


_ESCAPED = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def _cell(value: Cell) -> str:
    """One field of PostgreSQL's text format."""
    if isinstance(value, str):
        return value.translate(_ESCAPES) if _ESCAPED.search(value) else value
    if value is None:
        return r"\N"
    if isinstance(value, bytes):
        return rf"\\x{value.hex()}"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)


def array(items: Sequence[str | int | None]) -> str:
    """PostgreSQL's text of an array."""
    return "{" + ",".join(map(_item, items)) + "}"


def _item(item: str | int | None) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, int):
        return str(item)
    return '"' + item.replace("\\", r"\\").replace('"', r"\"") + '"'
