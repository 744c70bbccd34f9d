"""The two relations that a proof compares, and the statements that ask an engine for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mirror_assets.mirroring.proof.cells import Cell, tells_apart
from mirror_assets.mirroring.proof.engines import Engine

BUCKETS = 1 << 16
#: Rows and sum of row hashes, by bucket of keys.
Buckets = dict[int, tuple[int, int]]
#: Of a row's cells.
Hashes = tuple[int | None, ...]


@dataclass(frozen=True)
class Totals:
    """One side of a proof: rows, sum of row hashes, and by column (values, sum of hashes)."""

    rows: int
    row_sum: int
    columns: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """A row by its hashes, and the texts of its key."""

    key: int
    row: int
    key_texts: tuple[str | None, ...]


class Side(Protocol):
    """One of the two relations that a proof compares."""

    def totals(self) -> Totals: ...
    def buckets(self) -> Buckets: ...
    def rows(self, buckets: Sequence[int]) -> Iterable[Row]: ...
    def cell_hashes(self, rows: Sequence[int]) -> dict[int, Hashes]:
        """The hashes of every cell, by row hash."""


class SqlSide:
    """A relation that an engine of its own reads. ``ask`` answers a statement with its rows."""

    def __init__(
        self,
        engine: Engine,
        relation: str,
        cells: Sequence[Cell],
        key: Sequence[str],
        ask: Callable[[str], Iterable[Sequence[Any]]],
    ) -> None:
        self._names = [cell.name for cell in cells]
        self._questions = Questions(engine, relation, cells, key)
        self._ask = ask

    def totals(self) -> Totals:
        (row,) = self._ask(self._questions.totals())
        rows, row_sum, *columns = (int(value) for value in row)
        pairs = zip(columns[::2], columns[1::2], strict=True)
        return Totals(rows, row_sum, dict(zip(self._names, pairs, strict=True)))

    def buckets(self) -> Buckets:
        answer = self._ask(self._questions.buckets())
        return {int(bucket): (int(count), int(total)) for bucket, count, total in answer}

    def rows(self, buckets: Sequence[int]) -> Iterator[Row]:
        for key, row, *texts in self._ask(self._questions.rows(buckets)):
            yield Row(int(key), int(row), tuple(None if t is None else str(t) for t in texts))

    def cell_hashes(self, rows: Sequence[int]) -> dict[int, Hashes]:
        return {
            int(row): tuple(None if h is None else int(h) for h in hashes)
            for row, *hashes in self._ask(self._questions.cell_hashes(rows))
        }


class Questions:
    """The statements that compare one relation. ``key`` names the cells that identify a row; where
    none do, a row is identified by all of them.
    """

    def __init__(
        self, engine: Engine, relation: str, cells: Sequence[Cell], key: Sequence[str]
    ) -> None:
        self._engine = engine
        self._from = f" FROM {relation}"
        self._cells = cells
        named = {cell.name: cell for cell in cells}
        self._key = [named[name] for name in key]
        self._row = self._hash_all(cells)
        self._key_hash = self._hash_all(self._key) if tells_apart(self._key) else self._row

    def totals(self) -> str:
        """Rows, sum of row hashes; then per cell how many are not NULL, and the sum of hashes."""
        hashes = [self._hash(cell) for cell in self._cells]
        sums = "".join(f", COUNT({h}), COALESCE(SUM({h}), 0)" for h in hashes)
        return f"SELECT COUNT(*), COALESCE(SUM({self._row}), 0){sums}{self._from}"

    def buckets(self) -> str:
        """Rows and sum of row hashes per bucket of keys."""
        return (
            f"SELECT {self._key_hash} % {BUCKETS} AS bucket, COUNT(*), SUM({self._row})"
            f"{self._from} GROUP BY 1"
        )

    def rows(self, buckets: Sequence[int]) -> str:
        """Key hash, row hash and the key's texts of the rows in some buckets."""
        texts = "".join(f", {self._engine.text(cell)}" for cell in self._key)
        among = ", ".join(map(str, buckets))
        return (
            f"SELECT {self._key_hash}, {self._row}{texts}{self._from}"
            f" WHERE {self._key_hash} % {BUCKETS} IN ({among})"
        )

    def cell_hashes(self, rows: Sequence[int]) -> str:
        """Row hash, then every cell's hash, of the rows with these row hashes."""
        hashes = "".join(f", {self._hash(cell)}" for cell in self._cells)
        among = ", ".join(map(str, rows))
        return f"SELECT {self._row}{hashes}{self._from} WHERE {self._row} IN ({among})"

    def _hash(self, cell: Cell) -> str:
        return self._engine.hash(self._engine.form(cell))

    def _hash_all(self, cells: Sequence[Cell]) -> str:
        return self._engine.hash(self._engine.joined([self._hash(cell) for cell in cells]))
