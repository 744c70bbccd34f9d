"""Names, writes, finds and expires exports in the landing zone (a folder or Cloud Storage).

``<landing>/<database>/<YYYYMMDDHHMMSS>/<table>_<YYYYMMDD>_<n>-<token>.csv[.gz]`` beside
``<table>_<YYYYMMDD>.schema.json`` and, written last, ``<table>_<YYYYMMDD>.manifest.json``.
The folder is the instant (UTC) of the vendor's refresh, or of the snapshot of a live database;
its first eight digits are the partition. An export without a manifest does not exist.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from mirror_assets.mirroring import names
from mirror_assets.mirroring.errors import ExportCorrupt, MirrorError
from mirror_assets.mirroring.schema import Column, TableSchema
from mirror_assets.mirroring.scratch import new_scratch, remove_scratch
from mirror_assets.mirroring.storage import Storage, Upload

STAMP = "%Y%m%d%H%M%S"
PART_BYTES = 256 * 1024 * 1024
_FIRST_PART = 32 * 1024 * 1024
_MANIFEST = ".manifest.json"
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
    """The landing zone in a local folder or at a URL such as ``gs://bucket/prefix``.

    Exports are streamed into it. A part of a remote zone is copied into a private folder below
    ``scratch`` while it is read.
    """

    def __init__(self, url: str, scratch: Path, *, part_bytes: int = PART_BYTES) -> None:
        self.files = Storage(url)
        self.root = self.files.root
        self.local = self.files.local
        self.scratch = scratch
        self.part_bytes = part_bytes

    def folder(self, database: str, stamp: datetime) -> str:
        """Where all exports of one refresh or snapshot lie."""
        return f"{self.root}/{database}/{stamp.astimezone(UTC).strftime(STAMP)}"

    def uri(self, path: str) -> str:
        return f"file://{path}" if self.local else path

    # -- writing

    def writer(
        self, database: str, table: str, stamp: datetime, *, compression: str = "none"
    ) -> ExportWriter:
        """Start an export; it exists once ``ExportWriter.finish`` wrote the manifest."""
        folder = self.folder(database, stamp)
        with self.files.guard(table):
            self.files.make_folder(folder)
        return ExportWriter(self, folder, _base_name(table, stamp), compression)

    def put_text(self, path: str, data: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        self.files.put({path: json.dumps(data, indent=1, ensure_ascii=False).encode()})

    def persist(self) -> None:
        """Wait until the exports written so far would survive a power cut.

        In which order does not matter: a manifest whose files are not whole counts as none.
        """
        with self.files.guard(self.root):
            self.files.persist()

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
            with self.files.guard(database):
                names_ = self.files.names(folder)
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
    def open_part(self, manifest: Manifest, part: Part, *, known: bool = False) -> Iterator[Path]:
        """A local path of a part, verified against its checksum.

        A local part that this process has just written or checked, ``known``, is not read for that.
        """
        path = f"{self.folder(manifest.database, manifest.stamp)}/{part.file}"
        with self._local(path, manifest.table) as local:
            with self.files.guard(manifest.table):
                is_right = (self.local and known) or _sha256(local) == part.sha256
            if not is_right:
                raise ExportCorrupt(
                    f"export file {part.file} does not match its manifest",
                    where=f"{manifest.database}/{manifest.table}",
                    remedy="delete the folder's manifest and run the partition again",
                )
            yield local

    @contextmanager
    def _local(self, path: str, table: str) -> Iterator[Path]:
        """A file of the zone, or its copy for the while."""
        if self.local:
            yield Path(path)
            return
        with self.files.guard(table):
            folder = new_scratch(self.scratch)
        try:
            local = folder / Path(path).name
            with self.files.guard(table):
                self.files.fetch(path, local)
            yield local
        finally:
            remove_scratch(folder)

    # -- expiry

    def expire(self, database: str, before: date) -> list[str]:
        """Delete exports whose partition is older than ``before``; returns the folders' names."""
        gone = [f for f in self._folders(database) if _stamp_of(f).date() < before]
        for folder in gone:
            with self.files.guard(database):
                self.files.delete_folder(folder)
        return [Path(folder).name for folder in gone]

    def inventory(self, database: str) -> list[str] | None:
        """Names of the source's base tables as last seen, for catalogs that say ``tables: all``."""
        with self.files.guard(database):
            try:
                data = json.loads(self.files.read(f"{self.root}/{database}/tables.json"))
            except (FileNotFoundError, ValueError):
                return None
        return list(data["tables"])

    def save_inventory(self, database: str, tables: list[str]) -> None:
        with self.files.guard(database):
            self.put_text(f"{self.root}/{database}/tables.json", {"tables": sorted(tables)})

    # -- internals

    def _folders(self, database: str) -> list[str]:
        with self.files.guard(database):
            found = self.files.names(f"{self.root}/{database}")
        return [f"{self.root}/{database}/{name}" for name in found if _is_stamp(name)]

    def _finished(self, folder: str, base: str) -> Manifest | None:
        """The manifest of a table's export, if every part is present with the size it says."""
        with self.files.guard(base):
            try:
                manifest = Manifest.from_json(
                    json.loads(self.files.read(f"{folder}/{base}{_MANIFEST}"))
                )
                held = self.files.sizes(folder, base) if manifest.parts else {}
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
        is_whole = all(held.get(part.file) == part.bytes for part in manifest.parts)
        return manifest if is_whole else None


class ExportWriter:
    """Writes one table's records into parts of up to about ``Landing.part_bytes``.

    The first parts are smaller, so that a table of one part's size is loaded while it is read.
    Calls ``on_part(part)`` whenever a part is closed, so that it can be loaded while the next one
    is written.
    """

    def __init__(self, landing: Landing, folder: str, base: str, compression: str) -> None:
        self._landing = landing
        self._folder = folder
        self._base = base
        self._token = secrets.token_hex(3)
        self._suffix = ".csv.gz" if compression == "gzip" else ".csv"
        self._upload: Upload | None = None
        self._gzip: gzip.GzipFile | None = None
        self._rows = self._bytes = self._longest = 0
        self.parts: list[Part] = []
        self.on_part: Callable[[Part], None] = lambda _part: None

    def write(self, data: bytes, rows: int, longest: int) -> None:
        """Append whole records. ``longest`` is the longest of them in bytes."""
        with self._landing.files.guard(self._base):
            upload = self._upload or self._open()
            (self._gzip or upload).write(data)
        self._rows += rows
        self._bytes += len(data)
        self._longest = max(self._longest, longest)
        if self._bytes >= min(self._landing.part_bytes, _FIRST_PART << len(self.parts)):
            self.close_part()

    def close_part(self) -> None:
        """Close the open part, if any, and hand it on."""
        upload = self._upload
        if upload is None:
            return
        with self._landing.files.guard(self._base):
            if self._gzip is not None:
                self._gzip.close()
            upload.commit()
        part = Part(
            file=self._file(),
            rows=self._rows,
            bytes=upload.size,
            sha256=upload.sha256,
            longest=self._longest,
        )
        self.parts.append(part)
        self._upload = self._gzip = None
        self._rows = self._bytes = self._longest = 0
        self.on_part(part)

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
            with self._landing.files.guard(self._base):
                self._landing.put_text(f"{self._folder}/{self._base}.schema.json", schema)
                self._landing.put_text(f"{self._folder}/{self._base}{_MANIFEST}", data)
        except MirrorError:
            self.abort()
            raise

    def abort(self) -> None:
        """Drop what was written; nothing points at it."""
        files = self._landing.files
        if self._upload is not None:
            with suppress(MirrorError), files.guard(self._base):
                self._upload.abort()
            self._upload = self._gzip = None
        for part in self.parts:
            with suppress(MirrorError), files.guard(self._base):
                files.delete(f"{self._folder}/{part.file}")

    def _file(self) -> str:
        return f"{self._base}_{len(self.parts)}-{self._token}{self._suffix}"

    def _open(self) -> Upload:
        self._upload = self._landing.files.create(f"{self._folder}/{self._file()}")
        if self._suffix == ".csv.gz":
            self._gzip = gzip.GzipFile("", "wb", 1, self._upload)
        return self._upload


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
