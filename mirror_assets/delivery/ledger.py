"""The delivery ledger: what each recipient last accepted, so that nothing is sent twice.

An entry is written after the acceptance it tells of. A crash between the two costs a request that
is sent again under the same idempotency key, never a record that is missing. The ledger also
remembers the newest partition of each delivery, so that an old day never overwrites a newer one.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from mirror_assets.delivery.verdict import DeliveryFault

if TYPE_CHECKING:
    from sqlalchemy.dialects.postgresql import Insert

T = TypeVar("T")
Row = dict[str, Any]


class LedgerColumn(NamedTuple):
    """A column by its logical type: STRING, INT64, BOOL, DATE or TIMESTAMP."""

    name: str
    type: str
    required: bool = True


@dataclass(frozen=True)
class LedgerTable:
    """A table of the ledger; its rows are told apart by ``key``."""

    name: str
    key: tuple[str, ...]
    columns: tuple[LedgerColumn, ...]


ACCEPTED = LedgerTable(
    "DELIVERY_LEDGER",
    ("delivery", "recipient"),
    (
        LedgerColumn("delivery", "STRING"),
        LedgerColumn("recipient", "STRING"),
        LedgerColumn("digest", "STRING"),
        LedgerColumn("accepted_at", "TIMESTAMP"),
        LedgerColumn("partition", "DATE"),
        LedgerColumn("run_id", "STRING"),
    ),
)
REFUSED = LedgerTable(
    "DELIVERY_REFUSALS",
    ("delivery", "run_id", "recipient"),
    (
        LedgerColumn("delivery", "STRING"),
        LedgerColumn("run_id", "STRING"),
        LedgerColumn("recipient", "STRING"),
        LedgerColumn("partition", "DATE"),
        LedgerColumn("refused_at", "TIMESTAMP"),
        LedgerColumn("permanent", "BOOL"),
        LedgerColumn("status", "INT64", required=False),
        LedgerColumn("reason", "STRING"),
        LedgerColumn("answer", "STRING", required=False),
    ),
)
NEWEST = LedgerTable(
    "DELIVERY_NEWEST",
    ("delivery",),
    (
        LedgerColumn("delivery", "STRING"),
        LedgerColumn("partition", "DATE"),
        LedgerColumn("run_id", "STRING"),
        LedgerColumn("begun_at", "TIMESTAMP"),
    ),
)
TABLES = (ACCEPTED, REFUSED, NEWEST)
#: Where the ledger lies in a warehouse.
DATASET = "deliveries"
#: Answers of a service may quote a record; nobody asks for them after a month.
REFUSAL_DAYS = 30
#: Advisory locks of deliveries under way begin here, apart from those of a lake's catalog.
_ALONE = 8 << 32
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Entry:
    """What a recipient last accepted, and when (UTC)."""

    digest: str
    accepted_at: datetime


@dataclass(frozen=True)
class Acceptance:
    """A record that the service took just now."""

    recipient: str
    digest: str
    at: datetime


@dataclass(frozen=True)
class Refusal:
    """A record that was not taken. ``answer`` is the service's own text, which may quote it."""

    recipient: str
    at: datetime
    permanent: bool
    status: int | None
    reason: str
    answer: str | None


class LedgerStore(Protocol):
    """Where a ledger is kept. Every method is one transaction; it may be called from any thread."""

    def newest(self, delivery: str) -> date | None:
        """The newest partition whose delivery has begun; None before the first."""

    def claim(self, delivery: str, partition: date, run_id: str) -> date:
        """Begin a partition: remember it unless a newer one is known; the newest now."""

    def alone(self, delivery: str) -> AbstractContextManager[None]:
        """While it is held, no other process holds it; a killed one gives it up. Waits for it."""

    def accepted(self, delivery: str) -> dict[str, Entry]:
        """The entry of every recipient."""

    def record(
        self,
        delivery: str,
        partition: date,
        run_id: str,
        accepted: Sequence[Acceptance],
        refused: Sequence[Refusal],
    ) -> date:
        """Write a batch, replacing the entries of its recipients; the newest partition now."""

    def forget_refusals(self, before: date) -> None:
        """Delete the refusals of partitions before a day, of every delivery."""


class LedgerTransaction(Protocol):
    """What the ledger asks of a warehouse's transaction."""

    def schema(self, dataset: str, table: str, /) -> Any:
        """None when there is no such table."""

    def create_table(
        self, dataset: str, table: str, schema: Any, /, *, partitioned: bool
    ) -> None: ...

    def select(
        self, dataset: str, table: str, columns: Sequence[str], /, **equal: Any
    ) -> list[Row]: ...

    def replace_rows(
        self, dataset: str, table: str, rows: Sequence[Row], /, **equal: Any
    ) -> None: ...

    def delete_before(self, dataset: str, table: str, column: str, day: date, /) -> None: ...


class LedgerWarehouse(Protocol):
    """A warehouse that can hold a ledger: it commits a body as one transaction, and lends a name
    to one process at a time.
    """

    def commit(self, body: Callable[[Any], T]) -> T: ...

    def alone(self, name: str, /) -> AbstractContextManager[None]: ...


class WarehouseLedger:
    """A ledger in a dataset of the warehouse.

    ``schemas`` are the warehouse's own schemas of ``TABLES``, by table name.
    """

    def __init__(
        self, warehouse: LedgerWarehouse, dataset: str, schemas: Mapping[str, Any]
    ) -> None:
        self._warehouse = warehouse
        self._dataset = dataset
        self._schemas = schemas

    def newest(self, delivery: str) -> date | None:
        return self._warehouse.commit(lambda tx: self._newest(tx, delivery))

    def claim(self, delivery: str, partition: date, run_id: str) -> date:
        def body(tx: LedgerTransaction) -> date:
            for table in TABLES:
                if tx.schema(self._dataset, table.name) is None:
                    schema = self._schemas[table.name]
                    tx.create_table(self._dataset, table.name, schema, partitioned=False)
            newest = self._newest(tx, delivery)
            if newest is not None and newest >= partition:
                return newest
            row = {
                "delivery": delivery,
                "partition": partition,
                "run_id": run_id,
                "begun_at": datetime.now(UTC),
            }
            tx.replace_rows(self._dataset, NEWEST.name, [row], delivery=delivery)
            return partition

        return self._warehouse.commit(body)

    def alone(self, delivery: str) -> AbstractContextManager[None]:
        return self._warehouse.alone(f"delivery_{delivery}")

    def accepted(self, delivery: str) -> dict[str, Entry]:
        def body(tx: LedgerTransaction) -> list[Row]:
            if tx.schema(self._dataset, ACCEPTED.name) is None:
                return []
            columns = ("recipient", "digest", "accepted_at")
            return tx.select(self._dataset, ACCEPTED.name, columns, delivery=delivery)

        rows = self._warehouse.commit(body)
        return {row["recipient"]: Entry(row["digest"], row["accepted_at"]) for row in rows}

    def record(
        self,
        delivery: str,
        partition: date,
        run_id: str,
        accepted: Sequence[Acceptance],
        refused: Sequence[Refusal],
    ) -> date:
        rows = _accepted_rows(delivery, partition, run_id, accepted)
        refusals = _refused_rows(delivery, partition, run_id, refused)

        def body(tx: LedgerTransaction) -> date:
            if rows:
                recipients = [row["recipient"] for row in rows]
                self._replace(tx, ACCEPTED, rows, delivery=delivery, recipient=recipients)
            if refusals:
                recipients = [row["recipient"] for row in refusals]
                of_run = {"delivery": delivery, "run_id": run_id}
                self._replace(tx, REFUSED, refusals, **of_run, recipient=recipients)
            return self._newest(tx, delivery) or partition

        return self._warehouse.commit(body)

    def forget_refusals(self, before: date) -> None:
        def body(tx: LedgerTransaction) -> None:
            if tx.schema(self._dataset, REFUSED.name) is not None:
                tx.delete_before(self._dataset, REFUSED.name, "partition", before)

        self._warehouse.commit(body)

    def _replace(
        self, tx: LedgerTransaction, table: LedgerTable, rows: Sequence[Row], /, **equal: Any
    ) -> None:
        tx.replace_rows(self._dataset, table.name, rows, **equal)

    def _newest(self, tx: LedgerTransaction, delivery: str) -> date | None:
        if tx.schema(self._dataset, NEWEST.name) is None:
            return None
        rows = tx.select(self._dataset, NEWEST.name, ("partition",), delivery=delivery)
        return max((row["partition"] for row in rows), default=None)


_SQL_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "STRING": sa.Text(),
    "INT64": sa.BigInteger(),
    "BOOL": sa.Boolean(),
    "DATE": sa.Date(),
    "TIMESTAMP": sa.DateTime(timezone=True),
}
_METADATA = sa.MetaData()


def _declared(table: LedgerTable) -> sa.Table:
    return sa.Table(
        table.name.lower(),
        _METADATA,
        *(
            sa.Column(
                column.name,
                _SQL_TYPES[column.type],
                primary_key=column.name in table.key,
                nullable=not column.required,
            )
            for column in table.columns
        ),
    )


_ACCEPTED, _REFUSED, _NEWEST = map(_declared, TABLES)


class PostgresLedger:
    """A ledger in a PostgreSQL database, in tables of the default schema that it creates."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)

    def close(self) -> None:
        self._engine.dispose()

    def newest(self, delivery: str) -> date | None:
        return self._commit(lambda connection: _newest(connection, delivery))

    def claim(self, delivery: str, partition: date, run_id: str) -> date:
        mine = _insert(_NEWEST).values(
            delivery=delivery, partition=partition, run_id=run_id, begun_at=datetime.now(UTC)
        )
        unless_newer = mine.on_conflict_do_update(
            index_elements=NEWEST.key,
            set_={name: mine.excluded[name] for name in ("partition", "run_id", "begun_at")},
            where=_NEWEST.c.partition < mine.excluded.partition,
        )

        def body(connection: sa.Connection) -> date:
            connection.execute(unless_newer)
            return _newest(connection, delivery) or partition

        return self._commit(body)

    @contextmanager
    def alone(self, delivery: str) -> Iterator[None]:
        mine = sa.select(sa.func.pg_try_advisory_lock(_ALONE + zlib.crc32(delivery.encode())))
        with _edge(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # from the pool: its end is the lock's end
            while not connection.scalar(mine):
                time.sleep(_POLL_SECONDS)  # and not in the driver, which hears of no signal
            yield

    def accepted(self, delivery: str) -> dict[str, Entry]:
        columns = (_ACCEPTED.c.recipient, _ACCEPTED.c.digest, _ACCEPTED.c.accepted_at)
        statement = sa.select(*columns).where(_ACCEPTED.c.delivery == delivery)

        def body(connection: sa.Connection) -> dict[str, Entry]:
            rows = connection.execute(statement)
            return {row.recipient: Entry(row.digest, row.accepted_at) for row in rows}

        return self._commit(body)

    def record(
        self,
        delivery: str,
        partition: date,
        run_id: str,
        accepted: Sequence[Acceptance],
        refused: Sequence[Refusal],
    ) -> date:
        def body(connection: sa.Connection) -> date:
            _upsert(connection, ACCEPTED, _accepted_rows(delivery, partition, run_id, accepted))
            _upsert(connection, REFUSED, _refused_rows(delivery, partition, run_id, refused))
            return _newest(connection, delivery) or partition

        return self._commit(body)

    def forget_refusals(self, before: date) -> None:
        statement = sa.delete(_REFUSED).where(_REFUSED.c.partition < before)
        self._commit(lambda connection: connection.execute(statement))

    def _commit(self, body: Callable[[sa.Connection], T]) -> T:
        """A transaction."""
        with _edge(), self._engine.begin() as connection:
            _create_tables(connection)
            return body(connection)


@contextmanager
def _edge() -> Iterator[None]:
    """The database's errors as ours, because the driver's may quote recipients."""
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        raise DeliveryFault(
            f"the delivery ledger's database failed with {type(error).__name__};"
            " check that it is reachable and that the login may create and write tables",
            transient=True,
        ) from None


def _create_tables(connection: sa.Connection) -> None:
    if sa.inspect(connection).has_table(_NEWEST.name):
        return
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(7316021553)"))  # one creates them
    _METADATA.create_all(connection)


def _newest(connection: sa.Connection, delivery: str) -> date | None:
    statement = sa.select(_NEWEST.c.partition).where(_NEWEST.c.delivery == delivery)
    return connection.execute(statement).scalar_one_or_none()


def _insert(table: sa.Table) -> Insert:
    # here, because it would slow down loading the code location
    from sqlalchemy.dialects.postgresql import insert

    return insert(table)


def _upsert(connection: sa.Connection, table: LedgerTable, rows: Sequence[Row]) -> None:
    if not rows:
        return
    statement = _insert(_METADATA.tables[table.name.lower()])
    names = [column.name for column in table.columns if column.name not in table.key]
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=table.key, set_={name: statement.excluded[name] for name in names}
        ),
        # in one order, so that two runs at once do not block each other
        sorted(rows, key=lambda row: str(row["recipient"])),
    )


def _accepted_rows(
    delivery: str, partition: date, run_id: str, accepted: Sequence[Acceptance]
) -> list[Row]:
    last = {item.recipient: item for item in accepted}
    return [
        {
            "delivery": delivery,
            "recipient": item.recipient,
            "digest": item.digest,
            "accepted_at": item.at,
            "partition": partition,
            "run_id": run_id,
        }
        for item in last.values()
    ]


def _refused_rows(
    delivery: str, partition: date, run_id: str, refused: Sequence[Refusal]
) -> list[Row]:
    last = {item.recipient: item for item in refused}
    return [
        {
            "delivery": delivery,
            "run_id": run_id,
            "recipient": item.recipient,
            "partition": partition,
            "refused_at": item.at,
            "permanent": item.permanent,
            "status": item.status,
            "reason": item.reason,
            "answer": item.answer,
        }
        for item in last.values()
    ]
