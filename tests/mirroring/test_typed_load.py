"""The typed load: nothing is lost, nothing is guessed, every refused row is named or counted."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.dialect import Field, Formatter
from mirror_assets.mirroring.errors import WarehouseFault
from mirror_assets.mirroring.scan import MAX_ROW_TEXT, CsvPart
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.typed import (
    MAX_LISTED,
    SENTENCES,
    ColumnDigest,
    LoadedPart,
    Reject,
    TypedLoader,
)

WIDEST = types.decimal(38, 9)
_EXACT = Context(prec=60)  # the default rounds to 28 digits
KINDS = TableSchema(
    (
        Column("t", "text", types.STRING),
        Column("b", "blob", types.BYTES, encoding="hex"),
        Column("i", "bigint", types.INT64),
        Column("d", "decimal(38,9)", WIDEST),
        Column("f", "double", types.FLOAT64),
        Column("o", "boolean", types.BOOL),
        Column("day", "date", types.DATE),
        Column("at", "datetime(6)", types.DATETIME),
        Column("instant", "timestamp(6)", types.TIMESTAMP),
    )
)

#: The same types, loaded from a source's text.
DECLARED = TableSchema(
    tuple(
        column if column.name in ("t", "b") else replace(column, encoding="declared")
        for column in KINDS.columns
    )
)


def spec(**changes: Any) -> TableSpec:
    defaults: dict[str, Any] = {
        "database": "clinic",
        "name": "patient",
        "description": "",
        "primary_key": (),
        "exclude_columns": (),
        "masked_columns": (),
        "bad_records_allowed": None,
        "zero_dates": "reject",
        "first_date": date(1, 1, 1),
        "last_date": date(9999, 12, 31),
        "breaking_drift": "refuse",
        "volume": 0.5,
        "coverage": 100.0,
        "keep_row_text": False,
    }
    return TableSpec(**{**defaults, **changes})


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TypedLoader]:
    loader = TypedLoader(tmp_path_factory.mktemp("scratch"), memory="256MB")
    yield loader
    loader.close()


class Bench:
    """Loads bytes as one part, and reads the Parquet back."""

    def __init__(self, loader: TypedLoader, folder: Path) -> None:
        self.loader = loader
        self.folder = folder

    def load(
        self,
        data: bytes,
        schema: TableSchema,
        *,
        rows: int,
        longest: int = 0,
        first_row: int = 1,
        room: int = MAX_LISTED,
        suffix: str = ".csv",
        **policy: Any,
    ) -> LoadedPart:
        path = self.folder / f"part{suffix}"
        path.write_bytes(gzip.compress(data) if suffix == ".csv.gz" else data)
        longest = longest or max(map(len, data.split(b"\n"))) + 1
        part = CsvPart(path, path.name, rows, longest, first_row)
        return self.loader.load(part, schema, spec(**policy), str(self.folder / "0.parquet"), room)

    def values(self) -> list[tuple[Any, ...]]:
        table = pq.read_table(self.folder / "0.parquet")
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.fixture
def bench(loader: TypedLoader, tmp_path: Path) -> Bench:
    return Bench(loader, tmp_path)


def columns(*kinds: str) -> TableSchema:
    """Columns named a, b, .. of these logical types; a trailing ``!`` makes one required."""
    return TableSchema(
        tuple(
            Column(chr(97 + i), "", types.LogicalType.parse(kind.rstrip("!")), kind.endswith("!"))
            for i, kind in enumerate(kinds)
        )
    )


def faults(loaded: LoadedPart) -> list[tuple[int, str, str]]:
    return [(reject.row_number, reject.column, reject.kind) for reject in loaded.rejects]


# -- nothing is lost

_TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="\n\r\",'\x00;\t\\ N", max_size=8),
    st.sampled_from(
        ["", "NULL", "null", "\\N", '"', '""', "\r\n", "\n", "a\x00b", "é😀\u2028", "-"]
    ),
)
_DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
_MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
_WHOLE = 10**38 - 1
_ROWS = st.tuples(
    *(
        st.none() | values
        for values in (
            _TEXTS,
            st.binary(max_size=40),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-_WHOLE, _WHOLE).map(lambda n: Decimal(n).scaleb(-9, _EXACT)),
            st.floats(allow_nan=False).map(lambda value: value + 0.0),  # no sign of zero
            st.booleans(),
            _DATES,
            _MOMENTS,
            _MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
        )
    )
)


def raw(value: Any) -> Field:
    """A value as the source's client delivers it."""
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ").encode()
    if isinstance(value, Decimal):
        return format(value, "f").encode()
    return str(value).encode()


def told(row: tuple[Any, ...]) -> str:
    """A row as text that tells "" and None apart."""
    return repr([v.isoformat() if isinstance(v, datetime) else v for v in row])


def raw_text(value: Any) -> Field:
    """A value as the text from which a declared type is loaded."""
    if isinstance(value, float):
        return {"inf": b"Infinity", "-inf": b"-Infinity"}.get(str(value), raw(value))
    zone = b"+00" if isinstance(value, datetime) and value.tzinfo else b""
    text = raw(value)
    return text + zone if text is not None else None


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("schema", [KINDS, DECLARED], ids=["own types", "declared types"])
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(_ROWS, min_size=1, max_size=12))
def test_any_values_survive_export_and_load(
    bench: Bench, schema: TableSchema, suffix: str, rows: list[tuple[Any, ...]]
) -> None:
    text = raw_text if schema is DECLARED else raw
    records = Formatter(schema.columns).records([tuple(map(text, row)) for row in rows])
    data = b"".join(record + b"\n" for record in records)

    longest = max(map(len, records)) + 1
    loaded = bench.load(data, schema, rows=len(rows), longest=longest, suffix=suffix)

    assert (loaded.rows, loaded.rejected, loaded.rejects) == (len(rows), 0, ())
    assert sorted(map(told, bench.values())) == sorted(map(told, rows))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(*[st.sampled_from(["", "x", "1", "0", "1e5", "-3", "0000-00-00", "2026-02-30",
                                     "2026-10-00", "1850-01-01", "2026-01-01", "infinity",
                                     "2026-01-01 01:02:03", '""', '"abc"', '"ab"'])] * 4),
        min_size=1, max_size=30,
    ),
    st.sampled_from(["null", "reject"]),
    st.booleans(),
)  # fmt: skip
def test_every_row_is_loaded_or_named_never_both_or_neither(
    bench: Bench, rows: list[tuple[str, ...]], zero_dates: str, required: bool
) -> None:
    """The lean check of good rows and the search for faults agree on every row."""
    bang = "!" if required else ""
    schema = columns(f"DATE{bang}", f"INT64{bang}", "DATETIME", f"BYTES{bang}")
    data = "".join(",".join(row) + "\n" for row in rows).encode()

    loaded = bench.load(
        data, schema, rows=len(rows), zero_dates=zero_dates, first_date=date(1900, 1, 1)
    )

    assert loaded.rows + len(loaded.rejects) == len(rows)
    assert loaded.rejected == len(loaded.rejects)
    assert len({reject.row_number for reject in loaded.rejects}) == len(loaded.rejects)


def test_null_and_empty_text_stay_apart_in_a_table_of_one_column(bench: Bench) -> None:
    loaded = bench.load(b'""\n\n"x"\n\n', columns("STRING"), rows=4)

    assert (loaded.rows, loaded.rejected) == (4, 0)
    assert sorted(bench.values(), key=repr) == [("",), ("x",), (None,), (None,)]


def test_nulls_of_a_required_single_column_are_named(bench: Bench) -> None:
    loaded = bench.load(b"1\n\n3\n\n", columns("INT64!"), rows=4)

    assert faults(loaded) == [(2, "a", "null_in_required"), (4, "a", "null_in_required")]


def test_five_hundred_columns(bench: Bench) -> None:
    schema = TableSchema(tuple(Column(f"c {i}", "int", types.INT64) for i in range(500)))
    good = ",".join(map(str, range(500)))
    bad = ",".join(["0"] * 499 + ["x"])

    loaded = bench.load(f"{good}\n{bad}\n{good}\n".encode(), schema, rows=3)

    assert loaded.rows == 2
    assert faults(loaded) == [(2, "c 499", "not_integer")]
    assert bench.values() == [tuple(range(500))] * 2


def test_an_empty_file_gives_no_parquet(bench: Bench) -> None:
    loaded = bench.load(b"", KINDS, rows=0)

    assert (loaded.parquet, loaded.rows, loaded.rejected) == (None, 0, 0)
    assert not (bench.folder / "0.parquet").exists()


def test_a_part_without_any_good_row_gives_no_parquet(bench: Bench) -> None:
    loaded = bench.load(b"x\n", columns("INT64"), rows=1)

    assert (loaded.parquet, loaded.rows, loaded.rejected) == (None, 0, 1)
    assert not (bench.folder / "0.parquet").exists()


def test_a_record_of_forty_megabytes_beside_small_ones(bench: Bench) -> None:
    huge = b"y" * 40_000_000
    records = [b'1,"a"', b'2,"' + huge + b'"', *(b'%d,"b"' % n for n in range(3, 1000))]
    data = b"\n".join(records) + b"\n"

    loaded = bench.load(data, columns("INT64", "STRING"), rows=999, longest=len(records[1]) + 1)

    assert (loaded.rows, loaded.rejected) == (999, 0)
    lengths = {number: len(text) for number, text in bench.values()}
    assert lengths[2] == 40_000_000
    assert lengths[1] == lengths[999] == 1


def test_gzip_parts_and_their_rejects(bench: Bench) -> None:
    data = b'1,"a"\nx,"b"\n3\n4,"\xff"\n5,"e"\n'

    loaded = bench.load(data, columns("INT64", "STRING"), rows=5, suffix=".csv.gz")

    assert loaded.rows == 2
    assert faults(loaded) == [
        (2, "a", "not_integer"),
        (3, "b", "too_few_columns"),
        (4, "b", "invalid_encoding"),
    ]


def test_the_parquet_file_is_private_and_spilled_data_is_gone_after_close(tmp_path: Path) -> None:
    loader = TypedLoader(tmp_path / "scratch", memory="64MB")
    bench = Bench(loader, tmp_path)
    bench.load(b"1\n", columns("INT64"), rows=1)
    [spill] = (tmp_path / "scratch").iterdir()

    assert (bench.folder / "0.parquet").stat().st_mode & 0o777 == 0o600
    assert spill.stat().st_mode & 0o777 == 0o700
    (spill / "duckdb_temp_storage").write_text("patient")
    loader.close()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("limit", ["4MB", "1GB"])
def test_spilled_data_is_limited(tmp_path: Path, limit: str) -> None:
    loader = TypedLoader(tmp_path, memory="32MB", spill=limit, threads=1)
    much = "CREATE TEMP TABLE t AS SELECT sha256(i::VARCHAR) FROM range(1200000) t(i)"
    if limit == "4MB":
        with pytest.raises(duckdb.OutOfMemoryException, match="max_temp_directory_size"):
            loader._connection.execute(much)
    else:
        loader._connection.execute(much)
    loader.close()


def test_two_loaders_of_one_scratch_folder_spill_apart(tmp_path: Path) -> None:
    first, second = TypedLoader(tmp_path), TypedLoader(tmp_path)
    folders = list(tmp_path.iterdir())
    second.close()
    left = list(tmp_path.iterdir())
    first.close()

    assert len(folders) == 2
    assert len(left) == 1


def test_an_unwritable_target_is_a_fault_without_the_drivers_text(bench: Bench) -> None:
    bench.folder = bench.folder / "file"
    bench.folder.parent.joinpath("file").mkdir()
    (bench.folder / "0.parquet").mkdir()

    with pytest.raises(WarehouseFault) as caught:
        bench.load(b"1\n", columns("INT64"), rows=1)

    assert "clinic" not in caught.value.what
    assert caught.value.where == "patient, file part.csv"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# -- every refused row is named

_FIELDS: list[tuple[str, str, bytes, str]] = [
    ("BOOL", "a", b"2", "not_boolean"),
    ("INT64", "a", b"9223372036854775808", "not_integer"),
    ("INT64", "a", b"one", "not_integer"),
    ("FLOAT64", "a", b"1,5"[:1] + b"x", "not_number"),
    ("DECIMAL(4,2)", "a", b"100.00", "not_number"),
    ("DECIMAL(38,9)", "a", b"NaN", "not_number"),
    ("BYTES", "a", b'"0g"', "not_binary"),
    ("BYTES", "a", b'"abc"', "not_binary"),
    ("DATE", "a", b"2026-02-30", "not_date"),
    ("DATE", "a", b"2026-10-00", "not_date"),
    ("DATE", "a", b"0000-00-00", "zero_date"),
    ("DATE", "a", b"infinity", "out_of_range"),
    ("DATE", "a", b"0044-03-15 (BC)", "not_date"),
    ("DATE", "a", b"0044-03-15 BC", "not_date"),  # the cast alone reads the year 44
    ("DATE", "a", b"10000-01-01", "out_of_range"),
    ("DATETIME", "a", b"2026-11-22 25:00:00", "not_datetime"),
    ("DATETIME", "a", b"0000-00-00 00:00:00", "zero_date"),
    ("DATETIME", "a", b"10000-01-01 00:00:00", "out_of_range"),
    ("TIMESTAMP", "a", b"yesterday+00", "not_timestamp"),
    ("TIMESTAMP", "a", b"0000-00-00 00:00:00+00", "zero_date"),
    ("TIMESTAMP", "a", b"infinity", "out_of_range"),
    ("INT64!", "a", b"", "null_in_required"),
    ("STRING!", "a", b"", "null_in_required"),
    ("STRING", "a", b'"\xc3("', "invalid_encoding"),
    ("STRING", "a", b'"\xed\xa0\x80"', "invalid_encoding"),
]


@pytest.mark.parametrize(("kind", "column", "field", "fault"), _FIELDS)
def test_each_kind_of_fault_is_named_with_its_place(
    bench: Bench, kind: str, column: str, field: bytes, fault: str
) -> None:
    good = {"STRING": b'"x"', "BYTES": b'"00"'}.get(kind.rstrip("!"), b"1")
    if kind.startswith("D") and not kind.startswith("DECIMAL"):
        good = b"2026-11-22"
    if kind == "TIMESTAMP":
        good = b"2026-11-22 00:00:00+00"
    data = b"".join(value + b",7\n" for value in (good, good, field, good))

    loaded = bench.load(data, columns(kind, "INT64"), rows=4, first_row=101)

    assert (loaded.rows, loaded.rejected) == (3, 1)
    assert loaded.rejects == (Reject("part.csv", 103, column, fault),)
    assert fault in SENTENCES


def test_records_of_a_wrong_width_are_named(bench: Bench) -> None:
    data = b'1,"a",2\n3,"b"\n4,"c",5,6\n7\n8,"d",9\n'

    loaded = bench.load(data, columns("INT64", "STRING", "INT64"), rows=5)

    assert loaded.rows == 2
    assert faults(loaded) == [
        (2, "c", "too_few_columns"),
        (3, "envelope", "too_many_columns"),
        (4, "b", "too_few_columns"),
    ]


def test_every_sentence_but_the_uncounted_is_provoked_here() -> None:
    provoked = {fault for *_rest, fault in _FIELDS} | {"too_few_columns", "too_many_columns"}

    assert provoked == set(SENTENCES) - {"unlisted"}


def test_ordinals_hold_over_parts_where_broken_records_and_bad_values_mix(bench: Bench) -> None:
    schema = columns("INT64", "STRING", "DATE")
    good = b'1,"line\none ""q""\r",2026-11-22\n'
    bad_value = b'x,"line\ntwo",2026-11-22\n'
    bad_date = b'1,"",2026-13-01\n'
    short = b'1,"a"\n'
    broken_text = b'1,"\xff\n\xfe",\n'
    long = b'1,"a",2026-11-22,4\n'
    first = [good, bad_value, short, good, bad_date, broken_text, long, bad_value, good]
    second = [short, short, bad_value, good, broken_text, bad_date]

    named = []
    start = 1
    for records in (first, second):
        loaded = bench.load(b"".join(records), schema, rows=len(records), first_row=start)
        named += faults(loaded)
        start += len(records)

    expected = {
        bad_value: ("a", "not_integer"),
        bad_date: ("c", "not_date"),
        short: ("c", "too_few_columns"),
        broken_text: ("b", "invalid_encoding"),
        long: ("envelope", "too_many_columns"),
    }
    assert named == [
        (ordinal, *expected[record])
        for ordinal, record in enumerate(first + second, start=1)
        if record in expected
    ]


def test_rejects_beyond_the_room_are_counted_but_not_listed(bench: Bench) -> None:
    data = b"x\n" * 30 + b"1,2\n" * 30 + b"5\n"

    loaded = bench.load(data, columns("INT64"), rows=61, room=40)
    none = bench.load(data, columns("INT64"), rows=61, room=0)

    assert (loaded.rows, loaded.rejected, len(loaded.rejects)) == (1, 60, 40)
    assert [reject.kind for reject in loaded.rejects].count("too_many_columns") == 30
    assert (none.rows, none.rejected, none.rejects) == (1, 60, ())


def test_a_row_with_two_bad_columns_is_one_reject(bench: Bench) -> None:
    loaded = bench.load(b"x,y\n1,2\n", columns("INT64", "INT64"), rows=2)

    assert faults(loaded) == [(1, "a", "not_integer")]


# -- policies


def test_zero_dates_become_null_where_the_catalog_says_so_and_are_counted(bench: Bench) -> None:
    data = (
        b"1,0000-00-00,2026-00-10 00:00:00\n"
        b"2,2026-11-22,2026-11-22 01:02:03\n"
        b"3,2026-10-00,\n"
        b"x,0000-00-00,0000-00-00 00:00:00\n"  # refused for another reason: not counted
        b"5,0000-00-00\n"
    )

    loaded = bench.load(data, columns("INT64", "DATE", "DATETIME"), rows=5, zero_dates="null")

    assert loaded.rows == 3
    assert loaded.zero_dates_nulled == 3
    assert sorted(bench.values()) == [
        (1, None, None),
        (2, date(2026, 11, 22), datetime(2026, 11, 22, 1, 2, 3)),
        (3, None, None),
    ]


def test_a_zero_date_in_a_required_column_is_refused_under_both_policies(bench: Bench) -> None:
    nulled = bench.load(b"0000-00-00\n", columns("DATE!"), rows=1, zero_dates="null")
    rejected = bench.load(b"0000-00-00\n", columns("DATE!"), rows=1, zero_dates="reject")

    assert faults(nulled) == [(1, "a", "null_in_required")]
    assert nulled.zero_dates_nulled == 0
    assert faults(rejected) == [(1, "a", "zero_date")]


@pytest.mark.parametrize("kind", ["DATE", "DATETIME", "TIMESTAMP"])
def test_the_catalogs_dates_are_bounds_that_belong_to_the_range(bench: Bench, kind: str) -> None:
    time_of = {"DATE": ("", ""), "DATETIME": (" 00:00:00", " 23:59:59.999999")}
    zoned = (" 00:00:00+00", " 23:59:59.999999+00")
    first, last = time_of.get(kind, zoned)
    values = [f"1899-12-31{last}", f"1900-01-01{first}", f"2100-12-31{last}", f"2101-01-01{first}"]

    loaded = bench.load(
        "".join(value + "\n" for value in values).encode(),
        columns(kind),
        rows=4,
        first_date=date(1900, 1, 1),
        last_date=date(2100, 12, 31),
    )

    assert faults(loaded) == [(1, "a", "out_of_range"), (4, "a", "out_of_range")]


def test_row_text_is_kept_only_on_demand_and_cut(bench: Bench) -> None:
    long = "é" * (4 * MAX_ROW_TEXT)
    data = f'x,"{long}"\n1,"{long}",3\n2,"ok"\n'.encode()
    schema = columns("INT64", "STRING")

    without = bench.load(data, schema, rows=3)
    kept = bench.load(data, schema, rows=3, keep_row_text=True)

    assert [reject.text for reject in without.rejects] == [None, None]
    texts = [reject.text or "" for reject in kept.rejects]
    assert [text[:4] for text in texts] == ["x,éé", "1,éé"]
    assert all(len(text.encode()) <= 4 * MAX_ROW_TEXT for text in texts)
    assert all(len(text) == MAX_ROW_TEXT for text in texts)


def test_row_text_of_invalid_bytes_can_be_stored(bench: Bench) -> None:
    loaded = bench.load(b'"a\xff"\n', columns("STRING"), rows=1, keep_row_text=True)

    assert [reject.text for reject in loaded.rejects] == ["a\ufffd"]


# -- digests


def test_digests_do_not_depend_on_order_and_see_each_change(bench: Bench) -> None:
    schema = columns("INT64", "STRING")

    def digests(data: bytes) -> dict[str, ColumnDigest]:
        return bench.load(data, schema, rows=data.count(b"\n")).digests

    one = digests(b'1,"a"\n2,\n')
    assert digests(b'2,\n1,"a"\n') == one
    assert one["b"].present == 1
    assert digests(b'1,"b"\n2,\n')["b"] != one["b"]
    assert digests(b'1,"b"\n2,\n')["a"] == one["a"]
    parts = [digests(b'1,"a"\n'), digests(b"2,\n")]
    assert {name: parts[0][name] + parts[1][name] for name in one} == one


# -- what the Parquet files hold


def test_parquet_types_are_those_both_warehouses_hold(bench: Bench) -> None:
    moment = datetime(2026, 11, 22, 1, 2, 3, 456789)
    row = ("x", b"\x00", 1, Decimal("12345678901234567890123456789.123456789"), 0.5, True)
    row = (*row, date(2026, 11, 22), moment, moment.replace(tzinfo=UTC))  # type: ignore[assignment]
    required = TableSchema(
        tuple(Column(c.name, c.source_type, c.type, True, c.encoding) for c in KINDS.columns)
    )
    [record] = Formatter(required.columns).records([tuple(map(raw, row))])

    bench.load(record + b"\n", required, rows=1)

    file = pq.ParquetFile(bench.folder / "0.parquet")
    found = {field.name: field.type for field in file.schema_arrow}
    assert found == {
        "t": pa.string(),
        "b": pa.binary(),
        "i": pa.int64(),
        "d": pa.decimal128(38, 9),
        "f": pa.float64(),
        "o": pa.bool_(),
        "day": pa.date32(),
        "at": pa.timestamp("us"),
        "instant": pa.timestamp("us", tz="UTC"),
    }
    parquet = [file.schema.column(i) for i in range(len(found))]
    assert {column.max_definition_level for column in parquet} == {1}  # OPTIONAL
    assert {column.max_repetition_level for column in parquet} == {0}
    logical = {column.name: json.loads(column.logical_type.to_json()) for column in parquet}
    assert logical["at"]["isAdjustedToUTC"] is False
    assert logical["instant"]["isAdjustedToUTC"] is True
    assert logical["at"]["timeUnit"] == logical["instant"]["timeUnit"] == "microseconds"
    assert bench.values() == [row]


@pytest.mark.parametrize(("precision", "scale"), [(4, 2), (9, 0), (18, 9), (20, 0), (38, 38)])
def test_decimals_are_exact_in_every_physical_form(
    bench: Bench, precision: int, scale: int
) -> None:
    largest = Decimal(10**precision - 1).scaleb(-scale, _EXACT)
    schema = columns(f"DECIMAL({precision},{scale})")

    smallest = largest.copy_negate()  # unary minus rounds to 28 digits

    bench.load(f"{largest:f}\n{smallest:f}\n".encode(), schema, rows=2)

    assert sorted(bench.values()) == [(smallest,), (largest,)]
    field = pq.read_schema(bench.folder / "0.parquet").field(0)
    assert field.type == pa.decimal128(precision, scale)


def test_every_logical_type_becomes_a_parquet_type_without_a_warehouses_own(
    bench: Bench,
) -> None:
    """No unsigned, 128-bit, UUID, INTERVAL or TIME column can come out of the type mapping."""
    sources = [(kind, name) for kind, mapping in types.MAPPINGS.items() for name in mapping]
    logicals = {
        types.column_of(
            kind, "t", types.SourceColumn("c", name, full, True, precision, 0), types.TypePolicy()
        ).type
        for kind, name in sources
        for full in (name, f"{name} unsigned", f"{name}(64)", f"{name}(1)")
        for precision in (None, 20, 38, 65)
    }
    schema = TableSchema(
        tuple(Column(f"c{i}", "", logical) for i, logical in enumerate(sorted(logicals, key=str)))
    )

    bench.load(b"," * (len(logicals) - 1) + b"\n", schema, rows=1)

    written = {str(field.type) for field in pq.read_schema(bench.folder / "0.parquet")}
    assert {name.split("(")[0] for name in written} == {
        *("string", "binary", "int64", "decimal128", "double", "bool"),
        *("date32[day]", "timestamp[us]", "timestamp[us, tz=UTC]"),
    }


# -- bounded memory, measured as a child process's peak

_CHILD = """
import json, re, sys
from pathlib import Path
from mirror_assets.mirroring.scan import CsvPart
from mirror_assets.mirroring.typed import TypedLoader
sys.path.insert(0, sys.argv[1])
from test_typed_load import columns, spec
path, rows, longest = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
loader = TypedLoader(path.parent, memory="256MB")
schema = columns("INT64", "STRING", "DATE")
part = CsvPart(path, path.name, rows, longest, 1)
target = str(path.with_suffix(".parquet"))
loaded = loader.load(part, schema, spec(keep_row_text=True), target, 10000)
loader.close()
# not getrusage: its peak is inherited from the parent process
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
print(json.dumps([loaded.rows, loaded.rejected, len(loaded.rejects), peak]))
"""
_MILLION = 1_000_000
_CLEAN = b'%d,"a line of text with a number %d in it",2026-11-22\n'
_BAD_VALUE = b'x%d,"a line of text with a number %d in it",2026-11-22\n'
_BAD_TEXT = b'%d,"a line of \xff text with a number %d in it",2026-11-22\n'


def peak_of(folder: Path, record: bytes, rows: int) -> tuple[int, int, int, int]:
    """Loaded, rejected and listed rows, and the peak resident memory in MB of a process."""
    path = folder / "part.csv"
    with path.open("wb") as file:
        for start in range(0, rows, 10_000):
            file.write(b"".join(record % (n, n) for n in range(start, start + 10_000)))
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(path)]
    done = subprocess.run(
        [*command, str(rows), "100"], check=True, capture_output=True, text=True, timeout=120
    )
    path.unlink()
    loaded, rejected, listed, peak = json.loads(done.stdout)
    return loaded, rejected, listed, peak


@pytest.mark.parametrize(
    ("record", "loaded", "listed"),
    [(_CLEAN, _MILLION, 0), (_BAD_VALUE, 0, MAX_LISTED), (_BAD_TEXT, 0, MAX_LISTED)],
    ids=["clean", "bad values", "bad encoding"],
)
def test_a_million_rows_fit_in_memory(
    tmp_path: Path, record: bytes, loaded: int, listed: int
) -> None:
    found = peak_of(tmp_path, record, _MILLION)

    assert found[:3] == (loaded, _MILLION - loaded, listed)
    assert found[3] < 600


@pytest.mark.slow
@pytest.mark.parametrize("record", [_CLEAN, _BAD_VALUE, _BAD_TEXT])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, record: bytes) -> None:
    small = peak_of(tmp_path, record, 300_000)[3]
    large = peak_of(tmp_path, record, 1_200_000)[3]

    assert large < 2 * small
    assert large < 600
