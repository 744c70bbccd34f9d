"""A small world by hand: every value below is what some rule turns on. Values are SQL."""

from __future__ import annotations


def _row(**values: str | int | bool | None) -> dict[str, str]:
    return {name: _sql(value) for name, value in values.items()}


def _sql(value: str | int | bool | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


_AT = "2026-11-01 12:00:00+00"


def rows() -> dict[str, list[dict[str, str]]]:
    """Rows by ``database.table`` of one day."""
    return {**_elation(), **_commons(), **_member_index(), **_medical()}


def _elation() -> dict[str, list[dict[str, str]]]:
    start = "2026-11-20 09:30:00"  # on the wall; 17:30 UTC
    status = {"created_by_user_id": 920, "deletion_time": None}
    tags = {
        1: "E119 CONFIRMED", 2: "HCC18 RESOLVED", 3: "CB12 CONFIRMED", 4: "Flu shot",
        5: "E119 DISCONFIRMED",
    }  # fmt: skip
    order = {"patient_id": 77001, "prescribing_user_id": 920, "creation_time": start}
    return {
        "elation.user": [
            _row(id=920, email="ivy.tan+de@clinic.test", is_active=True, practice_id=900,
                 first_name="Ivy", last_name="Tan", npi="1999999990"),
            _row(id=921, email="max.oak@clinic.test", is_active=True, practice_id=900,
                 first_name="Max", last_name=None),
        ],
        "elation.appointment": [
            _row(id=1, patient_id=77001, physician_user_id=920, appt_time=start,
                 creation_time=start, duration=30, appt_type="Medical Intake - Hub"),
            _row(id=2, patient_id=77001, physician_user_id=920, creation_time=start,
                 appt_time="2026-11-25 10:00:00", appt_type="Follow Up - Televideo"),
            _row(id=3, patient_id=None, appt_time=start, creation_time=start),
            _row(id=4, patient_id=77001, physician_user_id=920, appt_time=start,
                 creation_time=start, deletion_time=start),
            _row(id=5, patient_id=99999, physician_user_id=920, appt_time=start,
                 creation_time=start),
        ],
        "elation.appointment_status": [
            _row(id=11, appointment_id=1, status="scheduled",
                 creation_time="2026-11-01 09:00:00", **status),
            _row(id=12, appointment_id=1, status="scheduled",
                 creation_time="2026-11-02 09:00:00", **status),
            _row(id=13, appointment_id=1, status="billed",
                 creation_time="2026-11-20 11:00:00", **status),
            _row(id=14, appointment_id=1, status="cancelled", created_by_user_id=920,
                 creation_time="2026-11-21 11:00:00", deletion_time="2026-11-21 12:00:00"),
            _row(id=21, appointment_id=2, status="scheduled",
                 creation_time="2026-11-03 09:00:00", **status),
        ],
        "elation.med_order": [
            _row(id=31, **order, ndc="0002-8215.01 \"x\"", start_date="2026-11-20"),
            _row(id=32, **{**order, "patient_id": 99999}),
        ],
        "elation.referral_order": [
            _row(id=41, practice_id=900, recipient_firstname=" ", recipient_lastname="", **order),
            _row(id=42, practice_id=900, recipient_firstname="Al", recipient_lastname="Fir",
                 **order),
        ],
        "elation.patient_immunization": [
            _row(id=51, patient_id=77001, cvx=212),
            _row(id=52, patient_id=77001, cvx=213),
            _row(id=53, patient_id=77001, cvx=212, deletion_time=start),
            _row(id=54, patient_id=77001, cvx=213, deletion_time=start),
            _row(id=55, patient_id=77001, cvx=140),
        ],
        "elation.visit_note": [
            _row(id=61, patient_id=77001, practice_id=900, name="Office Visit Note",
                 document_date="2026-11-20 00:00:00", signed_by_user_id=920,
                 signed_time="2026-11-20 18:00:00"),
            _row(id=62, patient_id=77001, practice_id=900, document_date="2026-11-20 00:00:00",
                 signed_by_user_id=920, signed_time="2026-11-21 18:00:00"),
            _row(id=63, patient_id=77001, practice_id=900, document_date="2026-11-19 00:00:00",
                 signed_by_user_id=920, signed_time="2026-11-20 18:00:00"),
            _row(id=64, patient_id=77001, practice_id=900, document_date="2026-11-20 00:00:00",
                 signed_by_user_id=920, signed_time="2026-11-19 18:00:00"),
        ],
        "elation.visit_note_document_tag": [
            _row(visit_note_id=note, document_tag_id=tag)
            for note, tag in ((61, 1), (61, 2), (61, 3), (61, 4), (62, 5), (63, 1), (64, 2))
        ],
        "elation.document_tag": [_row(id=number, value=value) for number, value in tags.items()],
    }  # fmt: skip


def _commons() -> dict[str, list[dict[str, str]]]:
    live = {"createdAt": _AT, "updatedAt": _AT, "deletedAt": None}
    user = {"homeClinicId": "C1", "lastLoginAt": _AT, "createdAt": _AT}
    task = {"groupId": "T1", "goalGroupId": "G1", "patientId": "M1", "createdById": "U1",
            "isDraft": False, "isUrgent": False, "isLegacy": False, "isMemberSelfManagement": False,
            "createdAt": _AT}  # fmt: skip
    goal = {"patientId": "M1", "createdById": "U1", "isLegacy": False, "rank": 1, **live}
    return {
        "commons.user": [
            _row(id="U1", firstName="Ivy", lastName="Tan", email="ivy.tan@clinic.test",
                 userRole="Physician", npi="1999999990", **user),
            _row(id="U2", firstName="No", lastName="Login", email="no@clinic.test",
                 userRole="Ops_Lead", **{**user, "lastLoginAt": None}),
            _row(id="U3", firstName="Ivy", lastName="Old", email="ivy.tan@clinic.test",
                 userRole="Ops_Lead", deletedAt=_AT, **user),
        ],
        "commons.clinic": [_row(id="C1", name="North Clinic", marketId="K1")],
        "commons.market": [_row(id="K1", name="North")],
        "commons.clinic_pod": [_row(id="D1", name="Old pod", clinicId="C1"),
                               _row(id="D2", name="New pod", clinicId="C1")],
        "commons.clinic_pod_member": [
            _row(userId="U1", clinicPodId="D1", createdAt="2026-01-01 00:00:00+00"),
            _row(userId="U1", clinicPodId="D2", createdAt="2026-02-01 00:00:00+00"),
        ],
        "commons.appointment": [
            _row(id="A1", patientId="M1", providerName="Ivy Tan", generatedBy="siu",
                 startAt="2026-11-20 17:30:00+00", title="Intake", **live),
            _row(id="A2", patientId="M1", providerName="Ivy Tan", generatedBy="commons",
                 startAt="2026-11-23 17:30:00+00", title="Home visit", **live),
            _row(id="A3", patientId="M1", generatedBy="siu", startAt="2016-12-31 23:59:59+00",
                 **live),
            _row(id="A4", patientId="M1", generatedBy="siu", startAt="2026-11-20 17:30:00+00",
                 **{**live, "deletedAt": _AT}),
        ],
        "commons.event": [_row(body="{}", type="a", createdAt=_AT)] * 2
        + [_row(body="{}", type="b", createdAt=_AT)],
        "commons.patient_state": [
            _row(id="S1", patientId="M1", currentState="attributed", createdAt=_AT)
        ],
        "commons.patient_disenrollment": [],
        "commons.patient_acuity": [
            _row(id="Q1", patientId="M1", score=3, isRecommended=False, createdAt=_AT)
        ],
        "commons.care_team": [
            _row(id="E1", patientId="M1", userId="U1", isPrimaryContact=True, createdAt=_AT),
            _row(id="E2", patientId="M1", userId="U2", createdAt=_AT, deletedAt=_AT),
        ],
        "commons.goal": [
            _row(id="G1", title="Walk more", **goal),
            _row(id="G2", title="No task yet", **goal),
            _row(id="G3", title="Administrative Tasks", **goal),
        ],
        "commons.task": [
            _row(id="T1a", title="gone", updatedAt="2026-11-09 00:00:00+00", deletedAt=_AT, **task),
            _row(id="T1b", title="old", updatedAt="2026-11-02 00:00:00+00", **task),
            _row(id="T1c", title="newest live", updatedAt="2026-11-03 00:00:00+00", **task),
        ],
        "commons.goal_comment": [_row(id="K1", goalId="G1", createdById="U1", createdAt=_AT)],
        "commons.goal_comment_transformed": [
            _row(id="K1", goalId="G1", createdById="U1", text="*yes*", **live)
        ],
        "commons.note_transformed": [
            _row(id="N1", eventGroupId="V1", text="first",
                 **{**live, "createdAt": "2026-10-01 00:00:00+00"}),
            _row(id="N2", eventGroupId="V1", text="second", **live),
            _row(id="N3", eventGroupId="V2", text="alone", **live),
        ],
        "commons.note_revision_transformed": [
            _row(id="R1", timelineEventId="W1", text="revised", **live)
        ],
        "commons.timeline_event": [
            _row(id=event, groupId=group, patientId="M1", createdById="U1", eventType="note",
                 isPublished=True, isLegacy=False, **live)
            for event, group in (("W1", "V1"), ("W2", "V2"), ("W3", "V3"))
        ],
        "commons.phone_call": [
            _row(id="P1", userId="U1", contactNumber="1", direction="in", duration=1,
                 callStatus="beamed", provider="dialpad", device="web", callReceiver="user",
                 providerPayload="{}", callId="1", providerCreatedAt=_AT)
        ],
        "commons.sms_message": [
            _row(id="P2", userId="U1", body="x", contactNumber="1", direction="toUser")
        ],
    }  # fmt: skip


def _member_index() -> dict[str, list[dict[str, str]]]:
    return {
        "member_index.member": [
            _row(id="M1", cbhId=1, partnerId=1, cohortId=None, mrnId="X1", createdAt=_AT),
            _row(id="M2", cbhId=2, partnerId=1, cohortId=1, mrnId="X2", createdAt=_AT),
            _row(id="M3", cbhId=3, partnerId=1, cohortId=1, createdAt=_AT, deletedAt=_AT),
            _row(id="M4", cbhId=4, partnerId=1, cohortId=0, createdAt=_AT),
        ],
        "member_index.mrn": [
            _row(id="X1", mrn="77001", name="elation"),
            _row(id="X2", mrn="77001", name="acpny"),  # another EHR's patient of that number
        ],
        "member_index.cohort": [
            _row(id=0, name="Test members", partnerId=1),
            _row(id=1, name="Cohort 1", partnerId=1),
        ],
        "member_index.partner": [_row(id=1, name="Mock Mutual, Inc.")],
    }  # fmt: skip


def _medical() -> dict[str, list[dict[str, str]]]:
    def encounter(note: str, message: str, at: str) -> dict[str, str]:
        return {
            "messageId": f"'{message}'",
            "insertedAt": f"TIMESTAMPTZ '{at}'",
            "isStreaming": "false",
            "patient": "{'patientId': 'M1', 'externalId': '77001',"
            " 'source': {'name': 'elation', 'commonId': NULL}}",
            "encounter": f"""{{
                'identifiers': [{{'id': '{note}', 'idType': 'Visit Note'}}],
                'type': {{'code': 'Unknown', 'codeSystem': NULL, 'codeSystemName': NULL,
                    'name': 'Office Visit Note'}},
                'dateTime': {{'raw': '', 'instant': TIMESTAMPTZ '2026-11-20 17:00:00+00',
                    'date': NULL}},
                'endDateTime': {{'raw': '', 'instant': NULL, 'date': NULL}},
                'providers': [{{'identifiers': [{{'id': '1999999990', 'idType': 'npi'}}],
                    'firstName': 'Ivy', 'lastName': 'Tan'}}],
                'reasons': [{{'code': NULL, 'codeSystem': NULL, 'codeSystemName': NULL,
                    'name': 'Reason', 'notes': 'knee pain'}}],
                'draft': true}}""",
        }

    return {
        "medical.patient_encounters": [
            encounter("61", "202611220500001", "2026-11-22 05:00:00+00"),
            encounter("62", "202611220500001", "2026-11-22 05:00:00+00"),
            # greater as text, smaller as a number
            encounter("60", "99", "2026-11-22 05:00:00+00"),
            encounter("59", "202611230500001", "2026-11-21 05:00:00+00"),
        ]
    }
