"""Complete and half-finished refreshes, alterations and stragglers: with invented times, and with
the vendor's rebuild of a real server.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mirror_assets.mirroring import refresh
from mirror_assets.mirroring.catalog import DatabaseSpec, load
from mirror_assets.mirroring.health import look_at_source
from mirror_assets.mirroring.refresh import RefreshState
from mirror_assets.mirroring.sources.base import TableState
from mirror_assets.sample import elation

if TYPE_CHECKING:
    from tests.conftest import Bench

START = datetime(2026, 3, 10, 4, 0, tzinfo=UTC)
SCALE = 0.01


def _minutes(number: float) -> datetime:
    return START + timedelta(minutes=number)


def _days(number: float) -> datetime:
    return START + timedelta(days=number)


@pytest.fixture
def spec(tmp_path: Path) -> DatabaseSpec:
    """Twenty tables; 90 percent within 60 minutes, quiet for 10."""
    entry: dict[str, Any] = {
        "database": "clinic",
        "kind": "mysql",
        "refresh": {"rule": "vendor", "cron": "0 5 * * *"},
        "exclude": ["vendor_*"],
        "tables": [f"t{number}" for number in range(20)],
    }
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(entry))
    return load(path)


def _states(*created: datetime, **more: datetime | None) -> dict[str, TableState]:
    """Tables t0, t1 .. created at these moments; a single moment stands for all twenty."""
    moments = created * 20 if len(created) == 1 else created
    named = {f"t{number}": moment for number, moment in enumerate(moments)} | more
    return {name: TableState(name, moment, 1) for name, moment in named.items()}


def _at(spec: DatabaseSpec, states: dict[str, TableState], now: datetime) -> RefreshState:
    return refresh.current(spec, states, now)


def test_a_complete_refresh_is_the_newest_creation(spec: DatabaseSpec) -> None:
    states = _states(*(_minutes(2 * number) for number in range(20)))
    found = _at(spec, states, _minutes(60))
    assert (found.instant, found.reason) == (_minutes(38), "complete")
    assert found.day == date(2026, 3, 10)
    assert found.altered == found.unmirrored == ()


def test_it_is_complete_only_after_it_settled(spec: DatabaseSpec) -> None:
    states = _states(_minutes(0))
    early = _at(spec, states, _minutes(9.9))
    assert (early.instant, early.day) == (None, None)
    assert "9.9 minutes old; waiting until it is 10" in early.reason
    assert _at(spec, states, _minutes(10)).instant == _minutes(0)


def test_a_half_finished_refresh_is_told_with_its_share(spec: DatabaseSpec) -> None:
    states = _states(*[_days(0)] * 10, *[_days(-1)] * 10)
    found = _at(spec, states, _days(0.5))
    # the older half alone is not the older refresh any more
    assert found.instant is None
    assert "10 of 20 tables are new" in found.reason


def test_a_growing_rebuild_is_never_taken_for_the_refresh_before(spec: DatabaseSpec) -> None:
    for new in range(1, 21):
        states = _states(*[_minutes(new)] * new, *[_days(-1)] * (20 - new))
        assert _at(spec, states, _minutes(new + 1)).instant is None


@pytest.mark.parametrize(("newer", "instant"), [(1, -1), (2, -1), (3, None)])
def test_a_lone_alteration_is_not_a_refresh(
    spec: DatabaseSpec, newer: int, instant: int | None
) -> None:
    states = _states(*[_days(0)] * newer, *[_days(-1)] * (20 - newer))
    found = _at(spec, states, _days(0.5))
    assert found.instant == (None if instant is None else _days(instant))
    if instant is not None:
        assert found.altered == tuple(f"t{number}" for number in range(newer))


@pytest.mark.parametrize(("new", "complete"), [(17, False), (18, True), (20, True)])
def test_ninety_percent_must_be_new(spec: DatabaseSpec, new: int, complete: bool) -> None:
    states = _states(*[_days(0)] * new, *[_days(-1)] * (20 - new))
    assert (_at(spec, states, _days(0.5)).instant == _days(0)) is complete


@pytest.mark.parametrize(("minutes", "complete"), [(3.5, True), (4, False)])
def test_the_rebuild_must_fit_its_window(
    spec: DatabaseSpec, minutes: float, complete: bool
) -> None:
    states = _states(*(_minutes(minutes * number) for number in range(20)))
    instant = _at(spec, states, _days(1)).instant
    assert instant == (_minutes(minutes * 19) if complete else None)


def test_a_straggler_within_the_pause_belongs_and_after_it_does_not(spec: DatabaseSpec) -> None:
    within = _states(*[_minutes(0)] * 19, _minutes(9))
    assert _at(spec, within, _days(1)).instant == _minutes(9)
    after = _states(*[_minutes(0)] * 19, _minutes(15))
    found = _at(spec, after, _days(1))
    assert (found.instant, found.altered) == (_minutes(0), ("t19",))


def _without(*names: str) -> dict[str, TableState]:
    return {name: state for name, state in _states(_minutes(0)).items() if name not in names}


def test_a_missing_table_is_named_while_its_window_is_open(spec: DatabaseSpec) -> None:
    found = _at(spec, _without("t3"), _minutes(69.9))
    assert (found.instant, found.missing) == (None, ("t3",))
    assert found.reason.startswith("1 catalogued tables are not to be seen: t3;")
    assert "69.9 minutes old; waiting until it is 70" in found.reason


def test_what_is_missing_a_window_later_holds_nothing_up(spec: DatabaseSpec) -> None:
    found = _at(spec, _without("t3"), _minutes(70))
    assert (found.instant, found.reason, found.missing) == (_minutes(0), "complete", ("t3",))
    late = _states(_minutes(0)) | _states(t3=_minutes(180))
    found = _at(spec, late, _days(1))  # the instant stays, so that nothing is mirrored twice
    assert (found.instant, found.altered, found.missing) == (_minutes(0), ("t3",), ())


@pytest.mark.parametrize(("gone", "complete"), [(2, True), (3, False), (20, False)])
def test_more_missing_tables_than_the_share_spares_are_no_refresh(
    spec: DatabaseSpec, gone: int, complete: bool
) -> None:
    found = _at(spec, _without(*(f"t{number}" for number in range(gone))), _days(1))
    assert (found.instant is not None) is complete
    assert len(found.missing) == gone
    if not complete:
        assert found.reason.startswith(f"{gone} catalogued tables are not to be seen")
    assert (" ..;" in found.reason) is (gone > 5)


def test_missing_tables_are_not_new_ones(spec: DatabaseSpec) -> None:
    states = _without("t18", "t19")
    assert _at(spec, states, _days(1)).instant == _minutes(0)
    half_new = states | _states(*[_days(-1)] * 2)
    assert _at(spec, half_new, _days(1)).instant is None


def test_unmirrored_tables_are_named_but_do_not_count(spec: DatabaseSpec) -> None:
    states = _states(_minutes(0), other=_days(3), vendor_log=_days(3))
    found = _at(spec, states, _days(3))
    assert found.instant == _minutes(0)
    assert found.unmirrored == ("other",)


def test_tables_without_a_creation_time_are_not_new(spec: DatabaseSpec) -> None:
    assert _at(spec, _states(**{f"t{n}": None for n in range(20)}), _days(1)).instant is None


# -- the vendor's rebuild of a real server


def _now(bench: Bench, spec: DatabaseSpec) -> RefreshState:
    return refresh.current(spec, bench.source(spec).states(), datetime.now(UTC))


def test_a_whole_refresh_of_the_sample_is_a_new_instant(vendor: Bench) -> None:
    spec = vendor.elation()
    before = _now(vendor, spec)
    assert before.instant is not None
    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE)
    after = _now(vendor, spec)
    assert after.instant is not None
    assert after.instant > before.instant
    assert (after.altered, after.unmirrored) == ((), ())


def test_half_a_refresh_of_the_sample_within_the_window_must_settle(vendor: Bench) -> None:
    spec = vendor.settings_with(MIRROR_SETTLE_MINUTES="1").database("elation")
    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE, mode="half")
    assert "waiting" in _now(vendor, spec).reason


def test_half_a_refresh_of_the_sample_a_day_later_is_half(vendor: Bench) -> None:
    spec = vendor.elation()
    old = vendor.source(spec).states()
    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE, mode="half")
    new = vendor.source(spec).states()
    a_day_before = vendor.earlier(spec, days=1).states()
    states = {
        n: s if s.created_at != old[n].created_at else a_day_before[n] for n, s in new.items()
    }
    found = refresh.current(spec, states, datetime.now(UTC))
    assert found.instant is None
    assert f"of {len(spec.tables)} tables are new" in found.reason


def test_an_altered_table_of_the_sample_is_only_altered(vendor: Bench) -> None:
    spec = vendor.elation()
    old = vendor.earlier(spec, days=1).states()
    elation.refresh(vendor.server, schema=vendor.schema, scale=SCALE, mode="alter")
    states = old | {elation.ALTERED_TABLE: vendor.source(spec).states()[elation.ALTERED_TABLE]}
    found = refresh.current(spec, states, datetime.now(UTC))
    assert found.altered == (elation.ALTERED_TABLE,)
    assert found.instant == max(
        states[table.name].created_at
        for table in spec.tables
        if table.name != elation.ALTERED_TABLE
    )


def test_a_dropped_table_of_the_sample_is_missing_and_a_new_one_unmirrored(vendor: Bench) -> None:
    spec = vendor.elation()
    vendor.run("DROP TABLE bill", "CREATE TABLE brand_new (id int)")
    found = _now(vendor, spec)
    assert (found.instant, found.unmirrored) == (None, ("brand_new",))
    assert found.reason.startswith("1 catalogued tables are not to be seen: bill;")

    source, soon = vendor.source(spec), datetime.now(UTC)
    later = soon + timedelta(minutes=spec.entry.refresh.window_minutes)
    assert "bill" not in look_at_source(spec, source, soon).sentence
    view = look_at_source(spec, source, later)
    assert not view.catalog_complete
    assert "1 catalogued tables are not at the source: bill." in view.sentence
    assert view.refresh_instant is not None
