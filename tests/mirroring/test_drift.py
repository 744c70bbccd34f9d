"""Schemas change at the source: what each change does to readers, and what the mirror says."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mirror_assets import keys
from mirror_assets.cli import main
from mirror_assets.mirroring import retention
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import DriftRefused, MirrorError
from mirror_assets.mirroring.names import sql
from mirror_assets.mirroring.sources.base import Snapshot, Source, TableState
from mirror_assets.mirroring.staged import TableReport
from tests.conftest import KindBench, kind_bench, start, utc_now

ROOT = Path(__file__).parents[2]
_COLUMNS = (
    "id int NOT NULL PRIMARY KEY, note varchar(20) NOT NULL, amount decimal(10,2),"
    " n bigint, opt varchar(20)"
)
_ROWS = "INSERT INTO {t} VALUES (1, '7', 1.25, 5, 'a'), (2, '8', NULL, 6, 'b')"
_OLD = [(1, "7", Decimal("1.25"), 5, "a"), (2, "8", None, 6, "b")]


@dataclass(frozen=True)
class Case:
    """One change: its statements on each kind of server, and what the mirror says of it."""

    name: str
    mysql: str
    postgresql: str
    drift: str
    drift_postgresql: str = ""
    breaking: bool = False

    def table(self, policy: str) -> str:
        return f"{self.name.replace(' ', '_')}_{policy}"

    def told(self, bench: KindBench) -> str:
        on_postgresql = bench.kind == "postgresql" and self.drift_postgresql
        return self.drift_postgresql if on_postgresql else self.drift

    def apply(self, bench: KindBench, table: str) -> None:
        statements = self.mysql if bench.kind == "mysql" else self.postgresql
        bench.run(*statements.replace("{t}", table).split("; "))


def _both(name: str, statement: str, drift: str, *, breaking: bool = False) -> Case:
    return Case(name, statement, statement, drift, breaking=breaking)


_HARMLESS = [
    _both("added", "ALTER TABLE {t} ADD COLUMN extra int", "extra added"),
    _both("added required", "ALTER TABLE {t} ADD extra int NOT NULL DEFAULT 7", "extra added"),
    Case(
        "relaxed",
        "ALTER TABLE {t} MODIFY note varchar(20); UPDATE {t} SET note = NULL WHERE id = 2",
        "ALTER TABLE {t} ALTER note DROP NOT NULL; UPDATE {t} SET note = NULL WHERE id = 2",
        "note relaxed",
    ),
    Case(
        "tightened",
        "ALTER TABLE {t} MODIFY opt varchar(20) NOT NULL",
        "ALTER TABLE {t} ALTER opt SET NOT NULL",
        "opt tightened",
    ),
    Case(
        "int to bigint",
        "ALTER TABLE {t} MODIFY id bigint NOT NULL; UPDATE {t} SET id = 3000000000 WHERE id = 2",
        "ALTER TABLE {t} ALTER id TYPE bigint; UPDATE {t} SET id = 3000000000 WHERE id = 2",
        "id redeclared from int(11) to bigint(20)",
        "id redeclared from integer to bigint",
    ),
    Case(
        "bigint to twenty digits",
        "ALTER TABLE {t} MODIFY n bigint unsigned; UPDATE {t} SET n = 18446744073709551615",
        "ALTER TABLE {t} ALTER n TYPE numeric(20); UPDATE {t} SET n = 18446744073709551615",
        "n widened from INT64 to DECIMAL(20,0)",
    ),
    Case(
        "decimal widened",
        "ALTER TABLE {t} MODIFY amount decimal(12,4); UPDATE {t} SET amount = 1.2345",
        "ALTER TABLE {t} ALTER amount TYPE decimal(12,4); UPDATE {t} SET amount = 1.2345",
        "amount widened from DECIMAL(10,2) to DECIMAL(12,4)",
    ),
    Case(
        "longer text",
        "ALTER TABLE {t} MODIFY opt varchar(40)",
        "ALTER TABLE {t} ALTER opt TYPE varchar(40)",
        "opt redeclared from varchar(20) to varchar(40)",
        "opt redeclared from character varying(20) to character varying(40)",
    ),
    Case(
        "bigint to int",
        "ALTER TABLE {t} MODIFY n int",
        "ALTER TABLE {t} ALTER n TYPE int",
        "n redeclared from bigint(20) to int(11)",
        "n redeclared from bigint to integer",
    ),
    Case(
        "decimal narrowed",
        "ALTER TABLE {t} MODIFY amount decimal(8,2); UPDATE {t} SET amount = 9.75 WHERE id = 2",
        "ALTER TABLE {t} ALTER amount TYPE decimal(8,2); UPDATE {t} SET amount = 9.75 WHERE id = 2",
        "amount narrowed from DECIMAL(10,2) to DECIMAL(8,2)",
    ),
    Case(
        "reordered",
        "ALTER TABLE {t} MODIFY opt varchar(20) AFTER id",
        "ALTER TABLE {t} RENAME TO {t}_old; CREATE TABLE {t} (id int NOT NULL PRIMARY KEY,"
        " opt varchar(20), note varchar(20) NOT NULL, amount decimal(10,2), n bigint);"
        " INSERT INTO {t} SELECT id, opt, note, amount, n FROM {t}_old; DROP TABLE {t}_old;"
        " GRANT SELECT ON {t} TO reader",
        "columns reordered",
    ),
    Case(
        "another key",
        "ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (id, note)",
        "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (id, note)",
        "primary key changed from (id) to (id, note)",
    ),
    Case(
        "no key",
        "ALTER TABLE {t} DROP PRIMARY KEY",
        "ALTER TABLE {t} DROP CONSTRAINT {t}_pkey",
        "primary key changed from (id) to none",
    ),
    Case(
        "recased",
        "ALTER TABLE {t} CHANGE opt Opt varchar(20); UPDATE {t} SET Opt = 'c' WHERE id = 2",
        'ALTER TABLE {t} RENAME opt TO "Opt"; UPDATE {t} SET "Opt" = \'c\' WHERE id = 2',
        "Opt recased from opt to Opt",
    ),
    Case(
        "recased key",
        "ALTER TABLE {t} CHANGE id ID int NOT NULL",
        'ALTER TABLE {t} RENAME id TO "ID"',
        "ID recased from id to ID",
    ),
    Case(
        "several",
        "ALTER TABLE {t} ADD extra int, CHANGE opt Opt varchar(20) NOT NULL",
        "ALTER TABLE {t} ADD extra int; ALTER TABLE {t} ALTER opt SET NOT NULL;"
        ' ALTER TABLE {t} RENAME opt TO "Opt"',
        "Opt recased from opt to Opt; extra added; Opt tightened",
    ),
]
_BREAKING = [
    _both("removed", "ALTER TABLE {t} DROP COLUMN opt", "opt removed", breaking=True),
    Case(
        "renamed",
        "ALTER TABLE {t} CHANGE opt remark varchar(20)",
        "ALTER TABLE {t} RENAME opt TO remark",
        "opt removed; remark added",
        breaking=True,
    ),
    Case(
        "retyped",
        "ALTER TABLE {t} MODIFY n varchar(30)",
        "ALTER TABLE {t} ALTER n TYPE varchar(30)",
        "n retyped from INT64 to STRING",
        breaking=True,
    ),
    Case(
        "text to int",
        "ALTER TABLE {t} MODIFY note int NOT NULL",
        "ALTER TABLE {t} ALTER note TYPE int USING note::int",
        "note retyped from STRING to INT64",
        breaking=True,
    ),
    Case(
        "harmless and breaking",
        "ALTER TABLE {t} ADD extra int, DROP COLUMN opt",
        "ALTER TABLE {t} ADD extra int, DROP COLUMN opt",
        "opt removed; extra added",
        breaking=True,
    ),
    Case(
        "key removed",
        "ALTER TABLE {t} DROP COLUMN id",
        "ALTER TABLE {t} DROP COLUMN id",
        "id removed; primary key changed from (id) to none",
        breaking=True,
    ),
]


class Shifted:
    """A real live source, read some days ago."""

    def __init__(self, source: Source, by: timedelta) -> None:
        self._source = source
        self._by = by

    def states(self) -> dict[str, TableState]:
        return self._source.states()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._source.snapshot() as snapshot:
            snapshot.taken_at -= self._by
            yield snapshot


def _today() -> date:
    return utc_now().date()


def _mirror(bench: KindBench, spec: DatabaseSpec, ago: int = 0) -> dict[str, TableReport]:
    """The state of now, mirrored as if it were so many days ago."""
    by = timedelta(days=ago)
    return bench.mirror_day(
        spec,
        source=Shifted(bench.source(spec), by),
        day=_today() - by,
        clock=lambda: utc_now() - by,
    )


def _replay(bench: KindBench, spec: DatabaseSpec, ago: int) -> TableReport:
    return bench.mirror_day(spec, "t", day=_today() - timedelta(days=ago))["t"]


def _create(bench: KindBench, table: str = "t") -> None:
    bench.run(f"CREATE TABLE {table} ({_COLUMNS})", _ROWS.replace("{t}", table))


def _begin(bench: KindBench, policy: str = "refuse", ago: int = 1) -> DatabaseSpec:
    """Two tables, mirrored some days ago."""
    _create(bench)
    bench.run("CREATE TABLE other (id int PRIMARY KEY)", "INSERT INTO other VALUES (1)")
    spec = bench.catalog(["other", "t"], breaking_drift=policy)
    assert all(report.published for report in _mirror(bench, spec, ago).values())
    return spec


def _old_rows(bench: KindBench, table: str = "t", ago: int = 1) -> list[tuple[Any, ...]]:
    day = _today() - timedelta(days=ago)
    return bench.rows(table, "id, note, amount, n, opt", where=f"_PARTITIONDATE = DATE '{day}'")


def _shows_the_source(bench: KindBench, report: TableReport) -> None:
    """The latest view holds what the source holds, under the source's names."""
    assert report.schema is not None
    name, names = report.table.name, report.schema.names
    asked = ", ".join(bench.quote(name) for name in names)
    view = bench.warehouse.query(f"SELECT * FROM clinic_mirror.{name}_latest").columns
    assert sorted(view) == sorted(names)
    shown = bench.rows(f"{name}_latest", ", ".join(sql(name) for name in names))
    assert shown == bench.ask(f"SELECT {asked} FROM {name} ORDER BY 1")


def _tables(bench: KindBench, name: str = "t") -> list[str]:
    """A table and those set aside."""
    found = bench.query(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'clinic_mirror'"
        f" AND regexp_full_match(table_name, '{name}(_depr_[0-9]+)?') ORDER BY 1"
    )
    return [name for (name,) in found]


# -- every change, under both policies, on both kinds of server


class Changed:
    """A table for each change and policy, mirrored on two days, changed, and mirrored twice."""

    def __init__(self, bench: KindBench) -> None:
        self.bench = bench
        bench.run("CREATE TABLE other (id int PRIMARY KEY)", "INSERT INTO other VALUES (1)")
        tables: dict[str, Any] = {"other": None}
        for case, policy in _ALL:
            _create(bench, case.table(policy))
            tables[case.table(policy)] = {"breaking_drift": policy}
        spec = bench.catalog(tables)
        for ago in (2, 1):
            assert all(report.published for report in _mirror(bench, spec, ago).values())
        self.unchanged = self._check()
        for case, policy in _ALL:
            case.apply(bench, case.table(policy))
        self.foretold = self._check()
        self.reports = _mirror(bench, spec)
        self.recorded = self._recorded("drift")
        self.again = _mirror(bench, spec)
        self.recorded_again = self._recorded("drift")
        self.checked_again = self._check()

    def _check(self) -> Result:
        return CliRunner().invoke(main, ["discover", "clinic", "--check"], env=self.bench.variables)

    def _recorded(self, column: str) -> dict[str, Any]:
        return dict(self.bench.rows("MIRROR_METADATA_latest", f"TABLE_NAME, {column}"))


_ALL = [(case, policy) for case in (*_HARMLESS, *_BREAKING) for policy in ("refuse", "deprecate")]
_policies = pytest.mark.parametrize("policy", ["refuse", "deprecate"])
_harmless = pytest.mark.parametrize("case", _HARMLESS, ids=lambda case: case.name)
_breaking = pytest.mark.parametrize("case", _BREAKING, ids=lambda case: case.name)


@pytest.fixture(scope="module", params=["mysql", "postgresql"])
def changed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, extensions: Path
) -> Iterator[Changed]:
    server = request.getfixturevalue("maria" if request.param == "mysql" else "postgres")
    with kind_bench(request.param, server, tmp_path_factory.mktemp("changed"), extensions) as bench:
        yield Changed(bench)


@_policies
@_harmless
def test_a_harmless_change_is_followed_and_told_once(
    changed: Changed, case: Case, policy: str
) -> None:
    name = case.table(policy)
    report = changed.reports[name]
    assert report.published, report.error
    assert report.drift == changed.recorded[name] == case.told(changed.bench)
    assert report.set_aside == ""
    _shows_the_source(changed.bench, report)
    assert [_old_rows(changed.bench, name, ago) for ago in (1, 2)] == [_OLD, _OLD]
    assert _tables(changed.bench, name) == [name]

    again = changed.again[name]
    assert (again.published, again.drift, changed.recorded_again[name]) == (True, "none", None)


@_breaking
def test_a_breaking_change_is_refused_and_nothing_is_followed_by_halves(
    changed: Changed, case: Case
) -> None:
    name = case.table("refuse")
    for report in (changed.reports[name], changed.again[name]):  # also when it is run again
        assert isinstance(report.error, DriftRefused)
        assert report.drift == changed.recorded[name] == case.told(changed.bench)
        assert report.error.sentence.endswith(
            f"Next: set breaking_drift: deprecate for {name} (history moves to {name}_depr_<n>),"
            " or have the change undone at the source"
        )
        assert report.set_aside == ""
    errors = changed.bench.rows("MIRROR_ERRORS_latest", "kind", where=f"\"table\" = '{name}'")
    assert errors == [("drift",)]
    assert changed.bench.rows(f"{name}_latest") == _OLD
    assert _tables(changed.bench, name) == [name]


@_breaking
def test_a_breaking_change_sets_the_history_aside_where_the_catalog_says_so(
    changed: Changed, case: Case
) -> None:
    name = case.table("deprecate")
    report = changed.reports[name]
    assert report.published, report.error
    assert report.drift == changed.recorded[name]
    assert report.drift == f"{case.told(changed.bench)}; history set aside as {name}_depr_1"
    moved = f"the history of clinic_mirror.{name} is now clinic_mirror.{name}_depr_1"
    for words in (moved, f"Next: have queries over older days read {name}_depr_1"):
        assert words in report.set_aside
    assert keys.table_metadata(report)["set_aside"] == report.set_aside
    _shows_the_source(changed.bench, report)
    assert changed.bench.rows(name, "DISTINCT _PARTITIONDATE") == [(_today(),)]
    assert [_old_rows(changed.bench, f"{name}_depr_1", ago) for ago in (1, 2)] == [_OLD, _OLD]
    assert changed.bench.rows(f"{name}_depr_1", "count(*)") == [(4,)]

    again = changed.again[name]
    assert (again.published, again.drift, again.set_aside) == (True, "none", "")
    assert _tables(changed.bench, name) == [name, f"{name}_depr_1"]


def test_tables_beside_a_changed_one_are_published(changed: Changed) -> None:
    assert changed.reports["other"].published
    assert changed.reports["other"].drift == "none"


@_policies
@pytest.mark.parametrize("case", [*_HARMLESS, *_BREAKING], ids=lambda case: case.name)
def test_check_foretells_what_the_next_run_does(changed: Changed, case: Case, policy: str) -> None:
    name = case.table(policy)
    outcome = "follows by itself"
    if case.breaking:
        outcome = "refuses the table" if policy == "refuse" else f"sets the history aside as {name}"
    assert (changed.unchanged.exit_code, changed.foretold.exit_code) == (0, 1)
    [line] = _lines(changed.foretold, name)
    assert line.startswith(f"clinic/{name}: {case.told(changed.bench)}")
    assert f": the next run {outcome}" in line
    assert ("it looks as if opt was renamed to remark" in line) == (case.name == "renamed")
    is_refused = outcome == "refuses the table"
    assert changed.reports[name].published == (not is_refused)
    assert _lines(changed.checked_again, name) == ([line] if is_refused else [])


def _lines(checked: Result, table: str) -> list[str]:
    return [line for line in checked.output.splitlines() if line.startswith(f"clinic/{table}: ")]


# -- names


def test_the_refusal_says_when_it_looks_like_a_rename(any_bench: KindBench) -> None:
    spec = _begin(any_bench)
    any_bench.run("ALTER TABLE t DROP COLUMN opt, ADD COLUMN remark varchar(90)")
    error = _mirror(any_bench, spec)["t"].error
    assert error is not None
    assert "opt removed (it looks as if opt was renamed to remark)" in error.sentence
    any_bench.run("ALTER TABLE t DROP COLUMN remark, ADD COLUMN other int")
    error = _mirror(any_bench, spec)["t"].error
    assert error is not None
    assert "renamed" not in error.sentence


def test_an_export_of_another_case_is_replayed_into_the_columns_of_now(
    any_bench: KindBench,
) -> None:
    spec = _begin(any_bench)
    renamed = "CHANGE opt Opt varchar(20)" if any_bench.kind == "mysql" else 'RENAME opt TO "Opt"'
    any_bench.run(f"ALTER TABLE t {renamed}")
    assert _mirror(any_bench, spec)["t"].published
    replayed = _replay(any_bench, spec, 1)
    assert (replayed.published, replayed.replayed, replayed.drift) == (True, True, "none")
    assert _old_rows(any_bench) == _OLD
    assert any_bench.warehouse.query("SELECT * FROM clinic_mirror.t_latest").columns[-1] == "Opt"


def test_case_outside_ascii_makes_another_column(any_bench: KindBench) -> None:
    """DuckDB tells é from É, so this is no change of case: nothing is lost by taking it for one."""
    any_bench.run("CREATE TABLE t (id int, é int)", "INSERT INTO t VALUES (1, 5)")
    spec = any_bench.catalog(["t"])
    _mirror(any_bench, spec, 1)
    renamed = "CHANGE é É int" if any_bench.kind == "mysql" else 'RENAME é TO "É"'
    any_bench.run(f"ALTER TABLE t {renamed}")
    error = _mirror(any_bench, spec)["t"].error
    assert isinstance(error, DriftRefused)
    assert "é was renamed to É" in error.what


# -- replays


def test_a_replay_never_makes_the_table_one_that_cannot_take_the_next_day(
    any_bench: KindBench,
) -> None:
    spec = _begin(any_bench, "deprecate", ago=2)
    wider = {"mysql": "MODIFY n bigint unsigned", "postgresql": "ALTER n TYPE numeric(20)"}
    narrower = {"mysql": "MODIFY n bigint", "postgresql": "ALTER n TYPE bigint"}
    any_bench.run(f"ALTER TABLE t {wider[any_bench.kind]}")
    assert _mirror(any_bench, spec, 1)["t"].drift == "n widened from INT64 to DECIMAL(20,0)"
    narrow = _replay(any_bench, spec, 2)  # its integers cannot go into the column of now
    assert isinstance(narrow.error, DriftRefused)
    assert _old_rows(any_bench, ago=2) == _OLD

    any_bench.run(f"ALTER TABLE t {narrower[any_bench.kind]}")
    assert _mirror(any_bench, spec)["t"].drift.endswith("set aside as t_depr_1")
    wide = _replay(any_bench, spec, 1)
    assert isinstance(wide.error, DriftRefused)
    assert "stands as it was published, in t or t_depr_<n>" in wide.error.remedy
    again = _mirror(any_bench, spec)["t"]
    assert (again.published, again.drift) == (True, "none")
    assert _tables(any_bench) == ["t", "t_depr_1"]


# -- what somebody did to the warehouse by hand


def _by_hand(bench: KindBench, statement: str) -> None:
    bench.warehouse.commit(lambda tx: tx._connection.execute(statement))  # type: ignore[attr-defined]


@_policies
def test_a_column_type_that_the_mirror_never_makes_stops_its_table_only(
    any_bench: KindBench, policy: str
) -> None:
    spec = _begin(any_bench, policy)
    _by_hand(any_bench, "ALTER TABLE clinic_mirror.t ADD COLUMN mine STRUCT(a INTEGER)")
    reports = _mirror(any_bench, spec)
    assert reports["other"].published
    error = reports["t"].error
    assert isinstance(error, DriftRefused)
    for words in ("clinic/t: the warehouse's column mine has type STRUCT", "by hand", "t_depr_<n>"):
        assert words in error.sentence
    assert any_bench.errors() == [("t", "BQ", "drift")]

    _by_hand(any_bench, "ALTER TABLE clinic_mirror.t DROP COLUMN mine")
    assert _mirror(any_bench, spec)["t"].published


def test_set_aside_numbers_go_up_also_when_an_older_one_was_dropped(any_bench: KindBench) -> None:
    spec = _begin(any_bench, "deprecate", ago=3)
    for ago, column in ((2, "opt"), (1, "n")):
        any_bench.run(f"ALTER TABLE t DROP COLUMN {column}")
        assert _mirror(any_bench, spec, ago)["t"].published
    _by_hand(any_bench, "DROP TABLE clinic_mirror.t_depr_1")
    any_bench.run("ALTER TABLE t DROP COLUMN amount")
    assert _mirror(any_bench, spec)["t"].drift.endswith("set aside as t_depr_3")
    assert _tables(any_bench) == ["t", "t_depr_2", "t_depr_3"]
    assert any_bench.rows("t_depr_3", "id, note, amount") == [row[:3] for row in _OLD]


@pytest.mark.parametrize("lost", ["id = 2", "TRUE"])
def test_a_table_that_lost_rows_is_not_set_aside_before_they_are_back(
    any_bench: KindBench, lost: str
) -> None:
    spec = _begin(any_bench, "deprecate", ago=2)
    assert _mirror(any_bench, spec, 1)["t"].published
    day = _today() - timedelta(days=1)
    _by_hand(any_bench, f"DELETE FROM clinic_mirror.t WHERE _PARTITIONDATE = '{day}' AND {lost}")
    any_bench.run("ALTER TABLE t DROP COLUMN opt")

    refused = _mirror(any_bench, spec)
    assert refused["other"].published
    error = refused["t"].error
    assert isinstance(error, DriftRefused)
    held = 1 if lost == "id = 2" else 0
    assert f"{day} holds {held} rows, 2 were recorded as loaded" in error.what
    for words in ("replay the day", "rename the table to t_depr_1 by hand"):
        assert words in error.remedy
    assert _tables(any_bench) == ["t"]

    assert _replay(any_bench, spec, 1).published
    assert _mirror(any_bench, spec)["t"].drift.endswith("set aside as t_depr_1")
    assert _old_rows(any_bench, "t_depr_1") == _OLD


def test_days_that_expired_or_were_set_aside_earlier_are_not_missed(any_bench: KindBench) -> None:
    spec = _begin(any_bench, "deprecate", ago=9)
    any_bench.run("ALTER TABLE t DROP COLUMN opt")
    for ago in (8, 2, 1):
        assert _mirror(any_bench, spec, ago)["t"].published
    _expire(any_bench, lake_days=5)
    any_bench.run("ALTER TABLE t DROP COLUMN n")
    assert _mirror(any_bench, spec)["t"].drift.endswith("set aside as t_depr_1")


def test_a_day_set_aside_between_two_days_of_the_table_is_not_missed(
    any_bench: KindBench,
) -> None:
    spec = _begin(any_bench, "deprecate", ago=3)
    integer = {"mysql": "MODIFY note int", "postgresql": "ALTER note TYPE int USING note::int"}
    text = {"mysql": "MODIFY note varchar(20)", "postgresql": "ALTER note TYPE varchar(20)"}
    for ago, change in ((2, integer), (1, text)):
        any_bench.run(f"ALTER TABLE t {change[any_bench.kind]}")
        assert _mirror(any_bench, spec, ago)["t"].published
    assert _replay(any_bench, spec, 3).published
    days = [(_today() - timedelta(days=ago),) for ago in (3, 1)]
    assert any_bench.rows("t", "DISTINCT _PARTITIONDATE") == days

    any_bench.run("ALTER TABLE t DROP COLUMN opt")
    assert _mirror(any_bench, spec)["t"].drift.endswith("set aside as t_depr_3")


def test_rows_of_an_older_version_that_recorded_no_schema_are_no_hindrance(
    any_bench: KindBench,
) -> None:
    spec = _begin(any_bench)
    for column in ("columns", "primary_key"):
        _by_hand(any_bench, f'ALTER TABLE clinic_mirror."MIRROR_METADATA" DROP COLUMN {column}')
    any_bench.run("ALTER TABLE t ADD extra int NOT NULL DEFAULT 1")
    assert _mirror(any_bench, spec)["t"].drift == "extra added"
    assert _mirror(any_bench, spec)["t"].drift == "none"
    [(key,)] = any_bench.rows("MIRROR_METADATA_latest", "primary_key", where="TABLE_NAME = 't'")
    assert key == '["id"]'


def test_views_of_older_days_show_a_changed_table(any_bench: KindBench) -> None:
    _create(any_bench)
    spec = any_bench.catalog(["t"], layout="sharded", latest_view="{table}")
    _mirror(any_bench, spec, 1)
    for name in ("added", "bigint to twenty digits", "decimal widened", "recased"):
        next(case for case in _HARMLESS if case.name == name).apply(any_bench, "t")
    report = _mirror(any_bench, spec)["t"]
    assert report.published
    yesterday = _today() - timedelta(days=1)
    shown = any_bench.rows(f"t_{yesterday:%Y%m%d}", "id, note, amount, n, opt, extra")
    assert shown == [(*row, None) for row in _OLD]
    assert any_bench.rows("t", "n") == [(Decimal(2**64 - 1),)] * 2


# -- retention


def _expire(bench: KindBench, *others: DatabaseSpec, tables: str = "t", lake_days: int) -> None:
    spec = bench.catalog(
        tables.split(), breaking_drift="deprecate", retention={"lake_days": lake_days}
    )
    retention.expire((*others, spec), bench.landing, bench.warehouse, now=utc_now())


def test_days_that_were_set_aside_expire_and_the_emptied_table_goes(any_bench: KindBench) -> None:
    spec = _begin(any_bench, "deprecate", ago=8)
    assert _mirror(any_bench, spec, 4)["t"].published
    any_bench.run("ALTER TABLE t DROP COLUMN opt")
    assert _mirror(any_bench, spec, 3)["t"].published
    days = "DISTINCT _PARTITIONDATE"

    _expire(any_bench, lake_days=6)
    assert any_bench.rows("t_depr_1", days) == [(_today() - timedelta(days=4),)]
    _expire(any_bench, lake_days=1)
    assert _tables(any_bench) == ["t"]
    assert len(any_bench.rows("t_latest")) == 2  # a silent source keeps its newest day


def test_days_of_a_table_that_left_the_catalog_expire(any_bench: KindBench) -> None:
    spec = _begin(any_bench, ago=8)
    _mirror(any_bench, spec, 4)
    days = "DISTINCT _PARTITIONDATE"
    _expire(any_bench, tables="t", lake_days=6)
    assert any_bench.rows("other", days) == [(_today() - timedelta(days=4),)]
    _expire(any_bench, tables="t", lake_days=2)
    assert any_bench.rows("other", days) == any_bench.rows("other_latest") == []
    assert any_bench.rows("t", days) == [(_today() - timedelta(days=4),)]
    assert any_bench.rows("MIRROR_METADATA", "count(*)") == [(4,)]


def test_a_database_that_fails_does_not_stop_the_retention_of_the_next(
    any_bench: KindBench,
) -> None:
    _begin(any_bench, ago=8)
    first = any_bench.catalog(["t"], database="broken", retention={"lake_days": 1})
    any_bench.mirror_day(first)
    _by_hand(any_bench, 'ALTER TABLE broken_mirror."MIRROR_ERRORS" DROP COLUMN row_text')
    with pytest.raises(MirrorError) as caught:
        _expire(any_bench, first, tables="t", lake_days=2)
    assert "tables of broken" in caught.value.sentence
    assert any_bench.rows("other") == []


# -- killed


@contextmanager
def _running(bench: KindBench, run_id: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has loaded everything and now mirrors today."""
    process = bench.child(_today(), run_id)
    start(process)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _state(bench: KindBench) -> dict[str, Sequence[tuple[Any, ...]]]:
    """Everything that readers see of the tables, and what the last attempt says."""
    seen = {name: bench.rows(name) for name in [*_tables(bench), "t_latest", "other", "u_latest"]}
    seen["columns"] = bench.query(
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        " WHERE schema_name = 'clinic_mirror' AND table_name IN ('t', 't_latest', 't_depr_1')"
        " ORDER BY ALL"
    )
    figures = "TABLE_NAME, published, loaded_rows, rejected_rows, primary_key, columns, digests"
    seen["told"] = bench.rows("MIRROR_METADATA_latest", figures)
    seen["errors"] = bench.rows("MIRROR_ERRORS_latest", "count(*)")
    seen["complete"] = bench.rows(
        "MIRROR_COMPLETENESS", "complete, source_rows", where=f"partition = DATE '{_today()}'"
    )
    return seen


def _big(bench: KindBench) -> DatabaseSpec:
    spec = _begin(bench, "deprecate", ago=2)
    rows = ", ".join(f"({n}, 'note', 1, {n}, 'x')" for n in range(10, 3_000))
    bench.run("CREATE TABLE u (id int)", "INSERT INTO u VALUES (1)", f"INSERT INTO t VALUES {rows}")
    spec = bench.catalog(["other", "t", "u"], breaking_drift="deprecate")
    assert all(report.published for report in _mirror(bench, spec, 1).values())
    bench.run("ALTER TABLE t DROP COLUMN opt", "ALTER TABLE t ADD extra int")
    return spec


def _killed_while_setting_aside(bench: KindBench, make: Callable[[], None], kills: int) -> None:
    """Each kill hits a deprecating run at another instant; the rerun ends like one undisturbed."""
    moments = random.Random(kills)
    expected: dict[str, Sequence[tuple[Any, ...]]] | None = None
    took = 0.0
    hit = 0
    for number in range(kills + 1):
        make()
        if number:
            with _running(bench, "killed") as process:
                time.sleep(moments.uniform(0.05, took))
                process.send_signal(signal.SIGKILL)
                process.wait(60)
                hit += process.returncode == -signal.SIGKILL
        with _running(bench, "last") as process:
            began = time.monotonic()
            _out, err = process.communicate(timeout=120)
            took = took or time.monotonic() - began
            assert process.returncode == 0, err
        state = _state(bench)
        assert [name for name in _tables(bench) if "_depr_" in name] == ["t_depr_1"]
        expected = expected or state
        assert state == expected, f"kill {number}"
    assert hit > 0


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_while_it_sets_a_table_aside_can_be_run_again(
    pg_bench: KindBench, kills: int
) -> None:
    _big(pg_bench)
    kept = _Kept(pg_bench)
    _killed_while_setting_aside(pg_bench, kept.restore, kills)


class _Kept:
    """The bench's lake and landing zone as they are now, to begin from again."""

    def __init__(self, bench: KindBench) -> None:
        self._bench = bench
        self._folder = bench.root / "kept"
        bench.warehouse.close()
        self._folder.mkdir()
        self._copy(bench.root, self._folder)

    def restore(self) -> None:
        self._bench.warehouse.close()
        root = self._bench.root
        names = [path.name for path in root.iterdir() if path.name.startswith(("lake", "landing"))]
        subprocess.run(["rm", "-rf", *names], cwd=root, check=True)
        self._copy(self._folder, root)

    def _copy(self, source: Path, target: Path) -> None:
        names = [path for path in source.iterdir() if path.name.startswith(("lake", "landing"))]
        subprocess.run(["cp", "-a", *map(str, names), str(target)], check=True)
