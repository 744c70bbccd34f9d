"""SQL for BigQuery: our own statements, which are DuckDB's, translated; names and literals.

A translation of the syntax alone would get three things wrong: the order within lists, the reading
of wall times in a clock change, and ORDER BY ALL, which BigQuery does not have. BigQuery's own
reading of a wall time is not ours: a wall time is summer time only where no other reading gives it
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from mirror_assets.mirroring.errors import WarehouseRefused

if TYPE_CHECKING:
    from sqlglot import exp

#: Zones with clock changes whose wall times are read, by their two offsets as zones that have none
#: (the signs of those are the other way): standard time, summer time.
_OFFSETS = {"US/Pacific": ("Etc/GMT+8", "Etc/GMT+7")}
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"})
_REMEDY = "write one SELECT over the warehouse's tables"


def translated(statement: str, project: str = "") -> str:
    """A query of DuckDB's dialect in BigQuery's, its tables qualified by a project.

    Raises WarehouseRefused for anything but one query, and where BigQuery has no equal.
    """
    import sqlglot  # here, because only BigQuery needs it
    from sqlglot import exp

    try:
        trees = sqlglot.parse(statement, read="duckdb")
    except sqlglot.errors.SqlglotError:
        raise WarehouseRefused("the query has a syntax error", remedy=_REMEDY) from None
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise WarehouseRefused("only single read-only queries are answered", remedy=_REMEDY)
    tree: exp.Expr = trees[0]
    for change in (_in_order, _local_time, _order_by_all, _qualify_filter, _as_text):
        tree = tree.transform(change)
    if project:
        _qualify(tree, project)
    try:
        return tree.sql("bigquery", unsupported_level=sqlglot.ErrorLevel.RAISE)
    except sqlglot.errors.UnsupportedError:
        raise WarehouseRefused("BigQuery has no equal of this query", remedy=_REMEDY) from None


def _in_order(node: exp.Expr) -> exp.Expr:
    """``list_transform(list_sort(list(<record>)), ..)`` as an aggregate with an order: the fields
    k0, k1, .. of the record are the keys.
    """
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
    zone, operand = node.expressions[0].name, node.expressions[1].sql("bigquery")
    if zone == "UTC":  # of an instant
        return parse_one(f"DATETIME({operand}, 'UTC')", read="bigquery")
    standard, summer = (f"TIMESTAMP({operand}, '{offset}')" for offset in _OFFSETS[zone])
    gives_back = f"DATETIME({{}}, '{zone}') = {operand}"
    return parse_one(
        f"IF({gives_back.format(summer)} AND NOT {gives_back.format(standard)},"
        f" {summer}, {standard})",
        read="bigquery",
    )


def _order_by_all(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    order = node.args.get("order") if isinstance(node, exp.Select) else None
    if order is None or [item.this.name.upper() for item in order.expressions] != ["ALL"]:
        return node
    places = range(1, len(node.expressions) + 1)
    ordered = [exp.Ordered(this=exp.Literal.number(n), nulls_first=False) for n in places]
    node.set("order", exp.Order(expressions=ordered))
    return node


def _qualify_filter(node: exp.Expr) -> exp.Expr:
    """QUALIFY wants a condition beside it."""
    from sqlglot import exp

    if not isinstance(node, exp.Select) or not node.args.get("qualify"):
        return node
    if not any(node.args.get(clause) for clause in ("where", "group", "having")):
        node.set("where", exp.Where(this=exp.true()))
    return node


def _as_text(node: exp.Expr) -> exp.Expr:
    """JSON as text, as DuckDB has it."""
    from sqlglot import exp

    if isinstance(node, exp.JSONFormat) or (
        isinstance(node, exp.Anonymous) and node.name.lower() == "to_json"
    ):
        value = node.this if isinstance(node, exp.JSONFormat) else node.expressions[0]
        return exp.Anonymous(this="TO_JSON_STRING", expressions=[value])
    return node


def _qualify(tree: exp.Expr, project: str) -> None:
    from sqlglot import exp

    for table in tree.find_all(exp.Table):
        if table.db and not table.catalog:
            table.set("catalog", exp.to_identifier(project, quoted=True))


def datasets(text: str) -> set[str]:
    """The datasets that a query of BigQuery's dialect reads, as far as we can tell."""
    import sqlglot
    from sqlglot import exp

    try:
        trees = sqlglot.parse(text, read="bigquery")
    except sqlglot.errors.SqlglotError:
        return set()
    tables = [table for tree in trees if tree for table in tree.find_all(exp.Table)]
    return {table.db for table in tables if table.db}


def name(text: str) -> str:
    """A back-quoted identifier."""
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


def path(project: str, dataset: str, table: str) -> str:
    """A table's full name."""
    return f"{name(project)}.{name(dataset)}.{name(table)}"


def literal(value: Any) -> str:
    """A value of a condition."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Decimal):
        return f"NUMERIC '{value}'"
    if isinstance(value, datetime):
        word = "TIMESTAMP" if value.tzinfo else "DATETIME"
        return f"{word} '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value}'"
    return text_literal(str(value))


def text_literal(text: str) -> str:
    """A text in quotes."""
    return "'" + text.translate(_ESCAPES) + "'"


def where(equal: Mapping[str, Any], any_of: Sequence[Mapping[str, Any]] = ()) -> str:
    """A WHERE clause for columns that equal values or are among lists, and one of alternatives."""
    groups = [group for group in ([equal] if equal else [], any_of) if group]
    texts = (" OR ".join(map(_all_among, group)) for group in groups)
    joined = ") AND (".join(texts)
    return f" WHERE ({joined})" if joined else ""


def _all_among(equal: Mapping[str, Any]) -> str:
    return "(" + " AND ".join(among(column, value) for column, value in equal.items()) + ")"


def among(column: str, value: Any) -> str:
    """That a column equals a value, or one of a list; nothing is among an empty list."""
    if value is None:
        return f"{name(column)} IS NULL"
    if not isinstance(value, (list, tuple)):
        return f"{name(column)} = {literal(value)}"
    listed = ", ".join(map(literal, value))
    return f"{name(column)} IN ({listed})" if value else "FALSE"


def names(columns: Iterable[str]) -> str:
    """A list of columns."""
    return ", ".join(map(name, columns))
