"""BigQuery's double with what dbt needs beside the mirror: statements that make and fill tables.

``CREATE SCHEMA``, ``CREATE TABLE`` with columns, partitions by a column and the rows of a query,
``MERGE``, ``DROP``, and of jobs: their kind, and the table that an answer is kept in. Options of
tables are read over; a merge is what DuckDB makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlglot import exp

from tests.fakes.bigquery import (
    BigQuery,
    Fault,
    Field,
    Refused,
    Table,
    _field_of_duck,
    _normal,
    _parsed,
    _parsed_type,
    _q,
)
from tests.fakes.google import serve

ANSWERS = "_answers"
Answer = tuple[list[Field], list[tuple[Any, ...]]]


class ModelsBigQuery(BigQuery):
    """One project in which people make tables by SQL."""

    # -- jobs

    def _insert_job(self, body: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        job = super()._insert_job(body, fault)
        asked = body["configuration"].get("query")
        if asked is None or body["configuration"].get("dryRun"):
            return job
        trees = _parsed(asked["query"])
        kind = _kind(trees[0]) if len(trees) == 1 else "SCRIPT"
        job["statistics"] |= {"totalBytesProcessed": "0"}
        job["statistics"]["query"] = {"statementType": kind, "totalBytesProcessed": "0"}
        made = self._made(trees[0], job["jobReference"]["jobId"])
        job["configuration"]["query"] |= {"destinationTable": {"projectId": self.project, **made}}
        return job

    def _made(self, tree: exp.Expr, job_id: str) -> dict[str, str]:
        if isinstance(tree, exp.Create) and tree.find(exp.Table):
            table = tree.find(exp.Table)
            return {"datasetId": table.db, "tableId": table.name}
        return {"datasetId": ANSWERS, "tableId": job_id}

    def _table(self, dataset: str, table: str) -> Table:
        if dataset != ANSWERS:
            return super()._table(dataset, table)
        rows = str(len(self._answers[table][1]))
        reference = {"projectId": self.project, "datasetId": dataset, "tableId": table}
        return Table({"tableReference": reference, "type": "TABLE", "numRows": rows})

    # -- statements

    def _execute(self, tree: exp.Expr) -> Answer:
        match tree:
            case exp.Create(kind="SCHEMA"):
                self._create_schema(tree)
            case exp.Create(kind="TABLE"):
                self._create_table(tree)
            case exp.Drop():
                self._drop(tree)
            case exp.Merge():
                self._duck(self._translated(tree))
            case _:
                return super()._execute(tree)
        return [], []

    def _create_schema(self, tree: exp.Create) -> None:
        name = tree.this.db
        if name not in self.datasets or not tree.args.get("exists"):
            self._insert_dataset(
                {"datasetReference": {"projectId": self.project, "datasetId": name}}
            )

    def _create_table(self, tree: exp.Create) -> None:
        schema = tree.this if isinstance(tree.this, exp.Schema) else None
        target = schema.this if schema else tree.this
        dataset, name = target.db, target.name
        key = self._key(dataset, name)
        if key in self.tables:
            if tree.args.get("exists"):
                return
            if not tree.args.get("replace"):
                raise Refused(409, "duplicate", f"Already Exists: Table {dataset}.{name}")
        answer = tree.expression and self._duck(self._translated(tree.expression))
        found = (
            [_field_of_duck(str(n), kind) for n, kind, *_ in answer.description] if answer else []
        )
        rows = answer.fetchall() if answer else []
        fields = [_declared(column) for column in schema.expressions] if schema else found
        if key in self.tables:
            self._forget(key)
        reference = {"projectId": self.project, "datasetId": dataset, "tableId": name}
        table = Table(
            {
                "tableReference": reference,
                "type": "TABLE",
                "schema": {"fields": fields},
                "numRows": str(len(rows)),
            }
        )
        by = tree.find(exp.PartitionedByProperty)
        if by is not None:
            table.resource["timePartitioning"] = {"type": "DAY", "field": by.this.name}
        self._create(dataset, name, table)
        if rows:
            names = ", ".join(_q(f["name"]) for f in found)
            marks = ", ".join("?" for _ in found)
            self.duck.executemany(
                f"INSERT INTO {_q(dataset)}.{_q(name)} ({names}) VALUES ({marks})", rows
            )

    def _drop(self, tree: exp.Drop) -> None:
        key = self._key(tree.this.db, tree.this.name)
        if key in self.tables or not tree.args.get("exists"):
            self._delete_table(*key)


@contextmanager
def bigquery_for_models(project: str = "a-project") -> Iterator[ModelsBigQuery]:
    """A running double; ``url`` is its address."""
    double = ModelsBigQuery(project)
    with serve(double.asgi()) as url:
        double.url = url
        yield double
    double.duck.close()


def _kind(tree: exp.Expr) -> str:
    if isinstance(tree, exp.Query):
        return "SELECT"
    if isinstance(tree, exp.Create):
        filled = "_AS_SELECT" if tree.kind == "TABLE" and tree.expression else ""
        return f"CREATE_{tree.kind}{filled}"
    return type(tree).__name__.upper()


def _declared(column: exp.ColumnDef) -> Field:
    required = any(isinstance(c.kind, exp.NotNullColumnConstraint) for c in column.constraints)
    kind = _parsed_type(column.kind.sql("bigquery"))
    return _normal({"name": column.name, "mode": "REQUIRED" if required else "NULLABLE", **kind})
