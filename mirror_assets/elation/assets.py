"""What hangs off the Elation mirror: encounters, the firewall before the posts, measure posts."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.delivery.ledger import LedgerStore, PostgresLedger
from mirror_assets.elation import encounters, firewall, quality_measures
from mirror_assets.elation.encounters import fhir
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.inputs import Inputs
from mirror_assets.orchestration.downstream import daily, failure, input_keys, plan, step
from mirror_assets.orchestration.session import MirrorResource
from mirror_assets.settings import Settings

GROUP = "elation_downstream"
FIREWALL = dg.AssetKey(["elation", "app_engine_firewall"])
MEASURES = dg.AssetKey(["elation", "quality_measures"])

_TABLE = f"{encounters.DATASET}.{encounters.TABLE}"
#: Mirrored at other hours than Elation: who a member or a user is, as it is known by then.
AS_OF = frozenset({"member_index", "commons"})


class EncounterConfig(dg.Config):
    """Options of one run."""

    accept_loss: bool = False  #: let more than half of all documents become empty


class MeasureConfig(dg.Config):
    """Options of one run."""

    dry_run: bool = False  #: count only: send nothing, remember nothing
    resend_all: bool = False  #: send unchanged members too


class FirewallConfig(dg.Config):
    """Options of one run."""

    dry_run: bool = False  #: say the plan only


def definitions(settings: Settings, databases: Sequence[DatabaseSpec]) -> dg.Definitions:
    """What hangs off Elation; posts and firewall only where a service or an app is configured."""
    walls = firewall.settings_of(settings.variables)
    upstream = [FIREWALL] if walls else []
    assets = [_encounters(databases)]
    if settings.names_measures():
        assets.append(_measures(databases, upstream))
    if walls:
        assets.append(_firewall(walls, databases))
    return dg.Definitions(assets=assets)


def _encounters(databases: Sequence[DatabaseSpec]) -> dg.AssetsDefinition:
    @daily(
        key=keys.ENCOUNTERS,
        deps=input_keys(databases, encounters.READ),
        as_of=AS_OF,
        group=GROUP,
        kinds={"duckdb", "json"},
        description="Elation's notes of known members as encounters: one row per note in"
        f" `{_TABLE}`, one JSON document per member in object storage, written only when"
        " it changed. Run again: nothing is written twice.",
        metadata={
            "dagster/table_name": _TABLE,
            "latest_view": f"{encounters.DATASET}.{encounters.VIEW}",
        },
    )
    def patient_encounters(
        context: dg.AssetExecutionContext, config: EncounterConfig, mirror: MirrorResource
    ) -> dg.MaterializeResult[Any]:
        with step(context) as day:
            read = mirror.inputs(day, encounters.READ, AS_OF)
            counts = encounters.publish(read)
            store = encounters.DocumentStore(mirror.settings.documents_url)
            loss = config.accept_loss
            written = encounters.write(store, encounters.documents, read, accept_loss=loss)
            bundles = _bundles(mirror.settings, read, accept_loss=loss)
            context.log.info(
                f"{counts['encounters']} encounters of {counts['members']} members;"
                f" {counts['notes_without_member']} notes without a known member"
            )
            return dg.MaterializeResult(
                metadata={
                    "dagster/partition_row_count": counts["encounters"],
                    **counts,
                    "documents_written": written.written + written.emptied,
                    "documents_unchanged": written.unchanged,
                    "documents_emptied": written.emptied,
                    **bundles,
                    **_changed(written),
                    "superseded_by": str(written.superseded_by or ""),
                    "members_as_of": str(read.days["member_index", "member"]),
                    "source_instant": dg.MetadataValue.timestamp(read.recorded_at),
                }
            )

    return patient_encounters


def _changed(written: encounters.Written) -> dict[str, Any]:
    """When a document last changed, which readers compare with what they read last: a run that was
    killed before it could tell what it had written leaves nothing to write to the next.
    """
    if written.changed_at is None:
        return {}
    return {keys.DOCUMENTS_CHANGED: dg.MetadataValue.timestamp(written.changed_at)}


def _bundles(settings: Settings, read: Inputs, *, accept_loss: bool) -> dict[str, int]:
    """The documents as FHIR bundles, where they are asked for; what was done, as metadata."""
    if not settings.fhir:
        return {}
    store = fhir.store(settings.documents_url)
    written = encounters.write(store, fhir.bundles, read, accept_loss=accept_loss)
    return {
        "bundles_written": written.written + written.emptied,
        "bundles_unchanged": written.unchanged,
    }


def _firewall(
    walls: Sequence[firewall.FirewallSettings], databases: Sequence[DatabaseSpec]
) -> dg.AssetsDefinition:
    @daily(
        key=FIREWALL,
        deps=input_keys(databases, {"elation": ("visit_note",)}),
        group=GROUP,
        kinds={"googlecloud", "kubernetes"},
        description="Lets the cluster's external addresses through the services' App Engine"
        " firewall, so that the posts after it arrive.",
        has_dry_runs=True,
    )
    def app_engine_firewall(
        context: dg.AssetExecutionContext, config: FirewallConfig
    ) -> Iterator[dg.MaterializeResult[Any]]:
        with step(context) as day:
            reports = [
                firewall.update(wall, dry_run=config.dry_run, say=context.log.info)
                for wall in walls
            ]
            lines = (line for report in reports for line in report.lines)
            figures: dict[str, Any] = {
                "apps": len(walls),
                "added": sum(report.added for report in reports),
                "patched": sum(report.patched for report in reports),
                "removed": sum(report.removed for report in reports),
                "unchanged": sum(report.unchanged for report in reports),
                "plan": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines)),
            }
            if config.dry_run:
                plan(context, day, figures)
                return
            yield dg.MaterializeResult(metadata=figures)

    return app_engine_firewall


def _measures(
    databases: Sequence[DatabaseSpec], upstream: Sequence[dg.AssetKey]
) -> dg.AssetsDefinition:
    @daily(
        key=MEASURES,
        deps=[*input_keys(databases, quality_measures.TABLES), *upstream],
        as_of=AS_OF,
        group=GROUP,
        kinds={"http"},
        description="Tags, bills and lab results of signed documents as statuses of quality"
        " measures, one post per member. The delivery ledger knows who changed: a second run posts"
        " nothing, a killed one goes on where it was, an old day is not posted.",
        metadata={"ledger": f"{quality_measures.LEDGER_DATASET}.*"},
        pool="quality_measure_service",
        has_dry_runs=True,
    )
    def elation_quality_measures(
        context: dg.AssetExecutionContext, config: MeasureConfig, mirror: MirrorResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        with step(context) as day:
            read = mirror.inputs(day, quality_measures.TABLES, AS_OF)
            feed = measure_feed(mirror.settings, config)
            with _ledger(mirror) as ledger:
                report = quality_measures.deliver(
                    mirror.warehouse,
                    read.relation,
                    feed,
                    ledger,
                    partition=day,
                    run_id=context.run_id,
                )
            context.log.info(report.sentence)
            metadata: dict[str, Any] = {
                "members": report.recipients,
                "measures": report.elements,
                "posted": report.posted,
                "unchanged": report.unchanged,
                "refused": report.refused,
                "not_tried": report.pending,
                "by_status": report.by_status,
                "reasons": report.reasons,
                "p50_ms": report.p50_ms or 0.0,
                "p95_ms": report.p95_ms or 0.0,
                "seconds": round(report.seconds, 3),
                "superseded_by": str(report.newer or ""),
            }
            if error := quality_measures.fault(report):
                context.log.error(report.sentence)
                raise failure(context, error, metadata)
            if config.dry_run:
                plan(context, day, metadata)
                return
            yield dg.MaterializeResult(metadata=metadata)

    return elation_quality_measures


@contextmanager
def _ledger(mirror: MirrorResource) -> Iterator[LedgerStore]:
    url = mirror.settings.ledger_url()
    if url is None:
        yield quality_measures.warehouse_ledger(mirror.warehouse)
        return
    with closing(PostgresLedger(url)) as ledger:
        yield ledger


def measure_feed(settings: Settings, config: MeasureConfig) -> quality_measures.Feed:
    """Where and how measures are posted. Raises SettingsError while no service is configured."""
    url, key = settings.measures_url(), settings.measures_key()
    if url is None or key is None:
        missing = "MIRROR_MEASURES_URL" if url is None else "MIRROR_MEASURES_KEY_FILE"
        raise SettingsError(
            "no quality-measure service is configured",
            where=missing,
            remedy="set MIRROR_MEASURES_URL, and MIRROR_MEASURES_KEY_FILE to a file of mode 0400",
        )
    return quality_measures.Feed(
        url,
        key,
        connections=settings.measures_connections,
        per_second=settings.measures_per_second,
        dry_run=config.dry_run,
        resend_all=config.resend_all,
    )
