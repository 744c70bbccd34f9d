"""``mirror demo``: a sample vendor, a full mirror of today, a summary; all below .mirror."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import click

from mirror_assets.mirroring import refresh as refreshes
from mirror_assets.mirroring import status
from mirror_assets.mirroring.landing import private_file, private_folder
from mirror_assets.mirroring.sources import open_source
from mirror_assets.sample import elation
from mirror_assets.sample.servers import MariaDB
from mirror_assets.settings import HOME, Settings

_SERVERS = HOME / "servers"
_DAGSTER_HOME = HOME / "dagster"
_LOG = HOME / "demo.log"
_SEED = 2021
_DONE = re.compile(r"ASSET_CHECK_EVALUATION - Asset check '\w+' on '([^']+)' (\w+)")


@click.group(invoke_without_command=True)
@click.option("--scale", default=1.0, show_default=True, help="1 is about 485,000 rows.")
@click.pass_context
def demo(context: click.Context, scale: float) -> None:
    """Mirror a sample database of a sample vendor."""
    if context.invoked_subcommand is not None:
        return
    began = time.monotonic()
    server = _vendor(scale)
    day = _refresh_day(Settings.from_env())
    click.echo(f"3/4  mirroring elation for {day} (log: {_LOG})")
    code = _materialize(day)
    click.echo("4/4  summary")
    _summary(day, time.monotonic() - began)
    click.echo(
        f"The sample vendor listens on 127.0.0.1:{server.port}; `make clean` removes it all."
    )
    sys.exit(code)


@demo.command()
@click.option("--mode", type=click.Choice(["whole", "half", "alter"]), default="whole")
@click.option("--scale", default=1.0, show_default=True, help="As the demo was made.")
def refresh(mode: str, scale: float) -> None:
    """Let the sample vendor rebuild its database: whole, stop half-way, or alter one table."""
    server = MariaDB.start(_SERVERS / "mariadb")
    elation.refresh(
        server,
        scale=scale,
        seed=_SEED,
        mode=mode,  # type: ignore[arg-type]
        mutation=int(time.time()) % 1000 + 1,
    )
    click.echo(f"the vendor's refresh is done ({mode})")


@demo.command()
def stop() -> None:
    """Stop the sample vendor and delete its files."""
    for folder in sorted(_SERVERS.glob("*")) if _SERVERS.exists() else []:
        MariaDB(folder).remove()
    click.echo("the sample servers are gone")


@demo.command()
def start() -> None:
    """Start the sample vendor again, as it was left."""
    server = MariaDB.start(_SERVERS / "mariadb")
    _write_url(server)
    click.echo(f"the sample vendor listens on 127.0.0.1:{server.port}")


def _vendor(scale: float) -> MariaDB:
    """The sample vendor's server, with a database rebuilt today."""
    click.echo("1/4  starting the sample vendor (a private MariaDB)")
    server = MariaDB.start(_SERVERS / "mariadb")
    built = _built_on(server)
    if built is None:
        click.echo("2/4  building the sample database")
        elation.create(server, scale=scale, seed=_SEED)
    elif built < datetime.now(UTC).date():
        click.echo(f"2/4  the sample database is of {built}: the vendor refreshes it")
        elation.refresh(server, scale=scale, seed=_SEED, mutation=built.toordinal() % 1000)
    else:
        click.echo("2/4  the sample database is of today already")
    _write_url(server)
    return server


def _built_on(server: MariaDB) -> date | None:
    with closing(server.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute(
            "SELECT min(CREATE_TIME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'elation'"
        )
        row = cursor.fetchone()
    created = row[0] if row else None
    return created.date() if created else None


def _write_url(server: MariaDB) -> None:
    path = private_folder(HOME.absolute() / "secrets") / "elation.url"
    path.unlink(missing_ok=True)
    with private_file(path) as file:
        file.write(server.url("elation").encode())
    path.chmod(0o400)


def _refresh_day(settings: Settings) -> date:
    """Wait until the vendor's refresh has settled, and tell its day."""
    spec = settings.database("elation")
    source = open_source(spec, settings.database_url("elation"))
    while True:
        state = refreshes.current(spec, source.states(), datetime.now(UTC))
        if state.day is not None:
            return state.day
        click.echo(f"     {state.reason}")
        time.sleep(2)


def _environment() -> Mapping[str, str]:
    home = private_folder(_DAGSTER_HOME.absolute())
    shutil.copyfile("dagster.yaml", home / "dagster.yaml")
    return {**os.environ, "DAGSTER_HOME": str(home)}


def _materialize(day: date) -> int:
    """Run the README's own command, and show each table as it is done."""
    command = ["dagster", "asset", "materialize", "--select", "group:elation"]
    command += ["--partition", day.isoformat(), "-m", "mirror_assets.definitions"]
    executable = Path(sys.executable).with_name(command[0])
    with subprocess.Popen(
        [executable, *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
    ) as process:
        for number, (table, verdict) in enumerate(_progress(process), start=1):
            click.echo(f"\r     {number:3} tables, {table} {verdict:<30}", nl=not _is_terminal())
    click.echo("")
    return process.returncode


def _progress(process: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    with _LOG.open("w", encoding="utf-8") as log:
        for line in process.stdout or ():
            log.write(line)
            if match := _DONE.search(line):
                yield match[1], match[2].rstrip(".")


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _summary(day: date, seconds: float) -> None:
    settings = Settings.from_env()
    warehouse = settings.warehouse()
    spec = settings.database("elation")
    newest = next(d for d in status.days(warehouse, spec, 10) if d.partition == day)
    click.echo(f"     tables         {newest.published} of {newest.expected}")
    click.echo(f"     rows at source {newest.source_rows:,}")
    click.echo(f"     loaded         {newest.loaded:,}")
    click.echo(f"     rejected       {newest.rejected:,}")
    click.echo(f"     coverage       {newest.coverage} %")
    copying = status.seconds(warehouse, spec, day)
    click.echo(f"     seconds        {seconds:.1f} in all, {copying:.1f} copying and loading")
    for table, column, kind, count, _error in status.error_summary(warehouse, spec, day).rows:
        click.echo(f"       {table}.{column}: {count} x {kind}")
    warehouse.close()
    click.echo("Look next:")
    click.echo("  make ui                                   the graph, partitions, checks, sensors")
    click.echo("  .venv/bin/mirror status                   is it complete?")
    click.echo(f"  .venv/bin/mirror errors elation --partition {day}   which rows, and why?")
    click.echo('  .venv/bin/mirror sql "SELECT count(*) FROM elation_mirror.visit_note_latest"')
    click.echo("  .venv/bin/mirror demo refresh             the vendor's next refresh")
