"""What formatting costs: a table fetched and thrown away, in one of three ways.

Arguments: `raw`, `formatted` or `server` (which makes the CSV), and the table. The difference of
the first two is all that a formatter in another language could save.
"""

import os
import sys
from collections.abc import Sequence

import MySQLdb
from MySQLdb.cursors import SSCursor
from sqlalchemy.engine import make_url

from mirror_assets.mirroring.catalog import DatabaseEntry, of_entry
from mirror_assets.mirroring.dialect import Formatter
from mirror_assets.mirroring.schema import TableSchema
from mirror_assets.mirroring.sources import open_source

_ROWS = 2000


def main(way: str, table: str) -> None:
    url = make_url(os.environ["BENCH_URL"])
    schema = _schema(str(url.database), table)
    connection = MySQLdb.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        charset="utf8mb4",
        use_unicode=False,
        conv={},
    )
    selected = _as_csv(schema) if way == "server" else ", ".join(_names(schema))
    cursor = connection.cursor(SSCursor)
    cursor.execute(f"SELECT {selected} FROM `{table}`")
    formatter = Formatter(schema.columns)
    while rows := cursor.fetchmany(_ROWS):
        if way == "formatted":
            b"\n".join(formatter.records(rows))
        elif way == "server":
            b"\n".join([row[0] for row in rows])


def _schema(database: str, table: str) -> TableSchema:
    entry = DatabaseEntry.model_validate({"database": database, "kind": "mysql", "tables": [table]})
    spec = of_entry(entry)
    with open_source(spec, os.environ["BENCH_URL"]).snapshot() as snapshot:
        return snapshot.schema(spec.table(table))


def _names(schema: TableSchema) -> Sequence[str]:
    return [f"`{column.name}`" for column in schema.columns]


def _as_csv(schema: TableSchema) -> str:
    """Quoting in SQL: a row above max_allowed_packet would silently become NULL."""
    fields = []
    for column, name in zip(schema.columns, _names(schema), strict=True):
        is_text = column.type.kind == "STRING"
        value = f"CONCAT('\"', REPLACE({name}, '\"', '\"\"'), '\"')" if is_text else name
        fields.append(f"IFNULL({value}, '')")
    return f"CONCAT_WS(',', {', '.join(fields)})"


if __name__ == "__main__":
    main(*sys.argv[1:])
