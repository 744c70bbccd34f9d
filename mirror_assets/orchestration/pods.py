"""Production on Kubernetes: a pod per chunk where the database allows it, and what a pod is given.

Several processes may copy the chunks of a run only where the vendor's refresh is the state that all
of them copy: each must find the same one. A live database shows one instant to one process, so all
of its chunks stay in the run's own pod.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring.catalog import DatabaseSpec
from mirror_assets.mirroring.errors import RefreshLanded
from mirror_assets.settings import Environment

POD_PER_CHUNK = "pod_per_chunk"
_CONFIG_TAG = "dagster-k8s/config"
#: The run whose pods wrote down the refresh that they copy.
_AGREED_IN = "mirror/refresh_agreed_in"
#: A run's own pod, where others copy: it starts them and waits.
_WAITING = {"cpu": "250m", "memory": "1Gi"}


def executor(spec: DatabaseSpec, environment: Environment) -> dg.ExecutorDefinition | None:
    """How the mirror job of a database executes its chunks; None: in one process."""
    if not _has_pod_per_chunk(spec, environment):
        return None
    # here: seconds to import, and of use in a cluster only
    from dagster_k8s import k8s_job_executor

    # pods of a run that is gone go with it
    return k8s_job_executor.configured({"enable_owner_references": True}, name=POD_PER_CHUNK)


def run_tags(spec: DatabaseSpec, environment: Environment) -> dict[str, Any]:
    """Tags of a job that reads a database: what its run's pod is given."""
    if environment == "local":
        return {}
    waits = _has_pod_per_chunk(spec, environment)
    return _config(_WAITING if waits else _wanted(spec))


def step_tags(spec: DatabaseSpec, environment: Environment) -> dict[str, Any]:
    """Tags of a step that copies a chunk: what its pod is given, where it has one."""
    return _config(_wanted(spec)) if _has_pod_per_chunk(spec, environment) else {}


def agreement(context: dg.AssetExecutionContext) -> Callable[[datetime], None] | None:
    """Where several pods copy the chunks of a run: what each tells the refresh that it found.

    The first writes it into the run's tags, unless the sensor that started the run did; to all
    others it raises RefreshLanded when theirs is another one. A run that repeats another copies the
    refresh that it finds, and not the one that it inherits a tag of.
    """
    if context.job_def.executor_def.name != POD_PER_CHUNK:
        return None
    return partial(_agree, context.instance, context.run_id)


def _agree(instance: dg.DagsterInstance, run_id: str, refresh: datetime) -> None:
    found, run = refresh.isoformat(), instance.get_run_by_id(run_id)
    agreed = _agreed(run) if run else None
    if agreed is None:
        instance.add_run_tags(run_id, {keys.REFRESH_TAG: found, _AGREED_IN: run_id})
    elif agreed != found:
        raise RefreshLanded(
            f"this run copies the refresh of {agreed}, the source now holds that of {found}",
            remedy="start the mirror job anew, as the refresh sensor does for each refresh",
        )


def _agreed(run: dg.DagsterRun) -> str | None:
    inherited = run.parent_run_id and run.tags.get(_AGREED_IN) != run.run_id
    return None if inherited else run.tags.get(keys.REFRESH_TAG)


def _has_pod_per_chunk(spec: DatabaseSpec, environment: Environment) -> bool:
    return environment == "production" and spec.is_copied_by_chunk


def _wanted(spec: DatabaseSpec) -> dict[str, str]:
    return {"cpu": spec.entry.pods.cpu, "memory": spec.entry.pods.memory}


def _config(resources: dict[str, str]) -> dict[str, Any]:
    """Requests are limits: a pod is not slowed down by others, nor the first to be evicted."""
    container = {"resources": {"requests": resources, "limits": resources}}
    return {_CONFIG_TAG: {"container_config": container}}
