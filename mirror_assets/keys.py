"""Asset keys, groups, kinds, owners and ``dagster/*`` metadata: derived, never typed twice."""

import re
from typing import Any

import dagster as dg

from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.names import asset_name, warehouse_name
from mirror_assets.mirroring.schema import shown_type
from mirror_assets.mirroring.staged import TableReport

COVERAGE_CHECK = "row_count_coverage"
FRESHNESS_CHECK = "freshness"
CATALOG_CHECK = "catalog_complete"
EXACTNESS_CHECK = "exact"

DATABASE_TAG = "mirror/database"
REFRESH_TAG = "mirror/refresh"
ACCEPT_VOLUME_TAG = "mirror/accept_volume"

#: What Elation's notes become, which other domains and dbt read.
ENCOUNTERS = dg.AssetKey(["elation", "patient_encounters"])
#: Its metadata: when one of its documents last changed, by that run or an earlier one.
DOCUMENTS_CHANGED = "documents_changed_at"

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def table_key(spec: DatabaseSpec, table: TableSpec) -> dg.AssetKey:
    return dg.AssetKey([spec.name, asset_name(table.name)])


def text_key(spec: DatabaseSpec, table: TableSpec) -> dg.AssetKey:
    """The table with its Draft.js column as readable text."""
    return dg.AssetKey([spec.name, asset_name(table.text_name)])


def control_key(spec: DatabaseSpec) -> dg.AssetKey:
    """The database's completeness table, which carries the checks of the database as a whole."""
    return dg.AssetKey([spec.name, "MIRROR_COMPLETENESS"])


def table_name(spec: DatabaseSpec, table: TableSpec) -> str:
    return f"{spec.dataset}.{spec.storage_name(table.name)}"


def kinds(spec: DatabaseSpec) -> set[str]:
    return {spec.entry.kind, "duckdb"}


def owners(spec: DatabaseSpec) -> list[str]:
    owner = spec.entry.owner
    return [owner if owner.startswith("team:") or _EMAIL.fullmatch(owner) else f"team:{owner}"]


def mirror_job(spec: DatabaseSpec) -> str:
    return f"{spec.name}_mirror"


def health_job(spec: DatabaseSpec) -> str:
    return f"{spec.name}_health"


def verify_job(spec: DatabaseSpec) -> str:
    return f"{spec.name}_verify"


def table_metadata(report: TableReport) -> dict[str, Any]:
    """Metadata of one materialization; plain numbers become plots."""
    rate = report.source_rows / report.seconds if report.seconds else 0.0
    metadata: dict[str, Any] = {
        "dagster/row_count": report.loaded,
        "dagster/partition_row_count": report.loaded,
        "dagster/column_schema": _column_schema(report),
        "dagster/uri": report.export,
        "source_rows": report.source_rows,
        "rejected_rows": report.rejected,
        "coverage_percent": report.coverage if report.coverage is not None else 100.0,
        "seconds": round(report.seconds, 3),
        "rows_per_second": round(rate),
        "megabytes": round(report.bytes / 1e6, 3),
        "replayed_from_landing": report.replayed,
        "drift": report.drift,
    }
    if report.zero_dates_nulled:
        metadata["zero_dates_nulled"] = report.zero_dates_nulled
    if report.misfits_nulled:
        metadata["misfits_nulled"] = report.misfits_nulled
    if report.set_aside:
        metadata["set_aside"] = report.set_aside
    instant = report.refreshed_at or report.snapshot_at
    if instant:
        metadata["source_instant"] = dg.MetadataValue.timestamp(instant)
    return metadata


def check_metadata(report: TableReport) -> dict[str, Any]:
    """Metadata of one coverage check: what is missing, why, and what to do."""
    metadata: dict[str, Any] = {
        "coverage_percent": report.coverage if report.coverage is not None else 100.0,
        "source_rows": report.source_rows,
        "loaded_rows": report.loaded,
        "rejected_rows": report.rejected,
        "allowed_rejects": report.allowed,
        "drift": report.drift,
    }
    if report.reject_kinds:
        metadata["rejects"] = report.reject_kinds
        metadata["see_rows"] = f"mirror errors {report.database} --partition {report.partition}"
    if report.error is not None:
        metadata |= error_metadata(report.error)
    return metadata


def error_metadata(error: MirrorError) -> dict[str, Any]:
    """An error of ours on a failed check or step: alerts are made of it, and of nothing else."""
    return {
        "what": error.what,
        "next": error.remedy,
        "kind": error.kind,
        "cured_by_retry": error.transient,
    }


def _column_schema(report: TableReport) -> dg.TableSchema:
    columns = report.schema.columns if report.schema else ()
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=warehouse_name(column.name),
                type=str(column.type),
                description=shown_type(column.source_type),
                constraints=dg.TableColumnConstraints(nullable=not column.required),
            )
            for column in columns
        ]
    )
