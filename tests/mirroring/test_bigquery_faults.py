"""What goes wrong on the way to BigQuery: refused, unavailable, lost, killed; and run again."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.auth import exceptions as auth

from mirror_assets.mirroring import control, types
from mirror_assets.mirroring.errors import (
    MirrorError,
    PublicationPending,
    SettingsError,
    WarehouseFault,
    WarehouseRefused,
)
from mirror_assets.mirroring.schema import Column, LogicalType, TableSchema, compare
from mirror_assets.mirroring.warehouses.base import Transaction
from mirror_assets.mirroring.warehouses.bigquery import BigQueryWarehouse, faults
from mirror_assets.mirroring.warehouses.bigquery.commit import _FRESH, Carrier, Turn
from mirror_assets.mirroring.warehouses.bigquery.service import _REQUEST_SECONDS
from tests.fakes.bigquery import BigQuery, Fault, Refused, bigquery

DAY = date(2026, 11, 22)
LOG = TableSchema((Column("run", "", types.STRING, True), Column("rows", "", types.INT64)))
ERRORS = (control.ERRORS.name, control.ERRORS.schema)
JOBS, QUERIES = "/jobs$", "/queries$"


@pytest.fixture(scope="module")
def running() -> Iterator[BigQuery]:
    with bigquery() as double:
        yield double


@pytest.fixture
def service(running: BigQuery) -> Iterator[BigQuery]:
    running.clear()
    yield running
    assert running.wrong == []


@pytest.fixture
def lake(service: BigQuery, tmp_path: Path) -> Iterator[BigQueryWarehouse]:
    found = opened(service, tmp_path)
    yield found
    found.close()


def opened(service: BigQuery, root: Path, **options: Any) -> BigQueryWarehouse:
    url = f"bigquery:{service.project}?location=US&endpoint={service.url}"
    known = {"patience": 10.0} | options
    return BigQueryWarehouse(url, str(root / "lake"), **known)


def schema(**kinds: str) -> TableSchema:
    return TableSchema(
        tuple(
            Column(name, "", LogicalType.parse(kind.rstrip("!")), kind.endswith("!"))
            for name, kind in kinds.items()
        )
    )


def stage(lake: BigQueryWarehouse, table: str, day: date, **columns: Any) -> str:
    file = f"{lake.staging('clinic', table, day)}/0.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def publish(lake: BigQueryWarehouse, *values: int, day: date = DAY, table: str = "visit") -> None:
    files = [stage(lake, table, day, v=list(values))]

    def body(tx: Transaction) -> None:
        if tx.schema("clinic", table) is None:
            tx.create_table("clinic", table, schema(v="INT64"), partitioned=True)
        tx.replace_partition("clinic", table, day, files)
        tx.latest_view("clinic", f"{table}_latest", table, day)

    lake.commit(body)


def values(lake: BigQueryWarehouse, view: str = "visit_latest") -> list[Any]:
    return [row[0] for row in lake.query(f"SELECT v FROM clinic.{view} ORDER BY v").rows]


# -- faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", JOBS, 429, "rateLimitExceeded", times=2),
        Fault("POST", JOBS, 403, "rateLimitExceeded"),
        Fault("POST", JOBS, 503),
        Fault("POST", JOBS, 500, "internalError"),
        Fault("POST", JOBS, 503, lost=True),
        Fault("POST", JOBS, 503, lost=True, body="CREATE OR REPLACE VIEW"),
        Fault("POST", JOBS, 400, "backendError", in_job=True),
        Fault("POST", JOBS, 400, "jobInternalError", in_job=True, times=3),
        Fault("POST", "/tables$", 503, lost=True),
        Fault("POST", "/tables$", 503, lost=True, body='"tableId": "visit"'),
        Fault("POST", "/datasets$", 503, lost=True),
        Fault("DELETE", "/tables/", 503, lost=True),
    ],
    ids=lambda fault: f"{fault.verb}{fault.path}-{fault.status}-{fault.reason}-{fault.lost}",
)
def test_what_passes_is_tried_again_and_loads_once(
    lake: BigQueryWarehouse, service: BigQuery, fault: Fault
) -> None:
    service.faults.append(Fault(**vars(fault)))

    publish(lake, 1, 2)

    assert service.faults == []
    assert values(lake) == [1, 2]
    assert service.loads == [f"clinic.visit${DAY:%Y%m%d}"]
    assert not list(Path(lake._lake.root).rglob("*.json"))


def test_a_lost_answer_to_a_query_is_asked_again(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    publish(lake, 1)
    service.faults.append(Fault("POST", QUERIES, 503, lost=True))

    assert values(lake) == [1]


# -- faults that do not


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (Fault("POST", JOBS, 403, "accessDenied"), WarehouseRefused, "roles/bigquery.dataEditor"),
        (Fault("POST", JOBS, 404, "notFound"), WarehouseRefused, "mirror doctor"),
        (Fault("POST", JOBS, 403, "quotaExceeded", times=9), PublicationPending, "within a day"),
        (Fault("POST", JOBS, 401, "authError"), WarehouseRefused, "have not expired"),
        (Fault("POST", JOBS, 403, "billingNotEnabled"), WarehouseRefused, "enable billing"),
        (Fault("POST", JOBS, 400, "invalid", in_job=True), WarehouseRefused, "discover"),
        (
            Fault("POST", JOBS, 400, "quotaExceeded", in_job=True, times=99),
            PublicationPending,
            "day",
        ),
        (Fault("POST", JOBS, 503, times=999), PublicationPending, "run the partition again"),
    ],
    ids=lambda value: f"{value.status}-{value.reason}" if isinstance(value, Fault) else None,
)
def test_what_stays_is_told_with_the_next_step_and_no_value(
    service: BigQuery, tmp_path: Path, fault: Fault, kind: type[MirrorError], told: str
) -> None:
    lake = opened(service, tmp_path, patience=0.5)
    publish(lake, 1)
    service.faults.append(Fault(**vars(fault)))

    with pytest.raises(MirrorError) as caught:
        publish(lake, 2)

    assert type(caught.value) is kind
    assert told in caught.value.remedy
    assert "canary" not in caught.value.sentence
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    service.faults.clear()
    publish(lake, 3)
    assert values(lake) == [3]


def test_no_credentials_are_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no-such-key.json"))
    lake = BigQueryWarehouse("bigquery:a-project", "gs://bucket/lake")

    with pytest.raises(WarehouseRefused, match="no valid Google credentials"):
        lake.query("SELECT 1")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.TransportError("canary"), WarehouseFault),
        (auth.RefreshError("canary", retryable=True), WarehouseFault),
        (auth.RefreshError("canary"), WarehouseRefused),
        (auth.DefaultCredentialsError("canary"), WarehouseRefused),
    ],
    ids=["unreachable", "busy", "revoked", "none"],
)
def test_a_token_service_that_is_away_is_no_refusal(
    error: Exception, kind: type[MirrorError]
) -> None:
    found = faults.of_client(error, "dataset clinic")

    assert type(found) is kind
    assert "canary" not in found.sentence
    assert faults.is_transient(error) is found.transient


@pytest.mark.parametrize("is_lost", [False, True])
def test_jobs_of_a_region_are_waited_for_there_without_a_stated_location(
    service: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    url = f"bigquery:{service.project}?endpoint={service.url}"
    lake = BigQueryWarehouse(url, str(tmp_path / "lake"), patience=10.0)
    publish(lake, 1)
    service.datasets["clinic"]["location"] = "europe-west3"
    insert = service._insert_job
    monkeypatch.setattr(
        service, "_insert_job", lambda *a: {**insert(*a), "status": {"state": "RUNNING"}}
    )
    if is_lost:
        service.faults.append(Fault("POST", JOBS, 503, lost=True))

    publish(lake, 2)

    assert values(lake) == [2]


def test_an_unreachable_service_is_told_as_such(tmp_path: Path) -> None:
    url = "bigquery:a-project?endpoint=http://127.0.0.1:9"
    lake = BigQueryWarehouse(url, str(tmp_path), patience=0.3)

    with pytest.raises(WarehouseFault, match="could not be reached"):
        lake.query("SELECT 1")


@pytest.mark.parametrize(
    ("url", "lake", "told"),
    [
        ("bigquery:", "gs://b/l", "no address"),
        ("bigquery:a-project?region=EU", "gs://b/l", "no address"),
        ("bigquery:a-project", "/tmp/lake", "folder of this machine"),
    ],
)
def test_an_address_that_cannot_work_is_refused(url: str, lake: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        BigQueryWarehouse(url, lake)


# -- what the service refuses, as the double does


def test_a_value_out_of_range_fails_its_whole_load(lake: BigQueryWarehouse) -> None:
    wall = pa.array([10**18, 0], pa.timestamp("us"))  # 1e12 seconds: the year 33658
    file = stage(lake, "t", DAY, at=wall)

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "t", schema(at="DATETIME"), partitioned=True)
        tx.replace_partition("clinic", "t", DAY, [file])

    with pytest.raises(WarehouseRefused, match="invalid at file"):
        lake.commit(body)
    assert lake.query("SELECT count(*) FROM clinic.t").rows == [(0,)]


def test_the_double_refuses_a_required_column_without_a_stated_schema(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    file = stage(lake, "t", DAY, id=[1])
    lake.commit(lambda tx: tx.create_table("clinic", "t", schema(id="INT64!"), partitioned=True))
    target = {"projectId": service.project, "datasetId": "clinic", "tableId": "t"}
    load = {"destinationTable": target, "sourceUris": [file], "sourceFormat": "PARQUET"}
    stated = load | {"schema": {"fields": [{"name": "id", "type": "INT64", "mode": "REQUIRED"}]}}

    with pytest.raises(Refused, match="changed mode from REQUIRED to NULLABLE"):
        service._load(load)
    assert service._load(stated)["outputRows"] == "1"


def test_the_double_refuses_different_files_behind_one_wildcard(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    folder = lake.staging("clinic", "t", DAY)
    for number, columns in enumerate(({"v": [1]}, {"v": ["text"]})):
        pq.write_table(pa.table(columns), f"{folder}/{number}.parquet")
    lake.commit(lambda tx: tx.create_table("clinic", "t", schema(v="INT64"), partitioned=True))
    target = {"projectId": service.project, "datasetId": "clinic", "tableId": "t"}
    load = {"destinationTable": target, "sourceFormat": "PARQUET"}
    fields = {"schema": {"fields": [{"name": "v", "type": "INT64"}]}}

    with pytest.raises(Refused, match="Schemas differ"):
        service._load(load | fields | {"sourceUris": [f"{folder}/*.parquet"]})
    (one := Path(folder) / "1.parquet").unlink()
    assert not one.exists()
    assert service._load(load | fields | {"sourceUris": [f"{folder}/*.parquet"]})


def test_rows_that_were_not_loaded_are_missed(
    lake: BigQueryWarehouse, service: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service._load
    monkeypatch.setattr(service, "_load", lambda load: real(load) | {"outputRows": "1"})

    with pytest.raises(MirrorError, match="2 rows were staged and BigQuery loaded 1"):
        publish(lake, 1, 2)


# -- kills


def everything(lake: BigQueryWarehouse) -> dict[str, Any]:
    """All that readers can see."""
    tables = lake.commit(lambda tx: tx.tables("clinic"))
    return {
        "tables": tables,
        "visit": lake.query(
            "SELECT *, _PARTITIONDATE AS day FROM clinic.visit ORDER BY v, day"
        ).rows,
        "aside": lake.query("SELECT * FROM clinic.stay_depr_1 ORDER BY v").rows,
        "stay": lake.query("SELECT * FROM clinic.stay_latest").rows,
        "latest": lake.query("SELECT * FROM clinic.visit_latest ORDER BY v").rows,
        "log": lake.query("SELECT * FROM clinic.log ORDER BY run, rows").rows,
    }


def before(lake: BigQueryWarehouse) -> None:
    publish(lake, 1, day=DAY - timedelta(days=1))
    publish(lake, 5, table="stay", day=DAY - timedelta(days=1))

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "log", LOG, partitioned=False)
        tx.replace_rows("clinic", "log", [{"run": "old", "rows": 1}])

    lake.commit(body)


def change(lake: BigQueryWarehouse) -> None:
    """A publication with everything in it; its judgement depends on what is there."""
    new = schema(V="DECIMAL(20,0)", more="STRING")
    visits = stage(lake, "visit", DAY, V=pa.array([2, 3], pa.decimal128(20, 0)), more=["a", "b"])
    stays = stage(lake, "stay", DAY, w=["x"])

    def body(tx: Transaction) -> None:
        known, stay = tx.schema("clinic", "visit"), tx.schema("clinic", "stay")
        assert known is not None
        drift = compare(known, new)
        tx.evolve("clinic", "visit", new, drift)
        if stay is not None and stay.names == ("v",):
            tx.rename("clinic", "stay", "stay_depr_1")
            tx.create_table("clinic", "stay", schema(w="STRING"), partitioned=True)
        told = len(drift.changes)
        done = tx.select("clinic", "log", ["run"], run="new")
        for table, file in (("visit", visits), ("stay", stays)):
            tx.replace_partition("clinic", table, DAY, [file])
            tx.latest_view("clinic", f"{table}_latest", table, DAY)
        if not done:
            tx.replace_rows("clinic", "log", [{"run": "new", "rows": told}], run="new")

    lake.commit(body)


def let_time_pass(service: BigQuery) -> None:
    """Until a killed writer's turn has ended."""
    turn = service.tables.get(("clinic", "mirror_temporary_turn"))
    if turn is not None:
        turn.resource["expirationTime"] = "0"


def test_a_kill_at_any_point_and_a_rerun_end_in_the_same_state(
    service: BigQuery, tmp_path: Path
) -> None:
    undisturbed = opened(service, tmp_path / "first")
    before(undisturbed)
    service._changes = 0
    change(undisturbed)
    steps = service._changes
    wanted = everything(undisturbed)
    assert wanted["log"] == [("new", 3), ("old", 1)]
    assert steps > 10
    undisturbed.close()

    harmless: list[int] = []
    for step in range(1, steps + 1):
        service.clear()
        first = opened(service, tmp_path / str(step), patience=0.05)
        before(first)
        service._changes, service.dies_after = 0, step
        with suppress(MirrorError):
            change(first)
            harmless.append(step)
        service.dies_after = None
        first.close()
        let_time_pass(service)

        again = opened(service, tmp_path / str(step))
        change(again)
        assert everything(again) == wanted, f"killed after {step} of {steps} changes"
        again.close()
    # what is left then are temporary tables: the control rows' and the turn
    assert harmless == [steps - 2, steps - 1, steps]


@pytest.mark.parametrize(
    ("body", "done"),
    [("RENAME COLUMN", 2), ("CREATE OR REPLACE VIEW", 1), ("BEGIN TRANSACTION", 2)],
)
def test_a_script_that_breaks_between_two_statements_is_done_to_its_end(
    lake: BigQueryWarehouse, service: BigQuery, body: str, done: int
) -> None:
    before(lake)
    service.faults.append(
        Fault("POST", JOBS, 400, "backendError", in_job=True, body=body, done=done)
    )

    change(lake)

    assert service.faults == []
    (view,) = lake.query("SELECT * FROM clinic.visit_latest LIMIT 0").columns[:1]
    assert view == "V"
    assert lake.query("SELECT V FROM clinic.visit_latest ORDER BY 1").rows == [(2,), (3,)]
    assert lake.query("SELECT * FROM clinic.log ORDER BY run").rows == [("new", 3), ("old", 1)]


def test_views_move_in_scripts_of_at_most_fifty(lake: BigQueryWarehouse, service: BigQuery) -> None:
    publish(lake, 1)
    known = set(service.jobs)

    def body(tx: Transaction) -> None:
        for number in range(101):
            tx.view("clinic", f"v{number}", "SELECT 1 AS v")

    lake.commit(body)

    scripts = [
        service.jobs[job]["configuration"]["query"]["query"] for job in service.jobs.keys() - known
    ]
    assert sorted(text.count("CREATE OR REPLACE VIEW") for text in scripts) == [1, 50, 50]
    assert lake.query("SELECT v FROM clinic.v100").rows == [(1,)]


# -- what was begun is finished, or left to the next writer

LOAD = '"load"'


def staged_files(lake: BigQueryWarehouse) -> list[str]:
    return sorted(path.name for path in Path(lake._lake.root).rglob("*.parquet"))


def journaled(lake: BigQueryWarehouse) -> bool:
    return any(Path(lake._lake.root).glob("journal/*.json"))


def test_what_is_begun_and_interrupted_is_finished_at_once(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    service.faults.append(Fault("POST", JOBS, 403, "quotaExceeded", body=LOAD))

    publish(lake, 1)

    assert values(lake) == [1]
    assert not journaled(lake)
    assert lake._promised == set()


def test_what_is_pending_keeps_its_files_and_is_finished_by_the_next_run(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    publish(lake, 1, table="other")
    file = stage(lake, "visit", DAY, v=[2])
    service.faults.append(Fault("POST", JOBS, 403, "quotaExceeded", times=99, body=LOAD))

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "visit", schema(v="INT64"), partitioned=True)
        tx.replace_partition("clinic", "visit", DAY, [file])

    with pytest.raises(PublicationPending, match="the next run finishes it"):
        lake.commit(body)
    with pytest.raises(PublicationPending, match="the next run finishes it"):
        publish(lake, 3, table="other")
    lake.discard(str(Path(file).parent))
    assert Path(file).exists()
    service.faults.clear()
    publish(lake, 4, table="other")

    assert lake.query("SELECT v FROM clinic.visit").rows == [(2,)]
    assert values(lake, "other_latest") == [4]
    assert not journaled(lake)
    assert not Path(file).exists()


def test_an_interrupt_leaves_the_files_of_what_was_begun(
    lake: BigQueryWarehouse, service: BigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stage(lake, "visit", DAY, v=[2])

    def body(tx: Transaction) -> None:
        tx.create_table("clinic", "visit", schema(v="INT64"), partitioned=True)
        tx.replace_partition("clinic", "visit", DAY, [file])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(Carrier, "_load", lambda *a: interrupt() if a[2] else None)
        with pytest.raises(KeyboardInterrupt):
            lake.commit(body)
    lake.discard(str(Path(file).parent))
    assert journaled(lake)
    publish(lake, 1, table="other")

    assert lake.query("SELECT v FROM clinic.visit").rows == [(2,)]
    assert service.loads.count(f"clinic.visit${DAY:%Y%m%d}") == 1


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_another_writer_finished_or_gave_up_is_reported_as_that(
    service: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    """A writer that lost its turn while it waited for the service."""
    one, other = (opened(service, tmp_path) for _ in range(2))
    publish(one, 1)
    real, calls = Turn.take, []

    def take(turn: Turn) -> None:
        calls.append(turn)
        if len(calls) == 2:
            let_time_pass(service)
            if is_lost:
                for file in Path(one._lake.root).glob("staged/clinic/visit/*/*/*.parquet"):
                    file.unlink()
            publish(other, 7, table="stay")
        real(turn)

    monkeypatch.setattr(Turn, "take", take)
    service.faults.append(Fault("POST", JOBS, 403, "quotaExceeded", body=LOAD))
    if is_lost:
        with pytest.raises(WarehouseRefused, match=r"it was given up: .*notFound"):
            publish(one, 2)
    else:
        publish(one, 2)

    assert values(one) == ([1] if is_lost else [2])
    assert values(one, "stay_latest") == [7]
    assert not journaled(one)


def test_what_a_killed_run_left_and_cannot_be_done_is_told_in_mirror_errors(
    service: BigQuery, tmp_path: Path
) -> None:
    lake = opened(service, tmp_path)
    lake.commit(lambda tx: tx.create_table("clinic", *ERRORS, partitioned=False))
    publish(lake, 1)
    service.faults.append(Fault("POST", JOBS, 403, "quotaExceeded", times=99, body=LOAD))
    with pytest.raises(PublicationPending):
        publish(lake, 2)
    service.faults.clear()
    for file in Path(lake._lake.root).glob("staged/clinic/visit/*/*/*.parquet"):
        file.unlink()

    publish(opened(service, tmp_path), 3, table="stay")

    (row,) = lake.query('SELECT "table", "partition", error FROM clinic.MIRROR_ERRORS').rows
    assert row[:2] == ("visit", DAY)
    assert "was given up" in row[2]
    assert values(lake) == [1]


def test_text_of_rows_does_not_outlive_a_refused_commit(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    before(lake)
    bad = stage(lake, "stay", DAY, v=["text"])

    def body(tx: Transaction) -> None:
        tx.replace_rows("clinic", "log", [{"run": "new", "rows": 2}])
        tx.replace_partition("clinic", "stay", DAY, [bad])

    def refused(tx: Transaction) -> None:
        tx.replace_rows("clinic", "log", [{"run": "new", "rows": 2}])
        raise WarehouseRefused("by its body")

    for each in (body, refused):
        with pytest.raises(WarehouseRefused):
            lake.commit(each)
    service.faults.append(Fault("POST", JOBS, 403, "accessDenied"))
    with pytest.raises(WarehouseRefused, match="accessDenied"):  # of the control rows themselves
        lake.commit(body)

    assert not [name for _d, name in service.tables if name.startswith("mirror_temporary")]
    assert list(Path(lake._lake.root).glob("control/*/*/*")) == []
    assert Path(bad).exists()  # a table's files are its publisher's, who tries it alone


def test_a_history_is_set_aside_only_when_the_new_rows_are_there(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    before(lake)
    service.faults.append(Fault("POST", JOBS, 400, "invalid", in_job=True, body="_new_"))

    with pytest.raises(WarehouseRefused, match="invalid"):
        change(lake)

    tables = lake.commit(lambda tx: tx.tables("clinic"))
    assert "stay_depr_1" not in tables
    assert values(lake, "stay_latest") == [5]
    assert not [name for _d, name in service.tables if name.startswith("mirror_temporary")]
    change(lake)
    assert lake.query("SELECT w FROM clinic.stay_latest").rows == [("x",)]
    assert lake.query("SELECT v FROM clinic.stay_depr_1").rows == [(5,)]


# -- turns


@pytest.mark.parametrize("when", ["before the plan", "after"])
def test_a_writer_that_lost_its_turn_changes_nothing_of_the_next_ones(
    service: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    lake = opened(service, tmp_path, patience=0.1)
    publish(lake, 1)
    next_one = Turn(lake._service, "clinic", lease=600.0, patience=1.0)

    def lose(*_: object) -> None:
        let_time_pass(service)
        next_one.take()

    def turn() -> str | None:
        held = service.tables.get(("clinic", "mirror_temporary_turn"))
        return held.resource["description"] if held else None

    with monkeypatch.context() as slow:
        if when == "after":
            slow.setattr(Carrier, "_write_rows", lose)
            publish(lake, 2)  # all was done when it lost it
        else:
            slow.setattr(Carrier, "_stage", lose)
            with pytest.raises(WarehouseFault, match="lost its turn"):
                publish(lake, 2)

    assert turn() == next_one._token
    assert not journaled(lake)
    assert values(lake) == ([2] if when == "after" else [1])
    next_one.give_up()
    assert turn() is None


def test_a_turn_outlasts_the_retries_of_a_request() -> None:
    defaults = inspect.signature(BigQueryWarehouse.__init__).parameters
    lease, patience = (defaults[name].default for name in ("lease", "patience"))

    assert _FRESH * lease > patience + _REQUEST_SECONDS
    assert 3 * patience > lease


def test_while_one_writes_another_waits_for_its_turn(service: BigQuery, tmp_path: Path) -> None:
    one, other = (opened(service, tmp_path, patience=0.1) for _ in range(2))
    publish(one, 1)

    def body(tx: Transaction) -> None:
        tx.schema("clinic", "visit")
        with pytest.raises(WarehouseFault, match="another run has been publishing"):
            publish(other, 2)

    one.commit(body)
    publish(other, 3)

    assert values(one) == [3]


def test_a_turn_is_kept_while_jobs_take_long(
    service: BigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = opened(service, tmp_path, lease=4.0)
    real = service._job

    def is_prolonged() -> bool:
        asked = [verb for verb, path, _body in service.requests if "turn" in path]
        return asked.count("PATCH") > 1

    def slow(job_id: str) -> dict[str, Any]:
        state = "DONE" if is_prolonged() else "RUNNING"
        return {**real(job_id), "status": {"state": state}}

    monkeypatch.setattr(service, "_job", slow)
    service.faults.append(Fault("POST", JOBS, 503, lost=True))
    publish(lake, 1)

    assert is_prolonged()
    assert values(lake) == [1]


def test_those_who_do_not_publish_wait_for_each_other_and_not_for_mirrors(
    service: BigQuery, tmp_path: Path
) -> None:
    one, other = (opened(service, tmp_path, patience=0.1) for _ in range(2))
    with one.exclusive():
        publish(other, 1)
        with (
            pytest.raises(WarehouseFault, match="another run has been publishing"),
            other.exclusive(),
        ):
            pass
    with other.exclusive():
        assert values(other) == [1]


def test_an_exclusive_turn_is_kept_and_its_loss_is_told(service: BigQuery, tmp_path: Path) -> None:
    lake = opened(service, tmp_path, lease=1.5)
    turn = ("mirror_turns", "mirror_temporary_turn")
    with lake.exclusive():
        time.sleep(2.0)
        assert not service.tables[turn].expired

    with pytest.raises(WarehouseFault, match="lost its turn"), lake.exclusive():
        service.tables[turn].resource |= {"description": "another's", "expirationTime": "1" * 14}
        time.sleep(1.2)
    assert service.tables[turn].resource["description"] == "another's"


def test_one_load_of_a_commit_that_fails_leaves_the_others_views_and_rows(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    before(lake)
    good, bad = stage(lake, "visit", DAY, v=[2]), stage(lake, "stay", DAY, v=["text"])

    def body(tx: Transaction) -> None:
        for table, file in (("visit", good), ("stay", bad)):
            tx.replace_partition("clinic", table, DAY, [file])
            tx.latest_view("clinic", f"{table}_latest", table, DAY)
        tx.replace_rows("clinic", "log", [{"run": "new", "rows": 2}])

    with pytest.raises(WarehouseRefused, match="invalid"):
        lake.commit(body)

    assert values(lake) == [1]
    assert values(lake, "stay_latest") == [5]
    assert lake.query("SELECT run FROM clinic.log").rows == [("old",)]


def test_descriptions_of_columns_outlive_publications(
    lake: BigQueryWarehouse, service: BigQuery
) -> None:
    publish(lake, 1)
    field = service.tables["clinic", "visit"].fields[0]
    field["description"] = "said by a person"
    field["policyTags"] = {"names": ["projects/a-project/locations/us/taxonomies/1/policyTags/2"]}

    publish(lake, 2)
    new = schema(v="DECIMAL(20,0)", w="STRING")
    lake.commit(lambda tx: tx.evolve("clinic", "visit", new, compare(schema(v="INT64"), new)))

    kept = service.tables["clinic", "visit"].fields[0]
    assert (kept["type"], kept["description"]) == ("NUMERIC", "said by a person")
    assert kept["policyTags"]["names"]
    loads = [body for _v, _p, body in service.requests if '"load"' in body]
    assert all("WRITE_TRUNCATE_DATA" in body for body in loads)


def test_costs_are_told_apart_by_database(lake: BigQueryWarehouse, service: BigQuery) -> None:
    publish(lake, 1)
    written = list(service.jobs)
    lake.query("SELECT v FROM clinic.visit_latest")
    lake.query("SELECT v FROM `clinic.visit_latest`", native=True)
    with lake.batches("SELECT v FROM clinic.visit_latest"):
        pass

    labels = [job["configuration"].get("labels") for job in service.jobs.values()]
    own = {"made_by": "mirror_assets", "mirror_dataset": "clinic"}
    assert labels == [own] * len(written) + [own | {"mirror": "read"}] * 3
    assert service.datasets["clinic"]["labels"]["mirror_dataset"] == "clinic"
    assert service.datasets["clinic"]["location"] == "US"
