"""Whether the day's EHR data was there when people began to work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from mirror_assets.orchestration.alerts.findings import Finding

SUBJECT = "ehr"


def due_day(now: datetime, deadline: time, zone: ZoneInfo) -> date:
    """The partition that had to be there at the last deadline: its UTC day."""
    local = now.astimezone(zone)
    last = datetime.combine(local.date(), deadline, zone)
    if last > local:
        last = datetime.combine(local.date() - timedelta(days=1), deadline, zone)
    return last.astimezone(UTC).date()


def stale(
    newest: Mapping[str, date | None], now: datetime, deadline: time, zone: ZoneInfo
) -> Finding | None:
    """The finding that some of the assets lack the day that is due; ``newest``: what each has.

    It grows, and so is told again, with each further day that is missed.
    """
    due = due_day(now, deadline, zone)
    late = {asset: day for asset, day in newest.items() if day is None or day < due}
    if not late:
        return None
    days = [(due - day).days for day in late.values() if day is not None]
    told = "; ".join(
        f"{asset} is {f'of {day}' if day else 'not there yet'}" for asset, day in late.items()
    )
    return Finding(
        subject=SUBJECT,
        kind="ehr_stale",
        scope="ehr",
        what=f"EHR notes on the members' timelines may be missing. The data of {due} was due at"
        f" {deadline:%H:%M} {zone.key}: {told}",
        size=max(days, default=1),
    )
