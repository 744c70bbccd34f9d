{{ mirror_table('commons', 'market', [
  'id', 'name', 'deletedAt',
]) }}
