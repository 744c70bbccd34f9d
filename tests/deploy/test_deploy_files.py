"""What is deployed besides Jobs: the chart's values, manifests, the image's recipe."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster_gcp.gcs import GCSComputeLogManager
from packaging.requirements import Requirement

from deploy import render, surplus
from mirror_assets import configuration
from mirror_assets.mirroring.catalog import Pods
from mirror_assets.settings import Settings
from mirror_assets.settings.alerts import AlertSettings
from mirror_assets.settings.environment import VARIABLES
from tests.deploy import chart
from tests.fakes.kubernetes import amount, faults

ROOT = chart.ROOT
DEPLOY = ROOT / "deploy"
USER = 10001


def _objects(name: str) -> list[dict[str, Any]]:
    text = render.rendered(chart.SITE)[name]
    return [found for found in yaml.safe_load_all(text) if found]


MANIFESTS = sorted(path.name for path in (DEPLOY / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifests_are_what_an_api_server_takes(name: str) -> None:
    objects = _objects(name)
    assert objects
    for manifest in objects:
        assert faults(manifest) == [], manifest["metadata"]["name"]
        if not manifest["kind"].startswith("Cluster"):
            assert manifest["metadata"]["namespace"] == chart.SITE["NAMESPACE"]


def test_the_shape_of_the_secrets_holds_no_secret() -> None:
    text = (DEPLOY / "secrets.example.yaml").read_text()
    for secret in yaml.safe_load_all(text):
        assert faults(secret) == []
        assert set(secret["stringData"].values()) == {""}
    assert {secret["metadata"]["name"] for secret in yaml.safe_load_all(text)} == {
        chart.values()["global"]["postgresqlSecretName"],
        "mirror-files",
    }


# -- what a site fills in


def test_the_example_of_a_site_names_exactly_what_is_filled_in() -> None:
    example = render.site((DEPLOY / "site.env.example").read_text())
    sources = [DEPLOY / "values.yaml", *(DEPLOY / "manifests").glob("*.yaml")]
    asked = {name for path in sources for name in re.findall(r"\$\{(\w+)\}", path.read_text())}
    assert set(example) == asked == set(chart.SITE)


def test_a_site_that_says_too_little_is_told_what_is_missing(tmp_path: Path) -> None:
    def rendered(text: str) -> subprocess.CompletedProcess[str]:
        env = tmp_path / "site.env"
        env.write_text(text)
        command = [sys.executable, "deploy/render.py", str(env), str(tmp_path / "out")]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    stated = "".join(f"{name}={value}\n" for name, value in chart.SITE.items())
    refused = rendered(stated.replace("TAG=2026-01-01", "TAG="))
    assert refused.returncode != 0
    assert refused.stderr.strip().endswith("says nothing of TAG")
    assert rendered(stated).returncode == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"values.yaml", *MANIFESTS}


# -- the chart's values


def test_production_is_configured_as_dagster_yaml_says() -> None:
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    values = chart.values()
    telemetry = ours.pop("telemetry")
    assert values["telemetry"] == telemetry
    logs = ours.pop("python_logs")
    assert values["pythonLogs"] == {
        "pythonLogLevel": logs["python_log_level"],
        "managedPythonLoggers": logs["managed_python_loggers"],
    }
    assert values["additionalInstanceConfig"] == ours
    by_the_chart = {"scheduler", "run_launcher", "compute_logs", "python_logs", "telemetry"}
    by_the_chart |= {"run_storage", "event_log_storage", "schedule_storage"}
    assert not by_the_chart & set(ours), "a key that stands twice"
    # what the chart would write beside it is off
    daemon = values["dagsterDaemon"]
    assert not any(daemon[part]["enabled"] for part in ("runMonitoring", "runRetries"))
    assert not any(daemon[part]["useThreads"] for part in ("sensors", "schedules"))
    assert not daemon["runCoordinator"]["enabled"]
    assert not values["retention"]["enabled"]


def test_the_instance_takes_its_configuration(tmp_path: Path) -> None:
    values = chart.values()
    path = tmp_path / "dagster.yaml"
    path.write_text(yaml.safe_dump(values["additionalInstanceConfig"]))
    config, _custom = dagster_instance_config(str(tmp_path))
    assert config["run_retries"]["max_retries"] == 1


def test_no_run_is_ended_that_may_take_as_long() -> None:
    """Commons' day may take five hours; docs/scale.md computes the largest one."""
    found = re.search(r"^\| \*\*the day takes, hours\*\* \|(.*)\|$", _scale(), re.MULTILINE)
    assert found
    longest = max(5.0, *(float(text.strip("* ")) for text in found[1].split("|")))
    monitoring = chart.values()["additionalInstanceConfig"]["run_monitoring"]
    assert monitoring["max_runtime_seconds"] / 3600 > 1.5 * longest


def _scale() -> str:
    return (ROOT / "docs" / "scale.md").read_text()


def test_compute_logs_go_to_a_bucket_that_forgets_them() -> None:
    from dagster._config import validate_config

    found = chart.values()["computeLogManager"]
    assert found["type"] == GCSComputeLogManager.__name__
    ours = found["config"]["gcsComputeLogManager"]
    config = {re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", k): v for k, v in ours.items()}
    assert config["upload_interval"] <= 60
    result = validate_config(GCSComputeLogManager.config_type(), config)
    assert result.success, result.errors
    (rule,) = json.loads((DEPLOY / "logs-lifecycle.json").read_text())["rule"]
    assert rule == {"action": {"type": "Delete"}, "condition": {"age": 30}}


def _paths(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and value.startswith("/") else []


def test_places_of_the_settings_are_volumes_of_the_pods() -> None:
    server = chart.code_server(chart.values())
    mounted = {mount["mountPath"] for mount in server["volumeMounts"]}
    (settings,) = _objects("settings.yaml")
    stated = {item["name"]: item["value"] for item in server["env"]} | settings["data"]
    places = [path for value in stated.values() for path in _paths(value)]
    assert len(places) >= 4
    for path in places:
        assert any(path == at or path.startswith(f"{at}/") for at in mounted), path


def test_the_settings_are_enough_for_production_and_all_are_known(tmp_path: Path) -> None:
    server = chart.code_server(chart.values())
    (settings,) = _objects("settings.yaml")
    stated = {item["name"]: item["value"] for item in server["env"]} | settings["data"]
    stated["MIRROR_CATALOG_PATH"] = str(tmp_path)  # a folder of the image
    found, wrong = Settings.read(stated)
    assert found.environment == "production"
    assert wrong == []
    declared = configuration.variables()
    known = {name for name in stated if name in declared or "_DATABASE_" in name}
    assert known == set(stated)
    assert list(AlertSettings.faults(found)) == []
    assert found.secrets.stated("MIRROR_SLACK_TOKEN")
    assert AlertSettings.from_env(found).run_link("1") == "https://dagster.example.org/runs/1"
    for database in found.databases():
        assert found.names_database(database.name)


def test_a_pod_that_no_catalog_speaks_of_has_what_catalogs_give_by_default() -> None:
    limits = chart.code_server(chart.values())["resources"]["limits"]
    assert amount(limits["memory"]) >= amount(Pods().memory)
    assert amount(limits["cpu"]) >= amount(Pods().cpu)


def test_a_pod_has_room_for_what_the_settings_let_it_use() -> None:
    memory = VARIABLES["MIRROR_MEMORY"][0].removesuffix("MB")
    assert amount(Pods().memory) >= (2 * int(memory) + 512) * 1e6


def test_nothing_of_ours_runs_as_root() -> None:
    values = chart.values()
    server = chart.code_server(values)
    for part in (values["dagsterWebserver"], values["dagsterDaemon"], server):
        assert part["podSecurityContext"]["runAsUser"] == USER
        assert part["podSecurityContext"]["runAsNonRoot"]
        assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert part["securityContext"]["allowPrivilegeEscalation"] is False
    assert values["dagsterWebserver"]["service"]["port"] > 1023


def test_network_policies_name_labels_that_pods_have() -> None:
    values = chart.values()
    parts = (values["dagsterWebserver"], values["dagsterDaemon"], chart.code_server(values))
    worn = {part["labels"]["mirror/network"] for part in parts}
    asked = {
        policy["spec"]["podSelector"]["matchLabels"]["mirror/network"]
        for policy in _objects("network.yaml")
        if policy["spec"]["podSelector"]
    }
    assert asked == worn == {"control", "data"}


@pytest.mark.parametrize("stated", ["22,3306,5432", "2222, 30022"])
def test_the_sources_are_reached_at_the_ports_of_the_site(stated: str) -> None:
    text = render.rendered(chart.SITE | {"SOURCE_PORTS": stated})["network.yaml"]
    (data,) = [p for p in yaml.safe_load_all(text) if p and p["metadata"]["name"] == "data"]
    assert faults(data) == []
    ports = [port["port"] for rule in data["spec"]["egress"] for port in rule["ports"]]
    assert ports == [443, *(int(port) for port in stated.split(","))]


@pytest.mark.parametrize("stated", ["ssh", "0", "65536", "22;23"])
def test_a_port_that_is_none_is_refused(stated: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"SOURCE_PORTS.*such as 22,3306"):
        render.rendered(chart.SITE | {"SOURCE_PORTS": stated})


def test_the_accounts_exist_that_the_values_name() -> None:
    values = chart.values()
    named = {
        values["serviceAccount"]["name"],
        values["dagster-user-deployments"]["serviceAccount"]["name"],
    }
    objects = _objects("accounts.yaml")
    assert {o["metadata"]["name"] for o in objects if o["kind"] == "ServiceAccount"} == named
    (binding,) = [o for o in objects if o["kind"] == "RoleBinding"]
    assert {subject["name"] for subject in binding["subjects"]} == named


def test_the_init_container_makes_private_copies_of_the_secrets(tmp_path: Path) -> None:
    """As a kubelet lays a Secret out: links into a folder of the day, and group-readable."""
    (container,) = chart.code_server(chart.values())["initContainers"]
    source, target = tmp_path / "secrets", tmp_path / "private"
    day = source / "..2026_01_01"
    day.mkdir(parents=True)
    target.mkdir()
    (source / "..data").symlink_to("..2026_01_01")
    for name in ("id_ed25519", "commons.url"):
        (day / name).write_text(f"of {name}\n")
        (day / name).chmod(0o440)
        (source / name).symlink_to(f"..data/{name}")
    (script,) = container["args"]
    script = script.replace("/mnt/secrets", str(source)).replace("/run/mirror", str(target))
    (tmp_path / "none").mkdir()  # the Secret is optional
    none = script.replace(str(source), str(tmp_path / "none"))
    for command in (none, script, script):
        subprocess.run([*container["command"], command], check=True)
    copies = {path.name: path for path in target.iterdir()}
    assert set(copies) == {"id_ed25519", "commons.url"}
    for name, path in copies.items():
        assert path.read_text() == f"of {name}\n"
        assert path.stat().st_mode & 0o777 == 0o400
        assert not path.is_symlink()


# -- the image


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_everything_that_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        source
        for word, rest in _instructions()
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == sent
    for source in copied:
        assert (ROOT / source).exists(), source
    assert ignored[1] == "*", "all the rest stays out"


@pytest.mark.slow
def test_what_the_image_copies_is_enough_to_parse_the_models_and_to_load_the_graph(
    tmp_path: Path,
) -> None:
    for source in ("pyproject.toml", "mirror_assets", "dbt_project"):
        given = ROOT / source
        if given.is_dir():
            left_out = shutil.ignore_patterns("target", "logs", "__pycache__")
            shutil.copytree(given, tmp_path / source, ignore=left_out)
        else:
            shutil.copy(given, tmp_path / source)
    (parse,) = [rest for word, rest in _instructions() if word == "RUN" and "dbt " in rest]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path),
        "MIRROR_CATALOG_PATH": str(tmp_path),
        "MIRROR_DATABASES": "elation",
    }

    def run(command: str) -> str:
        options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "shell": True}
        return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout

    run(parse)
    code = "from mirror_assets import definitions as d; print(d.__file__, d.defs is not None)"
    assert run(f'python -c "{code}"').split() == [
        f"{tmp_path}/mirror_assets/definitions.py",
        "True",
    ]


def test_the_image_runs_as_a_numeric_user_who_owns_no_code() -> None:
    instructions = _instructions()
    users = [rest for word, rest in instructions if word == "USER"]
    assert users == [f"{USER}:{USER}"]
    assert instructions[-1][0] == "USER"
    assert not any("--chown" in rest for _, rest in instructions)


def test_the_image_installs_by_hash_and_pins_its_base() -> None:
    instructions = _instructions()
    (base,) = [rest for word, rest in instructions if word == "ARG"]
    assert base == "BASE", "no default: a tag can be moved"
    assert {rest.split()[0] for word, rest in instructions if word == "FROM"} == {"${BASE}"}
    runs = [part for _, rest in instructions for part in rest.split("&&")]
    installs = [part for part in runs if "pip install" in part]
    assert len(installs) == 3
    for part in installs:
        assert "--no-deps" in part
        assert "--require-hashes" in part or "--no-build-isolation -e ." in part


def test_the_image_leaves_out_what_only_development_needs() -> None:
    out = set(surplus.surplus())
    assert {"pytest", "playwright", "ruff", "mypy", "gcp-storage-emulator"} <= out
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {surplus.name_of(Requirement(text).name) for text in project["dependencies"]}
    assert len(wanted) > 20
    assert not wanted & out


def test_the_image_is_not_built_without_what_the_instance_names() -> None:
    """Classes that are named in dagster.yaml or loaded late would be missed at the first run."""
    (imports,) = [rest for _, rest in _instructions() if "python -c 'import " in rest]
    looked_for = set(re.findall(r"\w+", imports.split("import", 1)[1]))
    assert looked_for == {"dagster_gcp", "dagster_k8s", "dagster_postgres", "MySQLdb"}


def test_the_image_can_restore_dumped_backups() -> None:
    """Its server's programs, and no server of the image's own."""
    (install,) = [r for _, r in _instructions() if "openssh-client" in r]
    assert "postgresql" in install.split()
    assert install.index("create_main_cluster = false") < install.index("apt-get install")


def _make_image(folder: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    """What `make image` asks docker for, which is not here."""
    docker = folder / "docker"
    docker.write_text('#!/bin/sh\necho "docker $*"\n')
    docker.chmod(0o700)
    return subprocess.run(
        ["make", "image", "IMAGE=registry/mirror", "TAG=1", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        # without what a make that runs the tests tells its children
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        | {"PATH": f"{folder}:{os.environ['PATH']}"},
    )


def test_make_image_builds_this_recipe_on_a_base_that_nobody_can_move(tmp_path: Path) -> None:
    base = f"docker.io/library/python:3.11.14-slim-bookworm@sha256:{'a1' * 32}"
    done = _make_image(tmp_path, f"BASE={base}")
    assert done.stdout.split() == [
        *("docker", "build", "-f", "deploy/Dockerfile", "--build-arg", f"BASE={base}"),
        *("-t", "registry/mirror:1", "."),
    ]


@pytest.mark.parametrize("base", ["", "python:3.11.14-slim-bookworm", "python@sha256:a1"])
def test_make_image_refuses_a_base_without_its_digest(tmp_path: Path, base: str) -> None:
    done = _make_image(tmp_path, f"BASE={base}")
    assert done.returncode != 0
    assert "docker" not in done.stdout
    assert "@sha256:" in done.stderr
