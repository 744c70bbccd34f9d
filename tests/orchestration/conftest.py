"""Runs of the real graph over a bench, in process, on an instance set up as dagster.yaml says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import instance_for_test

from mirror_assets.orchestration.alerts import runs
from mirror_assets.orchestration.alerts.findings import Finding, judge
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.sample import commons, member_index, quality_measure
from mirror_assets.sample.servers import ADMIN, PostgreSQL
from mirror_assets.sample.services import MeasureService
from mirror_assets.settings import Settings
from tests.conftest import SCALE, Bench

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    configured = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
    with instance_for_test(overrides=configured) as made:
        yield made


@pytest.fixture
def definitions(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dg.Definitions]:
    """The whole graph as the environment of the bench gives it."""
    for name, value in bench.variables.items():
        monkeypatch.setenv(name, value)
    return lambda: build_definitions(Settings.from_env())


@dataclass(frozen=True)
class Samples:
    """Small sample databases, a measure service and a cache job, with the environment set."""

    vendor: Bench
    postgres: PostgreSQL
    service: MeasureService
    documents: Path


@pytest.fixture
def samples(
    vendor: Bench, postgres: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Samples]:
    for module in (commons, member_index, quality_measure):
        module.create(postgres, scale=SCALE)
    service = MeasureService(tmp_path / "measures")
    service.start(postgres.url("quality_measure", ADMIN))
    key, cache = tmp_path / "measures.key", tmp_path / "cache.url"
    for path, text in ((key, service.key), (cache, postgres.url("commons", ADMIN))):
        path.write_text(text)
        path.chmod(0o400)
    documents = tmp_path / "documents"
    variables = vendor.variables | {
        "MIRROR_SETTLE_MINUTES": "0.01",
        "MIRROR_CATALOG_PATH": str(REPOSITORY / "mirror_assets" / "sample" / "catalogs"),
        "MIRROR_DOCUMENTS": str(documents),
        "MIRROR_MEASURES_URL": service.url,
        "MIRROR_MEASURES_KEY_FILE": str(key),
        "MIRROR_CACHE_JOB_COMMAND": f"{sys.executable} -m mirror_assets.sample.cache_job"
        f" --documents {documents} --url-file {cache}",
        "MIRROR_CACHE_JOB_WAIT_MINUTES": "0",
        **{
            f"{name.upper()}_DATABASE_URL": postgres.url(name)
            for name in ("commons", "member_index", "quality_measure")
        },
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        yield Samples(vendor, postgres, service, documents)
    finally:
        service.remove()


class Run:
    """What a run left behind."""

    def __init__(self, instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> None:
        self._instance = instance
        self._result = result
        self.run_id = result.run_id
        self.success = result.success

    @property
    def tags(self) -> dict[str, str]:
        run = self._instance.get_run_by_id(self.run_id)
        assert run is not None
        return dict(run.tags)

    @property
    def materialized(self) -> set[str]:
        events = self._result.get_asset_materialization_events()
        return {event.asset_key.path[-1] for event in events if event.asset_key}

    def metadata(self, table: str) -> dict[str, Any]:
        events = self._result.get_asset_materialization_events()
        found = next(e for e in events if e.asset_key and e.asset_key.path[-1] == table)
        return {k: v.value for k, v in found.materialization.metadata.items()}

    @property
    def checks(self) -> dict[str, bool]:
        return {
            evaluation.asset_key.path[-1]: evaluation.passed
            for evaluation in self._result.get_asset_check_evaluations()
        }

    @property
    def check_names(self) -> dict[str, tuple[bool, str]]:
        return {
            evaluation.check_name: (evaluation.passed, evaluation.description or "")
            for evaluation in self._result.get_asset_check_evaluations()
        }

    @property
    def failures(self) -> list[str]:
        described = []
        for event in self._result.get_step_failure_events():
            data = event.step_failure_data.user_failure_data
            described.append((data.description if data else None) or "")
        return described

    @property
    def failed_figures(self) -> dict[str, Any]:
        """What the one step that failed had counted."""
        (event,) = self._result.get_step_failure_events()
        data = event.step_failure_data.user_failure_data
        assert data is not None
        return {name: value.value for name, value in data.metadata.items()}

    @property
    def observed(self) -> dict[str, dict[str, Any]]:
        """What dry runs told, by asset."""
        told = self._result.get_asset_observation_events()
        seen = [event.asset_observation_data.asset_observation for event in told]
        return {
            one.asset_key.path[-1]: {name: value.value for name, value in one.metadata.items()}
            for one in seen
        }

    @property
    def findings(self) -> list[Finding]:
        """What alerts are made of it."""
        record = self._instance.get_run_record_by_id(self.run_id)
        assert record is not None
        return judge(runs.ended(self._instance, record))[0]

    def everything(self) -> str:
        """Every stored event of the run, as text."""
        return "\n".join(str(record) for record in self._instance.all_logs(self.run_id))


@pytest.fixture
def execute(
    instance: dg.DagsterInstance, definitions: Callable[[], dg.Definitions]
) -> Callable[..., Run]:
    """Execute a job of the graph: ``execute("clinic_mirror", day)``."""

    def run(job: str, day: object = None, **options: Any) -> Run:
        found = definitions().resolve_job_def(job)
        key = str(day) if day is not None else None
        result = found.execute_in_process(
            instance=instance, partition_key=key, raise_on_error=False, **options
        )
        return Run(instance, result)

    return run
