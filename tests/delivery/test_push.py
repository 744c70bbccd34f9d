"""The push against the real service: nothing twice, nothing lost, whatever goes wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mirror_assets.delivery.client import Target
from mirror_assets.delivery.ledger import Acceptance, LedgerStore, Refusal
from mirror_assets.delivery.push import Delivery, DeliveryReport, Record, percentile, push
from mirror_assets.elation.quality_measures import LEDGER_DATASET, warehouse_ledger
from mirror_assets.mirroring.errors import WarehouseFault
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from tests.conftest import ROOT
from tests.delivery.conftest import open_lake
from tests.delivery.measures import Measures, member

DAY = date(2021, 3, 6)
CANARY = "Zebulon Canary"


def record(number: int, status: str = "closed", **changed: Any) -> Record:
    element = {
        "userId": None,
        "setOn": "2021-03-05T08:00:00Z",
        "id": 1,
        "status": status,
        "reason": CANARY,
    }
    return Record(member(number), json.dumps([element | changed]).encode(), 1)


def delivery(run_id: str = "run-1", day: date = DAY, **options: Any) -> Delivery:
    return Delivery(
        "feed",
        "/1.0/member/{recipient}/measures",
        "post the measures of a member",
        day,
        run_id,
        **options,
    )


def counts(report: DeliveryReport) -> tuple[int, int, int, int]:
    return report.posted, report.unchanged, report.refused, report.pending


@pytest.fixture
def ready(measures: Measures) -> Measures:
    """40 members whose measure 1 Able has opened."""
    measures.open_for([member(number) for number in range(40)])
    return measures


def closings(measures: Measures) -> list[str]:
    """The members with an event closed by Elation, one for each event."""
    return [
        row[0]
        for row in measures.ask(
            'SELECT "memberId"::text FROM member_measure WHERE "sourceId" = 3 ORDER BY 1'
        )
    ]


ALL = [member(number) for number in range(40)]


def everybody() -> Iterator[Record]:
    return (record(number) for number in range(40))


def test_the_second_run_posts_nothing(ready: Measures, any_store: LedgerStore) -> None:
    first = push(everybody(), delivery(), ready.target(), any_store)
    second = push(everybody(), delivery("run-2"), ready.target(), any_store)

    assert (counts(first), first.elements, first.by_status) == ((40, 0, 0, 0), 40, {"200": 40})
    assert counts(second) == (0, 40, 0, 0)
    assert (second.p50_ms, second.p95_ms) == (None, None)
    assert ready.service.counts()["posts"] == 40
    assert closings(ready) == ALL


def test_only_what_changed_is_posted(ready: Measures, store: LedgerStore) -> None:
    push(everybody(), delivery(), ready.target(), store)
    changed = [record(n, "excluded" if n == 7 else "closed") for n in range(41)]
    report = push(changed, delivery("run-2", DAY + timedelta(days=1)), ready.target(), store)
    assert counts(report) == (2, 39, 0, 0)


def test_c_26_never_more_than_15_posts_in_flight(ready: Measures, any_store: LedgerStore) -> None:
    ready.service.faults(slow=0.05)
    report = push(everybody(), delivery(), ready.target(), any_store)
    assert counts(report) == (40, 0, 0, 0)
    assert ready.service.counts()["most_at_once"] == 15
    assert report.p50_ms is not None
    assert report.p95_ms is not None
    assert 50 <= report.p50_ms <= report.p95_ms


def test_c_27_one_500_fails_one_member_and_a_rerun_completes(
    ready: Measures, lake: DuckLakeWarehouse
) -> None:
    store = warehouse_ledger(lake)
    ready.service.faults(broken=[3])
    report = push(everybody(), delivery(), ready.target(attempts=1), store)
    assert counts(report) == (39, 0, 1, 0)
    assert report.by_status == {"200": 39, "500": 1}
    assert report.reasons == {"answered 500 with an error": 1}
    refusals = lake.query(
        f"SELECT status, permanent, answer FROM {LEDGER_DATASET}.DELIVERY_REFUSALS"
    ).rows
    assert refusals == [(500, False, '{"error": "connection pool exhausted"}')]

    again = push(everybody(), delivery("run-2"), ready.target(), store)
    assert counts(again) == (1, 39, 0, 0)
    assert closings(ready) == ALL


def test_a_500_that_clears_is_not_a_refusal(ready: Measures, store: LedgerStore) -> None:
    ready.service.faults(broken=[1, 5, 20])
    assert counts(push(everybody(), delivery(), ready.target(), store)) == (40, 0, 0, 0)
    assert closings(ready) == ALL


def test_a_429_storm_is_waited_out(ready: Measures, store: LedgerStore) -> None:
    ready.service.faults(busy=60, retry_after="0")
    target = ready.target(longest_wait=0.2)
    assert counts(push(everybody(), delivery(), target, store)) == (40, 0, 0, 0)
    assert ready.service.counts()["posts"] == 100
    assert closings(ready) == ALL


def test_a_429_without_retry_after_backs_off(ready: Measures, store: LedgerStore) -> None:
    ready.service.faults(busy=30, retry_after=None)
    assert counts(push(everybody(), delivery(), ready.target(), store)) == (40, 0, 0, 0)
    assert closings(ready) == ALL


@pytest.mark.parametrize("told", ["0", "Fri, 01 Jan 2021 00:00:00 GMT", None])
def test_a_service_that_asks_for_no_pause_is_given_one(
    ready: Measures, store: LedgerStore, told: str | None
) -> None:
    ready.service.faults(busy=100_000, retry_after=told)
    target = ready.target(backoff_seconds=0.1, patience=0.6)
    report = push(everybody(), delivery(give_up_after=15), target, store)
    assert report.stopped is not None
    assert (report.posted, report.stopped.status, report.stopped.clears) == (0, 429, True)
    assert ready.service.counts()["posts"] <= 30 * 5  # at 0, 0.05, 0.15, 0.35 seconds or later


@pytest.mark.slow
def test_a_thousand_429s_to_one_record_are_no_defect(ready: Measures, store: LedgerStore) -> None:
    ready.service.faults(busy=1_100, retry_after=None)
    target = ready.target(backoff_seconds=1.0, longest_wait=0.0)
    assert counts(push([record(1)], delivery(), target, store)) == (1, 0, 0, 0)
    assert ready.service.counts()["posts"] == 1_101


def test_the_connection_dies_after_acceptance(ready: Measures, any_store: LedgerStore) -> None:
    ready.service.faults(dropped=[1, 2, 3, 17, 30])
    report = push(everybody(), delivery(), ready.target(), any_store)
    told = ready.service.counts()
    assert counts(report) == (40, 0, 0, 0)
    assert told["posts"] == 45
    assert len(set(told["keys"])) == 40  # a repeated post carries the same key
    assert closings(ready) == ALL


def test_a_refused_member_is_recorded_and_does_not_stop_the_others(
    ready: Measures, lake: DuckLakeWarehouse, caplog: pytest.LogCaptureFixture
) -> None:
    store = warehouse_ledger(lake)
    records = [record(n, "" if n in {4, 9} else "closed") for n in range(40)]
    report = push(records, delivery(), ready.target(), store)
    assert counts(report) == (38, 0, 2, 0)
    assert report.reasons == {"answered 400 with 2 errors": 2}
    assert ready.service.counts()["posts"] == 40
    rows = lake.query(
        "SELECT recipient, status, permanent, reason"
        f" FROM {LEDGER_DATASET}.DELIVERY_REFUSALS ORDER BY 1"
    ).rows
    assert [row[:3] for row in rows] == [(member(4), 400, True), (member(9), 400, True)]
    assert "a retry cannot clear this" in rows[0][3]
    shown = f"{report!r} {report.sentence} {caplog.text} {rows[0][3]}"
    for secret in (CANARY, member(4), "elation-secret"):
        assert secret not in shown


def test_a_body_over_the_services_own_limit(ready: Measures, store: LedgerStore) -> None:
    large = record(40, reason="x" * 6_000_000)
    report = push([large, *everybody()], delivery(), ready.target(), store)
    assert counts(report) == (40, 0, 1, 0)
    assert report.by_status == {"200": 40, "413": 1}


def test_a_member_with_5000_measures(ready: Measures, store: LedgerStore) -> None:
    one = json.loads(record(1).body)[0]
    body = json.dumps([one | {"reason": f"{n}", "id": 999} for n in range(4_999)] + [one])
    report = push([Record(member(1), body.encode(), 5_000)], delivery(), ready.target(), store)
    assert (counts(report), report.elements) == ((1, 0, 0, 0), 5_000)
    assert closings(ready) == [member(1)]


def test_the_service_is_down_for_the_whole_run(measures: Measures, store: LedgerStore) -> None:
    target = Target("http://127.0.0.1:1", attempts=2, backoff_seconds=0.01)
    records = (record(number) for number in range(5_000))
    began = time.monotonic()
    report = push(records, delivery(), target, store)
    assert time.monotonic() - began < 30
    assert report.recipients == 5_000
    assert report.posted == 0
    assert report.refused + report.pending == 5_000
    assert report.refused < 60
    assert report.stopped is not None
    assert report.stopped.clears
    assert "refused the connection" in report.sentence


def test_a_key_that_is_not_known_ends_the_delivery(ready: Measures, store: LedgerStore) -> None:
    target = dataclasses.replace(ready.target(), headers={"apiKey": "wrong"})
    report = push(everybody(), delivery(give_up_after=5), target, store)
    assert report.stopped is not None
    assert (report.stopped.status, report.stopped.clears) == (403, False)
    assert report.posted == 0


def test_a_dry_run_sends_and_remembers_nothing(ready: Measures, any_store: LedgerStore) -> None:
    report = push(everybody(), delivery(dry_run=True), ready.target(), any_store)
    assert counts(report) == (0, 0, 0, 40)
    assert "nothing was sent" in report.sentence
    assert ready.service.counts().get("posts", 0) == 0
    assert any_store.newest("feed") is None
    assert any_store.accepted("feed") == {}


def test_everything_is_sent_again_on_demand(ready: Measures, any_store: LedgerStore) -> None:
    push(everybody(), delivery(), ready.target(), any_store)
    report = push(everybody(), delivery("run-2", resend_all=True), ready.target(), any_store)
    assert counts(report) == (40, 0, 0, 0)
    told = ready.service.counts()
    assert len(set(told["keys"])) == 80  # or the service would take them for repetitions
    assert closings(ready) == ALL


def test_an_old_day_posts_nothing_and_says_so(ready: Measures, store: LedgerStore) -> None:
    push(everybody(), delivery(), ready.target(), store)
    old = delivery("run-2", DAY - timedelta(days=1), resend_all=True)
    report = push((record(n, "excluded") for n in range(40)), old, ready.target(), store)
    assert counts(report) == (0, 0, 0, 0)
    assert report.newer == DAY
    assert "2021-03-06 is newer" in report.sentence
    assert ready.service.counts()["posts"] == 40


def test_an_old_day_under_way_stops_when_a_newer_one_begins(
    ready: Measures, any_store: LedgerStore
) -> None:
    def old() -> Iterator[Record]:
        for number in range(40):
            if number == 20:
                any_store.claim("feed", DAY, "run-2")
            yield record(number)

    quick = delivery("run-1", DAY - timedelta(days=1), batch=1)
    report = push(old(), quick, ready.target(connections=1), any_store)
    assert report.newer == DAY
    assert (report.posted, report.pending) == (21, 19)


def test_records_are_pulled_only_as_they_are_sent(ready: Measures, store: LedgerStore) -> None:
    pulled = 0

    def counting() -> Iterator[Record]:
        nonlocal pulled
        for made in everybody():
            pulled += 1
            yield made

    ready.service.faults(slow=1.5)
    thread = Thread(target=push, args=(counting(), delivery(), ready.target(), store))
    thread.start()
    time.sleep(1.0)
    assert pulled == 15
    thread.join(60)
    assert closings(ready) == ALL


def test_the_service_restarts_in_the_middle(ready: Measures, store: LedgerStore) -> None:
    ready.service.faults(slow=0.3)
    reports: list[DeliveryReport] = []
    target = ready.target(attempts=8, backoff_seconds=0.5)
    thread = Thread(target=lambda: reports.append(push(everybody(), delivery(), target, store)))
    thread.start()
    time.sleep(0.6)
    ready.service.kill()
    ready.service.again()
    thread.join(60)
    assert [counts(report) for report in reports] == [(40, 0, 0, 0)]
    assert closings(ready) == ALL


def test_two_runs_at_once_leave_one_ledger_and_take_turns(
    ready: Measures, any_store: LedgerStore
) -> None:
    ready.service.faults(slow=0.05)
    with ThreadPoolExecutor(2) as runs:
        reports = runs.map(
            lambda run_id: push(everybody(), delivery(run_id), ready.target(), any_store),
            ("run-1", "run-2"),
        )
    assert sorted(map(counts, reports)) == [(0, 40, 0, 0), (40, 0, 0, 0)]
    assert ready.service.counts()["most_at_once"] == 15
    assert closings(ready) == ALL


def test_a_dry_run_does_not_wait_for_a_run_under_way(any_store: LedgerStore) -> None:
    with any_store.alone("feed"):
        report = push(everybody(), delivery(dry_run=True), Target("http://127.0.0.1:1"), any_store)
    assert report.pending == 40


_CHILD = """
import sys
from datetime import date
from pathlib import Path
from mirror_assets.delivery.push import push
from mirror_assets.elation.quality_measures import warehouse_ledger
from tests.delivery.conftest import open_lake
from tests.delivery.measures import KEYS
from tests.delivery.test_push import delivery, everybody
from mirror_assets.delivery.client import Target
url, root, extensions = sys.argv[1:]
any_store = warehouse_ledger(open_lake(Path(root), Path(extensions)))
target = Target(url, {"apiKey": KEYS["API_KEY_ELATION"]}, connections=4)
push(everybody(), delivery(batch=10, batch_seconds=3600), target, any_store)
"""


def test_kill_9_between_acceptance_and_ledger(
    ready: Measures, tmp_path: Path, extensions: Path
) -> None:
    """Ten of 25 or more accepted records are in the ledger when the process dies."""
    ready.service.faults(slow=0.1)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, ready.service.url, str(tmp_path), str(extensions)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while ready.service.counts().get("answered", 0) < 25:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.3)  # what was under way arrives
    before = closings(ready)
    keys = ready.service.counts()["keys"]

    with closing(open_lake(tmp_path, extensions)) as lake:
        store = warehouse_ledger(lake)
        remembered = store.accepted("feed")
        assert 10 <= len(remembered) < len(before) < 40
        ready.service.faults()
        report = push(everybody(), delivery("run-2"), ready.target(), store)
        again = ready.service.counts()["keys"]
        assert counts(report) == (40 - len(remembered), len(remembered), 0, 0)
        assert len(set(keys) & set(again)) == len(keys) - len(remembered)
        assert closings(ready) == ALL
        assert counts(push(everybody(), delivery("run-3"), ready.target(), store))[1] == 40


class Failing:
    """A ledger whose warehouse is gone when a batch is written."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    def record(
        self,
        delivery: str,
        partition: date,
        run_id: str,
        accepted: Sequence[Acceptance],
        refused: Sequence[Refusal],
    ) -> date:
        raise WarehouseFault("the disk is full")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_ledger_that_cannot_be_written_ends_the_run(ready: Measures, store: LedgerStore) -> None:
    with pytest.raises(WarehouseFault, match="the disk is full"):
        push(everybody(), delivery(batch=5), ready.target(), Failing(store))
    assert counts(push(everybody(), delivery("run-2"), ready.target(), store)) == (40, 0, 0, 0)
    assert closings(ready) == ALL


def test_records_that_fail_to_come_keep_what_was_accepted(
    ready: Measures, store: LedgerStore
) -> None:
    def breaking() -> Iterator[Record]:
        yield from (record(number) for number in range(20))
        raise WarehouseFault("the query was ended")

    with pytest.raises(WarehouseFault, match="the query was ended"):
        push(breaking(), delivery(), ready.target(connections=1), store)
    assert len(store.accepted("feed")) == 20


def test_percentiles() -> None:
    assert percentile([], 50) is None
    assert percentile([0.004, 0.001, 0.003, 0.002], 50) == 2.0
    assert percentile([0.001] * 94 + [0.5] * 6, 95) == 500.0
