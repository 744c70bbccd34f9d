"""What became of a dbt command, by its own account: names and counts, and whether time cures it.

dbt's texts are looked at, never shown: they may quote rows. What stands in quotes is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.mirroring.warehouses.ducklake import CONFLICTS

_BY_HAND = "docs/operations.md says how to see dbt's own message, which may quote rows"
_FAILED = ("error", "fail", "runtime error")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
#: Google's client of a status, as in "503 POST https://..", or DuckDB as in "(HTTP 503 ..".
_STATUS = re.compile(r"\b(429|5\d\d) (get|post|put|patch|delete) http|\bhttp (429|5\d\d)\b")
#: How BigQuery, PostgreSQL, SQLite and HTTP clients say that something passes, in lower case.
_PASSING = (
    *(sign.lower() for sign in CONFLICTS),
    *("quota exceeded", "exceeded quota", "exceeded rate limits", "rate limit exceeded"),
    *("concurrent update", "retrying may solve the problem", "retrying the job may solve"),
    *("internal error occurred", "service unavailable", "connectionerror", "connection error"),
    *("connection refused", "connection reset", "connection aborted", "connection timed out"),
    *("connectionreseterror", "remotedisconnected", "max retries exceeded", "read timed out"),
    *("server closed the connection", "could not connect to server", "terminating connection"),
    *("connection has been closed", "ssl syscall error", "name resolution", "broken pipe"),
    *("transporterror", "retryerror", "deadline exceeded", "exceeded while calling target"),
)


class ModelFailed(MirrorError):  # noqa: N818 - the kinds read as nouns
    """dbt could not build a model, or a test found rows that should not be there."""

    kind = "dbt"
    resource = "BQ"
    failed: Mapping[str, str] = MappingProxyType({})  #: models and tests, and what dbt says of each


class ModelInterrupted(ModelFailed):
    """The warehouse hung up, was busy or had no quota left while dbt built a model."""

    transient = True


def of_results(results: Sequence[Mapping[str, Any]]) -> ModelFailed | None:
    """What failed, by ``run_results.json``; None when all went well.

    It is transient when trying again may help one of them: a retry makes what failed, no more.
    """
    results = [result for result in results if not _is_hook(result)]
    failed = [result for result in results if result["status"] in _FAILED]
    if not failed:
        return None
    names = {result["unique_id"].split(".")[2]: _outcome(result) for result in failed}
    told = "; ".join(f"{name} ({outcome})" for name, outcome in names.items())
    interrupted = any(
        result["status"] != "fail" and passes(result.get("message") or "") for result in failed
    )
    fault = _kind(interrupted=interrupted)(
        f"{len(failed)} of {len(results)} models and tests failed: {told}",
        remedy=f"the others went well; {_BY_HAND}",
    )
    fault.failed = names
    return fault


def of_nothing(said: str) -> ModelFailed:
    """dbt left no results; ``said`` are its errors."""
    if passes(said):
        return ModelInterrupted(
            "dbt could not work with the warehouse: it hung up or was busy",
            remedy="run it again; `mirror doctor` says whether the warehouse answers",
        )
    return ModelFailed("dbt stopped before it built anything", remedy=_BY_HAND)


def joined(faults: Sequence[MirrorError]) -> MirrorError:
    """One error for several commands of a step."""
    if len(faults) == 1:
        return faults[0]
    kind = _kind(interrupted=any(fault.transient for fault in faults))
    return kind("; ".join(f"{f.where}: {f.what}" for f in faults), remedy=faults[0].remedy)


def passes(message: str) -> bool:
    """Whether an adapter's message is of a lost connection, a busy warehouse or a quota."""
    told = _QUOTED.sub("", message).lower()
    return bool(_STATUS.search(told)) or any(sign in told for sign in _PASSING)


def _kind(*, interrupted: bool) -> type[ModelFailed]:
    return ModelInterrupted if interrupted else ModelFailed


def _outcome(result: Mapping[str, Any]) -> str:
    found = result.get("failures")
    return f"{found} rows" if found else str(result["status"])


def _is_hook(result: Mapping[str, Any]) -> bool:
    return bool(result["unique_id"].startswith("operation.") and result["status"] not in _FAILED)
