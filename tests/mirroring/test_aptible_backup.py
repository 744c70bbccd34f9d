"""A database read from a backup that Aptible restores, against a local double of the service."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, RunStopped, SettingsError
from mirror_assets.mirroring.sources import aptible as module
from mirror_assets.mirroring.sources import backup
from mirror_assets.mirroring.sources.aptible import AptibleProvider, AptibleUser
from mirror_assets.mirroring.sources.backup import BackupSource
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.sample.servers import PostgreSQL
from tests.conftest import ROOT, KindBench, utc_now
from tests.fakes.aptible import DATABASE_PASSWORD, PASSWORD, USER, Aptible, Faults, aptible

LIVE = "clinic-prod"
RULE = {"provider": "aptible", "handle": LIVE, "ready_minutes": 0.2}


@pytest.fixture(scope="module")
def service(postgres: PostgreSQL) -> Iterator[tuple[Aptible, str]]:
    """The service, and a live database in it."""
    name = "aptible_live"
    postgres.create_database(name)
    with closing(postgres.admin(name)) as admin, admin.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE patient (id int PRIMARY KEY, name text);"
            "INSERT INTO patient SELECT i, 'name ' || i FROM generate_series(1, 40) i;"
        )
    with aptible(postgres) as (state, url):
        state.add_database("other", "postgres")
        state.add_database("another", "postgres")
        state.add_database(LIVE, name)
        yield state, url


class Desk:
    """A bench whose database is restored by the service."""

    def __init__(self, bench: KindBench, state: Aptible, url: str) -> None:
        self.bench, self.state, self.url = bench, state, url
        self.spec: DatabaseSpec = bench.catalog(["patient"], backup=RULE)

    @property
    def keys(self) -> Path:
        return self.bench.root / "keys of ours"

    def ways(self) -> int:
        """How many clients forward to the portal's socket."""
        wanted = os.fsencode(self.state.root / "db.sock")
        found = 0
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = process.read_bytes().split(b"\0")
                found += words[0] == b"ssh" and any(word.endswith(wanted) for word in words)
        return found

    def provider(self, login: AptibleUser | None = None) -> AptibleProvider:
        return AptibleProvider(self.spec, login or self.state.login(self.url), self.keys, poll=0.01)

    def mirror(self, login: AptibleUser | None = None) -> TableReport:
        source = BackupSource(self.spec, self.provider(login))
        return self.bench.mirror_day(self.spec, source=source)["patient"]

    def error(self, login: AptibleUser | None = None) -> MirrorError:
        found = self.mirror(login).error
        assert found is not None
        return found

    @property
    def asked(self) -> list[tuple[str, str]]:
        """What operations were asked for, in order: of what, and the type."""
        return [(op["resource"][0], op["type"]) for op in self.state.operations.values()]


@pytest.fixture
def desk(
    pg_bench: KindBench,
    service: tuple[Aptible, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Desk]:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    state, url = service
    state.faults = Faults()
    state.operations.clear()
    state.backups.clear()
    state.requests.clear()
    state.credential_looks = 0
    yield Desk(pg_bench, state, url)
    for secret in (PASSWORD, DATABASE_PASSWORD, *state.tokens):
        assert secret not in caplog.text
    for number in [n for n, d in state.databases.items() if d["name"].startswith("restored_")]:
        state._deprovision({"resource": ("databases", number)})


def test_the_partition_holds_the_backup_that_our_operation_made(desk: Desk) -> None:
    taken_at = utc_now().replace(microsecond=123456) + timedelta(seconds=1)
    desk.state.faults.backup_at = taken_at
    report = desk.mirror()
    assert report.error is None
    assert (report.loaded, report.snapshot_at) == (40, taken_at)
    ours = next(op for op in desk.state.operations.values() if op["type"] == "backup")
    restored = next(op for op in desk.state.operations.values() if op["type"] == "restore")
    used = desk.state.backups[restored["resource"][1]]
    assert used["asked_by"] == ours["id"]
    assert next(reversed(desk.state.backups)) != used["id"], "not the first of the list"
    assert restored["body"]["container_size"] == 15_360
    handle = restored["body"]["handle"]
    assert backup.is_copy(handle, "clinic")
    assert handle.startswith(f"clinic-mirror-job-{utc_now():%Y%m%d}")
    kinds = [kind for _, kind in desk.asked]
    assert kinds == ["backup", "restore", "tunnel", "deprovision"]
    assert list(desk.keys.rglob("*")) == [], "no key is left on the disk"
    assert desk.state.handles == ["another", LIVE, "other"]


def test_the_catalogue_is_looked_at_without_a_backup(desk: Desk) -> None:
    assert set(BackupSource(desk.spec, desk.provider()).states()) == {"patient"}
    assert desk.asked == [("credentials", "tunnel")]


@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_an_operation_that_fails_leaves_no_copy(desk: Desk, kind: str) -> None:
    desk.state.faults.failing = {kind}
    error = desk.error()
    assert (error.kind, error.transient) == ("backup", True)
    assert f"the {kind} (operation" in error.what
    assert "aptible operation:logs" in error.remedy
    assert desk.state.handles == ["another", LIVE, "other"]


def test_a_restore_that_never_ends_is_cancelled_and_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.state.faults.lasting = {"restore"}
    desk.spec = desk.bench.catalog(["patient"], backup=RULE | {"ready_minutes": 0.02})
    assert "is running for longer than 0.02 minutes" in desk.error().what
    assert ("PUT", {"cancelled": True}) in [(m, b) for m, _, b in desk.state.requests]
    assert "is left behind: clinic: its restore is still under way" in caplog.text


def test_e_41_without_credentials_in_twenty_looks_it_fails_and_the_copy_is_removed(
    desk: Desk,
) -> None:
    desk.state.faults.without_credentials = True
    error = desk.error()
    assert "no credentials after 20 looks" in error.what
    assert desk.state.credential_looks == 20
    assert desk.state.handles == ["another", LIVE, "other"]
    assert desk.asked[-1] == ("databases", "deprovision")


def test_a_portal_with_another_host_key_is_refused(desk: Desk) -> None:
    desk.state.faults.wrong_host_key = True
    error = desk.error()
    assert (error.kind, error.transient) == ("ssh_refused", False)
    assert "does not show its known key" in error.what
    assert desk.state.handles == ["another", LIVE, "other"]


def test_a_portal_that_is_away_for_a_moment_does_not_cost_the_restore(desk: Desk) -> None:
    desk.state.faults.portal_away = 2
    assert desk.mirror().error is None
    assert [kind for _, kind in desk.asked] == [
        *("backup", "restore", "tunnel", "tunnel", "tunnel", "deprovision")
    ]


_HOLD = """
import sys, time
from pathlib import Path
from mirror_assets.mirroring.catalog import load
from mirror_assets.mirroring.sources.aptible import AptibleProvider, AptibleUser
catalog, url, user, password, scratch = sys.argv[1:]
spec = load(Path(catalog), lambda _database: None)
user = AptibleUser(user, password, api=url, auth=f"{url}/auth")
with AptibleProvider(spec, user, Path(scratch)).live():
    print("open", flush=True)
    time.sleep(60)
"""


def test_a_process_that_is_killed_leaves_no_way_to_the_database(desk: Desk) -> None:
    """Its ssh holds our token, and anybody on the machine could use its port."""
    arguments = [str(desk.spec.file), desk.url, USER, PASSWORD, str(desk.keys)]
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, *arguments], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        assert desk.ways() == 1
    finally:
        child.kill()
        child.communicate()
    deadline = time.monotonic() + 10
    while desk.ways():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_busy_answers_and_an_expired_token_pass(desk: Desk) -> None:
    desk.state.faults.statuses = {
        "POST /auth/tokens": [429, 503],
        "GET /databases": [500, 401],
        "GET /operations/N": [429, 502, 504],
        "POST /backups/N/operations": [429],
        "POST /databases/N/operations": [503],
    }
    assert desk.mirror().error is None
    assert not any(desk.state.faults.statuses.values())
    assert desk.state.handles == ["another", LIVE, "other"]


@pytest.mark.slow
def test_lost_answers_neither_mislead_nor_leave_a_copy(desk: Desk) -> None:
    """Each was heard, and what came again is refused: a handle is given once."""
    desk.state.faults.lost = {
        "POST /databases/N/operations": 1,
        "POST /backups/N/operations": 1,
    }
    report = desk.mirror()
    assert report.error is None
    assert [kind for _, kind in desk.asked] == [
        *("backup", "backup", "restore", "tunnel", "deprovision")
    ]
    assert desk.state.handles == ["another", LIVE, "other"]


@pytest.fixture
def silent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A service that hears the restore and answers neither to it nor to a look for it."""
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    desk.state.faults.lost = {"POST /backups/N/operations": 1}
    desk.state.faults.statuses = {"GET /backups/N/operations": [503]}
    return desk


def test_a_restore_whose_answer_was_lost_is_cancelled(
    silent: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    silent.state.faults.waiting = {"restore"}
    error = silent.error()
    assert (error.kind, error.transient) == ("backup", True)
    (restore,) = [op for op in silent.state.operations.values() if op["type"] == "restore"]
    assert restore["status"] == "failed"
    assert "is removed" in caplog.text
    assert silent.state.handles == ["another", LIVE, "other"]


def test_a_restore_whose_answer_was_lost_and_that_goes_on_is_told(
    silent: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    silent.state.faults.lasting = {"restore"}
    assert silent.error().transient
    assert "is left behind: clinic: its restore is still under way" in caplog.text
    assert "is removed" not in caplog.text


def test_a_removal_whose_answer_was_lost_is_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = desk.provider()
    handle = "clinic-mirror-job-20261130-abcdef"
    provider.restore(handle, lambda _seconds: None)
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    desk.state.faults.lost = {"POST /databases/N/operations": 1}
    provider.remove(handle)
    assert [kind for _, kind in desk.asked] == ["backup", "restore", "deprovision"]
    assert desk.state.handles == ["another", LIVE, "other"]


def test_a_restore_that_is_refused_at_once_is_a_fault_for_good(desk: Desk) -> None:
    desk.state.faults.statuses = {"POST /backups/N/operations": [422]}
    error = desk.error()
    assert (error.kind, error.transient) == ("source", False)
    assert "Aptible refused (422)" in error.what


def test_an_answer_without_what_was_asked_for_is_a_fault_of_the_service(desk: Desk) -> None:
    desk.state.faults.empty = {"GET /databases"}
    error = desk.error()
    assert (error.kind, error.transient) == ("backup", True)
    assert "holds no databases" in error.what


def test_a_service_that_is_down_is_transient(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    desk.state.faults.statuses = {"GET /databases": [503] * 50}
    error = desk.error()
    assert (error.what, error.transient) == ("Aptible did not answer (503): GET /databases", True)


def test_a_wrong_password_is_not_tried_for_ever(desk: Desk) -> None:
    login = replace(desk.state.login(desk.url), password="wrong-secret")
    error = desk.error(login)
    assert error.kind == "source"
    assert "APTIBLE_USER" in error.remedy
    assert "wrong-secret" not in str(error)


def test_an_unknown_handle_is_named(desk: Desk) -> None:
    desk.spec = desk.bench.catalog(["patient"], backup=RULE | {"handle": "nobody"})
    assert "0 databases have the handle nobody" in desk.error().what


def test_a_backup_older_than_our_request_is_not_believed(desk: Desk) -> None:
    desk.state.faults.backup_at = datetime.now(UTC) - timedelta(hours=2)
    assert "before it was asked for" in desk.error().what
    assert ("backups", "restore") not in desk.asked


def test_a_removal_that_fails_is_told_and_swept_later(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.state.faults.failing = {"deprovision"}
    assert desk.mirror().published
    assert "is left behind: clinic: the deprovision (operation" in caplog.text
    (left,) = desk.provider().copies()
    later = utc_now() + timedelta(hours=7)
    assert backup.leftovers(desk.spec, desk.provider(), utc_now()) == []
    desk.state.faults.failing = set()
    assert backup.sweep(desk.spec, desk.provider(), later) == {left.handle: None}
    assert desk.state.handles == ["another", LIVE, "other"]


def test_a_sweep_takes_only_what_is_ours(desk: Desk, postgres: PostgreSQL) -> None:
    day = timedelta(days=1)
    theirs = ("clinic-mirror-job-copy", "clinics-mirror-job-20261130-abcdef", "mirror-job")
    rows = [desk.state.add_database(handle, "postgres", age=day) for handle in theirs]
    try:
        assert backup.sweep(desk.spec, desk.provider(), utc_now()) == {}
        assert set(theirs) <= set(desk.state.handles)
    finally:
        for row in rows:
            del desk.state.databases[row["id"]]


def test_a_run_that_is_stopped_removes_what_it_restored(desk: Desk) -> None:
    def stop(_seconds: float) -> None:
        if desk.state.looks > started + 2:
            raise RunStopped("the run was stopped")

    started = desk.state.looks
    provider = desk.provider()
    with pytest.raises(RunStopped):
        provider.restore("clinic-mirror-job-20261130-abcdef", stop)
    provider.remove("clinic-mirror-job-20261130-abcdef")
    assert desk.state.handles == ["another", LIVE, "other"]


def test_a_password_is_never_sent_in_the_clear() -> None:
    with pytest.raises(SettingsError, match="not https"):
        AptibleUser(USER, PASSWORD, auth="http://auth.example.org")
    assert PASSWORD not in repr(AptibleUser(USER, PASSWORD))
