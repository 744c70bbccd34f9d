"""What the doctor says of Slack and of the cluster, asked over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes import client  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mirror_assets.mirroring.doctor import Finding
from mirror_assets.settings import Settings
from mirror_assets.surroundings import cluster, examine, rights, slack
from tests.fakes.google import serve

TOKEN = "xoxb-hush-hush"


@contextmanager
def slack_that_says(answer: dict[str, Any]) -> Iterator[dict[str, str]]:
    async def auth_test(request: Request) -> JSONResponse:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        return JSONResponse(answer)

    with serve(Starlette(routes=[Route("/api/auth.test", auth_test, methods=["POST"])])) as url:
        yield {"MIRROR_SLACK_API": f"{url}/api", "MIRROR_SLACK_TOKEN": TOKEN}


def test_a_token_that_slack_takes() -> None:
    with slack_that_says({"ok": True, "user": "mirror"}) as env:
        finding = slack(Settings.from_env(env))
    assert finding == Finding("ok", "Slack", "takes the token; failures go to #airflow_alerts")


def test_a_token_that_slack_refuses_is_told_without_it() -> None:
    with slack_that_says({"ok": False, "error": "token_revoked"}) as env:
        finding = slack(Settings.from_env(env))
    assert (finding.verdict, finding.found) == ("fail", "refuses the token (token_revoked)")
    assert TOKEN not in str(finding)


def test_a_slack_that_is_away_is_a_warning() -> None:
    env = {"MIRROR_SLACK_API": "http://127.0.0.1:1/api", "MIRROR_SLACK_TOKEN": TOKEN}
    finding = slack(Settings.from_env(env))
    assert finding.verdict == "warn"
    assert "does not answer" in finding.found


def test_without_a_token_production_is_warned_and_a_laptop_is_not() -> None:
    settings, _ = Settings.read({"MIRROR_ENVIRONMENT": "production"})
    assert slack(settings).verdict == "warn"
    assert [finding.verdict for finding in examine(Settings.from_env({}))] == ["ok"]


@contextmanager
def api_that_allows(*allowed: str) -> Iterator[Any]:
    async def review(request: Request) -> JSONResponse:
        asked = (await request.json())["spec"]["resourceAttributes"]
        named = asked["resource"] + (f"/{asked['subresource']}" if "subresource" in asked else "")
        known = f"{asked['verb']} {named}" in allowed and asked["namespace"] == "mirror"
        return JSONResponse({"status": {"allowed": known}, "spec": {}}, 201)

    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    with serve(Starlette(routes=[Route(path, review, methods=["POST"])])) as url:
        yield client.AuthorizationV1Api(client.ApiClient(client.Configuration(host=url)))


ALL = ("create jobs", "get jobs", "delete jobs", "list pods", "get pods/log")


def test_an_account_with_all_rights() -> None:
    with api_that_allows(*ALL) as api:
        found = rights(api, "mirror")
    assert found.verdict == "ok"
    assert "the daemon's, which launches runs, was not looked at" in found.found
    assert found.next.endswith("-n mirror --as system:serviceaccount:mirror:dagster")


@pytest.mark.parametrize("lacking", ALL)
def test_each_missing_right_is_named(lacking: str) -> None:
    with api_that_allows(*(right for right in ALL if right != lacking)) as api:
        finding = rights(api, "mirror")
    assert finding.verdict == "fail"
    assert f"may not {lacking} in mirror" in finding.found


def test_outside_of_a_cluster_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert cluster().verdict == "ok"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    assert cluster().verdict == "fail"
