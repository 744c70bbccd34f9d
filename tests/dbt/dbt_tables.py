"""The mirrored tables that models read, as the mirror makes them, for lakes filled by hand."""

_ENCOUNTER = (
    "STRUCT(identifiers STRUCT(id VARCHAR, idType VARCHAR)[],"
    ' "type" STRUCT(code VARCHAR, codeSystem VARCHAR, codeSystemName VARCHAR, "name" VARCHAR),'
    " dateTime STRUCT(raw VARCHAR, instant TIMESTAMPTZ, date DATE),"
    " endDateTime STRUCT(raw VARCHAR, instant TIMESTAMPTZ, date DATE),"
    " providers STRUCT(identifiers STRUCT(id VARCHAR, idType VARCHAR)[],"
    " firstName VARCHAR, lastName VARCHAR)[],"
    " reasons STRUCT(code VARCHAR, codeSystem VARCHAR, codeSystemName VARCHAR,"
    ' "name" VARCHAR, notes VARCHAR)[], draft BOOLEAN)'
)
_PATIENT = (
    "STRUCT(patientId VARCHAR, externalId VARCHAR,"
    ' "source" STRUCT("name" VARCHAR, commonId VARCHAR))'
)
#: database.table -> type -> columns
TABLES: dict[str, dict[str, str]] = {
    "commons.appointment": {
        "VARCHAR": "id patientId title description providerName providerCredentials"
        " generatedBy clinicId locationFreeText facility createdById",
        "TIMESTAMPTZ": "startAt endAt createdAt updatedAt deletedAt",
    },
    "commons.care_team": {
        "VARCHAR": "id patientId userId",
        "BOOLEAN": "isPrimaryContact",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "commons.clinic": {
        "VARCHAR": "id name marketId",
        "TIMESTAMPTZ": "deletedAt",
    },
    "commons.clinic_pod": {
        "VARCHAR": "id name clinicId",
        "TIMESTAMPTZ": "deletedAt",
    },
    "commons.clinic_pod_member": {
        "VARCHAR": "userId clinicPodId",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "commons.event": {
        "VARCHAR": "body type",
        "TIMESTAMPTZ": "createdAt",
    },
    "commons.goal": {
        "VARCHAR": "id patientId title description label riskAreaSlug templateSlug"
        " createdById completedById",
        "BIGINT": "rank",
        "BOOLEAN": "isLegacy",
        "TIMESTAMPTZ": "dueAt completedAt archivedAt createdAt updatedAt deletedAt",
    },
    "commons.goal_comment_transformed": {
        "VARCHAR": "id goalId createdById text",
        "TIMESTAMPTZ": "createdAt updatedAt deletedAt",
    },
    "commons.market": {
        "VARCHAR": "id name",
        "TIMESTAMPTZ": "deletedAt",
    },
    "commons.note_revision_transformed": {
        "VARCHAR": "id timelineEventId text",
        "TIMESTAMPTZ": "createdAt updatedAt deletedAt",
    },
    "commons.note_transformed": {
        "VARCHAR": "id eventGroupId templateSlug text",
        "TIMESTAMPTZ": "createdAt updatedAt deletedAt",
    },
    "commons.patient_acuity": {
        "VARCHAR": "id patientId updatedById",
        "BIGINT": "score",
        "BOOLEAN": "isRecommended",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "commons.patient_disenrollment": {
        "VARCHAR": "id patientId reason currentState",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "commons.patient_state": {
        "VARCHAR": "id patientId currentState updatedById",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "commons.task": {
        "VARCHAR": "id groupId goalGroupId patientId title description status createdById"
        " assignedToId completedById templateSlug",
        "TIMESTAMPTZ": "dueAt completedAt createdAt updatedAt deletedAt",
        "BOOLEAN": "isDraft isUrgent isLegacy isMemberSelfManagement",
    },
    "commons.timeline_event": {
        "VARCHAR": "id groupId patientId createdById eventType dataSource"
        " markedAsErrorReason status",
        "TIMESTAMPTZ": "eventTimestamp createdAt updatedAt deletedAt",
        "BOOLEAN": "isPublished isLegacy",
    },
    "commons.user": {
        "VARCHAR": "id firstName lastName email phone npi userRole homeClinicId homeMarketId",
        "TIMESTAMPTZ": "lastLoginAt terminatedAt createdAt deletedAt",
    },
    "elation.appointment": {
        "BIGINT": "id patient_id physician_user_id duration",
        "VARCHAR": "appt_type description billing_note status",
        "TIMESTAMP": "appt_time creation_time deletion_time",
    },
    "elation.appointment_status": {
        "BIGINT": "id appointment_id created_by_user_id",
        "VARCHAR": "status",
        "TIMESTAMP": "creation_time deletion_time",
    },
    "elation.document_tag": {
        "BIGINT": "id",
        "VARCHAR": "value description code_type code",
    },
    "elation.med_order": {
        "BIGINT": "id patient_id prescribing_user_id",
        "TIMESTAMP": "creation_time last_modified deletion_time",
        "VARCHAR": "type medication_type route form strength qty auth_refills ndc"
        " displayed_medication_name directions pharmacy_instructions",
        "DATE": "start_date",
    },
    "elation.patient_immunization": {
        "BIGINT": "id patient_id cvx",
        "VARCHAR": "name manufacturer_name method",
        "DATE": "administered_date expiration_date",
        "TIMESTAMP": "deletion_time",
    },
    "elation.referral_order": {
        "BIGINT": "id patient_id prescribing_user_id practice_id",
        "TIMESTAMP": "creation_time last_modified deletion_time",
        "VARCHAR": "recipient_org_name recipient_firstname recipient_lastname"
        " recipient_credentials recipient_npi recipient_specialty subject body"
        " delivery_method",
    },
    "elation.user": {
        "BIGINT": "id practice_id",
        "VARCHAR": "email first_name last_name specialty credentials npi",
        "BOOLEAN": "is_active",
    },
    "elation.visit_note": {
        "BIGINT": "id patient_id practice_id physician_user_id signed_by_user_id",
        "VARCHAR": "name",
        "TIMESTAMP": "document_date signed_time deletion_time",
    },
    "elation.visit_note_document_tag": {
        "BIGINT": "visit_note_id document_tag_id",
    },
    "member_index.cohort": {
        "BIGINT": "id partnerId",
        "VARCHAR": "name",
        "DATE": "goLiveDate revenueGoLiveDate",
        "TIMESTAMPTZ": "deletedAt",
    },
    "member_index.member": {
        "VARCHAR": "id mrnId",
        "BIGINT": "cbhId partnerId cohortId categoryId",
        "TIMESTAMPTZ": "createdAt deletedAt",
    },
    "member_index.mrn": {
        "VARCHAR": "id mrn name",
        "TIMESTAMPTZ": "deletedAt",
    },
    "member_index.partner": {
        "BIGINT": "id",
        "VARCHAR": "name",
        "TIMESTAMPTZ": "deletedAt",
    },
    "commons.goal_comment": {
        "VARCHAR": "id goalId createdById",
        "TIMESTAMPTZ": "createdAt",
    },
    "commons.phone_call": {
        "VARCHAR": "id userId contactNumber direction callStatus provider device callReceiver"
        " providerPayload callId",
        "BIGINT": "duration",
        "TIMESTAMPTZ": "providerCreatedAt",
    },
    "commons.sms_message": {"VARCHAR": "id userId body contactNumber direction"},
    "medical.patient_encounters": {
        "VARCHAR": "messageId",
        "TIMESTAMPTZ": "insertedAt",
        "BOOLEAN": "isStreaming",
        _PATIENT: "patient",
        _ENCOUNTER: "encounter",
    },
}
