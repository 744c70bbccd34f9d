{{ mirror_table('elation', 'appointment_status', [
  'id', 'appointment_id', 'status', 'creation_time', 'created_by_user_id', 'deletion_time',
]) }}
