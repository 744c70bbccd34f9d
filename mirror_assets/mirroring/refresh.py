"""When a vendor's rebuild is complete, and which day it belongs to.

A refresh is complete when every catalogued table exists, most of them (``share``) were created
within one window, and nothing has changed for some minutes. Its instant is the newest creation
among them. A few tables created long after the others are alterations, not a refresh.

Few tables that are missing do not hold the others up for ever: what is still not there a whole
window after the last change belongs to no refresh. The others are then a complete one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import floor

from mirror_assets.mirroring.catalog import DatabaseSpec, RefreshRule
from mirror_assets.mirroring.sources.base import TableState

_ROUNDING = 1e-9  # (1 - 0.9) * 20 is a little less than 2


@dataclass(frozen=True)
class RefreshState:
    """What the source's catalogue says about its newest rebuild.

    ``instant`` (UTC) is None while no complete refresh is to be seen; ``reason`` says why.
    ``altered`` tables were rebuilt alone, after the refresh; ``missing`` ones are catalogued, and
    not at the source.
    """

    instant: datetime | None
    reason: str
    altered: tuple[str, ...] = ()
    unmirrored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def day(self) -> date | None:
        return self.instant.date() if self.instant else None


def current(spec: DatabaseSpec, states: Mapping[str, TableState], now: datetime) -> RefreshState:
    """The newest complete refresh of a vendor-refreshed database at ``now`` (UTC)."""
    rule = spec.entry.refresh
    mirrored = {table.name for table in spec.tables}
    unmirrored = tuple(sorted(n for n in states if n not in mirrored and not spec.excluded(n)))
    missing = tuple(sorted(mirrored - states.keys()))

    def incomplete(reason: str) -> RefreshState:
        return RefreshState(None, reason, (), unmirrored, missing)

    if missing and len(missing) > _spared(rule, len(mirrored)):
        return incomplete(_not_seen(missing))
    there = {name: states[name] for name in mirrored if name in states}
    created = {n: state.created_at for n, state in there.items() if state.created_at is not None}
    times = sorted(created.values())
    rebuilt = _newest_rebuild(times, min(rule.share * len(mirrored), len(there)), rule)
    if rebuilt is None:
        share = _newest_share(times, rule)
        return incomplete(
            f"a rebuild is under way or stopped: {share} of {len(mirrored)} tables are new"
        )
    # also when only the first tables of the next rebuild are there, or the last are being filled
    changes = [state.updated_at for state in there.values() if state.updated_at is not None]
    quiet = (now - max([times[-1], *changes])).total_seconds() / 60
    wanted = rule.settle_minutes + (rule.window_minutes if missing else 0)
    if quiet < wanted:
        waiting = f"the newest change is {quiet:.1f} minutes old; waiting until it is {wanted:g}"
        return incomplete(f"{_not_seen(missing)}; {waiting}" if missing else waiting)
    altered = tuple(sorted(n for n, moment in created.items() if moment > rebuilt))
    return RefreshState(rebuilt, "complete", altered, unmirrored, missing)


def _spared(rule: RefreshRule, tables: int) -> int:
    """How many tables may be missing from a refresh that has ended: one of a few, or the share."""
    return max(1, floor((1 - rule.share) * tables + _ROUNDING))


def _not_seen(missing: Sequence[str]) -> str:
    shown = ", ".join(missing[:5]) + (" .." if len(missing) > 5 else "")
    return (
        f"{len(missing)} catalogued tables are not to be seen: {shown};"
        " if they are gone for good, or the login may not read them, mend catalog or rights"
    )


def _newest_rebuild(times: Sequence[datetime], needed: float, rule: RefreshRule) -> datetime | None:
    """The end of the newest window that holds enough tables, without stragglers after a pause."""
    window = timedelta(minutes=rule.window_minutes)
    pause = timedelta(minutes=rule.settle_minutes)
    for end in range(len(times) - 1, -1, -1):
        inside = [moment for moment in times[: end + 1] if moment >= times[end] - window]
        if len(inside) < needed:
            continue
        while len(inside) - 1 >= needed and inside[-1] - inside[-2] > pause:
            inside.pop()
        return inside[-1]
    return None


def _newest_share(times: Sequence[datetime], rule: RefreshRule) -> int:
    if not times:
        return 0
    return sum(moment >= times[-1] - timedelta(minutes=rule.window_minutes) for moment in times)
