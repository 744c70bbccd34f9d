"""The encounters' SQL in BigQuery's dialect, judged by a parser; its clock policy by DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from mirror_assets.elation import encounters, local_time
from mirror_assets.mirroring.warehouses.bigquery.sql import translated
from tests.elation.encounters_day import INSERTED_AT


def relation(database: str, table: str) -> str:
    return f'{database}_mirror."{table}_latest"'


@pytest.fixture
def database(extensions: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"extension_directory": str(extensions)}) as connection:
        connection.execute("LOAD icu; SET TimeZone = 'UTC'")
        yield connection


STATEMENTS = {
    "rows": encounters.statement(relation, inserted_at=INSERTED_AT, message_id="202103020831094"),
    "counts": encounters.counts(relation),
    "bounds": encounters.bounds(relation),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_sqlglot_finds_nothing_unsupported(name: str) -> None:
    (text,) = sqlglot.transpile(
        STATEMENTS[name],
        read="duckdb",
        write="bigquery",
        unsupported_level=sqlglot.ErrorLevel.RAISE,
    )
    assert sqlglot.parse_one(text, read="bigquery")


@pytest.mark.parametrize("name", STATEMENTS)
def test_bigquery_knows_every_function(name: str) -> None:
    text = translated(STATEMENTS[name])
    tree = sqlglot.parse_one(text, read="bigquery")
    assert [call.name for call in tree.find_all(exp.Anonymous)] == []
    assert not list(tree.find_all(exp.Transform, exp.Lambda, exp.ArraySort))
    assert "NULLS" not in text
    assert sqlglot.parse_one(text, read="bigquery").sql("bigquery") == text


def test_ordered_lists_become_ordered_aggregates() -> None:
    text = translated(STATEMENTS["rows"])
    assert "ORDER BY group_sequence, group_id, child, sequence, id) AS reasons" in text
    assert "ORDER BY place, sequence, id) AS reasons" in text
    assert text.count("ARRAY_AGG(") == 3


@pytest.mark.parametrize(
    "wall",
    [
        *("2021-01-15 09:30:00", "2021-07-01 23:15:00"),
        *("2021-03-14 01:59:59", "2021-03-14 02:00:00", "2021-03-14 02:30:00"),
        *("2021-03-14 03:00:00", "2021-03-14 03:30:00", "2021-11-07 00:59:59"),
        *("2021-11-07 01:00:00", "2021-11-07 01:30:00", "2021-11-07 02:00:00"),
    ],
)
def test_bigquery_reads_wall_times_like_duckdb(
    database: duckdb.DuckDBPyConnection, wall: str
) -> None:
    """The formula for BigQuery, worked out by DuckDB."""
    text = translated(f"SELECT {local_time.instant('ts')}")
    (formula,) = sqlglot.transpile(text, read="bigquery", write="duckdb")
    ours = local_time.instant("ts")
    found = database.execute(
        f"SELECT ({formula}), {ours} FROM (SELECT TIMESTAMP '{wall}' AS ts)"
    ).fetchone()
    assert found is not None
    assert found[0] == found[1]
