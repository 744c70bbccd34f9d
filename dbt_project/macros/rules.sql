{# The rules in words, each in one place. #}

{# `+tag` of an address is a mailbox's own label: everything from the first + to the last @. #}
{% macro without_tag(email) %}{{ replace_all(email, '[+].*@', '@') }}{% endmacro %}

{# Names as they are compared: letters only, lower case. #}
{% macro squeezed(name) %}{{ replace_all("lower(" ~ name ~ ")", '[^a-z]', '') }}{% endmacro %}

{% macro full_name(first, last) -%}
  nullif(trim(coalesce({{ first }}, '') || ' ' || coalesce({{ last }}, '')), '')
{%- endmacro %}

{% macro is_clinical_intake(type) -%}
  coalesce(
    (starts_with({{ type }}, 'Annual Provider Visit') or strpos({{ type }}, 'Medical Intake') > 0)
    and (ends_with({{ type }}, 'Home') or ends_with({{ type }}, 'Hub')
         or ends_with({{ type }}, 'Televideo')),
    false)
{%- endmacro %}

{# The first word found decides, so the order is the rule. #}
{% macro appointment_modality(type) -%}
  {%- set words = [
    ('async', 'Async Visit Note'), ('home', 'House Call'), ('hub', 'Office'),
    ('televideo', 'Telemedicine'), ('telephon', 'Telephone'), ('telehealth', 'Telephone'),
    ('virtual', 'Telemedicine'), ('office', 'Office'), ('video', 'Telemedicine'), ('app', 'App'),
  ] -%}
  {%- for word in var('other_f2f_words') %}{% do words.append((word, 'Other F2F')) %}{% endfor -%}
  {%- for word in var('other_non_f2f_words') %}{% do words.append((word, 'Other Non-F2F')) %}{% endfor -%}
  case
    {%- for word, modality in words %}
    when strpos(lower({{ type }}), '{{ word }}') > 0 then '{{ modality }}'
    {%- endfor %}
    else 'Other'
  end
{%- endmacro %}

{% macro appointment_status(status) -%}
  case lower(trim({{ status }}))
    when 'notseen' then 'noShowed'
    when 'no show' then 'noShowed'
    when 'canceled' then 'cancelled'
    when 'checkedout' then 'completed'
    when 'completed' then 'completed'
    when 'billed' then 'completed'
    else lower(trim({{ status }}))
  end
{%- endmacro %}

{% macro friendly_partner_name(name) -%}
  {%- set names = var('friendly_partner_names') -%}
  {%- if not names %}{{ return(name) }}{% endif -%}
  case {{ name }}
    {%- for legal, friendly in names.items() %}
    when {{ dbt.string_literal(dbt.escape_single_quotes(legal)) }}
      then {{ dbt.string_literal(dbt.escape_single_quotes(friendly)) }}
    {%- endfor %}
    else {{ name }}
  end
{%- endmacro %}

{# Patient's states in the order of their life cycle: word -> (order, column) #}
{% macro patient_states() -%}
  {{ return({
    'attributed': (0, 'attributedAt'), 'assigned': (1, 'assignedAt'),
    'contact_attempted': (2, 'contactAttemptedAt'), 'reached': (3, 'reachedAt'),
    'interested': (4, 'interestedAt'), 'very_interested': (5, 'veryInterestedAt'),
    'consented': (6, 'consentedAt'), 'enrolled': (7, 'enrolledAt'),
    'disenrolled_after_consent': (8, 'disenrolledAfterConsentAt'),
    'disenrolled': (9, 'disenrolledAt'), 'not_interested': (10, 'notInterestedAt'),
    'ineligible': (-1, 'ineligibleAt'),
  }) }}
{%- endmacro %}

{# Columns that are a key together: of one relation, and equal in two. #}
{% macro keyed(relation, key) -%}
  {% for column in key %}{{ relation }}.{{ column }}{{ ", " if not loop.last }}{% endfor %}
{%- endmacro %}

{% macro same_key(left, right, key) -%}
  {% for column in key %}{{ left }}.{{ column }} = {{ right }}.{{ column }}{{ " and " if not loop.last }}{% endfor %}
{%- endmacro %}

{# One id from several values; NULL and empty text stay apart. #}
{% macro hash_of(values) -%}
  {%- set parts = [] -%}
  {%- for value in values -%}
    {%- do parts.append("coalesce('=' || cast(" ~ value ~ " as string), '')") -%}
  {%- endfor -%}
  {{ dbt.hash(parts | join(" || '|' || ")) }}
{%- endmacro %}
