{{ mirror_table('commons', 'note_transformed', [
  'id', 'eventGroupId', 'templateSlug', 'text', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
