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
_TRANSIENT_TAG = "mirror/transient_failure"


def decide_retry(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    errors: Sequence[MirrorError],
) -> None:
    """Tell the daemon whether this run deserves another try."""
    run = context.instance.get_run_by_id(context.run.run_id)
    earlier = run is not None and run.tags.get(_TRANSIENT_TAG) == context.run.run_id
    transient = earlier or any(error.transient for error in errors)
    tags = {RETRY_TAG: str(transient).lower(), STRATEGY_TAG: "FROM_ASSET_FAILURE"}
    if transient:
        tags[_TRANSIENT_TAG] = context.run.run_id
    context.instance.add_run_tags(context.run.run_id, tags)
