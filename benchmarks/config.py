"""Where the benchmarks lie, and how large they are; for a trial smaller, by BENCH_<NAME>."""

import os
import sys
from pathlib import Path


def _size(name: str, default: int) -> int:
    return int(os.environ.get(f"BENCH_{name}", default))


HERE = Path(__file__).parent
ROOT = Path(os.environ.get("BENCH_HOME", ".mirror/bench")).absolute()
VENV = Path(".mirror/bench/venv").absolute()
#: Kept with the page that is written from them: a section may be measured by itself.
RESULTS = Path(os.environ.get("BENCH_RESULTS", HERE / "results.json"))

RUNS = _size("RUNS", 3)
ROWS = _size("ROWS", 3_000_000)
TABLES = _size("TABLES", 300)
SMALL_TABLES = _size("SMALL_TABLES", 100)
TABLE_ROWS = _size("TABLE_ROWS", 2_000)
DAYS = _size("DAYS", 365)
#: The first is too small to take time: what a run costs before any row.
GROWTH = [1_000, ROWS // 3, ROWS, ROWS * 10 // 3, ROWS * 10]

OURS = [sys.executable, "-m", "benchmarks.ours"]
SLING = VENV / "lib/python3.11/site-packages/sling_linux_amd64/bin/sling-linux-amd64"


def peer(script: str) -> list[str]:
    """A script of `benchmarks/peers`, run by the peers' own Python."""
    return [str(VENV / "bin/python"), str(HERE / "peers" / f"{script}.py")]
