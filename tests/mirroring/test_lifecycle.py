"""The rule that deletes exports in Cloud Storage, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from mirror_assets.mirroring import doctor, lifecycle
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.doctor import Finding
from mirror_assets.mirroring.errors import LandingFault, SettingsError
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.storage import Storage
from mirror_assets.settings import Settings
from tests.fakes.cloud_storage import CloudStorage, Fault, FaultyStorage

FOREIGN = {
    "action": {"type": "SetStorageClass", "storageClass": "NEARLINE"},
    "condition": {"age": 9},
}
OTHERS = {"action": {"type": "Delete"}, "condition": {"age": 30, "matchesPrefix": ["logs/"]}}
NONCURRENT = {"action": {"type": "Delete"}, "condition": {"numNewerVersions": 3, "isLive": False}}


@pytest.fixture
def bucket(cloud_storage: CloudStorage) -> str:
    return cloud_storage.bucket()


def rules(storage: CloudStorage, bucket: str) -> list[dict[str, Any]]:
    found = storage.request("GET", f"/storage/v1/b/{bucket.removeprefix('gs://')}")
    return list(found.get("lifecycle", {}).get("rule", ()))


def give(storage: CloudStorage, bucket: str, *given: dict[str, Any]) -> None:
    path = f"/storage/v1/b/{bucket.removeprefix('gs://')}"
    storage.request("PATCH", path, {"lifecycle": {"rule": list(given)}})


def rule(days: int, *prefixes: str) -> dict[str, Any]:
    condition: dict[str, Any] = {"age": days}
    if prefixes:
        condition["matchesPrefix"] = list(prefixes)
    return {"action": {"type": "Delete"}, "condition": condition}


def test_the_rule_is_set_once_replaces_ours_and_leaves_those_of_others(
    cloud_storage: CloudStorage, bucket: str
) -> None:
    landing = Storage(f"{bucket}/landing")
    others = {"the lake": f"{bucket}/lake", "the documents": "gs://elsewhere/landing"}
    give(cloud_storage, bucket, FOREIGN, OTHERS, NONCURRENT, rule(9, "landing/"))

    assert lifecycle.set_rule(landing, others, 2)
    assert not lifecycle.set_rule(landing, others, 2)

    assert rules(cloud_storage, bucket) == [FOREIGN, OTHERS, NONCURRENT, rule(2, "landing/")]
    seen = lifecycle.look(landing, others)
    assert (seen.days, seen.also, seen.kept_after) == (2, (), 7)


def test_a_bucket_of_its_own_needs_no_prefix(cloud_storage: CloudStorage, bucket: str) -> None:
    assert lifecycle.set_rule(Storage(bucket), {"the lake": "/a/folder"}, 2)
    assert rules(cloud_storage, bucket) == [rule(2)]
    assert lifecycle.look(Storage(bucket), {}).days == 2


@pytest.mark.parametrize("lake", ["", "/landing", "/landing/lake"])
def test_a_place_within_the_landing_zone_or_around_it_is_never_covered(
    cloud_storage: CloudStorage, bucket: str, lake: str
) -> None:
    with pytest.raises(SettingsError, match="the lake"):
        lifecycle.set_rule(Storage(f"{bucket}/landing"), {"the lake": bucket + lake}, 2)
    assert rules(cloud_storage, bucket) == []


def test_a_bucket_that_is_not_there_is_a_fault_with_its_place(cloud_storage: CloudStorage) -> None:
    landing = Storage("gs://no-such-bucket/landing")
    with pytest.raises(LandingFault, match="landing zone"):
        lifecycle.look(landing, {})


def _databases(*days: int | None) -> list[DatabaseSpec]:
    spec = Settings.from_env({}).database("elation")
    retention = spec.entry.retention
    return [
        spec.model_copy(
            update={
                "entry": spec.entry.model_copy(
                    update={"retention": retention.model_copy(update={"landing_days": kept})}
                )
            }
        )
        for kept in days
    ]


@pytest.mark.parametrize(
    ("given", "kept", "verdict", "words"),
    [
        ([rule(2, "landing/")], [2], "ok", "after 2 days, and kept for 7 more"),
        ([rule(5, "land")], [2, 5], "ok", "after 5 days"),
        ([OTHERS, NONCURRENT], [2], "warn", "no rule deletes exports"),
        ([rule(2, "landing/")], [2, 3], "fail", "keeps them for 3"),
        ([rule(2)], [2], "fail", "of the lake and the documents"),
        ([rule(2, "landing/", "lake/clinic")], [2], "fail", "files of the lake"),
        ([], [2, None], "ok", "for ever"),
    ],
)
def test_the_doctor_tells_what_the_rules_do(
    cloud_storage: CloudStorage,
    bucket: str,
    given: list[dict[str, Any]],
    kept: list[int | None],
    verdict: str,
    words: str,
) -> None:
    give(cloud_storage, bucket, *given)
    landing = Settings.from_env({"MIRROR_LANDING": f"{bucket}/landing"}).landing()

    found = _finding(landing, _databases(*kept), f"{bucket}/lake", f"{bucket}/documents")

    assert found.verdict == verdict
    assert words in found.found
    assert bool(found.next) == (verdict != "ok")


def test_the_doctor_writes_and_deletes_a_file_in_every_place(
    cloud_storage: CloudStorage, bucket: str
) -> None:
    assert _looked_at(bucket) == {"lake": "ok", "landing zone": "ok", "documents": "ok"}
    assert not cloud_storage.objects(bucket)


@pytest.mark.parametrize("request_", ["POST /upload", "DELETE /storage.*documents"])
def test_the_doctor_tells_where_files_cannot_be_written_or_deleted(
    cloud_storage: CloudStorage, bucket: str, monkeypatch: pytest.MonkeyPatch, request_: str
) -> None:
    faulty = FaultyStorage(cloud_storage, Fault(403, request_, times=99))
    with faulty.serve() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        found = _looked_at(bucket)
    everywhere = "fail" if request_.startswith("POST") else "ok"
    assert found == {"lake": everywhere, "landing zone": everywhere, "documents": "fail"}


def _looked_at(bucket: str) -> dict[str, str]:
    landing = Settings.from_env({"MIRROR_LANDING": f"{bucket}/landing"}).landing()
    findings = list(doctor._places(landing, f"{bucket}/lake", f"{bucket}/documents"))
    for finding in findings:
        refused = finding.verdict == "fail"
        assert ("lack a permission (HTTP 403)" in finding.found) == refused, finding
        assert ("roles/storage.objectUser" in finding.next) == refused
    return {finding.subject: finding.verdict for finding in findings}


def _finding(landing: Landing, databases: list[DatabaseSpec], lake: str, documents: str) -> Finding:
    return doctor._expiry(landing, databases, {"the lake": lake, "the documents": documents})
