"""How assets downstream of a mirror start: each on its own, once its own inputs have landed.

Mirror runs and downstream runs are separate, because Dagster skips a whole downstream step of the
same run when one output of a multi-asset is left out. Here one failed table holds back only what
reads it. "Landed" means materialized, and a mirrored table is materialized only when it was
published, so no gate on checks is needed; one would let a failed replay of an old day block today.
"""

from typing import Any

import dagster as dg

NAME = "downstream"


def when_inputs_land(as_of: frozenset[str] = frozenset()) -> dg.AutomationCondition[Any]:
    """Run the newest day once every input of that day is there, and again when one is replaced.

    Databases in ``as_of`` are read as they stand: they are mirrored at another hour, so nothing
    waits for them, and their next day starts nothing.
    """
    eager = dg.AutomationCondition.eager()
    if as_of:
        eager = eager.ignore(dg.AssetSelection.groups(*sorted(as_of), include_sources=True))
    return eager.with_label("inputs of the newest day have landed")


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Starts downstream assets; running by default, as nothing else would start them."""
    return dg.AutomationConditionSensorDefinition(
        NAME,
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
