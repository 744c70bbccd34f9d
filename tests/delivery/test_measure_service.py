"""The sample quality-measure service against its contract, over HTTP and a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.delivery.measures import KEYS, Measures, member

AT = "2021-03-05T08:00:00Z"


def closed(**changed: Any) -> dict[str, Any]:
    return {"id": 1, "status": "closed", "setOn": AT} | changed


def test_c_1_a_call_needs_a_known_key(measures: Measures) -> None:
    for method, path, body in (
        ("GET", "/1.0/measures", None),
        ("GET", "/1.0/elationmap", None),
        ("GET", f"/1.0/member/{member(1)}/measures?marketSlug=virtual", None),
        ("POST", f"/1.0/member/{member(1)}/measures", [closed()]),
        ("POST", "/1.0/members?measureIds=1", {"memberIds": [member(1)]}),
    ):
        status, answer = measures.call(method, path, body, key=None)
        assert (status, list(answer)) == (400, ["error"])
        assert "apiKey" in answer["error"]
        status, answer = measures.call(method, path, body, key="wrong")
        assert (status, list(answer)) == (403, ["error"])
    assert measures.events() == []


def test_c_2_a_member_is_a_uuid(measures: Measures) -> None:
    status, answer = measures.post([closed()], who="abc")
    assert (status, list(answer)) == (400, ["error"])


def test_c_3_the_body_is_an_array(measures: Measures) -> None:
    status, answer = measures.post({})
    assert status == 400
    assert len(answer["errors"]) == 1


def test_c_4_a_bad_moment_is_told_with_both_messages(measures: Measures) -> None:
    status, answer = measures.post([closed(setOn="not a date")])
    assert status == 400
    assert [("status" in e, "setOn" in e) for e in answer["errors"]] == [
        (True, False),
        (False, True),
    ]


def test_c_5_only_commons_must_name_a_user(measures: Measures) -> None:
    assert measures.post([closed()], source="commons")[0] == 400
    assert measures.post([closed()], source="elation") == (200, "OK")
    status, answer = measures.post([closed(userId=member(9))], source="commons")
    assert (status, answer) == (200, [])


def test_c_6_the_performance_year_is_ables(measures: Measures) -> None:
    with_year = closed(performanceYear=2021)
    assert measures.post([closed()], source="able")[0] == 400
    assert measures.post([with_year], source="able")[0] == 200
    assert measures.post([with_year, with_year])[0] == 400
    assert measures.post([with_year, closed()])[0] == 200


def test_c_7_an_empty_array_is_refused_from_elation_only(measures: Measures) -> None:
    assert measures.post([])[0] == 400
    assert measures.post([], source="commons")[0] == 400
    assert measures.post([], source="able")[0] == 200


def test_c_8_a_reason_is_null_or_not_empty(measures: Measures) -> None:
    assert measures.post([closed(reason="")])[0] == 400
    assert measures.post([closed(reason=None)])[0] == 200


def test_c_9_an_unknown_measure_is_ignored(measures: Measures) -> None:
    assert measures.post([closed(id=999)]) == (200, "OK")
    deleted = closed(id=4, performanceYear=2021)
    assert measures.post([deleted], source="able") == (200, "OK")
    assert measures.events() == []


def test_c_10_an_unknown_status_stores_nothing(measures: Measures) -> None:
    good = closed(id=2, performanceYear=2021)
    status, answer = measures.post(
        [good, closed(status="finished", performanceYear=2021)], source="able"
    )
    assert status == 500
    assert "error" in answer
    assert measures.events() == []


def test_c_11_an_outcome_measure_cannot_be_closed_by_a_provider(measures: Measures) -> None:
    assert measures.post([closed(id=13, status="provClosed")])[0] == 500
    assert measures.post([closed(id=1, status="provClosed")])[0] == 200


def test_c_12_elation_cannot_open_a_measure(measures: Measures) -> None:
    assert measures.post([closed()]) == (200, "OK")
    assert measures.events() == []


def test_c_13_elation_closes_what_able_opened(measures: Measures) -> None:
    measures.opened(1, "2021-02-01T00:00:00Z")
    assert measures.post([closed(reason="BMI 24")]) == (200, "OK")
    assert measures.events() == [
        (1, "able", "open", "2021-02-01T00:00:00"),
        (1, "elation", "closed", "2021-03-05T08:00:00"),
    ]


def test_c_14_the_same_status_again_is_a_confirmation(measures: Measures) -> None:
    measures.opened(1, "2021-02-01T00:00:00Z")
    measures.post([closed()])
    confirmed = 'SELECT max("lastConfirmed") FROM member_measure'
    before = measures.ask(confirmed)[0][0]
    measures.post([closed(setOn="2021-03-06T08:00:00Z")])
    assert len(measures.events()) == 2
    assert measures.ask(confirmed)[0][0] > before


@pytest.mark.parametrize("moment", ["2021-01-10T00:00:00Z", "2021-02-01T00:00:00Z"])
def test_c_15_an_earlier_or_equal_moment_changes_nothing(measures: Measures, moment: str) -> None:
    measures.opened(1, "2021-02-01T00:00:00Z")
    assert measures.post([closed(setOn=moment)]) == (200, "OK")
    assert len(measures.events()) == 1


def test_c_16_years_are_apart(measures: Measures) -> None:
    measures.opened(1, "2020-12-20T00:00:00Z")
    assert measures.post([closed(setOn="2021-01-03T00:00:00Z")]) == (200, "OK")
    assert len(measures.events()) == 1


def test_c_17_the_flu_year_runs_from_july(measures: Measures) -> None:
    measures.opened(17, "2020-09-01T00:00:00Z")
    measures.post([closed(id=17, setOn="2021-07-01T00:00:00Z")])
    assert len(measures.events()) == 1
    measures.post([closed(id=17, setOn="2021-03-01T00:00:00Z")])
    assert [event[2] for event in measures.events()] == ["open", "closed"]


def test_c_18_statuses_are_asked_for_a_market(measures: Measures) -> None:
    path = f"/1.0/member/{member(1)}/measures"
    assert measures.call("GET", path)[0] == 400
    assert measures.call("GET", f"{path}?marketSlug=nowhere") == (200, [])
    now = datetime.now(UTC)
    measures.opened(1, f"{now.year}-01-01T00:00:00Z")
    measures.opened(13, f"{now.year}-01-01T00:00:00Z")
    shown = {"id": 1, "displayName": "BMI", "status": "open", "type": "process"}
    assert measures.call("GET", f"{path}?marketSlug=new-york-city") == (200, [shown])


def test_two_elements_for_one_measure_are_both_inserted(measures: Measures) -> None:
    measures.opened(1, "2021-02-01T00:00:00Z")
    measures.post([closed(), closed(status="excluded", setOn="2021-03-06T00:00:00Z")])
    assert [event[2] for event in measures.events()] == ["open", "closed", "excluded"]


def test_a_measure_may_be_named_by_code_and_rate(measures: Measures) -> None:
    rate = {"rateId": None, "performanceYear": 2021}
    named = {"code": "HEDIS ABA", "status": "open", "setOn": AT, **rate}
    assert measures.post([named], source="able") == (200, "OK")
    assert measures.post([{"code": "HEDIS ABA", "status": "open", "setOn": AT}])[0] == 400
    assert [event[0] for event in measures.events()] == [1]


def test_a_user_that_is_no_uuid_fails_the_whole_member(measures: Measures) -> None:
    measures.opened(1, "2021-02-01T00:00:00Z")
    measures.opened(2, "2021-02-01T00:00:00Z")
    status, answer = measures.post([closed(), closed(id=2, userId="junk")])
    assert status == 500
    assert "error" in answer
    assert len(measures.events()) == 2


def test_reference_data(measures: Measures) -> None:
    status, rows = measures.call("GET", "/1.0/elationmap")
    assert (status, len(rows)) == (200, 46)
    assert len({(row["codeType"], row["code"]) for row in rows}) == 39
    first = {"codeType": "cptii", "code": "2022F", "measureId": 10, "statusName": "closed"}
    assert rows[0] == first
    status, rows = measures.call("GET", "/1.0/measures")
    assert (status, len(rows)) == (200, 15)
    assert rows[0]["displayName"] == "BMI"


def test_members_are_filtered_by_what_they_match(measures: Measures) -> None:
    year = f"{datetime.now(UTC).year}-01-01T00:00:00Z"
    for number, opened in enumerate([(2,), (3,), (2, 1), (1,)], start=1):
        for measure in opened:
            measures.opened(measure, year, who=member(number))
    everybody = {"memberIds": [member(number) for number in range(1, 6)]}

    def found(query: str) -> set[str]:
        status, ids = measures.call("POST", f"/1.0/members?{query}", everybody)
        assert status == 200
        return {m for m in everybody["memberIds"] if m in ids}

    assert found("measureIds=2&measureIds=3") == {member(1), member(2), member(3)}
    assert found("measureIds=1&measureIds=2") == {member(3)}
    assert found("measureStatusNames=open") == {member(n) for n in range(1, 5)}
    assert found("measureIds=1&measureStatusNames=closed") == set()
    for query, body in (
        ("", everybody),
        ("measureIds=x", everybody),
        ("measureIds=1", {"memberIds": []}),
        ("measureIds=1", []),
    ):
        assert measures.call("POST", f"/1.0/members?{query}", body)[0] == 400


def test_it_refuses_to_start_without_keys_or_development() -> None:
    env = {name: value for name, value in os.environ.items() if name not in KEYS}
    command = [sys.executable, "-m", "mirror_assets.sample.measure_service", "--url", "x://"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no API keys" in done.stderr


def test_in_development_the_source_is_the_key(measures: Measures) -> None:
    from tests.delivery.faulty_service import FaultyService

    url = measures._server.url(measures.database, "admin")
    service = FaultyService(url)
    developing = Measures(measures._server, service, measures.database)
    try:
        assert developing.call("GET", "/1.0/measures", key="elation")[0] == 200
        assert developing.call("GET", "/1.0/measures", key="someone")[0] == 403
        assert developing.call("GET", "/1.0/measures", key=None)[0] == 403
    finally:
        service.kill()
