"""The ingress rules of one App Engine app, by Google's client for the ``appengine`` v1 API.

Rules travel as the API's own ``FirewallRule`` objects: ``priority`` (int), ``sourceRange``,
``action``, ``description``. Nothing is retried here, so that a caller decides once.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httplib2  # type: ignore[import-untyped]
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from googleapiclient.discovery import build  # type: ignore[import-untyped]
from googleapiclient.errors import HttpError  # type: ignore[import-untyped]

from mirror_assets.delivery.cloud import CloudFault

FirewallRule = Mapping[str, Any]


class IngressRules:
    """The firewall of one app. Every method raises CloudFault."""

    def __init__(
        self, app: str, *, credentials: Credentials | None = None, endpoint: str | None = None
    ) -> None:
        """Without credentials, the process's own (Application Default Credentials) are used."""
        with _edge("signing in"):
            # The discovery document in the package: no request before the first call.
            service = build(
                "appengine",
                "v1",
                credentials=credentials,
                client_options={"api_endpoint": endpoint} if endpoint else None,
                static_discovery=True,
                cache_discovery=False,
            )
        self.app = app
        self._rules = service.apps().firewall().ingressRules()

    def list(self) -> list[FirewallRule]:
        """All rules in the order of evaluation, from all pages."""
        found: list[FirewallRule] = []
        with _edge("listing the firewall rules"):
            request = self._rules.list(appsId=self.app)
            while request is not None:
                page = request.execute()
                if not isinstance(page, dict):  # a proxy's page, not the API's answer
                    raise CloudFault("listing the firewall rules", "silence")
                found += page.get("ingressRules", [])
                request = self._rules.list_next(request, page)
        return found

    def create(self, rule: FirewallRule) -> None:
        with _edge(f"adding rule {rule['priority']}"):
            self._rules.create(appsId=self.app, body=dict(rule)).execute()

    def patch(self, priority: int, changes: FirewallRule) -> None:
        """Replace just the fields given."""
        with _edge(f"patching rule {priority}"):
            self._rules.patch(
                appsId=self.app,
                ingressRulesId=str(priority),
                body=dict(changes),
                updateMask=",".join(changes),
            ).execute()

    def delete(self, priority: int) -> None:
        with _edge(f"removing rule {priority}"):
            self._rules.delete(appsId=self.app, ingressRulesId=str(priority)).execute()


@contextmanager
def _edge(doing: str) -> Iterator[None]:
    """The client's errors as ours, without their texts."""
    try:
        yield
    except HttpError as error:
        raise CloudFault(doing, "status", error.status_code) from None
    except ssl.SSLCertVerificationError:
        raise CloudFault(doing, "certificate") from None
    except (OSError, TransportError, httplib2.HttpLib2Error, http.client.HTTPException):
        raise CloudFault(doing, "silence") from None
    except GoogleAuthError as error:
        raise CloudFault(doing, "silence" if error.retryable else "identity") from None
