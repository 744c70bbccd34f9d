"""One call of dbt over one day, told in Dagster's events.

What dbt prints may quote rows, so it goes into the run's scratch folder and nowhere else: events
and messages hold names, counts and seconds.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from mirror_assets.orchestration import dbt_faults
from mirror_assets.orchestration.dbt_faults import ModelFailed
from mirror_assets.orchestration.dbt_manifest import PROJECT, Manifest
from mirror_assets.orchestration.dbt_sources import environment
from mirror_assets.orchestration.session import MirrorResource

_SHOWN = ("Execution Duration", "status", "dagster_dbt/failed_row_count")

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


class DbtCommand:
    """``dbt build`` or ``dbt test`` of the named nodes."""

    def __init__(self, manifest: Manifest, mirror: MirrorResource, day: date) -> None:
        self._manifest = manifest
        self._mirror = mirror
        self._day = day
        self._target = mirror.scratch / f"dbt-{day}"
        self._said = ""

    def build(self, models: Sequence[str]) -> Results:
        """Build models and test them, and give what became of each model and test."""
        return self._run("build", "--exclude-resource-type", "unit_test", *self._chosen(models))

    def test(self, tests: Sequence[str]) -> Results:
        """Run tests, and give the result of each."""
        return self._run("test", *self._chosen(tests))

    def _chosen(self, names: Sequence[str]) -> list[str]:
        variables = json.dumps({"mirror_date": str(self._day)})
        return ["--vars", variables, "--select", " ".join(names)]

    def _run(self, *arguments: str) -> Results:
        # here: slow to import
        from dagster_dbt import DbtCliResource

        dbt = DbtCliResource(
            project_dir=str(PROJECT),
            profiles_dir=str(PROJECT),
            dbt_executable=str(Path(sys.executable).parent / "dbt"),
        )
        self._target.mkdir(mode=0o700, exist_ok=True)
        with (
            _environment(environment(self._mirror.settings)),
            self._mirror.warehouse.exclusive(),
            redirect_stdout(io.StringIO()),
        ):
            invocation = dbt.cli(
                arguments,
                manifest=self._manifest.data,
                dagster_dbt_translator=_translator(self._manifest),
                target_path=self._target,
                raise_on_error=False,
            )
            events = list(invocation.stream())
            self._said = str(invocation.get_error() or "")
        yield from filter(None, map(_result, events))

    def faults(self) -> ModelFailed | None:
        """What failed, by dbt's own account; None when all went well."""
        try:
            results = json.loads((self._target / "run_results.json").read_bytes())["results"]
        except (OSError, ValueError):
            return dbt_faults.of_nothing(self._said)
        finally:
            shutil.rmtree(self._target, ignore_errors=True)
        return dbt_faults.of_results(results)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _result(event: Any) -> dg.MaterializeResult[Any] | dg.AssetCheckResult | None:
    """dagster-dbt's events as results of our step, with figures only."""
    if isinstance(event, dg.AssetMaterialization):
        return dg.MaterializeResult(asset_key=event.asset_key, metadata=_figures(event.metadata))
    if isinstance(event, dg.AssetCheckEvaluation):
        return dg.AssetCheckResult(
            asset_key=event.asset_key,
            check_name=event.check_name,
            passed=event.passed,
            severity=event.severity,
            metadata=_figures(event.metadata),
        )
    return None


def _figures(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name in _SHOWN}


def _translator(manifest: Manifest) -> Any:
    from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings

    class Translator(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            return manifest.key(dbt_resource_props)

    return Translator(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))
