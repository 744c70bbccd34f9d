"""One text field of an export as its typed value: the SQL that casts it, strictly (DuckDB).

DuckDB's casts are lenient: BIGINT takes ``1.5`` and ``0x1F``, DECIMAL rounds, DOUBLE makes 1e400
infinite, DATE drops what follows the day. Where the type is not the source's own, a canonical form
goes with the cast.
"""

from __future__ import annotations

from mirror_assets.mirroring import types
from mirror_assets.mirroring.catalog import TableSpec
from mirror_assets.mirroring.schema import Column, LogicalType

_NOT = {
    "BOOL": "not_boolean",
    "INT64": "not_integer",
    "FLOAT64": "not_number",
    "DECIMAL": "not_number",
    "BYTES": "not_binary",
    "DATE": "not_date",
    "DATETIME": "not_datetime",
    "TIMESTAMP": "not_timestamp",
}
_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6}0*)?)?"
_ZONE = "(Z|[-+](0[0-9]|1[0-5])(:?[0-5][0-9])?)"
_WHOLE = "(0|[1-9][0-9]*)"
#: The texts that a declared type takes, beyond what the cast itself refuses.
_FORMS = {
    "INT64": "0|-?[1-9][0-9]*",
    "FLOAT64": f"-?{_WHOLE}([.][0-9]+)?([eE][-+]?[0-9]+)?|NaN|-?Infinity",
    "DATE": _DAY,
    "DATETIME": f"{_DAY}[ T]{_CLOCK}",
    "TIMESTAMP": f"{_DAY}[ T]{_CLOCK}{_ZONE}",
}


class Field:
    """The SQL over one text field. ``text`` is its column in the CSV scan; ``typed`` names its cast
    where an inner query has made it already.
    """

    def __init__(self, text: str, column: Column, spec: TableSpec, typed: str = "") -> None:
        self.text = text
        self.column = column
        self._kind = column.type.kind
        self._required = column.required
        self._is_date = column.type.is_date
        self._nulls_misfits = self._kind != "STRING" and spec.nulls_misfits(column)
        self._nulls_zero = self._is_date and spec.zero_dates == "null"
        self.cast = _cast(text, column)
        self._cast = typed or self.cast
        self._is_nulled = _is_nulled(text, column)
        self._in_range = f"{self._cast} BETWEEN {_range(column.type, spec)}"

    @property
    def value(self) -> str:
        """The typed value, NULL where it does not hold."""
        if self._nulls_misfits and self._is_date:
            return f"CASE WHEN {self._in_range} THEN {self._cast} END"
        return self._cast

    @property
    def holds(self) -> str | None:
        """Whether the field keeps its row in; None when nothing can be wrong with it."""
        if self._nulls_misfits or self._kind == "STRING":
            return f"{self.value} IS NOT NULL" if self._required else None
        holds = self._in_range if self._is_date else f"{self._cast} IS NOT NULL"
        if self._required:
            return holds
        nulled = f" OR {self._is_nulled}" if self._nulls_zero else ""
        return f"({self.text} IS NULL OR {holds}{nulled})"

    @property
    def fault(self) -> str | None:
        """The kind of fault, NULL where the field is good; None when nothing can be wrong."""
        cases = [] if self._nulls_misfits or self._kind == "STRING" else self._misfit_cases()
        if self._required:
            cases.append(f"WHEN {self.value} IS NULL THEN 'null_in_required'")
        return f"CASE {' '.join(cases)} END" if cases else None

    def _misfit_cases(self) -> list[str]:
        cases = []
        if self._is_date:
            if not self._nulls_zero:
                is_zero = f"starts_with({self.text}, '0000-00-00')"
                cases.append(f"WHEN {is_zero} AND {self._cast} IS NULL THEN 'zero_date'")
            cases.append(f"WHEN NOT ({self._in_range}) THEN 'out_of_range'")
        spared = f" AND NOT {self._is_nulled}" if self._nulls_zero else ""
        misses = f"{self.text} IS NOT NULL AND {self._cast} IS NULL{spared}"
        return [*cases, f"WHEN {misses} THEN '{_NOT[self._kind]}'"]

    @property
    def nulled_zero_date(self) -> str | None:
        """Whether the policy ``zero_dates: null`` made the value NULL; None when it never does."""
        return self._is_nulled if self._nulls_zero else None

    @property
    def nulled_misfit(self) -> str | None:
        """Whether the policy ``misfits: null`` made the value NULL; None when it never does."""
        if not self._nulls_misfits:
            return None
        spared = f" AND NOT {self._is_nulled}" if self._nulls_zero else ""
        return f"{self.text} IS NOT NULL AND {self.value} IS NULL{spared}"


def _is_nulled(text: str, column: Column) -> str:
    """Zero dates and dates with a zero month or day: MySQL's ways to say unknown."""
    is_zero = f"substr({text}, 5, 3) = '-00' OR substr({text}, 8, 3) = '-00'"
    if column.encoding == "declared":  # any text may have these dashes
        is_zero = f"({is_zero}) AND regexp_matches({text}, '^{_DAY}($|[ T])')"
    return f"coalesce({is_zero}, false)"


def _range(logical: LogicalType, spec: TableSpec) -> str:
    first, last = spec.first_date.isoformat(), spec.last_date.isoformat()
    if logical.kind == "DATE":
        return f"DATE '{first}' AND DATE '{last}'"
    if logical.kind == "DATETIME":
        return f"TIMESTAMP '{first} 00:00:00' AND TIMESTAMP '{last} 23:59:59.999999'"
    zoned = f"TIMESTAMPTZ '{last} 23:59:59.999999+00'"
    return f"TIMESTAMPTZ '{first} 00:00:00+00' AND {zoned}"


def _cast(text: str, column: Column) -> str:
    kind = column.type.kind
    if kind == "STRING":
        return text
    if kind == "BYTES":
        is_hex = f"regexp_full_match({text}, '([0-9a-fA-F]{{2}})*')"
        return f"CASE WHEN {is_hex} THEN unhex({text}) END"
    if kind == "BOOL":
        word = text if column.encoding == "declared" else f"trim({text})"
        return (
            f"CASE WHEN {word} IN ('1', 't', 'true') THEN TRUE"
            f" WHEN {word} IN ('0', 'f', 'false') THEN FALSE END"
        )
    typed = f"TRY_CAST({text} AS {types.to_duckdb(column.type)})"
    if kind == "FLOAT64":  # -0.0 becomes 0.0: a Parquet dictionary makes them one, either of both
        typed = f"({typed} + 0.0)"
    form = _form(text, typed, column)
    return f"CASE WHEN {form} THEN {typed} END" if form else typed


def _form(text: str, typed: str, column: Column) -> str | None:
    """What must hold beside the cast."""
    kind = column.type.kind
    if column.encoding == "declared":
        matches = f"regexp_full_match({text}, '{_FORMS.get(kind) or _decimal(column.type)}')"
        if kind == "DECIMAL":  # holds no sign of zero
            return f"{matches} AND NOT regexp_full_match({text}, '-[0.]+')"
        return f"{matches} AND {_is_in_reach(text, typed)}" if kind == "FLOAT64" else matches
    if kind == "DATE":  # the cast drops what follows the day: `BC`, a time
        later = "[0-9]{5,7}-[0-9]{2}-[0-9]{2}"
        return f"length({text}) <= 10 OR regexp_full_match({text}, '{later}')"
    if column.encoding != "unbounded":
        return None
    if kind == "FLOAT64":
        return _is_in_reach(text, typed)
    # further digits would be rounded away
    return f"regexp_full_match({text}, '-?[0-9]+([.][0-9]{{0,{column.type.scale}}}0*)?')"


def _decimal(logical: LogicalType) -> str:
    """The texts of a declared decimal; further digits may only be zeros."""
    digits = f"[0-9]{{1,{logical.scale}}}0*" if logical.scale else "0+"
    return f"-?{_WHOLE}([.]{digits})?"


def _is_in_reach(text: str, typed: str) -> str:
    """Too large a number would become infinity, too small a one zero."""
    is_finite = f"isfinite({typed}) OR regexp_full_match({text}, '-?[A-Za-z]+')"
    return f"({is_finite}) AND ({typed} <> 0 OR regexp_full_match({text}, '-?[0.]+([eE].*)?'))"
