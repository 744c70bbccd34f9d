"""Catalog -> one multi-asset per chunk: every table its own asset, with one inline check."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.orchestration import pods
from mirror_assets.orchestration.retries import decide_retry
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.partitions import DAILY, day_of
from mirror_assets.settings import Environment

Results = Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]


def table_spec(spec: DatabaseSpec, table: TableSpec) -> dg.AssetSpec:
    """The asset of one mirrored table."""
    source = spec.entry.description or spec.name
    described = table.description or f"Table `{table.name}` of {source}"
    return dg.AssetSpec(
        key=keys.table_key(spec, table),
        group_name=spec.name,
        description=f"{described}, one partition per UTC day of the source's state.",
        kinds=keys.kinds(spec),
        owners=keys.owners(spec),
        tags={keys.DATABASE_TAG: spec.name},
        metadata={
            "dagster/table_name": keys.table_name(spec, table),
            "latest_view": f"{spec.dataset}.{spec.view_name(table.name)}",
            "primary_key": ", ".join(table.primary_key) or "as at the source",
        },
        partitions_def=DAILY,
        skippable=True,
    )


def coverage_check(spec: DatabaseSpec, table: TableSpec) -> dg.AssetCheckSpec:
    """The SLI of one table; blocking, so nothing downstream starts on a table that failed it."""
    return dg.AssetCheckSpec(
        keys.COVERAGE_CHECK,
        asset=keys.table_key(spec, table),
        blocking=True,
        description="Source rows = loaded + rejected; rejects within what the catalog allows;"
        " no shrinking, no breaking schema change.",
    )


def chunk_assets(
    spec: DatabaseSpec, number: int, environment: Environment = "local"
) -> dg.AssetsDefinition:
    """One step that mirrors up to ``chunk_size`` tables of a database."""
    chunk = spec.chunks[number]

    @dg.multi_asset(
        name=f"{spec.name}_chunk_{number:03}",
        specs=[table_spec(spec, table) for table in chunk],
        check_specs=[coverage_check(spec, table) for table in chunk],
        can_subset=True,
        # One result of a range run would mark every day materialized, a refused one included.
        backfill_policy=dg.BackfillPolicy.multi_run(1),
        pool=f"mirror_{spec.name}",
        op_tags={keys.DATABASE_TAG: spec.name, **pods.step_tags(spec, environment)},
    )
    def mirror_chunk(context: dg.AssetExecutionContext, mirror: MirrorResource) -> Results:
        partition = day_of(_only_partition(context))
        wanted = context.selected_asset_keys
        tables = [table for table in chunk if keys.table_key(spec, table) in wanted]
        agree = pods.agreement(context)
        try:
            reports = mirror.publish(
                spec,
                tables,
                tables if agree else _selected_in_run(context, spec),
                partition=partition,
                run_id=context.run_id,
                accept_volume=_accepted(context),
                agree=agree,
            )
        except MirrorError as error:
            decide_retry(context, [error])
            raise dg.Failure(
                str(error), metadata=keys.error_metadata(error), allow_retries=False
            ) from None
        for report in reports:
            _log(context, report)
            yield from _results(spec, report)
        _raise_failures(context, reports)

    return mirror_chunk


def _only_partition(context: dg.AssetExecutionContext) -> str:
    found: Sequence[str] = context.partition_keys
    if len(found) != 1:
        raise _failure(
            f"a mirror run takes one partition, this one was given {len(found)}."
            " Next: launch the range as a backfill (one run per day).",
            transient=False,
        )
    return found[0]


def _selected_in_run(context: dg.AssetExecutionContext, spec: DatabaseSpec) -> list[TableSpec]:
    """The database's tables that this run materializes, over all chunks, in order."""
    selected = context.job_def.asset_layer.executable_asset_keys
    return [table for table in spec.tables if keys.table_key(spec, table) in selected]


def _accepted(context: dg.AssetExecutionContext) -> frozenset[str]:
    text = context.run_tags.get(keys.ACCEPT_VOLUME_TAG, "")
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _log(context: dg.AssetExecutionContext, report: TableReport) -> None:
    if report.set_aside:
        context.log.warning(report.set_aside)
    if report.error is not None:
        context.log.error(f"not published: {report.error.sentence}")
    elif report.rejected:
        context.log.warning(
            f"{report.database}/{report.table.name}: {report.rejected} rows rejected,"
            f" {report.allowed} allowed: `mirror errors {report.database}"
            f" --partition {report.partition}`"
        )


def _results(spec: DatabaseSpec, report: TableReport) -> Results:
    key = keys.table_key(spec, report.table)
    check = dg.AssetCheckResult(
        asset_key=key,
        check_name=keys.COVERAGE_CHECK,
        passed=report.published,
        severity=dg.AssetCheckSeverity.ERROR,
        description=report.error.sentence if report.error else None,
        metadata=keys.check_metadata(report),
    )
    if report.published:
        # "materialized" means "published": a refused table yields its failed check alone
        yield dg.MaterializeResult(
            asset_key=key, metadata=keys.table_metadata(report), check_results=[check]
        )
    else:
        yield check


def _raise_failures(context: dg.AssetExecutionContext, reports: Sequence[TableReport]) -> None:
    errors = {r.table.name: r.error for r in reports if r.error is not None}
    if not errors:
        return
    decide_retry(context, list(errors.values()))
    lines = "\n".join(f"- {error.sentence}" for error in errors.values())
    raise _failure(
        f"{len(errors)} of {len(reports)} tables were not published, the others were:\n{lines}",
        transient=any(error.transient for error in errors.values()),
    )


def _failure(text: str, *, transient: bool) -> dg.Failure:
    return dg.Failure(description=text, metadata={"cured_by_retry": transient}, allow_retries=False)
