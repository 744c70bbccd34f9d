"""A look at everything a mirror needs, each with what to do when it is missing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mirror_assets.mirroring import lifecycle, refresh
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.sources import Address, Provider, Source, leftovers, shown_tls
from mirror_assets.mirroring.status import days
from mirror_assets.mirroring.storage import Storage
from mirror_assets.mirroring.storage import lake as lake_at
from mirror_assets.mirroring.warehouses.base import Warehouse

Verdict = Literal["ok", "warn", "fail"]
_LOW_SPACE = 5 << 30
_CLOCK_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``next`` is what to do about it."""

    verdict: Verdict
    subject: str
    found: str
    next: str = ""

    @classmethod
    def of(cls, verdict: Verdict, subject: str, error: MirrorError) -> Finding:
        """A fault as a finding."""
        what = str(error.at(subject)).partition(". Next: ")[0]
        return cls(verdict, subject, what.removeprefix(f"{subject}: "), error.remedy)


def examine(
    databases: Sequence[DatabaseSpec],
    *,
    landing: Landing,
    warehouse: Warehouse | None,
    lake: str,
    documents: str,
    address_of: Callable[[DatabaseSpec], Address],
    source_of: Callable[[DatabaseSpec], Source],
    provider_of: Callable[[DatabaseSpec], Provider],
) -> Iterator[Finding]:
    """Every finding, as it is made; without a warehouse, those of all else."""
    yield _driver()
    yield from _places(landing, lake, documents)
    if landing.root.startswith("gs://"):
        yield _expiry(landing, databases, {"the lake": lake, "the documents": documents})
    if warehouse is not None:
        yield _warehouse(warehouse)
    for spec in databases:
        if warehouse is not None:
            yield from _dataset(spec, warehouse)
        if spec.entry.backup is None:
            yield from _way(spec, address_of)
        else:
            yield _leftovers(spec, provider_of)
        yield from _reached(spec, source_of)
        if warehouse is not None:
            yield _newest_day(spec, warehouse)


def _driver() -> Finding:
    if importlib.util.find_spec("MySQLdb"):
        return Finding("ok", "MySQL driver", "mysqlclient")
    return Finding(
        "warn",
        "MySQL driver",
        "PyMySQL, which is right but several times slower",
        "apt-get install libmariadb-dev, then make setup",
    )


def _places(landing: Landing, lake: str, documents: str) -> Iterator[Finding]:
    """Room in folders, and the right to write and delete in Cloud Storage."""
    of_documents = Storage(documents, name="the documents' storage", setting="MIRROR_DOCUMENTS")
    places = {"lake": lake_at(lake), "landing zone": landing.files, "documents": of_documents}
    for subject, place in places.items():
        if not place.local:
            yield _writable(subject, place)
        elif place is not of_documents:  # small, and beside the others
            yield _space(subject, Path(place.root))


def _writable(subject: str, place: Storage) -> Finding:
    try:
        place.probe()
    except MirrorError as error:
        return Finding.of("fail", subject, error)
    return Finding("ok", subject, f"a file was written to {place.root} and deleted")


def _space(subject: str, folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    shown = f"{free / 2**30:.1f} GB free at {existing}"
    if free < _LOW_SPACE:
        return Finding("warn", subject, shown, "free space, or shorten the retention")
    return Finding("ok", subject, shown)


def _expiry(
    landing: Landing, databases: Sequence[DatabaseSpec], others: Mapping[str, str]
) -> Finding:
    subject = "landing zone's lifecycle"
    wanted = lifecycle.days_of(databases)
    try:
        rules = lifecycle.look(landing.files, others)
    except MirrorError as error:
        return Finding.of("fail", subject, error)
    if rules.also:
        return Finding(
            "fail",
            subject,
            f"a rule of its bucket also deletes files of {' and '.join(rules.also)}",
            "limit that rule to a prefix, or move one of the two; then `mirror lifecycle`",
        )
    if wanted is None:
        return Finding("ok", subject, "a catalog keeps exports for ever: no rule is needed")
    if rules.days is None:
        return Finding("warn", subject, "no rule deletes exports", "mirror lifecycle")
    shown = f"exports are deleted after {rules.days} days"
    if rules.days < wanted:
        return Finding(
            "fail", subject, f"{shown}; a catalog keeps them for {wanted}", "mirror lifecycle"
        )
    if rules.kept_after:
        shown += f", and kept for {rules.kept_after} more by the bucket's soft delete"
    return Finding("ok", subject, shown)


def _warehouse(warehouse: Warehouse) -> Finding:
    try:
        warehouse.query("SELECT 1")
    except MirrorError as error:
        return Finding.of("warn", "warehouse", error)
    return Finding("ok", "warehouse", "answers")


def _dataset(spec: DatabaseSpec, warehouse: Warehouse) -> Iterator[Finding]:
    """What is to be known of the database's place in the warehouse."""
    subject = f"dataset {spec.dataset}"
    views = [spec.view_name(table.name) for table in spec.tables]
    try:
        told = warehouse.look_at(spec.dataset, views)
    except MirrorError as error:
        yield Finding.of("fail", subject, error)
        return
    if told:
        yield Finding("ok", subject, told)


def _way(spec: DatabaseSpec, address_of: Callable[[DatabaseSpec], Address]) -> Iterator[Finding]:
    """The way to a source; what is wrong with it, its source will say."""
    with suppress(MirrorError):
        address = address_of(spec)
        shown = f"{address.way}; {shown_tls(spec, address.url)}"
        yield Finding("ok", f"way to {spec.name}", shown)


def _reached(spec: DatabaseSpec, source_of: Callable[[DatabaseSpec], Source]) -> Iterator[Finding]:
    """What is there."""
    try:
        source = source_of(spec)
    except MirrorError as error:
        yield Finding.of("fail", f"source {spec.name}", error)
        return
    yield _source(spec, source)
    yield from _login(spec, source)


def _source(spec: DatabaseSpec, source: Source) -> Finding:
    subject = f"source {spec.name}"
    try:
        states = source.states()
    except MirrorError as error:
        return Finding.of("fail", subject, error)
    state = refresh.current(spec, states, datetime.now(UTC))
    missing = [table.name for table in spec.tables if table.name not in states]
    if missing:
        return Finding(
            "fail",
            subject,
            f"catalogued but missing: {', '.join(missing)}",
            "correct the catalog, or ask who removed them; `mirror discover .. --check` compares",
        )
    if state.unmirrored:
        named = ", ".join(state.unmirrored)
        return Finding(
            "warn",
            subject,
            f"neither mirrored nor excluded: {named}",
            "add them to the catalog, or to its `exclude`",
        )
    if spec.entry.refresh.rule == "schedule":
        read = "live" if spec.entry.backup is None else "read from a restored backup"
        return Finding("ok", subject, f"{len(states)} tables, {read}")
    if state.instant is None:
        return Finding("warn", subject, state.reason)
    return Finding("ok", subject, f"{len(states)} tables, refreshed {state.instant:%F %T} UTC")


def _leftovers(spec: DatabaseSpec, provider_of: Callable[[DatabaseSpec], Provider]) -> Finding:
    """Restored copies whose run is gone."""
    subject = f"copies of {spec.name}"
    try:
        found = leftovers(spec, provider_of(spec), datetime.now(UTC))
    except MirrorError as error:
        return Finding.of("fail", subject, error)
    if not found:
        return Finding("ok", subject, "none is left behind")
    named = ", ".join(f"{copy.handle} (since {copy.since:%F %R} UTC)" for copy in found)
    return Finding(
        "warn",
        subject,
        f"left behind: {named}",
        "the sensor backup_leftovers removes them; if it does not, its newest tick says why",
    )


def _login(spec: DatabaseSpec, source: Source) -> Iterator[Finding]:
    """Our rights there, and how far our clocks are apart; nothing where nobody answers."""
    try:
        login = source.login()
    except MirrorError:
        return
    subject = f"login {spec.name}"
    if login.changes:
        held = ", ".join(login.changes)
        yield Finding("warn", subject, f"may change tables: {held}", "grant SELECT and no more")
    else:
        yield Finding("ok", subject, "reads only")
    apart = abs((datetime.now(UTC) - login.clock).total_seconds())
    yield Finding(
        "warn" if apart > _CLOCK_SECONDS else "ok",
        f"clock {spec.name}",
        f"{apart:.0f} s from ours",
        "set the time of both machines by NTP: a day begins by it" * (apart > _CLOCK_SECONDS),
    )


def _newest_day(spec: DatabaseSpec, warehouse: Warehouse) -> Finding:
    subject = f"mirror {spec.name}"
    try:
        newest = next(iter(days(warehouse, spec, 1)), None)
    except MirrorError as error:
        return Finding.of("warn", subject, error)
    if newest is None:
        return Finding("warn", subject, "nothing mirrored yet", "materialize a partition")
    if newest.complete:
        return Finding("ok", subject, f"{newest.partition} is complete")
    return Finding(
        "fail", subject, f"{newest.partition} misses {newest.missing}", "`mirror status` says why"
    )
