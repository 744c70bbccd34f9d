select
  mirror_date,
  cast(id as string) as id,
  cast(patient_id as string) as mrn,
  cast(physician_user_id as string) as physicianUserId,
  appt_type as appointmentType,
  description,
  billing_note as billingNote,
  duration as durationMinutes,
  {{ instant('appt_time') }} as startAt,
  {{ instant('creation_time') }} as createdAt,
  status
from {{ ref('stg_elation__appointment') }}
where deletion_time is null and patient_id is not null
