{#- A note is what its kind, its id and its patient say: kinds count their ids apart, and members who
    share an MRN have the same notes. -#}
{%- set key = ['noteKind', 'encounterId', 'patientId'] -%}
with encounters as (
  select
    mirror_date,
    patient.patientId as patientId,
    patient.source.name as encounterSource,
    insertedAt,
    encounter
  from {{ of_day(ref('src_patient_encounters_latest')) }} as latest
),

notes as (
  select
    encounters.mirror_date,
    identifier.id as encounterId,
    identifier.idType as noteKind,
    encounters.patientId,
    encounters.encounterSource,
    encounters.encounter.type.name as encounterType,
    encounters.encounter.type.code as encounterTypeCode,
    encounters.encounter.dateTime.instant as encounterAt,
    encounters.encounter.endDateTime.instant as signedAt,
    encounters.encounter.draft as isDraft,
    encounters.encounter.reasons as reasons,
    encounters.encounter.providers as providers
  from encounters
  {{ elements('encounters.encounter.identifiers', 'identifier') }}
  where identifier.idType in ('Visit Note', 'Non-Visit Note')
),

texts as (
  select
    {{ keyed('notes', key) }},
    string_agg(reason.notes, '; ' order by reason_position) as noteText
  from notes
  {{ elements('notes.reasons', 'reason', 'reason_position') }}
  where reason.notes is not null
  group by {{ keyed('notes', key) }}
),

providers as (
  select
    {{ keyed('notes', key) }},
    {{ squeezed(full_name('provider.firstName', 'provider.lastName')) }} as squeezedName,
    provider.identifiers as identifiers
  from notes
  {{ elements('notes.providers', 'provider') }}
),

provider_ids as (
  select
    {{ keyed('providers', key) }},
    provider_id.idType as idType,
    provider_id.id as id
  from providers
  {{ elements('providers.identifiers', 'provider_id') }}
),

users as (
  select
    userId,
    userRole,
    userEmail,
    userNpi,
    {{ squeezed('userName') }} as squeezedName
  from {{ of_day(ref('user')) }} as today
  where userTerminatedAt is null
),

matches as (
  select {{ keyed('provider_ids', key) }}, users.userId, users.userRole, true as byEmail
  from provider_ids
  inner join users on users.userEmail = provider_ids.id
  where provider_ids.idType = 'email'
  union all
  select {{ keyed('provider_ids', key) }}, users.userId, users.userRole, false as byEmail
  from provider_ids
  inner join users on users.userNpi = provider_ids.id
  where provider_ids.idType = 'npi'
  union all
  select {{ keyed('providers', key) }}, users.userId, users.userRole, false as byEmail
  from providers
  inner join users on users.squeezedName = providers.squeezedName
  where providers.squeezedName <> ''
),

ranked as (
  select
    {{ key | join(', ') }},
    userId,
    row_number() over (
      partition by {{ key | join(', ') }}
      order by
        case when userRole = 'Physician' then 0 else 1 end,
        case when userRole like '%Support_Specialist' then 1 else 0 end,
        case when userRole = 'Nurse_Practitioner' then 0 else 1 end,
        case when byEmail then 0 else 1 end,
        userId
    ) as place
  from matches
)

select
  notes.mirror_date,
  notes.encounterId,
  notes.noteKind,
  notes.patientId,
  ranked.userId,
  notes.encounterSource,
  notes.encounterType,
  notes.encounterTypeCode,
  notes.encounterAt,
  notes.signedAt,
  notes.isDraft,
  texts.noteText,
  {{ is_clinical_intake('notes.encounterType') }} as isClinicalIntakeEncounter
from notes
inner join {{ of_day(ref('src_member')) }} as members
  on members.patientId = notes.patientId
inner join ranked
  on {{ same_key('ranked', 'notes', key) }} and ranked.place = 1
left join texts
  on {{ same_key('texts', 'notes', key) }}
