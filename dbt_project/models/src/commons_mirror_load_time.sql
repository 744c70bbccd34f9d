with loads as (
  select
    TABLE_NAME,
    BQ_LOAD_TIME,
    loaded_rows,
    bytes,
    min(BQ_LOAD_TIME) over (partition by TABLE_NAME) as first_load,
    row_number() over (partition by TABLE_NAME order by BQ_LOAD_TIME desc, run_id desc) as newest
  from {{ source('commons', 'MIRROR_METADATA') }}
  where {{ adapter.quote('partition') }} = {{ mirror_date_literal() }} and published
)

select
  {{ mirror_date_literal() }} as mirror_date,
  TABLE_NAME || '_{{ mirror_date() | replace("-", "") }}' as table_id,
  {{ utc_day('first_load') }} as creation_date,
  first_load as creation_time,
  {{ utc_day('BQ_LOAD_TIME') }} as modified_date,
  BQ_LOAD_TIME as modified_time,
  loaded_rows as row_count,
  bytes as size_bytes,
  'table' as type
from loads
where newest = 1 and loaded_rows > 0
