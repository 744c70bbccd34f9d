"""A transaction that writes down what it is told, and answers as if that had been done already."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from mirror_assets.mirroring import control
from mirror_assets.mirroring.errors import DriftRefused, MirrorError
from mirror_assets.mirroring.names import PARTITION_COLUMN
from mirror_assets.mirroring.schema import Drift, TableSchema, fold
from mirror_assets.mirroring.storage import Storage
from mirror_assets.mirroring.warehouses.base import Equal, Nearest, day_shown, is_near
from mirror_assets.mirroring.warehouses.bigquery import fields as columns_of
from mirror_assets.mirroring.warehouses.bigquery import sql
from mirror_assets.mirroring.warehouses.bigquery.fields import Field
from mirror_assets.mirroring.warehouses.bigquery.plan import (
    OWN,
    Altered,
    Created,
    Dropped,
    Loaded,
    Plan,
    Renamed,
    View,
    decorated,
)
from mirror_assets.mirroring.warehouses.bigquery.service import Service

Row = dict[str, Any]
#: Rows without a day, which somebody else must have written.
_NO_DAY = date(1, 1, 1)


@dataclass
class _Change:
    """Rows of a control table that go, and rows that come; or a column that becomes NULL."""

    goes: Callable[[Row], bool]
    needs: tuple[str, ...]
    statements: list[str]
    comes: Sequence[Row] = ()
    blanked: str = ""


@dataclass
class _Table:
    """A table as it will be. ``held_as`` is the name that the service knows its rows by, with the
    columns ``held``; ``loaded_as`` the one by which it goes until its new rows are there.
    """

    fields: list[Field]
    partitioned: bool
    loaded_as: str
    held_as: str | None = None
    held: frozenset[bytes] = frozenset()
    days: dict[date, int] = field(default_factory=dict)
    kept_from: date = _NO_DAY
    changes: list[_Change] = field(default_factory=list)


class BigQueryTransaction:
    """The changes of one commit. ``begin`` is called with the first dataset that is touched."""

    def __init__(self, service: Service, lake: Storage, begin: Callable[[str], None]) -> None:
        self._service = service
        self._lake = lake
        self._begin: Callable[[str], None] | None = begin
        self._tables: dict[tuple[str, str], _Table | None] = {}
        self._views: dict[tuple[str, str], str | None] = {}
        self.plan = Plan("", secrets.token_hex(8))

    # -- tables

    def schema(self, dataset: str, table: str) -> TableSchema | None:
        found = self._table(dataset, table)
        return columns_of.schema_of(table, found.fields) if found else None

    def tables(self, dataset: str) -> dict[str, bool]:
        self._touch(dataset)
        found = self._service.tables(dataset)
        for (where, table), known in self._tables.items():
            if where != dataset:
                continue
            if known is None:
                found.pop(table, None)
            else:
                found[table] = known.partitioned
        for (where, view), statement in self._views.items():
            if where == dataset and statement is None:
                found.pop(view, None)
            elif where == dataset:
                found[view] = False
        return found

    def days(self, dataset: str, table: str) -> dict[date, int]:
        known = self._table(dataset, table)
        if known is None or not known.partitioned:
            return {}
        found = {}
        if known.held_as is not None:
            day = f"COALESCE({PARTITION_COLUMN}, DATE '{_NO_DAY}')"
            text = (
                f"SELECT {day}, COUNT(*) FROM"
                f" {self._service.qualified(dataset, known.held_as)} GROUP BY 1"
            )
            answer = self._service.rows(text, about=f"days of {dataset}.{table}")
            found = dict(answer.rows)
        found |= known.days
        return {day: n for day, n in found.items() if n and day >= known.kept_from}

    def newest_day(self, dataset: str, table: str) -> date | None:
        return max(self.days(dataset, table), default=None)

    def create_table(
        self, dataset: str, table: str, schema: TableSchema, *, partitioned: bool
    ) -> None:
        self._create(dataset, table, list(map(columns_of.field_of, schema.columns)), partitioned)

    def _create(self, dataset: str, table: str, fields: list[Field], partitioned: bool) -> None:
        """Where a table of that name is set aside, by a name of ours until the rows are there: when
        they are refused, nothing has changed.
        """
        self._touch(dataset)
        at_first = table
        if any((step.dataset, step.table) == (dataset, table) for step in self.plan.renamed):
            at_first = f"{OWN}{self.plan.token}_new_{len(self.plan.structure)}"
            self.plan.renamed.append(Renamed(dataset, at_first, table))
        self._tables[dataset, table] = _Table(fields, partitioned, at_first)
        self.plan.structure.append(Created(dataset, at_first, fields, partitioned))

    def evolve(self, dataset: str, table: str, schema: TableSchema, drift: Drift) -> None:
        known = self._known(dataset, table)
        after = columns_of.evolved(known.fields, schema, drift)
        path = self._service.qualified(dataset, table)
        statements = [
            f"ALTER TABLE {path} ALTER COLUMN {sql.name(change.column)} SET DATA TYPE"
            f" {columns_of.declared(schema.column(change.column).type)}"
            for change in drift.changes
            if change.change == "widened"
        ]
        for change in drift.changes:
            if change.change == "recased":  # a name is taken, in whatever case
                between = f"{change.column}_{self.plan.token}"
                for old, new in ((change.before, between), (between, change.column)):
                    statements.append(
                        f"ALTER TABLE {path} RENAME COLUMN {sql.name(old)} TO {sql.name(new)}"
                    )
        if statements or after != known.fields:
            self.plan.structure.append(Altered(dataset, table, after, statements))
            known.fields = after

    def rename(self, dataset: str, table: str, new_name: str) -> None:
        self._tables[dataset, new_name] = self._known(dataset, table)
        self._tables[dataset, table] = None
        self.plan.renamed.append(Renamed(dataset, table, new_name))

    def drop_table(self, dataset: str, table: str) -> None:
        self._touch(dataset)
        self._tables[dataset, table] = None
        self.plan.structure.append(Dropped(dataset, table))

    def ensure_like(self, dataset: str, table: str, file: str) -> None:
        footer = self._footer(f"{dataset}.{table}", file)
        wanted = columns_of.of_arrow(footer.schema.to_arrow_schema())
        wanted = [f for f in wanted if f["name"] != PARTITION_COLUMN]
        known = self._table(dataset, table)
        if known is None:
            self._create(dataset, table, wanted, partitioned=True)
            return
        held = {fold(f["name"]): f for f in known.fields}
        for each in wanted:
            there = held.get(fold(each["name"]))
            if there is not None and columns_of.shown(there) != columns_of.shown(each):
                raise DriftRefused(
                    f"column {each['name']} of {dataset}.{table} is {columns_of.shown(there)} and"
                    f" would become {columns_of.shown(each)}",
                    remedy=f"rename {dataset}.{table} out of the way; its days can be made again",
                )
        added = [f for f in wanted if fold(f["name"]) not in held]
        if added:
            known.fields = [*known.fields, *added]
            self.plan.structure.append(Altered(dataset, table, known.fields, []))

    # -- partitions

    def replace_partition(self, dataset: str, table: str, day: date, files: Sequence[str]) -> None:
        known = self._known(dataset, table)
        target = decorated(known.loaded_as, day)
        rows = sum(self._footer(f"{dataset}.{table}", file).num_rows for file in files)
        known.days[day] = rows
        plan, mine = self.plan, (dataset, target)
        plan.loads = [step for step in plan.loads if (step.dataset, step.table) != mine]
        plan.emptied = [step for step in plan.emptied if (step.dataset, step.table) != mine]
        if rows:
            plan.loads.append(Loaded(dataset, target, known.fields, list(files), rows))
        else:
            plan.emptied.append(Dropped(dataset, target))

    def _footer(self, where: str, file: str) -> Any:
        """A Parquet file's own account of its rows and columns."""
        import pyarrow.parquet as pq  # here, because it would slow down loading the code location

        with self._lake.guard(where), self._lake.fs.open(file, "rb") as opened:
            return pq.read_metadata(opened)

    # -- views

    def latest_view(self, dataset: str, view: str, table: str, day: date) -> None:
        path = self._service.qualified(dataset, table)
        self._view(dataset, view, f"SELECT * FROM {path} WHERE {PARTITION_COLUMN} = DATE '{day}'")

    def view_day(self, dataset: str, view: str) -> date | None:
        self._touch(dataset)
        if (dataset, view) in self._views:
            statement = self._views[dataset, view]
        else:
            found = self._service.table(dataset, view)
            statement = found.view_query if found is not None else None
        return day_shown(statement) if statement else None

    def view(self, dataset: str, view: str, statement: str) -> None:
        self._view(dataset, view, sql.translated(statement, self._service.project))

    def _view(self, dataset: str, view: str, statement: str) -> None:
        self._forget_view(dataset, view)
        self._views[dataset, view] = statement
        self.plan.views.append(View(dataset, view, statement))

    def drop_view(self, dataset: str, view: str) -> None:
        self._forget_view(dataset, view)
        self._views[dataset, view] = None
        self.plan.dropped_views.append(Dropped(dataset, view))

    def _forget_view(self, dataset: str, view: str) -> None:
        """Of several changes of a view only the last one counts."""
        self._touch(dataset)
        plan, mine = self.plan, (dataset, view)
        plan.views = [step for step in plan.views if (step.dataset, step.view) != mine]
        plan.dropped_views = [s for s in plan.dropped_views if (s.dataset, s.table) != mine]

    # -- control rows

    def select(
        self,
        dataset: str,
        table: str,
        columns: Sequence[str],
        /,
        *any_of: Equal,
        nearest: Nearest | None = None,
        **equal: Any,
    ) -> list[Row]:
        known = self._known(dataset, table)
        matches = _matcher(equal, any_of)
        rows: list[Row] = []
        if known.held_as is not None:
            asked = dict.fromkeys([*columns, *(n for c in known.changes for n in c.needs)])
            there = [name for name in asked if fold(name) in known.held]
            chosen = f" QUALIFY {is_near(nearest, sql.name)}" if nearest else ""
            answer = self._service.rows(
                f"SELECT {sql.names(there)} FROM"
                f" {self._service.qualified(dataset, known.held_as)}{sql.where(equal, any_of)}"
                f"{chosen}",
                about=f"rows of {dataset}.{table}",
            )
            empty = dict.fromkeys(asked)
            rows = [empty | row for row in answer.dicts()]
        for change in known.changes:
            if change.blanked:
                rows = [row | ({change.blanked: None} if change.goes(row) else {}) for row in rows]
                continue
            rows = [row for row in rows if not change.goes(row)]
            rows += [row for row in change.comes if matches(row)]
        return [{name: row.get(name) for name in columns} for row in rows]

    def record_given_up(self, dataset: str, plan: Plan, fault: MirrorError) -> None:
        """Tell in MIRROR_ERRORS, where there is one, what an earlier run could not publish."""
        if self.schema(dataset, control.ERRORS.name) is None:
            return
        told = f"what an earlier run began to publish was given up: {fault.sentence}"
        rows = [
            control.error_row(
                table=table,
                error=told,
                resource=fault.resource,
                kind=fault.kind,
                load_time=datetime.now(UTC),
                partition=day,
                run_id=f"commit {plan.token}",
            )
            for table, day in plan.days
        ]
        self.replace_rows(dataset, control.ERRORS.name, rows)

    def replace_rows(self, dataset: str, table: str, rows: Sequence[Row], /, **equal: Any) -> None:
        known = self._known(dataset, table)
        path = self._service.qualified(dataset, table)
        statements = []
        staged = self._stage(dataset, table, known, rows) if rows else ""
        if equal:
            where = " AND ".join(
                _among_staged(name, value, rows, staged) for name, value in equal.items()
            )
            statements.append(f"DELETE FROM {path} WHERE {where}")
        if rows:
            listed = sql.names(f["name"] for f in known.fields)
            statements.append(f"INSERT INTO {path} ({listed}) SELECT {listed} FROM {staged}")
        if statements:
            goes = _matcher(equal) if equal else lambda _row: False
            known.changes.append(_Change(goes, tuple(equal), statements, list(rows)))
            self.plan.rows += statements

    def _stage(self, dataset: str, table: str, known: _Table, rows: Sequence[Row]) -> str:
        """Write rows as Parquet, to be loaded into a table of their own; its name.

        They never stand in a statement, which the service's logs keep.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = len(self.plan.staged)
        own = f"{OWN}{self.plan.token}_{number}"
        loose = [f | {"mode": "NULLABLE"} for f in known.fields]
        schema = columns_of.to_arrow(loose)
        full = [{name: row.get(name) for name in schema.names} for row in rows]
        file = f"{self._lake.root}/control/{dataset}/{self.plan.token}/{number}.parquet"
        with self._lake.guard(f"{dataset}.{table}"), self._lake.create(file) as target:
            pq.write_table(pa.Table.from_pylist(full, schema), target)
        self.plan.staged.append(Loaded(self.plan.dataset, own, loose, [file], len(rows)))
        return self._service.qualified(self.plan.dataset, own)

    def delete_before(self, dataset: str, table: str, column: str, day: date) -> None:
        known = self._known(dataset, table)
        if column == PARTITION_COLUMN:
            for old in self.days(dataset, table):
                if _NO_DAY < old < day:
                    self.plan.emptied.append(Dropped(dataset, decorated(known.loaded_as, old)))
            known.kept_from = max(known.kept_from, day)
            return
        path = self._service.qualified(dataset, table)
        statement = f"DELETE FROM {path} WHERE CAST({sql.name(column)} AS DATE) < DATE '{day}'"
        known.changes.append(_Change(_before(column, day), (column,), [statement]))
        self.plan.rows.append(statement)

    def blank_before(self, dataset: str, table: str, blanked: str, column: str, day: date) -> None:
        known = self._known(dataset, table)
        path = self._service.qualified(dataset, table)
        statement = (
            f"UPDATE {path} SET {sql.name(blanked)} = NULL WHERE {sql.name(blanked)} IS NOT NULL"
            f" AND CAST({sql.name(column)} AS DATE) < DATE '{day}'"
        )
        known.changes.append(_Change(_before(column, day), (column,), [statement], blanked=blanked))
        self.plan.rows.append(statement)

    # -- what is known

    def _touch(self, dataset: str) -> None:
        """The first dataset names the commit: its turn is taken before anything of it is read."""
        if self._begin is not None:
            begin, self._begin = self._begin, None
            self.plan.dataset = dataset
            begin(dataset)

    def _known(self, dataset: str, table: str) -> _Table:
        found = self._table(dataset, table)
        if found is None:
            raise DriftRefused(
                f"the warehouse has no table {dataset}.{table}",
                remedy="run the partition again, which creates it",
            )
        return found

    def _table(self, dataset: str, table: str) -> _Table | None:
        self._touch(dataset)
        if (dataset, table) not in self._tables:
            found = self._service.table(dataset, table)
            is_table = found is not None and found.table_type == "TABLE"
            self._tables[dataset, table] = _of_service(table, found) if is_table else None
        return self._tables[dataset, table]


def _of_service(table: str, found: Any) -> _Table:
    fields = [field.to_api_repr() for field in found.schema]
    held = frozenset(fold(f["name"]) for f in fields)
    return _Table(fields, found.time_partitioning is not None, table, table, held)


def _matcher(equal: Equal, any_of: Sequence[Equal] = ()) -> Callable[[Row], bool]:
    """Whether a row's columns equal values or are among lists, and one of alternatives."""

    def holds(row: Row, wanted: Equal) -> bool:
        return all(
            row.get(name) in value if isinstance(value, (list, tuple)) else row.get(name) == value
            for name, value in wanted.items()
        )

    return lambda row: (
        holds(row, equal) and (not any_of or any(holds(row, wanted) for wanted in any_of))
    )


def _before(column: str, day: date) -> Callable[[Row], bool]:
    """Whether a row's day is before another."""

    def goes(row: Row) -> bool:
        value = row[column]
        moment = value.date() if isinstance(value, datetime) else value
        return moment is not None and moment < day

    return goes


def _among_staged(name: str, value: Any, rows: Sequence[Row], staged: str) -> str:
    """A condition that names no values where the rows that come have the very same ones."""
    is_list = isinstance(value, (list, tuple)) and staged
    if is_list and set(value) == {row.get(name) for row in rows}:
        return f"{sql.name(name)} IN (SELECT {sql.name(name)} FROM {staged})"
    return sql.among(name, value)
