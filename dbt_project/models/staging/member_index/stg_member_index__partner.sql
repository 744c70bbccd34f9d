{{ mirror_table('member_index', 'partner', [
  'id', 'name', 'deletedAt',
]) }}
