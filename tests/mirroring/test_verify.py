"""A partition is proven cell by cell, and one changed cell on either side is found."""

from __future__ import annotations

import math
import shutil
import struct
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import MirrorError, SourceUnavailable
from mirror_assets.mirroring.proof.verify import Against, TableProof, Verifier
from tests.mirroring import test_mysql_source as mysql_types
from tests.mirroring import test_postgres_source as postgres_types

if TYPE_CHECKING:
    from tests.conftest import Bench, KindBench

_ROWS = [(1, "one", "1.50"), (2, None, None), (3, 'comma, "quote"\nnew line', "-0.01")]


def prove(
    bench: Bench,
    spec: DatabaseSpec,
    *,
    day: date | None = None,
    against: Against = "auto",
    without_source: bool = False,
    source: Any = None,
) -> dict[str, TableProof]:
    """The verdicts on every table, by name."""
    source = source or bench.source(spec)
    day = day or bench.day(spec, source)
    with ExitStack() as stack:
        gone: MirrorError = SourceUnavailable("the source is away", where=spec.name)
        snapshot = gone if without_source else stack.enter_context(source.snapshot())
        verifier = Verifier(
            spec, snapshot, bench.landing, bench.warehouse, partition=day, against=against
        )
        return {proof.table: proof for proof in verifier.verify(spec.tables)}


def small(bench: KindBench) -> DatabaseSpec:
    """Two small tables, mirrored."""
    bench.run(
        "CREATE TABLE visit (id bigint PRIMARY KEY, note {text}, fee decimal(10,2))",
        "CREATE TABLE keyless (word {text})",
    )
    bench.insert("visit", *_ROWS)
    bench.insert("keyless", ("a",), ("a",), (None,), ("",))
    spec = bench.catalog(["visit", "keyless"])
    reports = bench.mirror_day(spec)
    assert all(report.published for report in reports.values())
    return spec


def test_an_undisturbed_partition_is_proven_against_each_reference(any_bench: KindBench) -> None:
    spec = small(any_bench)
    for against in ("source", "export", "digests"):
        proofs = prove(any_bench, spec, against=against)  # type: ignore[arg-type]
        assert [(p.proven, p.against, p.faults) for p in proofs.values()] == [
            (True, against, []),
            (True, against, []),
        ]
        assert (proofs["visit"].reference_rows, proofs["visit"].held_rows) == (3, 3)


def change(bench: Bench, statement: str) -> None:
    """Change the warehouse behind the mirror's back."""
    with closing(duckdb.connect(config={"extension_directory": str(bench._extensions)})) as lake:
        for extension in ("ducklake", "sqlite_scanner", "icu"):
            lake.execute(f"LOAD {extension}")
        lake.execute(f"ATTACH 'ducklake:sqlite:{bench.root}/lake.sqlite' AS lake")
        lake.execute("USE lake")
        lake.execute(statement)


_CHANGES = {
    "a cell": (
        "UPDATE visit SET fee = 1.51 WHERE id = 1",
        ["1 rows changed", "columns with differences: fee"],
        [('{"id": "1"}', "changed", ("fee",))],
    ),
    "a cell becomes NULL": (
        "UPDATE visit SET note = NULL WHERE id = 3",
        ["1 rows changed", "columns with differences: note"],
        [('{"id": "3"}', "changed", ("note",))],
    ),
    "NULL becomes empty text": (
        "UPDATE visit SET note = '' WHERE id = 2",
        ["1 rows changed", "columns with differences: note"],
        [('{"id": "2"}', "changed", ("note",))],
    ),
}


@pytest.mark.parametrize("name", _CHANGES)
@pytest.mark.parametrize("side", ["source", "warehouse"])
@pytest.mark.parametrize("against", ["source", "export", "digests"])
def test_one_changed_cell_is_found(
    any_bench: KindBench, name: str, side: str, against: Against
) -> None:
    statement, faults, named = _CHANGES[name]
    spec = small(any_bench)
    if side == "source":
        any_bench.run(statement)
    else:
        change(any_bench, statement.replace("visit", "clinic_mirror.visit"))

    proof = prove(any_bench, spec, against=against)["visit"]

    if side == "source" and against != "source":
        assert proof.proven  # neither the export nor the digests changed
    elif against == "digests":
        column = faults[1].rpartition(" ")[2]
        assert proof.faults == [f"columns changed since they were published: {column}"]
    else:
        assert (proof.proven, proof.faults) == (False, faults)
        assert [(row.key, row.how, row.columns) for row in proof.named] == named


@pytest.mark.parametrize("against", ["source", "export"])
def test_swapped_values_are_found_though_every_columns_sum_is_right(
    any_bench: KindBench, against: Against
) -> None:
    spec = small(any_bench)
    change(
        any_bench,
        "UPDATE clinic_mirror.visit SET fee = CASE id WHEN 1 THEN -0.01 ELSE 1.50 END"
        " WHERE id IN (1, 3)",
    )
    proof = prove(any_bench, spec, against=against)["visit"]
    assert proof.faults == ["2 rows changed"]
    assert {row.columns for row in proof.named} == {("fee",)}


@pytest.mark.parametrize("against", ["source", "export"])
def test_lost_and_foreign_rows_are_named(any_bench: KindBench, against: Against) -> None:
    spec = small(any_bench)
    change(any_bench, "UPDATE clinic_mirror.visit SET id = 9 WHERE id = 1")
    change(any_bench, "DELETE FROM clinic_mirror.keyless WHERE word = ''")
    proofs = prove(any_bench, spec, against=against)
    assert [(row.key, row.how) for row in proofs["visit"].named] == [
        ('{"id": "1"}', "missing"),
        ('{"id": "9"}', "unexpected"),
    ]
    assert proofs["keyless"].faults[:2] == [
        "4 rows there, but 3 in the warehouse and 0 rejected",
        "1 rows missing in the warehouse",
    ]


def test_rejected_rows_and_values_made_null_are_accounted_for(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE birth (id bigint PRIMARY KEY, born date, noted date, n {text})")
    day = "9999-12-31"
    any_bench.insert(
        "birth", (1, "2020-01-01", None, "7"), (2, day, None, "x"), (3, None, day, "y")
    )
    table = {
        "columns": {"noted": {"misfits": "null"}, "n": {"type": "INT64", "misfits": "null"}},
        "bad_records_allowed": {"rows": 1, "reason": "a date of the future", "until": "2999-01-01"},
    }
    spec = any_bench.catalog({"birth": table}, last_date="2262-04-11")
    report = any_bench.mirror_day(spec)["birth"]
    assert (report.published, report.rejected, report.misfits_nulled) == (True, 1, 2)
    for against in ("source", "export"):
        proof = prove(any_bench, spec, against=against)["birth"]  # type: ignore[arg-type]
        assert (proof.proven, proof.faults) == (True, [])
        assert (proof.reference_rows, proof.held_rows, proof.rejected) == (3, 2, 1)

    change(any_bench, "UPDATE clinic_mirror.birth SET n = NULL WHERE id = 1")
    for against in ("source", "export"):
        proof = prove(any_bench, spec, against=against)["birth"]  # type: ignore[arg-type]
        assert proof.faults


def test_a_lost_row_cannot_hide_behind_a_rejected_one(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE birth (id bigint PRIMARY KEY, born date)")
    any_bench.insert("birth", (1, "2020-01-01"), (2, "9999-12-31"))
    allowed = {"rows": 1, "reason": "a date of the future", "until": "2999-01-01"}
    spec = any_bench.catalog({"birth": {"bad_records_allowed": allowed}}, last_date="2262-04-11")
    any_bench.mirror_day(spec)
    change(any_bench, "UPDATE clinic_mirror.birth SET id = 2 WHERE id = 1")

    proof = prove(any_bench, spec, against="source")["birth"]

    assert "1 rows listed as rejected are not missing" in proof.faults
    assert ('{"id": "1"}', "missing") in [(row.key, row.how) for row in proof.named]


def test_the_reference_is_the_source_then_the_export_then_the_digests(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec)
    assert prove(bench, spec)["t"].against == "source"
    assert prove(bench, spec, without_source=True)["t"].against == "export"

    bench.next_second()
    bench.run("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    proof = prove(bench, spec)["t"]
    assert (proof.against, proof.proven, proof.held_rows) == ("export", True, 2)

    shutil.rmtree(bench.root / "landing")
    proof = prove(bench, spec)["t"]
    assert (proof.against, proof.proven, proof.held_rows) == ("digests", True, 2)


def test_what_cannot_be_proven_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    spec = bench.catalog(["t"])
    never = prove(bench, spec)["t"]
    assert (never.proven, never.against) == (False, "")
    assert "was never published" in never.faults[0]

    bench.mirror_day(spec)
    shutil.rmtree(bench.root / "landing")
    gone = prove(bench, spec, against="export")["t"]
    assert "has expired" in gone.faults[0]
    assert (
        "the source is away"
        in prove(bench, spec, against="source", without_source=True)["t"].faults[0]
    )
    monkeypatch.setattr(duckdb, "__version__", "9.9.9")
    other = prove(bench, spec, against="digests")["t"]
    assert not other.proven
    assert "the digests were made by duckdb" in other.faults[0]


def test_a_damaged_export_proves_nothing(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    spec = bench.catalog(["t"])
    bench.mirror_day(spec)
    (file,) = (bench.root / "landing").glob("*/*/t_*.csv")
    file.write_bytes(b"2\n")

    proof = prove(bench, spec, against="export")["t"]

    assert not proof.proven
    assert "does not match its manifest" in proof.faults[0]


def test_older_partitions_stay_proven_when_the_table_follows_its_source(bench: Bench) -> None:
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, fee decimal(6,2))", "INSERT INTO t VALUES (1, 2)"
    )
    spec = bench.catalog(["t"])
    monday = datetime(2026, 3, 9, 4, tzinfo=UTC)
    tuesday = monday + timedelta(days=1)
    bench.mirror_day(spec, source=bench.as_of(spec, monday))
    bench.run("ALTER TABLE t MODIFY fee decimal(12,4), ADD COLUMN note text")
    bench.run("UPDATE t SET note = 'later', fee = 2.125")
    bench.mirror_day(spec, source=bench.as_of(spec, tuesday))

    for day in (monday, tuesday):
        for against in ("export", "digests"):
            proof = prove(bench, spec, day=day.date(), against=against)["t"]  # type: ignore[arg-type]
            assert (proof.proven, proof.faults) == (True, [])

    change(bench, "UPDATE clinic_mirror.t SET note = 'early' WHERE _PARTITIONDATE = '2026-03-09'")
    proof = prove(bench, spec, day=monday.date(), against="export")["t"]
    assert proof.faults == ["column note holds 1 values that are not in the source's columns"]


@pytest.mark.parametrize("change_of", ["name", "type"])
def test_older_days_stay_proven_when_a_column_changes(bench: Bench, change_of: str) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY, opt int)", "INSERT INTO t VALUES (1, 2)")
    spec = bench.catalog(["t"], breaking_drift="deprecate")
    monday = datetime(2026, 3, 9, 4, tzinfo=UTC)
    bench.mirror_day(spec, source=bench.as_of(spec, monday))
    changed = {"name": "CHANGE opt Opt int", "type": "MODIFY opt varchar(9)"}
    bench.run(f"ALTER TABLE t {changed[change_of]}", "INSERT INTO t VALUES (2, 3)")
    tuesday = bench.as_of(spec, monday + timedelta(days=1))
    drift = bench.mirror_day(spec, source=tuesday)["t"].drift
    held = "t_depr_1" if change_of == "type" else "t"
    assert ("t_depr_1" in drift) == (held == "t_depr_1")

    for day in (monday, monday + timedelta(days=1)):
        for against in ("export", "digests"):
            proof = prove(bench, spec, day=day.date(), against=against)["t"]  # type: ignore[arg-type]
            assert (proof.against, proof.faults) == (against, [])
            assert proof.held_rows == (1 if day == monday else 2)

    change(bench, f"UPDATE clinic_mirror.{held} SET opt = 9 WHERE _PARTITIONDATE = '2026-03-09'")
    proof = prove(bench, spec, day=monday.date(), against="export")["t"]
    assert [(row.key, row.columns) for row in proof.named] == [('{"id": "1"}', ("opt",))]


def test_a_day_that_was_published_again_is_proven_where_it_was_published_last(
    bench: Bench,
) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY, opt int)", "INSERT INTO t VALUES (1, 2)")
    spec = bench.catalog(["t"], breaking_drift="deprecate")
    monday = datetime(2026, 3, 9, 4, tzinfo=UTC)
    bench.mirror_day(spec, source=bench.as_of(spec, monday))
    bench.run("ALTER TABLE t MODIFY opt varchar(9)", "INSERT INTO t VALUES (2, 3)")
    later = bench.as_of(spec, monday + timedelta(hours=1))
    assert "t_depr_1" in bench.mirror_day(spec, source=later)["t"].drift

    proof = prove(bench, spec, day=monday.date(), against="export")["t"]
    assert (proof.faults, proof.held_rows) == ([], 2)


#: By type: a value, another, and that other in the lake's SQL.
_TYPED = {
    "boolean": (True, False, "FALSE"),
    "bigint": (2**62, 2**62 + 1, f"{2**62 + 1}"),
    "bytes": (b"\x00\xff", b"\x00\xfe", "'\\x00\\xFE'::BLOB"),
    "date": ("2020-02-29", "2020-03-01", "DATE '2020-03-01'"),
    "datetime": (
        *("2020-02-29 10:00:00.000001", "2020-02-29 10:00:00.000002"),
        "TIMESTAMP '2020-02-29 10:00:00.000002'",
    ),
    "instant": (
        *("2020-02-29 10:00:00.999999", "2020-02-29 10:00:01"),
        "TIMESTAMP WITH TIME ZONE '2020-02-29 10:00:01+00:00'",
    ),
}


@pytest.mark.parametrize("side", ["source", "warehouse"])
def test_one_changed_cell_of_each_type_is_found(any_bench: KindBench, side: str) -> None:
    words = (any_bench.words.get(word, word) for word in _TYPED)
    declared = ", ".join(f"c{i} {word}" for i, word in enumerate(words))
    any_bench.run(f"CREATE TABLE t (id bigint PRIMARY KEY, {declared})")
    cells = [value for value, _other, _sql in _TYPED.values()]
    rows = [[number, *cells] for number in range(len(_TYPED) + 1)]
    any_bench.insert("t", *rows)
    spec = any_bench.catalog(["t"], tinyint1="boolean")
    any_bench.mirror_day(spec)
    assert prove(any_bench, spec, against="source")["t"].faults == []

    for i, (_value, other, new) in enumerate(_TYPED.values()):
        rows[i][i + 1] = other
        if side == "warehouse":
            change(any_bench, f"UPDATE clinic_mirror.t SET c{i} = {new} WHERE id = {i}")
    if side == "source":
        any_bench.run("DELETE FROM t")
        any_bench.insert("t", *rows)
    for against in ("source", "export") if side == "warehouse" else ("source",):
        named = prove(any_bench, spec, against=against)["t"].named  # type: ignore[arg-type]
        assert sorted((row.key, row.how, row.columns) for row in named) == [
            (f'{{"id": "{i}"}}', "changed", (f"c{i}",)) for i in range(len(_TYPED))
        ]


def test_masked_and_excluded_columns_are_proven_as_they_left_the_source(
    any_bench: KindBench,
) -> None:
    any_bench.run("CREATE TABLE p (id bigint PRIMARY KEY, ssn {text}, name {text})")
    any_bench.insert("p", (1, "123", "a"), (2, None, "b"))
    spec = any_bench.catalog({"p": {"masked_columns": ["ssn"], "exclude_columns": ["name"]}})
    any_bench.mirror_day(spec)
    for against in ("source", "export"):
        proof = prove(any_bench, spec, against=against)["p"]  # type: ignore[arg-type]
        assert (proof.proven, proof.faults) == (True, [])


@pytest.mark.parametrize("against", ["source", "export", "digests"])
def test_the_whole_sample_is_proven(sample: Bench, against: Against) -> None:
    spec = sample.elation()
    reports = sample.mirror_day(spec)
    proofs = prove(sample, spec, against=against)
    published = {name for name, report in reports.items() if report.published}
    assert {name: p.faults for name, p in proofs.items() if name in published and p.faults} == {}
    assert sum(proofs[name].rejected for name in published) == sum(
        reports[name].rejected for name in published
    )
    assert len(published) >= 25


@pytest.mark.parametrize("against", ["source", "export", "digests"])
def test_every_type_of_mysql_is_proven(bench: Bench, against: Against) -> None:
    spec = mysql_types._zoo(bench)
    bench.mirror_day(spec)
    proof = prove(bench, spec, against=against)["zoo"]
    assert (proof.proven, proof.faults, proof.held_rows) == (True, [], 3)


@pytest.mark.parametrize("against", ["source", "export", "digests"])
def test_every_type_of_postgresql_is_proven(pg_bench: KindBench, against: Against) -> None:
    zoo = postgres_types._ZOO
    columns = ", ".join(f"c{i} {declared}" for i, (declared, _sql, _value) in enumerate(zoo))
    pg_bench.run(
        postgres_types._TYPES,
        f"CREATE TABLE zoo (id int PRIMARY KEY, {columns})",
        f"INSERT INTO zoo VALUES (1, {', '.join(value for _d, value, _loaded in zoo)})",
        "INSERT INTO zoo (id) VALUES (2)",
    )
    spec = pg_bench.catalog(["zoo"])
    pg_bench.mirror_day(spec)
    proof = prove(pg_bench, spec, against=against)["zoo"]
    assert (proof.faults, proof.held_rows) == ([], 2)


def test_random_floats_are_proven_bit_by_bit(any_bench: KindBench) -> None:
    random = Random(7)
    floats = [struct.unpack(">d", random.randbytes(8))[0] for _ in range(3000)]
    finite = [value for value in floats if math.isfinite(value)]
    any_bench.run("CREATE TABLE f (id bigint PRIMARY KEY, d {double}, r {real})")
    rows = [
        (i, value, value if 1e-30 < abs(value) < 1e30 else 0.1) for i, value in enumerate(finite)
    ]
    any_bench.insert("f", *rows, (-1, -0.0, 0.0))
    spec = any_bench.catalog(["f"])
    any_bench.mirror_day(spec)
    for against in ("source", "export"):
        proof = prove(any_bench, spec, against=against)["f"]  # type: ignore[arg-type]
        assert (proof.faults, proof.held_rows) == ([], len(finite) + 1)


def test_more_columns_than_a_function_takes_arguments_are_proven(any_bench: KindBench) -> None:
    columns = ", ".join(f"c{n} int" for n in range(150))
    any_bench.run(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    any_bench.insert("wide", tuple(range(151)), (151, *[None] * 150))
    spec = any_bench.catalog(["wide"])
    any_bench.mirror_day(spec)
    for against in ("source", "export", "digests"):
        assert prove(any_bench, spec, against=against)["wide"].faults == []  # type: ignore[arg-type]
    change(any_bench, "UPDATE clinic_mirror.wide SET c149 = 1 WHERE id = 151")
    for against in ("source", "export"):
        (row,) = prove(any_bench, spec, against=against)["wide"].named  # type: ignore[arg-type]
        assert (row.key, row.columns) == ('{"id": "151"}', ("c149",))


@pytest.mark.parametrize("against", ["source", "export"])
def test_rows_are_known_by_a_key_in_another_order_than_the_columns(
    any_bench: KindBench, against: Against
) -> None:
    any_bench.run("CREATE TABLE t (a bigint, day date, b bigint, v {text}, PRIMARY KEY (b, a))")
    any_bench.insert(
        "t", (1, "2020-01-01", 10, "x"), (2, "9999-12-31", 20, "y"), (3, "2020-01-01", 30, "z")
    )
    allowed = {"rows": 1, "reason": "a date of the future", "until": "2999-01-01"}
    spec = any_bench.catalog({"t": {"bad_records_allowed": allowed}}, last_date="2262-04-11")
    any_bench.mirror_day(spec)
    assert prove(any_bench, spec, against=against)["t"].faults == []

    change(any_bench, "UPDATE clinic_mirror.t SET v = 'changed' WHERE a = 3")
    proof = prove(any_bench, spec, against=against)["t"]
    assert proof.faults[0] == "1 rows changed"
    assert [(row.key, row.columns) for row in proof.named] == [('{"b": "30", "a": "3"}', ("v",))]


@pytest.mark.parametrize("against", ["source", "export"])
def test_a_key_that_is_not_mirrored_whole_names_no_row(
    any_bench: KindBench, against: Against
) -> None:
    any_bench.run("CREATE TABLE t (a bigint, b bigint, v {text}, PRIMARY KEY (a, b))")
    any_bench.insert("t", (1, 1, "x"), (1, 2, "y"))
    spec = any_bench.catalog({"t": {"exclude_columns": ["b"]}})
    any_bench.mirror_day(spec)
    assert prove(any_bench, spec, against=against)["t"].faults == []

    change(any_bench, "UPDATE clinic_mirror.t SET v = 'changed' WHERE v = 'y'")
    assert [row.how for row in prove(any_bench, spec, against=against)["t"].named] == [
        "missing",
        "unexpected",
    ]


def test_a_table_that_is_gone_at_the_source_is_proven_against_its_export(bench: Bench) -> None:
    bench.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE gone (id int PRIMARY KEY)")
    spec = bench.catalog(["t", "gone"])
    day = bench.day(spec)
    bench.mirror_day(spec)
    bench.run("DROP TABLE gone")
    proof = prove(bench, spec, day=day)["gone"]
    assert (proof.against, proof.proven, proof.faults) == ("export", True, [])


def test_a_part_longer_than_a_buffer_of_long_texts_is_proven(any_bench: KindBench) -> None:
    text = 36 * "\n1,a\n2,'b'\r\n,,\n" + '\n3,"c"\n'  # as records look
    repeated = {"mysql": "REPEAT(CONCAT(seq, %s), 200)", "postgresql": "repeat(seq || %s, 200)"}
    series = {"mysql": "seq_1_to_350", "postgresql": "generate_series(1, 350) AS numbers(seq)"}
    kind = any_bench.kind
    any_bench.run("CREATE TABLE t (id bigint PRIMARY KEY, note {text})")
    with closing(any_bench.server.admin(any_bench.schema)) as admin, admin.cursor() as cursor:
        cursor.execute(f"INSERT INTO t SELECT seq, {repeated[kind]} FROM {series[kind]}", (text,))
    spec = any_bench.catalog(["t"])
    report = any_bench.mirror_day(spec, part_bytes=1 << 30)["t"]
    assert (report.error, report.loaded) == (None, 350)
    parts = (any_bench.root / "landing").glob("*/*/t_*.csv")
    # more than one buffer of DuckDB's, read by two threads
    assert max(part.stat().st_size for part in parts) > 32 << 20
    for against in ("source", "export"):
        assert prove(any_bench, spec, against=against)["t"].faults == []  # type: ignore[arg-type]
