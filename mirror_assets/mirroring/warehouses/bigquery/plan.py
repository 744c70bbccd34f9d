"""What a commit will do, written down before it is done: plain data that outlives a process."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from mirror_assets.mirroring.warehouses.bigquery.fields import Field

#: Tables of our own that are there for a while: whose turn it is, and what is on its way.
OWN = "mirror_temporary_"


@dataclass(frozen=True)
class Created:
    """A table to create."""

    dataset: str
    table: str
    fields: list[Field]
    partitioned: bool


@dataclass(frozen=True)
class Altered:
    """A table whose columns change: first by statements, which widen types and rename; ``fields``
    are all of them in the end.
    """

    dataset: str
    table: str
    fields: list[Field]
    statements: list[str]


@dataclass(frozen=True)
class Renamed:
    """A table that is set aside, or takes the name of one that is."""

    dataset: str
    table: str
    new_name: str


@dataclass(frozen=True)
class Dropped:
    """A table or view to remove, or with ``table$day`` the rows of a day."""

    dataset: str
    table: str


@dataclass(frozen=True)
class Loaded:
    """Parquet files that become the rows of a table, or of a day (``table$day``)."""

    dataset: str
    table: str
    fields: list[Field]
    uris: list[str]
    rows: int


@dataclass(frozen=True)
class View:
    """A view to create or replace."""

    dataset: str
    view: str
    statement: str


@dataclass
class Plan:
    """The steps of one commit, in the order in which they are carried out.

    ``staged`` are control rows on their way, in temporary tables of their own; ``rows`` are the
    statements that put them in place, all of them in one transaction. Tables get other names by
    ``renamed`` once the loads are there: until then, what replaces one goes by a name of ours.
    """

    dataset: str
    token: str
    staged: list[Loaded] = field(default_factory=list)
    structure: list[Created | Altered | Dropped] = field(default_factory=list)
    loads: list[Loaded] = field(default_factory=list)
    emptied: list[Dropped] = field(default_factory=list)
    renamed: list[Renamed] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    dropped_views: list[Dropped] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        parts = (self.structure, self.loads, self.renamed, self.emptied, self.views)
        return not any((*parts, self.dropped_views, self.rows))

    @property
    def new_names(self) -> list[Dropped]:
        """The names of ours that tables which replace others go by at first."""
        made = [step for step in self.structure if isinstance(step, Created)]
        return [Dropped(s.dataset, s.table) for s in made if s.table.startswith(OWN)]

    @property
    def folders(self) -> set[str]:
        """Where its staged files are."""
        return {folder_of(uri) for step in (*self.staged, *self.loads) for uri in step.uris}

    @property
    def days(self) -> list[tuple[str, date]]:
        """The tables that it publishes, each with the day."""
        final = {step.table: step.new_name for step in self.renamed}
        steps: tuple[Loaded | Dropped, ...] = (*self.loads, *self.emptied)
        found = [step.table.partition("$") for step in steps]
        return [
            (final.get(name, name) if name.startswith(OWN) else name, _day(day))
            for name, _, day in found
            if day
        ]

    def to_json(self) -> dict[str, Any]:
        data = dataclasses.asdict(self)
        data["structure"] = [
            {"step": type(step).__name__, **dataclasses.asdict(step)} for step in self.structure
        ]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        kinds = {kind.__name__: kind for kind in (Created, Altered, Dropped)}
        return cls(
            dataset=data["dataset"],
            token=data["token"],
            staged=[Loaded(**step) for step in data["staged"]],
            structure=[
                kinds[step["step"]](**{k: v for k, v in step.items() if k != "step"})
                for step in data["structure"]
            ],
            loads=[Loaded(**step) for step in data["loads"]],
            renamed=[Renamed(**step) for step in data["renamed"]],
            emptied=[Dropped(**step) for step in data["emptied"]],
            views=[View(**step) for step in data["views"]],
            dropped_views=[Dropped(**step) for step in data["dropped_views"]],
            rows=list(data["rows"]),
        )


def decorated(table: str, day: date) -> str:
    """A day's rows of a table, as the API names them."""
    return f"{table}${day:%Y%m%d}"


def folder_of(uri: str) -> str:
    """Where a staged file is."""
    return uri.rpartition("/")[0]


def _day(text: str) -> date:
    return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date()
