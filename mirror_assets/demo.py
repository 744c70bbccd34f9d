"""``mirror demo``: sample databases, a full mirror of today and all that hangs off it, a summary.

Everything is below .mirror.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mirror_assets.mirroring import refresh as refreshes
from mirror_assets.mirroring import status
from mirror_assets.mirroring.sources import open_source
from mirror_assets.mirroring.storage import private_file, private_folder
from mirror_assets.sample import commons, elation, member_index, quality_measure
from mirror_assets.sample.servers import ADMIN, MariaDB, PostgreSQL
from mirror_assets.sample.services import MeasureService
from mirror_assets.settings import HOME, Settings
from mirror_assets.settings.connections import address

if TYPE_CHECKING:
    import dagster as dg

    from mirror_assets.orchestration.ticks import Ticks

_SERVERS = HOME / "servers"
_CATALOGS = HOME / "catalogs"
_DAGSTER_HOME = HOME / "dagster"
_LOG = HOME / "demo.log"
_SEED = 2021
_DONE = re.compile(r"ASSET_CHECK_EVALUATION - Asset check 'row_count_coverage' on '([^']+)' (\w+)")
_MADE = re.compile(r"ASSET_MATERIALIZATION - Materialized value ([^.]+)\.")
#: The demo's stand-in for Commons' own job, and no summaries of another EHR to wait for.
_CACHE_JOB = {
    "MIRROR_CACHE_JOB_COMMAND": f"{sys.executable} -m mirror_assets.sample.cache_job"
    f" --documents {HOME}/documents --url-file {HOME}/secrets/cache_job.url",
    "MIRROR_CACHE_JOB_WAIT_MINUTES": "0",
}


@dataclass(frozen=True)
class Living:
    """A sample application database on the private PostgreSQL."""

    name: str
    create: Callable[..., None]
    change: Callable[..., None]


LIVING = (
    Living("commons", commons.create, commons.change),
    Living("member_index", member_index.create, member_index.change),
    Living("quality_measure", quality_measure.create, quality_measure.change),
)
DATABASES = ("elation", *(living.name for living in LIVING))


@click.group(invoke_without_command=True)
@click.option("--scale", default=1.0, show_default=True, help="1 is about a million rows.")
@click.pass_context
def demo(context: click.Context, scale: float) -> None:
    """Mirror the databases of a sample vendor and two sample applications."""
    if context.invoked_subcommand is not None:
        return
    began = time.monotonic()
    click.echo("1/5  starting private servers (MariaDB, PostgreSQL, a measure service)")
    _start()
    click.echo("2/5  sample databases")
    _build(scale)
    days = _days(Settings.from_env())
    os.environ.update(_environment())
    ticks = _ticks()
    _LOG.unlink(missing_ok=True)
    code = 0
    for day, names in groupby(sorted(days, key=lambda name: days[name]), key=lambda n: days[n]):
        chosen = list(names)
        click.echo(f"3/5  mirroring {', '.join(chosen)} for {day} (log: {_LOG})")
        groups = " or ".join(f"group:{name}" for name in chosen)
        code = max(code, _materialize(str(day), groups, _DONE))
    click.echo("4/5  downstream, as automation launches it")
    code = max(code, not ticks.run(_launch))
    click.echo("5/5  summary")
    _summary(days, time.monotonic() - began)
    sys.exit(code)


@demo.command()
@click.option("--mode", type=click.Choice(["whole", "half", "alter"]), default="whole")
@click.option("--scale", default=1.0, show_default=True, help="As the demo was made.")
def refresh(mode: str, scale: float) -> None:
    """Let the sample vendor rebuild its database: whole, stop half-way, or alter one table."""
    elation.refresh(
        MariaDB.start(_SERVERS / "mariadb"),
        scale=scale,
        seed=_SEED,
        mode=mode,  # type: ignore[arg-type]
        mutation=_mutation(),
    )
    click.echo(f"the vendor's refresh is done ({mode})")


@demo.command()
@click.option("--scale", default=1.0, show_default=True, help="As the demo was made.")
def change(scale: float) -> None:
    """Let people work in the sample applications for half a day."""
    server = PostgreSQL.start(_SERVERS / "postgresql")
    for living in LIVING:
        living.change(server, scale=scale, seed=_SEED, mutation=_mutation())
        click.echo(f"changed {living.name}")


@demo.command()
def environment() -> None:
    """Print what configures the demo's runs, for a shell to evaluate."""
    for name, value in _CACHE_JOB.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@demo.command()
def start() -> None:
    """Start the sample servers again, as they were left."""
    mariadb, postgresql = _start()
    if _exists(postgresql, "quality_measure"):
        _start_service(postgresql)
    click.echo(f"MariaDB on 127.0.0.1:{mariadb.port}, PostgreSQL on 127.0.0.1:{postgresql.port}")


@demo.command()
def stop() -> None:
    """Stop the sample servers and delete their files."""
    MeasureService(_SERVERS / "measures").remove()
    for kind, folder in ((MariaDB, "mariadb"), (PostgreSQL, "postgresql")):
        if (_SERVERS / folder).exists():
            kind(_SERVERS / folder).remove()
    click.echo("the sample servers are gone")


def _start() -> tuple[MariaDB, PostgreSQL]:
    """Both servers, with URL files and catalogs where the settings look by default."""
    try:
        servers = MariaDB.start(_SERVERS / "mariadb"), PostgreSQL.start(_SERVERS / "postgresql")
    except RuntimeError as error:  # says which program is missing, or what it printed
        raise click.ClickException(f"a private server did not start: {error}") from None
    private_folder(_CATALOGS.absolute())
    for path in (Path(__file__).parent / "sample" / "catalogs").glob("*.catalog.yaml"):
        shutil.copyfile(path, _CATALOGS / path.name)
    return servers


def _build(scale: float) -> None:
    """Sample databases that are missing; the vendor's is rebuilt when it is not of today."""
    mariadb, postgresql = _start()
    built = _built_on(mariadb)
    if built is None:
        click.echo("     elation: building")
        elation.create(mariadb, scale=scale, seed=_SEED)
    elif built < datetime.now(UTC).date():
        click.echo(f"     elation: of {built}, the vendor refreshes it")
        elation.refresh(mariadb, scale=scale, seed=_SEED, mutation=built.toordinal() % 1000)
    else:
        click.echo("     elation: of today already")
    _write_secret("elation.url", mariadb.url("elation"))
    for living in LIVING:
        if _exists(postgresql, living.name):
            click.echo(f"     {living.name}: there already")
        else:
            click.echo(f"     {living.name}: building")
            living.create(postgresql, scale=scale, seed=_SEED)
        _write_secret(f"{living.name}.url", postgresql.url(living.name))
    _write_secret("cache_job.url", postgresql.url("commons", ADMIN))
    _start_service(postgresql)


def _start_service(server: PostgreSQL) -> None:
    """The service that measures are posted to, with its address and key where settings look."""
    try:
        service = MeasureService(_SERVERS / "measures").start(server.url("quality_measure", ADMIN))
    except RuntimeError as error:
        raise click.ClickException(str(error)) from None
    _write_secret("measures.url", service.url)
    _write_secret("measures.key", service.key)


def _built_on(server: MariaDB) -> date | None:
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(
            "SELECT min(CREATE_TIME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'elation'"
        )
        row = cursor.fetchone()
    created = row[0] if row else None
    return created.date() if created else None


def _exists(server: PostgreSQL, database: str) -> bool:
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
        return cursor.fetchone() is not None


def _write_secret(name: str, text: str) -> None:
    path = private_folder(HOME.absolute() / "secrets") / name
    path.unlink(missing_ok=True)
    with private_file(path) as file:
        file.write(text.encode())
    path.chmod(0o400)


def _days(settings: Settings) -> dict[str, date]:
    """The day that each database holds; waits until the vendor's refresh has settled."""
    spec = settings.database("elation")
    source = open_source(spec, address(settings, "elation"))
    while (state := refreshes.current(spec, source.states(), datetime.now(UTC))).day is None:
        click.echo(f"     {state.reason}")
        time.sleep(2)
    today = datetime.now(UTC).date()
    return {"elation": state.day, **{living.name: today for living in LIVING}}


def _environment() -> Mapping[str, str]:
    home = private_folder(_DAGSTER_HOME.absolute())
    shutil.copyfile("dagster.yaml", home / "dagster.yaml")
    return {**_CACHE_JOB, **os.environ, "DAGSTER_HOME": str(home)}


def _ticks() -> Ticks:
    """Automation that has looked at the graph before anything lands."""
    import dagster as dg  # here: most commands do without it

    from mirror_assets.definitions import defs
    from mirror_assets.orchestration.ticks import Ticks

    return Ticks(defs, dg.DagsterInstance.get())


def _launch(keys: frozenset[dg.AssetKey], partition: str) -> bool:
    names = sorted(key.to_user_string() for key in keys)
    select = " or ".join(f'key:"{name}"' for name in names)
    return _materialize(partition, select, _MADE) == 0


def _materialize(day: str, select: str, done: re.Pattern[str]) -> int:
    """Run the README's own command, and show each asset as it is done."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", select]
    command += ["--partition", day, "-m", "mirror_assets.definitions"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for number, said in enumerate(_progress(process, done), start=1):
            click.echo(f"\r     {number:3} done, {said:<60}", nl=not _is_terminal())
    click.echo("")
    return process.returncode


def _progress(process: subprocess.Popen[str], done: re.Pattern[str]) -> Iterator[str]:
    with _LOG.open("a", encoding="utf-8") as log:
        for line in process.stdout or ():
            log.write(line)
            if match := done.search(line):
                yield " ".join(match.groups()).rstrip(".")


def _summarize_downstream(days: Collection[date]) -> None:
    """What every downstream asset that was made for these days says of itself."""
    import dagster as dg

    from mirror_assets.definitions import defs
    from mirror_assets.orchestration.dbt_manifest import GROUP as DBT_GROUP

    instance = dg.DagsterInstance.get()
    graph = defs.resolve_asset_graph()
    texts = models = 0
    for key in sorted(graph.get_all_asset_keys()):
        made = _made(instance, key, days)
        if made is None:
            continue
        found = {name: value.value for name, value in made.metadata.items()}
        name = key.path[-1]
        models += graph.get(key).group_name == DBT_GROUP
        if name.endswith("_transformed"):
            texts += int(str(found["dagster/partition_row_count"]))
        elif line := _SENTENCES.get(name):
            click.echo("     " + line.format(**found))
    click.echo(f"     notes with readable text: {texts:,}; dbt models built: {models}")


def _made(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Collection[date]
) -> dg.AssetMaterialization | None:
    """The newest materialization of any of these days."""
    import dagster as dg

    wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=sorted(map(str, days)))
    found = instance.fetch_materializations(wanted, limit=1).records
    return found[0].asset_materialization if found else None


_SENTENCES = {
    "patient_encounters": "encounters: {encounters:,} of {members:,} members,"
    " {notes_without_member:,} notes without a known member;"
    " documents: {documents_written:,} written, {documents_unchanged:,} unchanged",
    "quality_measures": "measures: {members:,} members with {measures:,} measures, {posted:,}"
    " posted, {unchanged:,} unchanged, {refused:,} refused",
    "ccd_encounter_cache": "encounter cache: {rows_appeared:,} of {rows_expected:,} rows appeared",
}


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _mutation() -> int:
    return int(time.time()) % 1000 + 1


def _summary(days: Mapping[str, date], seconds: float) -> None:
    settings = Settings.from_env()
    warehouse = settings.warehouse()
    line = "     {:16} {:>8} {:>12} {:>12} {:>9} {:>11} {:>9}"
    click.echo(
        line.format(
            "database", "tables", "at source", "loaded", "rejected", "coverage %", "seconds"
        )
    )
    for name, day in days.items():
        spec = settings.database(name)
        found = next(d for d in status.days(warehouse, spec, 10) if d.partition == day)
        tables, copying = (
            f"{found.published}/{found.expected}",
            status.seconds(warehouse, spec, day),
        )
        click.echo(
            line.format(
                name,
                tables,
                f"{found.source_rows:,}",
                f"{found.loaded:,}",
                f"{found.rejected:,}",
                f"{found.coverage:.4f}",
                f"{copying:.1f}",
            )
        )
        for table, column, kind, count, _error in status.error_summary(warehouse, spec, day).rows:
            click.echo(f"       {table}.{column}: {count} x {kind}")
    warehouse.close()
    _summarize_downstream(set(days.values()))
    click.echo(f"     {seconds:.1f} seconds in all")
    today = days["elation"]
    click.echo("Look next:")
    click.echo("  make ui                                   the graph, partitions, checks, sensors")
    click.echo("  .venv/bin/mirror status                   is it complete?")
    click.echo(f"  .venv/bin/mirror errors elation --partition {today}   which rows, and why?")
    click.echo('  .venv/bin/mirror sql "SELECT count(*) FROM elation_mirror.visit_note_latest"')
    click.echo("  .venv/bin/mirror demo refresh             the vendor's next refresh")
    click.echo("  make clean                                ends the servers, removes everything")
