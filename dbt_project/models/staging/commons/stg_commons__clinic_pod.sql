{{ mirror_table('commons', 'clinic_pod', [
  'id', 'name', 'clinicId', 'deletedAt',
]) }}
