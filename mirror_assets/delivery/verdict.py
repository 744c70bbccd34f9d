"""What became of a request that was not accepted: a judgement that is safe to show anywhere.

It holds status codes and sentences of ours only. What a service wrote may quote the record it
refused, so its text travels beside a verdict (see ``client.Answer``), never inside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

_UNAUTHORIZED = frozenset({401, 403})
_TOO_MANY = 429


@dataclass(frozen=True)
class Verdict:
    """Why a request failed. ``url`` holds no query, no credentials and no recipient.

    ``status`` is None where no answer came.
    """

    kind: Literal["permanent", "transient"]
    tried: str
    method: str
    url: str
    status: int | None
    reason: str
    attempts: int

    @property
    def clears(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind == "transient"

    @property
    def about_the_record(self) -> bool:
        """False where any other record would have met the same: no service, or no rights."""
        return not self.clears and self.status not in _UNAUTHORIZED

    @property
    def sentence(self) -> str:
        times = f" in {self.attempts} attempts" if self.attempts > 1 else ""
        later = "a retry can clear this" if self.clears else "a retry cannot clear this"
        return f"could not {self.tried}: {self.method} {self.url} {self.reason}{times}; {later}"


class DeliveryFault(Exception):  # noqa: N818 - the kinds read as nouns
    """A delivery could not be made at all; the sentence is ours and holds no row values."""

    def __init__(self, sentence: str, *, transient: bool) -> None:
        self.sentence = sentence
        self.transient = transient
        super().__init__(sentence)


def clears(status: int) -> bool:
    """Whether an answer may be another one later: 429 and all of 5xx, never another 4xx."""
    return status == _TOO_MANY or status >= 500


def answered(status: int, body: bytes) -> str:
    """How a service answered, told by its status and the shape of its error, not by its words."""
    return f"answered {status}{_kind(body)}"


def _kind(body: bytes) -> str:
    try:
        told = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(told, dict):
        return ""
    errors = told.get("errors")
    if isinstance(errors, list):
        return f" with {len(errors)} error{'s' * (len(errors) != 1)}"
    return " with an error" if "error" in told else ""


def safe_url(base: str, shown_path: str) -> str:
    """Scheme, host and port of a base URL and a path without recipients.

    Raises ValueError where the base is not an absolute http or https URL.
    """
    parts = urlsplit(base)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the base URL of a service must begin with http:// or https:// and a host")
    port = f":{parts.port}" if parts.port else ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}{shown_path}"
