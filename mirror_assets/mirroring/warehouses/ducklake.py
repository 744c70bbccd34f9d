"""The embedded warehouse: a DuckLake, immutable Parquet files plus a transactional catalog.

What was measured, and why it is used like this, is in docs/adr/0001-lake-and-load.md: the SQLite
catalog must be in WAL mode or one reader stops every writer; overlapping writers conflict as a
whole, so writers of one machine queue on a file lock and the whole transaction is tried again.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import MirrorError, WarehouseFault
from mirror_assets.mirroring.landing import private_folder
from mirror_assets.mirroring.names import (
    PARTITION_COLUMN,
    folder_name,
    literal,
    sql,
    warehouse_name,
)
from mirror_assets.mirroring.schema import Column, Drift, TableSchema
from mirror_assets.mirroring.warehouses.base import Rows

T = TypeVar("T")

ALIAS = "lake"
_EXTENSIONS = ("ducklake", "sqlite_scanner", "icu")
_SQLITE = "ducklake:sqlite:"
#: Small writes of control rows live in the catalog instead of one tiny file each.
_INLINED_ROWS = 500
_ATTEMPTS = 20
_ORPHAN_HOURS = 24


class DuckLakeWarehouse:
    """A DuckLake at ``ducklake:sqlite:<file>`` (or another catalog) with its files in ``lake``."""

    def __init__(self, url: str, lake: Path, extensions: Path, *, memory: str = "512MB") -> None:
        self._url = url
        self._lake = lake.absolute()
        self._extensions = extensions.absolute()
        self._memory = memory
        self._catalog = Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._mutex = threading.RLock()

    # -- writing

    def commit(self, body: Callable[[DuckLakeTransaction], T]) -> T:
        """Run a body as one transaction; on a conflict, run it again from the start."""
        with self._mutex, self._turn():
            attempts = Retrying(
                retry=retry_if_exception(_is_conflict),
                stop=stop_after_attempt(_ATTEMPTS),
                wait=wait_random_exponential(0.02, max=1),
                reraise=True,
            )
            try:
                outcome: T = attempts(self._attempt, body)
                return outcome
            except duckdb.Error as error:
                self._drop_writer()
                raise _translate(error) from None

    def _attempt(self, body: Callable[[DuckLakeTransaction], T]) -> T:
        connection = self._open_writer()
        connection.execute("BEGIN")
        try:
            result = body(DuckLakeTransaction(connection, self._lake))
            connection.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            raise
        return result

    def staging(self, dataset: str, table: str, day: date) -> Path:
        """A new private folder; its path carries the day as a hive partition."""
        folder = self._lake / dataset / folder_name(table) / f"{PARTITION_COLUMN}={day}"
        return private_folder(folder / secrets.token_hex(8))

    def discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def maintain(self, *, time_travel_days: int) -> dict[str, int]:
        """Expire snapshots, delete unreferenced files, sweep orphans older than a day."""
        with self._mutex, self._turn():
            connection = self._open_writer()
            done = {}
            steps = {
                "snapshots_expired": f"CALL ducklake_expire_snapshots('{ALIAS}',"
                f" older_than => now() - INTERVAL '{time_travel_days} days')",
                "files_deleted": f"CALL ducklake_cleanup_old_files('{ALIAS}', cleanup_all => true)",
                "orphans_deleted": f"CALL ducklake_delete_orphaned_files('{ALIAS}',"
                f" older_than => now() - INTERVAL '{_ORPHAN_HOURS} hours')",
            }
            try:
                for step, statement in steps.items():
                    done[step] = len(connection.execute(statement).fetchall())
            except duckdb.Error as error:
                self._drop_writer()
                raise _translate(error) from None
        _remove_empty_folders(self._lake)
        return done

    # -- reading

    def query(self, statement: str, *, limit: int | None = None) -> Rows:
        """A read-only query; the connection can neither write nor read files outside the lake."""
        if self._catalog is not None and not self._catalog.exists():
            raise WarehouseFault(
                "nothing has been mirrored yet",
                where=f"warehouse {self._url}",
                remedy="materialize a partition first, or run `make demo`",
            )
        attempts = Retrying(
            retry=retry_if_exception(_is_conflict),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(0.02, max=1),
            reraise=True,
        )
        try:
            return attempts(self._read, statement, limit)
        except duckdb.Error as error:
            raise _translate(error) from None

    def _read(self, statement: str, limit: int | None) -> Rows:
        connection = self._connect(read_only=True)
        try:
            connection.execute(f"SET allowed_directories = [{literal(str(self._lake))}]")
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            answer = connection.execute(statement)
            columns = tuple(column[0] for column in answer.description or ())
            rows = answer.fetchall() if limit is None else answer.fetchmany(limit)
            return Rows(columns, rows)
        finally:
            connection.close()

    def close(self) -> None:
        with self._mutex:
            self._drop_writer()

    # -- connections

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        install_extensions(self._extensions)
        connection = duckdb.connect(
            config={
                "extension_directory": str(self._extensions),
                "autoinstall_known_extensions": False,
                "memory_limit": self._memory,
                "temp_directory": str(self._lake / ".spill"),
            }
        )
        for extension in _EXTENSIONS:
            connection.execute(f"LOAD {extension}")
        connection.execute("SET TimeZone = 'UTC'")
        # A retry inside DuckLake would let two inserts into one partition both succeed.
        connection.execute("SET ducklake_max_retry_count = 0")
        # Inlined deletes would keep every small partition ever published alive.
        connection.execute("SET ducklake_default_data_inlining_row_limit = 0")
        options = [f"DATA_PATH {literal(str(self._lake))}"]
        options += ["READ_ONLY"] if read_only else []
        options += ["META_BUSY_TIMEOUT 10000"] if self._catalog else []
        connection.execute(f"ATTACH {literal(self._url)} AS {ALIAS} ({', '.join(options)})")
        connection.execute(f"USE {ALIAS}")
        return connection

    def _open_writer(self) -> duckdb.DuckDBPyConnection:
        if self._writer is None:
            private_folder(self._lake)
            if self._catalog is not None:
                _prepare_catalog(self._catalog)
            self._writer = self._connect(read_only=False)
        return self._writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            with suppress(duckdb.Error):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Writers of one machine take turns; a killed one gives its turn up by dying."""
        private_folder(self._lake)
        with (self._lake / ".writer.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class DuckLakeTransaction:
    """The changes of one DuckLake transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Path) -> None:
        self._connection = connection
        self._lake = lake

    def schema(self, dataset: str, table: str) -> TableSchema | None:
        try:
            rows = self._connection.execute(f"DESCRIBE {_path(dataset, table)}").fetchall()
        except duckdb.CatalogException:
            return None
        columns = (
            Column(name, "", types.from_duckdb(data_type), nullable == "NO")
            for name, data_type, nullable, *_ in rows
            if name != PARTITION_COLUMN
        )
        return TableSchema(tuple(columns))

    def create_table(
        self, dataset: str, table: str, schema: TableSchema, *, partitioned: bool
    ) -> None:
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {sql(dataset)}")
        columns = [_declare(column) for column in schema.columns]
        if partitioned:
            columns.append(f"{PARTITION_COLUMN} DATE")
        self._connection.execute(f"CREATE TABLE {_path(dataset, table)} ({', '.join(columns)})")
        if partitioned:
            self._connection.execute(
                f"ALTER TABLE {_path(dataset, table)} SET PARTITIONED BY ({PARTITION_COLUMN})"
            )

    def evolve(self, dataset: str, table: str, schema: TableSchema, drift: Drift) -> None:
        alter = f"ALTER TABLE {_path(dataset, table)}"
        for change in drift.changes:
            name = sql(change.column)
            if change.change == "added":
                declared = types.to_duckdb(schema.column(change.column).type)
                self._connection.execute(f"{alter} ADD COLUMN {name} {declared}")
            elif change.change == "relaxed":
                self._connection.execute(f"{alter} ALTER COLUMN {name} DROP NOT NULL")
            elif change.change == "widened":
                declared = types.to_duckdb(schema.column(change.column).type)
                self._connection.execute(f"{alter} ALTER COLUMN {name} TYPE {declared}")

    def rename(self, dataset: str, table: str, new_name: str) -> None:
        self._connection.execute(f"ALTER TABLE {_path(dataset, table)} RENAME TO {sql(new_name)}")

    def replace_partition(self, dataset: str, table: str, day: date, files: Sequence[Path]) -> None:
        self._connection.execute(
            f"DELETE FROM {_path(dataset, table)} WHERE {PARTITION_COLUMN} = DATE '{day}'"
        )
        for file in files:
            self._connection.execute(
                f"CALL ducklake_add_data_files('{ALIAS}', ?, ?, schema => ?,"
                " hive_partitioning => true, allow_missing => true)",
                [table, str(file), dataset],
            )

    def latest_view(self, dataset: str, view: str, table: str, day: date) -> None:
        self.view(
            dataset,
            view,
            f"SELECT * EXCLUDE ({PARTITION_COLUMN}) FROM {_path(dataset, table)}"
            f" WHERE {PARTITION_COLUMN} = DATE '{day}'",
        )

    def view(self, dataset: str, view: str, statement: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE VIEW {_path(dataset, view)} AS {statement}")

    def select(
        self, dataset: str, table: str, columns: Sequence[str], /, **equal: Any
    ) -> list[dict[str, Any]]:
        where, values = _where(equal)
        listed = ", ".join(sql(column) for column in columns)
        rows = self._connection.execute(
            f"SELECT {listed} FROM {_path(dataset, table)}{where}", values
        ).fetchall()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def replace_rows(
        self, dataset: str, table: str, rows: Sequence[dict[str, Any]], /, **equal: Any
    ) -> None:
        where, values = _where(equal)
        if where:
            self._connection.execute(f"DELETE FROM {_path(dataset, table)}{where}", values)
        if not rows:
            return
        names = list(rows[0])
        batch = pa.table({name: pa.array([row[name] for row in rows]) for name in names})
        self._connection.register("_batch", batch)
        try:
            listed = ", ".join(sql(name) for name in names)
            self._connection.execute(
                f"INSERT INTO {_path(dataset, table)} ({listed}) SELECT {listed} FROM _batch"
            )
        finally:
            self._connection.unregister("_batch")

    def delete_before(self, dataset: str, table: str, column: str, day: date) -> None:
        self._connection.execute(
            f"DELETE FROM {_path(dataset, table)} WHERE {sql(column)} < DATE '{day}'"
        )

    def blank_before(self, dataset: str, table: str, blanked: str, column: str, day: date) -> None:
        self._connection.execute(
            f"UPDATE {_path(dataset, table)} SET {sql(blanked)} = NULL"
            f" WHERE {sql(blanked)} IS NOT NULL AND {sql(column)} < DATE '{day}'"
        )


def install_extensions(folder: Path) -> None:
    """Copy the extensions that came as Python packages into DuckDB's private folder.

    DuckDB verifies their signatures when it loads them.
    """
    platform = "linux_arm64" if os.uname().machine == "aarch64" else "linux_amd64"
    target = folder / f"v{duckdb.__version__}" / platform
    for name in _EXTENSIONS:
        file = target / f"{name}.duckdb_extension"
        if file.exists():
            continue
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise WarehouseFault(
                f"DuckDB's extension {name} is not installed",
                remedy=f"pip install duckdb-extension-{name.replace('_', '-')}"
                f"=={duckdb.__version__}",
            )
        package = Path(spec.origin).parent
        source = package / "extensions" / f"v{duckdb.__version__}" / file.name
        private_folder(target)
        temporary = file.with_suffix(f".{secrets.token_hex(4)}")
        shutil.copyfile(source, temporary)
        temporary.replace(file)


def _prepare_catalog(path: Path) -> None:
    """Create the SQLite catalog in WAL mode: readers then never stop a writer."""
    private_folder(path.absolute().parent)
    connection = sqlite3.connect(path, timeout=10)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()
    path.chmod(0o600)


def _path(dataset: str, table: str) -> str:
    return f"{sql(dataset)}.{sql(table)}"


def _declare(column: Column) -> str:
    required = " NOT NULL" if column.required else ""
    return f"{sql(warehouse_name(column.name))} {types.to_duckdb(column.type)}{required}"


def _where(equal: dict[str, Any]) -> tuple[str, list[Any]]:
    if not equal:
        return "", []
    parts: list[str] = []
    values: list[Any] = []
    for name, value in equal.items():
        if isinstance(value, (list, tuple)):
            parts.append(f"{sql(name)} IN ({', '.join('?' * len(value))})")
            values.extend(value)
        else:
            parts.append(f"{sql(name)} = ?")
            values.append(value)
    return f" WHERE {' AND '.join(parts)}", values


def _is_conflict(error: BaseException) -> bool:
    if isinstance(error, duckdb.TransactionException):
        return True
    return isinstance(error, duckdb.Error) and "database is locked" in str(error)


def _translate(error: duckdb.Error) -> MirrorError:
    """DuckDB's error as ours. Only errors about names and syntax keep their text: no values."""
    tells = isinstance(
        error, (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException)
    )
    detail = str(error).splitlines()[0] if tells else type(error).__name__
    return WarehouseFault(
        f"the warehouse refused: {detail}",
        remedy="see `mirror doctor`; a busy warehouse clears by itself, so try again",
    )


def _remove_empty_folders(root: Path) -> None:
    for folder, _folders, _files in os.walk(root, topdown=False):
        path = Path(folder)
        if path != root and not any(path.iterdir()):
            with suppress(OSError):
                path.rmdir()
