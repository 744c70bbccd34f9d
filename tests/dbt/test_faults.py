"""What models cannot be built for: tables that are not there, and what dbt says of a failure."""

from __future__ import annotations

from typing import Any

import dagster as dg
import duckdb
import psycopg2
import pytest
from dagster._core.test_utils import instance_for_test
from google.api_core import exceptions
from requests.exceptions import ConnectionError as Lost

from mirror_assets.orchestration import dbt_faults, dbt_models
from mirror_assets.orchestration.session import MirrorResource

DAY = "2026-10-02"
CANARY = "canary-4711"
MODELS = (
    dg.AssetKey(["mrt_commons", "member_states"]),
    dg.AssetKey(["abs_computed", "abs_commons_note_text"]),
    dg.AssetKey(["src_mirrored", "src_patient_encounters_latest"]),
)


def test_a_missing_table_is_named_before_dbt_is_called(
    lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that an asset of ours makes; of encounters only the rows tell that they are there.
    Tables of a day that is there are not named.
    """
    rows = {"patient_state": 0, "patient_disenrollment": 0}
    lake.execute(lake.published("commons", DAY, **rows))
    monkeypatch.setattr(dbt_models, "DbtCommand", None)  # not to be called
    for name, value in lake.variables.items():
        monkeypatch.setenv(name, value)
    graph = dg.Definitions.merge(
        dbt_models.definitions(), dg.Definitions(resources={"mirror": MirrorResource()})
    )
    job = graph.resolve_implicit_global_asset_job_def()
    with instance_for_test() as instance:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=list(MODELS),
            partition_key=DAY,
            raise_on_error=False,
        )
    (failed,) = result.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data
    assert told.description.startswith(
        f"dbt: no published partition of {DAY} of commons/note_transformed;"
        f" no rows of {DAY} in elation/patient_encounters. Next: materialize"
    )
    assert told.metadata["kind"].value == "input"
    assert told.metadata["cured_by_retry"].value is False


def no_server() -> str:
    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect("host=127.0.0.1 port=1 user=x dbname=x")
    return str(caught.value)


def of_duckdb(statement: str) -> str:
    with duckdb.connect() as connection, pytest.raises(duckdb.Error) as caught:
        connection.execute(statement)
    return str(caught.value)


def result(status: str, message: str, name: str = "user") -> dict[str, Any]:
    return {
        "unique_id": f"model.mirror_models.{name}",
        "status": status,
        "message": message,
        "failures": None,
    }


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(str(exceptions.ServiceUnavailable("POST https://bq/jobs: later")), id="503"),
        pytest.param(str(exceptions.TooManyRequests("POST https://bq/jobs: later")), id="429"),
        pytest.param(
            str(Lost("('Connection aborted.', ConnectionResetError(104, 'Connection reset'))")),
            id="the connection is lost",
        ),
        pytest.param(
            "HTTPSConnectionPool(host='bq', port=443): Max retries exceeded with url: /jobs",
            id="no answer",
        ),
        pytest.param("Quota exceeded: Your project exceeded quota for queries.", id="quota"),
        pytest.param("Exceeded rate limits: too many table update operations", id="rate"),
        pytest.param(
            "Could not serialize access to table p:d.t due to concurrent update", id="an update"
        ),
        pytest.param(no_server(), id="no catalog"),
        pytest.param(
            "TransactionContext Error: Failed to commit: Failed to commit DuckLake transaction",
            id="a writer",
        ),
    ],
)
def test_what_passes_is_tried_again(message: str) -> None:
    text = f"Database Error in model user (models/user.sql)\n  {message}\n  {CANARY}"
    fault = dbt_faults.of_results([result("error", text), result("success", "OK", "other")])
    assert fault is not None
    assert fault.transient
    assert fault.what == "1 of 2 models and tests failed: user (error)"
    assert CANARY not in fault.sentence
    stopped = dbt_faults.of_nothing(text)
    assert stopped.transient
    assert CANARY not in stopped.sentence


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param("error", of_duckdb("SELECT 'read timed out'::INT"), id="a value"),
        pytest.param("error", of_duckdb("SELECT no_such"), id="a column"),
        pytest.param("error", of_duckdb("SELEC 1"), id="syntax"),
        pytest.param(
            "error", "Compilation Error\n This model has an enforced contract that failed.",
            id="contract",
        ),
        pytest.param("error", "Access Denied: Table p:d.t: User lacks permission", id="rights"),
        pytest.param("error", 'FATAL:  password authentication failed for user "x"', id="login"),
        pytest.param("fail", "Got 503 results, configured to fail if != 0", id="a test"),
        pytest.param("fail", "Quota exceeded", id="a test of that name"),
    ],
)  # fmt: skip
def test_what_stays_is_left_for_a_person(status: str, message: str) -> None:
    fault = dbt_faults.of_results([result(status, f"{message}\n{CANARY}")])
    assert fault is not None
    assert not fault.transient
    assert CANARY not in fault.sentence
    assert not dbt_faults.joined([fault, fault]).transient
    if status == "error":
        assert not dbt_faults.of_nothing(message).transient


def test_one_failure_that_passes_is_reason_enough_to_try_again() -> None:
    mixed = [result("fail", "Got 1 result", "a"), result("error", "Service Unavailable", "b")]
    fault, other = dbt_faults.of_results(mixed), dbt_faults.of_results(mixed[:1])
    assert fault is not None
    assert other is not None
    assert fault.transient
    assert dbt_faults.joined([other, fault]).transient
    assert dbt_faults.of_results([result("success", "Service Unavailable")]) is None
