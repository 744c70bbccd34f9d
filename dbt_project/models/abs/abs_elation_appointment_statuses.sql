with statuses as (
  select
    cast(id as string) as id,
    cast(appointment_id as string) as appointment_id,
    status,
    {{ instant('creation_time') }} as statusAt,
    cast(created_by_user_id as string) as created_by_user_id
  from {{ ref('stg_elation__appointment_status') }}
  where deletion_time is null
),

commons_appointments as (
  select
    id,
    patientId,
    providerName,
    startAt,
    row_number() over (
      partition by patientId, providerName, startAt order by createdAt desc, id
    ) as newest
  from {{ of_day(ref('src_commons_appointments')) }} as appointments
)

select
  appointments.mirror_date,
  appointments.id as ehrAppointmentId,
  statuses.id as ehrAppointmentStatusId,
  'elation' as ehrSource,
  members.patientId,
  appointments.mrn,
  users.id as elationUserId,
  users.commonsUserId as userId,
  users.fullName as providerName,
  appointments.appointmentType,
  appointments.description,
  appointments.billingNote,
  appointments.durationMinutes,
  appointments.startAt,
  appointments.createdAt,
  statuses.status as appointmentStatus,
  statuses.statusAt,
  statuses.created_by_user_id as statusCreatedByElationUserId,
  statuses.statusAt = max(statuses.statusAt) over (partition by appointments.id)
    as isLatestAppointmentStatus,
  commons_appointments.id as commonsAppointmentId,
  {{ is_clinical_intake('appointments.appointmentType') }} as isClinicalIntakeAppointment
from {{ of_day(ref('src_elation_appointment_latest')) }} as appointments
inner join statuses
  on statuses.appointment_id = appointments.id
inner join {{ of_day(ref('src_member')) }} as members
  on members.mrn = appointments.mrn and members.mrnName = 'elation'
inner join {{ of_day(ref('src_elation_user_latest')) }} as users
  on users.id = appointments.physicianUserId
left join commons_appointments
  on commons_appointments.patientId = members.patientId
  and commons_appointments.providerName = users.fullName
  and commons_appointments.startAt = appointments.startAt
  and commons_appointments.newest = 1
