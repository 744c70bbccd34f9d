"""The export's CSV dialect: what stands in the file, byte for byte."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror_assets.mirroring import types
from mirror_assets.mirroring.dialect import Formatter
from mirror_assets.mirroring.schema import Column

TEXT = Column("t", "text", types.STRING)


@pytest.mark.parametrize(
    ("column", "value", "record"),
    [
        (TEXT, None, b""),
        (TEXT, b"", b'""'),
        (TEXT, b"NULL", b'"NULL"'),
        (TEXT, b'say "hi", twice\r\n', b'"say ""hi"", twice\r\n"'),
        (TEXT, b"nul\x00byte", b'"nul\x00byte"'),
        (TEXT, "é😀".encode(), '"é😀"'.encode()),
        (Column("i", "int", types.INT64), b"-7", b"-7"),
        (Column("i", "int", types.INT64), None, b""),
        (Column("d", "decimal(4,2)", types.decimal(4, 2)), b"1.50", b"1.50"),
        (Column("d", "date", types.DATE), b"2026-11-22", b"2026-11-22"),
        (
            Column("d", "datetime", types.DATETIME),
            b"2026-11-22 01:02:03.000004",
            b"2026-11-22 01:02:03.000004",
        ),
        (
            Column("s", "timestamp", types.TIMESTAMP),
            b"2026-11-22 01:02:03",
            b"2026-11-22 01:02:03+00",
        ),
        (Column("s", "timestamp", types.TIMESTAMP), None, b""),
        (Column("b", "blob", types.BYTES, encoding="hex"), b"\x00\xff", b'"00ff"'),
        (Column("b", "blob", types.BYTES, encoding="hex"), b"", b'""'),
        (Column("b", "blob", types.BYTES, encoding="hex"), None, b""),
        # binary: hex makes the column text, whose text is the hexadecimal form
        (Column("b", "blob", types.STRING, encoding="hex"), b"\xab", b'"ab"'),
    ],
)
def test_one_field(column: Column, value: bytes | None, record: bytes) -> None:
    assert Formatter([column]).records([(value,)]) == [record]


def test_fields_of_a_record_are_joined_by_commas_in_their_order() -> None:
    columns = [Column("i", "int", types.INT64), TEXT, Column("j", "int", types.INT64)]

    records = Formatter(columns).records([(b"1", b"a,b", None), (None, None, b"2")])

    assert records == [b'1,"a,b",', b",,2"]


def test_rows_of_another_width_than_the_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        Formatter([TEXT]).records([(b"1", b"2")])


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=20))
def test_any_text_can_be_read_back_by_a_csv_reader(rows: list[tuple[str, str]]) -> None:
    encoded = [tuple(value.encode("utf-8", "surrogatepass") for value in row) for row in rows]

    records = Formatter([TEXT, TEXT]).records(encoded)

    file = b"".join(record + b"\n" for record in records).decode("utf-8", "surrogatepass")
    assert [tuple(row) for row in csv.reader(io.StringIO(file, newline=""))] == rows
