"""The environment: defaults, refusals that name the variable, secrets that are not shown."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror_assets import configuration
from mirror_assets.definitions import build
from mirror_assets.mirroring.errors import SettingsError
from mirror_assets.mirroring.scratch import new_scratch, remove_scratch, sweep_scratch
from mirror_assets.orchestration.dbt_sources import environment
from mirror_assets.settings import Settings
from mirror_assets.settings.secrets import SecretsUnavailable
from tests.fakes.secret_manager import SecretManager, secret_manager

SECRET = "mysql+pymysql://reader:hush-hush@host/elation"


def test_without_variables_everything_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    home = tmp_path / ".mirror"
    assert settings.warehouse_url == f"ducklake:sqlite:{home}/lake.sqlite"
    assert (settings.lake, settings.landing_url) == (str(home / "lake"), str(home / "landing"))
    assert (settings.scratch, settings.extensions) == (home / "scratch", home / "duckdb")
    assert (settings.part_bytes, settings.settle_minutes) == (256 << 20, None)
    assert [spec.name for spec in settings.databases() if spec.name == "elation"] == ["elation"]
    assert not home.exists()  # reading the environment creates nothing


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_env({"MIRROR_MEMORY": ""}).memory == "512MB"


def test_a_url_stays_a_url_and_a_path_becomes_absolute() -> None:
    assert Settings.from_env({"MIRROR_LANDING": "gs://bucket/x"}).landing_url == "gs://bucket/x"
    assert Settings.from_env({"MIRROR_LANDING": "x"}).landing_url == str(Path("x").absolute())


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("MIRROR_PART_MB", "0", "whole number above 0"),
        ("MIRROR_PART_MB", "many", "whole number above 0"),
        ("MIRROR_PART_MB", "²", "whole number above 0"),
        ("MIRROR_SETTLE_MINUTES", "soon", "number such as 0.2"),
        ("MIRROR_SETTLE_MINUTES", "-1", "number such as 0.2"),
        ("MIRROR_SETTLE_MINUTES", "nan", "number such as 0.2"),
        ("MIRROR_MEMORY", "lots", "512MB"),
        ("MIRROR_MEMORY", "512", "512MB"),
        ("MIRROR_CATALOG_PATH", "/no/such/folder", "not a folder"),
        ("MIRROR_ENVIRONMENT", "staging", "local or production"),
        ("MIRROR_MEASURES_CONNECTIONS", "0", "whole number from 1 to 15"),
        ("MIRROR_MEASURES_CONNECTIONS", "16", "whole number from 1 to 15"),
        ("MIRROR_MEASURES_PER_SECOND", "0", "number above 0"),
        ("MIRROR_MEASURES_PER_SECOND", "fast", "number above 0"),
    ],
)
def test_a_wrong_value_names_its_variable(variable: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: value})
    assert caught.value.where == variable
    assert words in caught.value.sentence


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"MIRROR_PART_MB": "0", "MIRROR_MEMORY": "lots"})
    assert "2 settings are wrong" in caught.value.sentence
    assert "MIRROR_PART_MB" in caught.value.sentence
    assert "MIRROR_MEMORY" in caught.value.sentence


def test_faults_of_every_part_are_told_with_defaults_in_their_place() -> None:
    wrong = {
        "MIRROR_PART_MB": "0",
        "MIRROR_DATABASES": "elation,nope",
        "MIRROR_CACHE_JOB_URL": "http://127.0.0.1/hook",
        "MIRROR_FIREWALL_APP": "!",
    }
    settings, faults = configuration.check(wrong)
    assert settings.part_bytes == 256 << 20
    assert [error.where for error in faults] == [
        "MIRROR_PART_MB",
        "MIRROR_DATABASES",
        "MIRROR_CACHE_JOB_SECRET_FILE",
        "MIRROR_FIREWALL_APP",
    ]


def test_production_takes_no_default_and_no_unreachable_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, faults = configuration.check(
        {"MIRROR_ENVIRONMENT": "production", "MIRROR_LAKE": "x", "ELATION_DATABASE_URL": SECRET}
    )
    told = " ".join(str(error) for error in faults)
    for name in ("MIRROR_WAREHOUSE", "MIRROR_LANDING", "MIRROR_DOCUMENTS", "COMMONS_DATABASE_URL"):
        assert name in told
    assert "MIRROR_LAKE:" not in told
    assert "ELATION" not in told
    assert configuration.check({})[1] == []


def test_a_complete_production_is_taken(tmp_path: Path) -> None:
    stated = {
        name: str(tmp_path / name) for name in ("MIRROR_LAKE", "MIRROR_LANDING", "MIRROR_DOCUMENTS")
    }
    settings, faults = configuration.check(
        {
            **stated,
            "MIRROR_WAREHOUSE": f"ducklake:sqlite:{tmp_path}/lake.sqlite",
            "MIRROR_ENVIRONMENT": "production",
            "MIRROR_CATALOG_PATH": str(tmp_path),
            "MIRROR_DATABASES": "elation",
            "ELATION_DATABASE_URL": SECRET,
        }
    )
    assert faults == []
    assert [spec.name for spec in settings.databases()] == ["elation"]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretManager]:
    """A Secret Manager that answers nobody."""
    with secret_manager() as double:
        double.status = 503
        monkeypatch.setattr("mirror_assets.settings.secrets._SECONDS", 1.0)
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", double.host)
        yield double


#: Every secret that a start could want, in Secret Manager.
_NAMES = (
    *("MIRROR_WAREHOUSE_PASSWORD", "MIRROR_MEASURES_URL", "MIRROR_MEASURES_KEY_FILE"),
    *("MIRROR_LEDGER_URL_FILE", "MIRROR_SLACK_TOKEN", "APTIBLE_USER", "APTIBLE_PASSWORD_FILE"),
    *("MIRROR_CACHE_JOB_SECRET_FILE", "COMMONS_EXPORT_JOB_SECRET_FILE"),
    *("ELATION_DATABASE_URL", "ELATION_DATABASE_PASSWORD_FILE", "VIADUCT_DATABASE_URL_FILE"),
)
KEPT_THERE = dict.fromkeys(_NAMES, "sm://clinic-prod/a-secret")
READING_THEM = KEPT_THERE | {
    "MIRROR_DATABASES": "elation,commons,viaduct",
    "COMMONS_BACKUP": "aptible:clinic",
    "VIADUCT_BACKUP": "postgres",
    "COMMONS_EXPORT_FILES": "gs://clinic/exports",
    "COMMONS_EXPORT_JOB_URL": "https://hooks.example.org/export",
    "MIRROR_CACHE_JOB_URL": "https://hooks.example.org/cache",
}


@pytest.fixture
def viaduct(tmp_path: Path) -> dict[str, str]:
    text = (
        "database: viaduct\nkind: postgresql\ntables: [people]\n"
        'refresh: {rule: schedule, cron: "0 5 * * *"}\n'
    )
    (tmp_path / "viaduct.catalog.yaml").write_text(text)
    return {"MIRROR_CATALOG_PATH": str(tmp_path)}


def test_the_start_needs_no_secret_manager(away: SecretManager, viaduct: dict[str, str]) -> None:
    settings, faults = configuration.check(READING_THEM | viaduct)
    assert faults == []
    found = build(settings).resolve_asset_graph().get_all_asset_keys()
    names = {"/".join(key.path) for key in found}
    assert {"elation/quality_measures", "commons/ccd_encounter_cache", "viaduct/people"} <= names
    assert away.asked == []
    with pytest.raises(SecretsUnavailable, match="did not answer"):
        settings.measures_url()


@pytest.mark.parametrize("variable", KEPT_THERE)
def test_a_wrong_reference_is_told_at_the_start(variable: str, viaduct: dict[str, str]) -> None:
    (told,) = configuration.check(READING_THEM | viaduct | {variable: "sm://clinic prod"})[1]
    assert variable in str(told.where)
    assert "reference to a secret" in told.what


@pytest.mark.parametrize("variable", [name for name in KEPT_THERE if name.endswith("_FILE")])
@pytest.mark.parametrize("words", ["is not a file", "can be read by others"])
def test_a_secret_file_that_is_missing_or_open_is_told_at_the_start(
    variable: str, words: str, viaduct: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if words != "is not a file":
        file.write_text("hush-hush")
        file.chmod(0o440)
    (told,) = configuration.check(READING_THEM | viaduct | {variable: str(file)})[1]
    assert variable in str(told.where)
    assert words in told.what


@pytest.mark.parametrize(
    ("value", "variable", "words"),
    [
        ("oracle:x", "MIRROR_WAREHOUSE", "no warehouse adapter"),
        ("ducklake:mysql:x", "MIRROR_WAREHOUSE", "SQLite file or a PostgreSQL"),
        ("ducklake:sqlite:/", "MIRROR_WAREHOUSE", "is a folder"),
        ("ducklake:postgres:host", "MIRROR_WAREHOUSE", "not one of PostgreSQL's"),
        ("ducklake:postgres:host=h password=x", "MIRROR_WAREHOUSE", "holds a password"),
        ("bigquery:?", "MIRROR_WAREHOUSE", "no address of a BigQuery project"),
        ("bigquery:some-project", "MIRROR_LAKE", "cannot load from a folder"),
    ],
)
def test_a_wrong_warehouse_is_told_at_the_start(value: str, variable: str, words: str) -> None:
    (told,) = configuration.check({"MIRROR_WAREHOUSE": value, "MIRROR_PART_MB": "1"})[1]
    assert told.where == variable
    assert words in told.what


def test_a_url_that_cannot_be_read_is_told_with_all_others() -> None:
    wrong = {"ELATION_DATABASE_URL": "hush-hush", "MIRROR_WAREHOUSE": "oracle:x"}
    told = [str(error) for error in configuration.check(wrong)[1]]
    assert len(told) == 2
    assert "database URL cannot be read" in told[1]
    assert "hush" not in told[1]


def test_in_production_a_link_in_slack_leads_somewhere() -> None:
    def told(**variables: str) -> list[str | None]:
        stated = {"MIRROR_ENVIRONMENT": "production", "MIRROR_SLACK_TOKEN": "xoxb", **variables}
        return [error.where for error in configuration.check(stated)[1]]

    assert "MIRROR_UI_URL" in told()
    assert "MIRROR_UI_URL" not in told(MIRROR_UI_URL="https://dagster.example.org")
    assert "MIRROR_UI_URL" not in told(MIRROR_SLACK_TOKEN="")
    assert "MIRROR_UI_URL" not in told(MIRROR_ENVIRONMENT="local")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MIRROR_PART_MB", "1"),
        ("MIRROR_SETTLE_MINUTES", "0"),
        ("MIRROR_MEMORY", "1.5GiB"),
        ("MIRROR_MEMORY", "512 MB"),
        ("MIRROR_MEASURES_CONNECTIONS", "15"),
        ("MIRROR_MEASURES_PER_SECOND", "0.5"),
    ],
)
def test_a_right_value_is_taken(variable: str, value: str) -> None:
    Settings.from_env({variable: value})


@pytest.mark.parametrize(
    ("lake", "documents"),
    [
        ("gs://bucket", "gs://bucket/documents"),
        ("gs://bucket/mirror/", "gs://bucket/mirror"),
        ("/srv/mirror/lake", "/srv/mirror"),
    ],
)
def test_places_that_lie_in_each_other_are_refused(lake: str, documents: str) -> None:
    variables = {"MIRROR_LAKE": lake, "MIRROR_DOCUMENTS": documents}
    with pytest.raises(SettingsError, match=r"MIRROR_LAKE .* MIRROR_DOCUMENTS .* in each other"):
        Settings.from_env(variables)


def test_places_side_by_side_are_taken() -> None:
    variables = {"MIRROR_LAKE": "gs://bucket/lake", "MIRROR_DOCUMENTS": "gs://bucket/lake2"}
    assert Settings.from_env(variables).documents_url == "gs://bucket/lake2"


def test_the_settle_override_reaches_the_catalogs() -> None:
    spec = Settings.from_env({"MIRROR_SETTLE_MINUTES": "0.5"}).database("elation")
    assert spec.entry.refresh.settle_minutes == 0.5
    assert Settings.from_env({}).database("elation").entry.refresh.settle_minutes == 10


def test_an_unknown_database_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"use one of: .*elation"):
        Settings.from_env({}).database("nope")


def test_an_unknown_warehouse_is_refused() -> None:
    with pytest.raises(SettingsError, match="MIRROR_WAREHOUSE"):
        Settings.from_env({"MIRROR_WAREHOUSE": "oracle:x"}).warehouse()


def test_the_url_comes_from_its_variable_or_a_private_file(tmp_path: Path) -> None:
    assert Settings.from_env({"ELATION_DATABASE_URL": SECRET}).database_url("elation") == SECRET
    file = tmp_path / "url"
    file.write_text(SECRET + "\n")
    file.chmod(0o400)
    settings = Settings.from_env({"ELATION_DATABASE_URL_FILE": str(file)})
    assert settings.database_url("elation") == SECRET


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644])
def test_a_url_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "url"
    file.write_text(SECRET)
    file.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 0400") as caught:
        Settings.from_env({"ELATION_DATABASE_URL_FILE": str(file)}).database_url("elation")
    assert "hush-hush" not in caught.value.sentence


def test_a_missing_url_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="ELATION_DATABASE_URL_FILE"):
        Settings.from_env({}).database_url("elation")


def test_settings_do_not_show_their_secrets() -> None:
    settings = Settings.from_env({"ELATION_DATABASE_URL": SECRET})
    assert "hush-hush" not in repr(settings)
    assert "hush-hush" not in str(settings)


def test_scratch_folders_are_private_distinct_and_removable(tmp_path: Path) -> None:
    settings = Settings.from_env({"MIRROR_SCRATCH": str(tmp_path / "scratch")})
    one, two = settings.new_scratch(), settings.new_scratch()
    assert one != two
    for folder in (one, two, one.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (one / "spilled").write_text("x")
    remove_scratch(one)
    remove_scratch(one)
    assert not one.exists()
    assert two.exists()


def test_every_variable_that_the_code_reads_is_declared() -> None:
    package = Path(__file__).parents[1] / "mirror_assets"
    text = "\n".join(path.read_text() for path in package.rglob("*.py"))
    known = configuration.variables()
    declared = {name for name in known if name.startswith("MIRROR_")}
    used = {
        word
        for word in set(_words(text))
        if word.startswith("MIRROR_") and word not in _NOT_VARIABLES
    }
    assert used <= declared
    assert set(re.findall(r"\bAPTIBLE_[A-Z_]*[A-Z]", text)) <= known.keys()
    # of a database or a job: f"{prefix}_SSH_HOST", f"{name.upper()}_BACKUP"
    ends = set(
        re.findall(r"\{(?:prefix|name|spec\.name\.upper\(\)|name\.upper\(\))\}(_[A-Z_]+)\b", text)
    )
    assert len(ends) > 10
    assert [end for end in ends if not any(f"{end}_" in f"{name}_" for name in known)] == []
    own = {name.removeprefix("<NAME>") for name in known if name.startswith("<NAME>")}
    assert len(own) > 10
    assert [end for end in own if not _is_read(end, ends)] == []
    assert all(purpose for _default, purpose in known.values())


def _is_read(variable: str, ends: set[str]) -> bool:
    """Whether the code names a variable, or its file, by an end of its name."""
    return any(variable.endswith(end) for end in ends) or variable.removesuffix("_FILE") in ends


_NOT_VARIABLES = {
    "MIRROR_",
    "MIRROR_METADATA",
    "MIRROR_ERRORS",
    "MIRROR_COMPLETENESS",
    "MIRROR_COMPLETENESS_HISTORY",
    "MIRROR_CACHE_JOB",
    # dbt's own: dbt_project/README.md
    "MIRROR_DBT_TARGET",
    "MIRROR_BIGQUERY_PROJECT",
    "MIRROR_BIGQUERY_LOCATION",
    "MIRROR_BIGQUERY_ENDPOINT",
    "MIRROR_BIGQUERY_METHOD",
}


def _words(text: str) -> list[str]:
    return re.findall(r"\bMIRROR_[A-Z_]*", text)


def test_the_scratch_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    owner = (
        "import pathlib, sys, time; from mirror_assets.mirroring.scratch import new_scratch;"
        "(new_scratch(pathlib.Path(sys.argv[1])) / 'row').write_text('x');"
        "print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", owner, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    mine = new_scratch(tmp_path)
    assert list(tmp_path.glob("*/row")) != []  # its owner lives
    process.kill()
    process.communicate()

    remove_scratch(mine)
    mine = new_scratch(tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {mine.name, f"{mine.name}.lock"}
    remove_scratch(mine)
    assert list(tmp_path.iterdir()) == []


def test_only_old_scratch_folders_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "1-old", tmp_path / "2-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "spilled").write_text("x")
    os.utime(old, (0, 0))
    assert sweep_scratch(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["2-new"]


def test_dbt_builds_where_the_mirrors_are() -> None:
    url = "bigquery:a-project?location=EU"
    settings = Settings.from_env({"MIRROR_WAREHOUSE": url, "MIRROR_LAKE": "gs://bucket/lake"})

    assert environment(settings) == {
        "MIRROR_DBT_TARGET": "bigquery",
        "MIRROR_BIGQUERY_PROJECT": "a-project",
        "MIRROR_BIGQUERY_LOCATION": "EU",
    }
    profile = (Path(__file__).parents[1] / "dbt_project" / "profiles.yml").read_text()
    assert all(name in profile for name in environment(settings))
    private = f"{url}&endpoint=http://127.0.0.1:9050"
    local = environment(Settings.from_env({"MIRROR_WAREHOUSE": private}))
    assert local["MIRROR_BIGQUERY_ENDPOINT"] == "http://127.0.0.1:9050"
    assert local["MIRROR_BIGQUERY_METHOD"] == "oauth-secrets"
    assert all(name in profile for name in local)
    assert environment(Settings.from_env({}))["MIRROR_DBT_TARGET"] == "lake"
