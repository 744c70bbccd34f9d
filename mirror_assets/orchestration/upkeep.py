"""Daily upkeep: retention of exports, partitions and snapshots; sweeping what nothing refers to."""

from datetime import UTC, datetime

import dagster as dg

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.retention import expire
from mirror_assets.settings import Settings, sweep_scratch

UPKEEP_JOB = "upkeep"


def upkeep_job(databases: tuple[DatabaseSpec, ...]) -> dg.JobDefinition:
    """A job of one op; deletes only what the catalogs' retention says."""

    @dg.op(name="expire_and_sweep")
    def run(context: dg.OpExecutionContext) -> None:
        settings = Settings.from_env()
        warehouse = settings.warehouse()
        try:
            done = expire(databases, settings.landing(), warehouse, now=datetime.now(UTC))
        finally:
            warehouse.close()
        done["scratch_folders_swept"] = sweep_scratch(settings.scratch)
        context.add_output_metadata(
            {name: dg.IntMetadataValue(count) for name, count in done.items()}
        )
        context.log.info(", ".join(f"{count} {name}" for name, count in done.items()))

    @dg.job(name=UPKEEP_JOB, description="Expires exports, partitions and snapshots by retention.")
    def upkeep() -> None:
        run()

    return upkeep


def upkeep_schedule() -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="upkeep_schedule",
        job_name=UPKEEP_JOB,
        cron_schedule="30 11 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Runs upkeep outside the hours of the mirrors.",
    )
