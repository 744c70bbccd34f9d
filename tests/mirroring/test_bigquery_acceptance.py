"""The acceptance of a real project, run against the double: complete, repeatable, tidy."""

from __future__ import annotations

import pytest

from benchmarks import bigquery_acceptance as acceptance
from tests.conftest import CloudStorage
from tests.fakes.bigquery import Fault, bigquery


def test_the_acceptance_passes_twice_and_leaves_nothing(
    cloud_storage: CloudStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    place = cloud_storage.bucket()
    with bigquery() as double:
        url = f"bigquery:{double.project}?location=US&endpoint={double.url}"
        for _time in range(2):
            assert acceptance.main(["--warehouse", url, "--lake", f"{place}/lake"]) == 0, (
                capsys.readouterr().out
            )
        assert double.datasets == {}
        assert double.wrong == []
    assert cloud_storage.objects(place) == {}
    told = capsys.readouterr().out
    assert "FAIL" not in told
    assert told.count("ok ") == 2 * 17


def test_a_step_that_fails_is_told_and_the_others_go_on(
    cloud_storage: CloudStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    place = cloud_storage.bucket()
    with bigquery() as double:
        double.faults.append(Fault("POST", "/jobs$", 400, "invalid", in_job=True, body="nan"))
        url = f"bigquery:{double.project}?location=US&endpoint={double.url}"
        assert acceptance.main(["--warehouse", url, "--lake", f"{place}/lake"]) == 1
        assert double.datasets == {}
    told = capsys.readouterr().out
    assert "FAIL  nan arrives: load of mirror_acceptance.nan" in told
    assert told.endswith("not accepted: nan arrives\n")
