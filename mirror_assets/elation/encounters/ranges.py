"""A day is made and read in parts, ranges of an ordered column, so that memory has a bound.

The parts between any bounds hold every row once; good bounds make them small and of equal size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from mirror_assets.mirroring.names import literal

Bound = TypeVar("Bound", int, str)


@dataclass(frozen=True)
class Part:
    """The values from ``first`` on and before ``end``; None is no limit."""

    first: int | str | None = None
    end: int | str | None = None

    def holds(self, column: str) -> str:
        """SQL to append to a condition; says nothing for the whole."""
        limits = ((">=", self.first), ("<", self.end))
        return "".join(
            f" AND {column} {sign} {literal(value) if isinstance(value, str) else value}"
            for sign, value in limits
            if value is not None
        )


#: Everything.
ALL = Part()


def parts(bounds: Iterable[Bound]) -> tuple[Part, ...]:
    """The parts between bounds."""
    ordered: list[Bound] = sorted(set(bounds))
    return tuple(Part(first, end) for first, end in pairwise((None, *ordered, None)))


def every(rows: int, column: str, relation: str) -> str:
    """SQL for bounds: every so many rows the value of a column, which ``relation`` names."""
    return f"""
        SELECT {column} FROM (
            SELECT {column}, row_number() OVER (ORDER BY {column} NULLS FIRST) AS place
            FROM {relation}
        ) b WHERE place % {rows} = 0 ORDER BY {column} NULLS FIRST"""
