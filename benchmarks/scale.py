"""What a larger mirror would take, from units measured here: writes docs/scale.md.

``python -m benchmarks.scale``. Nothing in it was run at that size: each figure is a product of a
unit that was measured on two cores (docs/performance.md says how) and an amount that is assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_TB = 1000.0  # GB


@dataclass(frozen=True)
class Units:
    """Measured per unit of work. GB are of exported CSV, 10^9 bytes."""

    #: seconds per GB, one run on two cores that the server shares: 3 million rows of 0.7 GB
    mirror_mysql: float = 10.9 / 0.7
    mirror_postgresql: float = 6.8 / 0.7
    #: CPU seconds of the server and of our process per GB, MySQL
    server_cpu: float = 6.7 / 0.7
    client_cpu: float = 9.3 / 0.7
    #: seconds per table beyond its rows, without Dagster; and a table's two events
    table: float = 0.021
    events: float = 0.064
    #: bytes of a table's events in Dagster's log, the demo's: planned 2,300, output 2,700,
    #: materialization 4,800, check 2,000
    event_bytes: int = 11_800
    #: MB per second through an OpenSSH tunnel, aes128-gcm, and without one
    tunnel: float = 411.0
    loopback: float = 2594.0
    #: peak MB of a run or pod with MIRROR_MEMORY=512MB; the same for ten times the rows
    peak: int = 516
    #: bytes of Parquet per byte of CSV, the demo's databases with the transformed tables: 46 MB of
    #: 148 MB; of Elation's alone 0.15
    parquet: float = 0.31
    #: seconds to publish a table in a chunk of 15 (DuckLake), and a step's own start
    publish: float = 0.018
    step: float = 3.2


@dataclass(frozen=True)
class Load:
    """What is assumed of one day."""

    name: str
    tables: int
    gigabytes: float
    largest: float
    #: pods at once, and cores of the source that its owner lets us keep busy
    pods: int
    source_cores: int


@dataclass(frozen=True)
class Estimate:
    """One day's work; hours, GB."""

    chunks: int
    pod_hours: float
    hours_by_pods: float
    hours_by_source: float
    hours_by_tunnels: float
    hours_by_table: float
    parquet_gb: float
    event_seconds: float
    events_mb_per_year: float

    @property
    def hours(self) -> float:
        return max(
            self.hours_by_pods, self.hours_by_source, self.hours_by_tunnels, self.hours_by_table
        )

    @property
    def bound(self) -> str:
        """What the day's length follows."""
        told = {
            "pods": self.hours_by_pods,
            "the source's cores": self.hours_by_source,
            "the tunnels": self.hours_by_tunnels,
            "the largest table, which one connection reads": self.hours_by_table,
        }
        return max(told, key=lambda name: told[name])


UNITS = Units()
LOADS = (
    Load("300 tables, 1 TB", 300, _TB, 100.0, pods=8, source_cores=8),
    Load("ten times that", 3000, 10 * _TB, 1000.0, pods=40, source_cores=32),
)
_CHUNK = 15


def estimate(load: Load, units: Units = UNITS) -> Estimate:
    """What one day of a load takes."""
    chunks = ceil(load.tables / _CHUNK)
    rows = load.gigabytes * units.mirror_mysql
    fixed = load.tables * (units.table + units.events) + chunks * units.step
    return Estimate(
        chunks=chunks,
        pod_hours=(rows + fixed) / 3600,
        hours_by_pods=(rows + fixed) / 3600 / min(load.pods, chunks),
        hours_by_source=load.gigabytes * units.server_cpu / load.source_cores / 3600,
        hours_by_tunnels=load.gigabytes * 1000 / units.tunnel / min(load.pods, chunks) / 3600,
        hours_by_table=load.largest * units.mirror_mysql / 3600,
        parquet_gb=load.gigabytes * units.parquet,
        event_seconds=load.tables * units.events,
        events_mb_per_year=load.tables * 365 * units.event_bytes / 1e6,
    )


def page(units: Units = UNITS, loads: Sequence[Load] = LOADS) -> str:
    """docs/scale.md."""
    found = [estimate(load, units) for load in loads]
    rows: list[tuple[str, list[str]]] = [
        ("largest table, GB", [f"{load.largest:,.0f}" for load in loads]),
        ("pods at once (assumed)", [str(load.pods) for load in loads]),
        ("cores the source lends (assumed)", [str(load.source_cores) for load in loads]),
        ("chunks of 15 tables", [str(e.chunks) for e in found]),
        ("pod-hours", [f"{e.pod_hours:.1f}" for e in found]),
        ("hours, if pods were the limit", [f"{e.hours_by_pods:.1f}" for e in found]),
        ("hours, if the source's cores were", [f"{e.hours_by_source:.1f}" for e in found]),
        ("hours, if SSH tunnels were, one per pod", [f"{e.hours_by_tunnels:.1f}" for e in found]),
        ("hours, if the largest table were", [f"{e.hours_by_table:.1f}" for e in found]),
        ("**the day takes, hours**", [f"**{e.hours:.1f}**" for e in found]),
        ("because of", [e.bound for e in found]),
        ("memory per pod, MB (does not grow)", [str(units.peak) for _ in found]),
        ("leaves the source, uncompressed, GB", [f"{ld.gigabytes:,.0f}" for ld in loads]),
        ("landing zone, two days, GB", [f"{2 * ld.gigabytes:,.0f}" for ld in loads]),
        ("Parquet written and loaded, GB", [f"{e.parquet_gb:,.0f}" for e in found]),
        (
            "Parquet in a lake after a year, TB",
            [f"{e.parquet_gb * 365 / 1000:,.0f}" for e in found],
        ),
        ("BigQuery load jobs (limit 100,000 a project)", [f"{ld.tables:,}" for ld in loads]),
        ("Dagster: seconds spent on events", [f"{e.event_seconds:.0f}" for e in found]),
        ("Dagster: event log of a year, GB", [f"{e.events_mb_per_year / 1e3:.1f}" for e in found]),
    ]
    table = [
        f"| One day | {' | '.join(load.name for load in loads)} |",
        f"|---|{'--:|' * len(loads)}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows),
    ]
    return "\n".join([_HEAD, *table, _tail(units)])


_HEAD = """# Scale, on paper

Written by `python -m benchmarks.scale`; do not edit. Nothing here was run at this size. Each figure
is a unit measured on two cores ([performance.md](performance.md)) times an amount that is assumed:
change `LOADS` in `benchmarks/scale.py` to yours and write the page again.
"""


def _tail(units: Units) -> str:
    return f"""
## The units

| Unit | Measured |
|---|--:|
| full mirror, MySQL, server on the same two cores | {units.mirror_mysql:.1f} s per GB of CSV |
| full mirror, PostgreSQL | {units.mirror_postgresql:.1f} s per GB |
| CPU of the source's server, MySQL | {units.server_cpu:.1f} s per GB |
| CPU of our process | {units.client_cpu:.1f} s per GB |
| a further table, without its rows | {units.table * 1000:.0f} ms |
| its two Dagster events | {units.events * 1000:.0f} ms, {units.event_bytes:,} bytes |
| publishing it in a DuckLake, chunks of 15 | {units.publish * 1000:.0f} ms |
| OpenSSH tunnel, aes128-gcm; loopback without one | {units.tunnel:.0f}; {units.loopback:.0f} MB/s |
| peak memory, 3 and 30 million rows alike | {units.peak} MB |
| Parquet per byte of CSV, the demo's databases | {units.parquet:.2f} |

Not measured: a cluster's time to start a pod, Cloud Storage and BigQuery themselves (which keeps
rows in a form of its own; our Parquet is deleted once loaded), their prices (multiply the GB above
by your price list), and networks.

## What breaks first, and the setting that moves it

1. **The largest table.** One connection reads it, so it alone can be the day. The source's owner
   can partition it at the source; `exclude_columns` leaves out what nobody reads; a table that
   only grows wants an incremental mode, which this product does not have.
2. **The tunnels.** A process of `ssh` uses one core of each side. Every chunk in a pod of its own
   opens its own tunnel (`pods.per: chunk`), so tunnels scale with pods until the SSH host's cores
   are busy. How many pods run at once is the pool's limit (`concurrency.pools`, 4 unless a site
   says otherwise: `deploy/values.yaml`), and a run ends after `max_runtime_seconds` (12 h).
3. **The source's cores.** The server assembles the records: {units.server_cpu:.0f} CPU seconds
   per GB. More pods do not help; a replica does, and `dagster instance concurrency set
   mirror_<database> N` keeps what we take to what its owner lends.
4. **One process per live database.** A live PostgreSQL is read from one snapshot by one process;
   its hours are its GB times {units.mirror_postgresql:.1f} s. A restored backup can be cut into
   databases.
5. **Dagster's events.** {units.events * 1000:.0f} ms per table are spent storing two events;
   beyond some thousands of tables split the code location by database, and let the event log live
   in PostgreSQL.
6. **The DuckLake's catalog.** With 365 days of 300 tables one more day costs what
   [performance.md](performance.md) says; an SQLite catalog is read whole for it, so a larger lake
   has its catalog in PostgreSQL, and beyond that the warehouse is BigQuery (`MIRROR_WAREHOUSE`).
7. **BigQuery's quotas.** 1,500 loads per table and day, 100,000 per project and day, 10,000
   partitions per table (27 years of days): none is near.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
