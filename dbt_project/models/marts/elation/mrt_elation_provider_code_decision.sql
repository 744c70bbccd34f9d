with appointments as (
  select distinct mrn, {{ local_day('startAt') }} as appointmentDay
  from {{ of_day(ref('src_elation_appointment_latest')) }} as latest
),

answers as (
  select
    notes.mirror_date,
    cast(notes.patient_id as string) as mrn,
    cast(notes.id as string) as noteId,
    cast(coalesce(notes.signed_by_user_id, notes.physician_user_id) as string) as userId,
    cast(notes.document_date as date) as documentDate,
    {{ instant('notes.signed_time') }} as signedAt,
    {{ dbt.split_part('tags.value', "' '", 1) }} as dxCode,
    nullif({{ dbt.split_part('tags.value', "' '", 2) }}, '') as result,
    tags.id as tagId
  from {{ ref('stg_elation__visit_note') }} as notes
  inner join {{ ref('stg_elation__visit_note_document_tag') }} as links
    on links.visit_note_id = notes.id
  inner join {{ ref('stg_elation__document_tag') }} as tags
    on tags.id = links.document_tag_id
  where notes.deletion_time is null
    and cast(notes.signed_time as date) >= cast(notes.document_date as date)
    {# CONFIRMED is also in DISCONFIRMED #}
    and (
      {{ matches('tags.value', '^[^ ]*CB') }}
      or {{ matches('tags.value', 'RESOLVED|INCONCLUSIVE|CONFIRMED') }}
    )
),

seen as (
  select
    answers.mirror_date,
    answers.mrn,
    answers.noteId,
    answers.userId,
    answers.documentDate,
    answers.signedAt,
    answers.dxCode,
    answers.result,
    row_number() over (
      partition by answers.mrn, answers.dxCode, answers.documentDate
      order by answers.signedAt desc, answers.noteId desc, answers.tagId desc
    ) as newest
  from answers
  inner join appointments
    on appointments.mrn = answers.mrn and appointments.appointmentDay = answers.documentDate
)

select
  seen.mirror_date,
  {{ hash_of(['seen.mrn', 'seen.dxCode', 'seen.documentDate']) }} as id,
  members.patientId,
  seen.mrn,
  seen.noteId,
  seen.documentDate,
  seen.signedAt,
  seen.dxCode,
  seen.result,
  users.fullName as providerName,
  users.npi as providerNpi,
  users.commonsUserId as userId
from seen
inner join {{ of_day(ref('src_member')) }} as members
  on members.mrn = seen.mrn and members.mrnName = 'elation'
left join {{ of_day(ref('src_elation_user_latest')) }} as users
  on users.id = seen.userId
where seen.newest = 1
