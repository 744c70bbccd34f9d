"""Elation's tags, bills and lab results as statuses of quality measures, one post per member.

One SQL statement gathers a day's elements: six kinds of codes of signed documents, matched with the
service's own map. A member is one request, and the delivery ledger knows which members changed.

A tag that stands for several measures reaches each of them. The map's two flu measures were
replaced in the service by others for which it has no map rows, so ``FLU_REMAP`` leads to those.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, NamedTuple

from mirror_assets.delivery import ledger
from mirror_assets.delivery.client import Request, Target, fetch
from mirror_assets.delivery.ledger import LedgerStore, WarehouseLedger
from mirror_assets.delivery.push import Delivery, DeliveryReport, Record, push, superseded
from mirror_assets.delivery.verdict import DeliveryFault, Verdict
from mirror_assets.elation.local_time import instant
from mirror_assets.mirroring.errors import (
    MirrorError,
    PermanentError,
    SettingsError,
    TransientError,
)
from mirror_assets.mirroring.names import literal
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema
from mirror_assets.mirroring.warehouses.base import Warehouse

DELIVERY = "elation_quality_measures"
API_KEY_HEADER = "apiKey"
LEDGER_DATASET = ledger.DATASET

#: Measures of the map that the service has deleted, and what took their place.
FLU_REMAP: Mapping[int, int] = {4: 16, 5: 17}

_MAP_PATH = "/1.0/elationmap"
_MAP_BYTES = 10_000_000
_WHERE = "quality-measure service"

#: A day's table as SQL: ``relation(database, table)`` of elation, member_index and commons.
Relation = Callable[[str, str], str]


class ElationMapUnusable(PermanentError):  # noqa: N818 - the kinds read as nouns
    """The service's tag-to-measure map is empty or not what it was agreed to be."""

    kind = "elation_map"


class MeasuresRefused(PermanentError):  # noqa: N818
    """The service refused some members, all of them for good."""

    kind = "delivery_refused"


class DeliveryUnavailable(TransientError):  # noqa: N818
    """The service or the ledger could not be reached, or asked to come back later."""

    kind = "delivery_unavailable"


class MapRow(NamedTuple):
    """A code and the status of a measure that it stands for."""

    code_type: str
    code: str
    measure: int
    status: str


@dataclass(frozen=True)
class Feed:
    """How the measures are delivered. ``api_key`` is a secret; ``url`` is the service's base."""

    url: str
    api_key: str = field(repr=False)
    connections: int = Target.connections
    per_second: float | None = None
    dry_run: bool = False
    resend_all: bool = False
    client: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """The service as a delivery knows it; ``client`` are further options of ``Target``.

        Raises SettingsError for options that make no sense.
        """
        headers = {API_KEY_HEADER: self.api_key}
        try:
            return Target(
                self.url,
                headers,
                connections=self.connections,
                per_second=self.per_second,
                **self.client,
            )
        except (TypeError, ValueError) as error:
            raise SettingsError(str(error), where=_WHERE) from None


def warehouse_ledger(warehouse: Warehouse, dataset: str = LEDGER_DATASET) -> WarehouseLedger:
    """The delivery ledger in a dataset of the warehouse."""
    schemas = {
        table.name: TableSchema(
            tuple(
                Column(column.name, "", LogicalType.parse(column.type), column.required)
                for column in table.columns
            )
        )
        for table in ledger.TABLES
    }
    return WarehouseLedger(warehouse, dataset, schemas)


# --- Delivering -----------------------------------------------------------------------------


def deliver(
    warehouse: Warehouse,
    relation: Relation,
    feed: Feed,
    store: LedgerStore,
    *,
    partition: date,
    run_id: str,
) -> DeliveryReport:
    """Post the day's measures of every member that changed; ``fault`` judges the report.

    An older day than the newest one posts nothing. Raises ElationMapUnusable before any post,
    DeliveryUnavailable where the service or the ledger cannot be reached at all, PermanentError
    where the service refuses the key, WarehouseFault where the day cannot be gathered.
    """
    delivery = Delivery(
        name=DELIVERY,
        path="/1.0/member/{recipient}/measures",
        tried="post the measures of a member",
        partition=partition,
        run_id=run_id,
        dry_run=feed.dry_run,
        resend_all=feed.resend_all,
    )
    try:
        too_old = superseded(partition, store.newest(DELIVERY))
        if too_old is not None:
            return too_old
        mapping = remapped(elation_map(feed.target))
        return push(gathered(warehouse, relation, mapping), delivery, feed.target, store)
    except DeliveryFault as error:
        raise _fault(error.sentence, error.transient) from None


def fault(report: DeliveryReport) -> MirrorError | None:
    """The error to end a run with after its report is kept; None when nobody was refused."""
    if report.stopped is not None:
        return _of_verdict(report.stopped, report.sentence)
    if not report.refused:
        return None
    reasons = "; ".join(f"{count} x {reason}" for reason, count in report.reasons.items())
    what = f"{report.refused} of {report.recipients} members were refused ({reasons})"
    remedy = (
        f"what the service wrote is in {ledger.REFUSED.name} beside each member;"
        " run the partition again to post these members only"
    )
    # one member who is refused for good must not keep the others from their retry
    kind = DeliveryUnavailable if report.clearing else MeasuresRefused
    return kind(what, where=_WHERE, remedy=remedy)


def elation_map(target: Target) -> list[MapRow]:
    """The service's map, in its order, every row of it.

    Raises ElationMapUnusable when it is empty or malformed, DeliveryUnavailable or PermanentError
    when the service does not give it.
    """
    request = Request("GET", _MAP_PATH, _MAP_PATH, "fetch the map", longest_answer=_MAP_BYTES)
    answer = fetch(target, request)
    if answer.verdict is not None:
        raise _of_verdict(answer.verdict, answer.verdict.sentence)
    try:
        told = json.loads(answer.body)
    except ValueError:
        raise _unusable("is not JSON") from None
    if not isinstance(told, list):
        raise _unusable("is not a list")
    if not told:
        raise _unusable("is empty: no tag would reach any measure")
    return [_map_row(number, item) for number, item in enumerate(told, start=1)]


def _map_row(number: int, item: object) -> MapRow:
    row = item if isinstance(item, dict) else {}
    texts = [row.get(name) for name in ("codeType", "code", "statusName")]
    measure = row.get("measureId")
    known = isinstance(measure, int) and not isinstance(measure, bool) and measure > 0
    if not known or not all(isinstance(text, str) and text.strip() for text in texts):
        raise _unusable(f"has a row without codeType, code, measureId and statusName: {number}")
    code_type, code, status = map(str, texts)
    return MapRow(code_type.lower(), code, int(str(measure)), status)


def remapped(rows: Iterable[MapRow]) -> list[MapRow]:
    """The map with deleted measures replaced; rows that become alike are one."""
    replaced = (row._replace(measure=FLU_REMAP.get(row.measure, row.measure)) for row in rows)
    return list(dict.fromkeys(replaced))


def _unusable(what: str) -> ElationMapUnusable:
    return ElationMapUnusable(
        f"the answer of {_MAP_PATH} {what}; nothing was posted",
        where=_WHERE,
        remedy="have the service's table elation_map mended, then run the partition again",
    )


def _of_verdict(verdict: Verdict, what: str) -> MirrorError:
    if verdict.status in {401, 403}:
        return PermanentError(what, where=_WHERE, remedy="check the API key")
    return _fault(what, verdict.clears)


def _fault(what: str, transient: bool) -> MirrorError:
    if transient:
        remedy = "nothing accepted is lost: run the partition again when it is back"
        return DeliveryUnavailable(what, where=_WHERE, remedy=remedy)
    return PermanentError(what, where=_WHERE, remedy="check the URL and the settings")


# --- Gathering ------------------------------------------------------------------------------


def gathered(
    warehouse: Warehouse, relation: Relation, mapping: Iterable[MapRow]
) -> Iterator[Record]:
    """One record per member with elements, in the order of the members' ids."""
    return records(warehouse.query(statement(relation, mapping)).rows)


def records(rows: Iterable[tuple[Any, ...]]) -> Iterator[Record]:
    """Rows of ``statement`` as one record per member."""
    for member, group in groupby(rows, key=lambda row: row[0]):
        elements = [_element(*row[1:]) for row in group]
        body = json.dumps(elements, ensure_ascii=False, separators=(",", ":"))
        yield Record(str(member), body.encode(), len(elements))


def _element(
    user: str | None, set_on: datetime, measure: int, status: str, reason: str | None
) -> dict[str, Any]:
    return {
        "userId": user,
        "setOn": set_on.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "id": measure,
        "status": status,
        "reason": reason,
    }


def statement(relation: Relation, mapping: Iterable[MapRow]) -> str:
    """SQL for (member, user, set on, measure, status, reason), by member, in a stable order.

    A code counts when its document is signed, dated and not deleted, its member and MRN are live
    and the MRN is Elation's own. Of exact duplicates the last one stays where it is.
    """
    return _STATEMENT.format(
        map=" UNION ALL ".join(_selected(row) for row in mapping),
        instant=instant("t.document_date"),
        **{name: relation("elation", name) for name in _ELATION},
        elation_user=relation("elation", "user"),
        member=relation("member_index", "member"),
        mrn=relation("member_index", "mrn"),
        commons_user=relation("commons", "user"),
    )


def _selected(row: MapRow) -> str:
    return (
        f"SELECT {literal(row.code_type)} AS code_type, {literal(row.code)} AS code,"
        f" {row.measure} AS measure, {literal(row.status)} AS status"
    )


TABLES: Mapping[str, tuple[str, ...]] = {
    "elation": (
        "visit_note",
        "non_visit_note",
        "lab_report",
        "visit_note_document_tag",
        "non_visit_note_document_tag",
        "lab_report_document_tag",
        "document_tag",
        "bill",
        "bill_item",
        "bill_item_dx",
        "icd10",
        "icd9",
        "user",
    ),
    "member_index": ("member", "mrn"),
    "commons": ("user",),
}
"""What is read, by database."""

_ELATION = tuple(name for name in TABLES["elation"] if name != "user")
_SIGNED = """SELECT d.id, d.patient_id, d.signed_by_user_id, d.document_date FROM {%s} AS d
    WHERE d.deletion_time IS NULL AND d.signed_time IS NOT NULL AND d.document_date IS NOT NULL"""
_TAGGED = """SELECT %d AS source, d.id AS document_id, l.document_tag_id AS link_id, 0 AS seqno,
    d.patient_id, d.signed_by_user_id, d.document_date, t.description, t.code_type, t.code
  FROM {%s_document_tag} AS l
  JOIN %s AS d ON d.id = l.%s_id
  JOIN {document_tag} AS t ON t.id = l.document_tag_id"""
_DIAGNOSED = """SELECT %d, i.document_id, i.id, x.seqno,
    i.patient_id, i.signed_by_user_id, i.document_date, c.description, '%s', c.code
  FROM item AS i
  JOIN {bill_item_dx} AS x ON x.bill_item_id = i.id
  JOIN {%s} AS c ON c.id = x.%s_id"""

_STATEMENT = f"""
WITH map AS ({{map}}),
signed_visit AS ({_SIGNED % "visit_note"}),
signed_non_visit AS ({_SIGNED % "non_visit_note"}),
signed_lab AS ({_SIGNED % "lab_report"}),
item AS (
  SELECT i.id, i.cpt, d.id AS document_id, d.patient_id, d.signed_by_user_id, d.document_date
  FROM {{bill_item}} AS i
  JOIN {{bill}} AS b ON b.id = i.bill_id
  JOIN signed_visit AS d ON d.id = b.visit_note_id
  WHERE i.deletion_time IS NULL
),
ranked AS (
  SELECT DISTINCT t.code, t.description,
    rank() OVER (PARTITION BY t.code ORDER BY length(t.description) DESC NULLS LAST) AS place
  FROM {{document_tag}} AS t
),
tag AS (
  {_TAGGED % (1, "visit_note", "signed_visit", "visit_note")}
  UNION ALL {_TAGGED % (2, "non_visit_note", "signed_non_visit", "non_visit_note")}
  UNION ALL {_TAGGED % (3, "lab_report", "signed_lab", "lab_report")}
  UNION ALL SELECT 4, i.document_id, i.id, 0,
    i.patient_id, i.signed_by_user_id, i.document_date, r.description, 'CPT', i.cpt
  FROM item AS i
  LEFT JOIN ranked AS r ON r.code = i.cpt AND r.place = 1
  UNION ALL {_DIAGNOSED % (5, "ICD10", "icd10", "icd10")}
  UNION ALL {_DIAGNOSED % (6, "ICD9", "icd9", "icd9")}
),
live_member AS (
  SELECT DISTINCT CAST(m.id AS VARCHAR) AS id, n.mrn
  FROM {{member}} AS m
  JOIN {{mrn}} AS n ON n.id = m."mrnId"
  WHERE n.name = 'elation' AND n."deletedAt" IS NULL AND m."deletedAt" IS NULL
),
person AS (
  SELECT e.id, min(CAST(c.id AS VARCHAR)) AS commons_id
  FROM {{elation_user}} AS e
  JOIN {{commons_user}} AS c ON c.email = regexp_replace(e.email, '[+].*@', '@')
  WHERE c."deletedAt" IS NULL
  GROUP BY e.id
),
element AS (
  SELECT p.id AS member_id, u.commons_id AS user_id, {{instant}} AS set_on, m.measure, m.status,
    CASE WHEN trim(t.description) <> '' THEN t.description END AS reason,
    row_number() OVER (
      PARTITION BY p.id
      ORDER BY t.source, t.document_id, t.link_id, t.seqno, t.code, t.description, m.measure,
        m.status
    ) AS place
  FROM tag AS t
  JOIN map AS m ON m.code_type = lower(t.code_type) AND m.code = t.code
  JOIN live_member AS p ON p.mrn = CAST(t.patient_id AS VARCHAR)
  LEFT JOIN person AS u ON u.id = t.signed_by_user_id
)
SELECT member_id, user_id, set_on, measure, status, reason
FROM element
GROUP BY member_id, user_id, set_on, measure, status, reason
ORDER BY member_id, max(place)
"""
