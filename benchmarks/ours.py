"""Our engine in one process without Dagster: `export` or `mirror` of a catalogued database.

Prints as JSON where the time went: wall seconds per phase, CPU seconds per thread.
"""

import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirror_assets.mirroring import catalog
from mirror_assets.mirroring.landing import Landing
from mirror_assets.mirroring.sources import Source, open_source
from mirror_assets.settings import Settings
from mirror_assets.settings.connections import address

_phases: dict[str, float] = defaultdict(float)


def main(mode: str, database: str, driver: str = "auto") -> None:
    if mode == "export":
        export(database, driver)
    else:
        mirror(database)


def export(database: str, driver: str) -> None:
    """One connection, CSV parts into the landing zone: no load, no warehouse."""
    spec = catalog.load(Path(os.environ["MIRROR_CATALOG_PATH"], f"{database}.catalog.yaml"))
    reached = address(Settings.from_env(), database)
    is_fallback = driver == "pymysql"
    source = _fallback(spec, reached.url) if is_fallback else open_source(spec, reached)
    landing = Landing(os.environ["MIRROR_LANDING"], Path(os.environ["MIRROR_SCRATCH"]))
    stamp, rows = datetime.now(UTC), 0
    with source.snapshot() as snapshot:
        began = time.monotonic()
        for table in spec.tables:
            writer = landing.writer(database, table.name, stamp)
            rows += snapshot.export(table, snapshot.schema(table), writer)
        _phases["export"] = time.monotonic() - began
    _tell(rows)


def _fallback(spec: catalog.DatabaseSpec, url: str) -> Source:
    from mirror_assets.mirroring.sources.mysql import MySQLSource

    return MySQLSource(spec, url, driver="pymysql")


def mirror(database: str) -> None:
    """Export, landing, typed load, accounting and publication."""
    from mirror_assets.mirroring import mirror, typed
    from mirror_assets.mirroring.sources import mysql, postgres

    for snapshot in (mysql.MySQLSnapshot, postgres.PostgresSnapshot):
        _time(snapshot, "count", "export")
    _time(typed.TypedLoader, "load")
    _time(mirror, "publish")
    settings = Settings.from_env()
    spec, rows = settings.database(database), 0
    warehouse, scratch = settings.warehouse(), settings.new_scratch()
    with mirror.MirrorRun(
        spec,
        open_source(spec, address(settings, database)),
        settings.landing(),
        warehouse,
        partition=datetime.now(UTC).date(),
        run_id="benchmark",
        tables=spec.tables,
        scratch=scratch,
        memory=settings.memory,
    ) as run:
        for chunk in spec.chunks:
            for report in run.publish(chunk):
                if not report.published:
                    sys.exit(f"{report.table.name}: {report.error}")
                rows += report.loaded
        _tell(rows)
    warehouse.close()


def _time(owner: Any, *names: str) -> None:
    for name in names:
        setattr(owner, name, _timed(name, getattr(owner, name)))


def _timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        began = time.monotonic()
        try:
            return method(*args, **options)
        finally:
            _phases[name] += time.monotonic() - began

    return timed


def _tell(rows: int) -> None:
    names = {thread.native_id: thread.name.split("_")[0] for thread in threading.enumerate()}
    threads: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        threads[names.get(int(task.name), "DuckDB's workers")] += spent
    print(json.dumps({"rows": rows, "phases": _phases, "threads": threads}))


if __name__ == "__main__":
    main(*sys.argv[1:])
