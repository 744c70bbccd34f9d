"""Private local folders for what does not fit into memory and for copies of single remote files.

Nothing of a row outlives its process there: a folder is removed on every exit, and that of a killed
process by the next one that takes a folder. A lock that dies with its process tells them apart.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mirror_assets.mirroring.storage import private_file, private_folder

#: Restored copies of databases, which have a sweeper of their own: servers may run there.
COPIES = "copies"
_LOCK = ".lock"
_held: dict[Path, IO[bytes]] = {}


def new_scratch(root: Path) -> Path:
    """A private folder of this process; what killed ones left is removed. Raises OSError."""
    sweep_scratch(root)
    while True:
        folder = private_folder(root) / f"{os.getpid()}-{secrets.token_hex(4)}"
        lock = private_file(_lock_of(folder))
        try:
            if _is_mine(lock):
                private_folder(folder)
                _held[folder] = lock
                return folder
        except BaseException:
            _lock_of(folder).unlink(missing_ok=True)
            lock.close()
            raise
        lock.close()


def remove_scratch(folder: Path) -> None:
    """Delete a scratch folder and all in it."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)
    lock = _held.pop(folder, None)
    if lock is not None:
        lock.close()


def sweep_scratch(root: Path, *, older_than_hours: float = 24) -> int:
    """Delete the folders of dead processes, and old ones of nobody; how many they were."""
    swept = 0
    for lock in root.glob(f"*{_LOCK}"):
        with suppress(OSError), lock.open("rb") as file:  # an owner that lives keeps it locked
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_scratch(lock.with_suffix(""))
            swept += 1
    oldest = time.time() - older_than_hours * 3600
    for folder in root.glob("*"):
        if folder.name == COPIES:
            continue
        with suppress(OSError):
            if not _lock_of(folder).exists() and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
                swept += 1
    return swept


def limit_spill(connection: Any, limit: str) -> None:
    """Let a DuckDB connection spill at most ``limit`` (for example ``20GB``).

    Given to ``connect`` as a part of its configuration, the limit is shown and not kept (1.5.5).
    """
    connection.execute("SET max_temp_directory_size = ?", [limit])


def _is_mine(lock: IO[bytes]) -> bool:
    """Take the lock, unless a sweeper was faster."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(lock.fileno()).st_nlink > 0
    return False


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
