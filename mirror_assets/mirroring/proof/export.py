"""An export as one side of a proof: its CSV read by PyArrow, its values typed by Python.

Neither the exporters nor the typed load have a part in it.
"""

from __future__ import annotations

import gzip
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DecimalException
from pathlib import Path
from typing import Any

from mirror_assets.mirroring.landing import Landing, Manifest
from mirror_assets.mirroring.proof.cells import Cell, hash_of, row_hash, tells_apart
from mirror_assets.mirroring.proof.sides import BUCKETS, Buckets, Hashes, Row, Totals

_EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
_EPOCH = datetime(1970, 1, 1)
_BLOCK = 8 << 20
_Form = Callable[[bytes], bytes | None]
_DAY = rb"\d{4}-\d\d-\d\d"
_SECONDS = rb":\d\d(\.\d{1,6}0*)?"
_MINUTES = rb"[ T]\d\d:\d\d"
_OFFSET = rb"(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?)"
_WRITTEN = {
    "DATE": re.compile(_DAY),
    "DATETIME": re.compile(_DAY + _MINUTES + b"(" + _SECONDS + b")?"),
    "TIMESTAMP": re.compile(_DAY + _MINUTES + _SECONDS + _OFFSET),
}


class ExportSide:
    """The rows of one export, read from the landing zone as often as it is asked."""

    def __init__(
        self, landing: Landing, manifest: Manifest, cells: Sequence[Cell], key: Sequence[str]
    ) -> None:
        self._landing = landing
        self._manifest = manifest
        self._forms = [_form_of(cell) for cell in cells]
        self._names = [cell.name for cell in cells]
        self._key = [self._names.index(name) for name in key]
        self._is_keyed = tells_apart([cells[i] for i in self._key])

    def totals(self) -> Totals:
        rows = row_sum = 0
        present = [0] * len(self._names)
        sums = [0] * len(self._names)
        for hashes, _record in self._rows():
            rows += 1
            row_sum += row_hash(hashes)
            for i, hashed in enumerate(hashes):
                if hashed is not None:
                    present[i] += 1
                    sums[i] += hashed
        columns = dict(zip(self._names, zip(present, sums, strict=True), strict=True))
        return Totals(rows, row_sum, columns)

    def buckets(self) -> Buckets:
        counts: Counter[int] = Counter()
        sums: Counter[int] = Counter()
        for hashes, _record in self._rows():
            bucket = self._key_hash(hashes) % BUCKETS
            counts[bucket] += 1
            sums[bucket] += row_hash(hashes)
        return {bucket: (count, sums[bucket]) for bucket, count in counts.items()}

    def rows(self, buckets: Sequence[int]) -> Iterator[Row]:
        wanted = frozenset(buckets)
        for hashes, record in self._rows():
            key = self._key_hash(hashes)
            if key % BUCKETS in wanted:
                yield Row(key, row_hash(hashes), tuple(_shown(record[i]) for i in self._key))

    def cell_hashes(self, rows: Sequence[int]) -> dict[int, Hashes]:
        wanted = frozenset(rows)
        return {
            row: tuple(hashes)
            for hashes, _record in self._rows()
            if (row := row_hash(hashes)) in wanted
        }

    def _key_hash(self, hashes: Sequence[int | None]) -> int:
        return row_hash([hashes[i] for i in self._key] if self._is_keyed else hashes)

    def _rows(self) -> Iterator[tuple[list[int | None], tuple[bytes | None, ...]]]:
        """Cell hashes and raw fields of every record."""
        for part in self._manifest.parts:
            with self._landing.open_part(self._manifest, part) as path:
                for record in _records(path, len(self._names), part.longest):
                    forms = (
                        form(field) if field is not None else None
                        for form, field in zip(self._forms, record, strict=True)
                    )
                    yield [None if f is None else hash_of(f) for f in forms], record


def _records(path: Path, width: int, longest: int) -> Iterator[tuple[bytes | None, ...]]:
    import pyarrow as pa  # here, because it would slow down loading the code location
    from pyarrow import csv

    names = [f"c{i}" for i in range(width)]
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        reader = csv.open_csv(
            file,
            csv.ReadOptions(column_names=names, block_size=max(_BLOCK, 2 * longest)),
            csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                check_utf8=False,
            ),
        )
        for batch in reader:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _shown(field: bytes | None) -> str | None:
    return None if field is None else field.decode("utf-8", "replace")


def _form_of(cell: Cell) -> _Form:
    """A field's form; what does not hold keeps its text, which no warehouse value equals."""
    if cell.masked or cell.type.kind == "STRING":
        return lambda field: field
    if cell.type.is_date:
        return lambda field: _date_form(field, cell)
    plain = _PLAIN[cell.type.kind]
    scale = Decimal(1).scaleb(-cell.type.scale)

    def form(field: bytes) -> bytes | None:
        try:
            return plain(field, scale)
        except (ValueError, ArithmeticError, DecimalException):
            return b"?" + field

    return form


def _date_form(field: bytes, cell: Cell) -> bytes | None:
    """A date's form: NULL where the policies make the value so."""
    if cell.nulls_zero and b"-00" in (field[4:7], field[7:10]):
        return None
    try:
        moment = _moment(field, cell.type.kind)
    except (ValueError, OverflowError):  # no such day, or none in the years 1 to 9999
        return None if cell.first else b"?" + field
    if cell.first and cell.last and not cell.first <= moment.date() <= cell.last:
        return None
    if cell.type.kind == "DATE":
        return str(moment.year * 10000 + moment.month * 100 + moment.day).encode()
    return str((moment - _EPOCH) // timedelta(microseconds=1)).encode()


def _moment(field: bytes, kind: str) -> datetime:
    """A date, or a moment in UTC, that is written out in full: Python's reader takes other texts,
    such as weeks, or days without a time.
    """
    if not _WRITTEN[kind].fullmatch(field):
        raise ValueError
    moment = datetime.fromisoformat(field.decode())
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _integer(field: bytes, _scale: Decimal) -> bytes:
    return str(int(field)).encode()


def _decimal(field: bytes, scale: Decimal) -> bytes:
    return f"{Decimal(field.decode()).quantize(scale, context=_EXACT):f}".encode()


def _float(field: bytes, _scale: Decimal) -> bytes:
    value = float(field)
    if value != value:
        return b"nan"
    return struct.pack(">d", value + 0.0).hex().encode()


def _bool(field: bytes, _scale: Decimal) -> bytes:
    return {b"1": b"1", b"t": b"1", b"true": b"1", b"0": b"0", b"f": b"0", b"false": b"0"}.get(
        field.strip(), b"?" + field
    )


def _bytes(field: bytes, _scale: Decimal) -> bytes:
    return bytes.fromhex(field.decode())


_PLAIN: dict[str, Callable[[bytes, Decimal], bytes]] = {
    "BOOL": _bool,
    "INT64": _integer,
    "DECIMAL": _decimal,
    "FLOAT64": _float,
    "BYTES": _bytes,
}
