"""The landing zone: exports appear whole, privately, and vanish when they expire."""

import gzip
import stat
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import ExportCorrupt, LandingFault
from mirror_assets.mirroring.landing import (
    ExportWriter,
    Landing,
    Manifest,
    Part,
)
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.storage import private_file, private_folder
from tests.fakes.cloud_storage import CloudStorage

STAMP = datetime(2026, 11, 22, 5, 0, 7, tzinfo=UTC)
DAY = STAMP.date()
SECOND = timedelta(seconds=1)
SCHEMA = TableSchema(
    (
        Column("id", "int", types.INT64, True),
        Column("amount", "decimal(38,9)", types.decimal(38, 9)),
        Column("photo", "blob", types.BYTES, encoding="hex"),
    ),
    ("id",),
)


@pytest.fixture(params=["folder", "cloud"])
def landing(request: pytest.FixtureRequest, tmp_path: Path) -> Landing:
    scratch = private_folder(tmp_path / "scratch")
    url = str(tmp_path / "landing")
    if request.param == "cloud":
        storage: CloudStorage = request.getfixturevalue("cloud_storage")
        url = f"{storage.bucket()}/landing"
    return Landing(url, scratch, part_bytes=20)


def manifest_of(
    writer: ExportWriter, table: str, stamp: datetime, *, refreshed: bool = True
) -> Manifest:
    return Manifest(
        database="clinic",
        table=table,
        partition=stamp.date(),
        stamp=stamp,
        snapshot_at=stamp + timedelta(seconds=3),
        refreshed_at=stamp if refreshed else None,
        isolation="one instant",
        source_rows=sum(part.rows for part in writer.parts),
        schema=SCHEMA,
        parts=tuple(writer.parts),
        source_info={"size_mb": 1},
    )


def export(
    landing: Landing,
    table: str = "patient",
    stamp: datetime = STAMP,
    *,
    compression: str = "none",
    refreshed: bool = True,
) -> Manifest:
    """Write two parts of 2 and 1 records and finish the export."""
    writer = landing.writer("clinic", table, stamp, compression=compression)
    writer.write(b'1,"first one"\n', 1, 14)
    writer.write(b'2,"second"\n', 1, 11)
    writer.write(b'3,"third"\n', 1, 10)
    writer.close_part()
    manifest = manifest_of(writer, table, stamp, refreshed=refreshed)
    writer.finish(manifest)
    return manifest


def test_the_first_parts_are_smaller_so_that_their_load_begins_early(tmp_path: Path) -> None:
    writer = Landing(str(tmp_path), tmp_path / "scratch").writer("clinic", "patient", STAMP)
    for _time in range(10):
        writer.write(b"x" * (16 << 20), 1, 16 << 20)
    writer.close_part()

    assert [part.bytes >> 20 for part in writer.parts] == [32, 64, 64]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_parts_come_back_as_they_were_written(landing: Landing, compression: str) -> None:
    manifest = export(landing, compression=compression)
    read: Callable[[Path], bytes] = Path.read_bytes
    if compression == "gzip":
        read = lambda path: gzip.decompress(path.read_bytes())  # noqa: E731

    contents = []
    for part in manifest.parts:
        with landing.open_part(manifest, part) as path:
            contents.append(read(path))

    assert contents == [b'1,"first one"\n2,"second"\n', b'3,"third"\n']
    assert [(part.rows, part.longest) for part in manifest.parts] == [(2, 14), (1, 10)]
    assert manifest.longest == 14
    assert list(landing.scratch.iterdir()) == []


@pytest.mark.parametrize("refreshed", [True, False])
def test_a_manifest_survives_json(landing: Landing, refreshed: bool) -> None:
    manifest = export(landing, refreshed=refreshed)

    assert landing.find("clinic", "patient", DAY) == manifest


def test_an_export_without_its_manifest_does_not_exist(landing: Landing) -> None:
    writer = landing.writer("clinic", "patient", STAMP)
    writer.write(b"1\n", 1, 2)
    writer.close_part()

    assert landing.find("clinic", "patient", DAY) is None


def test_an_export_that_lost_a_part_does_not_exist(landing: Landing) -> None:
    manifest = export(landing)
    folder = landing.folder("clinic", STAMP)
    landing.files.fs.rm(f"{folder}/{manifest.parts[1].file}")

    assert landing.find("clinic", "patient", DAY) is None


def test_the_newest_refresh_of_the_day_is_found_and_other_days_are_not(landing: Landing) -> None:
    export(landing, stamp=STAMP - timedelta(hours=2))
    newest = export(landing)
    export(landing, stamp=STAMP + timedelta(days=1))

    assert landing.find("clinic", "patient", DAY) == newest
    assert landing.find("clinic", "patient", DAY - timedelta(days=1)) is None
    assert landing.find("clinic", "visit", DAY) is None
    assert landing.days("clinic") == [DAY, DAY + timedelta(days=1)]


def test_an_instant_of_another_time_zone_lands_on_its_utc_day(landing: Landing) -> None:
    evening = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)
    stamp = evening.astimezone(timezone(timedelta(hours=-8)))

    assert landing.folder("clinic", stamp).endswith("/clinic/20261122220000")


def test_a_changed_part_is_refused_and_leaves_nothing_in_the_scratch_folder(
    landing: Landing,
) -> None:
    manifest = export(landing)
    part = manifest.parts[0]
    path = f"{landing.folder('clinic', STAMP)}/{part.file}"
    landing.files.fs.pipe_file(path, b"x" * part.bytes)

    with pytest.raises(ExportCorrupt) as caught, landing.open_part(manifest, part):
        pytest.fail("a corrupt part was opened")

    assert part.file in caught.value.sentence
    assert "clinic/patient" in caught.value.sentence
    assert list(landing.scratch.iterdir()) == []


def test_a_part_that_vanished_is_a_landing_fault(landing: Landing) -> None:
    manifest = export(landing)
    landing.files.fs.rm(f"{landing.folder('clinic', STAMP)}/{manifest.parts[0].file}")

    with pytest.raises(LandingFault), landing.open_part(manifest, manifest.parts[0]):
        pytest.fail("a missing part was opened")

    assert list(landing.scratch.iterdir()) == []


def test_a_full_or_closed_folder_is_a_landing_fault_that_names_the_table(tmp_path: Path) -> None:
    (tmp_path / "landing").write_text("a file where a folder should be")
    landing = Landing(str(tmp_path / "landing"), tmp_path)

    with pytest.raises(LandingFault) as caught:
        landing.writer("clinic", "patient", STAMP)

    assert caught.value.where == "patient"
    assert caught.value.transient


def _of_the_client(error: Exception) -> Callable[..., None]:
    """A function that raises, as if it stood in the client's own package."""
    known: dict[str, Any] = {"__name__": "gcsfs.core", "error": error}
    exec("def fail(*_arguments, **_options): raise error", known)
    found: Callable[..., None] = known["fail"]
    return found


class _OfflineError(Exception):
    """What a remote zone's client may raise: no OSError at all."""


@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("ls", lambda landing: landing.find("clinic", "patient", DAY)),
        ("cat_file", lambda landing: landing.find("clinic", "patient", DAY)),
        ("find", lambda landing: landing.find("clinic", "patient", DAY)),
        ("ls", lambda landing: landing.days("clinic")),
        ("rm", lambda landing: landing.expire("clinic", date(2100, 1, 1))),
        ("cat_file", lambda landing: landing.inventory("clinic")),
        ("pipe", lambda landing: landing.save_inventory("clinic", ["a"])),
        ("open", export),
        ("pipe", export),
    ],
)
def test_whatever_a_remote_zones_client_raises_is_a_landing_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, use: Callable[[Landing], object]
) -> None:
    scratch = private_folder(tmp_path / "scratch")
    landing = Landing(f"memory://landing-{uuid.uuid4().hex}", scratch, part_bytes=20)
    export(landing)

    fail = _of_the_client(_OfflineError("CANARY"))

    monkeypatch.setattr(landing.files.fs, call, fail, raising=True)
    with pytest.raises(LandingFault) as caught:
        use(landing)
    monkeypatch.undo()

    assert "_OfflineError" in caught.value.what
    assert "CANARY" not in str(caught.value)
    assert caught.value.transient
    assert "MIRROR_LANDING" in caught.value.remedy
    assert landing.find("clinic", "patient", DAY) is not None


def test_a_local_zone_that_cannot_be_read_is_a_landing_fault(tmp_path: Path) -> None:
    landing = Landing(str(tmp_path / "landing"), tmp_path)
    export(landing)
    manifest = next((tmp_path / "landing").rglob("*.manifest.json"))
    manifest.unlink()
    manifest.mkdir()

    with pytest.raises(LandingFault):
        landing.find("clinic", "patient", DAY)


def test_a_day_counts_once_one_of_its_exports_is_finished(landing: Landing) -> None:
    unfinished = landing.writer("clinic", "visit", STAMP)
    unfinished.write(b"1\n", 1, 2)
    unfinished.close_part()

    assert landing.days("clinic") == []

    export(landing)

    assert landing.days("clinic") == [DAY]


def test_a_manifest_that_cannot_be_written_gives_the_parts_room_back(landing: Landing) -> None:
    writer = landing.writer("clinic", "patient", STAMP)
    writer.write(b"1\n", 1, 2)
    writer.close_part()
    folder = landing.folder("clinic", STAMP)
    landing.put_text = lambda *_: (_ for _ in ()).throw(OSError(28, ""))  # type: ignore

    with pytest.raises(LandingFault, match="No space left"):
        writer.finish(manifest_of(writer, "patient", STAMP))

    assert landing.files.names(folder) == []


def test_a_slower_reading_of_the_same_refresh_does_not_replace_a_later_one(
    landing: Landing,
) -> None:
    slower = landing.writer("clinic", "patient", STAMP)
    slower.write(b'1,"old"\n', 1, 8)
    slower.close_part()
    later = export(landing)

    slower.finish(
        replace(manifest_of(slower, "patient", STAMP), snapshot_at=later.snapshot_at - SECOND)
    )

    assert landing.find("clinic", "patient", DAY) == later


@pytest.mark.parametrize("damaged", [False, True])
def test_an_intact_export_matches_its_checksums(landing: Landing, damaged: bool) -> None:
    manifest = export(landing)
    if damaged:
        path = f"{landing.folder('clinic', STAMP)}/{manifest.parts[1].file}"
        landing.files.fs.pipe_file(path, b"x" * manifest.parts[1].bytes)

    assert landing.intact(manifest) is not damaged
    assert list(landing.scratch.iterdir()) == []


def test_an_aborted_export_drops_its_open_part(landing: Landing) -> None:
    writer = landing.writer("clinic", "patient", STAMP)
    writer.write(b"1\n", 1, 2)
    writer.abort()
    writer.abort()

    folder = landing.folder("clinic", STAMP)
    assert landing.files.names(folder) == []
    assert list(landing.scratch.iterdir()) == []


def test_expiry_deletes_older_days_whole_and_nothing_else(landing: Landing) -> None:
    export(landing, stamp=STAMP - timedelta(days=1))
    kept = export(landing)
    landing.save_inventory("clinic", ["b", "a"])

    assert landing.expire("clinic", DAY) == ["20261121050007"]

    assert landing.days("clinic") == [DAY]
    assert landing.find("clinic", "patient", DAY) == kept
    assert landing.inventory("clinic") == ["a", "b"]


def test_a_database_never_exported_has_no_days_exports_or_inventory(landing: Landing) -> None:
    assert landing.days("clinic") == []
    assert landing.find("clinic", "patient", DAY) is None
    assert landing.expire("clinic", DAY) == []
    assert landing.inventory("clinic") is None


def test_folders_that_are_no_instants_are_left_alone(tmp_path: Path) -> None:
    landing = Landing(str(tmp_path), tmp_path)
    for name in ("99999999999999", "notes", "2026112205000", "²²²²²²²²²²²²²²"):
        (tmp_path / "clinic" / name).mkdir(parents=True)
    manifest = export(landing)

    assert landing.days("clinic") == [DAY]
    assert landing.find("clinic", "patient", DAY) == manifest
    assert landing.expire("clinic", date(2100, 1, 1)) == ["20261122050007"]


@pytest.mark.parametrize("table", ["a b", "../../up", "é'\"", "select", "50%", "a[1]*?"])
def test_hostile_table_names_stay_inside_the_zone(landing: Landing, table: str) -> None:
    manifest = export(landing, table)

    assert landing.find("clinic", table, DAY) == manifest
    folder = landing.folder("clinic", STAMP)
    assert all("/" not in part.file for part in manifest.parts)
    assert len(landing.files.names(folder)) == 4  # two parts, schema, manifest


def test_files_are_private_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = Landing(str(tmp_path / "deep" / "landing"), tmp_path, part_bytes=20)
    export(landing)
    export(landing, "visit", compression="gzip")

    modes = {
        path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").rglob("*")
    }
    assert modes == {True: 0o700, False: 0o600}
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700


def test_a_folder_can_be_made_while_another_sweeps_its_empty_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir
    swept = []

    def mkdir(path: Path, *args: int, **options: bool) -> None:
        if path.name == "inner" and not swept:
            swept.append(path.parent)
            path.parent.rmdir()
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)

    private_folder(tmp_path / "outer" / "inner")

    assert swept == [tmp_path / "outer"]
    assert (tmp_path / "outer" / "inner").is_dir()


def test_a_private_file_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("longer than the new text")
    with private_file(path) as file:
        file.write(b"new")

    assert path.read_bytes() == b"new"


def test_parts_of_one_table_never_take_another_attempts_names(landing: Landing) -> None:
    first, second = export(landing), export(landing)

    assert not {part.file for part in first.parts} & {part.file for part in second.parts}
    assert landing.find("clinic", "patient", DAY) == second


def test_a_part_knows_its_size_as_stored(tmp_path: Path) -> None:
    landing = Landing(str(tmp_path / "landing"), tmp_path)
    writer = landing.writer("clinic", "patient", STAMP, compression="gzip")
    told: list[tuple[Part, int]] = []
    folder = Path(landing.folder("clinic", STAMP))
    writer.on_part = lambda part: told.append((part, (folder / part.file).stat().st_size))
    writer.write(b"1\n" * 50_000, 50_000, 2)
    writer.close_part()

    [(part, size)] = told
    assert part.bytes == size < 10_000
