"""Compare the two sides of a proof, and name what differs.

First the totals. Where they differ, the buckets of keys that differ, then the rows in those, then
the cells of rows that are on both sides: a few rows travel, whatever the table's size.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mirror_assets.mirroring.proof.sides import Row, Side

#: Buckets whose rows are fetched, at most: about a third of all.
MAX_BUCKETS = 20_000
#: Rows whose cells are compared, at most.
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
    buckets = _differing(reference.buckets(), held.buckets())
    if len(buckets) > MAX_BUCKETS:
        outcome.faults.append("more rows differ than can be looked at one by one")
        buckets = buckets[: MAX_BUCKETS // 10]
    _Rows(reference, held, columns, key, account).explain(buckets, outcome)
    unequal = [name for name in columns if before.columns[name] != after.columns[name]]
    if outcome.named and unequal:
        outcome.faults.append(f"columns with differences: {', '.join(unequal)}")
    if not outcome.faults and not account.rejected and not account.nulled:
        outcome.faults.append("the sums differ, although no single row does; prove it again")
    return outcome


def _differing(before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]]) -> list[int]:
    return sorted(b for b in before.keys() | after.keys() if before.get(b) != after.get(b))


class _Rows:
    """The rows of some buckets on both sides."""

    def __init__(
        self,
        reference: Side,
        held: Side,
        columns: Sequence[str],
        key: Sequence[str],
        account: Account,
    ) -> None:
        self._reference = reference
        self._held = held
        self._columns = columns
        self._key = key
        self._account = account
        self._texts: dict[int, str] = {}

    def explain(self, buckets: Sequence[int], outcome: Comparison) -> None:
        """Add the rows that differ without being accounted for."""
        there = self._by_key(self._reference.rows(buckets))
        here = self._by_key(self._held.rows(buckets))
        missing: Counter[int] = Counter()
        unexpected: Counter[int] = Counter()
        changed = []
        for key in there.keys() | here.keys():
            gone, come = there[key] - here[key], here[key] - there[key]
            both = min(gone.total(), come.total()) if self._key else 0
            if both:
                changed.append(key)
            missing[key] += gone.total() - both
            unexpected[key] += come.total() - both
        self._account_missing(+missing, outcome)
        self._name(+unexpected, "unexpected", "rows only in the warehouse", outcome)
        self._explain_changed(sorted(changed), outcome)

    def _by_key(self, rows: Iterable[Row]) -> dict[int, Counter[int]]:
        found: dict[int, Counter[int]] = defaultdict(Counter)
        for row in rows:
            found[row.key][row.row] += 1
            shown = dict(zip(self._key, row.key_texts, strict=True))
            self._texts[row.key] = json.dumps(shown, ensure_ascii=False) if shown else ""
        return found

    def _account_missing(self, missing: Counter[int], outcome: Comparison) -> None:
        """Rejected rows are missing on purpose: those listed by key, and as many as are not."""
        listed = set(self._account.keys)
        present = listed - {self._texts[key] for key in missing}
        if present and self._key:
            outcome.faults.append(f"{len(present)} rows listed as rejected are not missing")
        unlisted = Counter({k: n for k, n in missing.items() if self._texts[k] not in listed})
        if unlisted.total() <= self._account.rejected - len(self._account.keys):
            return
        self._name(unlisted, "missing", "rows missing in the warehouse", outcome)

    def _name(
        self,
        rows: Counter[int],
        how: Literal["missing", "unexpected"],
        what: str,
        outcome: Comparison,
    ) -> None:
        if rows:
            outcome.faults.append(f"{rows.total()} {what}")
            outcome.named.extend(Named(self._texts[key], how) for key in rows)

    def _explain_changed(self, keys: Sequence[int], outcome: Comparison) -> None:
        if not keys:
            return
        if len(keys) > MAX_CHANGED:
            outcome.faults.append(f"{len(keys)} rows changed")
            return
        there, here = self._reference.cell_hashes(keys), self._held.cell_hashes(keys)
        named: list[Named] = []
        nulled: Counter[str] = Counter()
        for key in keys:
            pairs = list(zip(self._columns, there[key], here[key], strict=True))
            unequal = [name for name, a, b in pairs if a != b]
            lost = {name for name, a, b in pairs if a is not None and b is None}
            if lost.issuperset(unequal) and lost <= self._account.nulled.keys():
                nulled.update(unequal)
            else:
                named.append(Named(self._texts[key], "changed", tuple(unequal)))
        outcome.faults.extend(
            f"{count} values of {name} are NULL, {self._account.nulled[name]} by policy"
            for name, count in nulled.items()
            if count > self._account.nulled[name]
        )
        if named:
            outcome.faults.append(f"{len(named)} rows changed")
            outcome.named.extend(named)
