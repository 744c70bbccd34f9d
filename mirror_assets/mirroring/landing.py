"""Names, writes, finds and expires exports in the landing zone (any fsspec file system).

``<landing>/<database>/<YYYYMMDDHHMMSS>/<table>_<YYYYMMDD>_<n>-<token>.csv[.gz]`` beside
``<table>_<YYYYMMDD>.schema.json`` and, written last, ``<table>_<YYYYMMDD>.manifest.json``.
The folder is the instant (UTC) of the vendor's refresh, or of the snapshot of a live database;
its first eight digits are the partition. An export without a manifest does not exist.
"""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any, Literal

from mirror_assets.mirroring import names
from mirror_assets.mirroring.errors import ExportCorrupt, LandingFault, MirrorError, reason
from mirror_assets.mirroring.schema import Column, TableSchema

STAMP = "%Y%m%d%H%M%S"
PART_BYTES = 256 * 1024 * 1024
_MANIFEST = ".manifest.json"
_LIBC = ctypes.CDLL(None, use_errno=True)
Isolation = Literal["one instant", "one refresh", "per table"]


@dataclass(frozen=True)
class Part:
    """One closed CSV file of an export. ``longest`` is its longest record in bytes."""

    file: str
    rows: int
    bytes: int
    sha256: str
    longest: int


@dataclass(frozen=True)
class Manifest:
    """What an export holds. Instants are UTC; ``stamp`` names the folder."""

    database: str
    table: str
    partition: date
    stamp: datetime
    snapshot_at: datetime
    refreshed_at: datetime | None
    isolation: Isolation
    source_rows: int
    schema: TableSchema
    parts: tuple[Part, ...]
    source_info: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def longest(self) -> int:
        return max((part.longest for part in self.parts), default=0)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "database": self.database,
            "table": self.table,
            "partition": self.partition.isoformat(),
            "stamp": self.stamp.isoformat(),
            "snapshot_at": self.snapshot_at.isoformat(),
            "refreshed_at": self.refreshed_at.isoformat() if self.refreshed_at else None,
            "isolation": self.isolation,
            "rows": self.source_rows,
            "bytes": self.bytes,
            "longest_record": self.longest,
            "primary_key": list(self.schema.primary_key),
            "columns": [column.to_json() for column in self.schema.columns],
            "parts": [asdict(part) for part in self.parts],
            "source_info": self.source_info,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        refreshed = data["refreshed_at"]
        return cls(
            database=data["database"],
            table=data["table"],
            partition=date.fromisoformat(data["partition"]),
            stamp=datetime.fromisoformat(data["stamp"]),
            snapshot_at=datetime.fromisoformat(data["snapshot_at"]),
            refreshed_at=datetime.fromisoformat(refreshed) if refreshed else None,
            isolation=data["isolation"],
            source_rows=data["rows"],
            schema=TableSchema(
                tuple(Column.from_json(column) for column in data["columns"]),
                tuple(data["primary_key"]),
            ),
            parts=tuple(Part(**part) for part in data["parts"]),
            source_info=data["source_info"],
        )


class Landing:
    """The landing zone at one fsspec URL or local folder.

    ``scratch`` is a private local folder; parts pass through it when the zone is remote.
    """

    def __init__(self, url: str, scratch: Path, *, part_bytes: int = PART_BYTES) -> None:
        import fsspec  # here, because it would slow down loading the code location

        self._fs, root = fsspec.core.url_to_fs(url)
        self.root: str = root.rstrip("/")
        self.local = "file" in self._fs.protocol
        self.scratch = scratch
        self.part_bytes = part_bytes

    def folder(self, database: str, stamp: datetime) -> str:
        """Where all exports of one refresh or snapshot lie."""
        return f"{self.root}/{database}/{stamp.astimezone(UTC).strftime(STAMP)}"

    def uri(self, path: str) -> str:
        return str(self._fs.unstrip_protocol(path))

    # -- writing

    def writer(
        self, database: str, table: str, stamp: datetime, *, compression: str = "none"
    ) -> ExportWriter:
        """Start an export; it exists once ``ExportWriter.finish`` wrote the manifest."""
        folder = self.folder(database, stamp)
        with self._guard(table):
            self._make_folder(folder)
        return ExportWriter(self, folder, _base_name(table, stamp), compression)

    def put_text(self, path: str, data: dict[str, Any]) -> None:
        """Write a JSON file; on a local file system by rename, so that it is whole or absent."""
        text = json.dumps(data, indent=1, ensure_ascii=False).encode()
        if not self.local:
            self._fs.pipe_file(path, text)
            return
        temporary = Path(f"{path}.{secrets.token_hex(4)}.tmp")
        try:
            with private_file(temporary) as file:
                file.write(text)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def local_target(self, path: str) -> Path:
        """Where a part is written first: in place, or in the scratch folder of a remote zone."""
        return Path(path) if self.local else self.scratch / Path(path).name

    def upload(self, target: Path, path: str) -> None:
        if not self.local:
            self._fs.put_file(str(target), path)

    def delete(self, path: str) -> None:
        self._fs.rm_file(path)

    def persist(self) -> None:
        """Wait until the exports written so far would survive a power cut.

        In which order does not matter: a manifest whose files are not whole counts as none.
        """
        if self.local:
            with self._guard(self.root):
                persist(Path(self.root))

    # -- reading

    def find(self, database: str, table: str, day: date) -> Manifest | None:
        """The newest complete export of a table for a partition, if one is still here."""
        return next(self.exports(database, table, day), None)

    def exports(self, database: str, table: str, day: date) -> Iterator[Manifest]:
        """Complete exports of a table for a partition, newest refresh first."""
        for folder in reversed(self._folders(database)):
            stamp = _stamp_of(folder)
            if stamp.date() != day:
                continue
            manifest = self._finished(folder, _base_name(table, stamp))
            if manifest is not None:
                yield manifest

    def days(self, database: str) -> list[date]:
        """Partitions of which some table's finished export is still here, oldest first."""
        found = set()
        for folder in self._folders(database):
            with self._guard(database):
                names_ = self._fs.ls(folder, detail=False)
            if any(name.endswith(_MANIFEST) for name in names_):
                found.add(_stamp_of(folder).date())
        return sorted(found)

    def intact(self, manifest: Manifest) -> bool:
        """Whether every part still matches its checksum: reads all of them."""
        try:
            for part in manifest.parts:
                with self.open_part(manifest, part):
                    pass
        except ExportCorrupt:
            return False
        return True

    @contextmanager
    def open_part(self, manifest: Manifest, part: Part) -> Iterator[Path]:
        """A local path of a part, verified against its checksum."""
        folder = self.folder(manifest.database, manifest.stamp)
        local = self.local_target(f"{folder}/{part.file}")
        try:
            with self._guard(manifest.table):
                if not self.local:
                    private_file(local).close()
                    self._fs.get_file(f"{folder}/{part.file}", str(local))
                if _sha256(local) != part.sha256:
                    raise ExportCorrupt(
                        f"export file {part.file} does not match its manifest",
                        where=f"{manifest.database}/{manifest.table}",
                        remedy="delete the folder's manifest and run the partition again",
                    )
            yield local
        finally:
            if not self.local:
                local.unlink(missing_ok=True)

    # -- expiry

    def expire(self, database: str, before: date) -> list[str]:
        """Delete exports whose partition is older than ``before``; returns the folders' names."""
        gone = [f for f in self._folders(database) if _stamp_of(f).date() < before]
        for folder in gone:
            with self._guard(database):
                self._fs.rm(folder, recursive=True)
        return [Path(folder).name for folder in gone]

    def inventory(self, database: str) -> list[str] | None:
        """Names of the source's base tables as last seen, for catalogs that say ``tables: all``."""
        with self._guard(database):
            try:
                data = json.loads(self._fs.cat_file(f"{self.root}/{database}/tables.json"))
            except (FileNotFoundError, ValueError):
                return None
        return list(data["tables"])

    def save_inventory(self, database: str, tables: list[str]) -> None:
        with self._guard(database):
            self._make_folder(f"{self.root}/{database}")
            self.put_text(f"{self.root}/{database}/tables.json", {"tables": sorted(tables)})

    # -- internals

    def _folders(self, database: str) -> list[str]:
        with self._guard(database):
            try:
                found = self._fs.ls(f"{self.root}/{database}", detail=False)
            except FileNotFoundError:
                return []
        names_ = [path.rstrip("/") for path in found]
        return sorted(path for path in names_ if _is_stamp(path.rsplit("/", 1)[-1]))

    def _finished(self, folder: str, base: str) -> Manifest | None:
        """The manifest of a table's export, if every part is present with the size it says."""
        with self._guard(base):
            try:
                text = self._fs.cat_file(f"{folder}/{base}{_MANIFEST}")
                manifest = Manifest.from_json(json.loads(text))
                sizes = [self._fs.size(f"{folder}/{part.file}") for part in manifest.parts]
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
        return manifest if sizes == [part.bytes for part in manifest.parts] else None

    def _make_folder(self, folder: str) -> None:
        if self.local:
            private_folder(Path(folder))

    @contextmanager
    def _guard(self, table: str) -> Iterator[None]:
        try:
            yield
        except MirrorError:
            raise
        except Exception as error:
            if self.local and not isinstance(error, OSError):
                raise  # a defect of ours; a remote zone's client may raise anything
            places = "MIRROR_LANDING" if self.local else "MIRROR_LANDING and MIRROR_SCRATCH"
            raise LandingFault(
                f"the landing zone failed: {reason(error)}",
                where=table,
                remedy=f"check space and rights of {places}, then run the partition again",
            ) from None


class ExportWriter:
    """Writes one table's records into parts of about ``Landing.part_bytes``.

    Calls ``on_part(part, local path)`` whenever a part is closed, so that it can be loaded while
    the next one is written. The callee owns the local file of a remote zone.
    """

    def __init__(self, landing: Landing, folder: str, base: str, compression: str) -> None:
        self._landing = landing
        self._folder = folder
        self._base = base
        self._token = secrets.token_hex(3)
        self._suffix = ".csv.gz" if compression == "gzip" else ".csv"
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._rows = self._bytes = self._longest = 0
        self.parts: list[Part] = []
        self.on_part: Callable[[Part, Path], None] = lambda _part, _path: None

    def write(self, data: bytes, rows: int, longest: int) -> None:
        """Append whole records. ``longest`` is the longest of them in bytes."""
        with self._landing._guard(self._base):
            if self._file is None:
                self._file = self._open()
            self._file.write(data)
        if self._suffix == ".csv":
            self._digest.update(data)
        self._rows += rows
        self._bytes += len(data)
        self._longest = max(self._longest, longest)
        if self._bytes >= self._landing.part_bytes:
            self.close_part()

    def close_part(self) -> None:
        """Close the open part, if any, and hand it on."""
        if self._file is None:
            return
        path = self._path()
        target = self._landing.local_target(path)
        with self._landing._guard(self._base):
            self._file.close()
            self._landing.upload(target, path)
        is_plain = self._suffix == ".csv"
        part = Part(
            file=Path(path).name,
            rows=self._rows,
            bytes=self._bytes if is_plain else target.stat().st_size,
            sha256=self._digest.hexdigest() if is_plain else _sha256(target),
            longest=self._longest,
        )
        self.parts.append(part)
        self._file = None
        self._digest = hashlib.sha256()
        self._rows = self._bytes = self._longest = 0
        self.on_part(part, target)

    def finish(self, manifest: Manifest) -> None:
        """Write the schema, then the manifest: from here on the export exists.

        A later reading of the same refresh that another run has finished meanwhile stays.
        """
        other = self._landing._finished(self._folder, self._base)
        if other is not None and other.snapshot_at > manifest.snapshot_at:
            return
        data = manifest.to_json()
        schema = {key: data[key] for key in ("table", "primary_key", "columns")}
        try:
            with self._landing._guard(self._base):
                self._landing.put_text(f"{self._folder}/{self._base}.schema.json", schema)
                self._landing.put_text(f"{self._folder}/{self._base}{_MANIFEST}", data)
        except LandingFault:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop what was written; nothing points at it."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._landing.local_target(self._path()).unlink(missing_ok=True)
            self._file = None
        for part in self.parts:
            with suppress(LandingFault), self._landing._guard(self._base):
                self._landing.delete(f"{self._folder}/{part.file}")

    def _path(self) -> str:
        return f"{self._folder}/{self._base}_{len(self.parts)}-{self._token}{self._suffix}"

    def _open(self) -> IO[bytes]:
        target = self._landing.local_target(self._path())
        file = private_file(target)
        if self._suffix == ".csv":
            return file
        file.close()
        return gzip.open(target, "wb", compresslevel=1)  # type: ignore[return-value]


def private_folder(path: Path) -> Path:
    """Create a folder, and those above it that are missing, readable by its owner only."""
    while not path.is_dir():
        private_folder(path.parent)
        with suppress(FileNotFoundError):  # an empty parent may be swept meanwhile
            path.mkdir(mode=0o700, exist_ok=True)
    return path


def private_file(path: Path) -> IO[bytes]:
    """Open a new file for writing, readable by its owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=1 << 20)


def persist(folder: Path) -> None:
    """Wait until all that was written to a folder's file system is on its disk.

    One call for many files: an fsync of each, and of their folders, took ten times as long.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(descriptor)


def _base_name(table: str, stamp: datetime) -> str:
    return f"{names.folder_name(table)}_{stamp.astimezone(UTC):%Y%m%d}"


def _is_stamp(name: str) -> bool:
    try:
        return len(name) == 14 and bool(datetime.strptime(name, STAMP))
    except ValueError:
        return False


def _stamp_of(folder: str) -> datetime:
    return datetime.strptime(folder.rsplit("/", 1)[-1], STAMP).replace(tzinfo=UTC)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
