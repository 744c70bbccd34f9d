"""What every restored backup has in common, over copies that PostgreSQL makes from a template."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.test_utils import create_run_for_test

from mirror_assets.cli import main
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import BackupFailed, MirrorError, RunStopped
from mirror_assets.mirroring.sources import backup, leftovers
from mirror_assets.mirroring.sources.backup import BackupSource
from mirror_assets.mirroring.sources.base import Copy, Pause
from mirror_assets.orchestration.alerts.sensors import LEFTOVERS, reported, tell
from mirror_assets.orchestration.leftovers import leftover_sensor
from mirror_assets.settings import backups, reading
from tests.conftest import KindBench, utc_now

_numbers = itertools.count(1)


class Templates:
    """Copies are databases of the same server, made from the live one."""

    def __init__(self, bench: KindBench) -> None:
        self.bench = bench
        self.made: dict[str, str] = {}
        self.since = utc_now()
        self.taken_at: datetime | None = None
        self.fails = False
        self.clings = False
        self.ready_after = 1
        self.checks = 0
        self.in_use: bool | None = False

    @contextmanager
    def live(self) -> Iterator[str]:
        yield self.bench.url

    def restore(self, handle: str, pause: Pause) -> datetime:
        name = f"template_copy_{next(_numbers)}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {self.bench.schema}")
        self.made[handle] = name
        if self.fails:
            raise BackupFailed("the restore failed")
        return self.taken_at or utc_now()

    @contextmanager
    def connect(self, handle: str, pause: Pause) -> Iterator[str]:
        self.checks += 1
        url = self.bench.server.url(self.made[handle], "admin")
        port = f":{self.bench.server.port}/"
        yield url if self.checks >= self.ready_after else url.replace(port, ":1/")

    def remove(self, handle: str) -> None:
        if self.clings:
            raise BackupFailed("the service answers 503")
        if handle in self.made:
            self._run(f"DROP DATABASE {self.made.pop(handle)} WITH (FORCE)")

    def copies(self) -> list[Copy]:
        return [Copy(handle, self.since, self.in_use) for handle in self.made]

    def _run(self, statement: str) -> None:
        with closing(self.bench.server.admin()) as admin, admin.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute(statement)


@pytest.fixture
def desk(pg_bench: KindBench) -> Iterator[tuple[KindBench, DatabaseSpec, Templates]]:
    pg_bench.run(
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a SELECT generate_series(1, 30)",
        "CREATE TABLE b (id int PRIMARY KEY, t text)",
        "INSERT INTO b SELECT i, 'x' FROM generate_series(1, 20) i",
    )
    spec = pg_bench.catalog(["a", "b"], backup={"provider": "postgres", "ready_minutes": 0.01})
    found = Templates(pg_bench)
    yield pg_bench, spec, found
    found.clings = False
    for handle in list(found.made):
        found.remove(handle)


Desk = tuple[KindBench, DatabaseSpec, Templates]


def test_the_copy_lives_as_long_as_the_run_and_dates_its_rows(desk: Desk) -> None:
    bench, spec, templates = desk
    templates.taken_at = utc_now() - timedelta(seconds=90)
    day = templates.taken_at.date()
    reports = bench.mirror_day(spec, source=BackupSource(spec, templates), day=day)
    assert [(r.loaded, r.error) for r in reports.values()] == [(30, None), (20, None)]
    assert {report.snapshot_at for report in reports.values()} == {templates.taken_at}
    assert templates.made == {}


def test_a_backup_of_another_day_is_never_stored_under_this_one(desk: Desk) -> None:
    """As when a run is tried again after midnight."""
    bench, spec, templates = desk
    day = utc_now().date()
    tomorrow = datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1, seconds=1)
    templates.taken_at = tomorrow
    refused = bench.mirror_day(spec, "a", day=day, source=BackupSource(spec, templates))["a"]
    assert refused.error is not None
    assert refused.error.kind == "wrong_day"
    assert f"the source now holds {tomorrow.date()}" in refused.error.what
    kept = bench.mirror_day(spec, "a", day=tomorrow.date(), source=BackupSource(spec, templates))[
        "a"
    ]
    assert kept.error is None
    assert templates.made == {}


def test_a_connection_that_is_cut_goes_on_in_the_same_copy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec, templates = desk
    real = backup.PostgresSnapshot.export

    def cut(self: Any, table: Any, schema: Any, writer: Any) -> int:
        if table.name == "a":
            self._session._raw.close()
        return real(self, table, schema, writer)

    monkeypatch.setattr(backup.PostgresSnapshot, "export", cut)
    reports = bench.mirror_day(spec, source=BackupSource(spec, templates))
    assert reports["a"].error is not None
    assert reports["b"].error is None
    snapshots = bench.query('SELECT "TABLE_NAME", snapshot FROM clinic_mirror."MIRROR_METADATA"')
    assert ("b", "one instant") in snapshots
    assert templates.checks == 2, "connected to twice, restored once"
    assert templates.made == {}


def test_a_restore_that_fails_half_way_is_removed(desk: Desk) -> None:
    bench, spec, templates = desk
    templates.fails = True
    error = bench.mirror_day(spec, "a", source=BackupSource(spec, templates))["a"].error
    assert error is not None
    assert (error.what, error.transient) == ("the restore failed", True)
    assert templates.made == {}


@pytest.mark.parametrize(("ready_after", "checks"), [(3, 3), (99, 60)])
def test_e_42_a_copy_is_asked_sixty_times_whether_it_is_ready(
    desk: Desk, ready_after: int, checks: int
) -> None:
    bench, spec, templates = desk
    templates.ready_after = ready_after
    report = bench.mirror_day(spec, "a", source=BackupSource(spec, templates))["a"]
    assert templates.checks == checks
    assert (report.error is None) == (ready_after == 3)
    if report.error:
        assert "did not accept connections in 60 checks" in report.error.what
    assert templates.made == {}


def test_a_run_that_is_stopped_while_it_waits_removes_its_copy(desk: Desk) -> None:
    _bench, spec, templates = desk
    assert spec.entry.backup is not None
    slow = spec.with_backup(spec.entry.backup.model_copy(update={"ready_minutes": 60}))
    templates.ready_after = 99
    stopped, errors = Event(), []

    def read() -> None:
        source = BackupSource(slow, templates)
        try:
            with source.held(stopped), source.snapshot():
                pass
        except RunStopped as error:
            errors.append(error)

    reader = Thread(target=read)
    reader.start()
    while not templates.checks:
        time.sleep(0.02)
    stopped.set()
    reader.join(20)
    assert len(errors) == 1
    assert templates.made == {}


def test_a_copy_that_cannot_be_removed_is_told_and_swept_later(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    bench, spec, templates = desk
    templates.clings = True
    assert bench.mirror_day(spec, "a", source=BackupSource(spec, templates))["a"].published
    assert f"is left behind: {spec.name}: the service answers 503" in caplog.text
    (handle,) = templates.made
    later = utc_now() + timedelta(hours=7)
    assert leftovers(spec, templates, utc_now() + timedelta(hours=5)) == []
    templates.in_use = True
    assert leftovers(spec, templates, later) == [], "its run is alive"
    templates.in_use = False
    assert "503" in str(backup.sweep(spec, templates, later)[handle])
    templates.clings = False
    assert backup.sweep(spec, templates, later) == {handle: None}
    assert templates.made == {}


def test_sensor_and_doctor_name_what_was_left_behind(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _spec, templates = desk
    for name, value in bench.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIRROR_DATABASES", "clinic")
    monkeypatch.setattr(backups, "provider", lambda _settings, _spec: templates)
    instance = dg.DagsterInstance.ephemeral()
    sensor = leftover_sensor()

    def context() -> dg.SensorEvaluationContext:
        return dg.build_sensor_context(instance)

    assert _said(sensor(context())) == "no copy was left behind"
    handle = f"clinic-mirror-job-{utc_now():%Y%m%d}-abcdef"
    templates.restore(handle, lambda _seconds: None)
    monkeypatch.setattr(backup, "timedelta", lambda hours: timedelta(0))  # old enough at once
    shown = CliRunner().invoke(main, ["doctor"], env={"COLUMNS": "400"}).output
    assert f"left behind: {handle}" in shown
    assert "backup_leftovers" in shown
    assert "read from a restored backup" in shown
    templates.clings = True
    with pytest.raises(dg.Failure, match=f"{handle} could not be removed: .*503"):
        sensor(context())
    assert [found.item for found in reported(instance, LEFTOVERS) or ()] == [handle]
    templates.clings = False
    assert _said(sensor(context())) == f"removed {handle}"
    assert reported(instance, LEFTOVERS) == []
    with monkeypatch.context() as away:
        away.setattr(templates, "copies", _silent)
        with pytest.raises(dg.Failure, match=r"cannot be looked for: .*did not answer"):
            sensor(context())
    assert templates.made == {}
    assert "none is left behind" in CliRunner().invoke(main, ["doctor"]).output


def _silent() -> list[Copy]:
    raise BackupFailed("the service did not answer")


def _said(result: Any) -> str:
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


@pytest.mark.parametrize(
    ("stated", "provider", "handle"),
    [
        ("postgres", "postgres", None),
        ("aptible:commons-prod", "aptible", "commons-prod"),
        ("live", None, None),
    ],
)
def test_the_environment_decides_whether_a_backup_is_read(
    desk: Desk, stated: str, provider: str | None, handle: str | None
) -> None:
    bench, _spec, _templates = desk
    rule = bench.settings_with(CLINIC_BACKUP=stated).database("clinic").entry.backup
    assert (rule and rule.provider) == provider
    assert (rule and rule.handle) == handle
    commons = bench.settings_with().database("commons")
    assert commons.entry.backup is None, "read live unless somebody says otherwise"


@pytest.mark.parametrize("stated", ["aptible", "aptible:", "postgres:x", "aptible:a b", "nobody"])
def test_an_unknown_backup_is_refused_naming_its_variable(desk: Desk, stated: str) -> None:
    bench, _spec, _templates = desk
    with pytest.raises(MirrorError, match=r"CLINIC_BACKUP.*aptible:<handle>"):
        bench.settings_with(CLINIC_BACKUP=stated).databases()


def test_aptible_needs_its_user_and_no_url_of_ours(desk: Desk) -> None:
    bench, _spec, _templates = desk
    named = {"CLINIC_BACKUP": "aptible:clinic", "MIRROR_DATABASES": "clinic"}
    settings = bench.settings_with(**named)
    told = [error.where for error in reading.faults(settings, settings.database("clinic"))]
    assert told == ["APTIBLE_USER"]
    known = bench.settings_with(**named, APTIBLE_USER="u@example.org", APTIBLE_PASSWORD="s3cret")
    assert list(reading.faults(known, known.database("clinic"))) == []
    assert backups.is_elsewhere(known.database("clinic"))
    assert "s3cret" not in repr(backups.provider(known, known.database("clinic")))


def test_a_vendors_database_has_no_backup(desk: Desk) -> None:
    bench, _spec, _templates = desk
    with pytest.raises(MirrorError, match="ELATION_BACKUP"):
        bench.settings_with(ELATION_BACKUP="postgres").databases()
    bench.settings_with(COMMONS_BACKUP="postgres").databases()


def test_a_copy_that_cannot_be_looked_for_is_not_said_to_be_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec, templates = desk
    entry = spec.entry.model_copy(update={"database": "dental"})
    other = DatabaseSpec(entry=entry, file=spec.file, tables=spec.tables)
    settings = bench.settings
    other_templates = Templates(bench)
    mine = {spec.name: templates, other.name: other_templates}
    monkeypatch.setattr(backups, "provider", lambda _settings, asked: mine[asked.name])
    monkeypatch.setattr(backups, "restored", lambda _settings: [(spec, 6), (other, 6)])
    monkeypatch.setattr(backup, "timedelta", lambda hours: timedelta(0))
    for name, value in bench.variables.items():
        monkeypatch.setenv(name, value)
    instance = dg.DagsterInstance.ephemeral()
    said: list[str] = []

    def look() -> list[str]:
        with suppress(dg.Failure):
            leftover_sensor()(dg.build_sensor_context(instance))
        said.clear()
        tell(instance, settings, said.append, settle=timedelta(0))
        return [line.partition("\n")[0] for line in said]

    templates.restore(f"clinic-mirror-job-{utc_now():%Y%m%d}-abcdef", lambda _seconds: None)
    templates.clings = True
    assert look() == [":red_circle: clinic: 1 restored backup left over"]
    other_templates.restore(f"dental-mirror-job-{utc_now():%Y%m%d}-abcdef", lambda _seconds: None)
    with monkeypatch.context() as away:
        away.setattr(templates, "copies", lambda: {}["_embedded"])
        assert look() == [
            ":red_circle: clinic: restored backups that are left over cannot be looked for"
        ]
        assert "unexpected KeyError" in said[0]
        assert other_templates.made == {}, "the other database is swept all the same"
    assert look() == [":white_check_mark: clinic: restored backups can be looked for again"]
    templates.clings = False
    assert look() == [":white_check_mark: clinic: no restored backup is left over"]


def test_the_copy_of_a_run_that_goes_on_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the provider cannot tell, the handle names the run, and the instance knows it."""
    bench, spec, templates = desk
    for name, value in bench.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(backups, "provider", lambda _settings, _spec: templates)
    monkeypatch.setattr(backup, "timedelta", lambda hours: timedelta(0))
    monkeypatch.setenv("MIRROR_DATABASES", "clinic")
    templates.in_use = None
    instance = dg.DagsterInstance.ephemeral()
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)

    def look() -> str:
        return _said(leftover_sensor()(dg.build_sensor_context(instance)))

    with BackupSource(spec, templates, run.run_id).snapshot() as snapshot:
        (handle,) = templates.made
        assert backup.is_copy(handle, spec.name)
        assert look() == "no copy was left behind"
        with BackupSource(spec, templates, "of another").snapshot():
            assert handle in templates.made, "another run cannot ask, and lets it be"
        assert snapshot.count(spec.table("a")) == 30
    templates.restore(handle, lambda _seconds: None)  # as if it had been killed
    instance.report_run_failed(run)
    assert look() == f"removed {handle}"
