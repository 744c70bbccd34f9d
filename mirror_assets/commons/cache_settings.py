"""Which job fills Commons' encounter cache, read from the environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mirror_assets.commons.encounter_cache import (
    CacheTable,
    error_link,
)
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.remote_job import RemoteJob, read_job
from mirror_assets.mirroring.sources import secured
from mirror_assets.settings import Settings
from mirror_assets.settings.connections import address

#: Every environment variable of the cache job, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_CACHE_JOB_URL": ("", "hook that runs the job while it answers a POST"),
    "MIRROR_CACHE_JOB_SECRET_FILE": ("", "file holding the hook's bearer secret, mode 0400"),
    "MIRROR_CACHE_JOB_HOST": ("", "user@host[:port] to run the command on, by SSH"),
    "MIRROR_CACHE_JOB_IDENTITY": (
        "",
        "private key file for that host, mode 0400 or 0600, or sm://..",
    ),
    "MIRROR_CACHE_JOB_KNOWN_HOSTS": ("", "known_hosts file with that host's key, or sm://.."),
    "MIRROR_CACHE_JOB_COMMAND": ("", "the command, there; without a host, on this machine"),
    "MIRROR_CACHE_JOB_MINUTES": ("60", "minutes from the start until its rows must be there"),
    "MIRROR_CACHE_JOB_WAIT_MINUTES": (
        "60",
        "minutes to wait for the other EHR's clinical summaries before running without them",
    ),
    "MIRROR_CACHE_ERRORS_LINK": (
        "https://console.cloud.google.com/errors;filter={filter}",
        "address of the error report, with {filter}, and {since} and {until} where wanted",
    ),
    "MIRROR_CACHE_ERRORS_FILTER": ("cacheCcdEncounter", "what to look for there"),
}
_MINUTES = re.compile(r"[0-9]{1,5}(\.[0-9]+)?")
_Value = Callable[[str], str]


@dataclass(frozen=True)
class CacheSettings:
    """The job, and how long it may take; seconds."""

    job: RemoteJob
    seconds: float
    wait_seconds: float
    template: str
    error_filter: str

    @classmethod
    def from_env(cls, settings: Settings) -> CacheSettings | None:
        """None when no job is named: off. Raises SettingsError naming the variable."""
        env = settings.variables

        def value(name: str) -> str:
            return env.get(name) or VARIABLES[name][0]

        job = read_job(value, settings.secrets, "MIRROR_CACHE_JOB")
        if job is None:
            return None
        minutes = _number(value, "MIRROR_CACHE_JOB_MINUTES")
        if minutes == 0:
            raise SettingsError("the job has no time", where="MIRROR_CACHE_JOB_MINUTES")
        return cls(
            job=job,
            seconds=60 * minutes,
            wait_seconds=60 * _number(value, "MIRROR_CACHE_JOB_WAIT_MINUTES"),
            template=_template(value, "MIRROR_CACHE_ERRORS_LINK"),
            error_filter=value("MIRROR_CACHE_ERRORS_FILTER"),
        )

    def table(self, settings: Settings) -> CacheTable:
        found = address(settings, "commons")
        return CacheTable(secured(settings.database("commons"), found.url), found.tunnel)

    def link(self, now: datetime) -> str:
        """The address of the job's errors of the last day."""
        return error_link(
            self.template,
            since=now - timedelta(days=1),
            until=now,
            error_filter=self.error_filter,
        )


def _number(value: _Value, name: str) -> float:
    text = value(name)
    if not _MINUTES.fullmatch(text):
        raise SettingsError(f"{text!r} is not a number of minutes", where=name)
    return float(text)


def _template(value: _Value, name: str) -> str:
    template = value(name)
    if "{filter}" not in template:
        raise SettingsError(
            "the error report's address has no {filter}",
            where=name,
            remedy="write it with {filter}, and {since} and {until} where wanted",
        )
    return template
