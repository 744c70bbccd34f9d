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
from types import MappingProxyType
from typing import Any

import dagster as dg

from mirror_assets.mirroring.errors import MirrorError, PermanentError
from mirror_assets.orchestration.dbt_manifest import PROJECT, Manifest
from mirror_assets.orchestration.dbt_sources import environment
from mirror_assets.orchestration.session import MirrorResource

_BY_HAND = "docs/operations.md says how to see dbt's own message, which may quote rows"
_FAILED = ("error", "fail", "runtime error")
_SHOWN = ("Execution Duration", "status", "dagster_dbt/failed_row_count")

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


class ModelFailed(PermanentError):  # noqa: N818 - the kinds read as nouns
    """dbt could not build a model, or a test found rows that should not be there."""

    kind = "dbt"
    resource = "BQ"
    failed: Mapping[str, str] = MappingProxyType({})  #: models and tests, and what dbt says of each


class DbtCommand:
    """``dbt build`` or ``dbt test`` of the named nodes."""

    def __init__(self, manifest: Manifest, mirror: MirrorResource, day: date) -> None:
        self._manifest = manifest
        self._mirror = mirror
        self._day = day
        self._target = mirror.scratch / f"dbt-{day}"

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
        yield from filter(None, map(_result, events))

    def faults(self) -> ModelFailed | None:
        """What failed, by dbt's own account; None when all went well."""
        path = self._target / "run_results.json"
        try:
            results = json.loads(path.read_bytes())["results"]
        except (OSError, ValueError):
            return ModelFailed(
                "dbt stopped before it built anything",
                remedy="most often a table that is read was not published that day: see"
                f" `mirror status`; {_BY_HAND}",
            )
        finally:
            shutil.rmtree(self._target, ignore_errors=True)
        results = [result for result in results if not _is_hook(result)]
        failed = [result for result in results if result["status"] in _FAILED]
        if not failed:
            return None
        names = {result["unique_id"].split(".")[2]: _outcome(result) for result in failed}
        told = "; ".join(f"{name} ({outcome})" for name, outcome in names.items())
        fault = ModelFailed(
            f"{len(failed)} of {len(results)} models and tests failed: {told}",
            remedy=f"the others went well; {_BY_HAND}",
        )
        fault.failed = names
        return fault


def joined(faults: Sequence[MirrorError]) -> MirrorError:
    """One error for several commands of a step."""
    if len(faults) == 1:
        return faults[0]
    return ModelFailed("; ".join(f"{f.where}: {f.what}" for f in faults), remedy=faults[0].remedy)


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


def _outcome(result: Mapping[str, Any]) -> str:
    found = result.get("failures")
    return f"{found} rows" if found else str(result["status"])


def _is_hook(result: Mapping[str, Any]) -> bool:
    return bool(result["unique_id"].startswith("operation.") and result["status"] not in _FAILED)


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
