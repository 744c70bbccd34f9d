"""Local doubles of two cloud APIs: an App Engine firewall, and the nodes of a Kubernetes cluster.

Every request to the first is judged by Google's own discovery document.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.google import HOST, Discovery
from tests.fakes.google import serve as serve

DENY_ALL = 2_147_483_646
DEFAULT = 2_147_483_647
_PAGE = 2
_LONGEST_DESCRIPTION = 400


# -- App Engine


@dataclass
class AppEngine:
    """The firewall of one app, listed in pages of two rules.

    ``writes`` are the changes accepted, as (verb, priority, what was sent); ``states`` the rules
    after each. ``answers`` are error statuses for the next requests of a verb.
    """

    app: str
    rules: dict[int, dict[str, Any]] = field(default_factory=dict)
    writes: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    states: list[dict[int, dict[str, Any]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    accept_then_fail: bool = False
    pages: int = 0

    def add(self, priority: int, source: str, description: str = "", action: str = "ALLOW") -> None:
        self.rules[priority] = {
            "priority": priority,
            "action": action,
            "sourceRange": source,
            # the API leaves out what is empty
            **({"description": description} if description else {}),
        }

    def asgi(self) -> Starlette:
        discovery = Discovery("appengine.v1")
        methods = ["GET", "POST", "PATCH", "DELETE", "PUT"]

        async def handle(request: Request) -> Response:
            body = await request.body()
            query = request.query_params.multi_items()
            wrong = discovery.faults(request.method, request.url.path, query, body)
            if wrong:
                self.wrong.append(wrong)
                return _error(400)
            answers = self.answers.get(request.method, [])
            status = answers.pop(0) if answers else 0
            if status == 200:
                return PlainTextResponse("<html>sign in to the proxy</html>")
            if status and not self.accept_then_fail:
                return _error(status)
            response = self._answer(request, json.loads(body or b"null"))
            return _error(status) if status else response

        return Starlette(routes=[Route("/{path:path}", handle, methods=methods)])

    def _answer(self, request: Request, body: Any) -> Response:
        match = re.fullmatch(r"/v1/apps/([^/]+)/firewall/ingressRules(?:/(\d+))?", request.url.path)
        if match is None or match[1] != self.app:
            return _error(404)
        if match[2] is None:
            if request.method == "GET":
                return self._list(request.query_params.get("pageToken", ""))
            return self._create(body)
        priority = int(match[2])
        if priority not in self.rules:
            return _error(404)
        if request.method == "DELETE":
            return self._delete(priority)
        return self._patch(priority, request.query_params.get("updateMask", ""), body)

    def _list(self, token: str) -> Response:
        if not re.fullmatch(r"(after-\d+)?", token):
            return _error(400)
        self.pages += 1
        after = int(token.removeprefix("after-") or 0)
        rest = sorted(priority for priority in self.rules if priority > after)
        page: dict[str, Any] = {}
        if rest:
            page["ingressRules"] = [self.rules[priority] for priority in rest[:_PAGE]]
        if len(rest) > _PAGE:
            page["nextPageToken"] = f"after-{rest[_PAGE - 1]}"
        return JSONResponse(page)

    def _create(self, body: dict[str, Any]) -> Response:
        priority = body.get("priority", 0)
        if not 0 < priority < DEFAULT or {"action", "sourceRange"} - set(body):
            return self._refuse("an incomplete rule")
        if priority in self.rules:
            return _error(409)
        return self._store("create", priority, body, body)

    def _patch(self, priority: int, mask: str, body: dict[str, Any]) -> Response:
        fields = set(mask.split(",")) - {""}
        if not fields or set(body) != fields:
            return self._refuse("a mask that does not name the fields sent")
        if priority == DEFAULT and fields != {"action"}:
            return self._refuse("the default rule has but one field to change")
        return self._store("patch", priority, body, self.rules[priority] | body)

    def _store(
        self, verb: str, priority: int, sent: dict[str, Any], rule: dict[str, Any]
    ) -> Response:
        if len(rule.get("description", "")) > _LONGEST_DESCRIPTION:
            return self._refuse("a description too long")
        if rule["sourceRange"] != "*":
            ipaddress.ip_network(rule["sourceRange"], strict=False)
        self.rules[priority] = rule
        self._wrote(verb, priority, sent)
        return JSONResponse(rule)

    def _delete(self, priority: int) -> Response:
        if priority == DEFAULT:
            return self._refuse("the default rule cannot be deleted")
        del self.rules[priority]
        self._wrote("delete", priority, {})
        return JSONResponse({})

    def _wrote(self, verb: str, priority: int, sent: dict[str, Any]) -> None:
        self.writes.append((verb, priority, sent))
        self.states.append({key: dict(rule) for key, rule in self.rules.items()})

    def _refuse(self, why: str) -> Response:
        self.wrong.append(why)
        return _error(400)


def _error(status: int) -> Response:
    error = {"code": status, "message": "canary-text", "status": "CANARY"}
    return JSONResponse({"error": error}, status)


# -- Kubernetes


@dataclass
class Cluster:
    """The nodes of a cluster: each a list of (address type, address)."""

    nodes: list[list[tuple[str, str]]] = field(default_factory=list)
    token: str = "a-token"
    answers: list[int] = field(default_factory=list)
    pages: int = 0

    def asgi(self) -> Starlette:
        async def listed(request: Request) -> Response:
            if self.answers:
                return JSONResponse({"kind": "Status", "code": self.answers[0]}, self.answers.pop())
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or token != self.token:
                return JSONResponse({"kind": "Status", "code": 401}, 401)
            return self._page(
                int(request.query_params["limit"]), int(request.query_params.get("continue", 0))
            )

        return Starlette(routes=[Route("/api/v1/nodes", listed)])

    def _page(self, limit: int, first: int) -> Response:
        self.pages += 1
        nodes = self.nodes[first : first + limit]
        more = first + limit < len(self.nodes)
        return JSONResponse(
            {
                "kind": "NodeList",
                "apiVersion": "v1",
                "metadata": {"continue": str(first + limit)} if more else {},
                "items": [_node(f"node-{first + i}", node) for i, node in enumerate(nodes)],
            }
        )


def _node(name: str, addresses: list[tuple[str, str]]) -> dict[str, Any]:
    listed = [{"type": kind, "address": address} for kind, address in addresses]
    return {"metadata": {"name": name}, "status": {"addresses": listed} if listed else {}}


class Authority:
    """A certificate authority of a folder's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str = HOST) -> tuple[Path, Path]:
        """Certificate and key of a server, by address or name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's server")])
        certificate = (
            self._builder(name, key)
            .add_extension(x509.SubjectAlternativeName([_subject(host)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        paths = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )


def _subject(host: str) -> x509.GeneralName:
    if host[0].isdigit():
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def write_kubeconfig(
    path: Path, server: str, *, token: str = "a-token", ca: Path | None = None, **more: Any
) -> Path:
    """A kubeconfig file with the one context ``here``; ``more`` goes with the cluster."""
    cluster: dict[str, Any] = {"server": server, **more}
    if ca is not None:
        cluster["certificate-authority-data"] = base64.b64encode(ca.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "cluster", "user": "user"}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    path.chmod(0o600)
    return path
