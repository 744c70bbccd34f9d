"""The OpenSSH client as we run it: one pinned host key, one key file, no configuration but ours.

What it prints is never passed on: it is told in our own sentences.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirror_assets.mirroring.errors import (
    MirrorError,
    SettingsError,
    SshRefused,
    SshUnavailable,
    placed,
)
from mirror_assets.mirroring.secret_files import NamedSecrets, SecretFile, at_hand, check_private

#: Reads a variable; "" where it is not set.
Value = Callable[[str], str]
CONNECT_SECONDS = 15
_PLACE = re.compile(r"(?P<user>[^@\s]+)@(?P<host>[^@:\s]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]*", re.ASCII)
#: A dead peer is noticed after a minute.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": os.devnull,
    "UpdateHostKeys": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PreferredAuthentications": "publickey",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "4",
    "LogLevel": "ERROR",
}
_ASK_OWNER = (
    "ask the host's owner for its key by another way than this network, and mend the known_hosts"
    " file: docs/operations.md, `The SSH host is refused`; never skip this"
)
_Complaint = tuple[re.Pattern[str], type[MirrorError], str, str]


def _complaint(pattern: str, kind: type[MirrorError], what: str, remedy: str) -> _Complaint:
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE), kind, what, remedy


#: What the client says, and what we say; the first that fits.
_COMPLAINTS = (
    _complaint(
        r"host identification has changed|revoked host key",
        SshRefused,
        "the host does not show its known key but another one",
        _ASK_OWNER,
    ),
    _complaint(
        r"host key is known|host key verification failed",
        SshRefused,
        "the host has no known key: the known_hosts file does not list it",
        _ASK_OWNER,
    ),
    _complaint(
        r"unprotected private key|bad permissions",
        SshRefused,
        "the identity file can be read by others",
        "chmod 0400 it; ssh refuses it otherwise",
    ),
    _complaint(
        r"^load key .*: (?!permission denied)|not a (private )?key file",
        SshRefused,
        "the identity file is no private key, or has a passphrase",
        "mount the private key itself, without a passphrase",
    ),
    _complaint(
        r"permission denied|too many authentication failures",
        SshRefused,
        "the host refused the login",
        "check the user, the identity file and its mode (0400), and whether the host's owner still"
        " accepts its public key",
    ),
    _complaint(
        r"unable to negotiate",
        SshRefused,
        "the host and our ssh have no algorithm in common",
        "ask the host's owner for newer ciphers and key types",
    ),
    _complaint(
        r"no user exists for uid",
        SshRefused,
        "ssh does not run as a user without a name",
        "give the user an entry in /etc/passwd",
    ),
    _complaint(
        r"ssh: connect to host|could not resolve hostname|banner exchange"
        r"|kex_exchange_identification|ssh_exchange_identification"
        r"|^connection (to \S+ )?(closed|reset|timed out)|^timeout, server|broken pipe",
        SshUnavailable,
        "the host could not be reached, or hung up",
        "try again; if it lasts, check host, port and network, and ask the host's owner",
    ),
)


@dataclass(frozen=True)
class SshHost:
    """A host to log in to with a key file, once it has shown a key of the known_hosts file.

    ``certificate``: a file that vouches for the key, where the host does not know that itself.
    """

    host: str
    user: str
    identity: SecretFile
    known_hosts: SecretFile
    port: int = 22
    certificate: Path | None = None

    def __post_init__(self) -> None:
        check_name("the SSH host", self.host)
        check_name("the SSH user", self.user)

    @classmethod
    def parse(cls, place: str, identity: SecretFile, known_hosts: SecretFile) -> SshHost:
        """Of ``user@host`` or ``user@host:port``. Raises SettingsError."""
        match = _PLACE.fullmatch(place)
        if match is None or not 0 < int(match["port"] or 22) < 1 << 16:
            raise SettingsError("the SSH host is not written as user@host or user@host:port")
        port = int(match["port"] or 22)
        return cls(match["host"], match["user"], identity, known_hosts, port)

    @property
    def where(self) -> str:
        """What may be shown of it."""
        return f"ssh {self.host}:{self.port}"

    @contextmanager
    def command(
        self, *flags: str, remote: Sequence[str] = (), **options: str
    ) -> Iterator[list[str]]:
        """The client's argument list, for no shell; ``options`` are ssh_config's.

        The files that it names can be read as long as this lasts, and the client reads them before
        it is logged in. Raises SettingsError, TransientError when there are none to be had.
        """
        with at_hand(self.identity) as identity, at_hand(self.known_hosts) as known_hosts:
            check_private(identity, self.where)
            chosen = {**_OPTIONS, "UserKnownHostsFile": _quoted(known_hosts), **options}
            if self.certificate is not None:
                chosen["CertificateFile"] = _quoted(self.certificate)
            yield [
                *("ssh", "-F", os.devnull, *flags),
                *(f"-o{name}={value}" for name, value in chosen.items()),
                *("-i", _plain(identity), "-p", str(self.port), "-l", self.user),
                *("--", self.host, *remote),
            ]

    def complaint(self, said: str) -> MirrorError | None:
        """The client's own complaint in our words: SshRefused, SshUnavailable or nothing known."""
        for pattern, kind, what, remedy in _COMPLAINTS:
            if pattern.search(said):
                return kind(what, where=self.where, remedy=remedy)
        return None


def read_host(value: Value, secrets: NamedSecrets, variable: str) -> SshHost:
    """The SSH host of a variable ``.._HOST``, with ``.._IDENTITY`` and ``.._KNOWN_HOSTS``."""
    prefix = variable.removesuffix("_HOST")
    identity = secrets.file(f"{prefix}_IDENTITY")
    known_hosts = secrets.file(f"{prefix}_KNOWN_HOSTS", private=False)
    if identity is None or known_hosts is None:
        missing = "KNOWN_HOSTS" if identity else "IDENTITY"
        raise SettingsError("the SSH host needs this file", where=f"{prefix}_{missing}")
    with placed(variable):
        return SshHost.parse(value(variable), identity, known_hosts)


def check_name(what: str, name: str) -> None:
    """Raise SettingsError when this could be taken for an option or a second word."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{what} is not a name")


def _quoted(path: Path) -> str:
    """A path as an option's value, in which a space ends nothing."""
    return f'"{_plain(path)}"'


def _plain(path: Path) -> str:
    """A path in which the client replaces nothing."""
    return str(path).replace("%", "%%")
