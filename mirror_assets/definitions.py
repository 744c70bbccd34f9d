"""The table of contents of the product: everything Dagster loads, from the catalogs."""

from __future__ import annotations

import dagster as dg

from mirror_assets import configuration
from mirror_assets.commons import assets as commons
from mirror_assets.elation import assets as elation
from mirror_assets.orchestration import dbt_models
from mirror_assets.orchestration.alerts.sensors import deadline_sensor
from mirror_assets.orchestration.automation import automation_sensor
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.settings import Settings
from mirror_assets.settings.environment import refuse


def build(settings: Settings) -> dg.Definitions:
    """The mirrors, and what hangs off them."""
    databases = settings.databases()
    found = dg.Definitions.merge(
        build_definitions(settings),
        elation.definitions(settings, databases),
        commons.definitions(settings, databases),
        dbt_models.definitions(),
        dg.Definitions(sensors=[automation_sensor()]),
    )
    return dg.Definitions.merge(found, dg.Definitions(sensors=[deadline_sensor(_due(found))]))


def _due(definitions: dg.Definitions) -> list[dg.AssetKey]:
    """What the care teams wait for in the morning, where it is configured."""
    known = {
        key
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for key in asset.keys
    }
    return [key for key in (elation.ENCOUNTERS, commons.CACHE) if key in known]


def load() -> dg.Definitions:
    """The graph of this environment. Raises SettingsError naming all that is missing or wrong."""
    settings, faults = configuration.check()
    refuse(faults)
    return build(settings)


defs = load()
