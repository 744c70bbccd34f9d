"""Look at a database and propose its catalog; or hold an existing catalog against the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import yaml
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mirror_assets.mirroring import catalog, refresh
from mirror_assets.mirroring.catalog import DatabaseEntry, DatabaseSpec, RefreshRule
from mirror_assets.mirroring.errors import MirrorError, SettingsError, UnsupportedType
from mirror_assets.mirroring.sources import open_source, parsed
from mirror_assets.mirroring.sources.base import Snapshot, TableState

_EXAMPLE = "mysql+pymysql://user@host/database"
_KINDS = {"mysql": "mysql", "mariadb": "mysql", "postgresql": "postgresql"}
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


def discover(database: str, url: str, schema: str | None = None) -> Discovery:
    """Every base table of a database, with keys, comments and columns that have no mapping."""
    kind = kind_of(url)
    states = open_source(_probe(database, kind, schema, ["-"]), url).states()
    if not states:
        raise SettingsError(
            "no table is to be seen",
            where=f"database {database}",
            remedy="check schema and rights: the login needs SELECT",
        )
    spec = _probe(database, kind, schema, sorted(states))
    keys, comments = _inspect(url, schema or spec.entry.source_schema)
    with open_source(spec, url).snapshot() as snapshot:
        tables = tuple(
            _look_at(snapshot, spec, name, states[name], keys, comments) for name in sorted(states)
        )
    return Discovery(database, kind, schema, tables)


def to_yaml(found: Discovery) -> str:
    """A catalog file with every policy written out, and the choices that are left to make."""
    head = f"""\
# Proposed by `mirror discover {found.database}`. Every field: docs/catalog.md
database: {found.database}
kind: {found.kind}
"""
    if found.schema:
        head += f"schema: {_scalar(found.schema)}\n"
    head += f"""\
owner: team:platform
chunk_size: {found.chunk_size}

refresh:                  # a live database, read at these hours (UTC); `rule: vendor` when it is
  rule: schedule          # dropped and rebuilt by its vendor
  cron: "0 5 * * *"

zero_dates: reject        # or null
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


def differences(spec: DatabaseSpec, url: str) -> list[str]:
    """Where a catalog and its database differ, a sentence each; [] when they agree."""
    source = open_source(spec, url)
    states = source.states()
    state = refresh.current(spec, states, datetime.now(UTC))
    found = [f"{name}: at the source, neither mirrored nor excluded" for name in state.unmirrored]
    with source.snapshot() as snapshot:
        for table in spec.tables:
            try:
                snapshot.schema(table)
            except MirrorError as error:
                found.append(error.at(f"{spec.name}/{table.name}").sentence)
    return found


def refuse_password(url: str) -> None:
    """Raises SettingsError when a URL on a command line holds a password."""
    if parsed(url, "at --url", _EXAMPLE).password is not None:
        raise SettingsError(
            "a password on a command line can be read by everybody on the machine",
            where="--url",
            remedy="leave it out, and set <NAME>_DATABASE_PASSWORD_FILE",
        )


def _probe(database: str, kind: str, schema: str | None, tables: Sequence[str]) -> DatabaseSpec:
    """A catalog over the given tables with the default policies."""
    entry = DatabaseEntry(
        database=database,
        kind=kind,
        schema=schema,
        tables=list(tables),
        refresh=RefreshRule(cron=("0 5 * * *",)),
    )
    return catalog.of_entry(entry)


def _inspect(url: str, schema: str | None) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Primary keys and comments of all tables, by SQLAlchemy's inspection."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        inspector = inspect(engine)
        keys = inspector.get_multi_pk_constraint(schema=schema)
        comments = inspector.get_multi_table_comment(schema=schema)
    except SQLAlchemyError as error:
        raise SettingsError(
            f"the database could not be inspected ({type(error).__name__})",
            remedy="check the URL and the login's rights",
        ) from None
    finally:
        engine.dispose()
    return (
        {name: tuple(key["constrained_columns"]) for (_s, name), key in keys.items() if key},
        {name: (text or {}).get("text") or "" for (_s, name), text in comments.items()},
    )


def _look_at(
    snapshot: Snapshot,
    spec: DatabaseSpec,
    name: str,
    state: TableState,
    keys: dict[str, tuple[str, ...]],
    comments: dict[str, str],
) -> FoundTable:
    table = spec.table(name)
    refused: dict[str, str] = {}
    problem, columns = "", 0
    while not problem:
        probe = table.model_copy(update={"exclude_columns": tuple(refused)})
        try:
            columns = len(snapshot.schema(probe).columns)
            break
        except UnsupportedType as error:
            if error.column is None or error.column in refused:
                problem = error.sentence
            else:
                refused[error.column] = error.what
        except MirrorError as error:
            problem = error.sentence
    return FoundTable(
        name=name,
        size_mb=state.size_mb,
        columns=columns,
        primary_key=keys.get(name, ()),
        description=" ".join(comments.get(name, "").split()),
        refused=refused,
        problem=problem,
    )


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
