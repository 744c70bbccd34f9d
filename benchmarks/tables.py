"""One large table: ours, the floor and other tools, on MySQL and on PostgreSQL."""

import statistics
from typing import Any

from sqlalchemy.engine import make_url

from benchmarks import data
from benchmarks.config import OURS, ROOT, ROWS, SLING, peer
from benchmarks.homes import Home, home
from benchmarks.sections import Section, at_least, at_most, figures
from benchmarks.timing import Case, Taken, in_turns, median, once, ratio

OUT = ROOT / "out"
#: Tools that only write CSV are held against our export, which does the same.
_CSV_ONLY = {"MySQL": ("sling", "pandas"), "PostgreSQL": ("cleaner",)}


def mysql() -> Section:
    database = data.big("mysql", ROWS)
    place = home("mysql", database, [data.BIG])
    with data.mysql_options(ROOT) as options:
        dump = f"mydumper --defaults-file={options} -B {database} -T {data.BIG} -t 1 -k -o {OUT}"
        cases = [
            _case("mydumper, one thread, to files (the floor)", dump.split(), "mysql", place),
            _ours("ours: export to CSV parts", "export", "mysql", place),
            _ours("ours: export, PyMySQL", "export", "mysql", place, "pymysql"),
            _ours("**ours: full mirror**", "mirror", "mysql", place),
        ]
        taken = in_turns(cases)
    floor, exported, _, mirrored = cases
    peers = _peers("mysql", place, {"pandas": "PyMySQL and pandas, 50 MB chunks, to CSV"})
    return _section("MySQL", "mydumper", taken, (floor, exported, mirrored), (2.3, 3.5), peers)


def postgres() -> Section:
    database = data.big("postgresql", ROWS)
    place = home("postgresql", database, [data.BIG])
    url = make_url(place.url)
    copy = f"COPY (SELECT * FROM {data.BIG}) TO STDOUT (FORMAT csv)"
    command = [
        "psql",
        "-X",
        "-q",
        "-h",
        str(url.host),
        "-p",
        str(url.port),
        "-U",
        str(url.username),
    ]
    command += ["-d", database, "-c", copy]
    floor = _case("psql COPY to /dev/null (the floor)", command, "postgresql", place, discard=True)
    floor.env["PGPASSWORD"] = str(url.password)
    cases = [
        floor,
        _ours("ours: export to CSV parts", "export", "postgresql", place),
        _ours("**ours: full mirror**", "mirror", "postgresql", place),
    ]
    peers = _peers("postgresql", place, {"copy_cleaner": "COPY through a per-row CSV cleaner"})
    return _section("PostgreSQL", "psql COPY", in_turns(cases), tuple(cases), (1.1, 2.0), peers)


def _section(
    system: str,
    floor: str,
    taken: dict[str, list[Taken]],
    judged: tuple[Case, ...],
    limits: tuple[float, float],
    peers: list[Case],
) -> Section:
    """Ours beside the floor and the peers; ``judged`` are the floor, our export, our mirror."""
    taken |= {case.name: [once(case)] for case in peers}
    least, exported, mirrored = (taken[case.name] for case in judged)
    slow = [name for name in taken if any(mark in name for mark in _CSV_ONLY[system])]
    return Section(
        f"{system}: {ROWS:,} rows of 11 columns",
        *figures(taken),
        checks=[
            at_most(f"export / {floor}", ratio(exported, least), limits[0]),
            at_most(f"full mirror / {floor}", ratio(mirrored, least), limits[1]),
            *(at_least(f"{name} / our export", _times(taken[name], exported), 5) for name in slow),
        ],
        note=_started(exported, mirrored),
        extra={"spent": _spent(mirrored)},
    )


def _times(other: list[Taken], ours: list[Taken]) -> float:
    return median(other) / median(ours)


def native() -> Section:
    database = data.big("mysql", ROWS)
    place = home("mysql", database, [data.BIG])
    ways = {
        "raw": "(i) mysqlclient, raw values, thrown away",
        "formatted": "(ii) the same, and our formatter in Python",
        "server": "(iii) CSV made by the server, fetched by mysqlclient",
    }
    script = [OURS[0], "-m", "benchmarks.native"]
    cases = [_case(name, [*script, way, data.BIG], "mysql", place) for way, name in ways.items()]
    arrow = [*peer("arrow_parquet"), str(OUT), data.BIG]
    cases.append(_case("(iv) connectorx Arrow stream to Parquet", arrow, "mysql", place))
    taken = in_turns(cases)
    raw, formatted, server, *_rest = taken.values()
    return Section(
        "What a native formatter could give",
        *figures(taken),
        note=f"(ii) less (i) is what formatting in Python costs:"
        f" {median(formatted) - median(raw):.1f} s of wall time. (iii) is what the mirror does: the"
        " server assembles each record, Python touches no value. A native formatter could come"
        f" near (i), so it could save at most {median(server) - median(raw):.1f} s of the export,"
        " and less of the full mirror, where the typed load uses the other core. (iv) parses values"
        " by the client's own rules: it stops at zero dates, and holds no snapshot over several"
        " tables.",
    )


def _peers(kind: str, place: Home, own: dict[str, str]) -> list[Case]:
    """dlt and sling, and a script of the peers' that only one kind of server has."""
    dlt = [*peer("dlt_duckdb"), str(OUT), data.BIG]
    cases = [_case("dlt, connectorx, into DuckDB", dlt, kind, place)]
    if SLING.exists():
        schema = "public" if kind == "postgresql" else make_url(place.url).database
        command = f"{SLING} run --src-conn BENCH --src-stream {schema}.{data.BIG}"
        command += f" --tgt-object file://{OUT}/sling.csv"
        cases.append(_case("sling, to CSV", command.split(), kind, place))
    for script, name in own.items():
        file = "pandas_csv" if script == "pandas" else script
        cases.append(_case(name, [*peer(file), str(OUT), data.BIG], kind, place))
    return cases


def _case(name: str, command: list[str], kind: str, place: Home, *, discard: bool = False) -> Case:
    database = str(make_url(place.url).database)
    plain = data.plain_url(kind, database)
    env = {
        **place.env,
        "BENCH_URL": place.url,
        "BENCH_PLAIN_URL": plain,
        "BENCH": plain.replace("postgresql:", "postgres:") + "?sslmode=disable" * (kind != "mysql"),
        "SLING_DISABLE_TELEMETRY": "TRUE",
        "SLING_HOME_DIR": str(ROOT / "sling"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    return Case(name, command, env, (OUT, place.data), data.server(kind), discard)


def _ours(name: str, mode: str, kind: str, place: Home, driver: str = "auto") -> Case:
    arguments = [mode, place.name, *([driver] if driver != "auto" else [])]
    return _case(name, [*OURS, *arguments], kind, place)


def _started(exported: list[Taken], mirrored: list[Taken]) -> str:
    """How much of our time passes before the first row and after the last."""
    apart = [
        statistics.median(run.wall - run.said["phases"]["export"] for run in runs)
        for runs in (exported, mirrored)
    ]
    return (
        "Of the other tools one run each. Outside of exporting rows ours takes"
        f" {apart[0]:.1f} s, mostly Python's start; the"
        f" full mirror {apart[1]:.1f} s, with the count, the last part's load and the publication."
    )


def _spent(mirrored: list[Taken]) -> dict[str, Any]:
    """Where the time of the middle run went."""
    run = sorted(mirrored, key=lambda taken: taken.wall)[len(mirrored) // 2]
    return {"wall": run.wall, "server": run.server, "cpu": run.cpu, **run.said}
