with elation_users as (
  select
    mirror_date,
    cast(id as string) as id,
    {{ without_tag('email') }} as email,
    first_name as firstName,
    last_name as lastName,
    {{ full_name('first_name', 'last_name') }} as fullName,
    npi,
    specialty,
    credentials,
    is_active as isActive,
    cast(practice_id as string) as practiceId
  from {{ ref('stg_elation__user') }}
),

commons_users as (
  select
    id,
    email,
    row_number() over (partition by email order by createdAt desc, id) as newest
  from {{ ref('stg_commons__user') }}
  where deletedAt is null
)

select
  elation_users.mirror_date,
  elation_users.id,
  elation_users.email,
  elation_users.firstName,
  elation_users.lastName,
  elation_users.fullName,
  elation_users.npi,
  elation_users.specialty,
  elation_users.credentials,
  elation_users.isActive,
  elation_users.practiceId,
  commons_users.id as commonsUserId
from elation_users
left join commons_users
  on commons_users.email = elation_users.email and commons_users.newest = 1
