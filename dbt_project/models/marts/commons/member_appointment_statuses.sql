{{ config(tags=['evening']) }}

with providers as (
  select
    userId,
    userName,
    row_number() over (partition by userName order by userCreationDate desc, userId) as newest
  from {{ of_day(ref('user')) }} as users
  where userTerminatedAt is null
),

joined as (
  select
    coalesce(commons.id, ehr.ehrAppointmentId) as appointmentId,
    commons.id as commonsAppointmentId,
    ehr.ehrAppointmentId,
    ehr.ehrAppointmentStatusId,
    case
      when commons.id is null then ehr.ehrSource
      when ehr.ehrAppointmentId is null then commons.generatedBy
      else 'commons and ' || ehr.ehrSource
    end as appointmentSource,
    coalesce(ehr.patientId, commons.patientId) as patientId,
    coalesce(ehr.userId, providers.userId) as userId,
    coalesce(ehr.providerName, commons.providerName) as providerName,
    coalesce(ehr.appointmentType, commons.title) as appointmentType,
    coalesce(ehr.appointmentModality, {{ appointment_modality('commons.title') }})
      as appointmentModality,
    coalesce(ehr.startAt, commons.startAt) as startAt,
    commons.endAt,
    ehr.appointmentStatus,
    ehr.statusAt,
    ehr.isLatestAppointmentStatus,
    coalesce(ehr.isClinicalIntakeAppointment, {{ is_clinical_intake('commons.title') }})
      as isClinicalIntakeAppointment
  from {{ of_day(ref('src_commons_appointments')) }} as commons
  full outer join {{ of_day(ref('abs_ehr_appointment_statuses')) }} as ehr
    on ehr.commonsAppointmentId = commons.id
  left join providers
    on providers.userName = commons.providerName and providers.newest = 1
),

firsts as (
  select
    appointmentId,
    {%- for status in ['scheduled', 'cancelled', 'completed', 'noShowed'] %}
    min(case when appointmentStatus = '{{ status }}' then statusAt end) as {{ status }}At,
    {%- endfor %}
    {# a time moved is a further status `scheduled` of the same EHR appointment #}
    count(case when appointmentStatus = 'scheduled' then 1 end)
      - count(distinct case when appointmentStatus = 'scheduled' then ehrAppointmentId end)
      as timesRescheduled
  from joined
  group by appointmentId
)

select
  {{ mirror_date_literal() }} as mirror_date,
  joined.appointmentId,
  joined.commonsAppointmentId,
  joined.ehrAppointmentId,
  joined.ehrAppointmentStatusId,
  joined.appointmentSource,
  joined.patientId,
  joined.userId,
  joined.providerName,
  joined.appointmentType,
  joined.appointmentModality,
  joined.startAt,
  joined.endAt,
  case when {{ local_day('joined.startAt') }} < {{ mirror_date_literal() }}
    then 'past' else 'upcoming' end as pastOrUpcoming,
  joined.appointmentStatus,
  joined.statusAt,
  joined.isLatestAppointmentStatus,
  joined.isClinicalIntakeAppointment,
  firsts.timesRescheduled > 0 as wasRescheduled,
  firsts.scheduledAt is not null as wasScheduled,
  firsts.scheduledAt as wasScheduledAt,
  firsts.cancelledAt is not null as wasCancelled,
  firsts.cancelledAt as wasCancelledAt,
  firsts.completedAt is not null as wasCompleted,
  firsts.completedAt as wasCompletedAt,
  firsts.noShowedAt is not null as wasNoshowed,
  firsts.noShowedAt as wasNoshowedAt
from joined
inner join firsts
  on firsts.appointmentId = joined.appointmentId
