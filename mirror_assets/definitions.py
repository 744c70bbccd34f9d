"""The table of contents of the product: everything Dagster loads, from the catalogs."""

from __future__ import annotations

from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.settings import Settings

defs = build_definitions(Settings.from_env())
