"""Seconds per million rows, and peak memory, as one table grows. Tables lie side by side."""

import shutil

from benchmarks import data
from benchmarks.config import GROWTH, OURS, ROOT, ROWS
from benchmarks.homes import home
from benchmarks.sections import Section, at_most
from benchmarks.timing import Case, Taken, in_turns, median

_KINDS = {"mysql": "MySQL", "postgresql": "PostgreSQL"}
_FURTHER = (
    "Further seconds: beyond those of the smallest table."
    f" One run of each table of more than {ROWS:,} rows, after one that is not counted."
)
#: Bytes on disk per row: in the server twice while it is built, in the landing zone, in the lake.
_BYTES_PER_ROW = 1000
_MEMORY_MB = 600
#: What one section has measured, the other need not build again.
_taken: dict[tuple[str, int], list[Taken]] = {}


def memory() -> Section:
    """Peak memory of the full mirror for a table and one ten times as large."""
    taken, left_out = _mirrors("mysql", [ROWS, ROWS * 10])
    peaks = {rows: median(runs, "peak") for rows, runs in taken.items()}
    low, high = min(peaks.values()), max(peaks.values())
    return Section(
        "Memory of the full mirror (MIRROR_MEMORY=512MB)",
        ("rows", "peak MB"),
        [[f"{rows:,}", peak] for rows, peak in peaks.items()],
        note=left_out,
        checks=[
            at_most("peak", high, _MEMORY_MB, "MB"),
            at_most("largest / smallest peak", high / low, 1.2),
        ],
    )


def growth() -> Section:
    """The full mirror of growing tables, of both kinds of servers."""
    rows, checks, notes, series = [], [], [], {}
    for kind, name in _KINDS.items():
        taken, left_out = _mirrors(kind, GROWTH)
        start = median(taken[GROWTH[0]])
        pace = {size: (median(taken[size]) - start) / size * 1e6 for size in list(taken)[1:]}
        rows += [
            [name, f"{size:,}", median(runs), pace.get(size, "-"), median(runs, "peak")]
            for size, runs in taken.items()
        ]
        notes.append(left_out)
        series[name] = list(pace.items())
        flat = max(pace.values()) / min(pace.values())
        checks.append(at_most(f"{name}: seconds per row, slowest / fastest size", flat, 1.25))
    return Section(
        "Growth of the full mirror",
        ("", "rows", "seconds", "further seconds per million rows", "peak MB"),
        rows,
        note=" ".join([_FURTHER, *filter(None, notes)]),
        checks=checks,
        extra={"series": series},
    )


def _mirrors(kind: str, sizes: list[int]) -> tuple[dict[int, list[Taken]], str]:
    """Runs per size, and a sentence on the sizes for which the disk was too small."""
    missing = [size for size in sizes if (kind, size) not in _taken and _fits(kind, size)]
    cases = {size: _case(kind, size) for size in missing}
    small = [case for size, case in cases.items() if size <= ROWS]
    large = [case for size, case in cases.items() if size > ROWS]
    taken = in_turns(small) | (in_turns(large, runs=1) if large else {})
    for size, case in cases.items():
        _taken[kind, size] = taken[case.name]
        if size > ROWS:
            data.drop_big(kind, size)
    data.stop()  # what a server still does would slow down the other kind's
    left = [f"{size:,}" for size in sizes if (kind, size) not in _taken]
    note = f"Left out for lack of disk ({kind}): {', '.join(left)} rows." if left else ""
    return {size: _taken[kind, size] for size in sizes if (kind, size) in _taken}, note


def _fits(kind: str, size: int) -> bool:
    """Builds the table when there is room for it, its export and its Parquet files."""
    ROOT.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(ROOT).free < size * _BYTES_PER_ROW + (2 << 30):
        return False
    data.big(kind, size)
    return True


def _case(kind: str, size: int) -> Case:
    place = home(kind, f"big_{size}", [data.BIG])
    command = [*OURS, "mirror", place.name]
    return Case(f"{size:,} rows", command, place.env, [place.data], data.server(kind))
