"""The Elation mirror's conformance cases A-1, A-4 to A-14 and F-1 to F-5, each by its id."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mirror_assets.mirroring import coverage
from mirror_assets.mirroring.errors import CoverageTooLow, DriftRefused, VolumeDropped

if TYPE_CHECKING:
    from tests.conftest import Bench

_TEXTS = ["a,b", 'say "hi"', "two\nlines", "cr\r\nlf", "🙂 señora", "NULL", "", "\\N", None]


def _numbers(bench: Bench, table: str, rows: int) -> None:
    bench.run(
        f"CREATE TABLE `{table}` (id bigint PRIMARY KEY, note varchar(40) NOT NULL)",
        f"INSERT INTO `{table}` SELECT seq, CONCAT('note ', seq) FROM seq_1_to_{rows}",
    )


def test_a_1_the_partition_is_the_refresh_instants_utc_date(bench: Bench) -> None:
    for table in ("t1", "t2"):
        _numbers(bench, table, 3)
    spec = bench.catalog(["t1", "t2"])
    refreshed = datetime(2021, 1, 19, 4, 30, tzinfo=UTC)  # 2021-01-18 20:30 in US/Pacific
    created = max(s.created_at for s in bench.source(spec).states().values() if s.created_at)
    source = bench.earlier(spec, seconds=(created - refreshed).total_seconds())

    reports = bench.mirror_day(spec, day=date(2021, 1, 19), source=source)

    assert all(report.published for report in reports.values())
    for table in ("t1", "t2"):
        assert bench.rows(table, "DISTINCT _PARTITIONDATE") == [(date(2021, 1, 19),)]
        assert bench.rows(f"{table}_latest", "count(*)") == [(3,)]
        definition = bench.query(
            f"SELECT sql FROM duckdb_views() WHERE view_name = '{table}_latest'"
        )
        assert "2021-01-19" in definition[0][0]
    columns = "TABLE_NAME, CREATE_TIME::DATE, DB_TIMEZONE, TABLE_ROWS, BQ_PARTITION, refreshed_at"
    assert bench.rows("MIRROR_METADATA", columns) == [
        ("t1", date(2021, 1, 18), "-08:00", 3, "20210119", refreshed),
        ("t2", date(2021, 1, 18), "-08:00", 3, "20210119", refreshed),
    ]


def test_a_1_the_wrong_day_is_refused(bench: Bench) -> None:
    _numbers(bench, "t1", 3)
    spec = bench.catalog(["t1"])
    report = bench.mirror_day(spec, day=bench.day(spec) - timedelta(days=1))["t1"]
    assert not report.published
    assert report.error is not None
    assert report.error.kind == "wrong_day"


def test_a_4_nullable_integers_stay_integers(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int NULL, big bigint NULL)",
        "INSERT INTO t VALUES (1, 1, 9007199254740993), (2, NULL, NULL), (3, 3, -1),"
        " (4, NULL, 9223372036854775807), (5, 5, NULL)",
    )
    bench.mirror_day(bench.catalog(["t"]))
    assert bench.exported("t") == (
        b"1,1,9007199254740993\n2,,\n3,3,-1\n4,,9223372036854775807\n5,5,\n"
    )
    assert bench.rows("t_latest") == [
        (1, 1, 2**53 + 1),
        (2, None, None),
        (3, 3, -1),
        (4, None, 2**63 - 1),
        (5, 5, None),
    ]


def test_a_5_tinyint_1_is_boolean_and_tinyint_4_a_number(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, flag tinyint(1) NULL, n tinyint(4) NULL)",
        "INSERT INTO t VALUES (1, 1, 7), (2, 0, -128), (3, NULL, NULL)",
    )
    bench.mirror_day(bench.catalog(["t"], tinyint1="boolean"))
    assert bench.rows("t_latest") == [(1, True, 7), (2, False, -128), (3, None, None)]
    types = "typeof(flag), typeof(n)"
    assert bench.rows("t_latest", types)[0] == ("BOOLEAN", "BIGINT")


def test_a_6_dates_and_datetimes_do_not_shift(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (d date, dt datetime, dt6 datetime(6))",
        "INSERT INTO t VALUES ('2020-02-29', '2020-02-29 23:15:00', '2020-02-29 23:15:00.000001')",
    )
    bench.mirror_day(bench.catalog(["t"]))
    assert bench.rows("t_latest") == [
        (
            date(2020, 2, 29),
            datetime(2020, 2, 29, 23, 15),
            datetime(2020, 2, 29, 23, 15, 0, 1),
        )
    ]
    assert bench.rows("t_latest", "typeof(d), typeof(dt)") == [("DATE", "TIMESTAMP")]


@pytest.mark.parametrize(
    ("case", "rows", "parts"), [("a_7", 1_500, 3), ("a_8", 80_000, 40)], ids=["a_7", "a_8"]
)
def test_a_7_and_a_8_several_parts_add_up_to_the_source(
    bench: Bench, case: str, rows: int, parts: int
) -> None:
    bench.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, text longtext NOT NULL)",
        f"INSERT INTO t SELECT seq, 'two\nlines' FROM seq_1_to_{rows}",
    )
    report = bench.mirror_day(bench.catalog(["t"]), part_bytes=1)["t"]  # each batch is a part
    files = list((bench.root / "landing").glob("clinic/*/t_*.csv"))
    assert len(files) >= parts
    assert (report.published, report.source_rows, report.loaded) == (True, rows, rows)
    assert bench.rows("t_latest", "count(*), count(DISTINCT id), sum(id)") == [
        (rows, rows, rows * (rows + 1) // 2)
    ]
    content = b"".join(file.read_bytes() for file in files)
    assert content.count(b'"two\nlines"\n') == rows == content.count(b",")  # and no header
    numbers = {int(re.findall(r"_(\d+)-", file.name)[0]) for file in files}
    assert numbers == set(range(len(files)))


def test_a_9_one_tables_bad_rows_are_its_own(bench: Bench) -> None:
    for table in ("t1", "t3"):
        _numbers(bench, table, 4)
    bench.run(
        "CREATE TABLE t2 (id int PRIMARY KEY, flag tinyint(1))",
        "INSERT INTO t2 VALUES (1, 0), (2, 2)",
    )
    spec = bench.catalog(["t1", "t2", "t3"], tinyint1="boolean")
    reports = bench.mirror_day(spec)
    assert [report.published for report in reports.values()] == [True, False, True]
    assert isinstance(reports["t2"].error, CoverageTooLow)
    assert bench.rows("t1_latest", "count(*)") == bench.rows("t3_latest", "count(*)") == [(4,)]
    assert bench.errors() == [("t2", "BQ", "coverage"), ("t2", "BQ", "not_boolean")]


def test_a_9_an_unwritable_lake_folder_of_one_table(bench: Bench) -> None:
    for table in ("t1", "t2", "t3"):
        _numbers(bench, table, 4)
    folder = bench.root / "lake" / "clinic_mirror"
    folder.mkdir(parents=True)
    (folder / "t2").write_text("not a folder")
    spec = bench.catalog(["t1", "t2", "t3"])

    reports = bench.mirror_day(spec)
    assert [report.published for report in reports.values()] == [True, False, True]
    assert bench.rows("t1_latest", "count(*)") == bench.rows("t3_latest", "count(*)") == [(4,)]
    assert bench.errors() == [("t2", "BQ", "warehouse")]

    (folder / "t2").unlink()
    assert all(report.published for report in bench.mirror_day(spec).values())
    assert bench.errors() == []


@pytest.mark.parametrize(("bad", "published"), [(2, True), (3, False)])
def test_a_10_bad_rows_within_and_beyond_the_allowance(
    bench: Bench, bad: int, published: bool
) -> None:
    bench.run(
        "CREATE TABLE patient_immunization (id int PRIMARY KEY, administered_date date)",
        "INSERT INTO patient_immunization SELECT seq,"
        f" IF(seq <= {bad}, '9999-12-31', '2020-01-01') FROM seq_1_to_50",
    )
    allowance = {"rows": 2, "reason": "administered in the year 9999", "until": "2090-01-01"}
    spec = bench.catalog(
        {"patient_immunization": {"bad_records_allowed": allowance}}, last_date="2262-04-11"
    )
    report = bench.mirror_day(spec)["patient_immunization"]
    assert (report.published, report.rejected, report.allowed) == (published, bad, 2)
    rejects = [("patient_immunization", "BQ", "out_of_range")] * bad
    refusal = [] if published else [("patient_immunization", "BQ", "coverage")]
    assert bench.errors() == refusal + rejects
    if published:
        assert bench.rows("patient_immunization_latest", "count(*)") == [(48,)]
    assert bench.rows("MIRROR_METADATA", "TABLE_ROWS, loaded_rows, rejected_rows") == [
        (50, 50 - bad, bad)
    ]


def test_a_10_an_allowance_ends(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int, d date)", "INSERT INTO t VALUES (1, '9999-12-31'), (2, NULL)"
    )
    allowance = {"rows": 1, "reason": "administered in the year 9999", "until": "2020-12-31"}
    spec = bench.catalog({"t": {"bad_records_allowed": allowance}}, last_date="2262-04-11")
    report = bench.mirror_day(spec)["t"]
    assert (report.published, report.allowed) == (False, 0)


def test_a_11_the_same_refresh_twice_replaces_the_partition(bench: Bench) -> None:
    _numbers(bench, "t", 5)
    spec = bench.catalog(["t"])
    for _ in range(3):
        assert bench.mirror_day(spec)["t"].published
    assert bench.rows("t", "count(*), count(DISTINCT id)") == [(5, 5)]
    assert bench.rows("MIRROR_METADATA", "count(*)") == [(3,)]
    assert bench.rows("MIRROR_METADATA_latest", "count(*)") == [(1,)]


def _next_day(bench: Bench, spec_tables: dict[str, object] | list[str], **fields: object):
    """Yesterday's state first, so that a change at the source meets an older partition."""
    spec = bench.catalog(spec_tables, **fields)
    yesterday = bench.earlier(spec, days=1)
    first = bench.mirror_day(spec, source=yesterday)
    assert all(report.published for report in first.values())
    return spec


def test_a_12_an_added_nullable_column_loads(bench: Bench) -> None:
    _numbers(bench, "t", 2)
    spec = _next_day(bench, ["t"])
    bench.run("ALTER TABLE t ADD COLUMN extra int NULL", "UPDATE t SET extra = id")
    report = bench.mirror_day(spec)["t"]
    assert (report.published, report.drift) == (True, "extra added")
    assert bench.rows("t_latest") == [(1, "note 1", 1), (2, "note 2", 2)]
    assert bench.rows("t", "id, extra", where="extra IS NULL") == [(1, None), (2, None)]


def test_a_12_a_relaxed_column_loads(bench: Bench) -> None:
    _numbers(bench, "t", 2)
    spec = _next_day(bench, ["t"])
    bench.run("ALTER TABLE t MODIFY note varchar(40) NULL", "UPDATE t SET note = NULL WHERE id = 2")
    report = bench.mirror_day(spec)["t"]
    assert (report.published, report.drift) == (True, "note relaxed")
    assert bench.rows("t_latest") == [(1, "note 1"), (2, None)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("MODIFY note int", "note retyped from STRING to INT64"),
        ("DROP COLUMN note", "note removed"),
    ],
)
def test_a_12_a_breaking_change_is_refused_with_its_remedy(
    bench: Bench, change: str, words: str
) -> None:
    _numbers(bench, "t", 2)
    _numbers(bench, "other", 2)
    spec = _next_day(bench, ["other", "t"])
    bench.run("UPDATE t SET note = '7'", f"ALTER TABLE t {change}")
    reports = bench.mirror_day(spec)
    assert reports["other"].published
    error = reports["t"].error
    assert isinstance(error, DriftRefused)
    assert words in error.sentence
    assert words in reports["t"].drift
    assert "breaking_drift: deprecate" in error.remedy
    assert bench.errors() == [("t", "BQ", "drift")]
    assert bench.rows("t_latest") == [(1, "note 1"), (2, "note 2")]  # yesterday's


def test_a_12_a_breaking_change_deprecates_where_the_catalog_says_so(bench: Bench) -> None:
    _numbers(bench, "t", 2)
    spec = _next_day(bench, {"t": {"breaking_drift": "deprecate"}})
    bench.run("UPDATE t SET note = '7'", "ALTER TABLE t MODIFY note int")
    report = bench.mirror_day(spec)["t"]
    assert report.published
    assert "note retyped" in report.drift
    assert bench.rows("t_latest") == [(1, 7), (2, 7)]
    assert bench.rows("t", "count(*)") == [(2,)]
    assert bench.rows("t_depr_1", "id, note") == [(1, "note 1"), (2, "note 2")]
    assert bench.rows("MIRROR_METADATA", "drift", where="drift IS NOT NULL") == [(report.drift,)]


def test_a_13_an_emptied_table_shows_empty(bench: Bench) -> None:
    _numbers(bench, "t", 3)
    spec = _next_day(bench, {"t": {"volume": 0}})
    bench.run("DELETE FROM t")
    report = bench.mirror_day(spec)["t"]
    assert (report.published, report.source_rows, report.coverage) == (True, 0, None)
    assert bench.rows("t_latest") == []
    assert bench.rows("t", "count(*)") == [(3,)]


def test_a_13_an_emptied_table_is_refused_until_it_is_accepted(bench: Bench) -> None:
    _numbers(bench, "t", 3)
    spec = _next_day(bench, ["t"])
    bench.run("DELETE FROM t")
    refused = bench.mirror_day(spec)["t"]
    assert isinstance(refused.error, VolumeDropped)
    assert "mirror/accept_volume=t" in refused.error.remedy
    assert bench.rows("t_latest", "count(*)") == [(3,)]
    assert bench.mirror_day(spec, accept_volume=["t"])["t"].published
    assert bench.rows("t_latest") == []


def test_a_13_half_of_the_rows_is_enough_by_default(bench: Bench) -> None:
    _numbers(bench, "t", 4)
    spec = _next_day(bench, ["t"])
    bench.run("DELETE FROM t WHERE id > 2")
    assert bench.mirror_day(spec)["t"].published


def test_a_14_awkward_text_round_trips(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY, text longtext NULL)")
    with closing(bench.server.admin(bench.schema)) as admin, admin.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", list(enumerate(_TEXTS)))
    bench.mirror_day(bench.catalog(["t"]))
    assert bench.rows("t_latest") == list(enumerate(_TEXTS))


def test_f_1_no_errors_is_full_coverage(bench: Bench) -> None:
    assert coverage.coverage(990, 0) == 100.0
    _numbers(bench, "t", 3)
    assert bench.mirror_day(bench.catalog(["t"]))["t"].coverage == 100.0
    assert bench.query("SELECT coverage FROM sli_metrics.clinic_mirror_coverage") == [(100.0,)]


def test_f_2_all_rows_bad_is_no_coverage(bench: Bench) -> None:
    assert coverage.coverage(0, 10) == 0.0
    bench.run("CREATE TABLE t (flag tinyint(1))", "INSERT INTO t VALUES (2), (3)")
    report = bench.mirror_day(bench.catalog(["t"], tinyint1="boolean"))["t"]
    assert (report.coverage, report.published) == (0.0, False)
    assert bench.query("SELECT coverage FROM sli_metrics.clinic_mirror_coverage") == [(0.0,)]


def test_f_3_no_rows_is_no_data(bench: Bench) -> None:
    assert coverage.coverage(0, 0) is None
    assert coverage.freshness(datetime.now(UTC), []) is None
    assert coverage.age(datetime.now(UTC), None) is None
    bench.run("CREATE TABLE t (id int)")
    report = bench.mirror_day(bench.catalog(["t"]))["t"]
    assert (report.coverage, report.published) == (None, True)
    assert bench.query("SELECT coverage FROM sli_metrics.clinic_mirror_coverage") == [(None,)]


def test_f_4_freshness_is_the_mean_age() -> None:
    now = datetime(2021, 1, 19, 12, tzinfo=UTC)
    assert coverage.freshness(now, [now - timedelta(hours=2), now - timedelta(hours=4)]) == 3.0


def test_f_5_two_runs_of_one_shard_have_a_row_each(bench: Bench) -> None:
    bench.run("CREATE TABLE t (flag tinyint(1))", "INSERT INTO t VALUES (1), (0), (2)")
    allowance = {"rows": 1, "reason": "a flag that holds two", "until": "2090-01-01"}
    spec = bench.catalog({"t": {"bad_records_allowed": allowance}}, tinyint1="boolean")
    for run in ("first", "second", "second"):
        bench.mirror_day(spec, run_id=run)
    series = "SELECT run_id, shard, coverage FROM sli_metrics.clinic_mirror_coverage ORDER BY 1"
    shard = f"{bench.day(spec):%Y%m%d}"
    assert bench.query(series) == [("first", shard, 66.6667), ("second", shard, 66.6667)]
    assert bench.rows("MIRROR_ERRORS", "run_id, kind") == [
        ("first", "not_boolean"),
        ("second", "not_boolean"),
    ]
    assert bench.errors("run_id") == [("second",)]
