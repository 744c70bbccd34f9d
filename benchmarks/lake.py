"""A lake after a year: what one more day costs, and how readers and rival writers fare.

For both catalogs: an SQLite file, and PostgreSQL. The old lake is built once and kept; each
measurement works on a copy of its catalog. CPU seconds are those of publishing, the server's with
them: the clock's depend on what else the machine does.
"""

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.config import DAYS, ROOT, RUNS, TABLES
from benchmarks.homes import Home, home
from benchmarks.sections import Check, Section, at_most
from benchmarks.timing import Case, once, server_cpu
from mirror_assets.sample.servers import PrivateServer

_DAY = [sys.executable, "-m", "benchmarks.lake_day"]
_RIVALS = 4
_ROWS = (
    ("build", "build or find the old lake, s"),
    ("first", f"publish {TABLES} tables into an empty lake, CPU s"),
    ("second", "the next day, CPU s"),
    ("later", f"one more day after {DAYS}, CPU s"),
    ("later_wall", "the same by the clock, s"),
    ("view_first", "a latest view, first query of a process, ms"),
    ("view", "a latest view, further queries, ms"),
    ("serial", f"{_RIVALS} chunks one after the other, s"),
    ("wall", f"{_RIVALS} chunks in {_RIVALS} processes at once, s until the last is done"),
    ("turn", "the longest turn of one of them, s"),
    ("waited", "the longest wait for a turn, s"),
    ("failed", "chunks that failed"),
)


class _Catalog(ABC):
    """A kind of catalog: ``kept`` is that of the old lake, ``work`` a copy, ``empty`` a new one."""

    name: str
    server: PrivateServer | None = None

    def __init__(self, place: Home) -> None:
        self._place = place
        self.folder = ROOT / f"lake{DAYS}" / str(TABLES) / self.name

    def env(self, which: str) -> dict[str, str]:
        lake = self._place.data if which == "empty" else self.folder
        return {**self._place.env, "MIRROR_LAKE": str(lake / "lake"), **self.address(which)}

    @abstractmethod
    def address(self, which: str) -> dict[str, str]:
        """The variables that name a catalog."""

    @abstractmethod
    def clear(self) -> None:
        """Make ``empty`` empty."""

    @abstractmethod
    def copy(self) -> None:
        """Make ``work`` a fresh copy of ``kept``."""

    def start_afresh(self) -> None:
        shutil.rmtree(self._place.data, ignore_errors=True)
        self._place.data.mkdir()
        self.clear()

    def restore(self) -> None:
        """A fresh copy of the kept catalog, and no files of days after it."""
        self.copy()
        today = datetime.now(UTC).date()
        for folder in (self.folder / "lake").glob(f"*/*/_PARTITIONDATE={today}"):
            shutil.rmtree(folder)


class _Sqlite(_Catalog):
    name = "SQLite"

    def address(self, which: str) -> dict[str, str]:
        return {"MIRROR_WAREHOUSE": f"ducklake:sqlite:{self._file(which)}"}

    def _file(self, which: str) -> Path:
        return (self._place.data if which == "empty" else self.folder) / f"{which}.sqlite"

    def clear(self) -> None:
        """It went with the folder."""

    def copy(self) -> None:
        for left in self.folder.glob("work.sqlite*"):
            left.unlink()
        with (
            closing(sqlite3.connect(self._file("kept"))) as kept,
            closing(sqlite3.connect(self._file("work"))) as work,
        ):
            kept.backup(work)


class _Postgres(_Catalog):
    name = "PostgreSQL"

    def __init__(self, place: Home) -> None:
        super().__init__(place)
        self.server = data.server("postgresql")
        self._create("kept")

    def address(self, which: str) -> dict[str, str]:
        assert self.server is not None
        at = f"host={self.server.host} port={self.server.port} user=admin"
        return {
            "MIRROR_WAREHOUSE": f"ducklake:postgres:{at} dbname={self._database(which)}",
            "MIRROR_WAREHOUSE_PASSWORD": self.server._password("admin"),
        }

    def _database(self, which: str) -> str:
        return f"lake_{DAYS}_{TABLES}_{which}"

    def _create(self, which: str) -> None:
        self.server.create_database(self._database(which))

    def _run(self, statement: str) -> None:
        with closing(self.server.admin()) as admin, admin.cursor() as cursor:
            cursor.execute(statement)

    def clear(self) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._database('empty')} WITH (FORCE)")
        self._create("empty")

    def copy(self) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._database('work')} WITH (FORCE)")
        self._run(f"CREATE DATABASE {self._database('work')} TEMPLATE {self._database('kept')}")


def lake() -> Section:
    place = home("mysql", data.WIDE, data.WIDE_TABLES, "year")
    taken = {kind.name: _measure(kind) for kind in (_Sqlite(place), _Postgres(place))}
    return Section(
        f"A lake of {DAYS} days of {TABLES} tables",
        ("", *taken),
        [[title, *(figures[key] for figures in taken.values())] for key, title in _ROWS],
        note="The old lake is a stand-in: three real days, the others as rows of the catalog."
        " Writers take turns, a chunk's transaction each, because overlapping transactions of"
        " DuckLake are run again (docs/adr/0001-lake-and-load.md): so they do wait for each other."
        " Copying and typing, which take longer, go on meanwhile.",
        checks=[check for name, figures in taken.items() for check in _checks(name, figures)],
    )


def _checks(name: str, figures: dict[str, Any]) -> Sequence[Check]:
    return (
        at_most(f"{name}: one more day after {DAYS} / first day, CPU", figures["grown"], 1.5),
        at_most(f"{name}: a latest view", figures["view"], 100, "ms"),
        at_most(
            f"{name}: the longest wait for a turn, {_RIVALS} at once", figures["waited"], 0, "s"
        ),
        at_most(f"{name}: chunks that failed when published at once", figures["failed"], 0),
    )


def _measure(catalog: _Catalog) -> dict[str, Any]:
    built = once(Case("build the old lake", [*_DAY, "build", str(DAYS)], catalog.env("kept")))
    first, second, later = [], [], []
    for _ in range(RUNS):
        catalog.start_afresh()
        first.append(_publish(catalog, "empty", "0"))
        second.append(_publish(catalog, "empty", "1"))
        catalog.restore()
        later.append(_publish(catalog, "work", "0"))
    catalog.restore()
    latest = once(Case("latest", [*_DAY, "latest"], catalog.env("work"))).said
    cpu = [[run["cpu"] for run in runs] for runs in (first, second, later)]
    return {
        "build": built.wall,
        **dict(zip(("first", "second", "later"), map(statistics.median, cpu), strict=True)),
        "later_wall": statistics.median(run["wall"] for run in later),
        "grown": statistics.median(b / a for a, b in zip(cpu[0], cpu[2], strict=True)),
        "view_first": latest["first"],
        "view": latest["next"],
        **_rivals(catalog),
    }


def _publish(catalog: _Catalog, which: str, *arguments: str) -> dict[str, float]:
    before = server_cpu(catalog.server)
    said = once(Case("publish", [*_DAY, "publish", *arguments], catalog.env(which))).said
    return {**said, "cpu": said["cpu"] + server_cpu(catalog.server) - before}


def _rivals(catalog: _Catalog) -> dict[str, Any]:
    """Chunks published one after the other, then each by a process of its own."""
    catalog.restore()
    serial = _publish(catalog, "work", "0", "0", str(_RIVALS))
    catalog.restore()
    began = time.time() + 5  # when all of them are ready
    running = [
        subprocess.Popen(
            [*_DAY, "publish", "0", str(chunk), "1", str(began)],
            env=catalog.env("work"),
            stdout=subprocess.PIPE,
        )
        for chunk in range(_RIVALS)
    ]
    answers = [process.communicate()[0] for process in running]
    said = [json.loads(answer) for answer in answers if answer]
    catalog.restore()
    return {
        "serial": serial["wall"],
        "wall": max(one["wall"] for one in said),
        "turn": max(one["wall"] - one["waited"] for one in said),
        "waited": max(one["waited"] for one in said),
        "failed": sum(process.returncode != 0 for process in running),
    }
