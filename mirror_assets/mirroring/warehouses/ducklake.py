"""The embedded warehouse: a DuckLake, immutable Parquet files plus a transactional catalog.

What was measured, and why it is used like this, is in docs/adr/0001-lake-and-load.md: overlapping
writers conflict as a whole, so they take turns and the whole transaction is tried again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import duckdb
from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random_exponential,
)

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import (
    DriftRefused,
    MirrorError,
    PublicationPending,
    WarehouseFault,
    reason,
)
from mirror_assets.mirroring.names import (
    PARTITION_COLUMN,
    folder_name,
    literal,
    sql,
    warehouse_name,
)
from mirror_assets.mirroring.schema import Column, Drift, TableSchema
from mirror_assets.mirroring.scratch import limit_spill, new_scratch, remove_scratch
from mirror_assets.mirroring.storage import Storage, private_file, private_folder
from mirror_assets.mirroring.storage import lake as lake_at
from mirror_assets.mirroring.warehouses.base import (
    BIGQUERY_FOLDER,
    Equal,
    Nearest,
    Rows,
    day_shown,
    is_near,
)
from mirror_assets.mirroring.warehouses.lake_catalog import SqliteCatalog, open_catalog

T = TypeVar("T")

ALIAS = "lake"
_EXTENSIONS = ("ducklake", "icu")
#: In the paths of files that another warehouse keeps in the same place.
_FOREIGN = f"/{BIGQUERY_FOLDER}/"
#: Catalog, author and message of our commits.
_OURS = f"'{ALIAS}', 'mirror_assets', NULL"
#: Without it DuckLake refuses a remote DATA_PATH, although another file system serves it.
_REMOTE = "httpfs"
#: Small writes of control rows live in the catalog instead of one tiny file each.
_INLINED_ROWS = 500
_ATTEMPTS = 20
#: Rows of a streamed answer that are held at a time.
_BATCH_ROWS = 4096
#: Of derived rows, nested and long, which are mostly read a member at a time.
_ROW_GROUP = 2048
_EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s", re.IGNORECASE)
#: Table functions a query may call; others write or read outside, even over a read-only lake.
_READING = re.compile(
    r"range|generate_series|unnest|json_each|json_tree|(duckdb|pragma)_\w+"
    r"|(ducklake_)?(snapshots|table_info|table_changes|table_insertions|table_deletions)"
)


class DuckLakeWarehouse:
    """A DuckLake at ``ducklake:sqlite:<file>`` or ``ducklake:postgres:<address>``, its files in
    ``lake``.

    Files that nothing refers to are taken for those of a killed writer after ``orphan_hours``.
    What exceeds ``memory`` spills, at most ``spill``, below ``scratch`` (default: beside the lake).
    A catalog that went away in the middle of a commit is waited for, ``patience`` seconds.
    """

    dialect = "duckdb"

    def __init__(
        self,
        url: str,
        lake: str | Path,
        extensions: Path,
        *,
        scratch: Path | None = None,
        memory: str = "512MB",
        spill: str = "20GB",
        orphan_hours: float = 24,
        password: str | None = None,
        patience: float = 60,
    ) -> None:
        self._catalog = open_catalog(url, password)
        self._files = lake_at(str(lake))
        self._lake = self._files.root
        self._extensions = extensions.absolute()
        self._memory = memory
        self._spill = spill
        self._orphan_seconds = orphan_hours * 3600
        self._patience = patience
        #: Folders of files that may be the lake's: nobody shall remove them.
        self._promised: set[str] = set()
        #: Of one machine: the writers' lock.
        self._home = self._catalog.folder or self._extensions
        if self._files.local:
            self._home = Path(self._lake)
        self._scratch_root = scratch or self._home.parent / "scratch"
        self._scratch: Path | None = None
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._mutex = threading.RLock()
        self._reader: duckdb.DuckDBPyConnection | None = None
        self._reading = threading.Lock()

    # -- writing

    def commit(self, body: Callable[[DuckLakeTransaction], T]) -> T:
        """Run a body as one transaction; on a conflict, run it again from the start.

        Raises PublicationPending when the catalog never said whether it was done.
        """
        with self._mutex, _own_faults(self._drop_writer):
            if self._writer is None and self._catalog.exists():
                self._open_writer()  # which takes longer than a turn
            with self._turn():
                outcome: T = _until_clear()(self._attempt, body)
            return outcome

    def _attempt(self, body: Callable[[DuckLakeTransaction], T]) -> T:
        connection = self._open_writer()
        connection.execute("BEGIN")
        try:
            transaction = DuckLakeTransaction(connection)
            result = body(transaction)
            if transaction.adds_files:  # after a power cut the catalog must not name lost ones
                self._files.persist()
            name = secrets.token_hex(16)
            connection.execute(f"CALL ducklake_set_commit_message({_OURS}, extra_info => '{name}')")
        except BaseException:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            raise
        self._finish(connection, name, transaction.folders)
        return result

    def _finish(self, connection: duckdb.DuckDBPyConnection, name: str, folders: set[str]) -> None:
        """Commit. When no good answer comes, the catalog is asked: files that are the lake's by
        now may neither be added again, nor be removed as those of a commit that failed.
        """
        self._promised |= folders
        try:
            connection.execute("COMMIT")
        except duckdb.Error:
            with suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            if not self._is_done(name):
                self._promised -= folders
                raise
            self._drop_writer()
        self._promised -= folders

    def _is_done(self, name: str) -> bool:
        """Whether a commit of that name is in the catalog."""
        ask = Retrying(
            retry=retry_if_exception_type((MirrorError, sqlite3.Error)),
            stop=stop_after_delay(self._patience),
            wait=wait_exponential(0.1, max=5),
            reraise=True,
        )
        try:
            return bool(ask(self._catalog.has_commit, name))
        except (MirrorError, sqlite3.Error):
            self._drop_writer()
            raise PublicationPending(
                "the catalog went away before it said whether this is published",
                where=f"warehouse {self._catalog.shown}",
                remedy="nothing is lost: when the catalog is back, run the partition again",
            ) from None

    def staging(self, dataset: str, table: str, day: date) -> str:
        """A new private folder; its path carries the day as a hive partition."""
        folder = f"{self._lake}/{dataset}/{folder_name(table)}/{PARTITION_COLUMN}={day}"
        with self._files.guard(f"{dataset}.{table}"):
            return self._files.make_folder(f"{folder}/{secrets.token_hex(8)}")

    def discard(self, folder: str) -> None:
        if folder in self._promised:
            return
        with suppress(MirrorError), self._files.guard(folder):
            self._files.delete_folder(folder)

    def maintain(self, *, time_travel_days: int) -> dict[str, int]:
        """Expire snapshots, delete what only they used, sweep what killed writers left behind."""
        with self._mutex, _own_faults(self._drop_writer), self._turn():
            done = self._expire(self._open_writer(), time_travel_days)
            self._catalog.compact()
            if self._files.local:
                _sweep(Path(self._lake), time.time() - self._orphan_seconds)
        return done

    def _expire(self, connection: duckdb.DuckDBPyConnection, days: int) -> dict[str, int]:
        # Changed control rows live on in the catalog and beside deletes until they are rewritten.
        for dataset, table in connection.execute(_UNPARTITIONED).fetchall():
            at = f"{literal(table)}, schema => {literal(dataset)}"
            for statement in (
                f"ducklake_flush_inlined_data('{ALIAS}', schema_name => {literal(dataset)},"
                f" table_name => {literal(table)})",
                f"ducklake_rewrite_data_files('{ALIAS}', {at}, delete_threshold => 0)",
                f"ducklake_merge_adjacent_files('{ALIAS}', {at})",
            ):
                connection.execute(f"CALL {statement}")
        steps = {
            "snapshots_expired": f"ducklake_expire_snapshots('{ALIAS}',"
            f" older_than => now() - INTERVAL '{days} days')",
            "files_deleted": f"ducklake_cleanup_old_files('{ALIAS}', cleanup_all => true)",
        }
        done = {
            step: len(connection.execute(f"CALL {statement}").fetchall())
            for step, statement in steps.items()
        }
        orphans = [path for path in self._orphans(connection) if _FOREIGN not in path]
        for path in orphans:
            self._files.delete(path)
        return {**done, "orphans_deleted": len(orphans)}

    def _orphans(self, connection: duckdb.DuckDBPyConnection) -> list[str]:
        """Files that were left; DuckLake itself cannot tell the age of a remote one."""
        if self._files.local:
            older = f"now() - INTERVAL '{self._orphan_seconds} seconds'"
            listed = (
                f"ducklake_delete_orphaned_files('{ALIAS}', older_than => {older}, dry_run => true)"
            )
            return [path for (path,) in connection.execute(f"CALL {listed}").fetchall()]
        known = {path for (path,) in connection.execute(_KNOWN_FILES).fetchall()}
        older_files = self._files.older(time.time() - self._orphan_seconds)
        return [path for path in older_files if known.isdisjoint(_suffixes(path))]

    # -- reading

    def query(self, statement: str, *, limit: int | None = None, native: bool = False) -> Rows:  # noqa: ARG002 - its dialect is ours
        """One read-only query; it can neither write nor read anything but the lake's tables."""
        self._refuse_absent()
        try:
            return _until_clear()(self._read, statement, limit)
        except duckdb.Error as error:
            raise _translate(error, remedy=_QUERY_REMEDY) from None

    def _refuse_absent(self) -> None:
        if self._reader is None and not self._catalog.exists():
            raise WarehouseFault(
                "nothing has been mirrored yet",
                where=f"warehouse {self._catalog.shown}",
                remedy="materialize a partition first, or run `make demo`",
            )

    def _read(self, statement: str, limit: int | None) -> Rows:
        with self._reading:
            if self._reader is None:
                self._reader = self._open_reader()
            try:
                _refuse_writing(self._reader, statement)
                answer = self._reader.execute(statement)
                columns = tuple(column[0] for column in answer.description or ())
                return Rows(
                    columns, answer.fetchall() if limit is None else answer.fetchmany(limit)
                )
            except duckdb.Error:
                self._drop_reader()
                raise

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """While it is held, no other of our processes writes; for writers that do not ask."""
        with self._mutex, _own_faults(self._drop_writer), self._turn():
            yield

    def alone(self, name: str) -> AbstractContextManager[None]:
        """While it is held, no other of our processes holds the same ``name``; all else goes on."""
        return self._catalog.turn(private_folder(self._home), name)

    def relation(self, dataset: str, table: str, day: date) -> str:
        """SQL of a day's rows of a table, without ``_PARTITIONDATE``."""
        return (
            f"(SELECT * EXCLUDE ({PARTITION_COLUMN}) FROM {_path(dataset, table)}"
            f" WHERE {PARTITION_COLUMN} = DATE '{day}')"
        )

    def save(self, statement: str, path: str) -> int:
        """Write the answer of one of our own queries as Parquet; how many rows it has."""
        if self._files.local:
            private_file(Path(path)).close()
        with self._own_reader() as connection:
            options = f"FORMAT parquet, ROW_GROUP_SIZE {_ROW_GROUP}"
            to = f"COPY ({statement}) TO {literal(path)} ({options})"
            (rows,) = connection.execute(to).fetchone() or (0,)
        return int(rows)

    @contextmanager
    def batches(self, statement: str) -> Iterator[Any]:
        """The answer of one of our own queries, streamed: an Arrow RecordBatchReader."""
        with self._own_reader() as connection:
            yield connection.execute(statement).to_arrow_reader(_BATCH_ROWS)

    @contextmanager
    def _own_reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        self._refuse_absent()
        with _own_faults(lambda: None), closing(self._connect(read_only=True)) as connection:
            connection.execute("SET preserve_insertion_order = false")
            yield connection

    def schemas(self, dataset: str) -> dict[str, TableSchema | MirrorError]:
        """Every table of a dataset, read-only; the error where ``schema`` would raise one."""
        if not self._catalog.exists():
            return {}
        found: dict[str, list[tuple[str, str, bool]]] = {}
        for table, *column in self.query(
            "SELECT table_name, column_name, data_type, NOT is_nullable FROM duckdb_columns()"
            f" WHERE database_name = '{ALIAS}' AND schema_name = {literal(dataset)}"
            " ORDER BY table_name, column_index"
        ).rows:
            found.setdefault(table, []).append(tuple(column))
        return {table: _schema_or_error(table, columns) for table, columns in found.items()}

    def _open_reader(self) -> duckdb.DuckDBPyConnection:
        connection = self._connect(read_only=True)
        connection.execute(f"SET allowed_directories = [{literal(self._lake)}]")
        connection.execute("SET enable_external_access = false; SET lock_configuration = true")
        return connection

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def look_at(self, dataset: str, views: Sequence[str]) -> str:  # noqa: ARG002 - its own files
        return ""

    def close(self) -> None:
        with self._mutex:
            self._drop_writer()
        with self._reading:
            self._drop_reader()
        if self._scratch is not None:
            remove_scratch(self._scratch)
            self._scratch = None

    # -- connections

    def _connect(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        extensions = (*_EXTENSIONS, self._catalog.extension)
        remote = () if self._files.local else (_REMOTE,)
        files = set(map(_identity, install_extensions(self._extensions, (*extensions, *remote))))
        if self._scratch is None:
            self._scratch = new_scratch(self._scratch_root)
        connection = duckdb.connect(
            config={
                "extension_directory": str(self._extensions),
                "autoinstall_known_extensions": False,
                "allow_persistent_secrets": False,
                "allow_unsigned_extensions": files <= _verified,
                "memory_limit": self._memory,
                # its own: processes that share such a folder crash each other
                "temp_directory": str(self._scratch / secrets.token_hex(8)),
            }
        )
        limit_spill(connection, self._spill)
        serve_remote(connection, self._files)
        for extension in extensions:
            connection.execute(f"LOAD {extension}")
        _verified.update(files)
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        # A retry inside DuckLake would let two inserts into one partition both succeed.
        connection.execute("SET ducklake_max_retry_count = 0")
        # Inlined deletes would keep every small partition ever published alive, and DuckLake would
        # make a table for inlined rows beside each mirrored one. Control tables say otherwise.
        options = [f"DATA_PATH {literal(self._lake)}", "DATA_INLINING_ROW_LIMIT 0"]
        options += self._catalog.options()
        options += ["READ_ONLY"] * read_only
        for statement in self._catalog.login():
            connection.execute(statement)
        attached = f"{literal(self._catalog.url)} AS {ALIAS}"
        connection.execute(f"ATTACH {attached} ({', '.join(options)})")
        connection.execute(f"USE {ALIAS}")
        return connection

    def _open_writer(self) -> duckdb.DuckDBPyConnection:
        if self._writer is None:
            private_folder(self._home)
            self._catalog.prepare()
            self._writer = self._connect(read_only=False)
        return self._writer

    def _drop_writer(self) -> None:
        if self._writer is not None:
            with suppress(duckdb.Error):
                self._writer.close()
            self._writer = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The writers' turn; what DuckDB creates meanwhile is readable by its owner only."""
        with self._catalog.turn(private_folder(self._home)):
            before = os.umask(0o077)
            try:
                yield
            finally:
                os.umask(before)


class DuckLakeTransaction:
    """The changes of one DuckLake transaction."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._newest: dict[tuple[str, str], date] | None = None
        self._filled: set[tuple[str, str]] = set()
        self._redefined: set[tuple[str, str]] = set()
        self._inlining: set[tuple[str, str]] | None = None
        self.adds_files = False
        #: Where the files are that it adds.
        self.folders: set[str] = set()

    def schema(self, dataset: str, table: str) -> TableSchema | None:
        try:
            # DESCRIBE would look for a missing table named `db` or `csv` as a file
            rows = self._connection.execute(
                'SELECT name, type, "notnull" FROM pragma_table_info(?)', [_path(dataset, table)]
            ).fetchall()
        except duckdb.CatalogException:
            return None
        return _schema(table, rows)

    def tables(self, dataset: str) -> dict[str, bool]:
        rows = self._connection.execute(
            "SELECT c.table_name, bool_or(c.column_name = ? AND t.table_name IS NOT NULL)"
            " FROM duckdb_columns() c LEFT JOIN duckdb_tables() t"
            " USING (database_name, schema_name, table_name)"
            " WHERE c.database_name = ? AND c.schema_name = ? GROUP BY 1 ORDER BY 1",
            [PARTITION_COLUMN, ALIAS, dataset],
        ).fetchall()
        return dict(rows)

    def days(self, dataset: str, table: str) -> dict[date, int]:
        if not self.tables(dataset).get(table):
            return {}
        rows = self._connection.execute(
            f"SELECT coalesce({PARTITION_COLUMN}, DATE '0001-01-01'), count(*)"
            f" FROM {_path(dataset, table)} GROUP BY 1"
        ).fetchall()
        return dict(rows)

    def create_table(
        self, dataset: str, table: str, schema: TableSchema, *, partitioned: bool
    ) -> None:
        self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {sql(dataset)}")
        columns = [_declare(column) for column in schema.columns]
        if partitioned:
            columns.append(f"{PARTITION_COLUMN} DATE")
        self._connection.execute(f"CREATE TABLE {_path(dataset, table)} ({', '.join(columns)})")
        self._redefined.add((dataset, table))
        if partitioned:
            self._connection.execute(
                f"ALTER TABLE {_path(dataset, table)} SET PARTITIONED BY ({PARTITION_COLUMN})"
            )

    def evolve(self, dataset: str, table: str, schema: TableSchema, drift: Drift) -> None:
        alter = f"ALTER TABLE {_path(dataset, table)}"
        if drift.changes:
            self._redefined.add((dataset, table))
        for change in drift.changes:
            name = sql(change.column)
            if change.change == "added":
                declared = types.to_duckdb(schema.column(change.column).type)
                self._connection.execute(f"{alter} ADD COLUMN {name} {declared}")
            elif change.change == "relaxed":
                self._connection.execute(f"{alter} ALTER COLUMN {name} DROP NOT NULL")
            elif change.change == "recased":
                old = sql(change.before)
                self._connection.execute(f"{alter} RENAME COLUMN {old} TO {name}")
            elif change.change == "widened":
                declared = types.to_duckdb(schema.column(change.column).type)
                self._connection.execute(f"{alter} ALTER COLUMN {name} TYPE {declared}")

    def ensure_like(self, dataset: str, table: str, file: str) -> None:
        described = self._connection.execute(f"DESCRIBE FROM {_parquet(file)}").fetchall()
        wanted = {name: kind for name, kind, *_rest in described if name != PARTITION_COLUMN}
        path = _path(dataset, table)
        try:
            known = dict(
                self._connection.execute(
                    "SELECT name, type FROM pragma_table_info(?)", [path]
                ).fetchall()
            )
        except duckdb.CatalogException:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {sql(dataset)}")
            columns = [f"{sql(name)} {kind}" for name, kind in wanted.items()]
            declared = ", ".join([*columns, f"{PARTITION_COLUMN} DATE"])
            self._connection.execute(f"CREATE TABLE {path} ({declared})")
            self._connection.execute(f"ALTER TABLE {path} SET PARTITIONED BY ({PARTITION_COLUMN})")
            return
        for name, kind in wanted.items():
            if name not in known:
                self._connection.execute(f"ALTER TABLE {path} ADD COLUMN {sql(name)} {kind}")
            elif known[name] != kind:
                raise DriftRefused(
                    f"column {name} of {dataset}.{table} is {known[name]} and would become {kind}",
                    remedy=f"rename {dataset}.{table} out of the way; its days can be made again",
                )

    def newest_day(self, dataset: str, table: str) -> date | None:
        statement = f"SELECT max({PARTITION_COLUMN}) FROM {_path(dataset, table)}"
        newest: date | None = (self._connection.execute(statement).fetchone() or (None,))[0]
        return newest

    def drop_table(self, dataset: str, table: str) -> None:
        self._connection.execute(f"DROP TABLE {_path(dataset, table)}")

    def rename(self, dataset: str, table: str, new_name: str) -> None:
        self._connection.execute(f"ALTER TABLE {_path(dataset, table)} RENAME TO {sql(new_name)}")

    def replace_partition(self, dataset: str, table: str, day: date, files: Sequence[str]) -> None:
        if self._may_hold(dataset, table, day):
            self._connection.execute(
                f"DELETE FROM {_path(dataset, table)} WHERE {PARTITION_COLUMN} = DATE '{day}'"
            )
        self._filled.add((dataset, table))
        for file in files:
            self.adds_files = True
            self.folders.add(file.rpartition("/")[0])
            self._connection.execute(
                f"CALL ducklake_add_data_files('{ALIAS}', ?, ?, schema => ?,"
                " hive_partitioning => true, allow_missing => true)",
                [table, file, dataset],
            )

    def _may_hold(self, dataset: str, table: str, day: date) -> bool:
        """Whether a table may have rows of a day: not if all that it ever had are older.

        DuckLake finds that out for itself, in ten times as long.
        """
        if self._newest is None:  # after DuckLake's own snapshot: what comes later is a conflict
            self._connection.execute(f"FROM ducklake_current_snapshot('{ALIAS}')")
            self._newest = {
                (schema, name): date.fromisoformat(newest)
                for schema, name, newest in self._connection.execute(_NEWEST_DAYS).fetchall()
            }
        newest = self._newest.get((dataset, table), date.max)
        return day <= newest or (dataset, table) in self._filled

    def latest_view(self, dataset: str, view: str, table: str, day: date) -> None:
        self.view(
            dataset,
            view,
            f"SELECT * EXCLUDE ({PARTITION_COLUMN}) FROM {_path(dataset, table)}"
            f" WHERE {PARTITION_COLUMN} = DATE '{day}'",
        )

    def view_day(self, dataset: str, view: str) -> date | None:
        row = self._connection.execute(
            "SELECT sql FROM duckdb_views()"
            " WHERE database_name = ? AND schema_name = ? AND view_name = ?",
            [ALIAS, dataset, view],
        ).fetchone()
        return day_shown(row[0]) if row else None

    def drop_view(self, dataset: str, view: str) -> None:
        self._connection.execute(f"DROP VIEW IF EXISTS {_path(dataset, view)}")

    def view(self, dataset: str, view: str, statement: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE VIEW {_path(dataset, view)} AS {statement}")

    def select(
        self,
        dataset: str,
        table: str,
        columns: Sequence[str],
        /,
        *any_of: Equal,
        nearest: Nearest | None = None,
        **equal: Any,
    ) -> list[dict[str, Any]]:
        where, values = _where(equal, any_of)
        listed = ", ".join(sql(column) for column in columns)
        chosen = f" QUALIFY {is_near(nearest, sql)}" if nearest else ""
        rows = self._connection.execute(
            f"SELECT {listed} FROM {_path(dataset, table)}{where}{chosen}", values
        ).fetchall()
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def replace_rows(
        self, dataset: str, table: str, rows: Sequence[dict[str, Any]], /, **equal: Any
    ) -> None:
        self._inline(dataset, table)
        where, values = _where(equal)
        if where:
            self._connection.execute(f"DELETE FROM {_path(dataset, table)}{where}", values)
        if rows:
            self._insert(dataset, table, rows)

    def _insert(self, dataset: str, table: str, rows: Sequence[dict[str, Any]]) -> None:
        import pyarrow as pa  # here, because it would slow down loading the code location

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

    def _inline(self, dataset: str, table: str) -> None:
        """Keep few changed rows in the catalog instead of in one tiny file each.

        An option of the table, which DuckLake can set neither before the table's creation is
        committed nor together with a change of it: rows of such a transaction become a file.
        """
        if self._inlining is None:
            self._inlining = set(self._connection.execute(_INLINING_TABLES).fetchall())
        if (dataset, table) in self._inlining:
            return
        if (dataset, table) in self._redefined:
            self.adds_files = True
        else:
            self._connection.execute(
                f"CALL {ALIAS}.set_option('data_inlining_row_limit', {_INLINED_ROWS},"
                f" schema => {literal(dataset)}, table_name => {literal(table)})"
            )
            self._inlining.add((dataset, table))

    def delete_before(self, dataset: str, table: str, column: str, day: date) -> None:
        self._connection.execute(
            f"DELETE FROM {_path(dataset, table)} WHERE {sql(column)} < DATE '{day}'"
        )

    def blank_before(self, dataset: str, table: str, blanked: str, column: str, day: date) -> None:
        self._inline(dataset, table)
        self._connection.execute(
            f"UPDATE {_path(dataset, table)} SET {sql(blanked)} = NULL"
            f" WHERE {sql(blanked)} IS NOT NULL AND {sql(column)} < DATE '{day}'"
        )


def serve_remote(connection: duckdb.DuckDBPyConnection, files: Storage) -> None:
    """Have a connection read and write a lake's files, unless they are this machine's own."""
    if files.local:
        return
    # in this order: who comes first serves gs://, and httpfs would want HMAC keys
    connection.register_filesystem(files.fs)
    connection.execute(f"LOAD {_REMOTE}")


def _suffixes(path: str) -> Iterator[str]:
    """A path, and what is left of it without its first, second .. folder."""
    yield path
    for place, character in enumerate(path):
        if character == "/":
            yield path[place + 1 :]


def _parquet(file: str) -> str:
    return f"read_parquet({literal(file)}, hive_partitioning => false)"


#: Files whose signature DuckDB has verified in this process: it takes 0.3 s each time, because all
#: of their 70 MB are hashed, and they lie in a folder that only we can write.
_verified: set[tuple[str, int, int, int]] = set()


def _identity(file: Path) -> tuple[str, int, int, int]:
    """What tells a file from one that took its place."""
    found = file.stat()
    return str(file), found.st_ino, found.st_size, found.st_mtime_ns


def install_extensions(
    folder: Path, names: Sequence[str] = (*_EXTENSIONS, SqliteCatalog.extension)
) -> list[Path]:
    """Copy the extensions that came as Python packages into DuckDB's private folder.

    DuckDB verifies their signatures when it first loads them. Returns their files.
    """
    platform = "linux_arm64" if os.uname().machine == "aarch64" else "linux_amd64"
    target = folder / f"v{duckdb.__version__}" / platform
    files = [target / f"{name}.duckdb_extension" for name in names]
    for name, file in zip(names, files, strict=True):
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
    return files


def _schema(table: str, described: Sequence[tuple[str, str, bool]]) -> TableSchema:
    """A table as DuckDB describes it. Raises DriftRefused for a type we do not write."""
    columns = []
    for name, data_type, required in described:
        if name == PARTITION_COLUMN:
            continue
        try:
            columns.append(Column(name, "", types.from_duckdb(data_type), required))
        except (KeyError, ValueError):
            raise DriftRefused(
                f"the warehouse's column {name} has type {data_type}, which the mirror never makes:"
                " somebody altered the table by hand",
                remedy=f"give the column its type back, or rename the table to {table}_depr_<n>;"
                " then run the partition again",
            ) from None
    return TableSchema(tuple(columns))


def _schema_or_error(
    table: str, described: Sequence[tuple[str, str, bool]]
) -> TableSchema | MirrorError:
    try:
        return _schema(table, described)
    except DriftRefused as error:
        return error


def _path(dataset: str, table: str) -> str:
    return f"{sql(dataset)}.{sql(table)}"


def _declare(column: Column) -> str:
    required = " NOT NULL" if column.required else ""
    return f"{sql(warehouse_name(column.name))} {types.to_duckdb(column.type)}{required}"


def _where(equal: Equal, any_of: Sequence[Equal] = ()) -> tuple[str, list[Any]]:
    """Conditions in a form that DuckLake does not look up in its file statistics: for each column
    it would read those of every file of the lake, and control tables have few files anyway.
    """
    groups = [group for group in ([equal] if equal else [], any_of) if group]
    texts = [" OR ".join(map(_all_among, group)) for group in groups]
    values = [value for group in groups for each in group for value in each.values()]
    wanted = [value if isinstance(value, (list, tuple)) else [value] for value in values]
    return (f" WHERE ({') AND ('.join(texts)})" if texts else ""), wanted


def _all_among(equal: Equal) -> str:
    among = (
        f"list_contains(?, {sql(name)}) OR ({sql(name)} IS NULL AND {value is None})"
        for name, value in equal.items()
    )
    return "(" + " AND ".join(f"({text})" for text in among) + ")"


def _until_clear() -> Retrying:
    """Try again while another writer is in the way."""
    return Retrying(
        retry=retry_if_exception(_is_conflict),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(0.02, max=1),
        reraise=True,
    )


#: How SQLite, DuckLake and PostgreSQL say that another writer was in the way.
CONFLICTS = (
    "database is locked",
    "Failed to commit DuckLake transaction",
    "could not serialize access",
)


def _is_conflict(error: BaseException) -> bool:
    is_theirs = isinstance(error, (duckdb.Error, sqlite3.Error))
    return is_theirs and any(sign in str(error) for sign in CONFLICTS)


@contextmanager
def _own_faults(drop_writer: Callable[[], None]) -> Iterator[None]:
    """Errors of DuckDB and of the folder as ours; the next writer gets a new connection."""
    try:
        yield
    except (duckdb.Error, sqlite3.Error) as error:
        drop_writer()
        raise _translate(error) from None
    except OSError as error:
        drop_writer()
        raise WarehouseFault(f"the lake cannot be written: {reason(error)}", remedy=_ROOM) from None


#: How DuckDB and SQLite say it; their texts are looked at, never shown.
_FULL = (
    *("no space left on device", "disk is full", "disk quota exceeded", "file too large"),
    "disk i/o error",  # SQLite, where it cannot make its shared memory
)
_ROOM = "check space and rights of MIRROR_LAKE and of the catalog in MIRROR_WAREHOUSE, then retry"
_REFUSED: dict[type[Exception], str] = {
    duckdb.PermissionException: "only the warehouse's own tables can be read, no other files",
    duckdb.ConversionException: "a value cannot be converted to the type asked for",
    duckdb.OutOfRangeException: "a value is outside the range of its type",
    duckdb.OutOfMemoryException: "the limit of memory, or that of spilled data, was reached",
    duckdb.ConstraintException: "a value is missing in a required column",
}
_QUERY_REMEDY = "write one SELECT over the warehouse's tables; SHOW ALL TABLES lists them"


def _translate(
    error: duckdb.Error | sqlite3.Error, *, remedy: str = "see `mirror doctor`, then try again"
) -> MirrorError:
    """DuckDB's error as ours. Only errors about names and syntax keep their text: no values."""
    tells = isinstance(
        error, (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException)
    )
    if _is_conflict(error):
        detail, remedy = "other writers kept it busy", "a busy warehouse clears: try again"
    elif any(sign in str(error).lower() for sign in _FULL):
        detail, remedy = "the disk is full or fails", _ROOM
    elif tells:
        detail = str(error).splitlines()[0]
    else:
        detail = _REFUSED.get(type(error), type(error).__name__)
    return WarehouseFault(f"the warehouse refused: {detail}", remedy=remedy)


def _refuse_writing(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Let one SELECT (also EXPLAIN, DESCRIBE, SHOW) pass that calls no function which acts.

    READ_ONLY is not enough: COPY writes into the lake's folder, ``ducklake_cleanup_old_files``
    deletes files, ``sqlite_scan`` reads any file.
    """
    text = _EXPLAIN.sub("", statement, count=1) if _EXPLAIN.match(statement) else statement
    row = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    tree = json.loads(row[0]) if row else {}
    if tree.get("error_type") == "parser":
        raise WarehouseFault(
            f"the query has a {tree['error_message'].splitlines()[0]}", remedy=_QUERY_REMEDY
        )
    if len(tree.get("statements", ())) != 1:
        raise WarehouseFault("only single read-only queries are answered", remedy=_QUERY_REMEDY)
    for name in _table_functions(tree):
        if not _READING.fullmatch(name):
            raise WarehouseFault(f"a query may not call {name}", remedy=_QUERY_REMEDY)


def _table_functions(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if tree.get("type") == "TABLE_FUNCTION":
            yield tree["function"]["function_name"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from _table_functions(branch)


#: Paths of all files that the catalog knows, absolute or below their table's folder.
_KNOWN_FILES = " UNION ALL ".join(
    f"SELECT path FROM __ducklake_metadata_{ALIAS}.ducklake_{table}"
    for table in ("data_file", "delete_file", "files_scheduled_for_deletion")
)

#: Tables whose few changed rows live in the catalog.
_INLINING_TABLES = f"""
    SELECT s.schema_name, t.table_name
    FROM __ducklake_metadata_{ALIAS}.ducklake_metadata m
    JOIN __ducklake_metadata_{ALIAS}.ducklake_table t ON t.table_id = m.scope_id
    JOIN __ducklake_metadata_{ALIAS}.ducklake_schema s USING (schema_id)
    WHERE m.key = 'data_inlining_row_limit' AND m.scope = 'table'
        AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
"""

_UNPARTITIONED = f"""
    SELECT s.schema_name, t.table_name
    FROM __ducklake_metadata_{ALIAS}.ducklake_table t
    JOIN __ducklake_metadata_{ALIAS}.ducklake_schema s USING (schema_id)
    WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND t.table_id NOT IN (
        SELECT table_id FROM __ducklake_metadata_{ALIAS}.ducklake_partition_info
        WHERE end_snapshot IS NULL)
"""


#: The newest day that each table ever held. Renamed and dropped columns keep their numbers.
_NEWEST_DAYS = f"""
    SELECT s.schema_name, t.table_name, c.max_value
    FROM __ducklake_metadata_{ALIAS}.ducklake_table t
    JOIN __ducklake_metadata_{ALIAS}.ducklake_schema s USING (schema_id)
    JOIN __ducklake_metadata_{ALIAS}.ducklake_column n USING (table_id)
    JOIN __ducklake_metadata_{ALIAS}.ducklake_table_column_stats c USING (table_id, column_id)
    WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL AND n.end_snapshot IS NULL
        AND n.column_name = '{PARTITION_COLUMN}' AND c.max_value IS NOT NULL
"""


def _sweep(lake: Path, before: float) -> None:
    """Delete old empty folders; younger ones belong to running processes."""
    for folder, _folders, _files in os.walk(lake, topdown=False):
        path = Path(folder)
        with suppress(OSError):  # rmdir keeps what is not empty
            if path != lake and path.stat().st_mtime < before:
                path.rmdir()
