"""Runs and steps as the run launcher and the step executor of production launch them."""

from __future__ import annotations

import sys
from typing import Any

import dagster as dg
from dagster._core.code_pointer import CodePointer
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context.system import PlanData, PlanOrchestrationContext
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.init import InitExecutorContext
from dagster._core.executor.step_delegating import StepHandlerContext
from dagster._core.log_manager import DagsterLogManager
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.utils import make_new_run_id
from dagster._grpc.types import ExecuteStepArgs

from tests.deploy import chart
from tests.fakes.kubernetes import Cluster

MODULE = CodePointer.from_module("mirror_assets.definitions", "defs", working_directory=None)


def origin(job: str, namespace: str = Cluster.namespace) -> JobPythonOrigin:
    """Where a run finds its job, as the code server tells it."""
    values = chart.values()
    repository = RepositoryPythonOrigin(
        executable_path=sys.executable,
        code_pointer=MODULE,
        container_image=chart.image(values),
        entry_point=["dagster"],
        container_context=chart.container_context(values, namespace),
    )
    return JobPythonOrigin(job, repository)


def _tags(job: dg.JobDefinition, partition: str | None) -> dict[str, str]:
    return dict(job.run_tags) | ({"dagster/partition": partition} if partition else {})


def create_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, partition: str, **tags: str
) -> DagsterRun:
    """A run as the daemon creates it, not yet launched."""
    return instance.create_run_for_job(
        job_def=job,
        tags=_tags(job, partition) | tags,
        job_code_origin=origin(job.name),
        run_config={},
    )


def bare_run(
    instance: dg.DagsterInstance, job: dg.JobDefinition, partition: str | None = None
) -> DagsterRun:
    """A run without the events of what it plans to materialize: enough to be launched."""
    return instance.add_run(
        DagsterRun(
            job_name=job.name,
            run_id=make_new_run_id(),
            tags=_tags(job, partition),
            job_code_origin=origin(job.name),
        )
    )


def launch(instance: dg.DagsterInstance, run: DagsterRun) -> str:
    """Have the run launched; the name of its Job."""
    instance.launch_run(run.run_id, None)  # type: ignore[arg-type]
    return f"dagster-run-{run.run_id}"


def launch_steps(instance: dg.DagsterInstance, run: DagsterRun, job: dg.JobDefinition) -> None:
    """Have every step of a run launched by the job's executor, from outside of the run's pod."""
    in_memory = InMemoryJob(job)
    plan = create_execution_plan(in_memory, instance_ref=instance.get_ref(), tags=run.tags)
    definition = job.executor_def
    config = definition.apply_config_mapping({"config": {}}).value["config"]
    init = InitExecutorContext(
        job=in_memory, executor_def=definition, executor_config=config, instance=instance
    )
    assert definition.executor_creation_fn is not None
    executor: Any = definition.executor_creation_fn(init)
    context = PlanOrchestrationContext(
        plan_data=PlanData(
            job=in_memory,
            dagster_run=run,
            instance=instance,
            execution_plan=plan,
            raise_on_error=True,
            retry_mode=RetryMode.DISABLED,
        ),
        log_manager=DagsterLogManager.create(loggers=[], instance=instance, dagster_run=run),
        executor=executor,
        output_capture=None,
    )
    for step in plan.get_all_steps_in_topo_order():
        arguments = ExecuteStepArgs(
            job_origin=origin(job.name),
            run_id=run.run_id,
            step_keys_to_execute=[step.key],
            instance_ref=instance.get_ref(),
            retry_mode=RetryMode.DISABLED,
            known_state=None,
            should_verify_step=True,
            print_serialized_events=False,
        )
        handler_context = StepHandlerContext(
            instance=instance,
            plan_context=context,
            steps=[step],
            execute_step_args=arguments,
            dagster_run=run,
        )
        list(executor._step_handler.launch_step(handler_context))
