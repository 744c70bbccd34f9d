"""The CSV dialect of every export: it loses nothing, and no loader has to guess.

``NULL`` is an empty unquoted field, the empty string is ``""``; text is always quoted, with quotes
doubled; numbers, dates and times stand unquoted as the source prints them; binary is quoted
lower-case hexadecimal; instants end in ``+00``. UTF-8, ``,`` between fields, ``\\n`` after a
record, no header. Newlines, NULs and the word NULL inside quotes are plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from mirror_assets.mirroring.schema import Column

Field = bytes | None
_Format = Callable[[Sequence[Field]], Sequence[bytes]]


def _plain(values: Sequence[Field]) -> Sequence[bytes]:
    if None not in values:
        return values  # type: ignore[return-value]
    return [b"" if value is None else value for value in values]


def _quoted(values: Sequence[Field]) -> Sequence[bytes]:
    return [
        b""
        if value is None
        else b'"' + (value.replace(b'"', b'""') if b'"' in value else value) + b'"'
        for value in values
    ]


def _hex(values: Sequence[Field]) -> Sequence[bytes]:
    return [b"" if value is None else b'"' + value.hex().encode() + b'"' for value in values]


def _instant(values: Sequence[Field]) -> Sequence[bytes]:
    return [b"" if value is None else value + b"+00" for value in values]


Style = Literal["hex", "quoted", "instant", "plain"]
_FORMATS: dict[Style, _Format] = {
    "hex": _hex,
    "quoted": _quoted,
    "instant": _instant,
    "plain": _plain,
}


def style_of(column: Column) -> Style:
    """How the dialect writes a column's values."""
    if column.encoding == "hex":
        return "hex"
    if column.type.kind == "STRING" or column.encoding == "declared":
        return "quoted"
    return "instant" if column.type.kind == "TIMESTAMP" else "plain"


class Formatter:
    """Turns batches of raw text values into records, column by column: no value is parsed."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._formats = [_FORMATS[style_of(column)] for column in columns]

    def records(self, rows: Sequence[Sequence[Field]]) -> list[bytes]:
        """One record per row, without its newline."""
        by_column = zip(self._formats, zip(*rows, strict=True), strict=True)
        columns = [form(values) for form, values in by_column]
        return list(map(b",".join, zip(*columns, strict=True)))
