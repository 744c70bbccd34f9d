"""A Commons database with a cache to fill, and documents to fill it from."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror_assets.commons.encounter_cache import CacheTable
from mirror_assets.sample.servers import PostgreSQL

CANARY = "Zebedee-Quince"
ROOT = Path(__file__).parents[2]


@dataclass
class Database:
    """A Commons database of a test's own: the job writes as admin, the mirror reads."""

    server: PostgreSQL
    name: str

    @property
    def admin_url(self) -> str:
        return self.server.url(self.name, "admin")

    @property
    def cache(self) -> CacheTable:
        return CacheTable(self.server.url(self.name))

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(self.server.admin(self.name)) as admin, admin.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def rows(self) -> list[tuple[Any, ...]]:
        return self.run(
            'SELECT "patientId", "encounterType", "encounterId" FROM ccd_encounter_cache'
            " ORDER BY 1, 3, 2"
        )


def encounter(identity: int, kind: str = "Visit Note") -> dict[str, Any]:
    return {
        "patient": {"externalId": "1", "source": {"name": "elation", "commonId": None}},
        "encounter": {"identifiers": [{"id": str(identity), "idType": kind}], "draft": False},
    }


def write_document(root: Path, member: str, content: str) -> None:
    path = root / member / "aggregated_data" / "encounters.v3.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def job_command(documents: Path, database: Database, *more: str) -> tuple[str, ...]:
    """The demo's job, as a command that finds the package from anywhere."""
    return (
        *("env", f"PYTHONPATH={ROOT}", f"COMMONS_DATABASE_URL={database.admin_url}"),
        *(sys.executable, "-m", "mirror_assets.sample.cache_job", "--documents", str(documents)),
        *more,
    )
