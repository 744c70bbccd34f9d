"""Restored copies of databases that killed runs left behind: they cost, and hold health data."""

from __future__ import annotations

from functools import partial

import dagster as dg

from mirror_assets.mirroring.errors import at_edge
from mirror_assets.orchestration.alerts.findings import Finding, leftovers_unseen
from mirror_assets.orchestration.alerts.findings import leftovers as alerts_of
from mirror_assets.orchestration.alerts.sensors import LEFTOVERS, report, reported
from mirror_assets.settings import Settings, backups

_REMEDY = "docs/operations.md, `A copy was left behind`"
_SECONDS_BETWEEN_LOOKS = 900
_NOT_OVER = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def leftover_sensor() -> dg.SensorDefinition:
    """Removes leftover copies and says which; its tick fails when one cannot be removed."""

    @dg.sensor(
        name=LEFTOVERS,
        # it launches nothing: what it has done is in its log and its tick
        minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Removes restored copies of databases whose run is gone, once they are older"
        " than the catalog's `leftover_hours`.",
    )
    def sweep(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        removed, wrong = _sweep(context)
        if wrong:
            raise dg.Failure("; ".join(wrong), allow_retries=False)
        return dg.SkipReason(
            f"removed {', '.join(removed)}" if removed else "no copy was left behind"
        )

    return sweep


def _sweep(context: dg.SensorEvaluationContext) -> tuple[list[str], list[str]]:
    """Sweep every database, and tell people of what is still there; what was removed, and what
    went wrong. What cannot be looked at is as it was.
    """
    settings = Settings.from_env()
    removed: list[str] = []
    wrong: list[str] = []
    told: list[Finding] = []
    for spec, hours in backups.restored(settings):
        try:
            swept = backups.sweep_leftovers(settings, spec, partial(_is_running, context))
        except Exception as error:  # of one database: the others are looked at
            fault = at_edge(error, spec.name)
            wrong.append(f"leftover copies of {spec.name} cannot be looked for: {fault.sentence}")
            told += _still_known(context, spec.name)
            told.append(leftovers_unseen(spec.name, fault.what, remedy=fault.remedy or _REMEDY))
            continue
        removed += [handle for handle, fault in swept.items() if fault is None]
        stuck = {handle: fault for handle, fault in swept.items() if fault is not None}
        wrong += [f"{handle} could not be removed: {e.sentence}" for handle, e in stuck.items()]
        told += alerts_of(spec.name, stuck, hours=hours, remedy=_REMEDY)
    for handle in removed:
        context.log.warning(f"removed the leftover copy {handle}")
    report(context.instance, LEFTOVERS, told)
    return removed, wrong


def _still_known(context: dg.SensorEvaluationContext, database: str) -> list[Finding]:
    """What the last look at a database found."""
    try:
        known = reported(context.instance, LEFTOVERS) or ()
    except ValueError:
        return []  # of another release
    return [found for found in known if (found.kind, found.scope) == ("leftovers", database)]


def _is_running(context: dg.SensorEvaluationContext, mark: str) -> bool:
    """Whether a run that is not over has an id that begins so. Run monitoring ends dead ones."""
    runs = context.instance.get_runs(dg.RunsFilter(statuses=_NOT_OVER))
    return any(run.run_id.startswith(mark) for run in runs)
