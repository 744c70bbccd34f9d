{{ mirror_table('commons', 'patient_state', [
  'id', 'patientId', 'currentState', 'updatedById', 'createdAt', 'deletedAt',
]) }}
