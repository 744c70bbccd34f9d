"""The rows of a warehouse whose own SQL cannot tell a cell's exact form, asked by DuckDB.

BigQuery has no way to the bits of a FLOAT64, and its hashes are not DuckDB's. So its rows are
streamed, once for each statement, in bounded memory and without a file.
"""

from __future__ import annotations

from typing import Any

import duckdb

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import WarehouseFault
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.schema import TableSchema
from mirror_assets.mirroring.warehouses.base import Warehouse

_MEMORY = "512MB"


class Streamed:
    """A day's rows of a table, in the table's own types; ``relation`` names them in statements."""

    relation = "partition_rows"

    def __init__(self, warehouse: Warehouse, rows: str, held: TableSchema) -> None:
        self._warehouse = warehouse
        self._rows = rows
        self._columns = ", ".join(
            f"CAST({sql(c.name)} AS {types.to_duckdb(c.type)}) AS {sql(c.name)}"
            for c in held.columns
        )

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """The answer of a statement of DuckDB's over ``relation``."""
        config: dict[str, Any] = {"memory_limit": _MEMORY, "temp_directory": ""}
        with (
            self._warehouse.batches(f"SELECT * FROM {self._rows}") as batches,
            duckdb.connect(config=config) as connection,
        ):
            connection.register("streamed", batches)
            connection.execute("SET TimeZone = 'UTC'")
            view = f"CREATE VIEW {self.relation} AS SELECT {self._columns} FROM streamed"
            connection.execute(view)
            try:
                return connection.execute(statement).fetchall()
            except duckdb.Error:
                raise WarehouseFault(
                    "the warehouse's rows could not be read to their end",
                    remedy="prove the partition again",
                ) from None
