"""What a section of the page is, and how figures become its table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.timing import Taken, median, ratio

FIGURES = ("", "seconds", "ratio", "client CPU s", "server CPU s", "peak MB")


@dataclass(frozen=True)
class Check:
    """A figure beside its limit."""

    what: str
    value: float
    limit: float
    sign: str
    unit: str = ""

    @property
    def holds(self) -> bool:
        return self.value <= self.limit if self.sign == "<=" else self.value >= self.limit


@dataclass(frozen=True)
class Section:
    """A titled table with its limits; ``extra`` is for further tables and the plot."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    checks: Sequence[Check] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Section":
        return cls(**{**data, "checks": [Check(**check) for check in data["checks"]]})


def at_most(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(what, value, limit, "<=", unit)


def at_least(what: str, value: float, limit: float, unit: str = "") -> Check:
    return Check(what, value, limit, ">=", unit)


def figures(taken: dict[str, list[Taken]]) -> tuple[Sequence[str], list[list[Any]]]:
    """Columns and rows: medians, and ratios to the first case."""
    floor = next(iter(taken.values()))
    rows = [
        [
            name,
            median(runs),
            ratio(runs, floor),
            *(median(runs, figure) for figure in ("cpu", "server", "peak")),
        ]
        for name, runs in taken.items()
    ]
    return FIGURES, rows
