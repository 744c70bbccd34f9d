"""What a run left behind, and what of it people have to know. Nothing of Dagster in here.

Everything is made of metadata and of sentences of ours: a step's error text that is not marked as
ours is never looked at, because it may quote rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

#: Step failures and checks carry these words of a MirrorError in their metadata.
_OURS = "cured_by_retry"
_CHUNK = re.compile(r"(?P<database>.+)_chunk_[0-9]+")
_CHECK_KINDS = {"freshness": "stale", "catalog_complete": "catalog_incomplete", "exact": "inexact"}
#: Of a failure in our own words that does not say its kind.
_NO_KIND = "error"
_COVERAGE = "row_count_coverage"
_DBT_ROWS = "dagster_dbt/failed_row_count"
_DBT, _DBT_STEP = "dbt_", "dbt_models"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that people should know.

    ``subject`` is what it is about: told once, again when ``kind`` changes or ``size`` grows, and
    over when the same subject is found well. ``scope`` (database, asset, job) and ``partition``
    say which findings share a message; ``item`` names this one in it.
    """

    subject: str
    kind: str
    scope: str
    item: str = ""
    what: str = ""
    next: str = ""
    partition: str = ""
    size: int = 0
    lasting: bool = True

    @property
    def group(self) -> tuple[str, str, str]:
        return self.kind, self.scope, self.partition


@dataclass(frozen=True)
class Failure:
    """A failed step: our words about it, if they are ours, and its figures."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    error_class: str = ""

    @property
    def kind(self) -> str:
        return str(self.metadata.get("kind", _NO_KIND)) if self.ours else "unexpected"

    @property
    def ours(self) -> bool:
        return _OURS in self.metadata

    @property
    def what(self) -> str:
        if self.ours:
            return str(self.metadata.get("what", ""))
        return f"unexpected {self.error_class or 'error'}"

    @property
    def next(self) -> str:
        return str(self.metadata.get("next", ""))


@dataclass(frozen=True)
class Check:
    """An evaluated asset check."""

    asset: str
    name: str
    passed: bool
    warning: bool = False
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""
    partition: str = ""


@dataclass(frozen=True)
class Made:
    """A materialization."""

    asset: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    partition: str = ""


@dataclass(frozen=True)
class Ended:
    """A run that is over. ``planned`` are the assets of each step."""

    run_id: str
    job: str
    outcome: str  #: success, failure, canceled
    database: str = ""
    partition: str = ""
    day: date | None = None  #: when it ended
    will_retry: bool = False
    is_retry: bool = False
    failures: Mapping[str, Failure] = field(default_factory=dict)
    succeeded: frozenset[str] = frozenset()
    planned: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made: Sequence[Made] = ()
    checks: Sequence[Check] = ()


def judge(run: Ended) -> tuple[list[Finding], set[str]]:
    """What is wrong after a run, and the subjects that it found well."""
    bad = [*_failed_checks(run), *_failed_steps(run), *_figures(run)]
    if run.outcome == "failure" and not run.failures:
        bad += _died(run, bad)
    wrong = {finding.subject for finding in bad}
    return bad, set(_well(run)) - wrong


def leftovers(database: str, names: Iterable[str], *, hours: float, remedy: str) -> list[Finding]:
    """Restored backups of a database that should have been removed by now, for ``report``."""
    return [
        Finding(
            subject=f"leftover {database}/{name}",
            kind="leftovers",
            scope=database,
            item=name,
            what=f"older than {hours:g} hours",
            next=remedy,
        )
        for name in names
    ]


def leftovers_unseen(database: str, what: str, *, remedy: str) -> Finding:
    """Nobody knows whether a restored backup of a database is left over."""
    return Finding(
        subject=f"leftovers unseen {database}",
        kind="leftovers_unseen",
        scope=database,
        what=what,
        next=remedy,
    )


# -- subjects


def _asset(key: str, partition: str) -> str:
    return f"asset {key} {partition}".strip()


def _step(run: Ended, name: str) -> str:
    return f"step {run.job}/{name} {run.partition}".strip()


def _check(check: Check) -> str:
    partition = "" if check.name in ("freshness", "catalog_complete") else _day_of(check)
    return f"check {check.asset}:{check.name} {partition}".strip()


def _day_of(check: Check) -> str:
    return str(check.metadata.get("partition", check.partition))


def _well(run: Ended) -> Iterator[str]:
    for made in run.made:
        yield _asset(made.asset, made.partition)
        for rule in _RULES:
            if rule.field in made.metadata and _is_news(run, made):
                yield rule.subject(made)
    for check in run.checks:
        if check.passed:
            yield _check(check)
    for step in run.succeeded:
        yield _step(run, step)
    if run.outcome == "success":
        yield _step(run, "")


# -- failed checks


def _failed_checks(run: Ended) -> Iterator[Finding]:
    for check in run.checks:
        if check.passed:
            continue
        if check.name == _COVERAGE:
            yield _refused_table(check)
        elif _DBT_ROWS in check.metadata or check.step.startswith(_DBT):
            yield _failed_test(check)
        else:
            yield _failed_check(check)


def _refused_table(check: Check) -> Finding:
    database, _, table = check.asset.partition("/")
    return Finding(
        subject=_asset(check.asset, check.partition),
        kind=str(check.metadata.get("kind", _NO_KIND)),
        scope=database,
        item=table,
        what=str(check.metadata.get("what", "")),
        next=str(check.metadata.get("next", "")),
        partition=check.partition,
    )


def _failed_test(check: Check) -> Finding:
    rows = check.metadata.get(_DBT_ROWS)
    return Finding(
        subject=_check(check),
        kind="dbt_warning" if check.warning else "dbt_test",
        scope="dbt",
        item=check.name,
        what=f"{rows} rows of {check.asset}" if rows else f"of {check.asset}",
        partition=check.partition,
    )


def _failed_check(check: Check) -> Finding:
    known = _CHECK_KINDS.get(check.name)
    what, _, remedy = check.description.partition("Next: ")
    database = check.asset.partition("/")[0]
    return Finding(
        subject=_check(check),
        kind=known or ("check_warning" if check.warning else "check"),
        scope=database if known else check.asset,
        item="" if known else check.name,
        what=what.strip().rstrip("."),
        next=remedy,
        partition=_day_of(check) if check.name not in ("freshness", "catalog_complete") else "",
    )


# -- failed steps


def _failed_steps(run: Ended) -> Iterator[Finding]:
    """The assets that a failed step owes, and steps that owe none; checks speak for themselves."""
    made = {made.asset for made in run.made}
    checked = {check.step for check in run.checks if not check.passed}
    refused = {c.asset for c in run.checks if not c.passed and c.name == _COVERAGE}
    for step, failure in run.failures.items():
        owed = [key for key in run.planned.get(step, ()) if key not in made]
        for key in owed:
            if key not in refused:
                yield _owed(run, step, key, failure)
        if not owed and step not in checked:
            yield _of_step(run, step, failure)


def _owed(run: Ended, step: str, key: str, failure: Failure) -> Finding:
    found = Finding(
        subject=_asset(key, run.partition),
        kind=failure.kind,
        scope=key,
        what=failure.what,
        next=failure.next,
        partition=run.partition,
        size=_size(failure),
    )
    if chunk := _CHUNK.fullmatch(step):
        return replace(found, scope=chunk["database"], item=key.partition("/")[2])
    if step == _DBT_STEP:
        return _unbuilt_model(found, failure)
    return replace(found, kind="broken_bodies") if failure.kind == "coverage" else found


def _unbuilt_model(found: Finding, failure: Failure) -> Finding:
    """A model that dbt could not build, or skipped because it reads one."""
    if failure.kind != "dbt":
        return replace(found, scope="dbt", item=found.scope)
    errors = failure.metadata.get("failed", {})
    name = found.scope.rpartition("/")[2]
    what = "could not be built" if name in errors else "was not built: what it reads failed"
    return replace(found, scope="dbt", item=found.scope, what=what)


def _size(failure: Failure) -> int:
    size = failure.metadata.get("refused", 0)
    return size if isinstance(size, int) else 0


def _of_step(run: Ended, step: str, failure: Failure) -> Finding:
    return Finding(
        subject=_step(run, step),
        kind=failure.kind,
        scope=run.job,
        item=step,
        what=failure.what,
        next=failure.next,
        partition=run.partition,
    )


def _died(run: Ended, bad: Sequence[Finding]) -> Iterator[Finding]:
    """A run that ended without a word: its assets that are missing, or the run itself."""
    told, scope = {finding.subject for finding in bad}, run.database or run.job
    made = {made.asset for made in run.made}
    owed = sorted({key for keys in run.planned.values() for key in keys} - made)
    for key in owed:
        subject = _asset(key, run.partition)
        if subject not in told:
            yield Finding(subject, "died", scope, key, partition=run.partition)
    if not owed and not bad:
        yield Finding(_step(run, ""), "died", scope, run.job, partition=run.partition)


# -- figures of what went well


@dataclass(frozen=True)
class _Rule:
    """A figure of a materialization that people should hear of."""

    field: str
    kind: str
    what: str

    def subject(self, made: Made) -> str:
        return f"figure {made.asset}:{self.field}"

    def size(self, made: Made) -> int:
        value = made.metadata.get(self.field)
        if isinstance(value, bool):
            return int(not value)  # data_complete
        return value if isinstance(value, int) else 0


_RULES = (
    _Rule("notes_without_member", "notes_without_member", "{size} notes belong to no known member"),
    _Rule("broken_bodies", "tolerated_bodies", "{size} bodies are broken; their text is NULL"),
    _Rule(
        "data_complete",
        "cache_incomplete",
        "the other EHR's clinical summaries were not there in time",
    ),
)


def _figures(run: Ended) -> Iterator[Finding]:
    for made in run.made:
        if set_aside := made.metadata.get("set_aside"):
            yield _set_aside(made, str(set_aside))
        for rule in _RULES:
            if (size := rule.size(made)) and _is_news(run, made):
                yield Finding(
                    subject=rule.subject(made),
                    kind=rule.kind,
                    scope=made.asset,
                    what=rule.what.format(size=size),
                    partition=made.partition,
                    size=size,
                )


def _is_news(run: Ended, made: Made) -> bool:
    """Whether a figure tells of now: an older day that is made again says nothing new."""
    if made.metadata.get("superseded_by"):
        return False
    if run.day is None or not made.partition:
        return True
    return date.fromisoformat(made.partition) >= run.day - timedelta(days=1)


def _set_aside(made: Made, text: str) -> Finding:
    what, _, remedy = text.partition(". Next: ")
    database, _, table = made.asset.partition("/")
    return Finding(
        subject=f"set aside {made.asset} {what}",
        kind="set_aside",
        scope=database,
        item=table,
        what=what.removeprefix(f"{made.asset}: "),
        next=remedy,
        partition=made.partition,
        lasting=False,
    )
