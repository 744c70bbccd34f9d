"""The BigQuery warehouse: Parquet files of the lake loaded day by day, views and control rows.

What readers see while a commit is carried out, and why, is in docs/adr/0004-bigquery-commits.md.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from mirror_assets.mirroring import storage
from mirror_assets.mirroring.errors import MirrorError, SettingsError, WarehouseRefused
from mirror_assets.mirroring.names import PARTITION_COLUMN, folder_name
from mirror_assets.mirroring.names import sql as quoted
from mirror_assets.mirroring.schema import TableSchema
from mirror_assets.mirroring.warehouses.base import BIGQUERY_FOLDER, Rows
from mirror_assets.mirroring.warehouses.bigquery import fields, sql
from mirror_assets.mirroring.warehouses.bigquery.commit import Carrier, Journal, Turn
from mirror_assets.mirroring.warehouses.bigquery.plan import OWN, folder_of
from mirror_assets.mirroring.warehouses.bigquery.service import Service, is_local
from mirror_assets.mirroring.warehouses.bigquery.transaction import BigQueryTransaction

T = TypeVar("T")
_URL = re.compile(r"bigquery:(?P<project>[a-z][a-z0-9.:-]{4,28}[a-z0-9])(\?(?P<options>.*))?")
_OPTIONS = {"location", "endpoint"}
_DAY = 86_400.0
#: Read in one dry run: a statement may not be too complex.
_VIEWS = 50
#: The dataset of the turns that are taken by those who do not publish through a commit.
_TURNS = "mirror_turns"
_ARRAY_OR_STRUCT = ("ARRAY<", "STRUCT<")


class BigQueryWarehouse:
    """BigQuery for one project, at ``bigquery:<project>[?location=..&endpoint=..]``.

    Parquet files that it loads are staged below a folder of its own in ``lake``, where a DuckLake
    may have its files too. A writer that was killed keeps the turn to publish into a dataset for
    ``lease`` seconds. ``patience`` seconds are waited for a service that is not there, and three
    times as many for the turn: one request must not outlast the lease, nor the lease the waiting.
    """

    dialect = "bigquery"

    def __init__(
        self, url: str, lake: str, *, lease: float = 600.0, patience: float = 300.0
    ) -> None:
        project, options = check_address(url, lake)
        self._service = Service(
            project,
            location=options.get("location"),
            endpoint=options.get("endpoint"),
            patience=patience,
        )
        self._lake = storage.lake(f"{lake.rstrip('/')}/{BIGQUERY_FOLDER}")
        self._lease = lease
        self._patience = patience
        self._mutex = threading.RLock()
        self._promised: set[str] = set()

    # -- writing

    def commit(self, body: Callable[[BigQueryTransaction], T]) -> T:
        """Write down what a body changes, then do it; other writers of its dataset wait.

        Raises PublicationPending when it was written down and could not be done to its end.
        """
        with self._mutex, ExitStack() as after:
            carriers: list[Carrier] = []

            def begin(dataset: str) -> None:
                self._service.ensure_dataset(dataset)
                turn = self._turn(dataset)
                turn.take()
                after.callback(turn.give_up)
                carriers.append(Carrier(self._service, self._lake, turn, self._promised))
                given_up = carriers[0].finish_left_over(dataset)
                if given_up is not None:
                    transaction.record_given_up(dataset, *given_up)

            transaction = BigQueryTransaction(self._service, self._lake, begin)
            try:
                result = body(transaction)
            except Exception:
                for carrier in carriers:
                    carrier.forget(transaction.plan)
                raise
            if not transaction.plan.is_empty:
                carriers[0].carry_out(transaction.plan)
            return result

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """While it is held, nobody else holds it. Publishing goes on: its tables are others.

        dbt stages a model's rows in a table that has one name for all days, so that of two runs at
        a time one would publish the other's. Raises WarehouseFault when it was lost meanwhile.
        """
        with self.alone("turn"):
            yield

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """While it is held, nobody else holds the same ``name``; all else goes on.

        Raises WarehouseFault, also at the end when it was lost meanwhile.
        """
        self._service.ensure_dataset(_TURNS)
        turn = self._turn(_TURNS, name)
        turn.take()
        try:
            with turn.kept():
                yield
        finally:
            turn.give_up()

    def _turn(self, dataset: str, name: str = "turn") -> Turn:
        patience = 3 * self._patience
        return Turn(self._service, dataset, name, lease=self._lease, patience=patience)

    def staging(self, dataset: str, table: str, day: date) -> str:
        """A new private folder for Parquet parts that ``replace_partition`` may then own."""
        folder = f"{dataset}/{folder_name(table)}/{PARTITION_COLUMN}={day}/{secrets.token_hex(8)}"
        with self._lake.guard(f"{dataset}.{table}"):
            return self._lake.make_folder(f"{self._lake.root}/staged/{folder}")

    def discard(self, folder: str) -> None:
        """Remove a staging folder that was not published, unless a plan may still need it."""
        if folder in self._promised:
            return
        with suppress(MirrorError), self._lake.guard(folder):
            self._lake.delete_folder(folder)

    # -- reading

    def query(self, statement: str, *, limit: int | None = None, native: bool = False) -> Rows:
        """A read-only query in DuckDB's dialect, or (``native``) as people write it."""
        if native:
            self._refuse_writing(statement)
            text = statement
        else:
            text = sql.translated(statement, self._service.project)
        return self._service.rows(text, about="query", limit=limit)

    def _refuse_writing(self, statement: str) -> None:
        kind, _bytes = self._service.try_out(statement)
        if kind != "SELECT":
            raise WarehouseRefused(
                "only single read-only queries are answered",
                remedy="write one SELECT over the warehouse's tables",
            )

    def relation(self, dataset: str, table: str, day: date) -> str:
        """SQL of a day's rows of a table, in DuckDB's dialect as all of ours."""
        return (
            f"(SELECT * FROM {quoted(dataset)}.{quoted(table)}"
            f" WHERE {PARTITION_COLUMN} = DATE '{day}')"
        )

    @contextmanager
    def batches(self, statement: str) -> Iterator[Any]:
        """The answer of one of our own queries, streamed: an Arrow RecordBatchReader."""
        import pyarrow as pa  # here, because it would slow down loading the code location

        text = sql.translated(statement, self._service.project)
        listed, pages = self._service.stream(text, about="query")
        schema = fields.to_arrow(listed)
        stream = (_fitted(batch, schema) for batch in pages)
        yield pa.RecordBatchReader.from_batches(schema, stream)

    def save(self, statement: str, path: str) -> int:
        """Write the answer of one of our own queries as Parquet; how many rows it has."""
        import pyarrow.parquet as pq  # here, because it would slow down loading the code location

        rows = 0
        with (
            self.batches(statement) as batches,
            self._lake.guard(path),
            self._lake.create(path) as file,
            pq.ParquetWriter(file, batches.schema) as writer,
        ):
            for batch in batches:
                rows += batch.num_rows
                writer.write_batch(batch)
        return rows

    def schemas(self, dataset: str) -> dict[str, TableSchema | MirrorError]:
        """Every table of a dataset, read-only; the error where ``schema`` would raise one."""
        if self._service.dataset(dataset) is None:
            return {}
        views = f"{sql.name(self._service.project)}.{sql.name(dataset)}.INFORMATION_SCHEMA"
        answer = self._service.rows(
            "SELECT c.table_name, c.column_name, c.data_type, c.is_nullable"
            f" FROM {views}.COLUMNS AS c JOIN {views}.TABLES AS t ON t.table_name = c.table_name"
            " WHERE t.table_type = 'BASE TABLE' AND c.is_hidden = 'NO'"
            " ORDER BY c.table_name, c.ordinal_position",
            about=f"tables of {dataset}",
        )
        found: dict[str, list[fields.Field]] = {}
        for table, column, data_type, nullable in answer.rows:
            if not table.startswith(OWN):
                mode = "NULLABLE" if nullable == "YES" else "REQUIRED"
                field = {"name": column, "mode": mode, **_typed(data_type)}
                found.setdefault(table, []).append(field)
        return {table: fields.schema_or_error(table, listed) for table, listed in found.items()}

    # -- upkeep

    def maintain(self, *, time_travel_days: int) -> dict[str, int]:
        """Set how long datasets remember their past; sweep files that killed writers left."""
        hours = min(max(time_travel_days * 24, 48), 168)
        mine = [dataset for dataset in self._service.datasets() if self._service.is_mine(dataset)]
        changed = sum(self._service.keep_for(dataset, hours) for dataset in mine)
        return {"time_travel_changed": changed, "orphans_deleted": self._sweep()}

    def _sweep(self) -> int:
        """Delete what was on its way a day ago: younger files belong to running processes, and a
        plan that was left keeps its files until it is finished.
        """
        if self._lake.local:  # of a private service: its folder goes with it
            return 0
        journal = Journal(self._lake)
        kept = {folder for plan in journal.plans() for folder in plan.folders}
        with self._lake.guard("the lake"):
            old = [
                path
                for path in self._lake.older(time.time() - _DAY)
                if folder_of(path) not in kept and not journal.has(path)
            ]
            for path in old:
                with suppress(FileNotFoundError):
                    self._lake.delete(path)
        return len(old)

    def look_at(self, dataset: str, views: Sequence[str]) -> str:
        """Where a dataset is, that we may write there, and what reading its latest views costs."""
        found = self._service.dataset(dataset)
        if found is None:
            return "not there yet; the first publication makes it"
        wanted = self._service.location
        if wanted and found.location.lower() != wanted.lower():
            raise WarehouseRefused(
                f"it is in {found.location}, and MIRROR_WAREHOUSE says {wanted}",
                where=f"dataset {dataset}",
                remedy="name the dataset's own location in MIRROR_WAREHOUSE",
            )
        self._service.probe(dataset)
        told = f"in {found.location}, can be written"
        there = sorted(self._service.tables(dataset).keys() & views)
        if not there:
            return told
        size = self._cost(dataset, there)
        return f"{told}; reading all of its {len(there)} latest views is {size / 1e6:,.3f} MB"

    def _cost(self, dataset: str, views: Sequence[str]) -> int:
        """Bytes that a query of all of some views reads, asked for in few requests."""
        total = 0
        for start in range(0, len(views), _VIEWS):
            reads = (
                f"SELECT TO_JSON_STRING(t) FROM {self._service.qualified(dataset, view)} AS t"
                for view in views[start : start + _VIEWS]
            )
            _kind, size = self._service.try_out(" UNION ALL ".join(reads))
            total += size
        return total

    def close(self) -> None:
        """Let go of connections."""
        self._service.close()


def check_address(url: str, lake: str) -> tuple[str, dict[str, str]]:
    """The same, with a lake that the project can load from. Raises SettingsError."""
    project, options = addressed(url)
    if "://" not in lake and not is_local(options.get("endpoint")):
        raise SettingsError(
            "BigQuery cannot load from a folder of this machine",
            where="MIRROR_LAKE",
            remedy="use gs://<bucket>/<folder>, in the location of the datasets",
        )
    return project, options


def addressed(url: str) -> tuple[str, dict[str, str]]:
    """The project and the options of ``bigquery:<project>?..``. Raises SettingsError."""
    found = _URL.fullmatch(url)
    options = dict(parse_qsl(found["options"] or "")) if found else {}
    if found is None or options.keys() - _OPTIONS:
        raise SettingsError(
            "this is no address of a BigQuery project",
            where="MIRROR_WAREHOUSE",
            remedy="use bigquery:<project>?location=<location of its datasets>",
        )
    return found["project"], options


def _typed(data_type: str) -> fields.Field:
    """A type of INFORMATION_SCHEMA as the API's."""
    word, _, rest = data_type.partition("(")
    if word in ("NUMERIC", "BIGNUMERIC") and rest:
        precision, _, scale = rest.rstrip(")").partition(",")
        return {"type": word, "precision": precision, "scale": scale.strip() or "0"}
    if data_type.startswith(_ARRAY_OR_STRUCT):
        return {"type": data_type}
    return {"type": word}


def _fitted(batch: Any, schema: Any) -> Any:
    """A batch of Google's client in our types."""
    import pyarrow as pa

    columns = []
    for column, wanted in zip(batch.columns, schema, strict=True):
        if pa.types.is_decimal256(column.type) and pa.types.is_string(wanted.type):
            columns.append(pa.array([_plain(value) for value in column.to_pylist()], pa.string()))
        else:
            columns.append(column.cast(wanted.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain(value: Decimal | None) -> str | None:
    """A number's digits, without zeros at its end."""
    if value is None:
        return None
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
