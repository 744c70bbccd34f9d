"""Patient encounters: Elation's notes, bills and tags of known members, one row per note.

`publish` makes the rows of a day in the warehouse; `write` keeps one JSON document per member of
them in object storage, for readers who ask about one person.
"""

from mirror_assets.elation.encounters.document import (
    Document,
    MakeDocuments,
    documents,
    documents_bounds,
    documents_statement,
)
from mirror_assets.elation.encounters.publication import (
    DATASET,
    READ,
    TABLE,
    VIEW,
    publish,
    write,
)
from mirror_assets.elation.encounters.query import Relation, bounds, counts, message_id, statement
from mirror_assets.elation.encounters.ranges import ALL, Part, parts
from mirror_assets.elation.encounters.shapes import COLUMNS
from mirror_assets.elation.encounters.store import DocumentFault, DocumentStore, Version, Written

__all__ = [
    "ALL",
    "COLUMNS",
    "DATASET",
    "READ",
    "TABLE",
    "VIEW",
    "Document",
    "DocumentFault",
    "DocumentStore",
    "MakeDocuments",
    "Part",
    "Relation",
    "Version",
    "Written",
    "bounds",
    "counts",
    "documents",
    "documents_bounds",
    "documents_statement",
    "message_id",
    "parts",
    "publish",
    "statement",
    "write",
]
