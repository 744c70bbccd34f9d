"""How assets downstream of a mirror start: each on its own, once its own inputs have landed.

Mirror runs and downstream runs are separate, because Dagster skips a whole downstream step of the
same run when one output of a multi-asset is left out. Here one failed table holds back only what
reads it. "Landed" means materialized, and a mirrored table is materialized only when it was
published, so no gate on checks is needed; one would let a failed replay of an old day block today.

Dagster's ``eager`` forgets an input that was replaced while its reader ran, because the end of that
run counts as an answer. Here only a request answers, and not one of the same moment: what it read
is unknown. At worst a reader runs once too often, and every reader can run twice.

What is asked for together runs together, and all dbt models are one step, which Dagster skips as a
whole when anything fails in its run that one of the chosen models reads. So a model does not start
with what it is made of, but after it.
"""

from collections.abc import Collection
from functools import reduce
from operator import or_
from typing import Any

import dagster as dg

NAME = "downstream"

_When = dg.AutomationCondition


def when_inputs_land(as_of: frozenset[str] = frozenset()) -> dg.AutomationCondition[Any]:
    """Run the newest day once every input of that day is there, and again when one is replaced.

    Databases in ``as_of`` are read as they stand: they are mirrored at another hour, so nothing
    waits for them, and their next day starts nothing but a reader that failed, perhaps for want
    of them.
    """
    replaced = _When.any_deps_updated()
    ready = ~_When.any_deps_missing() & ~_When.any_deps_in_progress()
    if not as_of:
        start = _When.newly_missing().since_last_handled() | _unanswered(replaced)
        return _newest_day(start & ready)
    late = dg.AssetSelection.groups(*sorted(as_of), include_sources=True)
    start = _When.newly_missing().since_last_handled() | _unanswered(replaced.ignore(late))
    again = (
        _unanswered(replaced.allow(late))
        & _When.execution_failed()
        & ~_When.any_deps_in_progress().allow(late)
    )
    return _newest_day((start | again) & ready.ignore(late))


def when_a_models_inputs_land(
    models: str, made_of: Collection[dg.AssetKey] = ()
) -> dg.AutomationCondition[Any]:
    """The same for one of the group ``models``, all of which are one step.

    Only another model may be made in the same run. ``made_of`` are the assets that automation makes
    and that the model reads, itself or through models: it waits while one of them is on its way, so
    that it runs once when all of them are replaced.
    """
    own = dg.AssetSelection.groups(models)
    landed = _When.newly_updated() & ~_When.executed_with_root_target()
    replaced = _When.any_deps_updated().allow(own) | _When.any_deps_match(landed).ignore(own)
    absent = _When.any_deps_match(_When.missing())
    missing = _When.any_deps_missing().allow(own) | absent.ignore(own)
    coming = [
        _When.asset_matches(key, _When.will_be_requested() | _When.in_progress())
        for key in sorted(made_of)
    ]
    waits = reduce(or_, coming, missing | _When.any_deps_in_progress())
    start = _When.newly_missing().since_last_handled() | _unanswered(replaced)
    return _newest_day(start & ~waits)


def when_the_table_lands() -> dg.AutomationCondition[Any]:
    """Run a check of a table once its newest day has landed, and again when that is replaced."""
    newest = _When.in_latest_time_window()
    landed = _When.any_deps_match(newest & _When.newly_updated())
    landing = _When.any_deps_match(newest & _When.in_progress())
    start = _unanswered(landed) & ~landing & ~_When.in_progress()
    return start.with_label("the table's newest day has landed")


def _unanswered(event: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
    """Whether something happened that no request has answered yet."""
    answered = (_When.newly_requested() & ~event) | _When.initial_evaluation()
    return event.since(answered.with_label("requested since"))


def _newest_day(start: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
    only = _When.in_latest_time_window() & start & ~_When.in_progress()
    return only.with_label("inputs of the newest day have landed")


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Starts downstream assets; running by default, as nothing else would start them."""
    return dg.AutomationConditionSensorDefinition(
        NAME,
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
