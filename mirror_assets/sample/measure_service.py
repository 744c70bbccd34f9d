"""A sample quality-measure service: the real one's HTTP contract over its sample database.

``python -m mirror_assets.sample.measure_service --url <SQLAlchemy URL> --port <port>``; port 0
takes a free one, which the first line it prints names. The header ``apiKey`` says who calls.
"""

import json
import math
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import anyio
import click
import sqlalchemy as sa
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

SOURCES = ("able", "commons", "elation")
"""Who may call; without keys of its own the service takes these words for keys."""

MAX_BODY_BYTES = 5_000_000
_POOL = 50
_ACQUIRE_SECONDS = 10
#: Rows of the sample have small ids, and more are added to them later.
_FIRST_ID = 1_000_000_000
_SAME_GROUP = {3: 2, 17: 16}
_FLU = ("FVA", "FVO")

Element = dict[str, Any]


class Refused(Exception):  # noqa: N818
    """A request that is answered with an error."""

    def __init__(self, status: int, content: dict[str, Any]) -> None:
        self.status = status
        self.content = content
        super().__init__(status)


def app(
    engine: sa.Engine, keys: Mapping[str, str] | None, *, max_body_bytes: int = MAX_BODY_BYTES
) -> Starlette:
    """The service over a database; ``keys`` are source words by API key, None in development."""
    _prepare(engine)
    service = Service(engine)
    guard = _Guard(keys, max_body_bytes)
    member = "/1.0/member/{member_id}/measures"
    return Starlette(
        routes=[
            Route("/1.0/measures", guard(service.measures)),
            Route("/1.0/elationmap", guard(service.elation_map)),
            Route(member, guard(service.statuses), methods=["GET"]),
            Route(member, guard(service.set_statuses), methods=["POST"]),
            Route("/1.0/members", guard(service.members), methods=["POST"]),
        ],
    )


class _Guard:
    """Who calls, how much they send, and how errors are answered."""

    def __init__(self, keys: Mapping[str, str] | None, max_body_bytes: int) -> None:
        self._keys = keys
        self._max_body_bytes = max_body_bytes

    def __call__(
        self, handler: Callable[[Request, str, bytes], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                source = self._source(request.headers.get("apiKey"))
                body = await self._body(request)
                return await run_in_threadpool(handler, request, source, body)
            except Refused as refused:
                return JSONResponse(refused.content, refused.status)
            except sa.exc.SQLAlchemyError as error:
                message = str(getattr(error, "orig", None) or error).strip()
                return JSONResponse({"error": message}, 500)

        return endpoint

    def _source(self, key: str | None) -> str:
        if self._keys is None:
            if key in SOURCES:
                return str(key)
            raise Refused(403, {"error": "incorrect apiKey"})
        if key is None:
            raise Refused(400, {"error": "missing apiKey"})
        if key not in self._keys:
            raise Refused(403, {"error": "incorrect apiKey"})
        return self._keys[key]

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise HTTPException(413, "request entity too large")
        return bytes(body)


class Service:
    """The handlers; each call is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def measures(self, _request: Request, _source: str, _body: bytes) -> Response:
        """All measures that are not deleted, whole rows."""
        with self._engine.begin() as connection:
            rows = _rows(
                connection,
                'SELECT *, "triggerCloseBy"::text AS "triggerCloseBy" FROM measure'
                ' WHERE "deletedAt" IS NULL ORDER BY id',
            )
        return JSONResponse([{name: _plain(value) for name, value in row.items()} for row in rows])

    def elation_map(self, _request: Request, _source: str, _body: bytes) -> Response:
        """Which tag stands for which measure and status."""
        with self._engine.begin() as connection:
            rows = _rows(
                connection,
                'SELECT m."codeType", m.code, m."measureId", s.name AS "statusName"'
                ' FROM elation_map m JOIN member_measure_status s ON s.id = m."statusId"'
                ' WHERE m."deletedAt" IS NULL ORDER BY m.id',
            )
        return JSONResponse(rows)

    def statuses(self, request: Request, _source: str, _body: bytes) -> Response:
        """A member's current statuses among the measures of a market."""
        member = _member(request)
        slug = request.query_params.get("marketSlug")
        if not slug:
            raise Refused(400, {"error": "missing marketSlug"})
        with self._engine.begin() as connection:
            return JSONResponse(_current(connection, member, slug))

    def set_statuses(self, request: Request, source: str, body: bytes) -> Response:
        """Take statuses of a member; which of them become events is the rules' business."""
        member = _member(request)
        elements = _elements(body, source)
        with self._engine.begin() as connection:
            _apply(connection, member, source, elements)
            if source == "commons":
                return JSONResponse(_current(connection, member, None))
        return PlainTextResponse("OK")

    def members(self, request: Request, _source: str, body: bytes) -> Response:
        """The members of a list whose newest events match."""
        wanted = _listed(request, "measureIds")
        names = _listed(request, "measureStatusNames")
        if not wanted and not names:
            raise Refused(400, {"error": "measureIds or measureStatusNames is required"})
        if not all(word.isdecimal() for word in wanted):
            raise Refused(400, {"error": "measureIds must be numbers"})
        told = _parsed(body)
        ids = told.get("memberIds") if isinstance(told, dict) else None
        if not isinstance(ids, list) or not ids or not all(map(_is_uuid, ids)):
            raise Refused(400, {"error": "memberIds must be a list of UUIDs"})
        with self._engine.begin() as connection:
            return JSONResponse(_matching(connection, ids, {int(word) for word in wanted}, names))


# --- What a request must hold ---------------------------------------------------------------


def _member(request: Request) -> str:
    member = str(request.path_params["member_id"])
    if not _is_uuid(member):
        raise Refused(400, {"error": "memberId must be a UUID"})
    return member


def _listed(request: Request, name: str) -> list[str]:
    texts = request.query_params.getlist(name)
    return [word for text in texts for word in text.split(",") if word]


def _parsed(body: bytes) -> Any:
    with suppress(ValueError):
        return json.loads(body)
    return None


def _elements(body: bytes, source: str) -> list[Element]:
    """The elements of a post. Raises Refused with one message for each rule that any breaks."""
    told = _parsed(body)
    if not isinstance(told, list):
        raise Refused(400, {"errors": ["the body must be an array"]})
    elements: list[Element] = [item if isinstance(item, dict) else {} for item in told]
    errors = list(_broken_rules(elements, source))
    if errors:
        raise Refused(400, {"errors": errors})
    return elements


def _broken_rules(elements: Sequence[Element], source: str) -> Iterable[str]:
    if not all(map(_names_measure, elements)):
        yield "each element needs an id, or a code and a rateId"
    if not all(_is_text(e.get("status")) and _instant(e.get("setOn")) for e in elements):
        yield "each element needs a status"
        yield "each element needs a setOn in ISO 8601"
    if not all(e.get("reason") is None or _is_text(e["reason"]) for e in elements):
        yield "a reason must be null or a text that is not empty"
    if source == "commons" and not all(_is_uuid(e.get("userId")) for e in elements):
        yield "each element needs a userId that is a UUID"
    has_year = [_is_number(e.get("performanceYear")) for e in elements]
    if source == "able" and not all(has_year):
        yield "each element needs a performanceYear"
    if source != "able" and all(has_year):  # of all, thus also of none
        yield "a performanceYear must not be sent"


def _names_measure(element: Element) -> bool:
    if _is_number(element.get("id")):
        return True
    rate = element.get("rateId", "")
    return _is_text(element.get("code")) and (rate is None or rate == 0 or _is_number(rate))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object) -> bool:
    """A number that is not zero; JSON's true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value != 0


def _is_uuid(value: object) -> bool:
    with suppress(ValueError):
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    return False


def _instant(value: object) -> datetime | None:
    """An ISO 8601 text as an instant; UTC where it names no offset."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
    return None


# --- What becomes an event ------------------------------------------------------------------


@dataclass(frozen=True)
class _Change:
    """An element with its measure, its status and the event before it."""

    element: Element
    measure: int
    status: int
    set_on: datetime
    previous: dict[str, Any] | None


def _apply(
    connection: sa.Connection, member: str, source: str, elements: Sequence[Element]
) -> None:
    """Look up what was before each element, before any is inserted; then insert or confirm."""
    changes = _changes(connection, member, elements)
    source_id: int = connection.execute(
        sa.text("SELECT id FROM member_measure_source WHERE name = :name"), {"name": source}
    ).scalar_one()
    added, confirmed = [], []
    for change in changes:
        previous = change.previous
        if previous is not None and previous["statusId"] == change.status:
            confirmed.append({"id": previous["id"]})
        elif source == "able" if previous is None else change.set_on > previous["setOn"]:
            added.append(_event(change, member, source_id))
    if confirmed:
        connection.execute(sa.text(_CONFIRM), confirmed)
    if added:
        connection.execute(sa.text(_INSERT), added)


def _changes(connection: sa.Connection, member: str, elements: Sequence[Element]) -> list[_Change]:
    measures = _rows(
        connection, 'SELECT id, code, "rateId", type FROM measure WHERE "deletedAt" IS NULL'
    )
    by_id = {measure["id"]: measure for measure in measures}
    by_code = {(measure["code"], measure["rateId"]): measure for measure in measures}
    statuses = {
        row["name"]: row["id"]
        for row in _rows(connection, "SELECT id, name FROM member_measure_status")
    }
    events = _events(connection, member)
    changes = []
    for element in elements:
        rate = element.get("rateId") or 0
        measure = by_id.get(element.get("id")) or (
            None if element.get("id") else by_code.get((element.get("code"), rate))
        )
        if measure is None:
            continue
        status = element["status"]
        if status not in statuses:
            raise Refused(500, {"error": f"unknown status {status}"})
        if status == "provClosed" and measure["type"] == "outcome":
            raise Refused(500, {"error": "an outcome measure cannot be provClosed"})
        set_on = _instant(element["setOn"])
        assert set_on is not None, "was validated"
        start, end = performance_year(measure["code"], set_on)
        before = [
            event
            for event in events.get(measure["id"], ())
            if start <= event["setOn"].astimezone(UTC).date() < end
        ]
        previous = max(before, key=lambda event: (event["setOn"], event["id"]), default=None)
        changes.append(_Change(element, measure["id"], statuses[status], set_on, previous))
    return changes


def _events(connection: sa.Connection, member: str) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in _rows(
        connection,
        'SELECT id, "measureId", "statusId", "setOn" FROM member_measure'
        ' WHERE "memberId" = :member AND "deletedAt" IS NULL',
        member=member,
    ):
        found.setdefault(row["measureId"], []).append(row)
    return found


def _event(change: _Change, member: str, source: int) -> dict[str, Any]:
    year = change.element.get("performanceYear")
    return {
        "member": member,
        "measure": change.measure,
        "source": source,
        "status": change.status,
        "reason": change.element.get("reason"),
        "set_on": change.set_on,
        "user": change.element.get("userId"),
        "year": None if year is None else math.trunc(year),
    }


_CONFIRM = 'UPDATE member_measure SET "lastConfirmed" = now(), "updatedAt" = now() WHERE id = :id'
_INSERT = """
    INSERT INTO member_measure ("memberId", "measureId", "sourceId", "statusId", reason, "setOn",
        "userId", "performanceYear", "createdAt", "updatedAt")
    VALUES (:member, :measure, :source, :status, :reason, :set_on, CAST(:user AS uuid), :year,
        now(), now())
"""


def performance_year(code: str, moment: datetime) -> tuple[date, date]:
    """First day of a measure's year around an instant, and of the next; of flu from July on."""
    day = moment.astimezone(UTC).date()
    month = 7 if any(word in code for word in _FLU) else 1
    year = day.year if day.month >= month else day.year - 1
    return date(year, month, 1), date(year + 1, month, 1)


# --- What is answered -----------------------------------------------------------------------


def _current(connection: sa.Connection, member: str, slug: str | None) -> list[dict[str, Any]]:
    """The newest event of each live measure, where it lies in the year that runs now."""
    market = (
        'AND m.id IN (SELECT l."measureId" FROM market_measure l JOIN market k'
        ' ON k.id = l."marketId" WHERE k.slug = :slug AND k."deletedAt" IS NULL'
        ' AND l."deletedAt" IS NULL)'
    )
    rows = _rows(
        connection,
        'SELECT DISTINCT ON (m.id) m.id, m."displayName", s.name AS status, m.type, m.code,'
        ' e."setOn" FROM member_measure e JOIN measure m ON m.id = e."measureId"'
        ' JOIN member_measure_status s ON s.id = e."statusId"'
        ' WHERE e."memberId" = :member AND e."deletedAt" IS NULL AND m."deletedAt" IS NULL'
        f' {market if slug else ""} ORDER BY m.id, e."setOn" DESC, e.id DESC',
        member=member,
        **({"slug": slug} if slug else {}),
    )
    shown = ("id", "displayName", "status", "type")
    return [{name: row[name] for name in shown} for row in rows if _is_current(row)]


def _matching(
    connection: sa.Connection, ids: Sequence[str], wanted: set[int], names: Sequence[str]
) -> list[str]:
    """Members whose newest events have a wanted status, for every wanted group of measures."""
    rows = _rows(
        connection,
        'SELECT DISTINCT ON (e."memberId", e."measureId") e."memberId"::text AS member,'
        ' e."measureId" AS measure, s.name AS status, m.code, e."setOn"'
        ' FROM member_measure e JOIN measure m ON m.id = e."measureId"'
        ' JOIN member_measure_status s ON s.id = e."statusId"'
        ' WHERE e."memberId" = ANY(CAST(:ids AS uuid[])) AND e."deletedAt" IS NULL'
        ' ORDER BY e."memberId", e."measureId", e."setOn" DESC, e.id DESC',
        ids=list(ids),
    )
    groups = {_SAME_GROUP.get(measure, measure) for measure in wanted}
    matched: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        group = _SAME_GROUP.get(row["measure"], row["measure"])
        if (not names or row["status"] in names) and (not groups or group in groups):
            matched.setdefault(row["member"], []).append({**row, "group": group})
    return [
        member
        for member, found in matched.items()
        if groups <= {row["group"] for row in found} and any(map(_is_current, found))
    ]


def _is_current(row: Mapping[str, Any]) -> bool:
    """Whether an event lies in the year of its measure that runs now."""
    start, end = performance_year(row["code"], datetime.now(UTC))
    moment: datetime = row["setOn"]
    return start <= moment.astimezone(UTC).date() < end


def _rows(connection: sa.Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.text(statement), values).mappings()]


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


# --- Running --------------------------------------------------------------------------------


def engine(url: str) -> sa.Engine:
    """A pool of connections as large and as patient as the real service's."""
    return sa.create_engine(
        url, pool_size=_POOL, max_overflow=0, pool_timeout=_ACQUIRE_SECONDS, pool_pre_ping=True
    )


def _prepare(engine: sa.Engine) -> None:
    """Let the database number new events itself."""
    with engine.begin() as connection:
        for statement in (
            f"CREATE SEQUENCE IF NOT EXISTS member_measure_id START {_FIRST_ID}",
            "ALTER TABLE member_measure ALTER COLUMN id SET DEFAULT nextval('member_measure_id')",
        ):
            connection.execute(sa.text(statement))


def keys_from_environment(development: bool) -> dict[str, str] | None:
    """Source words by key, of ``API_KEY_ABLE`` and so on; None in development without keys.

    Raises ClickException when there are neither keys nor development mode.
    """
    found = {os.environ.get(f"API_KEY_{source.upper()}"): source for source in SOURCES}
    keys = {key: source for key, source in found.items() if key}
    if keys:
        return keys
    if not development:
        raise click.ClickException(
            "no API keys: set API_KEY_ABLE, API_KEY_COMMONS and API_KEY_ELATION, or --development"
        )
    return None


def serve(application: Any, port: int) -> None:
    """Serve on 127.0.0.1 until the process is told to end; prints where, once it listens."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    click.echo(f"http://127.0.0.1:{listener.getsockname()[1]}")
    config = uvicorn.Config(application, log_level="warning", access_log=False)
    anyio.run(uvicorn.Server(config).serve, [listener])


@click.command()
@click.option("--url", envvar="MEASURE_SERVICE_URL", required=True, help="SQLAlchemy URL.")
@click.option("--port", default=8080, show_default=True, help="0 takes a free one.")
@click.option("--development", is_flag=True, help="Without keys: the source's word is the key.")
@click.option("--max-body-bytes", default=MAX_BODY_BYTES, show_default=True)
def main(url: str, port: int, development: bool, max_body_bytes: int) -> None:
    """Run the sample quality-measure service."""
    keys = keys_from_environment(development)
    serve(app(engine(url), keys, max_body_bytes=max_body_bytes), port)


if __name__ == "__main__":
    main()
