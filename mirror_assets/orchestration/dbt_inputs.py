"""Whether what models read of a day is there: asked before dbt is, whose refusal is not passed on.

`macros/require_published.sql` asks the same for who calls dbt by hand.
"""

from collections.abc import Collection
from datetime import date

from mirror_assets.mirroring.errors import InputMissing
from mirror_assets.mirroring.inputs import holding
from mirror_assets.mirroring.warehouses.base import Warehouse
from mirror_assets.orchestration.dbt_manifest import Manifest, Node
from mirror_assets.orchestration.session import MirrorResource


def require(
    mirror: MirrorResource, manifest: Manifest, models: Collection[Node], day: date
) -> None:
    """Raises InputMissing, naming every table that is not there."""
    recorded, others = manifest.tables_read(models)
    empty = [source for source in others if not _has_rows(mirror.warehouse, source, day)]
    names = ", ".join(manifest.key(source).to_user_string() for source in empty)
    without_rows = f"no rows of {day} in {names}"
    try:
        mirror.inputs(day, recorded)
    except InputMissing as error:
        what = f"{error.what}; {without_rows}" if empty else error.what
        raise InputMissing(what, remedy=error.remedy) from None
    if empty:
        raise InputMissing(
            without_rows,
            remedy="materialize it for that day; the models then start by themselves",
        )


def _has_rows(warehouse: Warehouse, source: Node, day: date) -> bool:
    dataset, table = source["schema"], source["identifier"]
    return table in warehouse.schemas(dataset) and bool(holding(warehouse, dataset, {table: day}))
