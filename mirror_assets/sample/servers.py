"""Private database servers for the demo and the tests.

Each server owns one directory, listens on 127.0.0.1 only, and outlives the process that started
it. Starting it again from the same directory finds the running instance.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, Self

import psycopg2
import psycopg2.extensions
import pymysql
from psycopg2 import sql
from pymysql.connections import Connection as MariaDBConnection
from pymysql.cursors import Cursor

from mirror_assets.mirroring.loopback import free_port
from mirror_assets.mirroring.sources import private_postgres
from mirror_assets.mirroring.sources.private_postgres import (
    ServerFailed,
    exited,
    is_root,
    server_pid,
    write_private,
)

ADMIN = "admin"
READER = "reader"
_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05


class PrivateServer(ABC):
    """A database server that belongs to one directory."""

    scheme: ClassVar[str]
    package: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.host = _HOST

    @property
    def port(self) -> int:
        """The port of the instance; known once it has been started for the first time."""
        return int(self._port_file.read_text())

    @property
    def running(self) -> bool:
        """Whether the instance of this directory is alive."""
        return self._pid() is not None

    def url(self, database: str, user: str = READER) -> str:
        """The SQLAlchemy address of a database for `reader` or `admin`."""
        password = self._password(user)
        return f"{self.scheme}://{user}:{password}@{self.host}:{self.port}/{database}"

    def stop(self) -> None:
        """Stop the instance and wait until it is gone; nothing happens when none runs."""
        pid = self._pid()
        if pid is None:
            return
        if not private_postgres.stop(pid, self.stop_signal, _STOP_SECONDS):
            raise RuntimeError(f"server {pid} of {self.directory} did not stop")

    def remove(self) -> None:
        """Stop the instance and delete everything it stored."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @abstractmethod
    def create_database(self, database: str) -> None:
        """Create a database unless it exists."""

    @abstractmethod
    def create_reader(self, database: str) -> None:
        """Let the login `reader` select from every table of one database, and nothing more."""

    @property
    @abstractmethod
    def _data(self) -> Path:
        """The server's data directory."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file in which the server notes its process id."""

    @abstractmethod
    def _install(self, data: Path) -> None:
        """Fill a new data directory."""

    @abstractmethod
    def _launch(self, port: int) -> None:
        """Start the server and return when it answers."""

    def _start(self) -> Self:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock():
            if self.running:
                return self
            self._prepare()
            port = self._choose_port()
            self._launch(port)
            self._port_file.write_text(str(port))
        return self

    def _prepare(self) -> None:
        """Install under another name first, so an interrupted installation is never used."""
        if self._data.exists():
            return
        partial = self._data.with_name("data.partial")
        if partial.exists():
            shutil.rmtree(partial)
        self._install(partial)
        partial.rename(self._data)

    @property
    def _port_file(self) -> Path:
        return self.directory / "port"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.directory / "start.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _choose_port(self) -> int:
        """The port of the last start while it is free, so that noted addresses stay valid."""
        if self._port_file.exists():
            port = self.port
            with closing(socket.socket()) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if _can_bind(probe, port):
                    return port
        return free_port()

    def _pid(self) -> int | None:
        return server_pid(self._data, self._pid_file)

    def _password(self, user: str) -> str:
        path = self.directory / f"{user}.password"
        if not path.exists():
            write_private(path, secrets.token_hex(24), mode=0o400)
        return path.read_text()

    def _program(self, name: str) -> str:
        # Debian keeps server programs besides the folders of PATH
        folders = (os.environ.get("PATH", os.defpath), "/usr/sbin")
        found = shutil.which(name, path=os.pathsep.join(folders))
        if found is None:
            raise RuntimeError(f"{name} not found: install the Debian package {self.package}")
        return found


class MariaDB(PrivateServer):
    """A private MariaDB server, spoken to as MySQL."""

    scheme = "mysql+pymysql"
    package = "mariadb-server"
    stop_signal = signal.SIGTERM

    @classmethod
    def start(cls, directory: Path, *, time_zone: str = "-08:00") -> Self:
        """Start the server of a directory, or find it running, in a global time zone.

        The zone is an offset, because named zones need tables that a new server does not have.
        """
        server = cls(directory)._start()
        with closing(server.admin()) as connection, connection.cursor() as cursor:
            cursor.execute("SET GLOBAL time_zone = %s", (time_zone,))
        return server

    def admin(self, database: str | None = None) -> "MariaDBConnection[Cursor]":
        """A new connection with all rights, committing each statement."""
        return self._connect(self.port, database)

    def create_database(self, database: str) -> None:
        with closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{database}`")

    def create_reader(self, database: str) -> None:
        login = (READER, _HOST)
        # In a grant the underscore of a database name would match any character.
        pattern = database.replace("_", r"\_")
        with closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s",
                (*login, self._password(READER)),
            )
            cursor.execute(f"GRANT SELECT ON `{pattern}`.* TO %s@%s", login)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "mariadb.pid"

    @property
    def _log(self) -> Path:
        return self.directory / "mariadb.log"

    def _install(self, data: Path) -> None:
        _run(
            [
                self._program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=socket",
                *_as_root(),
            ]
        )

    def _launch(self, port: int) -> None:
        program = self._program("mariadbd")
        logins = self.directory / "logins.sql"
        logins.unlink(missing_ok=True)
        write_private(logins, self._login_statements(), mode=0o600)
        try:
            self._wait_until_ready(self._spawn([program, *self._options(port, logins)]), port)
        finally:
            logins.unlink()

    def _spawn(self, command: list[str]) -> int:
        """Start a process that keeps running when this one ends."""
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawn(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, self._log, log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )

    def _options(self, port: int, logins: Path) -> list[str]:
        return [
            "--no-defaults",
            *_as_root(),
            f"--datadir={self._data}",
            f"--pid-file={self._pid_file}",
            f"--init-file={logins}",
            f"--bind-address={_HOST}",
            f"--port={port}",
            # No unix socket at all: its path may not exceed 107 bytes.
            "--socket=",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--local-infile=1",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_unicode_ci",
            "--max-allowed-packet=64M",
            "--innodb-buffer-pool-size=128M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
        ]

    def _login_statements(self) -> str:
        """One statement per line: drop the ready-made logins without password, make our own."""
        return (
            "DELETE FROM mysql.global_priv WHERE User IN ('root', '');\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE OR REPLACE USER '{ADMIN}'@'{_HOST}' "
            f"IDENTIFIED BY '{self._password(ADMIN)}';\n"
            f"GRANT ALL ON *.* TO '{ADMIN}'@'{_HOST}' WITH GRANT OPTION;\n"
        )

    def _wait_until_ready(self, pid: int, port: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not exited(pid):
            try:
                self._connect(port).close()
                return
            except pymysql.err.OperationalError:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"mariadbd did not start:\n{_tail(self._log)}")

    def _connect(self, port: int, database: str | None = None) -> "MariaDBConnection[Cursor]":
        return pymysql.connect(
            host=self.host,
            port=port,
            user=ADMIN,
            password=self._password(ADMIN),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            local_infile=True,
            ssl_disabled=True,  # else all certificates of the machine are read first, 35 ms
        )


class PostgreSQL(PrivateServer):
    """A private PostgreSQL server."""

    scheme = "postgresql+psycopg2"
    package = "postgresql"
    stop_signal = signal.SIGINT  # SIGTERM would wait for every client to leave

    @classmethod
    def start(cls, directory: Path) -> Self:
        """Start the server of a directory, or find it running."""
        return cls(directory)._start()

    def admin(self, database: str = "postgres") -> psycopg2.extensions.connection:
        """A new connection with all rights, committing each statement."""
        connection = psycopg2.connect(
            host=self.host,
            port=self.port,
            user=ADMIN,
            password=self._password(ADMIN),
            dbname=database,
        )
        connection.autocommit = True
        return connection

    def create_database(self, database: str) -> None:
        with closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if cursor.fetchone() is None:
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))

    def create_reader(self, database: str) -> None:
        with closing(self.admin(database)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (READER,))
            if cursor.fetchone() is None:
                cursor.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD %s").format(sql.Identifier(READER)),
                    (self._password(READER),),
                )
            cursor.execute("SELECT datname FROM pg_database WHERE datallowconn")
            for (name,) in cursor.fetchall():
                cursor.execute(
                    sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
                )
            for statement in _READER_GRANTS:
                cursor.execute(
                    sql.SQL(statement).format(
                        database=sql.Identifier(database),
                        reader=sql.Identifier(READER),
                        admin=sql.Identifier(ADMIN),
                    )
                )

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    @property
    def _home(self) -> Path:
        """The folder above the data directory."""
        return private_postgres.home(self.directory)

    def _prepare(self) -> None:
        private_postgres.make_home(self.directory, "sample-pg-")
        super()._prepare()

    def remove(self) -> None:
        home = self._home
        super().remove()
        shutil.rmtree(home, ignore_errors=True)

    def _install(self, data: Path) -> None:
        with _told():
            private_postgres.initdb(data, user=ADMIN, password=self._password(ADMIN))

    def _launch(self, port: int) -> None:
        with _told():
            private_postgres.start(self._data, port)


_READER_GRANTS = (
    "GRANT CONNECT ON DATABASE {database} TO {reader}",
    "GRANT USAGE ON SCHEMA public TO {reader}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE {admin} IN SCHEMA public GRANT SELECT ON TABLES TO {reader}",
)


@contextmanager
def _told() -> Iterator[None]:
    """The engine's error as this module's."""
    try:
        yield
    except ServerFailed as error:
        raise RuntimeError(error.sentence) from None


def _as_root() -> list[str]:
    """MariaDB runs as root only when told so; another user might not reach the directory."""
    return ["--user=root"] if is_root() else []


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}")


def _can_bind(probe: socket.socket, port: int) -> bool:
    try:
        probe.bind((_HOST, port))
    except OSError:
        return False
    return True


def _tail(log: Path, lines: int = 20) -> str:
    if not log.exists():
        return "(no log was written)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
