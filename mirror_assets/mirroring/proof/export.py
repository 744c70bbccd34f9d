"""An export as one side of a proof: its CSV read by PyArrow, its values typed by Python.

Neither the exporters nor the typed load have a part in it.
"""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, DecimalException
from pathlib import Path
from typing import Any

from mirror_assets.mirroring.landing import Landing, Manifest
from mirror_assets.mirroring.proof.cells import Cell, hash_of, row_hash
from mirror_assets.mirroring.proof.sides import BUCKETS, Row, Totals

_EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
_EPOCH = datetime(1970, 1, 1)
_BLOCK = 8 << 20
_Form = Callable[[bytes], bytes | None]


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

    def buckets(self) -> dict[int, tuple[int, int]]:
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

    def cell_hashes(self, keys: Sequence[int]) -> dict[int, tuple[int | None, ...]]:
        wanted = frozenset(keys)
        return {
            key: tuple(hashes)
            for hashes, _record in self._rows()
            if (key := self._key_hash(hashes)) in wanted
        }

    def _key_hash(self, hashes: Sequence[int | None]) -> int:
        return row_hash([hashes[i] for i in self._key] if self._key else hashes)

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
    plain = _PLAIN[cell.type.kind]
    scale = Decimal(1).scaleb(-cell.type.scale)

    def form(field: bytes) -> bytes | None:
        try:
            text = field.decode()
            if cell.nulls_zero and "-00" in (text[4:7], text[7:10]):
                return None
            if cell.first and cell.last and not cell.first <= _day(text) <= cell.last:
                return None
            return plain(field, scale)
        except (ValueError, ArithmeticError, DecimalException):
            return None if cell.first else b"?" + field

    return form


def _day(text: str) -> date:
    return date.fromisoformat(text[:10])


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


def _date(field: bytes, _scale: Decimal) -> bytes:
    day = date.fromisoformat(field.decode())
    return str(day.year * 10000 + day.month * 100 + day.day).encode()


def _moment(field: bytes, _scale: Decimal) -> bytes:
    moment = datetime.fromisoformat(field.decode())
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return str((moment - _EPOCH) // timedelta(microseconds=1)).encode()


_PLAIN: dict[str, Callable[[bytes, Decimal], bytes]] = {
    "BOOL": _bool,
    "INT64": _integer,
    "DECIMAL": _decimal,
    "FLOAT64": _float,
    "BYTES": _bytes,
    "DATE": _date,
    "DATETIME": _moment,
    "TIMESTAMP": _moment,
}
