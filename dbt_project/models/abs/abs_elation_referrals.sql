select
  orders.mirror_date,
  members.patientId,
  cast(orders.patient_id as string) as elationId,
  users.userId,
  cast(orders.id as string) as referralId,
  {{ instant('orders.creation_time') }} as createdAt,
  {{ instant('orders.last_modified') }} as updatedAt,
  {{ instant('orders.deletion_time') }} as deletedAt,
  cast(orders.practice_id as string) as recipientPracticeId,
  orders.recipient_org_name as practiceName,
  {{ full_name('orders.recipient_firstname', 'orders.recipient_lastname') }} as recipientName,
  orders.recipient_credentials as credentials,
  orders.recipient_npi as npi,
  orders.recipient_specialty as specialty,
  orders.subject as referralSubject,
  orders.body as referralText,
  orders.delivery_method as referralMethod
from {{ ref('stg_elation__referral_order') }} as orders
inner join {{ of_day(ref('src_member')) }} as members
  on members.mrn = cast(orders.patient_id as string) and members.mrnName = 'elation'
left join {{ of_day(ref('src_elation_user_latest')) }} as elation_users
  on elation_users.id = cast(orders.prescribing_user_id as string)
left join {{ of_day(ref('user')) }} as users
  on users.userId = elation_users.commonsUserId
