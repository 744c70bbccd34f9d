"""Measure ratios against a floor, section by section, in turns, medians of three.

``python -m benchmarks.run [SECTION ..]``; without arguments all of them. Results are kept in
benchmarks/results.json, and ``python -m benchmarks.report`` writes docs/performance.md from it.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks import data, delivery, draftjs, encounters, engine, growth, lake, tables, tunnel
from benchmarks.config import RESULTS, ROOT
from benchmarks.report import limit_line
from benchmarks.sections import Section

SECTIONS: dict[str, Callable[[], Section]] = {
    "load": engine.load,
    "wide": engine.wide,
    "small": engine.small,
    "mysql": tables.mysql,
    "postgres": tables.postgres,
    "native": tables.native,
    "tunnel": tunnel.tunnel,
    "lake": lake.lake,
    "growth": growth.growth,
    "memory": growth.memory,
    "encounters": encounters.section,
    "texts": draftjs.notes,
    "delivery": delivery.delivery,
}


def main(chosen: list[str]) -> None:
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        sys.exit(f"no section {sorted(unknown)[0]!r}; there are: {', '.join(SECTIONS)}")
    ROOT.mkdir(parents=True, exist_ok=True)
    try:
        for name in chosen or SECTIONS:
            began = time.monotonic()
            section = SECTIONS[name]()
            _keep(name, section)
            print(f"{section.title} ({time.monotonic() - began:.0f} s)")
            for check in section.checks:
                print(f"  {limit_line(check)}", flush=True)
    finally:
        data.stop()


def _keep(name: str, section: Section) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {"at": f"{datetime.now(UTC):%Y-%m-%d}", **section.to_json()}
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
