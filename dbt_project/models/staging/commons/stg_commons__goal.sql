{{ mirror_table('commons', 'goal', [
  'id', 'patientId', 'title', 'description', 'label', 'riskAreaSlug', 'templateSlug', 'rank', 'isLegacy', 'createdById',
  'completedById', 'dueAt', 'completedAt', 'archivedAt', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
