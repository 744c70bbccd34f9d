"""A person's read-only client of a source, over the tunnel where there is one.

The login is in files of mode 0600 in a private folder, which is gone when the client has ended,
however it ended. Neither statements nor answers are kept: the clients' histories are off.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from sqlalchemy.engine import URL, make_url

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.sources import Address, secured
from mirror_assets.mirroring.storage import private_file

_END_SECONDS = 5
_HISTORIES = ("MYSQL_HISTFILE", "MARIADB_HISTFILE", "PSQL_HISTORY", "LESSHISTFILE")
_NO_HISTORY = dict.fromkeys(_HISTORIES, os.devnull)
_READ_ONLY = "SET SESSION TRANSACTION READ ONLY"


@dataclass(frozen=True)
class _Client:
    """A program, its arguments and environment; no secret is in them."""

    program: str
    package: str
    arguments: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def open_shell(spec: DatabaseSpec, address: Address, folder: Path) -> int:
    """Run the database's client at this terminal; its exit code. ``folder`` is private, and its
    owner removes it.
    """
    with (
        _ended_by_signals(),
        replace(address, url=secured(spec, address.url)).dialled() as text,
    ):
        url = make_url(text)
        client = _psql(url, folder) if spec.entry.kind == "postgresql" else _mariadb(url, folder)
        return _run(client)


def _run(client: _Client) -> int:
    program = shutil.which(client.program)
    if program is None:
        raise SettingsError(
            f"{client.program} is not installed", remedy=f"apt-get install {client.package}"
        )
    process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
        [program, *client.arguments], env={**os.environ, **_NO_HISTORY, **client.env}
    )
    # from here on Ctrl-C is the client's
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        _end(process)
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A closed terminal and SIGTERM leave in order, so that everything is removed."""

    ends = (signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, _frame: FrameType | None) -> None:
        for end in ends:  # a second one must not stop the tidying
            signal.signal(end, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mariadb(url: URL, folder: Path) -> _Client:
    options = {
        "host": str(url.query.get("hostaddr") or url.host or "127.0.0.1"),
        "port": str(url.port or 3306),
        "user": url.username or "",
        "password": url.password or "",
        "protocol": "TCP",
    }
    lines = [f"{name}={_quoted(value)}" for name, value in options.items()]
    lines += _mariadb_tls(url)
    path = _written(folder / "my.cnf", ["[client]", *lines])
    return _Client(
        "mariadb",
        "mariadb-client",
        (
            f"--defaults-file={path}",
            f"--init-command={_READ_ONLY}",
            "--default-character-set=utf8mb4",
            *([url.database] if url.database else []),
        ),
    )


def _mariadb_tls(url: URL) -> list[str]:
    authority = url.query.get("ssl_ca")
    mode = url.query.get("ssl_mode") or ("VERIFY_IDENTITY" if authority else "PREFERRED")
    if mode == "DISABLED":
        return ["skip-ssl"]
    if mode in ("PREFERRED", "REQUIRED"):
        return ["ssl"]
    if "hostaddr" in url.query:
        raise SettingsError(
            "the mariadb client cannot verify the server's certificate through a tunnel, because it"
            " holds it against the tunnel's own address",
            remedy="use the client of a machine that reaches the database itself",
        )
    return ["ssl-verify-server-cert", *([f"ssl-ca={_quoted(str(authority))}"] if authority else [])]


def _quoted(value: str) -> str:
    """A value of a MySQL option file."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _psql(url: URL, folder: Path) -> _Client:
    service = {
        "host": url.host or "127.0.0.1",
        "port": url.port or 5432,
        "user": url.username or "",
        "dbname": url.database or "",
        **url.query,
    }
    lines = [f"{name}={value}" for name, value in service.items() if value]
    services = _written(folder / "pg_service.conf", ["[mirror]", *lines])
    password = (url.password or "").replace("\\", "\\\\").replace(":", "\\:")
    passwords = _written(folder / ".pgpass", [f"*:*:*:*:{password}"])
    env = {
        "PGSERVICEFILE": str(services),
        "PGSERVICE": "mirror",
        "PGPASSFILE": str(passwords),
        "PGOPTIONS": "-c default_transaction_read_only=on",
    }
    return _Client("psql", "postgresql-client", ("-X",), env)


def _written(path: Path, lines: list[str]) -> Path:
    with private_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    return path
