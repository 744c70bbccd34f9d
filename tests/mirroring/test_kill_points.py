"""kill -9 at every step of a run, and at random instants: running again ends as if undisturbed.

Also run as a program: it imports everything once and forks one process per run that is to die.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mirror_assets.mirroring.landing import ExportWriter, Landing
from mirror_assets.mirroring.mirror import MirrorRun
from mirror_assets.mirroring.scratch import remove_scratch, sweep_scratch
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.typed import TypedLoader
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeTransaction, DuckLakeWarehouse
from mirror_assets.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Bench

ROOT = Path(__file__).parents[2]
TABLES = ("a", "b", "bad")
PART_BYTES = 10_000

#: Name of a kill point -> the method after (or before) whose n-th call the process dies.
_AFTER: dict[str, tuple[type, str]] = {
    "staging made": (DuckLakeWarehouse, "staging"),
    "records written": (ExportWriter, "write"),
    "part closed": (ExportWriter, "close_part"),
    "typed part written": (TypedLoader, "load"),
    "inside the transaction": (DuckLakeTransaction, "replace_partition"),
    "latest view moved": (DuckLakeTransaction, "latest_view"),
    "control rows written": (DuckLakeTransaction, "replace_rows"),
    "after the commit": (DuckLakeWarehouse, "commit"),
}
_POINTS = (*_AFTER, "schema.json written", "manifest written", "before the commit")


# -- the program


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _arm(point: str, call: int) -> None:
    """Let this process die at the ``call``-th time that it comes to a point."""
    if point == "before the commit":
        _wrap(DuckLakeWarehouse, "commit", call, before=True)
    elif point.endswith(".json written") or point == "manifest written":
        ending = ".schema.json" if point.startswith("schema") else ".manifest.json"
        _wrap(Landing, "put_text", call, counts=lambda path: path.endswith(ending))
    else:
        _wrap(*_AFTER[point], call)


def _wrap(
    owner: type,
    name: str,
    call: int,
    *,
    before: bool = False,
    counts: Callable[[str], bool] = lambda _path: True,
) -> None:
    real = getattr(owner, name)
    left = [call]

    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        left[0] -= counts(arguments[0] if arguments else "")
        if before and left[0] == 0:
            _die()
        result = real(self, *arguments, **options)
        if left[0] == 0:
            _die()
        return result

    setattr(owner, name, wrapped)


def _mirror(variables: dict[str, str], day: date, run_id: str) -> int:
    """A whole run, chunk by chunk as Dagster's steps do it; how many tables were not published."""
    settings = Settings.from_env(variables)
    spec = settings.database("clinic")
    source = open_source(spec, settings.database_url("clinic"))
    scratch = settings.new_scratch()
    warehouse = settings.warehouse()
    landing = Landing(settings.landing_url, scratch, part_bytes=PART_BYTES)
    missing = 0
    with MirrorRun(
        *(spec, source, landing, warehouse),
        partition=day,
        run_id=run_id,
        tables=spec.tables,
        scratch=scratch,
        memory="128MB",
    ) as run:
        for chunk in spec.chunks:
            missing += sum(not report.published for report in run.publish(chunk))
    warehouse.close()
    remove_scratch(scratch)
    return missing


def _serve() -> None:
    """For each line of input fork one run; answer its exit code, negative where it was killed."""
    for module in ("fsspec", "pyarrow", "mirror_assets.mirroring.sources.mysql"):
        importlib.import_module(module)  # else each run would load it anew
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            if order["point"]:
                _arm(order["point"], order["call"])
            day = date.fromisoformat(order["day"])
            os._exit(_mirror(order["variables"], day, order["run_id"]))
        if order["seconds"] is not None:
            time.sleep(order["seconds"])
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{code}\n")
        sys.stdout.flush()


# -- the tests


class _Runs:
    """Runs in processes of their own."""

    def __init__(self, process: subprocess.Popen[str], bench: Bench, day: date) -> None:
        self._process = process
        self._bench = bench
        self._day = day
        self._count = 0

    def run(self, root: Path, point: str = "", call: int = 1, seconds: float | None = None) -> int:
        self._count += 1
        variables = _below(self._bench, root)
        order = {
            "variables": variables,
            "day": str(self._day),
            "run_id": f"run-{self._count}",
            "point": point,
            "call": call,
            "seconds": seconds,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _below(bench: Bench, root: Path) -> dict[str, str]:
    """The bench's environment with everything that a run writes below another folder."""
    root.mkdir(exist_ok=True)
    here = str(bench.root)
    kept = ("MIRROR_EXTENSIONS", "MIRROR_CATALOG_PATH")
    return {
        name: value if name in kept else value.replace(here, str(root))
        for name, value in bench.variables.items()
    }


@contextmanager
def _runs(bench: Bench, day: date) -> Iterator[_Runs]:
    process = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _Runs(process, bench, day)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def runs(bench: Bench) -> Iterator[_Runs]:
    for name in TABLES:
        bench.run(
            f"CREATE TABLE {name} (id int PRIMARY KEY, v varchar(80) NOT NULL, d date)",
            "SET sql_mode = ''",
            f"INSERT INTO {name} SELECT seq, REPEAT('{name}', 30), '2026-01-01' FROM seq_1_to_700",
        )
    bench.run("SET sql_mode = ''", "UPDATE bad SET d = '2026-00-01' WHERE id IN (7, 650)")
    allowed = {"rows": 2, "reason": "known at the source", "until": "2090-01-01"}
    tables: dict[str, Any] = dict.fromkeys(TABLES)
    tables["bad"] = {"bad_records_allowed": allowed}
    spec = bench.catalog(tables, chunk_size=2)
    with _runs(bench, bench.day(spec)) as made:
        yield made


_INSTANTS = (
    "run_id|load_time|BQ_LOAD_TIME|recorded_at|snapshot_at|seconds|updated_at|.*_snapshot_at"
)


def _state(bench: Bench, root: Path) -> dict[str, Any]:
    """All that a run leaves behind, but for run ids, instants and chosen file names."""
    settings = Settings.from_env(_below(bench, root))
    warehouse = settings.warehouse()
    warehouse._orphan_seconds = 0  # type: ignore[attr-defined]
    warehouse.maintain(time_travel_days=0)
    views = [f"{name}{suffix}" for name in TABLES for suffix in ("", "_latest")]
    control = ("MIRROR_METADATA_latest", "MIRROR_ERRORS_latest", "MIRROR_COMPLETENESS")
    found: dict[str, Any] = {
        view: warehouse.query(f"SELECT * FROM clinic_mirror.{view} ORDER BY ALL").rows
        for view in views
    }
    for view in control:
        columns = f"COLUMNS(c -> NOT regexp_full_match(c, '{_INSTANTS}|file|export'))"
        statement = f'SELECT {columns} FROM clinic_mirror."{view}" ORDER BY ALL'
        found[view] = warehouse.query(statement).rows
    warehouse.close()
    sweep_scratch(settings.scratch, older_than_hours=0)
    found["scratch"] = list(settings.scratch.rglob("*"))
    found["lake"] = sorted(str(path.parent.parent) for path in _files(root / "lake", "*.parquet"))
    found["landing"] = _exports(root / "landing")
    return found


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(p.relative_to(folder) for p in folder.rglob(pattern) if p.is_file())


def _exports(landing: Path) -> list[Any]:
    """The finished exports; every part that they name is there and whole."""
    found = []
    for path in sorted(landing.rglob("*.manifest.json")):
        manifest = json.loads(path.read_text())
        del manifest["snapshot_at"]
        for part in manifest["parts"]:
            name = part.pop("file")
            assert (path.parent / name).stat().st_size == part["bytes"]
        found.append((path.name, manifest))
    # a process killed between writing a small file and naming it leaves it beside, until it expires
    assert not [path for path in landing.rglob("*.tmp") if ".json." not in path.name]
    return found


def _undisturbed(bench: Bench, runs: _Runs) -> dict[str, Any]:
    root = bench.root / "undisturbed"
    assert runs.run(root) == 0
    state = _state(bench, root)
    assert [len(state[f"{name}_latest"]) for name in TABLES] == [700, 700, 698]
    assert len(state["MIRROR_ERRORS_latest"]) == 2
    assert [len(m["parts"]) > 1 for _name, m in state["landing"]] == [True] * len(TABLES)
    return state


def test_a_run_killed_at_any_step_ends_as_if_undisturbed_when_run_again(
    bench: Bench, runs: _Runs
) -> None:
    wanted = _undisturbed(bench, runs)
    for number, point in enumerate(_POINTS):
        root = bench.root / point.replace(" ", "-")
        call = 1 + number % 2  # at the second time some tables are exported or published already
        assert runs.run(root, point, call) == -signal.SIGKILL, point
        assert runs.run(root) == 0, point
        assert _state(bench, root) == wanted, point
        shutil.rmtree(root)


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_instants_ends_as_if_undisturbed(
    bench: Bench, runs: _Runs, kills: int
) -> None:
    wanted = _undisturbed(bench, runs)
    began = time.monotonic()
    assert runs.run(bench.root / "timed") == 0
    longest = time.monotonic() - began
    moments = random.Random(20261122)
    killed = 0
    for number in range(kills):
        root = bench.root / f"random-{number}"
        killed += runs.run(root, seconds=moments.uniform(0.0, longest)) == -signal.SIGKILL
        assert runs.run(root) == 0
        assert _state(bench, root) == wanted
        shutil.rmtree(root)
    assert killed > kills // 2


if __name__ == "__main__":
    _serve()
