{# One branch per EHR; today there is one. #}
select
  mirror_date,
  ehrAppointmentId,
  ehrAppointmentStatusId,
  ehrSource,
  patientId,
  userId,
  providerName,
  appointmentType,
  {{ appointment_modality('appointmentType') }} as appointmentModality,
  description,
  durationMinutes,
  startAt,
  createdAt,
  {{ appointment_status('appointmentStatus') }} as appointmentStatus,
  statusAt,
  isLatestAppointmentStatus,
  commonsAppointmentId,
  isClinicalIntakeAppointment
from {{ of_day(ref('abs_elation_appointment_statuses')) }} as elation
