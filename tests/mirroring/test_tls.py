"""TLS to sources: verified by default, laxer only where the catalog says so; on real servers."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from mirror_assets.mirroring.catalog import DatabaseEntry, DatabaseSpec, of_entry
from mirror_assets.mirroring.errors import SettingsError, SourceFault
from mirror_assets.mirroring.sources import Address, Tunnel, open_source, secured, shown_tls, tls
from mirror_assets.mirroring.sources.mysql import MySQLSource
from mirror_assets.sample.servers import MariaDB, PostgreSQL
from mirror_assets.sample.sshd import SshServer, program

#: Where a server of the loopback interface answers too, under an address that is not a loopback's.
ELSEWHERE = "0.0.0.0"
NAME = "db.example.internal"


@dataclass(frozen=True)
class Certificates:
    """A server's certificate for 127.0.0.1 and NAME, by an authority of its own."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def make(self) -> None:
        self.folder.mkdir()
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        _openssl(
            self.folder,
            *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem"),
            *("-subj", "/CN=test authority", "-days", "2"),
        )
        _openssl(
            self.folder,
            *("req", *key, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=db"),
        )
        (self.folder / "names").write_text(f"subjectAltName=IP:127.0.0.1,DNS:{NAME}\n")
        _openssl(
            self.folder,
            *("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
            *("-CAcreateserial", "-out", "cert.pem", "-extfile", "names"),
        )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class EncryptedMariaDB(MariaDB):
    """A server with a certificate; a login needs no TLS, so that its absence shows."""

    @property
    def certificates(self) -> Certificates:
        return Certificates(self.directory / "tls")

    def _options(self, port: int, logins: Path) -> list[str]:
        if not self.certificates.folder.exists():
            self.certificates.make()
        folder = self.certificates.folder
        return [
            *super()._options(port, logins),
            f"--ssl-cert={folder / 'cert.pem'}",
            f"--ssl-key={folder / 'key.pem'}",
        ]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedMariaDB]:
    server = EncryptedMariaDB.start(tmp_path_factory.mktemp("encrypted"))
    try:
        server.create_database("clinic")
        server.create_reader("clinic")
        yield server
    finally:
        server.remove()


def spec_of(kind: str = "mysql", **fields: Any) -> DatabaseSpec:
    return of_entry(DatabaseEntry(database="clinic", kind=kind, tables=["t"], **fields))  # type: ignore[arg-type]


def url_of(server: MariaDB, host: str | None = None, **query: str) -> str:
    url = make_url(server.url("clinic")).update_query_dict(query)
    return (url.set(host=host) if host else url).render_as_string(hide_password=False)


def cipher(spec: DatabaseSpec, address: str | Address) -> str:
    """What the session is encrypted with; empty where it is not."""
    with open_source(spec, address).snapshot() as snapshot:
        ((_name, found),) = snapshot.ask("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    return str(found)


def test_mysql_verifies_authority_and_name(encrypted: EncryptedMariaDB) -> None:
    verify, trusted = spec_of(tls="verify"), str(encrypted.certificates.authority)
    assert cipher(verify, url_of(encrypted, ssl_ca=trusted))
    for wrong in (
        url_of(encrypted),  # the system does not know the authority
        url_of(encrypted, ELSEWHERE, ssl_ca=trusted),  # the certificate does not bear the name
    ):
        with pytest.raises(SourceFault, match="TLS failed") as caught:
            cipher(verify, wrong)
        assert "`tls: unverified` in the catalog" in caught.value.remedy
        assert not caught.value.transient


def test_pymysql_verifies_the_same(encrypted: EncryptedMariaDB) -> None:
    spec, trusted = spec_of(tls="verify"), str(encrypted.certificates.authority)

    def states(url: str) -> object:
        return MySQLSource(spec, secured(spec, url), driver="pymysql").states()

    assert states(url_of(encrypted, ssl_ca=trusted)) == {}
    for wrong in (url_of(encrypted), url_of(encrypted, ELSEWHERE, ssl_ca=trusted)):
        with pytest.raises(SourceFault, match="TLS failed"):
            states(wrong)


def test_mysql_elsewhere_is_verified_unless_the_catalog_says_otherwise(
    encrypted: EncryptedMariaDB, maria: MariaDB, caplog: pytest.LogCaptureFixture
) -> None:
    there = url_of(encrypted, ELSEWHERE)
    with pytest.raises(SourceFault, match="TLS failed"):
        cipher(spec_of(), there)
    tls._announce.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert cipher(spec_of(tls="unverified"), there)
        assert cipher(spec_of(tls="unverified"), there)
    assert caplog.messages == [
        "database clinic: encrypted, the server's certificate is not checked, as the catalog says"
    ]
    assert cipher(spec_of(tls="off"), there) == ""
    # never less than asked for: this server has no TLS at all
    maria.create_database("clinic")
    maria.create_reader("clinic")
    for wanted in ("unverified", "verify"):
        with pytest.raises(SourceFault, match="TLS failed"):
            cipher(spec_of(tls=wanted), url_of(maria, ELSEWHERE))
    assert cipher(spec_of(tls="off"), url_of(maria, ELSEWHERE)) == ""


def test_on_this_machine_the_server_s_preference_holds(
    encrypted: EncryptedMariaDB, maria: MariaDB
) -> None:
    maria.create_database("clinic")
    maria.create_reader("clinic")
    assert cipher(spec_of(tls="unverified"), url_of(encrypted))
    assert cipher(spec_of(tls="unverified"), url_of(maria)) == ""
    assert cipher(spec_of(), url_of(maria)) == ""


@pytest.mark.skipif(not program(), reason="no openssh-server here")
def test_through_a_tunnel_the_certificate_is_held_against_the_database_s_name(
    encrypted: EncryptedMariaDB, tmp_path: Path
) -> None:
    sshd, trusted = SshServer(tmp_path), str(encrypted.certificates.authority)
    with sshd.running():
        way = Tunnel(sshd.host, "127.0.0.1", encrypted.port)

        def through(spec: DatabaseSpec, name: str, **query: str) -> str:
            return cipher(spec, Address(url_of(encrypted, name, **query), way))

        assert through(spec_of(), NAME, ssl_ca=trusted)
        for wrong in ({"ssl_ca": trusted}, {}):
            with pytest.raises(SourceFault, match="TLS failed"):
                through(spec_of(), f"other.{NAME}" if wrong else NAME, **wrong)
        assert through(spec_of(tls="unverified"), f"other.{NAME}")
        assert through(spec_of(tls="off"), f"other.{NAME}") == ""


@pytest.fixture
def encrypted_postgres(postgres: PostgreSQL, tmp_path: Path) -> Iterator[tuple[PostgreSQL, Path]]:
    """The shared server, with a certificate for as long as the test lasts."""
    certificates = Certificates(tmp_path / "tls")
    certificates.make()
    for name in ("cert.pem", "key.pem"):
        target = postgres._data / name
        shutil.copyfile(certificates.folder / name, target)
        target.chmod(0o600)
        shutil.chown(target, postgres._data.stat().st_uid)
    _settings(postgres, "ssl_cert_file = 'cert.pem'", "ssl_key_file = 'key.pem'", "ssl = on")
    postgres.create_database("encrypted")
    postgres.create_reader("encrypted")
    try:
        yield postgres, certificates.authority
    finally:
        _settings(postgres, "ssl = off")


def _settings(server: PostgreSQL, *settings: str) -> None:
    with closing(server.admin()) as admin, admin.cursor() as cursor:
        for setting in settings:
            cursor.execute(f"ALTER SYSTEM SET {setting}")
        cursor.execute("SELECT pg_reload_conf()")
    wanted, deadline = settings[-1].rpartition(" ")[2], time.monotonic() + 10
    while time.monotonic() < deadline:
        with closing(server.admin()) as admin, admin.cursor() as cursor:
            cursor.execute("SHOW ssl")
            if cursor.fetchone() == (wanted,):
                return
        time.sleep(0.05)
    pytest.fail("the server did not take its settings")


def test_postgresql_verifies_by_the_same_field(
    encrypted_postgres: tuple[PostgreSQL, Path],
) -> None:
    server, authority = encrypted_postgres
    plain = make_url(server.url("encrypted"))

    def is_encrypted(wanted: str | None, host: str, **query: str) -> bool:
        url = plain.set(host=host).update_query_dict(query).render_as_string(hide_password=False)
        with open_source(spec_of("postgresql", tls=wanted), url).snapshot() as snapshot:
            asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ((found,),) = snapshot.ask(asked)
        return bool(found)

    trusted = {"sslrootcert": str(authority)}
    there = {"hostaddr": "127.0.0.1"}
    assert is_encrypted("verify", "127.0.0.1", **trusted)
    assert is_encrypted(None, NAME, **trusted, **there)
    for wrong, query in ((NAME, there), (f"other.{NAME}", trusted | there)):
        with pytest.raises(SourceFault, match="TLS failed"):
            is_encrypted(None, wrong, **query)
    assert is_encrypted("unverified", f"other.{NAME}", **there)
    assert not is_encrypted("off", NAME, **there)


@pytest.mark.parametrize(
    ("kind", "option", "less", "more"),
    [
        ("mysql", "ssl_mode", "REQUIRED", "VERIFY_IDENTITY"),
        ("postgresql", "sslmode", "require", "verify-full"),
    ],
)
def test_a_url_may_ask_for_more_and_never_for_less(
    kind: str, option: str, less: str, more: str
) -> None:
    url = f"{kind}://reader:hush@db.example.org/clinic?{option}="
    for lax in (less, "nonsense"):
        with pytest.raises(SettingsError) as caught:
            secured(spec_of(kind), url + lax)
        assert "hush" not in str(caught.value)
    assert secured(spec_of(kind), url + more) == url + more
    assert secured(spec_of(kind, tls="unverified"), url + less) == url + less
    assert secured(spec_of(kind, tls="unverified"), url + more) == url + more


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", ""])
def test_a_url_of_this_machine_stays_as_it_is(host: str) -> None:
    for kind in ("mysql", "postgresql"):
        url = f"{kind}://reader:hush@{host}/clinic"
        assert secured(spec_of(kind), url) == url
        assert secured(spec_of(kind, tls="verify"), url) != url


def test_people_are_told() -> None:
    url = "mysql://reader:hush@db.example.org/clinic"
    assert shown_tls(spec_of(), url) == "TLS: the certificate is verified"
    assert "not checked, as the catalog says" in shown_tls(spec_of(tls="unverified"), url)
    assert "not encrypted" in shown_tls(spec_of(tls="off"), url)


def test_yaml_s_off_is_a_word() -> None:
    assert spec_of(tls=False).entry.tls == "off"
