"""Look at a database and propose its catalog; or hold an existing catalog against the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import yaml

from mirror_assets.mirroring import catalog, control, refresh
from mirror_assets.mirroring.catalog import (
    DatabaseEntry,
    DatabaseSpec,
    RefreshRule,
    TableSpec,
    Tls,
)
from mirror_assets.mirroring.errors import MirrorError, SettingsError, UnsupportedType
from mirror_assets.mirroring.evolution import as_published, refusal
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.schema import TableSchema, compare, fold
from mirror_assets.mirroring.sources import Address, open_source, parsed
from mirror_assets.mirroring.sources.base import Snapshot, TableState
from mirror_assets.mirroring.warehouses import Warehouse

_EXAMPLE = "mysql+pymysql://user@host/database"
_KINDS = {"mysql": "mysql", "mariadb": "mysql", "postgresql": "postgresql"}
_COMMENTS = {
    "mysql": "SELECT TABLE_NAME, TABLE_COMMENT FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA = DATABASE()",
    "postgresql": "SELECT c.relname, obj_description(c.oid, 'pg_class')"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = {schema}",
}
#: What the tables of one chunk should weigh together, at most.
_CHUNK_MB = 4096
_CHUNK_TABLES = 15


@dataclass(frozen=True)
class FoundTable:
    """A table as proposed. ``refused``: columns whose type has no mapping, and our sentence."""

    name: str
    size_mb: int
    columns: int
    primary_key: tuple[str, ...]
    description: str
    refused: dict[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Discovery:
    """What was found at a database."""

    database: str
    kind: str
    schema: str | None
    tables: tuple[FoundTable, ...]
    tls: Tls | None = None

    @property
    def chunk_size(self) -> int:
        """The largest chunk, up to the default, whose tables together stay below a bound."""
        sizes = [table.size_mb for table in self.tables]
        for size in range(_CHUNK_TABLES, 1, -1):
            chunks = [sizes[i : i + size] for i in range(0, len(sizes), size)]
            if all(sum(chunk) <= _CHUNK_MB for chunk in chunks):
                return size
        return 1


def kind_of(url: str) -> str:
    """The catalog's word for a URL's server. Raises SettingsError."""
    backend = parsed(url, "at the URL", _EXAMPLE).get_backend_name()
    if backend not in _KINDS:
        raise SettingsError(
            f"{backend} databases cannot be mirrored",
            where="the database's URL",
            remedy="use mysql+pymysql:// or postgresql+psycopg2://",
        )
    return _KINDS[backend]


def discover(
    database: str, address: str | Address, schema: str | None = None, tls: Tls | None = None
) -> Discovery:
    """Every base table of a database, with keys, comments and columns that have no mapping."""
    kind = kind_of(address if isinstance(address, str) else address.url)
    states = open_source(_probe(database, kind, schema, ["-"], tls), address).states()
    if not states:
        raise SettingsError(
            "no table is to be seen",
            where=f"database {database}",
            remedy="check schema and rights: the login needs SELECT",
        )
    spec = _probe(database, kind, schema, sorted(states), tls)
    with open_source(spec, address).snapshot() as snapshot:
        comments = _comments(snapshot, spec)
        tables = tuple(
            _look_at(snapshot, spec, name, states[name], comments) for name in sorted(states)
        )
    return Discovery(database, kind, schema, tables, tls)


def to_yaml(found: Discovery) -> str:
    """A catalog file with every policy written out, and the choices that are left to make."""
    head = f"""\
# Proposed by `mirror discover {found.database}`. Every field: docs/catalog.md
database: {found.database}
kind: {found.kind}
"""
    if found.schema:
        head += f"schema: {_scalar(found.schema)}\n"
    if found.tls:
        head += f"tls: {_scalar(found.tls)}\n"
    head += f"""\
owner: team:platform
chunk_size: {found.chunk_size}

refresh:                  # a live database, read at these hours (UTC); `rule: vendor` when it is
  rule: schedule          # dropped and rebuilt by its vendor
  cron: "0 5 * * *"

zero_dates: reject        # or null
first_date: 0001-01-01    # dates outside are rejects
last_date: 9999-12-31
# misfits: {{date: null}}   # by source type: values that do not hold: reject, null or text
volume: 0.5               # fewer rows than this share of yesterday's stop a table
breaking_drift: refuse    # or deprecate
latest_view: "{{table}}_latest"
retention: {{landing_days: 2, time_travel_days: 7}}
"""
    if found.kind == "mysql":
        head += "tinyint1: integer         # or boolean\ndecimals: exact           # or float\n"
        head += "binary: bytes             # or hex\n"
    else:
        head += "unbounded_numeric: text   # or numeric, DECIMAL(38,9)\n"
        head += "binary: bytes             # or hex\n"
    return head + "\ntables:\n" + "".join(_table_yaml(table) for table in found.tables)


def differences(spec: DatabaseSpec, address: str | Address, warehouse: Warehouse) -> list[str]:
    """Where a catalog, its database and the warehouse differ, a sentence each; [] when they agree.

    Neither the source nor the warehouse is changed.
    """
    source = open_source(spec, address)
    state = refresh.current(spec, source.states(), datetime.now(UTC))
    found = [
        f"{spec.name}/{name}: at the source, neither mirrored nor excluded. Next: add it to"
        f" `tables` or `exclude` of {spec.file}"
        for name in state.unmirrored
    ]
    mirrored = _Mirrored(spec, warehouse)
    with source.snapshot() as snapshot:
        for table in spec.tables:
            probe = _map_columns(snapshot, _with(table, primary_key=()))
            found += [fault.at(f"{spec.name}/{table.name}").sentence for fault in probe.faults]
            if probe.schema is not None and not probe.faults:
                found += _key_differences(spec, table, probe.schema)
                key = table.primary_key or probe.schema.primary_key
                found += mirrored.drift(table, TableSchema(probe.schema.columns, key))
    return found


def _key_differences(spec: DatabaseSpec, table: TableSpec, source: TableSchema) -> list[str]:
    """A key that the catalog declares must be the source's own, where the source has one."""
    declared, own = table.primary_key, source.primary_key
    where, gone = f"{spec.name}/{table.name}", sorted(set(declared) - set(source.names))
    if gone:
        return [
            f"{where}: the catalog's primary_key names column {gone[0]!r}, which is not there."
            " Next: correct the table's entry"
        ]
    if not declared or not own or set(own) == set(declared):
        return []
    return [
        f"{where}: the catalog declares primary_key [{', '.join(declared)}], the source has"
        f" [{', '.join(own)}]. Next: correct the table's entry, or leave the field out"
    ]


class _Mirrored:
    """What the warehouse holds of a database, to hold its source against."""

    def __init__(self, spec: DatabaseSpec, warehouse: Warehouse) -> None:
        self._spec = spec
        self._schemas = {
            fold(name): found for name, found in warehouse.schemas(spec.dataset).items()
        }
        self._declared = self._last_declared(warehouse)

    def _last_declared(self, warehouse: Warehouse) -> dict[str, TableSchema | None]:
        metadata = self._schemas.get(fold(control.METADATA.name))
        if not isinstance(metadata, TableSchema) or "columns" not in metadata.names:
            return {}
        rows = warehouse.query(control.last_declared(self._spec.dataset)).dicts()
        return {row["TABLE_NAME"]: control.declared(row) for row in rows}

    def drift(self, table: TableSpec, source: TableSchema) -> list[str]:
        """What the next run will find, and do about it."""
        where, storage = f"{self._spec.name}/{table.name}", self._spec.storage_name(table.name)
        known = self._schemas.get(fold(storage))
        if isinstance(known, MirrorError):
            return [known.at(where).sentence]
        if known is None:
            return []
        drift = compare(known, as_published(source), self._declared.get(table.name))
        outcomes = {
            "follows": "follows by itself. Next: nothing to do",
            "refuses": f"refuses the table. Next: {refusal(table, storage)}",
            "sets aside": f"sets the history aside as {storage}_depr_<n> and goes on. Next: tell"
            " those who query older days",
        }
        outcome = outcomes[drift.outcome(table.breaking_drift)]
        return [f"{where}: {drift}{drift.hint}: the next run {outcome}"] if drift else []


def refuse_password(url: str) -> None:
    """Raises SettingsError when a URL on a command line holds a password."""
    if parsed(url, "at --url", _EXAMPLE).password is not None:
        raise SettingsError(
            "a password on a command line can be read by everybody on the machine",
            where="--url",
            remedy="leave it out, and set <NAME>_DATABASE_PASSWORD_FILE",
        )


def _probe(
    database: str, kind: str, schema: str | None, tables: Sequence[str], tls: Tls | None
) -> DatabaseSpec:
    """A catalog over the given tables with the default policies."""
    entry = DatabaseEntry(
        database=database,
        kind=kind,
        schema=schema,
        tls=tls,
        tables=list(tables),
        refresh=RefreshRule(cron=("0 5 * * *",)),
    )
    return catalog.of_entry(entry)


def _comments(snapshot: Snapshot, spec: DatabaseSpec) -> dict[str, str]:
    """What the source says of its tables."""
    schema = literal(spec.entry.source_schema or "public")
    rows = snapshot.ask(_COMMENTS[spec.entry.kind].format(schema=schema))
    return {name: text or "" for name, text in rows}


def _look_at(
    snapshot: Snapshot,
    spec: DatabaseSpec,
    name: str,
    state: TableState,
    comments: dict[str, str],
) -> FoundTable:
    probe = _map_columns(snapshot, spec.table(name))
    problem = probe.faults[-1].sentence if probe.schema is None else ""
    return FoundTable(
        name=name,
        size_mb=state.size_mb,
        columns=len(probe.schema.columns) if probe.schema else 0,
        primary_key=probe.schema.primary_key if probe.schema else (),
        description=" ".join(comments.get(name, "").split()),
        refused={fault.column: fault.what for fault in probe.unmapped if fault.column},
        problem=problem,
    )


@dataclass
class _Probe:
    """A table's schema without the columns that have no mapping; None when it has another fault."""

    faults: list[MirrorError] = field(default_factory=list)
    schema: TableSchema | None = None

    @property
    def unmapped(self) -> list[UnsupportedType]:
        return [fault for fault in self.faults if isinstance(fault, UnsupportedType)]


def _map_columns(snapshot: Snapshot, table: TableSpec) -> _Probe:
    probe, hidden = _Probe(), list(table.exclude_columns)
    while probe.schema is None:
        try:
            probe.schema = snapshot.schema(_with(table, exclude_columns=tuple(hidden)))
        except UnsupportedType as error:
            probe.faults.append(error)
            if error.column is None or error.column in hidden:
                return probe
            hidden.append(error.column)
        except MirrorError as error:
            probe.faults.append(error)
            return probe
    return probe


def _with(table: TableSpec, **changed: tuple[str, ...]) -> TableSpec:
    return table.model_copy(update=changed)


def _table_yaml(table: FoundTable) -> str:
    fields: dict[str, object] = {}
    if table.description:
        fields["description"] = table.description
    if table.primary_key:
        fields["primary_key"] = list(table.primary_key)
    if table.refused:
        fields["exclude_columns"] = list(table.refused)
    notes = "".join(f"  # choose: {text}; excluded until then\n" for text in table.refused.values())
    if table.problem:
        return f"  # left out: {table.problem}\n  # {_scalar(table.name)}:\n"
    shown = yaml.safe_dump(
        fields, default_flow_style=True, allow_unicode=True, width=10_000
    ).strip()
    return f"{notes}  {_scalar(table.name)}: {shown}\n"


def _scalar(text: str) -> str:
    """A YAML scalar on one line, quoted where it must be."""
    return yaml.safe_dump(
        [text], default_flow_style=True, allow_unicode=True, width=10_000
    ).strip()[1:-1]
