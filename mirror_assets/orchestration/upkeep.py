"""Daily upkeep: retention of exports, partitions, snapshots and of what is made from the mirrors;
sweeping what nothing refers to.
"""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg

from mirror_assets import keys
from mirror_assets.delivery import ledger
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.names import PARTITION_COLUMN
from mirror_assets.mirroring.retention import Copies, Step, expire, expire_copies
from mirror_assets.mirroring.scratch import sweep_scratch
from mirror_assets.mirroring.warehouses import Warehouse
from mirror_assets.orchestration import dbt_manifest, dbt_sources
from mirror_assets.settings import Settings

UPKEEP_JOB = "upkeep"


def run_upkeep(settings: Settings, warehouse: Warehouse, now: datetime) -> dict[str, int]:
    """Expire and sweep everything that has had its time; what was done.

    A part that fails does not stop the others; its error is raised when they are done.
    """
    further: dict[str, Step] = {"refusals": partial(_expire_refusals, settings, warehouse, now)}
    if settings.derived_days is not None:
        oldest = (now - timedelta(days=settings.derived_days)).date()
        further["derived tables"] = lambda: {
            "derived_tables_shortened": expire_copies(copies(), warehouse, oldest)
        }
    done = expire(settings.databases(), settings.landing(), warehouse, now=now, further=further)
    done["scratch_folders_swept"] = sweep_scratch(settings.scratch)
    return done


def copies() -> list[Copies]:
    """Every table that holds one copy per day of something made from the mirrors."""
    encounters = [
        Copies("medical", table.name, PARTITION_COLUMN) for table in dbt_sources.DERIVED["medical"]
    ]
    return [*encounters, *dbt_manifest.copies()]


def _expire_refusals(settings: Settings, warehouse: Warehouse, now: datetime) -> dict[str, int]:
    oldest = (now - timedelta(days=ledger.REFUSAL_DAYS)).date()
    url = settings.ledger_url()
    if url is None:
        ledger.WarehouseLedger(warehouse, ledger.DATASET, {}).forget_refusals(oldest)
        return {}
    with closing(ledger.PostgresLedger(url)) as store:
        store.forget_refusals(oldest)
    return {}


def upkeep_job() -> dg.JobDefinition:
    """A job of one op; deletes only what retention says."""

    @dg.op(name="expire_and_sweep")
    def run(context: dg.OpExecutionContext) -> None:
        settings = Settings.from_env()
        warehouse = settings.warehouse()
        try:
            done = run_upkeep(settings, warehouse, datetime.now(UTC))
        except MirrorError as error:
            raise dg.Failure(error.sentence, metadata=keys.error_metadata(error)) from None
        finally:
            warehouse.close()
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
