"""What dbt's manifest says of the models: assets, what they read, and the tests that check them.

Read as JSON: importing dagster-dbt takes longer than all the rest, so only the step that runs dbt
does. `make setup` has dbt parse its project once; loading the graph never does.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg

from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.retention import Copies
from mirror_assets.orchestration.automation import when_a_models_inputs_land
from mirror_assets.partitions import DAILY

PROJECT = Path(__file__).parents[2] / "dbt_project"
GROUP = "dbt"
#: In every table that dbt makes, the day that a row is of.
DAY_COLUMN = "mirror_date"
Node = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """dbt's manifest, as the graph needs it."""

    data: Mapping[str, Any]

    @classmethod
    def load(cls, project: Path = PROJECT) -> "Manifest":
        """Raises SettingsError while dbt has not parsed the project."""
        path = project / "target" / "manifest.json"
        if not path.is_file():
            raise SettingsError(
                "dbt has not parsed its project yet", where=str(path), remedy="run `make setup`"
            )
        return cls(json.loads(path.read_bytes()))

    @cached_property
    def models(self) -> dict[str, Node]:
        """Models that dbt builds, by unique id; ephemeral ones are text in others."""
        return {
            unique_id: node
            for unique_id, node in self.data["nodes"].items()
            if node["resource_type"] == "model" and not _is_ephemeral(node)
        }

    @cached_property
    def tests(self) -> dict[str, Node]:
        """Tests of those models, by unique id."""
        found = self.data["nodes"].items()
        return {
            unique_id: node
            for unique_id, node in found
            if node["resource_type"] == "test" and self.tested(node) is not None
        }

    @cached_property
    def source_tests(self) -> dict[str, Node]:
        """Tests of the mirrored tables themselves, by unique id."""
        found = self.data["nodes"].items()
        return {
            unique_id: node
            for unique_id, node in found
            if node["resource_type"] == "test" and self._tested_source(node) is not None
        }

    def tested(self, test: Node) -> str | None:
        """The one model that a test is about."""
        attached = test.get("attached_node")
        if attached in self.models:
            return str(attached)
        read = [parent for parent in test["depends_on"]["nodes"] if parent in self.models]
        return read[0] if len(read) == 1 and attached is None else None

    def _tested_source(self, test: Node) -> str | None:
        read = test["depends_on"]["nodes"]
        return read[0] if len(read) == 1 and read[0] in self.data["sources"] else None

    def key(self, node: Node) -> dg.AssetKey:
        """The asset of a model or source: of a source, what the catalogs call it."""
        if node["resource_type"] == "source":
            return dg.AssetKey(node["meta"]["dagster"]["asset_key"])
        return dg.AssetKey([node["schema"], node["name"]])

    def source(self, test: Node) -> Node:
        """The one mirrored table that a source test is about."""
        found: Node = self.data["sources"][self._tested_source(test)]
        return found

    def source_key(self, test: Node) -> dg.AssetKey:
        return self.key(self.source(test))

    def check_key(self, test: Node) -> dg.AssetCheckKey:
        tested = self.tested(test)
        key = self.key(self.models[tested]) if tested else self.source_key(test)
        return dg.AssetCheckKey(key, test["name"])

    def reads(self, node: Node) -> set[dg.AssetKey]:
        """The assets that a model is made of, seen through ephemeral models."""
        found: set[dg.AssetKey] = set()
        for parent in node["depends_on"]["nodes"]:
            if parent in self.data["sources"]:
                found |= self._read_source(self.data["sources"][parent])
            elif parent in self.models:
                found.add(self.key(self.models[parent]))
            elif parent in self.data["nodes"]:
                found |= self.reads(self.data["nodes"][parent])
        return found

    def made_of(self, node: Node) -> set[dg.AssetKey]:
        """The derived tables that a model reads, itself or through any models."""
        found: set[dg.AssetKey] = set()
        for parent in node["depends_on"]["nodes"]:
            source = self.data["sources"].get(parent)
            if source is None:
                found |= self.made_of(self.data["nodes"][parent])
            elif source["meta"].get("derived"):
                found.add(self.key(source))
        return found

    def tables_read(self, models: Iterable[Node]) -> tuple[dict[str, list[str]], list[Node]]:
        """What a build of models reads, itself or through text and views: tables that
        MIRROR_METADATA tells of, by database, and other derived ones.
        """
        found = self._sources_read(models)
        recorded: dict[str, list[str]] = defaultdict(list)
        for source in found.values():
            if source["meta"]["mirror_metadata"]:
                recorded[source["source_name"]].append(source["name"])
        unrecorded = (s for s in found.values() if not s["meta"]["mirror_metadata"])
        return recorded, [source for source in unrecorded if source["meta"].get("derived")]

    def _sources_read(self, models: Iterable[Node]) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for node in models:
            for parent in node["depends_on"]["nodes"]:
                if parent in self.data["sources"]:
                    found[parent] = self.data["sources"][parent]
                elif not _is_table(self.data["nodes"][parent]):
                    found |= self._sources_read([self.data["nodes"][parent]])
        return found

    def _read_source(self, source: Node) -> set[dg.AssetKey]:
        """A table; of a control table, which no step materializes, the tables that it tells of."""
        key = self.key(source)
        if not key.path[-1].startswith("MIRROR_"):
            return {key}
        known = map(self.key, self.data["sources"].values())
        return {
            k for k in known if k.path[0] == key.path[0] and not k.path[-1].startswith("MIRROR_")
        }

    def asset_specs(self) -> list[dg.AssetSpec]:
        return [self._asset_spec(node) for node in self.models.values()]

    def check_specs(self) -> list[dg.AssetCheckSpec]:
        return [self.check_spec(node) for node in self.tests.values()]

    def _asset_spec(self, node: Node) -> dg.AssetSpec:
        return dg.AssetSpec(
            key=self.key(node),
            deps=sorted(self.reads(node)),
            description=node["description"],
            group_name=GROUP,
            kinds={"dbt"},
            owners=node["meta"]["dagster"]["owners"],
            partitions_def=DAILY,
            automation_condition=when_a_models_inputs_land(GROUP, self.made_of(node)),
            skippable=True,
            metadata={
                "dagster/table_name": f"{node['schema']}.{node['name']}",
                "dbt_model": node["unique_id"],
                "dagster/column_schema": dg.TableSchema(
                    [
                        dg.TableColumn(
                            name=column["name"],
                            type=column.get("data_type") or "",
                            description=column.get("description") or None,
                        )
                        for column in node["columns"].values()
                    ]
                ),
            },
        )

    def check_spec(
        self, test: Node, start: dg.AutomationCondition[Any] | None = None
    ) -> dg.AssetCheckSpec:
        """The check that a test is, which holds nothing back; ``start`` says when it runs alone."""
        key = self.check_key(test)
        return dg.AssetCheckSpec(
            key.name,
            asset=key.asset_key,
            description=test["description"] or f"dbt's test `{test['name']}`",
            blocking=False,
            automation_condition=start,
        )


def copies() -> list[Copies]:
    """The tables that dbt makes, each with a copy per mirror date; none without a project."""
    if not (PROJECT / "dbt_project.yml").is_file():
        return []
    models = Manifest.load().models.values()
    tables = filter(_is_table, models)
    made = [Copies(node["schema"], node["name"], DAY_COLUMN) for node in tables]
    return [*made, Copies("dbt_audit", "run_results", DAY_COLUMN)]


def _is_table(node: Node) -> bool:
    return node["config"]["materialized"] not in ("ephemeral", "view")


def _is_ephemeral(node: Node) -> bool:
    return bool(node["config"]["materialized"] == "ephemeral")
