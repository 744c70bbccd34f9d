"""One mapping from a source's names to asset keys, folders and warehouse tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from urllib.parse import quote

from mirror_assets.mirroring.errors import CatalogError

_NOT_ASSET = re.compile(r"[^A-Za-z0-9_]")
#: What BigQuery refuses in a table or column name; DuckLake refuses less.
_NOT_WAREHOUSE = re.compile(r"""[^\w \-]|[\x00-\x1f]""")
_RESERVED = re.compile(
    r"^(MIRROR_|_PARTITION|_TABLE_|_FILE_|_ROW_TIMESTAMP|__ROOT__)", re.IGNORECASE
)
_SUFFIXED = re.compile(r"^(?P<base>.+)_(latest|shards|depr_\d+|\d{8})$", re.IGNORECASE)

PARTITION_COLUMN = "_PARTITIONDATE"
#: File systems take 255 bytes; exports add day, part and suffix to the name.
_LONGEST_FOLDER = 180


def asset_name(source_name: str) -> str:
    """The last part of the asset key: letters, digits and underscores."""
    return _NOT_ASSET.sub("_", source_name)


def folder_name(source_name: str) -> str:
    """A safe single path component: percent-encoded, and cut with a hash where that is too long."""
    encoded = quote(source_name, safe="").replace(".", "%2E")
    if len(encoded) <= _LONGEST_FOLDER:
        return encoded
    digest = hashlib.sha256(source_name.encode()).hexdigest()[:16]
    return f"{encoded[: _LONGEST_FOLDER - 17]}~{digest}"


def warehouse_name(source_name: str) -> str:
    """The table or column name in both warehouses: the source's, where both can hold it."""
    return _NOT_WAREHOUSE.sub("_", source_name).strip() or "_"


def sql(name: str) -> str:
    """A double-quoted identifier (DuckDB, PostgreSQL)."""
    return '"' + name.replace('"', '""') + '"'


def backquoted(name: str) -> str:
    """A back-quoted identifier (MySQL)."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A single-quoted SQL text literal (DuckDB, PostgreSQL)."""
    return "'" + text.replace("'", "''") + "'"


def check_tables(database: str, names: Iterable[str]) -> None:
    """Refuse names that would meet in one asset key or warehouse table, naming both."""
    seen: dict[str, str] = {}
    for name in names:
        if _RESERVED.match(name):
            raise CatalogError(
                f"table {name!r} takes a name reserved for the mirror's own tables",
                where=f"catalog {database}",
                remedy="exclude it",
            )
        for key in {f"asset {asset_name(name).lower()}", f"table {warehouse_name(name).lower()}"}:
            other = seen.setdefault(key, name)
            if other != name:
                raise CatalogError(
                    f"tables {other!r} and {name!r} would both become {key!r}",
                    where=f"catalog {database}",
                    remedy="exclude one of them",
                )
    for name in seen.values():
        match = _SUFFIXED.match(name)
        base = match and seen.get(f"table {warehouse_name(match['base']).lower()}")
        if base:
            raise CatalogError(
                f"table {name!r} collides with a view or history table of {base!r}",
                where=f"catalog {database}",
                remedy="exclude one of them",
            )


def check_columns(table: str, columns: Iterable[str]) -> None:
    """Refuse columns that neither warehouse could tell apart or hold."""
    seen: dict[str, str] = {}
    for column in columns:
        if _RESERVED.match(column):
            raise CatalogError(
                f"column {column!r} takes a name reserved by the warehouse",
                where=table,
                remedy="exclude the column in the catalog",
            )
        other = seen.setdefault(warehouse_name(column).lower(), column)
        if other != column:
            raise CatalogError(
                f"columns {other!r} and {column!r} have one name in the warehouse",
                where=table,
                remedy="exclude one of them in the catalog",
            )
