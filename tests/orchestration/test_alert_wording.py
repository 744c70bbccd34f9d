"""What is told, and when: pure rules, without a run."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import mirror_assets
from mirror_assets.elation.local_time import ZONE
from mirror_assets.mirroring.errors import MirrorError, SettingsError
from mirror_assets.orchestration.alerts import deadline, doc, messages
from mirror_assets.orchestration.alerts.findings import (
    Check,
    Ended,
    Failure,
    Finding,
    Made,
    judge,
)
from mirror_assets.orchestration.alerts.memory import Channels, Memory, Origin
from mirror_assets.orchestration.alerts.messages import KINDS, Message
from mirror_assets.settings import Settings
from mirror_assets.settings.alerts import VARIABLES, AlertSettings

DAY = "2026-11-22"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CHANNELS = Channels("#all", ["#readers"], {"elation": "#elation-team", "commons": ""})
SAMPLES = doc.samples()


def test_the_page_of_all_messages_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "alerts.md"
    assert page.read_text(encoding="utf-8") == doc.page(), "run `make docs-alerts`"


def test_every_kind_has_a_sample_and_every_sample_a_kind() -> None:
    assert set(SAMPLES) == set(KINDS)


def test_every_kind_of_error_has_a_message_and_every_message_an_error() -> None:
    for module in pkgutil.walk_packages(mirror_assets.__path__, "mirror_assets."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {error.kind for error in _errors(MirrorError)} == set(messages.ERRORS)
    assert not set(messages.ERRORS) & set(messages.OTHERS)


def _errors(base: type[MirrorError]) -> Iterator[type[MirrorError]]:
    """The product's own errors, without those that tests make."""
    if base.__module__.startswith("mirror_assets."):
        yield base
    for error in base.__subclasses__():
        yield from _errors(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_says_what_where_and_what_next(kind: str) -> None:
    told = messages.alert(SAMPLES[kind])
    first = SAMPLES[kind][0]
    assert first.scope in told.title or kind in ("ehr_stale", "dbt")
    assert "{" not in told.title + told.body
    assert "Press: " in told.body
    for finding in SAMPLES[kind]:
        assert finding.item in told.body
        assert finding.what in told.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_playbook_is_a_heading_of_the_operations_page(kind: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    playbook = KINDS[kind].playbook
    assert not playbook or f"## {playbook}\n" in page


def _message(title: str, body: str) -> Message:
    return Message("alert-1", "#all", title, body, "https://dagster.example/runs/1")


@pytest.mark.parametrize("body", ["short", "x" * 9000, "<&>" * 4000, "line <&>\n" * 3000])
def test_blocks_keep_to_the_limits_of_slack(body: str) -> None:
    made = messages.blocks(_message("t" * 5000, body))
    assert 2 < len(made) <= 50
    for block in made[:-1]:
        assert 0 < len(block["text"]["text"]) <= 3000


def test_a_name_can_neither_mention_people_nor_forge_a_link() -> None:
    made = messages.blocks(_message("<!channel>", "<https://evil.example|press> & go"))
    text = str(made[:-1])
    assert "<" not in text
    assert "&lt;!channel&gt;" in text


def test_many_tables_are_counted_and_a_few_named() -> None:
    sample = SAMPLES["coverage"][0]
    tables = [replace(sample, item=f"table_{n:03}", subject=str(n)) for n in range(300)]
    told = messages.alert(tables)
    assert "300 tables of 2026-11-22 not published" in told.title
    assert "`table_009`" in told.body
    assert "`table_010`" not in told.body
    assert "and 290 more" in told.body
    each = [replace(table, what=f"{n} rows were rejected") for n, table in enumerate(tables)]
    assert "and 290 more" in messages.alert(each).body


def test_an_address_shows_no_password() -> None:
    finding = replace(SAMPLES["error"][0], what="mysql://reader:s3cret@host/db hung up")
    assert "s3cret" not in messages.alert([finding]).body


# -- what runs leave


def kinds(run: Ended) -> list[tuple[str, str]]:
    return [(finding.kind, finding.item) for finding in judge(run)[0]]


CHUNK = Ended(
    "r1",
    "elation_mirror",
    "failure",
    "elation",
    DAY,
    failures={"elation_chunk_000": Failure({"cured_by_retry": True, "kind": "source_unavailable"})},
    planned={"elation_chunk_000": ["elation/a", "elation/b"], "elation_chunk_001": ["elation/c"]},
)


def test_a_chunk_that_failed_as_a_whole_owes_its_own_tables() -> None:
    assert kinds(CHUNK) == [("source_unavailable", "a"), ("source_unavailable", "b")]


def test_what_a_failed_step_has_published_is_well() -> None:
    run = replace(CHUNK, made=[Made("elation/a", {}, DAY)])
    bad, well = judge(run)
    assert [finding.item for finding in bad] == ["b"]
    assert f"asset elation/a {DAY}" in well


def test_a_failed_check_of_a_green_run_is_told() -> None:
    check = Check("elation/a", "some_check", False, partition=DAY)
    assert kinds(Ended("r", "assets", "success", checks=[check])) == [("check", "some_check")]
    warning = replace(check, warning=True)
    run = Ended("r", "assets", "success", checks=[warning])
    assert kinds(run) == [("check_warning", "some_check")]


def test_a_text_that_is_not_marked_as_ours_is_never_looked_at() -> None:
    failure = Failure({"what": "Canary-1", "kind": "coverage"}, "DagsterDbtCliRuntimeError")
    [finding] = judge(Ended("r", "upkeep", "failure", failures={"s": failure}))[0]
    assert finding.kind == "unexpected"
    assert "Canary" not in repr(finding)


def test_a_run_that_somebody_canceled_is_no_alarm() -> None:
    assert judge(replace(CHUNK, outcome="canceled", failures={}))[0] == []
    assert judge(replace(CHUNK, outcome="failure", failures={}))[0] != []


def test_figures_of_an_older_day_are_no_news() -> None:
    made = [Made("elation/patient_encounters", {"notes_without_member": 3}, DAY)]
    run = Ended("r", "assets", "success", partition=DAY, made=made, day=date(2026, 11, 23))
    assert len(judge(run)[0]) == 1
    bad, well = judge(replace(run, day=date(2026, 11, 24)))
    assert bad == []
    assert not any("figure" in subject for subject in well)


# -- what is new, what is over


def titles(memory: Memory, channel: str = "#all") -> list[str]:
    found = [message.title for message in memory.outbox if message.channel == channel]
    memory.outbox.clear()
    return found


def see(
    memory: Memory, bad: Iterable[Finding] = (), well: Iterable[str] = (), **origin: Any
) -> None:
    memory.observe(bad, well, Origin("link", **origin), CHANNELS, NOON)


def test_a_figure_is_told_again_only_when_it_grows() -> None:
    memory = Memory()
    [notes] = SAMPLES["notes_without_member"]
    told = []
    for size in (3, 3, 2, 5, 5):
        see(memory, [replace(notes, size=size)])
        told.append(len(titles(memory)))
    assert told == [1, 0, 0, 1, 0]
    see(memory, well=[notes.subject])
    assert titles(memory) == [
        ":white_check_mark: elation/patient_encounters: every note has a member again"
    ]


def test_another_cause_is_another_alert() -> None:
    memory = Memory()
    coverage, drift = SAMPLES["coverage"][0], SAMPLES["drift"][0]
    see(memory, [coverage])
    see(memory, [replace(drift, subject=coverage.subject)])
    assert len(titles(memory)) == 2
    see(memory, well=[coverage.subject])
    assert len(titles(memory)) == 1


def test_it_is_over_when_all_of_it_is() -> None:
    memory = Memory()
    one = SAMPLES["coverage"][0]
    other = replace(one, subject="other", item="other")
    see(memory, [one, other])
    assert len(titles(memory)) == 1
    see(memory, well=[one.subject])
    assert titles(memory) == []
    see(memory, [one])  # while the other still is: told, because it had been well
    assert len(titles(memory)) == 1
    see(memory, well=[one.subject, "other"])
    assert len(titles(memory)) == 2
    see(memory, well=[one.subject, "other"])
    assert titles(memory) == []


def test_what_was_set_aside_is_told_once_and_is_never_over() -> None:
    memory = Memory()
    [aside] = SAMPLES["set_aside"]
    see(memory, [aside])
    assert len(titles(memory)) == 1
    assert memory.open == {}


def test_who_hears_what() -> None:
    memory = Memory()
    see(memory, [SAMPLES["coverage"][0], SAMPLES["leftovers"][0], SAMPLES["ehr_stale"][0]])
    heard = sorted((message.channel, message.title.split()[1]) for message in memory.outbox)
    assert heard == [
        ("#all", "commons:"),
        ("#all", "elation:"),
        ("#elation-team", "elation:"),
        ("#readers", "EHR"),
    ]


def test_a_memory_survives_its_storage() -> None:
    memory = Memory()
    see(memory, [SAMPLES["coverage"][0]], will_retry=True)
    again = Memory.read(memory.text())
    assert again == memory
    see(again, [SAMPLES["coverage"][0]], is_retry=True)
    assert [message.title for message in again.outbox][2:] == ["The retry failed too."] * 2


def test_an_old_open_alert_is_forgotten() -> None:
    memory = Memory()
    see(memory, [SAMPLES["coverage"][0]])
    memory.outbox.clear()
    memory.observe([], [], Origin("link"), CHANNELS, NOON + timedelta(days=61))
    assert (memory.open, memory.alerts, memory.threads) == ({}, {}, {})


# -- the deadline

PACIFIC = ZoneInfo("US/Pacific")
BOTH = ("elation/patient_encounters", "commons/ccd_encounter_cache")


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-22T15:59Z", "2026-11-21"),  # winter: 16:00 UTC
        ("2026-11-22T16:00Z", "2026-11-22"),
        ("2026-11-23T03:00Z", "2026-11-22"),  # the evening before, on the wall
        ("2026-07-22T14:59Z", "2026-07-21"),  # summer: 15:00 UTC
        ("2026-07-22T15:00Z", "2026-07-22"),
        ("2026-03-08T14:59Z", "2026-03-07"),  # the clocks went forward that morning
        ("2026-03-08T15:00Z", "2026-03-08"),
    ],
)
def test_the_day_that_is_due(now: str, due: str) -> None:
    moment = datetime.fromisoformat(now)
    assert str(deadline.due_day(moment, time(8), PACIFIC)) == due


def _stale(*days: str | None) -> Finding | None:
    newest = {
        name: date.fromisoformat(day) if day else None for name, day in zip(BOTH, days, strict=True)
    }
    return deadline.stale(newest, datetime(2026, 11, 22, 17, tzinfo=UTC), time(8), PACIFIC)


def test_both_must_have_the_day() -> None:
    assert _stale(DAY, DAY) is None
    late = _stale(DAY, "2026-11-20")
    assert late is not None
    assert "commons/ccd_encounter_cache is of 2026-11-20" in late.what
    assert "patient_encounters" not in late.what
    assert late.size == 2
    assert _stale(None, None) is not None


# -- settings


def _settings(**variables: str) -> AlertSettings:
    return AlertSettings.from_env(Settings.from_env(variables))


def test_the_defaults() -> None:
    found = _settings()
    assert found.channel == "#airflow_alerts"
    assert found.readers == ["#elation-feedback", "#analytics-support"]
    assert (found.deadline, found.zone.key) == (time(8), ZONE)
    assert found.token() is None
    assert VARIABLES["MIRROR_EHR_ZONE"][0] == ZONE
    assert _settings(MIRROR_EHR_DEADLINE="off").deadline is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIRROR_SLACK_API", "http://slack.example/api"),
        ("MIRROR_EHR_DEADLINE", "8"),
        ("MIRROR_EHR_ZONE", "Mars/Olympus"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        _settings(**{name: value})


def test_the_token_is_read_from_a_private_file_and_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("xoxb-secret\n")
    file.chmod(0o400)
    found = _settings(MIRROR_SLACK_TOKEN_FILE=str(file))
    assert found.token() == "xoxb-secret"
    file.chmod(0o444)
    with pytest.raises(SettingsError, match="can be read by others"):
        found.token()
    assert _settings(MIRROR_SLACK_TOKEN="xoxb-secret").token() == "xoxb-secret"
    assert "xoxb" not in repr(_settings(MIRROR_SLACK_TOKEN="xoxb-secret"))
