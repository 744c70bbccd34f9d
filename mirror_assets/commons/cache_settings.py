"""Which job fills Commons' encounter cache, read from the environment."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from mirror_assets.commons.encounter_cache import (
    CacheTable,
    HttpJob,
    LocalJob,
    RemoteJob,
    SshJob,
    error_link,
)
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.settings import Settings

#: Every environment variable of the cache job, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "MIRROR_CACHE_JOB_URL": ("", "hook that runs the job while it answers a POST"),
    "MIRROR_CACHE_JOB_SECRET_FILE": ("", "file holding the hook's bearer secret, mode 0400"),
    "MIRROR_CACHE_JOB_HOST": ("", "user@host[:port] to run the command on, by SSH"),
    "MIRROR_CACHE_JOB_IDENTITY": ("", "private key file for that host, mode 0400 or 0600"),
    "MIRROR_CACHE_JOB_KNOWN_HOSTS": ("", "known_hosts file with that host's key"),
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
_HOST = re.compile(r"(?P<user>[^@\s]+)@(?P<host>[^@:\s]+)(:(?P<port>[0-9]{1,5}))?")
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

        job = _job(value, settings)
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
        return CacheTable(settings.database_url("commons"))

    def link(self, now: datetime) -> str:
        """The address of the job's errors of the last day."""
        return error_link(
            self.template,
            since=now - timedelta(days=1),
            until=now,
            error_filter=self.error_filter,
        )


def _job(value: _Value, settings: Settings) -> RemoteJob | None:
    url, place = value("MIRROR_CACHE_JOB_URL"), value("MIRROR_CACHE_JOB_HOST")
    command = _command(value, "MIRROR_CACHE_JOB_COMMAND")
    if url and (place or command):
        raise SettingsError(
            "the job is named twice",
            where="MIRROR_CACHE_JOB_URL",
            remedy="set it, or MIRROR_CACHE_JOB_COMMAND (with MIRROR_CACHE_JOB_HOST), not both",
        )
    if url:
        return _hook(url, settings, "MIRROR_CACHE_JOB_SECRET_FILE")
    if place:
        return _ssh(value, place, command)
    return LocalJob(command) if command else None


def _hook(url: str, settings: Settings, secret_file: str) -> HttpJob:
    secret = settings.secret(secret_file)
    if not secret:
        raise SettingsError(
            "the hook has no secret",
            where=secret_file,
            remedy="name a file of mode 0400 that holds it",
        )
    with _placed(f"MIRROR_CACHE_JOB_URL, {secret_file}"):
        return HttpJob(url, secret)


def _ssh(value: _Value, place: str, command: tuple[str, ...]) -> SshJob:
    match = _HOST.fullmatch(place)
    if match is None or not 0 < int(match["port"] or 22) < 1 << 16:
        raise SettingsError(
            "the job's host is not written as user@host or user@host:port",
            where="MIRROR_CACHE_JOB_HOST",
        )
    if not command:
        raise SettingsError("the host has nothing to run", where="MIRROR_CACHE_JOB_COMMAND")
    identity = _file(value, "MIRROR_CACHE_JOB_IDENTITY")
    if identity.stat().st_mode & 0o077:
        raise SettingsError(
            f"{identity} can be read by others",
            where="MIRROR_CACHE_JOB_IDENTITY",
            remedy=f"chmod 0400 {identity}",
        )
    known_hosts = _file(value, "MIRROR_CACHE_JOB_KNOWN_HOSTS")
    with _placed("MIRROR_CACHE_JOB_HOST"):
        return SshJob(
            host=match["host"],
            user=match["user"],
            command=command,
            identity=identity,
            known_hosts=known_hosts,
            port=int(match["port"] or 22),
        )


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """A job's own complaint, with the variables that it is about."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(error.what, where=where, remedy=error.remedy) from None


def _command(value: _Value, name: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(value(name)))
    except ValueError:
        raise SettingsError(
            "the command has a quote or a backslash without its end", where=name
        ) from None


def _file(value: _Value, name: str) -> Path:
    stated = value(name)
    if not stated:
        raise SettingsError("the host needs this file", where=name)
    path = Path(stated).absolute()
    if not path.is_file():
        raise SettingsError(f"{path} is not a file", where=name)
    return path


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
