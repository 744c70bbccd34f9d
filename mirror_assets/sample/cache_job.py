"""The demo's stand-in for Commons' own job: members' encounter documents into the cache table.

``python -m mirror_assets.sample.cache_job --documents <folder or URL> --url-file <file>``

It prints counts and nothing else. Like the real one it can lie: ``--lie`` makes it exit with 3
although all went well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import fsspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert

OBJECT_NAME = "encounters.v3.json"
LIE = 3
_NOW = sa.text("now()")
_EVERY = 100

_METADATA = sa.MetaData()
CACHE = sa.Table(
    "ccd_encounter_cache",
    _METADATA,
    sa.Column("patientId", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("encounterType", sa.Text, primary_key=True),
    sa.Column("encounterId", sa.Text, primary_key=True),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("createdAt", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updatedAt", sa.TIMESTAMP(timezone=True), nullable=False, server_default=_NOW),
)


def fill(documents: str, url: str, object_name: str = OBJECT_NAME) -> tuple[int, int]:
    """Cache every member's encounters, a transaction per document; cached and failed counts.

    A second run updates the same rows.
    """
    files, paths = _find(documents, object_name)
    engine = sa.create_engine(url, hide_parameters=True)
    _METADATA.create_all(engine)
    cached = failed = 0
    for number, path in enumerate(paths, start=1):
        try:
            rows = list(_rows(path, json.loads(files.cat_file(path))))
        except (ValueError, KeyError, TypeError, AttributeError):
            failed += 1
        else:
            cached += _upsert(engine, rows)
        if number % _EVERY == 0 or number == len(paths):
            click.echo(f"read {number} of {len(paths)} documents")
    engine.dispose()
    return cached, failed


def _find(documents: str, object_name: str) -> tuple[Any, list[str]]:
    """The file system, and the members' documents in it: ``<member>/aggregated_data/<name>``."""
    files, root = fsspec.core.url_to_fs(documents)
    return files, sorted(files.glob(f"{root.rstrip('/')}/*/aggregated_data/{object_name}"))


def _rows(path: str, encounters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    member = path.split("/")[-3]
    for position, entry in enumerate(encounters):
        first: dict[str, Any] = next(iter(entry["encounter"]["identifiers"]), {})
        yield {
            "patientId": member,
            "source": entry["patient"]["source"]["name"],
            "encounterType": first.get("idType") or "",
            "encounterId": str(first.get("id") or f"#{position}"),
            "body": entry,
        }


def _upsert(engine: sa.Engine, rows: list[dict[str, Any]]) -> int:
    """One statement cannot write a row twice, so of equal keys the last is kept."""
    keys = [column.name for column in CACHE.primary_key]
    unique = {tuple(row[key] for key in keys): row for row in rows}
    if not unique:
        return 0
    statement = insert(CACHE).values(list(unique.values()))
    changed = {"body": statement.excluded.body, "updatedAt": _NOW}
    with engine.begin() as connection:
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))
    return len(unique)


@click.command()
@click.option("--documents", required=True, help="folder or URL above the members' folders")
@click.option("--url", envvar="COMMONS_DATABASE_URL", help="PostgreSQL to fill (SQLAlchemy)")
@click.option(
    "--url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="file that holds the URL, so that no list of processes shows its password",
)
@click.option("--object-name", default=OBJECT_NAME, show_default=True)
@click.option("--lie", is_flag=True, help=f"exit with {LIE} although all went well")
def main(
    documents: str, url: str | None, url_file: Path | None, object_name: str, lie: bool
) -> None:
    """Cache the members' encounters in ccd_encounter_cache."""
    place = url_file.read_text(encoding="utf-8").strip() if url_file else url
    if not place:
        raise click.UsageError("name the database by --url-file or --url")
    try:
        cached, failed = fill(documents, place, object_name)
    except (OSError, sa.exc.SQLAlchemyError) as error:
        click.echo(f"the cache job failed: {type(error).__name__}", err=True)
        sys.exit(1)
    click.echo(f"cached {cached} encounters")
    if failed:
        click.echo(f"failed {failed} documents")
    sys.exit(1 if failed else LIE if lie else 0)


if __name__ == "__main__":
    main()
