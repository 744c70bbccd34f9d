"""A plugin of dbt-duckdb: dbt reads and writes a lake's files where the mirror does."""

from __future__ import annotations

import os

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

from mirror_assets.mirroring.storage import lake
from mirror_assets.mirroring.warehouses.ducklake import serve_remote


class Plugin(BasePlugin):
    """Named by ``dbt_project/profiles.yml``; dbt calls it before it attaches the lake."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        serve_remote(conn, lake(os.environ.get("MIRROR_LAKE", "")))
