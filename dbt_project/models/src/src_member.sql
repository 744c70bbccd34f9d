select
  members.mirror_date,
  members.id as patientId,
  members.cbhId,
  members.cohortId,
  cohorts.name as cohortName,
  cohorts.goLiveDate as cohortGoLiveDate,
  members.partnerId,
  {{ friendly_partner_name('partners.name') }} as partnerName,
  mrns.id as mrnId,
  mrns.mrn,
  mrns.name as mrnName,
  members.createdAt
from {{ ref('stg_member_index__member') }} as members
left join {{ ref('stg_member_index__cohort') }} as cohorts
  on cohorts.id = members.cohortId
left join {{ ref('stg_member_index__partner') }} as partners
  on partners.id = members.partnerId
left join {{ ref('stg_member_index__mrn') }} as mrns
  on mrns.id = members.mrnId and mrns.deletedAt is null
where members.deletedAt is null
  and (members.cohortId > 0 or members.cohortId is null)
