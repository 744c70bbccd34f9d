"""Where mirrored tables live. ``open_warehouse`` picks the adapter for a URL."""

from __future__ import annotations

from pathlib import Path

from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.warehouses import bigquery
from mirror_assets.mirroring.warehouses.base import Warehouse
from mirror_assets.mirroring.warehouses.bigquery import BigQueryWarehouse
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from mirror_assets.mirroring.warehouses.lake_catalog import open_catalog

__all__ = ["Warehouse", "check_address", "open_warehouse"]


def open_warehouse(
    url: str,
    *,
    lake: str,
    extensions: Path,
    scratch: Path,
    memory: str,
    spill: str,
    password: str | None = None,
) -> Warehouse:
    """The warehouse at ``MIRROR_WAREHOUSE``; nothing is connected yet."""
    if url.startswith("ducklake:"):
        return DuckLakeWarehouse(
            url, lake, extensions, scratch=scratch, memory=memory, spill=spill, password=password
        )
    if url.startswith("bigquery:"):
        return BigQueryWarehouse(url, lake)
    raise _unknown(url)


def check_address(url: str, lake: str) -> None:
    """Raise SettingsError for a warehouse that cannot be opened. Connects to nothing."""
    if url.startswith("ducklake:"):
        open_catalog(url)
    elif url.startswith("bigquery:"):
        bigquery.check_address(url, lake)
    else:
        raise _unknown(url)


def _unknown(url: str) -> SettingsError:
    return SettingsError(
        f"no warehouse adapter for {url.split(':', 1)[0]!r}",
        where="MIRROR_WAREHOUSE",
        remedy="use ducklake:sqlite:<file>, ducklake:postgres:<address> or bigquery:<project>",
    )
