"""Whole mirrors with landing zone and lake in Cloud Storage; no row stays on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from mirror_assets.cli import main
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import StorageRefused
from mirror_assets.mirroring.proof.verify import verifier
from mirror_assets.sample.servers import MariaDB
from tests.conftest import Bench, start
from tests.fakes.cloud_storage import CloudStorage, Fault, FaultyStorage

CANARY = "canary-of-a-patient"


class CloudBench(Bench):
    """A bench whose files lie in Cloud Storage."""

    def __init__(
        self, place: str, storage: CloudStorage, server: MariaDB, root: Path, extensions: Path
    ) -> None:
        self.place = place
        self.storage = storage
        schema = place.removeprefix("gs://").replace("-", "_")
        server.create_database(schema)
        server.create_reader(schema)
        super().__init__(server, root, schema, extensions)

    @property
    def variables(self) -> dict[str, str]:
        return (
            super().variables
            | self.storage.variables
            | {
                "MIRROR_LANDING": f"{self.place}/landing",
                "MIRROR_LAKE": f"{self.place}/lake",
                "MIRROR_DOCUMENTS": f"{self.place}/documents",
                "MIRROR_PART_MB": "1",
            }
        )

    def fill(self, rows: int) -> DatabaseSpec:
        """A table of about 1 KB a row, each with a canary."""
        self.run(
            "CREATE TABLE visit (id int PRIMARY KEY, note text)",
            "INSERT INTO visit SELECT seq, concat(seq, ' ', repeat('x', 1000), "
            f"'{CANARY}') FROM seq_1_to_{rows}",
        )
        return self.catalog(["visit"])

    def rows_on_disk(self) -> list[Path]:
        """Files below the bench that hold a row, as text or in Parquet."""
        return [
            path
            for path in self.root.rglob("*")
            if path.is_file()
            and "catalogs" not in path.parts
            and (CANARY.encode() in path.read_bytes() or path.suffix in (".csv", ".parquet"))
        ]


@pytest.fixture
def cloud(
    maria: MariaDB, cloud_storage: CloudStorage, tmp_path: Path, extensions: Path
) -> Iterator[CloudBench]:
    made = CloudBench(cloud_storage.bucket(), cloud_storage, maria, tmp_path, extensions)
    yield made
    made.close()
    made.run(f"DROP DATABASE `{made.schema}`")


def test_a_day_is_mirrored_replayed_and_proved_without_a_row_on_disk(cloud: CloudBench) -> None:
    spec = cloud.fill(4_000)
    day = cloud.day(spec)

    first = cloud.mirror_day(spec)["visit"]
    again = cloud.mirror_day(spec)["visit"]

    assert (first.published, first.loaded, first.replayed) == (True, 4_000, False)
    assert (again.published, again.loaded, again.replayed) == (True, 4_000, True)
    assert first.export.startswith(f"{cloud.place}/landing/clinic/")
    assert cloud.rows("visit_latest", "count(*), max(id)") == [(4_000, 4_000)]
    exported = cloud.storage.objects(f"{cloud.place}/landing")
    assert sum(name.endswith(".csv") for name in exported) == 3
    assert sum(name.endswith(".manifest.json") for name in exported) == 1
    source = cloud.source(spec)
    with verifier(
        *(spec, lambda: source, cloud.landing, cloud.warehouse), partition=day, against="export"
    ) as proof:
        [proved] = proof.verify([spec.table("visit")])
    assert proved.proven
    assert cloud.rows_on_disk() == []
    cloud.close()
    assert list((cloud.root / "scratch").iterdir()) == []


def test_the_commands_look_at_the_buckets_rule_and_set_it(
    cloud: CloudBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.fill(1)
    for name, value in (cloud.variables | {"MIRROR_DATABASES": "clinic"}).items():
        monkeypatch.setenv(name, value)

    assert "no rule deletes exports" in CliRunner().invoke(main, ["doctor"]).output
    set_ = CliRunner().invoke(main, ["lifecycle"])
    assert (set_.exit_code, "now deleted after 2 days" in set_.output) == (0, True)
    assert "exports are deleted after 2 days" in CliRunner().invoke(main, ["doctor"]).output


@pytest.mark.parametrize("zone", ["landing", "lake"])
def test_a_refused_upload_fails_its_table_and_leaves_no_row_on_disk(
    cloud: CloudBench, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    spec = cloud.fill(3_000)
    faulty = FaultyStorage(cloud.storage, Fault(403, f"POST /upload.*name={zone}", times=99))
    with faulty.serve() as url, monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        report = cloud.mirror_day(spec)["visit"]

    assert isinstance(report.error, StorageRefused)
    assert "HTTP 403" in report.error.what
    assert f"MIRROR_{zone.upper()}" in report.error.remedy
    assert CANARY not in str(report.error)
    assert cloud.rows_on_disk() == []
    cloud.close()
    assert list((cloud.root / "scratch").iterdir()) == []
    assert cloud.mirror_day(spec)["visit"].published


def test_a_killed_mirror_leaves_nothing_that_counts_and_no_row_after_the_next(
    cloud: CloudBench,
) -> None:
    spec = cloud.fill(30_000)
    child = cloud.child(cloud.day(spec), "killed")
    start(child)
    deadline = time.monotonic() + 60
    scratch = cloud.root / "scratch"
    while not list(scratch.rglob("*.csv")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    child.communicate()
    assert [path for path in scratch.iterdir() if path.suffix == ".lock"] != []

    report = cloud.mirror_day(spec)["visit"]

    assert (report.published, report.loaded) == (True, 30_000)
    assert cloud.rows("visit_latest", "count(*)") == [(30_000,)]
    assert cloud.rows_on_disk() == []
    cloud.close()
    with suppress(FileNotFoundError):
        assert list(scratch.iterdir()) == []
