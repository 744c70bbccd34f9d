"""The table of contents of the product: everything Dagster loads, from the catalogs."""

from __future__ import annotations

import warnings

import dagster as dg

from mirror_assets import configuration, keys
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
    graph = dg.Definitions.merge(
        build_definitions(settings),
        elation.definitions(settings, databases),
        commons.definitions(settings, databases),
        dbt_models.definitions(),
        dg.Definitions(sensors=[automation_sensor()]),
    )
    due = dg.Definitions(sensors=[deadline_sensor(_due(graph))])
    in_bigquery = settings.warehouse_url.startswith("bigquery:")
    return dg.Definitions.merge(_shown_in_bigquery(graph) if in_bigquery else graph, due)


def _shown_in_bigquery(definitions: dg.Definitions) -> dg.Definitions:
    """The graph with the warehouse's own badge on what is kept in it."""
    with warnings.catch_warnings():  # the method's previews are pinned with Dagster's version
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return definitions.map_asset_specs(
            func=lambda spec: spec.replace_attributes(
                kinds={"bigquery" if kind == "duckdb" else kind for kind in spec.kinds}
            )
        )


def _due(definitions: dg.Definitions) -> list[dg.AssetKey]:
    """What the care teams wait for in the morning, where it is configured."""
    known = {
        key
        for asset in definitions.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for key in asset.keys
    }
    return [key for key in (keys.ENCOUNTERS, commons.CACHE) if key in known]


def load() -> dg.Definitions:
    """The graph of this environment. Raises SettingsError naming all that is missing or wrong."""
    settings, faults = configuration.check()
    refuse(faults)
    return build(settings)


defs = load()
