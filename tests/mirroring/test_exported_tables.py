"""Tables that an application's job writes as files join the database's own."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import sqlalchemy
import yaml

from mirror_assets.commons import assets as commons
from mirror_assets.mirroring.catalog import DatabaseSpec, load
from mirror_assets.mirroring.sources import ExportJob, Files, Source, join, open_source
from mirror_assets.mirroring.sources.exported import JoinedSource
from mirror_assets.mirroring.storage import Storage
from mirror_assets.settings import Settings, reading
from tests.conftest import KindBench, utc_now
from tests.fakes.cloud_storage import CloudStorage

CANARY = "canary-of-an-answer"
SCHEMA = """\
id,uuid,NO
dueAt,timestamp with time zone,YES
isUrgent,boolean,NO
rank,integer,YES
title,text,NO
score,numeric,YES
picture,bytea,YES
kind,USER-DEFINED,YES
"""
FIRST = "00000000-0000-0000-0000-000000000001"
DATA = f"""\
{FIRST},2026-11-30 05:00:00.987654+00,t,3,"a, ""b""
and {CANARY}",1.50,\\x00ff,good
00000000-0000-0000-0000-000000000002,2026-11-30 05:00:00-05,f,,"",,,
00000000-0000-0000-0000-000000000003,,t,7,NULL,NaN,"\\x","null"
"""
_JOB = f"""
import json, pathlib, sys
folder, files, code = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
for name, text in files.items():
    (folder / name).write_text(text)
print("written 3 rows")
print("a row: {CANARY}")
sys.exit(code)
"""
_OPEN = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
)
_WATCHING = f"""
import sqlalchemy
with sqlalchemy.create_engine(URL).connect() as connection:
    found = connection.exec_driver_sql({_OPEN!r}).scalar()
{_JOB.replace("sys.exit", '(folder / "transactions").write_text(str(found)); sys.exit')}
"""


class Desk:
    """A bench, and the folder that the application's job writes into."""

    def __init__(self, bench: KindBench, folder: Path) -> None:
        self.bench = bench
        self.folder = folder
        folder.mkdir()
        self.day = f"{utc_now():%Y%m%d}"

    def files(self, table: str = "builder_question", data: str = DATA) -> dict[str, str]:
        return {
            f"prod_export_{table}_schema_{self.day}": SCHEMA,
            f"prod_export_{table}_data_{self.day}": data,
            "exported_builder_table_names": f'"{table}"',
        }

    def settings(
        self,
        files: dict[str, str] | None = None,
        code: int = 0,
        script_text: str = _JOB,
        **more: str,
    ) -> Settings:
        named = {"CLINIC_EXPORT_FILES": str(self.folder), "CLINIC_DATABASE_URL": self.bench.url}
        if files is not None:
            script = self.folder.parent / "job.py"
            script.write_text(script_text.replace("URL", repr(self.bench.url)))
            command = [sys.executable, str(script), str(self.folder), json.dumps(files), str(code)]
            named["CLINIC_EXPORT_JOB_COMMAND"] = shlex.join(command)
        return self.bench.settings_with(**named | more)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def source(
        self,
        spec: DatabaseSpec,
        files: dict[str, str] | None,
        code: int = 0,
        script: str = _JOB,
    ) -> Source:
        return reading.source(self.settings(files, code, script), spec)


@pytest.fixture
def desk(pg_bench: KindBench, tmp_path: Path) -> Iterator[Desk]:
    pg_bench.run("CREATE TABLE patient (id int PRIMARY KEY)", "INSERT INTO patient VALUES (1), (2)")
    yield Desk(pg_bench, tmp_path / "exports")


def test_e_40_the_mirrored_tables_are_the_databases_own_and_the_jobs(desk: Desk) -> None:
    excluded = ("knex_migrations", "google_auth", "note_draft", "claim_encounter_cache")
    for name in ("user", *excluded, "patient_event"):
        desk.bench.run(f'CREATE TABLE "{name}" (id int PRIMARY KEY)')
    real = yaml.safe_load((Path(commons.__file__).parent / "catalog.yaml").read_text())
    source = desk.source(desk.bench.catalog(["patient"]), desk.files())
    with source.snapshot():
        pass  # the job has run
    desk.bench.settings.landing().save_inventory("clinic", list(source.states()))
    path = desk.bench.catalogs / "clinic.catalog.yaml"
    entry = {"database": "clinic", "kind": "postgresql", "refresh": {"cron": "0 5 * * *"}}
    path.write_text(yaml.safe_dump(entry | {"tables": "all", "exclude": real["exclude"]}))
    spec = load(path, desk.bench.settings.landing().inventory)
    assert [table.name for table in spec.tables] == ["builder_question", "patient", "user"]
    reports = desk.bench.mirror_day(spec, source=desk.source(spec, desk.files()))
    assert {name: report.loaded for name, report in reports.items()} == {
        "builder_question": 3,
        "patient": 2,
        "user": 0,
    }


def test_exported_rows_are_typed_and_counted_like_any_other(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    spec = desk.bench.catalog({"patient": None, "builder_question": {"primary_key": ["id"]}})
    reports = desk.bench.mirror_day(spec, source=desk.source(spec, desk.files()))
    assert {name: str(r.error) for name, r in reports.items() if r.error} == {}
    columns = '"isUrgent", rank, title, score, picture, kind'
    assert desk.bench.rows("builder_question", columns, where="TRUE") == sorted(
        [
            (True, 3, f'a, "b"\nand {CANARY}', "1.50", b"\x00\xff", "good"),
            (False, None, "", None, None, None),
            (True, 7, "NULL", "NaN", b"", "null"),
        ],
        key=lambda row: (row[0], row[1] or 0),
    )
    (due,) = desk.bench.query(
        'SELECT array_agg(epoch_us("dueAt") ORDER BY id) FROM clinic_mirror.builder_question'
    )
    assert due == ([1796014800987654, 1796032800000000, None],)
    snapshots = desk.bench.query(
        'SELECT "TABLE_NAME", snapshot, "TABLE_ROWS" FROM clinic_mirror."MIRROR_METADATA"'
        " ORDER BY 1"
    )
    assert snapshots == [("builder_question", "per table", 3), ("patient", "one instant", 2)]
    assert "written 3 rows" in caplog.text
    assert CANARY not in caplog.text


def test_what_a_column_cannot_hold_is_a_reject(desk: Desk) -> None:
    rows = [
        f"{FIRST},tomorrow,t,1,x,,,",
        f"{FIRST},,maybe,1,x,,,",
        f"{FIRST},,t,1.5,x,,,",
        f"{FIRST},,t,1,,,,",
        f"{FIRST},,t,1,x,,,,",
        f"{FIRST},,t,1,x,,,",
    ]
    allowed = {"rows": 5, "reason": "known to be bad", "until": "2099-12-31"}
    tables = {"builder_question": {"primary_key": ["id"], "bad_records_allowed": allowed}}
    spec = desk.bench.catalog(tables)
    files = desk.files(data="".join(f"{row}\n" for row in rows))
    report = desk.bench.mirror_day(spec, source=desk.source(spec, files))["builder_question"]
    assert (report.loaded, report.rejected, report.error) == (1, 5, None)


def test_masked_and_excluded_columns_stay_where_they_are(desk: Desk) -> None:
    entry = {"exclude_columns": ["title", "picture"], "masked_columns": ["kind"]}
    spec = desk.bench.catalog({"builder_question": entry})
    report = desk.bench.mirror_day(spec, source=desk.source(spec, desk.files()))
    assert report["builder_question"].error is None
    assert CANARY.encode() not in desk.bench.exported("builder_question")
    kinds = desk.bench.query("SELECT kind FROM clinic_mirror.builder_question ORDER BY id")
    assert kinds == [("masked",), (None,), ("masked",)]


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"code": 3}, "ended with exit code 3"),
        ({"list": None}, "wrote no new exported_builder_table_names"),
        ({"schema": "id,uuid\n"}, "line 1 of the schema file"),
        ({"data": DATA[:-1]}, "ends within a record"),
        ({"data": f'{FIRST},,t,"open\n'}, "ends within a record"),
        ({"data": f'{FIRST},,t,1,a"b"c,,,\n'}, "record 1 of the data file is not CSV"),
        ({"data": None}, "there is no file prod_export_builder_question_data_"),
    ],
)
def test_a_job_that_fails_costs_its_own_tables_only(
    desk: Desk, spoilt: dict[str, str | int | None], said: str
) -> None:
    spec = desk.bench.catalog(["patient", "builder_question"])
    files = desk.files()
    for part, text in spoilt.items():
        name = next((name for name in files if f"_{part}_" in name), "exported_builder_table_names")
        if part != "code":
            files[name] = str(text)
        if text is None:
            del files[name]
    code = int(spoilt.get("code") or 0)
    reports = desk.bench.mirror_day(spec, source=desk.source(spec, files, code))
    assert reports["patient"].published
    error = reports["builder_question"].error
    assert error is not None
    assert said in error.what
    assert CANARY not in str(error)


def test_files_that_the_job_did_not_write_again_are_refused(desk: Desk) -> None:
    spec = desk.bench.catalog(["patient", "builder_question"])
    assert desk.bench.mirror_day(spec, source=desk.source(spec, desk.files()))[
        "builder_question"
    ].published
    listed = {"exported_builder_table_names": '"builder_question"'}
    again = desk.bench.mirror_day(spec, source=desk.source(spec, listed))
    assert again["builder_question"].error is not None
    assert "did not write its files again" in again["builder_question"].error.what
    assert again["patient"].published


class _Rewriting(Files):
    """Files that another run of the job writes anew, after ``passes`` over the data."""

    def __init__(self, desk: Desk, passes: int, anew: dict[str, str]) -> None:
        super().__init__(str(desk.folder), "prod", "CLINIC_EXPORT_FILES")
        self._desk, self._left, self._anew = desk, passes, anew

    def lines(self, table: str, day: date) -> Iterator[bytes]:
        yield from super().lines(table, day)
        self._left -= 1
        if self._left == 0:
            self._desk.write(self._anew)


def _of_columns(schema: str, data: str, *names: str) -> dict[str, str]:
    """Files of one row; in any order of the columns, each value would fit into any of them."""
    lines = [f"{name},text,YES\n" for name in names]
    return {schema: f"id,uuid,NO\n{''.join(lines)}", data: f"{FIRST},{','.join(names)}\n"}


@pytest.mark.parametrize("passes", [1, 2], ids=["between count and rows", "while rows are read"])
def test_files_that_are_written_anew_meanwhile_are_never_mixed(desk: Desk, passes: int) -> None:
    spec = desk.bench.catalog(["patient", "builder_question"])
    schema, data = (
        f"prod_export_builder_question_{kind}_{desk.day}" for kind in ("schema", "data")
    )
    desk.write(desk.files() | _of_columns(schema, data, "note", "title"))
    files = _Rewriting(desk, passes, _of_columns(schema, data, "title", "note"))
    source = join(spec, open_source(spec, desk.bench.url), files, None)
    reports = desk.bench.mirror_day(spec, source=source)
    assert reports["patient"].published
    error = reports["builder_question"].error
    assert error is not None
    assert (error.kind, error.transient) == ("refresh_landed", True)
    again = desk.bench.mirror_day(spec, source=source)["builder_question"]
    assert (again.error, again.loaded) == (None, 1)
    assert desk.bench.query("SELECT title, note FROM clinic_mirror.builder_question") == [
        ("title", "note")
    ]


def test_files_that_are_being_written_are_not_called_broken(desk: Desk) -> None:
    spec = desk.bench.catalog(["builder_question"])
    desk.write(desk.files())
    data = f"prod_export_builder_question_data_{desk.day}"
    files = _Rewriting(desk, 1, {data: DATA[:-1]})
    source = join(spec, open_source(spec, desk.bench.url), files, None)
    error = desk.bench.mirror_day(spec, source=source)["builder_question"].error
    assert error is not None
    assert error.kind == "refresh_landed"


def test_a_file_written_anew_in_cloud_storage_is_another_one(cloud_storage: CloudStorage) -> None:
    bucket, day = cloud_storage.bucket(), utc_now().date()
    files = Files(bucket, "prod", "CLINIC_EXPORT_FILES")
    assert files.state("t", day) == {"schema": "", "data": ""}
    there = Storage(bucket)
    paths = [f"{bucket}/prod_export_t_{kind}_{day:%Y%m%d}" for kind in ("schema", "data")]
    there.put(dict.fromkeys(paths, b"a,text,YES\n"))
    first = files.state("t", day)
    assert first == files.state("t", day)
    there.put({paths[1]: b"b,text,YES\n"})
    second = files.state("t", day)
    assert (second["schema"], second["data"] == first["data"]) == (first["schema"], False)


def test_the_job_runs_before_a_transaction_is_open(desk: Desk) -> None:
    """It may take an hour, for which an open snapshot would hold the database's vacuum back."""
    spec = desk.bench.catalog(["patient", "builder_question"])
    source = desk.source(spec, desk.files(), script=_WATCHING)
    assert desk.bench.mirror_day(spec, source=source)["builder_question"].published
    assert (desk.folder / "transactions").read_text() == "0"
    engine = sqlalchemy.create_engine(desk.bench.url)
    # the twin: an open snapshot is seen by the same question
    with source.snapshot(), engine.connect() as connection:
        assert connection.exec_driver_sql(_OPEN).scalar() == 1


def test_files_of_a_day_that_is_not_the_snapshots_are_refused(desk: Desk) -> None:
    spec = desk.bench.catalog(["patient", "builder_question"])
    yesterday = utc_now() - timedelta(days=1)
    desk.write(desk.files())
    files = Files(str(desk.folder), "prod", "CLINIC_EXPORT_FILES")

    class Relisting:
        def run(self, _log: object, _seconds: float) -> int:
            desk.write({"exported_builder_table_names": "builder_question"})
            return 0

    job = ExportJob(Relisting(), 60)
    source = JoinedSource(
        spec, open_source(spec, desk.bench.url), files, job, clock=lambda: yesterday
    )
    reports = desk.bench.mirror_day(spec, source=source)
    assert reports["patient"].published
    error = reports["builder_question"].error
    assert error is not None
    assert (error.kind, error.transient) == ("export_job", True)
    assert f"the files of {yesterday.date()}" in error.what


def test_without_a_job_the_files_of_the_day_are_taken(desk: Desk) -> None:
    spec = desk.bench.catalog(["builder_question"])
    yesterday = f"{utc_now() - timedelta(days=1):%Y%m%d}"
    for name, text in desk.files().items():
        (desk.folder / name.replace(desk.day, yesterday)).write_text(text)
    old = desk.bench.mirror_day(spec, source=desk.source(spec, None))["builder_question"]
    assert old.error is not None, "a file of another day is not of this one"
    for name, text in desk.files().items():
        (desk.folder / name).write_text(text)
    assert desk.bench.mirror_day(spec, source=desk.source(spec, None))["builder_question"].published


def test_a_table_that_is_listed_and_not_catalogued_is_seen(desk: Desk) -> None:
    spec = desk.bench.catalog(["patient"])
    source = desk.source(spec, desk.files())
    with source.snapshot():
        pass
    assert set(source.states()) == {"patient", "builder_question"}


def test_wrong_settings_are_told_at_the_start(desk: Desk) -> None:
    desk.bench.catalog(["patient"])
    wrong = desk.settings(CLINIC_EXPORT_JOB_MINUTES="soon", MIRROR_DATABASES="clinic")
    (told,) = reading.faults(wrong, wrong.database("clinic"))
    assert told.where == "CLINIC_EXPORT_JOB_MINUTES"
    right = desk.settings(MIRROR_DATABASES="clinic")
    assert list(reading.faults(right, right.database("clinic"))) == []
