"""The encounters' SQL for BigQuery: what a translation of the syntax alone would get wrong.

BigQuery's own reading of a wall time in a clock change is not ours (`local_time`), so there the
policy is spelled out: a wall time is summer time only where no other reading gives it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirror_assets.elation import local_time

if TYPE_CHECKING:
    from sqlglot import exp

#: The zone's two offsets, as zones that have no clock changes (their signs are the other way).
_STANDARD, _SUMMER = "Etc/GMT+8", "Etc/GMT+7"


def bigquery(statement: str) -> str:
    """A statement of DuckDB's dialect in BigQuery's; the order of its rows is left open.

    Raises sqlglot's UnsupportedError where BigQuery has no equal.
    """
    import sqlglot  # here, because only BigQuery needs it

    tree = sqlglot.parse_one(statement, read="duckdb").transform(_in_order).transform(_local_time)
    tree.set("order", None)  # of rows that become a table; it would be one worker's task
    return tree.sql("bigquery", unsupported_level=sqlglot.ErrorLevel.RAISE)


def _in_order(node: exp.Expr) -> exp.Expr:
    """`shapes.in_order` as an aggregate with an order."""
    from sqlglot import exp

    keyed = node.this.find(exp.Struct) if isinstance(node, exp.Transform) else None
    if keyed is None:
        return node
    fields = {field.name: field.expression for field in keyed.expressions}
    keys = [name for name in fields if name[1:].isdigit()]
    order = [exp.Ordered(this=fields[key], nulls_first=True) for key in keys]
    shape = node.expression.this.transform(
        lambda part: fields[part.expression.name] if isinstance(part, exp.Dot) else part
    )
    return exp.ArrayAgg(this=exp.Order(this=shape, expressions=order))


def _local_time(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp, parse_one

    if not isinstance(node, exp.Anonymous) or node.name.lower() != "timezone":
        return node
    wall = node.expressions[1].sql("bigquery")
    standard, summer = f"TIMESTAMP({wall}, '{_STANDARD}')", f"TIMESTAMP({wall}, '{_SUMMER}')"
    gives_back = f"DATETIME({{}}, '{local_time.ZONE}') = {wall}"
    return parse_one(
        f"IF({gives_back.format(summer)} AND NOT {gives_back.format(standard)},"
        f" {summer}, {standard})",
        read="bigquery",
    )
