with revisions as (
  select
    timelineEventId,
    text,
    row_number() over (partition by timelineEventId order by createdAt desc, id) as newest
  from {{ ref('stg_commons__note_revision_transformed') }}
  where deletedAt is null
)

select
  events.mirror_date,
  events.id as timelineEventId,
  events.groupId as eventGroupId,
  events.patientId,
  events.createdById as userId,
  events.eventType,
  events.eventTimestamp as eventAt,
  events.isPublished,
  originals.templateSlug,
  coalesce(revisions.text, originals.noteText) as noteText,
  revisions.timelineEventId is not null as isRevised,
  events.createdAt
from {{ ref('stg_commons__timeline_event') }} as events
left join {{ of_day(ref('abs_commons_note_text')) }} as originals
  on originals.eventGroupId = events.groupId
left join revisions
  on revisions.timelineEventId = events.id and revisions.newest = 1
where events.deletedAt is null
  and (originals.eventGroupId is not null or revisions.timelineEventId is not null)
