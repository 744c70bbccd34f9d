"""Wall times in the models: the one policy for clock changes, in both dialects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest
import sqlglot
import yaml

from mirror_assets.elation import local_time
from mirror_assets.mirroring.warehouses.bigquery.sql import translated
from mirror_assets.orchestration.dbt_sources import PROJECT


@pytest.fixture(scope="module")
def macros() -> Any:
    """Those of dialect.sql, with the project's variables."""
    text = (PROJECT / "macros" / "dialect.sql").read_text(encoding="utf-8")
    project = yaml.safe_load((PROJECT / "dbt_project.yml").read_text(encoding="utf-8"))
    template = jinja2.Environment(autoescape=False).from_string(text)
    return template.make_module({"var": project["vars"].__getitem__})


@pytest.fixture
def database(extensions: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"extension_directory": str(extensions)}) as connection:
        connection.execute("LOAD icu; SET TimeZone = 'Asia/Kolkata'")
        yield connection


def test_models_read_wall_times_as_all_else_does(macros: Any) -> None:
    """Not with BigQuery's own reading of a zone, which takes a repeated hour for summer time."""
    ours = local_time.instant("ts")
    assert macros.duckdb__instant("ts") == ours
    (formula,) = sqlglot.transpile(
        f"SELECT {macros.bigquery__instant('ts')}",
        read="bigquery",
        write="bigquery",
        normalize_functions="upper",
    )
    assert formula == translated(f"SELECT {ours}")


@pytest.mark.parametrize(
    ("wall", "instant"),
    [
        pytest.param("2021-03-14 02:30:00", "2021-03-14 10:30:00", id="skipped"),
        pytest.param("2021-11-07 01:30:00", "2021-11-07 09:30:00", id="repeated"),
        pytest.param("2021-07-01 23:15:00", "2021-07-02 06:15:00", id="summer"),
        pytest.param("2021-01-15 09:30:00", "2021-01-15 17:30:00", id="winter"),
    ],
)
def test_both_dialects_give_the_same_instant(
    macros: Any, database: duckdb.DuckDBPyConnection, wall: str, instant: str
) -> None:
    """BigQuery's formula is worked out by DuckDB: its zones have no clock change to disagree on."""
    (formula,) = sqlglot.transpile(macros.bigquery__instant("ts"), read="bigquery", write="duckdb")
    found = database.execute(
        f"SELECT epoch({macros.duckdb__instant('ts')}), epoch({formula}),"
        f" epoch(TIMESTAMPTZ '{instant}+00') FROM (SELECT TIMESTAMP '{wall}' AS ts)"
    ).fetchone()
    assert found is not None
    assert found[0] == found[1] == found[2]
