"""The table of contents of the product: everything Dagster loads, from the catalogs."""

from __future__ import annotations

import dagster as dg

from mirror_assets import configuration
from mirror_assets.commons import assets as commons
from mirror_assets.elation import assets as elation
from mirror_assets.orchestration import dbt_models
from mirror_assets.orchestration.automation import automation_sensor
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.settings import Settings, refuse


def build(settings: Settings) -> dg.Definitions:
    """The mirrors, and what hangs off them."""
    databases = settings.databases()
    return dg.Definitions.merge(
        build_definitions(settings),
        elation.definitions(settings, databases),
        commons.definitions(settings, databases),
        dbt_models.definitions(),
        dg.Definitions(sensors=[automation_sensor()]),
    )


def load() -> dg.Definitions:
    """The graph of this environment. Raises SettingsError naming all that is missing or wrong."""
    settings, faults = configuration.check()
    refuse(faults)
    return build(settings)


defs = load()
