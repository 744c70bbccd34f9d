{{ mirror_table('commons', 'patient_acuity', [
  'id', 'patientId', 'score', 'isRecommended', 'updatedById', 'createdAt', 'deletedAt',
]) }}
