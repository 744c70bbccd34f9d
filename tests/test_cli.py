"""The commands a person types, over a real warehouse and source."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.engine import make_url

from mirror_assets.cli import main
from mirror_assets.sample.servers import ADMIN
from mirror_assets.sample.sshd import SshServer, program
from tests.conftest import Bench

Mirror = Callable[..., Result]


@pytest.fixture
def mirror(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    for name, value in bench.variables.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))


@pytest.fixture
def one_bad_table(bench: Bench) -> str:
    """A day on which ``good`` is published and ``bad`` is not; returns the day."""
    bench.run(
        "CREATE TABLE good (id int, note text)",
        "INSERT INTO good VALUES (1, 'a,b'), (2, NULL)",
        "CREATE TABLE bad (id int, d date)",
        "SET sql_mode = ''",
        "INSERT INTO bad VALUES (1, '2026-01-01'), (2, '2026-00-01')",
    )
    spec = bench.catalog(["good", "bad"])
    bench.mirror_day(spec)
    return str(bench.day(spec))


def test_status_tells_what_is_missing_and_exits_1(mirror: Mirror, one_bad_table: str) -> None:
    result = mirror("status")
    assert result.exit_code == 1
    assert "misses bad" in result.output
    assert "1/2" in result.output
    assert "1 of 2 rows were rejected" in " ".join(result.output.split())
    assert "From asset failure" in result.output


def test_status_of_a_complete_day_exits_0(bench: Bench, mirror: Mirror) -> None:
    bench.run("CREATE TABLE good (id int)")
    bench.mirror_day(bench.catalog(["good"]))
    result = mirror("status")
    assert result.exit_code == 0
    assert "complete" in result.output


def test_status_before_anything_was_mirrored_says_so(mirror: Mirror) -> None:
    result = mirror("status")
    assert result.exit_code == 1
    assert "nothing has been mirrored yet" in result.output


def test_errors_lists_the_rows_with_their_place(mirror: Mirror, one_bad_table: str) -> None:
    result = mirror("errors", "clinic", "--partition", one_bad_table, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.output)))
    found = [(row["table"], row["row_number"], row["column"], row["kind"]) for row in rows]
    assert ("bad", "2", "d", "not_date") in [(t, n.split(".")[0], c, k) for t, n, c, k in found]
    assert "2026-00-01" not in result.output


def test_errors_of_an_unknown_database_lists_the_known_ones(mirror: Mirror) -> None:
    result = mirror("errors", "nowhere")
    assert result.exit_code == 1
    assert "elation" in result.output.split("use one of:")[1]


def test_sql_prints_csv_exactly(mirror: Mirror, one_bad_table: str) -> None:
    query = "SELECT id, note FROM clinic_mirror.good_latest ORDER BY id"
    assert mirror("sql", query, "--csv").output == 'id,note\n1,"a,b"\n2,\n'


def test_sql_cannot_change_anything(mirror: Mirror, one_bad_table: str) -> None:
    result = mirror("sql", "DROP TABLE clinic_mirror.good")
    assert result.exit_code == 1
    assert "read-only" in result.output
    assert mirror("sql", "SELECT count(*) FROM clinic_mirror.good").exit_code == 0


def test_doctor_finds_a_source_that_is_away(
    mirror: Mirror, one_bad_table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLINIC_DATABASE_URL", "mysql+pymysql://reader:secret@127.0.0.1:1/clinic")
    result = mirror("doctor")
    assert result.exit_code == 1
    assert "source clinic" in result.output
    assert "secret" not in result.output


@pytest.mark.skipif(not program(), reason="no openssh-server here")
def test_doctor_and_discover_reach_a_database_by_the_nine_keys(
    bench: Bench, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.run("CREATE TABLE good (id int PRIMARY KEY COMMENT 'x') COMMENT 'all that is well'")
    bench.catalog(["good"])
    url = make_url(bench.url)
    (tmp_path / "ssh").mkdir()
    sshd, secret = SshServer(tmp_path / "ssh"), tmp_path / "secret.json"
    with sshd.running():
        keys = {
            "ssh_hostname": f"127.0.0.1:{sshd.port}",
            "ssh_user": sshd.user,
            "ssh_private_key_path": "ssh/identity",
            "mysql_remote_host": url.host,
            "mysql_remote_port": url.port,
            "mysql_local_host": "127.0.0.1",
            "mysql_user": url.username,
            "mysql_password": url.password,
            "mysql_database": bench.schema,
        }
        secret.write_text(json.dumps(keys))
        secret.chmod(0o400)
        monkeypatch.delenv("CLINIC_DATABASE_URL")
        monkeypatch.setenv("CLINIC_SECRET_PATH", str(secret))
        monkeypatch.setenv("CLINIC_SSH_KNOWN_HOSTS", str(sshd.known_hosts))
        lines = mirror("doctor").output.splitlines()
        proposal = mirror("discover", "clinic").output
    way = next(line for line in lines if "way to clinic" in line)
    assert f"through ssh 127.0.0.1:{sshd.port}, by the JSON file of CLINIC_SECRET_PATH" in way
    assert any("source clinic" in line and line.startswith("ok") for line in lines)
    assert "good: {description: all that is well, primary_key: [id]}" in proposal
    assert str(url.password) not in "".join(lines) + proposal


def test_doctor_tells_settings_that_are_wrong(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRROR_PART_MB", "0")
    monkeypatch.setenv("MIRROR_MEMORY", "lots")
    result = mirror("doctor")
    assert result.exit_code == 1
    assert "MIRROR_PART_MB" in result.output
    assert "512MB" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MIRROR_WAREHOUSE", "oracle:x", "no warehouse adapter"),
        ("MIRROR_WAREHOUSE", "bigquery:some-project", "cannot load from a folder"),
        ("MIRROR_WAREHOUSE_PASSWORD_FILE", "/nowhere", "/nowhere is not a file"),
    ],
)
def test_doctor_looks_at_all_the_rest_without_a_warehouse(
    bench: Bench,
    mirror: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    words: str,
) -> None:
    bench.run("CREATE TABLE good (id int)")
    bench.catalog(["good"])
    monkeypatch.setenv(variable, value)
    result = mirror("doctor")
    assert result.exit_code == 1
    assert result.output.count(words) == 1, result.output
    lines = result.output.splitlines()
    for subject in ("source clinic", "login clinic"):
        assert any(subject in line and line.startswith("ok") for line in lines), result.output


def test_doctor_names_rights_that_a_reader_needs_not(
    bench: Bench, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run("CREATE TABLE good (id int)")
    bench.catalog(["good"])
    monkeypatch.setenv("CLINIC_DATABASE_URL", bench.server.url(bench.schema, ADMIN))
    lines = mirror("doctor").output.splitlines()
    login = next(line for line in lines if "login clinic" in line)
    assert login.startswith("warn")
    assert "DELETE" in login
    assert "SELECT and no more" in login
    assert any("clock clinic" in line and line.startswith("ok") for line in lines)


def test_doctor_of_a_healthy_mirror(bench: Bench, mirror: Mirror) -> None:
    bench.run("CREATE TABLE good (id int)")
    bench.mirror_day(bench.catalog(["good"]))
    result = mirror("doctor")
    lines = [line for line in result.output.splitlines() if "clinic" in line]
    assert all(line.startswith("ok") for line in lines), result.output


def test_upkeep_says_what_it_did(mirror: Mirror, one_bad_table: str) -> None:
    result = mirror("upkeep")
    assert result.exit_code == 0
    assert "exports deleted" in result.output


def test_verify_proves_a_day_and_names_a_changed_row_by_its_key(
    bench: Bench, mirror: Mirror
) -> None:
    bench.run(
        "CREATE TABLE patient (id int PRIMARY KEY, name text)",
        "INSERT INTO patient VALUES (7, 'SECRET-A'), (8, 'SECRET-B')",
        "CREATE TABLE visit (id int PRIMARY KEY)",
    )
    spec = bench.catalog(["patient", "visit"])
    bench.mirror_day(spec)
    day = str(bench.day(spec))

    proven = mirror("verify", "clinic", "--partition", day)
    assert proven.exit_code == 0, proven.output
    assert f"2 of 2 tables of {day} are proven" in proven.output

    bench.run("UPDATE patient SET name = 'SECRET-C' WHERE id = 7")
    differs = mirror("verify", "clinic", "--partition", day, "--table", "patient")
    assert differs.exit_code == 1
    assert "0 of 1 tables" in differs.output
    assert 'changed {"id": "7"}: name' in differs.output
    assert "SECRET" not in differs.output

    export = mirror("verify", "clinic", "--partition", day, "--against", "export")
    assert export.exit_code == 0, export.output


def test_verify_of_a_day_that_was_never_mirrored_exits_1(bench: Bench, mirror: Mirror) -> None:
    bench.run("CREATE TABLE visit (id int PRIMARY KEY)")
    bench.mirror_day(bench.catalog(["visit"]))
    result = mirror("verify", "clinic", "--partition", "2026-01-02")
    assert result.exit_code == 1
    assert "was never published" in " ".join(result.output.split())
