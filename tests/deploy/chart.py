"""What the official chart's templates make of our values, for the parts that become configuration
of dagster-k8s: the run launcher's, and what the code server hands on to its runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deploy import render

ROOT = Path(__file__).parents[2]
SITE = {
    "PROJECT": "a-project",
    "NAMESPACE": "mirror",
    "IMAGE": "europe-docker.pkg.dev/a-project/mirror/mirror-assets",
    "TAG": "2026-01-01",
    "POSTGRES_HOST": "10.0.0.5",
    "LOGS_BUCKET": "a-project-logs",
    "LANDING": "gs://a-project-landing/exports",
    "LAKE": "gs://a-project-lake/lake",
    "DOCUMENTS": "gs://a-project-documents/members",
    "WAREHOUSE": "ducklake:postgres:host=10.0.0.5",
    "UI_URL": "https://dagster.example.org",
    "SOURCE_PORTS": "22,3306,5432",
}
INSTANCE_MAP = "dagster-instance"


def values() -> dict[str, Any]:
    """The values as helm reads them."""
    found: dict[str, Any] = yaml.safe_load(render.rendered(SITE)["values.yaml"])
    return found


def code_server(chart: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = chart["dagster-user-deployments"]["deployments"]
    found: dict[str, Any] = deployment
    return found


def launcher_config(chart: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The run launcher's configuration in the instance's dagster.yaml."""
    own = chart["runLauncher"]["config"]["k8sRunLauncher"]
    pods = own["runK8sConfig"]
    return {
        "load_incluster_config": own["loadInclusterConfig"],
        "job_namespace": namespace,
        "image_pull_policy": own["imagePullPolicy"],
        "service_account_name": chart["serviceAccount"]["name"],
        "dagster_home": chart["global"]["dagsterHome"],
        "instance_config_map": INSTANCE_MAP,
        "postgres_password_secret": chart["global"]["postgresqlSecretName"],
        "security_context": own["securityContext"],
        "run_k8s_config": {
            "pod_spec_config": pods["podSpecConfig"],
            "job_spec_config": pods["jobSpecConfig"],
        },
    }


def container_context(chart: dict[str, Any], namespace: str) -> dict[str, Any]:
    """What the code server says its runs shall have, as it has it."""
    server = code_server(chart)
    assert server["includeConfigInLaunchedRuns"]["enabled"]
    return {
        "k8s": {
            "image_pull_policy": server["image"]["pullPolicy"],
            "env_config_maps": [item["name"] for item in server["envConfigMaps"]],
            "volume_mounts": server["volumeMounts"],
            "volumes": server["volumes"],
            "labels": server["labels"],
            "resources": server["resources"],
            "namespace": namespace,
            "service_account_name": chart["dagster-user-deployments"]["serviceAccount"]["name"],
            "env": server["env"],
            "run_k8s_config": {
                "pod_spec_config": {
                    "automount_service_account_token": True,
                    "init_containers": server["initContainers"],
                }
            },
        }
    }


def image(chart: dict[str, Any]) -> str:
    named = code_server(chart)["image"]
    return f"{named['repository']}:{named['tag']}"
