"""What dbt must know of the mirrors, derived: its sources from the catalogs, its environment.

A table is a source where a staging model reads it or ``source_tests.yml`` tests it. Run
``python -m mirror_assets.orchestration.dbt_sources`` after a change; a test tells stale files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirror_assets import keys
from mirror_assets.mirroring.catalog import TEXT_COLUMN, DatabaseSpec, TableSpec, load_all
from mirror_assets.mirroring.errors import CatalogError
from mirror_assets.mirroring.warehouses.bigquery import addressed
from mirror_assets.mirroring.warehouses.bigquery.service import is_local
from mirror_assets.mirroring.warehouses.lake_catalog import attached
from mirror_assets.settings import Settings

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "dbt_project"
_PACKAGE = ROOT / "mirror_assets"
#: The catalogs that are part of this repository, so that the files do not depend on a machine.
FOLDERS = (
    *sorted(path.parent for path in _PACKAGE.glob("*/catalog.yaml")),
    _PACKAGE / "sample" / "catalogs",
)
_HEADER = (
    "# Generated from the catalogs: python -m mirror_assets.orchestration.dbt_sources\n"
    "# Tests come from source_tests.yml. Do not edit.\n"
)
_METADATA = "MIRROR_METADATA"
#: Tests of the table as a whole, in source_tests.yml.
_WHOLE_TABLE = "__table__"
_READ = re.compile(r"\bsource\('(?P<database>\w+)', '(?P<table>\w+)'\)")


@dataclass(frozen=True)
class Derived:
    """A table that an asset of ours makes beside the mirrored ones, by day like them."""

    name: str
    description: str
    asset_key: tuple[str, ...]
    columns: tuple[str, ...] = ()


#: dataset -> tables that no catalog knows of
DERIVED: dict[str, tuple[Derived, ...]] = {
    "medical": (
        Derived(
            "patient_encounters",
            "Encounters of each member, one row per note, nested",
            tuple(keys.ENCOUNTERS.path),
        ),
    ),
}
_DESCRIPTIONS = {"medical": "Clinical records made from the mirrors"}


def files(project: Path = PROJECT, folders: Sequence[Path] = FOLDERS) -> dict[Path, str]:
    """What the source files should hold. Raises CatalogError for a table nobody declares."""
    specs = {spec.name: spec for spec in load_all(folders)}
    tests = yaml.safe_load((project / "source_tests.yml").read_text(encoding="utf-8"))
    wanted = _read_tables(project)
    for database, tables in tests.items():
        wanted.setdefault(database, set()).update(tables)
    return {
        project / "models" / "sources" / f"{database}.yml": _HEADER
        + yaml.dump(
            _document(database, sorted(tables), specs.get(database), tests.get(database, {})),
            sort_keys=False,
            width=100,
            Dumper=_Plain,
        )
        for database, tables in sorted(wanted.items())
    }


def write(project: Path = PROJECT) -> list[Path]:
    """Write every source file that differs, delete those nobody needs; what was changed."""
    wanted = files(project)
    changed = []
    folder = project / "models" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    for path in set(folder.glob("*.yml")) - set(wanted):
        path.unlink()
        changed.append(path)
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def environment(settings: Settings) -> dict[str, str]:
    """The variables that dbt's profile reads, with absolute paths: dbt changes folder.

    Never print them: libpq's password may be among them.
    """
    if settings.warehouse_url.startswith("bigquery:"):
        return _bigquery(settings.warehouse_url)
    password = settings.warehouse_password()
    return {
        **({} if password is None else {"PGPASSWORD": password}),
        "MIRROR_DBT_TARGET": "lake",
        "MIRROR_WAREHOUSE": attached(settings.warehouse_url),
        "MIRROR_LAKE": settings.lake,
        "MIRROR_EXTENSIONS": str(settings.extensions),
        "MIRROR_MEMORY": settings.memory,
        "MIRROR_SCRATCH": str(settings.scratch),
    }


def _bigquery(url: str) -> dict[str, str]:
    """What the target ``bigquery`` reads, beside what the environment says of its login."""
    project, options = addressed(url)
    found = {
        "MIRROR_DBT_TARGET": "bigquery",
        "MIRROR_BIGQUERY_PROJECT": project,
        "MIRROR_BIGQUERY_LOCATION": options.get("location"),
        "MIRROR_BIGQUERY_ENDPOINT": options.get("endpoint"),
    }
    if is_local(options.get("endpoint")):  # it gets no credentials
        found["MIRROR_BIGQUERY_METHOD"] = "oauth-secrets"
        found["DBT_ENV_SECRET_BIGQUERY_TOKEN"] = "none"  # noqa: S105 - that there is none
    return {name: value for name, value in found.items() if value}


class _Plain(yaml.SafeDumper):
    """YAML without anchors: a reader sees what a table has."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _read_tables(project: Path) -> dict[str, set[str]]:
    """Tables by database: those of staging models, and those that other models name."""
    found: dict[str, set[str]] = {}
    for path in (project / "models" / "staging").glob("*/stg_*__*.sql"):
        database, _, table = path.stem.removeprefix("stg_").partition("__")
        found.setdefault(database, set()).add(table)
    for path in (project / "models").rglob("*.sql"):
        for match in _READ.finditer(path.read_text(encoding="utf-8")):
            found.setdefault(match["database"], set()).add(match["table"])
    return found


def _document(
    database: str, tables: Sequence[str], spec: DatabaseSpec | None, tests: Mapping[str, Any]
) -> dict[str, Any]:
    entries = [_table(database, table, spec, tests.get(table, {})) for table in tables]
    return {
        "version": 2,
        "sources": [
            {
                "name": database,
                "description": spec.entry.description if spec else _DESCRIPTIONS[database],
                "schema": spec.dataset if spec else database,
                "config": {"meta": {"owner": spec.entry.owner}} if spec else {},
                "tables": entries,
            }
        ],
    }


def _table(
    database: str, table: str, spec: DatabaseSpec | None, tests: Mapping[str, Any]
) -> dict[str, Any]:
    beside = _transformed(spec) if spec else DERIVED.get(database, ())
    derived = next((item for item in beside if item.name == table), None)
    if table == _METADATA and spec:
        return _metadata(spec)
    if derived:
        key, mirrored = list(derived.asset_key), None
    elif spec:
        mirrored = spec.table(table)
        key = list(keys.table_key(spec, mirrored).path)
    else:
        raise CatalogError(f"no catalog declares database {database!r}", where=f"table {table}")
    entry: dict[str, Any] = {
        "name": table,
        "description": derived.description if derived else _description(mirrored, table, spec),
        "identifier": spec.storage_name(table) if spec else table,
        "config": {"meta": {**_told(spec, derived), "dagster": {"asset_key": key}}},
    }
    if _WHOLE_TABLE in tests:
        entry["data_tests"] = tests[_WHOLE_TABLE]
    columns = _columns(derived, mirrored, tests)
    return entry | ({"columns": columns} if columns else {})


def _told(spec: DatabaseSpec | None, derived: Derived | None) -> dict[str, bool]:
    """Where a build finds out whether a day is there: in MIRROR_METADATA, which knows all tables of
    a catalog's dataset, or by the table's rows; and whether an asset downstream makes the table.
    """
    return {"mirror_metadata": spec is not None} | ({"derived": True} if derived else {})


def _transformed(spec: DatabaseSpec) -> tuple[Derived, ...]:
    """Tables with a Draft.js column, in their readable form."""
    return tuple(
        Derived(
            table.text_name,
            f"{table.name} with its body as Markdown in column {TEXT_COLUMN}",
            tuple(keys.text_key(spec, table).path),
            (TEXT_COLUMN,),
        )
        for table in spec.tables
        if table.draftjs
    )


def _metadata(spec: DatabaseSpec) -> dict[str, Any]:
    key = list(keys.control_key(spec).path)
    return {
        "name": _METADATA,
        "description": "What the mirror loaded of each table, per day and run",
        "config": {"meta": {"mirror_metadata": False, "dagster": {"asset_key": key}}},
    }


def _description(table: TableSpec | None, name: str, spec: DatabaseSpec | None) -> str:
    stated = table.description if table else ""
    return stated or f"Table {name} of {spec.name if spec else ''}, mirrored once per day"


def _columns(
    derived: Derived | None, table: TableSpec | None, tests: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Columns that the catalog, the derivation or a test names."""
    notes: dict[str, str] = dict.fromkeys(derived.columns if derived else (), "")
    for column in table.primary_key if table else ():
        notes[column] = "primary key"
    for column in table.columns if table else ():
        notes.setdefault(column, "")
    for column in table.masked_columns if table else ():
        notes[column] = "masked"
    for column in tests:
        if column != _WHOLE_TABLE:
            notes.setdefault(column, "")
    return [
        {"name": name}
        | ({"description": note} if note else {})
        | ({"data_tests": tests[name]} if name in tests else {})
        for name, note in notes.items()
    ]


if __name__ == "__main__":
    for changed_file in write():
        print(f"wrote {changed_file.relative_to(ROOT)}")  # noqa: T201 - a command's answer
