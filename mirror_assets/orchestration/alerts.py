"""What reaches a person when a run turns red. One text, for every channel."""

import dagster as dg

from mirror_assets import keys
from mirror_assets.mirroring.redact import credentials


def alert_text(run: dg.DagsterRun, failures: list[str]) -> str:
    """What failed, where, and what to press. Holds no row values: failures are our sentences."""
    partition = run.tags.get("dagster/partition", "no partition")
    database = run.tags.get(keys.DATABASE_TAG) or run.job_name
    lines = [f"{database}: run {run.run_id[:8]} of {run.job_name} failed for {partition}"]
    lines += [credentials(text) for text in failures] or ["the run ended before any step failed"]
    retried = run.tags.get("dagster/will_retry") == "true"
    lines.append(
        "It is being retried, from the tables that failed."
        if retried
        else "Press: open the run, read the failed checks, mend, then Re-execute > From asset"
        " failure. Playbooks: docs/operations.md"
    )
    return "\n".join(lines)


def failure_sensor() -> dg.SensorDefinition:
    """Logs an alert for every failed run of this code location."""

    @dg.run_failure_sensor(
        name="alert_on_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people about failed runs: what, where, what to press.",
    )
    def alert(context: dg.RunFailureSensorContext) -> None:
        context.log.error(alert_text(context.dagster_run, _failures(context)))

    return alert


def _failures(context: dg.RunFailureSensorContext) -> list[str]:
    found = []
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        described = data.user_failure_data.description if data.user_failure_data else None
        found.append(described or f"step {event.step_key} failed: see its log")
    return found
