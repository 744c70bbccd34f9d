"""The SLI arithmetic: coverage, freshness, age.

Control tables never count as mirrored rows, a rerun does not double errors, ages are whole
differences that do not wrap after a day, and no rows or no tables give no figure, not a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime


def coverage(loaded: int, rejected: int) -> float | None:
    """Percent of rows loaded, 4 decimals; None when there were no rows at all."""
    total = loaded + rejected
    return None if total == 0 else round(100 * loaded / total, 4)


def allowed_coverage(loaded: int, rejected: int, allowed: int) -> float:
    """Coverage after tolerated rejects count as loaded; an empty table is fully covered.

    Not rounded: one row of three million must not pass as 100 percent.
    """
    total = loaded + rejected
    lost = rejected - min(rejected, allowed)
    return 100 * (total - lost) / total if total else 100.0


def freshness(now: datetime, modified: Iterable[datetime]) -> float | None:
    """Mean hours since each table was modified, 2 decimals; None without tables."""
    ages = [hours_between(moment, now) for moment in modified]
    return round(sum(ages) / len(ages), 2) if ages else None


def age(now: datetime, snapshot: datetime | None) -> float | None:
    """Hours since the newest published data was true at its source, 2 decimals."""
    return None if snapshot is None else round(hours_between(snapshot, now), 2)


def hours_between(earlier: datetime, later: datetime) -> float:
    """Whole difference in hours (not its seconds part, which wraps every day)."""
    return (later - earlier).total_seconds() / 3600
