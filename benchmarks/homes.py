"""A private instance, lake and landing zone for one benchmark database."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import data
from benchmarks.config import ROOT


@dataclass(frozen=True)
class Home:
    """What one benchmark database reads and writes; ``data`` is what its runs leave behind."""

    name: str
    env: dict[str, str]
    data: Path
    url: str


def home(kind: str, database: str, tables: Sequence[str], name: str = "") -> Home:
    name = name or f"{kind}_{database}"
    folder = ROOT / "homes" / name
    for part in ("catalogs", "dagster", "data"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile("dagster.yaml", folder / "dagster" / "dagster.yaml")
    listed = "\n".join(f"  - {table}" for table in tables)
    schema = f"schema: {database}\n" if kind == "mysql" else ""
    (folder / "catalogs" / f"{name}.catalog.yaml").write_text(
        f"database: {name}\nkind: {kind}\n{schema}tables:\n{listed}\n"
    )
    written, url = folder / "data", data.server(kind).url(database)
    env = {
        "DAGSTER_HOME": str(folder / "dagster"),
        "MIRROR_WAREHOUSE": f"ducklake:sqlite:{written}/lake.sqlite",
        "MIRROR_LAKE": str(written / "lake"),
        "MIRROR_LANDING": str(written / "landing"),
        "MIRROR_SCRATCH": str(written / "scratch"),
        "MIRROR_MEMORY": "512MB",
        "MIRROR_EXTENSIONS": str(ROOT / "duckdb"),
        "MIRROR_CATALOG_PATH": str(folder / "catalogs"),
        f"{name.upper()}_DATABASE_URL": url,
    }
    return Home(name, env, written, url)
