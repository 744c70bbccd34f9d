"""BigQuery's errors as ours: reason and place, never its message, which may quote rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mirror_assets.mirroring.errors import MirrorError, WarehouseFault, WarehouseRefused, reason
from mirror_assets.mirroring.google_login import may_pass

#: Reasons that pass by themselves, of requests and of jobs.
TRANSIENT = frozenset(
    {
        *("backendError", "internalError", "badGateway", "rateLimitExceeded", "quotaExceeded"),
        *("jobBackendError", "jobInternalError", "jobRateLimitExceeded", "tableUnavailable"),
        *("timeout", "stopped", "concurrentUpdate"),
    }
)
_REMEDIES = {
    "accessDenied": "give this service account roles/bigquery.dataEditor on the dataset and"
    " roles/bigquery.jobUser on the project, and read access to the bucket of MIRROR_LAKE",
    "notFound": "see `mirror doctor`; a dataset in another location is not found either",
    "invalidQuery": "write one SELECT over the warehouse's tables",
    "invalid": "compare the table's columns with the catalog: `mirror discover DATABASE --check`",
    "quotaExceeded": "it is renewed within a day; docs/operations.md lists what we use",
    "rateLimitExceeded": "it clears by itself: run the partition again",
    "billingTierLimitExceeded": "raise the project's limit",
    "billingNotEnabled": "enable billing for the project",
    "responseTooLarge": "ask for less",
}
_STATUS = {
    400: "invalid",
    401: "authError",
    403: "accessDenied",
    404: "notFound",
    409: "duplicate",
    429: "rateLimitExceeded",
}
_CREDENTIALS = (
    "give this process Google credentials that have not expired: GOOGLE_APPLICATION_CREDENTIALS, or"
    " the service account of its pod"
)


@contextmanager
def own(where: str) -> Iterator[None]:
    """Errors of BigQuery's client within as ours, with their place."""
    try:
        yield
    except MirrorError:
        raise
    except Exception as error:
        fault = of_client(error, where)
        if fault is None:
            raise
        raise fault from None


def of_client(error: Exception, where: str) -> MirrorError | None:
    """An error of the client as ours; None for a defect of our own code."""
    from google.api_core import exceptions  # here: slow to import, needed by BigQuery alone
    from google.auth import exceptions as auth
    from requests import exceptions as http

    if isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
        error = error.cause
    if isinstance(error, auth.GoogleAuthError) and may_pass(error):
        return WarehouseFault(
            "BigQuery was not asked: Google's token service did not answer",
            where=where,
            remedy="check the network, then run the partition again",
        )
    if isinstance(error, auth.GoogleAuthError):
        return WarehouseRefused(
            "BigQuery was not asked: there are no valid Google credentials",
            where=where,
            remedy=_CREDENTIALS,
        )
    if isinstance(error, exceptions.GoogleAPICallError):
        first: dict[str, Any] = error.errors[0] if error.errors else {}
        status = int(error.code or 0)
        word = first.get("reason") or _STATUS.get(status) or "backendError"
        return told(word, first.get("location"), where, f"HTTP {status}")
    if isinstance(error, (exceptions.RetryError, http.RequestException, ConnectionError)):
        return WarehouseFault(
            f"BigQuery could not be reached: {reason(error)}",
            where=where,
            remedy="check the network, then run the partition again",
        )
    return None


def of_job(error: dict[str, Any], where: str) -> MirrorError:
    """The error that a job ended with."""
    word = error.get("reason", "unknown")
    if "concurrent update" in error.get("message", ""):
        word = "concurrentUpdate"
    return told(word, error.get("location"), where, "the job failed")


def told(word: str, location: str | None, where: str, how: str) -> MirrorError:
    """A fault by BigQuery's reason and location (a column, a file or a name, never a value)."""
    place = f" at {location}" if location else ""
    if word == "authError":
        return WarehouseRefused(
            "BigQuery does not accept the credentials", where=where, remedy=_CREDENTIALS
        )
    transient = word in TRANSIENT or how.startswith("HTTP 5")
    kind = WarehouseFault if transient else WarehouseRefused
    return kind(
        f"BigQuery refused: {word}{place} ({how})",
        where=where,
        remedy=_REMEDIES.get(word, "see `mirror doctor`, then run the partition again"),
    )


def is_transient(error: Exception) -> bool:
    """Whether a request may be sent again as it is."""
    fault = of_client(error, "")
    return isinstance(fault, WarehouseFault) and not _is_daily_quota(error)


def _is_daily_quota(error: Exception) -> bool:
    """A quota that no pause of ours outlasts."""
    found = getattr(error, "errors", None) or [{}]
    return bool(found[0].get("reason") == "quotaExceeded")
