"""dbt's tests of mirrored tables, as the asset checks that they are in the graph."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test

from mirror_assets.orchestration import dbt_models
from mirror_assets.orchestration.alerts import runs
from mirror_assets.orchestration.alerts.findings import judge
from mirror_assets.orchestration.dbt_manifest import Manifest
from mirror_assets.orchestration.session import MirrorResource

NEWEST = "2026-11-23"
CANARY = "canary-4711"
GOAL = dg.AssetKey(["commons", "goal"])
UNIQUE = dg.AssetCheckKey(GOAL, "source_unique_commons_goal_id")
NAMED = dg.AssetCheckKey(GOAL, "source_not_null_commons_goal_title")
RANKED = dg.AssetCheckKey(GOAL, "source_not_null_commons_goal_rank")
CHOSEN = {UNIQUE, NAMED, RANKED}


@pytest.fixture
def graph() -> dg.Definitions:
    resources = dg.Definitions(resources={"mirror": MirrorResource()})
    return dg.Definitions.merge(dbt_models.definitions(), resources)


def test_every_source_test_is_a_check_of_its_table_and_holds_nothing_back(
    graph: dg.Definitions,
) -> None:
    nodes = graph.resolve_asset_graph()
    checks = {key for key in nodes.asset_check_keys if key.name.startswith("source_")}
    assert len(checks) == len(Manifest.load().source_tests) == 48
    assert checks >= CHOSEN
    assert not any(nodes.get(key).blocking for key in checks)


def test_checks_judge_the_newest_day_and_quote_nothing(
    lake: Any,
    graph: dg.Definitions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    good = {"title": "'x'", "patientId": "'M1'", "createdAt": "now()", "createdById": "'U1'"}
    twice = [good | {"id": f"'{CANARY}'"}] * 2
    lake.fill(NEWEST, {"commons.goal": [*twice, good | {"id": "'G2'", "rank": "1"}]})
    for name, value in lake.variables.items():
        monkeypatch.setenv(name, value)
    with instance_for_test() as instance:
        everything = graph.resolve_implicit_global_asset_job_def()
        job = everything.get_subset(asset_selection=set(), asset_check_selection=CHOSEN)
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        found = {e.asset_check_key: e for e in result.get_asset_check_evaluations()}
        record = instance.get_run_record_by_id(result.run_id)
        assert record is not None
        findings = judge(runs.ended(instance, record))[0]
        stored = "\n".join(str(record) for record in instance.all_logs(result.run_id))
    assert found.keys() == CHOSEN
    assert not found[UNIQUE].passed
    assert found[UNIQUE].severity == dg.AssetCheckSeverity.ERROR
    assert found[UNIQUE].metadata["dagster_dbt/failed_row_count"].value == 1
    assert found[NAMED].passed
    assert not found[RANKED].passed
    assert found[RANKED].severity == dg.AssetCheckSeverity.WARN
    assert not result.success
    (failed,) = result.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data.description
    assert told.startswith(f"commons of {NEWEST}: 1 of 3 models and tests failed")
    assert "source_unique_commons_goal_id (1 rows)" in told
    assert {(f.kind, f.item, f.what) for f in findings} == {
        ("dbt_test", UNIQUE.name, "1 rows of commons/goal"),
        ("dbt_warning", RANKED.name, "2 rows of commons/goal"),
    }
    assert CANARY not in stored + "".join(capfd.readouterr())
