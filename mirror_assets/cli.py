"""``mirror ..``: what people ask and do outside the Dagster UI."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, get_args

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mirror_assets import configuration, surroundings
from mirror_assets import demo as sample_demo
from mirror_assets.mirroring import catalog
from mirror_assets.mirroring import discover as discovery
from mirror_assets.mirroring import doctor as examination
from mirror_assets.mirroring import lifecycle as expiry
from mirror_assets.mirroring import status as state
from mirror_assets.mirroring.catalog import DatabaseSpec, Tls
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.proof.verify import AGAINST, Against, TableProof, verifier
from mirror_assets.mirroring.scratch import remove_scratch
from mirror_assets.mirroring.warehouses import Warehouse
from mirror_assets.mirroring.warehouses.base import Rows
from mirror_assets.settings import Settings, backups, reading
from mirror_assets.settings.connections import address
from mirror_assets.shell import open_shell

_NAMED = 100  # rows that are named one by one
_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


class _Group(click.Group):
    """Our own errors end a command with their sentence and exit code 1, without a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MirrorError as error:
            raise click.ClickException(error.sentence) from None


@click.group(cls=_Group)
def main() -> None:
    """Operational databases as truthful daily partitions."""


@main.command()
@click.option("--days", default=3, show_default=True, help="How many of the newest days.")
def status(days: int) -> None:
    """Is last night's mirror complete? Exits 1 when a database's newest day is not."""
    settings, warehouse = _open()
    table = Table(
        "database", "day", "tables", "source rows", "loaded", "rejected", "coverage %", ""
    )
    incomplete, mirrored = [], False
    for spec in settings.databases():
        shown = state.days(warehouse, spec, days)
        mirrored = mirrored or bool(shown)
        if not shown:
            table.add_row(spec.name, "-", f"0/{len(spec.tables)}", "", "", "", "", "never mirrored")
        for day in shown:
            verdict = "[green]complete[/]" if day.complete else f"[red]misses {day.missing}[/]"
            table.add_row(
                day.database,
                str(day.partition),
                f"{day.published}/{day.expected}",
                f"{day.source_rows:,}",
                f"{day.loaded:,}",
                f"{day.rejected:,}",
                "-" if day.coverage is None else f"{day.coverage:.4f}",
                verdict,
            )
        if shown and not shown[0].complete:
            incomplete.append((spec, shown[0].partition))
    if not mirrored:
        raise click.ClickException(
            "nothing has been mirrored yet. Next: materialize a partition first, or run `make demo`"
        )
    _console().print(table)
    for spec, day_ in incomplete:
        click.echo(f"\n{spec.name} {day_}:")
        _print(state.failures(warehouse, spec, day_), csv=False)
        click.echo("Press: in the Dagster UI open the run, then Re-execute > From asset failure.")
    sys.exit(1 if incomplete else 0)


@main.command()
@click.argument("database")
@click.option("--partition", "text", help="UTC day; today when not given.")
@click.option("--table", help="Only this table, row by row.")
@click.option("--limit", default=50, show_default=True, help="Rejected rows to list.")
@click.option("--csv", is_flag=True, help="As CSV.")
def errors(database: str, text: str | None, table: str | None, limit: int, csv: bool) -> None:
    """Which rows are missing from a day, and why."""
    settings, warehouse = _open()
    spec, day = settings.database(database), _day(text)
    if not csv and table is None:
        _print(state.error_summary(warehouse, spec, day), csv=False)
    _print(state.error_rows(warehouse, spec, day, table=table, limit=limit), csv=csv)


@main.command()
@click.argument("database")
@click.option("--partition", "text", help="UTC day; today when not given.")
@click.option("--table", "names", multiple=True, help="Only this table; may be repeated.")
@click.option(
    "--against",
    type=click.Choice(AGAINST),
    default="auto",
    show_default=True,
    help="What to compare with; auto takes the first that still holds the same state.",
)
def verify(database: str, text: str | None, names: tuple[str, ...], against: Against) -> None:
    """Prove a day cell by cell; 1 when anything differs. Keys of differing rows are printed."""
    settings, warehouse = _open()
    spec, day = settings.database(database), _day(text)
    chosen = [spec.table(name) for name in names] or list(spec.tables)
    shown = Table("table", "against", "rows there", "in warehouse", "rejected", "verdict")
    different = []
    with verifier(
        spec,
        lambda: reading.source(settings, spec),
        settings.landing(),
        warehouse,
        partition=day,
        against=against,
    ) as proving:
        for number, proof in enumerate(proving.verify(chosen), start=1):
            if sys.stderr.isatty():
                click.echo(f"{number} of {len(chosen)}: {proof.table}", err=True)
            verdict = "[green]equal[/]" if proof.proven else f"[red]{escape(proof.faults[0])}[/]"
            counts = (proof.reference_rows, proof.held_rows, proof.rejected)
            shown.add_row(
                escape(proof.table), proof.against or "-", *(f"{n:,}" for n in counts), verdict
            )
            if not proof.proven:
                different.append(proof)
    _console().print(shown)
    for proof in different:
        _name_differences(proof)
    click.echo(f"{len(chosen) - len(different)} of {len(chosen)} tables of {day} are proven")
    sys.exit(1 if different else 0)


def _name_differences(proof: TableProof) -> None:
    click.echo(f"\n{proof.table}:")
    for fault in proof.faults:
        click.echo(f"  {fault}")
    for row in proof.named[:_NAMED]:
        place = f": {', '.join(row.columns)}" if row.columns else ""
        click.echo(f"    {row.how} {row.key}{place}")
    if len(proof.named) > _NAMED:
        click.echo(f"    and {len(proof.named) - _NAMED} more")


@main.command()
@click.argument("statement")
@click.option("--csv", is_flag=True, help="As CSV, all rows.")
@click.option("--limit", default=200, show_default=True, help="Rows to show as a table.")
def sql(statement: str, csv: bool, limit: int) -> None:
    """Run a read-only query in the warehouse."""
    _settings, warehouse = _open()
    _print(warehouse.query(statement, limit=None if csv else limit, native=True), csv=csv)


@main.command()
@click.argument("database")
@click.option("--url", help="SQLAlchemy URL without password; else <NAME>_DATABASE_URL.")
@click.option("--schema", help="Schema, when it is not the URL's or `public`.")
@click.option(
    "--tls", type=click.Choice(get_args(Tls)), help="Not `verify`: the catalog will say so."
)
@click.option("--write", is_flag=True, help="Write the catalog file, instead of printing it.")
@click.option(
    "--check", is_flag=True, help="Compare the catalog with the database; 1 if they differ."
)
@click.option("--inventory", is_flag=True, help="Remember its tables, for `tables: all`.")
def discover(
    database: str,
    url: str | None,
    schema: str | None,
    tls: Tls | None,
    write: bool,
    check: bool,
    inventory: bool,
) -> None:
    """Propose a catalog for a database, or check the one there is."""
    settings, warehouse = _open()
    if url is not None:
        discovery.refuse_password(url)
        url = settings.with_password(database, url)
    at = address(settings, database, url)
    if check:
        found = discovery.differences(settings.database(database), at, warehouse)
        for sentence in found:
            click.echo(sentence)
        click.echo(f"{len(found)} differences")
        sys.exit(1 if found else 0)
    proposal = discovery.discover(database, at, schema, tls)
    if inventory:
        settings.landing().save_inventory(database, [table.name for table in proposal.tables])
        click.echo(f"{len(proposal.tables)} tables remembered for `tables: all`")
        return
    _describe(proposal)
    if write:
        _write_catalog(settings, proposal)
    else:
        click.echo(discovery.to_yaml(proposal))


def _describe(proposal: discovery.Discovery) -> None:
    table = Table("table", "MB", "columns", "primary key", "to choose")
    for found in proposal.tables:
        choices = found.problem or "; ".join(found.refused.values())
        key = ", ".join(found.primary_key) or "none"
        table.add_row(
            escape(found.name), str(found.size_mb), str(found.columns), escape(key), escape(choices)
        )
    _console(sys.stderr).print(table)


def _write_catalog(settings: Settings, proposal: discovery.Discovery) -> None:
    path = settings.new_catalogs / f"{proposal.database}.catalog.yaml"
    if path.exists():
        raise click.ClickException(f"{path} exists. Next: edit it, or compare it with --check")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(discovery.to_yaml(proposal), encoding="utf-8")
    catalog.load(path)
    name = proposal.database
    click.echo(f"wrote {path}: {len(proposal.tables)} tables, {proposal.chunk_size} per chunk")
    click.echo(
        f"Next: set {name.upper()}_DATABASE_URL (or .._FILE), then\n"
        f"  dagster asset materialize --select 'group:{name}' --partition <day>"
        " -m mirror_assets.definitions"
    )


@main.command()
def doctor() -> None:
    """Look at everything the mirrors need. Exits 1 when something is broken."""
    settings, faults = configuration.check()
    warehouse, unopened = _openable(settings)
    told = {str(error): error for error in (*faults, *unopened)}.values()
    wrong = [examination.Finding.of("fail", error.where or "settings", error) for error in told]
    databases: tuple[DatabaseSpec, ...] = ()
    with suppress(MirrorError):  # told already
        databases = settings.databases()
    findings = examination.examine(
        databases,
        landing=settings.landing(),
        warehouse=warehouse,
        lake=settings.lake,
        documents=settings.documents_url,
        address_of=lambda spec: address(settings, spec.name).at_once,
        source_of=lambda spec: reading.source(settings, spec, at_once=True),
        provider_of=lambda spec: backups.provider(settings, spec),
    )
    shown = Table("", "looked at", "found", "next", box=None, pad_edge=False)
    verdicts = set()
    for finding in chain(wrong, findings, surroundings.examine(settings)):
        cells = (finding.subject, finding.found, finding.next)
        shown.add_row(_MARKS[finding.verdict], *map(escape, cells))
        verdicts.add(finding.verdict)
    _console().print(shown)
    sys.exit(1 if "fail" in verdicts else 0)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dbt(arguments: tuple[str, ...]) -> None:
    """Run dbt on the models, as `dbt ARGUMENTS`, in the writers' turn.

    Its output may quote rows.
    """
    from mirror_assets.orchestration import dbt_sources  # here: imports Dagster

    settings, warehouse = _open()
    program = str(Path(sys.executable).with_name("dbt"))
    variables = {**os.environ, **dbt_sources.environment(settings)}
    with warehouse.exclusive():
        ended = subprocess.run(  # noqa: S603 - dbt's own arguments, typed by a person
            [program, *arguments], cwd=dbt_sources.PROJECT, env=variables, check=False
        )
    sys.exit(ended.returncode)


@main.command()
@click.argument("database")
def shell(database: str) -> None:
    """Open a read-only client of a source, through its tunnel where it has one."""
    settings = Settings.from_env()
    spec, at = settings.database(database), address(settings, database).at_once
    folder = settings.new_scratch()
    try:
        code = open_shell(spec, at, folder)
    finally:
        remove_scratch(folder)
    sys.exit(code)


@main.command()
def lifecycle() -> None:
    """Have Cloud Storage delete exports after the days that the catalogs keep them."""
    settings = Settings.from_env()
    files, days = settings.landing().files, expiry.days_of(settings.databases())
    if files.local:
        raise click.ClickException("the landing zone is a folder. Next: `mirror upkeep` expires it")
    if days is None:
        raise click.ClickException(
            "a catalog keeps exports for ever. Next: state its `retention.landing_days`"
        )
    others = {"the lake": settings.lake, "the documents": settings.documents_url}
    changed = expiry.set_rule(files, others, days)
    click.echo(f"{files.root}: {'now' if changed else 'already'} deleted after {days} days")


@main.command()
def upkeep() -> None:
    """Expire exports, partitions, snapshots and derived data by retention."""
    from mirror_assets.orchestration.upkeep import run_upkeep  # here: imports Dagster

    settings, warehouse = _open()
    done = run_upkeep(settings, warehouse, datetime.now(UTC))
    for name, count in done.items():
        click.echo(f"{count:6} {name.replace('_', ' ')}")


main.add_command(sample_demo.demo)


def _open() -> tuple[Settings, Warehouse]:
    settings = Settings.from_env()
    return settings, _opened(settings)


def _opened(settings: Settings) -> Warehouse:
    warehouse = settings.warehouse()
    click.get_current_context().call_on_close(warehouse.close)
    return warehouse


def _openable(settings: Settings) -> tuple[Warehouse | None, list[MirrorError]]:
    """The warehouse, or why it cannot be opened."""
    try:
        return _opened(settings), []
    except MirrorError as error:
        return None, [error]


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a day such as 2026-11-22") from None


def _print(rows: Rows, *, csv: bool) -> None:
    """Off the row path, and the one place that uses pandas: it renders any type as text."""
    import pandas as pd  # imported here because it takes half a second

    frame = pd.DataFrame(rows.rows, columns=list(rows.columns), dtype=object)
    if csv:
        click.echo(frame.to_csv(index=False), nl=False)
        return
    table = Table(*(escape(name) for name in rows.columns))
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False):
        table.add_row(*(escape(str(value)) for value in row))
    _console().print(table)


def _console(file: IO[str] | None = None) -> Console:
    stream = file or sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False)
