{{ mirror_table('commons', 'care_team', [
  'id', 'patientId', 'userId', 'isPrimaryContact', 'createdAt', 'deletedAt',
]) }}
