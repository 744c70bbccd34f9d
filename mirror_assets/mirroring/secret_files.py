"""Files that hold a secret: only their owner may read them."""

from __future__ import annotations

from pathlib import Path

from mirror_assets.mirroring.errors import SettingsError


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
