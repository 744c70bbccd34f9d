"""One suite for every kind of source: the same tables must arrive the same way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from mirror_assets.mirroring.errors import CatalogError, SourceFault, SourceUnavailable
from mirror_assets.mirroring.sources import open_source
from mirror_assets.sample.servers import ADMIN
from tests.conftest import Interrupted

if TYPE_CHECKING:
    from tests.conftest import KindBench

_TEXTS = [
    *("", " ", "NULL", "null", "Null", "\\N", "\\.", "\\", "'", '"', '""', '","', "a,b"),
    *("two\nlines", "cr\ronly", "both\r\n", "\n", "tab\t", " padded ", "emoji 😀 é \u2028"),
    *("{}", "%s %(x)s", "0000-00-00", "x" * 70_000, '"' * 3_000),
]


def _url(bench: KindBench, **changed: Any) -> str:
    return sa.make_url(bench.url).set(**changed).render_as_string(hide_password=False)


def _interrupted(bench: KindBench, spec, table: str, moment: str, action: Callable[[], None]):
    return Interrupted(bench.source(spec), table, moment, action)


def _numbers(count: int) -> str:
    """A derived table ``n(i)`` of the numbers up to ``count``, in anybody's SQL."""
    digits = " UNION ALL ".join(f"SELECT {i} AS d" for i in range(10))
    return (
        f"(SELECT 1 + a.d + 10 * b.d + 100 * c.d AS i FROM ({digits}) a, ({digits}) b,"
        f" ({digits}) c WHERE 1 + a.d + 10 * b.d + 100 * c.d <= {count}) n"
    )


# -- values


def test_nasty_text_arrives_unchanged(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int PRIMARY KEY, v {text} NULL, w {text} NOT NULL)")
    rows = [(i, text, text) for i, text in enumerate(_TEXTS)] + [(900, None, "")]
    any_bench.insert("t", *rows)
    report = any_bench.mirror_day(any_bench.catalog(["t"]))["t"]
    assert (report.error, report.rejected, report.loaded) == (None, 0, len(rows))
    assert any_bench.rows("t_latest") == rows


def test_every_common_type_arrives_exactly(any_bench: KindBench) -> None:
    any_bench.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, small smallint, whole bigint, exact decimal(38,10),"
        " wide {double}, narrow {real}, day date, at {datetime}, instant {instant} NULL,"
        " bin {bytes}, flag boolean)"
    )
    moment = datetime(2021, 1, 19, 5, 0, 0, 987654)
    latest = datetime(2038, 1, 19, 3, 14, 7, 999999)
    most = Decimal("9999999999999999999999999999.9999999999")
    least = most.copy_negate()  # the operator rounds
    every_byte = bytes(range(256))
    any_bench.insert(
        "t",
        (1, -32768, -(2**63), least, 0.1, 0.1, date(1, 1, 1), moment, moment, b"", True),
        (
            *(2, 32767, 2**63 - 1, most, -2.5e-300, 16777216.0, date(9999, 12, 31)),
            *(datetime(9999, 12, 31, 23, 59, 59, 999999), latest, every_byte, False),
        ),
        (2**63 - 1, *[None] * 10),
    )
    report = any_bench.mirror_day(any_bench.catalog(["t"], tinyint1="boolean"))["t"]
    assert (report.error, report.rejected) == (None, 0)
    assert report.schema is not None
    assert report.schema.primary_key == ("id",)
    first, second, third = any_bench.rows("t_latest")
    assert first == (
        *(1, -32768, -(2**63), least, 0.1, 0.10000000149011612, date(1, 1, 1), moment),
        *(moment.replace(tzinfo=UTC), b"", True),
    )
    assert second == (
        *(2, 32767, 2**63 - 1, most, -2.5e-300, 16777216.0, date(9999, 12, 31)),
        *(datetime(9999, 12, 31, 23, 59, 59, 999999), latest.replace(tzinfo=UTC)),
        *(every_byte, False),
    )
    assert third == (2**63 - 1, *[None] * 10)


def test_other_policies(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int, b {bytes}, d decimal(12,2))")
    any_bench.insert("t", (1, b"\x00\xff", Decimal("1.25")), (2, b"", None), (3, None, Decimal(0)))
    spec = any_bench.catalog(["t"], binary="hex", decimals="float")
    assert any_bench.mirror_day(spec)["t"].rejected == 0
    assert any_bench.rows("t_latest") == [(1, "00ff", 1.25), (2, "", None), (3, None, 0.0)]


# -- shapes


def test_tables_without_key_with_one_column_or_without_rows(any_bench: KindBench) -> None:
    any_bench.run(
        "CREATE TABLE twins (v varchar(10))",
        "CREATE TABLE whole (v int NULL)",
        "CREATE TABLE day (v date NULL)",
        "CREATE TABLE bin (v {bytes} NULL)",
        "CREATE TABLE none (v {text})",
    )
    values: dict[str, list[Any]] = {
        "twins": ["twin", "twin", "twin", None, None, "", ""],
        "whole": [None, 0, None, None],
        "day": [None, date(2020, 2, 29), None],
        "bin": [b"", None, b"", None],
        "none": [],
    }
    for name, rows in values.items():
        any_bench.insert(name, *[(value,) for value in rows])
    reports = any_bench.mirror_day(any_bench.catalog(list(values)))
    for name, rows in values.items():
        report = reports[name]
        assert (report.error, report.source_rows, report.loaded) == (None, len(rows), len(rows))
        assert report.schema is not None
        assert report.schema.primary_key == ()
        loaded = any_bench.rows(f"{name}_latest")
        assert Counter(loaded) == Counter((value,) for value in rows)


def test_five_hundred_columns(any_bench: KindBench) -> None:
    columns = ", ".join(f"c{i} int NULL" for i in range(499))
    any_bench.run(f"CREATE TABLE t (id int, {columns})")
    any_bench.run("INSERT INTO t (id, c0, c498) VALUES (1, 2, 3)")
    assert any_bench.mirror_day(any_bench.catalog(["t"]))["t"].loaded == 1
    assert any_bench.rows("t_latest", "id, c0, c1, c498") == [(1, 2, None, 3)]


def test_composite_keys_keep_their_order(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (a int NOT NULL, b int NOT NULL, c int, PRIMARY KEY (b, a))")
    spec = any_bench.catalog(["t"])
    with any_bench.source(spec).snapshot() as snapshot:
        schema = snapshot.schema(spec.table("t"))
    assert (schema.names, schema.primary_key) == (("a", "b", "c"), ("b", "a"))
    assert [column.required for column in schema.columns] == [True, True, False]


# -- names

_HOSTILE = [
    *("my table", 'quo"te', "back`tick", "per%cent %s", "é", "a.b", "sl/ash", "order", "user"),
    *("apostro'phe", "st*r[1]?", "semi;colon --", "back\\slash", "CamelCase", "{braces}", "1digit"),
]


def test_hostile_names_of_tables_and_columns(any_bench: KindBench) -> None:
    for number, name in enumerate(_HOSTILE):
        quoted = any_bench.quote(name)
        any_bench.run(f"CREATE TABLE {quoted} (id int PRIMARY KEY, {quoted} varchar(40) NULL)")
        any_bench.insert(name, (1, f"value {number}"), (2, None))
    masked = {"semi;colon --": {"masked_columns": ["semi;colon --"]}}
    spec = any_bench.catalog(dict.fromkeys(_HOSTILE) | masked)
    reports = any_bench.mirror_day(spec)
    assert [str(report.error) for report in reports.values() if report.error] == []
    for number, name in enumerate(_HOSTILE):
        value = "masked" if name in masked else f"value {number}"
        assert any_bench.rows(spec.view_name(name)) == [(1, value), (2, None)], name


def test_twin_names_are_an_early_error(any_bench: KindBench) -> None:
    with pytest.raises(CatalogError, match=r"'Patient' and 'patient'"):
        any_bench.catalog(["Patient", "patient"])


def test_another_schema_with_a_table_of_the_same_name(any_bench: KindBench) -> None:
    schema = 'we"ird schéma.1'
    quoted = any_bench.quote(schema)
    any_bench.run("CREATE TABLE t (id int, wrong int)", "CREATE TABLE elsewhere (id int)")
    any_bench.insert("t", (1, 1))
    grants = {
        "mysql": [f"GRANT SELECT ON {quoted}.* TO reader@'127.0.0.1'"],
        "postgresql": [
            f"GRANT USAGE ON SCHEMA {quoted} TO reader",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {quoted} TO reader",
        ],
    }
    any_bench.run(
        f"CREATE SCHEMA {quoted}",
        f"CREATE TABLE {quoted}.t (b int, a int PRIMARY KEY)",
        f"INSERT INTO {quoted}.t VALUES (7, 8)",
        *grants[any_bench.kind],
    )
    try:
        spec = any_bench.catalog(["t"], schema=schema)
        assert set(any_bench.source(spec).states()) == {"t"}
        report = any_bench.mirror_day(spec)["t"]
        assert report.error is None
        assert any_bench.rows("t_latest", "b, a") == [(7, 8)]
        assert report.schema is not None
        assert report.schema.names == ("b", "a")
    finally:
        cascade = " CASCADE" if any_bench.kind == "postgresql" else ""
        any_bench.run(f"DROP SCHEMA {quoted}{cascade}")


# -- columns left out or masked


def test_masked_and_excluded_columns_never_reach_the_landing_zone(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int, ssn varchar(20), born date NOT NULL, secret {text})")
    born = date(1911, 11, 11)
    any_bench.insert("t", (1, "SSN-CANARY", born, "SECRET-CANARY"), (2, None, born, None))
    spec = any_bench.catalog(
        {"t": {"masked_columns": ["ssn", "born"], "exclude_columns": ["secret"]}}
    )
    assert any_bench.mirror_day(spec)["t"].published
    files = [path for path in (any_bench.root / "landing").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    for canary in (b"CANARY", b"1911", b"secret"):
        assert canary not in content
    assert any_bench.rows("t_latest") == [(1, "masked", "masked"), (2, None, "masked")]


def test_wrong_entries_fail_their_own_tables_only(any_bench: KindBench) -> None:
    any_bench.run(*(f"CREATE TABLE t{i} (id int)" for i in range(3)))
    spec = any_bench.catalog(
        {
            "t0": None,
            "t1": {"masked_columns": ["ssn"]},
            "t2": {"exclude_columns": ["id"]},
            "nowhere": None,
        }
    )
    reports = any_bench.mirror_day(spec)
    assert reports["t0"].published
    for name, told in (("t1", "'ssn'"), ("t2", "every column"), ("nowhere", "no such table")):
        error = reports[name].error
        assert isinstance(error, SourceFault)
        assert error.where == f"clinic/{name}"
        assert told in error.what


# -- counts, reruns, one instant


def test_counts_are_exact_and_a_rerun_changes_nothing(any_bench: KindBench) -> None:
    any_bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(40))",
        f"INSERT INTO t SELECT i, concat('row ', i) FROM {_numbers(1000)}",
        "DELETE FROM t WHERE id > 990",
    )
    spec = any_bench.catalog(["t"])
    with any_bench.source(spec).snapshot() as snapshot:
        assert snapshot.count(spec.table("t")) == 990
    first = any_bench.mirror_day(spec, part_bytes=1)["t"]
    rows = any_bench.rows("t_latest")
    again = any_bench.mirror_day(spec)["t"]
    assert (first.loaded, again.loaded, again.replayed) == (990, 990, False)
    assert any_bench.rows("t_latest") == rows == [(i, f"row {i}") for i in range(1, 991)]
    assert any_bench.rows("t", "count(*)") == [(990,)]


def test_all_tables_are_read_at_one_instant(any_bench: KindBench) -> None:
    for name in ("t1", "t2", "t3"):
        any_bench.run(f"CREATE TABLE {name} (id int)", f"INSERT INTO {name} VALUES (1)")
    spec = any_bench.catalog(["t1", "t2", "t3"])

    def change() -> None:
        any_bench.run(*(f"INSERT INTO {name} VALUES (2)" for name in ("t1", "t2", "t3")))
        any_bench.run("UPDATE t2 SET id = 9 WHERE id = 1", "DELETE FROM t3 WHERE id = 1")

    before = datetime.now(UTC)
    source = _interrupted(any_bench, spec, "t1", "before", change)
    reports = any_bench.mirror_day(spec, source=source)
    for name, report in reports.items():
        assert (report.error, report.source_rows) == (None, 1)
        assert any_bench.rows(f"{name}_latest") == [(1,)]
        assert report.snapshot_at is not None
        assert before <= report.snapshot_at <= datetime.now(UTC)
    any_bench.mirror_day(spec)
    assert any_bench.rows("t2_latest") == [(2,), (9,)]


def test_a_table_already_read_can_be_altered_while_others_are_read(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t1 (id int)", "CREATE TABLE t2 (id int)")
    spec = any_bench.catalog(["t1", "t2"])
    timeout = {"mysql": "SET lock_wait_timeout = 2", "postgresql": "SET lock_timeout = '2s'"}
    alter = lambda: any_bench.run(timeout[any_bench.kind], "ALTER TABLE t1 ADD COLUMN v int")  # noqa: E731
    reports = any_bench.mirror_day(spec, source=_interrupted(any_bench, spec, "t2", "amid", alter))
    assert [report.error for report in reports.values()] == [None, None]


# -- logins and connections


def test_select_is_all_the_login_needs(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
    engine = sa.create_engine(any_bench.url)
    with closing(engine.raw_connection()) as reader, pytest.raises(Exception, match="denied"):
        reader.cursor().execute("INSERT INTO t VALUES (2)")
    engine.dispose()
    assert any_bench.mirror_day(any_bench.catalog(["t"]))["t"].loaded == 1


def test_a_login_without_rights_is_permanent(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int)")
    spec = any_bench.catalog(["t"])
    is_mysql = any_bench.kind == "mysql"
    if is_mysql:
        login = "nobody@'127.0.0.1'"
        any_bench.run(f"CREATE USER {login} IDENTIFIED BY 'nobody-secret'")
    else:
        login = "nobody"
        any_bench.run(
            "CREATE ROLE nobody LOGIN PASSWORD 'nobody-secret'",
            f"GRANT CONNECT ON DATABASE {any_bench.schema} TO nobody",
        )
    try:
        url = _url(any_bench, username="nobody", password="nobody-secret")
        error = any_bench.mirror_day(spec, source=open_source(spec, url))["t"].error
    finally:
        if not is_mysql:
            any_bench.run("DROP OWNED BY nobody")
        any_bench.run(f"DROP USER {login}")
    assert isinstance(error, SourceFault)
    assert "access denied" in error.what
    assert "GRANT SELECT" in error.remedy


def test_a_wrong_password_is_permanent_and_never_shown(any_bench: KindBench) -> None:
    spec = any_bench.catalog(["t"])
    source = open_source(spec, _url(any_bench, password="wrong-secret"))
    with pytest.raises(SourceFault) as caught:
        source.states()
    assert "wrong-secret" not in repr(caught.value)
    assert "reader" not in caught.value.sentence


def test_a_server_that_is_away_is_transient(any_bench: KindBench) -> None:
    spec = any_bench.catalog(["t"])
    source = open_source(spec, _url(any_bench, port=1))
    with pytest.raises(SourceUnavailable):
        source.states()
    error = any_bench.mirror_day(spec, source=source)["t"].error
    assert isinstance(error, SourceUnavailable)
    assert error.transient


def _hang_up(bench: KindBench) -> None:
    """End the reader's connections, as an operator or a fail-over does."""
    if bench.kind == "postgresql":
        bench.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'reader' AND datname = current_database()"
        )
        return
    threads = bench.ask(
        "SELECT id FROM information_schema.processlist WHERE user = 'reader' AND db = %s",
        bench.schema,
    )
    bench.run(*(f"KILL {thread}" for (thread,) in threads))


def test_a_connection_cut_amid_a_copy_is_transient_and_a_rerun_succeeds(
    any_bench: KindBench,
) -> None:
    any_bench.run(
        "CREATE TABLE big (id int PRIMARY KEY, v {text})",
        f"INSERT INTO big SELECT i, repeat('patient', 70000) FROM {_numbers(40)}",
        "CREATE TABLE small (id int)",
    )
    spec = any_bench.catalog(["big", "small"])
    cut = _interrupted(any_bench, spec, "big", "amid", lambda: _hang_up(any_bench))
    error = any_bench.mirror_day(spec, source=cut)["big"].error
    assert isinstance(error, SourceUnavailable)
    assert error.transient
    assert "patient" not in error.sentence
    assert not list((any_bench.root / "landing").rglob("big_*.manifest.json"))
    assert any_bench.mirror_day(spec)["big"].published
    assert any_bench.rows("big_latest", "count(*), sum(length(v))") == [(40, 40 * 490_000)]


# -- the login


def test_a_readers_login_can_change_nothing_and_an_owners_is_told(any_bench: KindBench) -> None:
    any_bench.run("CREATE TABLE t (id int)")
    spec = any_bench.catalog(["t"])
    login = any_bench.source(spec).login()
    assert login.changes == ()
    assert abs((login.clock - datetime.now(UTC)).total_seconds()) < 60
    owner = open_source(spec, any_bench.server.url(any_bench.schema, ADMIN)).login()
    assert {"DELETE", "INSERT", "UPDATE"} <= set(owner.changes)
