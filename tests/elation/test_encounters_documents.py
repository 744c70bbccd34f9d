"""The documents of members, and a store that writes only what changed, also after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mirror_assets.elation import encounters
from mirror_assets.elation.encounters import (
    Document,
    DocumentFault,
    DocumentStore,
    Version,
    document,
    store,
)
from mirror_assets.mirroring.errors import VolumeDropped
from tests.elation.encounters_day import INSERTED_AT, M1, M2, Day, opened

DAY = Version(date(2021, 3, 2), INSERTED_AT)
NEXT = Version(date(2021, 3, 3), INSERTED_AT + timedelta(days=1))
NAME = "encounters.v3.json"


@pytest.fixture
def day(extensions: Path) -> Iterator[Day]:
    with opened(extensions) as tables:
        tables.member(M2, "77002")
        tables.visit(signed_time="2021-01-15 18:00:00", signed_by_user_id=920)
        tables.visit(5002, patient_id=77002)
        yield tables


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A local folder, and a store of objects that are reached through their client only."""
    if request.param == "folder":
        return str(tmp_path / "documents")
    return f"memory://{tmp_path.name}-{os.urandom(4).hex()}"


def read(root: str, patient_id: str = M1, name: str = NAME) -> bytes:
    fs, path = fsspec.core.url_to_fs(root)
    return bytes(fs.cat_file(f"{path}/{patient_id}/aggregated_data/{name}"))


def made(patient_id: str, text: str) -> Document:
    return Document(patient_id, f"digest of {text}", json.dumps([text]).encode())


def many(number: int, text: str) -> Iterator[Document]:
    return (made(f"member-{index:05}", text) for index in range(number))


# -- the text


def test_the_text_of_a_document(day: Day) -> None:
    (document, _) = day.documents()
    assert document.patient_id == M1
    assert document.body.decode() == (
        '[{"messageId":"202103020831094","insertedAt":"2021-03-02T08:31:09.470Z",'
        '"isStreaming":false,"patient":{"patientId":"00000000-0000-4000-8000-000000000001",'
        '"externalId":"77001","source":{"name":"elation","commonId":null}},"encounter":{'
        '"identifiers":[{"id":"5001","idType":"Visit Note"}],'
        '"type":{"code":"Unknown","codeSystem":null,"codeSystemName":null,'
        '"name":"Office Visit Note"},'
        '"dateTime":"2021-01-15T17:30:00Z","endDateTime":"2021-01-16T02:00:00Z",'
        '"providers":[{"identifiers":[{"id":"1999999990","idType":"npi"},'
        '{"id":"ivy.tan@clinic.test","idType":"email"}],"firstName":"Ivy","lastName":"Tan",'
        '"credentials":["NP"],"address":{"street1":"12 Elm St","street2":"Unit 4",'
        '"city":"Dover","state":"DE","zip":"19901"},"phone":"302-555-0101",'
        '"role":{"code":null,"codeSystem":null,"codeSystemName":null,"name":"Family Medicine"}}],'
        '"locations":[],"diagnoses":[],"reasons":[],"draft":false}}]'
    )


def test_a_draft_has_no_end(day: Day) -> None:
    (_, document) = day.documents()
    (encounter,) = json.loads(document.body)
    assert encounter["encounter"]["endDateTime"] is None
    assert encounter["encounter"]["draft"] is True


def test_visit_notes_come_first_then_by_time_then_by_id(day: Day) -> None:
    day.non_visit(4000, document_date="2020-01-01")
    day.visit(4999, document_date="2021-01-20")
    day.visit(10001)
    for _ in range(3):
        day.shuffle()
        document, _other = day.documents()
        ids = [row["encounter"]["identifiers"][0]["id"] for row in json.loads(document.body)]
        assert ids == ["5001", "10001", "4999", "4000"]


def test_any_text_is_json_on_one_line(day: Day) -> None:
    text = 'two\nlines\t"quoted" \\ señora 🙂 \u2028 \x01'
    day.add("visit_note_bullet", id=1, visit_note_id=5001, category="", sequence=0, text=text)
    document, _ = day.documents()
    assert b"\n" not in document.body
    assert json.loads(document.body)[0]["encounter"]["reasons"][0]["notes"] == text


@pytest.mark.parametrize(
    ("microsecond", "text"),
    [(0, "09Z"), (470_000, "09.470Z"), (470_100, "09.470100Z"), (1, "09.000001Z")],
)
def test_instants_have_the_digits_they_need(day: Day, microsecond: int, text: str) -> None:
    document, _ = day.documents(inserted_at=INSERTED_AT.replace(microsecond=microsecond))
    assert json.loads(document.body)[0]["insertedAt"] == f"2021-03-02T08:31:{text}"


def test_the_digest_is_of_what_is_said_and_not_of_the_stamp(day: Day) -> None:
    first = {document.patient_id: document.digest for document in day.documents()}
    later = list(day.documents(inserted_at=NEXT.instant))
    assert {document.patient_id: document.digest for document in later} == first
    day.connection.execute("UPDATE elation.visit_note SET name = 'Other' WHERE id = 5002")
    changed = {document.patient_id: document.digest for document in day.documents()}
    assert changed[M1] == first[M1]
    assert changed[M2] != first[M2]


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_the_parts_are_the_whole(day: Day, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(document, "_PART_ROWS", size)
    for number in range(10):
        day.member(f"it's {number}", str(number))
        for note in range(number):
            day.visit(100 * number + note, patient_id=number)
    rows = f"({day.statement()})"
    cuts = day.connection.execute(encounters.documents_bounds(rows)).fetchall()
    found: list[Document] = []
    for part in encounters.parts(cut for (cut,) in cuts):
        reading = encounters.documents_statement(rows, part)
        found += encounters.documents(day.connection.execute(reading).to_arrow_reader(2))
    assert found == list(day.documents())
    assert len(found) == 11


# -- the store


def test_b_20_a_second_run_writes_nothing(day: Day, root: str) -> None:
    documents = DocumentStore(root)
    first = documents.write(DAY, day.documents())
    assert (first.written, first.unchanged, first.emptied) == (2, 0, 0)
    assert first.bytes == len(read(root, M1)) + len(read(root, M2))
    before = read(root)
    again = DocumentStore(root).write(NEXT, day.documents(inserted_at=NEXT.instant))
    assert (again.written, again.unchanged, again.bytes) == (0, 2, 0)
    assert read(root) == before


def test_one_changed_note_rewrites_one_document(day: Day, root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, day.documents())
    before = read(root, M1)
    day.connection.execute("UPDATE elation.visit_note SET name = 'Other' WHERE id = 5002")
    done = documents.write(NEXT, day.documents(inserted_at=NEXT.instant))
    assert (done.written, done.unchanged) == (1, 1)
    assert read(root, M1) == before
    (encounter,) = json.loads(read(root, M2))
    assert encounter["encounter"]["type"]["name"] == "Other"
    assert encounter["messageId"] == encounters.message_id(NEXT.instant)


def test_a_member_without_notes_any_more_has_an_empty_document(day: Day, root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, day.documents())
    day.connection.execute("UPDATE elation.visit_note SET deletion_time = now() WHERE id = 5002")
    done = documents.write(NEXT, day.documents())
    assert (done.written, done.unchanged, done.emptied) == (0, 1, 1)
    assert read(root, M2) == b"[]"
    later = replace(NEXT, partition=date(2021, 3, 4))
    again = documents.write(later, day.documents())
    assert (again.written, again.unchanged, again.emptied) == (0, 1, 0)
    day.connection.execute("UPDATE elation.visit_note SET deletion_time = NULL")
    back = documents.write(replace(NEXT, partition=date(2021, 3, 5)), day.documents())
    assert (back.written, back.emptied) == (1, 0)
    assert read(root, M2) != b"[]"


def test_a_day_without_notes_empties_nothing_unless_that_is_accepted(root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, many(10, "a"))
    with pytest.raises(VolumeDropped, match="10 of 10 members") as raised:
        documents.write(NEXT, [])
    assert "member-" not in str(raised.value)
    assert read(root, "member-00003") == b'["a"]'
    assert documents.version == DAY
    assert documents.write(NEXT, [], accept_loss=True).emptied == 10
    assert read(root, "member-00003") == b"[]"


def test_an_older_partition_touches_nothing(day: Day, root: str) -> None:
    documents = DocumentStore(root)
    documents.write(NEXT, day.documents(inserted_at=NEXT.instant))
    before = read(root)
    day.connection.execute("UPDATE elation.visit_note SET name = 'Older'")
    done = documents.write(DAY, day.documents())
    assert done.superseded_by == NEXT.partition
    assert (done.written, done.unchanged, done.emptied) == (0, 0, 0)
    assert read(root) == before
    assert documents.version == NEXT


def test_it_is_known_when_a_document_last_changed(root: str) -> None:
    """Also to a run after one that was killed before it could say so."""
    documents = DocumentStore(root)
    assert documents.write(DAY, []).changed_at is None
    assert documents.write(DAY, []).changed_at is None
    first = documents.write(DAY, many(2, "a")).changed_at
    assert first is not None
    assert documents.write(NEXT, many(2, "a")).changed_at == first
    assert documents.write(DAY, many(2, "older")).changed_at == first
    emptied = documents.write(NEXT, many(1, "a")).changed_at
    assert emptied is not None
    assert emptied > first
    changed = documents.write(NEXT, many(1, "b")).changed_at
    assert changed is not None
    assert changed > emptied


def test_an_index_that_does_not_say_when_a_document_changed_is_read(root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, [])
    digests = {"member-00000": made("member-00000", "a").digest}
    documents.put_own({"index.json": {"version": DAY.to_json(), "documents": digests}})
    done = documents.write(NEXT, many(1, "a"))
    assert (done.written, done.changed_at) == (0, DAY.instant)


def test_of_one_partition_the_newer_content_wins(root: str) -> None:
    documents = DocumentStore(root)
    newer = replace(DAY, instant=DAY.instant + timedelta(hours=3))
    documents.write(DAY, many(1, "first refresh"))
    assert documents.write(newer, many(1, "second refresh")).written == 1
    assert documents.write(DAY, many(1, "first refresh")).superseded_by == DAY.partition
    assert read(root, "member-00000") == b'["second refresh"]'


def test_sources_with_names_of_their_own_share_a_root(root: str) -> None:
    DocumentStore(root).write(DAY, many(1, "default"))
    DocumentStore(root, name="encounters.elation.v3.json").write(DAY, many(1, "own"))
    assert read(root, "member-00000") == b'["default"]'
    assert read(root, "member-00000", "encounters.elation.v3.json") == b'["own"]'


def test_a_member_id_is_never_a_way_out_of_the_root(tmp_path: Path) -> None:
    DocumentStore(str(tmp_path / "root")).write(DAY, [made("../../escaped", "a")])
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert len(list(tmp_path.rglob(NAME))) == 2  # the document and the store's own folder


def test_local_documents_are_private(tmp_path: Path) -> None:
    root = tmp_path / "documents"
    DocumentStore(str(root)).write(DAY, many(3, "a"))
    paths = [root, *root.rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in paths if path.is_dir()} == {0o700}


# -- kills, failures and others


def test_after_a_kill_only_what_was_touched_is_written_again(root: str) -> None:
    documents = DocumentStore(root)
    documents.write(DAY, many(2_000, "a"))

    def killed() -> Iterator[Document]:
        yield from many(700, "b")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        documents.write(NEXT, killed())
    assert read(root, "member-00000") == b'["b"]'
    assert documents.version == DAY
    # Nobody but the claim knows of the newer version, and an older one must not come back.
    assert documents.write(DAY, many(2_000, "a")).superseded_by == NEXT.partition
    later = replace(NEXT, partition=date(2021, 3, 4))
    done = documents.write(later, many(2_000, "a"))
    assert (done.written, done.unchanged) == (500, 1_500)
    assert read(root, "member-00000") == b'["a"]'


def test_documents_of_a_killed_run_are_not_forgotten(root: str) -> None:
    documents = DocumentStore(root)

    def killed() -> Iterator[Document]:
        yield from many(600, "a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        documents.write(DAY, killed())
    assert documents.write(NEXT, many(400, "b")).emptied == 100
    assert read(root, "member-00450") == b"[]"


_KILLED = """
import sys, time
from datetime import date, datetime, UTC
from mirror_assets.elation.encounters import Document, DocumentStore, Version
body = b'["' + b"x" * 2000 + b'"]'
made = (Document(f"member-{n:05}", "later", body) for n in range(5_000))
print("go", flush=True)
DocumentStore(sys.argv[1]).write(Version(date(2021, 3, 3), datetime(2021, 3, 3, tzinfo=UTC)), made)
"""


def test_kill_minus_nine_leaves_whole_documents(tmp_path: Path) -> None:
    root = tmp_path / "documents"
    documents = DocumentStore(str(root))
    documents.write(DAY, many(5_000, "a"))
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    while not any((root / ".encounters" / NAME).glob("pending-*-2.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    bodies = [path.read_bytes() for path in root.glob(f"member-*/*/{NAME}")]
    assert len(bodies) == 5_000
    touched = sum(body != b'["a"]' for body in bodies)
    assert 0 < touched < 5_000
    assert {len(body) for body in bodies} == {len(b'["a"]'), 2004}
    done = documents.write(replace(NEXT, partition=date(2021, 3, 4)), many(5_000, "a"))
    assert touched <= done.written <= touched + 500
    assert all(path.read_bytes() == b'["a"]' for path in root.glob(f"member-*/*/{NAME}"))
    own = sorted(path.name for path in (root / ".encounters" / NAME).iterdir())
    assert own == ["claim.json", "half", "index.json"]
    assert list((root / ".encounters" / NAME / "half").iterdir()) == []


def test_a_run_that_is_overtaken_stops(root: str) -> None:
    documents = DocumentStore(root)

    def slow() -> Iterator[Document]:
        yield from many(600, "older")
        assert DocumentStore(root).write(NEXT, many(1_200, "newer")).written == 1_200
        yield from (made(f"member-{index:05}", "older") for index in range(600, 1_200))

    with pytest.raises(DocumentFault, match="another run") as raised:
        documents.write(DAY, slow())
    assert raised.value.transient
    assert documents.version == NEXT
    assert {read(root, f"member-{index:05}") for index in range(1_200)} == {b'["newer"]'}


def test_what_an_overtaken_run_wrote_last_is_written_again(root: str) -> None:
    """The older run had passed its check already when the newer one began."""
    documents = DocumentStore(root)

    def raced() -> Iterator[Document]:
        yield made("member-00000", "newer")
        documents.put_own({"pending-other-0.json": ["member-00000"]})

    with pytest.raises(DocumentFault, match="another run"):
        documents.write(NEXT, raced())
    documents.put({documents.path("member-00000"): b'["older"]'})
    assert documents.write(NEXT, many(1, "newer")).written == 1
    assert read(root, "member-00000") == b'["newer"]'
    assert documents.write(NEXT, many(1, "newer")).unchanged == 1


def test_a_store_that_fails_is_a_transient_fault_without_values(tmp_path: Path) -> None:
    (tmp_path / "documents").write_text("a file where the folder should be")
    with pytest.raises(DocumentFault) as raised:
        DocumentStore(str(tmp_path / "documents")).write(DAY, [made("member-1", "secret")])
    assert raised.value.transient
    assert raised.value.__cause__ is None
    assert not re.search("member-1|secret", str(raised.value))


def test_a_batch_ends_with_its_documents_or_with_its_bytes(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BATCH_BYTES", 40)
    sizes: list[int] = []
    documents = DocumentStore(root)
    put = documents.put

    def spy(objects: dict[str, bytes]) -> None:
        sizes.append(len(objects))
        put(objects)

    monkeypatch.setattr(documents, "put", spy)
    documents.write(DAY, [made(f"member-{n}", "x" * 16) for n in range(5)])
    assert [size for size in sizes if size > 1] == [2, 2]


def test_versions_survive_their_json() -> None:
    instant = datetime(2021, 3, 2, 8, 31, 9, 470_001, tzinfo=UTC)
    version: Any = Version(date(2021, 3, 2), instant)
    assert Version.from_json(json.loads(json.dumps(version.to_json()))) == version
