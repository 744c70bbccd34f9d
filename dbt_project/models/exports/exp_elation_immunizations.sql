{# Vaccines 212 and 213; deleted ones are left out of both. #}
select
  immunizations.mirror_date,
  cast(immunizations.id as string) as immunizationId,
  members.patientId,
  immunizations.name,
  immunizations.manufacturer_name as manufacturerName,
  immunizations.method,
  immunizations.administered_date as administeredDate,
  immunizations.expiration_date as expirationDate,
  immunizations.cvx
from {{ ref('stg_elation__patient_immunization') }} as immunizations
inner join {{ of_day(ref('src_member')) }} as members
  on members.mrn = cast(immunizations.patient_id as string) and members.mrnName = 'elation'
where immunizations.cvx in (212, 213) and immunizations.deletion_time is null
