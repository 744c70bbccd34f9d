"""The graph as Dagster loads it: one asset per catalogued table, derived and complete."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg

from mirror_assets.definitions import build
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.partitions import DAILY
from mirror_assets.settings import Settings
from tests.conftest import Bench

Definitions = Callable[[], dg.Definitions]


def elation() -> DatabaseSpec:
    return Settings.from_env({}).database("elation")


def test_the_code_location_loads_in_a_fresh_interpreter_without_any_environment() -> None:
    code = "from mirror_assets.definitions import defs; defs.get_repository_def().get_all_jobs()"
    # what takes seconds to import, and is used in a cluster or by a step only
    slow = {"dagster_k8s", "kubernetes", "dagster_dbt", "dbt"}
    code += f"; import sys; assert not {slow} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/usr/bin"})


def test_every_catalogued_table_is_an_asset_with_one_blocking_check(
    definitions: Definitions,
) -> None:
    graph = definitions().resolve_asset_graph()
    for table in elation().tables:
        node = graph.get(dg.AssetKey(["elation", table.name]))
        assert node.group_name == "elation"
        assert node.owners == ["team:platform"]
        assert node.kinds == {"mysql", "duckdb"}
        assert node.metadata["dagster/table_name"] == f"elation_mirror.{table.name}"
        assert node.partitions_def == DAILY
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(1)
        checks = [graph.get(key) for key in node.check_keys]
        assert [(c.key.name, c.blocking) for c in checks] == [("row_count_coverage", True)]


def test_what_is_kept_in_bigquery_says_so() -> None:
    environment = {"MIRROR_WAREHOUSE": "bigquery:some-project"}
    plain = build(Settings.from_env({})).resolve_asset_graph()
    found = build(Settings.from_env(environment)).resolve_asset_graph()
    kinds = {key: found.get(key).kinds for key in found.get_all_asset_keys()}

    assert kinds[dg.AssetKey(["elation", "visit_note"])] == {"mysql", "bigquery"}
    assert not any("duckdb" in each for each in kinds.values())
    assert kinds.keys() == plain.get_all_asset_keys()
    assert found.asset_check_keys == plain.asset_check_keys


def test_the_partitions_are_utc_days_that_include_today_from_an_absolute_start() -> None:
    partition_keys = DAILY.get_partition_keys()
    assert partition_keys[0] == "2026-01-01"
    assert partition_keys[-1] == datetime.now(UTC).date().isoformat()


def test_five_lines_of_catalog_add_a_database(bench: Bench, definitions: Definitions) -> None:
    bench.catalogs.joinpath("shop.catalog.yaml").write_text(
        "database: shop\nkind: mysql\ntables:\n  - orders\n  - Order Lines é\n"
    )
    graph = definitions().resolve_asset_graph()
    shop = {key.path[-1] for key in graph.get_all_asset_keys() if key.path[0] == "shop"}
    assert shop == {"orders", "Order_Lines__", "MIRROR_COMPLETENESS"}


def test_jobs_schedules_and_sensors_exist_per_database(definitions: Definitions) -> None:
    repository = definitions().get_repository_def()
    assert {job.name for job in repository.get_all_jobs()} >= {
        "elation_mirror",
        "elation_health",
        "upkeep",
    }
    assert {s.name for s in repository.schedule_defs} >= {
        "elation_fallback",
        "elation_health_schedule",
        "upkeep_schedule",
    }
    assert {s.name for s in repository.sensor_defs} >= {
        "elation_refresh_sensor",
        "alerts",
    }
