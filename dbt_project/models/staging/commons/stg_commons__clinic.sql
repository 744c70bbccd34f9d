{{ mirror_table('commons', 'clinic', [
  'id', 'name', 'marketId', 'deletedAt',
]) }}
