"""Checks on a database as a whole: is the newest day fresh, and does the catalog miss a table?

They also write the age and freshness SLIs, and turn the run red when the data is stale, so that
the alert goes out.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring import health
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.orchestration.session import MirrorResource


def completeness_asset(spec: DatabaseSpec) -> dg.AssetSpec:
    """The table that says which days of a database are whole. Written with every chunk."""
    return dg.AssetSpec(
        key=keys.control_key(spec),
        deps=[keys.table_key(spec, table) for table in spec.tables],
        group_name=spec.name,
        description=f"One row per day of {spec.name}: what is published, of which refresh.",
        kinds={"duckdb"},
        owners=keys.owners(spec),
        metadata={"dagster/table_name": f"{spec.dataset}.MIRROR_COMPLETENESS"},
    )


def health_checks(spec: DatabaseSpec) -> dg.AssetChecksDefinition:
    """One freshness check and one catalog check per database."""
    key = keys.control_key(spec)

    @dg.multi_asset_check(
        name=f"{spec.name}_health_checks",
        specs=[
            dg.AssetCheckSpec(
                keys.FRESHNESS_CHECK,
                asset=key,
                description=f"The newest whole day is at most {spec.entry.freshness_hours:g} hours"
                " old, and today's refresh has landed by the fallback hour.",
            ),
            dg.AssetCheckSpec(
                keys.CATALOG_CHECK,
                asset=key,
                description="Every table at the source is mirrored or excluded on purpose, every"
                " catalogued one is there, and none was altered alone since the refresh.",
            ),
        ],
        pool=f"health_{spec.name}",
    )
    def run_checks(
        context: dg.AssetCheckExecutionContext, mirror: MirrorResource
    ) -> Iterator[dg.AssetCheckResult]:
        now = datetime.now(UTC)
        try:
            source_view = health.look_at_source(spec, mirror.source(spec), now)
        except MirrorError as error:
            source_view = health.SourceView.unreachable(error.sentence)
        freshness = health.freshness(spec, mirror.warehouse, source_view, now)
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=keys.FRESHNESS_CHECK,
            passed=freshness.fresh,
            severity=dg.AssetCheckSeverity.ERROR,
            description=freshness.sentence,
            metadata=_metadata(freshness.facts),
        )
        yield dg.AssetCheckResult(
            asset_key=key,
            check_name=keys.CATALOG_CHECK,
            passed=source_view.catalog_complete,
            severity=dg.AssetCheckSeverity.WARN,
            description=source_view.sentence,
            metadata=_metadata(source_view.facts),
        )
        if not freshness.fresh:
            context.log.error(freshness.sentence)
            raise dg.Failure(description=freshness.sentence, allow_retries=False)

    return run_checks


def _metadata(facts: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, datetime):
            shown[name] = dg.MetadataValue.timestamp(value)
        elif isinstance(value, date):
            shown[name] = dg.MetadataValue.text(value.isoformat())
        elif value is not None:
            shown[name] = value
    return shown
