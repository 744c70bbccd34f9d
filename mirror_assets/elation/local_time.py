"""Elation's wall times as instants: the one policy for clock changes, for everything downstream.

Elation stores the clock on the wall in `ZONE`. A wall time that the spring change skips is read
with the offset before the change (2021-03-14 02:30 is 10:30Z, thus 03:30 on the wall), one that
the autumn change repeats as standard time (2021-11-07 01:30 is 09:30Z): no time is refused.
"""

from __future__ import annotations

ZONE = "US/Pacific"


def instant(expression: str) -> str:
    """SQL (DuckDB with icu) that reads a naive local DATETIME as a TIMESTAMP WITH TIME ZONE.

    NULL stays NULL. The answer does not depend on the session's time zone.
    """
    return f"timezone('{ZONE}', {expression})"
