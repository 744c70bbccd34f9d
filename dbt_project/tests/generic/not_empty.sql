{% test not_empty(model) %}
  {{ config(fail_calc="coalesce(max(is_empty), 0)") }}
  select 1 as is_empty
  from (select count(*) as rows_found from {{ model }}) as counted
  where rows_found = 0
{% endtest %}
