"""The environment, read and validated once.

Every variable is listed in the README's configuration reference, which a test keeps complete.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirror_assets.mirroring import catalog
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import LandingFault, SettingsError, reason
from mirror_assets.mirroring.landing import PART_BYTES, Landing, private_folder
from mirror_assets.mirroring.warehouses import Warehouse, open_warehouse

HOME = Path(".mirror")
_PACKAGE = Path(__file__).parent
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_MEMORY = re.compile(_NUMBER.pattern + r" ?[KMGT]i?B", re.IGNORECASE)

#: Every environment variable we read, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_WAREHOUSE": (
        f"ducklake:sqlite:{HOME}/lake.sqlite",
        "where mirrored tables are published",
    ),
    "MIRROR_LAKE": (f"{HOME}/lake", "folder of the lake's Parquet files"),
    "MIRROR_LANDING": (f"{HOME}/landing", "folder or URL where exports lie until they expire"),
    "MIRROR_SCRATCH": (f"{HOME}/scratch", "private folder for spilled data; emptied on exit"),
    "MIRROR_EXTENSIONS": (f"{HOME}/duckdb", "private folder of DuckDB's extensions"),
    "MIRROR_CATALOG_PATH": (
        f"catalogs:{HOME}/catalogs",
        "folders with more `*.catalog.yaml` files, separated by `:`",
    ),
    "MIRROR_MEMORY": ("512MB", "memory limit of the typed load and of the warehouse, each"),
    "MIRROR_PART_MB": (str(PART_BYTES >> 20), "size at which an export starts its next file"),
    "MIRROR_SETTLE_MINUTES": (
        "",
        "overrides every catalog's `settle_minutes` (the demo's is short)",
    ),
    "MIRROR_DOCUMENTS": (f"{HOME}/documents", "folder or URL of the members' JSON documents"),
    "MIRROR_MEASURES_URL": ("", "base URL of the quality-measure service"),
    "MIRROR_MEASURES_URL_FILE": (f"{HOME}/secrets/measures.url", "file holding that URL"),
    "MIRROR_MEASURES_KEY_FILE": (
        f"{HOME}/secrets/measures.key",
        "file holding the service's API key, mode 0400",
    ),
    "MIRROR_LEDGER_URL_FILE": (
        "",
        "file holding a PostgreSQL URL for the delivery ledger, mode 0400; else the warehouse",
    ),
    "<NAME>_DATABASE_URL": ("", "SQLAlchemy URL of database `<name>`"),
    "<NAME>_DATABASE_PASSWORD": ("", "its password, where the URL holds none"),
    "<NAME>_DATABASE_PASSWORD_FILE": ("", "file holding that password, mode 0400"),
    "<NAME>_DATABASE_URL_FILE": (
        f"{HOME}/secrets/<name>.url",
        "file holding that URL, readable by its owner only (mode 0400)",
    ),
}


@dataclass(frozen=True)
class Settings:
    """Where everything is. Paths are absolute."""

    warehouse_url: str
    lake: Path
    landing_url: str
    documents_url: str
    scratch: Path
    extensions: Path
    catalog_folders: tuple[Path, ...]
    new_catalogs: Path
    memory: str
    part_bytes: int
    settle_minutes: float | None
    variables: Mapping[str, str] = field(repr=False)  # holds database URLs

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> Settings:
        """Raises SettingsError naming the variable."""
        env = dict(os.environ if variables is None else variables)

        def value(name: str) -> str:
            return env.get(name) or VARIABLES[name][0]

        part_mb = value("MIRROR_PART_MB")
        if not part_mb.isdecimal() or int(part_mb) == 0:
            raise SettingsError(
                f"{part_mb!r} is not a number of megabytes",
                where="MIRROR_PART_MB",
                remedy="use a whole number above 0",
            )
        memory = value("MIRROR_MEMORY")
        if not _MEMORY.fullmatch(memory):
            raise SettingsError(
                f"{memory!r} is not an amount of memory",
                where="MIRROR_MEMORY",
                remedy="use a number with its unit, such as 512MB or 2GB",
            )
        extra = [Path(part).absolute() for part in value("MIRROR_CATALOG_PATH").split(":") if part]
        for folder in extra:
            if not folder.is_dir() and env.get("MIRROR_CATALOG_PATH"):
                raise SettingsError(f"{folder} is not a folder", where="MIRROR_CATALOG_PATH")
        return cls(
            warehouse_url=_absolute_catalog(value("MIRROR_WAREHOUSE")),
            lake=Path(value("MIRROR_LAKE")).absolute(),
            landing_url=_absolute_url(value("MIRROR_LANDING")),
            documents_url=_absolute_url(value("MIRROR_DOCUMENTS")),
            scratch=Path(value("MIRROR_SCRATCH")).absolute(),
            extensions=Path(value("MIRROR_EXTENSIONS")).absolute(),
            catalog_folders=(*_domain_folders(), *extra),
            new_catalogs=extra[0],
            memory=memory,
            part_bytes=int(part_mb) << 20,
            settle_minutes=_minutes(value("MIRROR_SETTLE_MINUTES")),
            variables=env,
        )

    def databases(self) -> tuple[DatabaseSpec, ...]:
        """Every catalogued database. Raises CatalogError."""
        found = catalog.load_all(self.catalog_folders, self._inventory)
        if self.settle_minutes is None:
            return found
        return tuple(spec.with_settle_minutes(self.settle_minutes) for spec in found)

    def _inventory(self, database: str) -> list[str] | None:
        return self.landing().inventory(database)

    def database(self, name: str) -> DatabaseSpec:
        """One catalogued database. Raises SettingsError listing the known ones."""
        known = {spec.name: spec for spec in self.databases()}
        if name not in known:
            raise SettingsError(
                f"no database {name!r} is catalogued",
                remedy=f"use one of: {', '.join(known) or '(none)'}",
            )
        return known[name]

    def database_url(self, name: str) -> str:
        """The URL of a database, from ``<NAME>_DATABASE_URL`` or its file. Never print it."""
        variable = f"{name.upper()}_DATABASE_URL"
        default = HOME / "secrets" / f"{name}.url"
        url = self.variables.get(variable) or self._secret(f"{variable}_FILE", default)
        if url is None:
            raise SettingsError(
                f"neither {variable} nor {variable}_FILE names the database",
                where=f"database {name}",
                remedy=f"set {variable}_FILE to a file of mode 0400 that holds its URL",
            )
        return self.with_password(name, url)

    def secret(self, variable: str) -> str | None:
        """The contents of the file that a variable names; None where it is not set."""
        return self._secret(variable, None)

    def measures_url(self) -> str | None:
        """The quality-measure service; None where neither a variable nor a file names it."""
        file = "MIRROR_MEASURES_URL_FILE"
        return self.variables.get("MIRROR_MEASURES_URL") or self._secret(
            file, Path(VARIABLES[file][0])
        )

    def measures_key(self) -> str | None:
        """The quality-measure service's API key; None where no file holds one. Never print it."""
        variable = "MIRROR_MEASURES_KEY_FILE"
        return self._secret(variable, Path(VARIABLES[variable][0]))

    def ledger_url(self) -> str | None:
        """The delivery ledger's PostgreSQL; None where the warehouse keeps it. Never print it."""
        return self.secret("MIRROR_LEDGER_URL_FILE")

    def with_password(self, name: str, url: str) -> str:
        """A URL, completed by ``<NAME>_DATABASE_PASSWORD`` or its file where it holds none."""
        variable = f"{name.upper()}_DATABASE_PASSWORD"
        password = self.variables.get(variable) or self._secret(f"{variable}_FILE", None)
        if password is None:
            return url
        # here: slow to import, rarely needed
        from mirror_assets.mirroring.sources.common import parsed

        address = parsed(url, name, "kind+driver://user@host/database")
        if address.password is not None:
            return url
        return address.set(password=password).render_as_string(hide_password=False)

    def _secret(self, variable: str, default: Path | None) -> str | None:
        """The contents of a secret file; None when no such file is named or there by default."""
        stated = self.variables.get(variable)
        path = Path(stated) if stated else default
        if path is None or not path.is_file():
            if stated:
                raise SettingsError(f"{path} is not a file", where=variable)
            return None
        if path.stat().st_mode & 0o077:
            raise SettingsError(
                f"{path} can be read by others", where=variable, remedy=f"chmod 0400 {path}"
            )
        return path.read_text(encoding="utf-8").strip()

    def landing(self) -> Landing:
        return Landing(self.landing_url, self.scratch, part_bytes=self.part_bytes)

    def warehouse(self) -> Warehouse:
        return open_warehouse(
            self.warehouse_url, lake=self.lake, extensions=self.extensions, memory=self.memory
        )

    def new_scratch(self) -> Path:
        """A private folder for one run; remove it with ``remove_scratch``. Raises LandingFault."""
        try:
            return private_folder(self.scratch / f"{os.getpid()}-{secrets.token_hex(4)}")
        except OSError as error:
            raise LandingFault(
                f"no scratch folder could be made: {reason(error)}",
                where=str(self.scratch),
                remedy="check space and rights of MIRROR_SCRATCH, then run the partition again",
            ) from None


def sweep_scratch(folder: Path, *, older_than_hours: float = 24) -> int:
    """Delete what killed runs left in the scratch folder; how many folders that were."""
    oldest = time.time() - older_than_hours * 3600
    left = [path for path in folder.glob("*") if path.stat().st_mtime < oldest]
    for path in left:
        remove_scratch(path)
    return len(left)


def remove_scratch(folder: Path) -> None:
    """Delete a scratch folder and all in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _minutes(text: str) -> float | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise SettingsError(
            f"{text!r} is not a number of minutes",
            where="MIRROR_SETTLE_MINUTES",
            remedy="use a number such as 0.2, or leave it unset",
        )
    return float(text)


def _domain_folders() -> tuple[Path, ...]:
    """Packages of this project that declare a database."""
    return tuple(sorted(path.parent for path in _PACKAGE.glob("*/catalog.yaml")))


def _absolute_url(text: str) -> str:
    """A URL as it is, a folder as an absolute path."""
    return text if "://" in text else str(Path(text).absolute())


def _absolute_catalog(url: str) -> str:
    prefix = "ducklake:sqlite:"
    return f"{prefix}{Path(url.removeprefix(prefix)).absolute()}" if url.startswith(prefix) else url
