"""One step that has dbt build the selected models of a day; every model is an asset of its own."""

import dagster as dg

from mirror_assets.orchestration import dbt_checks, dbt_inputs
from mirror_assets.orchestration.dbt_command import DbtCommand, Results
from mirror_assets.orchestration.dbt_manifest import PROJECT, Manifest
from mirror_assets.orchestration.downstream import POOL, failure, step
from mirror_assets.orchestration.session import MirrorResource


def definitions() -> dg.Definitions:
    """The dbt project beside the package: its models, and its tests of mirrored tables; none where
    there is no such project.
    """
    if not (PROJECT / "dbt_project.yml").is_file():
        return dg.Definitions()
    manifest = Manifest.load()
    return dg.Definitions.merge(
        dg.Definitions(assets=[models(manifest)]), dbt_checks.definitions(manifest)
    )


def models(manifest: Manifest) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="dbt_models",
        specs=manifest.asset_specs(),
        check_specs=manifest.check_specs(),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        pool=POOL,
    )
    def dbt_models(context: dg.AssetExecutionContext, mirror: MirrorResource) -> Results:
        wanted = context.selected_asset_keys
        chosen = [node for node in manifest.models.values() if manifest.key(node) in wanted]
        with step(context, "dbt") as day:
            dbt_inputs.require(mirror, manifest, chosen, day)
            command = DbtCommand(manifest, mirror, day)
            for result in command.build([node["name"] for node in chosen]):
                if result.asset_key in wanted:
                    yield result
            faults = command.faults()
            if faults:
                raise failure(context, faults, {"failed": dict(faults.failed)})

    return dbt_models
