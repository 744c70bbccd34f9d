"""The loop of every push: skip what is unchanged, send the rest, remember what was accepted.

As many workers as the target allows connections pull records from one iterator, so nothing queues
inside the client and no more than that many bodies are in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from urllib.parse import quote

from mirror_assets.delivery.client import Answer, Client, Request, Target
from mirror_assets.delivery.ledger import Acceptance, Entry, LedgerStore, Refusal
from mirror_assets.delivery.verdict import Verdict

_RECIPIENT = "{recipient}"


@dataclass(frozen=True)
class Record:
    """What one recipient is sent: a JSON body of some elements."""

    recipient: str
    body: bytes = field(repr=False)
    elements: int


@dataclass(frozen=True)
class Delivery:
    """What is delivered, where to, and how.

    ``path`` holds ``{recipient}``. ``tried`` is its purpose in a sentence ("post the measures of a
    member"). ``dry_run`` sends and remembers nothing; ``resend_all`` sends unchanged records too.
    ``give_up_after`` records in a row that failed for no reason of their own end the delivery.
    The ledger is written when ``batch`` records or ``batch_seconds`` have come together.
    """

    name: str
    path: str
    tried: str
    partition: date
    run_id: str
    dry_run: bool = False
    resend_all: bool = False
    give_up_after: int = 30
    batch: int = 500
    batch_seconds: float = 1.0


@dataclass(frozen=True)
class DeliveryReport:
    """What became of a delivery, in counts only.

    ``pending`` were not tried: in a dry run those that would be sent, else those left over when the
    delivery was ``stopped``. ``newer`` is the partition that forbids this older one. ``by_status``
    counts answers by status; ``no answer`` counts where there was none. Latencies are those of
    accepted records, in milliseconds.
    """

    partition: date
    recipients: int = 0
    elements: int = 0
    posted: int = 0
    unchanged: int = 0
    refused: int = 0
    pending: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    p50_ms: float | None = None
    p95_ms: float | None = None
    seconds: float = 0.0
    dry_run: bool = False
    newer: date | None = None
    stopped: Verdict | None = None
    clearing: int = 0

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.newer is not None:
            return (
                f"nothing more is sent for {self.partition}: {self.newer} is newer and has been"
                f" delivered or begun ({self.posted} were sent before)"
            )
        counts = (
            f"{self.recipients} recipients with {self.elements} elements: {self.posted} posted,"
            f" {self.unchanged} unchanged, {self.refused} refused, {self.pending} not tried"
        )
        if self.dry_run:
            return f"dry run, nothing was sent; {counts}"
        return f"{counts}; stopped: {self.stopped.sentence}" if self.stopped else counts


def superseded(partition: date, newest: date | None) -> DeliveryReport | None:
    """The report of a delivery for an older day than the newest; None where it may go on."""
    if newest is None or newest <= partition:
        return None
    return DeliveryReport(partition, newer=newest)


def push(
    records: Iterable[Record], delivery: Delivery, target: Target, store: LedgerStore
) -> DeliveryReport:
    """Deliver records to their recipients; refusals are counted and remembered, not raised.

    Another run of the same delivery is waited for, so that a service never meets more connections
    than its target allows. Raises DeliveryFault, or the store's own error, where the ledger cannot
    be read or written.
    """
    if delivery.dry_run:
        return _deliver(records, delivery, target, store)
    store.claim(delivery.name, delivery.partition, delivery.run_id)  # an older day now stops
    # in the ledger and not a pool's limit: it also holds for another instance, and for a terminal
    with store.alone(delivery.name):
        return _deliver(records, delivery, target, store)


def _deliver(
    records: Iterable[Record], delivery: Delivery, target: Target, store: LedgerStore
) -> DeliveryReport:
    too_old = superseded(delivery.partition, store.newest(delivery.name))
    if too_old is not None:
        return too_old
    known = store.accepted(delivery.name)
    return asyncio.run(_Push(records, delivery, target, store, known).run())


class _Push:
    """One delivery under way."""

    def __init__(
        self,
        records: Iterable[Record],
        delivery: Delivery,
        target: Target,
        store: LedgerStore,
        known: dict[str, Entry],
    ) -> None:
        self._delivery = delivery
        self._target = target
        self._known = known
        self._memory = _Memory(store, delivery)
        self._todo = self._changed(records)
        self._shown = delivery.path.replace(_RECIPIENT, "*")
        self._recipients = self._elements = self._unchanged = self._pending = 0
        self._statuses: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._refused = self._clearing = self._in_a_row = 0
        self._stopped: Verdict | None = None

    async def run(self) -> DeliveryReport:
        began = time.monotonic()
        if not self._delivery.dry_run:
            await self._send_all()
        self._pending = sum(1 for _ in self._todo)
        return self._report(time.monotonic() - began)

    async def _send_all(self) -> None:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(self._target))
            stack.push_async_callback(self._memory.write)  # also when something failed
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(self._target.connections):
                        workers.create_task(self._work(client))
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None

    async def _work(self, client: Client) -> None:
        while not self._ended:
            record = next(self._todo, None)
            if record is None:
                return
            await self._send(client, record)
            if self._memory.due:
                await self._memory.write()

    @property
    def _ended(self) -> bool:
        return self._stopped is not None or self._memory.newer is not None

    def _changed(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self._recipients += 1
            self._elements += record.elements
            entry = self._known.get(record.recipient)
            same = entry is not None and entry.digest == digest(record.body)
            if same and not self._delivery.resend_all:
                self._unchanged += 1
            else:
                yield record

    async def _send(self, client: Client, record: Record) -> None:
        answer = await client.send(self._request(record))
        if answer.verdict is None:
            self._took(record, answer)
        else:
            self._refuse(record, answer, answer.verdict)

    def _request(self, record: Record) -> Request:
        return Request(
            method="POST",
            path=self._delivery.path.replace(_RECIPIENT, quote(record.recipient, safe="")),
            shown=self._shown,
            tried=self._delivery.tried,
            body=record.body,
            key=self._key(record),
        )

    def _key(self, record: Record) -> str:
        """The same for a record sent again after a crash, another one after each acceptance."""
        entry = self._known.get(record.recipient)
        before = entry.accepted_at.isoformat() if entry else ""
        parts = (self._delivery.name, record.recipient, digest(record.body), before)
        return digest("\n".join(parts).encode())

    def _took(self, record: Record, answer: Answer) -> None:
        self._in_a_row = 0
        self._statuses[str(answer.status)] += 1
        self._latencies.append(answer.seconds)
        self._memory.accepted.append(
            Acceptance(record.recipient, digest(record.body), datetime.now(UTC))
        )

    def _refuse(self, record: Record, answer: Answer, verdict: Verdict) -> None:
        self._in_a_row = 0 if verdict.about_the_record else self._in_a_row + 1
        if self._in_a_row >= self._delivery.give_up_after:
            self._stopped = self._stopped or verdict
        self._refused += 1
        self._clearing += verdict.clears
        self._statuses[str(answer.status or "no answer")] += 1
        self._reasons[verdict.reason] += 1
        self._memory.refused.append(
            Refusal(
                recipient=record.recipient,
                at=datetime.now(UTC),
                permanent=not verdict.clears,
                status=answer.status,
                reason=verdict.sentence,
                answer=answer.body.decode(errors="replace").replace("\0", "") or None,
            )
        )

    def _report(self, seconds: float) -> DeliveryReport:
        return DeliveryReport(
            partition=self._delivery.partition,
            recipients=self._recipients,
            elements=self._elements,
            posted=len(self._latencies),
            unchanged=self._unchanged,
            refused=self._refused,
            pending=self._pending,
            by_status=dict(sorted(self._statuses.items())),
            reasons=dict(self._reasons.most_common()),
            p50_ms=percentile(self._latencies, 50),
            p95_ms=percentile(self._latencies, 95),
            seconds=round(seconds, 3),
            dry_run=self._delivery.dry_run,
            newer=self._memory.newer,
            stopped=self._stopped,
            clearing=self._clearing,
        )


class _Memory:
    """What the ledger has not been told yet."""

    def __init__(self, store: LedgerStore, delivery: Delivery) -> None:
        self.accepted: list[Acceptance] = []
        self.refused: list[Refusal] = []
        self.newer: date | None = None
        self._store = store
        self._delivery = delivery
        self._writing = asyncio.Lock()
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether to write now; never while somebody is writing."""
        if self._writing.locked():
            return False
        waiting = len(self.accepted) + len(self.refused)
        return waiting >= self._delivery.batch or (
            waiting > 0 and time.monotonic() - self._written >= self._delivery.batch_seconds
        )

    async def write(self) -> None:
        """Write what waits now; what is accepted meanwhile waits for the next time."""
        async with self._writing:
            accepted, refused = self.accepted[:], self.refused[:]
            if not accepted and not refused:
                return
            delivery = self._delivery
            newest = await asyncio.to_thread(
                self._store.record,
                delivery.name,
                delivery.partition,
                delivery.run_id,
                accepted,
                refused,
            )
            del self.accepted[: len(accepted)], self.refused[: len(refused)]
            self._written = time.monotonic()
            if newest > delivery.partition:
                self.newer = newest


def digest(data: bytes) -> str:
    """The SHA-256 of a body, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def percentile(seconds: Sequence[float], percent: int) -> float | None:
    """The nearest-rank percentile in milliseconds; None of nothing."""
    if not seconds:
        return None
    rank = math.ceil(len(seconds) * percent / 100)
    return round(1000 * sorted(seconds)[rank - 1], 2)
