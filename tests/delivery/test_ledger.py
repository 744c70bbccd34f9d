"""The ledger in each of its stores."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from mirror_assets.delivery.ledger import (
    ACCEPTED,
    REFUSED,
    Acceptance,
    Entry,
    LedgerStore,
    PostgresLedger,
    Refusal,
)
from mirror_assets.delivery.verdict import DeliveryFault
from mirror_assets.elation.quality_measures import LEDGER_DATASET, warehouse_ledger
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse

DAY = date(2021, 3, 5)
AT = datetime(2021, 3, 5, 8, 0, 0, 123456, tzinfo=UTC)


def took(recipient: str, digest: str = "d1", at: datetime = AT) -> Acceptance:
    return Acceptance(recipient, digest, at)


def test_what_was_accepted_last_is_remembered(any_store: LedgerStore) -> None:
    assert any_store.accepted("feed") == {}
    any_store.claim("feed", DAY, "run-1")
    any_store.record("feed", DAY, "run-1", [took("a"), took("b"), took("b", "d2")], [])
    later = AT + timedelta(days=1)
    any_store.record("feed", DAY, "run-2", [took("a", "d3", later)], [])
    any_store.record("other", DAY, "run-2", [took("a", "x")], [])

    assert any_store.accepted("feed") == {"a": Entry("d3", later), "b": Entry("d2", AT)}


def test_the_newest_partition_never_goes_back(any_store: LedgerStore) -> None:
    assert any_store.newest("feed") is None
    assert any_store.claim("feed", DAY, "run-1") == DAY
    assert any_store.claim("feed", DAY - timedelta(days=1), "run-2") == DAY
    assert any_store.newest("feed") == DAY
    assert any_store.claim("feed", DAY + timedelta(days=1), "run-3") == DAY + timedelta(days=1)
    assert any_store.record("feed", DAY, "run-1", [took("a")], []) == DAY + timedelta(days=1)
    assert any_store.newest("other") is None


def test_two_who_claim_at_once(any_store: LedgerStore) -> None:
    days = [DAY + timedelta(days=n) for n in range(6)]
    threads = [threading.Thread(target=any_store.claim, args=("feed", day, "run")) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert any_store.newest("feed") == days[-1]


def test_refusals_are_kept_by_run(lake: DuckLakeWarehouse) -> None:
    store = warehouse_ledger(lake)
    store.claim("feed", DAY, "run-1")
    refusal = Refusal("a", AT, True, 400, "our sentence", "their text")
    silent = Refusal("b", AT, False, None, "no answer", None)
    store.record("feed", DAY, "run-1", [], [refusal, silent])
    store.record("feed", DAY, "run-1", [], [refusal])
    store.record("feed", DAY, "run-2", [], [refusal])

    columns = ", ".join(column.name for column in REFUSED.columns)
    rows = lake.query(
        f"SELECT {columns} FROM {LEDGER_DATASET}.{REFUSED.name} ORDER BY run_id, recipient"
    ).dicts()
    assert [(row["run_id"], row["recipient"]) for row in rows] == [
        ("run-1", "a"),
        ("run-1", "b"),
        ("run-2", "a"),
    ]
    assert rows[0] == {
        "delivery": "feed",
        "run_id": "run-1",
        "recipient": "a",
        "partition": DAY,
        "refused_at": AT,
        "permanent": True,
        "status": 400,
        "reason": "our sentence",
        "answer": "their text",
    }


def test_refusals_are_forgotten_by_their_day_and_acceptances_never(
    any_store: LedgerStore, lake: DuckLakeWarehouse
) -> None:
    any_store.forget_refusals(DAY)  # before anything was delivered
    refusal = Refusal("b", AT, True, 400, "our sentence", "their text")
    old = DAY - timedelta(days=1)
    for day, run in ((old, "r1"), (DAY, "r2")):
        any_store.claim("measures", day, run)
        any_store.record("measures", day, run, [took("a")], [refusal])
    any_store.forget_refusals(DAY)
    runs = "SELECT run_id FROM delivery_refusals"
    if isinstance(any_store, PostgresLedger):
        with any_store._engine.connect() as connection:
            assert connection.execute(sa.text(runs)).all() == [("r2",)]
    else:
        assert lake.query(runs.replace("FROM ", f"FROM {LEDGER_DATASET}.")).rows == [("r2",)]
    assert any_store.accepted("measures").keys() == {"a"}


def test_a_batch_of_thousands(any_store: LedgerStore) -> None:
    any_store.claim("feed", DAY, "run-1")
    any_store.record("feed", DAY, "run-1", [took(f"m{n}") for n in range(5_000)], [])
    any_store.record("feed", DAY, "run-2", [took(f"m{n}", "d2") for n in range(2_500, 7_500)], [])
    known = any_store.accepted("feed")
    assert len(known) == 7_500
    assert {known["m0"].digest, known["m7499"].digest} == {"d1", "d2"}


def test_the_lake_keeps_one_row_for_each_recipient(lake: DuckLakeWarehouse) -> None:
    store = warehouse_ledger(lake)
    store.claim("feed", DAY, "run-1")
    for digest in ("d1", "d2", "d3"):
        store.record("feed", DAY, "run-1", [took("a", digest), took("b", digest)], [])
    counted = lake.query(f"SELECT count(*) FROM {LEDGER_DATASET}.{ACCEPTED.name}").rows
    assert counted == [(2,)]


def test_a_database_that_is_gone_names_no_recipient() -> None:
    url = "postgresql+psycopg2://someone:pa55@127.0.0.1:1/nowhere"
    with closing(PostgresLedger(url)) as store, pytest.raises(DeliveryFault) as caught:
        store.record("feed", DAY, "run-1", [took("Zebulon Canary")], [])
    assert caught.value.transient
    assert caught.value.__cause__ is None
    for secret in ("Canary", "pa55"):
        assert secret not in str(caught.value)
