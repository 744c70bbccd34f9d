"""A local double of Google Secret Manager: one secret at a time, or the refusal it was told."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.fakes.appengine import serve


@dataclass
class SecretManager:
    """``secrets`` by ``projects/<p>/secrets/<n>/versions/<v>``; ``status`` refuses all when set."""

    secrets: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    asked: list[str] = field(default_factory=list)
    host: str = ""

    async def access(self, request: Request) -> JSONResponse:
        name = request.path_params["name"].removesuffix(":access")
        self.asked.append(name)
        if self.status is None and name in self.secrets:
            data = base64.b64encode(self.secrets[name].encode()).decode()
            return JSONResponse({"name": name, "payload": {"data": data}})
        status = self.status or 404
        return JSONResponse({"error": {"code": status, "message": f"no {name}"}}, status)


@contextmanager
def secret_manager() -> Iterator[SecretManager]:
    """A running double; ``host`` is what SECRET_MANAGER_EMULATOR_HOST takes."""
    double = SecretManager()
    app = Starlette(routes=[Route("/v1/{name:path}", double.access)])
    with serve(app) as url:
        double.host = url.removeprefix("http://")
        yield double
