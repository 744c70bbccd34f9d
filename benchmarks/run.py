"""Ratios against a floor, measured in one run, in turns, medians of three.

wide   300 tables x 2,000 rows by `dagster asset materialize`, against the same graph with no I/O
load   loading the code location with 300 tables, against an empty one
big    a 3 million-row table: seconds and peak memory of the process

``python -m benchmarks.run [wide] [load] [big]``; everything lies in .mirror/bench.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from mirror_assets.sample import elation
from mirror_assets.sample.servers import MariaDB

ROOT = Path(".mirror/bench").absolute()
TABLES, ROWS, RUNS = 300, 2_000, 3
BIG_ROWS = 3_000_000
_MATERIALIZE = [sys.executable, "-m", "dagster", "asset", "materialize", "--select"]


def main(chosen: list[str]) -> None:
    ROOT.mkdir(parents=True, exist_ok=True)
    server = MariaDB.start(ROOT / "mariadb")
    try:
        for name, bench in {"load": load, "wide": wide, "big": big}.items():
            if not chosen or name in chosen:
                bench(server)
    finally:
        server.stop()


def load(server: MariaDB) -> None:
    env = _environment(server, "wide", [f"t_{n:03}" for n in range(TABLES)])
    command = [sys.executable, "-m", "dagster", "definitions", "validate", "-m"]
    _compare(
        f"loading the code location, {TABLES} tables and Elation / empty",
        [*command, "mirror_assets.definitions"],
        [*command, "benchmarks.empty"],
        env,
    )


def wide(server: MariaDB) -> None:
    elation.wide_schema(server, schema="wide", tables=TABLES, rows=ROWS)
    server.create_reader("wide")
    env = _environment(server, "wide", [f"t_{n:03}" for n in range(TABLES)])
    day = datetime.now(UTC).date().isoformat()
    command = [*_MATERIALIZE, "group:wide", "--partition", day]
    _compare(
        f"{TABLES} tables x {ROWS:,} rows / the same graph with no I/O",
        [*command, "-m", "mirror_assets.definitions"],
        [*command, "-m", "benchmarks.floor"],
        env,
    )


def big(server: MariaDB) -> None:
    elation.big_table(server, schema="big", rows=BIG_ROWS)
    server.create_reader("big")
    env = _environment(server, "big", [elation.BIG_TABLE])
    day = datetime.now(UTC).date().isoformat()
    command = [*_MATERIALIZE, "group:big", "--partition", day]
    seconds = _time([*command, "-m", "mirror_assets.definitions"], env)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{BIG_ROWS:,} rows: {seconds:.1f} s in all, peak {peak:.0f} MB (largest child so far)")


def _compare(title: str, ours: list[str], floor: list[str], env: dict[str, str]) -> None:
    """Print the ratio of two commands, run in turns after one warm-up of each."""
    _time(ours, env)
    _time(floor, env)
    pairs = [(_time(ours, env), _time(floor, env)) for _ in range(RUNS)]
    mine, least = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{title}: {mine:.1f} s / {least:.1f} s = {ratio:.2f}", flush=True)


def _time(command: list[str], env: dict[str, str]) -> float:
    began = time.monotonic()
    log = ROOT / "last.log"
    with log.open("wb") as output:
        ended = subprocess.run(command, env=env, stdout=output, stderr=output, check=False)
    code = ended.returncode
    if code != 0:
        sys.exit(f"{' '.join(command)} ended with {code}: see {log}")
    return time.monotonic() - began


def _environment(server: MariaDB, database: str, tables: list[str]) -> dict[str, str]:
    """A private instance, lake and catalog for one benchmark database."""
    home = ROOT / database
    for name in ("catalogs", "dagster", "secrets"):
        (home / name).mkdir(parents=True, exist_ok=True)
    shutil.copyfile("dagster.yaml", home / "dagster" / "dagster.yaml")
    listed = "\n".join(f"  - {table}" for table in tables)
    (home / "catalogs" / f"{database}.catalog.yaml").write_text(
        f"database: {database}\nkind: mysql\ntables:\n{listed}\n"
    )
    return {
        **os.environ,
        "DAGSTER_HOME": str(home / "dagster"),
        "MIRROR_WAREHOUSE": f"ducklake:sqlite:{home}/lake.sqlite",
        "MIRROR_LAKE": str(home / "lake"),
        "MIRROR_LANDING": str(home / "landing"),
        "MIRROR_SCRATCH": str(home / "scratch"),
        "MIRROR_EXTENSIONS": str(ROOT / "duckdb"),
        "MIRROR_CATALOG_PATH": str(home / "catalogs"),
        f"{database.upper()}_DATABASE_URL": server.url(database),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
