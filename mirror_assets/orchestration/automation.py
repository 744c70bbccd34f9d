"""How assets downstream of a mirror start: each on its own, once its own inputs have landed.

Mirror runs and downstream runs are separate, because Dagster skips a whole downstream step of the
same run when one output of a multi-asset is left out. Here one failed table holds back only what
reads it. "Landed" means materialized, and a mirrored table is materialized only when it was
published, so no gate on checks is needed; one would let a failed replay of an old day block today.
"""

from typing import Any

import dagster as dg


def when_inputs_land() -> dg.AutomationCondition[Any]:
    """Run the newest day once every input of that day is there, and again when one is replaced."""
    return dg.AutomationCondition.eager().with_label("inputs of the newest day have landed")
