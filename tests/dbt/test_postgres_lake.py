"""dbt in a lake whose catalog is PostgreSQL, and whose files are here or in Cloud Storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec

from tests.conftest import LAKE_PASSWORD


def test_models_are_built_and_the_password_stays_out_of_what_dbt_keeps(postgres_lake: Any) -> None:
    run = postgres_lake.dbt("build", "--select", "src_member", "--exclude-resource-type=unit_test")

    assert run.ok, run.output
    found = "SELECT patientId FROM src_mirrored.src_member ORDER BY 1"
    assert postgres_lake.rows(found) == [("M1",), ("M2",)]
    at = postgres_lake.settings.lake
    assert any("src_member/" in name for name in files_below(at))
    kept = [
        path for part in ("target", "logs") for path in (postgres_lake.folder / part).rglob("*")
    ]
    texts = [path.read_text(errors="replace") for path in kept if path.is_file()]
    assert texts
    assert not any(LAKE_PASSWORD in text for text in [*texts, run.output])


def files_below(place: str) -> list[str]:
    if not place.startswith("gs://"):
        return [str(path) for path in Path(place).rglob("*.parquet")]
    return list(fsspec.filesystem("gs", token="anon").find(place))
