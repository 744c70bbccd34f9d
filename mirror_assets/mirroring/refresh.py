"""When a vendor's rebuild is complete, and which day it belongs to.

A refresh is complete when every catalogued table exists, most of them (``share``) were created
within one window, and nothing has changed for some minutes. Its instant is the newest creation
among them. A few tables created long after the others are alterations, not a refresh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mirror_assets.mirroring.catalog import DatabaseSpec, RefreshRule
from mirror_assets.mirroring.sources.base import TableState


@dataclass(frozen=True)
class RefreshState:
    """What the source's catalogue says about its newest rebuild.

    ``instant`` (UTC) is None while no complete refresh is to be seen; ``reason`` says why.
    ``altered`` tables were rebuilt alone, after the refresh.
    """

    instant: datetime | None
    reason: str
    altered: tuple[str, ...] = ()
    unmirrored: tuple[str, ...] = ()

    @property
    def day(self) -> date | None:
        return self.instant.date() if self.instant else None


def current(spec: DatabaseSpec, states: Mapping[str, TableState], now: datetime) -> RefreshState:
    """The newest complete refresh of a vendor-refreshed database at ``now`` (UTC)."""
    rule = spec.entry.refresh
    mirrored = {table.name for table in spec.tables}
    unmirrored = tuple(sorted(n for n in states if n not in mirrored and not spec.excluded(n)))
    missing = sorted(mirrored - states.keys())
    if missing:
        shown = ", ".join(missing[:5]) + (" .." if len(missing) > 5 else "")
        return RefreshState(
            None,
            f"{len(missing)} catalogued tables are not to be seen: {shown};"
            " if they are gone for good, or the login may not read them, mend catalog or rights",
            (),
            unmirrored,
        )
    created = {
        name: state.created_at
        for name in mirrored
        if (state := states[name]).created_at is not None and state.created_at is not None
    }
    times = sorted(moment for moment in created.values() if moment is not None)
    needed = rule.share * len(mirrored)
    rebuilt = _newest_rebuild(times, needed, rule)
    if rebuilt is None:
        share = _newest_share(times, rule)
        return RefreshState(
            None,
            f"a rebuild is under way or stopped: {share} of {len(mirrored)} tables are new",
            (),
            unmirrored,
        )
    # also when only the first tables of the next rebuild are there, or the last are being filled
    changes = [moment for name in mirrored if (moment := states[name].updated_at) is not None]
    quiet = now - max([times[-1], *changes])
    if quiet < timedelta(minutes=rule.settle_minutes):
        return RefreshState(
            None,
            f"the newest change is {quiet.total_seconds() / 60:.1f} minutes old;"
            f" waiting until it is {rule.settle_minutes:g}",
            (),
            unmirrored,
        )
    altered = tuple(sorted(n for n, moment in created.items() if moment and moment > rebuilt))
    return RefreshState(rebuilt, "complete", altered, unmirrored)


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
