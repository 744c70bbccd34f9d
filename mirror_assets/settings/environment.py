"""Where everything is: the environment, read and validated once, all its faults at a time.

Every variable is listed in the README's configuration reference (``configuration.py`` writes it).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar, get_args

from mirror_assets.mirroring import catalog, scratch
from mirror_assets.mirroring.catalog import BackupRule, DatabaseSpec
from mirror_assets.mirroring.errors import (
    CatalogError,
    LandingFault,
    MirrorError,
    SettingsError,
    reason,
)
from mirror_assets.mirroring.landing import PART_BYTES, Landing
from mirror_assets.mirroring.secret_files import Secret, told
from mirror_assets.mirroring.warehouses import Warehouse, check_address, open_warehouse
from mirror_assets.settings.secrets import Secrets

T = TypeVar("T")
Environment = Literal["local", "production"]

HOME = Path(".mirror")
_PACKAGE = Path(__file__).parents[1]
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_MEMORY = re.compile(_NUMBER.pattern + r" ?[KMGT]i?B", re.IGNORECASE)

#: Places whose defaults are a laptop's: production names each of them.
_STATED_IN_PRODUCTION = (
    "MIRROR_WAREHOUSE",
    "MIRROR_LAKE",
    "MIRROR_LANDING",
    "MIRROR_DOCUMENTS",
    "MIRROR_CATALOG_PATH",
)

#: What the quality-measure service bears.
MOST_CONNECTIONS = 15

#: Every environment variable we read, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_ENVIRONMENT": (
        "local",
        "`production`: nothing is left to a laptop's defaults, and every database must be reachable"
        " by a stated connection",
    ),
    "MIRROR_DATABASES": ("", "the databases to mirror, separated by commas; unset: all catalogued"),
    "MIRROR_WAREHOUSE": (
        f"ducklake:sqlite:{HOME}/lake.sqlite",
        "where mirrored tables are published",
    ),
    "MIRROR_WAREHOUSE_PASSWORD": ("", "password of a lake's catalog in PostgreSQL"),
    "MIRROR_WAREHOUSE_PASSWORD_FILE": ("", "file holding that password, mode 0400"),
    "MIRROR_LAKE": (f"{HOME}/lake", "folder or `gs://` URL of the lake's Parquet files"),
    "MIRROR_LANDING": (
        f"{HOME}/landing",
        "folder or `gs://` URL where exports lie until they expire",
    ),
    "MIRROR_SCRATCH": (
        f"{HOME}/scratch",
        "private local folder for spilled data and copies of single files; emptied on exit",
    ),
    "MIRROR_EXTENSIONS": (f"{HOME}/duckdb", "private folder of DuckDB's extensions"),
    "MIRROR_CATALOG_PATH": (
        f"catalogs:{HOME}/catalogs",
        "folders with more `*.catalog.yaml` files, separated by `:`",
    ),
    "MIRROR_MEMORY": ("512MB", "memory limit of the typed load and of the warehouse, each"),
    "MIRROR_SPILL": ("20GB", "limit of what each of the two spills into the scratch folder"),
    "MIRROR_PART_MB": (str(PART_BYTES >> 20), "size at which an export starts its next file"),
    "MIRROR_SETTLE_MINUTES": (
        "",
        "overrides every catalog's `settle_minutes` (the demo's is short)",
    ),
    "MIRROR_DOCUMENTS": (
        f"{HOME}/documents",
        "folder or `gs://` URL of the members' JSON documents",
    ),
    "MIRROR_FHIR": ("", "`1`: beside each member's document, the same as a FHIR R4 `Bundle`"),
    "MIRROR_DERIVED_DAYS": (
        "",
        "days that `medical.patient_encounters`, dbt's copies and `dbt_audit` are kept, the newest"
        " of each always; unset: all",
    ),
    "MIRROR_MEASURES_URL": ("", "base URL of the quality-measure service"),
    "MIRROR_MEASURES_URL_FILE": (f"{HOME}/secrets/measures.url", "file holding that URL"),
    "MIRROR_MEASURES_KEY_FILE": (
        f"{HOME}/secrets/measures.key",
        "file holding the service's API key, mode 0400",
    ),
    "MIRROR_MEASURES_CONNECTIONS": (
        str(MOST_CONNECTIONS),
        f"posts at a time, up to {MOST_CONNECTIONS}: with more its database has run out of"
        " connections",
    ),
    "MIRROR_MEASURES_PER_SECOND": ("", "posts per second at most; unset: as many as it answers"),
    "MIRROR_LEDGER_URL_FILE": (
        "",
        "file holding a PostgreSQL URL for the delivery ledger, mode 0400; else the warehouse",
    ),
    "<NAME>_BACKUP": (
        "",
        "`postgres`, `aptible:<handle>` or `live`: whether database `<name>` is read from a"
        " restored backup, and whose; unset: as its catalog says",
    ),
    "<NAME>_DATABASE_URL": ("", "SQLAlchemy URL of database `<name>`"),
    "<NAME>_DATABASE_PASSWORD": ("", "its password, where the URL holds none"),
    "<NAME>_DATABASE_PASSWORD_FILE": ("", "file holding that password, mode 0400"),
    "<NAME>_DATABASE_URL_FILE": (
        f"{HOME}/secrets/<name>.url",
        "file holding that URL, readable by its owner only (mode 0400)",
    ),
}

_MEASURES_URL, _MEASURES_KEY = (
    Path(VARIABLES[name][0]) for name in ("MIRROR_MEASURES_URL_FILE", "MIRROR_MEASURES_KEY_FILE")
)


@dataclass(frozen=True)
class Settings:
    """Where everything is. Paths are absolute; ``lake`` is one, or a ``gs://`` URL."""

    environment: Environment
    chosen: tuple[str, ...]
    warehouse_url: str
    lake: str
    landing_url: str
    documents_url: str
    fhir: bool
    scratch: Path
    extensions: Path
    catalog_folders: tuple[Path, ...]
    new_catalogs: Path
    memory: str
    spill: str
    part_bytes: int
    settle_minutes: float | None
    derived_days: int | None
    measures_connections: int
    measures_per_second: float | None
    variables: Mapping[str, str] = field(repr=False)  # holds database URLs

    @classmethod
    def from_env(cls, variables: Mapping[str, str] | None = None) -> Settings:
        """Raises SettingsError naming every variable that is missing or wrong."""
        settings, faults = cls.read(variables)
        refuse(faults)
        return settings

    @classmethod
    def read(
        cls, variables: Mapping[str, str] | None = None
    ) -> tuple[Settings, list[SettingsError]]:
        """The settings, with defaults in the place of wrong values, and every fault."""
        env = dict(os.environ if variables is None else variables)
        faults: list[SettingsError] = []

        def value(name: str) -> str:
            return env.get(name) or VARIABLES[name][0]

        def parsed(name: str, parse: Callable[[str], T]) -> T:
            try:
                return parse(value(name))
            except SettingsError as error:
                faults.append(SettingsError(error.what, where=name, remedy=error.remedy))
                return parse(VARIABLES[name][0])

        environment = parsed("MIRROR_ENVIRONMENT", _environment)
        if environment == "production":
            faults += [_unstated(name) for name in _STATED_IN_PRODUCTION if not env.get(name)]
        folders = parsed("MIRROR_CATALOG_PATH", _folders)
        settings = cls(
            environment=environment,
            chosen=_words(value("MIRROR_DATABASES")),
            warehouse_url=_absolute_catalog(value("MIRROR_WAREHOUSE")),
            lake=_absolute_url(value("MIRROR_LAKE")),
            landing_url=_absolute_url(value("MIRROR_LANDING")),
            documents_url=_absolute_url(value("MIRROR_DOCUMENTS")),
            fhir=parsed("MIRROR_FHIR", _switch),
            scratch=Path(value("MIRROR_SCRATCH")).absolute(),
            extensions=Path(value("MIRROR_EXTENSIONS")).absolute(),
            catalog_folders=(*_domain_folders(), *folders),
            new_catalogs=folders[0],
            memory=parsed("MIRROR_MEMORY", _memory),
            spill=parsed("MIRROR_SPILL", _memory),
            part_bytes=parsed("MIRROR_PART_MB", _megabytes) << 20,
            settle_minutes=parsed("MIRROR_SETTLE_MINUTES", _minutes),
            derived_days=parsed("MIRROR_DERIVED_DAYS", _days),
            measures_connections=parsed("MIRROR_MEASURES_CONNECTIONS", _connections),
            measures_per_second=parsed("MIRROR_MEASURES_PER_SECOND", _rate),
            variables=env,
        )
        return settings, [*faults, *settings._mixed_places()]

    def _mixed_places(self) -> Iterator[SettingsError]:
        """Places that lie in each other: each is swept of what it does not know."""
        places = {
            "MIRROR_LAKE": self.lake,
            "MIRROR_LANDING": self.landing_url,
            "MIRROR_DOCUMENTS": self.documents_url,
            "MIRROR_SCRATCH": str(self.scratch),
        }
        for (one, its), (other, others) in combinations(places.items(), 2):
            if f"{its}/".startswith(f"{others}/") or f"{others}/".startswith(f"{its}/"):
                yield SettingsError(
                    f"{one} ({its}) and {other} ({others}) lie in each other",
                    where=one,
                    remedy="give each a folder or prefix of its own: what one of them does not"
                    " know is deleted from it",
                )

    def faults(self) -> Iterator[MirrorError]:
        """What is wrong with what is used later, the databases aside. Asks no server."""
        secrets = self.secrets
        yield from tried(
            lambda: check_address(self.warehouse_url, self.lake),
            lambda: secrets.named("MIRROR_WAREHOUSE_PASSWORD"),
            lambda: secrets.named("MIRROR_MEASURES_URL", _MEASURES_URL),
            lambda: secrets.named_in_file("MIRROR_MEASURES_KEY_FILE", _MEASURES_KEY),
            lambda: secrets.named_in_file("MIRROR_LEDGER_URL_FILE"),
        )

    @cached_property
    def secrets(self) -> Secrets:
        return Secrets(self.variables)

    def databases(self) -> tuple[DatabaseSpec, ...]:
        """Every catalogued database, or the chosen ones. Raises CatalogError, SettingsError."""
        found = self._chosen(catalog.load_all(self.catalog_folders, self._inventory))
        found = tuple(self._with_backup(spec) for spec in found)
        if self.settle_minutes is None:
            return found
        return tuple(spec.with_settle_minutes(self.settle_minutes) for spec in found)

    def _with_backup(self, spec: DatabaseSpec) -> DatabaseSpec:
        """A database whose backup the environment decides about."""
        variable = f"{spec.name.upper()}_BACKUP"
        stated = self.variables.get(variable)
        if not stated:
            return spec
        try:
            return spec.with_backup(BackupRule.parse(stated, spec.entry.backup))
        except (ValueError, CatalogError) as error:
            fault = error.what if isinstance(error, CatalogError) else f"{stated!r} is not allowed"
            raise SettingsError(
                fault, where=variable, remedy="use `postgres`, `aptible:<handle>` or `live`"
            ) from None

    def _chosen(self, found: tuple[DatabaseSpec, ...]) -> tuple[DatabaseSpec, ...]:
        unknown = set(self.chosen) - {spec.name for spec in found}
        if unknown:
            raise SettingsError(
                f"no catalog declares {sorted(unknown)[0]!r}",
                where="MIRROR_DATABASES",
                remedy=f"use some of: {', '.join(spec.name for spec in found)}",
            )
        return tuple(spec for spec in found if not self.chosen or spec.name in self.chosen)

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

    def names_database(self, name: str) -> bool:
        """Whether the environment says how a database is reached; asks nobody."""
        return self.secrets.stated(_url_variable(name), _url_file(name))

    def named_url(self, name: str) -> Secret | None:
        """The URL of a database, from ``<NAME>_DATABASE_URL`` or its file; fetches none."""
        return self.secrets.named(_url_variable(name), _url_file(name))

    def database_url(self, name: str) -> str:
        """The URL of a database, completed. Never print it."""
        url = self.named_url(name)
        if url is None:
            raise unnamed(name)
        return self.with_password(name, told(url))

    def secret(self, variable: str) -> str | None:
        """The contents of the file that a variable names; None where it is not set."""
        return self.secrets.in_file(variable)

    def names_measures(self) -> bool:
        """Whether a variable or a file names the quality-measure service; asks nobody."""
        return self.secrets.stated("MIRROR_MEASURES_URL", _MEASURES_URL)

    def measures_url(self) -> str | None:
        """The quality-measure service; None where neither a variable nor a file names it."""
        return self.secrets.value("MIRROR_MEASURES_URL", _MEASURES_URL)

    def measures_key(self) -> str | None:
        """The quality-measure service's API key; None where no file holds one. Never print it."""
        return self.secrets.in_file("MIRROR_MEASURES_KEY_FILE", _MEASURES_KEY)

    def ledger_url(self) -> str | None:
        """The delivery ledger's PostgreSQL; None where the warehouse keeps it. Never print it."""
        return self.secret("MIRROR_LEDGER_URL_FILE")

    def warehouse_password(self) -> str | None:
        """The password of a lake's catalog in PostgreSQL. Never print it."""
        return self.secrets.value("MIRROR_WAREHOUSE_PASSWORD")

    def with_password(self, name: str, url: str) -> str:
        """A URL, completed by ``<NAME>_DATABASE_PASSWORD`` or its file where it holds none."""
        password = self.secrets.value(f"{name.upper()}_DATABASE_PASSWORD")
        if password is None:
            return url
        # here: slow to import, rarely needed
        from mirror_assets.mirroring.sources.common import parsed

        address = parsed(url, name, "kind+driver://user@host/database")
        if address.password is not None:
            return url
        return address.set(password=password).render_as_string(hide_password=False)

    def landing(self) -> Landing:
        return Landing(self.landing_url, self.scratch, part_bytes=self.part_bytes)

    def warehouse(self) -> Warehouse:
        return open_warehouse(
            self.warehouse_url,
            lake=self.lake,
            extensions=self.extensions,
            scratch=self.scratch,
            memory=self.memory,
            spill=self.spill,
            password=self.warehouse_password(),
        )

    def new_scratch(self) -> Path:
        """A private folder for one run; remove it with ``remove_scratch``. Raises LandingFault."""
        try:
            return scratch.new_scratch(self.scratch)
        except OSError as error:
            raise LandingFault(
                f"no scratch folder could be made: {reason(error)}",
                where=str(self.scratch),
                remedy="check space and rights of MIRROR_SCRATCH, then run the partition again",
            ) from None


def tried(*checks: Callable[[], object]) -> Iterator[MirrorError]:
    """What each of some checks raises."""
    for check in checks:
        try:
            check()
        except MirrorError as error:
            yield error


def refuse(faults: Sequence[MirrorError]) -> None:
    """Raise the one fault there is, or one that lists them all."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        listed = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, start=1))
        raise SettingsError(f"{len(faults)} settings are wrong: {listed}", where="environment")


def unnamed(name: str) -> SettingsError:
    """A database that the environment says nothing of."""
    variable = _url_variable(name)
    return SettingsError(
        f"neither {variable} nor {variable}_FILE names the database",
        where=f"database {name}",
        remedy=f"set {variable}_FILE to a file of mode 0400 that holds its URL",
    )


def _url_variable(name: str) -> str:
    return f"{name.upper()}_DATABASE_URL"


def _url_file(name: str) -> Path:
    return HOME / "secrets" / f"{name}.url"


def _unstated(name: str) -> SettingsError:
    return SettingsError(
        "is not set, and production takes no default for it",
        where=name,
        remedy=f"set it: {VARIABLES[name][1]}",
    )


def _environment(text: str) -> Environment:
    known: dict[str, Environment] = {word: word for word in get_args(Environment)}
    if text not in known:
        raise SettingsError(f"{text!r} is no environment", remedy=f"use {' or '.join(known)}")
    return known[text]


def _folders(text: str) -> list[Path]:
    """Folders of catalogs; those of the default need not be there."""
    folders = [Path(part).absolute() for part in text.split(":") if part]
    missing = [folder for folder in folders if not folder.is_dir()]
    if text != VARIABLES["MIRROR_CATALOG_PATH"][0] and missing:
        raise SettingsError(f"{missing[0]} is not a folder")
    return folders


def _memory(text: str) -> str:
    if not _MEMORY.fullmatch(text):
        raise SettingsError(
            f"{text!r} is not an amount of memory or disk",
            remedy="use a number with its unit, such as 512MB or 2GB",
        )
    return text


def _megabytes(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(
            f"{text!r} is not a number of megabytes", remedy="use a whole number above 0"
        )
    return int(text)


def _minutes(text: str) -> float | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise SettingsError(
            f"{text!r} is not a number of minutes",
            remedy="use a number such as 0.2, or leave it unset",
        )
    return float(text)


def _switch(text: str) -> bool:
    if text not in ("", "0", "1"):
        raise SettingsError(f"{text!r} is neither 0 nor 1", remedy="use 1, or leave it unset")
    return text == "1"


def _days(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise SettingsError(
            f"{text!r} is not a number of days",
            remedy="use a whole number above 0, or leave it unset to keep all",
        )
    return int(text)


def _connections(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CONNECTIONS:
        raise SettingsError(
            f"{text!r} is not a number of connections",
            remedy=f"use a whole number from 1 to {MOST_CONNECTIONS}",
        )
    return int(text)


def _rate(text: str) -> float | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or float(text) == 0:
        raise SettingsError(
            f"{text!r} is not a number of posts per second",
            remedy="use a number above 0, or leave it unset for no limit",
        )
    return float(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _domain_folders() -> tuple[Path, ...]:
    """Packages of this project that declare a database."""
    return tuple(sorted(path.parent for path in _PACKAGE.glob("*/catalog.yaml")))


def _absolute_url(text: str) -> str:
    """A URL as it is, a folder as an absolute path; without a slash at its end."""
    return text.rstrip("/") if "://" in text else str(Path(text).absolute())


def _absolute_catalog(url: str) -> str:
    prefix = "ducklake:sqlite:"
    return f"{prefix}{Path(url.removeprefix(prefix)).absolute()}" if url.startswith(prefix) else url
