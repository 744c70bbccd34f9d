{{ mirror_table('member_index', 'member', [
  'id', 'cbhId', 'partnerId', 'cohortId', 'categoryId', 'mrnId', 'createdAt', 'deletedAt',
]) }}
