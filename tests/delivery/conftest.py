"""A real quality-measure service over a real PostgreSQL, and ledgers in real stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mirror_assets.delivery.ledger import LedgerStore
from mirror_assets.elation.quality_measures import warehouse_ledger
from mirror_assets.mirroring.warehouses.ducklake import DuckLakeWarehouse
from mirror_assets.sample.servers import PostgreSQL
from tests.delivery.measures import Measures, empty_ledger


@pytest.fixture(scope="session")
def shared_measures(postgres: PostgreSQL) -> Iterator[Measures]:
    with Measures.started(postgres) as measures:
        yield measures


@pytest.fixture
def measures(shared_measures: Measures) -> Measures:
    """The service without faults and without events."""
    shared_measures.clear()
    return shared_measures


@pytest.fixture
def lake(tmp_path: Path, extensions: Path) -> Iterator[DuckLakeWarehouse]:
    with closing(open_lake(tmp_path, extensions)) as warehouse:
        yield warehouse


def open_lake(root: Path, extensions: Path) -> DuckLakeWarehouse:
    """The lake of a folder; another process may have it open too."""
    url = f"ducklake:sqlite:{root}/lake.sqlite"
    return DuckLakeWarehouse(url, root / "lake", extensions, memory="256MB")


@pytest.fixture
def lake_store(lake: DuckLakeWarehouse) -> LedgerStore:
    """An empty ledger in a lake."""
    return warehouse_ledger(lake)


@pytest.fixture
def store(postgres: PostgreSQL) -> Iterator[LedgerStore]:
    """An empty ledger in PostgreSQL."""
    with empty_ledger(postgres) as ledger:
        yield ledger


@pytest.fixture(params=["store", "lake_store"])
def any_store(request: pytest.FixtureRequest) -> LedgerStore:
    """An empty ledger, once in each kind of store."""
    store: LedgerStore = request.getfixturevalue(request.param)
    return store
