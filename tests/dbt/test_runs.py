"""Running again, running too early, and running over nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # each of them runs dbt again

DAY = "2026-11-22"
GOALS = "SELECT goalId FROM mrt_commons.member_goals_tasks_all WHERE mirror_date = DATE '{}'"


def test_running_a_day_again_replaces_it_also_by_nothing(built: Any) -> None:
    lake, _run = built
    day = "2026-11-20"
    lake.fill(day, {"commons.goal": [{"id": "'G9'", "title": "'x'", "patientId": "'M1'"}]})
    for _ in range(2):
        run = lake.dbt("run", "--select", "member_goals_tasks_all", day=day)
        assert run.ok, run.output
        assert lake.rows(GOALS.format(day)) == [("G9",)]
    lake.execute(f"DELETE FROM commons_mirror.goal_shards WHERE _PARTITIONDATE = DATE '{day}'")
    assert lake.dbt("run", "--select", "member_goals_tasks_all", day=day).ok
    assert lake.rows(GOALS.format(day)) == []
    assert len(lake.rows(GOALS.format(DAY))) == 2


def test_a_day_that_was_not_mirrored_is_refused_by_name(built: Any) -> None:
    lake, _run = built
    models = "member_care_team_all abs_commons_note_text abs_ehr_note_encounters"
    run = lake.dbt("run", "--select", models, day="2026-10-01")
    assert not run.ok
    told = " ".join(run.output.split())  # dbt breaks lines
    names = "commons.care_team, commons.note_transformed, commons.user, medical.patient_encounters"
    assert f"not published on 2026-10-01: {names}" in told


def test_no_day_is_refused(built: Any) -> None:
    lake, _run = built
    run = lake.dbt("run", "--select", "member_care_team_all", day="")
    assert not run.ok
    assert "no mirror date was given" in run.output


def test_an_empty_warehouse_is_not_made_by_dbt(lake: Any, tmp_path: Path) -> None:
    empty = type(lake)(tmp_path)
    shutil.rmtree(tmp_path)
    (tmp_path / "lake").mkdir(parents=True)
    run = empty.dbt("run", "--select", "user")
    assert not run.ok
    assert not (tmp_path / "lake.sqlite").exists()


def test_docs_are_generated(built: Any) -> None:
    lake, _run = built
    run = lake.dbt("docs", "generate")
    assert run.ok, run.output
    catalog = run.document("catalog.json")
    assert "goalTitle" in catalog["nodes"]["model.mirror_models.member_goals_tasks_all"]["columns"]
    assert catalog["errors"] is None


@pytest.mark.parametrize("name", ["commons_nightly", "evening", "elation"])
def test_i_40_selectors_select_models(built: Any, name: str) -> None:
    lake, _run = built
    run = lake.dbt("ls", "--selector", name, "--resource-type", "model", "--quiet")
    assert run.ok, run.output
    found = {line.rpartition(".")[2] for line in run.output.splitlines()}
    assert EXPECTED[name] <= found


EXPECTED = {
    "commons_nightly": {"user", "member_states", "abs_commons_note_text", "src_commons_event"},
    "evening": {"member_care_team_current", "member_goals_tasks_all"},
    "elation": {
        "src_elation_appointment_latest", "abs_elation_referrals", "abs_ehr_note_encounters",
        "mrt_elation_provider_code_decision", "exp_elation_immunizations",
    },
}  # fmt: skip
