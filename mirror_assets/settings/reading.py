"""Where a database's rows come from: itself or a restored backup, and its application's files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, SettingsError
from mirror_assets.mirroring.sources import ExportJob, Files, Source, join, open_backup, open_source
from mirror_assets.settings import Settings, backups
from mirror_assets.settings.connections import address
from mirror_assets.settings.environment import tried

_JOB = "<NAME>_EXPORT_JOB"
#: Every environment variable of exported tables, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "<NAME>_EXPORT_FILES": (
        "",
        "folder or URL where `<name>`'s application writes tables of its own; unset: it has none",
    ),
    "<NAME>_EXPORT_LABEL": ("prod", "how the names of these files begin"),
    f"{_JOB}_URL": ("", "hook that writes them while it answers a POST"),
    f"{_JOB}_SECRET_FILE": ("", "file holding the hook's bearer secret, mode 0400"),
    f"{_JOB}_HOST": ("", "user@host[:port] to run the job's command on, by SSH"),
    f"{_JOB}_IDENTITY": ("", "private key file for that host, mode 0400 or 0600, or sm://.."),
    f"{_JOB}_KNOWN_HOSTS": ("", "known_hosts file with that host's key, or sm://.."),
    f"{_JOB}_COMMAND": (
        "",
        "the command that writes them; without a host, on this machine; without any job, the"
        " files of the day are taken as they are",
    ),
    f"{_JOB}_MINUTES": ("60", "minutes that the job may take"),
}
_MINUTES = re.compile(r"[0-9]{1,5}(\.[0-9]+)?")


def source(
    settings: Settings, spec: DatabaseSpec, *, at_once: bool = False, run_id: str = ""
) -> Source:
    """The source of a database; ``at_once``: for whoever cannot wait for a tunnel's next attempts;
    ``run_id``: of the run for which it is read.

    Raises SettingsError; connects to nothing yet.
    """
    if spec.entry.backup is None:
        there = address(settings, spec.name)
        found = open_source(spec, there.at_once if at_once else there)
    else:
        found = open_backup(spec, backups.provider(settings, spec), run_id)
    joined = _exported(settings, spec)
    return found if joined is None else join(spec, found, *joined)


def faults(settings: Settings, spec: DatabaseSpec) -> Iterator[MirrorError]:
    """What is wrong about a database's backups and exported tables. Asks no server."""
    yield from backups.faults(settings, spec)
    yield from tried(lambda: _exported(settings, spec))


def _exported(settings: Settings, spec: DatabaseSpec) -> tuple[Files, ExportJob | None] | None:
    """The files that the database's application exports, and the job that writes them."""
    name = spec.name.upper()

    def value(variable: str) -> str:
        default = VARIABLES.get(variable.replace(name, "<NAME>", 1), ("", ""))[0]
        return settings.variables.get(variable) or default

    folder = f"{name}_EXPORT_FILES"
    if not value(folder):
        return None
    from mirror_assets.mirroring.remote_job import read_job  # here: few databases have any

    prefix = f"{name}_EXPORT_JOB"
    minutes = value(f"{prefix}_MINUTES")
    if not _MINUTES.fullmatch(minutes) or not float(minutes):
        raise SettingsError(f"{minutes!r} is not a number of minutes", where=f"{prefix}_MINUTES")
    job = read_job(value, settings.secrets, prefix)
    files = Files(value(folder), value(f"{name}_EXPORT_LABEL"), folder)
    return files, ExportJob(job, 60 * float(minutes)) if job else None
