"""A real DuckLake filled by hand, and dbt run over it as the orchestration runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.control import METADATA
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction, DuckLakeWarehouse
from mirror_assets.orchestration import dbt_sources
from mirror_assets.sample.servers import PostgreSQL
from mirror_assets.settings import Settings
from tests.conftest import LakeCatalogs

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
import dbt_world
from dbt_tables import TABLES

DAY = "2026-11-22"
PRIOR = "2026-11-21"
NO_UNIT_TESTS = ("--exclude-resource-type", "unit_test")


@dataclass(frozen=True)
class DbtRun:
    """What one dbt command answered."""

    ok: bool
    output: str
    target: Path

    def document(self, name: str) -> Any:
        return json.loads((self.target / name).read_text(encoding="utf-8"))

    def statuses(self) -> dict[str, str]:
        results = self.document("run_results.json")["results"]
        return {item["unique_id"]: item["status"] for item in results}


def run_dbt(
    work: Path, *arguments: str, day: str = DAY, environment: dict[str, str] | None = None
) -> DbtRun:
    """One dbt command in its own process; ``work`` holds its target and its logs."""
    target = work / "target"
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("dbt")), "--no-use-colors"),
            *(*arguments, "--vars", json.dumps({"mirror_date": day})),
        ],
        env={
            **os.environ,
            "DBT_PROJECT_DIR": str(dbt_sources.PROJECT),
            "DBT_PROFILES_DIR": str(dbt_sources.PROJECT),
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(work / "logs"),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return DbtRun(done.returncode == 0, done.stdout + done.stderr, target)


class Lake:
    """A lake of its own in a folder, with every table that models read."""

    def __init__(self, folder: Path, **places: str) -> None:
        self.folder = folder
        self.variables = {
            "MIRROR_WAREHOUSE": f"ducklake:sqlite:{folder}/lake.sqlite",
            "MIRROR_LAKE": f"{folder}/lake",
            **places,
            "MIRROR_EXTENSIONS": f"{folder}/extensions",
            "MIRROR_SCRATCH": f"{folder}/scratch",
        }
        self.settings = Settings.from_env(self.variables)
        self.warehouse = self.settings.warehouse()
        assert isinstance(self.warehouse, DuckLakeWarehouse)
        self.warehouse.commit(lambda tx: None)

    def dbt(self, *arguments: str, day: str = DAY) -> DbtRun:
        """dbt inside the writer's turn, which its caller takes."""
        environment = dbt_sources.environment(self.settings)
        with self.warehouse.exclusive():
            return run_dbt(self.folder, *arguments, day=day, environment=environment)

    def execute(self, *statements: str) -> None:
        def body(tx: DuckLakeTransaction) -> None:
            for statement in statements:
                tx._connection.execute(statement)

        self.warehouse.commit(body)

    def create_tables(self) -> None:
        statements = []
        for table in TABLES:
            dataset, stored = stored_name(table)
            columns = [f"{sql(name)} {kind}" for name, kind in columns_of(table).items()]
            declared = ", ".join([*columns, "_PARTITIONDATE DATE"])
            statements += [
                f"CREATE SCHEMA IF NOT EXISTS {dataset}",
                f"CREATE TABLE {dataset}.{sql(stored)} ({declared})",
                f"ALTER TABLE {dataset}.{sql(stored)} SET PARTITIONED BY (_PARTITIONDATE)",
            ]
        for database in ("elation", "commons", "member_index"):
            columns = [
                f"{sql(column.name)} {types.to_duckdb(column.type)}"
                for column in METADATA.schema.columns
            ]
            statements.append(
                f"CREATE TABLE {database}_mirror.MIRROR_METADATA ({', '.join(columns)})"
            )
        self.execute(*statements)

    def fill(self, day: str, rows: dict[str, list[dict[str, str]]]) -> None:
        """Insert rows (values are SQL) and say that every table was published on the day."""
        statements = []
        for table, found in rows.items():
            dataset, stored = stored_name(table)
            for row in found:
                names = ", ".join([*map(sql, row), "_PARTITIONDATE"])
                values = ", ".join([*row.values(), f"DATE '{day}'"])
                statements.append(
                    f"INSERT INTO {dataset}.{sql(stored)} ({names}) VALUES ({values})"
                )
        loaded: dict[str, dict[str, int]] = {}
        for table in TABLES:
            database, name = table.split(".")
            if database != "medical":
                loaded.setdefault(database, {})[name] = len(rows.get(table, []))
        statements += [self.published(database, day, **each) for database, each in loaded.items()]
        self.execute(*statements)

    def published(self, database: str, day: str, **loaded: int) -> str:
        """A statement that says so of tables, by the rows that they got."""
        values = (
            f"('{table}', DATE '{day}', true, 'run', TIMESTAMPTZ '{day} 05:00:00+00', {rows}, 100)"
            for table, rows in loaded.items()
        )
        return (
            f"INSERT INTO {database}_mirror.MIRROR_METADATA"
            " (TABLE_NAME, partition, published, run_id, BQ_LOAD_TIME, loaded_rows, bytes)"
            f" VALUES {', '.join(values)}"
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return list(self.settings.warehouse().query(statement).rows)


def columns_of(table: str) -> dict[str, str]:
    return {name: kind for kind, names in TABLES[table].items() for name in names.split()}


def stored_name(table: str) -> tuple[str, str]:
    database, name = table.split(".")
    if database == "medical":
        return "medical", name
    return f"{database}_mirror", name if database == "elation" else f"{name}_shards"


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Filled for two days; no model has been built."""
    found = Lake(tmp_path_factory.mktemp("dbt"))
    found.create_tables()
    found.fill(DAY, dbt_world.rows())
    found.fill(PRIOR, dbt_world.rows())
    return found


@pytest.fixture(scope="session")
def built(lake: Lake) -> tuple[Lake, DbtRun]:
    """Both days, the older one last; the answer is that of the newer one, with unit tests."""
    newer = lake.dbt("build")
    assert newer.ok, newer.output
    kept = DbtRun(newer.ok, newer.output, lake.folder / "first")
    newer.target.rename(kept.target)
    older = lake.dbt("build", *NO_UNIT_TESTS, day=PRIOR)
    assert older.ok, older.output
    return lake, kept


@pytest.fixture(params=["files here", "files in Cloud Storage"])
def postgres_lake(
    request: pytest.FixtureRequest, postgres: PostgreSQL, tmp_path: Path
) -> Iterator[Lake]:
    """Filled with a day's members, its catalog in PostgreSQL; no model has been built."""
    places = dict(LakeCatalogs(postgres).empty(tmp_path, "dbt").variables)
    if request.param == "files in Cloud Storage":
        places["MIRROR_LAKE"] = f"{request.getfixturevalue('cloud_storage').bucket()}/lake"
    found = Lake(tmp_path, **places)
    found.create_tables()
    members = (item for item in dbt_world.rows().items() if item[0].startswith("member_index."))
    found.fill(DAY, dict(members))
    yield found
    found.warehouse.close()


@pytest.fixture(scope="session")
def dbt() -> Callable[..., DbtRun]:
    return run_dbt
