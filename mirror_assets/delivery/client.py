"""The HTTP client of every push: few connections, bounded waiting, retries for what can clear.

Built on aiohttp: at 15 connections over loopback and 20 ms of service time it made as many requests
per second as the server allowed (620 against 590 of httpx) with a sixth of the CPU time (0.20 ms
against 1.25 ms per request).
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mirror_assets.delivery.verdict import Verdict, answered, clears, safe_url

if TYPE_CHECKING:
    import aiohttp

IDEMPOTENCY_KEY = "Idempotency-Key"
_TOO_MANY = 429
_UNAVAILABLE = 503
#: A service that asks for less means none: its zero, or a date told by another clock.
_SHORTEST_ASKED = 1.0
#: Doubling the pause ends here: far beyond every ``longest_wait``, and still a number.
_DOUBLINGS = 32
#: An error text is kept this far; it is only read by people.
_ERROR_BYTES = 16_384


@dataclass(frozen=True)
class Target:
    """A service, and how it may be used. ``headers`` may hold secrets and are never shown.

    Times are in seconds. ``read_seconds`` is the longest silence within one attempt and
    ``answer_seconds`` the longest attempt; neither counts waiting for a turn. A request is tried
    ``attempts`` times; answers 429 do not count, but nothing is waited for longer than ``patience``
    in all or ``longest_wait`` at once.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connections: int = 15
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    answer_seconds: float = 120.0
    attempts: int = 4
    backoff_seconds: float = 0.5
    longest_wait: float = 60.0
    patience: float = 300.0
    per_second: float | None = None

    def __post_init__(self) -> None:
        safe_url(self.base_url, "")
        if self.connections < 1 or self.attempts < 1:
            raise ValueError("connections and attempts are numbers from 1")
        if self.per_second is not None and self.per_second <= 0:
            raise ValueError("per_second is a number above 0, or none for no limit")


@dataclass(frozen=True)
class Request:
    """One request. ``shown`` is the path as it may be shown, ``tried`` its purpose ("post ..").

    ``longest_answer`` bounds how many bytes of the answer are kept.
    """

    method: str
    path: str
    shown: str
    tried: str
    body: bytes | None = field(default=None, repr=False)
    key: str | None = None
    longest_answer: int = _ERROR_BYTES


@dataclass(frozen=True)
class Answer:
    """What came of a request; ``verdict`` is None when it was accepted (2xx).

    ``body`` are the service's own words, which may quote a record: never to be logged or raised.
    ``seconds`` is the time of the last attempt.
    """

    status: int | None
    body: bytes = field(repr=False)
    seconds: float
    verdict: Verdict | None


@dataclass(frozen=True)
class _Attempt:
    """The outcome of one attempt; ``wait`` is what the service asked for, a second or more."""

    status: int | None
    body: bytes
    reason: str
    clears: bool
    wait: float | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Client:
    """An open session with one target; used as ``async with Client(target) as client``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._opened: aiohttp.ClientSession | None = None
        self._pause_until = 0.0
        self._next_slot = 0.0

    async def __aenter__(self) -> Self:
        import aiohttp  # here, because it would slow down loading the code location

        target = self._target
        self._opened = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=target.connections),
            headers=target.headers,
            timeout=aiohttp.ClientTimeout(
                total=target.answer_seconds,
                sock_connect=target.connect_seconds,
                sock_read=target.read_seconds,
            ),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def send(self, request: Request) -> Answer:
        """Send a request until it is accepted, refused for good, or patience ends. Never raises
        for what the service or the network did.
        """
        deadline = time.monotonic() + self._target.patience
        tries = busy = 0
        while True:
            await self._turn()
            began = time.monotonic()
            attempt = await self._attempt(request)
            seconds = time.monotonic() - began
            if attempt.accepted:
                return Answer(attempt.status, attempt.body, seconds, None)
            tries += 1
            busy += attempt.status == _TOO_MANY
            wait = self._wait(attempt, tries - busy, busy, deadline)
            if wait is None:
                verdict = self._verdict(request, attempt, tries)
                return Answer(attempt.status, attempt.body, seconds, verdict)
            if attempt.status == _TOO_MANY or attempt.wait is not None:
                self._pause_until = max(self._pause_until, time.monotonic() + wait)
            else:
                await asyncio.sleep(wait)

    async def _attempt(self, request: Request) -> _Attempt:
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        if request.key is not None:
            headers[IDEMPOTENCY_KEY] = request.key
        assert self._opened is not None, "a client is used within `async with`"
        import aiohttp

        try:
            async with self._opened.request(
                request.method,
                self._target.base_url.rstrip("/") + request.path,
                data=request.body,
                headers=headers,
                allow_redirects=False,  # another host must not get the headers
            ) as response:
                body = await _read(response, request.longest_answer)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            permanent = (aiohttp.InvalidURL, aiohttp.ClientSSLError, ssl.SSLError)
            return _Attempt(None, b"", _unanswered(error), not isinstance(error, permanent))
        status = response.status
        wait = _asked(response) if status in {_TOO_MANY, _UNAVAILABLE} else None
        return _Attempt(status, body, answered(status, body), clears(status), wait)

    def _wait(self, attempt: _Attempt, faults: int, busy: int, deadline: float) -> float | None:
        """Seconds before the next attempt; None when there must not be another one."""
        target = self._target
        if not attempt.clears or faults >= target.attempts:
            return None
        if attempt.wait is None:
            doubled = target.backoff_seconds * 2 ** min(faults + busy - 1, _DOUBLINGS)
            longest = min(target.longest_wait, doubled)
            wait = longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        elif attempt.wait > target.longest_wait:
            return None
        else:
            wait = attempt.wait
        return wait if time.monotonic() + wait < deadline else None

    async def _turn(self) -> None:
        """Wait while the service asked everybody to wait, then for a slot of the rate limit."""
        while (left := self._pause_until - time.monotonic()) > 0:
            # not all at the same moment
            await asyncio.sleep(left + random.uniform(0, 0.1))  # noqa: S311
        if self._target.per_second is None:
            return
        now = time.monotonic()
        slot = max(now, self._next_slot)
        self._next_slot = slot + 1 / self._target.per_second
        await asyncio.sleep(slot - now)

    def _verdict(self, request: Request, attempt: _Attempt, attempts: int) -> Verdict:
        return Verdict(
            kind="transient" if attempt.clears else "permanent",
            tried=request.tried,
            method=request.method,
            url=safe_url(self._target.base_url, request.shown),
            status=attempt.status,
            reason=attempt.reason,
            attempts=attempts,
        )


def fetch(target: Target, request: Request) -> Answer:
    """One request with a session of its own."""

    async def once() -> Answer:
        async with Client(target) as client:
            return await client.send(request)

    return asyncio.run(once())


async def _read(response: aiohttp.ClientResponse, longest: int) -> bytes:
    """The answer's first bytes; a longer rest is not waited for."""
    kept = bytearray()
    async for chunk in response.content.iter_any():
        kept += chunk
        if len(kept) >= longest:
            response.close()
            break
    return bytes(kept[:longest])


def _asked(response: aiohttp.ClientResponse) -> float | None:
    """Seconds of ``Retry-After``; None where it asks for no wait, and ours grows by itself."""
    seconds = _seconds(response.headers.get("Retry-After", "").strip())
    return seconds if seconds >= _SHORTEST_ASKED else None


def _seconds(told: str) -> float:
    """From now, of a number or a date; 0 where it is neither."""
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()


def _unanswered(error: Exception) -> str:
    """What the network did, in our words: an error's own text may quote the address."""
    import aiohttp

    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "could not connect in time"
    if isinstance(error, TimeoutError):
        return "was not answered in time"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "has no valid certificate"
    if isinstance(error, aiohttp.InvalidURL):
        return "is no valid address"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "has a host name that is not known"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused the connection"
    return "broke the connection before it answered"
