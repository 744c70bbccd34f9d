"""Acceptance of a real BigQuery project: what no double can prove, once, by a person.

    make bigquery-acceptance PROJECT=my-project LAKE=gs://my-bucket/acceptance [LOCATION=EU]

It makes a dataset of its own, ``mirror_acceptance``, does everything the warehouse is asked for,
compares what arrives, and removes the dataset and its files, also when it fails. It may be run
again at any time. Costs are those of a few kilobytes. It exits with 1 when a step failed.
"""

from __future__ import annotations

import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.names import PARTITION_COLUMN
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema, compare
from mirror_assets.mirroring.storage import lake as lake_at
from mirror_assets.mirroring.warehouses.base import Transaction
from mirror_assets.mirroring.warehouses.bigquery import BigQueryWarehouse

DATASET = "mirror_acceptance"
DAY = date(2026, 11, 22)
NEXT = DAY + timedelta(days=1)
LOG = TableSchema(
    (
        Column("run", "", types.STRING, True),
        Column("at", "", types.TIMESTAMP),
        Column("note", "", types.STRING),
    )
)

#: A column of each type with its least and greatest values, and how Parquet holds it.
EXACT: dict[str, tuple[str, Any, list[Any]]] = {
    "yes": ("BOOL", pa.bool_(), [True, False]),
    "whole": ("INT64", pa.int64(), [-(2**63), 2**63 - 1]),
    "real": ("FLOAT64", pa.float64(), [0.1 + 0.2, -5e-324]),
    "endless": ("FLOAT64", pa.float64(), [float("inf"), float("-inf")]),
    "money": ("DECIMAL(29,9)", pa.decimal128(29, 9), [Decimal("0.000000001"), Decimal(-1)]),
    "huge": ("DECIMAL(38,0)", pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(0)]),
    "fine": ("DECIMAL(38,38)", pa.decimal128(38, 38), [Decimal("1e-38"), Decimal(0)]),
    "text": ("STRING", pa.string(), ["", "NULL \n\r\t\"'`\\ ü 😀"]),
    "json": ("STRING", pa.string(), ['{"a": [1, null]}', "[]"]),
    "time": ("STRING", pa.string(), ["-838:59:59", "24:00:00.000001"]),
    "raw": ("BYTES", pa.binary(), [b"", bytes(range(256))]),
    "born": ("DATE", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    "wall": (
        *("DATETIME", pa.timestamp("us")),
        [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)],
    ),
    "instant": (
        *("TIMESTAMP", pa.timestamp("us", "UTC")),
        [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)],
    ),
}


@dataclass
class Acceptance:
    """The steps, in order; each says what it proves. ``failed`` are the names of those that did."""

    warehouse: BigQueryWarehouse
    failed: list[str] = field(default_factory=list)

    def run(self) -> bool:
        """Whether all steps held."""
        self.clean()
        try:
            for step in self.steps():
                self._try(step)
        finally:
            self.clean()
        return not self.failed

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.every_type_arrives_exactly
        yield self.nan_arrives
        yield self.required_columns_stay_required
        yield self.a_null_in_a_required_column_is_refused
        yield self.a_day_is_replaced_alone
        yield self.odd_names_are_taken
        yield self.an_empty_day_is_empty
        yield self.columns_are_added_relaxed_widened_and_recased
        yield self.descriptions_stay
        yield self.an_older_file_lacks_a_newer_column
        yield self.a_table_is_set_aside
        yield self.control_rows_change_together
        yield self.nested_rows_are_published
        yield self.a_second_writer_waits
        yield self.old_days_are_dropped
        yield self.people_may_only_read
        yield self.costs_are_estimated

    def clean(self) -> None:
        """Remove all that was made here."""
        service = self.warehouse._service
        service.client.delete_dataset(
            f"{service.project}.{DATASET}", delete_contents=True, not_found_ok=True
        )
        service.forget(DATASET)
        files = self.warehouse._lake
        with files.guard("acceptance"):
            for kind in ("staged", "control"):
                files.delete_folder(f"{files.root}/{kind}/{DATASET}")

    def _try(self, step: Callable[[], None]) -> None:
        name = step.__name__.replace("_", " ")
        try:
            step()
        except (MirrorError, AssertionError) as error:
            self.failed.append(name)
            print(f"FAIL  {name}: {error or traceback.format_exc(limit=-1)}")
        else:
            print(f"ok    {name}")

    # -- steps

    def every_type_arrives_exactly(self) -> None:
        kinds = {"id": "INT64!"} | {name: kind for name, (kind, _a, _v) in EXACT.items()}
        columns = {n: pa.array([*values, None], arrow) for n, (_k, arrow, values) in EXACT.items()}
        self.publish("exact", DAY, schema(**kinds), id=[1, 2, 3], **columns)
        for name, (_kind, _arrow, values) in EXACT.items():
            found = self.ask(f'SELECT "{name}" FROM {DATASET}.exact ORDER BY id')
            assert [row[0] for row in found] == [*values, None], name

    def nan_arrives(self) -> None:
        self.publish("nan", DAY, schema(f="FLOAT64"), f=[float("nan")])
        ((found,),) = self.ask(f"SELECT f FROM {DATASET}.nan")
        assert found != found

    def required_columns_stay_required(self) -> None:
        assert self.schema("exact").column("id").required

    def a_null_in_a_required_column_is_refused(self) -> None:
        try:
            self.publish("exact", NEXT, None, id=pa.array([None], pa.int64()))
        except MirrorError:
            assert self.days("exact") == {DAY: 3}
            return
        raise AssertionError("it was loaded")

    def a_day_is_replaced_alone(self) -> None:
        for day, rows in ((DAY, [1, 2]), (NEXT, [3]), (DAY, [4])):
            self.publish("visit", day, schema(v="INT64"), v=rows)
        found = self.ask(f"SELECT v, {PARTITION_COLUMN} AS day FROM {DATASET}.visit ORDER BY v")
        assert found == [(3, NEXT), (4, DAY)], found
        assert self.ask(f"SELECT * FROM {DATASET}.visit_latest") == [(4,)]

    def odd_names_are_taken(self) -> None:
        self.publish("ä b-c", DAY, schema(**{"x y": "INT64!", "select": "STRING"}), **{"x y": [1]})
        assert self.ask(f'SELECT "x y" FROM {DATASET}."ä b-c"') == [(1,)]

    def an_empty_day_is_empty(self) -> None:
        self.publish("visit", NEXT, None)
        assert self.days("visit") == {DAY: 1}
        assert self.ask(f"SELECT * FROM {DATASET}.visit_latest") == []

    def columns_are_added_relaxed_widened_and_recased(self) -> None:
        self.publish(
            "grows", DAY, schema(id="INT64!", n="INT64", note="STRING"), id=[1], n=[9], note=["a"]
        )
        new = schema(id="INT64", n="DECIMAL(20,0)", Note="STRING", more="STRING")
        self.commit(
            lambda tx: tx.evolve(DATASET, "grows", new, compare(self._known(tx, "grows"), new))
        )
        found = self.schema("grows")
        assert [str(c.type) for c in found.columns] == [str(c.type) for c in new.columns]
        assert found.names == new.names, found.names
        assert not found.column("id").required
        assert self.ask(f"SELECT n, Note, more FROM {DATASET}.grows") == [(Decimal(9), "a", None)]

    def descriptions_stay(self) -> None:
        client = self.warehouse._service.client
        name = f"{client.project}.{DATASET}.visit"
        table = client.get_table(name)
        (column,) = table.schema
        described = column.to_api_repr() | {"description": "by a person"}
        table.schema = [type(column).from_api_repr(described)]
        client.update_table(table, ["schema"])
        self.publish("visit", DAY, None, v=[5])
        assert client.get_table(name).schema[0].description == "by a person"

    def an_older_file_lacks_a_newer_column(self) -> None:
        self.publish("lacks", DAY, schema(id="INT64", more="STRING"), id=[1])
        assert self.ask(f"SELECT id, more FROM {DATASET}.lacks") == [(1, None)]

    def a_table_is_set_aside(self) -> None:
        before = self.days("visit")
        self.commit(lambda tx: tx.rename(DATASET, "visit", "visit_depr_1"))
        self.publish("visit", DAY, schema(w="STRING"), w=["new"])
        assert self.days("visit_depr_1") == before
        assert self.ask(f"SELECT * FROM {DATASET}.visit_latest") == [("new",)]

    def control_rows_change_together(self) -> None:
        rows = [{"run": "a", "at": datetime.now(UTC), "note": "'\\\n"}, {"run": "b"}]
        self.commit(lambda tx: tx.create_table(DATASET, "log", LOG, partitioned=False))
        for _time in range(2):
            self.commit(lambda tx: tx.replace_rows(DATASET, "log", rows, run=["a", "b"]))
        found = self.commit(lambda tx: tx.select(DATASET, "log", ["run", "note"], run=["a", "b"]))
        assert sorted(map(str, found)) == sorted(
            map(str, [{"run": "a", "note": "'\\\n"}, {"run": "b", "note": None}])
        )

    def nested_rows_are_published(self) -> None:
        relation = self.warehouse.relation(DATASET, "grows", DAY)
        file = f"{self.warehouse.staging(DATASET, 'nested', DAY)}/0.parquet"
        said = (
            f"SELECT id, {{'name': Note, 'n': id}} AS said, [id, id + 1] AS listed FROM {relation}"
        )
        self.warehouse.save(said, file)

        def body(tx: Transaction) -> None:
            tx.ensure_like(DATASET, "nested", file)
            tx.replace_partition(DATASET, "nested", DAY, [file])

        self.commit(body)
        found = self.ask(f"SELECT id, said, listed FROM {DATASET}.nested")
        assert found == [(1, {"name": "a", "n": 1}, [1, 2])], found

    def a_second_writer_waits(self) -> None:
        service = self.warehouse._service
        until = datetime.now(UTC) + timedelta(seconds=60)
        assert service.claim(DATASET, "mirror_temporary_probe", "one", until)
        assert not service.claim(DATASET, "mirror_temporary_probe", "two", until)
        assert service.prolong(DATASET, "mirror_temporary_probe", until)
        service.drop(DATASET, "mirror_temporary_probe")
        assert not service.prolong(DATASET, "mirror_temporary_probe", until)

    def old_days_are_dropped(self) -> None:
        self.publish("lacks", NEXT, None, id=[2])
        self.commit(lambda tx: tx.delete_before(DATASET, "lacks", PARTITION_COLUMN, NEXT))
        assert self.days("lacks") == {NEXT: 1}

    def people_may_only_read(self) -> None:
        assert self.warehouse.query(f"SELECT 1 FROM `{DATASET}`.visit", native=True).rows == [(1,)]
        for statement in (f"DROP TABLE `{DATASET}`.visit", "SELECT 1; SELECT 2", "SELEC 1"):
            try:
                self.warehouse.query(statement, native=True)
            except MirrorError:
                continue
            raise AssertionError(f"{statement} was answered")

    def costs_are_estimated(self) -> None:
        path = self.warehouse._service.qualified(DATASET, "visit_latest")
        kind, size = self.warehouse._service.try_out(f"SELECT * FROM {path}")
        assert kind == "SELECT"
        assert size > 0

    # -- means

    def publish(self, table: str, day: date, declared: TableSchema | None, **columns: Any) -> None:
        """Make columns the day's rows, none of them an empty day; create a declared table."""
        files = []
        if columns:
            file = f"{self.warehouse.staging(DATASET, table, day)}/0.parquet"
            with lake_at(file).create(file) as target:
                pq.write_table(pa.table(columns), target)
            files = [file]

        def body(tx: Transaction) -> None:
            if declared is not None and tx.schema(DATASET, table) is None:
                tx.create_table(DATASET, table, declared, partitioned=True)
            tx.replace_partition(DATASET, table, day, files)
            tx.latest_view(DATASET, f"{table}_latest", table, day)

        self.commit(body)

    def commit(self, body: Callable[[Any], Any]) -> Any:
        return self.warehouse.commit(body)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(statement).rows

    def days(self, table: str) -> dict[date, int]:
        found: dict[date, int] = self.commit(lambda tx: tx.days(DATASET, table))
        return found

    def schema(self, table: str) -> TableSchema:
        found: TableSchema = self.commit(lambda tx: self._known(tx, table))
        return found

    @staticmethod
    def _known(tx: Transaction, table: str) -> TableSchema:
        found = tx.schema(DATASET, table)
        assert found is not None, table
        return found


def schema(**kinds: str) -> TableSchema:
    """Columns of these logical types; a trailing ``!`` makes one required."""
    return TableSchema(
        tuple(
            Column(name, "", LogicalType.parse(kind.rstrip("!")), kind.endswith("!"))
            for name, kind in kinds.items()
        )
    )


@contextmanager
def opened(url: str, lake: str) -> Iterator[BigQueryWarehouse]:
    warehouse = BigQueryWarehouse(url, lake)
    try:
        yield warehouse
    finally:
        warehouse.close()


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--warehouse", required=True, help="bigquery:<project>?location=<location>")
    parser.add_argument("--lake", required=True, help="gs://<bucket>/<folder of its own>")
    options = parser.parse_args(arguments)
    with opened(options.warehouse, options.lake) as warehouse:
        acceptance = Acceptance(warehouse)
        accepted = acceptance.run()
    print("accepted" if accepted else f"not accepted: {', '.join(acceptance.failed)}")
    return 0 if accepted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
