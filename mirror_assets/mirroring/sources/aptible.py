"""Backups that Aptible makes and restores, through its REST API and its SSH portal.

The backup is the one that our own operation made: it is told by its link to that operation. The
copy is reached as Aptible's own client does it: a fresh key, certified for one operation, logs in
to the portal, which must show the host key that the API names, and forwards to the database.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import (
    BackupFailed,
    MirrorError,
    SettingsError,
    SourceFault,
    SourceUnavailable,
)
from mirror_assets.mirroring.loopback import LOOPBACK
from mirror_assets.mirroring.secret_files import Secret, told
from mirror_assets.mirroring.sources.backup import is_copy, rule_of
from mirror_assets.mirroring.sources.base import Copy, Pause
from mirror_assets.mirroring.sources.tunnel import begin
from mirror_assets.mirroring.ssh import SshHost
from mirror_assets.mirroring.storage import private_file, private_folder

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ATTEMPTS = 6
_ANSWER_SECONDS = 60
_LONGEST_WAIT = 60.0
#: An operation is asked for this often; credentials and backups appear a moment after it.
_POLL_SECONDS = 5.0
_LOOKS, _LOOK_SECONDS = 20, 1.0
_REMOVE_SECONDS = 600.0
_PER_PAGE = 100
_GONE = ("deprovisioned", "deprovisioning")
_UNDER_WAY = ("queued", "running")
#: Clocks and roundings of one service.
_SLACK = timedelta(seconds=2)
_Json = Mapping[str, Any]
_Method = Literal["GET", "POST", "PUT"]


@dataclass(frozen=True)
class AptibleUser:
    """A user of Aptible without a second factor, and where its two APIs are."""

    user: Secret = field(repr=False)
    password: Secret = field(repr=False)
    api: str = "https://api.aptible.com"
    auth: str = "https://auth.aptible.com"

    def __post_init__(self) -> None:
        for root in (self.api, self.auth):
            parts = urlsplit(root)
            if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
                raise SettingsError("Aptible's address is not https", where="aptible")


class AptibleProvider:
    """Backups of the database whose handle the catalog names. ``scratch`` holds keys meanwhile."""

    def __init__(
        self, spec: DatabaseSpec, user: AptibleUser, scratch: Path, *, poll: float = _POLL_SECONDS
    ) -> None:
        self._spec = spec
        self._rule = rule_of(spec)
        self._scratch = scratch
        self._poll = poll
        self._api = _Api(user, spec.name)
        #: The backup of each restore that was asked for and has not been seen to succeed.
        self._restoring: dict[str, str] = {}

    @contextmanager
    def live(self) -> Iterator[str]:
        with self._tunnel(self._database(time.sleep), time.sleep) as url:
            yield url

    def restore(self, handle: str, pause: Pause) -> datetime:
        database = self._database(pause)
        asked = self._operate(f"/databases/{database['id']}", pause, type="backup")
        backup = self._backup_of(database, asked, pause)
        taken_at = _instant(backup["created_at"])
        if not _instant(asked["created_at"]) - _SLACK <= taken_at:
            raise BackupFailed(
                f"backup {backup['id']} says it was taken before it was asked for",
                where=self._spec.name,
                remedy="its day cannot be known; ask Aptible",
            )
        self._restoring[handle] = resource = f"/backups/{backup['id']}"
        size = self._rule.container_mb
        restoring = self._create_one(
            resource, pause, type="restore", handle=handle, container_size=size
        )
        self._wait(restoring, pause, 60 * self._rule.ready_minutes)
        del self._restoring[handle]
        return taken_at

    @contextmanager
    def connect(self, handle: str, pause: Pause) -> Iterator[str]:
        found = self._with_handle(handle, pause)
        if not found:
            raise SourceUnavailable("the copy is not listed", where=self._spec.name)
        with self._tunnel(found[0], pause) as url:
            yield url

    def remove(self, handle: str) -> None:
        """Also of a restore that is under way, or may be: then it is cancelled first."""
        fault: MirrorError | None = None
        try:
            if resource := self._restoring.get(handle):
                self._cancel_restores(resource)
        except MirrorError as error:
            fault = error
        found = self._with_handle(handle, time.sleep)
        for database in found:
            resource = f"/databases/{database['id']}"
            done = self._create_one(resource, time.sleep, type="deprovision")
            self._wait(done, time.sleep, _REMOVE_SECONDS)
        if fault is not None and not found:
            raise fault
        self._restoring.pop(handle, None)

    def _cancel_restores(self, backup: str) -> None:
        """All of one backup, and it is ours alone: what we were answered may not be all we began.
        Raises BackupFailed when one goes on: its copy is yet to come.
        """
        for restore in self._operations(backup, time.sleep, "restore"):
            number = restore["id"]
            if not self._is_under_way(number):
                continue
            self._api.send("PUT", f"/operations/{number}", time.sleep, {"cancelled": True})
            if self._is_under_way(number):
                raise BackupFailed("its restore is still under way", where=self._spec.name)

    def copies(self) -> list[Copy]:
        listed = self._api.pages("/databases", "databases", time.sleep)
        return [
            Copy(database["handle"], _instant(database["created_at"]), in_use=None)
            for database in listed
            if is_copy(database["handle"], self._spec.name) and database["status"] not in _GONE
        ]

    # -- operations

    def _database(self, pause: Pause) -> _Json:
        handle = str(self._rule.handle)
        found = self._with_handle(handle, pause)
        if len(found) != 1:
            raise SourceFault(
                f"{len(found)} databases have the handle {handle} at Aptible",
                where=self._spec.name,
                remedy="name another one, or a user who sees one environment only",
            )
        return found[0]

    def _with_handle(self, handle: str, pause: Pause) -> list[_Json]:
        return [
            database
            for database in self._api.pages("/databases", "databases", pause)
            if database["handle"] == handle and database["status"] not in _GONE
        ]

    def _operate(self, resource: str, pause: Pause, **body: Any) -> _Json:
        """Create an operation and wait until it has succeeded."""
        created = self._create(resource, pause, **body)
        self._wait(created, pause, 60 * self._rule.ready_minutes)
        return created

    def _create(self, resource: str, pause: Pause, **body: Any) -> _Json:
        return self._api.send("POST", f"{resource}/operations", pause, body)

    def _create_one(self, resource: str, pause: Pause, **body: Any) -> _Json:
        """The same, of a kind that a resource sees once: an answer that was lost is looked up."""
        try:
            return self._create(resource, pause, **body)
        except BackupFailed:
            begun = self._operations(resource, pause, body["type"])
            if not begun:
                raise
            return max(begun, key=lambda operation: int(operation["id"]))

    def _operations(self, resource: str, pause: Pause, kind: str) -> list[_Json]:
        found = self._api.pages(f"{resource}/operations", "operations", pause)
        return [operation for operation in found if operation["type"] == kind]

    def _wait(self, operation: _Json, pause: Pause, seconds: float) -> None:
        number, deadline = operation["id"], time.monotonic() + seconds
        while (status := self._status(number, pause)) in _UNDER_WAY:
            if time.monotonic() > deadline:
                raise BackupFailed(
                    f"the {operation['type']} (operation {number}) is {status} for longer than"
                    f" {seconds / 60:g} minutes",
                    where=self._spec.name,
                    remedy="run the partition again; if it lasts, ask Aptible",
                )
            pause(self._poll)
        if status != "succeeded":
            raise BackupFailed(
                f"the {operation['type']} (operation {number}) {status}",
                where=self._spec.name,
                remedy=f"`aptible operation:logs {number}` says why; then run the partition again",
            )

    def _status(self, number: int, pause: Pause) -> str:
        """A removed database takes its operations with it."""
        found = self._api.find(f"/operations/{number}", pause)
        return str(found["status"]) if found else "succeeded"

    def _is_under_way(self, number: int) -> bool:
        return self._status(number, time.sleep) in _UNDER_WAY

    def _backup_of(self, database: _Json, operation: _Json, pause: Pause) -> _Json:
        """The backup that this very operation made, whichever others there are."""
        path = f"/databases/{database['id']}/backups"
        for _ in range(_LOOKS):
            for backup in self._api.pages(path, "backups", pause):
                if _linked(backup, "created_from_operation") == str(operation["id"]):
                    return backup
            pause(_LOOK_SECONDS)
        raise BackupFailed(
            f"no backup says that operation {operation['id']} made it",
            where=self._spec.name,
            remedy="run the partition again; if it lasts, ask Aptible",
        )

    # -- the way to a database

    @contextmanager
    def _tunnel(self, database: _Json, pause: Pause) -> Iterator[str]:
        """A URL through the portal. Raises SourceUnavailable while that does not open."""
        credential = self._credential(database, pause)
        with tempfile.TemporaryDirectory(dir=private_folder(self._scratch)) as folder:
            host, socket = self._portal(database, credential, Path(folder), pause)
            session = {"ACCESS_TOKEN": self._api.token(pause)}
            with closing(begin(host, socket, session=session)) as opened:
                yield self._url(credential["connection_url"], opened.port)

    def _credential(self, database: _Json, pause: Pause) -> _Json:
        path = f"/databases/{database['id']}/database_credentials"
        for look in range(_LOOKS):
            for credential in self._api.pages(path, "database_credentials", pause):
                if credential["default"] and credential.get("connection_url"):
                    return credential
            if look + 1 < _LOOKS:
                pause(_LOOK_SECONDS)
        raise BackupFailed(
            f"the database has no credentials after {_LOOKS} looks",
            where=self._spec.name,
            remedy="run the partition again; if it lasts, check the user's rights at Aptible",
        )

    def _portal(
        self, database: _Json, credential: _Json, folder: Path, pause: Pause
    ) -> tuple[SshHost, str]:
        """The portal, for a key that is made in ``folder``, and the database's socket there."""
        key = folder / "id"
        public = _make_key(key)
        operation = self._create(
            f"/database_credentials/{credential['id']}", pause, type="tunnel", status="succeeded"
        )
        path = f"/operations/{operation['id']}/ssh_portal_connections"
        found = self._api.send("POST", path, pause, {"ssh_public_key": public})
        account = self._api.get(f"/accounts/{_linked(database, 'account')}", pause)
        stack = self._api.get(f"/stacks/{_linked(account, 'stack')}", pause)
        host, port = str(stack["ssh_portal_host"]), int(stack["ssh_portal_port"])
        certificate, known_hosts = folder / "certificate", folder / "known_hosts"
        _write(certificate, str(found["ssh_certificate_body"]))
        _write(known_hosts, f"[{host}]:{port} {stack['ssh_host_rsa_public_key']}\n")
        portal = SshHost(host, str(found["ssh_user"]), key, known_hosts, port, certificate)
        return portal, str(found["ssh_port_forward_socket"])

    def _url(self, text: str, port: int) -> str:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            raise SourceFault("the credentials hold no URL", where=self._spec.name) from None
        there = url.set(drivername="postgresql+psycopg2", host=LOOPBACK, port=port, query={})
        return there.render_as_string(hide_password=False)


class _Api:
    """Requests that are tried again where that may help; answers are never shown."""

    def __init__(self, user: AptibleUser, where: str) -> None:
        self._user = user
        self._where = where
        self._token: str | None = None

    def token(self, pause: Pause) -> str:
        if self._token is None:
            body = {
                "grant_type": "password",
                "username": told(self._user.user),
                "password": told(self._user.password),
                "scope": "manage",
            }
            answer = self._tried("POST", f"{self._user.auth}/tokens", pause, body)
            self._token = str(self._accepted("log in", answer)["access_token"])
        return self._token

    def get(self, path: str, pause: Pause) -> _Json:
        return self.send("GET", path, pause)

    def find(self, path: str, pause: Pause) -> _Json | None:
        """The same, or None where there is no such thing (any more)."""
        answer = self._signed("GET", path, pause, None)
        return None if answer.status == 404 else self._accepted(f"GET {path}", answer)

    def send(self, method: _Method, path: str, pause: Pause, body: _Json | None = None) -> _Json:
        return self._accepted(f"{method} {path}", self._signed(method, path, pause, body))

    def pages(self, path: str, name: str, pause: Pause) -> Iterator[_Json]:
        page = 1
        while True:
            query = urlencode({"page": page, "per_page": _PER_PAGE})
            found = self.get(f"{path}?{query}", pause)
            try:
                items, links = found["_embedded"][name], found.get("_links") or {}
            except (KeyError, TypeError):
                raise BackupFailed(
                    f"Aptible's answer holds no {name}: GET {path}",
                    where=self._where,
                    remedy="run the partition again; if it lasts, ask Aptible",
                ) from None
            yield from items
            if "next" not in links:
                return
            page += 1

    def _signed(self, method: _Method, path: str, pause: Pause, body: _Json | None) -> _Answer:
        """With a token, which may have expired since the last request."""
        for _ in range(2):
            token = self.token(pause)
            answer = self._tried(method, f"{self._user.api}{path}", pause, body, token)
            if answer.status != 401:
                break
            self._token = None
        return answer

    def _tried(
        self,
        method: _Method,
        url: str,
        pause: Pause,
        body: _Json | None,
        token: str | None = None,
    ) -> _Answer:
        """429 and 5xx pass, and so does silence, after which the request may have been heard all
        the same: of two backups ours is told by its number, what is refused then is doubtful.
        """
        doubtful = False
        for attempt in range(_ATTEMPTS):
            answer = asyncio.run(_request(method, url, body, token))
            if answer.status is not None and answer.status != 429 and answer.status < 500:
                return replace(answer, doubtful=doubtful)
            doubtful = doubtful or answer.status != 429
            if attempt + 1 < _ATTEMPTS:
                asked = 0.5 * 2**attempt if answer.wait is None else answer.wait
                pause(min(_LONGEST_WAIT, asked))
        return answer

    def _accepted(self, tried: str, answer: _Answer) -> _Json:
        if answer.status is not None and answer.status < 300 and isinstance(answer.body, dict):
            return answer.body
        raise self._fault(tried.split("?")[0], answer)

    def _fault(self, tried: str, answer: _Answer) -> MirrorError:
        status = answer.status
        if status in (401, 403):
            return SourceFault(
                f"Aptible refused us ({status}): {tried}",
                where=self._where,
                remedy="check APTIBLE_USER and its password, that it has no second factor, and its"
                " rights on the environment",
            )
        if status is None or status == 429 or status >= 500:
            return BackupFailed(
                f"Aptible did not answer ({status or 'silence'}): {tried}",
                where=self._where,
                remedy="run the partition again; if it lasts, look at Aptible's status page",
            )
        if answer.doubtful:
            return BackupFailed(
                f"Aptible refused ({status}) what it may have heard before: {tried}",
                where=self._where,
                remedy="run the partition again",
            )
        return SourceFault(f"Aptible refused ({status}): {tried}", where=self._where)


@dataclass(frozen=True)
class _Answer:
    """``status`` is None where none came; ``wait`` is what the service asked for, in seconds.

    ``doubtful``: the same request had no answer before, and may have been heard.
    """

    status: int | None
    body: object = field(default=None, repr=False)
    wait: float | None = None
    doubtful: bool = False


async def _request(method: str, url: str, body: _Json | None, token: str | None) -> _Answer:
    import aiohttp  # here, because it would slow down loading the code location

    headers = {"Accept": "application/hal+json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, url, json=body, allow_redirects=False) as answer,
        ):
            wait = answer.headers.get("Retry-After", "")
            asked = float(wait) if wait.isdecimal() else None
            is_json = answer.status < 300 and answer.content_length != 0
            found = await answer.json(content_type=None) if is_json else {}
            return _Answer(answer.status, found, asked)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return _Answer(None)


def _linked(resource: _Json, name: str) -> str:
    """The last part of a link: the number of what it leads to; "" where there is none."""
    link = (resource.get("_links") or {}).get(name) or {}
    return urlsplit(str(link.get("href") or "")).path.rpartition("/")[2]


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _make_key(path: Path) -> str:
    """A new key pair; returns the public half."""
    command = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "mirror", "-f"]
    done = subprocess.run(  # noqa: S603 - an argument list, no shell
        [*command, str(path)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise BackupFailed("ssh-keygen could not make a key", where=str(path.parent))
    return path.with_suffix(".pub").read_text()


def _write(path: Path, text: str) -> None:
    with private_file(path) as file:
        file.write(text.encode())
