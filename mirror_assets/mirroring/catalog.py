"""Catalog files -> frozen specs. One YAML file declares one database.

An error names file, table, field and the allowed values.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from mirror_assets.mirroring import names
from mirror_assets.mirroring.errors import CatalogError
from mirror_assets.mirroring.schema import Column, LogicalType
from mirror_assets.mirroring.types import MAPPINGS, Misfits, TypePolicy

#: What stands for every value of a masked column.
MASK = "masked"
#: The column of a table's readable form (``draftjs:``) that holds the text.
TEXT_COLUMN = "text"

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGT]|[KMGT]i)?")

_NullWord = BeforeValidator(lambda value: "null" if value is None else value)
ZeroDates = Annotated[
    Literal["null", "reject"],
    _NullWord,  # YAML reads the word null as no value
]
MisfitPolicy = Annotated[Misfits, _NullWord]
BreakingDrift = Literal["refuse", "deprecate"]
#: YAML reads the word off as False.
Tls = Literal["verify", "unverified", "off"]
_TlsWord = Annotated[Tls, BeforeValidator(lambda value: "off" if value is False else value)]


def _logical_type(text: str | None) -> str | None:
    """A logical type's text as it is written everywhere (``DECIMAL(10,2)``)."""
    if text is None:
        return None
    try:
        return str(LogicalType.parse(text.replace(" ", "").upper()))
    except ValueError as error:
        raise ValueError(f"{text!r} is not allowed; {error}") from None


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BadRecords(_Strict):
    """How many rejected rows of a table are tolerated, why, and until when."""

    rows: int = Field(ge=1)
    reason: str = Field(min_length=8)
    until: date


class RefreshRule(_Strict):
    """When the database holds a new state.

    ``vendor``: the vendor drops and recreates every table; ``schedule``: it is live, and read
    at the instants of ``cron`` (UTC).
    """

    rule: Literal["vendor", "schedule"] = "schedule"
    cron: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]
    share: float = Field(default=0.9, gt=0, le=1)
    window_minutes: int = Field(default=60, ge=1)
    settle_minutes: float = Field(default=10, ge=0)


class BackupRule(_Strict):
    """A live database that is read from a backup, taken and restored for each run.

    ``postgres``: dumped into a private server of ours; ``aptible``: Aptible restores a backup of
    the database ``handle``. A copy older than ``leftover_hours`` is swept.
    """

    provider: Literal["postgres", "aptible"]
    handle: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9._-]*$")
    container_mb: int = Field(default=15_360, ge=512)
    ready_minutes: float = Field(default=60, gt=0)
    leftover_hours: float = Field(default=6, gt=0)

    @classmethod
    def parse(cls, text: str, own: BackupRule | None = None) -> BackupRule | None:
        """Of ``postgres``, ``aptible:<handle>`` or ``live`` (None); the rest as in ``own``.

        Raises ValueError.
        """
        provider, _, handle = text.partition(":")
        if text == "live":
            return None
        rest = own.model_dump(exclude={"provider", "handle"}) if own else {}
        return cls.model_validate({**rest, "provider": provider, "handle": handle or None})

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.provider == "aptible") != (self.handle is not None):
            raise ValueError("handle: names the database at Aptible, there and only there")
        return self


class Retention(_Strict):
    """Days that each kind of data is kept; ``None`` keeps it for ever."""

    landing_days: int | None = Field(default=2, ge=1)
    lake_days: int | None = Field(default=None, ge=1)
    time_travel_days: int = Field(default=7, ge=0)
    row_text_days: int = Field(default=14, ge=1)


def _quantity(text: str) -> str:
    """An amount as Kubernetes writes it (``500m``, ``2``, ``4Gi``)."""
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f"{text!r} is not a Kubernetes quantity such as 500m, 2 or 4Gi")
    return text


Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value),
    AfterValidator(_quantity),
]


class Pods(_Strict):
    """What Kubernetes gives the pod that copies, in production, and how much one pod copies.

    ``per``: the tables of one chunk, or all of a run; unset it is the chunk for a database that
    its vendor rebuilds, and the run for a live one, which shows one instant to one process only.
    """

    cpu: Quantity = "1"
    memory: Quantity = "2Gi"
    per: Literal["chunk", "run"] | None = None


class ColumnEntry(_Strict):
    """What a catalog may say about one column.

    ``type`` declares another logical type than the source type's own; every value is then checked.
    """

    type: Annotated[str | None, AfterValidator(_logical_type)] = None
    misfits: Annotated[Misfits | None, _NullWord] = None


class TableEntry(_Strict):
    """What a catalog may say about one table; unset fields take the database's default."""

    description: str = ""
    primary_key: tuple[str, ...] = ()
    exclude_columns: tuple[str, ...] = ()
    masked_columns: tuple[str, ...] = ()
    columns: dict[str, ColumnEntry] = {}
    bad_records_allowed: BadRecords | None = None
    zero_dates: ZeroDates | None = None
    breaking_drift: BreakingDrift | None = None
    volume: float | None = Field(default=None, ge=0, le=1)
    coverage: float | None = Field(default=None, gt=0, le=100)
    keep_row_text: bool = False
    draftjs: str | None = None
    broken_bodies_allowed: BadRecords | None = None


class DatabaseEntry(_Strict):
    """A whole catalog file."""

    database: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["mysql", "postgresql"]
    description: str = ""
    source_schema: str | None = Field(default=None, alias="schema")
    tls: _TlsWord | None = None
    tables: dict[str, TableEntry | None] | list[str] | Literal["all"]
    exclude: tuple[str, ...] = ()
    chunk_size: int = Field(default=15, ge=1)
    refresh: RefreshRule = RefreshRule(cron=("0 5 * * *",))
    backup: BackupRule | None = None
    tinyint1: Literal["boolean", "integer"] = "integer"
    decimals: Literal["exact", "float"] = "exact"
    binary: Literal["bytes", "hex"] = "bytes"
    unbounded_numeric: Literal["text", "numeric"] = "text"
    misfits: dict[str, MisfitPolicy] = {}
    zero_dates: ZeroDates = "reject"
    first_date: date = date(1, 1, 1)
    last_date: date = date(9999, 12, 31)
    layout: Literal["partitioned", "sharded"] = "partitioned"
    shard_views: int = Field(default=14, ge=1)
    latest_view: str = Field(default="{table}_latest", pattern=r"^[\w-]*\{table\}[\w-]*$")
    compression: Literal["none", "gzip"] = "none"
    breaking_drift: BreakingDrift = "refuse"
    volume: float = Field(default=0.5, ge=0, le=1)
    coverage: float = Field(default=100.0, gt=0, le=100)
    freshness_hours: float = Field(default=26, gt=0)
    retention: Retention = Retention()
    pods: Pods = Pods()
    owner: str = "team:platform"
    slack_channel: str = Field(default="", pattern=r"^(#?[\w.-]+)?$")
    vendor_contact: str = ""


def _pods_per(entry: DatabaseEntry) -> Literal["chunk", "run"]:
    return "chunk" if entry.refresh.rule == "vendor" else "run"


def _allowed(allowance: BadRecords | None, day: date) -> int:
    return allowance.rows if allowance and day <= allowance.until else 0


class TableSpec(_Strict):
    """One mirrored table with every default resolved."""

    database: str
    name: str
    description: str
    primary_key: tuple[str, ...]
    exclude_columns: tuple[str, ...]
    masked_columns: tuple[str, ...]
    columns: dict[str, ColumnEntry] = {}
    misfits: dict[str, Misfits] = {}
    bad_records_allowed: BadRecords | None
    zero_dates: Literal["null", "reject"]
    first_date: date
    last_date: date
    breaking_drift: BreakingDrift
    volume: float
    coverage: float
    keep_row_text: bool
    draftjs: str | None = None
    broken_bodies_allowed: BadRecords | None = None

    @property
    def text_name(self) -> str:
        """The table that holds this one with its Draft.js column as readable text."""
        return f"{self.name}_transformed"

    @property
    def derived_names(self) -> tuple[str, ...]:
        """Tables made from this one that lie beside it and age like it."""
        return (self.text_name,) if self.draftjs else ()

    def allowed_rejects(self, day: date) -> int:
        """Rejected rows tolerated for the partition of ``day``."""
        return _allowed(self.bad_records_allowed, day)

    def allowed_broken_bodies(self, day: date) -> int:
        """Draft.js bodies without text tolerated for the partition of ``day``."""
        return _allowed(self.broken_bodies_allowed, day)

    def declared_type(self, column: str, word: str) -> LogicalType | None:
        """The logical type that the catalog declares for a column whose source type has this word;
        None leaves it to the source.
        """
        entry = self.columns.get(column, ColumnEntry())
        if entry.type:
            return LogicalType.parse(entry.type)
        return LogicalType("STRING") if self._misfits(column, word) == "text" else None

    def nulls_misfits(self, column: Column) -> bool:
        """Whether a value that the column's type cannot hold becomes NULL, instead of a reject."""
        return self._misfits(column.name, column.word) == "null"

    def _misfits(self, column: str, word: str) -> Misfits | None:
        return self.columns.get(column, ColumnEntry()).misfits or self.misfits.get(word)


class DatabaseSpec(_Strict):
    """One mirrored database: what the engine and the orchestration are built from."""

    entry: DatabaseEntry
    file: Path
    tables: tuple[TableSpec, ...]

    @property
    def name(self) -> str:
        return self.entry.database

    @property
    def dataset(self) -> str:
        return f"{self.entry.database}_mirror"

    @cached_property
    def types(self) -> TypePolicy:
        entry = self.entry
        return TypePolicy(
            tinyint1=entry.tinyint1,
            decimals=entry.decimals,
            binary=entry.binary,
            unbounded_numeric=entry.unbounded_numeric,
        )

    @property
    def chunks(self) -> tuple[tuple[TableSpec, ...], ...]:
        size = self.entry.chunk_size
        return tuple(self.tables[i : i + size] for i in range(0, len(self.tables), size))

    @property
    def is_copied_by_chunk(self) -> bool:
        """Whether several processes may copy a run's chunks: its states are the vendor's."""
        return (self.entry.pods.per or _pods_per(self.entry)) == "chunk"

    def with_backup(self, backup: BackupRule | None) -> DatabaseSpec:
        """The same database, read from a backup, or live. Raises CatalogError."""
        entry = self.entry.model_copy(update={"backup": backup})
        _check_backup(entry, self.file)
        return DatabaseSpec(entry=entry, file=self.file, tables=self.tables)

    def table(self, name: str) -> TableSpec:
        """The spec of a table by its name at the source."""
        found = next((table for table in self.tables if table.name == name), None)
        if found is None:
            raise CatalogError(f"no table {name!r}", where=f"catalog {self.name}")
        return found

    def with_settle_minutes(self, minutes: float) -> DatabaseSpec:
        """The same database with another wait after a refresh."""
        refresh = self.entry.refresh.model_copy(update={"settle_minutes": minutes})
        entry = self.entry.model_copy(update={"refresh": refresh})
        return DatabaseSpec(entry=entry, file=self.file, tables=self.tables)

    def excluded(self, name: str) -> bool:
        """Whether the catalog leaves a source table out on purpose."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.entry.exclude)

    def storage_name(self, table: str) -> str:
        """The warehouse table that holds all days of a table."""
        name = names.warehouse_name(table)
        return f"{name}_shards" if self.entry.layout == "sharded" else name

    def shard_name(self, table: str, day: date) -> str:
        """The view of one day of a table in the sharded layout."""
        return f"{names.warehouse_name(table)}_{day:%Y%m%d}"

    def view_name(self, table: str) -> str:
        """The latest view of a table."""
        return self.entry.latest_view.format(table=names.warehouse_name(table))


#: The C loader reads a catalog of 300 tables ten times faster, where it is built in.
class _Duplicate(yaml.MarkedYAMLError):
    """A key that stands twice in one mapping."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which the second of two equal keys does not silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            if key.value in seen:
                raise _Duplicate(None, None, f"declares {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


#: Names of a database's base tables, for ``tables: all``; None when nobody has looked yet.
Inventory = Callable[[str], Sequence[str] | None]


def load(path: Path, inventory: Inventory = lambda _database: None) -> DatabaseSpec:
    """Read one catalog file. Raises CatalogError."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark else "the file"
        fault = error.problem if isinstance(error, _Duplicate) else "is not YAML"
        raise CatalogError(f"{line} {fault}", where=f"catalog {path}") from None
    except (OSError, UnicodeDecodeError):
        raise CatalogError("the file cannot be read", where=f"catalog {path}") from None
    if not isinstance(raw, dict):
        raise CatalogError("the file is not a mapping of fields", where=f"catalog {path}")
    try:
        entry = DatabaseEntry.model_validate(raw)
    except ValidationError as error:
        raise CatalogError(_explain(error), where=f"catalog {path}") from None
    return of_entry(entry, path, inventory)


def of_entry(
    entry: DatabaseEntry,
    path: Path = Path("(proposed)"),
    inventory: Inventory = lambda _database: None,
) -> DatabaseSpec:
    """The spec of a catalog's contents. Raises CatalogError."""
    entries = _table_entries(entry, path, inventory)
    names.check_tables(entry.database, entries)
    _check_values(entry, entries, path)
    tables = tuple(_resolve(entry, name, item) for name, item in entries.items())
    return DatabaseSpec(entry=entry, file=path, tables=tables)


def load_all(
    folders: Sequence[Path], inventory: Inventory = lambda _database: None
) -> tuple[DatabaseSpec, ...]:
    """Every ``catalog.yaml`` and ``*.catalog.yaml`` in the folders, by database name."""
    found: dict[str, DatabaseSpec] = {}
    for folder in folders:
        for path in sorted([*folder.glob("catalog.yaml"), *folder.glob("*.catalog.yaml")]):
            spec = load(path, inventory)
            if spec.name in found:
                raise CatalogError(
                    f"database {spec.name!r} is declared twice, also in {found[spec.name].file}",
                    where=f"catalog {path}",
                )
            found[spec.name] = spec
    return tuple(found[name] for name in sorted(found))


def _explain(error: ValidationError) -> str:
    """Every fault of a catalog in one line: field, what is wrong, what is allowed."""
    lines = []
    for item in error.errors(include_url=False):
        if item["loc"][0] == "tables" and len(item["loc"]) == 2:
            continue  # not this shape of ``tables``: another one may have been meant
        place = ".".join(str(part) for part in item["loc"] if not str(part).startswith("dict["))
        expected, own = (item.get("ctx", {}).get(part) for part in ("expected", "error"))
        if item["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown field; allowed: {_allowed_fields(item['loc'])}")
        elif expected:
            lines.append(f"{place}: {item['input']!r} is not allowed; allowed: {expected}")
        else:
            lines.append(f"{place}: {own or item['msg'].lower()}")
    return "; ".join(lines) or "tables: give a mapping of tables, a list of names, or `all`"


def _allowed_fields(loc: tuple[Any, ...]) -> str:
    sections: dict[str, type[BaseModel]] = {
        "refresh": RefreshRule,
        "retention": Retention,
        "pods": Pods,
        "backup": BackupRule,
    }
    model = sections.get(loc[0], DatabaseEntry) if len(loc) > 1 else DatabaseEntry
    if loc[0] == "tables":  # tables, the shape of `tables`, the table's name, ..
        inner: dict[str, type[BaseModel]] = {
            "bad_records_allowed": BadRecords,
            "columns": ColumnEntry,
        }
        model = inner.get(loc[3], TableEntry) if len(loc) > 4 else TableEntry
    return ", ".join(field.alias or name for name, field in model.model_fields.items())


def _table_entries(entry: DatabaseEntry, path: Path, inventory: Inventory) -> dict[str, TableEntry]:
    if isinstance(entry.tables, dict):
        return {name: item or TableEntry() for name, item in entry.tables.items()}
    if isinstance(entry.tables, list):
        return {name: TableEntry() for name in entry.tables}
    known = inventory(entry.database)
    if known is None:
        raise CatalogError(
            "tables: all needs an inventory of the source, and there is none yet",
            where=f"catalog {path}",
            remedy=f"run `mirror discover {entry.database} --inventory`, or list the tables",
        )
    kept = [n for n in known if not any(fnmatch.fnmatchcase(n, p) for p in entry.exclude)]
    return {name: TableEntry() for name in kept}


def _check_values(entry: DatabaseEntry, entries: dict[str, TableEntry], path: Path) -> None:
    if not entries:
        raise CatalogError("tables: is empty; list at least one", where=f"catalog {path}")
    if entry.layout == "partitioned" and entry.latest_view == "{table}":
        raise CatalogError(
            "latest_view: a partitioned table has that name itself; allowed: {table} with a"
            " prefix or suffix",
            where=f"catalog {path}",
        )
    _check_backup(entry, path)
    deprecates = [
        name
        for name, item in entries.items()
        if (item.breaking_drift or entry.breaking_drift) == "deprecate"
    ]
    if entry.layout == "sharded" and deprecates:
        raise CatalogError(
            f"tables.{deprecates[0]}.breaking_drift: 'deprecate' would empty the older days' views"
            " of the sharded layout; allowed: 'refuse'",
            where=f"catalog {path}",
        )
    if entry.pods.per == "chunk" and entry.refresh.rule == "schedule":
        raise CatalogError(
            "pods.per: 'chunk' would read each chunk of a live database at an instant of its own;"
            " allowed: 'run'",
            where=f"catalog {path}",
        )
    unknown = sorted(set(entry.misfits) - set(MAPPINGS[entry.kind]))
    if unknown:
        raise CatalogError(
            f"misfits.{unknown[0]}: unknown source type; allowed:"
            f" {', '.join(sorted(MAPPINGS[entry.kind]))}",
            where=f"catalog {path}",
        )
    for name, item in entries.items():
        _check_columns(name, item, path)
        both = set(item.exclude_columns) & set(item.masked_columns)
        hidden = set(item.primary_key) & set(item.exclude_columns)
        if both or hidden:
            column = sorted(both | hidden)[0]
            raise CatalogError(
                f"tables.{name}: column {column!r} is excluded and also masked or a primary key",
                where=f"catalog {path}",
            )


def _check_backup(entry: DatabaseEntry, path: Path) -> None:
    if entry.backup is None:
        return
    if entry.kind != "postgresql" or entry.refresh.rule != "schedule":
        raise CatalogError(
            "backup: only a live PostgreSQL database (`kind: postgresql`, `rule: schedule`) is read"
            " from a backup",
            where=f"catalog {path}",
        )


def _check_columns(table: str, item: TableEntry, path: Path) -> None:
    for name, column in item.columns.items():
        if name in {*item.exclude_columns, *item.masked_columns}:
            fault = "the column is excluded or masked, and has neither type nor misfits"
        elif column.type and column.misfits == "text":
            fault = "`misfits: text` is itself a type, STRING; allowed beside `type`: reject, null"
        else:
            continue
        raise CatalogError(f"tables.{table}.columns.{name}: {fault}", where=f"catalog {path}")


def _resolve(entry: DatabaseEntry, name: str, item: TableEntry) -> TableSpec:
    def default(value: Any, fallback: Any) -> Any:
        return fallback if value is None else value

    return TableSpec(
        database=entry.database,
        name=name,
        description=item.description,
        primary_key=item.primary_key,
        exclude_columns=item.exclude_columns,
        masked_columns=item.masked_columns,
        columns=item.columns,
        misfits=entry.misfits,
        bad_records_allowed=item.bad_records_allowed,
        zero_dates=default(item.zero_dates, entry.zero_dates),
        first_date=entry.first_date,
        last_date=entry.last_date,
        breaking_drift=default(item.breaking_drift, entry.breaking_drift),
        volume=default(item.volume, entry.volume),
        coverage=default(item.coverage, entry.coverage),
        keep_row_text=item.keep_row_text,
        draftjs=item.draftjs,
        broken_bodies_allowed=item.broken_bodies_allowed,
    )
