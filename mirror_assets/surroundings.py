"""What the doctor looks at beyond the mirrors: Slack, and the cluster that steps are started in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirror_assets.mirroring.doctor import Finding
from mirror_assets.mirroring.errors import MirrorError
from mirror_assets.settings import Settings
from mirror_assets.settings.alerts import AlertSettings

_SECONDS = 10
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: What starting a step's pod, watching it and ending it takes: verb, API group, resource.
_RIGHTS = (
    ("create", "batch", "jobs"),
    ("get", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield slack(settings)
    if settings.environment == "production":
        yield cluster()


def slack(settings: Settings) -> Finding:
    """Whether alerts reach Slack: its own answer to who we are."""
    from slack_sdk import WebClient  # here: only the doctor asks
    from slack_sdk.errors import SlackApiError

    try:
        alerts = AlertSettings.from_env(settings)
        token = alerts.token()
    except MirrorError as error:
        return Finding.of("fail", "Slack", error)
    if token is None:
        return Finding(
            "warn" if settings.environment == "production" else "ok",
            "Slack",
            "no token: alerts are logged, by the sensor `alerts`",
            "set MIRROR_SLACK_TOKEN_FILE" * (settings.environment == "production"),
        )
    client = WebClient(token, base_url=alerts.api, timeout=_SECONDS, retry_handlers=[])
    try:
        client.auth_test()
    except SlackApiError as error:
        said = str(error.response.get("error", "no reason"))
        return Finding("fail", "Slack", f"refuses the token ({said})", "install the app anew")
    except Exception as error:  # its client raises whatever its transport does
        what = f"does not answer ({type(error).__name__})"
        return Finding("warn", "Slack", what, "alerts wait until it does; check the way out")
    return Finding("ok", "Slack", f"takes the token; failures go to {alerts.channel}")


def cluster() -> Finding:
    """Whether we may start steps in the cluster that we are in, if we are in one."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return Finding("ok", "Kubernetes", "not in a cluster: runs are processes of this machine")
    from kubernetes import client, config  # type: ignore[import-untyped]  # here: slow to import

    try:
        config.load_incluster_config()
        namespace = _NAMESPACE.read_text(encoding="utf-8").strip()
        return rights(client.AuthorizationV1Api(), namespace)
    except Exception as error:  # its client raises whatever its transport does
        what = f"the API does not answer ({type(error).__name__})"
        return Finding("fail", "Kubernetes", what, "check the pod's service account and network")


def rights(api: Any, namespace: str) -> Finding:
    """What our service account may do in a namespace, by the API's own account.

    It starts the pods of steps; runs are launched by the daemon, whose account we may not ask of.
    """
    from kubernetes import client

    missing = []
    for verb, group, named in _RIGHTS:
        resource, _, part = named.partition("/")
        attributes = client.V1ResourceAttributes(
            namespace=namespace, verb=verb, group=group, resource=resource, subresource=part or None
        )
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        answer = api.create_self_subject_access_review(review, _request_timeout=_SECONDS)
        if not answer.status.allowed:
            missing.append(f"{verb} {named}")
    if missing:
        what = f"this service account may not {', '.join(missing)} in {namespace}"
        return Finding("fail", "Kubernetes", what, "bind the chart's role: docs/deploy.md")
    daemon = f"--as system:serviceaccount:{namespace}:dagster"
    return Finding(
        "ok",
        "Kubernetes",
        f"this pod's account may start steps in {namespace}; the daemon's, which launches runs, was"
        " not looked at",
        f"kubectl auth can-i create jobs -n {namespace} {daemon}",
    )
