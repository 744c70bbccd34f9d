"""The encounter model as SQL: its records, its types, and what is empty.

Every record is made by `record`, so that the fields of a type have one order everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from mirror_assets.mirroring.names import literal, sql


def _struct(**fields: str) -> str:
    return f"STRUCT({', '.join(f'{sql(name)} {kind}' for name, kind in fields.items())})"


TEXT = "VARCHAR"
IDENTIFIER = _struct(id=TEXT, idType=TEXT)
CODE = _struct(code=TEXT, codeSystem=TEXT, codeSystemName=TEXT, name=TEXT)
MOMENT = _struct(raw=TEXT, instant="TIMESTAMP WITH TIME ZONE", date="DATE")
ADDRESS = _struct(street1=TEXT, street2=TEXT, city=TEXT, state=TEXT, zip=TEXT)
PROVIDER = _struct(
    identifiers=f"{IDENTIFIER}[]",
    firstName=TEXT,
    lastName=TEXT,
    credentials=f"{TEXT}[]",
    address=ADDRESS,
    phone=TEXT,
    role=CODE,
)
LOCATION = _struct(address=ADDRESS, type=CODE, name=TEXT)
REASON = _struct(code=TEXT, codeSystem=TEXT, codeSystemName=TEXT, name=TEXT, notes=TEXT)
PATIENT = _struct(patientId=TEXT, externalId=TEXT, source=_struct(name=TEXT, commonId=TEXT))
ENCOUNTER = _struct(
    identifiers=f"{IDENTIFIER}[]",
    type=CODE,
    dateTime=MOMENT,
    endDateTime=MOMENT,
    providers=f"{PROVIDER}[]",
    locations=f"{LOCATION}[]",
    diagnoses=f"{CODE}[]",
    reasons=f"{REASON}[]",
    draft="BOOLEAN",
)

#: The warehouse table: column -> DuckDB type. Only insertedAt may be NULL.
COLUMNS: dict[str, str] = {
    "messageId": TEXT,
    "insertedAt": "TIMESTAMP WITH TIME ZONE",
    "isStreaming": "BOOLEAN",
    "patient": PATIENT,
    "encounter": ENCOUNTER,
}


def record(**fields: str) -> str:
    """SQL of a record; each value is an SQL expression."""
    return f"struct_pack({', '.join(f'{sql(name)} := {value}' for name, value in fields.items())})"


def null(kind: str = TEXT) -> str:
    return f"CAST(NULL AS {kind})"


def empty(kind: str) -> str:
    """SQL of a list of a type with nothing in it."""
    return f"CAST([] AS {kind}[])"


def in_order(shape: str, keys: Sequence[str], **fields: str) -> str:
    """SQL of a group's rows as a list of records, ordered by keys that are never NULL.

    ``shape`` makes the record of ``k.<field>``: only fields are aggregated. Sorting lists of keyed
    records takes DuckDB a third of an ordered aggregate's time.
    """
    keyed = record(**{f"k{number}": key for number, key in enumerate(keys)}, **fields)
    return f"list_transform(list_sort(list({keyed})), lambda k: {shape})"


def identifier(value: str, kind: str) -> str:
    return record(id=f"CAST({value} AS {TEXT})", idType=literal(kind))


def code(value: str | None = None, system: str | None = None, name: str | None = None) -> str:
    """A code record; ``codeSystem`` is never known for Elation."""
    return record(
        code=value or null(),
        codeSystem=null(),
        codeSystemName=system or null(),
        name=name or null(),
    )


def address(alias: str, street1: str, street2: str) -> str:
    """The address in a practice's or service location's columns; all NULL where there is none."""
    return record(
        street1=f"{alias}.{street1}",
        street2=f"{alias}.{street2}",
        city=f"{alias}.city",
        state=f"{alias}.state",
        zip=f"{alias}.zip",
    )


def reason(
    *,
    notes: str,
    name: str | None = None,
    value: str | None = None,
    system: str | None = None,
) -> str:
    return record(
        code=value or null(),
        codeSystem=null(),
        codeSystemName=system or null(),
        name=name or null(),
        notes=notes,
    )
