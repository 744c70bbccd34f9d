"""The Kubernetes Jobs of every job and every step of production, judged as an API server would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mirror_assets import definitions
from mirror_assets.orchestration.factory import build_definitions
from mirror_assets.settings import Settings
from tests.deploy import launched
from tests.fakes.kubernetes import Cluster, faults, policy_faults

Both = tuple[Cluster, dg.DagsterInstance]


@pytest.fixture(scope="module")
def graph(production: dict[str, str]) -> dg.RepositoryDefinition:
    return definitions.build(Settings.from_env(production)).get_repository_def()


def _jobs(graph: dg.RepositoryDefinition) -> list[dg.JobDefinition]:
    return list(graph.get_all_jobs())


def _resources(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_every_job_and_every_step_is_a_good_kubernetes_job(
    graph: dg.RepositoryDefinition, accepting: Both
) -> None:
    cluster, instance = accepting
    of_runs = {}
    for job in _jobs(graph):
        run = launched.bare_run(instance, job)
        launched.launch(instance, run)
        of_runs[job.name] = cluster.jobs[-1]
    assert {"elation_mirror", "commons_mirror", "upkeep", "__ASSET_JOB"} <= set(of_runs)

    mirror = graph.get_job("elation_mirror")
    run = launched.bare_run(instance, mirror, "2026-03-01")
    before = len(cluster.jobs)
    launched.launch_steps(instance, run, mirror)
    of_steps = cluster.jobs[before:]
    assert len(of_steps) == len(Settings.from_env().database("elation").chunks) == 2

    assert cluster.wrong == []
    for job in [*of_runs.values(), *of_steps]:
        assert faults(job) == []
        assert policy_faults(job) == [], job["metadata"]["name"]
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "mirror"
        assert job["spec"]["backoffLimit"] == 0
        assert job["spec"]["template"]["metadata"]["labels"]["mirror/network"] == "data"
        assert pod["initContainers"][0]["name"] == "private-secrets"

    # the pod that waits is small, those that copy have what the catalog says
    waits = {"cpu": "250m", "memory": "1Gi"}
    copies = {"cpu": "1", "memory": "2Gi"}
    assert _resources(of_runs["elation_mirror"]) == {"requests": waits, "limits": waits}
    for job in [*of_steps, of_runs["commons_mirror"]]:
        assert _resources(job) == {"requests": copies, "limits": copies}


def test_a_catalog_says_what_its_pods_are_given(
    production: dict[str, str], accepting: Both, tmp_path: Path
) -> None:
    cluster, instance = accepting
    wanted = {"cpu": "2", "memory": "8Gi"}
    catalog = {"database": "clinic", "kind": "mysql", "tables": ["a", "b"], "pods": wanted}
    (tmp_path / "clinic.catalog.yaml").write_text(json.dumps(catalog))
    settings = Settings.from_env(production | {"MIRROR_CATALOG_PATH": str(tmp_path)})
    job = build_definitions(settings).resolve_job_def("clinic_mirror")
    launched.launch(instance, launched.bare_run(instance, job))
    assert _resources(cluster.jobs[-1]) == {"requests": wanted, "limits": wanted}


def test_only_a_database_that_its_vendor_rebuilds_has_a_pod_per_chunk(
    graph: dg.RepositoryDefinition,
) -> None:
    executors = {job.name: job.executor_def.name for job in _jobs(graph)}
    apart = {name for name, executor in executors.items() if executor != "in_process"}
    assert apart == {"elation_mirror"}
    assert executors["elation_mirror"] == "pod_per_chunk"


def test_here_every_job_runs_in_one_process_and_knows_nothing_of_pods() -> None:
    for job in _jobs(build_definitions(Settings.from_env({})).get_repository_def()):
        assert job.executor_def.name == "in_process"
        assert "dagster-k8s/config" not in job.tags
        assert not any("dagster-k8s/config" in node.tags for node in job.nodes)


# -- the judges themselves


@pytest.fixture(scope="module")
def launched_job(accepting: Both, graph: dg.RepositoryDefinition) -> dict[str, Any]:
    cluster, instance = accepting
    launched.launch(instance, launched.bare_run(instance, graph.get_job("upkeep")))
    return cluster.jobs[-1]


@pytest.fixture
def good(launched_job: dict[str, Any]) -> dict[str, Any]:
    """A Job that nobody finds fault with, to be spoiled."""
    return copy.deepcopy(launched_job)


Change = Callable[[dict[str, Any]], object]


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def _container(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _pod(job)["containers"][0]
    return found


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda job: _pod(job).update(restartPolicy="Always"), "restart"),
        (lambda job: job["metadata"].update(name="Upkeep_1"), "DNS"),
        (lambda job: job["metadata"].update(name="u" * 64), "DNS"),
        (lambda job: job["metadata"]["labels"].update(tag="x" * 64), "label"),
        (lambda job: job["metadata"]["labels"].update(tag="é"), "label"),
        (lambda job: _container(job).update(imagePolicy="Always"), "imagePolicy"),
        (lambda job: _container(job)["volumeMounts"][0].update(name="gone"), "no volume"),
        (lambda job: _container(job)["resources"]["requests"].update(memory="9Gi"), "limit"),
        (lambda job: _pod(job)["volumes"].append(_pod(job)["volumes"][0]), "twice"),
        (lambda job: job.update(apiVersion="batch/v2"), "batch/v2"),
    ],
)
def test_what_an_api_server_refuses_is_found(
    good: dict[str, Any], change: Change, word: str
) -> None:
    assert faults(good) == []
    change(good)
    assert word in "; ".join(faults(good))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda job: _container(job).pop("securityContext"), "privileges"),
        (
            lambda job: (
                _pod(job)["securityContext"].pop("runAsUser"),
                _container(job)["securityContext"].pop("runAsUser"),
            ),
            "root",
        ),
        (lambda job: _container(job).update(resources={}), "no limit of memory"),
        (
            lambda job: _container(job)["env"].append(
                {"name": "ELATION_DATABASE_URL", "value": "mysql://u:p@h/d"}
            ),
            "plain sight",
        ),
        (lambda job: _pod(job)["volumes"].append({"name": "x", "emptyDir": {}}), "fill"),
        (lambda job: _pod(job).update(restartPolicy="OnFailure"), "again"),
    ],
)
def test_what_our_own_rules_refuse_is_found(
    good: dict[str, Any], change: Change, word: str
) -> None:
    assert policy_faults(good) == []
    change(good)
    assert word in "; ".join(policy_faults(good))
