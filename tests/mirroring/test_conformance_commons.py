"""The Commons mirror's conformance cases E-1 to E-10 and E-44, by their ids.

The value rules are those of the original importer with its defects fixed: microseconds and offsets
are kept, the words null and empty text are values, and no value is dropped in silence: where the
original stored NULL for what it could not read, the row is a reject that names the column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import DatabaseSpec, load
from mirror_assets.mirroring.landing import Landing, Manifest
from mirror_assets.mirroring.scan import CsvPart
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.typed import SENTENCES, LoadedPart, TypedLoader
from mirror_assets.mirroring.types import SourceColumn


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TypedLoader]:
    made = TypedLoader(tmp_path_factory.mktemp("scratch"), memory="256MB")
    yield made
    made.close()


def commons(folder: Path, tables: list[str]) -> DatabaseSpec:
    path = folder / "commons.catalog.yaml"
    entry = {"database": "commons", "kind": "postgresql", "tables": tables}
    path.write_text(yaml.safe_dump(entry), encoding="utf-8")
    return load(path)


class Importer:
    """Loads lines of a table that is described as the original's schema files describe it."""

    def __init__(self, loader: TypedLoader, folder: Path) -> None:
        self.folder = folder
        self.spec = commons(folder, ["t"])
        self._loader = loader

    def schema(self, *lines: str) -> TableSchema:
        columns = []
        for line in lines:
            name, data_type, nullable = line.split(",")
            source = SourceColumn(name, data_type, data_type, nullable == "YES")
            columns.append(types.column_of("postgresql", "t", source, self.spec.types))
        return TableSchema(tuple(columns))

    def load(self, data: str, *lines: str) -> LoadedPart:
        path = self.folder / "part.csv"
        path.write_text(data, encoding="utf-8", newline="")
        part = CsvPart(path, path.name, 1, len(data) + 1, 1)
        target = str(self.folder / "0.parquet")
        return self._loader.load(part, self.schema(*lines), self.spec.table("t"), target, 10)

    def row(self, data: str, *lines: str) -> dict[str, Any]:
        loaded = self.load(data, *lines)
        assert (loaded.rows, loaded.rejected) == (1, 0)
        return dict(pq.read_table(self.folder / "0.parquet").to_pylist()[0])

    def fault(self, data: str, *lines: str) -> tuple[str, str]:
        loaded = self.load(data, *lines)
        assert (loaded.rows, loaded.rejected, loaded.parquet) == (0, 1, None)
        return loaded.rejects[0].column, loaded.rejects[0].kind


@pytest.fixture
def importer(loader: TypedLoader, tmp_path: Path) -> Importer:
    return Importer(loader, tmp_path)


def test_e_1_a_plain_row(importer: Importer) -> None:
    row = importer.row("u1,1,true\n", "id,uuid,NO", "n,bigint,YES", "ok,boolean,NO")
    assert row == {"id": "u1", "n": 1, "ok": True}


def test_e_2_blank_text_is_kept_and_a_padded_boolean_is_read(importer: Importer) -> None:
    """Blanks around a boolean word are ignored, as they are around numbers; no other word is."""
    schema = ("id,uuid,NO", "t,text,NO", "b,boolean,YES")
    assert importer.row("u1,  , false\n", *schema) == {"id": "u1", "t": "  ", "b": False}
    for word in ("no", "F", "2", "falsey"):
        assert importer.fault(f"u1,  , {word}\n", *schema) == ("b", "not_boolean")


def test_e_3_an_impossible_date_is_a_reject_not_a_silent_null(importer: Importer) -> None:
    schema = ("id,uuid,NO", "d,date,YES", "b,boolean,NO")
    assert importer.fault("u1,tomorrow,true\n", *schema) == ("d", "not_date")
    assert importer.row("u1,,true\n", *schema) == {"id": "u1", "d": None, "b": True}


def test_e_4_a_missing_required_value_names_its_column(importer: Importer) -> None:
    schema = ("id,uuid,NO", "n,bigint,YES", "b,boolean,NO")
    assert importer.fault("u1,1,\n", *schema) == ("b", "null_in_required")


def test_e_5_too_many_fields_name_the_expected_number(importer: Importer) -> None:
    schema = ("id,uuid,NO", "n,bigint,YES", "b,boolean,NO")
    _column, kind = importer.fault("u1,1,,2,3\n", *schema)
    assert kind == "too_many_columns"
    told = SENTENCES[kind].format(columns=len(importer.schema(*schema).columns))
    assert told == "the record has more fields than the 3 expected"
    assert importer.fault("u1,1\n", *schema) == ("b", "too_few_columns")


def test_e_6_an_export_whose_schema_is_broken_does_not_exist(tmp_path: Path) -> None:
    landing = Landing(str(tmp_path / "landing"), tmp_path)
    stamp = datetime(2021, 1, 19, 5, tzinfo=UTC)
    column = Column("field1", "bigint", types.INT64)
    writer = landing.writer("commons", "t", stamp)
    writer.write(b"1\n", 1, 2)
    writer.close_part()
    schema = TableSchema((column,))
    manifest = Manifest(
        *("commons", "t", stamp.date(), stamp, stamp, None, "one instant"),
        source_rows=1,
        schema=schema,
        parts=tuple(writer.parts),
        source_info={},
    )
    writer.finish(manifest)
    assert landing.find("commons", "t", stamp.date()) == manifest

    (path,) = (tmp_path / "landing").rglob("*.manifest.json")
    data = json.loads(path.read_text())
    del data["columns"][0]["required"]  # field1,bigint
    path.write_text(json.dumps(data))
    assert landing.find("commons", "t", stamp.date()) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2021-01-19 05:00:00.987654+00", datetime(2021, 1, 19, 5, 0, 0, 987654, UTC)),
        ("2021-01-19 05:00:00.9+00", datetime(2021, 1, 19, 5, 0, 0, 900000, UTC)),
    ],
)
def test_e_7_microseconds_are_kept(importer: Importer, text: str, wanted: datetime) -> None:
    assert importer.row(f"{text}\n", "ts,timestamp with time zone,NO") == {"ts": wanted}


@pytest.mark.parametrize("offset", ["-05", "-0500", "-05:00"])
def test_e_8_offsets_are_honoured(importer: Importer, offset: str) -> None:
    row = importer.row(f"2021-01-19 05:00:00{offset}\n", "ts,timestamp with time zone,NO")
    assert row == {"ts": datetime(2021, 1, 19, 10, tzinfo=UTC)}


@pytest.mark.parametrize("name", ["Null", "NULL", "null", ""])
def test_e_9_the_word_null_and_empty_text_are_names(importer: Importer, name: str) -> None:
    row = importer.row(f'"u1","{name}"\n', "id,uuid,NO", "lastName,text,NO")
    assert row == {"id": "u1", "lastName": name}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\rb"])
def test_e_10_newlines_are_kept(importer: Importer, text: str) -> None:
    row = importer.row(f'"u1","{text}"\n', "id,uuid,NO", "note,text,YES")
    assert row == {"id": "u1", "note": text}


@pytest.mark.parametrize("text", ["0044-03-15 BC", "infinity", "-infinity", "10000-01-01"])
def test_dates_that_the_warehouses_cannot_hold_are_rejects(importer: Importer, text: str) -> None:
    """DuckDB's cast alone reads ``0044-03-15 BC`` as the year 44."""
    clock = "" if "infinity" in text else " 00:00:00"
    day, _, era = text.partition(" ")
    for declared, written in (
        ("date", text),
        ("timestamp without time zone", f"{day}{clock} {era}".rstrip()),
        ("timestamp with time zone", f"{day}{clock}{'+00' if clock else ''} {era}".rstrip()),
    ):
        column, kind = importer.fault(f"{written}\n", f"d,{declared},YES")
        assert column == "d"
        assert kind in (
            "out_of_range",
            f"not_{column}",
            "not_date",
            "not_datetime",
            "not_timestamp",
        )


def test_a_later_day_than_the_warehouses_hold_is_out_of_range(importer: Importer) -> None:
    assert importer.fault("10000-01-01\n", "d,date,YES") == ("d", "out_of_range")
    assert importer.row("9999-12-31\n", "d,date,YES") == {"d": date(9999, 12, 31)}


def test_e_44_thirty_one_tables_make_chunks_of_15_15_and_1(tmp_path: Path) -> None:
    spec = commons(tmp_path, [f"table_{i}" for i in range(31)])
    assert [len(chunk) for chunk in spec.chunks] == [15, 15, 1]
