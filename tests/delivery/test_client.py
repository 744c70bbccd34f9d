"""The HTTP client against real servers on loopback: verdicts, retries, waiting, secrets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from mirror_assets.delivery.client import Answer, Client, Request, Target, _Attempt, fetch

Reply = tuple[int, dict[str, str], bytes]
CANARY = "Zebulon Canary"
POST = Request(
    "POST",
    "/1.0/member/4711?token=hidden",
    "/1.0/member/*",
    "post the measures of a member",
    body=CANARY.encode(),
    key="the-key",
)


class Scripted:
    """A server that answers the n-th request with ``reply(n)``; what it was sent is kept."""

    def __init__(self, reply: Callable[[int], Reply]) -> None:
        self.seen: list[tuple[float, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append((time.monotonic(), self.path, dict(self.headers)))
                status, headers, body = reply(len(outer.seen))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def answering(*replies: Reply, then: Reply = (200, {}, b"OK")) -> Iterator[Scripted]:
    server = Scripted(lambda n: replies[n - 1] if n <= len(replies) else then)
    try:
        yield server
    finally:
        server.close()


def quick(url: str, **options: Any) -> Target:
    return Target(url, {"apiKey": "s3cret"}, **{"backoff_seconds": 0.01} | options)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422])
def test_another_4xx_is_never_tried_again(status: int) -> None:
    with answering(then=(status, {}, b"")) as server:
        answer = fetch(quick(server.url), POST)
        assert len(server.seen) == 1
    assert answer.verdict is not None
    assert (answer.verdict.kind, answer.verdict.clears, answer.verdict.attempts) == (
        "permanent",
        False,
        1,
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_5xx_is_tried_again_until_it_clears(status: int) -> None:
    with answering((status, {}, b""), (status, {}, b"")) as server:
        answer = fetch(quick(server.url), POST)
        assert len(server.seen) == 3
    assert (answer.status, answer.verdict) == (200, None)


def test_attempts_end_and_the_verdict_says_so() -> None:
    with answering(then=(500, {}, b'{"error": "Zebulon Canary"}')) as server:
        answer = fetch(quick(server.url, attempts=3), POST)
        assert len(server.seen) == 3
        port = server.url.rpartition(":")[2]
    assert answer.verdict is not None
    assert answer.verdict.sentence == (
        "could not post the measures of a member: POST"
        f" http://127.0.0.1:{port}/1.0/member/* answered 500 with an error in 3 attempts;"
        " a retry can clear this"
    )
    assert answer.body == b'{"error": "Zebulon Canary"}'


def test_the_kind_of_an_error_is_told_and_its_words_are_not() -> None:
    body = b'{"errors": ["Zebulon Canary", "x"]}'
    with answering(then=(400, {}, body)) as server:
        target = quick(f"http://user:pass@127.0.0.1:{server.url.rpartition(':')[2]}/?key=hidden")
        answer = fetch(quick(server.url), POST)
    assert answer.verdict is not None
    shown = f"{answer!r} {answer.verdict!r} {answer.verdict.sentence} {target!r} {POST!r}"
    assert "answered 400 with 2 errors" in shown
    for secret in ("Canary", "4711", "s3cret", "token"):
        assert secret not in answer.verdict.sentence
        assert secret not in repr(answer)
    assert "s3cret" not in repr(target)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2.2), usegmt=True)
    wait = "1" if form == "seconds" else later
    with answering((429, {"Retry-After": wait}, b"")) as server:
        answer = fetch(quick(server.url), POST)
        first, second = (at for at, *_ in server.seen)
    assert answer.verdict is None
    assert 0.9 <= second - first < 3.2


def test_429_does_not_use_up_attempts() -> None:
    busy = (429, {"Retry-After": "0"}, b"")
    with answering(*[busy] * 12) as server:
        answer = fetch(quick(server.url, attempts=2, longest_wait=0.02), POST)
        assert len(server.seen) == 13
    assert answer.verdict is None


def test_the_pause_stops_doubling() -> None:
    client = Client(Target("https://qm.clinic.test", longest_wait=60.0))
    busy = _Attempt(429, b"", "answered 429", clears=True)
    for times in (20, 2_000):
        wait = client._wait(busy, 0, times, deadline=float("inf"))
        assert wait is not None
        assert 30 <= wait <= 60


def test_nobody_waits_longer_than_allowed() -> None:
    with answering(then=(429, {"Retry-After": "3600"}, b"")) as server:
        answer = fetch(quick(server.url), POST)
        assert len(server.seen) == 1
    assert answer.verdict is not None
    assert answer.verdict.clears
    with answering(then=(429, {"Retry-After": "0"}, b"")) as server:
        began = time.monotonic()
        answer = fetch(quick(server.url, patience=0.5), POST)
        assert time.monotonic() - began < 2
        assert len(server.seen) > 1
    assert answer.verdict is not None
    assert answer.status == 429


def test_a_pause_that_one_was_asked_for_holds_all_workers() -> None:
    replies = [(429, {"Retry-After": "1"}, b"")]

    async def several(url: str) -> list[Answer]:
        async with Client(quick(url)) as client:
            first = asyncio.create_task(client.send(POST))
            await asyncio.sleep(0.3)
            return list(await asyncio.gather(first, *(client.send(POST) for _ in range(4))))

    with answering(*replies) as server:
        answers = asyncio.run(several(server.url))
        times = [at for at, *_ in server.seen]
    assert [answer.verdict for answer in answers] == [None] * 5
    assert len(times) == 6
    assert all(at - times[0] >= 0.9 for at in times[1:])


def test_a_rate_limit_spaces_requests() -> None:
    async def several(url: str) -> None:
        async with Client(quick(url, per_second=20)) as client:
            await asyncio.gather(*(client.send(POST) for _ in range(11)))

    with answering() as server:
        began = time.monotonic()
        asyncio.run(several(server.url))
        assert 0.5 <= time.monotonic() - began < 2
        assert len(server.seen) == 11


def test_headers_of_a_post() -> None:
    with answering() as server:
        fetch(quick(server.url), POST)
        _at, path, headers = server.seen[0]
    assert path == POST.path
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "the-key"
    assert headers["apiKey"] == "s3cret"


def test_a_redirect_is_not_followed() -> None:
    with answering() as elsewhere, answering(then=(307, {"Location": elsewhere.url}, b"")) as here:
        answer = fetch(quick(here.url), POST)
        assert elsewhere.seen == []
    assert answer.verdict is not None
    assert answer.verdict.kind == "permanent"


def test_a_long_answer_is_cut() -> None:
    with answering(then=(400, {}, b"x" * 1_000_000)) as server:
        answer = fetch(quick(server.url), POST)
    assert len(answer.body) == 16_384


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    answer = fetch(quick(f"http://127.0.0.1:{port}", attempts=2), POST)
    assert answer.verdict is not None
    assert answer.verdict.reason == "refused the connection"
    assert (answer.verdict.clears, answer.verdict.attempts, answer.status) == (True, 2, None)


def test_a_silent_server_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        answer = fetch(quick(url, read_seconds=0.3, attempts=2), POST)
        assert time.monotonic() - began < 3
    assert answer.verdict is not None
    assert answer.verdict.reason == "was not answered in time"


def test_a_server_that_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):
                connection, _peer = server.accept()
                connection.recv(10)
                connection.close()

        Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        answer = fetch(quick(url, attempts=2), POST)
    assert answer.verdict is not None
    assert answer.verdict.reason == "broke the connection before it answered"
    assert answer.verdict.clears


def test_a_target_that_makes_no_sense_is_refused() -> None:
    for url in ("qm.clinic.test", "ftp://qm.clinic.test", "https://"):
        with pytest.raises(ValueError, match="base URL"):
            Target(url)
    for options in ({"connections": 0}, {"attempts": 0}, {"per_second": 0.0}):
        with pytest.raises(ValueError, match="number"):
            Target("https://qm.clinic.test", **options)
