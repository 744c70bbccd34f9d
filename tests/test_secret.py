"""Secrets out of variables, private files and Secret Manager, and what is said when they fail."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.secret import Secrets, SecretsUnavailable
from mirror_assets.settings import Settings
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


def test_a_program_is_given_a_private_file_that_goes_away(
    manager: SecretManager, tmp_path: Path
) -> None:
    manager.secrets[NAME] = "-----BEGIN KEY-----"
    secrets = Secrets({"KEY_FILE": REFERENCE})
    with pytest.raises(KeyboardInterrupt), secrets.file("KEY_FILE", tmp_path / "s") as path:
        assert path is not None
        assert path.read_text() == "-----BEGIN KEY-----\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        raise KeyboardInterrupt
    assert list((tmp_path / "s").iterdir()) == []


def test_a_file_of_the_machine_is_handed_over_as_it_is(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o400)
    with Secrets({"KEY_FILE": str(key)}).file("KEY_FILE", tmp_path) as path:
        assert path == key
    assert key.exists()
    key.chmod(0o640)
    with (
        pytest.raises(SettingsError, match="chmod 0400"),
        Secrets({"KEY_FILE": str(key)}).file("KEY_FILE", tmp_path),
    ):
        pass


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
