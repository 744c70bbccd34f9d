{# The source repeats rows; equal ones become one. #}
with events as (
  select distinct mirror_date, body, type, createdAt
  from {{ ref('stg_commons__event') }}
)

select
  mirror_date,
  {{ hash_of(['body', 'type', microseconds('createdAt')]) }} as id,
  body,
  type,
  createdAt
from events
