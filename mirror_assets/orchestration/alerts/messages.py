"""The wording of every message: what, where, how many, what to press, where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mirror_assets.mirroring.redact import credentials
from mirror_assets.orchestration.alerts.findings import Finding

_LISTED = 10  #: tables, tests .. named in one message; the others are counted
_NEXT = 3
_SECTION = 2900  #: characters; Slack takes 3,000 in a section
_SECTIONS = 20
_SIGNS = {
    "error": ":red_circle:",
    "warning": ":warning:",
    "notice": ":information_source:",
    "over": ":white_check_mark:",
}
_RERUN = "mend, then open the run and press *Re-execute > From asset failure*"
_RETRIED = "Nothing to press yet: it is being retried by itself, from what failed."


@dataclass(frozen=True)
class Kind:
    """How one kind of finding is told. Titles take {scope}, {day} (" of .." or nothing), {tables},
    {models}, {tests} and {backups} (how many), {published} (what was not) and {there} (what is).
    """

    title: str
    over: str
    press: str = _RERUN
    playbook: str = ""
    level: str = "error"


def _tables(why: str, playbook: str, press: str = _RERUN) -> Kind:
    return Kind(
        f"{{scope}}: {{published}}: {why}",
        "{scope}: {there}",
        press,
        playbook,
    )


_FAILED = Kind("{scope}: failed{day}", "{scope}: well again{day}")

#: By the kind of the error that failed a table or a step.
ERRORS: dict[str, Kind] = {
    # a source
    "source_unavailable": _tables("the source cannot be reached", "Refresh missing"),
    "ssh_unavailable": _tables(
        "the SSH host did not answer, or hung up", "The SSH host is refused"
    ),
    "ssh_refused": _tables("the SSH host refused us, or we it", "The SSH host is refused"),
    "source_locked": _tables("locked by somebody at the source", "A table is locked"),
    "source": _tables("the source refused to be read", "Refresh missing"),
    "refresh_landed": _tables("a refresh landed while they were read", "Refresh missing"),
    "refresh_incomplete": _tables("the vendor's refresh is not complete", "Refresh missing"),
    "wrong_day": _tables("the day is no longer to be had", "Expired export", "nothing helps"),
    "unsupported_type": _tables("a column's type is unknown", "The schema changed at the source"),
    "backup": _tables("the restored backup is not ready", "The backup is not ready"),
    "private_server": _tables(
        "the private server for the restored backup failed",
        "Databases that are read from a restored backup",
    ),
    "export_job": _tables("the application's export failed", "The application's export failed"),
    "stopped": _tables("somebody ended the run while it waited", "Run it again"),
    # its rows
    "coverage": _tables("too many rows rejected, coverage is below its target", "Bad rows"),
    "drift": _tables(
        "the schema changed at the source, and is not followed",
        "The schema changed at the source",
    ),
    "volume": _tables("far fewer rows than before", "Far fewer rows than yesterday"),
    "rows_unaccounted": _tables("rows are not accounted for", "Run it again"),
    "stale_refresh": _tables("readers have a newer state", "Two runs at once", "nothing to do"),
    # where they are kept
    "landing": _tables("the landing zone failed", "The disk is full"),
    "export_corrupt": _tables("the export is damaged", "Run it again"),
    "storage": _tables("Cloud Storage does not let us read or write", "Cloud Storage"),
    "warehouse": _tables("the warehouse failed", "The warehouse is busy"),
    "pending": _tables(
        "their publication was begun, the next run finishes it",
        "BigQuery",
        "when what is named works again, *Re-execute > From asset failure*, or wait for the"
        " database's next run",
    ),
    # what we were given
    "settings": _tables(
        "the environment is incomplete or unsafe",
        "Wrong settings and secrets",
        "mend what is named, deploy it, then open the run and press *Re-execute > From asset"
        " failure*",
    ),
    "secrets_unavailable": _tables(
        "Secret Manager did not give a secret", "Wrong settings and secrets"
    ),
    "catalog": _tables(
        "the catalog is wrong",
        "The next database",
        "change the catalog, load the code location again, then *Re-execute > From asset failure*",
    ),
    # what hangs off the mirrors
    "input": Kind(
        "{scope}: cannot be made{day}, a table that it reads is missing",
        "{scope}: made{day}",
        "mend the table; this starts by itself when it lands",
        "What hangs off the mirrors",
    ),
    "documents": Kind(
        "{scope}: documents were not written{day}",
        "{scope}: documents are written{day}",
        playbook="Encounters or the cache job failed",
    ),
    "delivery_refused": Kind(
        "{scope}: the quality-measure service refused members{day}",
        "{scope}: every member was accepted{day}",
        'look with `mirror sql "SELECT * FROM deliveries.DELIVERY_REFUSALS"`, have it mended, then'
        " press *Materialize* on the newest partition: only those are posted",
        "Quality measures were refused",
    ),
    "delivery_unavailable": Kind(
        "{scope}: the quality-measure service cannot be reached{day}",
        "{scope}: measures are posted{day}",
        playbook="Quality measures were refused",
    ),
    "elation_map": Kind(
        "{scope}: the quality-measure service's map is unusable{day}, nothing was posted",
        "{scope}: measures are posted{day}",
        playbook="Quality measures were refused",
    ),
    "firewall": Kind(
        "{scope}: the firewall's plan was refused{day}; measures wait for it",
        "{scope}: the firewall is in order{day}",
        "see the plan without doing it by config `dry_run`; mend, then *Re-execute*",
        "The firewall's plan was refused",
    ),
    "firewall_unavailable": Kind(
        "{scope}: the firewall cannot be reached{day}; measures wait for it",
        "{scope}: the firewall is in order{day}",
        playbook="The firewall's plan was refused",
    ),
    "encounter_cache": Kind(
        "{scope}: rows of the cache are not confirmed{day}",
        "{scope}: every row of the cache appeared{day}",
        "look at the job's errors; run it again, or by hand",
        "Running the cache job by hand",
    ),
    "job_unreachable": _tables(
        "the remote job cannot be reached", "Encounters or the cache job failed"
    ),
    "job_refused": _tables("the remote job was refused", "Encounters or the cache job failed"),
    "dbt": Kind(
        "dbt: {models} not built{day}",
        "dbt: these models are built{day}",
        playbook="A dbt model or test failed",
    ),
    "proof": Kind(
        "{scope}: cannot be compared with its source{day}",
        "{scope}: compared with its source{day}",
        playbook="Is this partition exact?",
    ),
    "error": _FAILED,
}
#: What is no error, or more than one.
OTHERS: dict[str, Kind] = {
    # of a mirrored table, or a database as a whole
    "set_aside": Kind(
        "{scope}: history of {tables} was set aside{day}, because the schema changed",
        "",
        "nothing to mend; tell who queries older days",
        "The schema changed at the source",
        "notice",
    ),
    "stale": Kind(
        "{scope}: data is stale",
        "{scope}: data is fresh again",
        "look at the newest run of the mirror, then `mirror status`",
        "Refresh missing",
    ),
    "catalog_incomplete": Kind(
        "{scope}: the catalog and the source differ",
        "{scope}: catalog and source agree again",
        "change the catalog, then load the code location again",
        "The next database",
        "warning",
    ),
    "inexact": Kind(
        "{scope}: the mirror{day} is not exactly what the source held",
        "{scope}: proven exact{day}",
        "`mirror verify` names the rows",
        "Is this partition exact?",
    ),
    "leftovers": Kind(
        "{scope}: {backups} left over",
        "{scope}: no restored backup is left over",
        "remove them: they hold patient data and cost money",
    ),
    "leftovers_unseen": Kind(
        "{scope}: restored backups that are left over cannot be looked for",
        "{scope}: restored backups can be looked for again",
        "look at the provider by hand if it lasts: a copy holds patient data and costs money",
    ),
    # of what hangs off the mirrors
    "notes_without_member": Kind(
        "{scope}: notes without a member{day}",
        "{scope}: every note has a member again",
        "compare the MRNs in the member index with the EHR; the encounters of these notes are left"
        " out until then",
        "Notes without a member",
        "warning",
    ),
    "cache_incomplete": Kind(
        "{scope}: the cache was filled without the other EHR's summaries{day}",
        "{scope}: the cache has the other EHR's summaries",
        "when its batch is done: *Report materialization* on `redox/clinical_summaries`, then"
        " *Materialize* the cache",
        "Encounters or the cache job failed",
        "warning",
    ),
    "broken_bodies": Kind(
        "{scope}: more broken bodies than are allowed{day}; readers keep the day before",
        "{scope}: published{day}",
        playbook="The view of a transformed table failed",
    ),
    "tolerated_bodies": Kind(
        "{scope}: broken bodies, within what is allowed{day}",
        "{scope}: no body is broken any more",
        "nothing is urgent; `mirror errors` lists them, have them mended",
        "The view of a transformed table failed",
        "warning",
    ),
    "dbt_test": Kind(
        "dbt: {tests} failed{day}",
        "dbt: these tests pass{day}",
        playbook="A dbt model or test failed",
    ),
    "dbt_warning": Kind(
        "dbt: {tests} warned{day}",
        "dbt: these tests pass{day}",
        "nothing was held back; see which rows by the playbook",
        "A dbt model or test failed",
        "warning",
    ),
    # everything else that can fail
    "check": Kind("{scope}: a check failed{day}", "{scope}: its check passes{day}"),
    "check_warning": Kind(
        "{scope}: a check warned{day}", "{scope}: its check passes{day}", level="warning"
    ),
    "unexpected": Kind(
        "{scope}: failed unexpectedly{day}",
        "{scope}: well again{day}",
        "read the step's log in the run; it is a defect: report it",
    ),
    "died": Kind(
        "{scope}: the run ended without a word{day}",
        "{scope}: what that run owed is there{day}",
        "its process died or never started: see the run's last events, then *Re-execute > From"
        " asset failure*",
        "Run it again",
    ),
    # for those who use the data
    "ehr_stale": Kind(
        "EHR data is stale",
        "EHR data is up to date again",
        "nothing on your side; the engineers have been told, and this channel hears when it is"
        " over",
    ),
}
KINDS = ERRORS | OTHERS


@dataclass(frozen=True)
class Message:
    """One post to one channel. ``alert`` says which alert it belongs to; a ``reply`` goes into
    that alert's thread.
    """

    alert: str
    channel: str
    title: str
    body: str
    link: str = ""
    reply: bool = False
    tries: int = 0

    def stored(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def plain(self) -> str:
        """The whole text, for a log."""
        return "\n".join(filter(None, [self.title, self.body, self.link]))


@dataclass(frozen=True)
class Told:
    """A message's wording, before it has a channel."""

    title: str
    body: str


def alert(findings: Sequence[Finding], *, will_retry: bool = False) -> Told:
    """Findings of one group as one message."""
    first = findings[0]
    kind = _kind(first.kind)
    remedies = list(dict.fromkeys(finding.next for finding in findings if finding.next))
    body = [*_listed(findings), *(f"Next: {text}" for text in remedies[:_NEXT])]
    body.append(_RETRIED if will_retry else f"Press: {kind.press}.")
    if kind.playbook:
        body.append(f"Playbook: docs/operations.md, _{kind.playbook}_")
    return Told(_title(kind, kind.title, findings), credentials("\n".join(body)))


def over(kind: str, scope: str, partition: str, *, minutes: float, items: Sequence[str]) -> Told:
    """That all of an alert is well again."""
    spoken = _kind(kind)
    named, day = _names([item for item in items if item]), _day(partition)
    there = f"the tables{day} are published" if named else f"made{day}"
    title = spoken.over.format(scope=scope, day=day, there=there, **_counts(len(items)))
    body = [named] if named else []
    body.append(f"It lasted {_lasted(minutes)}. Nothing to do.")
    return Told(f"{_SIGNS['over']} {credentials(title)}", "\n".join(body))


def retry_failed(kind: str) -> Told:
    """That the retry which an alert spoke of did not help."""
    return Told("The retry failed too.", f"Press: {_kind(kind).press}.")


def blocks(message: Message) -> list[dict[str, Any]]:
    """A message in Slack's form, within Slack's limits."""
    texts = [f"*{message.title}*"[:_SECTION], *_sections(message.body)]
    made: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": escaped(text)[:_SECTION]}}
        for text in texts
    ]
    if message.link:
        text = f"<{message.link}|Open it in Dagster>"
        made.append({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
    return made


def escaped(text: str) -> str:
    """Text in which Slack sees no link, mention or channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _kind(name: str) -> Kind:
    return KINDS.get(name, _FAILED)


def _title(kind: Kind, template: str, findings: Sequence[Finding]) -> str:
    first, counts, day = findings[0], _counts(len(findings)), _day(findings[0].partition)
    published = f"{counts['tables']}{day} not published" if first.item else f"not made{day}"
    title = template.format(scope=first.scope, day=day, published=published, **counts)
    return f"{_SIGNS[kind.level]} {credentials(title)}"


def _day(partition: str) -> str:
    return f" of {partition}" if partition else ""


def _counts(count: int) -> dict[str, str]:
    several = "" if count == 1 else "s"
    nouns = {"tables": "table", "models": "model", "tests": "test", "backups": "restored backup"}
    return {name: f"{count} {noun}{several}" for name, noun in nouns.items()}


def _listed(findings: Sequence[Finding]) -> list[str]:
    """One line for each thing that is said, with the names that it is said of."""
    said: dict[str, list[str]] = {}
    for finding in findings:
        said.setdefault(finding.what, []).append(finding.item)
    lines = [
        "• " + ": ".join(filter(None, [_names([item for item in items if item]), what]))
        for what, items in said.items()
        if what or any(items)
    ]
    if len(lines) <= _LISTED:
        return lines
    unsaid = sum(len(items) for items in list(said.values())[_LISTED:])
    return [*lines[:_LISTED], f"• and {unsaid} more"]


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown


def _lasted(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.0f} hours" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def _sections(body: str) -> list[str]:
    """The body in parts that fit, cut between lines; a line too long is cut off."""
    parts: list[str] = []
    for line in body.split("\n"):
        line = line[: _SECTION // 2]
        if parts and len(escaped(parts[-1])) + len(escaped(line)) < _SECTION:
            parts[-1] += f"\n{line}"
        else:
            parts.append(line)
    return parts[:_SECTIONS]
