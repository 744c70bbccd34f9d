"""What the pods of a run tell each other by the run's tags."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from mirror_assets.keys import REFRESH_TAG
from mirror_assets.mirroring.errors import RefreshLanded
from mirror_assets.orchestration import pods

FIRST, SECOND = (datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (4, 5))


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.add_run(dg.DagsterRun("clinic_mirror", tags={REFRESH_TAG: FIRST.isoformat()}))


def tags(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return dict(found.tags)


def test_pods_of_a_run_copy_the_refresh_that_it_was_started_for(
    instance: dg.DagsterInstance, run: dg.DagsterRun
) -> None:
    pods._agree(instance, run.run_id, FIRST)
    with pytest.raises(RefreshLanded):
        pods._agree(instance, run.run_id, SECOND)


@pytest.mark.parametrize(("found", "other"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_retry_copies_the_refresh_that_it_finds_and_no_other(
    instance: dg.DagsterInstance, run: dg.DagsterRun, found: datetime, other: datetime
) -> None:
    retry = instance.add_run(
        dg.DagsterRun(
            "clinic_mirror", tags=run.tags, root_run_id=run.run_id, parent_run_id=run.run_id
        )
    )
    for _ in range(2):
        pods._agree(instance, retry.run_id, found)
    assert tags(instance, retry)[REFRESH_TAG] == found.isoformat()
    with pytest.raises(RefreshLanded):
        pods._agree(instance, retry.run_id, other)
