"""Derived tables: what they may read, and how a day of one is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.mirroring import derived
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import DriftRefused, InputMissing, RefreshLanded
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.retention import Copies, expire, expire_copies
from mirror_assets.mirroring.warehouses import Warehouse
from tests.conftest import KindBench
from tests.mirroring.test_drift import Shifted

_NESTED = "{'code': 'a', 'parts': [1, 2]}"


@pytest.fixture
def lake(pg_bench: KindBench) -> Warehouse:
    """A warehouse into which something was mirrored."""
    pg_bench.run("CREATE TABLE source (id int)")
    pg_bench.mirror_day(pg_bench.catalog(["source"]))
    return pg_bench.warehouse


def _make(warehouse: Warehouse, day: date, *statements: str) -> None:
    with derived.staged(warehouse, "made", "things", day) as things:
        derived.stage_query(warehouse, things, statements)
        warehouse.commit(lambda tx: things.publish(tx, "things_latest"))
        things.settled = True


def _held(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    statement = "SELECT n, _PARTITIONDATE FROM made.things ORDER BY ALL"
    return warehouse.query(statement).rows


def _latest(warehouse: Warehouse) -> list[int]:
    return [n for (n,) in warehouse.query("SELECT n FROM made.things_latest ORDER BY 1").rows]


def _today() -> date:
    return datetime.now(UTC).date()


def test_a_day_is_replaced_and_the_view_shows_the_newest(lake: Warehouse) -> None:
    today = _today()
    yesterday = today - timedelta(days=1)
    _make(lake, today, f"SELECT 1 AS n, {_NESTED} AS x", f"SELECT 2 AS n, {_NESTED} AS x")
    _make(lake, today, f"SELECT 3 AS n, {_NESTED} AS x")
    assert _held(lake) == [(3, today)]

    _make(lake, yesterday, f"SELECT 4 AS n, {_NESTED} AS x")
    assert _held(lake) == [(3, today), (4, yesterday)]
    assert _latest(lake) == [3]
    assert lake.query("SELECT x.parts[2] FROM made.things_latest").rows == [(2,)]


def test_a_day_without_rows_is_an_empty_one(lake: Warehouse) -> None:
    today = _today()
    _make(lake, today, f"SELECT 1 AS n, {_NESTED} AS x")
    _make(lake, today, f"SELECT 1 AS n, {_NESTED} AS x WHERE false")
    assert (_held(lake), _latest(lake)) == ([], [])


def test_an_older_day_does_not_take_the_view_from_an_empty_newest_one(lake: Warehouse) -> None:
    today = _today()
    yesterday = today - timedelta(days=1)
    _make(lake, today, f"SELECT 1 AS n, {_NESTED} AS x WHERE false")
    _make(lake, yesterday, f"SELECT 2 AS n, {_NESTED} AS x")
    assert (_held(lake), _latest(lake)) == ([(2, yesterday)], [])


def test_new_columns_are_added_and_other_types_refused(lake: Warehouse) -> None:
    today = _today()
    _make(lake, today - timedelta(days=1), "SELECT 1 AS n")
    _make(lake, today, "SELECT 2 AS n, 'b' AS more")
    assert lake.query("SELECT n, more FROM made.things ORDER BY n").rows == [(1, None), (2, "b")]
    with pytest.raises(DriftRefused, match=r"column n of made\.things is INTEGER"):
        _make(lake, today, "SELECT 'x' AS n")
    assert _latest(lake) == [2]


def test_what_was_not_published_leaves_no_file(lake: Warehouse) -> None:
    today = _today()
    _make(lake, today, "SELECT 1 AS n")
    with (
        pytest.raises(ZeroDivisionError),
        derived.staged(lake, "made", "things", today) as things,
    ):
        derived.stage_query(lake, things, ["SELECT 2 AS n"])
        raise ZeroDivisionError
    assert not Path(things.folder).exists()
    assert _held(lake) == [(1, today)]


# -- inputs


def _mirror(
    bench: KindBench, tables: Sequence[str], ago: int = 0, table: Any = None, **fields: Any
) -> DatabaseSpec:
    spec = bench.catalog(dict.fromkeys(tables, table), **fields)
    by = timedelta(days=ago)
    clock = datetime.now(UTC) - by
    source = Shifted(bench.source(spec), by)
    reports = bench.mirror_day(spec, source=source, day=clock.date(), clock=lambda: clock)
    assert all(report.published for report in reports.values())
    return spec


def test_inputs_are_the_rows_of_that_day(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int PRIMARY KEY, note text)", "INSERT INTO t VALUES (1, 'x')")
    spec = _mirror(pg_bench, ["t"])
    lake = pg_bench.warehouse
    read = inputs(lake, [spec], _today(), {"clinic": ["t"]})
    assert lake.query(f"SELECT * FROM {read.relation('clinic', 't')}").rows == [(1, "x")]
    assert read.days == {("clinic", "t"): _today()}
    assert abs(read.recorded_at - datetime.now(UTC)) < timedelta(minutes=5)

    pg_bench.run("UPDATE t SET note = 'y'")
    _mirror(pg_bench, ["t"])
    again = inputs(lake, [spec], _today(), {"clinic": ["t"]})
    assert again.recorded_at > read.recorded_at


def test_every_missing_input_is_named_at_once(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    lake, wanted = pg_bench.warehouse, {"clinic": ["t", "u"], "elsewhere": ["v"]}
    unmirrored = pg_bench.catalog(["t"])
    with pytest.raises(InputMissing, match="clinic/t, clinic/u, elsewhere/v"):
        inputs(lake, [unmirrored], _today(), wanted)

    spec = _mirror(pg_bench, ["t"])
    with pytest.raises(InputMissing, match="of clinic/u, elsewhere/v"):
        inputs(lake, [spec], _today(), wanted)


def test_a_warehouse_into_which_nothing_was_mirrored_names_every_table(
    pg_bench: KindBench,
) -> None:
    spec = pg_bench.catalog(["a", "b"])
    with pytest.raises(InputMissing, match="clinic/a, clinic/b") as caught:
        inputs(pg_bench.warehouse, [spec], _today(), {"clinic": ("a", "b")})
    assert not caught.value.transient


def test_only_databases_read_as_of_a_day_may_be_older(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (7)")
    spec = _mirror(pg_bench, ["t"])
    lake, tomorrow = pg_bench.warehouse, _today() + timedelta(days=1)
    with pytest.raises(InputMissing):
        inputs(lake, [spec], tomorrow, {"clinic": ["t"]})
    read = inputs(lake, [spec], tomorrow, {"clinic": ["t"]}, as_of=frozenset({"clinic"}))
    assert read.days == {("clinic", "t"): _today()}
    assert lake.query(f"SELECT * FROM {read.relation('clinic', 't')}").rows == [(7,)]
    with pytest.raises(InputMissing):
        inputs(
            lake,
            [spec],
            _today() - timedelta(days=1),
            {"clinic": ["t"]},
            as_of=frozenset({"clinic"}),
        )


def test_a_day_that_has_expired_is_missing_and_not_empty(pg_bench: KindBench) -> None:
    pg_bench.run(
        "CREATE TABLE t (id int)", "CREATE TABLE empty (id int)", "INSERT INTO t VALUES (1)"
    )
    for ago in (40, 0):
        spec = _mirror(pg_bench, ["t", "empty"], ago, retention={"lake_days": 30})
    lake, now = pg_bench.warehouse, datetime.now(UTC)
    old = _today() - timedelta(days=40)
    read = inputs(lake, [spec], old, {"clinic": ["t", "empty"]})
    assert lake.query(f"SELECT * FROM {read.relation('clinic', 't')}").rows == [(1,)]

    expire([spec], pg_bench.landing, lake, now=now)
    gone = f"clinic/t: its rows of {old} have expired"
    with pytest.raises(InputMissing, match=gone) as caught:
        inputs(lake, [spec], old, {"clinic": ["t", "empty"]})
    assert "empty" not in caught.value.what
    between = old + timedelta(days=10)
    with pytest.raises(InputMissing, match=gone):
        inputs(lake, [spec], between, {"clinic": ["t"]}, as_of=frozenset({"clinic"}))
    assert inputs(lake, [spec], old, {"clinic": ["empty"]}).days == {("clinic", "empty"): old}
    assert inputs(lake, [spec], _today(), {"clinic": ["t"]}).days == {("clinic", "t"): _today()}


def test_a_day_that_was_set_aside_is_missing_and_not_empty(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int, said text)", "INSERT INTO t VALUES (1, 'x')")
    policy = {"breaking_drift": "deprecate"}
    _mirror(pg_bench, ["t"], 1, policy)
    pg_bench.run("ALTER TABLE t DROP said")
    spec = _mirror(pg_bench, ["t"], 0, policy)
    yesterday = _today() - timedelta(days=1)
    aside = rf"clinic/t: its rows of {yesterday} were set aside in t_depr_1\."
    with pytest.raises(InputMissing, match=aside):
        inputs(pg_bench.warehouse, [spec], yesterday, {"clinic": ["t"]})
    inputs(pg_bench.warehouse, [spec], _today(), {"clinic": ["t"]})


def test_a_table_published_again_while_it_was_read_is_refused(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int)", "CREATE TABLE u (id int)")
    spec = _mirror(pg_bench, ["t", "u"])
    read = inputs(pg_bench.warehouse, [spec], _today(), {"clinic": ["t"]})
    pg_bench.mirror_day(spec, "u")
    read.refuse_replaced()
    pg_bench.mirror_day(spec, "t")
    with pytest.raises(
        RefreshLanded, match="published again while it was read: clinic/t"
    ) as caught:
        read.refuse_replaced()
    assert caught.value.transient


def test_an_attempt_that_failed_is_no_input(pg_bench: KindBench) -> None:
    pg_bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    spec = pg_bench.catalog(["t", "gone"])
    reports = pg_bench.mirror_day(spec)
    assert not reports["gone"].published
    with pytest.raises(InputMissing, match="of clinic/gone"):
        inputs(pg_bench.warehouse, [spec], _today(), {"clinic": ["t", "gone"]})


def test_copies_expire_but_the_newest_of_a_table_and_tables_never_made_are_passed_over(
    lake: Warehouse,
) -> None:
    today = _today()
    days = [today - timedelta(days=age) for age in (40, 20, 10)]
    for n, day in enumerate(days):
        _make(lake, day, f"SELECT {n} AS n, DATE '{day}' AS mirror_date")
    copies = [
        Copies("made", "things", "mirror_date"),
        Copies("made", "never", "mirror_date"),
        Copies("nobody", "made", "mirror_date"),
    ]
    assert expire_copies(copies, lake, today - timedelta(days=30)) == 1
    assert _held(lake) == [(1, days[1]), (2, days[2])]
    assert expire_copies(copies, lake, today) == 1
    assert _held(lake) == [(2, days[2])]
    assert _latest(lake) == [2]
    assert expire_copies(copies, lake, today) == 0
