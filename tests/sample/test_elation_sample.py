"""The sample Elation database in a real MariaDB server."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pymysql
import pytest
import sqlalchemy as sa

from mirror_assets.sample import elation
from mirror_assets.sample.servers import MariaDB

SCALE = 0.01
SCHEMA = "elation"

RELATIONS = [
    ("user", "practice_id", "practice"),
    ("user", "physician_id", "physician"),
    ("user", "office_staff_id", "office_staff"),
    ("physician", "user_id", "user"),
    ("office_staff", "user_id", "user"),
    ("service_location", "practice_id", "practice"),
    ("service_location", "deleted_by_user_id", "user"),
    ("patient", "practice_id", "practice"),
    ("patient", "primary_physician_user_id", "user"),
    ("patient_insurance", "patient_id", "patient"),
    ("patient_immunization", "patient_id", "patient"),
    ("document_tag", "practice_id", "practice"),
    ("visit_note", "patient_id", "patient"),
    ("visit_note", "practice_id", "practice"),
    ("visit_note", "physician_user_id", "user"),
    ("visit_note", "signed_by_user_id", "user"),
    ("visit_note_bullet", "visit_note_id", "visit_note"),
    ("visit_note_bullet", "parent_bullet_id", "visit_note_bullet"),
    ("visit_note_document_tag", "visit_note_id", "visit_note"),
    ("visit_note_document_tag", "document_tag_id", "document_tag"),
    ("non_visit_note", "patient_id", "patient"),
    ("non_visit_note", "signed_by_user_id", "user"),
    ("non_visit_note_bullet", "non_visit_note_id", "non_visit_note"),
    ("non_visit_note_document_tag", "non_visit_note_id", "non_visit_note"),
    ("non_visit_note_document_tag", "document_tag_id", "document_tag"),
    ("lab_report", "patient_id", "patient"),
    ("lab_report_document_tag", "lab_report_id", "lab_report"),
    ("lab_report_document_tag", "document_tag_id", "document_tag"),
    ("bill", "visit_note_id", "visit_note"),
    ("bill", "service_location_id", "service_location"),
    ("bill_item", "bill_id", "bill"),
    ("bill_item_dx", "bill_item_id", "bill_item"),
    ("bill_item_dx", "icd10_id", "icd10"),
    ("bill_item_dx", "icd9_id", "icd9"),
    ("appointment", "patient_id", "patient"),
    ("appointment", "physician_user_id", "user"),
    ("appointment_status", "appointment_id", "appointment"),
    ("med_order", "patient_id", "patient"),
    ("med_order", "prescribing_user_id", "user"),
    ("referral_order", "patient_id", "patient"),
    ("referral_order", "practice_id", "practice"),
]


class Database:
    """One schema of the server, asked over a connection of the admin."""

    def __init__(self, server: MariaDB, schema: str) -> None:
        self.server = server
        self.schema = schema
        self._connection = server.admin()

    def close(self) -> None:
        self._connection.close()

    def ask(self, query: str, *arguments: object) -> list[tuple[object, ...]]:
        self._connection.select_db(self.schema)
        with self._connection.cursor() as cursor:
            cursor.execute(query, arguments or None)
            return list(cursor.fetchall())

    def create(self, seed: int = 2021) -> None:
        elation.create(self.server, schema=self.schema, scale=SCALE, seed=seed)

    def counts(self) -> dict[str, object]:
        union = " UNION ALL ".join(f"SELECT '{t}', COUNT(*) FROM `{t}`" for t in elation.TABLES)
        return {str(table): count for table, count in self.ask(union)}

    def checksums(self) -> dict[str, object]:
        names = ", ".join(f"`{table}`" for table in elation.TABLES)
        rows = self.ask(f"CHECKSUM TABLE {names}")
        return {str(name).rpartition(".")[2]: checksum for name, checksum in rows}

    def created(self) -> dict[str, datetime]:
        rows = self.ask(
            "SELECT table_name, create_time FROM information_schema.tables "
            "WHERE table_schema = %s AND table_type = 'BASE TABLE'",
            self.schema,
        )
        return {str(name): moment for name, moment in rows if isinstance(moment, datetime)}

    def columns(self) -> list[tuple[str, str, str, str | None]]:
        rows = self.ask(
            "SELECT table_name, column_name, column_type, character_set_name "
            "FROM information_schema.columns WHERE table_schema = %s AND table_name <> %s",
            self.schema,
            elation.VIEW,
        )
        return [(str(t), str(c), str(k), str(s) if s else None) for t, c, k, s in rows]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    running = MariaDB.start(tmp_path_factory.mktemp("mariadb"))
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def sample(server: MariaDB) -> Iterator[Database]:
    with closing(Database(server, SCHEMA)) as database:
        database.create()
        yield database


@pytest.fixture
def fresh(server: MariaDB) -> Iterator[Database]:
    """Another sample database, for tests that change it."""
    with closing(Database(server, "elation_fresh")) as database:
        database.create()
        yield database


def _orphans(database: Database) -> list[str]:
    found = []
    for child, column, parent in RELATIONS:
        rows = database.ask(
            f"SELECT COUNT(c.`{column}`), COUNT(p.id) FROM `{child}` c "
            f"LEFT JOIN `{parent}` p ON p.id = c.`{column}`"
        )
        named, matched = rows[0]
        if named != matched or named == 0:
            found.append(f"{child}.{column}: {named} named, {matched} matched")
    return found


def _bad_cells(database: Database) -> set[tuple[str, object, str, str]]:
    found = set()
    for table, column, column_type, character_set in database.columns():
        for kind, key in _bad_of_column(database, table, column, column_type, character_set):
            found.add((table, key, column, kind))
    return found


def _bad_of_column(
    database: Database, table: str, column: str, column_type: str, character_set: str | None
) -> Iterator[tuple[str, object]]:
    if column_type.startswith("date"):
        yield from _bad_dates(database, table, column)
    if column_type == "tinyint(1)":
        query = f"SELECT id FROM `{table}` WHERE `{column}` NOT IN (0, 1)"
        yield from (("not_boolean", key) for (key,) in database.ask(query))
    if character_set is not None:
        yield from _bad_texts(database, table, column, character_set)


def _bad_dates(database: Database, table: str, column: str) -> Iterator[tuple[str, object]]:
    query = f"SELECT id, CAST(`{column}` AS CHAR) FROM `{table}` WHERE `{column}` IS NOT NULL"
    for key, value in database.ask(query):
        text = str(value)
        if text.startswith("0000-00-00"):
            yield "zero_date", key
        elif "-00" in text[:10]:
            yield "invalid_date", key
        elif text >= "2263":
            yield "out_of_range", key


def _bad_texts(
    database: Database, table: str, column: str, character_set: str
) -> Iterator[tuple[str, object]]:
    encoding = "latin-1" if character_set == "latin1" else "utf-8"
    first = database.ask(f"SHOW COLUMNS FROM `{table}`")[0][0]
    query = f"SELECT `{first}`, CAST(`{column}` AS BINARY) FROM `{table}`"
    for key, value in database.ask(query):
        if not isinstance(value, bytes):
            continue
        try:
            value.decode(encoding)
        except UnicodeDecodeError:
            yield "invalid_encoding", key


def _expected_bad() -> set[tuple[str, object, str, str]]:
    return {(b.table, b.key["id"], b.column, b.kind) for b in elation.known_bad(SCALE, 2021)}


def test_the_server_has_no_login_without_password(sample: Database) -> None:
    logins = sample.ask("SELECT user FROM mysql.user WHERE user <> 'mariadb.sys' AND host <> ''")
    assert sorted(logins) == [("admin",), ("reader",)]


def test_the_global_time_zone_is_the_one_asked_for(sample: Database) -> None:
    query = "SELECT @@global.time_zone, @@character_set_server"
    assert sample.ask(query) == [("-08:00", "utf8mb4")]
    MariaDB.start(sample.server.directory, time_zone="-07:00")
    assert sample.ask(query) == [("-07:00", "utf8mb4")]
    MariaDB.start(sample.server.directory)


def test_every_table_has_its_promised_rows(sample: Database) -> None:
    promised = elation.row_counts(SCALE)
    assert sample.counts() == promised
    assert [name for name, rows in promised.items() if rows < 5] == [elation.EMPTY_TABLE]


def test_the_schema_holds_all_base_tables_and_one_view(sample: Database) -> None:
    rows = sample.ask("SHOW FULL TABLES")
    kinds = {str(name): kind for name, kind in rows}
    assert kinds.pop(elation.VIEW) == "VIEW"
    assert kinds == dict.fromkeys(elation.TABLES, "BASE TABLE")
    assert len(elation.SOURCE_TABLES) == 23
    signed = sample.ask("SELECT COUNT(*) FROM visit_note WHERE signed_time IS NOT NULL")
    assert sample.ask(f"SELECT COUNT(*) FROM {elation.VIEW}") == signed


def test_every_table_is_innodb_and_only_one_is_latin1(sample: Database) -> None:
    query = "SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = %s"
    assert set(sample.ask(query, SCHEMA)) == {("InnoDB",), (None,)}
    latin = {table for table, _, _, characters in sample.columns() if characters == "latin1"}
    assert latin == {"icd9"}
    texts = [str(text) for (text,) in sample.ask("SELECT description FROM icd9")]
    assert any("Ménière" in text for text in texts)


def test_the_archive_has_a_table_of_the_same_name_with_other_columns(sample: Database) -> None:
    own = sample.ask("SHOW COLUMNS FROM visit_note")
    theirs = sample.ask(f"SHOW COLUMNS FROM {elation.ARCHIVE_SCHEMA}.{elation.ARCHIVE_TABLE}")
    assert {column[0] for column in own} != {column[0] for column in theirs}
    engine = sa.create_engine(sample.server.url(SCHEMA))
    with engine.connect() as reader:
        query = "SELECT DISTINCT table_schema FROM information_schema.columns WHERE table_name = :t"
        schemas = {*reader.execute(sa.text(query), {"t": "visit_note"}).scalars()}
    engine.dispose()
    assert schemas == {SCHEMA, elation.ARCHIVE_SCHEMA}


def test_the_reader_may_read_but_not_write(sample: Database) -> None:
    engine = sa.create_engine(sample.server.url(SCHEMA))
    with engine.connect() as reader:
        assert reader.execute(sa.text("SELECT COUNT(*) FROM practice")).scalar_one() > 0
        with pytest.raises(sa.exc.DBAPIError):
            reader.execute(sa.text("DELETE FROM practice"))
    engine.dispose()


def test_no_row_refers_to_a_missing_one(sample: Database) -> None:
    assert _orphans(sample) == []


def test_bullets_nest_one_level_within_their_note(sample: Database) -> None:
    wrong = sample.ask(
        "SELECT COUNT(*) FROM visit_note_bullet c JOIN visit_note_bullet p "
        "ON p.id = c.parent_bullet_id "
        "WHERE p.parent_bullet_id IS NOT NULL OR p.visit_note_id <> c.visit_note_id"
    )
    assert wrong == [(0,)]


def test_awkward_texts_arrive_unchanged(sample: Database) -> None:
    stored = {text for (text,) in sample.ask("SELECT text FROM visit_note_bullet")}
    assert set(elation._SPECIAL_TEXTS) <= stored
    empty, word, absent = sample.ask(
        "SELECT SUM(notes = ''), SUM(notes = 'NULL'), SUM(notes IS NULL) FROM bill"
    )[0]
    assert empty and word and absent


def test_the_type_table_holds_its_extremes(sample: Database) -> None:
    rows = sample.ask(
        "SELECT MAX(device_serial), SUM(device_serial IS NULL) > 0, MIN(quality), MAX(quality), "
        "MIN(LENGTH(raw)), MAX(raw) = REPEAT(X'FF', 16), SUM(MICROSECOND(reading_time) > 0) > 0, "
        "SUM(is_valid IS NULL) > 0, SUM(payload = 'NULL') > 0, SUM(payload = '') > 0 "
        f"FROM {elation.TYPE_TABLE}"
    )
    assert rows == [(2**63 - 1, 1, -128, 127, 16, 1, 1, 1, 1, 1)]


def test_the_same_seed_gives_the_same_tables(sample: Database, fresh: Database) -> None:
    assert fresh.checksums() == sample.checksums()
    fresh.create(seed=7)
    other = fresh.checksums()
    assert other["visit_note"] != sample.checksums()["visit_note"]
    assert other["practice"] == sample.checksums()["practice"]


def test_exactly_the_known_cells_are_bad(sample: Database) -> None:
    assert _bad_cells(sample) == _expected_bad()
    kinds = [bad.kind for bad in elation.known_bad(SCALE, 2021)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "invalid_date": 1,
        "out_of_range": 2,
        "not_boolean": 1,
        "zero_date": 2,
        "invalid_encoding": 1,
    }


def test_bad_cells_have_their_stated_values(sample: Database) -> None:
    expected = {
        "invalid_date": b"2021-00-15",
        "out_of_range": b"9999-12-31",
        "not_boolean": b"2",
        "zero_date": b"0000-00-00 00:00:00",
        "invalid_encoding": b"Please evaluate " + elation.INVALID_BYTES + b" thank you",
    }
    for bad in elation.known_bad(SCALE, 2021):
        query = f"SELECT CAST(`{bad.column}` AS BINARY) FROM `{bad.table}` WHERE id = %s"
        assert sample.ask(query, bad.key["id"]) == [(expected[bad.kind],)]


def test_a_strict_client_cannot_read_the_invalid_bytes(sample: Database) -> None:
    # A connection of its own: PyMySQL leaves unread packets behind after the error.
    with closing(Database(sample.server, SCHEMA)) as other:
        with pytest.raises(UnicodeDecodeError):
            other.ask("SELECT body FROM referral_order")
        with pytest.raises(pymysql.err.Error):
            other.ask("SELECT 1")


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 1.0])
def test_bad_rows_exist_at_every_scale(scale: float) -> None:
    counts = elation.row_counts(scale)
    bad = elation.known_bad(scale, 5)
    assert len({(row.table, row.key["id"]) for row in bad}) == 7
    for row in bad:
        index = int(str(row.key["id"])) - elation._id(row.table, 0)
        assert 0 <= index < counts[row.table]


def test_a_whole_refresh_rebuilds_every_table_with_changed_rows(
    sample: Database, fresh: Database
) -> None:
    before, old = fresh.checksums(), fresh.created()
    progress: list[str] = []
    elation.refresh(fresh.server, schema=fresh.schema, scale=SCALE, progress=progress.append)
    after, new = fresh.checksums(), fresh.created()

    assert progress == list(elation.TABLES)
    assert min(new.values()) > max(old.values())
    changed = {table for table in elation.TABLES if before[table] != after[table]}
    assert changed == set(elation._CHANGING) | elation._GROWING | elation._SHRINKING
    assert _orphans(fresh) == []
    assert _bad_cells(fresh) == _expected_bad()
    assert _difference(sample, fresh, "visit_note") == (2, 0, 3)
    assert _difference(sample, fresh, "med_order") == (1, 1, 0)


def _difference(old: Database, new: Database, table: str) -> tuple[int, int, int]:
    """How many rows were added, removed, and changed in `last_modified`."""
    query = f"SELECT id, CAST(last_modified AS CHAR) FROM {table}"
    before, after = ({row[0]: row[1] for row in side.ask(query)} for side in (old, new))
    changed = [key for key in before if key in after and before[key] != after[key]]
    return len(after.keys() - before.keys()), len(before.keys() - after.keys()), len(changed)


def test_mutations_differ_and_repeat(fresh: Database) -> None:
    seen = []
    for mutation in (1, 2, 1):
        elation.refresh(fresh.server, schema=fresh.schema, scale=SCALE, mutation=mutation)
        seen.append(fresh.checksums())
    assert seen[0] == seen[2]
    assert seen[0]["visit_note_bullet"] != seen[1]["visit_note_bullet"]


def test_half_a_refresh_leaves_the_other_half(fresh: Database) -> None:
    before, old = fresh.checksums(), fresh.created()
    elation.refresh(fresh.server, schema=fresh.schema, scale=SCALE, mode="half")
    after, new = fresh.checksums(), fresh.created()
    middle = len(elation.TABLES) // 2
    assert _newer(old, new) == set(elation.TABLES[:middle])
    assert all(before[table] == after[table] for table in elation.TABLES[middle:])
    assert before["visit_note"] != after["visit_note"]


def test_an_alteration_makes_one_table_newer(fresh: Database) -> None:
    before, old = fresh.checksums(), fresh.created()
    elation.refresh(fresh.server, schema=fresh.schema, scale=SCALE, mode="alter")
    assert _newer(old, fresh.created()) == {elation.ALTERED_TABLE}
    assert fresh.checksums() == before


def _newer(old: dict[str, datetime], new: dict[str, datetime]) -> set[str]:
    return {table for table in new if new[table] > max(old.values())}


def test_the_wide_schema_has_as_many_tables_as_asked(server: MariaDB) -> None:
    elation.wide_schema(server, schema="wide", tables=3, rows=20)
    with closing(Database(server, "wide")) as wide:
        assert wide.ask("SHOW TABLES") == [("t_000",), ("t_001",), ("t_002",)]
        assert wide.ask("SELECT COUNT(*), SUM(quantity IS NULL) FROM t_002") == [(20, 5)]


def test_the_big_table_has_long_texts_of_which_few_are_awkward(server: MariaDB) -> None:
    elation.big_table(server, schema="big", rows=1_000)
    with closing(Database(server, "big")) as big:
        rows = big.ask(
            "SELECT COUNT(*), MIN(CHAR_LENGTH(text)) >= 120, MAX(CHAR_LENGTH(text)) <= 200, "
            f"SUM(text REGEXP '[,\"\\n]') FROM {elation.BIG_TABLE}"
        )
        assert rows == [(1_000, 1, 1, 20)]
        assert len(big.ask(f"SHOW COLUMNS FROM {elation.BIG_TABLE}")) == 11


def test_a_load_that_loses_data_is_refused(
    server: MariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elation, "_ICD10", (("far too long for this column", "x"),) * 16)
    with pytest.raises(RuntimeError, match="icd10: loaded"):
        elation.create(server, schema="lossy", scale=SCALE)


def test_a_broken_server_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeError, match="mariadbd did not start"):
        MariaDB.start(tmp_path)
    with pytest.raises((pymysql.err.OperationalError, FileNotFoundError)):
        MariaDB(tmp_path).admin()
