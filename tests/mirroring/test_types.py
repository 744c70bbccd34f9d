"""Source type -> logical type -> warehouse types, row by row, and the page that shows them."""

from pathlib import Path

import pytest

from mirror_assets.mirroring import typedoc, types
from mirror_assets.mirroring.errors import UnsupportedType
from mirror_assets.mirroring.schema import LogicalType, can_widen
from mirror_assets.mirroring.types import SourceColumn, TypePolicy

BOOLEAN = TypePolicy(tinyint1="boolean")
FLOAT = TypePolicy(decimals="float")
HEX = TypePolicy(binary="hex")
UNBOUNDED = TypePolicy(unbounded_numeric="numeric")
EXACT = TypePolicy()


def source(full: str, precision: int | None = None, scale: int | None = None) -> SourceColumn:
    return SourceColumn("c", full.split("(")[0].split(" unsigned")[0], full, True, precision, scale)


_ROWS = [
    # full type, precision, scale, policy, logical, DuckDB, BigQuery, encoding
    ("tinyint(1)", 3, 0, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("tinyint(1)", 3, 0, BOOLEAN, "BOOL", "BOOLEAN", "BOOL", "text"),
    ("tinyint(1) unsigned", 3, 0, BOOLEAN, "INT64", "BIGINT", "INT64", "text"),
    ("tinyint(4)", 3, 0, BOOLEAN, "INT64", "BIGINT", "INT64", "text"),
    ("smallint(6)", 5, 0, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("mediumint(9)", 7, 0, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("int(10) unsigned", 10, 0, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("bigint(20)", 19, 0, EXACT, "INT64", "BIGINT", "INT64", "text"),
    (
        *("bigint(20) unsigned", 20, 0, EXACT, "DECIMAL(20,0)", "DECIMAL(20,0)"),
        *("NUMERIC(20,0)", "text"),
    ),
    ("year(4)", None, None, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("bit(1)", 1, None, BOOLEAN, "BOOL", "BOOLEAN", "BOOL", "text"),
    ("bit(1)", 1, None, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("bit(63)", 63, None, EXACT, "INT64", "BIGINT", "INT64", "text"),
    ("bit(64)", 64, None, EXACT, "DECIMAL(20,0)", "DECIMAL(20,0)", "NUMERIC(20,0)", "text"),
    ("float", 12, None, EXACT, "FLOAT64", "DOUBLE", "FLOAT64", "text"),
    ("double", 22, None, EXACT, "FLOAT64", "DOUBLE", "FLOAT64", "text"),
    ("decimal(10,2)", 10, 2, EXACT, "DECIMAL(10,2)", "DECIMAL(10,2)", "NUMERIC(10,2)", "text"),
    ("decimal(38,9)", 38, 9, EXACT, "DECIMAL(38,9)", "DECIMAL(38,9)", "NUMERIC(38,9)", "text"),
    ("decimal(38,8)", 38, 8, EXACT, "DECIMAL(38,8)", "DECIMAL(38,8)", "BIGNUMERIC(38,8)", "text"),
    (
        *("decimal(38,30)", 38, 30, EXACT, "DECIMAL(38,30)", "DECIMAL(38,30)"),
        *("BIGNUMERIC(38,30)", "text"),
    ),
    ("decimal(30,0)", 30, 0, EXACT, "DECIMAL(30,0)", "DECIMAL(30,0)", "BIGNUMERIC(30,0)", "text"),
    ("decimal(29,0)", 29, 0, EXACT, "DECIMAL(29,0)", "DECIMAL(29,0)", "NUMERIC(29,0)", "text"),
    ("decimal(39,0)", 39, 0, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("decimal(65,30)", 65, 30, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("decimal(65,30)", 65, 30, FLOAT, "FLOAT64", "DOUBLE", "FLOAT64", "text"),
    ("decimal(10,2)", 10, 2, FLOAT, "FLOAT64", "DOUBLE", "FLOAT64", "text"),
    ("char(3)", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("varchar(255)", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("longtext", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("enum('a','b')", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("set('a','b')", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("json", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
    ("binary(16)", None, None, EXACT, "BYTES", "BLOB", "BYTES", "hex"),
    ("varbinary(16)", None, None, HEX, "STRING", "VARCHAR", "STRING", "hex"),
    ("longblob", None, None, EXACT, "BYTES", "BLOB", "BYTES", "hex"),
    ("geometry", None, None, HEX, "BYTES", "BLOB", "BYTES", "hex"),
    ("date", None, None, EXACT, "DATE", "DATE", "DATE", "text"),
    ("datetime(6)", None, None, EXACT, "DATETIME", "TIMESTAMP", "DATETIME", "text"),
    (
        *("timestamp(6)", None, None, EXACT, "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"),
        *("TIMESTAMP", "text"),
    ),
    ("time(6)", None, None, EXACT, "STRING", "VARCHAR", "STRING", "text"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("full", "precision", "scale", "policy", "logical", "duckdb", "bigquery", "encoding"), _ROWS
)
def test_mysql(
    full: str,
    precision: int | None,
    scale: int | None,
    policy: TypePolicy,
    logical: str,
    duckdb: str,
    bigquery: str,
    encoding: str,
) -> None:
    column = types.column_of("mysql", "clinic/t", source(full, precision, scale), policy)

    assert (str(column.type), column.encoding) == (logical, encoding)
    assert types.to_duckdb(column.type) == duckdb
    assert types.to_bigquery(column.type) == bigquery


@pytest.mark.parametrize(
    ("name", "precision", "scale", "policy", "logical", "encoding"),
    [
        ("boolean", None, None, EXACT, "BOOL", "text"),
        ("bigint", 64, 0, EXACT, "INT64", "text"),
        ("numeric", None, None, EXACT, "STRING", "text"),
        ("numeric", 12, 2, EXACT, "DECIMAL(12,2)", "text"),
        ("numeric", 2, 5, EXACT, "STRING", "text"),  # numeric(2,5): more scale than digits
        ("numeric", 2, -3, EXACT, "STRING", "text"),
        ("numeric", None, None, FLOAT, "FLOAT64", "unbounded"),
        ("numeric", None, None, UNBOUNDED, "DECIMAL(38,9)", "unbounded"),
        ("numeric", 12, 2, UNBOUNDED, "DECIMAL(12,2)", "text"),
        ("numeric", 50, 2, UNBOUNDED, "STRING", "text"),
        ("enum", None, None, EXACT, "STRING", "text"),
        ("composite", None, None, EXACT, "STRING", "text"),
        ("range", None, None, EXACT, "STRING", "text"),
        ("double precision", 53, None, EXACT, "FLOAT64", "text"),
        ("bytea", None, None, EXACT, "BYTES", "hex"),
        ("bytea", None, None, HEX, "STRING", "hex"),
        ("point", None, None, EXACT, "STRING", "text"),
        ("uuid", None, None, EXACT, "STRING", "text"),
        ("ARRAY", None, None, EXACT, "STRING", "text"),
        ("interval", None, None, EXACT, "STRING", "text"),
        ("timestamp without time zone", None, None, EXACT, "DATETIME", "text"),
        ("timestamp with time zone", None, None, EXACT, "TIMESTAMP", "text"),
        ("time with time zone", None, None, EXACT, "STRING", "text"),
    ],
)
def test_postgresql(
    name: str,
    precision: int | None,
    scale: int | None,
    policy: TypePolicy,
    logical: str,
    encoding: str,
) -> None:
    found = SourceColumn("c", name, name, False, precision, scale)
    column = types.column_of("postgresql", "clinic/t", found, policy)

    assert (str(column.type), column.encoding, column.required) == (logical, encoding, True)


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_an_unknown_type_names_table_column_and_type(kind: str) -> None:
    column = SourceColumn("shape", "polyhedron", "polyhedron(3)", True)

    with pytest.raises(UnsupportedType) as caught:
        types.column_of(kind, "clinic/parcel", column, EXACT)

    assert caught.value.where == "clinic/parcel"
    assert "column shape has type polyhedron(3)" in caught.value.what
    assert "exclude the column" in caught.value.remedy
    assert "columns: {shape: {misfits: text}}" in caught.value.remedy


_LOGICAL = [
    *(types.BOOL, types.INT64, types.FLOAT64, types.STRING, types.BYTES),
    *(types.DATE, types.DATETIME, types.TIMESTAMP),
    *(
        LogicalType("DECIMAL", precision, scale)
        for precision in range(1, 39)
        for scale in range(precision + 1)
    ),
]


def test_every_logical_type_comes_back_from_both_warehouses() -> None:
    for logical in _LOGICAL:
        assert types.from_duckdb(types.to_duckdb(logical)) == logical
        assert types.from_bigquery(types.to_bigquery(logical)) == logical
        assert LogicalType.parse(str(logical)) == logical


def test_decimals_stay_inside_bigquerys_limits() -> None:
    """NUMERIC(p,s): s <= 9, p - s <= 29; BIGNUMERIC(p,s): s <= 38, p - s <= 38."""
    for logical in (each for each in _LOGICAL if each.kind == "DECIMAL"):
        name = types.to_bigquery(logical).split("(")[0]
        digits, scale = (29, 9) if name == "NUMERIC" else (38, 38)
        assert logical.scale <= scale
        assert logical.precision - logical.scale <= digits


@pytest.mark.parametrize(
    ("before", "after", "widens"),
    [
        ("INT64", "DECIMAL(20,0)", True),
        ("INT64", "DECIMAL(18,0)", False),
        ("INT64", "DECIMAL(20,2)", False),
        ("DECIMAL(10,2)", "DECIMAL(12,4)", True),
        ("DECIMAL(10,2)", "DECIMAL(10,4)", False),
        ("DECIMAL(10,2)", "DECIMAL(9,2)", False),
        ("DECIMAL(10,2)", "FLOAT64", False),
        ("INT64", "STRING", False),
        ("DATE", "DATETIME", False),
    ],
)
def test_only_exact_widening_widens(before: str, after: str, widens: bool) -> None:
    assert can_widen(LogicalType.parse(before), LogicalType.parse(after)) is widens


def test_the_page_of_types_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "types.md"

    assert page.read_text(encoding="utf-8") == typedoc.page(), (
        "run `python -m mirror_assets.mirroring.typedoc`"
    )


def test_the_page_shows_every_mapped_type() -> None:
    page = typedoc.page()

    for mapping in types.MAPPINGS.values():
        for name in mapping:
            assert f"`{name}" in page


def test_the_page_shows_what_each_policy_rejects() -> None:
    lines = typedoc.page().splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}

    assert "bytes that are no character" in rows["char"]
    assert "bytes that are no character" in rows["character varying"]
    assert "bytes" not in rows["json"]
    assert "DOUBLE, FLOAT64; misfit: `1e309`;" in rows["numeric"]
    assert "DECIMAL(38,9), NUMERIC(38,9); misfit: `NaN`" in rows["numeric"]
    assert "BOOLEAN, BOOL; misfit: `2`" in rows["tinyint(1)"]
