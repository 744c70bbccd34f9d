"""The step of an asset downstream of the mirrors: one day, our errors, a retry where it helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, at_edge
from mirror_assets.mirroring.inputs import Tables
from mirror_assets.orchestration.automation import when_inputs_land
from mirror_assets.orchestration.retries import decide_retry
from mirror_assets.partitions import DAILY, day_of, key_of

#: Both kinds of steps can fail, and their runs be tried again.
StepContext = dg.AssetExecutionContext | dg.AssetCheckExecutionContext
#: Steps that write into the warehouse: as many at once as dagster.yaml allows, beside mirrors.
POOL = "downstream"


def input_keys(databases: Sequence[DatabaseSpec], tables: Tables) -> list[dg.AssetKey]:
    """The assets of mirrored tables, where catalogued; a run names those that are not."""
    specs = {spec.name: spec for spec in databases}
    return [
        keys.table_key(specs[database], table)
        for database, wanted in tables.items()
        if database in specs
        for table in specs[database].tables
        if table.name in wanted
    ]


def daily(
    *,
    key: dg.AssetKey,
    deps: Sequence[dg.AssetKey],
    description: str,
    group: str,
    kinds: set[str],
    as_of: frozenset[str] = frozenset(),
    metadata: Mapping[str, Any] | None = None,
    pool: str = POOL,
    has_dry_runs: bool = False,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorates the step of one daily asset, which starts by itself when its inputs have landed.

    One that ``has_dry_runs`` yields its result, or ``plan``s and yields nothing.
    """
    return dg.asset(
        key=key,
        deps=list(deps),
        description=description,
        group_name=group,
        kinds=kinds,
        owners=["team:platform"],
        partitions_def=DAILY,
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        automation_condition=when_inputs_land(as_of),
        metadata=dict(metadata or {}),
        pool=pool,
        output_required=not has_dry_runs,
    )


@contextmanager
def step(context: dg.AssetExecutionContext, where: str = "") -> Iterator[date]:
    """The day of a run; errors leave as a failure that says what, where and what next."""
    found = context.partition_keys
    if len(found) != 1:
        raise dg.Failure(
            f"this asset takes one partition, the run was given {len(found)}. Next: launch the"
            " range as a backfill (one run per day)",
            allow_retries=False,
        )
    where = where or context.asset_key.to_user_string()
    try:
        yield day_of(found[0])
    except dg.Failure:
        raise
    except Exception as error:
        raise failure(context, at_edge(error, where)) from None


def plan(context: dg.AssetExecutionContext, day: date, figures: Mapping[str, Any]) -> None:
    """Show what a dry run found beside the asset. Nothing was made, so nothing starts after it."""
    context.log_event(
        dg.AssetObservation(context.asset_key, partition=key_of(day), metadata=figures)
    )


def failure(
    context: StepContext, error: MirrorError, figures: Mapping[str, Any] | None = None
) -> dg.Failure:
    """An error as a failed step, its one bit told to the daemon that retries runs; ``figures``
    are what the step had counted by then.
    """
    decide_retry(context, [error])
    return dg.Failure(
        description=error.sentence,
        metadata={**(figures or {}), **keys.error_metadata(error)},
        allow_retries=False,
    )
