"""A value that its column's type cannot hold: a reject with its key, NULL and counted, or text."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from mirror_assets.mirroring.errors import CatalogError, DriftRefused, SourceFault
from mirror_assets.mirroring.sources import open_source

if TYPE_CHECKING:
    from mirror_assets.mirroring.staged import TableReport
    from tests.conftest import KindBench

_ALLOWED = {"rows": 100, "reason": "known at the source", "until": "2999-01-01"}
_EARLY = date(1850, 1, 1)
_DAY = date(2020, 2, 29)
_WORDS = {"mysql": "datetime", "postgresql": "timestamp without time zone"}


def _mirror(bench: KindBench, entry: dict[str, Any], **fields: Any) -> TableReport:
    """Mirror table ``t``; dates before 1900 are misfits, and rejects are tolerated."""
    spec = bench.catalog(
        {"t": {"bad_records_allowed": _ALLOWED} | entry}, first_date="1900-01-01", **fields
    )
    return bench.mirror_day(spec)["t"]


def _rejects(bench: KindBench) -> list[tuple[Any, ...]]:
    """Column, kind and key of each row that the latest attempt rejected."""
    return bench.rows(
        "MIRROR_ERRORS_latest", '"column", kind, row_key', where="row_number IS NOT NULL"
    )


def _born(bench: KindBench, declared: str = "date NULL") -> None:
    """A table whose second row has a date that is a misfit."""
    bench.run(f"CREATE TABLE t (id int PRIMARY KEY, born {declared})")
    bench.insert("t", (1, _DAY), (2, _EARLY))
    if "NOT" not in declared:
        bench.insert("t", (3, None))


# -- the three policies, for a database and for a column

_PLACES = {
    "database": lambda policy: ({}, {"misfits": {"date": policy}}),
    "column": lambda policy: ({"columns": {"born": {"misfits": policy}}}, {}),
    "column over database": lambda policy: (
        {"columns": {"born": {"misfits": policy}}},
        {"misfits": {"date": "reject" if policy == "text" else "text"}},
    ),
}


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("policy", ["reject", "null", "text"])
def test_each_policy(any_bench: KindBench, place: str, policy: str) -> None:
    _born(any_bench)
    entry, fields = _PLACES[place](policy)
    report = _mirror(any_bench, entry, **fields)
    assert report.error is None
    loaded = any_bench.rows("t_latest")
    counted = (report.loaded, report.rejected, report.misfits_nulled)
    if policy == "reject":
        assert (counted, loaded) == ((2, 1, 0), [(1, _DAY), (3, None)])
        assert _rejects(any_bench) == [("born", "out_of_range", '{"id": "2"}')]
    elif policy == "null":
        assert (counted, loaded) == ((3, 0, 1), [(1, _DAY), (2, None), (3, None)])
    else:
        assert (counted, loaded) == (
            (3, 0, 0),
            [(1, "2020-02-29"), (2, "1850-01-01"), (3, None)],
        )
    if policy != "reject":
        assert _rejects(any_bench) == []
    recorded = any_bench.rows("MIRROR_METADATA_latest", "misfits_nulled, zero_dates_nulled")
    assert recorded == [(counted[2], 0)]


def test_a_policy_holds_for_its_own_type_only(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int PRIMARY KEY, day date NULL, at {datetime} NULL)")
    moment = datetime(1850, 1, 1)
    any_bench.insert("t", (1, _EARLY, None), (2, None, moment), (3, _EARLY, moment))
    report = _mirror(any_bench, {}, misfits={_WORDS[any_bench.kind]: None})
    assert (report.loaded, report.misfits_nulled) == (1, 1)
    assert any_bench.rows("t_latest") == [(2, None, None)]
    assert [(column, key) for column, _kind, key in _rejects(any_bench)] == [
        ("day", '{"id": "1"}'),
        ("day", '{"id": "3"}'),
    ]


def test_a_nulled_value_of_a_required_column_is_a_reject(any_bench: KindBench) -> None:
    _born(any_bench, "date NOT NULL")
    report = _mirror(any_bench, {}, misfits={"date": "null"})
    assert (report.loaded, report.rejected, report.misfits_nulled) == (1, 1, 0)
    assert any_bench.rows("t_latest") == [(1, _DAY)]
    assert _rejects(any_bench) == [("born", "null_in_required", '{"id": "2"}')]
    other = _mirror(any_bench, {}, misfits={"date": "reject"})
    assert other.reject_kinds == {"born: out_of_range": 1}


def test_a_column_loaded_as_text_breaks_with_its_history(any_bench: KindBench) -> None:
    _born(any_bench)
    _mirror(any_bench, {})
    as_text = {"columns": {"born": {"misfits": "text"}}}
    refused = _mirror(any_bench, as_text).error
    assert isinstance(refused, DriftRefused)
    assert "born retyped from DATE to STRING" in refused.what
    report = _mirror(any_bench, as_text | {"breaking_drift": "deprecate"})
    assert report.error is None
    assert "t_depr_1" in report.set_aside
    assert any_bench.rows("t_latest", "born", where="id = 2") == [("1850-01-01",)]


# -- an export is loaded again under another policy


@pytest.mark.parametrize(
    ("policy", "counted"), [("null", (3, 0, 1)), ("reject", (2, 1, 0)), ("text", (2, 1, 0))]
)
def test_a_kept_export_is_replayed_under_the_policy_of_now(
    any_bench: KindBench, policy: str, counted: tuple[int, int, int]
) -> None:
    """An export of dates is loaded as dates: only a new one can hold text."""
    _born(any_bench)
    day = datetime.now(UTC).date()
    _mirror(any_bench, {})
    entry = {"bad_records_allowed": _ALLOWED, "columns": {"born": {"misfits": policy}}}
    spec = any_bench.catalog({"t": entry}, first_date="1900-01-01")
    tomorrow = lambda: datetime.now(UTC) + timedelta(days=1)  # noqa: E731
    report = any_bench.mirror_day(spec, day=day, clock=tomorrow)["t"]
    assert (report.error, report.replayed) == (None, True)
    assert (report.loaded, report.rejected, report.misfits_nulled) == counted
    nulled = any_bench.rows("t", "born", where="id = 2")
    assert nulled == ([(None,)] if policy == "null" else [])


# -- what a catalog may not say


def test_a_declared_column_that_is_not_there_is_named(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int)", "CREATE TABLE u (id int)")
    spec = any_bench.catalog({"t": {"columns": {"age": {"type": "INT64"}}}, "u": None})
    reports = any_bench.mirror_day(spec)
    error = reports["t"].error
    assert isinstance(error, SourceFault)
    assert (error.where, "'age'" in error.what) == ("clinic/t", True)
    assert reports["u"].published


def test_binary_can_only_be_declared_bytes_or_text(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int, scan {bytes} NULL)")
    any_bench.insert("t", (1, b"\x00\xff"), (2, None))
    error = _mirror(any_bench, {"columns": {"scan": {"type": "INT64"}}}).error
    assert isinstance(error, CatalogError)
    assert "column scan is binary and cannot be loaded as INT64" in error.what
    assert "STRING (hexadecimal) or BYTES" in error.remedy
    assert _mirror(any_bench, {"columns": {"scan": {"type": "BYTES"}}}).published
    assert any_bench.rows("t_latest") == [(1, b"\x00\xff"), (2, None)]
    as_text = {"columns": {"scan": {"misfits": "text"}}, "breaking_drift": "deprecate"}
    assert _mirror(any_bench, as_text).published
    assert any_bench.rows("t_latest") == [(1, "00ff"), (2, None)]


# -- canonical forms of declared types

_INSTANT = datetime(2020, 2, 29, 12, 0, 0, 500000, UTC)
#: declared type -> (text, value that it is loaded as), and the texts that are misfits
_FORMS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "INT64": (
        {"0": 0, "7": 7, "-7": -7, "9223372036854775807": 2**63 - 1},
        [
            *("", " ", "1.5", "1.0", "0x1F", " 7", "7 ", "+7", "007", "-0", "1e3", "1_000", "NaN"),
            *("9223372036854775808", "-9223372036854775809", "seven", "7\n", "\u0667"),
        ],
    ),
    "DECIMAL(10,2)": (
        {"1.5": Decimal("1.50"), "-0.01": Decimal("-0.01"), "12.3400": Decimal("12.34"),
         "0": Decimal("0.00"), "99999999.99": Decimal("99999999.99")},
        [
            *("", "12.345", "100000000", "-0", "-0.00", "-0.001", " 7", "+7", "007", "1e3", "NaN"),
            *("0x1F", ".5", "5.", "1,5", "Infinity", "1_000", "12.34\n"),
        ],
    ),
    "FLOAT64": (
        {"1.5": 1.5, "-0": 0.0, "1e3": 1000.0, "1E-7": 1e-7, "0.0e400": 0.0, "5e-324": 5e-324,
         "1.7976931348623157e+308": 1.7976931348623157e308, "Infinity": float("inf"),
         "-Infinity": float("-inf")},
        [
            *("", "1e400", "-1e400", "1e-400", " 7", "+7", "007", "0x1F", ".5", "5.", "1,5", "inf"),
            *("nan", "1_000", "1.5f"),
        ],
    ),
    "BOOL": (
        {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False},
        ["", "2", " 1", "TRUE", "yes", "01"],
    ),
    "BYTES": ({"00fF": b"\x00\xff", "": b""}, ["0", "0g", "0x00", " 00"]),
    "DATE": (
        {"2020-02-29": _DAY, "9999-12-31": date(9999, 12, 31)},
        [
            *("", "2020-02-30", "2020-2-9", "2020-02-29 00:00:00", " 2020-02-29", "20200229"),
            *("10000-01-01", "0044-03-15 BC", "today", "infinity", "0000-00-00", "2020-00-10"),
        ],
    ),
    "DATETIME": (
        {"2020-02-29 12:00:00.5": _INSTANT.replace(tzinfo=None),
         "2020-02-29T12:00": datetime(2020, 2, 29, 12),
         "2020-02-29 12:00:00.500000000": _INSTANT.replace(tzinfo=None)},
        [
            *("", "2020-02-29", "2020-02-29 24:00:00", "2020-02-29 12:00:60", "24:00:00"),
            *("2020-02-29 12:00:00+00", "2020-02-29 12:00:00.1234567", "2020-02-30 12:00:00"),
        ],
    ),
    "TIMESTAMP": (
        {"2020-02-29 12:00:00.5Z": _INSTANT, "2020-02-29T12:00:00.5+00": _INSTANT,
         "2020-02-29 17:30:00.5+05:30": _INSTANT, "2020-02-29 06:30:00.5-0530": _INSTANT},
        [
            *("", "2020-02-29 12:00:00", "2020-02-29 24:00:00+00", "2020-02-29 12:00:00+99"),
            *("2020-02-29 12:00:00 UTC", "9999-12-31 23:59:59-01", "2020-02-29"),
        ],
    ),
}  # fmt: skip


def test_declared_types_take_their_canonical_form_only(any_bench: KindBench) -> None:
    entries = {}
    for number, (declared, (good, bad)) in enumerate(_FORMS.items()):
        name = f"t{number}"
        any_bench.run(f"CREATE TABLE {name} (id int PRIMARY KEY, v {{text}} NULL)")
        any_bench.insert(name, *enumerate([*good, *bad, None]))
        entries[name] = {
            "columns": {"v": {"type": declared.lower()}},
            "bad_records_allowed": _ALLOWED,
        }
    spec = any_bench.catalog(entries)
    reports = any_bench.mirror_day(spec)
    for name, (declared, (good, bad)) in zip(entries, _FORMS.items(), strict=True):
        assert reports[name].error is None, declared
        loaded = any_bench.rows(f"{name}_latest")
        wanted = [*enumerate(good.values()), (len(good) + len(bad), None)]
        assert loaded == wanted, declared
        assert {type(v) for _id, v in loaded} == {type(v) for _id, v in wanted}, declared
        named = any_bench.rows("MIRROR_ERRORS_latest", "row_key", where=f"\"table\" = '{name}'")
        keys = sorted(int(json.loads(key)["id"]) for (key,) in named if key)
        assert keys == list(range(len(good), len(good) + len(bad))), declared


def test_a_declared_nan_is_loaded(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (v varchar(10))", "INSERT INTO t VALUES ('NaN')")
    _mirror(any_bench, {"columns": {"v": {"type": "FLOAT64"}}})
    ((value,),) = any_bench.rows("t_latest")
    assert value != value


#: own type, declared type, value, loaded value (None: its text is no such value)
_OTHERS: list[tuple[str, str, Any, Any]] = [
    ("varchar(20)", "INT64", "42", 42),
    ("int", "DECIMAL(10,2)", 42, Decimal("42.00")),
    ("int", "STRING", 42, "42"),
    ("int", "FLOAT64", 42, 42.0),
    ("decimal(10,2)", "INT64", Decimal(3), None),  # 3.00
    ("decimal(10,2)", "DECIMAL(12,4)", Decimal("3.25"), Decimal("3.2500")),
    ("decimal(10,2)", "FLOAT64", Decimal("3.25"), 3.25),
    ("{double}", "DECIMAL(10,2)", 0.25, Decimal("0.25")),
    ("{datetime}", "DATETIME", datetime(2020, 2, 29), datetime(2020, 2, 29)),
    ("{datetime}", "DATE", datetime(2020, 2, 29), None),
    ("{datetime}", "TIMESTAMP", datetime(2020, 2, 29), None),  # of no zone
    ("date", "STRING", _DAY, "2020-02-29"),
]


def test_types_declared_for_columns_that_are_not_text(any_bench: KindBench) -> None:
    entries = {}
    for number, (own, declared, value, _loaded) in enumerate(_OTHERS):
        any_bench.run(f"CREATE TABLE t{number} (v {own})")
        any_bench.insert(f"t{number}", (value,))
        entry = {"columns": {"v": {"type": declared}}, "bad_records_allowed": _ALLOWED}
        entries[f"t{number}"] = entry
    reports = any_bench.mirror_day(any_bench.catalog(entries))
    for number, (own, declared, _value, loaded) in enumerate(_OTHERS):
        report = reports[f"t{number}"]
        told = (own, declared, report.error, report.rejected)
        assert told == (own, declared, None, int(loaded is None))
        found = any_bench.rows(f"t{number}_latest", "v")
        assert found == ([] if loaded is None else [(loaded,)]), (own, declared)


@pytest.mark.parametrize("policy", ["null", "reject"])
def test_misfits_of_a_declared_type_follow_the_policy(any_bench: KindBench, policy: str) -> None:
    any_bench.run("CREATE TABLE t (id int PRIMARY KEY, age varchar(20))")
    any_bench.insert("t", (1, "41"), (2, "about 40"), (3, None))
    report = _mirror(any_bench, {"columns": {"age": {"type": "INT64", "misfits": policy}}})
    nulled = policy == "null"
    assert (report.loaded, report.misfits_nulled) == ((3, 1) if nulled else (2, 0))
    assert any_bench.rows("t_latest") == [(1, 41), *([(2, None)] if nulled else []), (3, None)]


# -- zero dates


def _zeros(bench: KindBench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY, d date NULL, at datetime NULL)")
    bench.insert("t", (1, "0000-00-00", None), (2, None, "2020-10-00 00:00:00"))
    bench.insert("t", (3, "1850-01-01", "0000-00-00 00:00:00"), (4, "2020-02-29", None))


_only_mysql = pytest.mark.parametrize("any_bench", ["mysql"], indirect=True)


@_only_mysql
@pytest.mark.parametrize(
    ("zero_dates", "misfits", "loaded", "zeros", "others"),
    [
        ("reject", "reject", [4], 0, 0),
        ("null", "reject", [1, 2, 4], 2, 0),  # row 3 goes for its other date
        ("null", "null", [1, 2, 3, 4], 3, 1),
        ("reject", "null", [1, 2, 3, 4], 0, 4),
    ],
)
def test_zero_dates_and_misfits_are_counted_apart(
    any_bench: KindBench, zero_dates: str, misfits: str, loaded: list[int], zeros: int, others: int
) -> None:
    _zeros(any_bench)
    policies = {"misfits": {"date": misfits, "datetime": misfits}, "zero_dates": zero_dates}
    report = _mirror(any_bench, {}, **policies)
    assert [row[0] for row in any_bench.rows("t_latest")] == loaded
    assert (report.zero_dates_nulled, report.misfits_nulled) == (zeros, others)
    assert any_bench.rows("t_latest", 'd, "at"', where='d IS NOT NULL OR "at" IS NOT NULL') == [
        (_DAY, None)
    ]


@_only_mysql
def test_zero_dates_as_text(any_bench: KindBench) -> None:
    _zeros(any_bench)
    report = _mirror(any_bench, {}, misfits={"date": "text", "datetime": "text"}, zero_dates="null")
    assert (report.loaded, report.zero_dates_nulled) == (4, 0)
    assert any_bench.rows("t_latest", 'd, "at"', where="id = 1") == [("0000-00-00", None)]


def test_only_dates_become_null_as_zero_dates(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int PRIMARY KEY, d varchar(40))")
    any_bench.insert(
        "t", (1, "0000-00-00"), (2, "2020-00-00"), (3, "what-00ever"), (4, "-00-00-00")
    )
    report = _mirror(any_bench, {"columns": {"d": {"type": "DATE"}}}, zero_dates="null")
    assert (report.loaded, report.zero_dates_nulled) == (2, 2)
    assert {key for _column, _kind, key in _rejects(any_bench)} == {'{"id": "3"}', '{"id": "4"}'}


# -- the key of a rejected row


def test_keys_of_rejected_rows(any_bench: KindBench) -> None:
    any_bench.run(
        "CREATE TABLE single (id varchar(30) PRIMARY KEY, d date)",
        "CREATE TABLE pair (a int, b varchar(30), d date, PRIMARY KEY (b, a))",
        "CREATE TABLE keyless (id int, d date)",
        "CREATE TABLE declared (id int, d date)",
        "CREATE TABLE masked (id int PRIMARY KEY, d date)",
        "CREATE TABLE hidden (id int, x int, d date, PRIMARY KEY (id, x))",
        "CREATE TABLE wide (id varchar(700) PRIMARY KEY, d date)",
    )
    any_bench.insert("single", ('é "q", 😀', _EARLY), ("good", _DAY), ("", _EARLY))
    any_bench.insert("pair", (7, "x,y", _EARLY))
    for name in ("keyless", "declared", "masked"):
        any_bench.insert(name, (5, _EARLY))
    any_bench.insert("hidden", (5, 6, _EARLY))
    any_bench.insert("wide", ("w" * 700, _EARLY), ('"' * 700, _EARLY))
    entries: dict[str, dict[str, Any]] = {
        "single": {},
        "pair": {},
        "keyless": {},
        "declared": {"primary_key": ["id"]},
        "masked": {"masked_columns": ["id"]},
        "hidden": {"exclude_columns": ["x"]},
        "wide": {},
    }
    spec = any_bench.catalog(
        {name: entry | {"bad_records_allowed": _ALLOWED} for name, entry in entries.items()},
        first_date="1900-01-01",
    )
    any_bench.mirror_day(spec)
    found = any_bench.rows(
        "MIRROR_ERRORS_latest", '"table", row_key', where="row_number IS NOT NULL"
    )
    keys = {
        name: [json.loads(key) if key else None for table, key in found if table == name]
        for name in entries
    }
    assert keys == {
        "single": [{"id": ""}, {"id": 'é "q", 😀'}],
        "pair": [{"b": "x,y", "a": "7"}],
        "keyless": [None],
        "declared": [{"id": "5"}],
        "masked": [{"id": "masked"}],
        "hidden": [None],
        "wide": [{"id": "w" * 700}, None],  # longer than a key is kept
    }
    texts = {text for (text,) in any_bench.rows("MIRROR_ERRORS_latest", "row_text")}
    told = " ".join(error for (error,) in any_bench.rows("MIRROR_ERRORS_latest", "error"))
    assert texts == {None}
    assert "1850" not in told
    assert "😀" not in told


def test_keys_of_rows_whose_text_is_invalid(any_bench: KindBench) -> None:
    """On MySQL bytes that their character set does not know, on PostgreSQL any bytes at all."""
    ddl = "CREATE TABLE t (id varchar(10) {0} PRIMARY KEY, v varchar(10) {0})"
    rows = "INSERT INTO t VALUES ('one', {0}), ('two', 'good'), ({0}, 'good')"
    if any_bench.kind == "mysql":
        any_bench.run(ddl.format("CHARACTER SET cp1250"), rows.format("_cp1250 X'5A81'"))
        _mirror(any_bench, {})
    else:
        name = f"{any_bench.schema}_ascii"
        any_bench.run(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C'"
            " LC_CTYPE 'C'"
        )
        with closing(any_bench.server.admin(name)) as admin, admin.cursor() as cursor:
            cursor.execute(ddl.format(""))
            cursor.execute(rows.format(r"E'Z\x81'"))
        any_bench.server.create_reader(name)
        spec = any_bench.catalog({"t": {"bad_records_allowed": _ALLOWED}})
        any_bench.mirror_day(spec, source=open_source(spec, any_bench.server.url(name)))
        any_bench.run(f"DROP DATABASE {name} WITH (FORCE)")
    assert any_bench.rows("t_latest") == [("two", "good")]
    assert sorted(_rejects(any_bench), key=str) == [
        ("id", "invalid_encoding", None),
        ("v", "invalid_encoding", '{"id": "one"}'),
    ]
