"""The forms in which a database behind SSH is configured; each mistake is told, no secret is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from mirror_assets import configuration
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.sources import Address
from mirror_assets.settings import Settings
from mirror_assets.settings.connections import address, is_named

SECRET = "hush-hush 'p@ss/word"
NINE = {
    "ssh_hostname": "ssh.example.org:2222",
    "ssh_user": "mirror",
    "ssh_private_key_path": "key",
    "mysql_remote_host": "db.example.internal",
    "mysql_remote_port": 3307,
    "mysql_local_host": "127.0.0.1",
    "mysql_user": "reader",
    "mysql_password": SECRET,
    "mysql_database": "cityblock",
}
CONFIG = """
# how people reach it
Host elation
  HostName = ssh.example.org
  User mirror
  Port 2222
  IdentityFile ~/.ssh/key
  LocalForward 3306 db.example.internal:3307
  StrictHostKeyChecking yes
"""
CNF = f'[client]\nuser=reader\npassword="{SECRET}"\nhost=127.0.0.1\nport=3306\ndatabase=cityblock\n'


class Mount:
    """A folder of secrets as it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("key", "not a key", 0o400)
        self.write("known-host", "ssh.example.org ssh-ed25519 AAAA", 0o444)

    def write(self, name: str, text: str, mode: int = 0o400) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def json(self, value: Any, mode: int = 0o400) -> dict[str, str]:
        text = value if isinstance(value, str) else json.dumps(value)
        path = self.write("elation-mirror-secrets.json", text, mode)
        return {"ELATION_SECRET_PATH": str(path), "ELATION_SSH_KNOWN_HOSTS": f"{self.known}"}

    @property
    def known(self) -> Path:
        return self.folder / "known-host"

    def four(self, config: str = CONFIG, cnf: str = CNF) -> dict[str, str]:
        self.write("ssh-config", config)
        self.write("my.cnf", cnf)
        return {"ELATION_SECRET_PATH": str(self.folder)}

    @property
    def variables(self) -> dict[str, str]:
        url = make_url("mysql+pymysql://reader@db.example.internal:3307/cityblock")
        return {
            "ELATION_DATABASE_URL": url.set(password=SECRET).render_as_string(hide_password=False),
            "ELATION_SSH_HOST": "mirror@ssh.example.org:2222",
            "ELATION_SSH_IDENTITY": str(self.folder / "key"),
            "ELATION_SSH_KNOWN_HOSTS": str(self.known),
        }


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path)


def read(variables: dict[str, str]) -> Address:
    return address(Settings.from_env(variables), "elation")


def test_a2_three_forms_of_the_same_way(mount: Mount) -> None:
    forms = {
        "the JSON file of ELATION_SECRET_PATH": mount.json(NINE),
        "the folder of ELATION_SECRET_PATH": mount.four(),
        "ELATION_SSH_HOST": mount.variables,
    }
    for form, variables in forms.items():
        found = read(variables)
        assert found.form == form
        assert found.way == f"through ssh ssh.example.org:2222, by {form}"
        assert found.tunnel is not None
        host = found.tunnel.host
        assert (host.host, host.port, host.user) == ("ssh.example.org", 2222, "mirror")
        assert (host.identity, host.known_hosts) == (mount.folder / "key", mount.known)
        assert (found.tunnel.remote_host, found.tunnel.remote_port) == ("db.example.internal", 3307)
        assert (found.tunnel.attempts, found.tunnel.wait) == (5, 10.0)
        url = make_url(found.url)
        assert (url.username, url.password, url.database) == ("reader", SECRET, "cityblock")
        assert (url.host, url.port) == ("db.example.internal", 3307)
        assert "hush" not in repr(found)


def test_without_ssh_a_database_is_reached_directly() -> None:
    found = read({"ELATION_DATABASE_URL": "mysql+pymysql://reader@127.0.0.1/x"})
    assert (found.tunnel, found.way) == (None, "directly, by a URL")


def test_each_of_the_nine_keys_is_needed_and_no_other(mount: Mount) -> None:
    for key in NINE:
        with pytest.raises(SettingsError, match=f"misses {key}") as caught:
            read(mount.json({name: value for name, value in NINE.items() if name != key}))
        assert "hush" not in str(caught.value)
    with pytest.raises(SettingsError, match="unknown key mysql_socket") as caught:
        read(mount.json(NINE | {"mysql_socket": SECRET}))
    assert "hush" not in str(caught.value)
    assert caught.value.where == "ELATION_SECRET_PATH"
    assert "mysql_local_host" in caught.value.remedy


def test_a_15_a_secret_file_that_others_can_read_is_refused(mount: Mount) -> None:
    for mode in (0o440, 0o404, 0o644):
        with pytest.raises(SettingsError, match="chmod 0400"):
            read(mount.json(NINE, mode))
        variables = mount.four()
        (mount.folder / "my.cnf").chmod(mode)
        with pytest.raises(SettingsError, match="chmod 0400"):
            read(variables)
        (mount.folder / "my.cnf").chmod(0o400)
        for form in (mount.json(NINE), mount.four(), mount.variables):
            (mount.folder / "key").chmod(mode)
            with pytest.raises(SettingsError, match="chmod 0400"):
                read(form)
            (mount.folder / "key").chmod(0o400)
            read(form)


WRONG_JSON: dict[str, tuple[Any, str]] = {
    "not JSON": (f'{{"mysql_password": "{SECRET}', "not JSON"),
    "a key twice": (f'{{"ssh_user": "a", "ssh_user": "{SECRET}"}}', "a key twice"),
    "a list": (["hush"], "not a JSON object"),
    "no text": (NINE | {"mysql_user": None}, "no text in mysql_user"),
    "a port that is a word": (NINE | {"mysql_remote_port": "hush"}, "port is not a number"),
    "a port beyond all": (NINE | {"mysql_remote_port": 70000}, "port is not a port"),
    "the network": (NINE | {"mysql_local_host": "0.0.0.0"}, "not this machine"),
    "an option": (NINE | {"ssh_hostname": "-oProxyCommand=hush"}, "not a name"),
    "an option beyond": (NINE | {"mysql_remote_host": "-hush"}, "not a name"),
    "no key file": (NINE | {"ssh_private_key_path": "none"}, "not a file"),
}


@pytest.mark.parametrize(("value", "told"), WRONG_JSON.values(), ids=WRONG_JSON)
def test_a_mistake_in_the_json_file(mount: Mount, value: Any, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        read(mount.json(value))
    assert "hush" not in str(caught.value)
    assert caught.value.where.startswith("ELATION_S")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_json_file_needs_a_host_key(mount: Mount) -> None:
    variables = mount.json(NINE)
    with pytest.raises(SettingsError) as caught:
        read({"ELATION_SECRET_PATH": variables["ELATION_SECRET_PATH"]})
    assert caught.value.where == "ELATION_SSH_KNOWN_HOSTS"


def test_without_a_forward_the_folder_s_my_cnf_names_the_database(mount: Mount) -> None:
    lines = [line for line in CONFIG.splitlines() if "Forward" not in line and "Ident" not in line]
    cnf = CNF.replace("127.0.0.1", "db.internal").replace("3306", "3310")
    mount.write("key.pub", "ssh-ed25519 AAAA", 0o444)
    found = read(mount.four("\n".join(lines), cnf))
    assert found.tunnel is not None
    assert (found.tunnel.remote_host, found.tunnel.remote_port) == ("db.internal", 3310)
    assert found.tunnel.host.identity.name == "key"


WRONG_FOUR = {
    "an unknown word": ({"config": CONFIG + "ProxyCommand hush\n"}, "line 10: 'proxycommand'"),
    "two hosts": ({"config": CONFIG + "Host b\n"}, "'host', a second time"),
    "no user": ({"config": CONFIG.replace("User", "#")}, "misses user"),
    "a forward of something else": (
        {"config": CONFIG.replace("db.example.internal:3307", "/run/sock")},
        "LocalForward",
    ),
    "no password": ({"cnf": CNF.replace("password", "passwort")}, "misses password"),
    "no option file": ({"cnf": f"hush {SECRET}"}, "not an option file"),
}


@pytest.mark.parametrize(("files", "told"), WRONG_FOUR.values(), ids=WRONG_FOUR)
def test_a_mistake_in_the_four_files(mount: Mount, files: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        read(mount.four(**files))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("missing", ["ssh-config", "known-host", "my.cnf", "key"])
def test_a_folder_needs_all_four_files(mount: Mount, missing: str) -> None:
    variables = mount.four()
    (mount.folder / missing).unlink()
    with pytest.raises(SettingsError, match=f"{missing} is not a file"):
        read(variables)


@pytest.mark.parametrize("missing", ["ELATION_SSH_IDENTITY", "ELATION_SSH_KNOWN_HOSTS"])
def test_the_variables_belong_together(mount: Mount, missing: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(mount.variables | {missing: ""})
    assert caught.value.where == missing


def test_a_database_named_twice_is_refused(mount: Mount) -> None:
    for name in ("ELATION_DATABASE_URL", "ELATION_SSH_HOST"):
        with pytest.raises(SettingsError, match=f"named twice, also by {name}"):
            read(mount.json(NINE) | {name: mount.variables[name]})


def test_mistakes_are_told_with_all_others_at_the_start(mount: Mount) -> None:
    variables = mount.variables | {"COMMONS_SECRET_PATH": "/nowhere", "ELATION_SSH_IDENTITY": ""}
    _settings, found = configuration.check(variables)
    told = " ".join(str(error) for error in found)
    assert "ELATION_SSH_IDENTITY" in told
    assert "COMMONS_SECRET_PATH: /nowhere is not a file" in told
    assert configuration.check(mount.variables)[1] == []


def test_production_takes_each_form_for_a_way_to_the_database(mount: Mount) -> None:
    settings = Settings.from_env(mount.json(NINE))
    assert is_named(settings, "elation")
    assert not is_named(settings, "commons")
