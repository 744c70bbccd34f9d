"""Automation without a daemon: evaluate the conditions, run what they ask for, until all is quiet.

`dagster dev` does the same every half minute; a demo, a test or a CI job cannot wait for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import dagster as dg

#: Runs one set of assets for one partition; whether all went well.
Launch = Callable[[frozenset[dg.AssetKey], str], bool]


class Ticks:
    """The automation of some definitions over an instance. The first tick only looks around."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._definitions = definitions
        self._instance = instance
        self._cursor: Any = None
        self.tick()

    def tick(self) -> dict[str, frozenset[dg.AssetKey]]:
        """What is to be materialized now, by partition. Checks that automation starts are not told:
        whoever mirrors with `dagster asset materialize` has run them.
        """
        result = dg.evaluate_automation_conditions(
            defs=self._definitions, instance=self._instance, cursor=self._cursor
        )
        self._cursor = result.cursor
        found: dict[str, set[dg.AssetKey]] = defaultdict(set)
        for key in self._definitions.resolve_asset_graph().get_all_asset_keys():
            for partition in result.get_requested_partitions(key):
                if partition is not None:
                    found[partition].add(key)
        return {partition: frozenset(keys) for partition, keys in found.items()}

    def run(self, launch: Launch) -> bool:
        """Tick and launch until nothing more is asked for; whether all runs went well."""
        went_well = True
        while requested := self.tick():
            for partition, keys in sorted(requested.items()):
                went_well = launch(keys, partition) and went_well
        return went_well
