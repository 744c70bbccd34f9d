"""The service and its database, as a test speaks to them."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Self

from mirror_assets.delivery.client import Target
from mirror_assets.delivery.ledger import TABLES, PostgresLedger
from mirror_assets.sample import quality_measure
from mirror_assets.sample.servers import ADMIN, PostgreSQL
from tests.delivery.faulty_service import FaultyService

_numbers = itertools.count(1)
KEYS = {
    "API_KEY_ABLE": "able-secret",
    "API_KEY_COMMONS": "commons-secret",
    "API_KEY_ELATION": "elation-secret",
}


def member(number: int) -> str:
    """The UUID of an invented member."""
    return f"00000000-0000-4000-a000-{number:012}"


@contextmanager
def empty_ledger(server: PostgreSQL) -> Iterator[PostgresLedger]:
    """A ledger in a database that all tests share, without entries."""
    server.create_database("ledger_under_test")
    with closing(PostgresLedger(server.url("ledger_under_test", ADMIN))) as ledger:
        ledger.newest("any")  # creates the tables
        with closing(server.admin("ledger_under_test")) as admin, admin.cursor() as cursor:
            cursor.execute("TRUNCATE " + ", ".join(table.name for table in TABLES))
        yield ledger


class Measures:
    """A service with production keys; ``run`` and ``ask`` go to its database."""

    def __init__(self, server: PostgreSQL, service: FaultyService, database: str) -> None:
        self._server = server
        self.service = service
        self.database = database

    @classmethod
    @contextmanager
    def started(cls, server: PostgreSQL) -> Iterator[Self]:
        database = f"measures_{next(_numbers)}"
        quality_measure.create(server, database=database, scale=0.001)
        service = FaultyService(server.url(database, ADMIN), keys=KEYS)
        try:
            yield cls(server, service, database)
        finally:
            service.kill()

    def clear(self) -> None:
        self.service.faults()
        self.run("TRUNCATE member_measure")

    def run(self, statement: str, *values: object) -> None:
        with closing(self._server.admin(self.database)) as admin, admin.cursor() as cursor:
            cursor.execute(statement, values or None)

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(self._server.admin(self.database)) as admin, admin.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall()

    def target(self, **options: Any) -> Target:
        """The service for Elation, with short waits."""
        quick = {"backoff_seconds": 0.02, "longest_wait": 2.0}
        return Target(self.service.url, {"apiKey": "elation-secret"}, **quick | options)

    def call(
        self, method: str, path: str, body: object = None, *, key: str | None = "elation-secret"
    ) -> tuple[int, Any]:
        """Status and answer (JSON where it is) of a request."""
        request = urllib.request.Request(
            self.service.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={} if key is None else {"APIKEY": key},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _read(error.read())

    def post(
        self, elements: object, *, who: str = member(1), source: str = "elation"
    ) -> tuple[int, Any]:
        return self.call("POST", f"/1.0/member/{who}/measures", elements, key=f"{source}-secret")

    def opened(
        self, measure: int, set_on: str, *, who: str = member(1), status: str = "open"
    ) -> None:
        """Let Able open a measure."""
        year = int(set_on[:4])
        element = {"id": measure, "status": status, "setOn": set_on, "performanceYear": year}
        assert self.post([element], who=who, source="able") == (200, "OK")

    def open_for(self, members: Sequence[str], measure: int = 1) -> None:
        """Let Able have opened a measure of many members on 2021-02-01."""
        self.run(
            'INSERT INTO member_measure ("memberId", "measureId", "sourceId", "statusId", "setOn",'
            ' "createdAt", "updatedAt")'
            " SELECT unnest(%s::uuid[]), %s, 1, 2, '2021-02-01T00:00:00Z', now(), now()",
            list(members),
            measure,
        )

    def events(self, who: str | None = None) -> list[tuple[Any, ...]]:
        """Measure, source, status, and the moment in UTC of each event, oldest first."""
        return self.ask(
            'SELECT e."measureId", o.name, s.name,'
            """ to_char(e."setOn" AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')"""
            ' FROM member_measure e JOIN member_measure_source o ON o.id = e."sourceId"'
            ' JOIN member_measure_status s ON s.id = e."statusId"'
            ' WHERE %s::text IS NULL OR e."memberId"::text = %s ORDER BY e."setOn", e.id',
            who,
            who,
        )


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
