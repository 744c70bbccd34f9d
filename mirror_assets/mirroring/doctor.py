"""A look at everything a mirror needs, each with what to do when it is missing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mirror_assets.mirroring import refresh
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.sources.base import Source
from mirror_assets.mirroring.status import days
from mirror_assets.mirroring.warehouses.base import Warehouse

Verdict = Literal["ok", "warn", "fail"]
_LOW_SPACE = 5 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    verdict: Verdict
    subject: str
    sentence: str


def examine(
    databases: Sequence[DatabaseSpec],
    *,
    landing: Landing,
    warehouse: Warehouse,
    lake: Path,
    source_of: Callable[[DatabaseSpec], Source],
) -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield _driver()
    yield _space("lake", lake)
    if landing.local:
        yield _space("landing zone", Path(landing.root))
    yield _warehouse(warehouse)
    for spec in databases:
        yield _source(spec, source_of)
        yield _newest_day(spec, warehouse)


def _driver() -> Finding:
    if importlib.util.find_spec("MySQLdb"):
        return Finding("ok", "MySQL driver", "mysqlclient")
    return Finding(
        "warn",
        "MySQL driver",
        "PyMySQL, which is right but several times slower."
        " Next: apt-get install libmariadb-dev, then make setup",
    )


def _space(subject: str, folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    shown = f"{free / 2**30:.1f} GB free at {existing}"
    if free < _LOW_SPACE:
        return Finding("warn", subject, f"{shown}. Next: free space, or shorten the retention")
    return Finding("ok", subject, shown)


def _warehouse(warehouse: Warehouse) -> Finding:
    try:
        warehouse.query("SELECT 1")
    except MirrorError as error:
        return Finding("warn", "warehouse", error.sentence)
    return Finding("ok", "warehouse", "answers")


def _source(spec: DatabaseSpec, source_of: Callable[[DatabaseSpec], Source]) -> Finding:
    subject = f"source {spec.name}"
    try:
        states = source_of(spec).states()
    except MirrorError as error:
        return Finding("fail", subject, error.sentence)
    state = refresh.current(spec, states, datetime.now(UTC))
    missing = [table.name for table in spec.tables if table.name not in states]
    if missing:
        return Finding("fail", subject, f"catalogued but missing: {', '.join(missing)}")
    if state.unmirrored:
        named = ", ".join(state.unmirrored)
        return Finding("warn", subject, f"neither mirrored nor excluded: {named}")
    if spec.entry.refresh.rule == "schedule":
        return Finding("ok", subject, f"{len(states)} tables, live")
    if state.instant is None:
        return Finding("warn", subject, state.reason)
    return Finding("ok", subject, f"{len(states)} tables, refreshed {state.instant:%F %T} UTC")


def _newest_day(spec: DatabaseSpec, warehouse: Warehouse) -> Finding:
    subject = f"mirror {spec.name}"
    try:
        newest = next(iter(days(warehouse, spec, 1)), None)
    except MirrorError as error:
        return Finding("warn", subject, error.sentence)
    if newest is None:
        return Finding("warn", subject, "nothing mirrored yet. Next: materialize a partition")
    if newest.complete:
        return Finding("ok", subject, f"{newest.partition} is complete")
    return Finding("fail", subject, f"{newest.partition} misses {newest.missing}")
