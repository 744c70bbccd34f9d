"""Real runs over a real server, and what people are told of them in a local Slack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from mirror_assets.orchestration.alerts import sensors
from mirror_assets.orchestration.alerts.findings import leftovers
from mirror_assets.orchestration.alerts.sensors import alert_sensor, report, tell, watch
from mirror_assets.settings import Settings
from mirror_assets.settings.alerts import AlertSettings
from tests.conftest import Bench
from tests.fakes.slack import FakeSlack, slack
from tests.orchestration.conftest import Run

Execute = Callable[..., Run]
CANARY = "Canary-5d1e"
OWN = "#clinic-team"


class Teller:
    """The alert sensor over an instance, tick by tick."""

    def __init__(self, instance: dg.DagsterInstance, fake: FakeSlack) -> None:
        self.instance = instance
        self.slack = fake
        self.logged: list[str] = []
        self.now = datetime.now(UTC)

    def tick(self) -> list[str]:
        """The titles that one tick posted to the default channel."""
        before = len(self.slack.titles())
        self.now = max(self.now, datetime.now(UTC))
        self.said = tell(
            self.instance,
            Settings.from_env(),
            self.logged.append,
            now=self.now,
            settle=timedelta(0),
        )
        return self.slack.titles()[before:]


@pytest.fixture
def teller(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Teller]:
    (tmp_path / "catalogs").mkdir(exist_ok=True)
    with slack(OWN) as fake:
        monkeypatch.setenv("MIRROR_CATALOG_PATH", str(tmp_path / "catalogs"))
        monkeypatch.setenv("MIRROR_SLACK_TOKEN", fake.token)
        monkeypatch.setenv("MIRROR_SLACK_API", fake.url)
        monkeypatch.setenv("MIRROR_UI_URL", "https://dagster.example")
        yield Teller(instance, fake)


def one_good_and_one_bad(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE a (id int, v varchar(80), d date)",
        "CREATE TABLE b (id int, v varchar(80), d date)",
        f"INSERT INTO a VALUES (1, '{CANARY}', '2026-01-01')",
        "SET sql_mode = ''",
        f"INSERT INTO b VALUES (1, '{CANARY}', '2026-00-01')",
    )


def mend(bench: Bench) -> None:
    bench.next_second()
    bench.run(
        "DROP TABLE a",
        "DROP TABLE b",
        "CREATE TABLE a (id int, v varchar(80), d date)",
        "CREATE TABLE b (id int, v varchar(80), d date)",
        f"INSERT INTO a VALUES (1, '{CANARY}', '2026-01-01')",
        f"INSERT INTO b VALUES (1, '{CANARY}', '2026-01-01')",
    )


def test_a_bad_table_is_told_once_then_its_recovery_then_its_return(
    bench: Bench, execute: Execute, teller: Teller
) -> None:
    one_good_and_one_bad(bench)
    spec = bench.catalog(["a", "b"], slack_channel=OWN)
    day = bench.day(spec)
    run = execute("clinic_mirror", day)
    assert not run.success
    [told] = teller.tick()
    assert told.startswith(":red_circle: clinic: 1 table of")
    assert f"{day} not published" in told
    post = teller.slack.posted[0]
    text = str(post["blocks"])
    for part in ("`b`", "1 of 1 rows were rejected", f"mirror errors clinic --partition {day}"):
        assert part in text
    assert f"https://dagster.example/runs/{run.run_id}" in text
    assert teller.slack.titles(OWN) == [told]

    assert teller.tick() == []
    assert not execute("clinic_mirror", day).success
    assert teller.tick() == []  # the same thing again is not news

    mend(bench)
    assert execute("clinic_mirror", day).success
    [over] = teller.tick()
    assert over == f":white_check_mark: clinic: the tables of {day} are published"
    assert teller.slack.titles(OWN) == [told, over]
    assert teller.slack.posted[-2]["thread_ts"] == post["ts"]
    assert teller.slack.posted[-2]["reply_broadcast"] is True

    bench.next_second()
    bench.run("DROP TABLE a, b")
    one_good_and_one_bad(bench)
    assert not execute("clinic_mirror", day).success
    assert teller.tick() == [told]

    assert bench.rows("b_latest", "v") == [(CANARY,)]  # the canary was there to be leaked
    for secret in (CANARY, "2026-00-01"):
        assert secret not in teller.slack.everything()
    assert all(teller.slack.token not in text for text in teller.logged)


def test_a_retried_run_says_so_and_does_not_alarm_twice(
    bench: Bench,
    execute: Execute,
    teller: Teller,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench.run("CREATE TABLE a (id int)")
    day = bench.day(bench.catalog(["a"]))
    monkeypatch.setenv("CLINIC_DATABASE_URL", "mysql+pymysql://reader@127.0.0.1:1/clinic")
    assert not execute("clinic_mirror", day).success
    [told] = teller.tick()
    assert "the source cannot be reached" in told
    assert "it is being retried by itself" in str(teller.slack.posted[-1]["blocks"])

    tags = {"dagster/retry_number": "1", "dagster/max_retries": "0"}  # as the daemon's only retry
    assert not execute("clinic_mirror", day, tags=tags).success
    assert teller.tick() == ["The retry failed too."]
    assert teller.slack.posted[-1]["thread_ts"] == teller.slack.posted[0]["ts"]
    assert not execute("clinic_mirror", day, tags=tags).success
    assert teller.tick() == []

    monkeypatch.setenv("CLINIC_DATABASE_URL", bench.url)
    assert execute("clinic_mirror", day).success
    [over] = teller.tick()
    assert over.startswith(":white_check_mark:")


def test_stale_data_a_catalog_that_misses_a_table_and_a_deprecation(
    bench: Bench, execute: Execute, teller: Teller
) -> None:
    bench.run("CREATE TABLE a (id int, v int)", "INSERT INTO a VALUES (1, 2)")
    bench.run("CREATE TABLE forgotten (id int)")
    spec = bench.catalog(["a"], freshness_hours=24, breaking_drift="deprecate")
    bench.mirror_day(spec, source=bench.earlier(spec, days=2))
    assert not execute("clinic_health").success
    stale, missed = sorted(teller.tick(), reverse=True)
    assert stale == ":warning: clinic: the catalog and the source differ"
    assert missed == ":red_circle: clinic: data is stale"
    assert "forgotten" in str(teller.slack.posted)
    assert "24 are allowed" in str(teller.slack.posted)

    bench.next_second()
    bench.run("DROP TABLE a", "CREATE TABLE a (id int, v date)", "INSERT INTO a VALUES (1, NULL)")
    day = bench.day(spec)
    assert execute("clinic_mirror", day).success
    [aside] = teller.tick()
    assert aside == (
        f":information_source: clinic: history of 1 table was set aside of {day}, because the"
        " schema changed"
    )
    text = str(teller.slack.posted[-1]["blocks"])
    assert "history of clinic_mirror.a is now clinic_mirror.a_depr_1" in text
    assert "have queries over older days read a_depr_1" in text

    bench.catalog(["a"], freshness_hours=24, exclude=["forgot*"])
    assert execute("clinic_health").success
    assert sorted(teller.tick()) == [
        ":white_check_mark: clinic: catalog and source agree again",
        ":white_check_mark: clinic: data is fresh again",
    ]


LEFT = leftovers("commons", ["restore-7"], hours=6, remedy="`mirror doctor` names them")
TITLE = ":red_circle: commons: 1 restored backup left over"


def test_an_outage_delays_and_loses_nothing(instance: dg.DagsterInstance, teller: Teller) -> None:
    report(instance, "backup_leftovers", LEFT)
    teller.slack.faults = [(503, {})]
    assert teller.tick() == []
    assert teller.said == "0 posted, 1 wait: Slack answered with status 503"
    teller.slack.faults = [(429, {"Retry-After": "40"})]
    assert teller.tick() == []
    asked = len(teller.slack.requests)
    assert teller.tick() == []
    assert len(teller.slack.requests) == asked, "Slack had asked to wait"
    teller.now += timedelta(seconds=41)
    assert teller.tick() == [TITLE]
    assert teller.tick() == []
    report(instance, "backup_leftovers", [])
    assert teller.tick() == [":white_check_mark: commons: no restored backup is left over"]


def test_where_slack_cannot_be_reached_the_sensor_goes_on(
    instance: dg.DagsterInstance, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(instance, "backup_leftovers", LEFT)
    monkeypatch.setenv("MIRROR_SLACK_API", "http://127.0.0.1:1/api/")
    context = dg.build_sensor_context(instance=instance)
    assert "1 wait: Slack gave no answer" in str(alert_sensor()(context))
    monkeypatch.setenv("MIRROR_SLACK_API", teller.slack.url)
    assert teller.tick() == [TITLE]


def test_only_a_lost_answer_sends_a_message_twice(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    report(instance, "backup_leftovers", LEFT)
    teller.slack.faults = ["lost"]
    assert teller.tick() == [TITLE]
    assert teller.tick() == [TITLE]
    assert teller.tick() == []


def test_a_revoked_token_keeps_what_waits(
    instance: dg.DagsterInstance, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(instance, "backup_leftovers", LEFT)
    monkeypatch.setenv("MIRROR_SLACK_TOKEN", "xoxb-revoked")
    assert teller.tick() == []
    assert teller.said == "0 posted, 1 wait: Slack said invalid_auth"
    monkeypatch.setenv("MIRROR_SLACK_TOKEN", teller.slack.token)
    assert teller.tick() == [TITLE]


def test_a_channel_that_is_gone_does_not_swallow_its_messages(
    instance: dg.DagsterInstance, teller: Teller, tmp_path: Path
) -> None:
    (tmp_path / "catalogs" / "clinic.catalog.yaml").write_text(
        "{database: clinic, kind: mysql, tables: [a], slack_channel: '#archived'}"
    )
    report(instance, "backup_leftovers", leftovers("clinic", ["r"], hours=6, remedy="remove it"))
    title = ":red_circle: clinic: 1 restored backup left over"
    assert teller.tick() == [title, title]
    assert "For #archived, which cannot be posted to" in str(teller.slack.posted[-1]["blocks"])
    assert teller.tick() == []


def test_a_message_that_slack_never_takes_ends_in_the_log(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    report(instance, "backup_leftovers", LEFT)
    teller.slack.faults = ["invalid_blocks"] * 5
    for _ in range(5):
        assert teller.tick() == []
    [logged] = teller.logged
    assert TITLE in logged
    assert teller.tick() == []
    report(instance, "backup_leftovers", [])
    assert len(teller.tick()) == 1, "others still pass"


def test_without_a_token_alerts_are_logged(
    instance: dg.DagsterInstance, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MIRROR_SLACK_TOKEN")
    report(instance, "backup_leftovers", LEFT)
    assert teller.tick() == []
    [logged] = teller.logged
    assert logged.startswith(TITLE)
    assert "Press: " in logged
    assert teller.tick() == []
    assert len(teller.logged) == 1
    assert teller.slack.requests == []


def test_a_memory_that_cannot_be_read_starts_anew_and_says_so(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    report(instance, "backup_leftovers", LEFT)
    assert teller.tick() == [TITLE]
    instance.run_storage.set_cursor_values({"mirror/alerts/memory": '{"outbox": 3}'})
    assert teller.tick() == [TITLE]
    assert "cannot be read" in teller.logged[0]


@dg.op
def breaks() -> None:
    raise ValueError(f"could not parse {CANARY}")


@dg.op
def works() -> None:
    pass


def test_what_is_not_our_own_sentence_is_not_passed_on(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    graphs = [dg.GraphDefinition("nightly", node_defs=[op]) for op in (breaks, works)]
    run = graphs[0].execute_in_process(instance=instance, raise_on_error=False)
    assert not run.success
    assert teller.tick() == [":red_circle: nightly: failed unexpectedly"]
    text = str(teller.slack.posted[-1]["blocks"])
    assert "`breaks`: unexpected ValueError" in text
    assert CANARY not in teller.slack.everything()


def test_a_run_whose_process_died_is_told_by_what_it_owes(
    bench: Bench, teller: Teller, execute: Execute, definitions: Callable[[], dg.Definitions]
) -> None:
    bench.run("CREATE TABLE a (id int)")
    day = str(bench.day(bench.catalog(["a"])))
    job = definitions().resolve_job_def("clinic_mirror")
    run = teller.instance.create_run_for_job(
        job, tags={"dagster/partition": day, **job.tags}, status=dg.DagsterRunStatus.STARTED
    )
    teller.instance.report_run_failed(run)
    assert teller.tick() == [f":red_circle: clinic: the run ended without a word of {day}"]
    assert "`clinic/a`" in str(teller.slack.posted[-1]["blocks"])
    assert execute("clinic_mirror", day).success
    assert teller.tick() == [f":white_check_mark: clinic: what that run owed is there of {day}"]


READERS = ("#elation-feedback", "#analytics-support")
EHR = [
    dg.AssetKey(["elation", "patient_encounters"]),
    dg.AssetKey(["commons", "ccd_encounter_cache"]),
]


def test_those_who_read_ehr_data_hear_once_that_it_is_stale_and_once_that_it_is_not(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    teller.slack.channels |= set(READERS)
    settings = AlertSettings.from_env(Settings.from_env())

    def heard(moment: str) -> list[list[str]]:
        before = len(teller.slack.posted)
        watch(instance, settings, EHR, datetime.fromisoformat(moment))
        assert teller.tick() == [], "the engineers have messages of their own"
        posts = teller.slack.posted[before:]
        return [[post["text"] for post in posts if post["channel"] == name] for name in READERS]

    def land(asset: dg.AssetKey, day: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=day))

    for asset in EHR:
        land(asset, "2026-11-21")
    assert heard("2026-11-22T15:59Z") == [[], []]
    stale = ":red_circle: EHR data is stale"
    assert heard("2026-11-22T16:01Z") == [[stale], [stale]]
    text = str(teller.slack.posted[-1]["blocks"])
    assert "The data of 2026-11-22 was due at 08:00 US/Pacific" in text
    assert "commons/ccd_encounter_cache is of 2026-11-21" in text
    land(EHR[0], "2026-11-22")
    assert heard("2026-11-22T17:00Z") == [[], []]
    assert heard("2026-11-23T16:01Z") == [[stale], [stale]], "one more day is missed"
    for asset in EHR:
        land(asset, "2026-11-23")
    fresh = ":white_check_mark: EHR data is up to date again"
    assert heard("2026-11-23T18:00Z") == [[fresh], [fresh]]
    assert heard("2026-11-23T18:01Z") == [[], []]


def fail(instance: dg.DagsterInstance, job: str, ago: timedelta) -> str:
    """A run of that job that died so long ago; its id."""
    run = dg.DagsterRun(job_name=job, run_id=str(uuid4()))
    instance.add_run(run)
    event = dg.DagsterEvent("PIPELINE_FAILURE", job)
    instance.run_storage.handle_run_event(run.run_id, event, datetime.now(UTC) - ago)
    return run.run_id


def told(jobs: Iterable[str]) -> list[str]:
    return [f":red_circle: {job}: the run ended without a word" for job in jobs]


DAYS, HOUR = timedelta(days=3), timedelta(hours=1)


def test_a_tag_on_an_old_run_is_no_news(instance: dg.DagsterInstance, teller: Teller) -> None:
    old = fail(instance, "nightly", DAYS)
    instance.add_run_tags(old, {"seen": "by somebody"})
    assert teller.tick() == []


def test_tags_on_many_old_runs_do_not_hide_a_newer_failure(
    instance: dg.DagsterInstance, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_RECORDS", 20)
    for _ in range(50):
        instance.add_run_tags(fail(instance, "nightly", DAYS), {"seen": "by somebody"})
    fail(instance, "newer", timedelta(0))
    ticks = [teller.tick() for _ in range(5)]
    assert [title for titles in ticks for title in titles] == told(["newer"])


def test_a_run_that_waits_its_turn_is_told_although_a_tag_put_it_last(
    instance: dg.DagsterInstance, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "_RUNS", 3)
    fail(instance, "first", 4 * HOUR)
    assert teller.tick() == told(["first"])
    tagged = fail(instance, "tagged", 3 * HOUR)
    jobs = [f"job{number}" for number in range(3)]
    for number, job in enumerate(jobs):
        fail(instance, job, 2 * HOUR - timedelta(seconds=number))
    instance.add_run_tags(tagged, {"dagster/did_retry": "true"})
    assert teller.tick() == told(jobs)
    assert teller.tick() == told(["tagged"])
    assert teller.tick() == []


def test_a_report_of_another_release_does_not_stop_the_others(
    instance: dg.DagsterInstance, teller: Teller
) -> None:
    report(instance, "backup_leftovers", LEFT)
    for text in ('[{"topic": 1}]', "no json"):
        instance.run_storage.set_cursor_values({"mirror/alerts/ehr_deadline": text})
        teller.tick()
    assert teller.slack.titles() == [TITLE]
    assert teller.logged == ["the report of ehr_deadline cannot be read"] * 2
