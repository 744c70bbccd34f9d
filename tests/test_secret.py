"""Secrets out of variables, private files and Secret Manager, and what is said when they fail."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.secret_files import at_hand
from mirror_assets.settings import Settings
from mirror_assets.settings.secrets import Secrets, SecretsUnavailable
from tests.fakes.secret_manager import SecretManager, secret_manager

URL = "postgresql://reader:hush-hush@host/clinic"
REFERENCE = "sm://clinic-prod/clinic-url"
NAME = "projects/clinic-prod/secrets/clinic-url/versions/latest"


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretManager]:
    with secret_manager() as double:
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", double.host)
        double.secrets[NAME] = URL + "\n"
        yield double


@pytest.mark.parametrize("variable", ["CLINIC_DATABASE_URL", "CLINIC_DATABASE_URL_FILE"])
def test_a_reference_may_stand_for_a_secret_or_for_its_file(
    manager: SecretManager, variable: str
) -> None:
    settings = Settings.from_env({variable: REFERENCE})
    assert settings.database_url("clinic") == URL
    assert settings.database_url("clinic") == URL
    assert manager.asked == [NAME], "fetched once"


def test_a_version_may_be_named(manager: SecretManager) -> None:
    manager.secrets[NAME.replace("latest", "3")] = "older"
    assert Secrets({"X": f"{REFERENCE}/3"}).value("X") == "older"


def test_whether_a_secret_is_stated_asks_nobody(manager: SecretManager) -> None:
    assert Settings.from_env({"CLINIC_DATABASE_URL": REFERENCE}).names_database("clinic")
    assert not Settings.from_env({}).names_database("clinic")
    assert manager.asked == []


def test_a_program_is_given_a_private_file_that_lies_on_no_disk(manager: SecretManager) -> None:
    manager.secrets[NAME] = "-----BEGIN KEY-----"
    file = Secrets({"KEY_FILE": REFERENCE}).file("KEY_FILE")
    assert manager.asked == [], "fetched when it is wanted"
    assert file is not None
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), at_hand(file) as path:
            shown = subprocess.run(["cat", path], capture_output=True, text=True, check=True)
            assert shown.stdout == "-----BEGIN KEY-----\n"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert path.resolve().name.startswith("memfd:key_file")
            raise KeyboardInterrupt
        assert not path.exists()
    assert manager.asked == [NAME]


def test_a_file_of_the_machine_is_handed_over_as_it_is(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    secrets = Secrets({"KEY_FILE": str(key)})
    assert secrets.file("KEY_FILE", private=False) == key
    with pytest.raises(SettingsError, match="chmod 0400"):
        secrets.file("KEY_FILE")
    key.chmod(0o400)
    assert secrets.file("KEY_FILE") == key
    with at_hand(key) as path:
        assert path == key
    assert key.exists()
    assert secrets.file("OTHER_FILE") is None


def test_a_secret_that_is_not_text_is_not_quoted(manager: SecretManager, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"hush \xff")
    path.chmod(0o400)
    with pytest.raises(SettingsError, match="not text in UTF-8") as caught:
        Secrets({"X_FILE": str(path)}).in_file("X_FILE")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (403, SettingsError, "may not be read by this login"),
        (404, SettingsError, "is not there"),
        (400, SettingsError, "status 400"),
        (429, SecretsUnavailable, "did not answer"),
        (500, SecretsUnavailable, "did not answer"),
    ],
)
def test_a_refusal_names_the_secret_and_tells_whether_time_cures_it(
    manager: SecretManager, status: int, error: type[Exception], words: str
) -> None:
    manager.status = status
    with pytest.raises(error, match=words) as caught:
        Secrets({"X": REFERENCE}).value("X")
    assert NAME in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("reference", ["sm://", "sm://p", "sm://p/a b", "sm://p/n/newest"])
def test_a_reference_that_cannot_be_read_is_told(reference: str) -> None:
    with pytest.raises(SettingsError, match="sm://<project>/<name>") as caught:
        Secrets({"X": reference}).value("X")
    assert caught.value.where == "X"
