"""Which databases are read from a restored backup, and with whose help, as the environment says.

``<NAME>_BACKUP`` decides, else the catalog's ``backup``: so one catalog serves a laptop that reads
the database live and a production that must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, SettingsError
from mirror_assets.mirroring.scratch import COPIES
from mirror_assets.mirroring.secret_files import Secret
from mirror_assets.mirroring.sources import (
    Provider,
    secured,
    sweep,
)
from mirror_assets.settings.connections import address
from mirror_assets.settings.environment import Settings, tried

#: Every environment variable of the providers, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "APTIBLE_USER": ("", "user of Aptible, without a second factor, who may back up and restore"),
    "APTIBLE_USER_FILE": ("", "file holding that user's name, mode 0400"),
    "APTIBLE_PASSWORD": ("", "that user's password"),
    "APTIBLE_PASSWORD_FILE": ("", "file holding that password, mode 0400"),
    "APTIBLE_API_ROOT_URL": ("https://api.aptible.com", "where Aptible's API is"),
    "APTIBLE_AUTH_ROOT_URL": ("https://auth.aptible.com", "where it hands out tokens"),
}
_ROOTS = ("APTIBLE_API_ROOT_URL", "APTIBLE_AUTH_ROOT_URL")


def provider(settings: Settings, spec: DatabaseSpec) -> Provider:
    """Who makes and restores the backups of a database that is read from one.

    Aptible is asked for nothing yet, nor is Secret Manager for its user. Raises SettingsError; of
    a database that is dumped also SecretsUnavailable.
    """
    # imported here: nobody waits for a provider that is not asked
    if is_elsewhere(spec):
        from mirror_assets.mirroring.sources.aptible import AptibleProvider, AptibleUser

        user, password = (_secret(settings, name) for name in ("APTIBLE_USER", "APTIBLE_PASSWORD"))
        api, auth = (settings.variables.get(name) or VARIABLES[name][0] for name in _ROOTS)
        return AptibleProvider(spec, AptibleUser(user, password, api, auth), settings.scratch)
    from mirror_assets.mirroring.sources.dumped import DumpProvider

    there = address(settings, spec.name)
    secure = replace(there, url=secured(spec, there.url))
    return DumpProvider(spec, secure, copies_folder(settings))


def is_elsewhere(spec: DatabaseSpec) -> bool:
    """Whether a provider knows the way to a database, so that no URL of ours does."""
    return spec.entry.backup is not None and spec.entry.backup.provider == "aptible"


def faults(settings: Settings, spec: DatabaseSpec) -> Iterator[MirrorError]:
    """What is wrong with the provider of a database that is read from a backup. Asks no server."""
    if is_elsewhere(spec):
        yield from tried(lambda: provider(settings, spec))


def _secret(settings: Settings, name: str) -> Secret:
    found = settings.secrets.named(name)
    if not found:
        raise SettingsError(
            "Aptible's API needs it, and it is not set",
            where=name,
            remedy=f"set {name}_FILE to a file of mode 0400 that holds it",
        )
    return found


def copies_folder(settings: Settings) -> Path:
    """Where the private servers of restored copies lie."""
    return settings.scratch / COPIES


def restored(settings: Settings) -> list[tuple[DatabaseSpec, float]]:
    """The databases that are read from a backup, and the hours after which a copy is left over."""
    return [
        (spec, spec.entry.backup.leftover_hours)
        for spec in settings.databases()
        if spec.entry.backup is not None
    ]


def sweep_leftovers(
    settings: Settings, spec: DatabaseSpec, is_running: Callable[[str], bool]
) -> dict[str, MirrorError | None]:
    """Remove them: by handle, None or why one is still there. ``is_running``: whether the run is
    whose id begins so.
    """
    return sweep(spec, provider(settings, spec), datetime.now(UTC), is_running)
