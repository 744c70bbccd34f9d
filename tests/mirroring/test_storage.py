"""Files in Cloud Storage: streamed whole or absent, checked, tried again, refused in our words."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror_assets.mirroring import storage
from mirror_assets.mirroring.errors import LandingFault, StorageRefused
from mirror_assets.mirroring.storage import Storage
from tests.fakes.cloud_storage import CloudStorage, Fault, FaultyStorage, Kind

BLOCK = 256 << 10
UPLOADED = "POST /upload"
CANARY = "canary-of-a-patient"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_BLOCK", BLOCK)


@pytest.fixture
def place(cloud_storage: CloudStorage) -> str:
    return f"{cloud_storage.bucket()}/landing"


@pytest.fixture
def behind(cloud_storage: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The emulator with faults before it."""

    @contextmanager
    def serve(*faults: Fault) -> Iterator[FaultyStorage]:
        faulty = FaultyStorage(cloud_storage, *faults)
        with faulty.serve() as url, monkeypatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", url)
            yield faulty

    return serve


def stream(files: Storage, path: str, body: bytes) -> None:
    with files.create(path) as upload:
        for start in range(0, len(body), 100_000):
            upload.write(body[start : start + 100_000])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77])
def test_a_file_comes_back_as_it_was_streamed(place: str, tmp_path: Path, size: int) -> None:
    files = Storage(place)
    body = os.urandom(size)

    stream(files, f"{place}/a/x.csv", body)

    files.fetch(f"{place}/a/x.csv", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == body
    assert files.size(f"{place}/a/x.csv") == size
    assert files.names(f"{place}/a") == ["x.csv"]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(503, UPLOADED, skip=1),
        Fault(429, UPLOADED),
        Fault("cut", UPLOADED, skip=2),
        Fault("lost", UPLOADED, skip=2),
        Fault("lost", UPLOADED, skip=3),  # the answer to the last block
        Fault(503, "GET .*alt=media|GET /download", skip=1),
        Fault("truncated", "GET .*alt=media|GET /download"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.request.split()[0]}-{fault.skip}",
)
def test_a_fault_that_passes_costs_one_more_request(
    place: str, behind: Callable[..., FaultyStorage], tmp_path: Path, fault: Fault
) -> None:
    files = Storage(place)
    body = os.urandom(2 * BLOCK + 5)

    with behind(fault) as faulty:  # type: ignore[attr-defined]
        stream(files, f"{place}/x.csv", body)
        files.fetch(f"{place}/x.csv", tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == body
    assert faulty.struck == {fault.kind: 1}
    # begun, three blocks; size; looked at, three blocks: and one of them once more
    assert faulty.counts == {"POST": 4 + (fault.request == UPLOADED), "GET": faulty.counts["GET"]}
    assert faulty.counts["GET"] == 5 + (fault.request != UPLOADED)


@pytest.mark.parametrize("kind", [429, 503, "cut", "lost"])
def test_a_small_file_is_sent_again_and_whole(
    place: str, behind: Callable[..., FaultyStorage], kind: Kind
) -> None:
    files = Storage(place)
    wanted = {f"{place}/{name}.json": name.encode() * 100 for name in "abc"}

    with behind(Fault(kind, "POST", skip=1)) as faulty:  # type: ignore[attr-defined]
        files.put(wanted)

    assert {path: files.read(path) for path in wanted} == wanted
    assert faulty.struck == {kind: 1}
    assert faulty.counts["POST"] == 4


@pytest.mark.usefixtures("small_blocks")
def test_bytes_that_arrive_changed_are_refused_and_not_kept(
    place: str, behind: Callable[..., FaultyStorage], cloud_storage: CloudStorage
) -> None:
    files = Storage(place)
    with (
        behind(Fault("changed", UPLOADED, skip=1)),  # type: ignore[attr-defined]
        pytest.raises(LandingFault),
        files.guard("clinic/visit"),
    ):
        stream(files, f"{place}/x.csv", os.urandom(2 * BLOCK))

    assert cloud_storage.objects(place) == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_permanent_named_and_asked_once(
    place: str,
    behind: Callable[..., FaultyStorage],
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    files = Storage(place, setting="MIRROR_LANDING")
    uses: list[Callable[[], object]] = [
        lambda: stream(files, f"{place}/{CANARY}.csv", b"x"),
        lambda: files.put({f"{place}/{CANARY}.json": b"{}"}),
        lambda: files.read(f"{place}/{CANARY}.json"),
        lambda: files.names(f"{place}/{CANARY}"),
    ]
    caplog.set_level(logging.DEBUG)
    for use in uses:
        with (
            behind(Fault(status, "", times=99)) as faulty,  # type: ignore[attr-defined]
            pytest.raises(StorageRefused) as caught,
            files.guard("clinic/visit"),
        ):
            use()
        assert sum(faulty.counts.values()) <= 2
        assert f"HTTP {status}" in caught.value.what
        assert "MIRROR_LANDING" in caught.value.remedy
        assert not caught.value.transient
        assert CANARY not in str(caught.value)
        assert caught.value.__suppress_context__
    assert CANARY not in caplog.text


def test_small_objects_appear_whole(place: str, cloud_storage: CloudStorage) -> None:
    files = Storage(place)

    files.put({f"{place}/{n}.json": b"x" * n for n in range(1, 30)})

    assert cloud_storage.objects(place) == {f"{n}.json": n for n in range(1, 30)}
    with pytest.raises(FileNotFoundError):
        files.read(f"{place}/none.json")


@pytest.mark.usefixtures("small_blocks")
def test_an_aborted_upload_leaves_nothing(place: str, cloud_storage: CloudStorage) -> None:
    files = Storage(place)
    upload = files.create(f"{place}/x.csv")
    upload.write(os.urandom(3 * BLOCK))

    upload.abort()
    upload.abort()
    del upload

    assert cloud_storage.objects(place) == {}


def test_a_killed_upload_leaves_nothing(place: str, cloud_storage: CloudStorage) -> None:
    program = (
        "import sys; from mirror_assets.mirroring.storage import Storage;"
        "upload = Storage(sys.argv[1]).create(sys.argv[1] + '/x.csv');"
        "upload.write(b'x' * (20 << 20)); print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, place],
        env=os.environ | cloud_storage.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert cloud_storage.objects(place) == {}


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    program = (
        "from mirror_assets.mirroring.storage import Storage\n"
        "files = Storage('gs://bucket/x')\n"
        "try:\n    with files.guard('here'): files.names('gs://bucket/x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    named = tmp_path / "none.json"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "GOOGLE_APPLICATION_CREDENTIALS": str(named)}
        | ({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "StorageRefused here: the landing zone refused: there are no valid"
    )


def test_a_login_whose_service_is_away_passes_and_is_no_refusal() -> None:
    from google.auth.exceptions import DefaultCredentialsError, TransportError

    def told(error: Exception) -> str:
        kinds = (LandingFault, StorageRefused)
        with pytest.raises(kinds) as caught, Storage("gs://bucket/x").guard("here"):
            _raised_by_a_client(error)
        return type(caught.value).__name__

    assert told(TransportError("metadata server")) == "LandingFault"
    assert told(DefaultCredentialsError("none")) == "StorageRefused"


def _raised_by_a_client(error: Exception) -> None:
    """Raise it from a frame of Google's library, as the client would."""
    exec("raise error", {"__name__": "google.auth.somewhere", "error": error})


def test_a_defect_of_ours_is_told_as_one_also_in_cloud_storage(cloud_storage: CloudStorage) -> None:
    files = Storage(cloud_storage.bucket())
    with pytest.raises(TypeError), files.guard("here"):
        len(7)  # type: ignore[arg-type]
    with pytest.raises(LandingFault), files.guard("here"):
        files.read(f"{files.root}/nothing-here")
