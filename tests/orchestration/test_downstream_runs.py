"""The whole graph over the sample databases: mirrors, then what automation starts after them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from mirror_assets.definitions import build
from mirror_assets.keys import ENCOUNTERS
from mirror_assets.orchestration import dbt_checks, dbt_models
from mirror_assets.orchestration.ticks import Ticks
from mirror_assets.sample import commons, elation
from mirror_assets.settings import Settings
from tests.conftest import SCALE, Bench
from tests.orchestration.conftest import Run, Samples

MEASURES = dg.AssetKey(["elation", "quality_measures"])
CACHE = dg.AssetKey(["commons", "ccd_encounter_cache"])
TEXTS = dg.AssetKey(["commons", "note_transformed"])
USERS = dg.AssetKey(["mrt_commons", "user"])
TEAMS = dg.AssetKey(["mrt_commons", "member_care_team_all"])
NOTES = dg.AssetKey(["abs_computed", "abs_commons_note_text"])
APPOINTMENTS = dg.AssetKey(["abs_computed", "abs_ehr_appointment_statuses"])


class World:
    """The sample databases, the graph over them, and its automation."""

    def __init__(self, instance: dg.DagsterInstance, vendor: Bench) -> None:
        self.instance = instance
        self.vendor = vendor
        self.graph = build(Settings.from_env())
        self.ticks = Ticks(self.graph, instance)
        self.today = datetime.now(UTC).date().isoformat()
        self.started: list[frozenset[dg.AssetKey]] = []
        self.alerts: set[str] = set()

    def execute(self, selection: dg.AssetSelection, partition: str = "") -> Run:
        keys = selection.resolve(self.graph.resolve_asset_graph())
        job = self.graph.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            instance=self.instance,
            asset_selection=list(keys),
            partition_key=partition or self.today,
            raise_on_error=False,
        )
        return Run(self.instance, result)

    def mirror(self, *databases: str) -> None:
        for name in databases:
            assert self.execute(dg.AssetSelection.groups(name)).success

    def follow(self) -> bool:
        """Run what automation asks for, until it is quiet."""
        self.started.clear()

        def launch(keys: frozenset[dg.AssetKey], partition: str) -> bool:
            self.started.append(keys)
            run = self.execute(dg.AssetSelection.assets(*keys), partition)
            assert run.success, run.failures
            self.alerts |= {finding.kind for finding in run.findings}
            return run.success

        return self.ticks.run(launch)

    def told(self, key: dg.AssetKey) -> dict[str, Any]:
        event = self.instance.get_latest_materialization_event(key)
        assert event is not None, f"{key.to_user_string()} was not materialized"
        assert event.asset_materialization is not None
        return {name: v.value for name, v in event.asset_materialization.metadata.items()}

    def has(self, key: dg.AssetKey) -> bool:
        return self.graph.resolve_asset_graph().has(key)

    def runs_of(self, key: dg.AssetKey) -> int:
        return sum(key in keys for keys in self.started)


@pytest.fixture(params=["without dbt", pytest.param("with dbt", marks=pytest.mark.slow)])
def world(
    request: pytest.FixtureRequest,
    samples: Samples,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    if request.param == "without dbt":
        monkeypatch.setattr(dbt_models, "definitions", dg.Definitions)
    return World(instance, samples.vendor)


def test_everything_follows_its_inputs_once_and_again_when_they_are_replaced(
    world: World,
) -> None:
    import time

    time.sleep(1.7)  # CREATE_TIME counts seconds, and the wait is 0.6 of one
    world.mirror("commons", "member_index", "quality_measure")
    assert world.follow()
    assert [world.runs_of(key) for key in (TEXTS, ENCOUNTERS, MEASURES, CACHE)] == [1, 0, 0, 0]

    world.mirror("elation")
    assert world.follow()
    first = world.told(ENCOUNTERS)
    assert first["encounters"] > 0
    assert first["documents_written"] == first["members"]
    posted = world.told(MEASURES)
    assert posted["posted"] == posted["members"] > 0
    assert world.told(CACHE)["rows_appeared"] >= first["encounters"]
    assert world.told(TEXTS)["dagster/partition_row_count"] > 0
    models = [key for key in (USERS, APPOINTMENTS) if world.has(key)]
    for key in (ENCOUNTERS, MEASURES, CACHE, *models):
        assert world.runs_of(key) == 1, key
    assert world.runs_of(TEXTS) == 0

    # nobody reports the other EHR's summaries here; the samples have notes of strangers
    assert world.alerts >= {"notes_without_member", "cache_incomplete"}

    assert world.follow()
    assert world.started == []

    elation.refresh(world.vendor.server, schema=world.vendor.schema, scale=SCALE, mutation=3)
    time.sleep(1.7)
    world.mirror("elation")
    assert world.follow()
    for key in (ENCOUNTERS, MEASURES, CACHE, *models):
        assert world.runs_of(key) == 1, key
    assert world.runs_of(TEXTS) == 0
    again = world.told(MEASURES)
    assert again["posted"] < again["members"]
    assert again["posted"] + again["unchanged"] == again["members"]


def test_e_46_a_failed_text_holds_back_only_the_models_that_read_it(
    samples: Samples, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the models two may be built: one reads mirrored tables alone, the other the text of notes.
    The first one is built of rows that break a rule of its own.
    """
    monkeypatch.setattr(dbt_checks, "definitions", lambda _manifest: dg.Definitions())
    world = World(instance, samples.vendor)
    with closing(samples.postgres.admin("commons")) as admin, admin.cursor() as cursor:
        cursor.execute(f"""UPDATE note SET "{commons.BODY_COLUMN}" = '{{'""")
        cursor.execute("ALTER TABLE care_team DROP CONSTRAINT care_team_pkey")
        cursor.execute("INSERT INTO care_team SELECT * FROM care_team LIMIT 1")
    read = [dg.AssetKey(["commons", table]) for table in ("note", "care_team", "user")]
    assert world.execute(dg.AssetSelection.assets(*read)).success
    asked = world.ticks.tick()[world.today] & {TEXTS, TEAMS, NOTES}

    run = world.execute(dg.AssetSelection.assets(*asked))

    assert asked == {TEXTS, TEAMS}
    assert run.materialized == {TEAMS.path[-1]}
    unique = "unique_member_care_team_all_careTeamMemberId"
    assert [passed for passed, _told in run.check_names.values()].count(True) == 3
    assert not run.check_names[unique][0]
    assert [told for told in run.failures if f"{unique} (1 rows)" in told]
    assert NOTES not in world.ticks.tick().get(world.today, ())


def test_a_day_that_was_not_mirrored_names_what_is_missing(world: World) -> None:
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    run = world.execute(dg.AssetSelection.assets(ENCOUNTERS, MEASURES, TEXTS), yesterday)
    assert not run.success
    assert run.materialized == set()
    told = "\n".join(run.failures)
    for name in ("elation/visit_note", "member_index/member", "commons/user", "commons/note"):
        assert name in told
    assert "dagster/retry_on_asset_or_op_failure" not in run.tags
    assert {(f.kind, f.scope) for f in run.findings} == {
        ("input", "elation/patient_encounters"),
        ("input", "elation/quality_measures"),
        ("input", "commons/note_transformed"),
    }
