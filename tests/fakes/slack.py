"""A local double of the part of Slack's web API that we use: ``chat.postMessage``.

It refuses what Slack refuses (token, channel, texts and blocks beyond the limits, unknown threads)
and can be told to be busy, to fail, or to lose its answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.fakes.appengine import serve

_SECTION = 3000
_BLOCKS = 50
_TEXT = 40_000
_KNOWN = {
    "channel",
    "text",
    "blocks",
    "thread_ts",
    "reply_broadcast",
    "unfurl_links",
    "unfurl_media",
}


@dataclass
class FakeSlack:
    """``channels`` are those that the app is a member of; ``faults`` are the next answers."""

    token: str = "xoxb-test-token"
    channels: set[str] = field(default_factory=lambda: {"#airflow_alerts"})
    faults: list[tuple[int, dict[str, str]] | str] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    url: str = ""

    def titles(self, channel: str = "#airflow_alerts") -> list[str]:
        return [post["text"] for post in self.posted if post["channel"] == channel]

    def everything(self) -> str:
        """Every byte of every request, as text."""
        return b"\n".join(self.requests).decode(errors="replace")

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        named = b"\n".join(name + b": " + value for name, value in request.headers.raw)
        self.requests.append(str(request.url).encode() + b"\n" + named + b"\n\n" + body)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            status, headers = fault
            return PlainTextResponse("not now", status, headers)
        wrong = fault if fault and fault != "lost" else self._refusal(request, body)
        if wrong:
            return JSONResponse({"ok": False, "error": wrong})
        message = json.loads(body)
        stamp = f"1700000000.{len(self.posted):06}"
        self.posted.append({**message, "ts": stamp})
        if fault == "lost":
            return PlainTextResponse("the gateway lost it", 502)
        return JSONResponse({"ok": True, "channel": message["channel"], "ts": stamp})

    def _refusal(self, request: Request, body: bytes) -> str:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return "invalid_auth"
        if self.token.encode() in body or self.token in str(request.url):
            return "token_in_the_open"
        try:
            message = json.loads(body)
        except ValueError:
            return "invalid_json"
        if unknown := set(message) - _KNOWN:
            return f"invalid_arg_name {unknown}"
        if message.get("channel") not in self.channels:
            return "channel_not_found"
        stamps = {p["ts"] for p in self.posted if p["channel"] == message["channel"]}
        if "thread_ts" in message and message["thread_ts"] not in stamps:
            return "thread_not_found"
        if not message.get("text"):
            return "no_text"
        if len(message["text"]) > _TEXT:
            return "msg_too_long"
        return "" if _well_formed(message.get("blocks", [])) else "invalid_blocks"


def _well_formed(blocks: Any) -> bool:
    return (
        isinstance(blocks, list)
        and 0 < len(blocks) <= _BLOCKS
        and all(_is_block(block) for block in blocks)
    )


def _is_block(block: dict[str, Any]) -> bool:
    if block["type"] == "section":
        return set(block) == {"type", "text"} and _is_text(block["text"])
    texts = block.get("elements", [])
    return block["type"] == "context" and 0 < len(texts) <= 10 and all(map(_is_text, texts))


def _is_text(text: dict[str, Any]) -> bool:
    return (
        set(text) == {"type", "text"}
        and text["type"] in ("mrkdwn", "plain_text")
        and 0 < len(text["text"]) <= _SECTION
    )


@contextmanager
def slack(*channels: str) -> Iterator[FakeSlack]:
    """A Slack on a free port, with the default channel and these."""
    made = FakeSlack()
    made.channels |= set(channels)
    app = Starlette(routes=[Route("/api/chat.postMessage", made.answer, methods=["POST"])])
    with serve(app) as url:
        made.url = f"{url}/api/"
        yield made
