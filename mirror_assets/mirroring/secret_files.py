"""Files that hold a secret: only their owner may read them.

One that no disk holds lies in memory for as long as a program reads it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from mirror_assets.mirroring.errors import SettingsError

#: A secret, or what fetches it when it is wanted.
Secret = str | Callable[[], str]
#: A file on disk, or one that is made when it is wanted.
SecretFile = Path | Callable[[], AbstractContextManager[Path]]


class NamedSecrets(Protocol):
    """The secrets and files that variables name. Both raise SettingsError, and fetch nothing."""

    def named_in_file(self, variable: str) -> Secret | None:
        """What such a file holds; None where it is not set."""

    def file(self, variable: str, *, private: bool = True) -> SecretFile | None:
        """Such a file, for a program that reads it itself; None where it is not set.

        Others may read it only where it is not ``private``.
        """


def told(secret: Secret) -> str:
    """What a secret says. Never print it. Raises SettingsError, TransientError."""
    return secret if isinstance(secret, str) else secret()


@contextmanager
def at_hand(file: SecretFile) -> Iterator[Path]:
    """Where a program finds a file, as long as this lasts."""
    if isinstance(file, Path):
        yield file
        return
    with file() as path:
        yield path


@contextmanager
def in_memory(name: str, text: str) -> Iterator[Path]:
    """A file of mode 0600 on no disk, so that no end of this process leaves it behind.

    Other processes of this user find it at the path, while this lasts.
    """
    with os.fdopen(os.memfd_create(name), "wb") as file:  # programs we start do not inherit it
        os.fchmod(file.fileno(), 0o600)
        file.write(text.encode())
        file.flush()
        yield Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def check_file(path: Path, where: str) -> Path:
    """Raises SettingsError when there is no such file."""
    if not path.is_file():
        raise SettingsError(f"{path} is not a file", where=where)
    return path


def check_private(path: Path, where: str) -> Path:
    """Raises SettingsError when there is no such file, or others can read it."""
    check_file(path, where)
    if path.stat().st_mode & 0o077:
        raise SettingsError(
            f"{path} can be read by others",
            where=where,
            remedy=f"chmod 0400 {path}; in a pod, copy it into a memory volume first",
        )
    return path
