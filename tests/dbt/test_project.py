"""The project as written: generated sources, owners, contracts, and BigQuery's dialect."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlglot
import yaml
from sqlglot import exp

from mirror_assets.mirroring.errors import CatalogError
from mirror_assets.orchestration import dbt_sources

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves it out
from bigquery_functions import FUNCTIONS, called

#: Functions of DuckDB that BigQuery lacks; none may be left in its SQL.
DUCKDB_ONLY = re.compile(
    r"\b(timezone|epoch_us|date_sub\('|regexp_matches|generate_subscripts|timestamptz|struct_pack)",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def bigquery(tmp_path_factory: pytest.TempPathFactory, dbt: Any) -> Any:
    run = dbt(
        tmp_path_factory.mktemp("bigquery"),
        *("compile", "--target", "bigquery", "--no-introspect", "--no-populate-cache"),
        environment={
            "MIRROR_BIGQUERY_METHOD": "oauth-secrets",
            "DBT_ENV_SECRET_BIGQUERY_TOKEN": "unused",
        },
    )
    assert run.ok, run.output
    return run


def _compiled(run: Any, kind: str) -> dict[str, str]:
    return {
        name: node["compiled_code"]
        for name, node in run.document("manifest.json")["nodes"].items()
        if node["resource_type"] == kind and node.get("compiled_code")
    }


@pytest.mark.parametrize(("kind", "least"), [("model", 25), ("test", 100)])
def test_bigquery_understands_every_statement(bigquery: Any, kind: str, least: int) -> None:
    statements = _compiled(bigquery, kind)
    assert len(statements) >= least
    unknown = {}
    for name, statement in statements.items():
        tree = sqlglot.parse_one(statement, read="bigquery", error_level=sqlglot.ErrorLevel.RAISE)
        functions = called(statement) - FUNCTIONS
        functions |= {node.name.upper() for node in tree.find_all(exp.Anonymous)}
        if functions or DUCKDB_ONLY.search(statement):
            unknown[name] = functions or DUCKDB_ONLY.search(statement)
    assert unknown == {}


def test_a_function_that_bigquery_lacks_is_seen_although_the_parser_knows_it() -> None:
    statement = "select list_sort(a), epoch(b), if(c, 1, 2) from t where d in (select 1)"
    assert called(statement) - FUNCTIONS == {"LIST_SORT", "EPOCH"}


def test_bigquery_reads_partitions_by_day_also_of_tables_behind_shards(bigquery: Any) -> None:
    """Views of shards are there for some days only; any day can be built again."""
    models = _compiled(bigquery, "model")
    goals = models["model.mirror_models.member_goals_tasks_all"]
    assert "`commons_mirror`.`goal_shards`" in goals
    assert "where _PARTITIONDATE = date '2026-11-22'" in goals
    users = models["model.mirror_models.src_elation_user_latest"]
    assert "where _PARTITIONDATE = date '2026-11-22'" in users


def test_bigquery_replaces_the_day_also_by_nothing(bigquery: Any) -> None:
    nodes = bigquery.document("manifest.json")["nodes"]
    config = nodes["model.mirror_models.member_states"]["config"]
    assert config["incremental_strategy"] == "insert_overwrite"
    assert config["partitions"] == ["date '2026-11-22'"]
    assert config["partition_by"] == {"field": "mirror_date", "data_type": "date"}


def test_models_have_descriptions_owners_and_contracts(bigquery: Any) -> None:
    nodes = bigquery.document("manifest.json")["nodes"].values()
    models = [node for node in nodes if node["resource_type"] == "model"]
    relations = [node for node in models if node["config"]["materialized"] != "ephemeral"]
    assert len(relations) == 25
    for node in relations:
        assert node["description"], node["name"]
        assert node["config"]["meta"]["dagster"]["owners"] == ["team:data-platform"]
        mart = node["schema"].startswith("mrt_")
        assert node["config"]["contract"]["enforced"] is mart, node["name"]


def test_source_files_are_those_of_the_catalogs() -> None:
    stale = [
        path.name
        for path, text in dbt_sources.files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run python -m mirror_assets.orchestration.dbt_sources"
    found = set((dbt_sources.PROJECT / "models" / "sources").glob("*.yml"))
    assert found == set(dbt_sources.files())


def test_sources_lead_to_the_assets_of_the_mirrors(bigquery: Any) -> None:
    sources = bigquery.document("manifest.json")["sources"]

    def key(name: str) -> list[str]:
        found: list[str] = sources[f"source.mirror_models.{name}"]["meta"]["dagster"]["asset_key"]
        return found

    assert key("elation.visit_note") == ["elation", "visit_note"]
    assert key("commons.note_transformed") == ["commons", "note_transformed"]
    assert key("medical.patient_encounters") == ["elation", "patient_encounters"]


def test_g4_lenient_source_tests_only_warn(bigquery: Any) -> None:
    nodes = bigquery.document("manifest.json")["nodes"].values()
    warned = {
        node["column_name"]
        for node in nodes
        if node["resource_type"] == "test" and node["sources"]
        and node["config"]["severity"].lower() == "warn"
    }  # fmt: skip
    assert warned == {"rank", "callStatus", "provider", "device", "callReceiver"}


def test_a_staging_model_of_no_catalogued_table_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "staging" / "elation"
    folder.mkdir(parents=True)
    (tmp_path / "source_tests.yml").write_text("{}")
    (folder / "stg_elation__no_such.sql").write_text("")
    with pytest.raises(CatalogError, match="no_such"):
        dbt_sources.files(tmp_path)


def test_a_readable_table_is_a_source_as_its_catalog_says(tmp_path: Path) -> None:
    (tmp_path / "source_tests.yml").write_text("commons: {task_comment_transformed: {}}")
    (text,) = dbt_sources.files(tmp_path).values()
    (table,) = yaml.safe_load(text)["sources"][0]["tables"]
    assert table["config"]["meta"]["dagster"]["asset_key"] == [
        "commons",
        "task_comment_transformed",
    ]
    assert table["columns"] == [{"name": "text"}]
    assert table["config"]["meta"]["derived"] is True


def test_no_star_reaches_a_model() -> None:
    for path in (dbt_sources.PROJECT / "models").rglob("*.sql"):
        assert not re.search(r"(select|,)\s+(\w+\.)?\*", path.read_text()), path.name
