"""One step that has dbt build the selected models of a day; every model is an asset of its own.

What dbt prints may quote rows, so it goes into the run's scratch folder and nowhere else: events
and messages hold names, counts and seconds.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from mirror_assets.mirroring.errors import PermanentError
from mirror_assets.orchestration.dbt_manifest import PROJECT, Manifest
from mirror_assets.orchestration.dbt_sources import environment
from mirror_assets.orchestration.downstream import POOL, failure, step
from mirror_assets.orchestration.session import MirrorResource

_BY_HAND = "docs/operations.md says how to see dbt's own message, which may quote rows"
_FAILED = ("error", "fail", "runtime error")
_SHOWN = ("Execution Duration", "status", "dagster_dbt/failed_row_count")


class ModelFailed(PermanentError):  # noqa: N818 - the kinds read as nouns
    """dbt could not build a model, or a test found rows that should not be there."""

    kind = "dbt"
    resource = "BQ"


def definitions() -> dg.Definitions:
    """The models of the dbt project beside the package; none where there is no such project."""
    if not (PROJECT / "dbt_project.yml").is_file():
        return dg.Definitions()
    return dg.Definitions(assets=[models(Manifest.load())])


def models(manifest: Manifest) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="dbt_models",
        specs=manifest.asset_specs(),
        check_specs=manifest.check_specs(),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        pool=POOL,
    )
    def dbt_models(
        context: dg.AssetExecutionContext, mirror: MirrorResource
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        wanted = context.selected_asset_keys
        names = [node["name"] for node in manifest.models.values() if manifest.key(node) in wanted]
        with step(context, "dbt") as day:
            build = _Build(manifest, mirror, day)
            for event in build.run(names):
                if event.asset_key in wanted:
                    yield event
            faults = build.faults()
            if faults:
                raise failure(context, faults)

    return dbt_models


class _Build:
    """One call of ``dbt build``."""

    def __init__(self, manifest: Manifest, mirror: MirrorResource, day: date) -> None:
        self._manifest = manifest
        self._mirror = mirror
        self._day = day
        self._target = mirror.scratch / f"dbt-{day}"

    def run(
        self, names: Sequence[str]
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Build the models, and give what became of each model and test."""
        # here: slow to import
        from dagster_dbt import DbtCliResource

        dbt = DbtCliResource(
            project_dir=str(PROJECT),
            profiles_dir=str(PROJECT),
            dbt_executable=str(Path(sys.executable).parent / "dbt"),
        )
        self._target.mkdir(mode=0o700, exist_ok=True)
        variables = json.dumps({"mirror_date": str(self._day)})
        chosen = ["--vars", variables, "--select", " ".join(names)]
        variables_of_dbt = environment(self._mirror.settings)
        before = {name: os.environ.get(name) for name in variables_of_dbt}
        os.environ.update(variables_of_dbt)
        try:
            with self._mirror.warehouse.exclusive(), redirect_stdout(io.StringIO()):
                invocation = dbt.cli(
                    ["build", "--exclude-resource-type", "unit_test", *chosen],
                    manifest=self._manifest.data,
                    dagster_dbt_translator=_translator(self._manifest),
                    target_path=self._target,
                    raise_on_error=False,
                )
                events = list(invocation.stream())
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        yield from filter(None, map(_result, events))

    def faults(self) -> PermanentError | None:
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
        failed = [r for r in results if r["status"] in _FAILED and not _is_warning(r)]
        if not failed:
            return None
        told = "; ".join(_told(result) for result in failed)
        return ModelFailed(
            f"{len(failed)} of {len(results)} models and tests failed: {told}",
            remedy=f"the other models are built; {_BY_HAND}",
        )


def _told(result: Mapping[str, Any]) -> str:
    name = result["unique_id"].split(".")[2]
    found = result.get("failures")
    return f"{name} ({found} rows)" if found else f"{name} ({result['status']})"


def _is_warning(result: Mapping[str, Any]) -> bool:
    return bool(result["status"] == "warn")


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
    from dagster_dbt import DagsterDbtTranslator

    class Translator(DagsterDbtTranslator):
        def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
            return manifest.key(dbt_resource_props)

    return Translator()
