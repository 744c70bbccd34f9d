"""The sensor that tells people, the one that watches the morning's deadline, and the way for
others to say what they see.

What people have been told is kept in the instance's own storage and saved after every post, so
neither a restart nor an outage of Slack loses or repeats a message.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.orchestration.alerts import deadline, outbox, runs
from mirror_assets.orchestration.alerts.findings import Ended, Finding, judge
from mirror_assets.orchestration.alerts.memory import Channels, Memory, Origin
from mirror_assets.settings import Settings
from mirror_assets.settings.alerts import AlertSettings

ALERTS = "alerts"
DEADLINE = "ehr_deadline"
LEFTOVERS = "backup_leftovers"
#: Sensors whose reports are listened to.
REPORTERS = (DEADLINE, LEFTOVERS)

_MEMORY = "mirror/alerts/memory"
_SECONDS = 30
_RECORDS = 500  #: of runs that changed, looked at in one tick; the others in the next
_RUNS = 25  #: whose events are read in one tick
_FIRST_LOOK = timedelta(days=1)  #: what the first tick of an instance looks back on
#: A run's end may become visible after that of a later one, and its tags a moment after its end.
_OVERLAP, _SETTLE = timedelta(minutes=10), timedelta(seconds=5)

Say = Callable[[str], None]


def alert_sensor() -> dg.SensorDefinition:
    """Tells people what failed and what is well again, once each."""

    @dg.sensor(
        name=ALERTS,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people, in Slack or in its log, what is wrong and when it is over:"
        " each once. Wording: docs/alerts.md.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(tell(context.instance, Settings.from_env(), context.log.error))

    return alerts


def deadline_sensor(assets: Sequence[dg.AssetKey]) -> dg.SensorDefinition:
    """Watches that the day's EHR data is there when the care teams begin to work."""

    @dg.sensor(
        name=DEADLINE,
        minimum_interval_seconds=2 * _SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reports EHR data that is not there at the hour of MIRROR_EHR_DEADLINE.",
    )
    def ehr_deadline(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings = AlertSettings.from_env(Settings.from_env())
        return dg.SkipReason(watch(context.instance, settings, assets, datetime.now(UTC)))

    return ehr_deadline


def report(instance: dg.DagsterInstance, reporter: str, findings: Iterable[Finding]) -> None:
    """Say all that a sensor finds wrong now; what is no longer among it is over.

    The alert sensor reads it at its next tick. Each reporter has a place of its own, so sensors
    do not wait for each other.
    """
    if reporter not in REPORTERS:
        raise ValueError(f"{reporter!r} is none of {', '.join(REPORTERS)}")
    text = json.dumps([asdict(finding) for finding in findings], ensure_ascii=False)
    instance.run_storage.set_cursor_values({_place(reporter): text})


def reported(instance: dg.DagsterInstance, reporter: str) -> list[Finding] | None:
    """What a sensor said last; None when it never did. Raises ValueError when another release
    wrote it.
    """
    place = _place(reporter)
    text = instance.run_storage.get_cursor_values({place}).get(place)
    if text is None:
        return None
    try:
        return [Finding(**item) for item in json.loads(text)]
    except TypeError as error:
        raise ValueError(f"not a report: {type(error).__name__}") from None


def watch(
    instance: dg.DagsterInstance,
    settings: AlertSettings,
    assets: Sequence[dg.AssetKey],
    now: datetime,
) -> str:
    """Report whether the assets have the day that was due last."""
    if settings.deadline is None:
        report(instance, DEADLINE, [])
        return "the deadline is off"
    newest = {
        name: date.fromisoformat(day) if day else None
        for name, day in runs.newest_days(instance, assets).items()
    }
    finding = deadline.stale(newest, now, settings.deadline, settings.zone)
    report(instance, DEADLINE, [finding] if finding else [])
    return finding.what if finding else "the data that was due is there"


def tell(
    instance: dg.DagsterInstance,
    settings: Settings,
    say: Say,
    *,
    now: datetime | None = None,
    settle: timedelta = _SETTLE,
) -> str:
    """One tick: look at what is new, remember it, and post what is to be posted."""
    started = time.monotonic()
    now = now or datetime.now(UTC)
    memory = _remembered(instance, say)
    own = AlertSettings.from_env(settings)
    channels = _channels(own, settings)

    def save() -> None:
        instance.run_storage.set_cursor_values({_MEMORY: memory.text()})

    _look_at_runs(instance, memory, own, channels, now, settle, say)
    _listen(instance, memory, own, channels, now, say)
    save()
    if not memory.outbox:
        return "nothing to tell"
    try:
        token = own.token()
    except MirrorError as error:
        say(error.sentence)
        return f"{len(memory.outbox)} wait: the token cannot be read"
    if token is None:
        told = outbox.log(memory, say)
        save()
        return told
    # here: slow to import, and most ticks tell nothing
    from mirror_assets.orchestration.alerts.slack import Slack

    slack = Slack(token=token, api=own.api)
    return outbox.deliver(
        memory,
        slack.post,
        save,
        say,
        own.channel,
        clock=lambda: now.timestamp() + time.monotonic() - started,
    )


def _channels(own: AlertSettings, settings: Settings) -> Channels:
    of_database = {spec.name: spec.entry.slack_channel for spec in settings.databases()}
    return Channels(own.channel, own.readers, of_database)


def _remembered(instance: dg.DagsterInstance, say: Say) -> Memory:
    text = instance.run_storage.get_cursor_values({_MEMORY}).get(_MEMORY)
    try:
        return Memory.read(text)
    except ValueError:
        say("what people were told cannot be read: alerts start anew, some may come twice")
        return Memory()


def _look_at_runs(
    instance: dg.DagsterInstance,
    memory: Memory,
    own: AlertSettings,
    channels: Channels,
    now: datetime,
    settle: timedelta,
    say: Say,
) -> None:
    """Take in the runs that ended. ``seen`` moves on only when all that changed until then is
    known, so that a run which waits its turn does not look old meanwhile.
    """
    seen = datetime.fromisoformat(memory.seen) if memory.seen else now - _FIRST_LOOK
    memory.seen = seen.isoformat()
    since, limit, left = seen - _OVERLAP, _RECORDS + len(memory.runs), _RUNS
    found = runs.changed_since(instance, since, now - settle, limit)
    for record in found:
        run_id = record.dagster_run.run_id
        if run_id in memory.runs:
            continue
        if not runs.ended_before(record, since):
            if not left:
                return
            left -= 1
            _take_in(instance, record, memory, own, channels, now, say)
        memory.runs[run_id] = _changed(record).isoformat()
    if len(found) == limit:
        return
    seen = max([seen, *map(_changed, found)])
    memory.seen, oldest = seen.isoformat(), (seen - _OVERLAP).isoformat()
    memory.runs = {run_id: at for run_id, at in memory.runs.items() if at >= oldest}


def _take_in(
    instance: dg.DagsterInstance,
    record: dg.RunRecord,
    memory: Memory,
    own: AlertSettings,
    channels: Channels,
    now: datetime,
    say: Say,
) -> None:
    run = _read(instance, record, say)
    bad, well = judge(run)
    origin = Origin(own.run_link(run.run_id), run.will_retry, run.is_retry)
    memory.observe(bad, well, origin, channels, now)


def _changed(record: dg.RunRecord) -> datetime:
    return record.update_timestamp.astimezone(UTC)


def _read(instance: dg.DagsterInstance, record: dg.RunRecord, say: Say) -> Ended:
    """A run whose events cannot be read must not keep others from being told of."""
    try:
        return runs.ended(instance, record)
    except Exception as error:
        run = record.dagster_run
        say(f"run {run.run_id}: its events cannot be read ({type(error).__name__})")
        failed = run.status == dg.DagsterRunStatus.FAILURE
        return Ended(run.run_id, run.job_name, "failure" if failed else "canceled")


def _listen(
    instance: dg.DagsterInstance,
    memory: Memory,
    own: AlertSettings,
    channels: Channels,
    now: datetime,
    say: Say,
) -> None:
    """Take in the other sensors' reports."""
    for reporter in REPORTERS:
        try:
            findings = reported(instance, reporter)
        except ValueError:  # its sensor writes anew
            say(f"the report of {reporter} cannot be read")
            continue
        if findings is None:
            continue
        prefix = f"{reporter}: "
        bad = [_of(prefix, finding) for finding in findings]
        wrong = {finding.subject for finding in bad}
        well = {s for s in memory.open if s.startswith(prefix)} - wrong
        memory.observe(bad, well, Origin(own.ui), channels, now)


def _of(prefix: str, finding: Finding) -> Finding:
    return Finding(**{**asdict(finding), "subject": f"{prefix}{finding.subject}"})


def _place(reporter: str) -> str:
    return f"mirror/alerts/{reporter}"
