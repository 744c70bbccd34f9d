"""What every warehouse must do, whichever it is: one behaviour at a time, over real lakes, and over
a double of BigQuery's service that judges every request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_assets.mirroring import types
from mirror_assets.mirroring.errors import DriftRefused, MirrorError
from mirror_assets.mirroring.names import PARTITION_COLUMN, sql, warehouse_name
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema, compare
from mirror_assets.mirroring.warehouses import Warehouse, open_warehouse
from mirror_assets.mirroring.warehouses.base import Nearest, Transaction
from mirror_assets.sample.servers import PostgreSQL
from tests.conftest import LakeCatalogs
from tests.fakes.bigquery import BigQuery, bigquery

DAY = date(2026, 11, 22)
NEXT = DAY + timedelta(days=1)
CONTROL = TableSchema(
    (
        Column("run", "", types.STRING, True),
        Column("rows", "", types.INT64),
        Column("at", "", types.TIMESTAMP),
        Column("note", "", types.STRING),
    )
)
Opener = Callable[[], Warehouse]


@pytest.fixture(scope="module")
def service() -> Iterator[BigQuery]:
    with bigquery() as double:
        yield double


@pytest.fixture(scope="module")
def in_postgres(postgres: PostgreSQL) -> LakeCatalogs:
    return LakeCatalogs(postgres)


@pytest.fixture(params=["ducklake", "ducklake in PostgreSQL", "bigquery"])
def open_(request: pytest.FixtureRequest, tmp_path: Path, extensions: Path) -> Iterator[Opener]:
    url, password = f"ducklake:sqlite:{tmp_path}/lake/catalog.sqlite", None
    double: BigQuery | None = None
    if request.param == "bigquery":
        double = request.getfixturevalue("service")
        double.clear()
        url = f"bigquery:{double.project}?location=US&endpoint={double.url}"
    elif request.param != "ducklake":
        catalog = request.getfixturevalue("in_postgres").empty(tmp_path / "lake", "warehouses")
        url, password = catalog.url, catalog.password
    opened = []

    def open_one() -> Warehouse:
        found = open_warehouse(
            url,
            lake=str(tmp_path / "lake"),
            extensions=extensions,
            scratch=tmp_path / "scratch",
            memory="128MB",
            spill="1GB",
            password=password,
        )
        opened.append(found)
        return found

    yield open_one
    for warehouse in opened:
        warehouse.close()
    if double is not None:
        assert double.wrong == []


@pytest.fixture
def lake(open_: Opener) -> Warehouse:
    return open_()


def schema(**kinds: str) -> TableSchema:
    """Columns of these logical types; a trailing ``!`` makes one required."""
    return TableSchema(
        tuple(
            Column(name, "", LogicalType.parse(kind.rstrip("!")), kind.endswith("!"))
            for name, kind in kinds.items()
        )
    )


def stage(lake: Warehouse, table: str, day: date, **columns: Any) -> str:
    file = f"{lake.staging('clinic', table, day)}/0.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def publish(lake: Warehouse, table: str, day: date, *values: int) -> None:
    """Make ``values`` the day's rows of a table with one column ``v``."""
    files = [stage(lake, table, day, v=list(values))] if values else []

    def body(tx: Transaction) -> None:
        if tx.schema("clinic", table) is None:
            tx.create_table("clinic", table, schema(v="INT64"), partitioned=True)
        tx.replace_partition("clinic", table, day, files)
        tx.latest_view("clinic", f"{table}_latest", table, day)

    lake.commit(body)


def column(lake: Warehouse, statement: str) -> list[Any]:
    return [row[0] for row in lake.query(statement).rows]


# -- publication


def test_a_day_is_replaced_and_other_days_are_kept(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1, 2)
    publish(lake, "visit", NEXT, 3)
    publish(lake, "visit", DAY, 4)

    rows = lake.query(f"SELECT v, {PARTITION_COLUMN} AS day FROM clinic.visit ORDER BY v").rows
    assert rows == [(3, NEXT), (4, DAY)]
    assert lake.commit(lambda tx: tx.days("clinic", "visit")) == {DAY: 1, NEXT: 1}
    assert lake.commit(lambda tx: tx.newest_day("clinic", "visit")) == NEXT


def test_a_failed_body_changes_nothing_and_keeps_its_own_error(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)

    def body(tx: Transaction) -> None:
        tx.replace_partition("clinic", "visit", DAY, [])
        tx.create_table("clinic", "other", schema(v="INT64"), partitioned=True)
        raise DriftRefused("no")

    with pytest.raises(DriftRefused):
        lake.commit(body)

    assert column(lake, "SELECT v FROM clinic.visit_latest") == [1]
    assert lake.commit(lambda tx: tx.schema("clinic", "other")) is None


def test_a_body_sees_what_it_has_changed(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    file = stage(lake, "visit", NEXT, v=[2, 3])

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "log", CONTROL, partitioned=False)
        tx.replace_partition("clinic", "visit", NEXT, [file])
        tx.latest_view("clinic", "visit_latest", "visit", NEXT)
        assert tx.schema("clinic", "log") == CONTROL
        assert tx.days("clinic", "visit") == {DAY: 1, NEXT: 2}
        assert tx.newest_day("clinic", "visit") == NEXT
        assert tx.view_day("clinic", "visit_latest") == NEXT
        tx.replace_partition("clinic", "visit", NEXT, [])
        assert tx.newest_day("clinic", "visit") == DAY
        tx.replace_rows("clinic", "log", [log_row("a", 1), log_row("b", 2)])
        tx.replace_rows("clinic", "log", [log_row("a", 3)], run="a")
        assert tx.select("clinic", "log", ["rows"], run=["a", "b"]) == [{"rows": 2}, {"rows": 3}]
        tx.rename("clinic", "visit", "visit_depr_1")
        assert tx.tables("clinic") == {
            "log": False,
            "visit_depr_1": True,
            "visit_latest": False,
        }
        tx.create_table("clinic", "visit", schema(v="INT64"), partitioned=True)
        assert tx.days("clinic", "visit") == {}
        tx.latest_view("clinic", "visit_latest", "visit", DAY)

    lake.commit(body)

    assert column(lake, "SELECT v FROM clinic.visit_depr_1") == [1]
    assert column(lake, "SELECT v FROM clinic.visit_latest") == []
    assert sorted(column(lake, "SELECT rows FROM clinic.log")) == [2, 3]


def test_empty_days_and_a_latest_view_over_one(lake: Warehouse) -> None:
    publish(lake, "visit", DAY)
    assert lake.query("SELECT * FROM clinic.visit_latest").columns == ("v",)
    assert lake.query("SELECT * FROM clinic.visit_latest").rows == []

    days = lake.commit(lambda tx: [tx.view_day("clinic", f"{v}_latest") for v in ("visit", "no")])
    assert days == [DAY, None]

    publish(lake, "visit", DAY, 1)
    publish(lake, "visit", DAY)
    assert lake.query("SELECT count(*) FROM clinic.visit").rows == [(0,)]


def test_several_files_make_one_day(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    files = [stage(lake, "visit", DAY, v=[n]) for n in (2, 3)]
    lake.commit(lambda tx: tx.replace_partition("clinic", "visit", DAY, files))

    assert sorted(column(lake, "SELECT v FROM clinic.visit")) == [2, 3]


def test_hostile_table_names(lake: Warehouse) -> None:
    hostile = ("a b", "é", "select", "order by", "50%", "p-q")
    for number, table in enumerate(hostile):
        name = warehouse_name(table)
        file = stage(lake, table, DAY, v=[number])

        def body(tx: Transaction, name: str = name, file: str = file) -> None:
            tx.create_table("clinic", name, schema(v="INT64"), partitioned=True)
            tx.replace_partition("clinic", name, DAY, [file])
            tx.latest_view("clinic", f"{name}_latest", name, DAY)

        lake.commit(body)

    for number, table in enumerate(hostile):
        view = sql(warehouse_name(table) + "_latest")
        assert column(lake, f"SELECT v FROM clinic.{view}") == [number]


def test_hostile_columns(lake: Warehouse) -> None:
    hostile = ["a b", "é", "select", "Group", "1st", "x-y"]
    wide = schema(**dict.fromkeys(hostile, "INT64!"))
    file = stage(lake, "wide", DAY, **{name: [i] for i, name in enumerate(hostile)})

    def body(tx: Transaction) -> TableSchema | None:
        tx.create_table("clinic", "wide", wide, partitioned=True)
        tx.replace_partition("clinic", "wide", DAY, [file])
        tx.latest_view("clinic", "wide_latest", "wide", DAY)
        return tx.schema("clinic", "wide")

    assert lake.commit(body) == wide
    answer = lake.query("SELECT * FROM clinic.wide_latest")
    assert answer.columns == tuple(hostile)
    assert answer.dicts() == [dict(zip(hostile, range(6), strict=True))]


# -- values

EXACT: dict[str, tuple[str, Any, list[Any]]] = {
    "yes": ("BOOL", pa.bool_(), [True, False]),
    "whole": ("INT64", pa.int64(), [-(2**63), 2**63 - 1]),
    "wide": ("FLOAT64", pa.float64(), [float("inf"), -5e-324]),
    "real": ("FLOAT64", pa.float64(), [0.1 + 0.2, float("-inf")]),
    "money": ("DECIMAL(29,9)", pa.decimal128(29, 9), [Decimal("0.000000001"), Decimal("-1")]),
    "huge": ("DECIMAL(38,0)", pa.decimal128(38, 0), [Decimal(10**38 - 1), Decimal(0)]),
    "fine": ("DECIMAL(38,38)", pa.decimal128(38, 38), [Decimal("1e-38"), Decimal(0)]),
    "text": ("STRING", pa.string(), ["", "NULL \n\r\t\"'`\\ ü 😀"]),
    "time": ("STRING", pa.string(), ["-838:59:59", "24:00:00.000001"]),
    "json": ("STRING", pa.string(), ['{"a": [1, null]}', "[]"]),
    "raw": ("BYTES", pa.binary(), [b"", bytes(range(256))]),
    "born": ("DATE", pa.date32(), [date(1, 1, 1), date(9999, 12, 31)]),
    "wall": (
        *("DATETIME", pa.timestamp("us")),
        [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)],
    ),
    "instant": (
        *("TIMESTAMP", pa.timestamp("us", "UTC")),
        [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ],
    ),
}


def exact_day(lake: Warehouse) -> None:
    """A day with the values of EXACT, and a row of NULLs."""
    declared = schema(
        **{"id": "INT64!"} | {name: kind for name, (kind, _arrow, _v) in EXACT.items()}
    )
    columns = {
        name: pa.array([*values, None], arrow) for name, (_kind, arrow, values) in EXACT.items()
    }
    file = stage(lake, "exact", DAY, id=[1, 2, 3], **columns)

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "exact", declared, partitioned=True)
        tx.replace_partition("clinic", "exact", DAY, [file])

    lake.commit(body)


def test_every_type_arrives_exactly(lake: Warehouse) -> None:
    exact_day(lake)

    for name, (_kind, _arrow, values) in EXACT.items():
        found = column(lake, f'SELECT "{name}" FROM clinic.exact ORDER BY id')
        assert found == [*values, None], name


def test_nan_arrives_as_nan(lake: Warehouse) -> None:
    file = stage(lake, "t", DAY, f=[float("nan"), -0.0])

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "t", schema(f="FLOAT64"), partitioned=True)
        tx.replace_partition("clinic", "t", DAY, [file])

    lake.commit(body)

    assert sorted(map(repr, column(lake, "SELECT f FROM clinic.t"))) == ["-0.0", "nan"]


def test_streamed_answers_are_exact_and_come_page_by_page(lake: Warehouse) -> None:
    exact_day(lake)
    publish(lake, "visit", DAY, *range(1000))

    with lake.batches(f"SELECT * FROM {lake.relation('clinic', 'exact', DAY)} ORDER BY id") as got:
        rows = pa.Table.from_batches(list(got), got.schema).to_pylist()
    with lake.batches(f"SELECT v FROM {lake.relation('clinic', 'visit', DAY)} ORDER BY v") as got:
        values = [value for batch in got for value in batch.column(0).to_pylist()]

    for name, (kind, _arrow, values_) in EXACT.items():
        found = [row[name] for row in rows]
        if kind.startswith("DECIMAL"):
            found = [None if value is None else Decimal(value) for value in found]
        assert found == [*values_, None], name
    assert values == list(range(1000))


def test_a_saved_answer_is_staged_and_published_nested(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 2, 1)
    relation = lake.relation("clinic", "visit", DAY)
    nested = (
        "SELECT v, {'name': CAST(v AS VARCHAR), 'half': v / 2} AS said, [v, v + 1] AS listed"
        f" FROM {relation}"
    )
    file = f"{lake.staging('clinic', 'nested', DAY)}/0.parquet"
    assert lake.save(nested, file) == 2

    def body(tx: Transaction) -> None:
        tx.ensure_like("clinic", "nested", file)
        tx.replace_partition("clinic", "nested", DAY, [file])
        tx.latest_view("clinic", "nested_latest", "nested", DAY)

    lake.commit(body)

    rows = lake.query("SELECT * FROM clinic.nested_latest ORDER BY v").rows
    assert rows == [
        (1, {"name": "1", "half": 0.5}, [1, 2]),
        (2, {"name": "2", "half": 1.0}, [2, 3]),
    ]


# -- schema


def test_a_schema_comes_back_as_it_was_declared(lake: Warehouse) -> None:
    kinds = ("BOOL!", "INT64", "FLOAT64", "DECIMAL(38,9)", "DECIMAL(20,0)!", "STRING!")
    kinds = (*kinds, "BYTES", "DATE", "DATETIME", "TIMESTAMP")
    declared = schema(**{f"c{i}": kind for i, kind in enumerate(kinds)})

    def body(tx: Transaction) -> None:
        assert tx.schema("clinic", "t") is None
        tx.create_table("clinic", "t", declared, partitioned=True)

    lake.commit(body)

    assert lake.commit(lambda tx: tx.schema("clinic", "t")) == declared
    assert lake.schemas("clinic") == {"t": declared}
    assert lake.schemas("nowhere") == {}


def test_added_relaxed_and_widened_columns_keep_the_old_rows(lake: Warehouse) -> None:
    old = schema(id="INT64!", n="INT64", amount="DECIMAL(10,2)")
    new = schema(id="INT64", n="DECIMAL(20,0)", amount="DECIMAL(14,4)", text="STRING!")
    first = stage(
        lake, "t", DAY, id=[1], n=[9], amount=pa.array([Decimal("1.25")], pa.decimal128(10, 2))
    )
    second = stage(
        *(lake, "t", NEXT),
        id=pa.array([None], pa.int64()),
        n=pa.array([Decimal(2**64)], pa.decimal128(20, 0)),
        amount=pa.array([Decimal("0.0001")], pa.decimal128(14, 4)),
        text=["new"],
    )

    def create(tx: Transaction) -> None:
        tx.create_table("clinic", "t", old, partitioned=True)
        tx.replace_partition("clinic", "t", DAY, [first])
        tx.latest_view("clinic", "t_latest", "t", DAY)

    def follow(tx: Transaction) -> None:
        known = tx.schema("clinic", "t")
        assert known is not None
        drift = compare(known, new)
        assert not drift.breaking
        tx.evolve("clinic", "t", new, drift)
        tx.replace_partition("clinic", "t", NEXT, [second])

    lake.commit(create)
    lake.commit(follow)

    rows = lake.query("SELECT id, n, amount, text FROM clinic.t ORDER BY id").rows
    assert sorted(rows, key=str) == [
        (1, Decimal(9), Decimal("1.2500"), None),
        (None, Decimal(2**64), Decimal("0.0001"), "new"),
    ]
    assert lake.query("SELECT n FROM clinic.t_latest").rows == [(Decimal(9),)]
    found = lake.commit(lambda tx: tx.schema("clinic", "t"))
    assert found is not None
    assert [str(c.type) for c in found.columns] == [str(c.type) for c in new.columns]
    assert not any(c.required for c in found.columns)


def test_a_name_may_change_in_case(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    new = schema(V="INT64")

    def body(tx: Transaction) -> None:
        known = tx.schema("clinic", "visit")
        assert known is not None
        tx.evolve("clinic", "visit", new, compare(known, new))

    lake.commit(body)

    assert lake.commit(lambda tx: tx.schema("clinic", "visit")) == new
    assert lake.query("SELECT * FROM clinic.visit_latest").rows == [(1,)]


def test_an_older_file_without_a_newer_column_has_no_values_in_it(lake: Warehouse) -> None:
    file = stage(lake, "t", DAY, id=[1])

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "t", schema(id="INT64!", text="STRING"), partitioned=True)
        tx.replace_partition("clinic", "t", DAY, [file])

    lake.commit(body)

    assert lake.query("SELECT id, text FROM clinic.t").rows == [(1, None)]


def test_required_stays_required_although_files_call_columns_optional(lake: Warehouse) -> None:
    """A-6: a NULL in a required column publishes nothing of the table."""
    good, bad = (stage(lake, "t", day, id=ids) for day, ids in ((DAY, [1]), (NEXT, [None, 2])))
    assert pq.read_schema(good).field("id").nullable

    def create(tx: Transaction) -> None:
        tx.create_table("clinic", "t", schema(id="INT64!"), partitioned=True)
        tx.replace_partition("clinic", "t", DAY, [good])

    lake.commit(create)
    found = lake.commit(lambda tx: tx.schema("clinic", "t"))

    assert found == schema(id="INT64!")
    if lake.dialect == "bigquery":  # a DuckLake takes files as they are; the typed load looks
        with pytest.raises(MirrorError):
            lake.commit(lambda tx: tx.replace_partition("clinic", "t", NEXT, [bad]))
        assert column(lake, "SELECT id FROM clinic.t") == [1]


def test_a_derived_table_gets_new_columns_and_refuses_other_types(lake: Warehouse) -> None:
    files = [
        stage(lake, "d", DAY, v=[1]),
        stage(lake, "d", DAY, v=[1], w=["x"]),
        stage(lake, "d", DAY, v=["text"]),
    ]
    for file in files[:2]:
        lake.commit(lambda tx, file=file: tx.ensure_like("clinic", "d", file))

    found = lake.commit(lambda tx: tx.schema("clinic", "d"))
    assert found is not None
    assert found.names == ("v", "w")
    with pytest.raises(DriftRefused, match=r"column v of clinic\.d"):
        lake.commit(lambda tx: tx.ensure_like("clinic", "d", files[2]))


def test_a_renamed_table_keeps_its_history_and_frees_its_name(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)

    lake.commit(lambda tx: tx.rename("clinic", "visit", "visit_depr_1"))
    publish(lake, "visit", NEXT, 2)

    assert column(lake, "SELECT v FROM clinic.visit_depr_1") == [1]
    assert column(lake, "SELECT v FROM clinic.visit") == [2]
    lake.commit(lambda tx: tx.drop_table("clinic", "visit_depr_1"))
    assert "visit_depr_1" not in lake.schemas("clinic")


def test_days_older_than_the_retention_are_dropped(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    publish(lake, "visit", NEXT, 2)

    lake.commit(lambda tx: tx.delete_before("clinic", "visit", PARTITION_COLUMN, NEXT))

    assert column(lake, "SELECT v FROM clinic.visit") == [2]


def test_views_come_and_go(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    lake.commit(lambda tx: tx.view("clinic", "twice", "SELECT 2 * v AS w FROM clinic.visit"))
    assert column(lake, "SELECT w FROM clinic.twice") == [2]

    lake.commit(lambda tx: tx.drop_view("clinic", "twice"))
    lake.commit(lambda tx: tx.drop_view("clinic", "twice"))
    assert lake.commit(lambda tx: tx.tables("clinic")) == {"visit": True, "visit_latest": False}


# -- control rows


@pytest.fixture
def control(lake: Warehouse) -> Warehouse:
    lake.commit(lambda tx: tx.create_table("clinic", "log", CONTROL, partitioned=False))
    return lake


def log_row(run: str, rows: int | None, note: str | None = None) -> dict[str, Any]:
    return {"run": run, "rows": rows, "at": datetime(2026, 11, 22, tzinfo=UTC), "note": note}


@pytest.mark.parametrize("count", [2, 700])
def test_control_rows_are_replaced_not_doubled(control: Warehouse, count: int) -> None:
    rows = [log_row("r1", n) for n in range(count)]
    for _time in range(3):
        control.commit(lambda tx: tx.replace_rows("clinic", "log", rows, run="r1"))
    control.commit(lambda tx: tx.replace_rows("clinic", "log", [log_row("r2", 5)], run="r2"))

    found = control.commit(lambda tx: tx.select("clinic", "log", ["rows", "at"], run="r1"))
    assert sorted(row["rows"] for row in found) == list(range(count))
    assert found[0]["at"] == datetime(2026, 11, 22, tzinfo=UTC)
    assert column(control, "SELECT rows FROM clinic.log WHERE run = 'r2'") == [5]


def test_the_nearest_rows_are_those_around_a_day(lake: Warehouse) -> None:
    days = [DAY + timedelta(days=n) for n in range(6)]
    rows = [{"kind": kind, "day": day, "n": n} for kind in "ab" for n, day in enumerate(days)]
    rows += [{"kind": "a", "day": days[2], "n": 22}, {"kind": "c", "day": days[0], "n": 0}]

    def write(tx: Transaction) -> None:
        kinds = schema(kind="STRING", day="DATE", n="INT64")
        tx.create_table("clinic", "log", kinds, partitioned=False)
        tx.replace_rows("clinic", "log", rows)

    def look(tx: Transaction) -> list[tuple[str, int]]:
        near = Nearest("day", days[2], ("kind",), 2)
        found = tx.select(
            "clinic", "log", ["kind", "n"], {"kind": ["a", "c"]}, {"n": [1]}, nearest=near
        )
        return sorted((row["kind"], row["n"]) for row in found)

    lake.commit(write)
    around = [("a", n) for n in (1, 2, 4, 5, 22)]
    assert lake.commit(look) == [*around, ("b", 1), ("c", 0)]


def test_rows_are_matched_by_lists_nothing_and_null(control: Warehouse) -> None:
    def body(tx: Transaction) -> None:
        tx.replace_rows("clinic", "log", [log_row("a", 1), log_row("b", None), log_row("c'\\", 3)])

    def look(tx: Transaction) -> list[list[Any]]:
        found = [
            tx.select("clinic", "log", ["run"], **equal)
            for equal in ({"run": ["a", "c'\\"]}, {"run": []}, {"rows": None}, {})
        ]
        either = tx.select("clinic", "log", ["run"], {"run": "a"}, {"rows": [3]})
        return [sorted(row["run"] for row in rows) for rows in (*found, either)]

    control.commit(body)

    assert control.commit(look) == [
        *(["a", "c'\\"], [], ["b"], ["a", "b", "c'\\"]),
        ["a", "c'\\"],
    ]


def test_replacing_by_no_rows_deletes_and_spares_the_rest(control: Warehouse) -> None:
    def body(tx: Transaction) -> None:
        tx.replace_rows("clinic", "log", [log_row("a", 1), log_row("b", 2)])
        tx.replace_rows("clinic", "log", [], run="a")
        tx.replace_rows("clinic", "log", [], run=[])

    control.commit(body)

    assert column(control, "SELECT run FROM clinic.log") == ["b"]


def test_text_is_blanked_and_rows_are_deleted_by_age(control: Warehouse) -> None:
    old, new = log_row("a", 1, "old"), log_row("b", 2, "new") | {"at": datetime.now(UTC)}
    control.commit(lambda tx: tx.replace_rows("clinic", "log", [old, new]))

    control.commit(lambda tx: tx.blank_before("clinic", "log", "note", "at", NEXT))
    assert control.query("SELECT run, note FROM clinic.log ORDER BY run").rows == [
        ("a", None),
        ("b", "new"),
    ]
    control.commit(lambda tx: tx.delete_before("clinic", "log", "at", NEXT))
    assert column(control, "SELECT run FROM clinic.log") == ["b"]


# -- the rest


def test_a_discarded_staging_folder_is_gone(lake: Warehouse) -> None:
    file = stage(lake, "visit", DAY, v=[1])

    lake.discard(str(Path(file).parent))
    lake.discard(str(Path(file).parent))

    assert not Path(file).exists()


def test_a_limit_bounds_the_answer(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, *range(10))

    assert len(lake.query("SELECT v FROM clinic.visit", limit=3).rows) == 3
    assert len(lake.query("SELECT v FROM clinic.visit").rows) == 10


@pytest.mark.parametrize("native", [False, True])
def test_what_a_query_may_not_do_is_refused_with_the_next_step(
    lake: Warehouse, native: bool
) -> None:
    publish(lake, "visit", DAY, 1)

    for statement in (
        "INSERT INTO clinic.visit (v) VALUES (2)",
        "DELETE FROM clinic.visit WHERE TRUE",
        "DROP TABLE clinic.visit",
        "SELECT 1; DELETE FROM clinic.visit WHERE TRUE",
        "SELECT 1; SELECT 2",
        "SELECT colour FROM clinic.visit",
        "SELECT v FROM clinic.visitors",
        "SELEC 1",
    ):
        with pytest.raises(MirrorError) as caught:
            lake.query(statement, native=native)
        assert caught.value.remedy, statement
    assert column(lake, "SELECT v FROM clinic.visit") == [1]


def test_errors_never_carry_a_rows_values(control: Warehouse) -> None:
    rows = [log_row("a", 4711, "canary-4711(")]
    control.commit(lambda tx: tx.replace_rows("clinic", "log", rows))

    with pytest.raises(MirrorError) as caught:
        control.query("SELECT CAST(note AS BIGINT) FROM clinic.log")

    assert "4711" not in caught.value.sentence
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_upkeep_can_be_done_at_any_time(lake: Warehouse) -> None:
    publish(lake, "visit", DAY, 1)
    left = stage(lake, "visit", NEXT, v=[3])

    for _time in range(2):
        lake.maintain(time_travel_days=7)

    assert Path(left).exists()
    assert column(lake, "SELECT v FROM clinic.visit") == [1]
    with lake.exclusive():
        assert lake.query("SELECT 1").rows == [(1,)]


def test_a_name_is_held_by_one_at_a_time_and_all_else_goes_on(open_: Opener) -> None:
    one, other = open_(), open_()
    held = Event()

    def wait() -> None:
        with other.alone("feed"):
            held.set()

    waiting = Thread(target=wait)
    with one.alone("feed"), one.alone("another"):
        waiting.start()
        publish(one, "visit", DAY, 1)
        publish(other, "visit", NEXT, 2)
        assert not held.wait(0.3)
    assert held.wait(10)
    waiting.join(10)
