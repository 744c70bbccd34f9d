"""A day of notes becomes readable in the lake: published with its views, or refused as a whole."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mirror_assets.commons import transformed
from mirror_assets.commons.transformed import Texts
from mirror_assets.mirroring import status
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import CoverageTooLow, DriftRefused, MirrorError
from mirror_assets.mirroring.inputs import inputs
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.retention import expire
from mirror_assets.sample import commons
from tests.commons.cache import CANARY
from tests.conftest import Bench, KindBench

CUT_OFF = f'{{"blocks":[{{"text":"{CANARY}'
OLD = json.dumps({"text": CANARY, "version": 1})
BEYOND = json.dumps(
    {
        "blocks": [
            {"text": CANARY, "inlineStyleRanges": [{"offset": 0, "length": 99, "style": "BOLD"}]}
        ],
        "entityMap": {},
    }
)


def body(text: str) -> str:
    return json.dumps({"blocks": [{"text": text}], "entityMap": {}}, ensure_ascii=False)


def allowing(rows: int, **fields: Any) -> dict[str, Any]:
    allowed = {"rows": rows, "reason": "an old client's", "until": date(2030, 12, 31)}
    return {"primary_key": ["id"], "draftjs": "body", "broken_bodies_allowed": allowed, **fields}


@dataclass
class Notes:
    """Tables of notes in a bench, whose rows a test rewrites from refresh to refresh."""

    bench: Bench
    spec: DatabaseSpec

    def write(self, table: str, *bodies: str | None) -> None:
        """Let these be the table's rows, numbered from 1."""
        self.bench.run(f"DELETE FROM {table}")
        for n, text in enumerate(bodies, start=1):
            value = "NULL" if text is None else literal(text)
            self.bench.run(f"INSERT INTO {table} (id, body) VALUES ('n{n}', {value})")

    def mirror(self, days_ago: int = 0, run_id: str | None = None) -> date:
        """Mirror all tables as the day that was so many days ago."""
        source = self.bench.earlier(self.spec, days=days_ago) if days_ago else None
        reports = self.bench.mirror_day(self.spec, source=source, run_id=run_id)
        assert [report.error for report in reports.values() if report.error] == []
        return next(iter(reports.values())).partition

    def transform(self, day: date, table: str = "note", run_id: str = "texts") -> Texts:
        read = inputs(self.bench.warehouse, [self.spec], day, {self.spec.name: (table,)})
        return transformed.transform(
            self.bench.warehouse, self.spec, self.spec.table(table), read, run_id
        )

    def texts(self, view: str = "note_transformed") -> list[tuple[str, str | None]]:
        return self.bench.rows(view, "id, text")

    def errors(self, columns: str = 'kind, "column", row_key, error') -> list[tuple[Any, ...]]:
        return self.bench.rows("MIRROR_ERRORS", columns, where="\"table\" LIKE '%_transformed'")

    def views(self) -> list[str]:
        rows = self.bench.query(
            "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW'"
            " AND table_name LIKE 'note_transformed%' ORDER BY 1"
        )
        return [name for (name,) in rows]


def sharded(bench: Bench, tables: dict[str, Any], **fields: Any) -> DatabaseSpec:
    return bench.catalog(tables, layout="sharded", latest_view="{table}", volume=0, **fields)


def create(bench: Bench, *tables: str) -> None:
    for table in tables:
        bench.run(f"CREATE TABLE {table} (id varchar(20) PRIMARY KEY, body text NULL)")


@pytest.fixture
def notes(pg_bench: KindBench) -> Notes:
    """One table in PostgreSQL; two of its bodies may be broken."""
    create(pg_bench, "note")
    return Notes(pg_bench, sharded(pg_bench, {"note": allowing(2)}))


@pytest.fixture
def days(bench: Bench) -> Notes:
    """Two tables whose refreshes may have been days ago; one body of each may be broken."""
    create(bench, "note", "task_comment")
    tables = {"note": allowing(1), "task_comment": allowing(1)}
    return Notes(bench, sharded(bench, tables, shard_views=2))


# --- A day ----------------------------------------------------------------------------------


def test_a_day_is_readable_in_its_table_its_shard_and_the_latest_view(notes: Notes) -> None:
    notes.write("note", body("2*3"), None, "{}", body("🙂 second"))
    day = notes.mirror()
    found = notes.transform(day)
    assert (found.rows, found.broken.total(), found.rejects) == (4, 0, [])
    expected = [("n1", r"2\*3"), ("n2", ""), ("n3", ""), ("n4", "🙂 second")]
    assert notes.texts() == expected
    assert notes.texts(f"note_transformed_{day:%Y%m%d}") == expected
    held = notes.bench.rows("note_transformed_shards", '"_PARTITIONDATE", id, text')
    assert held == [(day, *row) for row in expected]
    read = notes.bench.rows("note", "id, body")
    assert notes.bench.rows("note_transformed", "id, body") == read
    assert notes.errors() == []


def test_broken_bodies_keep_their_rows_without_text_and_are_listed(notes: Notes) -> None:
    notes.write("note", body("a"), CUT_OFF, OLD)
    day = notes.mirror()
    found = notes.transform(day)
    assert dict(found.broken) == {"draftjs_json": 1, "draftjs_shape": 1}
    assert notes.texts() == [("n1", "a"), ("n2", None), ("n3", None)]
    assert notes.errors() == [
        ("draftjs_json", "body", '{"id": "n2"}', "body: the body is not JSON"),
        ("draftjs_shape", "body", '{"id": "n3"}', "body: the body has no list of blocks"),
    ]
    assert notes.errors('DISTINCT "table", resource, partition, run_id, row_text') == [
        ("note_transformed", "BQ", day, "texts", None)
    ]
    [attempt] = notes.bench.rows(
        *("MIRROR_METADATA", 'published, "TABLE_ROWS", loaded_rows, rejected_rows'),
        where="\"TABLE_NAME\" = 'note_transformed'",
    )
    assert attempt == (True, 3, 3, 0)


def test_the_playbooks_command_lists_them_by_row_and_reason(notes: Notes) -> None:
    notes.write("note", BEYOND, body("a"))
    day = notes.mirror()
    notes.transform(day)
    rows = status.error_rows(
        notes.bench.warehouse, notes.spec, day, table="note_transformed", limit=10
    ).dicts()
    assert [(row["row_key"], row["kind"]) for row in rows] == [('{"id": "n1"}', "draftjs_range")]
    assert rows[0]["error"] == "body: block 1, style 1 begins or ends outside the text"


def test_without_a_key_the_place_of_a_broken_body_is_its_number(notes: Notes) -> None:
    notes.spec = sharded(notes.bench, {"note": allowing(2, primary_key=[])})
    notes.bench.run("ALTER TABLE note DROP CONSTRAINT note_pkey")
    notes.write("note", CUT_OFF)
    notes.transform(notes.mirror())
    assert notes.errors("row_key, row_number") == [(None, 1)]


def test_broken_bodies_beyond_the_listed_ones_are_counted(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformed, "LISTED", 2)
    notes.spec = sharded(notes.bench, {"note": allowing(9)})
    notes.write("note", *[CUT_OFF] * 5)
    assert notes.transform(notes.mirror()).broken.total() == 5
    assert notes.errors("kind") == [("draftjs_json",), ("draftjs_json",), ("unlisted",)]
    assert ("3 more bodies are broken",) in notes.errors("error")


def test_many_rows_are_read_in_parts(notes: Notes) -> None:
    """The broken one is in the last part, and is found by its own key."""
    rows = 2 * transformed._ROWS + 5
    notes.bench.run(
        "INSERT INTO note SELECT 'n' || n, json_build_object('blocks', json_build_array("
        f"json_build_object('text', 't' || n)), 'entityMap', '{{}}'::json)"
        f" FROM generate_series(1, {rows}) n",
        f"UPDATE note SET body = '{{' WHERE id = 'n{rows}'",
    )
    found = notes.transform(notes.mirror())
    assert (found.rows, found.broken.total()) == (rows, 1)
    assert notes.errors("row_key") == [(f'{{"id": "n{rows}"}}',)]
    wrong = notes.bench.query(
        "SELECT count(*) FROM clinic_mirror.note_transformed"
        f" WHERE text IS DISTINCT FROM replace(id, 'n', 't') AND id <> 'n{rows}'"
    )
    assert wrong == [(0,)]


@pytest.mark.parametrize("own", ["text text", '"Text" text', "text integer"])
def test_a_text_of_the_tables_own_is_replaced_in_its_place(notes: Notes, own: str) -> None:
    """Warehouses see no difference between text and Text."""
    notes.bench.run(f"ALTER TABLE note ADD COLUMN {own} NULL, ADD COLUMN after int DEFAULT 7")
    notes.write("note", body("new"), CUT_OFF)
    notes.bench.run(f"UPDATE note SET {own.split()[0]} = '5'")
    notes.transform(notes.mirror())
    answer = notes.bench.warehouse.query("SELECT * FROM clinic_mirror.note_transformed ORDER BY id")
    assert answer.columns == ("id", "body", "text", "after")
    assert [row[2:] for row in answer.rows] == [("new", 7), (None, 7)]


def test_every_type_passes_as_it_is_mirrored(notes: Notes) -> None:
    notes.bench.run(
        "ALTER TABLE note ADD COLUMN at timestamptz DEFAULT '2026-01-02 03:04:05.678901+02',"
        " ADD COLUMN whole numeric(38,9) DEFAULT 12345678901234567890.123456789,"
        " ADD COLUMN raw bytea DEFAULT '\\x00ff', ADD COLUMN flag boolean DEFAULT true,"
        " ADD COLUMN name uuid DEFAULT '00000000-0000-0000-0000-00000000002a',"
        " ADD COLUMN on_day date DEFAULT '0001-01-01', ADD COLUMN list int[] DEFAULT '{1,NULL}'"
    )
    notes.write("note", body("a"))
    notes.transform(notes.mirror())
    before, after = (
        notes.bench.warehouse.query(f"SELECT * FROM clinic_mirror.{view}").dicts()
        for view in ("note", "note_transformed")
    )
    assert [{**row, "text": "a"} for row in before] == after
    kinds = notes.bench.query(
        "SELECT count(DISTINCT data_type), count(*) FROM information_schema.columns"
        " WHERE table_name IN ('note', 'note_transformed') AND column_name <> 'text'"
        " GROUP BY column_name HAVING count(DISTINCT data_type) > 1"
    )
    assert kinds == []


# --- Replacing, refusing --------------------------------------------------------------------


def test_a_second_run_replaces_rows_and_errors(notes: Notes) -> None:
    notes.write("note", body("a"), CUT_OFF)
    day = notes.mirror(run_id="morning")
    for _time in range(2):
        notes.transform(day, run_id="morning texts")
    assert notes.errors("run_id, row_key") == [("morning texts", '{"id": "n2"}')]

    notes.write("note", body("b"), body("c"), OLD)
    assert notes.mirror(run_id="evening") == day
    notes.transform(day, run_id="evening texts")
    assert notes.texts() == [("n1", "b"), ("n2", "c"), ("n3", None)]
    assert notes.bench.rows("note_transformed_shards", "count(*)") == [(3,)]
    latest = notes.bench.rows(
        *("MIRROR_ERRORS_latest", "run_id, kind, row_key"),
        where="\"table\" = 'note_transformed'",
    )
    assert latest == [("evening texts", "draftjs_shape", '{"id": "n3"}')]


def test_e_46_a_failed_transform_keeps_its_view_and_the_others_move(days: Notes) -> None:
    for table in ("note", "task_comment"):
        days.write(table, body("yesterday's"))
    yesterday = days.mirror(days_ago=1)
    for table in ("note", "task_comment"):
        days.transform(yesterday, table)

    days.write("note", body("today's"), CUT_OFF, OLD)
    days.write("task_comment", body("today's"), CUT_OFF)
    today = days.mirror()
    with pytest.raises(CoverageTooLow) as caught:
        days.transform(today)
    days.transform(today, "task_comment")

    assert str(caught.value) == (
        "clinic/note_transformed: 2 bodies cannot be read (1 x draftjs_json, 1 x draftjs_shape),"
        " 1 are allowed; the views stay as they were. Next: `mirror errors clinic --partition"
        f" {today} --table note_transformed` lists them; have them mended in Commons, or allow"
        " them in the catalog (broken_bodies_allowed)"
    )
    assert not caught.value.transient
    assert days.texts() == [("n1", "yesterday's")]
    assert days.texts("task_comment_transformed") == [("n1", "today's"), ("n2", None)]
    assert days.views() == ["note_transformed", f"note_transformed_{yesterday:%Y%m%d}"]
    held = days.bench.rows("note_transformed_shards", 'DISTINCT "_PARTITIONDATE"')
    assert held == [(yesterday,)]
    assert days.bench.rows("note", "id") == [("n1",), ("n2",), ("n3",)]
    listed = days.bench.rows(
        *("MIRROR_ERRORS", "kind, row_key"), where="\"table\" = 'note_transformed'"
    )
    assert listed == [
        ("coverage", None),
        ("draftjs_json", '{"id": "n2"}'),
        ("draftjs_shape", '{"id": "n3"}'),
    ]
    [fault] = status.failures(days.bench.warehouse, days.spec, today).rows
    assert fault[:2] == ("note_transformed", "coverage")


def test_a_refused_day_leaves_no_files(days: Notes) -> None:
    days.write("note", CUT_OFF, CUT_OFF)
    today = days.mirror()
    before = _files(days.bench.root / "lake")
    with pytest.raises(CoverageTooLow):
        days.transform(today)
    assert _files(days.bench.root / "lake") == before


def test_a_mended_day_is_published_when_it_is_run_again(notes: Notes) -> None:
    notes.write("note", *[CUT_OFF] * 3)
    today = notes.mirror(run_id="first")
    with pytest.raises(CoverageTooLow):
        notes.transform(today, run_id="refused")
    notes.write("note", body("a"), CUT_OFF)
    notes.mirror(run_id="second")
    notes.transform(today, run_id="good")
    assert notes.texts() == [("n1", "a"), ("n2", None)]
    assert status.failures(notes.bench.warehouse, notes.spec, today).rows == []


def test_a_day_that_is_refused_later_keeps_its_rows(notes: Notes) -> None:
    notes.write("note", body("morning"))
    today = notes.mirror(run_id="morning")
    notes.transform(today, run_id="morning texts")
    notes.write("note", *[CUT_OFF] * 3)
    notes.mirror(run_id="evening")
    with pytest.raises(CoverageTooLow):
        notes.transform(today, run_id="evening texts")
    assert notes.texts() == [("n1", "morning")]
    assert notes.texts(f"note_transformed_{today:%Y%m%d}") == [("n1", "morning")]


# --- Days -----------------------------------------------------------------------------------


def test_under_a_silent_source_the_newest_day_outlives_its_retention(bench: Bench) -> None:
    create(bench, "note")
    retention = {"lake_days": 3, "time_travel_days": 0}
    days = Notes(bench, sharded(bench, {"note": allowing(1)}, retention=retention))
    days.write("note", body("ten days old"))
    days.transform(days.mirror(10))
    days.write("note", body("eight days old"))
    newest = days.mirror(8)
    days.transform(newest)
    expire((days.spec,), bench.landing, bench.warehouse, now=datetime.now(UTC))
    assert days.texts() == [("n1", "eight days old")]
    assert bench.rows("note_transformed_shards", '"_PARTITIONDATE"') == [(newest,)]


def test_an_empty_day_empties_the_view(days: Notes) -> None:
    days.write("note", body("a"))
    days.transform(days.mirror(days_ago=1))
    days.write("note")
    today = days.mirror()
    assert days.transform(today).rows == 0
    assert days.texts() == []
    assert days.texts(f"note_transformed_{today:%Y%m%d}") == []


def test_an_empty_first_day_has_its_columns(days: Notes) -> None:
    days.transform(days.mirror())
    answer = days.bench.warehouse.query("SELECT * FROM clinic_mirror.note_transformed")
    assert (answer.columns, answer.rows) == (("id", "body", "text"), [])


@pytest.mark.parametrize("newest", [["today's"], []])
def test_an_old_day_does_not_move_the_latest_view(days: Notes, newest: Sequence[str]) -> None:
    """Neither where the newest day is empty, and no row tells of it."""
    days.write("note", body("yesterday's"))
    yesterday = days.mirror(days_ago=1)
    days.write("note", *map(body, newest))
    days.transform(days.mirror())
    days.transform(yesterday)
    assert [text for _id, text in days.texts()] == newest
    shard = f"note_transformed_{yesterday:%Y%m%d}"
    assert days.texts(shard) == [("n1", "yesterday's")]


def test_views_of_days_stay_for_the_newest_only(days: Notes) -> None:
    for ago in (4, 3, 1, 2):
        days.write("note", body(f"{ago} days ago"))
        newest = days.mirror(days_ago=ago)
        days.transform(newest)
    dates = [newest, newest + timedelta(days=1)]
    assert days.views() == ["note_transformed", *(f"note_transformed_{d:%Y%m%d}" for d in dates)]
    assert days.texts() == [("n1", "1 days ago")]
    assert days.bench.rows("note_transformed_shards", "count(*)") == [(4,)]


def test_a_column_that_the_source_adds_is_added(days: Notes) -> None:
    days.write("note", body("a"))
    yesterday = days.mirror(days_ago=1)
    days.transform(yesterday)
    days.bench.run("ALTER TABLE note ADD COLUMN kind varchar(9) DEFAULT 'new'")
    days.transform(days.mirror())
    assert days.bench.rows("note_transformed", "id, text, kind") == [("n1", "a", "new")]
    assert days.bench.rows(f"note_transformed_{yesterday:%Y%m%d}", "id, text") == [("n1", "a")]


def test_the_partitioned_layout_has_a_latest_view_and_none_of_days(bench: Bench) -> None:
    create(bench, "note")
    notes = Notes(bench, bench.catalog({"note": allowing(1)}))
    notes.write("note", body("a"))
    day = notes.mirror()
    notes.transform(day)
    assert bench.rows("note_transformed", '"_PARTITIONDATE", id, text') == [(day, "n1", "a")]
    assert notes.texts("note_transformed_latest") == [("n1", "a")]
    assert notes.views() == ["note_transformed_latest"]


def test_an_allowance_ends(days: Notes) -> None:
    ended = {"rows": 1, "reason": "until then", "until": date(2020, 1, 1)}
    tables = {"note": allowing(1) | {"broken_bodies_allowed": ended}}
    days.spec = sharded(days.bench, tables)
    days.write("note", CUT_OFF)
    with pytest.raises(CoverageTooLow, match="0 are allowed"):
        days.transform(days.mirror())


# --- What it leaves alone -------------------------------------------------------------------


def test_completeness_and_coverage_are_the_mirrors_own(days: Notes) -> None:
    def told() -> list[list[tuple[Any, ...]]]:
        return [
            days.bench.query("SELECT * FROM sli_metrics.clinic_mirror_coverage ORDER BY ALL"),
            days.bench.rows("MIRROR_COMPLETENESS"),
            days.bench.rows("MIRROR_METADATA", where="\"TABLE_NAME\" IN ('note', 'task_comment')"),
        ]

    days.write("note", body("a"), CUT_OFF, OLD)
    days.write("task_comment", body("a"), OLD)
    today = days.mirror()
    before = told()
    with pytest.raises(CoverageTooLow):
        days.transform(today)
    days.transform(today, "task_comment")
    assert told() == before

    days.mirror(run_id="again")
    [complete] = days.bench.rows("MIRROR_COMPLETENESS", "complete, tables_expected, loaded_rows")
    assert complete == (True, 2, 5)
    assert days.bench.query(
        "SELECT coverage FROM sli_metrics.clinic_mirror_coverage WHERE run_id = 'again'"
    ) == [(100.0,)]


@pytest.mark.parametrize(
    ("column", "told"), [("missing", "no column missing"), ("id", "type int64, not text")]
)
def test_a_column_without_bodies_is_refused(days: Notes, column: str, told: str) -> None:
    days.bench.run("ALTER TABLE note DROP PRIMARY KEY, MODIFY id int PRIMARY KEY")
    days.spec = sharded(days.bench, {"note": allowing(1, draftjs=column)})
    with pytest.raises(DriftRefused, match=told):
        days.transform(days.mirror())
    assert days.views() == []


def test_no_text_of_a_body_leaves_the_lake(
    notes: Notes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does a good body's: exceptions, logs and control tables hold counts and places only."""
    caplog.set_level(logging.DEBUG)
    notes.write("note", CUT_OFF, OLD, BEYOND, body(CANARY))
    with pytest.raises(MirrorError) as caught:
        notes.transform(notes.mirror())
    shown = "".join(traceback.format_exception(caught.value))
    control = [
        *notes.bench.rows("MIRROR_ERRORS"),
        *notes.bench.rows("MIRROR_METADATA"),
        *notes.bench.query('SELECT * FROM clinic_mirror."MIRROR_COMPLETENESS"'),
    ]
    assert len(notes.errors()) == 4
    out, err = capfd.readouterr()
    for text in (shown, str(control), caplog.text, out, err):
        assert CANARY not in text


def test_the_samples_catalog_allows_just_its_broken_bodies(
    pg_bench: KindBench, tmp_path: Path
) -> None:
    spec = pg_bench.settings.database("commons")
    tables = {table.name: table for table in spec.tables if table.draftjs}
    assert set(tables) == set(commons.BODY_TABLES) - set(commons.EXCLUDED)
    broken = [bad.table for bad in commons.broken_bodies()]
    assert {name: t.allowed_broken_bodies(date(2030, 12, 31)) for name, t in tables.items()} == {
        name: broken.count(name) for name in tables
    }
    assert all(table.allowed_broken_bodies(date(2031, 1, 1)) == 0 for table in tables.values())


def _files(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path), pq.read_metadata(path).num_rows) for path in root.rglob("*.parquet"))
