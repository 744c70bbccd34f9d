"""Write docs/performance.md and its plot from the kept results of all sections.

``python -m benchmarks.report [RESULTS [FOLDER]]``
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.config import RESULTS, RUNS, peer
from benchmarks.sections import Check, Section

_ORDER = (
    "mysql",
    "postgres",
    "native",
    "tunnel",
    "small",
    "wide",
    "load",
    "growth",
    "memory",
    "lake",
    "encounters",
    "texts",
    "delivery",
)
_SERVERS = {"mysql": "MySQL", "postgres": "PostgreSQL"}
_PHASES = {
    "count": "counting the rows at the source",
    "export": "export, next to the typed load of earlier parts",
    "load": "typed load of all parts",
    "publish": "publication",
}
_THREADS = {
    "MainThread": "starting, publishing",
    "copy": "export thread: fetch, format, checksum, write",
    "load": "typed load, its own thread",
    "DuckDB's workers": "typed load, DuckDB's further threads",
}


def main(results: str = str(RESULTS), folder: str = "docs") -> None:
    kept = json.loads(Path(results).read_text())
    sections = {name: Section.from_json(_without(kept[name])) for name in _ORDER if name in kept}
    target = Path(folder)
    plot = subprocess.run([*peer("plot"), results, str(target / "performance.png")], check=False)
    lines = [
        "# Performance",
        "",
        "Written by `make bench`; do not edit. Ratios against a floor measured in the same run, in"
        f" turns: medians of {RUNS}, ratios round by round. Whole processes, from start to exit;"
        " CPU and peak memory are the operating system's own figures, the server's CPU beside them."
        " Seconds will differ on your machine, ratios less.",
        "",
        _measured(sorted({entry["at"] for entry in kept.values()})),
        "",
        *(
            ["![Seconds per way, and per million rows](performance.png)", ""]
            * (not plot.returncode)
        ),
        "## Limits",
        "",
        *_limits(sections.values()),
    ]
    for name, section in sections.items():
        lines += ["", f"## {section.title}", "", *_table(section.columns, section.rows)]
        lines += ["", section.note] if section.note else []
        if "spent" in section.extra:
            lines += ["", *_spent(name, section.extra["spent"])]
    (target / "performance.md").write_text("\n".join(lines) + "\n")
    print(f"wrote {target / 'performance.md'}")


def limit_line(check: Check) -> str:
    state = "holds" if check.holds else "**fails**"
    return f"{check.what}: {_shown(check.value)} {check.unit}".rstrip() + (
        f" ({check.sign} {check.limit:g}: {state})"
    )


def _limits(sections: Any) -> Iterator[str]:
    rows = [
        [
            check.what,
            f"{_shown(check.value)} {check.unit}".strip(),
            f"{check.sign.replace('<=', '≤').replace('>=', '≥')} {check.limit:g}",
            "holds" if check.holds else "**fails**",
            section.title,
        ]
        for section in sections
        for check in section.checks
    ]
    yield from _table(("", "measured", "limit", "", "where"), rows)


def _spent(kind: str, spent: dict[str, Any]) -> list[str]:
    """Where the time of a full mirror went."""
    wall, total = spent["wall"], spent["server"] + spent["cpu"]
    cpu = [["server", spent["server"]]]
    cpu += [[text, spent["threads"].get(name, 0.0)] for name, text in _THREADS.items()]
    phases = [[text, spent["phases"].get(name, 0.0)] for name, text in _PHASES.items()]
    cores = total / wall
    return [
        f"### Where the time of the full mirror goes: {_SERVERS[kind]}",
        "",
        f"{wall:.1f} s of wall time, {total:.1f} s of CPU on {os.cpu_count()} cores:"
        f" {cores:.1f} of them busy on average. The server alone was busy for"
        f" {100 * spent['server'] / wall:.0f} % of the time. With every core busy all the time it"
        f" would take {total / (os.cpu_count() or 1):.1f} s.",
        "",
        *_table(("CPU", "seconds"), cpu),
        "",
        *_table(("phase, by the clock", "seconds"), phases),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    numbers = [
        "--:" if all(isinstance(v, (int, float)) for v in c) else "---"
        for c in zip(*rows, strict=True)
    ]
    yield f"|{'|'.join(numbers or ['---'] * len(columns))}|"
    for row in rows:
        yield f"| {' | '.join(_shown(value) for value in row)} |"


def _shown(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measured(days: list[str]) -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [
        f"Python {platform.python_version()}",
        f"DuckDB {duckdb.__version__}",
        *(
            subprocess.run([*command], capture_output=True, text=True, check=False).stdout.split(
                "\n"
            )[0]
            for command in (
                ["mariadb", "--version"],
                ["psql", "--version"],
                ["mydumper", "--version"],
            )
        ),
    ]
    return (
        f"Measured on {' to '.join(dict.fromkeys((days[0], days[-1])))}: {model}, {os.cpu_count()}"
        f" cores that servers and clients share, {memory:.0f} GB, Linux {platform.release()};"
        f" {'; '.join(filter(None, versions))}. Servers on loopback."
    )


def _without(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "at"}


if __name__ == "__main__":
    main(*sys.argv[1:])
