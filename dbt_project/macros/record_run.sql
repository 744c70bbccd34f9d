{# After a run: one row per node into the audit table: node, status, seconds, time. Never a
   message, because a driver's text may hold values. #}
{% macro record_run(results) %}
  {%- if not results -%}{{ return('') }}{%- endif -%}
  {%- set audit = api.Relation.create(target.project or target.database, 'dbt_audit', 'run_results') -%}
  {%- do run_query("create schema if not exists " ~ audit.without_identifier()) -%}
  create table if not exists {{ audit }} (
    invocation_id {{ dbt.type_string() }}, node {{ dbt.type_string() }},
    status {{ dbt.type_string() }}, execution_seconds {{ dbt.type_float() }},
    mirror_date date, recorded_at {{ instant_type() }}
  );
  insert into {{ audit }} (invocation_id, node, status, execution_seconds, mirror_date, recorded_at)
  values
  {%- for result in results %}
    ('{{ invocation_id }}', '{{ result.node.unique_id }}', '{{ result.status }}',
     {{ result.execution_time }}, {{ mirror_date_literal() }},
     {{ instant_literal(run_started_at.astimezone(modules.pytz.utc).strftime('%Y-%m-%d %H:%M:%S')) }})
    {{- ',' if not loop.last }}
  {%- endfor %}
{% endmacro %}
