"""Any rows of any types: the warehouse holds, cell by cell, what the source's own driver reads.

A row is expected from the native Python values of PyMySQL or psycopg2 by one small function per
type, and floats are compared bit by bit. Rows that no column's type can hold must be rejects, each
named by its key, and no other.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv6Address
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID
from xml.sax.saxutils import escape

import psycopg2.extensions as pg
import psycopg2.extras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mirroring import test_postgres_source as postgres_types

if TYPE_CHECKING:
    from tests.conftest import KindBench

_ALLOWED = {"rows": 1_000_000, "reason": "made by the test", "until": "2999-01-01"}
MISFIT = "MISFIT\0"  # no value of a warehouse type


@dataclass(frozen=True)
class Type:
    """A type at the source, and what is expected of its values.

    ``make`` gives a parameter to insert, ``expect`` the loaded value of what the driver reads by
    the expression ``read``. ``word`` names it in a catalog's misfits, where it has any. ``own``:
    the server makes the value.
    """

    declared: str
    make: Callable[[Random], Any]
    expect: Callable[[Any], Any] = lambda value: value
    read: str = "{0}"
    word: str = ""
    own: bool = False


# -- values, edges first


def _edgy(edges: Sequence[Any], other: Callable[[Random], Any]) -> Callable[[Random], Any]:
    return lambda random: random.choice(edges) if random.random() < 0.4 else other(random)


def _rarely(edges: Sequence[Any], other: Callable[[Random], Any]) -> Callable[[Random], Any]:
    return lambda random: random.choice(edges) if random.random() < 0.04 else other(random)


def _whole(low: int, high: int) -> Callable[[Random], int]:
    edges = [n for n in (low, low + 1, -1, 0, 1, high - 1, high) if low <= n <= high]
    return _edgy(edges, lambda random: random.randint(low, high))


def _exact(precision: int, scale: int) -> Callable[[Random], Decimal]:
    most = 10**precision - 1

    def of(number: int) -> Decimal:
        return Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale))

    edges = [of(number) for number in (-most, -1, 0, 1, most)]
    return _edgy(edges, lambda r: of(r.randint(-most, most) // 10 ** r.randint(0, precision)))


def _bits(random: Random) -> float:
    (value,) = struct.unpack(">d", random.randbytes(8))
    return value if value - value == 0 else 1.5


def _single(random: Random) -> float:
    (value,) = struct.unpack(">f", random.randbytes(4))
    return value if value - value == 0 else 1.5


_DOUBLES = [
    *(0.0, -0.0, 0.1, 1 / 3, 5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308),
    *(1.7976931348623157e308, -1.7976931348623157e308, 9007199254740993.0, 1e22, 1e-7, 1e16, 1e15),
    *(123456789012345680.0, 0.30000000000000004, 4.35, 1e21, 1e23),
]
_SINGLES = [0.0, 0.1, 16777217.0, 3.4028234663852886e38, 1.401298464324817e-45, -1.17549435e-38]
_TEXTS = [
    *("", " ", "  x  ", "NULL", "null", "\\N", "\\.", "\\", '"', '""', "'", "''", ",", '","'),
    *("\n", "\r", "\r\n", "\t", "a\nb", "%s", "{}", "0", "true", "\ud7ff", "\ue000", "\ufffd"),
    *("\uffff", "\ufeff", "😀", "\U00010000", "\U0010ffff", "é", "e\u0301", "\u2028", "x" * 5000),
]
_ALPHABETS = ["ab \n\"',\\", "\t\r;|%_", "éßж漢", "\u0080\u07ff\u0800\ud7ff\ue000", "😀𐀀\U0010ffff"]


def _text(extra: str, longest: int = 12) -> Callable[[Random], str]:
    def other(random: Random) -> str:
        pool = random.choice([*_ALPHABETS, *([extra] if extra else [])])
        return "".join(random.choices(pool, k=random.randint(0, longest)))

    fitting = [text for text in _TEXTS if len(text) <= longest or longest >= 12]
    return _edgy([*fitting, *extra], other)


def _binary(random: Random) -> bytes:
    edges = [b"", b"\0", b"\xff\xfe", b'"', b"\\x00", b"\n", b"NULL", b"\xed\xa0\x80"]
    return _edgy(edges, lambda r: r.randbytes(r.randint(0, 20)))(random)


def _json(random: Random) -> str:
    value = {_text("")(random)[:20]: [random.choice([None, True, -0.5, "é\"'\\"]), []]}
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


_FIRST, _LAST = date(1, 1, 1), date(9999, 12, 31)


def _date(random: Random) -> date:
    edges = [_FIRST, _LAST, date(1582, 10, 10), date(1900, 2, 28), date(2020, 2, 29)]
    span = (_LAST - _FIRST).days
    return _edgy(edges, lambda r: _FIRST + timedelta(r.randint(0, span)))(random)


def _moment(first: datetime, last: datetime) -> Callable[[Random], datetime]:
    span = (last - first) // timedelta(microseconds=1)
    edges = [first, last]
    return _edgy(edges, lambda r: first + timedelta(microseconds=r.randint(0, span)))


_ANY_MOMENT = _moment(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))


def _uuid(random: Random) -> str:
    return str(UUID(bytes=random.randbytes(16), version=4))


def _address(random: Random) -> str:
    return ".".join(str(random.randint(0, 255)) for _ in range(4))


# -- MySQL: what PyMySQL reads


def _held(kind: type) -> Callable[[Any], Any]:
    """PyMySQL gives the text of a date that is none."""
    return lambda value: value if type(value) is kind else MISFIT


def _instant(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else MISFIT


def _clock(value: timedelta) -> str:
    micros = abs(value) // timedelta(microseconds=1)
    seconds, fraction = divmod(micros, 1_000_000)
    sign = "-" if value < timedelta(0) else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"


def _plain(value: Decimal) -> str:
    return format(value, "f")


def _span(random: Random) -> str:
    edges = ["-838:59:59.999999", "838:59:59.999999", "00:00:00", "-00:00:00.000001", "24:00:00"]
    most = (838 * 3600 + 3599) * 10**6
    return _edgy(edges, lambda r: _clock(timedelta(microseconds=r.randint(-most, most))))(random)


def _point(random: Random) -> bytes:
    return bytes(4) + b"\1" + struct.pack("<Idd", 1, _bits(random), random.choice(_DOUBLES))


def _wkb(kind: int, body: bytes) -> bytes:
    return b"\1" + struct.pack("<I", kind) + body


def _places(random: Random, count: int) -> bytes:
    numbers = (make(random) for _ in range(count) for make in (_bits, lambda r: r.choice(_DOUBLES)))
    return struct.pack(f"<{2 * count}d", *numbers)


def _spot(random: Random) -> bytes:
    return _wkb(1, _places(random, 1))


def _line(random: Random) -> bytes:
    count = random.randint(2, 5)
    return _wkb(2, struct.pack("<I", count) + _places(random, count))


def _area(random: Random) -> bytes:
    rings = []
    for _ in range(random.randint(1, 2)):
        first, count = _places(random, 1), random.randint(2, 4)
        rings.append(struct.pack("<I", count + 2) + first + _places(random, count) + first)
    return _wkb(3, struct.pack("<I", len(rings)) + b"".join(rings))


def _several(kind: int, *makers: Callable[[Random], bytes]) -> Callable[[Random], bytes]:
    def make(random: Random) -> bytes:
        parts = [random.choice(makers)(random) for _ in range(random.randint(1, 3))]
        return _wkb(kind, struct.pack("<I", len(parts)) + b"".join(parts))

    return make


_SHAPES = {
    "linestring": _line,
    "polygon": _area,
    "multipoint": _several(4, _spot),
    "multilinestring": _several(5, _line),
    "multipolygon": _several(6, _area),
    "geometrycollection": _several(7, _spot, _line, _area),
    "geometry": lambda random: random.choice([_spot, _line, _area])(random),
}


def _stored(shape: Callable[[Random], bytes]) -> Callable[[Random], bytes]:
    """As the server keeps it: the number of its reference system comes first."""
    return lambda random: struct.pack("<I", random.choice([0, 4326])) + shape(random)


_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_ZERO_DATES = ["0000-00-00", "2020-10-00", "2020-00-10", "0000-01-01"]
_MYSQL = [
    *(Type(name, _whole(-(2 ** (n - 1)), 2 ** (n - 1) - 1)) for name, n in _INTEGERS.items()),
    *(Type(f"{name} unsigned", _whole(0, 2**n - 1)) for name, n in list(_INTEGERS.items())[:4]),
    Type("bigint unsigned", _whole(0, 2**64 - 1), Decimal),
    Type("bigint(20) unsigned zerofill", _whole(0, 2**64 - 1), Decimal),
    *(Type(f"bit({n})", _whole(0, 2**n - 1), lambda v: int.from_bytes(v)) for n in (1, 8, 63)),
    Type("bit(64)", _whole(0, 2**64 - 1), lambda v: Decimal(int.from_bytes(v))),
    Type("year", _edgy([0, 1901, 2155], lambda r: r.randint(1901, 2155))),
    Type("decimal(10,2)", _exact(10, 2)),
    Type("decimal(38,10)", _exact(38, 10)),
    Type("decimal(38,38)", _exact(38, 38)),
    Type("decimal(65,30)", _exact(65, 30), _plain),
    Type("float", _edgy(_SINGLES, _single), read="{0} + 0e0"),
    Type("float unsigned", _edgy(_SINGLES[:5], lambda r: abs(_single(r))), read="{0} + 0e0"),
    Type("double", _edgy(_DOUBLES, _bits), lambda v: v + 0.0),
    Type("date", _rarely(_ZERO_DATES, _date), _held(date), word="date"),
    Type("datetime(6)", _rarely([f"{d} 00:00:00" for d in _ZERO_DATES], _ANY_MOMENT),
         _held(datetime), word="datetime"),
    Type("timestamp(6)", _rarely(["0000-00-00 00:00:00"], _moment(
        datetime(1970, 1, 1, 0, 0, 1), datetime(2038, 1, 19, 3, 14, 7, 999999))),
        _instant, word="timestamp"),
    Type("time(6)", _span, _clock),
    Type("char(12)", _text("\0", 12 - 1)),
    Type("varchar(5000)", _text("\0")),
    Type("tinytext", _text("\0", 11)),
    *(Type(name, _text("\0")) for name in ("text", "mediumtext")),
    Type("longtext", _text("\0\x1a", 40)),
    Type("varchar(20) CHARACTER SET latin1", _edgy(["", "?", "é?"], lambda r: "".join(
        map(chr, r.choices(range(256), k=9))).translate(dict.fromkeys(range(0x80, 0xA0))))),
    Type("varchar(20) CHARACTER SET cp1250", _edgy(["", "?"], lambda r: "".join(
        r.choices("aŽž?\0\"'\\\nŁ", k=9)))),
    Type("varchar(20) CHARACTER SET utf16", _text("\0", 5)),
    Type("enum('', 'NULL', 'a,b', 'd\"q', '😀')",
         lambda r: r.choice(["", "NULL", "a,b", "d\"q", "😀"])),
    Type("set('x', 'y z', '\"')",
         lambda r: ",".join(v for v in ("x", "y z", '"') if r.random() < 0.5)),
    Type("json", _json),
    Type("uuid", _uuid),
    Type("inet4", _address),
    Type("inet6", lambda r: str(IPv6Address(r.getrandbits(r.choice([16, 48, 128]))))),
    Type("binary(4)", lambda r: r.randbytes(4)),
    Type("varbinary(20)", _binary),
    *(Type(name, _binary) for name in ("tinyblob", "blob", "mediumblob", "longblob")),
    Type("point", _point),
    *(Type(name, _stored(shape)) for name, shape in _SHAPES.items()),
]  # fmt: skip

# -- PostgreSQL: what psycopg2 reads


def _number_text(value: Decimal) -> str:
    return format(value, "f") if value.is_finite() else str(value)


def _unsigned_zero(value: float) -> float:
    return value + 0.0


def _shown(make: Callable[[Random], Any]) -> Callable[[Random], str]:
    """As a literal of no type: as a number, -0.0 would lose its sign."""
    return lambda random: repr(make(random))


def _array(random: Random) -> list[str | None]:
    return [random.choice([None, _text("")(random)]) for _ in range(random.randint(0, 4))]


def _composite(random: Random) -> str:
    if random.random() < 0.1:
        return "(,)"
    text = _text("")(random).replace("\\", "\\\\").replace('"', '""')
    return f'({random.randint(-9, 9)},"{text}")'


def _nested(random: Random) -> str:
    width = random.randint(1, 3)
    rows = (
        ",".join(random.choice(["NULL", str(random.randint(-9, 9))]) for _ in range(width))
        for _ in range(random.randint(1, 3))
    )
    return "{" + ",".join(f"{{{row}}}" for row in rows) + "}"


def _between(make: Callable[[Random], Any]) -> Callable[[Random], str]:
    """A range with ends of a type, or without some."""

    def span(random: Random) -> str:
        low, high = sorted([make(random), make(random)])
        ends = [end if random.random() < 0.8 else "" for end in (low, high)]
        shown = ",".join(f'"{end}"' if end != "" else "" for end in ends)
        return f"{random.choice('[(')}{shown}{random.choice('])')}"

    return _rarely(["empty"], span)


def _lexemes(random: Random) -> str:
    words = ["'" + word.replace("'", "''") + "'" for word in ("a", "b c", "it's", "é", '"', ",")]
    chosen = random.sample(words, random.randint(0, 4))
    return " ".join(f"{word}:{random.randint(1, 16383)}{random.choice('ABC')}" for word in chosen)


def _markup(random: Random) -> str:
    text = "".join(random.choices("ab é漢😀\n\"'&<>,", k=random.randint(0, 12)))
    return f"<a b='{random.randint(0, 9)}'>{escape(text)}</a>"


def _pairs(random: Random) -> str:
    shown = {"a": "x", 'q"': "NULL", " ": "é,", "b": None}
    quoted = {
        json.dumps(key, ensure_ascii=False): json.dumps(value, ensure_ascii=False)
        for key, value in random.sample(sorted(shown.items()), random.randint(0, 4))
    }
    return ",".join(f"{k}=>{'NULL' if v == 'null' else v}" for k, v in quoted.items())


def _zoned(random: Random) -> str:
    return f"{_ANY_MOMENT(random).time()}{random.choice('+-')}{random.randint(0, 15):02}:30"


_MADE = pg.AsIs("DEFAULT")
_TEXT = "CASE WHEN {0} IS NOT NULL THEN format('%%s', {0}) END"
_INFINITE = ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"]
_POSTGRES = [
    Type("boolean", lambda r: r.random() < 0.5),
    *(Type(name, _whole(-(2 ** (n - 1)), 2 ** (n - 1) - 1))
      for name, n in (("smallint", 16), ("integer", 32), ("bigint", 64))),
    Type("oid", _whole(0, 2**32 - 1)),
    Type("real", _edgy([*map(repr, _SINGLES), "NaN", "-Infinity"], _shown(_single)),
         _unsigned_zero, read="{0}::float8"),
    Type("double precision", _edgy([*map(repr, _DOUBLES), "NaN", "Infinity"], _shown(_bits)),
         _unsigned_zero),
    Type("numeric(10,2)", _rarely([Decimal("NaN")], _exact(10, 2)),
         lambda v: v if v.is_finite() else MISFIT, word="numeric"),
    Type("numeric(38,10)", _exact(38, 10)),
    Type("numeric(60,20)", _exact(60, 20), _number_text),
    Type("numeric", _edgy([Decimal("NaN"), "Infinity", "-Infinity", "1e-1000"], _exact(100, 40)),
         _number_text),
    Type("money", _whole(-(2**56), 2**56), read=_TEXT),
    Type("date", _rarely(_INFINITE, _date), word="date"),
    Type("timestamp", _rarely(_INFINITE, _ANY_MOMENT), word="timestamp without time zone"),
    Type("timestamptz", _rarely(_INFINITE, lambda r: _ANY_MOMENT(r).replace(tzinfo=UTC)),
         word="timestamp with time zone"),
    Type("time", _edgy(["24:00", "00:00"], lambda r: str(_ANY_MOMENT(r).time())), read=_TEXT),
    Type("timetz", _edgy(["24:00+00", "00:00-15:59"], _zoned), read=_TEXT),
    Type("interval", _edgy(["0", "-178000000 years", "1 year -1 day 00:00:00.000001"],
         lambda r: f"{r.randint(-99, 99)} months {r.randint(-99, 99)} days {r.random():.6f} s"),
         read=_TEXT),
    Type("text", _text("")),
    Type("varchar(5000)", _text("")),
    Type("char(12)", _text("", 11)),
    Type("bytea", _binary, bytes),
    Type("json", _json, read=_TEXT),
    Type("jsonb", _json, read=_TEXT),
    Type("uuid", _uuid, str),
    Type("inet", _address),
    Type("inet", lambda r: r.choice([f"{_address(r)}/8", "::1", "fe80::1/64"])),
    Type("cidr", lambda r: f"{r.randint(0, 255)}.{r.randint(0, 255)}.0.0/16"),
    Type("macaddr", lambda r: r.randbytes(6).hex(":")),
    Type("citext", _text("")),
    Type("hstore", _pairs, read=_TEXT),
    Type("xml", _markup, read=_TEXT),
    Type("mood", lambda r: r.choice(["so so", 'gr"eat'])),
    Type("zip", lambda r: "".join(r.choices("0123456789-", k=r.randint(0, 10)))),
    Type("dear", lambda r: _exact(9, 3)(r).copy_abs() + 101),
    Type("blob", _binary, bytes),
    Type("pair", _composite, read="CASE WHEN num_nulls({0}) = 0 THEN format('%%s', {0}) END"),
    Type("bit(5)", lambda r: "".join(r.choices("01", k=5))),
    Type("bit varying(64)", lambda r: "".join(r.choices("01", k=r.randint(0, 64)))),
    Type("text[]", _array, read=_TEXT),
    Type("int4range", lambda r: f"[{r.randint(-9, 0)},{r.randint(1, 9)})", read=_TEXT),
    Type("int8range", _between(_whole(-(2**63), 2**63 - 2)), read=_TEXT),
    Type("numrange", _between(_exact(30, 10)), read=_TEXT),
    Type("daterange", _between(_date), read=_TEXT),
    Type("tsrange", _between(_ANY_MOMENT), read=_TEXT),
    Type("tstzrange", _between(_ANY_MOMENT), read=_TEXT),
    Type("spans", _between(_bits), read=_TEXT),
    Type("int[][]", _nested, read=_TEXT),
    Type("tsvector", _lexemes, read=_TEXT),
    Type("bigint GENERATED ALWAYS AS (id * 3) STORED", lambda r: _MADE, own=True),
    Type("int GENERATED ALWAYS AS IDENTITY", lambda r: _MADE, own=True),
    Type("point", lambda r: f"({_bits(r)!r},{r.choice(_DOUBLES)!r})", read=_TEXT),
]  # fmt: skip
_TYPES = {"mysql": _MYSQL, "postgresql": _POSTGRES}


@pytest.fixture
def typed_bench(any_bench: KindBench) -> KindBench:
    """A bench over a database that has the types of its own that are tried here."""
    if any_bench.kind == "postgresql":
        any_bench.run(postgres_types._TYPES)
    return any_bench


def _or_misfit(cast: Any) -> Callable[[str | None, Any], Any]:
    """A date as Python's own, which has no infinity, and the same years as the warehouses."""

    def read(text: str | None, cursor: Any) -> Any:
        if text is None:
            return None
        if "infinity" in text or "BC" in text:
            return MISFIT
        try:
            return cast(text, cursor)
        except ValueError:
            return MISFIT

    return read


_DATES = [(1082, pg.PYDATE), (1114, pg.PYDATETIME), (1184, pg.PYDATETIMETZ)]


# -- a table of rows: written, mirrored, read back


@dataclass(frozen=True)
class Case:
    """A table to make: its columns with their nullability, its rows, and the misfits' policy."""

    columns: tuple[tuple[Type, bool], ...]
    rows: int
    seed: int
    nulls: bool = False

    def values(self) -> list[tuple[Any, ...]]:
        random = Random(self.seed)
        return [
            (number, *(None if null and not column.own and random.random() < 0.15
                       else column.make(random) for column, null in self.columns))
            for number in range(self.rows)
        ]  # fmt: skip


def _write(bench: KindBench, table: str, case: Case) -> None:
    declared = ", ".join(
        f"c{i} {column.declared} {'' if column.own else 'NULL' if null else 'NOT NULL'}"
        for i, (column, null) in enumerate(case.columns)
    )
    bench.run(f"CREATE TABLE {table} (id int PRIMARY KEY, {declared})")
    rows = case.values()
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        if bench.kind == "mysql":
            cursor.execute("SET time_zone = '+00:00'")
            marks = ", ".join(["%s"] * (len(case.columns) + 1))
            cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        else:
            psycopg2.extras.execute_values(cursor, f"INSERT INTO {table} VALUES %s", rows)


def _read(bench: KindBench, table: str, case: Case) -> list[tuple[Any, ...]]:
    shown = ", ".join(column.read.format(f"c{i}") for i, (column, _null) in enumerate(case.columns))
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        if bench.kind == "mysql":
            cursor.execute("SET time_zone = '+00:00'")
        else:
            cursor.execute("SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'")
            for oid, cast in _DATES:
                pg.register_type(pg.new_type((oid,), "day", _or_misfit(cast)), admin)
        cursor.execute(f"SELECT id, {shown} FROM {table} ORDER BY id".replace("%%", "%"))
        return list(cursor.fetchall())


def _expected(case: Case, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The row as the warehouse must hold it; None where it must be a reject."""
    cells = [row[0]]
    for (column, null), value in zip(case.columns, row[1:], strict=True):
        cell = value if value is None or value == MISFIT else column.expect(value)
        if cell == MISFIT and case.nulls:
            cell = None
        if cell == MISFIT or (cell is None and not null):
            return None
        cells.append(cell)
    return tuple(cells)


def _bitwise(value: Any) -> Any:
    """A value whose equality is identity: floats by their bits, types told apart."""
    if isinstance(value, float):
        return "nan" if value != value else struct.pack(">d", value)
    if isinstance(value, datetime) and value.tzinfo:
        return ("instant", value.astimezone(UTC).replace(tzinfo=None))
    return (type(value).__name__, value)


def _check(bench: KindBench, case: Case, table: str) -> None:
    _write(bench, table, case)
    words = {column.word: "null" for column, _null in case.columns if column.word}
    spec = bench.catalog(
        {table: {"bad_records_allowed": _ALLOWED}}, misfits=words if case.nulls else {}
    )
    report = bench.mirror_day(spec)[table]
    assert report.error is None, report.error
    source = _read(bench, table, case)
    assert len(source) == case.rows == report.source_rows == report.loaded + report.rejected
    expected = {row[0]: _expected(case, row) for row in source}
    loaded = {row[0]: row for row in bench.rows(f"{table}_latest")}
    for number, wanted in expected.items():
        found = loaded.get(number)
        assert (found is None) == (wanted is None), (number, found, wanted, case.seed)
        for i, (cell, told) in enumerate(zip(found or (), wanted or (), strict=True)):
            declared = case.columns[i - 1][0].declared if i else "id"
            assert (declared, _bitwise(cell)) == (declared, _bitwise(told)), (number, case.seed)
    named = bench.rows(
        "MIRROR_ERRORS_latest", "row_key", where=f"row_number IS NOT NULL AND \"table\" = '{table}'"
    )
    rejected = sorted(int(json.loads(key)["id"]) for (key,) in named)
    assert rejected == sorted(number for number, wanted in expected.items() if wanted is None)
    bench.run(f"DROP TABLE {table}")


# -- all types in one wide table


@pytest.mark.parametrize("nulls", [False, True], ids=["rejected", "nulled"])
def test_every_type_with_many_values(typed_bench: KindBench, nulls: bool) -> None:
    every = [(column, i % 3 > 0) for i, column in enumerate(_TYPES[typed_bench.kind])]
    _check(typed_bench, Case(tuple(every), 150, seed=20201231 + nulls, nulls=nulls), "t")


@pytest.mark.slow
@pytest.mark.parametrize("nulls", [False, True], ids=["rejected", "nulled"])
def test_every_type_with_ten_thousand_values(typed_bench: KindBench, nulls: bool) -> None:
    every = [(column, i % 3 > 0) for i, column in enumerate(_TYPES[typed_bench.kind])]
    _check(typed_bench, Case(tuple(every), 10_000, seed=Random().getrandbits(32), nulls=nulls), "t")


# -- any few types, found and made small by Hypothesis


def _cases(kind: str) -> st.SearchStrategy[Case]:
    column = st.tuples(st.sampled_from(_TYPES[kind]), st.booleans())
    return st.builds(
        Case,
        columns=st.lists(column, min_size=1, max_size=8).map(tuple),
        rows=st.integers(0, 60),
        seed=st.integers(0, 2**32 - 1),
        nulls=st.booleans(),
    )


_SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def _any_table(bench: KindBench, examples: int) -> None:
    numbers = iter(range(1_000_000))

    @settings(max_examples=examples, deadline=None, suppress_health_check=_SHARED)
    @given(_cases(bench.kind))
    def check(case: Case) -> None:
        _check(bench, case, f"t{next(numbers)}")

    check()


def test_any_types_in_any_table(typed_bench: KindBench) -> None:
    _any_table(typed_bench, 5)


@pytest.mark.slow
def test_any_types_in_many_tables(typed_bench: KindBench) -> None:
    _any_table(typed_bench, 60)
