{# Before anything is built: every mirrored table that the selected models read must have been
   published on the mirror date, or the run stops and names those that were not. A table that is
   missing for the day would otherwise look like an empty one. #}
{% macro require_published() %}
  {%- if not execute or not var('require_published') or flags.WHICH not in ('run', 'build') -%}
    {{ return('') }}
  {%- endif -%}
  {%- set missing = [] -%}
  {%- for database, tables in mirrored_inputs(selected_resources).items() -%}
    {%- set published = published_tables(database) -%}
    {%- for table in tables | sort if table not in published -%}
      {%- do missing.append(database ~ '.' ~ table) -%}
    {%- endfor -%}
  {%- endfor -%}
  {%- if missing -%}
    {{ exceptions.raise_compiler_error(
      "not published on " ~ mirror_date() ~ ": " ~ missing | join(', ')
      ~ ". Next: mirror that partition, or build a day that holds them") }}
  {%- endif -%}
  {{ return('') }}
{% endmacro %}

{# database -> names of its catalogued tables that these nodes read, also through ephemerals #}
{% macro mirrored_inputs(unique_ids) %}
  {%- set found = {} -%}
  {%- set waiting = unique_ids | select('in', graph.nodes) | list -%}
  {%- set seen = [] -%}
  {%- for _ in range(10000) if waiting -%}
    {%- set node = graph.nodes[waiting.pop()] -%}
    {%- if node.resource_type == 'model' and node.unique_id not in seen -%}
      {%- do seen.append(node.unique_id) -%}
      {%- for parent in node.depends_on.nodes -%}
        {%- set source = graph.sources.get(parent) -%}
        {%- if source and source.config.meta.get('mirror_metadata') -%}
          {%- do found.setdefault(source.source_name, []).append(source.name) -%}
        {%- elif parent in graph.nodes and graph.nodes[parent].config.materialized == 'ephemeral' -%}
          {%- do waiting.append(parent) -%}
        {%- endif -%}
      {%- endfor -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(found) }}
{% endmacro %}

{% macro published_tables(database) %}
  {%- set schema = graph.sources.values() | selectattr('source_name', 'equalto', database)
      | map(attribute='schema') | first -%}
  {%- set metadata = api.Relation.create(target.project or target.database, schema, 'MIRROR_METADATA') -%}
  {%- set rows = run_query(
      "select distinct TABLE_NAME from " ~ metadata ~ " where " ~ adapter.quote('partition') ~ " = "
      ~ mirror_date_literal() ~ " and published") -%}
  {{ return(rows.columns[0].values()) }}
{% endmacro %}
