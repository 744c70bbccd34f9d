"""Where rows come from. ``open_source`` picks the adapter for a catalog's kind."""

from __future__ import annotations

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.sources.common import parsed

__all__ = ["Source", "open_source", "parsed"]


def open_source(spec: DatabaseSpec, url: str) -> Source:
    """The source of a database at a SQLAlchemy URL; nothing is connected yet."""
    # imported here: nobody waits for the driver of a server that is not mirrored
    if spec.entry.kind == "postgresql":
        from mirror_assets.mirroring.sources.postgres import PostgresSource

        return PostgresSource(spec, url)
    from mirror_assets.mirroring.sources.mysql import MySQLSource

    return MySQLSource(spec, url)
