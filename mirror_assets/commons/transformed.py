"""A day of a mirrored table with its Draft.js column as readable text: ``<table>_transformed``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mirror_assets.commons import draftjs
from mirror_assets.mirroring import control, derived, records
from mirror_assets.mirroring.catalog import TEXT_COLUMN, DatabaseSpec, TableSpec
from mirror_assets.mirroring.control import Row
from mirror_assets.mirroring.derived import Derived
from mirror_assets.mirroring.errors import CoverageTooLow
from mirror_assets.mirroring.inputs import Inputs
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse

#: Broken bodies listed in MIRROR_ERRORS; the others are counted.
LISTED = 10_000
#: Rows whose bodies are Python strings at a time.
_ROWS = 10_000
#: Views dropped at a time, should the catalog's ``shard_views`` be lowered.
_SHARDS_DROPPED = 3


@dataclass
class Texts:
    """What a transform found: rows, the bodies without text by kind, and where those are."""

    rows: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    rejects: list[Row] = field(default_factory=list)


def name_of(table: TableSpec) -> str:
    """The name under which the transformed table is known."""
    return table.text_name


def transform(
    warehouse: Warehouse, spec: DatabaseSpec, table: TableSpec, read: Inputs, run_id: str
) -> Texts:
    """Publish the day's rows with their text.

    A row whose body is broken stays, with the text NULL, and is listed in MIRROR_ERRORS. Beyond
    what the catalog allows (``broken_bodies_allowed``) nothing is published: raises CoverageTooLow
    after recording the errors.
    """
    name, day = name_of(table), read.days[spec.name, table.name]
    now = datetime.now(UTC)
    row = partial(
        control.error_row, table=name, resource="BQ", load_time=now, partition=day, run_id=run_id
    )
    found = Texts()
    allowed = table.allowed_broken_bodies(day)
    with derived.staged(warehouse, spec.dataset, spec.storage_name(name), day) as made:
        with warehouse.batches(f"SELECT * FROM {read.relation(spec.name, table.name)}") as batches:
            _stage(made, batches, table, found, row)
        good = found.broken.total() <= allowed

        def body(tx: Transaction) -> None:
            _record(tx, spec, made, name, found, row, now=now, run_id=run_id, published=good)
            if good:
                made.publish(tx, spec.view_name(name))
                if spec.entry.layout == "sharded":
                    _move_shards(tx, spec, made, name)

        records.commit(warehouse, spec, body)
        made.settled = good
    if not good:
        raise CoverageTooLow(
            f"{found.broken.total()} bodies cannot be read ({_kinds(found)}), {allowed} are"
            " allowed; the views stay as they were",
            where=f"{spec.name}/{name}",
            remedy=f"`mirror errors {spec.name} --partition {day} --table {name}` lists them; have"
            " them mended in Commons, or allow them in the catalog (broken_bodies_allowed)",
        )
    return found


def _stage(made: Derived, batches: Any, table: TableSpec, found: Texts, row: Any) -> None:
    import pyarrow as pa  # here, because it would slow down loading the code location

    assert table.draftjs is not None
    nothing = pa.RecordBatch.from_pylist([], schema=batches.schema)
    schema = draftjs.transform(nothing, table.draftjs)[0].schema
    derived.stage_batches(made, schema, _texts(batches, table, found, row))


def _texts(batches: Any, table: TableSpec, found: Texts, row: Any) -> Iterator[Any]:
    assert table.draftjs is not None
    for batch in _small(batches):
        made, faults = draftjs.transform(batch, table.draftjs)
        keys = [name for name in table.primary_key if name in batch.schema.names]
        for fault in faults:
            found.broken[fault.kind] += 1
            if len(found.rejects) < LISTED:
                key = {name: str(batch.column(name)[fault.index].as_py()) for name in keys}
                found.rejects.append(
                    row(
                        error=f"{table.draftjs}: {fault.sentence}",
                        kind=fault.kind,
                        column=table.draftjs,
                        row_number=found.rows + fault.index + 1,
                        row_key=json.dumps(key, ensure_ascii=False) if key else None,
                    )
                )
        found.rows += batch.num_rows
        yield made


def _small(batches: Any) -> Iterator[Any]:
    for batch in batches:
        for first in range(0, batch.num_rows, _ROWS):
            yield batch.slice(first, _ROWS)


def _move_shards(tx: Transaction, spec: DatabaseSpec, made: Derived, name: str) -> None:
    """One view per day, for the newest days of the catalog's ``shard_views``; by what was
    published, because an empty day has no rows that tell of it.
    """
    where = (spec.dataset, control.METADATA.name, ("partition",))
    published = tx.select(*where, TABLE_NAME=name, published=True)
    days = sorted({row["partition"] for row in published}, reverse=True)
    first = spec.entry.shard_views
    if made.day in days[:first]:
        tx.latest_view(spec.dataset, spec.shard_name(name, made.day), made.table, made.day)
    for old in days[first : first + _SHARDS_DROPPED]:
        tx.drop_view(spec.dataset, spec.shard_name(name, old))


def _record(
    tx: Transaction,
    spec: DatabaseSpec,
    made: Derived,
    name: str,
    found: Texts,
    row: Any,
    *,
    now: datetime,
    run_id: str,
    published: bool,
) -> None:
    """Control rows beside those of the mirrored tables, so that the same questions find them."""
    broken = found.broken.total()
    rows = list(found.rejects)
    if broken > len(rows):
        rows.append(row(error=f"{broken - len(rows)} more bodies are broken", kind="unlisted"))
    if not published:
        rows.append(row(error=f"{broken} bodies cannot be read", kind=CoverageTooLow.kind))
    attempt = {
        "TABLE_NAME": name,
        "DB_TIMEZONE": "UTC",
        "TABLE_SIZE_MB": 0,
        "TABLE_ROWS": found.rows,
        "BQ_LOAD_TIME": now,
        "BQ_PARTITION": f"{made.day:%Y%m%d}",
        "partition": made.day,
        "run_id": run_id,
        "published": published,
        "loaded_rows": found.rows if published else 0,
        "rejected_rows": 0,
        "zero_dates_nulled": 0,
        "misfits_nulled": broken,
        "misfit_columns": json.dumps({TEXT_COLUMN: broken}) if broken else None,
        "seconds": round((datetime.now(UTC) - now).total_seconds(), 3),
        "bytes": made.bytes,
        "recorded_at": now,
        "yielded": False,
    }
    same = {"partition": made.day, "run_id": run_id}
    tx.replace_rows(spec.dataset, control.METADATA.name, [attempt], TABLE_NAME=name, **same)
    tx.replace_rows(spec.dataset, control.ERRORS.name, rows, table=name, **same)


def _kinds(found: Texts) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(found.broken.items()))
