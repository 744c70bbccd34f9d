"""Whole processes, measured in turns: wall and CPU seconds, the server's too, and peak memory."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.config import HERE, ROOT, RUNS
from mirror_assets.sample.servers import PrivateServer

_TICKS = os.sysconf("SC_CLK_TCK")
_SETTLE_SECONDS = 1200


@dataclass(frozen=True)
class Case:
    """A command to measure; ``output`` is deleted before and after each of its runs."""

    name: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    output: Sequence[Path] = ()
    server: PrivateServer | None = None
    discard: bool = False


@dataclass(frozen=True)
class Taken:
    """One run. ``said`` is the last line it printed, where that was JSON."""

    wall: float
    cpu: float
    peak: float
    server: float
    said: Any


def in_turns(cases: Sequence[Case], runs: int = RUNS, warm: bool = False) -> dict[str, list[Taken]]:
    """Every case once per round, after one run that is not counted: of the first case, or all."""
    for case in cases if warm else cases[:1]:
        once(case)
    taken: dict[str, list[Taken]] = {case.name: [] for case in cases}
    for _ in range(runs):
        for case in cases:
            taken[case.name].append(once(case))
    return taken


def once(case: Case) -> Taken:
    log, figures = ROOT / "last.log", ROOT / "last.figures"
    _clear(case)
    for folder in case.output:
        folder.mkdir(parents=True)
    os.sync()  # nobody pays for what the one before wrote
    _settle(case.server)
    before = server_cpu(case.server)
    launcher = [sys.executable, "-I", "-S", str(HERE / "launcher.py"), str(figures)]
    out = Path(os.devnull) if case.discard else ROOT / "last.out"
    with log.open("wb") as errors, out.open("wb") as output:
        command = [*launcher, *case.command]
        env = {**os.environ, **case.env}
        ended = subprocess.run(command, env=env, stdout=output, stderr=errors, check=False)
    if ended.returncode != 0:
        sys.exit(f"{case.name} ended with {ended.returncode}: see {log}")
    spent = server_cpu(case.server) - before
    wall, cpu, peak = map(float, figures.read_text().split())
    _clear(case)
    return Taken(wall, cpu, peak, spent, None if case.discard else _last_line(out))


def median(taken: Sequence[Taken], figure: str = "wall") -> float:
    return statistics.median(getattr(run, figure) for run in taken)


def ratio(mine: Sequence[Taken], floor: Sequence[Taken]) -> float:
    """The median of the ratios round by round: the machine's moods cancel out. Of medians, where
    one side ran less often.
    """
    if len(mine) != len(floor):
        return median(mine) / median(floor)
    return statistics.median(a.wall / b.wall for a, b in zip(mine, floor, strict=True))


def _settle(server: PrivateServer | None) -> None:
    """Wait until a server is idle: after a large table is made it works on for minutes."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while server is not None and time.monotonic() < deadline:
        before = server_cpu(server)
        time.sleep(0.5)
        if server_cpu(server) - before < 0.03:
            return


def server_cpu(server: PrivateServer | None) -> float:
    """CPU seconds a server has used so far, with its processes that live or have ended."""
    if server is None:
        return 0.0
    main = server._pid()
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return _ticks(str(main), 4) + sum(_ticks(child, 2) for child in children)


def _ticks(process: str, fields: int) -> float:
    """utime and stime, and with four fields also those of children that have ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11 : 11 + fields])) / _TICKS


def _clear(case: Case) -> None:
    for folder in case.output:
        shutil.rmtree(folder, ignore_errors=True)


def _last_line(path: Path) -> Any:
    lines = path.read_text(errors="replace").splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
