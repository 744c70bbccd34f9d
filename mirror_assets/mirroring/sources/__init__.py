"""Where rows come from. ``open_source`` picks the adapter for a catalog's kind."""

from __future__ import annotations

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.sources.common import parsed
from mirror_assets.mirroring.sources.mysql import MySQLSource
from mirror_assets.mirroring.sources.postgres import PostgresSource

__all__ = ["Source", "open_source", "parsed"]


def open_source(spec: DatabaseSpec, url: str) -> Source:
    """The source of a database at a SQLAlchemy URL; nothing is connected yet."""
    if spec.entry.kind == "postgresql":
        return PostgresSource(spec, url)
    return MySQLSource(spec, url)
