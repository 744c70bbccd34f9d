select
  orders.mirror_date,
  members.patientId,
  cast(orders.patient_id as string) as elationId,
  users.userId,
  cast(orders.id as string) as prescriptionId,
  {{ instant('orders.creation_time') }} as createdAt,
  {{ instant('orders.last_modified') }} as updatedAt,
  {{ instant('orders.deletion_time') }} as deletedAt,
  orders.type as orderType,
  orders.medication_type as drugType,
  orders.route as drugRoute,
  orders.form as drugForm,
  orders.strength as drugStrength,
  orders.qty as quantity,
  orders.auth_refills as refills,
  {{ replace_all('orders.ndc', '[.\\x27\\x22\\s-]', '') }} as ndc,
  orders.displayed_medication_name as drugName,
  orders.directions,
  orders.start_date as drugStartDate,
  orders.pharmacy_instructions as pharmacyInstructions
from {{ ref('stg_elation__med_order') }} as orders
inner join {{ of_day(ref('src_member')) }} as members
  on members.mrn = cast(orders.patient_id as string) and members.mrnName = 'elation'
left join {{ of_day(ref('src_elation_user_latest')) }} as elation_users
  on elation_users.id = cast(orders.prescribing_user_id as string)
left join {{ of_day(ref('user')) }} as users
  on users.userId = elation_users.commonsUserId
