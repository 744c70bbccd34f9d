{{ mirror_table('member_index', 'mrn', [
  'id', 'mrn', 'name', 'deletedAt',
]) }}
