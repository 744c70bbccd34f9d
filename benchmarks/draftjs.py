"""Notes to Markdown: what the texts cost beyond reading and writing the same batches.

``python -m benchmarks.draftjs`` measures; with ``copy`` or ``texts`` it is the process measured.
"""

import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.config import ROOT
from benchmarks.sections import Section, at_most, figures
from benchmarks.timing import Case, in_turns, median
from mirror_assets.commons.draftjs import BODY_COLUMN, transform
from mirror_assets.mirroring.catalog import TEXT_COLUMN
from mirror_assets.sample import commons

NOTES = int(os.environ.get("BENCH_NOTES", 200_000))
_BATCH_ROWS = 10_000
_SECONDS = 60
_SOURCE = ROOT / f"notes_{NOTES}.parquet"
_OUT = ROOT / "notes_out"


def notes() -> Section:
    """The sample's notes of every kind, one process, against copying them."""
    distinct, size = _prepare()
    command = [sys.executable, "-m", "benchmarks.draftjs"]
    floor = Case("read and write the same batches (the floor)", [*command, "copy"], output=[_OUT])
    ours = Case("ours: with the texts", [*command, "texts"], output=[_OUT])
    taken = in_turns([floor, ours])
    said = taken[ours.name][-1].said
    return Section(
        f"{NOTES:,} Draft.js notes to Markdown",
        *figures(taken),
        note=f"{distinct:,} different bodies of {size:,.0f} bytes on average;"
        f" {said['faults']:,} broken ones have no text.",
        checks=[at_most("whole process", median(taken[ours.name]), _SECONDS, "s")],
    )


def _prepare() -> tuple[int, float]:
    """Write the notes once; the number of different bodies, and their mean size."""
    if not _SOURCE.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        _write_notes(_SOURCE.with_suffix(".partial"))
        _SOURCE.with_suffix(".partial").rename(_SOURCE)
    bodies = [body for body in pq.read_table(_SOURCE)[BODY_COLUMN].to_pylist() if body]
    return len(set(bodies)), sum(len(body.encode()) for body in bodies) / len(bodies)


def _write_notes(path: Path) -> None:
    row = commons.sample().row
    column = next(n for n, cell in enumerate(row("note", 0)) if str(cell).startswith("{"))
    schema = pa.schema({"id": pa.int64(), BODY_COLUMN: pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, NOTES, _BATCH_ROWS):
            ids = list(range(first, min(first + _BATCH_ROWS, NOTES)))
            columns = [ids, [row("note", i)[column] for i in ids]]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _run(with_texts: bool) -> None:
    schema = pa.schema({"id": pa.int64(), BODY_COLUMN: pa.string()})
    if with_texts:
        schema = schema.append(pa.field(TEXT_COLUMN, pa.string()))
    faulty = 0
    with pq.ParquetWriter(_OUT / "notes.parquet", schema) as writer:
        for batch in pq.ParquetFile(_SOURCE).iter_batches(_BATCH_ROWS):
            made, faults = transform(batch) if with_texts else (batch, [])
            faulty += len(faults)
            writer.write_batch(made)
    print(json.dumps({"faults": faulty}))


def _main(arguments: list[str]) -> None:
    if arguments:
        _run(with_texts=arguments == ["texts"])
        return
    print(json.dumps(notes().to_json(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    _main(sys.argv[1:])
