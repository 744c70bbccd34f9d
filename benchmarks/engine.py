"""What the engine and the orchestration cost, where the rows cost next to nothing."""

import sys
from datetime import UTC, datetime

from benchmarks import data
from benchmarks.config import OURS, ROOT, SMALL_TABLES, TABLE_ROWS, TABLES, peer
from benchmarks.homes import Home, home
from benchmarks.sections import Section, at_most, figures
from benchmarks.timing import Case, in_turns, median, ratio


def load() -> Section:
    """Loading the code location, against an empty one."""
    place = home("mysql", data.WIDE, data.WIDE_TABLES)
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m"]
    return _against_floor(
        "Loading the code location",
        Case("an empty code location (the floor)", [*command, "benchmarks.empty"], place.env),
        Case(f"ours, {TABLES} tables", [*command, "mirror_assets.definitions"], place.env),
        1.5,
    )


def wide() -> Section:
    """A run of Dagster over many small tables, against the same graph with no I/O."""
    place = home("mysql", data.wide(), data.WIDE_TABLES)
    day = datetime.now(UTC).date().isoformat()
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--partition", day]
    command += ["--select", f"group:{place.name}", "-m"]
    return _against_floor(
        f"{TABLES} tables of {TABLE_ROWS:,} rows in one Dagster run",
        Case("the same graph, no I/O (the floor)", [*command, "benchmarks.floor"], place.env),
        Case(
            "ours",
            [*command, "mirror_assets.definitions"],
            place.env,
            server=data.server("mysql"),
        ),
        2.0,
    )


def _against_floor(title: str, floor: Case, ours: Case, limit: float) -> Section:
    taken = in_turns([floor, ours], warm=True)
    check = at_most("ours / floor", ratio(taken[ours.name], taken[floor.name]), limit)
    return Section(title, *figures(taken), checks=[check])


def small() -> Section:
    """The engine alone: many small tables in one process, and one table for its start."""
    database, tables = data.wide(), data.WIDE_TABLES[:SMALL_TABLES]
    many, one = home("mysql", database, tables, "small"), home("mysql", database, tables[:1], "one")
    cases = [_mirror(many, len(tables)), _mirror(one, 1), _dlt(many, tables), _dlt(one, tables[:1])]
    taken = in_turns(cases)
    ours, start, theirs, their_start = (median(runs) for runs in taken.values())
    further = max(1, len(tables) - 1)
    mine, other = 1000 * (ours - start) / further, 1000 * (theirs - their_start) / further
    columns, rows = figures(taken)
    per_table = [mine, "-", other, "-"]
    return Section(
        f"{len(tables)} tables of {TABLE_ROWS:,} rows, without Dagster",
        [*columns, "ms per further table"],
        [[*row, figure] for row, figure in zip(rows, per_table, strict=True)],
        note="Whole processes. A further table: what 100 tables take beyond one, by their number.",
        checks=[at_most("ours, per further table", mine, 30, "ms")],
    )


def _mirror(place: Home, tables: int) -> Case:
    name = f"ours: full mirror of {tables} table{'s' * (tables > 1)}"
    command = [*OURS, "mirror", place.name]
    return Case(name, command, place.env, [place.data], data.server("mysql"))


def _dlt(place: Home, tables: list[str]) -> Case:
    out = ROOT / "out"
    env = {
        "BENCH_URL": place.url,
        "BENCH_PLAIN_URL": data.plain_url("mysql", data.WIDE),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    command = [*peer("dlt_duckdb"), str(out), *tables]
    name = f"dlt, connectorx, into DuckDB, {len(tables)} table{'s' * (len(tables) > 1)}"
    return Case(name, command, env, [out], data.server("mysql"))
