"""What the tests of the cache job share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror_assets.sample.servers import PostgreSQL
from tests.commons.cache import Database, encounter, write_document
from tests.orchestration.conftest import instance

__all__ = ["instance"]
_numbers = itertools.count(1)


@pytest.fixture
def database(postgres: PostgreSQL) -> Iterator[Database]:
    name = f"cache_{next(_numbers)}"
    postgres.create_database(name)
    postgres.create_reader(name)
    yield Database(postgres, name)
    with closing(postgres.admin()) as admin, admin.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Three members with five encounters; two have a note of the same number and other kinds."""
    root = tmp_path / "documents"
    members = {
        "m1": [encounter(1), encounter(1, "Non-Visit Note"), encounter(2)],
        "m2": [encounter(3), encounter(4)],
        "m3": [],
    }
    for member, found in members.items():
        write_document(root, member, json.dumps(found))
    return root
