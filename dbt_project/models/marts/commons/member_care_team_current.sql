{{ config(tags=['evening']) }}

select
  mirror_date,
  careTeamMemberId,
  patientId,
  userId,
  userName,
  userRole,
  isPrimaryContact,
  assignedAt
from {{ of_day(ref('member_care_team_all')) }} as members
where assignedUntil is null
