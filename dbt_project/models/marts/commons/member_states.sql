{%- set states = patient_states() -%}
with states as (
  select
    patientId,
    {%- for state, (order, column) in states.items() %}
    max(case when currentState = '{{ state }}' then createdAt end) as {{ column }},
    {%- endfor %}
    max(case when currentState in ('disenrolled', 'disenrolled_after_consent') then createdAt end)
      as lastDisenrolledAt
  from {{ ref('stg_commons__patient_state') }}
  group by patientId
),

current_states as (
  select
    patientId,
    currentState,
    createdAt,
    row_number() over (partition by patientId order by createdAt desc, id) as newest
  from {{ ref('stg_commons__patient_state') }}
  where deletedAt is null
),

disenrollments as (
  select patientId, max(createdAt) as disenrolledAt
  from {{ ref('stg_commons__patient_disenrollment') }}
  group by patientId
),

ends as (
  select
    states.patientId,
    greatest(
      coalesce(states.lastDisenrolledAt, disenrollments.disenrolledAt),
      coalesce(disenrollments.disenrolledAt, states.lastDisenrolledAt)
    ) as endedAt
  from states
  left join disenrollments
    on disenrollments.patientId = states.patientId
)

select
  {{ mirror_date_literal() }} as mirror_date,
  states.patientId,
  current_states.currentState,
  current_states.createdAt as currentStateAt,
  cast(case current_states.currentState
    {%- for state, (order, column) in states.items() %}
    when '{{ state }}' then {{ order }}
    {%- endfor %}
  end as {{ dbt.type_bigint() }}) as stateOrder,
  {%- for order, column in states.values() %}
  states.{{ column }},
  {%- endfor %}
  coalesce({{ days_between('ends.endedAt', 'states.attributedAt') }} >= 30, false) as isReattributed
from states
inner join ends
  on ends.patientId = states.patientId
left join current_states
  on current_states.patientId = states.patientId and current_states.newest = 1
