"""TLS to a source: verified, unless its host is this machine or its catalog says otherwise."""

from __future__ import annotations

import logging
from functools import cache

from sqlalchemy.engine import URL

from mirror_assets.mirroring.catalog import DatabaseSpec, Tls
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.sources import common

_log = logging.getLogger(__name__)
_EXAMPLE = "kind+driver://user:password@host:port/database"
#: The drivers' own words, from the laxest.
_OPTION = {"mysql": "ssl_mode", "postgresql": "sslmode"}
_WORDS: dict[str, tuple[str, ...]] = {
    "mysql": ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"),
    "postgresql": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
}
_LEAST: dict[str, dict[Tls, str]] = {
    "mysql": {"verify": "VERIFY_IDENTITY", "unverified": "REQUIRED", "off": "DISABLED"},
    "postgresql": {"verify": "verify-full", "unverified": "require", "off": "disable"},
}
#: Where nobody sits in between, the server decides whether it is encrypted.
_OFFERED = {"mysql": "PREFERRED", "postgresql": "prefer"}
_SHOWN = {
    "unverified": "encrypted, the server's certificate is not checked, as the catalog says",
    "off": "not encrypted, as the catalog says",
}


def mode(spec: DatabaseSpec, url: URL) -> Tls:
    """What is asked for: the catalog's word, else ``verify``, and ``off`` on this machine."""
    return spec.entry.tls or ("off" if is_loopback(url) else "verify")


def secured(spec: DatabaseSpec, text: str) -> str:
    """The URL with TLS as the catalog wants it, in its driver's own words.

    A URL may ask for more by itself, never for less. Raises SettingsError.
    """
    url = common.parsed(text, spec.name, _EXAMPLE)
    kind, wanted = spec.entry.kind, mode(spec, url)
    option, words = _OPTION[kind], _WORDS[kind]
    least = _LEAST[kind][wanted]
    if is_loopback(url) and wanted == "unverified":
        least = _OFFERED[kind]
    own = url.query.get(option)
    if own is not None:
        _check(spec, str(own), least, words, option)
        return text
    if spec.entry.tls is None and is_loopback(url):
        return text
    if wanted != "verify" and not is_loopback(url):
        _announce(spec.name, wanted)
    chosen = {option: least}
    if least == "verify-full" and "sslrootcert" not in url.query:
        chosen["sslrootcert"] = "system"
    return url.update_query_dict(chosen).render_as_string(hide_password=False)


def shown_tls(spec: DatabaseSpec, text: str) -> str:
    """A word on a database's TLS, for people. Raises SettingsError."""
    url = common.parsed(text, spec.name, _EXAMPLE)
    wanted = mode(spec, url)
    if is_loopback(url) and wanted != "verify":
        return "a loopback address"
    return f"TLS: {_SHOWN.get(wanted, 'the certificate is verified')}"


def is_loopback(url: URL) -> bool:
    """Whether the URL's host is the machine that connects to it."""
    named = url.query.get("host") or url.host or ""
    hosts = (named,) if isinstance(named, str) else named
    return all(host in ("", "localhost", "::1") or host.startswith(("127.", "/")) for host in hosts)


def _check(spec: DatabaseSpec, own: str, least: str, words: tuple[str, ...], option: str) -> None:
    if own not in words:
        raise SettingsError(
            f"the database URL's {option} is unknown",
            where=f"database {spec.name}",
            remedy=f"allowed: {', '.join(words)}",
        )
    if words.index(own) < words.index(least):
        raise SettingsError(
            f"the database URL's {option}={own} is less than {least}, which is asked for",
            where=f"database {spec.name}",
            remedy="leave it out, or say `tls: unverified` or `tls: off` in the catalog",
        )


@cache
def _announce(database: str, wanted: Tls) -> None:
    """Once per process."""
    _log.warning("database %s: %s", database, _SHOWN[wanted])
