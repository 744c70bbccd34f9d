"""A run whose chunks several processes copy: all of them must copy the same refresh."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from mirror_assets.mirroring.errors import RefreshLanded

if TYPE_CHECKING:
    from tests.conftest import Bench


@pytest.fixture
def shared(bench: Bench) -> Bench:
    bench.run("CREATE TABLE a (id int)", "INSERT INTO a VALUES (1)", "CREATE TABLE b (id int)")
    bench.catalog(["a", "b"], volume=0)
    return bench


class Others:
    """The other processes of a run: they agree for a while."""

    def __init__(self, agree_times: int) -> None:
        self.told: list[datetime] = []
        self._agree_times = agree_times

    def __call__(self, refresh: datetime) -> None:
        self.told.append(refresh)
        if len(self.told) > self._agree_times:
            raise RefreshLanded("the others copy another refresh")


def test_tables_of_an_agreed_refresh_are_published_as_one_refresh(shared: Bench) -> None:
    spec = shared.settings.database("clinic")
    others = Others(agree_times=2)
    reports = shared.mirror_day(spec, agree=others)
    assert all(report.published for report in reports.values())
    assert shared.rows("a", "id") == [(1,)]
    assert set(others.told) == {reports["a"].refreshed_at}
    assert len(others.told) == 2  # before the first table, and before anything is published
    told = shared.rows("MIRROR_METADATA", "DISTINCT snapshot")
    assert told == [("one refresh",)]


@pytest.mark.parametrize("agree_times", [0, 1], ids=["at the start", "while copying"])
def test_nothing_of_another_refresh_is_published(shared: Bench, agree_times: int) -> None:
    spec = shared.settings.database("clinic")
    reports = shared.mirror_day(spec, agree=Others(agree_times))
    for report in reports.values():
        assert not report.published
        assert isinstance(report.error, RefreshLanded)
        assert report.error.transient
    assert shared.errors('"table", kind') == [("a", "refresh_landed"), ("b", "refresh_landed")]
    assert shared.rows("MIRROR_COMPLETENESS", "complete, missing_tables") == [(False, "a, b")]
    assert all(report.published for report in shared.mirror_day(spec).values())
