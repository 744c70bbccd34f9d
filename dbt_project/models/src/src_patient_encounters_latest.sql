{# A view over every day, not a copy: encounters carry all note texts. #}
{{ config(materialized='view') }}

with loads as (
  select
    _PARTITIONDATE as mirror_date,
    messageId,
    insertedAt,
    isStreaming,
    patient,
    encounter,
    rank() over (
      partition by _PARTITIONDATE, patient.patientId
      order by insertedAt desc, {{ dbt.safe_cast('messageId', dbt.type_bigint()) }} desc
    ) as newest
  from {{ source('medical', 'patient_encounters') }}
  where patient.patientId is not null
)

select
  mirror_date,
  messageId,
  insertedAt,
  isStreaming,
  patient,
  encounter
from loads
where newest = 1
