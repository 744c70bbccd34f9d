"""Commons, with its real catalog, read from a backup because the environment says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirror_assets.sample import commons
from mirror_assets.sample.servers import PostgreSQL
from mirror_assets.settings import reading
from tests.conftest import SCALE, KindBench, utc_now


@pytest.mark.slow
def test_a_backup_of_commons_holds_what_commons_holds(
    postgres: PostgreSQL, tmp_path: Path, extensions: Path
) -> None:
    name = "commons_dumped"
    commons.create(postgres, database=name, scale=SCALE)
    bench = KindBench("postgresql", postgres, tmp_path, name, extensions)
    try:
        counts = {}
        for backup in ("live", "postgres"):
            settings = bench.settings_with(COMMONS_BACKUP=backup, COMMONS_DATABASE_URL=bench.url)
            spec = settings.database("commons")
            source = reading.source(settings, spec)
            reports = bench.mirror_day(spec, source=source, day=utc_now().date())
            assert {n: str(r.error) for n, r in reports.items() if r.error} == {}
            counts[backup] = {n: (r.loaded, r.rejected) for n, r in reports.items()}
        assert counts["live"] == counts["postgres"]
        digests = bench.query(
            'SELECT count(*), count(DISTINCT snapshot_at) FROM commons_mirror."MIRROR_METADATA"'
        )
        assert digests == [(2 * len(spec.tables), 2)]
    finally:
        bench.close()
