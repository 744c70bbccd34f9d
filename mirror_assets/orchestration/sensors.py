"""When to mirror: the refresh sensor, the fallback and live schedules, and the health schedule.

Each looks at one cheap catalogue query or a control table; none touches rows.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring import control, refresh
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.refresh import RefreshState
from mirror_assets.mirroring.sources import open_source
from mirror_assets.partitions import day_of, key_of
from mirror_assets.settings import Settings
from mirror_assets.settings.connections import address

_SECONDS_BETWEEN_LOOKS = 60
#: What ``define_asset_job`` returns; Dagster exports no name for it.
AssetJob = Any


def refresh_sensor(spec: DatabaseSpec) -> dg.SensorDefinition:
    """Fires once per complete refresh, for the refresh's own day."""

    @dg.sensor(
        name=f"{spec.name}_refresh_sensor",
        job_name=keys.mirror_job(spec),
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Mirrors {spec.name} once whenever its vendor's refresh is complete.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        try:
            state = _refresh_now(spec)
        except MirrorError as error:
            return dg.SkipReason(error.sentence)
        if state.instant is None:
            return dg.SkipReason(state.reason)
        instant = state.instant.isoformat()
        if context.cursor and instant <= context.cursor:
            altered = f"; altered alone since: {', '.join(state.altered)}" if state.altered else ""
            return dg.SkipReason(f"the refresh of {instant} was already requested{altered}")
        context.update_cursor(instant)
        if _is_mirrored(spec, state.instant):
            return dg.SkipReason(f"the refresh of {instant} is mirrored already")
        return _refresh_request(spec, state.instant)

    return look


def fallback_schedule(spec: DatabaseSpec) -> dg.ScheduleDefinition:
    """Mirrors a refresh that the sensor missed; does nothing when it is mirrored or never came.

    A refresh that never came is the health schedule's alert, at the same hour.
    """

    @dg.schedule(
        name=f"{spec.name}_fallback",
        job_name=keys.mirror_job(spec),
        cron_schedule=list(spec.entry.refresh.cron),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Mirrors today's refresh of {spec.name} if the sensor did not.",
    )
    def fall_back(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.astimezone(UTC).date()
        try:
            state = _refresh_now(spec)
        except MirrorError as error:
            return dg.SkipReason(error.sentence)
        if state.instant is None or state.day != today:
            landed = f"the last is of {state.instant:%Y-%m-%d %H:%M}" if state.instant else ""
            return dg.SkipReason(f"no complete refresh of {today}: {state.reason} {landed}")
        if _is_mirrored(spec, state.instant):
            return dg.SkipReason(f"the refresh of {state.instant.isoformat()} is mirrored")
        return _refresh_request(spec, state.instant)

    return fall_back


def live_schedule(spec: DatabaseSpec) -> dg.ScheduleDefinition:
    """Mirrors a live database at the catalog's hours, into the partition of that UTC day."""

    @dg.schedule(
        name=f"{spec.name}_schedule",
        job_name=keys.mirror_job(spec),
        cron_schedule=list(spec.entry.refresh.cron),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Mirrors {spec.name} as it is at that moment.",
    )
    def start(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        moment = context.scheduled_execution_time.astimezone(UTC)
        return dg.RunRequest(
            run_key=f"{spec.name} {moment.isoformat()}",
            partition_key=key_of(moment.date()),
            tags={keys.DATABASE_TAG: spec.name},
        )

    return start


def health_schedule(spec: DatabaseSpec) -> dg.ScheduleDefinition:
    """Looks at freshness and catalog at the fallback hour, when the day's data is due."""
    return dg.ScheduleDefinition(
        name=f"{spec.name}_health_schedule",
        job_name=keys.health_job(spec),
        cron_schedule=list(spec.entry.refresh.cron),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Raises the alert when {spec.name} is stale or its refresh never landed.",
    )


def health_sensor(
    spec: DatabaseSpec, mirror_job: AssetJob, health_job: AssetJob
) -> dg.SensorDefinition:
    """Looks at freshness and catalog again whenever a mirror run has ended well."""

    @dg.run_status_sensor(
        name=f"{spec.name}_health_sensor",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[mirror_job],
        request_job=health_job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Judges {spec.name} as a whole after each successful mirror run.",
    )
    def judge(context: dg.RunStatusSensorContext) -> dg.RunRequest:
        return dg.RunRequest(
            run_key=context.dagster_run.run_id, tags={keys.DATABASE_TAG: spec.name}
        )

    return judge


def _refresh_now(spec: DatabaseSpec) -> RefreshState:
    source = open_source(spec, address(Settings.from_env(), spec.name).at_once)
    return refresh.current(spec, source.states(), datetime.now(UTC))


def _refresh_request(spec: DatabaseSpec, instant: datetime) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{spec.name} {instant.isoformat()}",
        partition_key=key_of(instant.date()),
        tags={keys.DATABASE_TAG: spec.name, keys.REFRESH_TAG: instant.isoformat()},
    )


def _is_mirrored(spec: DatabaseSpec, instant: datetime) -> bool:
    """Whether every table of this very refresh is published."""
    warehouse = Settings.from_env().warehouse()
    try:
        rows = warehouse.query(
            f"SELECT refreshed_at FROM {spec.dataset}.{control.COMPLETENESS_VIEW}"
            f" WHERE complete AND partition = DATE '{day_of(key_of(instant.date()))}'"
        ).rows
    except MirrorError:
        return False  # nothing was ever mirrored
    finally:
        warehouse.close()
    return any(row[0] is not None and row[0] >= instant for row in rows)
