select
  mirror_date,
  id,
  patientId,
  startAt,
  endAt,
  title,
  description,
  providerName,
  providerCredentials,
  generatedBy,
  clinicId,
  locationFreeText,
  facility,
  createdById,
  createdAt,
  updatedAt
from {{ ref('stg_commons__appointment') }}
where deletedAt is null and startAt >= {{ instant_literal('2017-01-01 00:00:00') }}
