"""A day's encounters where readers find them: rows in the warehouse, then documents in storage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mirror_assets.elation.encounters.document import (
    Document,
    MakeDocuments,
    documents_bounds,
    documents_statement,
)
from mirror_assets.elation.encounters.query import bounds, counts, message_id, statement
from mirror_assets.elation.encounters.ranges import parts
from mirror_assets.elation.encounters.store import DocumentStore, Version, Written
from mirror_assets.mirroring import derived
from mirror_assets.mirroring.inputs import Inputs
from mirror_assets.mirroring.warehouses.base import Transaction, Warehouse

DATASET, TABLE, VIEW = "medical", "patient_encounters", "patient_encounters_latest"
#: What encounters are made of, by database.
READ = {
    "elation": (
        "visit_note",
        "visit_note_bullet",
        "non_visit_note",
        "non_visit_note_bullet",
        "non_visit_note_document_tag",
        "document_tag",
        "bill",
        "bill_item",
        "bill_item_dx",
        "icd10",
        "icd9",
        "service_location",
        "practice",
        "user",
    ),
    "member_index": ("member", "mrn"),
}


def publish(read: Inputs) -> dict[str, int]:
    """Replace the day's rows in the warehouse; what `counts` says of them.

    A run for an old day leaves the view where it is. Raises RefreshLanded where an input was
    replaced meanwhile: counts and parts are read one after the other.
    """
    warehouse, instant = read.warehouse, read.recorded_at
    figures: dict[str, int] = warehouse.query(counts(read.relation)).dicts()[0]
    cuts = warehouse.query(bounds(read.relation)).rows
    of = partial(statement, read.relation, inserted_at=instant, message_id=message_id(instant))
    statements = [of(part=part) for part in parts(cut for (cut,) in cuts)]
    with derived.staged(warehouse, DATASET, TABLE, read.day) as made:
        derived.stage_query(warehouse, made, statements)

        def body(tx: Transaction) -> None:
            made.publish(tx, VIEW)
            read.refuse_replaced()

        warehouse.commit(body)
        made.settled = True
    return figures


def write(
    store: DocumentStore, make: MakeDocuments, read: Inputs, *, accept_loss: bool = False
) -> Written:
    """Bring the members' documents to what the day's rows say; an older day changes nothing."""
    rows = read.warehouse.relation(DATASET, TABLE, read.day)
    version = Version(read.day, read.recorded_at)
    return store.write(version, _made(read.warehouse, rows, make), accept_loss=accept_loss)


def _made(warehouse: Warehouse, rows: str, make: MakeDocuments) -> Iterator[Document]:
    cuts = warehouse.query(documents_bounds(rows)).rows
    for part in parts(cut for (cut,) in cuts):
        with warehouse.batches(documents_statement(rows, part)) as batches:
            yield from make(batches)
