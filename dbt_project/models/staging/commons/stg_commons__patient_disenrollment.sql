{{ mirror_table('commons', 'patient_disenrollment', [
  'id', 'patientId', 'reason', 'currentState', 'createdAt', 'deletedAt',
]) }}
