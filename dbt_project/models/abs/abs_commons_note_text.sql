with notes as (
  select
    mirror_date,
    id,
    eventGroupId,
    templateSlug,
    text,
    createdAt,
    row_number() over (partition by eventGroupId order by createdAt desc, id) as newest
  from {{ ref('stg_commons__note_transformed') }}
  where deletedAt is null
)

select mirror_date, eventGroupId, id as noteId, templateSlug, text as noteText, createdAt
from notes
where newest = 1
