"""What hangs off Commons, materialized through Dagster: readable notes, and the cache job."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mirror_assets import keys
from mirror_assets.commons import assets as commons
from mirror_assets.keys import ENCOUNTERS
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import DAILY, key_of
from mirror_assets.settings import Settings
from tests.commons.cache import CANARY, ROOT, Database, job_command
from tests.commons.test_transformed import CUT_OFF, OLD, Notes, allowing, body, create, sharded
from tests.conftest import KindBench
from tests.orchestration.conftest import Run

LINK = "https://errors.example.org/?q={filter}"
FILLED = "https://errors.example.org/?q=cacheCcdEncounter"
TRIED_AGAIN = "dagster/retry_on_asset_or_op_failure"


def materialize(
    instance: dg.DagsterInstance,
    databases: list[DatabaseSpec],
    key: dg.AssetKey,
    day: date,
    **config: Any,
) -> Run:
    """Run one asset for one day, in process, with the environment as it is."""
    result = (
        graph(databases)
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance,
            asset_selection=[key],
            partition_key=key_of(day),
            run_config={"ops": {"__".join(key.path): {"config": config}}} if config else None,
            raise_on_error=False,
        )
    )
    return Run(instance, result)


def graph(databases: Sequence[DatabaseSpec], *more: dg.AssetSpec) -> dg.Definitions:
    """What hangs off these databases, as the environment configures it."""
    return dg.Definitions.merge(
        commons.definitions(Settings.from_env(), databases),
        dg.Definitions(
            assets=more,
            resources={"mirror": MirrorResource()},
            executor=dg.in_process_executor,
        ),
    )


# --- Readable notes -------------------------------------------------------------------------


@pytest.fixture
def notes(pg_bench: KindBench, monkeypatch: pytest.MonkeyPatch) -> Notes:
    """Two mirrored tables; one body of each may be broken."""
    create(pg_bench, "note", "task_comment")
    made = Notes(
        pg_bench, sharded(pg_bench, {"note": allowing(1), "task_comment": allowing(1), "plain": {}})
    )
    pg_bench.run("CREATE TABLE plain (id int PRIMARY KEY)")
    for name, value in pg_bench.variables.items():
        monkeypatch.setenv(name, value)
    return made


def readable(instance: dg.DagsterInstance, notes: Notes, table: str, day: date) -> Run:
    key = keys.text_key(notes.spec, notes.spec.table(table))
    return materialize(instance, [notes.spec], key, day)


def test_a_transform_shows_its_figures(notes: Notes, instance: dg.DagsterInstance) -> None:
    notes.write("note", body("a"), CUT_OFF, body("c"))
    run = readable(instance, notes, "note", notes.mirror())
    assert run.success
    assert run.materialized == {"note_transformed"}
    assert run.metadata("note_transformed") == {
        "dagster/partition_row_count": 3,
        "broken_bodies": 1,
        "broken_by_kind": {"draftjs_json": 1},
    }
    assert notes.texts() == [("n1", "a"), ("n2", None), ("n3", "c")]
    assert "1 bodies are broken" in run.everything()
    assert [(f.kind, f.size) for f in run.findings] == [("tolerated_bodies", 1)]
    assert CANARY not in run.everything()


def test_e_46_a_failed_transform_fails_its_run_and_no_other(
    notes: Notes, instance: dg.DagsterInstance
) -> None:
    notes.write("note", CUT_OFF, OLD)
    notes.write("task_comment", body("a"))
    day = notes.mirror()
    failed, good = (readable(instance, notes, table, day) for table in ("note", "task_comment"))
    assert (failed.success, good.success) == (False, True)
    assert (failed.materialized, good.materialized) == (set(), {"task_comment_transformed"})
    assert "2 bodies cannot be read" in failed.failures[0]
    assert [f.kind for f in failed.findings] == ["broken_bodies"]
    assert f"`mirror errors clinic --partition {day}" in failed.failures[0]
    assert TRIED_AGAIN not in failed.tags
    assert CANARY not in failed.everything()
    assert notes.views() == []
    assert notes.texts("task_comment_transformed") == [("n1", "a")]


def test_a_transform_without_its_table_names_it(notes: Notes, instance: dg.DagsterInstance) -> None:
    day = notes.mirror()
    before = day - timedelta(days=1)
    run = readable(instance, notes, "note", before)
    assert f"no published partition of {before} of clinic/note" in run.failures[0]


def test_there_is_a_transform_for_each_table_with_bodies(notes: Notes) -> None:
    assert reading([notes.spec]) == {
        dg.AssetKey(["clinic", "note_transformed"]): {dg.AssetKey(["clinic", "note"])},
        dg.AssetKey(["clinic", "task_comment_transformed"]): {
            dg.AssetKey(["clinic", "task_comment"])
        },
    }
    real = reading([Settings.from_env().database("commons")])
    assert {key.path[-1] for key in real} == {
        f"{table}_transformed"
        for table in ("goal_comment", "note", "note_revision", "task_comment")
    }


def test_without_a_configured_job_there_is_no_cache(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commons.CACHE not in reading([notes.spec])
    monkeypatch.setenv("MIRROR_CACHE_JOB_COMMAND", "true")
    assert reading([]) == {commons.CACHE: {ENCOUNTERS, commons.SUMMARIES}}


def reading(databases: Sequence[DatabaseSpec]) -> dict[dg.AssetKey, set[dg.AssetKey]]:
    """Every asset that can be made, and what it reads."""
    found = graph(databases).resolve_asset_graph()
    return {key: set(found.get(key).parent_keys) for key in found.executable_asset_keys}


# --- The cache job --------------------------------------------------------------------------


@dataclass
class Cache:
    """A cache asset over an instance, and the documents that its job reads."""

    instance: dg.DagsterInstance
    database: Database
    environment: pytest.MonkeyPatch
    changes: int = 0

    def job(self, *command: str) -> None:
        self.environment.setenv("MIRROR_CACHE_JOB_COMMAND", shlex.join(command))

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.environment.setenv(f"MIRROR_CACHE_{name}", value)

    def encounters(self, *, changed: bool = True) -> None:
        """The encounters asset has landed, its documents changed or as they were."""
        self.changes += changed
        metadata: dict[str, Any] = {"encounters": 5, "superseded_by": ""}
        if self.changes:
            metadata[keys.DOCUMENTS_CHANGED] = dg.MetadataValue.timestamp(float(self.changes))
        self.report(ENCOUNTERS, partition=key_of(today()), metadata=metadata)

    def summaries(self) -> None:
        self.report(commons.SUMMARIES)

    def report(self, key: dg.AssetKey, **fields: Any) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, **fields))

    def fill(self, **config: Any) -> Run:
        return materialize(self.instance, [], commons.CACHE, today(), **config)

    def filled(self, **config: Any) -> dict[str, Any]:
        """What a successful run says."""
        run = self.fill(**config)
        assert run.success, run.failures
        return run.metadata("ccd_encounter_cache")


def today() -> date:
    return datetime.now(UTC).date()


@pytest.fixture
def cache(
    pg_bench: KindBench,
    database: Database,
    documents: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> Cache:
    """The demo's job over five encounters; summaries are not waited for."""
    for name, value in pg_bench.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMMONS_DATABASE_URL", database.cache.url)
    made = Cache(instance, database, monkeypatch)
    made.set(JOB_WAIT_MINUTES="0", JOB_MINUTES="0.5", ERRORS_LINK=LINK)
    made.job(*job_command(documents, database))
    return made


def test_the_cache_is_filled_and_counted(cache: Cache) -> None:
    cache.encounters()
    cache.summaries()
    told = cache.filled()
    assert (told["rows_expected"], told["rows_appeared"], told["exit_code"]) == (5, 5, "0")
    assert told["data_complete"] is True
    assert told["errors"] == FILLED
    assert told["seconds"] > 0
    assert len(cache.database.rows()) == 5


def test_a_job_that_lies_is_a_success_with_a_warning(cache: Cache, documents: Path) -> None:
    cache.job(*job_command(documents, cache.database, "--lie"))
    cache.encounters()
    cache.summaries()
    run = cache.fill()
    assert run.success
    assert run.metadata("ccd_encounter_cache")["exit_code"] == "3"
    assert f"exit code 3, but its rows are there: see {FILLED}" in run.everything()


def test_a_job_without_rows_fails_and_repeats_the_link(cache: Cache) -> None:
    cache.job("sh", "-c", f"echo {CANARY}; echo 5 rows")
    cache.set(JOB_MINUTES="0.02")
    cache.encounters()
    run = cache.fill()
    assert not run.success
    assert run.materialized == set()
    [failure] = run.failures
    assert "0 of 5 rows appeared" in failure
    assert "exit code 0" in failure
    assert failure.endswith(FILLED)
    assert [f.kind for f in run.findings] == ["encounter_cache"]
    assert run.tags[TRIED_AGAIN] == "true"
    assert CANARY not in run.everything()
    assert "(1 lines withheld)" in run.everything()
    assert "5 rows" in run.everything()


def test_a_job_that_cannot_begin_fails_for_good(cache: Cache) -> None:
    cache.job("/nowhere/at-all", CANARY)
    cache.encounters()
    run = cache.fill()
    assert "cannot be run: No such file or directory" in run.failures[0]
    assert run.failures[0].endswith(FILLED)
    assert TRIED_AGAIN not in run.tags
    assert CANARY not in run.everything()


def test_a_database_that_is_away_fails_with_the_link_and_no_address(cache: Cache) -> None:
    url = f"postgresql+psycopg2://{CANARY}:{CANARY}@127.0.0.1:1/commons"
    cache.environment.setenv("COMMONS_DATABASE_URL", url)
    cache.encounters()
    run = cache.fill()
    assert run.failures[0].endswith(FILLED)
    assert run.tags[TRIED_AGAIN] == "true"
    assert CANARY not in run.everything()


def counting(cache: Cache, documents: Path, marks: Path) -> Callable[[], int]:
    """Let the job leave a mark each time; how many there are."""
    job = shlex.join(job_command(documents, cache.database))
    cache.job("sh", "-c", f"echo x >> {marks}; {job}")
    return lambda: marks.read_text().count("x") if marks.exists() else 0


def test_without_changed_documents_the_job_is_not_run(
    cache: Cache, documents: Path, tmp_path: Path
) -> None:
    runs = counting(cache, documents, tmp_path / "marks")
    assert cache.filled()["rows_expected"] == 0
    cache.encounters(changed=False)
    assert cache.filled()["rows_expected"] == 0
    assert runs() == 0

    cache.summaries()
    cache.encounters()
    for _time in range(3):
        cache.filled()
    cache.encounters(changed=False)
    cache.filled()
    assert runs() == 1

    cache.encounters()
    assert cache.filled()["rows_appeared"] == 5
    assert runs() == 2


def test_a_run_for_an_older_day_does_not_say_how_many_encounters_there_are(
    cache: Cache, documents: Path, tmp_path: Path
) -> None:
    runs = counting(cache, documents, tmp_path / "marks")
    cache.summaries()
    cache.encounters()
    yesterday = key_of(today() - timedelta(days=1))
    metadata = {"encounters": 99, "superseded_by": key_of(today())}
    for expected in (5, 0):
        cache.report(ENCOUNTERS, partition=yesterday, metadata=metadata)
        assert cache.filled()["rows_expected"] == expected
    assert runs() == 1


def test_a_failed_job_is_run_again(cache: Cache, documents: Path) -> None:
    cache.encounters()
    cache.job("false")
    cache.set(JOB_MINUTES="0.01")
    assert not cache.fill().success
    cache.job(*job_command(documents, cache.database))
    cache.set(JOB_MINUTES="0.5")
    assert cache.filled()["rows_appeared"] == 5


def test_documents_written_while_the_job_runs_are_read_by_the_next(
    cache: Cache, documents: Path
) -> None:
    report = (
        "import dagster as dg; dg.DagsterInstance.get().report_runless_asset_event("
        f"dg.AssetMaterialization({ENCOUNTERS.path}, metadata="
        "{'encounters': 5, 'documents_changed_at': dg.MetadataValue.timestamp(2.0)}))"
    )
    assert os.environ["DAGSTER_HOME"]
    job = shlex.join(job_command(documents, cache.database))
    cache.job("sh", "-c", f"{job}; {shlex.join((sys.executable, '-c', report))}")
    cache.encounters()
    cache.summaries()
    assert cache.filled()["rows_appeared"] == 5
    cache.job(*job_command(documents, cache.database))
    assert cache.filled()["rows_appeared"] == 5
    assert cache.filled()["rows_expected"] == 0


def test_a_person_may_run_it_although_nothing_changed(cache: Cache) -> None:
    """As after Commons' database was restored without its cache."""
    cache.encounters()
    cache.summaries()
    cache.filled()
    cache.database.run("DROP TABLE ccd_encounter_cache")
    cache.encounters(changed=False)
    assert cache.filled()["rows_expected"] == 0
    assert cache.filled(run_anyway=True)["rows_appeared"] == 5
    assert len(cache.database.rows()) == 5


def test_without_summaries_it_waits_then_runs_and_says_so(cache: Cache) -> None:
    cache.set(JOB_WAIT_MINUTES="0.03")
    cache.encounters()
    began = datetime.now(UTC)
    run = cache.fill()
    assert datetime.now(UTC) - began >= timedelta(seconds=1.8)
    told = run.metadata("ccd_encounter_cache")
    assert (told["rows_appeared"], told["data_complete"]) == (5, False)
    assert "the clinical summaries upstream were not ready" in run.everything()


def test_summaries_that_come_while_it_waits_end_the_wait(cache: Cache) -> None:
    cache.set(JOB_WAIT_MINUTES="0.6")
    cache.encounters()
    report = (
        "import dagster as dg; dg.DagsterInstance.get().report_runless_asset_event("
        f"dg.AssetMaterialization({commons.SUMMARIES.path}))"
    )
    with subprocess.Popen([sys.executable, "-c", report], cwd=ROOT):
        assert cache.filled()["data_complete"] is True


def test_incomplete_data_are_completed_by_a_run_after_the_summaries(
    cache: Cache, documents: Path, tmp_path: Path
) -> None:
    runs = counting(cache, documents, tmp_path / "marks")
    cache.encounters()
    assert cache.filled()["data_complete"] is False
    again = cache.filled()
    assert (again["rows_expected"], again["data_complete"], runs()) == (0, False, 1)

    cache.summaries()
    complete = cache.filled()
    assert (complete["rows_appeared"], complete["data_complete"], runs()) == (5, True, 2)
    assert cache.filled()["rows_expected"] == 0
    assert runs() == 2


def test_summaries_of_another_day_do_not_count(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=2)
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: long_ago.timestamp())
        cache.summaries()
    cache.encounters()
    assert cache.filled()["data_complete"] is False


def test_encounters_start_the_cache_and_summaries_do_not(cache: Cache) -> None:
    """It waits for summaries by itself: they never came before, and it runs all the same."""
    whole = graph([], dg.AssetSpec(ENCOUNTERS, partitions_def=DAILY))
    cursor = None
    requested = []

    def nothing() -> None: ...

    for happens in (nothing, cache.encounters, nothing, cache.summaries, cache.encounters):
        happens()
        result = dg.evaluate_automation_conditions(whole, cache.instance, cursor=cursor)
        cursor = result.cursor
        requested.append(result.get_requested_partitions(commons.CACHE))
    day = {key_of(today())}
    assert requested == [set(), day, set(), set(), day]
