"""The CSV dialect of every export: it loses nothing, and no loader has to guess.

``NULL`` is an empty unquoted field, the empty string is ``""``; text is always quoted, with quotes
doubled; numbers, dates and times stand unquoted as the source prints them; binary is quoted
lower-case hexadecimal; instants end in ``+00``. UTF-8, ``,`` between fields, ``\\n`` after a
record, no header. Newlines, NULs and the word NULL inside quotes are plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def _format_of(column: Column) -> _Format:
    if column.encoding == "hex":
        return _hex
    if column.type.kind == "STRING" or column.encoding == "declared":
        return _quoted
    return _instant if column.type.kind == "TIMESTAMP" else _plain


class Formatter:
    """Turns batches of raw text values into records, column by column: no value is parsed."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._formats = [_format_of(column) for column in columns]

    def records(self, rows: Sequence[Sequence[Field]]) -> list[bytes]:
        """One record per row, without its newline."""
        by_column = zip(self._formats, zip(*rows, strict=True), strict=True)
        columns = [form(values) for form, values in by_column]
        return list(map(b",".join, zip(*columns, strict=True)))
