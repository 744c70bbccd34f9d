"""The proof of a day as a check that somebody runs: green when exact, red and silent of rows."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from tests.conftest import Bench
from tests.orchestration.conftest import Run


@pytest.fixture
def day(bench: Bench, definitions: Callable[[], dg.Definitions]) -> str:
    bench.run(
        "CREATE TABLE patient (id varchar(20) PRIMARY KEY, name text)",
        "INSERT INTO patient VALUES ('KEY-7', 'SECRET-A'), ('KEY-8', 'SECRET-B')",
        "CREATE TABLE visit (id int PRIMARY KEY)",
    )
    spec = bench.catalog(["patient", "visit"])
    bench.mirror_day(spec)
    return str(bench.day(spec))


def _config(**values: object) -> dict[str, object]:
    return {"run_config": {"ops": {"clinic_verify_check": {"config": values}}}}


def test_an_exact_day_passes_with_its_counts(execute: Callable[..., Run], day: str) -> None:
    run = execute("clinic_verify", **_config(partition=day))
    assert run.success
    assert run.check_names == {"exact": (True, f"2 of 2 tables of {day} are proven")}


def test_one_changed_cell_turns_the_run_red_and_shows_no_row(
    bench: Bench, execute: Callable[..., Run], day: str
) -> None:
    bench.run("UPDATE patient SET name = 'SECRET-C' WHERE id = 'KEY-7'")
    run = execute("clinic_verify", **_config(partition=day, against="source"))
    assert not run.success
    assert run.check_names == {"exact": (False, f"1 of 2 tables of {day} are proven")}
    assert "not: patient. Next: `mirror verify clinic" in run.failures[0]
    everything = run.everything()
    assert "columns with differences: name" in everything
    assert "SECRET" not in everything
    assert "KEY-7" not in everything


def test_one_table_can_be_asked_for(bench: Bench, execute: Callable[..., Run], day: str) -> None:
    bench.run("UPDATE patient SET name = 'SECRET-C' WHERE id = 'KEY-7'")
    run = execute("clinic_verify", **_config(partition=day, tables=["visit"]))
    assert run.check_names == {"exact": (True, f"1 of 1 tables of {day} are proven")}


def test_materializing_tables_does_not_prove_them(execute: Callable[..., Run], day: str) -> None:
    run = execute("clinic_mirror", day)
    assert set(run.check_names) == {"row_count_coverage"}
