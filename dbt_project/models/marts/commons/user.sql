with pods as (
  select
    members.userId,
    pods.id as podId,
    pods.name as podName,
    row_number() over (partition by members.userId order by members.createdAt desc, pods.id) as newest
  from {{ ref('stg_commons__clinic_pod_member') }} as members
  inner join {{ ref('stg_commons__clinic_pod') }} as pods
    on pods.id = members.clinicPodId and pods.deletedAt is null
  where members.deletedAt is null
),

elation_users as (
  select
    id,
    commonsUserId,
    row_number() over (
      partition by commonsUserId order by case when isActive then 0 else 1 end, id desc
    ) as first_choice
  from {{ of_day(ref('src_elation_user_latest')) }} as today
  where commonsUserId is not null
)

select
  users.mirror_date,
  users.id as userId,
  {{ full_name('users.firstName', 'users.lastName') }} as userName,
  users.userRole,
  users.email as userEmail,
  users.phone as userPhone,
  users.npi as userNpi,
  clinics.id as userHomeClinicId,
  clinics.name as userHomeClinicName,
  markets.id as userHomeMarketId,
  markets.name as userHomeMarketName,
  pods.podId as userPodId,
  pods.podName as userPodName,
  elation_users.id as elationUserId,
  users.createdAt as userCreationDate,
  users.lastLoginAt as userLastLoginAt,
  users.terminatedAt as userTerminatedAt
from {{ ref('stg_commons__user') }} as users
left join {{ ref('stg_commons__clinic') }} as clinics
  on clinics.id = users.homeClinicId
left join {{ ref('stg_commons__market') }} as markets
  on markets.id = coalesce(users.homeMarketId, clinics.marketId)
left join pods
  on pods.userId = users.id and pods.newest = 1
left join elation_users
  on elation_users.commonsUserId = users.id and elation_users.first_choice = 1
where users.deletedAt is null and users.lastLoginAt is not null
