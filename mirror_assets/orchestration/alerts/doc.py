"""docs/alerts.md: every message as people see it, written by the code that sends it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

from mirror_assets.orchestration.alerts import deadline, messages
from mirror_assets.orchestration.alerts.findings import (
    Check,
    Ended,
    Failure,
    Finding,
    Made,
    judge,
    leftovers,
    leftovers_unseen,
)
from mirror_assets.orchestration.alerts.messages import KINDS

_PAGE = Path(__file__).parents[3] / "docs" / "alerts.md"
_DAY = "2026-11-22"
_LINK = "Open it in Dagster"
_HEAD = """# Alerts

<!-- Written by `make docs-alerts`; do not edit. -->

What people are told, word for word; names and figures are examples. Each message comes once. It
comes again when its cause changes, when its figure grows, or when it was over and is back. When all
of it is well again, a message in its thread says so (and is shown in the channel too). A failure
that is retried by itself says so instead of what to press; should the retry fail, one line in the
thread follows:

> {retry}

Everything goes to `MIRROR_SLACK_CHANNEL`, and what is of a database also to its catalog's
`slack_channel`; only the last message is for other people, in `MIRROR_EHR_CHANNELS`. Names of
tables, counts and our own sentences are all that a message holds. How it works:
[operations](operations.md#alerts).
"""


def samples() -> dict[str, list[Finding]]:
    """Findings of every kind, made the way runs make them."""
    found: dict[str, list[Finding]] = {}
    for finding in [finding for run in _runs() for finding in judge(run)[0]] + _reported():
        found.setdefault(finding.kind, []).append(finding)
    return found


def page() -> str:
    """The page's text."""
    lines = [_HEAD.format(retry=messages.retry_failed("coverage").title)]
    known = samples()
    for name, kind in KINDS.items():
        findings = known[name]
        first = findings[0]
        told = messages.alert(findings)
        lines += [f"## {name}\n", *_quoted(f"{told.title}\n{told.body}\n{_LINK}")]
        if kind.over:
            items = [finding.item for finding in findings]
            over = messages.over(name, first.scope, first.partition, minutes=42, items=items)
            lines += ["and when it is over\n", *_quoted(over.title)]
    return "\n".join(lines)


def _quoted(text: str) -> list[str]:
    return ["```", *text.split("\n"), "```\n"]


def _ours(kind: str, what: str, remedy: str, **figures: object) -> dict[str, object]:
    return {"kind": kind, "what": what, "next": remedy, "cured_by_retry": False, **figures}


def _table(table: str, kind: str, what: str, remedy: str, database: str = "elation") -> Ended:
    """A run in which one table was not published."""
    check = Check(
        f"{database}/{table}",
        "row_count_coverage",
        passed=False,
        metadata=_ours(kind, what, remedy),
        step=f"{database}_chunk_000",
        partition=_DAY,
    )
    return Ended("run", f"{database}_mirror", "failure", partition=_DAY, checks=[check])


def _asset(key: str, kind: str, what: str, remedy: str, **figures: object) -> Ended:
    """A run in which one asset was not made."""
    step = key.replace("/", "__")
    return Ended(
        "run",
        "assets",
        "failure",
        partition=_DAY,
        failures={step: Failure(_ours(kind, what, remedy, **figures))},
        planned={step: [key]},
    )


def _made(key: str, **figures: object) -> Ended:
    """A run in which one asset was made, with something to be said of it."""
    made = [Made(key, figures, _DAY)]
    return Ended("run", "assets", "success", partition=_DAY, made=made)


def _health(name: str, description: str, *, warning: bool = False) -> Ended:
    key = "elation/MIRROR_COMPLETENESS"
    figures = {"partition": _DAY} if name == "exact" else {}
    check = Check(key, name, False, warning, description, figures)
    return Ended("run", "elation_health", "failure", checks=[check])


def _dbt() -> Iterator[Ended]:
    for warning, test in ((False, "not_null_user_id"), (True, "accepted_values_user_type")):
        rows = {"dagster_dbt/failed_row_count": 3}
        check = Check("mrt_commons/user", test, False, warning, "", rows, "dbt_models", _DAY)
        yield Ended("run", "assets", "failure", partition=_DAY, checks=[check])
    told = _ours("dbt", "", "the other models are built", failed={"abs_users": "error"})
    yield Ended(
        "run",
        "assets",
        "failure",
        partition=_DAY,
        failures={"dbt_models": Failure(told)},
        planned={"dbt_models": ["abs_computed/abs_users", "mrt_commons/user"]},
    )


_SEE = (
    f"see `mirror errors elation --partition {_DAY}`; have the rows mended at the source, or allow"
)
_REBUILT = "the run is tried again by itself"


def _runs() -> list[Ended]:
    """Runs that leave every kind of finding."""
    job = "upkeep"
    return [
        _table(
            "patient_immunization",
            "coverage",
            "5 of 300 rows were rejected, 2 are allowed",
            f"{_SEE} them in the catalog (bad_records_allowed)",
        ),
        _table(
            "bill",
            "drift",
            "the schema changed: column `paid` removed",
            "set breaking_drift: deprecate for bill (history moves to bill_depr_<n>), or have the"
            " change undone at the source",
        ),
        _table(
            "icd10",
            "volume",
            "the source has 120 rows, 2026-11-21 had 74260",
            "check the source; if it is right, run again with the run tag"
            " mirror/accept_volume=icd10, or set the table's `volume` in the catalog",
        ),
        _table("bill", "source_unavailable", "the server hung up", "check host and login"),
        _table("bill", "ssh_unavailable", "the host could not be reached, or hung up", "try again"),
        _table(
            "bill",
            "ssh_refused",
            "the host does not show its known key but another one",
            "ask the host's owner for its key by another way than this network, and mend the"
            " known_hosts file; never skip this",
        ),
        _table("bill", "source_locked", "somebody held a lock for 300 seconds", _REBUILT),
        _table("bill", "source", "the login may not read it", "grant SELECT"),
        _table("bill", "refresh_landed", "the table was rebuilt while it was read", _REBUILT),
        _table("bill", "refresh_incomplete", "a rebuild is under way or stopped", _REBUILT),
        _table("bill", "wrong_day", f"there is no export of {_DAY} to replay", ""),
        _table("bill", "stale_refresh", "the partition already holds a newer state", ""),
        _table("bill", "rows_unaccounted", "300 source rows, but 299 loaded and 0 rejected", ""),
        _table("bill", "unsupported_type", "column `shape` is a geometry", "exclude the column"),
        _table("bill", "export_corrupt", "a part does not match its manifest", "export it again"),
        _table("bill", "landing", "no space left on device", "free some space in MIRROR_LANDING"),
        _table(
            "bill",
            "storage",
            "the landing zone refused: the credentials lack a permission (HTTP 403)",
            "give this service account roles/storage.objectUser on the bucket of MIRROR_LANDING",
        ),
        _table("bill", "warehouse", "another writer held the lake for too long", _REBUILT),
        _table(
            "bill",
            "pending",
            "what was begun is not published to its end (BigQuery refused: quotaExceeded)",
            "nothing is lost: the retry, or the next run of the database, finishes it first",
        ),
        _table("bill", "catalog", "column `scan` is binary and cannot be loaded as INT64", "BYTES"),
        _table("bill", "error", "unexpected KeyError at typed.py:237", "report it with this line"),
        _table(
            "task",
            "backup",
            "the restored copy did not accept connections in 60 checks",
            "run the partition again; if it lasts, look at the provider's own log",
            "commons",
        ),
        _table(
            "task",
            "private_server",
            "the program initdb was not found",
            "install the Debian package postgresql",
            "commons",
        ),
        _table(
            "builder_question",
            "export_job",
            "the job that exports the application's tables ended with exit code 1",
            "look at the application's own log; then re-execute from asset failure",
            "commons",
        ),
        _table("task", "stopped", "the run was stopped while it waited", "", "commons"),
        _table("task", "settings", "the file is not there", "mount it", "commons"),
        _table(
            "task", "secrets_unavailable", "Secret Manager does not answer", _REBUILT, "commons"
        ),
        _made(
            "elation/bill",
            set_aside="elation/bill: the schema changed: column `paid` removed; the history of"
            f" elation_mirror.bill is now elation_mirror.bill_depr_1, and bill starts with {_DAY}."
            " Next: have queries over older days read bill_depr_1; drop it when nobody needs it",
        ),
        _health(
            "freshness",
            f"stale refresh: none landed on {_DAY} by 08:00 UTC, the last one is of 2026-11-21"
            " 04:31 UTC. Next: ask the vendor",
        ),
        _health(
            "catalog_complete",
            "1 tables are neither mirrored nor excluded: referral. Next: add them to the catalog,"
            " or to its exclude list",
            warning=True,
        ),
        _health("exact", f"24 of 25 tables of {_DAY} are proven"),
        _asset("elation/bill", "proof", "there is nothing to compare it with", "mirror it first"),
        _asset(
            "elation/patient_encounters",
            "input",
            f"no published partition of {_DAY} of elation/visit_note",
            "mirror it",
        ),
        _made("elation/patient_encounters", notes_without_member=7),
        _asset(
            "elation/patient_encounters",
            "documents",
            "the documents' storage failed",
            "check space and rights of MIRROR_DOCUMENTS",
        ),
        _asset(
            "elation/quality_measures",
            "delivery_refused",
            "3 of 1200 members were refused (2 x unknown member, 1 x unknown measure)",
            "what the service wrote is in DELIVERY_REFUSALS beside each member",
            refused=3,
        ),
        _asset(
            "elation/quality_measures",
            "delivery_unavailable",
            "the service answers with status 503",
            "run the partition again when it is back",
        ),
        _asset(
            "elation/quality_measures",
            "elation_map",
            "the answer of the map is empty",
            "have the service's table elation_map mended",
        ),
        _asset(
            "elation/app_engine_firewall",
            "firewall",
            "the cluster has no external address; no rule was changed",
            "check the nodes",
        ),
        _asset(
            "elation/app_engine_firewall",
            "firewall_unavailable",
            "App Engine answers with status 503",
            "run it again",
        ),
        _asset(
            "commons/ccd_encounter_cache",
            "encounter_cache",
            "990 of 1200 rows appeared in ccd_encounter_cache within 3600 seconds; exit code 0",
            "look for the job's errors at the link of the asset",
        ),
        _asset(
            "commons/ccd_encounter_cache",
            "job_unreachable",
            "the host could not be reached",
            "check host, port and network",
        ),
        _asset(
            "commons/ccd_encounter_cache",
            "job_refused",
            "the host did not show its known key",
            "ask its owner for the key and mend the known_hosts file; never skip this",
        ),
        _made("commons/ccd_encounter_cache", data_complete=False),
        _asset(
            "commons/note_transformed",
            "coverage",
            "4 bodies cannot be read (4 x not_json), 0 are allowed; the views stay as they were",
            f"`mirror errors commons --partition {_DAY} --table note_transformed` lists them",
        ),
        _made("commons/note_transformed", broken_bodies=2),
        *_dbt(),
        Ended(
            "run",
            "assets",
            "success",
            partition=_DAY,
            checks=[
                Check("commons/note", "one_check", False, partition=_DAY),
                Check("commons/note", "another_check", False, warning=True, partition=_DAY),
            ],
        ),
        Ended("run", job, "failure", failures={"expire_and_sweep": Failure({}, "KeyError")}),
        Ended(
            "run",
            "elation_mirror",
            "failure",
            "elation",
            _DAY,
            planned={"elation_chunk_000": ["elation/bill", "elation/bill_item"]},
        ),
        Ended(
            "run",
            job,
            "failure",
            failures={"expire_and_sweep": Failure(_ours("error", "commons failed", "look"))},
        ),
    ]


def _reported() -> list[Finding]:
    """What other sensors report."""
    stale = deadline.stale(
        {
            "elation/patient_encounters": date(2026, 11, 22),
            "commons/ccd_encounter_cache": date(2026, 11, 21),
        },
        datetime(2026, 11, 22, 16, 1, tzinfo=UTC),
        time(8),
        ZoneInfo("US/Pacific"),
    )
    assert stale is not None
    left = leftovers(
        "commons", ["commons-restore-20261121"], hours=6, remedy="remove it by `mirror doctor`"
    )
    unseen = leftovers_unseen(
        "commons",
        "Aptible did not answer (503): GET /databases",
        remedy="run the partition again; if it lasts, look at Aptible's status page",
    )
    return [*left, unseen, stale]


def main() -> None:
    """Write the page."""
    _PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
