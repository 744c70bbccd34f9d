"""A local double of Aptible: its REST API with operations that take time, and its SSH portal.

What it "restores" is a real database, copied by PostgreSQL itself; the portal is OpenSSH's server,
which accepts keys that the double's authority has certified, and forwards to a socket of the
database. It knows what it was asked and which databases are there; it decides nothing about quotas,
rights of users, or how long a real restore takes.
"""

from __future__ import annotations

import asyncio
import getpass
import itertools
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mirror_assets.mirroring.loopback import free_port
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.sources.aptible import AptibleUser
from mirror_assets.sample.servers import PostgreSQL
from tests.fakes.appengine import HOST, serve

USER, PASSWORD = "mirror@example.org", "canary-password-of-aptible"
DATABASE_PASSWORD = "canary-password-of-the-copy"
SSHD = "/usr/sbin/sshd"
_PAGE = 2
_LINKS = {"queued": 1, "running": 1}
Json = dict[str, Any]


@dataclass
class Faults:
    """What goes wrong: ``statuses`` are answered to a request, in turn, before it is heard."""

    failing: set[str] = field(default_factory=set)  # types of operations that fail
    lasting: set[str] = field(default_factory=set)  # .. that never end
    statuses: dict[str, list[int]] = field(default_factory=dict)  # by "METHOD /path" without ids
    lost: dict[str, int] = field(default_factory=dict)  # .. heard, but answered with 502
    empty: set[str] = field(default_factory=set)  # .. answered with nothing in it
    waiting: set[str] = field(default_factory=set)  # types of operations that never begin
    without_credentials: bool = False
    wrong_host_key: bool = False
    portal_away: int = 0  # so often nobody listens where the portal should be
    backup_at: datetime | None = None


class Aptible:
    """The state of the service. ``root`` is a private folder."""

    def __init__(self, server: PostgreSQL, root: Path) -> None:
        self.server = server
        self.root = root
        self.faults = Faults()
        self.requests: list[tuple[str, str, Json]] = []
        self.databases: dict[int, Json] = {}
        self.backups: dict[int, Json] = {}
        self.operations: dict[int, Json] = {}
        self.tokens: set[str] = set()
        self.looks = 0
        self.credential_looks = 0
        self._numbers = itertools.count(101)
        self._ends: dict[int, int] = {}
        self._lock = threading.Lock()
        self.ca, self.host_key = root / "ca", root / "host_key"
        for key in (self.ca, self.host_key):
            _make_key(key)
        self.port = free_port()

    # -- what tests ask

    @property
    def handles(self) -> list[str]:
        return sorted(d["handle"] for d in self.databases.values() if d["status"] == "provisioned")

    def login(self, url: str) -> AptibleUser:
        return AptibleUser(USER, PASSWORD, api=url, auth=f"{url}/auth")

    def add_database(self, handle: str, name: str, age: timedelta = timedelta(0)) -> Json:
        number = next(self._numbers)
        created = (datetime.now(UTC) - age).isoformat()
        database = {
            "id": number,
            "handle": handle,
            "type": "postgresql",
            "status": "provisioned",
            "created_at": created,
            "name": name,
        }
        self.databases[number] = database
        return database

    # -- operations

    def is_taken(self, handle: str | None) -> bool:
        """A handle is given once, and kept for the copy that a restore will bring."""
        coming = [op for op in self.operations.values() if op["status"] in ("queued", "running")]
        known = [op["body"].get("handle") for op in coming]
        known += [database["handle"] for database in self.databases.values()]
        return handle is not None and handle in known

    def is_leaving(self, resource: str, number: int) -> bool:
        return any(
            (op["type"], op["resource"]) == ("deprovision", (resource, number))
            and op["status"] in ("queued", "running")
            for op in self.operations.values()
        )

    def begin(self, resource: str, number: int, body: Json) -> Json:
        operation = {
            "id": next(self._numbers),
            "type": body["type"],
            "status": body.get("status", "queued"),
            "created_at": datetime.now(UTC).isoformat(),
            "resource": (resource, number),
            "body": body,
        }
        self.operations[operation["id"]] = operation
        return operation

    def look_at(self, operation: Json) -> Json:
        """Each look is a step: queued, running, then done."""
        self.looks += 1
        kind, status = operation["type"], operation["status"]
        if status == "queued":
            operation["status"] = "queued" if kind in self.faults.waiting else "running"
        elif status == "running" and kind not in self.faults.lasting:
            failed = kind in self.faults.failing
            operation["status"] = "failed" if failed else "succeeded"
            if not failed:
                getattr(self, f"_{kind}")(operation)
        return operation

    def _backup(self, operation: Json) -> None:
        (_, number) = operation["resource"]
        taken_at = self.faults.backup_at or datetime.now(UTC)
        for asked_by in (operation["id"], 7):  # the nightly job's backup appears beside ours
            backup_id = next(self._numbers)
            self.backups[backup_id] = {
                "id": backup_id,
                "database": number,
                "created_at": taken_at.isoformat(),
                "asked_by": asked_by,
            }

    def _restore(self, operation: Json) -> None:
        (_, number) = operation["resource"]
        backup = self.backups[number]
        name = f"restored_{secrets.token_hex(3)}"
        original = self.databases[backup["database"]]["name"]
        _copy_database(self.server, original, name)
        self.add_database(operation["body"]["handle"], name)

    def _deprovision(self, operation: Json) -> None:
        (_, number) = operation["resource"]
        database = self.databases.pop(number)
        _drop_database(self.server, database["name"])

    def certify(self, public: str) -> str:
        """A certificate of the authority over a public key, for one user and a few minutes."""
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            key = Path(folder) / "key.pub"
            key.write_text(public)
            command = ["ssh-keygen", "-q", "-s", str(self.ca), "-I", "mirror"]
            command += ["-n", getpass.getuser(), "-V", "+5m", str(key)]
            subprocess.run(command, check=True)
            return (Path(folder) / "key-cert.pub").read_text()


def _copy_database(server: PostgreSQL, original: str, name: str) -> None:
    with closing(server.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (original,)
        )
        cursor.execute(f"CREATE DATABASE {sql(name)} TEMPLATE {sql(original)}")
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'aptible'")
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE aptible LOGIN SUPERUSER PASSWORD '{DATABASE_PASSWORD}'")


def _drop_database(server: PostgreSQL, name: str) -> None:
    with closing(server.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {sql(name)} WITH (FORCE)")


# -- HTTP


def _app(state: Aptible) -> Starlette:
    def page(request: Request, name: str, items: list[Json]) -> Response:
        number = int(request.query_params.get("page", 1))
        some = items[(number - 1) * _PAGE : number * _PAGE]
        links = {"next": {"href": "x"}} if number * _PAGE < len(items) else {}
        return JSONResponse({"_embedded": {name: some}, "_links": links})

    def link(path: str) -> Json:
        return {"href": f"https://api.aptible.com{path}"}

    def shown_database(database: Json) -> Json:
        shown = {k: v for k, v in database.items() if k != "name"}
        return shown | {"_links": {"account": link("/accounts/1")}}

    async def hear(request: Request) -> Response:
        parts = [part for part in request.url.path.split("/") if part]
        shape = "/" + "/".join("N" if part.isdecimal() else part for part in parts)
        key = f"{request.method} {shape}"
        body = await request.json() if request.method in ("POST", "PUT") else {}
        state.requests.append((request.method, request.url.path, body))
        if state.faults.statuses.get(key):
            status = state.faults.statuses[key].pop(0)
            return Response(status_code=status, headers={"Retry-After": "0"})
        if key in state.faults.empty:
            return JSONResponse({})
        answer = await asyncio.to_thread(locked, key, parts, body, request)
        if state.faults.lost.get(key):
            state.faults.lost[key] -= 1
            return Response(status_code=502)
        return answer

    def locked(key: str, parts: list[str], body: Json, request: Request) -> Response:
        with state._lock:
            return decide(key, parts, body, request)

    def decide(key: str, parts: list[str], body: Json, request: Request) -> Response:
        if key == "POST /auth/tokens":
            right = body == {
                "grant_type": "password",
                "username": USER,
                "password": PASSWORD,
                "scope": "manage",
            }
            if not right:
                return JSONResponse({"error": "invalid_credentials"}, status_code=401)
            token = secrets.token_hex(16)
            state.tokens = {token}
            return JSONResponse({"access_token": token}, status_code=201)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in state.tokens:
            return JSONResponse({"error": "unauthorized"}, status_code=401)
        number = int(parts[1]) if len(parts) > 1 else 0
        match key:
            case "GET /databases":
                found = [shown_database(d) for d in state.databases.values()]
                return page(request, "databases", found)
            case "GET /databases/N/backups":
                found = [
                    {
                        "id": backup["id"],
                        "created_at": backup["created_at"],
                        "_links": {
                            "created_from_operation": link(f"/operations/{backup['asked_by']}")
                        },
                    }
                    for backup in reversed(state.backups.values())
                    if backup["database"] == number
                ]
                return page(request, "backups", found)
            case "GET /databases/N/database_credentials":
                state.credential_looks += 1
                return page(request, "database_credentials", credentials(number))
            case "GET /databases/N/operations" | "GET /backups/N/operations":
                begun_there = [
                    shown(operation)
                    for operation in reversed(state.operations.values())
                    if operation["resource"] == (parts[0], number)
                ]
                return page(request, "operations", begun_there)
            case "POST /databases/N/operations" | "POST /backups/N/operations":
                if parts[0] == "databases" and number not in state.databases:
                    return JSONResponse({}, status_code=404)
                if state.is_taken(body.get("handle")) or state.is_leaving(parts[0], number):
                    return JSONResponse({"error": "unprocessable"}, status_code=422)
                begun = state.begin(parts[0], number, body)
                return JSONResponse(shown(begun), status_code=201)
            case "POST /database_credentials/N/operations":
                begun = state.begin("credentials", number, body)
                return JSONResponse(shown(begun), status_code=201)
            case "GET /operations/N":
                known = state.operations.get(number)
                if known is None:
                    return JSONResponse({}, status_code=404)
                return JSONResponse(shown(state.look_at(known)))
            case "PUT /operations/N":
                if state.operations[number]["status"] == "queued" and body.get("cancelled"):
                    state.operations[number]["status"] = "failed"
                return JSONResponse(shown(state.operations[number]))
            case "POST /operations/N/ssh_portal_connections":
                return JSONResponse(connection(number, body), status_code=201)
            case "GET /accounts/N":
                return JSONResponse({"id": 1, "_links": {"stack": link("/stacks/1")}})
            case "GET /stacks/N":
                return JSONResponse(stack())
        return JSONResponse({"error": "not_found"}, status_code=404)

    def shown(operation: Json) -> Json:
        return {k: operation[k] for k in ("id", "type", "status", "created_at")}

    def credentials(number: int) -> list[Json]:
        if state.faults.without_credentials:
            return []
        name = state.databases[number]["name"]
        url = f"postgresql://aptible:{DATABASE_PASSWORD}@db-1.aptible.in:20000/{name}"
        return [
            {"id": number, "type": "replica", "default": False, "connection_url": "x"},
            {"id": number, "type": "postgresql", "default": True, "connection_url": url},
        ]

    def connection(number: int, body: Json) -> Json:
        assert state.operations[number]["type"] == "tunnel"
        return {
            "ssh_user": getpass.getuser(),
            "ssh_certificate_body": state.certify(body["ssh_public_key"]),
            "ssh_port_forward_socket": str(state.root / "db.sock"),
            "ssh_pty": False,
        }

    def stack() -> Json:
        port = free_port() if state.faults.portal_away else state.port
        state.faults.portal_away = max(0, state.faults.portal_away - 1)
        key = state.ca if state.faults.wrong_host_key else state.host_key
        return {
            "ssh_portal_host": HOST,
            "ssh_portal_port": port,
            "ssh_host_rsa_public_key": key.with_suffix(".pub").read_text().strip(),
        }

    methods = ["GET", "POST", "PUT"]
    return Starlette(routes=[Route("/{path:path}", hear, methods=methods)])


# -- SSH


def _make_key(path: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True)


@contextmanager
def _portal(state: Aptible) -> Iterator[None]:
    """An SSH server that lets certified keys forward to the socket, if they bring our token."""
    config, log = state.root / "sshd_config", state.root / "sshd.log"
    config.write_text(
        f"Port {state.port}\nListenAddress {HOST}\nHostKey {state.host_key}\n"
        f"TrustedUserCAKeys {state.ca}.pub\nAuthorizedKeysFile none\nPidFile none\nUsePAM no\n"
        "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nAllowStreamLocalForwarding yes\n"
        "AcceptEnv ACCESS_TOKEN\n"
        'ForceCommand test -n "$ACCESS_TOKEN" && echo open && exec sleep 600\n'
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(log)])
    try:
        deadline = time.monotonic() + 10
        while True:
            with suppress(OSError), socket.create_connection((HOST, state.port), 1):
                break
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def _socket(path: Path, port: int) -> Iterator[None]:
    """A unix socket that leads to a port of this machine, as the portal has one for a database."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def pump(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        path.unlink(missing_ok=True)


@contextmanager
def aptible(server: PostgreSQL) -> Iterator[tuple[Aptible, str]]:
    """The service over the databases of a server, and its base URL."""
    with tempfile.TemporaryDirectory(prefix="aptible-", dir="/tmp") as folder:  # a short path
        state = Aptible(server, Path(folder))
        with (
            _portal(state),
            _socket(state.root / "db.sock", server.port),
            serve(_app(state)) as url,
        ):
            yield state, url
        for database in state.databases.values():
            if database["name"].startswith("restored_"):
                _drop_database(server, database["name"])
