"""What hangs off the mirrors, on BigQuery and Cloud Storage as on the lake of a laptop."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import pytest

from mirror_assets.keys import ENCOUNTERS
from mirror_assets.orchestration import dbt_models
from tests.conftest import CloudStorage
from tests.fakes.bigquery import bigquery
from tests.orchestration.conftest import Samples
from tests.orchestration.test_downstream_runs import MEASURES, TEXTS, World

COUNTED = {
    ENCOUNTERS: ("encounters", "members", "notes_without_member", "documents_written"),
    MEASURES: ("members", "measures", "posted", "unchanged", "refused"),
    TEXTS: ("dagster/partition_row_count",),
}


def made(world: World) -> dict[str, Any]:
    """What a run of the assets counted."""
    run = world.execute(dg.AssetSelection.assets(*COUNTED))
    assert run.success, run.failures
    told = {key: world.told(key) for key in COUNTED}
    return {f"{key.path[-1]}: {name}": told[key][name] for key in COUNTED for name in COUNTED[key]}


def mirror(world: World) -> None:
    """Today's partition of the tables that the assets read, and of no others."""
    wanted = dg.AssetSelection.assets(*COUNTED)
    run = world.execute(wanted.upstream(depth=1) - wanted)
    assert run.success, run.failures


@pytest.mark.slow
def test_encounters_texts_and_posts_are_those_of_the_lake_and_done_once(
    samples: Samples,
    cloud_storage: CloudStorage,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dbt_models, "definitions", dg.Definitions)
    time.sleep(1.7)  # CREATE_TIME counts seconds, and the wait is 0.6 of one
    lake = World(instance, samples.vendor)
    mirror(lake)
    ours = made(lake)

    place = cloud_storage.bucket()
    with bigquery() as double:
        for name, value in {
            "MIRROR_WAREHOUSE": f"bigquery:{double.project}?endpoint={double.url}",
            "MIRROR_LAKE": f"{place}/lake",
            "MIRROR_LANDING": f"{place}/landing",
            "MIRROR_DOCUMENTS": f"{place}/documents",
            **cloud_storage.variables,
        }.items():
            monkeypatch.setenv(name, value)
        cloud = World(instance, samples.vendor)
        mirror(cloud)

        assert made(cloud) == ours
        written = cloud_storage.objects(f"{place}/documents")
        assert len(written) >= ours["patient_encounters: members"] > 0
        assert ours["quality_measures: posted"] == ours["quality_measures: members"] > 0

        again = made(cloud)
        assert again["patient_encounters: documents_written"] == 0
        assert again["quality_measures: posted"] == 0
        assert again["quality_measures: unchanged"] == ours["quality_measures: members"]
        assert cloud_storage.objects(f"{place}/documents") == written
        assert double.wrong == []
