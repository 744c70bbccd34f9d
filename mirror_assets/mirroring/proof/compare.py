"""Compare the two sides of a proof, and name what differs.

First the totals. Where they differ, the buckets of keys that differ, then the rows in those, then
the cells of rows that may be one row changed: few rows travel, whatever the table's size.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from mirror_assets.mirroring.proof.cells import row_hash
from mirror_assets.mirroring.proof.sides import Buckets, Hashes, Side

T = TypeVar("T")

#: Buckets with differences beyond the account that are looked at, at most: about a third of all.
MAX_BUCKETS = 20_000
#: Rows that are held at once, of either side, and cells.
MAX_ROWS = 250_000
MAX_CELLS = 500_000
#: Changed rows that are named, at most.
MAX_CHANGED = 10_000


@dataclass(frozen=True)
class Account:
    """What a publication left out or changed on purpose.

    ``keys`` are those of listed rejects, as JSON; ``nulled`` says of how many values of a column a
    policy made NULL, not of which.
    """

    rejected: int = 0
    keys: tuple[str, ...] = ()
    nulled: Mapping[str, int] = field(default_factory=dict)

    @property
    def differences(self) -> int:
        """Rows of either side that may differ, at most."""
        return self.rejected + 2 * sum(self.nulled.values())


@dataclass(frozen=True)
class Named:
    """A row that differs, by its key as JSON: in ``columns``, or by being on one side only."""

    key: str
    how: Literal["missing", "unexpected", "changed"]
    columns: tuple[str, ...] = ()


@dataclass
class Comparison:
    """The outcome: no fault means that both sides hold the same, but for the account."""

    reference_rows: int
    held_rows: int
    faults: list[str] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)


def compare(
    reference: Side, held: Side, columns: Sequence[str], key: Sequence[str], account: Account
) -> Comparison:
    """Compare ``held`` (the warehouse) with ``reference``, of the same columns and key."""
    before, after = reference.totals(), held.totals()
    outcome = Comparison(before.rows, after.rows)
    if before.rows != after.rows + account.rejected:
        outcome.faults.append(
            f"{before.rows} rows there, but {after.rows} in the warehouse and"
            f" {account.rejected} rejected"
        )
    if before == after:
        return outcome
    there, here = reference.buckets(), held.buckets()
    buckets = sorted(b for b in there.keys() | here.keys() if there.get(b) != here.get(b))
    is_whole = len(buckets) <= MAX_BUCKETS + account.differences
    if not is_whole:
        outcome.faults.append("more rows differ than can be looked at one by one")
        buckets = buckets[: MAX_BUCKETS // 10]
    differences = _Differences(reference, held, columns, key)
    for part in _parts(buckets, there, here):
        differences.look_at(part)
    if is_whole and differences.row_sum != before.row_sum - after.row_sum:
        outcome.faults.append("the sums differ, although no single row does; prove it again")
    differences.explain(account, outcome, is_whole=is_whole)
    unequal = [name for name in columns if before.columns[name] != after.columns[name]]
    if outcome.named and unequal:
        outcome.faults.append(f"columns with differences: {', '.join(unequal)}")
    return outcome


def _parts(buckets: Sequence[int], there: Buckets, here: Buckets) -> Iterator[list[int]]:
    """The buckets, so many at a time as hold MAX_ROWS rows."""
    part: list[int] = []
    rows = 0
    for bucket in buckets:
        here_rows, there_rows = (side.get(bucket, (0, 0))[0] for side in (here, there))
        rows += max(here_rows, there_rows)
        if part and rows > MAX_ROWS:
            yield part
            part, rows = [], max(here_rows, there_rows)
        part.append(bucket)
    if part:
        yield part


class _Differences:
    """Rows, by their hashes, that only the reference has (``gone``) or the warehouse (``come``)."""

    def __init__(
        self, reference: Side, held: Side, columns: Sequence[str], key: Sequence[str]
    ) -> None:
        self._reference = reference
        self._held = held
        self._columns = columns
        self._key = key
        self._gone: Counter[int] = Counter()
        self._come: Counter[int] = Counter()
        self._keys: dict[int, int] = {}  # of a row
        self._texts: dict[int, str] = {}  # of a key

    @property
    def row_sum(self) -> int:
        """By how much the differences make the reference's sum of row hashes exceed the other's."""
        gone, come = (sum(r * n for r, n in rows.items()) for rows in (self._gone, self._come))
        return gone - come

    def look_at(self, buckets: Sequence[int]) -> None:
        """Find the rows of some buckets that differ."""
        surplus: Counter[int] = Counter()
        keys: dict[int, int] = {}
        texts: dict[int, tuple[str | None, ...]] = {}
        # the reference last: rejects are listed by its texts
        for side, count in ((self._held, -1), (self._reference, 1)):
            for row in side.rows(buckets):
                surplus[row.row] += count
                keys[row.row] = row.key
                texts[row.key] = row.key_texts
        for found, count in surplus.items():
            if not count:
                continue
            (self._gone if count > 0 else self._come)[found] = abs(count)
            key = self._keys[found] = keys[found]
            shown = dict(zip(self._key, texts[key], strict=True))
            self._texts[key] = json.dumps(shown, ensure_ascii=False) if shown else ""

    def explain(self, account: Account, outcome: Comparison, *, is_whole: bool) -> None:
        """Tell which rows differ without being accounted for."""
        if account.nulled:
            self._account_nulled(account, outcome)
        changed = list(self._take_changed())
        self._account_rejected(account, outcome, is_whole=is_whole)
        self._name(self._come, "unexpected", "rows only in the warehouse", outcome)
        self._name_changed(changed, outcome)

    def _account_nulled(self, account: Account, outcome: Comparison) -> None:
        """Take out rows that differ by values alone that a policy may have made NULL."""
        places = [self._columns.index(name) for name in account.nulled if name in self._columns]
        gone = self._readings(self._reference, self._gone, places)
        come = self._readings(self._held, self._come, places)
        nulled: Counter[str] = Counter()
        for before, after in _paired(_counted(gone, self._gone), _counted(come, self._come)):
            self._gone[gone[before]] -= 1
            self._come[come[after]] -= 1
            lost = zip(places, before[1:], after[1:], strict=True)
            nulled.update(self._columns[i] for i, a, b in lost if a is not None and b is None)
        self._gone, self._come = +self._gone, +self._come
        outcome.faults.extend(
            f"{count} values of {name} are NULL, {account.nulled[name]} by policy"
            for name, count in nulled.items()
            if count > account.nulled[name]
        )

    def _readings(
        self, side: Side, rows: Iterable[int], places: Sequence[int]
    ) -> dict[Hashes, int]:
        """Rows by one hash of all cells but those at ``places``, then the hashes of those."""
        others = [i for i in range(len(self._columns)) if i not in places]
        return {
            (row_hash([cells[i] for i in others]), *(cells[i] for i in places)): row
            for row, cells in self._cells(side, rows)
        }

    def _cells(self, side: Side, rows: Iterable[int]) -> Iterator[tuple[int, Hashes]]:
        for some in _few(sorted(rows), self._columns):
            yield from side.cell_hashes(some).items()

    def _take_changed(self) -> Iterator[tuple[int, int]]:
        """Take out pairs of rows with one key. Keys may be shared where a catalog declares them."""
        gone, come = self._by_key(self._gone), self._by_key(self._come)
        for key in sorted(gone.keys() & come.keys()):
            for before, after in zip(gone[key], come[key], strict=False):
                self._gone[before] -= 1
                self._come[after] -= 1
                yield before, after

    def _by_key(self, rows: Counter[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for row in sorted(rows.elements()):
            found[self._keys[row]].append(row)
        return found

    def _account_rejected(self, account: Account, outcome: Comparison, *, is_whole: bool) -> None:
        """Rejected rows are missing on purpose: those listed by key, and as many as are not."""
        listed = Counter(account.keys)
        unlisted: Counter[int] = Counter()
        for row in self._gone.elements():
            text = self._texts[self._keys[row]]
            if listed[text] > 0:
                listed[text] -= 1
            else:
                unlisted[row] += 1
        if (present := (+listed).total()) and is_whole:
            outcome.faults.append(f"{present} rows listed as rejected are not missing")
        if unlisted.total() > account.rejected - len(account.keys):
            self._name(unlisted, "missing", "rows missing in the warehouse", outcome)

    def _name(
        self,
        rows: Counter[int],
        how: Literal["missing", "unexpected"],
        what: str,
        outcome: Comparison,
    ) -> None:
        if found := +rows:
            outcome.faults.append(f"{found.total()} {what}")
            outcome.named.extend(Named(self._texts[self._keys[row]], how) for row in found)

    def _name_changed(self, changed: Sequence[tuple[int, int]], outcome: Comparison) -> None:
        if not changed:
            return
        outcome.faults.append(f"{len(changed)} rows changed")
        if len(changed) > MAX_CHANGED:
            return
        for some in _few(changed, self._columns):
            there = self._reference.cell_hashes([before for before, _after in some])
            here = self._held.cell_hashes([after for _before, after in some])
            for before, after in some:
                cells = zip(self._columns, there[before], here[after], strict=True)
                unequal = tuple(name for name, a, b in cells if a != b)
                outcome.named.append(Named(self._texts[self._keys[before]], "changed", unequal))


def _few(rows: Sequence[T], columns: Sequence[str]) -> Iterator[Sequence[T]]:
    """The rows, so many at a time as have MAX_CELLS cells."""
    step = max(1, MAX_CELLS // len(columns))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _counted(rows: Mapping[Hashes, int], counts: Counter[int]) -> Counter[Hashes]:
    return Counter({cells: counts[row] for cells, row in rows.items()})


def _paired(gone: Counter[Hashes], come: Counter[Hashes]) -> Iterator[tuple[Hashes, Hashes]]:
    """Each row of ``come`` with a row of ``gone`` that it is but for NULLs, where there is one."""
    found: dict[tuple[int, ...], dict[Hashes, list[Hashes]]] = {}
    left = gone.copy()
    for after in sorted(come.elements(), key=lambda cells: cells.count(None)):
        nulls = tuple(i for i, cell in enumerate(after) if cell is None)
        if nulls not in found:
            found[nulls] = _without(gone, nulls)
        candidates = found[nulls].get(after, [])
        while candidates and not left[candidates[-1]]:
            candidates.pop()
        if candidates:
            left[candidates[-1]] -= 1
            yield candidates[-1], after


def _without(rows: Iterable[Hashes], nulls: Sequence[int]) -> dict[Hashes, list[Hashes]]:
    """Rows by what they are with NULL at some places."""
    found: dict[Hashes, list[Hashes]] = defaultdict(list)
    for cells in rows:
        found[tuple(None if i in nulls else cell for i, cell in enumerate(cells))].append(cells)
    return found
