"""Carrying the one bit of every error, transient or permanent, to the run-retry daemon.

The daemon looks at nothing but run tags (``allow_retries=False`` binds only an op's own policy),
so the step stamps them before it fails. A run with any transient failure is retried once, from
its failed assets; a run with permanent failures only is left for a person.
"""

from collections.abc import Sequence

import dagster as dg

from mirror_assets.mirroring.errors import MirrorError

RETRY_TAG = "dagster/retry_on_asset_or_op_failure"
STRATEGY_TAG = "dagster/retry_strategy"


def decide_retry(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    errors: Sequence[MirrorError],
) -> None:
    """Tell the daemon where this run deserves another try; that it does not is the default.

    Nothing is written then, because chunks may run in several pods, and a change of the tags puts
    all of them in the place of what another one has written meanwhile.
    """
    if any(error.transient for error in errors):
        tags = {RETRY_TAG: "true", STRATEGY_TAG: "FROM_ASSET_FAILURE"}
        context.instance.add_run_tags(context.run.run_id, tags)
