"""Backups without a service: ``pg_dump | pg_restore`` into a private server of this machine.

The instant is the dump's snapshot, which stays open until the copy has proved to hold as many rows
as the database did. Of the database's tables only the catalogued ones' rows leave it; keys come
along, indexes and foreign keys do not. Each stage's exit code is checked. What the programs say may
quote rows: it is read here, and never passed on.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psycopg2

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import (
    BackupFailed,
    MirrorError,
    PermanentError,
    RowsUnaccounted,
    SourceFault,
    reason,
)
from mirror_assets.mirroring.loopback import LOOPBACK, free_port
from mirror_assets.mirroring.names import literal, sql
from mirror_assets.mirroring.redact import driver_error
from mirror_assets.mirroring.sources import private_postgres as private
from mirror_assets.mirroring.sources.address import Address
from mirror_assets.mirroring.sources.backup import is_copy
from mirror_assets.mirroring.sources.base import Copy, Pause
from mirror_assets.mirroring.sources.postgres import (
    PostgresSnapshot,
    PostgresSource,
    libpq_options,
)
from mirror_assets.mirroring.storage import private_file, private_folder

_OWNER = "mirror"
_DATABASE = "copy"
_STARTS = 3
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.1
_LONGEST_SAID = 1 << 16
#: Nothing in the copy outlives a crash, so nothing waits for a disk.
_THROWAWAY = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
}
#: Tables whose rows the copy needs: the catalogued ones, their partitions and children.
_WANTED = """
WITH RECURSIVE wanted(oid) AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = {schema} AND c.relname IN ({names}) AND c.relkind IN ('r', 'p')
    UNION SELECT i.inhrelid FROM pg_inherits i JOIN wanted ON wanted.oid = i.inhparent)
SELECT n.nspname, c.relname FROM wanted JOIN pg_class c USING (oid)
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE has_table_privilege(c.oid, 'SELECT') ORDER BY 1, 2
"""
#: Relations that a dump cannot or need not hold: views, and what our login may not read.
_UNWANTED = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|information_schema$)' AND (c.relkind IN ('v', 'm', 'f')
    OR (c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, 'SELECT')))
"""
_SEQUENCES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^(pg_|information_schema$)' AND c.relkind = 'S'
"""
_NOT_TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname IN ({names}) AND c.relkind NOT IN ('r', 'p') ORDER BY 1
"""
_KEY_LINE = re.compile(r"\d+; \d+ \d+ CONSTRAINT ")
_Complaint = tuple[re.Pattern[str], type[MirrorError], str, str]
#: What the programs say that names no row, and what we say.
_COMPLAINTS: tuple[_Complaint, ...] = (
    (
        re.compile(
            r'extension "([\w-]+)" is not available|extension control file.*/([\w-]+)\.control'
        ),
        SourceFault,
        "an extension of the database is not installed here: {}",
        "install it beside PostgreSQL on this machine",
    ),
    (
        re.compile(r"aborting because of server version mismatch()"),
        SourceFault,
        "the database's server is newer than our pg_dump",
        "install the client of its version",
    ),
    (
        re.compile(r"permission denied for \w+ ([\w-]+)"),
        SourceFault,
        "the login may not read {}",
        "GRANT SELECT on all tables of the schema, or exclude the table in the catalog",
    ),
    (
        re.compile(r'row-level security policy for table "?([\w-]+)'),
        SourceFault,
        "row-level security would hide rows of {} from this login",
        "ALTER ROLE .. BYPASSRLS, or use a role that the table's policies do not touch",
    ),
    (
        re.compile(r"No space left on device()"),
        BackupFailed,
        "the disk is full",
        "free space where MIRROR_SCRATCH lies, then run the partition again",
    ),
    (
        re.compile(r"could not connect|connection to server|server closed the connection()"),
        BackupFailed,
        "the connection to the database failed or was cut",
        "run the partition again; if it lasts, check host and login",
    ),
)


@dataclass
class _Server:
    """The private server of one copy."""

    directory: Path
    lock: IO[bytes]
    password: str = field(repr=False)
    port: int = 0

    @property
    def data(self) -> Path:
        return private.home(self.directory) / "data"

    @property
    def url(self) -> str:
        login = f"{_OWNER}:{self.password}"
        return f"postgresql+psycopg2://{login}@{LOOPBACK}:{self.port}/{_DATABASE}"


class DumpProvider:
    """Dumps the database at an address into private servers, one below ``folder`` for each copy."""

    def __init__(self, spec: DatabaseSpec, address: Address, folder: Path) -> None:
        self._spec = spec
        self._address = address
        self._folder = folder
        self._servers: dict[str, _Server] = {}

    @contextmanager
    def live(self) -> Iterator[str]:
        with self._address.dialled() as url:
            yield url

    @contextmanager
    def connect(self, handle: str, pause: Pause) -> Iterator[str]:
        del pause
        yield self._servers[handle].url

    def restore(self, handle: str, pause: Pause) -> datetime:
        with self.live() as url, PostgresSource(self._spec, url).snapshot() as live:
            self._refuse_views(live)
            server = self._provision(handle)
            self._create_database(server, live)
            _Transfer(self._spec, url, server, live, pause).run()
            self._account(server, live)
            return live.taken_at

    def remove(self, handle: str) -> None:
        directory = self._folder / handle
        home = private.home(directory)
        pid = private.server_pid(home / "data", home / "data" / "postmaster.pid")
        if pid is not None and not private.stop(pid, signal.SIGQUIT, _STOP_SECONDS):
            private.stop(pid, signal.SIGKILL, _STOP_SECONDS)
        for folder in (home, directory):  # the note that leads to home goes last
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)  # its last process wrote meanwhile
            if folder.exists():
                raise PermanentError(
                    f"the folder of {handle} could not be deleted",
                    where=self._spec.name,
                    remedy=f"delete {folder}: it holds a copy of the database",
                )
        server = self._servers.pop(handle, None)
        if server is not None:
            server.lock.close()

    def copies(self) -> list[Copy]:
        found = [path for path in self._folder.glob("*") if is_copy(path.name, self._spec.name)]
        return [
            Copy(path.name, datetime.fromtimestamp(path.stat().st_mtime, UTC), _is_locked(path))
            for path in sorted(found)
        ]

    def _refuse_views(self, live: PostgresSnapshot) -> None:
        found = [name for (name,) in live.ask(_of_tables(self._spec, _NOT_TABLES))]
        if found:
            raise SourceFault(
                f"{found[0]} is not a table, and a dump holds tables only",
                where=self._spec.name,
                remedy="leave it out of the catalog, or read the database live",
            )

    def _provision(self, handle: str) -> _Server:
        try:
            directory = private_folder(self._folder / handle)
            lock = private_file(directory / "lock")
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go of by the system when this process ends
            server = _Server(directory, lock, secrets.token_hex(24))
            self._servers[handle] = server
            private.make_home(directory, f"{handle}-")
        except OSError as error:
            raise BackupFailed(
                f"no folder for the copy could be made: {reason(error)}",
                where=self._spec.name,
                remedy="check space and rights of MIRROR_SCRATCH, then run the partition again",
            ) from None
        private.initdb(server.data, user=_OWNER, password=server.password)
        for attempt in range(1, _STARTS + 1):
            server.port = free_port()
            try:
                private.start(server.data, server.port, **_THROWAWAY)
                break
            except private.ServerFailed:  # somebody else may have taken the port
                if attempt == _STARTS:
                    raise
        return server

    def _create_database(self, server: _Server, live: PostgresSnapshot) -> None:
        """In the database's own encoding, so that no byte is translated."""
        ((encoding,),) = live.ask("SELECT current_setting('server_encoding')")
        options = libpq_options(server.url, self._spec.name) | {"dbname": "postgres"}
        try:
            with closing(psycopg2.connect(**options)) as admin, admin.cursor() as cursor:
                admin.autocommit = True
                cursor.execute(
                    f"CREATE DATABASE {_DATABASE} TEMPLATE template0"
                    f" ENCODING {literal(encoding)} LC_COLLATE 'C' LC_CTYPE 'C'"
                )
        except psycopg2.Error as error:
            raise BackupFailed(
                f"the copy's database could not be made ({driver_error(error)})",
                where=self._spec.name,
            ) from None

    def _account(self, server: _Server, live: PostgresSnapshot) -> None:
        """Every table must have arrived with all its rows."""
        with PostgresSource(self._spec, server.url).snapshot() as copy:
            known = live.tables().keys() & copy.tables().keys()
            for table in self._spec.tables:
                if table.name not in known:
                    continue  # missing, or not ours to read: its own mirror says so
                here, there = copy.count(table), live.count(table)
                live.release()
                if here != there:
                    raise RowsUnaccounted(
                        f"the backup holds {here} of {there} rows",
                        where=f"{self._spec.name}/{table.name}",
                        remedy="run the partition again",
                    )


class _Transfer:
    """Schema, rows and keys of one snapshot, from the database into a server."""

    def __init__(
        self,
        spec: DatabaseSpec,
        url: str,
        server: _Server,
        live: PostgresSnapshot,
        pause: Pause,
    ) -> None:
        self._spec = spec
        self._live = live
        self._server = server
        self._pause = pause
        self._said = server.directory / "said"
        self._schema_file = server.directory / "schema.dump"
        self._from, self._from_password = _dsn(url, spec.name)
        self._to, self._to_password = _dsn(server.url, spec.name)

    def run(self) -> None:
        unwanted = [f"--exclude-table={name}" for name in self._names(_UNWANTED)]
        self._run("pg_dump", self._dump("--schema-only", f"--file={self._schema_file}", *unwanted))
        schema = str(self._schema_file)
        self._run("pg_restore", self._restore("--section=pre-data", schema))
        tables = [f"--table={name}" for name in self._names(_of_tables(self._spec, _WANTED))]
        if tables:
            sequences = [f"--exclude-table-data={name}" for name in self._names(_SEQUENCES)]
            rows = self._dump("--data-only", "--compress=0", *tables, *sequences)
            self._pipe(rows, self._restore("--data-only"))
        listed, keys = (self._server.directory / name for name in ("contents", "keys"))
        toc = ("--list", f"--file={listed}", schema)
        self._run("pg_restore", [private.program("pg_restore"), *toc])
        lines = listed.read_text(errors="replace").splitlines(keepends=True)
        with private_file(keys) as file:
            file.write("".join(line for line in lines if _KEY_LINE.match(line)).encode())
        self._run("pg_restore", self._restore(f"--use-list={keys}", schema))

    def _names(self, query: str) -> list[str]:
        """Patterns that stand for just these relations: quoted, nothing in them is special."""
        return [f"{sql(schema)}.{sql(name)}" for schema, name in self._live.ask(query)]

    def _dump(self, *options: str) -> list[str]:
        return [
            private.program("pg_dump"),
            *("--format=custom", "--no-password", "--lock-wait-timeout=300s"),
            f"--snapshot={self._live.snapshot_id}",
            *("--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"),
            *options,
            f"--dbname={self._from}",
        ]

    def _restore(self, *options: str) -> list[str]:
        return [
            private.program("pg_restore"),
            *("--exit-on-error", "--no-password", "--no-owner", "--no-privileges"),
            f"--dbname={self._to}",
            *options,
        ]

    def _run(self, stage: str, command: Sequence[str]) -> None:
        password = self._from_password if stage == "pg_dump" else self._to_password
        with ExitStack() as stack:
            process = self._spawn(stack, command, password, stdout=subprocess.DEVNULL)
            self._wait([(stage, process)])

    def _pipe(self, dump: Sequence[str], restore: Sequence[str]) -> None:
        with ExitStack() as stack:
            reader = self._spawn(stack, dump, self._from_password, stdout=subprocess.PIPE)
            assert reader.stdout is not None
            with reader.stdout as rows:  # closed here at once: a restore that ends, ends the dump
                writer = self._spawn(stack, restore, self._to_password, stdin=rows)
            self._wait([("pg_restore", writer), ("pg_dump", reader)])

    def _spawn(
        self,
        stack: ExitStack,
        command: Sequence[str],
        password: str,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        said = stack.enter_context(self._said.open("ab"))
        process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=said,
            env=os.environ | {"PGPASSWORD": password, "LC_ALL": "C"},
            cwd="/",
        )
        stack.callback(_end, process)
        return process

    def _wait(self, processes: Sequence[tuple[str, subprocess.Popen[bytes]]]) -> None:
        """Wait for all of them, and believe each one's exit code."""
        waiting = [process for _stage, process in processes]
        while any(process.poll() is None for process in waiting):
            if any(process.poll() for process in waiting):
                break  # one has failed: what the others still do is for nothing
            with suppress(subprocess.TimeoutExpired):
                next(p for p in waiting if p.poll() is None).wait(_POLL_SECONDS)
            self._pause(0)
        failed = [(stage, process.poll()) for stage, process in processes if process.poll()]
        if failed:
            raise self._fault(*failed[0])

    def _fault(self, stage: str, code: int | None) -> MirrorError:
        with self._said.open("rb") as file:
            said = file.read(_LONGEST_SAID).decode(errors="replace")
        for pattern, kind, what, remedy in _COMPLAINTS:
            if match := pattern.search(said):
                named = next((group for group in match.groups() if group), "")
                return kind(f"{stage}: {what.format(named)}", where=self._spec.name, remedy=remedy)
        return BackupFailed(
            f"{stage} ended with exit code {code}; what it said is withheld, it may quote rows",
            where=self._spec.name,
            remedy="run the partition again; if it lasts, run pg_dump | pg_restore by hand",
        )


def _of_tables(spec: DatabaseSpec, query: str) -> str:
    """A query about the catalogued tables."""
    names = ", ".join(literal(table.name) for table in spec.tables)
    return query.format(schema=literal(spec.entry.source_schema or "public"), names=names)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def _dsn(url: str, database: str) -> tuple[str, str]:
    """What libpq's programs are told, and the password, which no list of processes may show."""
    options = libpq_options(url, database)
    password = str(options.pop("password", ""))
    options.pop("client_encoding")  # a dump keeps the bytes as they are
    return psycopg2.extensions.make_dsn(**options), password


def _is_locked(directory: Path) -> bool:
    """Whether the process that made a copy is alive."""
    try:
        with (directory / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
