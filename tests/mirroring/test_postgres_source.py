"""What only PostgreSQL has: policies, partitions, views, shared snapshots, its many types."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import sqlalchemy as sa

from mirror_assets.mirroring.errors import (
    LandingFault,
    MirrorError,
    RefreshLanded,
    SettingsError,
    SourceFault,
    SourceLocked,
    SourceUnavailable,
    UnsupportedType,
)
from mirror_assets.mirroring.proof.verify import Verifier
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.sources.postgres import PostgresSource, _Session, libpq_options
from mirror_assets.sample.servers import PostgreSQL
from tests.conftest import Interrupted

if TYPE_CHECKING:
    from tests.conftest import KindBench

ROOT = Path(__file__).parents[2]
_SOON = "SET lock_timeout = '5s'"  # a lock that we hold by mistake must fail the test, not hang it


def _url(bench: KindBench, **changed: Any) -> str:
    return sa.make_url(bench.url).set(**changed).render_as_string(hide_password=False)


def _interrupted(bench: KindBench, spec, table: str, moment: str, action):
    return Interrupted(bench.source(spec), table, moment, action)


# -- row-level security


def test_hidden_rows_are_an_error_with_the_remedy(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE t (id int, owner text)",
        "INSERT INTO t VALUES (1, 'reader'), (2, 'somebody')",
        "CREATE POLICY own ON t FOR SELECT USING (owner = current_user)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM t",
        "CREATE TABLE u (id int)",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    )
    spec = pg_bench.catalog(["t", "v", "u"])
    reports = pg_bench.mirror_day(spec)
    for name in ("t", "v"):
        error = reports[name].error
        assert isinstance(error, SourceFault)
        assert error.where == f"clinic/{name}"
        assert "row-level security would hide rows" in error.what
        assert "BYPASSRLS" in error.remedy
    assert reports["u"].published  # and the failed table before it did not spoil its transaction
    pg_bench.run("ALTER ROLE reader BYPASSRLS")
    try:
        assert pg_bench.mirror_day(spec)["t"].loaded == 2
    finally:
        pg_bench.run("ALTER ROLE reader NOBYPASSRLS")


# -- which relations


def test_partitioned_parents_once_and_views_only_when_asked_for(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE visit (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE visit_2020 PARTITION OF visit FOR VALUES FROM ('2020-01-01') TO"
        " ('2021-01-01')",
        "CREATE TABLE visit_2021 PARTITION OF visit FOR VALUES FROM ('2021-01-01') TO"
        " ('2022-01-01') PARTITION BY HASH (id)",
        *(
            f"CREATE TABLE visit_2021_{i} PARTITION OF visit_2021"
            f" FOR VALUES WITH (MODULUS 2, REMAINDER {i})"
            for i in range(2)
        ),
        "INSERT INTO visit SELECT i, date '2020-01-01' + i % 700 FROM generate_series(1, 40000) i",
        "CREATE VIEW seen AS SELECT id FROM visit WHERE id <= 5",
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM visit WHERE id <= 6",
        "CREATE FOREIGN DATA WRAPPER elsewhere",
        "CREATE SERVER away FOREIGN DATA WRAPPER elsewhere",
        "CREATE FOREIGN TABLE far (id int) SERVER away",
        "CREATE SEQUENCE counter",
        "CREATE TABLE empty ()",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
    )
    states = pg_bench.source(pg_bench.catalog(["visit"])).states()
    assert sorted(states) == ["empty", "visit"]
    assert states["visit"].size_mb >= 2  # its partitions'
    assert states["visit"].created_at is None
    assert states["visit"].info == {"create_time": None, "db_timezone": "UTC"}

    spec = pg_bench.catalog(["visit", "seen", "kept", "visit_2020", "empty"])
    assert set(pg_bench.source(spec).states()) == {table.name for table in spec.tables}
    reports = pg_bench.mirror_day(spec)
    assert {name: report.loaded for name, report in reports.items()} == {
        "visit": 40_000,
        "seen": 5,
        "kept": 6,
        "visit_2020": pg_bench.ask("SELECT count(*) FROM visit_2020")[0][0],
        "empty": 0,
    }
    schema = reports["visit"].schema
    assert schema is not None
    assert schema.primary_key == ("id", "at")
    error = reports["empty"].error
    assert isinstance(error, SourceFault)
    assert "no column" in error.what


# -- one instant


def test_two_connections_share_an_exported_snapshot(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    spec = pg_bench.catalog(["t"])
    source = PostgresSource(spec, pg_bench.url)
    with source.snapshot() as first:
        pg_bench.run("INSERT INTO t VALUES (2)")
        with source.snapshot(attach=first.snapshot_id) as second, source.snapshot() as later:
            assert second.taken_at == first.taken_at < later.taken_at
            assert second.snapshot_id == first.snapshot_id != later.snapshot_id
            counts = [each.count(spec.table("t")) for each in (first, second, later)]
            assert counts == [1, 1, 2]
        shared = first.snapshot_id
    with pytest.raises(SourceUnavailable, match="no longer open"), source.snapshot(shared):
        pass
    other = PostgresSource(spec, pg_bench.url)
    with other.snapshot() as first:
        other._instants["00000003-00000001-9"] = first.taken_at  # a process that died
        with pytest.raises(MirrorError), other.snapshot("00000003-00000001-9"):
            pass


@pytest.mark.parametrize(
    "change",
    [
        "TRUNCATE t",
        "ALTER TABLE t ALTER COLUMN id TYPE bigint",
        "DROP TABLE t",
        "ALTER TABLE t DROP COLUMN v",
        "ALTER TABLE p DETACH PARTITION p1",
    ],
)
def test_what_a_snapshot_cannot_hold_fast_is_transient(pg_bench: KindBench, change: str) -> None:
    """TRUNCATE and rewrites empty a table even for snapshots that were there before."""
    pg_bench.run(
        "CREATE TABLE a (id int)",
        "CREATE TABLE t (id int, v int)",
        "INSERT INTO t VALUES (1, 1)",
        "CREATE TABLE p (id int) PARTITION BY LIST (id)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
        "INSERT INTO p VALUES (1)",
    )
    spec = pg_bench.catalog(["a", "t", "p"])
    source = _interrupted(pg_bench, spec, "a", "before", lambda: pg_bench.run(_SOON, change))
    reports = pg_bench.mirror_day(spec, source=source)
    hit = "p" if " p " in change else "t"
    error = reports[hit].error
    assert isinstance(error, RefreshLanded)
    assert error.where == f"clinic/{hit}"
    assert {name for name, report in reports.items() if report.published} == {"a", "t", "p"} - {hit}


# -- every type

_TYPES = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('so so', 'gr"eat');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE spans AS RANGE (subtype = float8);
CREATE DOMAIN zip AS varchar(10) CHECK (value ~ '^[0-9-]*$');
CREATE DOMAIN price AS numeric(12,3);
CREATE DOMAIN dear AS price CHECK (value > 100);
CREATE DOMAIN blob AS bytea;
"""
#: declared type, SQL value, loaded value
_ZOO: list[tuple[str, str, Any]] = [
    ("boolean", "true", True),
    ("smallint", "-32768", -32768),
    ("bigint", "-9223372036854775808", -(2**63)),
    ("oid", "4294967295", 2**32 - 1),
    ("real", "'0.1'", 0.10000000149011612),
    ("real", "'-Infinity'", float("-inf")),
    ("double precision", "'0.1'", 0.1),
    ("double precision", "'5e-324'", 5e-324),
    ("double precision", "'Infinity'", float("inf")),
    ("double precision", "'NaN'", "nan"),
    ("numeric(38,10)", "-1234567890123456789012345678.0123456789",
     Decimal("-1234567890123456789012345678.0123456789")),
    ("numeric(3,5)", "0.00123", "0.00123"),
    ("numeric(2,-3)", "99123", "99000"),
    ("numeric(50,2)", "1", "1.00"),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("numeric", "0.10000000000000000000000000000000000000000000000000",
     "0.10000000000000000000000000000000000000000000000000"),
    ("money", "12.5", "$12.50"),
    ("text", "E'a\\n\"b\"'", 'a\n"b"'),
    ("varchar(5)", "''", ""),
    ("char(3)", "'a'", "a  "),
    ('"char"', "'x'", "x"),
    ("name", "'n'", "n"),
    ("citext", "'MiXed'", "MiXed"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "'{\"a\" :  [1,null]}'", '{"a" :  [1,null]}'),
    ("jsonb", "'{\"b\":1.50, \"a\": \"x,y\"}'", '{"a": "x,y", "b": 1.50}'),
    ("xml", "'<a>1</a>'", "<a>1</a>"),
    ("hstore", "'a=>1,b=>NULL'", '"a"=>"1", "b"=>NULL'),
    ("ltree", "'top.sub'", "top.sub"),
    ("int[]", "'{1,NULL,3}'", "{1,NULL,3}"),
    ("text[]", "ARRAY['', 'NULL', 'a,b', NULL]", '{"","NULL","a,b",NULL}'),
    ("timestamptz[]", "ARRAY['2021-01-19 05:00:00-05'::timestamptz]",
     '{"2021-01-19 10:00:00+00"}'),
    ("mood", "'gr\"eat'", 'gr"eat'),
    ("pair", "ROW(1, 'x y')", '(1,"x y")'),
    ("pair", "ROW(NULL, NULL)", "(,)"),
    ("zip", "'02139'", "02139"),
    ("price", "1.5", Decimal("1.500")),
    ("dear", "101", Decimal("101.000")),
    ("blob", "'\\x00ff'", b"\x00\xff"),
    ("bytea", "'\\x'", b""),
    ("bytea", "'\\x22002c0a'", b'"\0,\n'),
    ("bit(3)", "B'101'", "101"),
    ("bit varying(5)", "B''", ""),
    ("date", "'0001-01-01'", date(1, 1, 1)),
    ("timestamp", "'9999-12-31 23:59:59.999999'", datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("timestamp(0)", "'2021-07-01 12:00:00'", datetime(2021, 7, 1, 12)),
    ("timestamptz", "'2021-01-19 05:00:00.987654-05'",
     datetime(2021, 1, 19, 10, 0, 0, 987654, UTC)),
    ("time", "'24:00'", "24:00:00"),
    ("timetz", "'12:00:00.5+05:30'", "12:00:00.5+05:30"),
    ("interval", "'1 year 2 months -3 days 04:05:06.7'", "P1Y2M-3DT4H5M6.7S"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("tstzrange", "'[2021-01-19 05:00:00-05,)'", '["2021-01-19 10:00:00+00",)'),
    ("spans", "'[0.1,2)'", "[0.1,2)"),
    ("datemultirange", "'{[2021-01-01,2021-02-01)}'", "{[2021-01-01,2021-02-01)}"),
    ("point", "'(0.1,2)'", "(0.1,2)"),
    ("box", "'(1,1),(0,0)'", "(1,1),(0,0)"),
    ("tsvector", "'a fat cat'", "'a' 'cat' 'fat'"),
    ("tsquery", "'a & b'", "'a' & 'b'"),
    ("jsonpath", "'$.a'", '$."a"'),
    ("int GENERATED ALWAYS AS (1 + 1) STORED", "DEFAULT", 2),
    ("int GENERATED BY DEFAULT AS IDENTITY", "DEFAULT", 1),
]  # fmt: skip


def test_every_type_arrives_exactly(pg_bench: KindBench) -> None:
    pg_bench.run(_TYPES, "ALTER DATABASE " + pg_bench.schema + " SET timezone = 'Asia/Tokyo'")
    columns = ", ".join(f"c{i} {declared}" for i, (declared, _sql, _value) in enumerate(_ZOO))
    values = ", ".join(value for _declared, value, _loaded in _ZOO)
    pg_bench.run(
        f"ALTER DATABASE {pg_bench.schema} SET datestyle = 'German'",
        f"ALTER DATABASE {pg_bench.schema} SET intervalstyle = 'sql_standard'",
        f"ALTER DATABASE {pg_bench.schema} SET extra_float_digits = -5",
        f"ALTER DATABASE {pg_bench.schema} SET bytea_output = 'escape'",
        f"CREATE TABLE zoo (id int PRIMARY KEY, {columns})",
        f"INSERT INTO zoo VALUES (1, {values})",
        "INSERT INTO zoo (id) VALUES (2)",
    )
    report = pg_bench.mirror_day(pg_bench.catalog(["zoo"]))["zoo"]
    assert (report.error, report.rejected) == (None, 0)
    first, second = pg_bench.rows("zoo_latest")
    for (declared, value, wanted), loaded in zip(_ZOO, first[1:], strict=True):
        shown = "nan" if loaded != loaded else loaded
        assert (declared, value, shown, type(shown)) == (declared, value, wanted, type(wanted))
    own = [i for i, (declared, _v, _l) in enumerate(_ZOO) if "GENERATED" in declared]
    assert [v for i, v in enumerate(second[1:]) if i not in own and v is not None] == []


def test_values_that_the_warehouses_cannot_hold_are_rejects_by_column(pg_bench: KindBench) -> None:
    bad = [
        *(("day", value) for value in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01")),
        *(("at", value) for value in ("infinity", "0044-03-15 BC", "10000-01-01 00:00:00")),
        *(("instant", value) for value in ("-infinity", "0044-03-15 BC", "10000-01-01 00:00:00")),
        ("exact", "NaN"),
    ]
    pg_bench.run(
        "CREATE TABLE t (id int, day date, at timestamp, instant timestamptz, exact numeric(9,2))",
        "INSERT INTO t VALUES (0, '2020-02-29', '0001-01-01', '9999-12-31', 1.5)",
        *(f"INSERT INTO t (id, {column}) VALUES ({i}, '{v}')" for i, (column, v) in enumerate(bad)),
    )
    allowed = {"rows": 50, "reason": "kept at the source", "until": "2999-01-01"}
    spec = pg_bench.catalog({"t": {"bad_records_allowed": allowed}})
    report = pg_bench.mirror_day(spec)["t"]
    assert (report.source_rows, report.loaded, report.rejected) == (12, 1, 11)
    found = pg_bench.rows(
        "MIRROR_ERRORS_latest", '"column", row_number', where="kind <> 'coverage'"
    )
    assert sorted(found, key=lambda row: row[1]) == [
        (column, number) for number, (column, _value) in enumerate(bad, start=2)
    ]


def test_unbounded_numerics_are_text_or_exact_or_rejects(pg_bench: KindBench) -> None:
    values = ["1.5", "-0.123456789", "12345678901234567890123456789.000000001", "7.00000000000000"]
    rejected = ["0.1234567891", "NaN", "Infinity", "123456789012345678901234567890"]
    pg_bench.run("CREATE TABLE t (id int, n numeric)")
    pg_bench.insert("t", *((i, value) for i, value in enumerate(values + rejected)))
    assert pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"].rejected == 0
    assert [text for _i, text in pg_bench.rows("t_latest")] == values + rejected

    allowed = {"rows": 4, "reason": "measured in doubt", "until": "2999-01-01"}
    entry = {"u": {"bad_records_allowed": allowed}}
    pg_bench.run("ALTER TABLE t RENAME TO u")
    report = pg_bench.mirror_day(pg_bench.catalog(entry, unbounded_numeric="numeric"))["u"]
    assert report.reject_kinds == {"n: not_number": 4}
    assert [number for _i, number in pg_bench.rows("u_latest")] == [Decimal(v) for v in values]


def test_decimals_as_floats_never_become_infinite(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (n numeric)", "INSERT INTO t VALUES (1.5), ('NaN'), ('Infinity')")
    pg_bench.run("INSERT INTO t VALUES (repeat('9', 400)::numeric)")
    allowed = {"rows": 1, "reason": "beyond a double", "until": "2999-01-01"}
    entry = {"t": {"bad_records_allowed": allowed}}
    report = pg_bench.mirror_day(pg_bench.catalog(entry, decimals="float"))["t"]
    assert (report.loaded, report.reject_kinds) == (3, {"n: not_number": 1})


def test_a_type_without_mapping_is_refused_early(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE EXTENSION cube", "CREATE TABLE t (id int, place cube)")
    error = pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"].error
    assert isinstance(error, UnsupportedType)
    assert error.where == "clinic/t"
    assert "column place has type public.cube" in error.what
    assert "exclude the column" in error.remedy
    assert not list((pg_bench.root / "landing").rglob("*.csv"))
    for choice in ({"exclude_columns": ["place"]}, {"masked_columns": ["place"]}):
        assert pg_bench.mirror_day(pg_bench.catalog({"t": choice}))["t"].published


def test_a_type_without_mapping_is_mirrored_as_its_text_and_proven(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE EXTENSION cube",
        "CREATE TABLE t (id int PRIMARY KEY, place cube)",
        "INSERT INTO t VALUES (1, '(1, 2), (3.5, -4)'), (2, NULL), (3, '(1e300)')",
    )
    spec = pg_bench.catalog({"t": {"columns": {"place": {"misfits": "text"}}}})
    assert pg_bench.mirror_day(spec)["t"].published
    assert pg_bench.rows("t_latest") == [(1, "(1, 2),(3.5, -4)"), (2, None), (3, "(1e+300)")]
    for against in ("source", "export", "digests"):
        with pg_bench.source(spec).snapshot() as snapshot:
            verifier = Verifier(
                spec,
                snapshot,
                pg_bench.landing,
                pg_bench.warehouse,
                partition=pg_bench.day(spec),
                against=against,  # type: ignore[arg-type]
            )
            (proof,) = verifier.verify(spec.tables)
        assert (proof.proven, proof.against, proof.faults) == (True, against, [])


def test_a_masked_composite_of_nulls_is_a_value(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE TABLE t (id int, p pair)",
        "INSERT INTO t VALUES (1, ROW(NULL, NULL)), (2, NULL)",
    )
    assert pg_bench.mirror_day(pg_bench.catalog({"t": {"masked_columns": ["p"]}}))["t"].published
    assert pg_bench.rows("t_latest") == [(1, "masked"), (2, None)]


def test_columns_that_only_differ_in_case_are_refused(pg_bench: KindBench) -> None:
    pg_bench.run('CREATE TABLE t ("Id" int, id int)')
    error = pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"].error
    assert error is not None
    assert "'Id' and 'id'" in error.what


def test_invalid_utf8_of_an_ascii_database_is_a_reject(pg_bench: KindBench) -> None:
    name = f"{pg_bench.schema}_ascii"
    pg_bench.run(
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C'"
        " LC_CTYPE 'C'"
    )
    try:
        with closing(pg_bench.server.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute("CREATE TABLE t (id int, v text)")
            cursor.execute(r"INSERT INTO t VALUES (1, E'caf\xc3\xa9'), (2, E'bad \xff'), (3, NULL)")
            cursor.execute("CREATE TABLE u (id int)")
        pg_bench.server.create_reader(name)
        spec = pg_bench.catalog(["t", "u"], coverage=60)
        source = open_source(spec, pg_bench.server.url(name))
        reports = pg_bench.mirror_day(spec, source=source)
        assert reports["t"].reject_kinds == {"v: invalid_encoding": 1}
        assert reports["t"].source_rows == 3
        assert reports["u"].published
    finally:
        pg_bench.run(f"DROP DATABASE {name} WITH (FORCE)")


# -- faults


def test_a_full_landing_zone_amid_a_copy_fails_that_table_only(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE big AS SELECT i AS id, repeat('x', 1000) AS v"
        " FROM generate_series(1, 30000) i",
        "CREATE TABLE small AS SELECT 1 AS id",
    )
    spec = pg_bench.catalog(["big", "small"])

    def full() -> None:
        raise LandingFault("the landing zone failed: no space left")

    reports = pg_bench.mirror_day(spec, source=_interrupted(pg_bench, spec, "big", "amid", full))
    assert isinstance(reports["big"].error, LandingFault)
    assert reports["small"].published


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        *((code, SourceUnavailable, "cut") for code in ("08006", "57P01", "57P03", "53300")),
        *((code, SourceUnavailable, "cut") for code in ("40001", "40P01", "57014")),
        ("55P03", SourceLocked, "held a lock"),
        ("42P01", RefreshLanded, "gone"),
        ("42703", RefreshLanded, "changed"),
        ("42501", SourceFault, "access denied"),
        ("28P01", SourceFault, "access denied"),
        ("22021", SourceFault, "encoding"),
        ("XX001", SourceFault, "refused"),
    ],
)
def test_errors_by_their_code_never_quote_the_driver(
    postgres: PostgreSQL, code: str, kind: type[MirrorError], told: str
) -> None:
    session = _Session(postgres.admin(), "clinic")
    with pytest.raises(kind) as caught:
        session.run(f"DO $$BEGIN RAISE EXCEPTION 'CANARY' USING ERRCODE = '{code}'; END$$")
    session.close()
    assert told in caught.value.what
    assert code in caught.value.what
    assert "CANARY" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.slow
def test_a_refused_login_is_permanent_whatever_language_the_server_speaks(
    pg_bench: KindBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    german = "de_DE.UTF-8"
    with TemporaryDirectory() as locales:  # which PostgreSQL's own user can read
        make = f"localedef -i de_DE -f UTF-8 {locales}/{german} && chmod -R a+rX {locales}"
        if subprocess.run(make, shell=True, capture_output=True).returncode != 0:
            pytest.skip("this machine cannot make a German locale")
        monkeypatch.setenv("LOCPATH", locales)
        _refuse_in_german(pg_bench, tmp_path, german)


def _refuse_in_german(pg_bench: KindBench, tmp_path: Path, german: str) -> None:
    server = PostgreSQL.start(tmp_path / "server")
    try:
        with closing(server.admin()) as admin, admin.cursor() as cursor:
            cursor.execute(f"ALTER SYSTEM SET lc_messages = '{german}'")
            cursor.execute("SELECT pg_reload_conf()")
        server.create_database("clinic")
        server.create_reader("clinic")
        spec, url = pg_bench.catalog(["t"]), sa.make_url(server.url("clinic"))
        wrong = {"password": "wrong"}, {"username": "nobody"}, {"database": "nowhere"}
        for part in wrong:
            text = url.set(**part).render_as_string(hide_password=False)
            with pytest.raises(psycopg2.Error) as told:
                psycopg2.connect(**libpq_options(text, "clinic"))
            assert any(word in str(told.value) for word in ("Passwort", "existiert nicht"))
            with pytest.raises(SourceFault, match="access denied"):
                PostgresSource(spec, text).states()
        assert PostgresSource(spec, server.url("clinic")).states() == {}
    finally:
        server.remove()


def test_a_login_without_a_password_or_without_its_database_is_permanent(
    pg_bench: KindBench,
) -> None:
    bare = sa.make_url(pg_bench.url)._replace(password=None)
    for text in (str(bare), _url(pg_bench, database="nowhere")):
        source = PostgresSource(pg_bench.catalog(["t"]), text)
        with pytest.raises(SourceFault, match="access denied"):
            source.states()


def test_urls(pg_bench: KindBench) -> None:
    spec = pg_bench.catalog(["t"])
    with pytest.raises(SettingsError, match="unknown option 'options'"):
        PostgresSource(spec, f"{pg_bench.url}?options=-crole%3Dadmin")
    for url in ("", "postgresql://u:hush/x@h:port/db"):
        with pytest.raises(SettingsError) as caught:
            PostgresSource(spec, url)
        assert "hush" not in str(caught.value)
        assert "percent-encode" in caught.value.remedy
    # certificates are verified when asked for: this server has none
    for option in ("sslmode=require", "sslmode=verify-full&sslrootcert=/nowhere.pem", "sslmode=x"):
        with pytest.raises(SourceFault, match="TLS failed"):
            PostgresSource(spec, f"{pg_bench.url}?{option}").states()
    for changed in ({"username": "stranger"}, {"database": "nowhere"}):
        with pytest.raises(SourceFault, match="access denied"):
            PostgresSource(spec, _url(pg_bench, **changed)).states()


# -- memory

_CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from mirror_assets.mirroring.catalog import load
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.sources import open_source

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

catalog, url, root = sys.argv[1:]
spec = load(Path(catalog))
landing = Landing(root, Path(root), part_bytes=16 << 20)
with open_source(spec, url).snapshot() as snapshot:
    def export(name):
        table = spec.table(name)
        writer = landing.writer(spec.name, name, datetime.now(UTC))
        return snapshot.export(table, snapshot.schema(table), writer), len(writer.parts)
    export("small")
    before = peak()
    rows, parts = export("large")
    print(rows, parts, peak() - before)
"""


def test_a_million_rows_are_exported_in_bounded_memory(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE large AS SELECT i AS id, md5(i::text) AS v"
        " FROM generate_series(1, 1000000) i",
        "CREATE TABLE small AS SELECT * FROM large LIMIT 50000",
    )
    spec = pg_bench.catalog(["large", "small"])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(spec.file), pg_bench.url, str(pg_bench.root)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows, parts, grown = map(int, done.stdout.split())
    assert rows == 1_000_000
    assert parts >= 2
    assert grown < 20
