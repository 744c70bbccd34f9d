{{ mirror_table('commons', 'timeline_event', [
  'id', 'groupId', 'patientId', 'createdById', 'eventType', 'eventTimestamp', 'dataSource', 'isPublished',
  'markedAsErrorReason', 'isLegacy', 'status', 'createdAt', 'updatedAt', 'deletedAt',
]) }}
