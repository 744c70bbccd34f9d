"""Runs that are over, read from the Dagster instance as plain facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.orchestration.alerts.findings import Check, Ended, Failure, Made

_Type = dg.DagsterEventType
_OUTCOMES = {
    dg.DagsterRunStatus.SUCCESS: "success",
    dg.DagsterRunStatus.FAILURE: "failure",
    dg.DagsterRunStatus.CANCELED: "canceled",
}
_WANTED = {
    _Type.STEP_FAILURE,
    _Type.STEP_SUCCESS,
    _Type.ASSET_MATERIALIZATION,
    _Type.ASSET_MATERIALIZATION_PLANNED,
    _Type.ASSET_CHECK_EVALUATION,
}
_PARTITION = "dagster/partition"
_WILL_RETRY = "dagster/will_retry"
_RETRY_NUMBER = "dagster/retry_number"


def changed_since(
    instance: dg.DagsterInstance, since: datetime, until: datetime, limit: int
) -> list[dg.RunRecord]:
    """The first runs that are over and were changed after ``since``, by their end or by a tag."""
    wanted = dg.RunsFilter(
        statuses=list(_OUTCOMES), updated_after=since, updated_before=until + timedelta(seconds=1)
    )
    return list(
        instance.get_run_records(wanted, limit=limit, order_by="update_timestamp", ascending=True)
    )


def ended_before(record: dg.RunRecord, since: datetime) -> bool:
    """Whether it is an old run: a tag that is added to one makes it look new."""
    return record.end_time is not None and record.end_time < since.timestamp()


def ended(instance: dg.DagsterInstance, record: dg.RunRecord) -> Ended:
    """What a run left behind."""
    run = record.dagster_run
    partition = run.tags.get(_PARTITION, "")
    failures: dict[str, Failure] = {}
    succeeded: set[str] = set()
    planned: dict[str, list[str]] = defaultdict(list)
    made: list[Made] = []
    checks: list[Check] = []
    for entry in instance.all_logs(run.run_id, of_type=_WANTED):
        event = entry.dagster_event
        if event is None:
            continue
        step = event.step_key or ""
        match event.event_type:
            case _Type.STEP_FAILURE:
                failures[step] = _failure(event)
            case _Type.STEP_SUCCESS:
                succeeded.add(step)
            case _Type.ASSET_MATERIALIZATION_PLANNED if event.asset_key:
                planned[step].append(event.asset_key.to_user_string())
            case _Type.ASSET_MATERIALIZATION if event.asset_key:
                materialization = event.step_materialization_data.materialization
                made.append(
                    Made(
                        event.asset_key.to_user_string(),
                        _plain(materialization.metadata),
                        materialization.partition or partition,
                    )
                )
            case _Type.ASSET_CHECK_EVALUATION:
                checks.append(_check(event, step, partition))
            case _:
                pass
    at = record.end_time or record.update_timestamp.timestamp()
    return Ended(
        run_id=run.run_id,
        job="assets" if run.job_name.startswith("__ASSET_JOB") else run.job_name,
        outcome=_OUTCOMES[run.status],
        database=run.tags.get(keys.DATABASE_TAG, ""),
        partition=partition,
        day=datetime.fromtimestamp(at, UTC).date(),
        will_retry=run.tags.get(_WILL_RETRY) == "true",
        is_retry=int(run.tags.get(_RETRY_NUMBER, "0")) > 0,
        failures=failures,
        succeeded=frozenset(succeeded),
        planned=planned,
        made=made,
        checks=checks,
    )


def newest_days(
    instance: dg.DagsterInstance, assets: Iterable[dg.AssetKey]
) -> dict[str, str | None]:
    """The newest materialized partition of each asset."""
    return {
        key.to_user_string(): max(instance.get_materialized_partitions(key), default=None)
        for key in assets
    }


def _failure(event: dg.DagsterEvent) -> Failure:
    data = event.step_failure_data
    own, error = data.user_failure_data, data.error
    while error and error.cause:  # Dagster wraps what a step raises
        error = error.cause
    return Failure(_plain(own.metadata) if own else {}, (error and error.cls_name) or "")


def _check(event: dg.DagsterEvent, step: str, partition: str) -> Check:
    evaluation = event.asset_check_evaluation_data
    return Check(
        asset=evaluation.asset_key.to_user_string(),
        name=evaluation.check_name,
        passed=evaluation.passed,
        warning=evaluation.severity == dg.AssetCheckSeverity.WARN,
        description=evaluation.description or "",
        metadata=_plain(evaluation.metadata),
        step=step,
        partition=partition,
    )


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in metadata.items()}
