"""One failed table holds back only what reads it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest

from mirror_assets.orchestration.automation import when_inputs_land
from mirror_assets.partitions import DAILY, key_of

TABLES = ("a", "b")


def _graph() -> dg.Definitions:
    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=DAILY, skippable=True) for name in TABLES],
        can_subset=True,
    )
    def chunk() -> Iterator[dg.MaterializeResult]:
        yield from ()

    def reader(name: str) -> dg.AssetsDefinition:
        @dg.asset(
            name=f"reads_{name}",
            deps=[name],
            partitions_def=DAILY,
            automation_condition=when_inputs_land(),
        )
        def made() -> None: ...

        return made

    return dg.Definitions(assets=[chunk, *(reader(name) for name in TABLES)])


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def _land(instance: dg.DagsterInstance, table: str, day: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(table, partition=day))


def _requested(result: dg.EvaluateAutomationConditionsResult) -> set[str]:
    return {
        name
        for name in (f"reads_{table}" for table in TABLES)
        if result.get_num_requested(dg.AssetKey(name))
    }


def test_a_failed_table_holds_back_only_its_readers(instance: dg.DagsterInstance) -> None:
    graph, today = _graph(), key_of(datetime.now(UTC).date())
    first = dg.evaluate_automation_conditions(graph, instance)
    assert _requested(first) == set()

    _land(instance, "a", today)
    second = dg.evaluate_automation_conditions(graph, instance, cursor=first.cursor)
    assert _requested(second) == {"reads_a"}
    assert second.get_requested_partitions(dg.AssetKey("reads_a")) == {today}

    _land(instance, "b", today)
    third = dg.evaluate_automation_conditions(graph, instance, cursor=second.cursor)
    assert _requested(third) == {"reads_b"}


def test_a_replay_of_an_old_day_starts_nothing(instance: dg.DagsterInstance) -> None:
    graph = _graph()
    first = dg.evaluate_automation_conditions(graph, instance)
    _land(instance, "a", "2026-02-01")
    second = dg.evaluate_automation_conditions(graph, instance, cursor=first.cursor)
    assert _requested(second) == set()
