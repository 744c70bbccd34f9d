"""Every type that a column of a server can have is mirrored, and holds what the server says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import SourceFault
from mirror_assets.mirroring.sources import open_source

if TYPE_CHECKING:
    from tests.conftest import Bench, KindBench

# -- PostgreSQL: asked of its own catalogue

#: An SQL value of each type; None where only the server itself makes values.
_SAMPLES: dict[str, str | None] = {
    "aclitem": "'admin=r/admin'",
    "bit": "B'1'",
    "boolean": "true",
    "box": "'(1.5,1),(0,0)'",
    "character": "'c'",
    "bytea": r"'\x00ff'",
    '"char"': "'x'",
    "cid": "'7'",
    "cidr": "'2001:db8::/32'",
    "circle": "'<(1,2),3.5>'",
    "date": "'2020-02-29'",
    "real": "0.5",
    "double precision": "0.1",
    "gtsvector": None,
    "inet": "'::1/64'",
    "smallint": "-7",
    "int2vector": "'1 2'",
    "integer": "7",
    "bigint": "9223372036854775807",
    "interval": "'-1 month 3 days 00:00:00.000001'",
    "json": "'{\"a\" : 1, \"a\": null}'",
    "jsonb": "'[1.50, \"\\u00e9\"]'",
    "jsonpath": "'$.a[*] ? (@ > 1)'",
    "line": "'{1,2,3}'",
    "lseg": "'[(0,0),(1,1)]'",
    "macaddr": "'08:00:2b:01:02:03'",
    "macaddr8": "'08:00:2b:01:02:03:04:05'",
    "money": "-12.34",
    "name": "'a name'",
    "numeric": "repeat('9', 100)::numeric",
    "oid": "4294967295",
    "oidvector": "'1 4294967295'",
    "path": "'[(0,0),(1,1)]'",
    "pg_brin_bloom_summary": None,
    "pg_brin_minmax_multi_summary": None,
    "pg_dependencies": None,
    "pg_lsn": "'16/B374D848'",
    "pg_mcv_list": None,
    "pg_ndistinct": None,
    "pg_node_tree": "(SELECT adbin FROM pg_attrdef LIMIT 1)",
    "pg_snapshot": "'10:20:10,14,15'",
    "point": "'(0.1,-2)'",
    "polygon": "'((0,0),(1,1),(1,0))'",
    "refcursor": "'a cursor'",
    "regclass": "'pg_class'",
    "regcollation": "'\"C\"'",
    "regconfig": "'english'",
    "regdictionary": "'simple'",
    "regnamespace": "'public'",
    "regoper": "'||/'",
    "regoperator": "'+(int,int)'",
    "regproc": "'now'",
    "regprocedure": "'abs(int)'",
    "regrole": "'admin'",
    "regtype": "'timestamp with time zone'",
    "text": "E'two\\nlines, \"quoted\"'",
    "tid": "'(0,1)'",
    "time without time zone": "'24:00'",
    "timestamp without time zone": "'2020-02-29 24:00'",
    "timestamp with time zone": "'2020-02-29 23:59:59.999999-15:59'",
    "time with time zone": "'24:00:00-15:59:59'",
    "tsquery": "'a & !b <-> c'",
    "tsvector": "'a:1A b:2'",
    "txid_snapshot": "'10:20:10'",
    "uuid": "'A0EEBC999C0B4EF8BB6D6BB9BD380A11'",
    "bit varying": "B'01'",
    "character varying": "''",
    "xid": "'4294967295'",
    "xid8": "'18446744073709551615'",
    "xml": "'<a b=\"1\">&amp;</a>'",
    "datemultirange": "'{[2020-01-01,2020-02-01),[2021-01-01,)}'",
    "int4multirange": "'{[1,2),[5,9)}'",
    "int8multirange": "'{}'",
    "nummultirange": "'{(,1.50]}'",
    "tsmultirange": "'{[2020-01-01 00:00,2020-01-02 00:00)}'",
    "tstzmultirange": "'{[2020-01-01 00:00+05,infinity)}'",
    "daterange": "'empty'",
    "int4range": "'(1,5]'",
    "int8range": "'[,]'",
    "numrange": "'[0.10,NaN]'",
    "tsrange": "'[-infinity,2020-01-01 00:00)'",
    "tstzrange": "'[2020-01-01 00:00+05,]'",
}  # fmt: skip

_OWN_TYPES = """
SELECT format_type(t.oid, NULL), t.typcategory = 'A' AND t.typelem <> 0 AND t.typname LIKE '\\_%'
FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
    AND (e.typtype IS NULL OR e.typtype IN ('b', 'r', 'm'))
ORDER BY t.oid
"""
_CANONICAL = (
    "SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'; SET search_path = pg_catalog;"
    " SET extra_float_digits = 3"
)

_AS_TEXT = "CASE WHEN {0} IS DISTINCT FROM NULL THEN format('%s', {0}) END"  # a cast strips blanks


def _native(bench: KindBench, columns: Sequence[str], table: str = "t") -> list[tuple[Any, ...]]:
    """Rows as psycopg2 reads them; text of all that is text in the warehouse."""
    held = {row[0]: row[1] for row in bench.query(f"DESCRIBE clinic_mirror.{table}_latest")}
    shown = [_AS_TEXT.format(c) if held[c] == "VARCHAR" else c for c in columns]
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute(_CANONICAL)
        cursor.execute(f"SELECT {', '.join(shown)} FROM public.{table} ORDER BY id")
        return [
            tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)
            for row in cursor.fetchall()
        ]


def test_every_own_type_of_postgresql_is_mapped_and_mirrored(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE d (v int DEFAULT 1 + 1)")
    found = pg_bench.ask(_OWN_TYPES)
    plain = [name for name, is_array in found if not is_array]
    arrays = [name for name, is_array in found if is_array]
    assert set(plain) - set(_SAMPLES) == set(), "types without a sample"
    own = {"int2vector", "oidvector"}  # arrays by another name
    assert {name for name in plain if "range" not in name} - set(types.POSTGRES) == own
    assert len(arrays) > 60

    names = {f"c{i}": name for i, name in enumerate([*plain, *arrays])}
    declared = ", ".join(f"{column} {name}" for column, name in names.items())
    pg_bench.run(f"CREATE TABLE t (id int PRIMARY KEY, {declared})")
    values = [_sample(name) for name in names.values()]
    pg_bench.run(f"INSERT INTO t VALUES (1, {', '.join(values)})", "INSERT INTO t VALUES (2)")

    report = pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"]
    assert (report.error, report.rejected, report.loaded) == (None, 0, 2)
    first, second = pg_bench.rows("t_latest")
    assert second == (2, *[None] * len(names))
    wanted = _native(pg_bench, ["id", *names])[0]
    for (column, name), loaded, told in zip(names.items(), first[1:], wanted[1:], strict=True):
        assert (column, name, loaded) == (column, name, told)
        assert (loaded is None) == (_SAMPLES.get(name, "") is None), name


def _sample(name: str) -> str:
    """An SQL value of a type or of an array of one."""
    element = name.removesuffix("[]")
    value = _SAMPLES[element]
    if element == name:
        return "NULL" if value is None else f"({value})::{name}"
    return f"'{{NULL}}'::{name}" if value is None else f"ARRAY[({value})::{element}, NULL]"


_MADE = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('', 'so so', 'gr"eat', 'NULL', 'é,😀');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE nested AS (p pair, l pair[]);
CREATE DOMAIN whole AS int; CREATE DOMAIN positive AS whole CHECK (value > 0);
CREATE DOMAIN moods AS mood[]; CREATE DOMAIN couple AS pair; CREATE DOMAIN some_mood AS mood;
CREATE DOMAIN price AS numeric(12,3); CREATE DOMAIN born AS date;
CREATE TYPE prices AS RANGE (subtype = numeric);
CREATE TYPE "we ""ird" AS ENUM ('x');
CREATE SCHEMA other; CREATE TYPE other.pair AS (x date);
"""
_MADE_VALUES = [
    ("mood", "''"), ("mood", "'NULL'"), ("mood", "'é,😀'"), ("some_mood", "'gr\"eat'"),
    ("mood[]", "ARRAY['', 'NULL', NULL]::mood[]"), ("moods", "ARRAY['so so']::mood[]"),
    ("pair", "ROW(NULL, '')"), ("pair[]", "ARRAY[ROW(1, 'a,\"b')]::pair[]"),
    ("nested", "ROW(ROW(1, 'x'), ARRAY[ROW(2, NULL)]::pair[])"), ("couple", "ROW(1, E'\\n')"),
    ("other.pair", "ROW('2020-02-29')"), ('"we ""ird"', "'x'"),
    ("positive", "7"), ("positive[]", "'{1,2}'"), ("price", "-0.001"), ("born", "'2020-02-29'"),
    ("prices", "'[0.1,2)'"), ("prices[]", "ARRAY['empty'::prices]"),
    ("multirange_of_prices", "'{[0.1,2),[3,)}'"),
    ("int[][]", "'{{1,2},{3,NULL}}'"), ("int[]", "'[0:1]={1,2}'"), ("int[]", "'{}'"),
    ("int[][][]", "'{{{1}},{{2}}}'"), ("bytea[]", "ARRAY['\\x00ff'::bytea]"),
    ("text[]", "ARRAY['', 'NULL', '{', E'\\\\', '\"', NULL, ' ']"),
    ("citext[]", "ARRAY['MiXed']::citext[]"), ("hstore", "''"), ("hstore", "'\"a=>\"=>\"\"'"),
    ("float8[]", "ARRAY[0.1, 'NaN', '-Infinity', '5e-324', -0.0]::float8[]"),
    ("information_schema.sql_identifier", "'a'"), ("information_schema.cardinal_number", "5"),
    ("pg_class", "NULL"), ("numeric(1000,500)", "1e-500"), ("numeric", "1e-1000"),
    ("char", "' '"), ("char(300)", "'x'"), ("varchar", "E'\\u00a0'"),
    ("money", "'-92233720368547758.08'"),
    ("timestamp(0)", "'2020-02-29 23:59:59.5'"), ("date", "'2020-02-29'"),
    ("interval year to month", "'-14 months'"), ("interval(0)", "'1.5 s'"),
    ("int GENERATED ALWAYS AS (id * 2) STORED", "DEFAULT"),
    ("text GENERATED ALWAYS AS (id::text || '\"') STORED", "DEFAULT"),
]  # fmt: skip


def test_made_types_of_postgresql(pg_bench: KindBench) -> None:
    spelled = [
        (name.replace("multirange_of_prices", "multirange_prices"), value)
        for name, value in _MADE_VALUES
    ]
    made = _MADE.replace("(subtype = numeric)", "(subtype = numeric, "
                         "multirange_type_name = multirange_prices)")  # fmt: skip
    pg_bench.run(made)
    columns = [f"c{i}" for i in range(len(spelled))]
    declared = ", ".join(f"{c} {name}" for c, (name, _v) in zip(columns, spelled, strict=True))
    pg_bench.run(
        f"CREATE TABLE t (id int PRIMARY KEY, {declared})",
        f"INSERT INTO t VALUES (1, {', '.join(value for _name, value in spelled)})",
        "INSERT INTO t (id) VALUES (2)",
    )
    report = pg_bench.mirror_day(pg_bench.catalog(["t"]))["t"]
    assert (report.error, report.rejected, report.loaded) == (None, 0, 2)
    wanted = _native(pg_bench, ["id", *columns])
    for loaded, told in zip(pg_bench.rows("t_latest"), wanted, strict=True):
        for made_type, value, cell in zip([("id", ""), *spelled], loaded, told, strict=True):
            assert (made_type, value) == (made_type, cell)


def test_children_are_part_of_their_parent_and_tables_too(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE parent (id int, v text)",
        "CREATE TABLE child (more int) INHERITS (parent)",
        "CREATE UNLOGGED TABLE loose (id int)",
        "INSERT INTO parent VALUES (1, 'p')",
        "INSERT INTO child VALUES (2, 'c', 3)",
        "INSERT INTO loose VALUES (1)",
    )
    reports = pg_bench.mirror_day(pg_bench.catalog(["parent", "child", "loose"]))
    loaded = {name: report.loaded for name, report in reports.items()}
    assert loaded == {"parent": 2, "child": 1, "loose": 1}
    assert pg_bench.rows("parent_latest") == [(1, "p"), (2, "c")]
    assert pg_bench.rows("child_latest") == [(2, "c", 3)]


def test_text_outside_a_databases_encoding_stops_its_table_only(pg_bench: KindBench) -> None:
    """PostgreSQL itself refuses to convert a byte that WIN1250 leaves open."""
    name = f"{pg_bench.schema}_win"
    pg_bench.run(
        f"CREATE DATABASE {name} ENCODING 'WIN1250' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        with closing(pg_bench.server.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute("SET client_encoding = 'WIN1250'")
            for table, text in (("t", "Z\\x81"), ("u", "\\x8e\\xe1k")):
                cursor.execute(f"CREATE TABLE {table} (v text)")
                cursor.execute(f"INSERT INTO {table} VALUES (E'{text}')")
        pg_bench.server.create_reader(name)
        spec = pg_bench.catalog(["t", "u"])
        reports = pg_bench.mirror_day(spec, source=open_source(spec, pg_bench.server.url(name)))
        error = reports["t"].error
        assert isinstance(error, SourceFault)
        assert "not valid in the database's encoding" in error.what
        assert "correct the value at the source, or exclude its column" in error.remedy
        assert pg_bench.rows("u_latest") == [("Žák",)]
    finally:
        pg_bench.run(f"DROP DATABASE {name} WITH (FORCE)")


# -- MySQL and MariaDB: every type of the manual

_MOST = {"tinyint": 2**7, "smallint": 2**15, "mediumint": 2**23, "int": 2**31, "bigint": 2**63}
_WHOLES: list[tuple[str, Any, Any]] = [
    row
    for name, limit in _MOST.items()
    for row in (
        (name, -limit, -limit),
        (name, limit - 1, limit - 1),
        (f"{name} unsigned", 2 * limit - 1, 2 * limit - 1),
        (f"{name}(8) unsigned zerofill", 7, 7),
    )
]
_BITS: list[tuple[str, Any, Any]] = [(f"bit({n})", 2**n - 1, 2**n - 1) for n in range(1, 65)]
_TIMES: list[tuple[str, Any, Any]] = [
    row
    for n in range(7)
    for row in (
        (f"datetime({n})", "9999-12-31 23:59:59", datetime(9999, 12, 31, 23, 59, 59)),
        (f"timestamp({n}) NULL", "1970-01-01 00:00:01", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (f"time({n})", "-838:59:59", "-838:59:59" + (f".{'0' * n}" if n else "")),
    )
]
_SHAPES = {
    "geometry": "POINT(1 2)",
    "point": "POINT(-1.5 1e300)",
    "linestring": "LINESTRING(0 0,1 1)",
    "polygon": "POLYGON((0 0,1 0,1 1,0 0))",
    "multipoint": "MULTIPOINT(0 0,1 1)",
    "multilinestring": "MULTILINESTRING((0 0,1 1),(2 2,3 3))",
    "multipolygon": "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
    "geometrycollection": "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))",
}
_BYTES = b"\x00\xff\"',\n\\\x1a"
_TEXT = "\0 \"quoted\", 'it''s'\\\r\n\x1a%s é 😀 \u2028"
#: declared type, parameter, loaded value
_MANUAL: list[tuple[str, Any, Any]] = [
    *_WHOLES,
    *_BITS,
    *_TIMES,
    ("tinyint(1)", 2, 2), ("bool", True, 1), ("tinyint(1) unsigned", 255, 255),
    ("int4", 4, 4), ("int8", 8, 8), ("middleint", 3, 3), ("bit", 1, 1), ("bit(8)", 0, 0),
    ("bigint(20) unsigned zerofill", 0, 0), ("int(255) zerofill", 5, 5),
    ("decimal", Decimal(-7), Decimal(-7)), ("decimal(1,1)", Decimal("-0.9"), Decimal("-0.9")),
    ("decimal(38,38)", Decimal("1e-38"), Decimal("1e-38")),
    ("decimal(38,0)", Decimal(10**38 - 1), Decimal(10**38 - 1)),
    ("decimal(39,0)", Decimal(10**39 - 1), "9" * 39), ("fixed(5,2)", Decimal(1), Decimal("1.00")),
    ("decimal(65,30)", Decimal("9" * 35 + "." + "9" * 30), "9" * 35 + "." + "9" * 30),
    ("decimal(65,30)", Decimal("-1e-30"), "-0." + "0" * 29 + "1"),
    ("decimal(10,2) unsigned zerofill", Decimal("1.5"), Decimal("1.50")),
    ("numeric(12,3) unsigned", Decimal("0.001"), Decimal("0.001")),
    ("float", 0.1, 0.10000000149011612), ("float", 3.4028234663852886e38, 3.4028234663852886e38),
    ("float", 1.401298464324817e-45, 1.401298464324817e-45), ("float unsigned", 1.0, 1.0),
    ("float(10,2)", 0.1, 0.10000000149011612), ("float(8,3) zerofill", 1.5, 1.5),
    ("float(24)", 16777217, 16777216.0), ("float(53)", 0.1, 0.1), ("real", 1 / 3, 1 / 3),
    ("double", 1.7976931348623157e308, 1.7976931348623157e308), ("double", 5e-324, 5e-324),
    ("double", 2.2250738585072011e-308, 2.2250738585072011e-308), ("double", "-0", 0.0),
    ("double", 9007199254740993.0, 9007199254740992.0),
    ("double", 123456789.12345679, 123456789.12345679),
    ("double precision unsigned", 1e-7, 1e-7), ("double(20,5) zerofill", 1.5, 1.5),
    ("double(53,30)", 0.1, 0.1), ("double zerofill", 1e300, 1e300),
    ("date", "0001-01-01", date(1, 1, 1)), ("date", "9999-12-31", date(9999, 12, 31)),
    ("datetime", "0001-01-01 00:00:00", datetime(1, 1, 1)),
    ("datetime(6)", "2020-02-29 12:00:00.000001", datetime(2020, 2, 29, 12, 0, 0, 1)),
    ("timestamp(6) NULL", "2038-01-19 03:14:07.999999",
     datetime(2038, 1, 19, 3, 14, 7, 999999, UTC)),
    ("time(6)", "838:59:59.999999", "838:59:59.999999"), ("time", "-00:00:01", "-00:00:01"),
    ("time", "25:00:00", "25:00:00"), ("time(1)", "-100:00:00.1", "-100:00:00.1"),
    ("year", 1901, 1901), ("year(4)", 2155, 2155), ("year", 0, 0),
    ("char", "x", "x"), ("char(0)", "", ""), ("char(5)", " a ", " a"), ("varchar(5)", " a ", " a "),
    ("varchar(0)", "", ""), ("nchar(3)", "é", "é"), ("nvarchar(3)", "é", "é"),
    ("tinytext", _TEXT, _TEXT), ("text", _TEXT, _TEXT), ("mediumtext", _TEXT, _TEXT),
    ("longtext", _TEXT, _TEXT), ("long", _TEXT, _TEXT),
    ("varchar(100) COMPRESSED", _TEXT, _TEXT),
    ("char(4) byte", b"\x00", b"\x00\0\0\0"), ("binary(3)", b"", b"\0\0\0"),
    ("binary(0)", b"", b""),
    ("varbinary(20)", _BYTES, _BYTES), ("tinyblob", _BYTES, _BYTES), ("blob", _BYTES, _BYTES),
    ("mediumblob", _BYTES, _BYTES), ("longblob", b"", b""), ("long varbinary", _BYTES, _BYTES),
    ("blob COMPRESSED", _BYTES, _BYTES), ("varchar(9) CHARACTER SET binary", _BYTES, _BYTES),
    ("enum('', 'a,b', 'NULL', 'd\"q', 'é')", "", ""), ("enum('x', 'NULL')", "NULL", "NULL"),
    ("enum('é', '😀')", "😀", "😀"), ("enum('Up', 'dOWN')", "down", "dOWN"),
    ("set('x', 'y''', 'z\"')", "z\",x", 'x,z"'), ("set('x')", "", ""),
    ("json", '{"a" :  [1.50, null], "a": "é"}', '{"a" :  [1.50, null], "a": "é"}'),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "2001:DB8::1", "2001:db8::1"), ("inet6", "::ffff:1.2.3.4", "::ffff:1.2.3.4"),
    ("inet4", "255.255.255.255", "255.255.255.255"),
]  # fmt: skip


def test_every_type_of_mysqls_manual(bench: Bench) -> None:
    columns = [f"c{i}" for i in range(len(_MANUAL))]
    declared = ", ".join(f"{c} {kind}" for c, (kind, _v, _l) in zip(columns, _MANUAL, strict=True))
    shapes = ", ".join(f"{name}_c {name}" for name in _SHAPES)
    bench.run(
        f"CREATE TABLE t (id int PRIMARY KEY, {declared})",
        f"CREATE TABLE shape (id int PRIMARY KEY, {shapes})",
    )
    marks = ", ".join(["%s"] * len(_MANUAL))
    shown = ", ".join(f"ST_GeomFromText('{text}', 4326)" for text in _SHAPES.values())
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(f"INSERT INTO t VALUES (1, {marks})", [value for _k, value, _l in _MANUAL])
        cursor.execute(f"INSERT INTO shape VALUES (1, {shown})")
        cursor.execute("INSERT INTO t (id) VALUES (2)")
        cursor.execute("INSERT INTO shape (id) VALUES (2)")
        cursor.execute("SELECT * FROM shape ORDER BY id")
        wanted = list(cursor.fetchall())
    assert {kind.split("(")[0].split(" ")[0] for kind, _v, _l in _MANUAL} >= set(types.MYSQL) - {
        *_SHAPES,
        *("geomcollection", "vector"),  # MySQL 8's word, and MariaDB's from 11.7 on
    }
    reports = bench.mirror_day(bench.catalog(["t", "shape"]))
    assert [(r.error, r.rejected) for r in reports.values()] == [(None, 0)] * 2
    first, second = bench.rows("t_latest")
    for (kind, value, told), loaded in zip(_MANUAL, first[1:], strict=True):
        assert (kind, value, repr(_plain(loaded, told))) == (kind, value, repr(told))
    assert second == (2, *[None] * len(_MANUAL))
    assert bench.rows("shape_latest") == wanted


def _plain(loaded: Any, told: Any) -> Any:
    """Whole numbers beyond 63 bits are decimals; UTC has two names."""
    if isinstance(loaded, datetime) and loaded.tzinfo:
        return loaded.astimezone(UTC)
    return int(loaded) if isinstance(told, int) and isinstance(loaded, Decimal) else loaded


def test_generated_invisible_and_versioned_columns(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int AS (id * 2) VIRTUAL,"
        " s text AS (concat('\"', id)) STORED, hidden int INVISIBLE DEFAULT 7)",
        "INSERT INTO t (id) VALUES (1), (2)",
        "CREATE TABLE v (id int PRIMARY KEY, x int) WITH SYSTEM VERSIONING",
        "INSERT INTO v VALUES (1, 1), (2, 1)",
        "UPDATE v SET x = 2 WHERE id = 1",
        "DELETE FROM v WHERE id = 2",
        "CREATE TABLE p (id int, day date) PARTITION BY RANGE (year(day))"
        " (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        "INSERT INTO p VALUES (1, '2019-01-01'), (2, '2020-01-01'), (3, NULL)",
    )
    reports = bench.mirror_day(bench.catalog(["t", "v", "p"]))
    assert [report.error for report in reports.values()] == [None] * 3
    assert bench.rows("t_latest") == [(1, 2, '"1', 7), (2, 4, '"2', 7)]
    assert bench.rows("v_latest") == [(1, 2)]  # what the table holds now, not its history
    assert bench.rows("p_latest", "id") == [(1,), (2,), (3,)]


@pytest.mark.parametrize("any_bench", ["mysql"], indirect=True)
@pytest.mark.parametrize("engine", ["MyISAM", "Aria", "MEMORY", "CSV", "InnoDB"])
def test_engines_without_versions_are_read_each_at_its_own_instant(
    any_bench: KindBench, engine: str
) -> None:
    any_bench.run(f"CREATE TABLE t (id int NOT NULL, v varchar(9) NOT NULL) ENGINE={engine}")
    any_bench.run("INSERT INTO t VALUES (1, 'a'), (2, '')")
    assert any_bench.mirror_day(any_bench.catalog(["t"]))["t"].loaded == 2
    assert any_bench.rows("t_latest") == [(1, "a"), (2, "")]
    (noted,) = any_bench.rows("MIRROR_METADATA_latest", "snapshot")
    assert noted == ("one instant" if engine == "InnoDB" else "per table",)
