"""Where rows come from. ``open_source`` picks the adapter for a catalog's kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.sources.address import Address
from mirror_assets.mirroring.sources.base import Copy, Provider, Source
from mirror_assets.mirroring.sources.common import parsed
from mirror_assets.mirroring.sources.exported import ExportJob, Files, JoinedSource
from mirror_assets.mirroring.sources.tls import secured, shown_tls
from mirror_assets.mirroring.sources.tunnel import Tunnel, TunneledSource

__all__ = [
    "Address",
    "Copy",
    "ExportJob",
    "Files",
    "Provider",
    "Source",
    "Tunnel",
    "join",
    "leftovers",
    "open_backup",
    "open_source",
    "parsed",
    "secured",
    "shown_tls",
    "sweep",
]


def open_source(spec: DatabaseSpec, address: str | Address) -> Source:
    """The source of a database at an address, or a SQLAlchemy URL; nothing is connected yet."""
    if isinstance(address, str):
        address = Address(address)
    url = secured(spec, address.url)
    if address.tunnel is None:
        return _adapter(spec, url)
    there = Address(url, address.tunnel)
    return TunneledSource(address.tunnel, lambda port: _adapter(spec, there.at(port)))


def _adapter(spec: DatabaseSpec, url: str) -> Source:
    # imported here: nobody waits for the driver of a server that is not mirrored
    if spec.entry.kind == "postgresql":
        from mirror_assets.mirroring.sources.postgres import PostgresSource

        return PostgresSource(spec, url)
    from mirror_assets.mirroring.sources.mysql import MySQLSource

    return MySQLSource(spec, url)


def open_backup(spec: DatabaseSpec, provider: Provider, run_id: str = "") -> Source:
    """The source of a database that is read from a backup; nothing is made yet."""
    from mirror_assets.mirroring.sources.backup import BackupSource

    return BackupSource(spec, provider, run_id)


def join(spec: DatabaseSpec, source: Source, files: Files, job: ExportJob | None) -> Source:
    """A source with the tables that its application exports as files."""
    return JoinedSource(spec, source, files, job)


def leftovers(spec: DatabaseSpec, provider: Provider, now: datetime) -> list[Copy]:
    """Copies that killed runs left behind."""
    from mirror_assets.mirroring.sources import backup

    return backup.leftovers(spec, provider, now)


def sweep(
    spec: DatabaseSpec, provider: Provider, now: datetime, is_running: Callable[[str], bool]
) -> dict[str, MirrorError | None]:
    """Remove them: by handle, None or why one is still there."""
    from mirror_assets.mirroring.sources import backup

    return backup.sweep(spec, provider, now, is_running)
