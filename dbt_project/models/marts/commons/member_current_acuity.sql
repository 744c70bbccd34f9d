with acuities as (
  select
    mirror_date,
    patientId,
    score,
    createdAt,
    row_number() over (partition by patientId order by createdAt desc, id) as newest
  from {{ ref('stg_commons__patient_acuity') }}
  where deletedAt is null and not isRecommended
)

select
  mirror_date,
  patientId,
  score as acuityScore,
  case score
    when 0 then 'No Acuity'
    when 1 then 'Stable'
    when 2 then 'Mild'
    when 3 then 'Moderate'
    when 4 then 'Severe'
    when 5 then 'Critical'
  end as acuityDescription,
  cast(case
    when score in (4, 5) then 6
    when score = 3 then 4
    when score = 2 then 2
    when score = 1 then 1
    else 0
  end as {{ dbt.type_bigint() }}) as monthlyTarget,
  createdAt as acuitySince
from acuities
where newest = 1
