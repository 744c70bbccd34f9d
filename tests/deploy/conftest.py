"""A cluster double over real TLS, and an instance that launches its runs there, as production."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.deploy import chart
from tests.fakes.appengine import Authority, serve, write_kubeconfig
from tests.fakes.kubernetes import Cluster, image_environment

Launching = Callable[..., Any]


@contextmanager
def launching(
    folder: Path, environment: dict[str, str], *, runs: bool = True, **configured: Any
) -> Iterator[tuple[Cluster, dg.DagsterInstance]]:
    """An instance whose dagster.yaml is the chart's, but for its storage (files of the folder) and
    what else is ``configured``.
    """
    values = chart.values()
    home = folder / "home"
    home.mkdir()
    cluster = Cluster(folder, image_environment(chart.ROOT), runs=runs)
    cluster.secrets[values["global"]["postgresqlSecretName"]] = {"postgresql-password": "secret"}
    cluster.config_maps["mirror-settings"] = environment
    authority = Authority(folder / "authority")
    with serve(cluster.asgi(), authority.issue()) as server:
        kubeconfig = write_kubeconfig(folder / "kubeconfig", server, ca=authority.certificate)
        found = yaml.safe_load(kubeconfig.read_text())
        found["contexts"][0]["context"]["namespace"] = cluster.namespace
        kubeconfig.write_text(yaml.safe_dump(found))
        outside = {
            "load_incluster_config": False,
            "kubeconfig_file": str(kubeconfig),
            "dagster_home": str(home),
        }
        launcher = {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": chart.launcher_config(values, cluster.namespace) | outside,
        }
        config = values["additionalInstanceConfig"] | {
            "telemetry": {"enabled": False},
            "run_launcher": launcher,
            **configured,
        }
        (home / "dagster.yaml").write_text(yaml.safe_dump(config))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            try:
                yield cluster, instance
            finally:
                cluster.close()


@pytest.fixture(scope="module")
def accepting(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Cluster, dg.DagsterInstance]]:
    """A cluster that takes Jobs and never runs them."""
    with launching(tmp_path_factory.mktemp("cluster"), {}, runs=False) as both:
        yield both


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of production, here: stated places, none of them used."""
    folder = tmp_path_factory.mktemp("production")
    (folder / "catalogs").mkdir()
    stated = {
        "MIRROR_ENVIRONMENT": "production",
        "MIRROR_WAREHOUSE": f"ducklake:sqlite:{folder}/lake.sqlite",
        "MIRROR_LAKE": str(folder / "lake"),
        "MIRROR_LANDING": str(folder / "landing"),
        "MIRROR_DOCUMENTS": str(folder / "documents"),
        "MIRROR_CATALOG_PATH": str(folder / "catalogs"),
        "ELATION_DATABASE_URL": "mysql://nobody@nowhere/elation",
        "COMMONS_DATABASE_URL": "postgresql://nobody@nowhere/commons",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MIRROR_")]:
            patch.delenv(name)
        for name, value in stated.items():
            patch.setenv(name, value)
        yield stated
