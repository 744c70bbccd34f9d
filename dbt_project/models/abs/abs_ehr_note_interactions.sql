with notes as (
  select
    mirror_date,
    encounterId,
    noteKind,
    patientId,
    userId,
    encounterSource,
    encounterType,
    encounterAt,
    {{ local_day('encounterAt') }} as encounterDay,
    {{ matches("coalesce(encounterType, '')", '^(Telemedicine|House Call|Office)') }}
      as canBeIntake
  from {{ of_day(ref('abs_ehr_note_encounters')) }} as encounters
),

intakes as (
  select
    ehrAppointmentId,
    patientId,
    userId,
    startAt,
    {{ local_day('startAt') }} as startDay,
    row_number() over (
      partition by patientId, userId, {{ local_day('startAt') }}
      order by startAt, ehrAppointmentId, ehrAppointmentStatusId
    ) as place
  from {{ of_day(ref('abs_ehr_appointment_statuses')) }} as statuses
  where isLatestAppointmentStatus and appointmentStatus = 'completed'
    and isClinicalIntakeAppointment
)

select
  notes.mirror_date,
  notes.encounterId,
  notes.noteKind,
  notes.patientId,
  notes.userId,
  notes.encounterSource,
  notes.encounterType,
  notes.encounterAt,
  intakes.ehrAppointmentId as clinicalIntakeAppointmentId,
  intakes.startAt as clinicalIntakeAppointmentAt,
  intakes.ehrAppointmentId is not null as isClinicalIntakeInteraction
from notes
left join intakes
  on intakes.patientId = notes.patientId
  and intakes.userId = notes.userId
  and intakes.startDay = notes.encounterDay
  and intakes.place = 1
  and notes.canBeIntake
