"""No patient data outside landing zone, lake and warehouse, whatever goes wrong (invariant 8)."""

from __future__ import annotations

import logging
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from mirror_assets.mirroring import redact, types
from mirror_assets.mirroring.errors import MirrorError, PermanentError, at_edge
from mirror_assets.mirroring.sources.mysql import MySQLSource
from mirror_assets.mirroring.staged import TableReport
from tests.conftest import Interrupted

if TYPE_CHECKING:
    from tests.conftest import Bench

#: Lower case, as the type of an ENUM that lists it is shown.
CANARY = "canary-7f3a"
MORNING = datetime(2026, 3, 10, 4, 30, tzinfo=UTC)
TABLES = ("patient", "note", "zoo", "steady")


def _plant(bench: Bench) -> None:
    """The canary stands in every text column, of good rows and of rows that will be rejected."""
    broken = f"CONCAT('{CANARY}', X'EDA0BDEDB880')"
    bench.run(
        "CREATE TABLE patient (id int PRIMARY KEY, name varchar(80), notes longtext,"
        " flag tinyint(1), born date)",
        "CREATE TABLE note (id int PRIMARY KEY, text longtext NOT NULL, at datetime)",
        "CREATE TABLE zoo (c char(40), t tinytext, m mediumtext, e enum('" + CANARY + "'),"
        f" s set('{CANARY}'), j json, b blob, vb varbinary(80),"
        " l varchar(80) CHARACTER SET latin1)",
        "CREATE TABLE steady (id int PRIMARY KEY, text varchar(80) NOT NULL)",
    )
    bench.run(
        "SET SESSION sql_mode = ''",
        f"INSERT INTO patient SELECT seq, '{CANARY} name', '{CANARY}\\nnotes', seq % 3,"
        " IF(seq % 5 = 0, '0000-00-00', '1950-01-01') FROM seq_1_to_60",
        f"INSERT INTO note SELECT seq, '{CANARY} text', '2020-01-01' FROM seq_1_to_20",
        f"INSERT INTO note VALUES (100, {broken}, '2020-01-01'), (101, '{CANARY}', '9999-12-31')",
        f"INSERT INTO zoo SELECT '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}', '{CANARY}',"
        f" '{{\"k\": \"{CANARY}\"}}', '{CANARY}', '{CANARY}', '{CANARY}' FROM seq_1_to_5",
        f"INSERT INTO steady SELECT seq, '{CANARY}' FROM seq_1_to_3",
    )


def _catalog(bench: Bench, *, allowed: bool, **fields: object):
    allowance = {"rows": 60, "reason": "rows planted by this test", "until": "2090-01-01"}
    entry = {"bad_records_allowed": allowance} if allowed else {}
    tables = {name: {**entry, **fields} for name in TABLES}
    return bench.catalog(tables, tinyint1="boolean", last_date="2262-04-11", volume=0.5)


def _said(error: BaseException | None) -> Iterator[str]:
    """Everything that an event log could store of an exception: texts, chain, frames' values."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)), repr(error.args))
        frame = error.__traceback__
        while frame is not None:
            yield repr(frame.tb_frame.f_locals)
            frame = frame.tb_next
        error = error.__cause__ or error.__context__


def _told(reports: dict[str, TableReport]) -> Iterator[str]:
    for report in reports.values():
        yield repr(report)
        yield from _said(report.error)


class _Ear:
    """Collects what was said, logged or printed, and knows what must not be among it."""

    def __init__(
        self,
        bench: Bench,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        self._caplog = caplog
        self._capfd = capfd
        self._secrets = (CANARY, CANARY.encode().hex(), sa.make_url(bench.url).password or "?")
        self.heard = 0

    def hears_nothing_in(self, reports: dict[str, TableReport]) -> None:
        printed = self._capfd.readouterr()
        texts = [*_told(reports), printed.out, printed.err, self._caplog.text]
        texts += [repr(vars(record)) for record in self._caplog.records]
        for text in texts:
            for secret in self._secrets:
                assert secret not in text
        self.heard += sum(map(len, texts))


@pytest.fixture
def ear(bench: Bench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> _Ear:
    caplog.set_level(logging.DEBUG)
    return _Ear(bench, caplog, capfd)


def _kinds(reports: dict[str, TableReport]) -> set[str]:
    return {report.error.kind for report in reports.values() if report.error is not None}


def test_a_good_run_says_nothing_of_its_rows(bench: Bench, ear: _Ear) -> None:
    _plant(bench)
    reports = bench.mirror_day(_catalog(bench, allowed=True))
    assert all(report.published for report in reports.values())
    assert sum(report.rejected for report in reports.values()) > 20
    ear.hears_nothing_in(reports)
    assert ear.heard > 1000
    shown = bench.query('SELECT * FROM clinic_mirror."MIRROR_ERRORS"')
    assert len(shown) > 20
    assert CANARY not in repr(shown)
    assert CANARY in repr(bench.rows("note_latest"))  # it is really there


def test_the_rows_text_is_kept_only_where_the_catalog_asks_for_it(bench: Bench, ear: _Ear) -> None:
    _plant(bench)
    reports = bench.mirror_day(_catalog(bench, allowed=True, keep_row_text=True))
    ear.hears_nothing_in(reports)
    assert CANARY in repr(bench.rows("MIRROR_ERRORS", "row_text"))
    assert CANARY not in repr(bench.rows("MIRROR_ERRORS", "* EXCLUDE (row_text)"))


def test_refusals_say_nothing_of_the_rows(
    bench: Bench, ear: _Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(types.MYSQL, "polygon")
    _plant(bench)
    rejected = bench.mirror_day(_catalog(bench, allowed=False))
    assert _kinds(rejected) == {"coverage"}
    ear.hears_nothing_in(rejected)

    spec = _catalog(bench, allowed=True)
    bench.mirror_day(spec, source=bench.as_of(spec, MORNING))
    bench.next_second()
    bench.run(
        "ALTER TABLE note MODIFY text varbinary(90) NOT NULL",
        "ALTER TABLE patient ADD COLUMN area polygon",
        "DELETE FROM steady",
    )
    changed = bench.mirror_day(spec)
    assert _kinds(changed) == {"drift", "unsupported_type", "volume"}
    ear.hears_nothing_in(changed)

    older = bench.mirror_day(spec, source=bench.as_of(spec, MORNING - timedelta(hours=3)))
    assert "stale_refresh" in _kinds(older)
    ear.hears_nothing_in(older)

    part = next((bench.root / "landing/clinic/20260310043000").glob("steady_*.csv"))
    part.write_bytes(part.read_bytes().replace(b"canary", b"CANARY"))
    replayed = bench.mirror_day(spec, day=MORNING.date())
    assert "export_corrupt" in _kinds(replayed)
    ear.hears_nothing_in(replayed)

    refused = bench.mirror_day(spec, day=MORNING.date() - timedelta(days=9))
    assert _kinds(refused) == {"wrong_day"}
    ear.hears_nothing_in(refused)
    assert CANARY not in repr(bench.rows("MIRROR_ERRORS"))


def test_faults_of_machines_say_nothing_of_the_rows(bench: Bench, ear: _Ear) -> None:
    _plant(bench)
    bench.run(f"INSERT INTO steady SELECT seq, '{CANARY}' FROM seq_4_to_300000")
    spec = _catalog(bench, allowed=True)

    def during(moment: str, action) -> dict[str, TableReport]:
        source = Interrupted(bench.source(spec), "steady", moment, action)
        return bench.mirror_day(spec, day=bench.day(spec), source=source)

    def kill() -> None:
        query = "SELECT id FROM information_schema.processlist WHERE user = 'reader' AND db = %s"
        for (connection,) in bench.ask(query, bench.schema):
            bench.run(f"KILL CONNECTION {connection}")

    def defect() -> None:
        held = CANARY
        raise ValueError(f"a defect that quotes {held}")

    killed = during("amid", kill)
    assert "source_unavailable" in _kinds(killed)
    ear.hears_nothing_in(killed)

    defective = during("amid", defect)
    assert "error" in _kinds(defective)
    ear.hears_nothing_in(defective)

    with _file_size_limit(1 << 20):
        full = during("amid", lambda: None)
    assert _kinds(full) & {"landing", "warehouse"}
    ear.hears_nothing_in(full)

    lock = bench.root / "lake" / ".writer.lock"
    lock.unlink()
    lock.mkdir()
    refused = bench.mirror_day(spec)
    assert not any(report.published for report in refused.values())
    ear.hears_nothing_in(refused)
    lock.rmdir()

    bench.next_second()
    landed = during("before", lambda: bench.run("DROP TABLE zoo", "CREATE TABLE zoo (i int)"))
    ear.hears_nothing_in(landed)


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("driver", ["auto", "pymysql"])
def test_faults_of_the_login_say_nothing_of_the_password(
    bench: Bench, ear: _Ear, driver: str
) -> None:
    _plant(bench)
    spec = _catalog(bench, allowed=True)
    day = bench.day(spec)
    url = sa.make_url(bench.url)
    wrong = {
        "source": [{"password": CANARY}, {"username": "nobody", "password": CANARY}],
        "source_unavailable": [{"port": 1, "password": CANARY}, {"host": "no.such.host.invalid"}],
    }
    for kind, changes in wrong.items():
        for changed in changes:
            text = url.set(**changed).render_as_string(hide_password=False)
            source = MySQLSource(spec, text, driver=driver)
            reports = bench.mirror_day(spec, day=day, source=source)
            assert _kinds(reports) == {kind}
            ear.hears_nothing_in(reports)


def test_a_run_in_a_process_of_its_own_prints_nothing(bench: Bench) -> None:
    _plant(bench)
    spec = _catalog(bench, allowed=False)
    script = """
import logging, sys
from datetime import date
logging.basicConfig(level=logging.DEBUG)
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.sources import open_source
from mirror_assets.settings import Settings
settings = Settings.from_env()
spec = settings.database("clinic")
source = open_source(spec, settings.database_url("clinic"))
with MirrorRun(spec, source, settings.landing(), settings.warehouse(), run_id="r",
               partition=date.fromisoformat(sys.argv[1]), tables=spec.tables,
               scratch=settings.new_scratch()) as run:
    for report in run.publish(spec.tables):
        print(report)
        if report.error is not None:
            logging.error("failed", exc_info=report.error)
print(settings, source)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(bench.day(spec))],
        env=os.environ | bench.variables,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "were rejected" in done.stderr
    for secret in (CANARY, sa.make_url(bench.url).password or "?"):
        assert secret not in done.stdout + done.stderr


def _modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder.parent)): stat.S_IMODE(path.lstat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


def test_files_and_folders_are_for_their_owner_only(bench: Bench) -> None:
    _plant(bench)
    spec = _catalog(bench, allowed=True)
    before = os.umask(0o022)
    try:
        for _ in range(2):
            bench.mirror_day(spec)
    finally:
        os.umask(before)
    for name in ("landing", "lake", "scratch"):
        root = bench.root / name
        wrong = {
            path: oct(mode)
            for path, mode in _modes(root).items()
            if mode != (0o700 if (root.parent / path).is_dir() else 0o600)
        }
        assert wrong == {}, name
    for file in bench.root.glob("lake.sqlite*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_the_scratch_folder_is_empty_afterwards(bench: Bench) -> None:
    _plant(bench)
    for allowed in (True, False):
        bench.mirror_day(_catalog(bench, allowed=allowed))
        bench.warehouse.close()
        assert list((bench.root / "scratch").rglob("*")) == []
    assert not (Path.cwd() / ".tmp").exists()


# -- the tools themselves


def test_the_edge_drops_chain_and_frames() -> None:
    def fail() -> None:
        row = CANARY
        try:
            raise KeyError(row)
        except KeyError:
            raise PermanentError("our own sentence") from None

    with pytest.raises(PermanentError) as caught:
        fail()
    assert CANARY in "".join(_said(caught.value))  # as raised, it still holds the row
    own = at_edge(caught.value, "clinic/t")
    assert CANARY not in "".join(_said(own))
    assert own.sentence == "clinic/t: our own sentence"


def test_the_edge_tells_a_defect_by_class_and_place_only() -> None:
    with pytest.raises(ValueError, match=CANARY) as caught:
        raise ValueError(f"bad value {CANARY}")
    own = at_edge(caught.value)
    assert isinstance(own, PermanentError)
    assert "ValueError at test_privacy.py:" in own.what
    assert CANARY not in "".join(_said(own))


def test_every_kind_of_error_has_its_word_and_keeps_it_at_the_edge() -> None:
    def below(kind: type[MirrorError]) -> list[type[MirrorError]]:
        return [kind, *(sub for child in kind.__subclasses__() for sub in below(child))]

    kinds = below(MirrorError)
    assert len(kinds) > 12
    for kind in kinds:
        error = at_edge(kind("what", remedy="do"), "here")
        assert type(error) is kind
        assert error.sentence == "here: what. Next: do"
        assert error.transient is kind.transient
        assert not (kind.transient and issubclass(kind, PermanentError))
        assert error.resource in {"DB", "GCS", "BQ"}


@pytest.mark.parametrize(
    "url",
    [
        "mysql+pymysql://reader:hush@host:3306/elation?ssl_ca=hush",
        "postgresql://reader:hu%40sh@host/elation",
        "mysql://reader:hush/@host/elation",
        "nonsense hush",
        "mysql://reader:hush@host:hush/x",
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str) -> None:
    shown = redact.url(url)
    assert "hush" not in shown
    assert "reader" not in shown
    assert "host" in shown or shown == "<unreadable database URL>"


@pytest.mark.parametrize("password", ["hush", "hu@sh", "hu/sh", "hu:sh", "a@b/hush@"])
def test_credentials_in_any_text_are_blanked(password: str) -> None:
    text = f"cannot reach mysql://reader:{password}@host/elation, see https://docs.example/x"
    shown = redact.credentials(text)
    assert "reader" not in shown
    assert "sh@" not in shown
    assert "mysql://***@host/elation, see https://docs.example/x" in shown
