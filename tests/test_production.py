"""The demo's databases in production's settings: by configuration alone, against local doubles.

Elation behind an SSH host by its nine keys, Commons restored from a backup by Aptible, the other
databases by secrets of Secret Manager;
exports, lake and documents in Cloud Storage, the warehouse in BigQuery, alerts in Slack, runs and
Elation's chunks in pods. The SSH server and the databases are real, the clouds are doubles, and a
pod is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.engine import make_url

from mirror_assets import definitions
from mirror_assets.orchestration.alerts.sensors import tell
from mirror_assets.sample import commons, elation, member_index, quality_measure
from mirror_assets.sample.servers import READER, MariaDB, PostgreSQL
from mirror_assets.sample.sshd import SshServer
from mirror_assets.settings import Settings
from tests.conftest import ROOT
from tests.deploy import launched
from tests.deploy.conftest import launching
from tests.fakes.aptible import DATABASE_PASSWORD, PASSWORD, USER, Aptible, aptible
from tests.fakes.bigquery import BigQuery, bigquery
from tests.fakes.cloud_storage import CloudStorage
from tests.fakes.kubernetes import Cluster, image_environment
from tests.fakes.secret_manager import SecretManager, secret_manager
from tests.fakes.slack import FakeSlack, slack

pytestmark = pytest.mark.slow  # make acceptance
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
SCALE = 0.01
CANARY = "Canary-7f21"
HANDLE = "commons-prod"
LOGIN = "/auth/tokens"
LIVING = {"commons": commons, "member_index": member_index, "quality_measure": quality_measure}
DATABASES = ("elation", *LIVING)


class Production:
    """The world, and the environment of its pods; ``printed`` is what commands of people said."""

    def __init__(
        self,
        cluster: Cluster,
        instance: dg.DagsterInstance,
        environment: dict[str, str],
        pods: Path,
    ) -> None:
        self.pods = pods
        self.cluster = cluster
        self.instance = instance
        self.environment = environment
        self.printed = ""
        self.day = f"{datetime.now(UTC):%Y-%m-%d}"
        self.bucket = environment["MIRROR_LAKE"].removesuffix("/lake")

    def mirror(self, *databases: str) -> dict[str, dg.DagsterRunStatus]:
        """Launch the mirror jobs of these databases, all at once, and how each ended."""
        graph = definitions.load()
        runs = {}
        for name in databases:
            job = graph.resolve_job_def(f"{name}_mirror")
            run = launched.create_run(self.instance, job, self.day)
            runs[name] = run.run_id, launched.launch(self.instance, run)
        for _, pod in runs.values():
            self.cluster.wait(pod, 300)
        found = {name: self.instance.get_run_by_id(run_id) for name, (run_id, _) in runs.items()}
        return {name: run.status for name, run in found.items() if run is not None}

    def command(self, *arguments: str) -> int:
        """`mirror ..` by a person in production; its exit code."""
        done = subprocess.run(
            [Path(sys.executable).parent / "mirror", *arguments],
            env=image_environment(ROOT) | self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.printed += done.stdout + done.stderr
        return done.returncode

    def alerts(self, fake: FakeSlack) -> list[str]:
        """The titles that one tick of the alert sensor posts."""
        before, now = len(fake.posted), datetime.now(UTC)
        tell(self.instance, Settings.from_env(), print, now=now, settle=timedelta(0))
        return [post["text"] for post in fake.posted[before:]]

    def logs(self) -> str:
        """What every pod printed."""
        return "".join(map(self.cluster.log, self.cluster.names))

    def stored(self) -> str:
        """Everything that Dagster keeps: events, runs, compute logs."""
        home = Path(self.instance.root_directory)
        files = (path for path in home.rglob("*") if path.is_file())
        return "".join(path.read_bytes().decode("latin-1") for path in files)


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[BigQuery, SecretManager, FakeSlack]]:
    with bigquery() as warehouse, secret_manager() as secrets, slack() as alerts:
        yield warehouse, secrets, alerts


@pytest.fixture(scope="module")
def backups(postgres: PostgreSQL) -> Iterator[tuple[Aptible, str]]:
    with aptible(postgres) as (state, url):
        yield state, url


@pytest.fixture(scope="module")
def production(
    maria: MariaDB,
    postgres: PostgreSQL,
    cloud_storage: CloudStorage,
    cloud: tuple[BigQuery, SecretManager, FakeSlack],
    backups: tuple[Aptible, str],
    extensions: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    warehouse, secrets, alerts = cloud
    bucket = cloud_storage.bucket()
    catalogs = ROOT / "mirror_assets/sample/catalogs"
    environment = {
        "MIRROR_ENVIRONMENT": "production",
        "MIRROR_WAREHOUSE": f"bigquery:{warehouse.project}?endpoint={warehouse.url}",
        "MIRROR_LAKE": f"{bucket}/lake",
        "MIRROR_LANDING": f"{bucket}/landing",
        "MIRROR_DOCUMENTS": f"{bucket}/documents",
        "MIRROR_CATALOG_PATH": str(catalogs),
        "MIRROR_SCRATCH": str(folder / "scratch"),
        "MIRROR_EXTENSIONS": str(extensions),
        "MIRROR_MEMORY": "256MB",
        "MIRROR_SETTLE_MINUTES": "0",
        "MIRROR_SLACK_TOKEN": alerts.token,
        "MIRROR_SLACK_API": alerts.url,
        "MIRROR_UI_URL": "https://dagster.example.org",
        "SECRET_MANAGER_EMULATOR_HOST": secrets.host,
        **cloud_storage.variables,
    }
    for name, living in LIVING.items():
        living.create(postgres, database=f"production_{name}", scale=SCALE)
        if name == "commons":
            continue
        secrets.secrets[f"projects/mirror-prod/secrets/{name}/versions/latest"] = postgres.url(
            f"production_{name}"
        )
        environment[f"{name.upper()}_DATABASE_URL"] = f"sm://mirror-prod/{name}"
    state, url = backups
    state.add_database(HANDLE, "production_commons")
    environment |= {
        "COMMONS_BACKUP": f"aptible:{HANDLE}",
        "APTIBLE_USER": USER,
        "APTIBLE_PASSWORD": PASSWORD,
        "APTIBLE_API_ROOT_URL": url,
        "APTIBLE_AUTH_ROOT_URL": f"{url}/auth",
    }
    elation.create(maria, schema="production_elation", scale=SCALE)
    _plant(maria, postgres)
    ssh = SshServer(folder)
    with ExitStack() as stack:
        stack.enter_context(ssh.running(f"PermitOpen 127.0.0.1:{maria.port}"))
        environment |= _nine_keys(folder, ssh, maria)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)
        pods = folder / "pods"
        pods.mkdir()
        cluster, instance = stack.enter_context(launching(pods, environment))
        cluster.volumes["catalogs"] = catalogs
        yield Production(cluster, instance, environment, pods)


def _nine_keys(folder: Path, ssh: SshServer, maria: MariaDB) -> dict[str, str]:
    """Elation's secret as its vendor's customers mount it."""
    url = make_url(maria.url("production_elation"))
    keys = {
        "ssh_hostname": f"127.0.0.1:{ssh.port}",
        "ssh_user": ssh.user,
        "ssh_private_key_path": ssh.identity.name,
        "mysql_remote_host": url.host,
        "mysql_remote_port": url.port,
        "mysql_local_host": "127.0.0.1",
        "mysql_user": url.username,
        "mysql_password": url.password,
        "mysql_database": url.database,
    }
    path = folder / "elation-mirror-secrets.json"
    path.write_text(json.dumps(keys))
    path.chmod(0o400)
    return {"ELATION_SECRET_PATH": str(path), "ELATION_SSH_KNOWN_HOSTS": str(ssh.known_hosts)}


def _plant(maria: MariaDB, postgres: PostgreSQL) -> None:
    """A value that may be found with the data, and nowhere else; a table that cannot be read."""
    with closing(maria.admin("production_elation")) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE visit_note_bullet SET text = '{CANARY}' LIMIT 5")
        assert cursor.rowcount == 5
    with closing(postgres.admin("production_commons")) as connection:
        connection.cursor().execute(f"UPDATE task SET title = '{CANARY}'")
    with closing(postgres.admin("production_quality_measure")) as connection:
        connection.cursor().execute(f"REVOKE SELECT ON market FROM {READER}")


def test_the_demos_databases_in_production(
    production: Production,
    cloud: tuple[BigQuery, SecretManager, FakeSlack],
    backups: tuple[Aptible, str],
    cloud_storage: CloudStorage,
    maria: MariaDB,
    postgres: PostgreSQL,
) -> None:
    warehouse, manager, fake = cloud
    service, _ = backups
    ended = production.mirror(*DATABASES)
    assert ended == {
        name: FAILURE if name == "quality_measure" else SUCCESS for name in DATABASES
    }, production.logs()[-3000:]
    assert service.handles == [HANDLE], "the restored copy is removed"
    (alert,) = production.alerts(fake)
    assert "quality_measure: 1 table" in alert

    with closing(postgres.admin("production_quality_measure")) as connection:
        connection.cursor().execute(f"GRANT SELECT ON market TO {READER}")
    assert production.mirror("quality_measure") == {"quality_measure": SUCCESS}
    (recovery,) = production.alerts(fake)
    assert "quality_measure" in recovery

    for name in DATABASES:
        code = production.command("verify", name, "--partition", production.day)
        assert code == 0, production.printed[-3000:]
    assert production.cluster.wrong == [], "an API server refuses a Job"
    assert warehouse.wrong == [], "Google's discovery document refuses a request"

    everywhere = {
        "pods' logs": production.logs(),
        "commands": production.printed,
        "Dagster's store": production.stored(),
        "Slack": fake.everything(),
        "BigQuery": "".join(body for _, _, body in warehouse.requests),
        "Kubernetes": json.dumps(production.cluster.jobs),
        "Aptible": json.dumps([asked for asked in service.requests if asked[1] != LOGIN]),
        "Aptible's login": json.dumps([asked for asked in service.requests if asked[1] == LOGIN]),
        "Secret Manager": "\n".join(manager.asked),
        "Cloud Storage": "\n".join(cloud_storage.objects(production.bucket)),
    }
    own = {"Slack": fake.token, "Aptible's login": PASSWORD}
    reader = {str(make_url(server.url("x")).password) for server in (maria, postgres)}
    secrets = {CANARY, *reader, PASSWORD, DATABASE_PASSWORD, fake.token, *service.tokens}
    for place, text in everywhere.items():
        assert text, f"{place} was asked nothing"
        for secret in secrets - {own.get(place)}:
            assert secret not in text, place
    shown = f"SELECT count(*) FROM commons_mirror.task_shards WHERE title = '{CANARY}'"
    assert warehouse.duck.execute(shown).fetchall() != [(0,)]
    assert production.printed.count("equal") > 50
    left = [path for path in production.pods.glob("*-scratch/**/*") if path.is_file()]
    assert {path.suffix for path in left} <= {".duckdb_extension"}
