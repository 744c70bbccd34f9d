{{ mirror_table('commons', 'task', [
  'id', 'groupId', 'goalGroupId', 'patientId', 'title', 'description', 'status', 'createdById', 'assignedToId',
  'completedById', 'dueAt', 'completedAt', 'isDraft', 'isUrgent', 'isLegacy', 'isMemberSelfManagement',
  'templateSlug', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
