"""What every source does alike: its URL, its mirrored columns, and its errors as ours."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from mirror_assets.mirroring import names, types
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import (
    MirrorError,
    RefreshLanded,
    SettingsError,
    SourceFault,
    SourceLocked,
    SourceUnavailable,
)
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.types import SourceColumn


def parsed(url: str, database: str, example: str) -> URL:
    """The URL; SQLAlchemy's own errors may quote its password."""
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "the database URL cannot be read",
            where=f"database {database}",
            remedy=f"write {example} and percent-encode special characters of the password",
        ) from None


def mirrored(
    spec: DatabaseSpec,
    table: TableSpec,
    found: Sequence[SourceColumn] | None,
    primary_key: tuple[str, ...],
) -> TableSchema:
    """The schema of a table whose columns at the source are ``found`` (None: there is no such
    table). Raises SourceFault, CatalogError, UnsupportedType.
    """
    where = f"{spec.name}/{table.name}"
    if found is None:
        raise SourceFault(
            "the source has no such table, or the login may not read it",
            where=where,
            remedy="check the table's name in the catalog and GRANT SELECT on the schema; take it"
            " out of the catalog if it is gone for good",
        )
    named = {*table.exclude_columns, *table.masked_columns, *table.columns}
    unknown = named - {c.name for c in found}
    if unknown:
        raise SourceFault(
            f"the catalog names column {sorted(unknown)[0]!r}, which is not there",
            where=where,
            remedy="correct the table's entry in the catalog",
        )
    kept = [column for column in found if column.name not in table.exclude_columns]
    if not kept:
        raise SourceFault(
            "the catalog excludes every column" if found else "the table has no column",
            where=where,
            remedy="keep one column, or leave the table out",
        )
    names.check_columns(where, (column.name for column in kept))
    columns = tuple(_column(spec, where, table, column) for column in kept)
    return TableSchema(columns, table.primary_key or primary_key)


def _column(spec: DatabaseSpec, where: str, table: TableSpec, column: SourceColumn) -> Column:
    if column.name in table.masked_columns:
        return Column(column.name, f"masked {column.full_type}", types.STRING, not column.nullable)
    declared = table.declared_type(column.name, column.data_type)
    return types.column_of(spec.entry.kind, where, column, spec.types, declared)


def denied(shown: str, where: str) -> MirrorError:
    return SourceFault(
        f"access denied ({shown})",
        where=where,
        remedy="check the login in <NAME>_DATABASE_URL and GRANT SELECT on the schema",
    )


def untrusted(shown: str, where: str) -> MirrorError:
    return SourceFault(
        f"TLS failed: the server has none, or a certificate that is not its own ({shown})",
        where=where,
        remedy="name its authority in the URL (`ssl_ca`, `sslrootcert`); a vendor without a"
        " certificate needs `tls: unverified` in the catalog",
    )


def unavailable(shown: str, where: str) -> MirrorError:
    return SourceUnavailable(
        f"the connection failed or was cut ({shown})",
        where=where,
        remedy="try again; if it lasts, check the host, the tunnel and the vendor's status",
    )


def locked(shown: str, where: str, seconds: int) -> MirrorError:
    return SourceLocked(
        f"somebody held a lock on it for longer than the {seconds} seconds we wait ({shown})",
        where=where,
        remedy="the run is tried again; if it lasts, find the session that locks the table",
    )


def changed(how: str, where: str) -> MirrorError:
    """``how`` completes the sentence `the table ..`."""
    return RefreshLanded(
        f"the table {how}",
        where=where,
        remedy="nothing was published; the run is tried again on the new state",
    )


def refused(shown: str, where: str) -> MirrorError:
    return SourceFault(
        f"the server refused the statement ({shown})",
        where=where,
        remedy="look the code up in the server's manual; other tables are not affected",
    )
