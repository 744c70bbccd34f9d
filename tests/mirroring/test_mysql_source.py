"""What MySQL holds is what is exported and loaded, value by value, with either driver."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pymysql
import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import SourceFault, UnsupportedType
from mirror_assets.mirroring.sources.mysql import zone_of
from mirror_assets.sample import elation

if TYPE_CHECKING:
    from tests.conftest import Bench

SCALE = 0.01
#: The engine's word for each kind of flaw of the sample.
_KINDS = {"invalid_date": "not_date"}

_ZOO = """
CREATE TABLE zoo (
    id int PRIMARY KEY,
    f float NULL, d double NULL,
    b1 bit(1) NULL, b8 bit(8) NULL, b64 bit(64) NULL,
    ti tinyint NULL, flag tinyint(1) NULL, mi mediumint NULL, ub bigint unsigned NULL,
    padded int(6) unsigned zerofill NULL,
    y year NULL, t time(3) NULL, ts timestamp(6) NULL, dt datetime(6) NULL, day date NULL,
    e enum('a', 'b,c', 'd"q') NULL, s set('x', 'y') NULL, j json NULL,
    exact decimal(38,10) NULL, wide decimal(65,30) NULL,
    fixed binary(4) NULL, bin varbinary(20) NULL, bl blob NULL,
    tt tinytext NULL, latin varchar(20) CHARACTER SET latin1 NULL,
    p point NULL, g geometry NULL,
    twice int AS (id * 2) VIRTUAL, thrice int AS (id * 3) STORED,
    `select` int NULL, `from where` varchar(10) NULL
) ENGINE=InnoDB
"""
_ZOO_ROWS = """
INSERT INTO zoo (id, f, d, b1, b8, b64, ti, flag, mi, ub, padded, y, t, ts, dt, day, e, s, j,
    exact, wide, fixed, bin, bl, tt, latin, p, g, `select`, `from where`) VALUES
(1, 0.1, 0.1, b'1', b'10101010', 18446744073709551615, -128, 2, -8388608, 18446744073709551615,
 42, 2021, '-838:59:59.000', '2021-03-14 10:30:00.000001', '0001-01-01 00:00:00', '9999-12-31',
 'd"q', 'x,y', '{"a": [1, null]}', 1234567890123456789012345678.0123456789,
 12345678901234567890123456789012345.012345678901234567890123456789, X'00FF220A', X'',
 X'00225C2C0A', '', 'Ménière', ST_GeomFromText('POINT(1 2)'),
 ST_GeomFromText('LINESTRING(0 0, 1 1)'), 7, 'NULL'),
(2, 16777217, 1.7976931348623157e308, b'0', b'0', 0, 127, 1, 8388607, 0,
 999999, 1901, '838:59:59.999', '2038-01-19 03:14:07.999999', '9999-12-31 23:59:59.999999',
 '0001-01-01', 'b,c', '', 'null', -0.0000000001, 0, X'01', X'DEADBEEF', X'', 'a\\0b', '',
 NULL, NULL, -7, '')
"""
_NULLS = "INSERT INTO zoo (id) VALUES (3)"


def _zoo(bench: Bench) -> DatabaseSpec:
    bench.run("SET time_zone = '+00:00'")
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        for statement in (_ZOO, _ZOO_ROWS, _NULLS):
            cursor.execute(statement)
    return bench.catalog(["zoo"])


def _export(bench: Bench, spec: DatabaseSpec, table: str, driver: str) -> bytes:
    """The bytes that a driver's export of a table would put in the landing zone."""
    entry = spec.table(table)
    with bench.source(spec, driver=driver).snapshot() as snapshot:
        writer = bench.landing.writer(spec.name, table, datetime.now(UTC))
        snapshot.export(entry, snapshot.schema(entry), writer)
    files = (bench.root / "landing").rglob(f"*{writer._token}.csv")
    return b"".join(file.read_bytes() for file in sorted(files))


# -- every type


def test_every_type_arrives_exactly(bench: Bench) -> None:
    spec = _zoo(bench)
    report = bench.mirror_day(spec)["zoo"]
    assert (report.error, report.rejected) == (None, 0)
    names = [row[0] for row in bench.query("DESCRIBE clinic_mirror.zoo_latest")]
    first, second, third = (dict(zip(names, row, strict=True)) for row in bench.rows("zoo_latest"))
    assert first == {
        "id": 1,
        "f": 0.10000000149011612,
        "d": 0.1,
        "b1": 1,
        "b8": 0b10101010,
        "b64": Decimal(2**64 - 1),
        "ti": -128,
        "flag": 2,
        "mi": -8388608,
        "ub": Decimal(2**64 - 1),
        "padded": 42,
        "y": 2021,
        "t": "-838:59:59.000",
        "ts": datetime(2021, 3, 14, 10, 30, 0, 1, tzinfo=UTC),
        "dt": datetime(1, 1, 1),
        "day": date(9999, 12, 31),
        "e": 'd"q',
        "s": "x,y",
        "j": '{"a": [1, null]}',
        "exact": Decimal("1234567890123456789012345678.0123456789"),
        "wide": "12345678901234567890123456789012345.012345678901234567890123456789",
        "fixed": b"\x00\xff\x22\x0a",
        "bin": b"",
        "bl": b"\x00\x22\x5c\x2c\x0a",
        "tt": "",
        "latin": "Ménière",
        "p": bytes.fromhex("000000000101000000000000000000f03f0000000000000040"),
        "g": bytes.fromhex(
            "0000000001020000000200000000000000000000000000000000000000000000000000f03f"
            "000000000000f03f"
        ),
        "twice": 2,
        "thrice": 3,
        "select": 7,
        "from where": "NULL",
    }
    assert (second["f"], second["d"]) == (16777216.0, 1.7976931348623157e308)
    assert (second["t"], second["tt"], second["j"]) == ("838:59:59.999", "a\0b", "null")
    assert second["dt"] == datetime(9999, 12, 31, 23, 59, 59, 999999)
    assert second["ts"] == datetime(2038, 1, 19, 3, 14, 7, 999999, tzinfo=UTC)
    assert (second["s"], second["latin"], second["from where"]) == ("", "", "")
    assert (second["exact"], second["fixed"]) == (Decimal("-1E-10"), b"\x01\0\0\0")
    assert {name for name, value in third.items() if value is not None} == {
        "id",
        "twice",
        "thrice",
    }


def test_both_drivers_write_the_same_bytes_for_every_type(bench: Bench) -> None:
    spec = _zoo(bench)
    fast = _export(bench, spec, "zoo", "auto")
    assert fast == _export(bench, spec, "zoo", "pymysql")
    assert fast.count(b"\n") == 3


def test_both_drivers_write_the_same_bytes_for_the_whole_sample(sample: Bench) -> None:
    spec = sample.elation()
    for table in spec.tables:
        fast = _export(sample, spec, table.name, "auto")
        assert fast == _export(sample, spec, table.name, "pymysql"), table.name
        assert bool(fast) == (table.name != elation.EMPTY_TABLE)


def test_the_fast_driver_is_really_another_one(sample: Bench) -> None:
    spec = sample.elation("practice")
    drivers = {sample.source(spec, driver=name)._driver for name in ("auto", "pymysql")}
    assert len(drivers) == 2


# -- the whole sample, cell by cell


def _value(text: bytes | None, data_type: str, full_type: str) -> Any:
    """A cell as the warehouse must hold it, from the server's own text."""
    if text is None:
        return None
    if full_type == "tinyint(1)":
        return {b"0": False, b"1": True}[text]
    if data_type in ("tinyint", "smallint", "int", "bigint"):
        return int(text)
    if data_type in ("decimal", "double", "float"):
        return float(text)
    if data_type == "date":
        return date.fromisoformat(text.decode())
    if data_type == "datetime":
        return datetime.fromisoformat(text.decode())
    return text.hex() if data_type == "binary" else text.decode("utf-8")


def _source_rows(bench: Bench, table: str) -> list[tuple[dict[str, bytes | None], list[Any]]]:
    columns = bench.ask(
        "SELECT column_name, data_type, column_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        bench.schema,
        table,
    )
    raw = pymysql.connect(
        host=bench.server.host,
        port=bench.server.port,
        user="admin",
        password=bench.server._password("admin"),
        database=bench.schema,
        charset="utf8mb4",
        use_unicode=False,
        conv=dict(pymysql.converters.encoders),  # and no decoders
    )
    with closing(raw), raw.cursor() as cursor:
        cursor.execute(f"SELECT * FROM `{table}`")
        rows = cursor.fetchall()
    names = [name for name, _data, _full in columns]
    return [(dict(zip(names, row, strict=True)), columns) for row in rows]


def test_the_sample_is_equal_cell_by_cell_except_the_known_bad_rows(sample: Bench) -> None:
    spec = sample.elation()
    reports = sample.mirror_day(spec)
    assert all(report.published for report in reports.values())
    bad = {(row.table, str(row.key["id"]).encode()) for row in elation.known_bad(SCALE)}
    cells = 0
    for table in spec.tables:
        rows = _source_rows(sample, table.name)
        expected = Counter(
            tuple(_value(row[name], data, full) for name, data, full in columns)
            for row, columns in rows
            if (table.name, row.get("id")) not in bad
        )
        loaded = sample.query(f'SELECT * FROM elation_mirror."{table.name}_latest"')
        assert Counter(loaded) == expected, table.name
        cells += sum(map(len, loaded))
        assert reports[table.name].source_rows == len(rows)
    assert cells > 20_000


def test_the_rejects_are_exactly_the_known_bad_rows(sample: Bench) -> None:
    sample.mirror_day(sample.elation())
    rejects = sample.query(
        'SELECT "table", "column", kind, row_number, file FROM elation_mirror."MIRROR_ERRORS"'
    )
    found = set()
    for table, column, kind, number, _file in rejects:
        text = sample.exported(table).decode("latin-1")
        record = list(csv.reader(io.StringIO(text, newline="")))[number - 1]
        found.add((table, int(record[0]), column, kind))
    assert found == {
        (bad.table, bad.key["id"], bad.column, _KINDS.get(bad.kind, bad.kind))
        for bad in elation.known_bad(SCALE)
    }
    assert len(rejects) == len(found) == 7


# -- names and shapes

_HOSTILE = [
    "my table",
    'quo"te',
    "back`tick",
    "per%cent %s",
    "é",
    "a.b",
    "sl/ash",
    "order",
    "apostro'phe",
    "st*r[1]?",
    "semi;colon --",
    "back\\slash",
]


def test_hostile_names_of_tables_and_columns(bench: Bench) -> None:
    for number, name in enumerate(_HOSTILE):
        quoted = "`" + name.replace("`", "``") + "`"
        bench.run(
            f"CREATE TABLE {quoted} (id int PRIMARY KEY, {quoted} varchar(40) NULL)",
            f"INSERT INTO {quoted} VALUES (1, 'value {number}'), (2, NULL)",
        )
    spec = bench.catalog(_HOSTILE)
    reports = bench.mirror_day(spec)
    assert [str(report.error) for report in reports.values() if report.error] == []
    for number, name in enumerate(_HOSTILE):
        view = spec.view_name(name)
        assert bench.rows(view) == [(1, f"value {number}"), (2, None)], name
    again = bench.mirror_day(spec)
    assert all(report.published and report.replayed for report in again.values())


def test_five_hundred_columns(bench: Bench) -> None:
    columns = ", ".join(f"c{i} int NULL" for i in range(499))
    bench.run(
        f"CREATE TABLE t (id int, {columns}) ENGINE=InnoDB",
        "INSERT INTO t (id, c0, c498) VALUES (1, 2, 3)",
    )
    assert bench.mirror_day(bench.catalog(["t"]))["t"].loaded == 1
    assert bench.rows("t_latest", "id, c0, c1, c498") == [(1, 2, None, 3)]


@pytest.mark.parametrize("declared", ["varchar(10)", "int", "date"])
def test_one_nullable_column_without_key(bench: Bench, declared: str) -> None:
    value = {"varchar(10)": "''", "int": "0", "date": "'2020-02-29'"}[declared]
    bench.run(
        f"CREATE TABLE t (v {declared} NULL)",
        f"INSERT INTO t VALUES (NULL), ({value}), (NULL), ({value}), (NULL)",
    )
    report = bench.mirror_day(bench.catalog(["t"]))["t"]
    assert (report.source_rows, report.loaded, report.rejected) == (5, 5, 0)
    assert bench.rows("t_latest", "count(*), count(v)") == [(5, 2)]
    assert report.schema is not None
    assert report.schema.primary_key == ()


def test_a_table_without_rows(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int NOT NULL, v text)")
    report = bench.mirror_day(bench.catalog(["t"]))["t"]
    assert (report.published, report.source_rows) == (True, 0)
    assert bench.rows("t_latest") == []


def test_columns_come_from_the_right_schema_in_ordinal_order(sample: Bench) -> None:
    spec = sample.elation("visit_note")
    with sample.source(spec).snapshot() as snapshot:
        schema = snapshot.schema(spec.table("visit_note"))
    shown = sample.ask("SHOW COLUMNS FROM visit_note")
    assert schema.names == tuple(row[0] for row in shown)
    assert schema.primary_key == ("id",)


def test_masked_and_excluded_columns_never_reach_the_landing_zone(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, ssn varchar(20), born date NOT NULL, secret text)",
        "INSERT INTO t VALUES (1, 'SSN-CANARY', '1911-11-11', 'SECRET-CANARY'),"
        " (2, NULL, '1911-11-11', NULL)",
    )
    spec = bench.catalog({"t": {"masked_columns": ["ssn", "born"], "exclude_columns": ["secret"]}})
    assert bench.mirror_day(spec)["t"].published
    files = [path for path in (bench.root / "landing").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert b"CANARY" not in content
    assert b"1911" not in content
    assert b"secret" not in content
    assert bench.rows("t_latest") == [(1, "masked", "masked"), (2, None, "masked")]


def test_an_unknown_masked_column_is_refused(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    error = bench.mirror_day(bench.catalog({"t": {"masked_columns": ["ssn"]}}))["t"].error
    assert isinstance(error, SourceFault)
    assert "'ssn'" in error.what


def test_a_table_of_which_every_column_is_excluded_is_refused(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    error = bench.mirror_day(bench.catalog({"t": {"exclude_columns": ["id"]}}))["t"].error
    assert isinstance(error, SourceFault)
    assert "every column" in error.what


def test_an_unmapped_type_is_an_early_error_naming_table_and_column(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(types.MYSQL, "polygon")
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, area polygon NULL)", "INSERT INTO t VALUES (1, NULL)"
    )
    error = bench.mirror_day(bench.catalog(["t"]))["t"].error
    assert isinstance(error, UnsupportedType)
    assert "clinic/t" in error.sentence
    assert "column area has type polygon" in error.sentence
    assert not list((bench.root / "landing").rglob("*.csv"))
    kept = bench.catalog({"t": {"exclude_columns": ["area"]}})
    assert bench.mirror_day(kept)["t"].published


def test_create_time_is_read_as_utc_and_kept_as_local_time(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int)")
    (state,) = bench.source(bench.catalog(["t"])).states().values()
    assert state.created_at is not None
    assert abs((datetime.now(UTC) - state.created_at).total_seconds()) < 60
    local = datetime.fromisoformat(state.info["create_time"]).replace(tzinfo=UTC)
    assert (state.created_at - local).total_seconds() == 8 * 3600  # the server's zone is -08:00
    assert state.info["db_timezone"] == "-08:00"


@pytest.mark.parametrize(
    ("name", "winter_hours"),
    [("US/Pacific", -8), ("-08:00", -8), ("+05:30", 5.5), ("UTC", 0), ("PST8PDT", -8)],
)
def test_zones_by_name_and_offset(name: str, winter_hours: float) -> None:
    offset = datetime(2021, 1, 19, tzinfo=zone_of(name, "clinic")).utcoffset()
    assert offset is not None
    assert offset.total_seconds() == winter_hours * 3600


@pytest.mark.parametrize(
    ("created", "zone", "partition"),
    [
        ("2021-01-18 20:30:00", "US/Pacific", "20210119"),
        ("2021-07-09 16:59:59", "US/Pacific", "20210709"),
        ("2021-07-09 17:00:00", "US/Pacific", "20210710"),
        ("2021-01-19 04:10:00", "UTC", "20210119"),
    ],
)
def test_the_documented_partitions(created: str, zone: str, partition: str) -> None:
    local = datetime.fromisoformat(created).replace(tzinfo=zone_of(zone, "clinic"))
    assert f"{local.astimezone(UTC):%Y%m%d}" == partition


def test_an_unknown_zone_names_itself() -> None:
    with pytest.raises(SourceFault, match="'Mars/Olympus'"):
        zone_of("Mars/Olympus", "clinic")
