"""SSH keys that lie in Secret Manager: used by a real client, and found on no disk at any time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mirror_assets import configuration
from mirror_assets.commons.cache_settings import CacheSettings
from mirror_assets.mirroring.errors import MirrorError, SettingsError, SshRefused
from mirror_assets.mirroring.remote_job import ProgressLines
from mirror_assets.mirroring.sources import Address
from mirror_assets.sample.sshd import SshServer, make_key, program
from mirror_assets.settings import Settings
from mirror_assets.settings.connections import address
from mirror_assets.settings.secrets import SecretsUnavailable
from tests.conftest import ROOT
from tests.fakes.secret_manager import SecretManager, secret_manager

pytestmark = pytest.mark.skipif(not program(), reason="no openssh-server here")

PLACE = "sm://clinic-prod"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("sshd"))
    with server.running():
        yield server


@pytest.fixture
def manager(sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretManager]:
    with secret_manager() as double:
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", double.host)
        keep(double, "key", sshd.identity.read_text())
        keep(double, "known", sshd.known_hosts.read_text())
        keep(double, "url", f"mysql+pymysql://reader@127.0.0.1:{sshd.port}/cityblock")
        keep(double, "json", json.dumps(nine_keys(sshd, f"{PLACE}/key")))
        yield double


def keep(manager: SecretManager, name: str, text: str) -> None:
    manager.secrets[f"projects/clinic-prod/secrets/{name}/versions/latest"] = text


def nine_keys(sshd: SshServer, key: str) -> dict[str, Any]:
    return {
        "ssh_hostname": f"127.0.0.1:{sshd.port}",
        "ssh_user": sshd.user,
        "ssh_private_key_path": key,
        "mysql_remote_host": "127.0.0.1",
        "mysql_remote_port": sshd.port,
        "mysql_local_host": "127.0.0.1",
        "mysql_user": "reader",
        "mysql_password": "hush-hush",
        "mysql_database": "cityblock",
    }


def by_variables(sshd: SshServer) -> dict[str, str]:
    return {
        "ELATION_DATABASE_URL": f"{PLACE}/url",
        "ELATION_SSH_HOST": sshd.place,
        "ELATION_SSH_IDENTITY": f"{PLACE}/key",
        "ELATION_SSH_KNOWN_HOSTS": f"{PLACE}/known",
    }


BY_JSON = {
    "ELATION_SECRET_PATH": f"{PLACE}/json",
    "ELATION_SSH_KNOWN_HOSTS": f"{PLACE}/known",
}


def read(variables: dict[str, str]) -> Address:
    return address(Settings.from_env(variables), "elation").at_once


def memory_files(pid: int | str = "self") -> list[str]:
    """What a process holds in memory as files, and so can be read of it."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # the listing's own
            continue
    return [name for name in found if "memfd:" in name]


def holding(root: Path, text: str) -> list[Path]:
    files = (path for path in root.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


@pytest.mark.parametrize("form", ["variables", "JSON"])
def test_the_key_is_in_memory_while_the_client_starts_and_nowhere_later(
    manager: SecretManager, sshd: SshServer, form: str
) -> None:
    found = read(by_variables(sshd) if form == "variables" else BY_JSON)
    for _ in range(2):
        with found.dialled():
            assert len(sshd.sessions()) > 0
            assert memory_files() == []
    assert len(manager.asked) == len(set(manager.asked)) == 3


def test_after_a_refusal_the_key_is_gone(
    manager: SecretManager, sshd: SshServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "stranger")
    keep(manager, "known", sshd.known_as(tmp_path / "stranger").read_text())
    with (
        pytest.raises(SshRefused, match="does not show its known key"),
        read(by_variables(sshd)).dialled(),
    ):
        pass
    keep(manager, "known", sshd.known_hosts.read_text())
    keep(manager, "key", "hush, not a key")
    with (
        pytest.raises(SshRefused, match="no private key") as caught,
        read(by_variables(sshd)).dialled(),
    ):
        pass
    assert "hush" not in str(caught.value)
    assert memory_files() == []


@pytest.mark.parametrize(
    ("status", "error"), [(403, SettingsError), (404, SettingsError), (500, SecretsUnavailable)]
)
def test_a_key_that_cannot_be_fetched_is_told_when_the_tunnel_opens(
    manager: SecretManager, sshd: SshServer, status: int, error: type[MirrorError]
) -> None:
    found = read(by_variables(sshd))
    manager.status = status
    with pytest.raises(error, match="clinic-prod/secrets/key") as caught, found.dialled():
        pass
    assert caught.value.where == "ELATION_SSH_IDENTITY"
    assert memory_files() == []


_CHILD = """
from mirror_assets.settings.connections import address
from mirror_assets.settings import Settings
with address(Settings.from_env(), "elation").dialled():
    print("up", flush=True)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_amid_the_start_leaves_no_key(
    manager: SecretManager, sshd: SshServer, tmp_path: Path, ending: signal.Signals
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        place = f"{sshd.user}@127.0.0.1:{silent.getsockname()[1]}"
        variables = by_variables(sshd) | {"ELATION_SSH_HOST": place}
        scratch = {"TMPDIR": str(tmp_path), "MIRROR_SCRATCH": str(tmp_path / "scratch")}
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD], cwd=ROOT, env=os.environ | variables | scratch
        )
        with child:
            silent.settimeout(60)
            client, _ = silent.accept()
            with closing(client):
                assert client.recv(3) == b"SSH"  # the client is amid its start
                assert len(memory_files(child.pid)) == 2
                secret = sshd.identity.read_text().splitlines()[2]
                child.send_signal(ending)
                child.wait(30)
                client.settimeout(30)
                while client.recv(1000):  # until its client has ended with it
                    time.sleep(0.01)
    assert child.returncode == -ending
    for root in (tmp_path, Path("/dev/shm")):
        assert holding(root, secret) == []
    assert holding(sshd.folder, secret) == [sshd.identity], "it would have been found"


def test_a_job_on_a_host_takes_its_key_from_there(manager: SecretManager, sshd: SshServer) -> None:
    variables = {
        "MIRROR_CACHE_JOB_HOST": sshd.place,
        "MIRROR_CACHE_JOB_COMMAND": "sh -c 'exit 7'",
        "MIRROR_CACHE_JOB_IDENTITY": f"{PLACE}/key",
        "MIRROR_CACHE_JOB_KNOWN_HOSTS": f"{PLACE}/known",
    }
    cache = CacheSettings.from_env(Settings.from_env(variables))
    assert cache is not None
    assert manager.asked == []
    assert cache.job.run(ProgressLines(print), 60) == 7
    assert memory_files() == []


def test_at_the_start_all_is_checked_and_nothing_fetched(
    manager: SecretManager, sshd: SshServer
) -> None:
    for right in (by_variables(sshd), BY_JSON):
        assert configuration.check(right)[1] == []
        for name in right:
            wrong = right | {name: "sm://clinic prod"}
            (told,) = configuration.check(wrong)[1]
            assert name in str(told)
    (told,) = configuration.check(BY_JSON | {"ELATION_SSH_KNOWN_HOSTS": ""})[1]
    assert told.where == "ELATION_SSH_KNOWN_HOSTS"
    for path in (f"{PLACE}/json", str(sshd.identity)):
        both = BY_JSON | by_variables(sshd) | {"ELATION_SECRET_PATH": path}
        (told,) = configuration.check(both)[1]
        assert "named twice" in told.what
    assert manager.asked == []


def test_a_key_beside_a_json_file_that_is_in_secret_manager(
    manager: SecretManager, sshd: SshServer
) -> None:
    keep(manager, "json", json.dumps(nine_keys(sshd, sshd.identity.name)))
    with pytest.raises(SettingsError, match="names a file beside the JSON file"):
        read(BY_JSON)
    keep(manager, "json", json.dumps(nine_keys(sshd, str(sshd.identity))))
    with read(BY_JSON).dialled():
        assert sshd.sessions()
