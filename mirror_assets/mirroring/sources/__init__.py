"""Where rows come from. ``open_source`` picks the adapter for a catalog's kind."""

from __future__ import annotations

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources.address import Address
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.sources.common import parsed
from mirror_assets.mirroring.sources.tls import secured, shown_tls
from mirror_assets.mirroring.sources.tunnel import Tunnel, TunneledSource

__all__ = ["Address", "Source", "Tunnel", "open_source", "parsed", "secured", "shown_tls"]


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
