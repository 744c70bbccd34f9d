{# The differences between DuckDB and BigQuery, all of them. #}

{% macro instant(wall_time) %}{{ return(adapter.dispatch('instant')(wall_time)) }}{% endmacro %}
{% macro duckdb__instant(wall_time) %}timezone('{{ var("wall_clock") }}', {{ wall_time }}){% endmacro %}
{# BigQuery's own reading of an hour that the autumn change repeats is summer time. Ours is standard
   time, as DuckDB's: a wall time is summer time only where no other reading gives it back. #}
{% macro bigquery__instant(wall_time) -%}
  {%- set zone, offsets = var("wall_clock"), var("wall_clock_offsets") -%}
  {%- set standard = "timestamp(" ~ wall_time ~ ", '" ~ offsets.standard ~ "')" -%}
  {%- set summer = "timestamp(" ~ wall_time ~ ", '" ~ offsets.summer ~ "')" -%}
  if(
    datetime({{ summer }}, '{{ zone }}') = {{ wall_time }}
      and not datetime({{ standard }}, '{{ zone }}') = {{ wall_time }},
    {{ summer }}, {{ standard }})
{%- endmacro %}

{# The local day of an instant. #}
{% macro local_day(instant) %}{{ return(adapter.dispatch('local_day')(instant)) }}{% endmacro %}
{% macro duckdb__local_day(instant) %}cast(timezone('{{ var("wall_clock") }}', {{ instant }}) as date){% endmacro %}
{% macro bigquery__local_day(instant) %}date({{ instant }}, '{{ var("wall_clock") }}'){% endmacro %}

{% macro utc_day(instant) %}{{ return(adapter.dispatch('utc_day')(instant)) }}{% endmacro %}
{% macro duckdb__utc_day(instant) %}cast(timezone('UTC', {{ instant }}) as date){% endmacro %}
{% macro bigquery__utc_day(instant) %}date({{ instant }}, 'UTC'){% endmacro %}

{% macro instant_literal(text) %}{{ return(adapter.dispatch('instant_literal')(text)) }}{% endmacro %}
{% macro duckdb__instant_literal(text) %}timestamptz '{{ text }}+00'{% endmacro %}
{% macro bigquery__instant_literal(text) %}timestamp '{{ text }}+00'{% endmacro %}

{# Whole days of 24 hours between two instants. #}
{% macro days_between(earlier, later) %}{{ return(adapter.dispatch('days_between')(earlier, later)) }}{% endmacro %}
{% macro duckdb__days_between(earlier, later) %}date_sub('day', {{ earlier }}, {{ later }}){% endmacro %}
{% macro bigquery__days_between(earlier, later) %}timestamp_diff({{ later }}, {{ earlier }}, day){% endmacro %}

{% macro microseconds(instant) %}{{ return(adapter.dispatch('microseconds')(instant)) }}{% endmacro %}
{% macro duckdb__microseconds(instant) %}epoch_us({{ instant }}){% endmacro %}
{% macro bigquery__microseconds(instant) %}unix_micros({{ instant }}){% endmacro %}

{# Replaces every match. Patterns are plain enough for RE2 in both. #}
{% macro replace_all(text, pattern, by) %}{{ return(adapter.dispatch('replace_all')(text, pattern, by)) }}{% endmacro %}
{% macro duckdb__replace_all(text, pattern, by) %}regexp_replace({{ text }}, {{ pattern_literal(pattern) }}, '{{ by }}', 'g'){% endmacro %}
{% macro bigquery__replace_all(text, pattern, by) %}regexp_replace({{ text }}, {{ pattern_literal(pattern) }}, '{{ by }}'){% endmacro %}

{% macro matches(text, pattern) %}{{ return(adapter.dispatch('matches')(text, pattern)) }}{% endmacro %}
{% macro duckdb__matches(text, pattern) %}regexp_matches({{ text }}, {{ pattern_literal(pattern) }}){% endmacro %}
{% macro bigquery__matches(text, pattern) %}regexp_contains({{ text }}, {{ pattern_literal(pattern) }}){% endmacro %}

{# Raw in both: no pattern of ours holds an apostrophe (write \x27). #}
{% macro pattern_literal(pattern) %}{{ return(adapter.dispatch('pattern_literal')(pattern)) }}{% endmacro %}
{% macro duckdb__pattern_literal(pattern) %}'{{ pattern }}'{% endmacro %}
{% macro bigquery__pattern_literal(pattern) %}r'{{ pattern }}'{% endmacro %}

{# A join with the elements of a list column: `element`, and its `position` from 0 where asked. #}
{% macro elements(list, element, position=none) %}{{ return(adapter.dispatch('elements')(list, element, position)) }}{% endmacro %}
{% macro duckdb__elements(list, element, position) -%}
  cross join lateral (
    select unnest({{ list }}) as {{ element }}
    {%- if position %}, generate_subscripts({{ list }}, 1) - 1 as {{ position }}{% endif %}
  ) as {{ element }}_rows
{%- endmacro %}
{% macro bigquery__elements(list, element, position) -%}
  cross join unnest({{ list }}) as {{ element }}{% if position %} with offset as {{ position }}{% endif %}
{%- endmacro %}

{# The type of an instant. A contract says it with `target.type` itself: macros are unknown there. #}
{% macro instant_type() %}{{ return(adapter.dispatch('instant_type')()) }}{% endmacro %}
{% macro duckdb__instant_type() %}timestamptz{% endmacro %}
{% macro bigquery__instant_type() %}timestamp{% endmacro %}
