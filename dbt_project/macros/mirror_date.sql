{# The day that is built, as YYYY-MM-DD. #}
{% macro mirror_date() %}
  {%- set day = var('mirror_date') | string -%}
  {%- if execute and not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', day) -%}
    {{ exceptions.raise_compiler_error(
      "no mirror date was given: pass --vars '{mirror_date: 2026-11-22}', the day to build") }}
  {%- endif -%}
  {{ return(day) }}
{% endmacro %}

{% macro mirror_date_literal() %}date '{{ mirror_date() }}'{% endmacro %}

{# The rows of a mirrored table on the mirror date, of these columns alone. #}
{% macro mirror_table(database, table, columns) -%}
  select
    {{ mirror_date_literal() }} as mirror_date,
    {% for column in columns %}{{ adapter.quote(column) }}{{ ", " if not loop.last }}{% endfor %}
  from {{ source(database, table) }}
  {{ where_mirrored() }}
{%- endmacro %}

{% macro where_mirrored() %}where _PARTITIONDATE = {{ mirror_date_literal() }}{% endmacro %}

{# The mirror date's rows of another model. #}
{% macro of_day(relation) -%}
  (select * from {{ relation }} where mirror_date = {{ mirror_date_literal() }})
{%- endmacro %}

{# dbt's own hook for tests: their default `where` stands for the mirror date's rows. #}
{% macro get_where_subquery(relation) -%}
  {%- set where = config.get('where', '') -%}
  {%- if where != '__mirror_date__' -%}
    {{ return(default__get_where_subquery(relation)) }}
  {%- endif -%}
  {%- if model.sources -%}
    {{ return("(select * from " ~ relation ~ " " ~ where_mirrored() ~ ") as dbt_subquery") }}
  {%- endif -%}
  {{ return("(select * from " ~ relation ~ " where mirror_date = " ~ mirror_date_literal() ~ ") as dbt_subquery") }}
{%- endmacro %}

{# The incremental strategy `day`: what the day held is replaced, also by nothing. #}
{% macro get_incremental_day_sql(arg_dict) -%}
  {%- set columns = get_quoted_csv(arg_dict.dest_columns | map(attribute='name')) -%}
  delete from {{ arg_dict.target_relation }} where mirror_date = {{ mirror_date_literal() }};
  insert into {{ arg_dict.target_relation }} ({{ columns }})
  select {{ columns }} from {{ arg_dict.temp_relation }}
{%- endmacro %}

{# Datasets are named in dbt_project.yml, without the profile's as a prefix. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
