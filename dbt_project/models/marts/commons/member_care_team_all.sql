select
  members.mirror_date,
  members.id as careTeamMemberId,
  members.patientId,
  members.userId,
  {{ full_name('users.firstName', 'users.lastName') }} as userName,
  users.userRole,
  members.isPrimaryContact,
  members.createdAt as assignedAt,
  members.deletedAt as assignedUntil
from {{ ref('stg_commons__care_team') }} as members
left join {{ ref('stg_commons__user') }} as users
  on users.id = members.userId
