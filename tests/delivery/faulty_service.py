"""The sample quality-measure service in a process of its own, with faults a test switches on.

The faults are around the real service: ``/test/faults`` sets them, ``/test/counts`` tells what was
seen. Run as a script it prints its address.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror_assets.sample import measure_service

ROOT = Path(__file__).parents[2]


@dataclass
class Faults:
    """``busy`` posts are answered 429 (None: no Retry-After), ``broken`` are the numbers of posts
    answered 500, ``dropped`` of those accepted and then left without an answer. ``lasting`` is the
    status that every post of a member is answered.
    """

    slow: float = 0.0
    busy: int = 0
    retry_after: str | None = "0"
    broken: list[int] = field(default_factory=list)
    broken_from: int | None = None
    dropped: list[int] = field(default_factory=list)
    lasting: dict[str, int] = field(default_factory=dict)
    map_answer: str | None = None


class Faulty:
    """The service with faults around it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._faults = Faults()
        self._counts: Counter[str] = Counter()
        self._keys: list[str] = []
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/test/faults":
            self._faults = Faults(**json.loads(await _body(receive)))
            self._counts.clear()
            self._keys.clear()
            await _answer(send, 200, b"{}")
        elif scope["path"] == "/test/counts":
            told = {**self._counts, "keys": self._keys}
            await _answer(send, 200, json.dumps(told).encode())
        elif scope["path"] == "/1.0/elationmap" and self._faults.map_answer is not None:
            await _answer(send, 200, self._faults.map_answer.encode())
        elif scope["method"] == "POST":
            await self._post(scope, receive, send)
        else:
            self._counts["gets"] += 1
            await self._app(scope, receive, send)

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._faults
        self._counts["posts"] += 1
        number = self._counts["posts"]
        self._keys += [v.decode() for k, v in scope["headers"] if k == b"idempotency-key"]
        self._now += 1
        self._counts["most_at_once"] = max(self._counts["most_at_once"], self._now)
        try:
            await asyncio.sleep(faults.slow)
            if self._counts["busy"] < faults.busy:
                self._counts["busy"] += 1
                told = None if faults.retry_after is None else faults.retry_after.encode()
                await _answer(send, 429, b"{}", *([(b"retry-after", told)] if told else []))
            elif (status := faults.lasting.get(_member(scope["path"]))) is not None:
                await _answer(send, status, b'{"errors": ["Zebulon Canary"]}')
            elif number in faults.broken or number >= (faults.broken_from or number + 1):
                await _answer(send, 500, b'{"error": "connection pool exhausted"}')
            elif number in faults.dropped:
                await self._app(scope, receive, _nowhere)
                send.__self__.transport.abort()  # type: ignore[attr-defined]
            else:
                await self._app(scope, receive, send)
                self._counts["answered"] += 1
        finally:
            self._now -= 1


def _member(path: str) -> str:
    """Whom a post to ``/1.0/member/{id}/measures`` is about."""
    return path.removeprefix("/1.0/member/").partition("/")[0]


async def _nowhere(_message: Message) -> None:
    """The answer is lost."""


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    listed = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


class FaultyService:
    """The service's process, as a test holds it."""

    def __init__(self, database_url: str, *, port: int = 0, keys: dict[str, str] | None = None):
        self._environment = os.environ | {"MEASURE_SERVICE_URL": database_url} | (keys or {})
        self._start(port)

    def _start(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(port)],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the service did not start"

    def faults(self, **changed: Any) -> Self:
        """Switch on these faults and no others; counts begin anew."""
        self._ask("/test/faults", json.dumps(asdict(Faults(**changed))).encode())
        return self

    def counts(self) -> dict[str, Any]:
        told: dict[str, Any] = self._ask("/test/counts", b"")
        return told

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def again(self) -> None:
        """Start once more on the same port after a kill."""
        self._start(int(self.url.rpartition(":")[2]))

    def _ask(self, path: str, data: bytes) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", data=data, timeout=10) as answer:
            return json.load(answer)


if __name__ == "__main__":
    development = not any(name.startswith("API_KEY_") for name in os.environ)
    application = measure_service.app(
        measure_service.engine(os.environ["MEASURE_SERVICE_URL"]),
        measure_service.keys_from_environment(development),
        max_body_bytes=int(os.environ.get("MAX_BODY_BYTES", "5000000")),
    )
    measure_service.serve(Faulty(application), int(sys.argv[1]))
