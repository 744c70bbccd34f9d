"""Members' documents in Cloud Storage: written only where they changed, whole after any fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from mirror_assets.elation.encounters import Document, DocumentStore, Version, store
from mirror_assets.mirroring.errors import StorageRefused
from mirror_assets.mirroring.storage import Storage
from tests.fakes.cloud_storage import CloudStorage, Fault, FaultyStorage

DAY = Version(date(2021, 3, 2), datetime(2021, 3, 2, 5, tzinfo=UTC))
NEXT = Version(date(2021, 3, 3), datetime(2021, 3, 3, 5, tzinfo=UTC))
BATCH = 5


@pytest.fixture
def root(cloud_storage: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(store, "_BATCH_DOCUMENTS", BATCH)
    return f"{cloud_storage.bucket()}/documents"


def made(number: int, text: str) -> Document:
    return Document(f"member-{number}", f"digest of {text}", json.dumps([text]).encode())


def texts(root: str, numbers: range) -> list[str]:
    files = Storage(root)
    bodies = (files.read(f"{root}/member-{n}/aggregated_data/{store.NAME}") for n in numbers)
    return [json.loads(body)[0] for body in bodies]


def test_only_changed_documents_are_written(root: str, cloud_storage: CloudStorage) -> None:
    documents = DocumentStore(root)
    first = documents.write(DAY, [made(n, "a") for n in range(12)])
    second = documents.write(NEXT, [made(n, "b" if n == 7 else "a") for n in range(11)])

    assert (first.written, first.unchanged, first.emptied) == (12, 0, 0)
    assert (second.written, second.unchanged, second.emptied) == (1, 10, 1)
    assert texts(root, range(11)) == ["a"] * 7 + ["b"] + ["a"] * 3
    assert documents.version == NEXT
    own = {name for name in cloud_storage.objects(root) if name.startswith(".encounters/")}
    assert {name.rsplit("/", 1)[1] for name in own} == {"claim.json", "index.json"}


def test_after_a_kill_what_was_touched_is_written_again(root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, [made(n, "a") for n in range(12)])

    def killed() -> Iterator[Document]:
        yield from (made(n, "b") for n in range(BATCH + 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        documents.write(NEXT, killed())
    assert texts(root, range(12)) == ["b"] * BATCH + ["a"] * (12 - BATCH)

    done = documents.write(NEXT, [made(n, "a") for n in range(12)])

    assert (done.written, done.unchanged) == (BATCH, 12 - BATCH)
    assert texts(root, range(12)) == ["a"] * 12


def test_a_refusal_amid_the_writing_names_the_setting_and_no_member(
    root: str, cloud_storage: CloudStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = DocumentStore(root)
    faulty = FaultyStorage(cloud_storage, Fault(403, "POST /upload", times=99, skip=BATCH))
    with faulty.serve() as url, monkeypatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        with pytest.raises(StorageRefused) as caught:
            documents.write(DAY, [made(n, "a") for n in range(12)])

    assert "MIRROR_DOCUMENTS" in caught.value.remedy
    assert "member-" not in str(caught.value)
    assert documents.write(DAY, [made(n, "a") for n in range(12)]).emptied == 0
    assert texts(root, range(12)) == ["a"] * 12
