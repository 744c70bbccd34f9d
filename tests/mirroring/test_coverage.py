"""The SLI arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mirror_assets.mirroring import coverage

NOW = datetime(2021, 1, 19, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("loaded", "rejected", "expected"),
    [(990, 10, 99.0), (3, 0, 100.0), (0, 7, 0.0), (0, 0, None), (2, 1, 66.6667)],
)
def test_coverage_is_percent_with_four_decimals(
    loaded: int, rejected: int, expected: float | None
) -> None:
    assert coverage.coverage(loaded, rejected) == expected


@pytest.mark.parametrize(
    ("loaded", "rejected", "allowed", "expected"),
    [(8, 2, 2, 100.0), (8, 2, 5, 100.0), (7, 3, 2, 90.0), (7, 3, 0, 70.0), (0, 0, 0, 100.0)],
)
def test_allowed_rejects_count_as_loaded(
    loaded: int, rejected: int, allowed: int, expected: float
) -> None:
    assert coverage.allowed_coverage(loaded, rejected, allowed) == expected


def test_one_bad_row_of_three_million_is_not_full_coverage() -> None:
    assert coverage.allowed_coverage(2_999_999, 1, 0) < 100
    assert coverage.allowed_coverage(2_999_999, 1, 1) == 100


def test_freshness_is_the_mean_in_hours() -> None:
    modified = [NOW - timedelta(hours=2), NOW - timedelta(hours=4)]
    assert coverage.freshness(NOW, modified) == 3.0
    assert coverage.freshness(NOW, iter([])) is None


def test_age_does_not_wrap_at_a_day() -> None:
    assert coverage.age(NOW, NOW - timedelta(hours=30)) == 30.0
    assert coverage.age(NOW, NOW - timedelta(minutes=20)) == 0.33
    assert coverage.age(NOW, None) is None
