"""How each database is reached, read from the environment: directly, or by one of three SSH forms.

- variables: ``<NAME>_SSH_HOST``, ``.._IDENTITY``, ``.._KNOWN_HOSTS`` beside the database's URL;
- one JSON file with nine keys, named by ``<NAME>_SECRET_PATH``;
- a folder of four files, named by the same: ``ssh-config``, the private key, ``known-host``,
  ``my.cnf``.

The JSON file and each of the variables' files may lie in Secret Manager instead. Through a tunnel
the URL is the SSH host's view of the database. Messages name keys and files, never what they hold.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from mirror_assets.mirroring.errors import MirrorError, SettingsError, placed
from mirror_assets.mirroring.secret_files import SecretFile, check_file, check_private
from mirror_assets.mirroring.sources import Address, Tunnel, parsed
from mirror_assets.mirroring.ssh import SshHost, read_host
from mirror_assets.settings.environment import Settings, tried, unnamed
from mirror_assets.settings.secrets import SCHEME, Secrets

#: Every environment variable read here, its default, and what it is for.
VARIABLES: dict[str, tuple[str, str]] = {
    "<NAME>_SSH_HOST": ("", "user@host[:port] from which the database is reached; unset: directly"),
    "<NAME>_SSH_IDENTITY": ("", "private key file for that host, mode 0400 or 0600, or sm://.."),
    "<NAME>_SSH_KNOWN_HOSTS": ("", "known_hosts file with that host's key, or sm://.."),
    "<NAME>_SECRET_PATH": (
        "",
        "instead of the URL: a JSON file of nine keys (or sm://..), or a folder of four files, with"
        " all of it",
    ),
}
_KEYS = frozenset(
    [
        *("ssh_hostname", "ssh_user", "ssh_private_key_path"),
        *("mysql_remote_host", "mysql_remote_port", "mysql_local_host"),
        *("mysql_user", "mysql_password", "mysql_database"),
    ]
)
_LOCAL = ("127.0.0.1", "localhost", "::1")
_PORTS = {"mysql": 3306, "mariadb": 3306, "postgresql": 5432}
#: Of an ssh-config we read these; what we say ourselves may stand there too.
_READ = ("host", "hostname", "user", "port", "identityfile", "localforward")
_OURS = frozenset(
    [
        *("userknownhostsfile", "stricthostkeychecking", "identitiesonly", "batchmode"),
        *("serveraliveinterval", "serveralivecountmax", "exitonforwardfailure"),
        *("connecttimeout", "requesttty", "sessiontype", "compression", "loglevel"),
    ]
)
_FORWARD = re.compile(r"\S+\s+(?:\[(?P<v6>[^\]\s]+)\]|(?P<host>[^:\s/]+)):(?P<port>[0-9]{1,5})")
_CNF_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "\\": "\\", "s": " "}


def address(settings: Settings, name: str, url: str | None = None) -> Address:
    """How a database is reached; ``url`` stands for the variables' own.

    Raises SettingsError naming the variable, file or key.
    """
    prefix, env = name.upper(), settings.variables
    secret, host = f"{prefix}_SECRET_PATH", f"{prefix}_SSH_HOST"
    if not env.get(secret):
        url = url or settings.database_url(name)
        if not env.get(host):
            return Address(url)
        reached = _host(settings, host)
        with placed(host):
            return _through(reached, parsed(url, name, "kind+driver://user@host/db"), host)
    _refuse_twice(env, prefix)
    path = Path(env[secret]).absolute()
    if path.is_dir() and not settings.secrets.is_elsewhere(secret):
        return _of_folder(path, secret)
    return _of_json(settings.secrets, env[secret], prefix)


def is_named(settings: Settings, name: str) -> bool:
    """Whether the environment says how a database is reached; asks nobody."""
    return bool(settings.variables.get(f"{name.upper()}_SECRET_PATH")) or settings.names_database(
        name
    )


def faults(settings: Settings, name: str) -> Iterator[MirrorError]:
    """What is wrong with the way to a database, as far as it is seen without fetching a secret.

    Asks no server.
    """
    prefix = name.upper()
    if settings.variables.get(f"{prefix}_SECRET_PATH"):
        yield from tried(lambda: _check_secret(settings, name))
        return
    yield from tried(
        lambda: settings.named_url(name),
        lambda: settings.secrets.named(f"{prefix}_DATABASE_PASSWORD"),
        lambda: _check_way(settings, name, f"{prefix}_SSH_HOST"),
    )


def _check_secret(settings: Settings, name: str) -> None:
    prefix = name.upper()
    _refuse_twice(settings.variables, prefix)
    if settings.secrets.is_elsewhere(f"{prefix}_SECRET_PATH"):
        _known_hosts(settings.secrets, prefix)
    else:
        address(settings, name)


def _check_way(settings: Settings, name: str, host: str) -> None:
    """Raise what is wrong with a database's URL, and with the SSH host before it."""
    reached = _host(settings, host) if settings.variables.get(host) else None
    url = settings.named_url(name)
    if url is None and reached is not None:
        raise unnamed(name)
    if not isinstance(url, str):
        return
    there = parsed(url, name, "kind+driver://user@host/db")
    if reached is not None:
        with placed(host):
            _through(reached, there, host)


def _host(settings: Settings, variable: str) -> SshHost:
    return read_host(lambda key: settings.variables.get(key, ""), settings.secrets, variable)


def _through(host: SshHost, url: URL, form: str) -> Address:
    port = url.port or _PORTS.get(url.get_backend_name(), 0)
    tunnel = Tunnel(host, url.host or "127.0.0.1", port)
    return Address(url.render_as_string(hide_password=False), tunnel, form)


def _refuse_twice(env: Mapping[str, str], prefix: str) -> None:
    others = (f"{prefix}_{part}" for part in ("DATABASE_URL", "DATABASE_URL_FILE", "SSH_HOST"))
    both = [name for name in others if env.get(name)]
    if both:
        raise SettingsError(
            f"the database is named twice, also by {both[0]}",
            where=f"{prefix}_SECRET_PATH",
            remedy="unset one of them",
        )


# --- The nine keys --------------------------------------------------------------------------


def _of_json(secrets: Secrets, stated: str, prefix: str) -> Address:
    variable = f"{prefix}_SECRET_PATH"
    found = _nine_keys(secrets.in_file(variable) or "", Path(stated).name, variable)
    known = _known_hosts(secrets, prefix)
    if found["mysql_local_host"] not in _LOCAL:
        raise SettingsError(
            "mysql_local_host is not this machine: a tunnel is never opened to the network",
            where=variable,
            remedy="write 127.0.0.1",
        )
    identity = _key_of_json(secrets, stated, found["ssh_private_key_path"], variable)
    with placed(variable):
        place = f"{found['ssh_user']}@{found['ssh_hostname']}"
        return _mysql(
            SshHost.parse(place, identity, known),
            form=f"the JSON file of {variable}",
            to=found["mysql_remote_host"],
            port=found["mysql_remote_port"],
            user=found["mysql_user"],
            password=found["mysql_password"],
            database=found["mysql_database"],
        )


def _known_hosts(secrets: Secrets, prefix: str) -> SecretFile:
    variable = f"{prefix}_SSH_KNOWN_HOSTS"
    known = secrets.file(variable, private=False)
    if known is None:
        raise SettingsError(
            "the JSON file has no host key, and this names none",
            where=variable,
            remedy="name a known_hosts file with the SSH host's key: docs/operations.md",
        )
    return known


def _key_of_json(secrets: Secrets, stated: str, key: str, variable: str) -> SecretFile:
    """The private key that a JSON file names: beside it, at a whole path, or in Secret Manager."""
    if key.startswith(SCHEME):
        return secrets.file_of(variable, key)
    if secrets.is_elsewhere(variable) and not Path(key).is_absolute():
        raise SettingsError(
            "ssh_private_key_path names a file beside the JSON file, which is in Secret Manager",
            where=variable,
            remedy="write the key's own sm://<project>/<name> there, or an absolute path",
        )
    return secrets.file_of(variable, str(Path(stated).parent / key))


def _nine_keys(text: str, name: str, variable: str) -> dict[str, str]:
    try:
        raw = json.loads(text, object_pairs_hook=_pairs)
    except ValueError:  # it may quote a password
        raise SettingsError(f"{name} is not JSON, or has a key twice", where=variable) from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{name} is not a JSON object", where=variable)
    faults = [f"misses {key}" for key in sorted(_KEYS - set(raw))]
    faults += [f"has an unknown key {key}" for key in sorted(set(raw) - _KEYS)]
    faults += [
        f"has no text in {key}"
        for key in sorted(_KEYS & set(raw))
        if not isinstance(raw[key], (str, int)) or isinstance(raw[key], bool) or raw[key] == ""
    ]
    if faults:
        raise SettingsError(
            f"{name} {'; '.join(faults)}",
            where=variable,
            remedy=f"its keys are exactly: {', '.join(sorted(_KEYS))}",
        )
    return {key: str(value) for key, value in raw.items()}


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


# --- The four files -------------------------------------------------------------------------


def _of_folder(folder: Path, variable: str) -> Address:
    config, known, options = (folder / name for name in ("ssh-config", "known-host", "my.cnf"))
    for path in (config, known):
        check_file(path, variable)
    told = _ssh_config(config, variable)
    client = _client_options(options, variable)
    missing = [key for key in ("user", "password", "database") if not client.get(key)]
    if missing:
        raise SettingsError(f"my.cnf misses {missing[0]} in [client]", where=variable)
    host, port = client.get("host", "127.0.0.1"), client.get("port", "3306")
    if "localforward" in told:
        match = _FORWARD.fullmatch(told["localforward"])
        if match is None:
            raise SettingsError("ssh-config: LocalForward is not `port host:port`", where=variable)
        host, port = match["v6"] or match["host"], match["port"]
    identity = check_private(_identity(folder, told, variable), variable)
    place = f"{told['user']}@{told['hostname']}:{told.get('port', '22')}"
    with placed(variable):
        return _mysql(
            SshHost.parse(place, identity, known),
            form=f"the folder of {variable}",
            to=host,
            port=port,
            user=client["user"],
            password=client["password"],
            database=client["database"],
        )


def _ssh_config(path: Path, variable: str) -> dict[str, str]:
    """The one host of an ssh-config, by keyword in lower case."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        keyword, _, value = re.sub(r"^\s*([^\s=]+)\s*=?\s*", r"\1 ", line).strip().partition(" ")
        keyword, value = keyword.lower(), value.strip().strip('"')
        if not keyword or keyword.startswith("#") or keyword in _OURS:
            continue
        if keyword not in _READ or keyword in found:
            fault = "a second time" if keyword in found else "which is not known here"
            raise SettingsError(
                f"ssh-config, line {number}: {keyword!r}, {fault}",
                where=variable,
                remedy="one Host with: HostName, User, Port, IdentityFile, LocalForward",
            )
        found[keyword] = value
    if "hostname" not in found and not set(found.get("host", "*")) & set("*? "):
        found["hostname"] = found["host"]
    missing = [word for word in ("hostname", "user") if not found.get(word)]
    if missing:
        raise SettingsError(f"ssh-config misses {missing[0]}", where=variable)
    return found


def _identity(folder: Path, told: dict[str, str], variable: str) -> Path:
    """The key that ssh-config names, in this folder; else the only file that is no other."""
    if "identityfile" in told:
        return folder / Path(told["identityfile"]).name
    known = {"ssh-config", "known-host", "my.cnf"}
    left = [
        path
        for path in folder.iterdir()
        if path.name not in known and path.name[0] != "." and path.suffix != ".pub"
    ]
    if len(left) != 1:
        raise SettingsError(
            f"{len(left)} files may be the private key",
            where=variable,
            remedy="say which by IdentityFile of ssh-config",
        )
    return left[0]


def _client_options(path: Path, variable: str) -> dict[str, str]:
    """The [client] group of a MySQL option file."""
    check_private(path, variable)
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=("#", ";"), interpolation=None, allow_no_value=True
    )
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, ValueError):  # it may quote a password
        raise SettingsError("my.cnf is not an option file", where=variable) from None
    group = parser["client"] if parser.has_section("client") else {}
    return {key.replace("-", "_"): _cnf_value(value or "") for key, value in group.items()}


def _cnf_value(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return re.sub(r"\\(.)", lambda match: _CNF_ESCAPES.get(match[1], match[0]), text)


def _mysql(host: SshHost, *, form: str, port: str, **parts: str) -> Address:
    if not port.isdecimal():
        raise SettingsError("the database's port is not a number")
    url = URL.create(
        "mysql+pymysql",
        username=parts["user"],
        password=parts["password"],
        host=parts["to"],
        port=int(port),
        database=parts["database"],
    )
    return _through(host, url, form)
