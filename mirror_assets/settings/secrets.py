"""Secrets: from a variable, a private file, or Google Secret Manager. Never printed.

``sm://<project>/<name>[/<version>]`` may stand wherever a secret, or the file that holds it, is
named. Such a secret is kept in memory only, also for a program that needs a file (OpenSSH).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_assets.mirroring.errors import SettingsError, TransientError
from mirror_assets.mirroring.google_login import may_pass
from mirror_assets.mirroring.secret_files import (
    Secret,
    SecretFile,
    check_file,
    check_private,
    in_memory,
    told,
)

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

SCHEME = "sm://"
_REFERENCE = re.compile(
    r"sm://(?P<project>[a-z][a-z0-9.:-]*)/(?P<name>[A-Za-z0-9_-]{1,255})"
    r"(/(?P<version>latest|[0-9]+))?"
)
#: As Google's own emulators are named: host and port of a stand-in, without TLS and login.
_EMULATOR = "SECRET_MANAGER_EMULATOR_HOST"
_SECONDS = 20.0


class SecretsUnavailable(TransientError):  # noqa: N818 - the kinds read as nouns
    """Secret Manager did not answer, or answered that it is busy."""

    kind = "secrets_unavailable"


class Secrets:
    """The secrets that an environment names; each is fetched from Secret Manager at most once."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._fetched: dict[str, str] = {}

    def stated(self, variable: str, default: Path | None = None) -> bool:
        """Whether a variable or its file is named, or its default file is there. Fetches none."""
        named = self._variables.get(variable) or self._variables.get(f"{variable}_FILE")
        return bool(named) or (default is not None and default.is_file())

    def value(self, variable: str, default: Path | None = None) -> str | None:
        """What a variable says, or else the file that ``<variable>_FILE`` names.

        Raises SettingsError, SecretsUnavailable.
        """
        secret = self.named(variable, default)
        return None if secret is None else told(secret)

    def named(self, variable: str, default: Path | None = None) -> Secret | None:
        """The same, but fetched from Secret Manager when it is wanted. Raises SettingsError."""
        text = self._variables.get(variable)
        if not text:
            return self.named_in_file(f"{variable}_FILE", default)
        return self._later(variable, text) if text.startswith(SCHEME) else text

    def in_file(self, variable: str, default: Path | None = None) -> str | None:
        """The contents of the file that a variable names; None when there is none by default.

        Raises SettingsError when it is missing or others can read it, SecretsUnavailable.
        """
        secret = self.named_in_file(variable, default)
        return None if secret is None else told(secret)

    def named_in_file(self, variable: str, default: Path | None = None) -> Secret | None:
        """The same, but fetched from Secret Manager when it is wanted. Raises SettingsError."""
        stated = self._variables.get(variable, "")
        if stated.startswith(SCHEME):
            return self._later(variable, stated)
        path = Path(stated) if stated else default
        if path is None or not (stated or path.is_file()):
            return None
        return _text(check_private(path, variable).read_bytes(), str(path), variable)

    def file(self, variable: str, *, private: bool = True) -> SecretFile | None:
        """The file that a variable names, for a program that reads it itself; None by default.

        A secret of Secret Manager is fetched when the file is wanted. Raises SettingsError.
        """
        stated = self._variables.get(variable, "")
        return self.file_of(variable, stated, private=private) if stated else None

    def file_of(self, variable: str, stated: str, *, private: bool = True) -> SecretFile:
        """The file at a path or a reference that a variable's own file names."""
        if stated.startswith(SCHEME):
            check_reference(variable, stated)
            return partial(self._in_memory, variable, stated)
        path = Path(stated).absolute()
        return check_private(path, variable) if private else check_file(path, variable)

    def is_elsewhere(self, variable: str) -> bool:
        """Whether a variable names a secret of Secret Manager, and rightly. Fetches none."""
        stated = self._variables.get(variable, "")
        return stated.startswith(SCHEME) and bool(check_reference(variable, stated))

    def _in_memory(self, variable: str, reference: str) -> AbstractContextManager[Path]:
        return in_memory(variable.lower(), f"{self._fetch(variable, reference)}\n")

    def _later(self, variable: str, reference: str) -> Secret:
        check_reference(variable, reference)
        return partial(self._fetch, variable, reference)

    def _fetch(self, variable: str, reference: str) -> str:
        if reference not in self._fetched:
            self._fetched[reference] = fetch(variable, reference)
        return self._fetched[reference]


def check_reference(variable: str, reference: str) -> re.Match[str]:
    """The parts of a reference. Raises SettingsError."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise SettingsError(
            "the reference to a secret cannot be read",
            where=variable,
            remedy="write sm://<project>/<name> or sm://<project>/<name>/<version>",
        )
    return match


def fetch(variable: str, reference: str) -> str:
    """A secret of Google Secret Manager. Raises SettingsError, SecretsUnavailable."""
    match = check_reference(variable, reference)
    # imported here: half a second, and needed only where a secret lies there
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    version = match["version"] or "latest"
    path = f"projects/{match['project']}/secrets/{match['name']}/versions/{version}"
    try:
        answer = _client().access_secret_version(name=path, timeout=_SECONDS)
    except GoogleAuthError as error:
        if may_pass(error):
            raise _refusal(variable, path, None) from None
        raise SettingsError(
            "there is no login for Secret Manager",
            where=variable,
            remedy="run as a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
        ) from None
    except (GoogleAPICallError, RetryError) as error:
        raise _refusal(variable, path, getattr(error, "code", None)) from None
    return _text(answer.payload.data, path, variable)


def _text(data: bytes, what: str, variable: str) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:  # it quotes the secret
        raise SettingsError(f"{what} is not text in UTF-8", where=variable) from None


def _client() -> SecretManagerServiceClient:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceRestTransport,
    )

    emulator = os.environ.get(_EMULATOR)
    if not emulator:
        return SecretManagerServiceClient(transport="rest")
    return SecretManagerServiceClient(
        transport=SecretManagerServiceRestTransport(
            host=emulator,
            url_scheme="http",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
    )


def _refusal(variable: str, path: str, status: int | None) -> SettingsError | SecretsUnavailable:
    if status is None or status == 429 or status >= 500:
        return SecretsUnavailable(
            f"Secret Manager did not answer for {path}",
            where=variable,
            remedy="try again; if it lasts, look at the status of the cloud",
        )
    words = {403: "may not be read by this login", 404: "is not there"}
    return SettingsError(
        f"{path} {words.get(status, f'was refused with status {status}')}",
        where=variable,
        remedy="check its name, and give this login the role Secret Manager Secret Accessor",
    )
