"""A database nobody here designed, mirrored by what ``mirror discover`` wrote and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mirror_assets.cli import main
from mirror_assets.mirroring.catalog import load
from mirror_assets.mirroring.staged import TableReport
from mirror_assets.sample.servers import MariaDB, PostgreSQL
from tests.conftest import ROOT, Bench, KindBench, utc_now

Mirror = Callable[..., Result]


@pytest.fixture
def mirror(any_bench: KindBench, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    for name, value in any_bench.variables.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


def mirror_all(bench: Bench, database: str, url: str) -> dict[str, TableReport]:
    """Mirror every table of a discovered catalog, from a database of any name."""
    from mirror_assets.mirroring.sources import open_source

    spec = load(bench.catalogs / f"{database}.catalog.yaml")
    source = open_source(spec, url)
    with source.snapshot() as snapshot:
        day = snapshot.taken_at.date()
    return bench.mirror_day(spec, source=source, day=day)


#: PostgreSQL's own catalogs as tables of ours: reading does not change these.
_COPIES = """
DO $$ DECLARE t record; BEGIN
FOR t IN
    SELECT c.oid::regclass AS source, c.relname AS name,
        string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns,
        (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k
            WHERE k.conrelid = c.oid AND k.contype = 'p') AS key
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND c.relkind = 'r' AND a.attnum > 0
        AND a.atttypid NOT IN ('anyarray'::regtype, 'pg_statistic[]'::regtype)
    GROUP BY c.oid
LOOP
    EXECUTE format('CREATE TABLE public.%I AS SELECT %s FROM %s', t.name, t.columns, t.source);
    IF t.key IS NOT NULL THEN
        EXECUTE format('ALTER TABLE public.%I ADD %s', t.name, t.key);
    END IF;
END LOOP;
END $$
"""


def _system_schema(server: MariaDB) -> str:
    with closing(server.admin()) as admin, admin.cursor() as cursor:
        cursor.execute("GRANT SELECT ON mysql.* TO reader@'127.0.0.1'")
    return server.url("mysql")


def _pgbench(server: PostgreSQL, bench: KindBench) -> str:
    program = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))[-1]
    admin = server.url(bench.schema, "admin").replace("+psycopg2", "")
    subprocess.run([program, "-i", "-q", "-s", "1", admin], check=True, capture_output=True)
    server.create_reader(bench.schema)
    return bench.url


def test_the_tables_of_a_published_schema_are_mirrored_by_discover_alone(
    any_bench: KindBench, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB: its own system schema `mysql`; PostgreSQL: the tables of `pgbench -i`."""
    server = any_bench.server
    if isinstance(server, MariaDB):
        url = _system_schema(server)
        expected = {"help_topic", "help_relation", "proc", "global_priv"}
    else:
        url, expected = _pgbench(server, any_bench), {"pgbench_accounts", "pgbench_history"}
    monkeypatch.setenv("PUBLISHED_DATABASE_URL", url)

    written = mirror("discover", "published", "--write")
    assert written.exit_code == 0, written.output
    reports = mirror_all(any_bench, "published", url)
    assert expected <= set(reports)
    # MariaDB ships one row with a zero date, which the written policy rejects
    failed = {name: report.reject_kinds for name, report in reports.items() if report.error}
    zero_date = {"tables_priv": {"Timestamp: zero_date": 1}}
    assert failed == (zero_date if isinstance(server, MariaDB) else {})
    assert sum(report.loaded for report in reports.values()) > 1000
    assert mirror("discover", "published", "--check").exit_code == 0

    day = str(next(iter(reports.values())).partition)
    good = [f"--table={name}" for name in reports if name not in failed]
    for against in ("source", "export"):
        proof = mirror("verify", "published", "--partition", day, "--against", against, *good)
        assert f"{len(good)} of {len(good)} tables of {day} are proven" in proof.output


@pytest.mark.slow
def test_a_published_schema_is_materialized_and_verified(
    any_bench: KindBench, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody would who has a database and this repository: three commands.

    MariaDB: its own system schema; PostgreSQL: its catalogs and information schema, with types,
    arrays and domains that nobody else has.
    """
    server = any_bench.server
    if isinstance(server, MariaDB):
        url, expected = _system_schema(server), {"help_topic", "proc", "tables_priv"}
    else:
        any_bench.run(_COPIES)
        server.create_reader(any_bench.schema)
        url, expected = any_bench.url, {"pg_proc", "pg_attribute", "pg_rewrite", "sql_features"}
    for name, value in (("PUBLISHED_DATABASE_URL", url), ("DAGSTER_HOME", str(tmp_path / "home"))):
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    shutil.copy(ROOT / "dagster.yaml", tmp_path / "home")

    assert mirror("discover", "published", "--write").exit_code == 0
    catalog = any_bench.catalogs / "published.catalog.yaml"
    entry = yaml.safe_load(catalog.read_text())
    if isinstance(server, MariaDB):  # the choice that its one zero date asks for
        entry["tables"]["tables_priv"] |= {"columns": {"Timestamp": {"misfits": "text"}}}
        catalog.write_text(yaml.safe_dump(entry))
    day = str(utc_now().date())
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m"]
    chosen = ["mirror_assets.definitions", "--select", "group:published", "--partition", day]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tables = [table.name for table in load(catalog).tables]
    assert expected <= set(tables)

    proof = mirror("verify", "published", "--partition", day)
    assert proof.exit_code == 0, proof.output
    assert f"{len(tables)} of {len(tables)} tables of {day} are proven" in proof.output


def test_a_password_on_the_command_line_is_refused(mirror: Mirror) -> None:
    result = mirror("discover", "x", "--url", "mysql+pymysql://reader:hunter2@127.0.0.1/x")
    assert result.exit_code == 1
    assert "DATABASE_PASSWORD_FILE" in result.output
    assert "hunter2" not in result.output


def test_a_password_file_completes_the_url(
    any_bench: KindBench, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_bench.run("CREATE TABLE t (id int PRIMARY KEY)")
    scheme, rest = any_bench.url.split("://")
    login, place = rest.split("@")
    user, password = login.split(":")
    secret = tmp_path / "password"
    secret.write_text(password)
    secret.chmod(0o400)
    monkeypatch.setenv("SHOP_DATABASE_PASSWORD_FILE", str(secret))
    result = mirror("discover", "shop", "--url", f"{scheme}://{user}@{place}")
    assert result.exit_code == 0, result.output
    assert "t: {primary_key: [id]}" in result.output
    secret.chmod(0o444)
    result = mirror("discover", "shop", "--url", f"{scheme}://{user}@{place}")
    assert "can be read by others" in result.output


def test_policies_and_choices_are_written_out(any_bench: KindBench, mirror: Mirror) -> None:
    odd = _unmapped_type(any_bench)
    any_bench.run(f"CREATE TABLE t (id int PRIMARY KEY, shape {odd or 'int'}, more {odd or 'int'})")
    result = mirror("discover", "clinic")
    assert result.exit_code == 0, result.output
    assert "breaking_drift: refuse" in result.output
    for policy in ("zero_dates: reject", "first_date: 0001-01-01", "last_date: 9999-12-31"):
        assert policy in result.output
    assert "# misfits: {" in result.output
    if odd:
        assert "exclude_columns: [shape, more]" in result.output
        assert f"choose: column shape has type {odd}" in result.output


def _unmapped_type(bench: KindBench) -> str:
    """A type that PostgreSQL learns and we do not know; MariaDB has none."""
    if bench.kind == "mysql":
        return ""
    bench.run(
        "CREATE TYPE odd",
        "CREATE FUNCTION odd_in(cstring) RETURNS odd AS 'int4in' LANGUAGE internal STRICT",
        "CREATE FUNCTION odd_out(odd) RETURNS cstring AS 'int4out' LANGUAGE internal STRICT",
        "CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = int4)",
    )
    return "public.odd"


def test_check_names_what_differs_and_exits_1(any_bench: KindBench, mirror: Mirror) -> None:
    any_bench.run("CREATE TABLE kept (id int)", "CREATE TABLE forgotten (id int)")
    any_bench.catalog(["kept", "gone"])
    result = mirror("discover", "clinic", "--check")
    assert result.exit_code == 1
    assert "forgotten: at the source, neither mirrored nor excluded" in result.output
    assert "clinic/gone" in result.output
    any_bench.catalog(["kept"], exclude=["forgotten"])
    assert mirror("discover", "clinic", "--check").exit_code == 0


_KEYED = "CREATE TABLE t (id int, at date, ssn int, CONSTRAINT k PRIMARY KEY (id, at))"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"exclude_columns": ["gone"]}, "column 'gone', which is not there"),
        ({"masked_columns": ["gone"]}, "column 'gone', which is not there"),
        (
            {"primary_key": ["id"]},
            "clinic/t: the catalog declares primary_key [id], the source has [id, at]",
        ),
        ({"primary_key": ["id", "uuid"]}, "primary_key names column 'uuid', which is not there"),
    ],
)
def test_check_tells_which_field_of_the_catalog_is_wrong(
    any_bench: KindBench, mirror: Mirror, entry: dict[str, object], words: str
) -> None:
    any_bench.run(_KEYED)
    any_bench.catalog({"t": entry})
    result = mirror("discover", "clinic", "--check")
    assert result.exit_code == 1
    assert words in result.output
    assert "1 differences" in result.output


def test_check_passes_a_catalog_that_says_the_same_or_more(
    any_bench: KindBench, mirror: Mirror
) -> None:
    any_bench.run(_KEYED, "CREATE TABLE keyless (a int, b int)")
    right = {"primary_key": ["at", "id"], "masked_columns": ["ssn"]}
    spec = any_bench.catalog({"t": right, "keyless": {"primary_key": ["a"]}})
    assert mirror("discover", "clinic", "--check").output == "0 differences\n"
    any_bench.mirror_day(spec)
    assert mirror("discover", "clinic", "--check").output == "0 differences\n"


def test_check_names_every_column_without_a_mapping(any_bench: KindBench, mirror: Mirror) -> None:
    odd = _unmapped_type(any_bench)
    any_bench.run(f"CREATE TABLE t (id int, shape {odd or 'int'}, more {odd or 'int'})")
    any_bench.catalog({"t": {"primary_key": ["id"]}})
    result = mirror("discover", "clinic", "--check")
    assert result.exit_code == (1 if odd else 0)
    for column in ("shape", "more") if odd else ():
        assert f"clinic/t: column {column} has type {odd}, which has no mapping" in result.output


def test_check_names_a_warehouse_column_that_was_altered_by_hand(
    any_bench: KindBench, mirror: Mirror
) -> None:
    any_bench.run("CREATE TABLE t (id int)")
    spec = any_bench.catalog(["t"])
    any_bench.mirror_day(spec)
    statement = "ALTER TABLE clinic_mirror.t ADD COLUMN mine STRUCT(a INTEGER)"
    any_bench.warehouse.commit(lambda tx: tx._connection.execute(statement))  # type: ignore[attr-defined]
    result = mirror("discover", "clinic", "--check")
    assert result.exit_code == 1
    assert "clinic/t: the warehouse's column mine has type STRUCT" in result.output


def test_an_existing_catalog_is_never_overwritten(any_bench: KindBench, mirror: Mirror) -> None:
    any_bench.run("CREATE TABLE t (id int)")
    any_bench.catalog(["t"])
    result = mirror("discover", "clinic", "--write")
    assert result.exit_code == 1
    assert "exists" in result.output


def test_all_tables_means_those_remembered_less_the_excluded(
    any_bench: KindBench, mirror: Mirror
) -> None:
    any_bench.run(
        "CREATE TABLE a (id int)", "CREATE TABLE b (id int)", "CREATE TABLE tmp_c (id int)"
    )
    path = any_bench.catalogs / "clinic.catalog.yaml"
    kind = "mysql" if isinstance(any_bench.server, MariaDB) else "postgresql"
    path.write_text(f"database: clinic\nkind: {kind}\ntables: all\nexclude: [tmp_*]\n")
    assert "mirror discover clinic --inventory" in mirror("status").output
    assert mirror("discover", "clinic", "--inventory").exit_code == 0
    assert (
        "0/2" in mirror("status").output or "nothing has been mirrored" in mirror("status").output
    )
    spec = any_bench.settings.database("clinic")
    assert [table.name for table in spec.tables] == ["a", "b"]
