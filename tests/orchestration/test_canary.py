"""One run over everything that leaves patient data where it belongs, and nowhere else.

A value is planted in every text column of the sources. It must arrive in the lake, in the members'
documents and in the measure service's own store; every other file that the runs leave, and all
that they print, must be free of it, also where dbt's tests fail and the service refuses a member,
quoting what it was sent.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest

from mirror_assets.orchestration.alerts.sensors import tell
from mirror_assets.sample.servers import ADMIN
from mirror_assets.settings import Settings
from tests.conftest import Bench
from tests.fakes.slack import slack
from tests.orchestration.conftest import REPOSITORY, Samples

CANARY = "Canary-5e1d9b"
#: What decides which rows meet and what they mean; planted in one row of each table.
MEANING = ("code", "code_type", "cpt", "email", "name")
#: Where patient data belongs: the landing zone, the lake with its catalog, the documents.
PLACES = ("landing", "lake", "lake.sqlite", "documents")
MIRRORS = "group:elation or group:commons or group:member_index"
DOWNSTREAM = (
    "group:elation_downstream or group:dbt or key:commons/ccd_encounter_cache"
    " or key:commons/note_transformed or key:commons/note_revision_transformed"
    " or key:commons/goal_comment_transformed"
)
_OPEN = """
    INSERT INTO member_measure
      (id, "memberId", "measureId", "sourceId", "statusId", "setOn", "createdAt", "updatedAt")
    SELECT -row_number() OVER (), m."memberId", e."measureId", 1, s.id, y, y, y
    FROM (SELECT DISTINCT "memberId" FROM member_measure) AS m,
      (SELECT DISTINCT "measureId" FROM elation_map) AS e,
      generate_series(timestamptz '2018-01-01', '2026-07-01', '6 months') AS y,
      member_measure_status AS s
    WHERE s.name = 'open'
"""

pytestmark = pytest.mark.slow  # dbt, and four processes


class Proxy:
    """Stands before the measure service: hears its requests' heads, refuses the first post."""

    def __init__(self, url: str) -> None:
        self.heads: list[str] = []
        self.refused = 0
        proxy, service = self, urlsplit(url)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not proxy.refused:
                    proxy.refused += 1
                    proxy.heads.append(f"{self.requestline}\n{self.headers}")
                    self._send(400, b'{"error": "what is this: ' + body.hex().encode() + b'"}')
                    return
                self._answer(body)

            def _answer(self, body: bytes) -> None:
                proxy.heads.append(f"{self.requestline}\n{self.headers}")
                with closing(http.client.HTTPConnection(str(service.netloc))) as connection:
                    connection.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = connection.getresponse()
                    self._send(answer.status, answer.read())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(samples: Samples) -> Iterator[Proxy]:
    made = Proxy(samples.service.url)
    yield made
    made.server.shutdown()


def test_a_value_of_a_patient_is_where_it_belongs_and_nowhere_else(
    samples: Samples, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = _plant_vendor(samples.vendor) + _plant_commons(samples)
    assert planted > 150
    _open_measures(samples)
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(REPOSITORY / "dagster.yaml", home / "dagster.yaml")
    env = os.environ | {
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "MIRROR_MEASURES_URL": proxy.url,
        "MIRROR_FHIR": "1",
    }
    today = datetime.now(UTC).date().isoformat()
    said = _materialize(env, MIRRORS, today)
    assert CANARY.encode() in _all(tmp_path / "landing")  # it was there to be told
    downstream = _materialize(env, DOWNSTREAM, today)
    assert re.search(r"1 of \d+ members were refused", downstream)
    assert re.search(r"1 of \d+ models and tests failed", downstream)  # it met planted values
    said += downstream
    said += _materialize(env, "key:elation/patient_encounters", "2026-02-01")
    assert "no published partition of 2026-02-01" in said
    commands = ("status", f"errors elation --partition {today}", "doctor", "upkeep")
    with ThreadPoolExecutor() as people:
        said += "".join(people.map(lambda words: _run(env, "mirror", *words.split()), commands))
    told = _tell(home, monkeypatch)
    assert "2026-02-01" in told
    said += told
    _expect_in_its_places(samples)

    assert proxy.refused == 1
    assert len(proxy.heads) > 2
    password = (
        samples.postgres.url("commons").partition(":")[2].partition("@")[0].rpartition(":")[2]
    )
    assert len(password) > 8
    for secret in (CANARY, CANARY.encode().hex()):
        assert secret not in said
        assert secret not in "\n".join(proxy.heads)
        assert _holding(tmp_path, secret) == []
    for secret in (samples.service.key, password):
        assert secret not in said
        assert _holding(home, secret) == []


def _plant_vendor(vendor: Bench) -> int:
    """In the columns of Elation that can hold it; how many those were."""
    columns = vendor.ask(
        "SELECT TABLE_NAME, COLUMN_NAME, CHARACTER_MAXIMUM_LENGTH FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = '{vendor.schema}' AND CHARACTER_MAXIMUM_LENGTH >= 20"
    )
    for table, column, length in columns:
        one = " LIMIT 1" if column in MEANING else ""
        vendor.run(
            f"UPDATE `{table}` SET `{column}` ="
            f" LEFT(CONCAT('{CANARY} ', coalesce(`{column}`, '')), {length}){one}"
        )
    return len(columns)


def _plant_commons(samples: Samples) -> int:
    """In the text of Commons that its constraints let change, bodies of Draft.js included."""
    planted = 0
    with closing(psycopg2.connect(_dsn(samples, "commons"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT table_name, column_name FROM information_schema.columns JOIN"
                " information_schema.tables USING (table_schema, table_name)"
                " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
                " AND data_type IN ('text', 'character varying')"
                " AND column_name !~ '(^id|[a-z]Id|email)$'"
            )
            for table, column in cursor.fetchall():
                planted += _plant(cursor, table, column)
    return planted


def _plant(cursor: Any, table: str, column: str) -> bool:
    body = f"""regexp_replace("{column}", '"text": ?"', '\\&{CANARY} ', 'g')"""
    kept = f"""WHEN "{column}" IN ('', 'null', '[]', '""') THEN "{column}\""""
    try:
        cursor.execute(
            f'UPDATE "{table}" SET "{column}" = CASE WHEN "{column}" LIKE \'{{%\' THEN {body}'
            f" {kept} ELSE '{CANARY} ' || \"{column}\" END"
        )
    except psycopg2.Error:  # a constraint: not free text
        return False
    return bool(cursor.rowcount)


def _open_measures(samples: Samples) -> None:
    """Every measure of every member is open, so that the service takes what is posted."""
    with (
        closing(psycopg2.connect(_dsn(samples, "quality_measure"))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(_OPEN)
        connection.commit()


def _expect_in_its_places(samples: Samples) -> None:
    held = samples.vendor.query("SELECT text FROM elation_mirror.visit_note_bullet_latest LIMIT 1")
    assert CANARY in held[0][0]
    read = samples.vendor.query(
        f"SELECT count(*) FROM commons_mirror.note_transformed WHERE text LIKE '%{CANARY}%'"
    )
    assert read[0][0] > 0
    for name in ("encounters.v3.json", "encounters.fhir-r4.json"):
        found = filter(Path.is_file, samples.documents.rglob(name))
        documents = [path.read_bytes() for path in found]
        assert any(CANARY.encode() in document for document in documents), name
    with (
        closing(psycopg2.connect(_dsn(samples, "quality_measure"))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SELECT count(*) FROM member_measure m WHERE m::text LIKE '%{CANARY}%'")
        assert cursor.fetchone()[0] > 0


def _tell(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Slack is sent about the runs, and what the sensor logs."""
    logged: list[str] = []
    with slack() as double, dg.DagsterInstance.from_config(str(home)) as instance:
        monkeypatch.setenv("MIRROR_SLACK_TOKEN", double.token)
        monkeypatch.setenv("MIRROR_SLACK_API", double.url)
        tell(
            instance,
            Settings.from_env(),
            logged.append,
            now=datetime.now(UTC),
            settle=timedelta(0),
        )
        assert double.posted
        return "\n".join([double.everything(), *logged])


def _dsn(samples: Samples, database: str) -> str:
    return samples.postgres.url(database, ADMIN).replace("postgresql+psycopg2:", "postgresql:")


def _materialize(env: dict[str, str], select: str, day: str) -> str:
    arguments = ["--select", select, "--partition", day, "-m", "mirror_assets.definitions"]
    return _run(env, "dagster", "asset", "materialize", *arguments)


def _run(env: dict[str, str], program: str, *arguments: str) -> str:
    """Everything that a process prints."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        env=env,
        cwd=env["DAGSTER_HOME"],  # what is left in the working directory is looked at too
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.stdout
    return done.stdout


def _holding(root: Path, secret: str) -> list[str]:
    """Files outside the places of patient data that hold a text."""
    paths = (path for path in root.rglob("*") if path.is_file())
    elsewhere = (p for p in paths if not p.relative_to(root).parts[0].startswith(PLACES))
    return [str(path) for path in elsewhere if secret.encode() in path.read_bytes()]


def _all(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*.csv"))
