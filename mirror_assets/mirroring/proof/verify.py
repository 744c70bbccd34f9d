"""Prove a partition: the warehouse's rows against the source, the export, or recorded digests.

The source is asked while it still holds the refresh that the partition was copied from; else the
export is read; when both are gone, the digests that the publication recorded must still hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, Literal, get_args

import duckdb

from mirror_assets.mirroring import control, refresh
from mirror_assets.mirroring.catalog import DatabaseSpec, TableSpec
from mirror_assets.mirroring.errors import MirrorError, ProofImpossible, at_edge
from mirror_assets.mirroring.landing import Landing, Manifest
from mirror_assets.mirroring.names import PARTITION_COLUMN, literal, sql, warehouse_name
from mirror_assets.mirroring.proof.cells import Cell, cells_of
from mirror_assets.mirroring.proof.compare import Account, Named, compare
from mirror_assets.mirroring.proof.engines import ENGINES, can_ask
from mirror_assets.mirroring.proof.export import ExportSide
from mirror_assets.mirroring.proof.sides import Side, SqlSide
from mirror_assets.mirroring.proof.streamed import Streamed
from mirror_assets.mirroring.schema import TableSchema, fold
from mirror_assets.mirroring.sources.base import Snapshot, Source
from mirror_assets.mirroring.typed import digest_statement
from mirror_assets.mirroring.warehouses.base import Warehouse

Against = Literal["auto", "source", "export", "digests"]
Ask = Callable[[str], list[tuple[Any, ...]]]
AGAINST: tuple[Against, ...] = get_args(Against)


@dataclass
class TableProof:
    """The verdict on one table. ``against`` is empty when nothing could be compared.

    ``reference_rows`` are those of the source or the export; ``named`` are rows that differ.
    """

    table: str
    against: str = ""
    reference_rows: int = 0
    held_rows: int = 0
    rejected: int = 0
    faults: list[str] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        return bool(self.against) and not self.faults


@dataclass(frozen=True)
class _Published:
    """What MIRROR_METADATA says of the attempt that published a table's partition."""

    row: dict[str, Any]

    @property
    def instant(self) -> datetime:
        found: datetime = self.row["refreshed_at"] or self.row["snapshot_at"]
        return found

    @property
    def nulled(self) -> dict[str, int]:
        """Values that a policy made NULL, by column; for dates the sides know which."""
        found: dict[str, int] = json.loads(self.row["misfit_columns"] or "{}")
        return found


@dataclass(frozen=True)
class _Held:
    """The warehouse table that holds a day of a mirrored table."""

    name: str
    schema: TableSchema


class Verifier:
    """Proves tables of one database for one partition.

    ``snapshot`` is an open one of the source, or the error why there is none; it is only used when
    it shows the state that was published, or when ``against`` insists.
    """

    def __init__(
        self,
        spec: DatabaseSpec,
        snapshot: Snapshot | MirrorError,
        landing: Landing,
        warehouse: Warehouse,
        *,
        partition: date,
        against: Against = "auto",
    ) -> None:
        self._spec = spec
        self._snapshot = snapshot
        self._landing = landing
        self._warehouse = warehouse
        self._partition = partition
        self._against = against
        self._schemas = warehouse.schemas(spec.dataset)
        self._published = self._read_published()

    def verify(self, tables: Sequence[TableSpec]) -> Iterator[TableProof]:
        """One verdict per table, in order; a table that cannot be proven does not stop the next."""
        for table in tables:
            proof = TableProof(table.name)
            try:
                self._verify(table, proof)
            except Exception as error:
                where = f"{self._spec.name}/{table.name}"
                proof.faults.append(at_edge(error, where).sentence)
            yield proof

    def _verify(self, table: TableSpec, proof: TableProof) -> None:
        published = self._published.get(table.name)
        if published is None:
            raise ProofImpossible(
                f"{self._partition} was never published", remedy="materialize the partition"
            )
        proof.rejected = published.row["rejected_rows"]
        held = self._held(table, published)
        if self._holds(table, published):
            self._against_source(table, published, held, proof)
        elif (manifest := self._export(table, published)) is not None:
            self._against_export(table, published, held, manifest, proof)
        else:
            self._against_digests(table, published, held, proof)

    def _held(self, table: TableSpec, published: _Published) -> _Held:
        """The table that holds the day: the current one, or one that was set aside since."""
        current = self._spec.storage_name(table.name)
        names = [current, *self._set_aside(current)]
        if len(names) > 1 and published.row["loaded_rows"]:
            names = [name for name in names if self._has_day(name)] or names
        found = self._schemas.get(names[0])
        if isinstance(found, MirrorError):
            raise found
        if found is None:
            raise ProofImpossible(
                "the warehouse has no such table", remedy="materialize the partition"
            )
        return _Held(names[0], found)

    def _set_aside(self, current: str) -> list[str]:
        """The tables that hold older history, the newest first."""
        stem = fold(f"{current}_depr_")
        numbers = {
            name: int(number)
            for name in self._schemas
            if fold(name).startswith(stem) and (number := fold(name)[len(stem) :]).isdigit()
        }
        return sorted(numbers, key=numbers.__getitem__, reverse=True)

    def _has_day(self, name: str) -> bool:
        if name not in self._schemas:
            return False
        return bool(self._ask(f"SELECT 1 FROM {self._relation(name)} LIMIT 1"))

    # -- the reference

    def _holds(self, table: TableSpec, published: _Published) -> bool:
        """Whether the source is to be asked. Raises when it must be and cannot."""
        if self._against in ("export", "digests"):
            return False
        if isinstance(self._snapshot, MirrorError):
            if self._against == "source":
                raise self._snapshot
            return False
        if self._against == "auto" and not self._is_unchanged(self._snapshot, table, published):
            return False
        unasked = [c.name for c in self._snapshot.schema(table).columns if not can_ask(c)]
        if unasked and self._against == "source":
            raise ProofImpossible(
                f"no server casts column {unasked[0]!r} to its declared type as strictly",
                remedy="prove the partition against its export",
            )
        return not unasked

    def _is_unchanged(self, snapshot: Snapshot, table: TableSpec, published: _Published) -> bool:
        """Whether the source still shows the state of a table that was published."""
        if self._spec.entry.refresh.rule == "schedule":
            return False  # a live database has moved on
        state = snapshot.tables().get(table.name)
        created = state.info.get("create_time") if state else None
        return (
            created is not None
            and datetime.fromisoformat(created) == published.row["CREATE_TIME"]
            and self._refreshed_at == published.row["refreshed_at"]
        )

    @cached_property
    def _refreshed_at(self) -> datetime | None:
        """The refresh that the source shows; None while it is not complete."""
        if isinstance(self._snapshot, MirrorError):
            return None
        return refresh.current(self._spec, self._snapshot.tables(), datetime.now(UTC)).instant

    def _export(self, table: TableSpec, published: _Published) -> Manifest | None:
        if self._against == "digests":
            return None
        for manifest in self._landing.exports(self._spec.name, table.name, self._partition):
            if manifest.snapshot_at == published.row["snapshot_at"]:
                return manifest
        if self._against == "export":
            raise ProofImpossible(
                f"the export of {published.instant:%Y-%m-%d %H:%M:%S} UTC has expired",
                remedy="prove the partition against its digests",
            )
        return None

    def _against_source(
        self, table: TableSpec, published: _Published, held: _Held, proof: TableProof
    ) -> None:
        assert not isinstance(self._snapshot, MirrorError)
        snapshot = self._snapshot
        proof.against = "source"
        schema = snapshot.schema(table)
        cells = self._cells(schema, table, held.schema)
        engine = ENGINES[self._spec.entry.kind]
        reference = SqlSide(engine, snapshot.relation(table), cells, schema.key, snapshot.ask)
        try:
            self._compare(table, published, held, proof, reference, schema.key, cells)
        finally:
            snapshot.release()

    def _against_export(
        self,
        table: TableSpec,
        published: _Published,
        held: _Held,
        manifest: Manifest,
        proof: TableProof,
    ) -> None:
        proof.against = "export"
        key, cells = manifest.schema.key, self._cells(manifest.schema, table, held.schema)
        reference = ExportSide(self._landing, manifest, cells, key)
        self._compare(table, published, held, proof, reference, key, cells)

    # -- comparing

    def _compare(
        self,
        table: TableSpec,
        published: _Published,
        held: _Held,
        proof: TableProof,
        reference: Side,
        key: Sequence[str],
        cells: Sequence[Cell],
    ) -> None:
        relation, ask = self._held_rows(held)
        mine = SqlSide(ENGINES["duckdb"], relation, cells, key, ask)
        dates = {cell.name for cell in cells if cell.first is not None}
        nulled = {name: n for name, n in published.nulled.items() if name not in dates}
        listed = self._reject_keys(table, published) if key else ()
        account = Account(proof.rejected, listed, nulled)
        names = [cell.name for cell in cells]
        outcome = compare(reference, mine, names, key, account)
        proof.reference_rows, proof.held_rows = outcome.reference_rows, outcome.held_rows
        proof.faults.extend(outcome.faults)
        proof.named.extend(outcome.named)
        proof.faults.extend(self._strangers(held, names))

    def _cells(self, schema: TableSchema, table: TableSpec, held: TableSchema) -> list[Cell]:
        types = {fold(column.name): column.type for column in held.columns}
        lost = [name for name in schema.names if fold(warehouse_name(name)) not in types]
        if lost:
            raise ProofImpossible(
                f"the warehouse table has no column {lost[0]!r}",
                remedy="the schema has changed since: see `mirror discover --check`",
            )
        known = {name: types[fold(warehouse_name(name))] for name in schema.names}
        return cells_of(schema.columns, table, known)

    def _strangers(self, held: _Held, names: Sequence[str]) -> list[str]:
        """Columns that only the warehouse has must be empty in this partition."""
        mine = {fold(warehouse_name(name)) for name in names}
        others = [name for name in held.schema.names if fold(name) not in mine]
        if not others:
            return []
        counts = ", ".join(f"count({sql(name)})" for name in others)
        (row,) = self._ask(f"SELECT {counts} FROM {self._relation(held.name)}")
        return [
            f"column {name} holds {count} values that are not in the source's columns"
            for name, count in zip(others, row, strict=True)
            if count
        ]

    def _against_digests(
        self, table: TableSpec, published: _Published, held: _Held, proof: TableProof
    ) -> None:
        """Whether the partition is still what was published; its rows are not compared."""
        recorded = json.loads(published.row["digests"] or "{}")
        declared = control.declared(published.row)
        engine = f"duckdb {duckdb.__version__}"
        if declared is None or recorded.get("engine") != engine:
            raise ProofImpossible(
                f"source and export are gone, and the digests were made by"
                f" {recorded.get('engine', 'an older version')}, not by {engine}",
                remedy="prove partitions before the release of DuckDB changes",
            )
        proof.against = "digests"
        self._cells(declared, table, held.schema)
        relation, ask = self._held_rows(held)
        (row,) = ask(digest_statement(declared, relation))
        rows, *values = (int(value) for value in row)
        proof.reference_rows = published.row["loaded_rows"] + proof.rejected
        proof.held_rows = rows
        loaded = published.row["loaded_rows"]
        if rows != loaded:
            proof.faults.append(f"{loaded} rows were loaded, {rows} are there")
        pairs = zip(values[::2], values[1::2], strict=True)
        now = {name: list(pair) for name, pair in zip(declared.names, pairs, strict=True)}
        changed = [name for name in now if now[name] != recorded["columns"].get(name, [0, 0])]
        if changed:
            proof.faults.append(f"columns changed since they were published: {', '.join(changed)}")

    # -- the warehouse

    def _held_rows(self, held: _Held) -> tuple[str, Ask]:
        """A relation of the partition's rows, and who answers statements of DuckDB's over it."""
        relation = self._relation(held.name)
        if self._warehouse.dialect == "duckdb":
            return relation, self._ask
        streamed = Streamed(self._warehouse, relation, held.schema)
        return streamed.relation, streamed.ask

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._warehouse.query(statement).rows

    def _relation(self, name: str) -> str:
        path = f"{sql(self._spec.dataset)}.{sql(name)}"
        day = f"{PARTITION_COLUMN} = DATE '{self._partition}'"
        return f"(SELECT * FROM {path} WHERE {day}) AS partition_rows"

    def _read_published(self) -> dict[str, _Published]:
        if not self._schemas:
            return {}
        answer = self._warehouse.query(
            f"SELECT * FROM {control.last_published(self._spec.dataset, self._partition)}"
        )
        return {row["TABLE_NAME"]: _Published(row) for row in answer.dicts()}

    def _reject_keys(self, table: TableSpec, published: _Published) -> tuple[str, ...]:
        answer = self._ask(
            f"SELECT row_key FROM {sql(self._spec.dataset)}.{control.ERRORS.name}"
            f" WHERE run_id = {literal(published.row['run_id'])}"
            f" AND partition = DATE '{self._partition}' AND \"table\" = {literal(table.name)}"
            " AND row_key IS NOT NULL"
        )
        return tuple(row[0] for row in answer)


@contextmanager
def verifier(
    spec: DatabaseSpec,
    open_source: Callable[[], Source],
    landing: Landing,
    warehouse: Warehouse,
    *,
    partition: date,
    against: Against = "auto",
) -> Iterator[Verifier]:
    """A verifier with a snapshot of the source, where one is of use."""
    is_live = spec.entry.refresh.rule == "schedule"
    with ExitStack() as stack:
        snapshot: Snapshot | MirrorError
        try:
            if against in ("export", "digests") or (is_live and against == "auto"):
                raise ProofImpossible("the source is not asked", where=spec.name)
            snapshot = stack.enter_context(open_source().snapshot())
        except MirrorError as error:
            snapshot = error
        yield Verifier(spec, snapshot, landing, warehouse, partition=partition, against=against)
