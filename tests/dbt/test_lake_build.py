"""Every model over a real lake: what it says of a small world, and that days stay apart."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow  # make acceptance
DAY = "2026-11-22"
PRIOR = "2026-11-21"
INTAKE = "1"


@pytest.fixture(scope="module")
def ask(built: Any) -> Any:
    """Values of one model's rows of a day, sorted by the first column."""
    lake, _run = built

    def answer(model: str, columns: str, day: str = DAY) -> list[tuple[Any, ...]]:
        return lake.rows(
            f"SELECT {columns} FROM {model} WHERE mirror_date = DATE '{day}' ORDER BY ALL"
        )

    return answer


def test_everything_is_built_and_tested(built: Any) -> None:
    _lake, run = built
    statuses = run.statuses()
    models = {name for name in statuses if name.startswith("model.")}
    assert len(models) == 25
    assert {statuses[name] for name in models} == {"success"}
    assert sum(name.startswith("unit_test.") for name in statuses) == 7
    warned = {name.split(".")[2] for name, status in statuses.items() if status == "warn"}
    assert len(warned) == 1 and "callStatus" in warned.pop(), "one call status is unknown"
    assert not {"fail", "error", "skipped"} & set(statuses.values())


def test_appointments_are_live_and_have_a_patient(ask: Any) -> None:
    assert ask("src_mirrored.src_elation_appointment_latest", "id, mrn") == [
        ("1", "77001"), ("2", "77001"), ("5", "99999"),
    ]  # fmt: skip


def test_wall_times_become_instants(ask: Any) -> None:
    starts = ask("src_mirrored.src_elation_appointment_latest", "id, epoch(startAt)::BIGINT")
    assert starts[0] == ("1", 1795195800)  # 2026-11-20 17:30 UTC


def test_i_42_plus_tags_are_stripped_before_users_are_matched(ask: Any) -> None:
    users = ask("src_mirrored.src_elation_user_latest", "id, email, fullName, commonsUserId")
    assert users == [
        ("920", "ivy.tan@clinic.test", "Ivy Tan", "U1"),
        ("921", "max.oak@clinic.test", "Max", None),
    ]
    assert ask("mrt_commons.user", "userId, elationUserId") == [("U1", "920")]


def test_users_have_logged_in_and_sit_in_their_newest_pod(ask: Any) -> None:
    found = ask("mrt_commons.user", "userId, userPodName, userHomeClinicName, userHomeMarketName")
    assert found == [("U1", "New pod", "North Clinic", "North")]


def test_members_are_valid(ask: Any) -> None:
    found = ask("src_mirrored.src_member", "patientId, partnerName, mrn, mrnName")
    assert found == [
        ("M1", "Mock Mutual", "77001", "elation"), ("M2", "Mock Mutual", "77001", "acpny"),
    ]  # fmt: skip


def test_encounters_are_those_of_the_newest_load(ask: Any) -> None:
    found = ask("src_mirrored.src_patient_encounters_latest", "encounter.identifiers[1].id")
    assert found == [("61",), ("62",)]


def test_equal_events_are_one(ask: Any) -> None:
    assert ask("src_mirrored.src_commons_event", "type") == [("a",), ("b",)]


def test_load_times_come_from_what_the_mirror_recorded(ask: Any) -> None:
    found = dict(ask("src_mirrored.commons_mirror_load_time", "table_id, row_count"))
    assert found["goal_20261122"] == 3
    assert "patient_disenrollment_20261122" not in found


def test_statuses_of_an_appointment(ask: Any) -> None:
    found = ask(
        "abs_computed.abs_elation_appointment_statuses",
        "ehrAppointmentStatusId, isLatestAppointmentStatus, commonsAppointmentId, patientId,"
        " isClinicalIntakeAppointment",
    )
    assert found == [
        ("11", False, "A1", "M1", True), ("12", False, "A1", "M1", True),
        ("13", True, "A1", "M1", True), ("21", True, None, "M1", False),
    ]  # fmt: skip


def test_member_appointments_of_both_sides(ask: Any) -> None:
    found = ask(
        "mrt_commons.member_appointment_statuses",
        "appointmentId, ehrAppointmentStatusId, appointmentSource, pastOrUpcoming,"
        " appointmentStatus, wasRescheduled, wasCompleted, wasCancelled, userId",
    )
    both = ("commons and elation", "past")
    assert found == [
        ("2", "21", "elation", "upcoming", "scheduled", False, False, False, "U1"),
        ("A1", "11", *both, "scheduled", True, True, False, "U1"),
        ("A1", "12", *both, "scheduled", True, True, False, "U1"),
        ("A1", "13", *both, "completed", True, True, False, "U1"),
        ("A2", None, "commons", "upcoming", None, False, False, False, "U1"),
    ]


def test_orders_belong_to_members_and_their_codes_are_clean(ask: Any) -> None:
    columns = "prescriptionId, patientId, userId, elationId, ndc"
    found = ask("abs_computed.abs_elation_medication_orders", columns)
    assert found == [("31", "M1", "U1", "77001", "0002821501x")]


def test_blank_recipients_are_null(ask: Any) -> None:
    found = ask("abs_computed.abs_elation_referrals", "referralId, recipientName")
    assert found == [("41", None), ("42", "Al Fir")]


def test_i_41_deleted_immunizations_are_left_out_of_both_vaccines(ask: Any) -> None:
    found = ask("exports.exp_elation_immunizations", "immunizationId, cvx")
    assert found == [("51", 212), ("52", 213)]


def test_notes_meet_their_intake(ask: Any) -> None:
    found = ask(
        "abs_computed.abs_ehr_note_interactions",
        "encounterId, userId, clinicalIntakeAppointmentId, isClinicalIntakeInteraction",
    )
    assert found == [("61", "U1", INTAKE, True), ("62", "U1", INTAKE, True)]


def test_the_newest_answer_per_code_and_day(ask: Any) -> None:
    found = ask(
        "mrt_elation.mrt_elation_provider_code_decision", "dxCode, result, noteId, patientId"
    )
    assert found == [
        ("CB12", "CONFIRMED", "61", "M1"),
        ("E119", "DISCONFIRMED", "62", "M1"),
        ("HCC18", "RESOLVED", "61", "M1"),
    ]


def test_goals_with_their_tasks_newest_state(ask: Any) -> None:
    found = ask("mrt_commons.member_goals_tasks_all", "goalId, taskId, taskTitle")
    assert found == [("G1", "T1", "newest live"), ("G2", None, None)]


def test_care_teams_then_and_now(ask: Any) -> None:
    assert ask("mrt_commons.member_care_team_all", "userId") == [("U1",), ("U2",)]
    assert ask("mrt_commons.member_care_team_current", "userId") == [("U1",)]


def test_note_texts(ask: Any) -> None:
    assert ask("abs_computed.abs_commons_note_text", "eventGroupId, noteText") == [
        ("V1", "second"), ("V2", "alone"),
    ]  # fmt: skip
    progress = ask("abs_computed.stg_commons_progress_notes", "timelineEventId, noteText")
    assert progress == [("W1", "revised"), ("W2", "alone")]
    assert ask("abs_computed.abs_commons_goal_comments", "id, commentText") == [("K1", "*yes*")]


def test_an_older_day_leaves_newer_ones_alone(ask: Any) -> None:
    for day in (DAY, PRIOR):
        assert ask("mrt_commons.user", "userId", day) == [("U1",)]


def test_no_model_carries_the_mirrors_own_column(built: Any) -> None:
    lake, _run = built
    found = lake.rows(
        "SELECT table_name FROM duckdb_columns() WHERE column_name = '_PARTITIONDATE'"
        " AND schema_name NOT LIKE '%_mirror' AND schema_name <> 'medical'"
        " AND database_name = 'lake'"
    )
    assert found == []


def test_runs_are_recorded(built: Any) -> None:
    lake, _run = built
    found = lake.rows(
        "SELECT DISTINCT status FROM dbt_audit.run_results"
        f" WHERE node LIKE 'model.%' AND mirror_date = DATE '{DAY}'"
    )
    assert found == [("success",)]
