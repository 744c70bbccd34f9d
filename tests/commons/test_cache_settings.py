"""The cache job as the environment names it: each variable does something, each mistake is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror_assets.commons.cache_settings import VARIABLES, CacheSettings
from mirror_assets.commons.encounter_cache import CacheTable
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.remote_job import HttpJob, LocalJob, SshJob
from mirror_assets.mirroring.ssh import SshHost
from mirror_assets.settings import Settings
from tests.commons.cache import CANARY

URL = "https://hooks.example.org/run"
NOW = datetime(2026, 11, 22, 5, tzinfo=UTC)


class Place:
    """A folder with the files that variables name; ``text`` writes ``{}`` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, mode in (("secret", 0o400), ("key", 0o600), ("open", 0o644), ("blank", 0o400)):
            (folder / name).write_text("" if name == "blank" else f" {CANARY}\n")
            (folder / name).chmod(mode)
        (folder / "known_hosts").write_text("host ssh-ed25519 AAAA")

    def read(self, **variables: str) -> CacheSettings | None:
        named = {
            f"MIRROR_CACHE_{name}": text.replace("{}", str(self.folder))
            for name, text in variables.items()
        }
        assert set(named) <= set(VARIABLES)
        return CacheSettings.from_env(Settings.from_env(named))

    def made(self, **variables: str) -> CacheSettings:
        found = self.read(**variables)
        assert found is not None
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


HOOK = {"JOB_URL": URL, "JOB_SECRET_FILE": "{}/secret"}
SSH = {
    "JOB_HOST": "deploy@app.example.org",
    "JOB_COMMAND": "npm run jobs:cache",
    "JOB_IDENTITY": "{}/key",
    "JOB_KNOWN_HOSTS": "{}/known_hosts",
}


@pytest.mark.parametrize(
    "variables",
    [{}, {"JOB_MINUTES": "5", "JOB_WAIT_MINUTES": "5"}, {"JOB_COMMAND": " ", "JOB_URL": ""}],
)
def test_without_a_job_it_is_off(place: Place, variables: dict[str, str]) -> None:
    assert place.read(**variables) is None


def test_a_hook(place: Place) -> None:
    assert place.made(**HOOK).job == HttpJob(URL, CANARY)


def test_a_command_on_a_host(place: Place) -> None:
    expected = SshJob(
        SshHost(
            host="app.example.org",
            user="deploy",
            identity=place.folder / "key",
            known_hosts=place.folder / "known_hosts",
        ),
        ("npm", "run", "jobs:cache"),
    )
    assert place.made(**SSH).job == expected


def test_a_host_with_a_port(place: Place) -> None:
    job = place.made(**SSH | {"JOB_HOST": "deploy@10.0.0.7:2222"}).job
    assert isinstance(job, SshJob)
    assert (job.host.host, job.host.port) == ("10.0.0.7", 2222)


def test_a_command_on_this_machine_is_split_as_a_shell_would(place: Place) -> None:
    job = place.made(JOB_COMMAND="""run --to "a b" 'c d' $HOME ; true""").job
    assert job == LocalJob(("run", "--to", "a b", "c d", "$HOME", ";", "true"))


def test_times_are_minutes_and_an_hour_by_default(place: Place) -> None:
    default = place.made(**HOOK)
    assert (default.seconds, default.wait_seconds) == (3600, 3600)
    stated = place.made(**HOOK, JOB_MINUTES="0.5", JOB_WAIT_MINUTES="0")
    assert (stated.seconds, stated.wait_seconds) == (30, 0)


def test_the_link_has_the_filter_and_the_last_day(place: Place) -> None:
    assert place.made(**HOOK).link(NOW) == (
        "https://console.cloud.google.com/errors;filter=cacheCcdEncounter"
    )
    stated = place.made(
        **HOOK, ERRORS_LINK="https://e/?q={filter}&t={since}/{until}", ERRORS_FILTER="a b"
    )
    assert stated.link(NOW) == (
        "https://e/?q=a%20b&t=2026-11-21T05%3A00%3A00%2B00%3A00/2026-11-22T05%3A00%3A00%2B00%3A00"
    )


def test_the_table_is_in_the_commons_database(place: Place) -> None:
    url = "postgresql+psycopg2://reader@127.0.0.1/commons"
    settings = Settings.from_env({"COMMONS_DATABASE_URL": url})
    assert place.made(**HOOK).table(settings) == CacheTable(url)


WRONG = {
    "a hook without secret": ({"JOB_URL": URL}, "JOB_SECRET_FILE"),
    "a secret that is nowhere": (HOOK | {"JOB_SECRET_FILE": "{}/none"}, "JOB_SECRET_FILE"),
    "a secret for everybody": (HOOK | {"JOB_SECRET_FILE": "{}/open"}, "JOB_SECRET_FILE"),
    "an empty secret": (HOOK | {"JOB_SECRET_FILE": "{}/blank"}, "JOB_SECRET_FILE"),
    "a hook in the clear": (HOOK | {"JOB_URL": "http://hooks.example.org/"}, "JOB_URL"),
    "a hook with a login": (HOOK | {"JOB_URL": f"https://u:{CANARY}@h.example.org/"}, "JOB_URL"),
    "a hook and a host": (HOOK | SSH, "JOB_URL"),
    "a hook and a command": (HOOK | {"JOB_COMMAND": "true"}, "JOB_URL"),
    "no user": (SSH | {"JOB_HOST": "app.example.org"}, "JOB_HOST"),
    "no host": (SSH | {"JOB_HOST": "deploy@"}, "JOB_HOST"),
    "a port that is a word": (SSH | {"JOB_HOST": "deploy@app:ssh"}, "JOB_HOST"),
    "port 0": (SSH | {"JOB_HOST": "deploy@app:0"}, "JOB_HOST"),
    "a port beyond all": (SSH | {"JOB_HOST": "deploy@app:65536"}, "JOB_HOST"),
    "an option as host": (SSH | {"JOB_HOST": "deploy@-oProxyCommand=x"}, "JOB_HOST"),
    "an option as user": (SSH | {"JOB_HOST": "-x@app"}, "JOB_HOST"),
    "a host without command": (SSH | {"JOB_COMMAND": ""}, "JOB_COMMAND"),
    "a quote without end": ({"JOB_COMMAND": f"run '{CANARY}"}, "JOB_COMMAND"),
    "a backslash at the end": ({"JOB_COMMAND": f"run {CANARY} \\"}, "JOB_COMMAND"),
    "no identity": (SSH | {"JOB_IDENTITY": ""}, "JOB_IDENTITY"),
    "an identity that is nowhere": (SSH | {"JOB_IDENTITY": "{}/none"}, "JOB_IDENTITY"),
    "an identity for everybody": (SSH | {"JOB_IDENTITY": "{}/open"}, "JOB_IDENTITY"),
    "no known hosts": (SSH | {"JOB_KNOWN_HOSTS": ""}, "JOB_KNOWN_HOSTS"),
    "known hosts that are a folder": (SSH | {"JOB_KNOWN_HOSTS": "{}"}, "JOB_KNOWN_HOSTS"),
    "no time": (HOOK | {"JOB_MINUTES": "0"}, "JOB_MINUTES"),
    "a time that is a word": (HOOK | {"JOB_MINUTES": "soon"}, "JOB_MINUTES"),
    "a negative time": (HOOK | {"JOB_MINUTES": "-1"}, "JOB_MINUTES"),
    "digits of another script": (HOOK | {"JOB_MINUTES": "٣"}, "JOB_MINUTES"),
    "a wait that is a word": (HOOK | {"JOB_WAIT_MINUTES": "1h"}, "JOB_WAIT_MINUTES"),
    "an endless wait": (HOOK | {"JOB_WAIT_MINUTES": "9" * 400}, "JOB_WAIT_MINUTES"),
    "a link without filter": (HOOK | {"ERRORS_LINK": "https://e/"}, "ERRORS_LINK"),
}


@pytest.mark.parametrize(("variables", "named"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_by_its_variable(
    place: Place, variables: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        place.read(**variables)
    assert caught.value.where.startswith(f"MIRROR_CACHE_{named}")
    assert CANARY not in str(caught.value)


def test_every_variable_is_set_by_these_tests() -> None:
    told = {name for variables, _named in WRONG.values() for name in variables}
    assert {f"MIRROR_CACHE_{name}" for name in told | {"ERRORS_FILTER"}} == set(VARIABLES)
