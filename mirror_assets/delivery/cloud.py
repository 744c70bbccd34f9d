"""Why a call to a cloud API failed, whichever client library raised it, and if time cures it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from mirror_assets.delivery.verdict import DeliveryFault, clears

#: ``status``: the API answered with an error status; ``silence``: it gave no usable answer;
#: ``certificate``: it is not who it should be; ``identity``: we cannot say who we are.
Reason = Literal["status", "silence", "certificate", "identity"]

_SENTENCES: dict[Reason, str] = {
    "status": "was refused",
    "silence": "got no usable answer",
    "certificate": "met a server whose certificate is not trusted",
    "identity": "has no usable credentials",
}


class CloudFault(DeliveryFault):
    """A call that failed. ``doing`` is a phrase of ours (never the API's text), ``status`` an HTTP
    status.

    A conflict is transient, because callers list again what is there before they act.
    """

    def __init__(self, doing: str, reason: Reason, status: int | None = None) -> None:
        self.reason = reason
        self.status = status
        number = f" ({status})" if status else ""
        passing = status is not None and (status == HTTPStatus.CONFLICT or clears(status))
        super().__init__(
            f"{doing} {_SENTENCES[reason]}{number}", transient=reason == "silence" or passing
        )
