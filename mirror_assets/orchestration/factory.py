"""Catalogs -> the whole Dagster graph."""

from collections.abc import Sequence

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.orchestration import health, pods, sensors, tables, upkeep, verification
from mirror_assets.orchestration.alerts.sensors import alert_sensor
from mirror_assets.orchestration.leftovers import leftover_sensor
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import DAILY
from mirror_assets.settings import Environment, Settings


def build_definitions(settings: Settings, mirror: MirrorResource | None = None) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of every catalogued database."""
    databases = settings.databases()
    parts = [database_definitions(spec, settings.environment) for spec in databases]
    common = dg.Definitions(
        resources={"mirror": mirror or MirrorResource()},
        # a snapshot belongs to one process, so do all chunks of a run; a job may say otherwise
        executor=dg.in_process_executor,
        jobs=[upkeep.upkeep_job()],
        schedules=[upkeep.upkeep_schedule()],
        sensors=[alert_sensor(), *_leftover_sensors(databases)],
    )
    return dg.Definitions.merge(*parts, common)


def _leftover_sensors(databases: Sequence[DatabaseSpec]) -> list[dg.SensorDefinition]:
    """One, where a database is read from a backup."""
    return [leftover_sensor()] if any(spec.entry.backup for spec in databases) else []


def database_definitions(spec: DatabaseSpec, environment: Environment = "local") -> dg.Definitions:
    """Everything that one catalog file asks for."""
    is_vendor = spec.entry.refresh.rule == "vendor"
    chunks = [tables.chunk_assets(spec, number, environment) for number in range(len(spec.chunks))]
    tags = {keys.DATABASE_TAG: spec.name}
    checks = health.health_checks(spec)
    exactness = verification.exactness_check(spec)
    mirror_job = dg.define_asset_job(
        keys.mirror_job(spec),
        # without the checks that others hang onto these tables: they run when a table has landed
        selection=dg.AssetSelection.assets(
            *(key for chunk in chunks for key in chunk.keys)
        ).without_checks()
        | dg.AssetSelection.checks(*(key for chunk in chunks for key in chunk.check_keys)),
        partitions_def=DAILY,
        tags=tags | pods.run_tags(spec, environment),
        executor_def=pods.executor(spec, environment),
        description=f"Mirrors every table of {spec.name} for one day.",
    )
    health_job = dg.define_asset_job(
        keys.health_job(spec),
        selection=dg.AssetSelection.checks(checks),
        tags=tags,
        description=f"Is {spec.name} fresh, and does its catalog miss a table?",
    )
    verify_job = dg.define_asset_job(
        keys.verify_job(spec),
        selection=dg.AssetSelection.checks(exactness),
        tags=tags,
        description=f"Is a day of {spec.name} exactly what the source held? Config: partition,"
        " tables, against (auto, source, export, digests).",
    )
    start = sensors.fallback_schedule(spec) if is_vendor else sensors.live_schedule(spec)
    return dg.Definitions(
        assets=[*chunks, health.completeness_asset(spec)],
        asset_checks=[checks, exactness],
        jobs=[mirror_job, health_job, verify_job],
        schedules=[start, sensors.health_schedule(spec)],
        sensors=[
            *([sensors.refresh_sensor(spec)] if is_vendor else []),
            sensors.health_sensor(spec, mirror_job, health_job),
        ],
    )
