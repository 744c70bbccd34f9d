"""Members' documents in object storage, each written only when what it says has changed.

``<root>/<patient id>/aggregated_data/<name>`` are the documents, ``<root>/.encounters/<name>/``
is the store's own: ``index.json`` remembers the version that was written last, when a document
last changed and the digest of every document, ``claim.json`` who writes now, ``pending-*.json``
which documents are about to change. They are named before the first of them is touched and the
index is written last, so after a kill at any point the next run knows which ones it has to write
again.

A document keeps the stamp (insertedAt, messageId) under which its content first appeared. A
member whose last note is gone keeps a document that says ``[]``, because readers would take a
missing one for a member nobody has looked at.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from mirror_assets.elation.encounters.document import Document, digest
from mirror_assets.mirroring.errors import TransientError, VolumeDropped
from mirror_assets.mirroring.names import folder_name
from mirror_assets.mirroring.storage import Storage

NAME = "encounters.v3.json"
_EMPTY = b"[]"
NOTHING = digest(())
#: A batch of documents is named in one pending object, then written at once.
_BATCH_DOCUMENTS = 500
_BATCH_BYTES = 16 * 1024 * 1024


class DocumentFault(TransientError):  # noqa: N818 - the kinds read as nouns
    """The documents' storage failed, or somebody else writes there."""

    kind = "documents"
    resource = "GCS"


@dataclass(frozen=True, order=True)
class Version:
    """What the documents tell of: a partition, and the instant (UTC) of its content."""

    partition: date
    instant: datetime

    def to_json(self) -> dict[str, str]:
        return {"partition": str(self.partition), "instant": self.instant.isoformat()}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Version:
        instant = datetime.fromisoformat(data["instant"]).astimezone(UTC)
        return cls(date.fromisoformat(data["partition"]), instant)


@dataclass
class Written:
    """What a run did, in documents. ``emptied`` ones now say that there is no note.

    ``superseded_by`` is a newer partition that the store holds already: nothing was touched.
    ``changed_at`` is when a document last changed, by this run or by one before it, which may have
    been killed before it could tell anybody; None while there is none.
    """

    written: int = 0
    unchanged: int = 0
    emptied: int = 0
    bytes: int = 0
    superseded_by: date | None = None
    changed_at: datetime | None = None


@dataclass
class _Index:
    version: Version | None = None
    changed_at: datetime | None = None
    digests: dict[str, str] = field(default_factory=dict)


class DocumentStore:
    """The documents in a local folder or at a ``gs://`` URL; ``name`` is that of every document.

    Give each source of documents its own name, where several write below one root. A run that
    would empty more than the share ``loss`` of all documents is refused. ``empty`` is the document
    of a member who has no note any more.
    """

    def __init__(
        self, url: str, *, name: str = NAME, loss: float = 0.5, empty: bytes = _EMPTY
    ) -> None:
        self._files = Storage(
            url, name="the documents' storage", setting="MIRROR_DOCUMENTS", fault=DocumentFault
        )
        self.name = name
        self.empty = empty
        self._loss = loss
        self._own = f"{self._files.root}/.encounters/{name}"
        self._half = f"{self._own}/half"

    def path(self, patient_id: str) -> str:
        return f"{self._files.root}/{folder_name(patient_id)}/aggregated_data/{self.name}"

    @property
    def version(self) -> Version | None:
        """The newest version that was written whole."""
        with self._guard():
            return self._index().version

    def write(
        self, version: Version, documents: Iterable[Document], *, accept_loss: bool = False
    ) -> Written:
        """Make the store say what these documents, all of a partition, say.

        Does nothing, and takes no document, where a newer version was written or begun. Raises
        DocumentFault (transient) where the storage fails or another run takes over, VolumeDropped
        where too many documents would be emptied (the others are written by then).
        """
        with self._guard():
            index = self._index()
            newest = max(filter(None, (index.version, self._claimed())), default=version)
        if newest > version:
            return Written(superseded_by=newest.partition, changed_at=index.changed_at)
        return _Run(self, version, index).finish(documents, 1.0 if accept_loss else self._loss)

    # -- the store's own objects

    def claim(self) -> dict[str, Any]:
        """Who writes now, or wrote last: ``version`` and ``token``."""
        with self._guard():
            return self._read("claim.json") or {}

    def pending(self) -> set[str]:
        """Names of the objects that tell which documents may be newer than the index."""
        with self._guard():
            found = self._files.names(self._own)
            return {name for name in found if name.startswith("pending-")}

    def named(self, pending: Iterable[str]) -> set[str]:
        """The members whose documents some pending objects name."""
        with self._guard():
            return {patient for name in pending for patient in self._read(name) or ()}

    def forget(self, pending: Iterable[str]) -> None:
        with self._guard():
            for name in pending:
                with suppress(FileNotFoundError):
                    self._files.delete(f"{self._own}/{name}")

    def put_own(self, objects: dict[str, Any]) -> None:
        self.put(
            {f"{self._own}/{name}": json.dumps(data).encode() for name, data in objects.items()}
        )

    def put(self, objects: dict[str, bytes]) -> None:
        """Write objects, each whole or not at all; remote ones at the same time."""
        with self._guard():
            self._files.put(objects, half=self._half)

    def persist(self) -> None:
        """Wait until what was written so far would survive a power cut."""
        with self._guard():
            self._files.persist()

    def sweep(self) -> None:
        """Delete what killed runs wrote half."""
        with self._guard():
            for name in self._files.names(self._half) if self._files.local else ():
                self._files.delete(f"{self._half}/{name}")

    def _index(self) -> _Index:
        data = self._read("index.json")
        if data is None:
            return _Index()
        version = Version.from_json(data["version"])
        # an older version of ours did not say
        changed = data.get("changed_at", data["version"]["instant"])
        changed_at = datetime.fromisoformat(changed) if changed else None
        return _Index(version, changed_at, data["documents"])

    def _claimed(self) -> Version | None:
        data = self._read("claim.json")
        return Version.from_json(data["version"]) if data else None

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self._files.read(f"{self._own}/{name}"))
        except FileNotFoundError:
            return None

    def _guard(self) -> AbstractContextManager[None]:
        return self._files.guard(self.name)


class _Run:
    """One run's writing: batches of changed documents, then the emptied ones, then the index."""

    def __init__(self, store: DocumentStore, version: Version, index: _Index) -> None:
        self._store = store
        self._version = version
        self._token = secrets.token_hex(8)
        self._held = index.digests
        self._digests: dict[str, str] = {}
        self._batch: dict[str, bytes] = {}
        self._batch_bytes = 0
        self._mine: set[str] = set()
        self._done = Written(changed_at=index.changed_at)
        store.put_own({"claim.json": {"version": version.to_json(), "token": self._token}})
        self._found = store.pending()
        self._unsure = store.named(self._found)

    def finish(self, documents: Iterable[Document], loss: float) -> Written:
        for document in documents:
            if self._keep(document):
                self._done.written += 1
            else:
                self._done.unchanged += 1
        self._flush()
        self._empty_the_rest(loss)
        self._close()
        return self._done

    def _keep(self, document: Document) -> bool:
        """Put a document into the batch, unless the store has it already."""
        patient = document.patient_id
        self._digests[patient] = document.digest
        if patient not in self._unsure and self._held.get(patient) == document.digest:
            return False
        self._batch[patient] = document.body
        self._batch_bytes += len(document.body)
        if len(self._batch) >= _BATCH_DOCUMENTS or self._batch_bytes >= _BATCH_BYTES:
            self._flush()
        return True

    def _flush(self) -> None:
        if not self._batch:
            return
        self._stop_if_overtaken()
        pending = f"pending-{self._token}-{len(self._mine)}.json"
        self._store.put_own({pending: sorted(self._batch)})
        self._mine.add(pending)
        if not self._held.keys().isdisjoint(self._batch):
            self._store.persist()  # after a power cut the index must not vouch for these
        self._store.put({self._store.path(p): body for p, body in self._batch.items()})
        self._done.bytes += self._batch_bytes
        self._batch, self._batch_bytes = {}, 0

    def _empty_the_rest(self, loss: float) -> None:
        """Documents of members that have no note any more."""
        gone = sorted((self._held.keys() | self._unsure) - self._digests.keys())
        speaking = [patient for patient, held in self._held.items() if held != NOTHING]
        lost = sum(self._held.get(patient, NOTHING) != NOTHING for patient in gone)
        if lost > loss * len(speaking):
            raise VolumeDropped(
                f"{lost} of {len(speaking)} members with documents have no note any more",
                where=self._store.name,
                remedy="check the day's notes and the member index; if they are right, run again"
                " and accept the loss",
            )
        empty = self._store.empty
        self._done.emptied = sum(self._keep(Document(p, NOTHING, empty)) for p in gone)
        self._flush()

    def _close(self) -> None:
        """Write the index, then forget what was pending."""
        self._store.persist()
        self._stop_if_overtaken()
        strange = self._store.pending() - self._found - self._mine
        doubtful = self._store.named(strange)
        digests = {p: d for p, d in self._digests.items() if p not in doubtful}
        if self._done.written or self._done.emptied:
            self._done.changed_at = datetime.now(UTC)
        self._store.put_own({"index.json": self._index(digests)})
        self._store.forget(self._found | self._mine)
        self._store.sweep()
        if strange:
            raise _overtaken(self._store.name)

    def _index(self, digests: dict[str, str]) -> dict[str, Any]:
        changed = self._done.changed_at
        return {
            "version": self._version.to_json(),
            "changed_at": changed.isoformat() if changed else None,
            "documents": digests,
        }

    def _stop_if_overtaken(self) -> None:
        if self._store.claim().get("token") != self._token:
            raise _overtaken(self._store.name)


def _overtaken(where: str) -> DocumentFault:
    return DocumentFault(
        "another run writes these documents at the same time",
        where=where,
        remedy="wait until it has ended, then run the partition again: it writes what is missing",
    )
