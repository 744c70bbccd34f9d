"""Files of landing zone, lake and documents: in a local folder or in Cloud Storage.

A place is an absolute path or a URL, ``gs://bucket/prefix``; paths are strings below it. Local
files are private and appear by rename, objects appear when their upload is complete: either is
whole or absent. What Cloud Storage kept is compared with what was sent (CRC32C of streamed files,
MD5 of small ones).

Requests are tried again, with growing pauses, on 408, 429, 5xx and broken connections; uploads are
resumable and go on where they stopped. The client is gcsfs with Application Default Credentials: it
is made here and not by an orchestrator's resource, because the command line and DuckDB, which reads
and writes through the same file system, need it where no orchestrator runs.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import io
import logging
import os
import secrets
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from traceback import walk_tb
from typing import IO, Any

from mirror_assets.mirroring.errors import (
    LandingFault,
    MirrorError,
    StorageRefused,
    WarehouseFault,
    reason,
)
from mirror_assets.mirroring.google_login import is_of_login, may_pass

#: Packages between us and a remote place.
_CLIENTS = {"fsspec", "gcsfs", "aiohttp", "google"}
#: Bytes of an upload that are held and sent at a time.
_BLOCK = 8 << 20
_GOOGLE = "gs://"
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Its log quotes object names, and those of documents are patients' ids.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL + 1)


class Storage:
    """One place, ``name`` in sentences, set by the environment variable ``setting``.

    Methods raise what the system or the client raises; use them within ``guard``.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        name: str = "the landing zone",
        setting: str = "MIRROR_LANDING",
        fault: type[MirrorError] = LandingFault,
    ) -> None:
        text = str(url)
        self.local = "://" not in text
        self.root = str(Path(text).absolute()) if self.local else text.rstrip("/")
        self._name = name
        self._setting = setting
        self._fault = fault

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system, for those that read through it."""
        return _file_system(self.root)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Faults of the place as ours, without the client's words: those quote names of objects."""
        try:
            yield
        except MirrorError:
            raise
        except Exception as error:
            if not _is_the_places(error, local=self.local):
                raise  # a defect of ours
            raise self._told(error, where) from None

    def _told(self, error: Exception, where: str) -> MirrorError:
        refusal = _refusal(error)
        if refusal:
            return StorageRefused(
                f"{self._name} refused: {refusal}",
                where=where,
                remedy="give this service account roles/storage.objectUser on the bucket of"
                f" {self._setting} (docs/operations.md, Cloud Storage), then run again",
            )
        places = self._setting if self.local else f"{self._setting} and MIRROR_SCRATCH"
        return self._fault(
            f"{self._name} failed: {_said(error)}",
            where=where,
            remedy=f"check space and rights of {places}, then run the partition again",
        )

    # -- writing

    def create(self, path: str) -> Upload:
        """A new file to be streamed; it counts once ``Upload.commit`` returned."""
        if self.local:
            private_folder(Path(path).parent)
            return _LocalUpload(path)
        return _RemoteUpload(self.fs, path)

    def put(self, objects: Mapping[str, bytes], *, half: str = "") -> None:
        """Write small files, each whole or not at all; remote ones at the same time.

        A killed process leaves a half local one beside its target, or in the folder ``half``.
        """
        if not self.local:
            self.fs.pipe(dict(objects))
            return
        for path, body in objects.items():
            _replace(Path(path), body, Path(half) if half else Path(path).parent)

    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file here."""
        with source.open("rb") as file, self.create(path) as upload:
            shutil.copyfileobj(file, upload, 1 << 20)

    def make_folder(self, folder: str) -> str:
        """Create a private folder, where there are folders."""
        if self.local:
            private_folder(Path(folder))
        return folder

    def delete(self, path: str) -> None:
        """Raises FileNotFoundError."""
        self.fs.rm_file(path)

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and all in it; it need not exist."""
        with suppress(FileNotFoundError):
            self.fs.rm(folder, recursive=True)

    def probe(self) -> None:
        """Write and delete a small file. Raises what whoever does so in earnest would meet."""
        path = f"{self.root}/.probe-{secrets.token_hex(8)}"
        with self.guard(self._name):
            self.put({path: b"probe"})
            self.delete(path)

    def persist(self) -> None:
        """Wait until what was written so far would survive a power cut.

        In which order does not matter: what refers to files that are not whole counts for nothing.
        """
        if self.local:
            persist(Path(self.root))

    # -- reading

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        body: bytes = self.fs.cat_file(path)
        return body

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file into a new private local one, block by block: each is tried again alone."""
        size = self.size(path)
        with private_file(target) as file:
            for start in range(0, size, _BLOCK):
                end = min(start + _BLOCK, size)
                block = self.fs.cat_file(path, start=start, end=end)
                if len(block) != end - start:
                    raise OSError("the service sent another number of bytes than asked for")
                file.write(block)

    def size(self, path: str) -> int:
        """Bytes. Raises FileNotFoundError."""
        return int(self.fs.size(path))

    def older(self, instant: float) -> list[str]:
        """Paths of all files here that were last written before an instant (seconds)."""
        found = self.fs.find(self.root, detail=True)
        return [
            self.fs.unstrip_protocol(path)
            for path, info in found.items()
            if info["mtime"].timestamp() < instant
        ]

    def sizes(self, folder: str, prefix: str) -> dict[str, int]:
        """Bytes of the files in a folder whose names begin so, by name: one listing for all."""
        if self.local:
            with os.scandir(folder) as entries:
                return {e.name: e.stat().st_size for e in entries if e.name.startswith(prefix)}
        found = self.fs.find(folder, prefix=prefix, detail=True)
        named = ((path.rpartition("/")[2], int(info["size"])) for path, info in found.items())
        return {name: size for name, size in named if name.startswith(prefix)}

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder, sorted; [] where there is no such folder."""
        try:
            found = self.fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return sorted({path.rstrip("/").rsplit("/", 1)[-1] for path in found})


def lake(url: str) -> Storage:
    """The lake's files, by the URL of its folder or of anything in it."""
    return Storage(url, name="the lake", setting="MIRROR_LAKE", fault=WarehouseFault)


class Upload(io.RawIOBase):
    """A file that is being written. As a context manager it is committed, or dropped on error.

    ``size`` and ``sha256`` are those of the bytes written so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        self._send(data)
        self._digest.update(data)
        self.size += length
        return length

    @abstractmethod
    def commit(self) -> None:
        """Make the file exist, as it was written."""

    @abstractmethod
    def abort(self) -> None:
        """Drop what was written; harmless after ``commit`` and when called twice."""

    @abstractmethod
    def _send(self, data: Any) -> None: ...

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            with suppress(Exception):  # the first error is the one to tell
                self.abort()


class _LocalUpload(Upload):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._file = private_file(self._path)
        self._is_open = True

    def _send(self, data: Any) -> None:
        self._file.write(data)

    def commit(self) -> None:
        self._file.close()
        self._is_open = False

    def abort(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


class _RemoteUpload(Upload):
    """An upload in blocks; nothing exists at its path before the last of them is accepted."""

    def __init__(self, fs: Any, path: str) -> None:
        import google_crc32c

        super().__init__()
        checksum: Any = google_crc32c.Checksum
        self._fs = fs
        self._path = path
        self._sum = checksum()
        self._file = fs.open(path, "wb", block_size=_BLOCK, consistency="none")

    def _send(self, data: Any) -> None:
        left = memoryview(data).cast("B")
        room = _BLOCK - self.size % _BLOCK
        while left.nbytes:  # blocks of one size: the service keeps whole quarters of a MB only
            block = bytes(left[:room])
            self._file.write(block)
            self._sum.update(block)
            left, room = left[room:], _BLOCK

    def commit(self) -> None:
        self._file.close()
        self._verify()

    def _verify(self) -> None:
        stored = self._fs.info(self._path)
        sent = base64.b64encode(self._sum.digest()).decode()
        if stored["size"] != self.size or stored.get("crc32c", sent) != sent:
            with suppress(Exception):
                self._fs.rm_file(self._path)
            raise OSError("the service stored other bytes than were sent")

    def abort(self) -> None:
        # unfinished it is no object, and forgotten after a week; its finalizer would finish it
        self._file.closed = True


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


def _replace(path: Path, body: bytes, half: Path) -> None:
    """A local file that is whole or as it was, readable by its owner only."""
    private_folder(path.parent)
    temporary = private_folder(half) / f"{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with private_file(temporary) as file:
            file.write(body)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _file_system(url: str) -> Any:
    import fsspec  # here, because it would slow down loading the code location

    if url.startswith(_GOOGLE):
        import aiohttp

        return fsspec.get_filesystem_class("gs")(
            # never anonymous by accident: that would be refused later, and less clearly
            token="anon" if os.environ.get("STORAGE_EMULATOR_HOST") else "google_default",
            consistency="md5",
            use_listings_cache=False,
            requests_timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=120),
        )
    return fsspec.core.url_to_fs(url)[0]


def _is_the_places(error: Exception, *, local: bool) -> bool:
    """Whether a place or its client raised an error; clients may raise anything."""
    if local or isinstance(error, OSError):
        return isinstance(error, OSError)
    passed = (frame.f_globals.get("__name__", "") for frame, _line in walk_tb(error.__traceback__))
    return any(name.split(".")[0] in _CLIENTS for name in passed)


def _refusal(error: Exception) -> str | None:
    """Why Cloud Storage will not let us, in our words; None for every other fault."""
    status = getattr(error, "code", None)
    if type(error) is OSError and str(error).startswith("Forbidden"):
        status = 403
    if str(status) in ("401", "403"):
        return f"the credentials lack a permission (HTTP {status})"
    if is_of_login(error) and not may_pass(error):
        return "there are no valid Google credentials"
    return None


def _said(error: Exception) -> str:
    status = getattr(error, "code", None)
    return f"HTTP {status}" if str(status).isdecimal() else reason(error)
