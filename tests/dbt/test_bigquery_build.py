"""dbt's own adapter builds and tests in BigQuery's double, as the orchestration calls it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.test_utils import instance_for_test

from mirror_assets.mirroring.control import METADATA
from mirror_assets.mirroring.names import sql
from mirror_assets.orchestration import dbt_models, dbt_sources
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.settings import Settings
from tests.fakes.bigquery_models import ModelsBigQuery, bigquery_for_models

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
import dbt_world
from conftest import DAY, NO_UNIT_TESTS, columns_of, stored_name
from dbt_tables import TABLES

CANARY = "canary-4711"
STATES = dg.AssetKey(["mrt_commons", "member_states"])
GOAL = dg.AssetKey(["commons", "goal"])
UNIQUE = dg.AssetCheckKey(GOAL, "source_unique_commons_goal_id")
NAMED = dg.AssetCheckKey(GOAL, "source_not_null_commons_goal_title")


class Cloud:
    """BigQuery's double with every table that models read, loaded as the mirror loads them."""

    def __init__(self, double: ModelsBigQuery, folder: Path) -> None:
        self.double = double
        self.folder = folder
        self.variables = {
            "MIRROR_WAREHOUSE": f"bigquery:{double.project}?location=US&endpoint={double.url}",
            "MIRROR_LAKE": f"{folder}/lake",
            "MIRROR_SCRATCH": f"{folder}/scratch",
        }
        self.settings = Settings.from_env(self.variables)
        self.warehouse = self.settings.warehouse()

    def fill(self, day: str, rows: dict[str, list[dict[str, str]]]) -> None:
        """Load rows (values are SQL) of every table, and say that each was published that day."""
        files: dict[str, dict[str, str]] = defaultdict(dict)
        connection = duckdb.connect()
        for table in TABLES:
            dataset, stored = stored_name(table)
            path = f"{self.warehouse.staging(dataset, stored, date.fromisoformat(day))}/0.parquet"
            declared = ", ".join(f"{sql(n)} {kind}" for n, kind in columns_of(table).items())
            connection.execute(f"CREATE OR REPLACE TABLE filled ({declared})")
            for row in rows.get(table, []):
                names, values = ", ".join(map(sql, row)), ", ".join(row.values())
                connection.execute(f"INSERT INTO filled ({names}) VALUES ({values})")
            connection.execute(f"COPY filled TO '{path}' (FORMAT parquet)")
            files[dataset][table] = path
        for dataset, tables in files.items():
            counts = {table: len(rows.get(table, [])) for table in tables}

            def body(tx: Any, dataset: str = dataset, counts: dict[str, int] = counts) -> None:
                for table, path in files[dataset].items():
                    _dataset, stored = stored_name(table)
                    tx.ensure_like(dataset, stored, path)
                    tx.replace_partition(dataset, stored, date.fromisoformat(day), [path])
                if dataset != "medical":
                    _publish(tx, dataset, day, counts)

            self.warehouse.commit(body)

    def dbt(self, run: Callable[..., Any], *arguments: str, day: str = DAY) -> Any:
        environment = dbt_sources.environment(self.settings)
        with self.warehouse.exclusive():
            return run(self.folder, *arguments, day=day, environment=environment)


def _publish(tx: Any, dataset: str, day: str, counts: dict[str, int]) -> None:
    if tx.schema(dataset, METADATA.name) is None:
        tx.create_table(dataset, METADATA.name, METADATA.schema, partitioned=False)
    at = datetime.fromisoformat(f"{day}T05:00:00").replace(tzinfo=UTC)
    numbers = ("TABLE_SIZE_MB", "TABLE_ROWS", "rejected_rows", "zero_dates_nulled", "seconds")
    base = dict.fromkeys(column.name for column in METADATA.schema.columns) | {
        **dict.fromkeys(numbers, 0),
        "DB_TIMEZONE": "UTC",
        "BQ_LOAD_TIME": at,
        "BQ_PARTITION": day.replace("-", ""),
        "partition": at.date(),
        "run_id": "run",
        "published": True,
        "bytes": 100,
    }
    rows = [
        base | {"TABLE_NAME": table.partition(".")[2], "loaded_rows": count}
        for table, count in counts.items()
    ]
    tx.replace_rows(dataset, METADATA.name, rows, partition=at.date())


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with bigquery_for_models() as double:
        found = Cloud(double, tmp_path)
        yield found
        found.warehouse.close()
        assert double.wrong == []


@pytest.mark.parametrize(
    "models",
    [
        pytest.param(set(), id="checks"),
        pytest.param({STATES}, id="a mart and checks", marks=pytest.mark.slow),
    ],
)
def test_a_test_of_a_mirrored_table_fails_as_its_check(
    cloud: Cloud,
    models: set[dg.AssetKey],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By the warehouse's address alone: nobody names dbt's target."""
    rows = dbt_world.rows()
    goal = rows["commons.goal"][0] | {"id": f"'{CANARY}'"}
    cloud.fill(DAY, {**rows, "commons.goal": [goal, goal]})
    for name, value in cloud.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MIRROR_DBT_TARGET", raising=False)
    graph = dg.Definitions.merge(
        dbt_models.definitions(), dg.Definitions(resources={"mirror": MirrorResource()})
    )

    with instance_for_test() as instance:
        job = graph.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection=models, asset_check_selection={UNIQUE, NAMED}
        )
        result = job.execute_in_process(
            instance=instance, raise_on_error=False, partition_key=DAY if models else None
        )
        checks = {e.asset_check_key: e for e in result.get_asset_check_evaluations()}
        made = {e.asset_key for e in result.get_asset_materialization_events()}
        stored = "\n".join(str(record) for record in instance.all_logs(result.run_id))

    (failed,) = result.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data.description
    assert told.startswith(f"commons of {DAY}: 1 of 2 models and tests failed")
    assert "source_unique_commons_goal_id (1 rows)" in told
    assert (checks[UNIQUE].passed, checks[NAMED].passed) == (False, True)
    assert checks[UNIQUE].metadata["dagster_dbt/failed_row_count"].value == 1
    assert made == models
    if models:
        found = "SELECT mirror_date, patientId, currentState FROM mrt_commons.member_states"
        day = date.fromisoformat(DAY)
        assert cloud.warehouse.query(found).rows == [(day, "M1", "attributed")]
    assert CANARY not in stored + "".join(capfd.readouterr())


@pytest.mark.slow
def test_every_model_says_the_same_as_on_the_lake_and_a_day_is_replaced(
    cloud: Cloud, built: tuple[Any, Any], dbt: Callable[..., Any]
) -> None:
    """The first run makes the tables; the second one merges the same day, which changes nothing."""
    lake, _run = built
    cloud.fill(DAY, dbt_world.rows())
    for _time in range(2):
        run = cloud.dbt(dbt, "build", *NO_UNIT_TESTS)
        assert run.ok, run.output
        nodes = run.document("manifest.json")["nodes"].values()
        models = [node for node in nodes if node["resource_type"] == "model"]
        made = [node for node in models if node["config"]["materialized"] != "ephemeral"]
        assert len(made) == 25
        for node in made:
            relation = f"{node['schema']}.{sql(node['alias'])} WHERE mirror_date = DATE '{DAY}'"
            answer = cloud.double.duck.execute(f"FROM {relation}")
            names = ", ".join(sql(name) for name, *_rest in answer.description or ())
            ours = lake.rows(f"SELECT {names} FROM {relation}")
            assert sorted(map(repr, answer.fetchall())) == sorted(map(repr, ours)), node["name"]
