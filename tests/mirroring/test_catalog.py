"""Catalog files: what they say, and errors that name file, table, field and what is allowed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mirror_assets.mirroring.catalog import DatabaseSpec, load, load_all
from mirror_assets.mirroring.errors import CatalogError
from mirror_assets.mirroring.schema import Column, LogicalType

if TYPE_CHECKING:
    from tests.conftest import Bench

ELATION = Path(__file__).parents[2] / "mirror_assets" / "elation" / "catalog.yaml"
_HEAD = "database: clinic\nkind: mysql\n"
_TABLES = "tables: {a: , b: }\n"


def _load(tmp_path: Path, text: str) -> DatabaseSpec:
    path = tmp_path / "catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def _refused(tmp_path: Path, text: str) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        _load(tmp_path, text)
    assert str(tmp_path / "catalog.yaml") in caught.value.where or caught.value.where
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def test_the_smallest_catalog_has_safe_defaults(tmp_path: Path) -> None:
    spec = _load(tmp_path, _HEAD + "tables: [a, b]\n")
    table = spec.table("a")
    assert (spec.name, spec.dataset, spec.view_name("a")) == ("clinic", "clinic_mirror", "a_latest")
    assert (spec.types.tinyint1, spec.types.decimals, spec.types.binary) == (
        "integer",
        "exact",
        "bytes",
    )
    assert (table.zero_dates, table.breaking_drift, table.volume) == ("reject", "refuse", 0.5)
    assert (table.coverage, table.keep_row_text, table.bad_records_allowed) == (100, False, None)
    assert spec.entry.owner == "team:platform"


def test_a_table_overrides_its_database(tmp_path: Path) -> None:
    spec = _load(
        tmp_path,
        _HEAD
        + "volume: 0.2\nzero_dates: null\nbreaking_drift: deprecate\n"
        + "tables: {a: {volume: 0, zero_dates: reject, breaking_drift: refuse}, b: }\n",
    )
    rules = {t.name: (t.volume, t.zero_dates, t.breaking_drift) for t in spec.tables}
    assert rules == {"a": (0, "reject", "refuse"), "b": (0.2, "null", "deprecate")}


def test_chunks_keep_the_order_of_the_file(tmp_path: Path) -> None:
    spec = _load(tmp_path, _HEAD + "chunk_size: 2\ntables: [c, a, b]\n")
    assert [[t.name for t in chunk] for chunk in spec.chunks] == [["c", "a"], ["b"]]


def test_an_allowance_holds_until_its_day(tmp_path: Path) -> None:
    allowed = "{rows: 2, reason: imported orders, until: 2026-03-31}"
    table = _load(tmp_path, _HEAD + f"tables: {{a: {{bad_records_allowed: {allowed}}}}}\n").tables[
        0
    ]
    assert table.allowed_rejects(date(2026, 3, 31)) == 2
    assert table.allowed_rejects(date(2026, 4, 1)) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_HEAD + _TABLES + "colour: red\n", ["colour: unknown field", "chunk_size", "schema"]),
        (_HEAD + "tables: {a: {colour: red}}\n", ["tables.a.colour", "masked_columns"]),
        (
            _HEAD + "tables: {retention: {colour: red}}\n",
            ["tables.retention.colour", "masked_columns"],
        ),
        (
            _HEAD + "tables: {a: {bad_records_allowed: {rows: 1, why: x}}}\n",
            ["tables.a.bad_records_allowed.why", "allowed: rows, reason, until"],
        ),
        (_HEAD + _TABLES + "refresh: {cron: x, when: y}\n", ["refresh.when", "settle_minutes"]),
        (_HEAD + _TABLES + "retention: {days: 2}\n", ["retention.days", "landing_days"]),
        (_HEAD + _TABLES + "pods: {ram: 2Gi}\n", ["pods.ram", "allowed: cpu, memory, per"]),
        (_HEAD + _TABLES + "pods: {memory: 2GB}\n", ["pods.memory", "'2GB'", "4Gi"]),
        (_HEAD + _TABLES + "pods: {per: table}\n", ["pods.per", "'chunk' or 'run'"]),
        (_HEAD + _TABLES + "pods: {per: chunk}\n", ["pods.per", "an instant of its own", "'run'"]),
        (
            _HEAD + "tables: {a: {zero_dates: maybe}}\n",
            ["tables.a.zero_dates", "'maybe'", "'null' or 'reject'"],
        ),
        (_HEAD + _TABLES + "tinyint1: yes\n", ["tinyint1", "'boolean' or 'integer'"]),
        (_HEAD + _TABLES + "decimals: big\n", ["decimals", "'exact' or 'float'"]),
        (_HEAD + _TABLES + "layout: heap\n", ["layout", "'partitioned' or 'sharded'"]),
        ("database: clinic\nkind: oracle\n" + _TABLES, ["kind", "'mysql' or 'postgresql'"]),
        ("database: Clinic A\nkind: mysql\n" + _TABLES, ["database", "pattern"]),
        (_HEAD + "tables: {a: {volume: 2}}\n", ["tables.a.volume", "less than or equal to 1"]),
        (_HEAD + _TABLES + "chunk_size: 0\n", ["chunk_size", "greater than or equal to 1"]),
        (_HEAD, ["tables: field required"]),
        (_HEAD + "tables: []\n", ["tables: is empty"]),
        (_HEAD + "tables: some\n", ["tables", "mapping of tables, a list of names, or `all`"]),
        (_HEAD + "tables: all\n", ["inventory"]),
        (_HEAD + "tables: [a\n", ["line", "not YAML"]),
        ("[]", ["not a mapping"]),
        (_HEAD + _TABLES + "latest_view: newest\n", ["latest_view"]),
        (_HEAD + _TABLES + "latest_view: '{table}_{day}'\n", ["latest_view", "pattern"]),
        (_HEAD + _TABLES + "latest_view: '{table}'\n", ["latest_view", "partitioned"]),
        (_HEAD + "tables: {a: , a: {volume: 0}}\n", ["'a'", "twice"]),
        (_HEAD + "tables: {a: {exclude_columns: [x], masked_columns: [x]}}\n", ["tables.a", "'x'"]),
        (_HEAD + "tables: {a: {exclude_columns: [id], primary_key: [id]}}\n", ["tables.a", "'id'"]),
        (_HEAD + _TABLES + "misfits: {date: drop}\n", ["misfits.date", "'drop'", "'text'"]),
        (_HEAD + _TABLES + "misfits: {datum: text}\n", ["misfits.datum", "datetime", "varchar"]),
        (_HEAD + _TABLES + "misfits: reject\n", ["misfits: input should be a valid dict"]),
        (
            "database: clinic\nkind: postgresql\nmisfits: {datetime: null}\n" + _TABLES,
            ["misfits.datetime", "timestamp without time zone"],
        ),
        (
            _HEAD + "tables: {a: {columns: {c: {misfits: maybe}}}}\n",
            ["tables.a.columns.c.misfits", "'maybe'", "'reject', 'null' or 'text'"],
        ),
        (
            _HEAD + "tables: {a: {columns: {c: {kind: x}}}}\n",
            ["tables.a.columns.c.kind: unknown field; allowed: type, misfits"],
        ),
        *(
            (
                _HEAD + f"tables: {{a: {{columns: {{c: {{type: '{wrong}'}}}}}}}}\n",
                ["tables.a.columns.c.type", f"{wrong!r} is not allowed", "INT64", "p up to 38"],
            )
            for wrong in ("INTEGER", "DECIMAL", "DECIMAL(39,2)", "DECIMAL(2,3)", "DECIMAL(0,0)", "")
        ),
        (
            _HEAD + "tables: {a: {columns: {c: {type: DATE, misfits: text}}}}\n",
            ["tables.a.columns.c", "misfits: text", "allowed beside `type`: reject, null"],
        ),
        (
            _HEAD + "tables: {a: {masked_columns: [c], columns: {c: {type: DATE}}}}\n",
            ["tables.a.columns.c", "excluded or masked"],
        ),
        (_HEAD + "tables: [note, note_latest]\n", ["'note_latest'", "'note'"]),
    ],
)
def test_a_wrong_catalog_names_field_and_allowed_values(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    error = _refused(tmp_path, text)
    for word in words:
        assert word in error.sentence, error.sentence


def test_only_chunks_of_a_database_that_its_vendor_rebuilds_may_be_copied_apart(
    tmp_path: Path,
) -> None:
    vendor = "refresh: {rule: vendor, cron: 0 5 * * *}\n"

    def apart(text: str) -> bool:
        return _load(tmp_path, _HEAD + _TABLES + text).is_copied_by_chunk

    assert not apart("")
    assert apart(vendor)
    assert apart(vendor + "pods: {per: chunk}\n")
    assert not apart(vendor + "pods: {per: run}\n")


def test_pods_are_given_what_the_catalog_says(tmp_path: Path) -> None:
    pods = _load(tmp_path, _HEAD + _TABLES + "pods: {cpu: 2, memory: 1.5Gi}\n").entry.pods
    assert (pods.cpu, pods.memory) == ("2", "1.5Gi")


def test_what_becomes_of_a_column_and_its_misfits(tmp_path: Path) -> None:
    spec = _load(
        tmp_path,
        _HEAD
        + "misfits: {date: null, datetime: text, decimal: reject}\n"
        + "tables: {a: {columns: {c: {type: 'decimal(10, 2)', misfits: null}, d: {misfits: text},"
        + " e: {type: int64}}}}\n",
    )
    table = spec.table("a")

    def declared(name: str, word: str) -> str:
        return str(table.declared_type(name, word))

    def nulls(name: str, word: str) -> bool:
        return table.nulls_misfits(Column(name, word, LogicalType("DATE"), word=word))

    assert [declared(*at) for at in (("c", "varchar"), ("d", "date"), ("e", "datetime"))] == [
        *("DECIMAL(10,2)", "STRING", "INT64"),
    ]
    assert [declared(*at) for at in (("x", "datetime"), ("x", "date"))] == ["STRING", "None"]
    assert [nulls(*at) for at in (("c", "varchar"), ("x", "date"))] == [True, True]
    assert [nulls(*at) for at in (("d", "date"), ("x", "decimal"), ("x", "int"))] == [False] * 3


def test_errors_name_the_file(tmp_path: Path) -> None:
    for text in (_HEAD + _TABLES + "colour: red\n", _HEAD + "tables: [a\n", _HEAD + "tables: []\n"):
        assert str(tmp_path / "catalog.yaml") in _refused(tmp_path, text).sentence


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "catalog.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CatalogError, match="cannot be read") as caught:
        load(path)
    assert str(path) in caught.value.where


def test_all_tables_come_from_the_inventory_without_the_excluded(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(_HEAD + "tables: all\nexclude: [vendor_*]\n")
    spec = load(path, lambda database: ["b", "a", "vendor_log"] if database == "clinic" else None)
    assert [table.name for table in spec.tables] == ["b", "a"]
    assert spec.excluded("vendor_x")
    assert not spec.excluded("a")


def test_a_database_declared_twice_is_refused_naming_both_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "catalog.yaml").write_text(_HEAD + _TABLES)
    assert [spec.name for spec in load_all([tmp_path / "one"])] == ["clinic"]
    with pytest.raises(CatalogError) as caught:
        load_all([tmp_path / "one", tmp_path / "two"])
    assert str(tmp_path / "one") in caught.value.sentence
    assert str(tmp_path / "two") in caught.value.sentence


# -- Elation's catalog, as its playbook documents


_ELATION_TYPES = [
    ("tinyint(1)", "BOOLEAN"),
    ("tinyint(4)", "BIGINT"),
    ("tinyint(3) unsigned", "BIGINT"),
    ("smallint", "BIGINT"),
    ("mediumint", "BIGINT"),
    ("int", "BIGINT"),
    ("bigint", "BIGINT"),
    ("decimal(10,2)", "DOUBLE"),
    ("float", "DOUBLE"),
    ("double", "DOUBLE"),
    ("char(8)", "VARCHAR"),
    ("varchar(254)", "VARCHAR"),
    ("text", "VARCHAR"),
    ("mediumtext", "VARCHAR"),
    ("longtext", "VARCHAR"),
    ("binary(16)", "VARCHAR"),
    ("datetime", "TIMESTAMP"),
    ("datetime(6)", "TIMESTAMP"),
    ("date", "DATE"),
]


@pytest.fixture(scope="module")
def elation_columns(module_bench: Bench) -> dict[str, tuple[str, str]]:
    """Warehouse type and nullability of a table with every type, NOT NULL and NULL."""
    bench = module_bench
    columns = [
        f"wanted_{number} {declared} NOT NULL, perhaps_{number} {declared} NULL"
        for number, (declared, _warehouse) in enumerate(_ELATION_TYPES)
    ]
    bench.run(f"CREATE TABLE bill ({', '.join(columns)})")
    spec = bench.elation("bill")
    assert bench.mirror_day(spec)["bill"].published
    described = bench.query("DESCRIBE elation_mirror.bill")
    return {name: (kind, null) for name, kind, null, *_ in described}


@pytest.mark.parametrize(
    ("number", "declared", "warehouse"),
    [(number, *row) for number, row in enumerate(_ELATION_TYPES)],
    ids=[declared for declared, _warehouse in _ELATION_TYPES],
)
def test_elations_type_table_row_by_row(
    elation_columns: dict[str, tuple[str, str]], number: int, declared: str, warehouse: str
) -> None:
    assert elation_columns[f"wanted_{number}"] == (warehouse, "NO"), declared  # REQUIRED
    assert elation_columns[f"perhaps_{number}"] == (warehouse, "YES"), declared  # NULLABLE
    assert elation_columns["_PARTITIONDATE"][0] == "DATE"


def test_elations_catalog_holds_every_sample_table_but_the_vendors() -> None:
    from mirror_assets.sample import elation

    spec = load(ELATION)
    assert {table.name for table in spec.tables} == set(elation.TABLES) - {elation.VENDOR_TABLE}
    assert spec.excluded(elation.VENDOR_TABLE)
    assert spec.entry.refresh.rule == "vendor"
    assert spec.entry.refresh.cron == ("0 5 * * *",)
    immunization = spec.table("patient_immunization").bad_records_allowed
    assert immunization is not None
    assert immunization.rows == 2
