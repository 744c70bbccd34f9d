"""Wall times of Elation as instants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mirror_assets.elation import local_time


@pytest.fixture
def database(extensions: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"extension_directory": str(extensions)}) as connection:
        connection.execute("LOAD icu")
        yield connection


@pytest.mark.parametrize("session", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize(
    ("wall", "instant"),
    [
        pytest.param("2021-01-15 09:30:00", "2021-01-15 17:30:00", id="winter"),
        pytest.param("2021-07-01 23:15:00", "2021-07-02 06:15:00", id="summer"),
        pytest.param("2021-03-14 01:59:59", "2021-03-14 09:59:59", id="before the gap"),
        pytest.param("2021-03-14 02:00:00", "2021-03-14 10:00:00", id="the gap begins"),
        pytest.param("2021-03-14 02:30:00", "2021-03-14 10:30:00", id="in the gap"),
        pytest.param("2021-03-14 03:00:00", "2021-03-14 10:00:00", id="after the gap"),
        pytest.param("2021-11-07 00:59:59", "2021-11-07 07:59:59", id="before the overlap"),
        pytest.param("2021-11-07 01:00:00", "2021-11-07 09:00:00", id="the overlap begins"),
        pytest.param("2021-11-07 01:30:00", "2021-11-07 09:30:00", id="in the overlap"),
        pytest.param("2021-11-07 02:00:00", "2021-11-07 10:00:00", id="after the overlap"),
        pytest.param("2006-04-02 02:30:00", "2006-04-02 10:30:00", id="gap of the older rule"),
        pytest.param("2021-07-01 23:15:00.25", "2021-07-02 06:15:00.25", id="fraction"),
    ],
)
def test_one_policy_for_every_wall_time(
    database: duckdb.DuckDBPyConnection, session: str, wall: str, instant: str
) -> None:
    database.execute(f"SET TimeZone = '{session}'")
    read = local_time.instant(f"TIMESTAMP '{wall}'")
    equal = f"SELECT {read} = TIMESTAMPTZ '{instant}+00:00', typeof({read})"
    assert database.execute(equal).fetchone() == (True, "TIMESTAMP WITH TIME ZONE")


def test_no_time_is_no_instant(database: duckdb.DuckDBPyConnection) -> None:
    read = local_time.instant("CAST(NULL AS TIMESTAMP)")
    assert database.execute(f"SELECT {read}").fetchone() == (None,)
