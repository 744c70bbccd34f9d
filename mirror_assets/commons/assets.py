"""What hangs off the Commons mirror: readable notes, and the cache job of the care platform."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.commons import encounter_cache, transformed
from mirror_assets.commons.cache_settings import CacheSettings
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.orchestration.downstream import daily, step
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.settings import Settings

GROUP = "commons_downstream"
CACHE = dg.AssetKey(["commons", "ccd_encounter_cache"])
#: Another EHR's nightly batch, whose documents the same job reads; somebody reports it to Dagster.
SUMMARIES = dg.AssetKey(["redox", "clinical_summaries"])
#: Metadata of the cache: the documents that the job read, by when one of them last changed, and
#: whether it had the other EHR's summaries.
_READ, _COMPLETE = keys.DOCUMENTS_CHANGED, "data_complete"


class CacheConfig(dg.Config):
    """Options of one run."""

    run_anyway: bool = False  #: also when no document changed since the cache was last filled


@dataclass(frozen=True)
class Documents:
    """What the job is to read: ``encounters`` None when it read all there is; ``changed_at`` is
    when a document last changed (seconds since 1970), where that is known.
    """

    encounters: int | None
    changed_at: float | None


def definitions(settings: Settings, databases: Sequence[DatabaseSpec]) -> dg.Definitions:
    """A transform per table with a Draft.js column; the cache job, where one is configured."""
    texts = [
        text_asset(spec, table) for spec in databases for table in spec.tables if table.draftjs
    ]
    cache = CacheSettings.from_env(settings)
    if cache is None:
        return dg.Definitions(assets=texts)
    summaries = dg.AssetSpec(
        SUMMARIES,
        group_name=GROUP,
        description="Clinical summaries of the other EHR, written by its own batch. External:"
        " report its materialization when the batch is done.",
        kinds={"json"},
        owners=["team:platform"],
    )
    return dg.Definitions(assets=[*texts, summaries, _cache_asset(cache)])


def text_asset(spec: DatabaseSpec, table: TableSpec) -> dg.AssetsDefinition:
    """The readable form of one table."""
    source = keys.table_key(spec, table)
    name = transformed.name_of(table)

    @daily(
        key=keys.text_key(spec, table),
        deps=[source],
        group=GROUP,
        kinds={"duckdb"},
        description=f"`{table.name}` with `{table.draftjs}`, a Draft.js body, as Markdown in"
        " `text`. A broken body leaves its row without text and is listed in MIRROR_ERRORS.",
        metadata={
            "dagster/table_name": f"{spec.dataset}.{spec.storage_name(name)}",
            "latest_view": f"{spec.dataset}.{spec.view_name(name)}",
        },
    )
    def readable(
        context: dg.AssetExecutionContext, mirror: MirrorResource
    ) -> dg.MaterializeResult[Any]:
        with step(context) as day:
            read = mirror.inputs(day, {spec.name: (table.name,)})
            found = transformed.transform(mirror.warehouse, spec, table, read, context.run_id)
            if found.broken:
                context.log.warning(f"{found.broken.total()} bodies are broken, their text is NULL")
            return dg.MaterializeResult(
                metadata={
                    "dagster/partition_row_count": found.rows,
                    "broken_bodies": found.broken.total(),
                    "broken_by_kind": dict(found.broken),
                }
            )

    return readable


def _cache_asset(cache: CacheSettings) -> dg.AssetsDefinition:
    @daily(
        key=CACHE,
        deps=[keys.ENCOUNTERS, SUMMARIES],
        as_of=frozenset({GROUP}),
        group=GROUP,
        kinds={"postgres"},
        description="Runs Commons' own job over the encounter documents that changed. Its exit code"
        " is known to lie: the rows that appear decide.",
        metadata={"errors": dg.MetadataValue.url(cache.link(datetime.now(UTC)))},
        pool="commons_jobs",
    )
    def ccd_encounter_cache(
        context: dg.AssetExecutionContext, config: CacheConfig, mirror: MirrorResource
    ) -> dg.MaterializeResult[Any]:
        # a lock and not the pool's limit: it also holds for another instance, and for a terminal
        with step(context) as day, mirror.warehouse.alone("commons_jobs"):
            link = cache.link(datetime.now(UTC))
            shown: dict[str, dg.MetadataValue[Any]] = {"errors": dg.MetadataValue.url(link)}
            last = _metadata(context.instance.get_latest_materialization_event(CACHE))
            found = _documents(context, last, day, anyway=config.run_anyway)
            if found.changed_at is not None:
                shown[_READ] = dg.MetadataValue.timestamp(found.changed_at)
            if found.encounters is None:
                context.log.info("no document has changed since the cache was last filled")
                shown[_COMPLETE] = dg.MetadataValue.bool(last.get(_COMPLETE) is not False)
                nothing = {"rows_expected": 0, "rows_appeared": 0}
                return dg.MaterializeResult(metadata={**shown, **nothing})
            whole = encounter_cache.wait_for(
                lambda: _summaries_are_there(context, day),
                time.monotonic() + cache.wait_seconds,
                time.monotonic,
                time.sleep,
                every=min(60.0, max(0.1, cache.wait_seconds / 10)),
            )
            report = encounter_cache.fill_cache(
                cache.job,
                cache.table(mirror.settings),
                expected=found.encounters,
                seconds=cache.seconds,
                link=link,
                log=context.log.info,
                incomplete_upstream=not whole,
            )
            for warning in report.warnings:
                context.log.warning(warning)
            return dg.MaterializeResult(
                metadata={
                    **shown,
                    "rows_expected": report.expected,
                    "rows_appeared": report.appeared,
                    "exit_code": str(report.exit_code),
                    "seconds": report.seconds,
                    _COMPLETE: whole,
                }
            )

    return ccd_encounter_cache


def _documents(
    context: dg.AssetExecutionContext, last: Mapping[str, Any], day: date, *, anyway: bool
) -> Documents:
    """The documents that changed since the job last read them; all, where it lacked the summaries
    that are there by now. Which ones it read is told by their own mark, and not by when it ran:
    documents may be written while it runs.
    """
    told = _newest_encounters(context.instance)
    read = last.get(_READ)
    changed_at = told.get(keys.DOCUMENTS_CHANGED, read)
    late = last.get(_COMPLETE) is False and _summaries_are_there(context, day)
    wanted = anyway or late or changed_at != read
    return Documents(told.get("encounters") if wanted else None, changed_at)


def _newest_encounters(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What was last said of the encounters that the documents hold: a run for an older day, which
    wrote none, names the day they hold.
    """
    told = _metadata(instance.get_latest_materialization_event(keys.ENCOUNTERS))
    if not (held := told.get("superseded_by")):
        return told
    wanted = dg.AssetRecordsFilter(keys.ENCOUNTERS, asset_partitions=[held])
    records = instance.fetch_materializations(wanted, limit=1).records
    return _metadata(records[0].event_log_entry) if records else {}


def _metadata(event: dg.EventLogEntry | None) -> dict[str, Any]:
    """What a materialization said; nothing where there is none."""
    made = event.asset_materialization if event else None
    return {name: value.value for name, value in made.metadata.items()} if made else {}


def _summaries_are_there(context: dg.AssetExecutionContext, day: date) -> bool:
    """Whether the other EHR's batch was reported since the evening before the day, UTC."""
    event = context.instance.get_latest_materialization_event(SUMMARIES)
    began = datetime.combine(day, datetime.min.time(), UTC) - timedelta(hours=12)
    return event is not None and event.timestamp >= began.timestamp()
