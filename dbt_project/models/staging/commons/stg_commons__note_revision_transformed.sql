{{ mirror_table('commons', 'note_revision_transformed', [
  'id', 'timelineEventId', 'text', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
