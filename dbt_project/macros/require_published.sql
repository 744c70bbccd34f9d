{# Before anything is built: every table that the selected models read must have been published on
   the mirror date, or the run stops and names those that were not. A table that is missing for the
   day would otherwise look like an empty one. #}
{% macro require_published() %}
  {%- if not execute or not var('require_published') or flags.WHICH not in ('run', 'build') -%}
    {{ return('') }}
  {%- endif -%}
  {%- set missing = [] -%}
  {%- for database, sources in tables_read(selected_resources) | groupby('source_name') -%}
    {%- set published = published_tables(sources) -%}
    {%- for table in sources | map(attribute='name') | unique | sort if table not in published -%}
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

{# The mirrored and derived tables that these nodes read, also through ephemerals and views. #}
{% macro tables_read(unique_ids) %}
  {%- set found = [] -%}
  {%- set waiting = unique_ids | select('in', graph.nodes) | list -%}
  {%- set seen = [] -%}
  {%- for _ in range(10000) if waiting -%}
    {%- set node = graph.nodes[waiting.pop()] -%}
    {%- if node.resource_type == 'model' and node.unique_id not in seen -%}
      {%- do seen.append(node.unique_id) -%}
      {%- for parent in node.depends_on.nodes -%}
        {%- set source = graph.sources.get(parent) -%}
        {%- set meta = source.config.meta if source else {} -%}
        {%- if meta.get('mirror_metadata') or meta.get('derived') -%}
          {%- do found.append(source) -%}
        {%- elif parent in graph.nodes and graph.nodes[parent].config.materialized in ('ephemeral', 'view') -%}
          {%- do waiting.append(parent) -%}
        {%- endif -%}
      {%- endfor -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(found) }}
{% endmacro %}

{# Names of those of one database's tables that have the day: of a catalogued database the mirror has
   recorded it, of others the rows tell. #}
{% macro published_tables(sources) %}
  {%- set database = target.project or target.database -%}
  {%- if sources[0].config.meta.get('mirror_metadata') -%}
    {%- set metadata = api.Relation.create(database, sources[0].schema, 'MIRROR_METADATA') -%}
    {%- set rows = run_query(
        "select distinct TABLE_NAME from " ~ metadata ~ " where " ~ adapter.quote('partition') ~ " = "
        ~ mirror_date_literal() ~ " and published") -%}
    {{ return(rows.columns[0].values()) }}
  {%- endif -%}
  {%- set found = [] -%}
  {%- for source in sources -%}
    {%- set relation = adapter.get_relation(database, source.schema, source.identifier) -%}
    {%- if relation and run_query("select 1 as one from " ~ relation ~ " " ~ where_mirrored() ~ " limit 1").rows -%}
      {%- do found.append(source.name) -%}
    {%- endif -%}
  {%- endfor -%}
  {{ return(found) }}
{% endmacro %}
