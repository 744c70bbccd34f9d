{{ mirror_table('elation', 'patient_immunization', [
  'id', 'patient_id', 'name', 'manufacturer_name', 'method', 'administered_date', 'expiration_date', 'cvx',
  'deletion_time',
]) }}
