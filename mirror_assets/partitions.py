"""The daily partitions: UTC days, from an absolute start, today included."""

from __future__ import annotations

from datetime import date

import dagster as dg

#: The first day anybody may ask for. Absolute, so that the set of partitions never shifts.
START = "2026-01-01"

# end_offset: by default the newest partition would be yesterday.
DAILY = dg.DailyPartitionsDefinition(start_date=START, timezone="UTC", end_offset=1)


def key_of(day: date) -> str:
    """The partition key of a UTC day."""
    return day.isoformat()


def day_of(key: str) -> date:
    """The UTC day of a partition key."""
    return date.fromisoformat(key)
