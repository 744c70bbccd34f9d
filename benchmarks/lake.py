"""A lake after a year: what one more day costs, and how readers and rival writers fare.

The old lake is built once and kept; each measurement works on a copy of its catalog.
"""

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from benchmarks import data
from benchmarks.config import DAYS, ROOT, RUNS, TABLES
from benchmarks.homes import home
from benchmarks.sections import Section, at_most
from benchmarks.timing import Case, once

OLD = ROOT / f"lake{DAYS}" / str(TABLES)
_DAY = [sys.executable, "-m", "benchmarks.lake_day"]
_RIVALS = 4


def lake() -> Section:
    place = home("mysql", data.WIDE, data.WIDE_TABLES, "year")
    built = once(Case("build the old lake", [*_DAY, "build", str(DAYS)], _at(place.env, "kept")))
    empty = Case("first day", [*_DAY, "publish", "0"], place.env)
    next_day = Case("second day", [*_DAY, "publish", "1"], place.env)
    old = Case("old", [*_DAY, "publish", "0"], _at(place.env, "work"))
    first, second, later = [], [], []
    for _ in range(RUNS):
        shutil.rmtree(place.data, ignore_errors=True)
        first.append(once(empty).said)
        second.append(once(next_day).said)
        _restore()
        later.append(once(old).said)
    _restore()
    latest = once(Case("latest", [*_DAY, "latest"], _at(place.env, "work"))).said
    rivals = _rivals(_at(place.env, "work"))
    _restore()
    costs = [statistics.median(seconds) for seconds in (first, second, later)]
    grown = statistics.median(b / a for a, b in zip(first, later, strict=True))
    alike = statistics.median(b / a for a, b in zip(second, later, strict=True))
    return Section(
        f"A lake of {DAYS} days of {TABLES} tables",
        ("", "figure"),
        [
            [f"publish {TABLES} tables into an empty lake, s", costs[0]],
            ["the next day, s", costs[1]],
            [f"one more day after {DAYS}, s", costs[2]],
            ["a latest view, first query of a process, ms", latest["first"]],
            ["a latest view, further queries, ms", latest["next"]],
            [f"{_RIVALS} chunks one after the other, s", rivals["serial"]],
            [f"{_RIVALS} chunks in {_RIVALS} processes at once, wall s", rivals["wall"]],
            ["the sum of these processes' seconds, waiting included", rivals["sum"]],
        ],
        note=f"The catalog holds {_megabytes():.0f} MB; the lake was built or found in"
        f" {built.wall:.0f} s. Compared with the second day, which creates no tables, one more day"
        f" costs {alike:.2f} times as much.",
        checks=[
            at_most(f"one more day after {DAYS} / first day", grown, 1.5),
            at_most("a latest view", latest["next"], 100, "ms"),
            at_most("chunks that failed when published at once", rivals["failed"], 0),
        ],
    )


def _at(env: dict[str, str], catalog: str) -> dict[str, str]:
    """The old lake, under the kept catalog or the copy to work on."""
    warehouse = f"ducklake:sqlite:{OLD}/{catalog}.sqlite"
    return {**env, "MIRROR_WAREHOUSE": warehouse, "MIRROR_LAKE": str(OLD / "lake")}


def _restore() -> None:
    """A fresh copy of the kept catalog, and no files of days after it."""
    for left in OLD.glob("work.sqlite*"):
        left.unlink()
    with (
        closing(sqlite3.connect(OLD / "kept.sqlite")) as kept,
        closing(sqlite3.connect(OLD / "work.sqlite")) as work,
    ):
        kept.backup(work)
    today = datetime.now(UTC).date()
    for folder in (OLD / "lake").glob(f"*/*/_PARTITIONDATE={today}"):
        shutil.rmtree(folder)


def _rivals(env: dict[str, str]) -> dict[str, Any]:
    """Chunks published one after the other, then each by a process of its own."""
    serial = once(Case("serial", [*_DAY, "publish", "0", "0", str(_RIVALS)], env))
    _restore()
    began = time.time() + 5  # when all of them are ready
    running = [
        subprocess.Popen(
            [*_DAY, "publish", "0", str(chunk), "1", str(began)],
            env=env,
            stdout=subprocess.PIPE,
        )
        for chunk in range(_RIVALS)
    ]
    answers = [process.communicate()[0] for process in running]
    failed = sum(process.returncode != 0 for process in running)
    seconds = [json.loads(answer) for answer in answers if answer]
    return {
        "serial": serial.said,
        "wall": max(seconds),
        "sum": sum(seconds),
        "failed": failed,
    }


def _megabytes() -> float:
    return (OLD / "work.sqlite").stat().st_size / 1e6
